"""What a decision observes: the market at a close, or at the end of a slot, and the account's book after it.

Promise: with daily bars, and in a session's first slot, it is the last close, with the book of its snapshot. With slot bars a later slot
observes the running session up to its own beginning, with the book that the broker has then. Data that are late or cannot be observed
are `NoTrade`. `observe_now` is for looking ahead only: it takes the newest data and the book as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple

from lambdas.common.broker.port import Session
from lambdas.common.lake.slot_rows import hours_of
from lambdas.decide.book import book_at_close, book_between, book_now
from lambdas.decide.data import MarketSnapshot, ScoredSources, SlotHistory, StaleDataError, TodaysRows, market_snapshot, years_needed
from lambdas.decide.decision import AccountAtClose, ObservedState, observe_state
from lambdas.decide.edges import Edges, NoTrade
from lambdas.decide.today import await_minutes, todays_rows
from schema.settings import Settings
from schema.slot import Slot, SlotRows
from trading_env.data.observation import ObservationError


class PastSessions(NamedTuple):
    """The sessions before a session, oldest first, and when each session opens and closes."""

    earlier: tuple[date, ...]
    hours: Mapping[date, Session]


def observe_slot(*, slot: Slot, hours: Session, settings: Settings, edges: Edges) -> tuple[MarketSnapshot, ObservedState]:
    """What a decision in `slot`, of the session `hours`, observes, with the book after it."""
    if slot.name not in settings.row_slots[1:]:
        calendar = _sessions_before(slot.session, edges=edges)
        snapshot = _market(calendar, calendar.earlier, settings=settings, edges=edges)
        return snapshot, _observed(
            snapshot, book_at_close(edges=edges, session=slot.session, as_of=calendar.earlier[-1]), settings=settings
        )
    begins, _ = slot.window(hours.open, minutes=settings.schedule.slot_window_minutes)
    await_minutes(edges.broker, until=begins, publication=edges.publication)
    snapshot = _market_between(hours, until=begins, settings=settings, edges=edges)
    return snapshot, _observed(snapshot, book_between(edges=edges, session=hours, market=snapshot.market), settings=settings)


def observe_now(
    *, slot: Slot, hours: Session, now: datetime, closed: Sequence[date], settings: Settings, edges: Edges
) -> tuple[MarketSnapshot, ObservedState]:
    """The newest of the last two `closed` sessions that the lake has bars of, with the positions and the cash of this moment.

    Of a later slot's session, with slot bars, what has ended by `now`.
    """
    if slot.name in settings.row_slots[1:] and (ended := _ended(hours, slot=slot, now=now, settings=settings)) is not None:
        snapshot = _market_between(hours, until=ended, settings=settings, edges=edges)
    else:
        snapshot = _market_closed(slot.session, closed=closed, settings=settings, edges=edges)
    return snapshot, _observed(snapshot, book_now(edges, market=snapshot.market), settings=settings)


def _ended(hours: Session, *, slot: Slot, now: datetime, settings: Settings) -> datetime | None:
    """When the last row of the session before `slot` ended that has by `now`; None if none has."""
    ends = [one.window(hours.open, minutes=0)[0] for one in settings.schedule.slots_of(slot.session)[1:] if one.minutes <= slot.minutes]
    return max((end for end in ends if end <= now), default=None)


def _market_closed(session: date, *, closed: Sequence[date], settings: Settings, edges: Edges) -> MarketSnapshot:
    calendar = _sessions_before(session, edges=edges)
    known = tuple(day for day in calendar.earlier if not closed or day <= closed[-1])
    if len(known) < 2:
        raise NoTrade("stale-data", f"the lake's calendar holds {len(known)} sessions that have closed; run backfill_bars")
    try:
        return _market(calendar, known, settings=settings, edges=edges)
    except NoTrade:
        return _market(calendar, known[:-1], settings=settings, edges=edges)


def _sessions_before(session: date, *, edges: Edges) -> PastSessions:
    # The close before may be of the year before, and then its history begins a year earlier than the session's
    calendar = edges.lake.calendar(years={*years_needed(session), *years_needed(session.replace(year=session.year - 1, day=1))})
    earlier = calendar.before(session)
    if not calendar.is_session(session) or not earlier:
        raise NoTrade("stale-data", f"the lake's calendar does not reach {session}; run backfill_bars")
    every = zip(calendar.sessions, calendar.opens, calendar.closes, strict=True)
    return PastSessions(earlier, {day: Session(date=day, open=opens, close=closes) for day, opens, closes in every})


def _market(calendar: PastSessions, earlier: Sequence[date], *, settings: Settings, edges: Edges) -> MarketSnapshot:
    """The market at the close of the last of the sessions `earlier`."""
    hours, rows = calendar.hours, settings.slot_rows
    closes = {day: one.close for day, one in hours.items()}
    sentiment = ScoredSources(settings.news.sources, closes) if settings.features.sentiment == "daily" else None
    slots = None if rows is None else _history([hours[day] for day in earlier], rows=rows, until=closes[earlier[-1]])
    return _made(earlier, slots=slots, sentiment=sentiment, settings=settings, edges=edges)


def _market_between(session: Session, *, until: datetime, settings: Settings, edges: Edges) -> MarketSnapshot:
    """The market up to `until`, a slot's beginning within `session`: the lake's rows and today's."""
    rows = settings.slot_rows
    if rows is None:
        raise ValueError("a market within a session needs slot bars")
    calendar = _sessions_before(session.date, edges=edges)
    symbols = settings.universe.symbols
    today = todays_rows(session=session, until=until, symbols=symbols, rows=rows, edges=edges)
    slots = _history([*(calendar.hours[day] for day in calendar.earlier), session], rows=rows, until=until, today=today)
    return _made((*calendar.earlier, session.date), slots=slots, sentiment=None, settings=settings, edges=edges)


def _history(sessions: Sequence[Session], *, rows: SlotRows, until: datetime, today: TodaysRows | None = None) -> SlotHistory:
    return SlotHistory(rows=rows, hours=hours_of(sessions), until=until, today=today)


def _made(
    sessions: Sequence[date], *, slots: SlotHistory | None, sentiment: ScoredSources | None, settings: Settings, edges: Edges
) -> MarketSnapshot:
    symbols = settings.universe.symbols
    try:
        return market_snapshot(lake=edges.lake, symbols=symbols, sessions=sessions, as_of=sessions[-1], sentiment=sentiment, slots=slots)
    except StaleDataError as error:
        raise NoTrade("stale-data", str(error)) from error


def _observed(snapshot: MarketSnapshot, account: AccountAtClose, *, settings: Settings) -> ObservedState:
    try:
        return observe_state(market=snapshot.market, account=account, slots=settings.row_slots)
    except (ObservationError, ValueError) as error:
        raise NoTrade("no-observation", str(error)) from error
