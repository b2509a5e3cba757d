"""What the exchange lets be known, and what moves while its clock goes: over the bundled data and small tables."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pandas as pd
import pytest

from local.exchange.costs import TradingCosts
from local.exchange.orders import Refused, Side, Status, Ticket
from local.exchange.recorded_market import RecordedMarket, RecordedMarketError
from local.exchange.sessions import ExchangeCalendar, new_york_midnight
from local.exchange.venue import Dividends, Venue
from papertape.market_data import bundled

ACTIONS = ["symbol", "ex_date", "kind", "value"]
BARS = ["symbol", "session", "open", "high", "low", "close", "volume"]


@pytest.fixture(scope="module")
def calendar() -> ExchangeCalendar:
    return ExchangeCalendar.xnys(start=date(2004, 1, 2), end=date(2022, 12, 30))


@pytest.fixture(scope="module")
def market(calendar: ExchangeCalendar) -> RecordedMarket:
    return RecordedMarket(
        calendar=calendar,
        bars=bundled.daily_bars(),
        actions=bundled.corporate_actions(),
        minute_quotes=bundled.minute_quotes(),
        minute_trades=bundled.minute_trades(),
    )


@pytest.fixture
def small(calendar: ExchangeCalendar) -> RecordedMarket:
    """XYZ on three sessions, the last a half day: 1:20 before the second, 0.50 a share before the third; it skips 2020-11-25."""
    rows = [("2020-11-23", 1.0, 1.5), ("2020-11-24", 31.0, 33.0), ("2020-11-27", 34.0, 35.0)]
    bars = pd.DataFrame([("XYZ", pd.Timestamp(d), o, max(o, c), min(o, c), c, 100.0) for d, o, c in rows], columns=BARS)
    actions = [("XYZ", pd.Timestamp("2020-11-24"), "split", 0.05), ("XYZ", pd.Timestamp("2020-11-27"), "dividend", 0.5)]
    return RecordedMarket(calendar=calendar, bars=bars, actions=pd.DataFrame(actions, columns=ACTIONS))


def at(day: str, clock: str = "00:00") -> datetime:
    """A New York wall time of late November, in UTC."""
    hours, minutes = clock.split(":")
    return new_york_midnight(date.fromisoformat(day)) + timedelta(hours=int(hours), minutes=int(minutes))


def venue(market: RecordedMarket, now: datetime, *, cash: str = "1000", dividends: Dividends = "ignore") -> Venue:
    return Venue(market=market, now=now, cash=Decimal(cash), costs=TradingCosts(), dividends=dividends)


def test_last_trade_follows_the_session(small: RecordedMarket) -> None:
    expected = [
        (at("2020-11-23", "09:29"), None),
        (at("2020-11-23", "09:30"), 1),
        (at("2020-11-23", "15:59"), 1),
        (at("2020-11-23", "16:00"), Decimal("1.5")),
        (at("2020-11-23", "23:59"), Decimal("1.5")),
        (at("2020-11-24", "00:00"), 30),
        (at("2020-11-24", "09:30"), 31),
        (at("2020-11-24", "16:00"), 33),
        (at("2020-11-25", "12:00"), 33),
        (at("2020-11-27", "09:35"), 34),
        (at("2020-11-27", "12:59"), 34),
        (at("2020-11-27", "13:00"), 35),
        (at("2020-12-31", "12:00"), 35),
    ]
    for now, price in expected:
        trade = small.last_trade("XYZ", now)
        assert (trade.price if trade is not None else None) == price, now
        assert trade is None or trade.at <= now


def test_half_day_bar_is_known_at_one_and_its_open_before(small: RecordedMarket) -> None:
    def closes(now: datetime) -> list[Decimal]:
        return [bar.close for bar in small.daily_bars("XYZ", start=at("2020-11-01"), end=at("2020-12-31"), now=now)]

    assert closes(at("2020-11-27", "09:29")) == [Decimal("1.5"), 33]
    assert closes(at("2020-11-27", "12:59")) == [Decimal("1.5"), 33, 34]
    assert closes(at("2020-11-27", "13:00")) == [Decimal("1.5"), 33, 35]


def test_no_answer_depends_on_what_comes_after(calendar: ExchangeCalendar, market: RecordedMarket) -> None:
    """A market that was cut at a close answers, up to there, exactly as the whole one."""
    bars, actions = bundled.daily_bars(), bundled.corporate_actions()
    end = pd.Timestamp("2014-06-09")
    minutes = bundled.minute_trades()
    quotes = bundled.minute_quotes()
    close = datetime(2014, 6, 9, 20, tzinfo=UTC)
    cut = RecordedMarket(
        calendar=calendar,
        bars=bars[bars["session"] <= end],
        actions=actions[actions["ex_date"] <= end],
        minute_quotes=quotes[quotes["ts"] <= close],
        minute_trades=minutes[minutes["ts"] < close],
    )
    start = datetime(2014, 6, 5, 8, tzinfo=UTC)
    for step in range(int((close - start) / timedelta(minutes=17))):
        now = start + step * timedelta(minutes=17)
        for symbol in ("AAPL", "SPY", "GOOG"):
            assert market.last_trade(symbol, now) == cut.last_trade(symbol, now)
            assert market.quote(symbol, now) == cut.quote(symbol, now)
            assert market.daily_bars(symbol, start=start, end=now, now=now) == cut.daily_bars(symbol, start=start, end=now, now=now)
            assert market.minute_bars(symbol, start=start, end=now, now=now) == cut.minute_bars(symbol, start=start, end=now, now=now)
            assert market.previous_close(symbol, now) == cut.previous_close(symbol, now)
            assert market.trades_now(symbol, now) == cut.trades_now(symbol, now)
        window = {"start": date(2014, 1, 1), "end": date(2020, 1, 1), "now": now}
        assert market.actions_between(**window) == cut.actions_between(**window)


def test_actions_have_no_announcement(market: RecordedMarket) -> None:
    def seen(now: datetime) -> list[tuple[str, Decimal]]:
        found = market.actions_between(start=date(2014, 6, 1), end=date(2014, 6, 30), now=now)
        return [(action.symbol, action.value) for action in found if action.kind == "split"]

    assert seen(datetime(2014, 6, 9, 3, 59, tzinfo=UTC)) == []
    assert seen(datetime(2014, 6, 9, 4, 0, tzinfo=UTC)) == [("AAPL", 7)]


def test_recorded_quotes_are_served_on_their_day_only(market: RecordedMarket) -> None:
    friday = market.quote("IBM", datetime(2013, 10, 4, 15, tzinfo=UTC))
    assert friday is not None
    assert (friday.at, friday.bid < friday.ask) == (datetime(2013, 10, 4, 14, 59, 59, 999000, tzinfo=UTC), True)
    monday = market.quote("IBM", datetime(2013, 10, 7, 4, tzinfo=UTC))
    close = market.last_trade("IBM", datetime(2013, 10, 5, tzinfo=UTC))
    assert monday is not None
    assert close is not None
    assert (monday.bid, monday.ask, monday.at) == (close.price, close.price, datetime(2013, 10, 4, 20, tzinfo=UTC))


def test_recorded_minutes_lie_inside_the_days_bar(market: RecordedMarket, calendar: ExchangeCalendar) -> None:
    for session in calendar.between(date(2013, 10, 4), date(2013, 10, 11)):
        (bar,) = market.daily_bars("SPY", start=session.midnight, end=session.midnight, now=session.close)
        for minute in range(1, 390):
            trade = market.last_trade("SPY", session.open + timedelta(minutes=minute))
            assert trade is not None
            assert bar.low <= trade.price <= bar.high


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("XYZ", "2020-11-26", 1.0), "XYZ 2020-11-26: a bar needs a session"),
        (("XYZ", "2020-11-27", 0.0), "open must be a number above 0, was 0.0"),
        (("XYZ", "2020-11-27", float("nan")), "open must be a number above 0, was nan"),
    ],
)
def test_bad_tables_are_refused(calendar: ExchangeCalendar, row: tuple[str, str, float], message: str) -> None:
    symbol, day, price = row
    bars = pd.DataFrame([(symbol, pd.Timestamp(day), *[price] * 4, 1.0)], columns=BARS)
    with pytest.raises(RecordedMarketError, match=message):
        RecordedMarket(calendar=calendar, bars=bars, actions=pd.DataFrame([], columns=ACTIONS))


def test_a_number_that_is_missing_is_refused_before_anybody_asks_for_its_row(calendar: ExchangeCalendar) -> None:
    nothing, half_past = float("nan"), pd.Timestamp("2020-11-27T14:30:00Z")
    bars = pd.DataFrame([("XYZ", pd.Timestamp(day), *[1.0] * 4, 1.0) for day in ("2020-11-24", "2020-11-27")], columns=BARS)
    trades = pd.DataFrame([("XYZ", half_past, *[1.0] * 4, 1.0)], columns=[*BARS[:1], "ts", *BARS[2:]])
    quotes = pd.DataFrame([("XYZ", half_past, nothing, nothing, 1.0, 1.0)], columns=["symbol", "ts", "bid", "bid_size", "ask", "ask_size"])

    def market(bars: pd.DataFrame, trades: pd.DataFrame, quotes: pd.DataFrame) -> RecordedMarket:
        actions = pd.DataFrame([], columns=ACTIONS)
        return RecordedMarket(calendar=calendar, bars=bars, actions=actions, minute_quotes=quotes, minute_trades=trades)

    unquoted = market(bars, trades, quotes).quote("XYZ", at("2020-11-27", "09:31"))
    assert unquoted is not None
    assert (unquoted.bid, unquoted.bid_size, unquoted.ask, unquoted.ask_size) == (Decimal(0), 0, Decimal(1), 1)
    with pytest.raises(RecordedMarketError, match=r"^XYZ 2020-11-27 00:00:00: volume must be a number, was nan$"):
        market(bars.assign(volume=[1.0, nothing]), trades, quotes)
    with pytest.raises(RecordedMarketError, match=r"^XYZ 2020-11-27 14:30:00\+00:00: high must be a number above 0, was 0\.0$"):
        market(bars, trades.assign(high=0.0), quotes)
    with pytest.raises(RecordedMarketError, match=r"^XYZ 2020-11-27 14:30:00\+00:00: ask_size must be a number, was nan$"):
        market(bars, trades, quotes.assign(ask_size=nothing))


def test_clock_only_goes_forward(small: RecordedMarket) -> None:
    exchange = venue(small, at("2020-11-23", "10:00"))
    exchange.advance(at("2020-11-23", "10:00"))
    with pytest.raises(Refused, match="only goes forward"):
        exchange.advance(at("2020-11-23", "09:59"))


def test_steps_of_the_clock_do_not_matter(small: RecordedMarket) -> None:
    def run(steps: int) -> tuple[object, ...]:
        exchange = venue(small, at("2020-11-23", "10:00"), dividends="credit")
        exchange.submit(Ticket(symbol="XYZ", side=Side.BUY, quantity=Decimal("100.5")))
        start, end = at("2020-11-23", "17:00"), at("2020-11-28")
        exchange.advance(start)
        exchange.submit(Ticket(symbol="XYZ", side=Side.SELL, quantity=Decimal("50")))
        for step in range(1, steps + 1):
            exchange.advance(start + (end - start) * step / steps)
        book = exchange.book
        return book.cash, book.positions, book.orders, book.fills, exchange.equity, exchange.last_equity

    assert run(1) == run(7) == run(1000)


def test_through_split_and_dividend(small: RecordedMarket) -> None:
    exchange = venue(small, at("2020-11-23", "10:00"), dividends="credit")
    exchange.submit(Ticket(symbol="XYZ", side=Side.BUY, quantity=Decimal(100)))
    exchange.advance(at("2020-11-23", "17:00"))
    sale = exchange.submit(Ticket(symbol="XYZ", side=Side.SELL, quantity=Decimal(100)))
    assert exchange.equity == 1050
    exchange.advance(at("2020-11-24"))
    assert (exchange.book.positions["XYZ"].quantity, exchange.equity) == (5, 1050)
    assert exchange.book.orders[sale.id].status is Status.CANCELED
    assert exchange.last_equity == (date(2020, 11, 23), 1050)
    exchange.advance(at("2020-11-27"))
    assert (exchange.book.cash, exchange.equity) == (Decimal("902.5"), Decimal("902.5") + 5 * 33)
    ignoring = venue(small, at("2020-11-24", "10:00"))
    ignoring.submit(Ticket(symbol="XYZ", side=Side.BUY, quantity=Decimal(10)))
    ignoring.advance(at("2020-11-27"))
    assert ignoring.book.cash == 1000 - 310


def test_a_symbol_without_a_bar_does_not_trade(small: RecordedMarket) -> None:
    exchange = venue(small, at("2020-11-24", "17:00"))
    waiting = exchange.submit(Ticket(symbol="XYZ", side=Side.BUY, quantity=Decimal(1)))
    exchange.advance(at("2020-11-25", "10:00"))
    assert exchange.book.orders[waiting.id].status is Status.NEW
    with pytest.raises(Refused, match='asset "XYZ" is not active'):
        exchange.submit(Ticket(symbol="XYZ", side=Side.BUY, quantity=Decimal(1)))
    exchange.advance(at("2020-11-25", "16:00"))
    assert exchange.book.orders[waiting.id].status is Status.EXPIRED


def test_a_resting_limit_meets_the_minute_that_reaches_it(market: RecordedMarket) -> None:
    """SPY fell from 168.19 at 2013-10-04 13:58 UTC to 168.15 a minute later, in the recorded trades."""
    exchange = venue(market, datetime(2013, 10, 4, 13, 59, tzinfo=UTC))
    price = exchange.price("SPY")
    ticket = Ticket(symbol="SPY", side=Side.BUY, quantity=Decimal(1), limit_price=Decimal("168.15"))
    assert price > Decimal("168.15")
    order = exchange.submit(ticket)
    assert order.status is Status.NEW
    exchange.advance(datetime(2013, 10, 4, 19, tzinfo=UTC))
    filled = exchange.book.orders[order.id]
    assert (filled.status, filled.ended_at, filled.filled_price) == (
        Status.FILLED,
        datetime(2013, 10, 4, 14, tzinfo=UTC),
        Decimal("168.15"),
    )


def test_a_price_that_a_split_leaves_without_an_end_has_ten_decimals(market: RecordedMarket) -> None:
    trade = market.last_trade("AAPL", datetime(2014, 6, 9, 5, tzinfo=UTC))
    assert trade is not None
    assert trade.price == Decimal("92.2242857143")
    assert market.previous_close("AAPL", datetime(2014, 6, 9, 15, tzinfo=UTC)) == trade.price
