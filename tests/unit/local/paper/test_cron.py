"""When the deployed schedules fire by the real clock."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from local.paper.cron import CronError, CronSchedule

NEW_YORK = "America/New_York"


def at(text: str) -> datetime:
    """A New York time as UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(NEW_YORK)).astimezone(UTC)


def fired(expression: str, after: str, until: str) -> list[str]:
    found = CronSchedule.parse(expression, zone=NEW_YORK).between(at(after), at(until))
    return [moment.astimezone(ZoneInfo(NEW_YORK)).strftime("%a %H:%M") for moment in found]


def test_a_slot_fires_on_weekdays_in_new_york_whatever_the_season() -> None:
    slot = "cron(35 9 ? * MON-FRI *)"
    assert fired(slot, "2026-11-20T09:35", "2026-11-24T09:35") == ["Mon 09:35", "Tue 09:35"]
    in_utc = CronSchedule.parse(slot, zone=NEW_YORK).between(at("2026-10-30T00:00"), at("2026-11-02T23:00"))
    assert [moment.isoformat() for moment in in_utc] == ["2026-10-30T13:35:00+00:00", "2026-11-02T14:35:00+00:00"]


def test_steps_ranges_lists_and_every_day() -> None:
    assert fired("cron(0/15 8-9 ? * * *)", "2026-11-21T08:10", "2026-11-22T08:00") == [
        "Sat 08:15", "Sat 08:30", "Sat 08:45", "Sat 09:00", "Sat 09:15", "Sat 09:30", "Sat 09:45", "Sun 08:00"
    ]  # fmt: skip
    assert fired("cron(0 6 ? * SAT *)", "2026-11-16T00:00", "2026-11-22T00:00") == ["Sat 06:00"]
    assert fired("cron(30 9,16 * * 2-3 *)", "2026-11-16T12:00", "2026-11-18T23:00") == ["Mon 16:30", "Tue 09:30", "Tue 16:30"]


def test_the_hour_that_comes_twice_fires_once_and_the_one_left_out_does_not() -> None:
    assert fired("cron(30 1 ? * SUN *)", "2026-10-31T12:00", "2026-11-01T12:00") == ["Sun 01:30"]
    assert fired("cron(30 2 ? * SUN *)", "2026-03-07T12:00", "2026-03-08T12:00") == []


def test_the_next_one_is_found_however_far_it_is() -> None:
    weekly = CronSchedule.parse("cron(0 6 ? * SAT *)", zone=NEW_YORK)
    assert weekly.next(at("2026-11-21T06:00")) == at("2026-11-28T06:00")


@pytest.mark.parametrize(
    "expression", ["rate(5 minutes)", "cron(0 9 1 * ? *)", "cron(61 9 ? * * *)", "cron(0 9 ? * FOO *)", "cron(0/0 9 ? * * *)", "at(now)"]
)
def test_what_is_not_understood_is_refused_by_name(expression: str) -> None:
    with pytest.raises(CronError, match="cannot be fired by this machine's clock") as refused:
        CronSchedule.parse(expression, zone=NEW_YORK)
    assert expression in str(refused.value)
    with pytest.raises(CronError, match="Mars/Phobos"):
        CronSchedule.parse("cron(0 9 ? * * *)", zone="Mars/Phobos")
