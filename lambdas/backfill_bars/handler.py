"""Nightly: the last sessions' bars, corporate actions and calendar into the lake. Once, with `start` and `end`: all of history.

Event: {"schedule", "time"}, or {"start": "2005-01-03", "end": "2019-12-31"} (inclusive; `end` defaults to the last completed session).
With `training.timeframe = "1Min"` the slot rows of these sessions too, as far as the function's time allows: where the answer's `slots`
have a `next`, the same event with that as its `start` goes on.
Or {"repair": "show"} and {"repair": "apply"}: what is wrong with the corporate actions that the lake has, and putting it right.
Every error leaves the function, so that the schedule's retry, or its dead-letter queue and alarm, see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from functools import partial
from typing import Any

from lambdas.backfill_bars.backfill import Backfilled, BackfillError, BackfillWindow, backfill, nightly_window
from lambdas.backfill_bars.repairing import repair_actions
from lambdas.backfill_bars.slots import SlotsBackfilled, backfill_slots
from lambdas.common import environment
from lambdas.common.broker.connection import broker_from_environment, market_data_from_environment
from lambdas.common.broker.port import MarketData, Session
from lambdas.common.lake import lake
from lambdas.common.telemetry import entry, logger
from schema.exchange_time import new_york_date
from schema.lake_layout import CLOSES, closes_key
from schema.settings import Settings, deployed
from schema.slot import SlotRows

# Covers the longest run of days without a session, with the nightly window before it
CALENDAR_DAYS = 21
REPAIRS = ("show", "apply")
TIMEOUT = 900.0


class BackfillVariables(environment.Variables):
    raw_bucket: str


@entry
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    variables, settings = environment.read(BackfillVariables), deployed()
    now, market_data = broker_from_environment().clock().now, market_data_from_environment()
    today = new_york_date(now)
    window = nightly_window(sessions=market_data.sessions(today - timedelta(days=CALENDAR_DAYS), today), now=now)
    store = lake.lake(raw_bucket=variables.raw_bucket)
    if (repair := event.get("repair")) is not None:
        return _repair(repair, store=store, symbols=settings.universe.symbols, market_data=market_data, last=window.end)
    if start := event.get("start"):
        first = date.fromisoformat(start)
        last = min(date.fromisoformat(event["end"]), window.end) if event.get("end") else window.end
        if first > last:
            raise ValueError(f"start must not be after {last} (the end asked for, or the last completed session), was {first}")
        window = BackfillWindow(start=first, end=last, actions_start=first, completed=window.end)
    done = backfill(
        vendor=market_data,
        lake=store,
        symbols=settings.universe.symbols,
        window=window,
    )
    _tell(done)
    if settings.data.check_closes and not event.get("start"):
        _compare_closes(store, settings, session=window.end)
    if (rows := settings.slot_rows) is None:
        return done.summary()
    sessions = market_data.sessions(window.start, window.end)
    slots = _slots(store, settings, rows, sessions=sessions, market_data=market_data, seconds_left=_seconds_left(context))
    if slots.next is not None and not event.get("start"):
        raise BackfillError(
            f"the minutes of {len(sessions)} sessions take longer than the function may: none from {slots.next} on is stored"
        )
    if not slots.rows and slots.next is None and window.end == window.completed:
        raise BackfillError(
            f"no minute that the vendor's feed {settings.data.minutes_feed!r} sent from {window.start} to {window.end} makes a slot row; "
            "the daily bars are stored, and settings.data.minutes_feed says whose minutes are read"
        )
    return {**done.summary(), "slots": slots.summary()}


def _slots(
    store: lake.Lake,
    settings: Settings,
    rows: SlotRows,
    *,
    sessions: Sequence[Session],
    market_data: MarketData,
    seconds_left: Callable[[], float],
) -> SlotsBackfilled:
    symbols = settings.universe.symbols
    done = backfill_slots(vendor=market_data, lake=store, symbols=symbols, sessions=sessions, rows=rows, seconds_left=seconds_left)
    logger.info("slots backfilled", extra=done.summary())
    if done.silent:
        logger.warning("no slot rows", extra={"symbols": list(done.silent)})
    return done


def _seconds_left(context: Any) -> Callable[[], float]:
    """What is left of the function's time; all of it where nobody keeps time."""
    if not hasattr(context, "get_remaining_time_in_millis"):
        return lambda: TIMEOUT
    return lambda: context.get_remaining_time_in_millis() / 1000


def _compare_closes(store: lake.Lake, settings: Settings, *, session: date) -> None:
    """The vendors' adapters are loaded only where closes are compared."""
    from lambdas.backfill_bars.closes import closes_of, compared
    from lambdas.common.price_sources import price_source

    closes = closes_of(store.bars(symbols=settings.universe.symbols, years=[session.year]), session)
    rows = compared(settings.data.check_closes, make=partial(price_source, today=session), closes=closes, session=session)
    store.read([closes_key(session)], prefix=CLOSES)
    store.write({closes_key(session): rows})
    logger.info("closes compared", extra={"sources": {row["source"]: row["failed"] or len(row["pairs"]) for row in rows}})


def _repair(how: str, *, store: lake.Lake, symbols: Sequence[str], market_data: MarketData, last: date) -> dict[str, Any]:
    if how not in REPAIRS:
        raise ValueError(f"repair must be {' or '.join(REPAIRS)}, was {how!r}")
    done = repair_actions(vendor=market_data, lake=store, symbols=symbols, last=last, apply=how == "apply").summary()
    logger.info("repaired" if how == "apply" else "looked at", extra={**done, "corrections": len(done["corrections"])})
    return done


def _tell(done: Backfilled) -> None:
    logger.info("backfilled", extra=done.summary())
    for change in done.restated:
        logger.warning("restated", extra={"bar": change})
    for action in done.late:
        logger.warning("an action came after its ex-date", extra={"action": action})
    if done.silent:
        logger.warning("no bars", extra={"symbols": list(done.silent)})
