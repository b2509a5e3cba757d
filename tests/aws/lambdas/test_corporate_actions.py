"""Corporate actions, night after night, from an exchange that processes dividends weeks after their ex-date: each once, and live as judged.

The real `backfill` over the real adapter, into S3 in process; the exchange lists what is announced, or only what is processed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from types import SimpleNamespace

import boto3
import numpy as np
import pytest

from lambdas.backfill_bars.backfill import BackfillWindow, Backfilled, backfill, nightly_window
from lambdas.common.broker.alpaca import AlpacaBroker, Credentials
from lambdas.common.lake.lake import Lake, Row
from lambdas.decide.data import market_snapshot
from local.exchange.book import TradingCosts
from local.exchange.http.app import Keys, create_app
from local.exchange.in_process import InProcess
from local.exchange.recorded_market import PAID_AFTER, RecordedMarket
from local.exchange.sessions import ExchangeCalendar
from local.exchange.venue import Venue
from papertape.market_data import bundled

NAMES = ("SPY", "AAPL", "IBM")
URL = "http://127.0.0.1:1"
FIRST, FILLED, NIGHTS = date(2017, 6, 1), date(2019, 5, 1), 60


@lru_cache(maxsize=1)
def calendar() -> ExchangeCalendar:
    return ExchangeCalendar.xnys(start=date(2016, 1, 4), end=date(2021, 12, 31))


@lru_cache(maxsize=2)
def recorded(*, lists_announced: bool) -> RecordedMarket:
    bars = bundled.daily_bars()
    bars = bars[bars["symbol"].isin(NAMES) & (bars["session"] >= FIRST.isoformat()) & (bars["session"] < "2020-01-01")]
    return RecordedMarket(calendar=calendar(), bars=bars, actions=bundled.corporate_actions(), lists_announced=lists_announced)


def true_actions(end: date) -> list[tuple[str, str, str, float]]:
    """What the record says, from the first session to `end`."""
    table = bundled.corporate_actions()
    table = table[table["symbol"].isin(NAMES) & (table["ex_date"] >= FIRST.isoformat()) & (table["ex_date"] <= end.isoformat())]
    return sorted((row.symbol, f"{row.ex_date:%Y-%m-%d}", row.kind, row.value) for row in table.itertuples())


@dataclass
class Vendor:
    """An exchange, its clock, and the adapter in front of it."""

    venue: Venue
    data: AlpacaBroker

    def night(self, lake: Lake) -> Backfilled:
        now = self.venue.now
        sessions = self.data.sessions(now.date() - timedelta(days=21), now.date())
        return backfill(vendor=self.data, lake=lake, symbols=NAMES, window=nightly_window(sessions=sessions, now=now))

    def fill(self, lake: Lake, *, start: date = FIRST, end: date = FILLED) -> Backfilled:
        return backfill(vendor=self.data, lake=lake, symbols=NAMES, window=BackfillWindow(start=start, end=end, actions_start=start))


def vendor_of(*, lists_announced: bool) -> Vendor:
    now = datetime.combine(FILLED, time(22), tzinfo=UTC)
    market = recorded(lists_announced=lists_announced)
    venue = Venue(market=market, now=now, cash=Decimal(100_000), costs=TradingCosts())
    data = AlpacaBroker(credentials=Credentials(key_id="local-key", secret_key="local-secret"), trading_url=URL, data_url=URL)
    adapter = InProcess(create_app(venue=venue, keys=Keys()))
    for client in (data._trading, data._stocks, data._actions):
        client._session.mount(URL, adapter)
    return Vendor(venue, data)


@pytest.fixture(params=[True, False], ids=["announced", "processed"])
def vendor(request: pytest.FixtureRequest) -> Vendor:
    return vendor_of(lists_announced=request.param)


@pytest.fixture
def lake(buckets: SimpleNamespace) -> Iterator[Lake]:
    yield Lake(s3=boto3.client("s3"), raw_bucket=buckets.raw)


def evenings(count: int = NIGHTS) -> list[datetime]:
    days = [session.date for session in calendar().sessions if session.date > FILLED]
    return [datetime.combine(day, time(22), tzinfo=UTC) for day in days[:count]]


def content(rows: list[Row]) -> list[tuple[str, str, str, float]]:
    return sorted((row["symbol"], row["ex_date"], row["kind"], row["value"]) for row in rows)


def test_sixty_nights_leave_each_action_once(vendor: Vendor, lake: Lake) -> None:
    """The window of ex-dates and that of process dates are weeks apart: what is processed tonight went ex long ago."""
    vendor.fill(lake)
    for now in evenings():
        vendor.venue.advance(now)
        vendor.night(lake)
    last = evenings()[-1].date()
    unpaid = () if vendor.venue.market.lists_announced else [a for a in true_actions(last) if date.fromisoformat(a[1]) + PAID_AFTER > last]
    assert content(lake.actions(symbols=NAMES)) == [action for action in true_actions(last) if action not in unpaid]
