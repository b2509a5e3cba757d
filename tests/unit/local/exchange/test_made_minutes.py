"""Minutes made from daily bars: aggregated they are the day, to the last digit, and nothing of them is told before its time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.exchange.market.made_minutes import made_day
from local.exchange.market.rows import MINUTE, RecordedBar, RecordedQuote
from local.exchange.recorded_market import RecordedMarket
from local.exchange.sessions import ExchangeCalendar
from tests.exchanges import small_market

OPENED = datetime(2020, 1, 2, 14, 30, tzinfo=UTC)
ACTIONS = pd.DataFrame([], columns=["symbol", "ex_date", "kind", "value"])


@st.composite
def days(draw: st.DrawFn) -> RecordedBar:
    """A day's four prices, from fractions of a cent to millions, of two to six decimals, and a volume that may be nothing."""
    decimals = draw(st.sampled_from([2, 2, 4, 6]))
    low = draw(st.integers(1, 10 ** draw(st.integers(1, 9))))
    span = draw(st.integers(0, low))
    opens, close = (low + draw(st.integers(0, span)) for _ in range(2))
    prices = (Decimal(number).scaleb(-decimals) for number in (opens, low + span, low, close))
    opens_at, high, lowest, closes_at = prices
    return RecordedBar(OPENED, open=opens_at, high=high, low=lowest, close=closes_at, volume=draw(st.integers(0, 10**9)))


@settings(max_examples=150)
@given(day=days(), minutes=st.sampled_from([390, 210]), on=st.dates(date(1990, 1, 1), date(2030, 1, 1)))
def test_put_together_the_minutes_are_the_day(day: RecordedBar, minutes: int, on: date) -> None:
    made = made_day("XYZ", day, on=on, opened=OPENED, closed=OPENED + minutes * MINUTE)
    bars = [made.bar(minute) for minute in range(len(made))]
    assert len(bars) == minutes
    assert (bars[0].open, max(bar.high for bar in bars), min(bar.low for bar in bars), bars[-1].close, sum(bar.volume for bar in bars)) == (
        day.open,
        day.high,
        day.low,
        day.close,
        day.volume,
    )
    assert [bar.start for bar in bars] == [OPENED + minute * MINUTE for minute in range(minutes)]
    for bar, quote in zip(bars, (made.quote(minute) for minute in range(minutes)), strict=True):
        assert bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
        assert bar.volume >= 0
        assert 0 < quote.bid <= bar.close <= quote.ask
        assert quote.bid < quote.ask
        assert (quote.bid_size % 100, quote.ask_size % 100, quote.bid_size > 0) == (0, 0, True)
        assert quote.at == bar.start + MINUTE - timedelta(milliseconds=1)
    assert all(before.close == after.open for before, after in pairwise(bars))


def test_a_day_is_a_function_of_symbol_date_and_bar() -> None:
    bar = RecordedBar(OPENED, open=Decimal(100), high=Decimal(103), low=Decimal("98.5"), close=Decimal("101.25"), volume=1_000_000)

    def path(symbol: str = "XYZ", on: date = date(2020, 1, 2)) -> list[Decimal]:
        made = made_day(symbol, bar, on=on, opened=OPENED, closed=OPENED + 390 * MINUTE)
        return [made.bar(minute).close for minute in range(390)]

    assert path() == path()
    assert path() != path("ABC")
    assert path() != path(on=date(2020, 1, 3))
    assert all(price == price.quantize(Decimal("0.01")) for price in path()), "in cents"
    assert path()[:3] == [Decimal("100.10"), Decimal("99.83"), Decimal("99.83")], "the same on every machine"


def test_without_a_spread_a_quote_stands_at_the_trade_and_nothing_else_changes() -> None:
    bar = RecordedBar(OPENED, open=Decimal(100), high=Decimal(103), low=Decimal("98.5"), close=Decimal("101.25"), volume=1_000_000)
    with_it, without = (
        made_day("XYZ", bar, on=date(2020, 1, 2), opened=OPENED, closed=OPENED + 390 * MINUTE, spread=spread) for spread in (True, False)
    )
    for minute in range(390):
        assert without.bar(minute) == with_it.bar(minute)
        quote = without.quote(minute)
        assert quote.bid == quote.ask == without.bar(minute).close
        assert (quote.at, quote.bid_size, quote.ask_size) == size_of(with_it.quote(minute))


