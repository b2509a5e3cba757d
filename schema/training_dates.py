"""The dates of `[training]`: what "auto" means as of a session, and whether the dates can work at all.

Promise: pure arithmetic on dates; nothing here reads a clock, and the same session gives the same dates. Pinned dates are never changed.

    start       a year after the vendor's first bars, for the features look back a year      2016-01-04 -> 2017-01-01
    test_start  two years after start: what the first fold learns from                       2017-01-01 -> 2019-01-01
    live_start  the day after the session: judged as of it, the holdout right before it      2026-11-20 -> 2026-11-21

`start` and `test_start` stay where they are, so a configuration on later data is the same configuration (decision 12).
Failure: `SettingsError`, one line, with the dates that would do.
"""

from __future__ import annotations

import math
from datetime import date, timedelta

from schema.settings import AUTO, Settings, SettingsError, TrainingDates, TrainingSettings, checked

#: The first session with daily bars in Alpaca's free plan: "since 2016", https://docs.alpaca.markets/docs/about-market-data-api
FIRST_BARS = date(2016, 1, 4)
WARM_UP_YEARS, FIRST_TRAINING_YEARS = 1, 2
#: Rows that the first fold needs before its test, as `trading_env.evaluation.walk_forward.MIN_TRAINING`
MIN_TRAINING = 252
#: Weekdays of a year on which the exchange was closed, at the most (2012, 2025)
MOST_HOLIDAYS = 11


def dates_as_of(training: TrainingSettings, session: date) -> TrainingDates:
    """Concrete dates as of `session`, the newest one that is known."""
    start = first_tradable() if training.start == AUTO else training.start
    test_start = _years_after(start, FIRST_TRAINING_YEARS) if training.test_start == AUTO else training.test_start
    live_start = session + timedelta(days=1) if training.live_start == AUTO else training.live_start
    return TrainingDates(start, test_start, live_start)


def as_of(settings: Settings, session: date) -> Settings:
    """The settings with concrete dates; the same object where they are pinned. Raises SettingsError when they are out of order."""
    training = settings.training
    if AUTO not in (training.start, training.test_start, training.live_start):
        return settings
    document = settings.model_dump()
    document["training"] |= dates_as_of(training, session)._asdict()
    return checked(document, source=f"settings as of {session}")


def first_tradable() -> date:
    """From here on features are warm: a year after the vendor's first bars."""
    return date(FIRST_BARS.year + WARM_UP_YEARS, 1, 1)


def refuse_impossible_dates(settings: Settings, *, today: date) -> None:
    """Raise SettingsError when a training that is deployed `today` could not work, with the dates that would do.

    Sessions are estimated, as weekdays less the most holidays that a year has had: a few more may be there.
    """
    training, limit = settings.training, settings.risk.max_model_age_days
    start, test_start, live_start = dates = dates_as_of(training, today)
    tomorrow, oldest = today + timedelta(days=1), today - timedelta(days=limit - 1)
    rows = max(1, len(settings.row_slots))  # of a session; what training needs at the least is counted in rows
    first = max(start, first_tradable())
    needed = math.ceil((max(MIN_TRAINING, training.episode_sessions) + 1) / rows) + training.purge_sessions
    before = sessions_at_least(first, test_start)
    judged = sessions_at_least(test_start, live_start) - training.holdout_sessions
    problems = []
    if live_start > tomorrow:
        problems.append(f"live_start = {live_start} lies in the future of {today}, {tomorrow} is the latest that would do")
    if live_start < oldest:
        problems.append(
            f"live_start = {live_start} makes a model {(today - live_start).days + 1} days old on its first day, max_model_age_days = "
            f"{limit}, so {oldest} or later would do"
        )
    if before < needed:
        problems.append(
            f"test_start = {test_start} has {before} sessions before it from {first} on (the vendor's bars begin {FIRST_BARS}, features "
            f"need a year), the first fold needs {needed}, so {_sessions_after(first, needed)} or later would do"
        )
    if judged < training.folds and live_start <= tomorrow:
        latest = _sessions_before(live_start, training.folds + training.holdout_sessions)
        problems.append(
            f"test_start = {test_start} leaves {max(judged, 0)} sessions for {training.folds} folds before a holdout of "
            f"{training.holdout_sessions} and live_start {live_start}, so {latest} or earlier would do"
        )
    if problems:
        would = dates_as_of(training.model_copy(update=dict.fromkeys(dates._fields, AUTO)), today)
        raise SettingsError(
            f'training: {"; ".join(problems)}. Or write "auto" for each: '
            f"today that is {would.start}, {would.test_start} and {would.live_start}"
        )


def sessions_at_least(first: date, end: date) -> int:
    """About how many sessions lie from `first` to before `end`, rather too few; 0 when they are the other way round."""
    days = (end - first).days
    if days <= 0:
        return 0
    weeks, rest = divmod(days, 7)
    weekdays = 5 * weeks + sum((first + timedelta(days=day)).weekday() < 5 for day in range(rest))
    return max(0, weekdays - math.ceil(days / 365 * MOST_HOLIDAYS))


def _sessions_after(first: date, count: int) -> date:
    day = first
    while sessions_at_least(first, day) < count:
        day += timedelta(days=1)
    return day


def _sessions_before(end: date, count: int) -> date:
    day = end
    while sessions_at_least(day, end) < count:
        day -= timedelta(days=1)
    return day


def _years_after(day: date, years: int) -> date:
    """29 February becomes the 28th."""
    last = 28 if (day.month, day.day) == (2, 29) else day.day
    return day.replace(year=day.year + years, day=last)
