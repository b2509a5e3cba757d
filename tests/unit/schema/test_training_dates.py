"""What "auto" means as of a session, and which dates cannot work."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learning.configuration import Configuration, folds_of
from papertape.market_data.sessions import sessions_between
from schema import training_dates
from schema.settings import Settings, SettingsError, TrainingDates, checked, load
from schema.training_dates import as_of, dates_as_of, refuse_impossible_dates, sessions_at_least
from trading_env.evaluation import walk_forward
from trading_env.evaluation.gate import GateThresholds

SHIPPED = load(Path(__file__).parents[3] / "settings.toml")
TODAY = date(2026, 11, 21)


def changed(**training: Any) -> Settings:
    document = SHIPPED.model_dump()
    document["training"] |= training
    return checked(document, source="test")


def calendar(end: date) -> Any:
    """The exchange's sessions from the vendor's first year to `end`."""
    return np.array([session.date for session in sessions_between(training_dates.FIRST_BARS, end)], dtype="datetime64[D]")


def test_automatic_dates_follow_from_the_vendor_and_the_newest_session() -> None:
    assert dates_as_of(SHIPPED.training, date(2026, 11, 20)) == TrainingDates(date(2017, 1, 1), date(2019, 1, 1), date(2026, 11, 21))
    assert as_of(SHIPPED, date(2026, 11, 20)).training.dates == dates_as_of(SHIPPED.training, date(2026, 11, 20))


def test_the_shipped_dates_give_the_gate_all_the_evidence_that_it_asks_for() -> None:
    bar, last = GateThresholds(), date(2026, 11, 20)
    *judged, holdout = folds_of(calendar(last), as_of(SHIPPED, last))
    sessions = calendar(last)
    count = int(((sessions >= judged[0].test_start) & (sessions <= judged[-1].test_end)).sum())
    assert (len(judged), count) == (bar.min_folds, 1732)
    assert count >= bar.min_sessions
    assert str(holdout.test_end) == "2026-11-20"
    assert judged[0].train_start == np.datetime64("2017-01-03"), "252 sessions after the vendor's first bar"
    assert int(np.searchsorted(sessions, judged[0].train_start)) == 252


def test_pinned_dates_are_never_changed_and_may_stand_beside_automatic_ones() -> None:
    pinned = changed(start=date(2017, 1, 3), test_start=date(2018, 2, 1), live_start=date(2026, 11, 2))
    assert as_of(pinned, date(2026, 11, 20)) is pinned
    mixed = changed(start="2020-02-29", live_start=date(2026, 11, 2))
    assert dates_as_of(mixed.training, TODAY) == (date(2020, 2, 29), date(2022, 2, 28), date(2026, 11, 2))
    with pytest.raises(SettingsError, match=r"^settings as of 2018-06-01: training: start < test_start < live_start must hold"):
        as_of(SHIPPED, date(2018, 6, 1))


def test_the_next_week_is_the_same_configuration_and_another_trial() -> None:
    this, next_week = (Configuration.of(as_of(SHIPPED, date(2026, 11, day))) for day in (20, 27))
    assert this.identity == next_week.identity
    assert this.trial != next_week.trial


def test_what_is_still_automatic_is_part_of_no_result() -> None:
    with pytest.raises(SettingsError, match="training dates are known as of a session only, were auto, auto, auto"):
        Configuration.of(SHIPPED)


@pytest.mark.parametrize(
    ("training", "words"),
    [
        (
            {"start": "2006-01-03", "test_start": "2011-01-03"},
            "test_start = 2011-01-03 has 0 sessions before it from 2017-01-01 on (the vendor's bars begin 2016-01-04, features need a "
            "year), the first fold needs 258, so 2018-01-13 or later would do",
        ),
        (
            {"live_start": "2025-05-01"},
            "live_start = 2025-05-01 makes a model 570 days old on its first day, max_model_age_days = 365, so 2025-11-22 or later "
            "would do",
        ),
        ({"live_start": "2027-01-04"}, "live_start = 2027-01-04 lies in the future of 2026-11-21, 2026-11-22 is the latest that would do"),
        (
            {"test_start": "2026-02-02"},
            "test_start = 2026-02-02 leaves 0 sessions for 8 folds before a holdout of 252 and live_start 2026-11-22, so 2025-11-06 or "
            "earlier would do",
        ),
    ],
)
def test_dates_that_cannot_work_are_refused_with_those_that_would(training: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        refuse_impossible_dates(changed(**training), today=TODAY)
    assert str(refused.value) == (f'training: {words}. Or write "auto" for each: today that is 2017-01-01, 2019-01-01 and 2026-11-22')


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"start": "2017-01-03", "test_start": "2018-02-01", "live_start": "2026-11-02"},
        {"test_start": "2018-01-13"},
        {"test_start": "2025-11-06"},
        {"live_start": "2025-11-22"},
        {"live_start": "2026-11-22"},
    ],
)
def test_the_dates_that_would_do_do(training: dict[str, str]) -> None:
    settings = changed(**training)
    refuse_impossible_dates(settings, today=TODAY)
    assert len(folds_of(calendar(date(2026, 11, 20)), as_of(settings, date(2026, 11, 20)))) == 9


def test_of_three_slots_a_third_of_the_sessions_do_for_the_first_fold() -> None:
    """258 sessions are 252 rows, one to trade and the purge of 5; of three rows each, 85 and the purge."""
    minutes = changed(test_start="2017-05-25", timeframe="1Min").model_dump()
    minutes["schedule"]["slots"] = ("open+5", "open+120", "open+240")
    refuse_impossible_dates(checked(minutes, source="test"), today=TODAY)
    minutes["training"]["test_start"] = "2017-04-03"
    with pytest.raises(SettingsError, match=r"test_start = 2017-04-03 has .* the first fold needs 90, so 2017-05-\d\d or later would do"):
        refuse_impossible_dates(checked(minutes, source="test"), today=TODAY)


@pytest.mark.parametrize("first", [date(2016, 1, 4), date(2018, 7, 1), date(2024, 12, 20)])
def test_sessions_are_estimated_from_below(first: date) -> None:
    for end in (date(2026, 1, 1), date(2026, 11, 20)):
        real = sum(session.date < end.isoformat() for session in sessions_between(first, end))
        assert real - 25 <= sessions_at_least(first, end) <= real


def test_the_first_folds_need_is_the_walk_forwards() -> None:
    assert training_dates.MIN_TRAINING == walk_forward.MIN_TRAINING