def size_of(quote: RecordedQuote) -> tuple[datetime, int, int]:
    return quote.at, quote.bid_size, quote.ask_size


def test_a_volume_is_larger_at_both_ends_of_the_day() -> None:
    bar = RecordedBar(OPENED, open=Decimal(100), high=Decimal(103), low=Decimal(98), close=Decimal(101), volume=10_000_000)
    made = made_day("XYZ", bar, on=date(2020, 1, 2), opened=OPENED, closed=OPENED + 390 * MINUTE)
    first, noon, last = (made.volumes[begin : begin + 30].sum() for begin in (0, 180, 360))
    assert first > 2 * noon < last


@pytest.fixture(scope="module")
def made() -> RecordedMarket:
    return small_market(minutes="made")


def test_recorded_minutes_stay_and_only_other_days_are_made(made: RecordedMarket) -> None:
    recorded, end = small_market(), datetime(2020, 1, 4, tzinfo=UTC)
    span = {"start": datetime(2020, 1, 2, tzinfo=UTC), "end": end, "now": end}
    today = {**span, "end": datetime(2020, 1, 3, tzinfo=UTC)}
    assert made.minute_bars("AAPL", **today) == recorded.minute_bars("AAPL", **today) != []
    assert len(made.minute_bars("AAPL", **span)) == 2 + 390
    assert len(made.minute_bars("IBM", **span)) == 2 * 390
    assert recorded.minute_bars("IBM", **span) == []
    assert len(made.minute_bars("IBM", start=datetime(2019, 12, 24, tzinfo=UTC), end=datetime(2019, 12, 25, tzinfo=UTC), now=end)) == 210


def test_no_minute_is_told_before_its_end_and_the_running_day_is_what_was_told(made: RecordedMarket) -> None:
    opened = datetime(2020, 1, 3, 14, 30, tzinfo=UTC)
    whole = made.minute_bars("IBM", start=opened, end=opened + timedelta(hours=7), now=opened + timedelta(hours=7))
    for seconds in (0, 59, 60, 61, 3599, 3600, 23399, 23400):
        now = opened + timedelta(seconds=seconds)
        told = made.minute_bars("IBM", start=opened, end=now + timedelta(days=9), now=now)
        assert told == whole[: seconds // 60]
        quotes = list(made.minute_quotes("IBM", start=opened, end=now + timedelta(days=9), now=now))
        assert len(quotes) == len(told)
        trade, quote, latest = made.last_trade("IBM", now), made.quote("IBM", now), made.latest_minute("IBM", now)
        running, _ = made.session_bars("IBM", now)
        assert trade is not None
        assert quote is not None
        assert latest is not None
        assert running is not None
        if told:
            assert (trade.price, latest) == (told[-1].close, told[-1])
            assert quote == quotes[-1]
            assert (running.high, running.volume) == (max(bar.high for bar in told), sum(bar.volume for bar in told))
        else:
            assert trade.price == running.close == whole[0].open


def test_a_market_that_ends_at_a_close_has_the_same_minutes_up_to_there() -> None:
    calendar = ExchangeCalendar.xnys(start=date(2019, 11, 25), end=date(2020, 12, 31))
    rows = [
        ("XYZ", pd.Timestamp(day), 10.0, 11.0, 9.5, 10.5 + number / 100, 1000.0)
        for number, day in enumerate(("2020-01-02", "2020-01-03", "2020-01-06"))
    ]
    columns = ["symbol", "session", "open", "high", "low", "close", "volume"]
    markets = [
        RecordedMarket(calendar=calendar, bars=pd.DataFrame(rows[:count], columns=columns), actions=ACTIONS, minutes="made")
        for count in (2, 3)
    ]
    close = datetime(2020, 1, 3, 21, tzinfo=UTC)
    cut, whole = (market.minute_bars("XYZ", start=OPENED, end=close, now=close) for market in markets)
    assert cut == whole
    assert len(cut) == 780


def test_the_last_trade_may_move_at_each_minute_of_a_session(made: RecordedMarket) -> None:
    before = datetime(2020, 1, 3, 14, 30, tzinfo=UTC)
    assert made.next_moment(before) == before + MINUTE
    assert made.next_moment(before + timedelta(seconds=61)) == before + 2 * MINUTE
    assert made.next_moment(before - timedelta(hours=1)) == before
    assert small_market().next_moment(before) == datetime(2020, 1, 3, 21, tzinfo=UTC)
