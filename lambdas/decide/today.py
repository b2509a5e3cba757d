"""The running session as a decision in one of its later slots may know it: the slots that have ended, of the vendor's minutes.

Promises: no minute that begins in the slot or later enters; nobody asks before the last minute can be there. What the vendor does not
answer, or not so that it can be read, is `NoTrade`, in the vendor's words.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from lambdas.common.broker.port import Broker, BrokerError, Session
from lambdas.common.lake.slot_rows import gathered, hours_of
from lambdas.decide.data import TodaysRows
from lambdas.decide.edges import Edges, NoTrade, Publication
from schema.exchange_time import iso
from schema.slot import SlotRows
from trading_env.data.bars import BarsError

#: A broker's clock that is further behind the schedule's is none to decide by.
LATEST = timedelta(seconds=30)
SHORTEST = 0.2  # seconds


def await_minutes(broker: Broker, *, until: datetime, publication: Publication) -> None:
    """Return when the minutes that end by `until` have been published, by the broker's clock; `NoTrade` if that takes too long."""
    published = until + timedelta(seconds=publication.seconds)
    left = publication.seconds + LATEST.total_seconds()
    now = broker.clock().now
    while now < published and until - now <= LATEST and left > 0:
        pause = max((published - now).total_seconds(), SHORTEST)
        publication.sleep(pause)
        left -= pause
        now = broker.clock().now
    if now < published:
        told = f"the broker's clock must reach {iso(published)} before the minutes up to {iso(until)} are read, was {iso(now)}"
        raise NoTrade("stale-data", told)


def todays_rows(*, session: Session, until: datetime, symbols: Sequence[str], rows: SlotRows, edges: Edges) -> TodaysRows:
    """The slots of `session` that have ended by `until`."""
    day, vendor = session.date, edges.market_data
    try:
        found = gathered(vendor, symbols=symbols, hours=hours_of([session]), until=until, rows=rows)
        actions = vendor.corporate_actions(symbols, day, day)
    except (BrokerError, BarsError) as error:
        raise NoTrade("stale-data", f"the minutes of {day} up to {iso(until)} could not be read: {error}") from error
    return TodaysRows(lines=found.lines, actions=actions, quarantined=found.quarantined)
