"""What a replay does with the schedule of news: nothing without a source, else a run at a close, seldom where nobody reads the scores."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from local.replay.schedule import NEW_YORK, year
from papertape.market_data.sessions import YEAR, sessions_between
from schema.sections.news import NewsSettings
from schema.settings import load

SETTINGS = load(Path(__file__).parents[4] / "data" / "settings.toml")


def test_without_a_source_there_is_no_such_schedule_to_replay() -> None:
    quiet = SETTINGS.model_copy(update={"news": NewsSettings()})
    assert [entry.schedule for entry in year(SETTINGS) if entry not in year(quiet)] == ["collect_news"]


def test_news_are_collected_at_a_close_of_nearly_every_week() -> None:
    (entry,) = (entry for entry in year(SETTINGS) if entry.schedule == "collect_news")
    sessions = sessions_between(*YEAR)
    closes = {session.closes for session in sessions}
    times = [time for session in sessions for time in entry.times(session)]
    assert entry.mode == "thin"
    assert set(times) <= closes
    assert len(times) == 52  # of 53: Thanksgiving is a Thursday
    assert [times[at].astimezone(NEW_YORK).date() for at in (0, -1)] == [date(2020, 1, 2), date(2020, 12, 31)]
