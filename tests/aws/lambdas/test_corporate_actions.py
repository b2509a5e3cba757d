"""Corporate actions, night after night, from an exchange that processes dividends weeks after their ex-date: each once, and live as judged.

The real `backfill` over the real adapter, into S3 in process; the exchange lists what is announced, or only what is processed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from types import SimpleNamespace

import boto3
import numpy as np
import pandas as pd
import pytest

from lambdas.backfill_bars.backfill import Backfilled, BackfillWindow, backfill, nightly_window
from lambdas.common.broker.alpaca import AlpacaBroker, Credentials
from lambdas.common.lake.lake import Lake, Row
from lambdas.decide.data import MarketSnapshot, market_snapshot
from local.exchange.costs import TradingCosts
from local.exchange.http.app import Keys, create_app
from local.exchange.in_process import InProcess
from local.exchange.recorded_market import PAID_AFTER, RecordedMarket
from local.exchange.sessions import ExchangeCalendar
from local.exchange.venue import Venue
from papertape.market_data import bundled
from schema.lake_layout import ACTIONS
from trading_env.data.market import FEATURE_NAMES, Market, build_market
from trading_env.data.raw_lines import action_table

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
        return backfill(
            vendor=self.data, lake=lake, symbols=NAMES, window=BackfillWindow(start=start, end=end, actions_start=start, completed=end)
        )


def vendor_of(*, lists_announced: bool) -> Vendor:
    now = datetime.combine(FILLED, time(22), tzinfo=UTC)
    market = recorded(lists_announced=lists_announced)
    venue = Venue(market=market, now=now, cash=Decimal(100_000), costs=TradingCosts())
    data = AlpacaBroker(credentials=Credentials(key_id="local-key", secret_key="local-secret"), trading_url=URL, data_url=URL)
    adapter = InProcess(create_app(venue=venue, keys=Keys()))
    for client in (data._trading, data._stocks, data._actions):
        client._session.mount(URL, adapter)
    return Vendor(venue, data)


@pytest.fixture
def lake(buckets: SimpleNamespace) -> Lake:
    return Lake(s3=boto3.client("s3"), raw_bucket=buckets.raw)


def evenings(count: int = NIGHTS) -> list[datetime]:
    days = [session.date for session in calendar().sessions if session.date > FILLED]
    return [datetime.combine(day, time(22), tzinfo=UTC) for day in days[:count]]


def content(rows: list[Row]) -> list[tuple[str, str, str, float]]:
    return sorted((row["symbol"], row["ex_date"], row["kind"], row["value"]) for row in rows)


def observed(lake: Lake, as_of: date) -> MarketSnapshot:
    sessions = [session.date for session in calendar().sessions if session.date <= as_of]
    return market_snapshot(lake=lake, symbols=NAMES, sessions=sessions, as_of=as_of)


def judged(as_of: date) -> Market:
    """What training and the backtest observe: the whole record, by ex-date."""
    return build_market(bars_until(as_of), bundled.corporate_actions(), symbols=NAMES)


def bars_until(end: date) -> pd.DataFrame:
    bars = bundled.daily_bars()
    return bars[(bars["session"] >= FIRST.isoformat()) & (bars["session"] <= end.isoformat())]


def test_live_is_what_is_judged_where_actions_are_listed_ahead(lake: Lake) -> None:
    """IBM and AAPL go ex on 2019-05-09 and -10, and are paid in June: that evening the lake has them, once, and no price has fallen."""
    vendor = vendor_of(lists_announced=True)
    vendor.fill(lake)
    for now in evenings(10):
        vendor.venue.advance(now)
        assert vendor.night(lake).late == ()
        if now.date() >= date(2019, 5, 9):
            live, truth = observed(lake, now.date()), judged(now.date())
            np.testing.assert_array_equal(live.market.features[-1], truth.features[-1])
            np.testing.assert_array_equal(live.market.context[-1], truth.context[-1])
            assert live.late == ()
    assert content(lake.actions(symbols=NAMES)) == true_actions(now.date())
    before = lake.raw_index("raw/")
    assert vendor.night(lake).objects_written == 0
    assert lake.raw_index("raw/") == before


def test_sixty_nights_leave_each_action_once_and_what_was_decided_can_be_built_again(lake: Lake) -> None:
    """Only what is processed is listed: each dividend comes six weeks after its ex-date, once, and says since when it is known."""
    vendor = vendor_of(lists_announced=False)
    vendor.fill(lake)
    ibm, paid = date(2019, 5, 9), date(2019, 6, 20)
    looked = (ibm, date(2019, 6, 19), paid, date(2019, 7, 25))
    lived, late = {}, []
    for now in evenings():
        vendor.venue.advance(now)
        late += [(now.date(), action) for action in vendor.night(lake).late]
        if now.date() in looked:
            lived[now.date()] = observed(lake, now.date())
    last = now.date()
    unpaid = [action for action in true_actions(last) if date.fromisoformat(action[1]) + PAID_AFTER > last]
    assert unpaid
    assert content(lake.actions(symbols=NAMES)) == [action for action in true_actions(last) if action not in unpaid]
    paid_since = [(ibm, "IBM"), (date(2019, 5, 10), "AAPL")]
    assert late[-2:] == [(day + PAID_AFTER, f"{name} {day} cash_dividend") for day, name in paid_since]

    rows = [row for key in lake.raw_index(ACTIONS) for row in lake.read([key], prefix=ACTIONS)[key]]
    whole = build_market(bars_until(last), action_table(rows), symbols=NAMES)
    for day, was in lived.items():
        again, row = observed(lake, day), whole.index_of(day)
        np.testing.assert_array_equal(
            was.market.features[-1], whole.features[row], err_msg="training and backtest read what was decided on"
        )
        np.testing.assert_array_equal(was.market.context[-1], whole.context[row])
        assert (again.market.features.tobytes(), again.market.context.tobytes()) == (
            was.market.features.tobytes(),
            was.market.context.tobytes(),
        )
    column, daily = NAMES.index("IBM"), FEATURE_NAMES.index("return_1")
    truth = {day: judged(day).features[-1, column, daily] for day in (ibm, paid)}
    dividend = next(value for name, day, _, value in true_actions(last) if (name, day) == ("IBM", str(ibm)))
    fell = lived[ibm].market.features[-1, column, daily]
    before = lived[ibm].market.close[-2, column]
    assert truth[ibm] - fell == pytest.approx(-np.log1p(-dividend / before)), "until it is told it looks like a fall, of what was paid"
    assert lived[paid].market.features[-1, column, daily] == truth[paid]
    (told,) = [action for action in lived[paid].late if action.symbol == "IBM"]
    assert (told.ex_date, told.action, told.value, told.sessions) == (str(ibm), "cash_dividend", dividend, 30)


def test_a_vendor_that_lists_an_action_late_is_told_apart_from_a_new_lake(lake: Lake) -> None:
    vendor = vendor_of(lists_announced=False)
    assert vendor.fill(lake).late == (), "no decision was made on a lake that did not exist"
    assert not [row for row in lake.actions(symbols=NAMES) if "known" in row]
