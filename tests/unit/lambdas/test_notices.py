"""What decide tells of corporate actions: a name that is not bought any more, and news that came late."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lambdas.decide.data import KnownAction, MarketSnapshot
from lambdas.decide.notices import TOLD_SESSIONS, notices
from tests.markets import walk

SPUN = KnownAction(symbol="S1", ex_date="2019-12-30", action="spin_off", value=None, sessions=2)
PAID = KnownAction(symbol="S0", ex_date="2019-11-20", action="cash_dividend", value=1.57, sessions=29)


def snapshot(*, broken: tuple[KnownAction, ...] = (), late: tuple[KnownAction, ...] = ()) -> MarketSnapshot:
    return MarketSnapshot(
        market=walk(sessions=30), inputs_sha256="", quarantined=0, missing={}, broken={one.symbol: one for one in broken}, late=late
    )


def test_a_broken_series_says_why_and_what_to_do() -> None:
    (told,) = notices(snapshot(broken=(SPUN,)), held=())
    assert told.rule == "series-broken:S1"
    assert told.detail.startswith("S1 gives its holders shares of another company, and is worth less by them (spin off of 2019-12-30):")
    assert "carried" not in told.detail
    (told,) = notices(snapshot(broken=(SPUN,)), held=("S1",))
    assert "what is held is carried. Nothing must be done" in told.detail


@pytest.mark.parametrize(
    ("sessions", "held", "late", "rules"),
    [
        (TOLD_SESSIONS, (), False, ["series-broken:S1"]),
        (TOLD_SESSIONS + 1, (), False, []),
        (TOLD_SESSIONS + 1, ("S1",), False, ["series-broken:S1"]),
        (TOLD_SESSIONS + 1, (), True, ["series-broken:S1", "action-late"]),
    ],
)
def test_it_is_told_in_its_first_sessions_and_while_the_name_is_held(
    sessions: int, held: tuple[str, ...], late: bool, rules: list[str]
) -> None:
    spun = replace(SPUN, sessions=sessions)
    assert [one.rule for one in notices(snapshot(broken=(spun,), late=(spun,) if late else ()), held=held)] == rules


def test_late_news_is_one_alert_a_session() -> None:
    (told,) = notices(snapshot(late=(PAID, replace(PAID, symbol="S2", sessions=3))), held=())
    assert (told.rule, told.subject) == ("action-late", "Corporate actions of S0, S2 were told late")
    assert "(cash dividend of 2019-11-20, 1.57 per share), 28 closes late; S2 pays" in told.detail


def test_an_action_of_an_unknown_kind_is_told_too() -> None:
    (told,) = notices(snapshot(broken=(replace(SPUN, action="conjuring"),)), held=())
    assert "has an action of a kind that nothing here knows (conjuring of 2019-12-30)" in told.detail
