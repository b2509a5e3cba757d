"""What twenty open pages ask at once is answered once: to the same person, for seconds, and never across a write."""

from __future__ import annotations

from decimal import Decimal

import pytest

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import BrokerState
from tests.aws.dashboard.conftest import Web

POLL = "pages/portfolio/live"


def equity(ledger: Ledger, dollars: int) -> None:
    at = "2020-01-02T15:00:00Z"
    ledger.put_broker_state(
        BrokerState(now=at, is_open=True, next_open=at, next_close=at, account_id="a", equity=Decimal(dollars))
    )  # fmt: skip


@pytest.fixture
def polled(web: Web, ledger_table: Ledger) -> Web:
    """Somebody's page has asked, and the equity has changed since."""
    equity(ledger_table, 100)
    assert "$100.00" in web.get(POLL).text
    equity(ledger_table, 200)
    return web


def test_a_poll_within_seconds_gets_the_answer_that_is_there(polled: Web) -> None:
    again = polled.as_user(now="2020-01-02T15:00:04Z").get(POLL)
    assert "$100.00" in again.text
    assert polled.get(POLL, **{"If-None-Match": again.headers["ETag"]}).status == 304
    assert "$200.00" in polled.as_user(now="2020-01-02T15:00:05Z").get(POLL).text


def test_who_opens_the_page_or_asks_the_api_is_answered_anew(polled: Web) -> None:
    assert "$200.00" in polled.get("pages/portfolio").text
    assert polled.get("api/portfolio/live").body["equity"] == "200"
    assert "$200.00" in polled.get(POLL, {"of": "another query"}).text


@pytest.mark.parametrize(("user", "scopes"), [("berta", ("read", "trade", "approve")), ("anna", ("read",))])
def test_another_person_or_another_token_gets_an_answer_of_its_own(polled: Web, user: str, scopes: tuple[str, ...]) -> None:
    assert "$200.00" in polled.as_user(user, scopes=scopes).get(POLL).text  # type: ignore[arg-type]


def test_after_a_write_every_page_is_answered_anew(polled: Web) -> None:
    assert polled.post("api/watchlist", {"symbol": "AAPL"}, key="watch-aapl-1").status == 200
    assert "$200.00" in polled.get(POLL).text


def test_a_page_that_could_not_be_read_is_not_kept(web: Web, ledger_table: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setenv("LEDGER_TABLE", "there-is-no-such-table")
        assert web.get(POLL).status == 503
    equity(ledger_table, 100)
    assert "$100.00" in web.get(POLL).text


def test_the_health_page_asks_for_its_shared_fragment(web: Web) -> None:
    shown = web.get("pages/health").text
    assert 'hx-get="/v1/app/pages/health/live"' in shown
    assert web.get("pages/health/live").text == shown
