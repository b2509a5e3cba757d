"""What a replay does with the schedules that not every app has: of quotes, not with a stream; of news, only with a source."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest

from local.replay.schedule import NEW_YORK, year
from papertape.market_data.sessions import YEAR, sessions_between
from schema.sections.news import NewsSettings
from schema.sections.realtime import StreamSettings
from schema.settings import load

SETTINGS = load(Path(__file__).parents[4] / "data" / "settings.toml")


def test_without_a_source_there_is_no_such_schedule_to_replay() -> None:
    quiet = SETTINGS.model_copy(update={"news": NewsSettings()})
    assert [entry.schedule for entry in year(SETTINGS) if entry not in year(quiet)] == ["collect_news"]


@pytest.mark.parametrize("kind", ["firehose", "kinesis"])
def test_with_a_stream_there_is_no_function_of_quotes_to_fire(kind: Literal["firehose", "kinesis"]) -> None:
    streamed = SETTINGS.model_copy(update={"stream": StreamSettings(kind=kind)})
    assert [entry.schedule for entry in year(SETTINGS) if entry not in year(streamed)] == ["ingest_quotes"]


def test_on_slot_bars_a_later_slot_is_fired_once_the_minute_before_it_is_published() -> None:
    schedule = SETTINGS.schedule.model_copy(update={"slots": ("open+5", "open+10"), "slot_window_minutes": 5})
    daily = SETTINGS.model_copy(update={"schedule": schedule})
    minutes = daily.model_copy(update={"training": SETTINGS.training.model_copy(update={"timeframe": "1Min"})})
    first, second = (next(entry for entry in year(minutes) if entry.schedule == name) for name in ("decide", "decide-open-10"))
    assert (first.later, second.later) == (timedelta(0), timedelta(seconds=5))
    assert second.times(sessions_between(*YEAR)[0]) == [datetime(2020, 1, 2, 14, 40, tzinfo=UTC)], "what it is told is the slot"
    assert {entry.later for entry in year(daily)} == {timedelta(0)}


def test_news_are_collected_at_a_close_of_nearly_every_week() -> None:
    (entry,) = (entry for entry in year(SETTINGS) if entry.schedule == "collect_news")
    sessions = sessions_between(*YEAR)
    closes = {session.closes for session in sessions}
    times = [time for session in sessions for time in entry.times(session)]
    assert entry.mode == "thin"
    assert set(times) <= closes
    assert len(times) == 52  # of 53: Thanksgiving is a Thursday
    assert [times[at].astimezone(NEW_YORK).date() for at in (0, -1)] == [date(2020, 1, 2), date(2020, 12, 31)]
