"""In whatever order messages come, how often, or whether: a bar says what its trades say, or what is amiss, and is never made up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import fsum
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.common.broker.streams import QuoteTick, TradedMinute, TradeTick
from runner.minutes import LATENESS, MINUTE, MinuteBuilder
from schema.realtime.records import StreamedBar

START = datetime(2020, 1, 2, 14, 30, tzinfo=UTC)
NAMES = ("AAPL", "SPY")
MINUTES = 4

prices = st.integers(1, 100_000).map(lambda cents: cents / 100)
instants = st.integers(0, MINUTES * 60_000_000 - 1).map(lambda micros: START + timedelta(microseconds=micros))


@st.composite
def tapes(draw: st.DrawFn) -> list[TradeTick]:
    drawn = draw(st.lists(st.tuples(st.sampled_from(NAMES), instants, prices, st.integers(1, 500)), max_size=40))
    return [
        TradeTick(symbol=symbol, at=at, identity=f"V/{number:020d}", price=price, size=float(size))
        for number, (symbol, at, price, size) in enumerate(drawn)
    ]


def builder() -> MinuteBuilder:
    made = MinuteBuilder(symbols=NAMES, feed="iex", trading=lambda _minute: True)
    made.begin(START)
    made.resumed(START)
    return made


def told(made: MinuteBuilder, until: datetime) -> dict[tuple[datetime, str], StreamedBar]:
    """What a reader has who keeps the last bar of each name and minute."""
    closing = made.advance(until, received_at=until)
    bars = [*(bar for minute in closing.minutes for bar in minute.bars), *closing.revised]
    return {(bar.ts, bar.symbol): bar for bar in bars}


def expected(tape: list[TradeTick]) -> dict[tuple[datetime, str], tuple[float, ...]]:
    """The bars of a tape, written down once more."""
    found: dict[tuple[datetime, str], list[TradeTick]] = {}
    for trade in sorted(tape, key=lambda one: (one.at, one.identity)):
        found.setdefault((trade.at.replace(second=0, microsecond=0), trade.symbol), []).append(trade)
    return {
        key: (of[0].price, max(t.price for t in of), min(t.price for t in of), of[-1].price, fsum(t.size for t in of), len(of))
        for key, of in found.items()
    }


def shown(bars: dict[tuple[datetime, str], StreamedBar]) -> dict[tuple[datetime, str], tuple[float, ...]]:
    return {key: (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.trades) for key, bar in bars.items()}


END = START + MINUTES * MINUTE + LATENESS


@given(tape=tapes(), seed=st.integers(0, 10**6), repeats=st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_shuffled_and_repeated_trades_make_the_bars_of_the_tape(tape: list[TradeTick], seed: int, repeats: int) -> None:
    random = Random(seed)
    sent = [*tape, *(random.choice(tape) for _ in range(repeats) if tape)]
    random.shuffle(sent)
    made = builder()
    for trade in sent:
        made.trade(trade)
    bars = told(made, END)
    assert shown(bars) == expected(tape)
    assert all(bar.flaws == () and bar.source == "trades" for bar in bars.values())


@given(tape=tapes(), seed=st.integers(0, 10**6), share=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_skipped_trades_never_make_a_bar_that_the_rest_does_not(tape: list[TradeTick], seed: int, share: float) -> None:
    random = Random(seed)
    arrived = [trade for trade in tape if random.random() < share]
    made = builder()
    for trade in arrived:
        made.trade(trade)
    assert shown(told(made, END)) == expected(arrived)


@given(tape=tapes(), seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_minutes_closed_under_way_end_as_the_tape_and_say_what_was_late(tape: list[TradeTick], seed: int) -> None:
    """Trades arrive in any order while minutes close: the last word on each is the tape's, and is flawed if it was not the first word."""
    random = Random(seed)
    sent = random.sample(tape, len(tape))
    made, first, last = builder(), {}, {}
    for trade in sent:
        made.trade(trade)
        for key, bar in told(made, START).items():
            first.setdefault(key, bar)
            last[key] = bar
    for key, bar in told(made, END).items():
        first.setdefault(key, bar)
        last[key] = bar
    assert shown(last) == expected(tape)
    for key, bar in last.items():
        if shown({key: bar}) != shown({key: first[key]}):
            assert bar.flaws == ("late",)


@given(tape=tapes(), lost=instants, away=st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_a_socket_that_was_away_flaws_each_minute_that_it_missed(tape: list[TradeTick], lost: datetime, away: int) -> None:
    back = lost + timedelta(seconds=away)
    heard = sorted((trade for trade in tape if not lost < trade.at < back), key=lambda one: one.at)
    made, last = builder(), {}
    gone = False
    since = START
    for trade in heard:
        if trade.at >= back and not gone:
            since, gone = made.heard_until, True
            made.lost()
            made.resumed(back)
        made.trade(trade)
        last |= told(made, trade.at)
    last |= told(made, END)
    assert shown(last) == expected(heard)
    for (minute, _symbol), bar in last.items():
        missed = gone and since < minute + MINUTE and back > minute and max(since, back) > since
        assert ("gap" in bar.flaws) == missed


@given(tape=tapes(), begun=instants)
@settings(max_examples=40, deadline=None)
def test_the_minute_in_which_the_following_began_is_partial_and_none_before_it_exists(tape: list[TradeTick], begun: datetime) -> None:
    made = MinuteBuilder(symbols=NAMES, feed="iex", trading=lambda _minute: True)
    made.begin(begun)
    made.resumed(begun)
    for trade in tape:
        made.trade(trade)
    bars = told(made, END)
    first = begun.replace(second=0, microsecond=0)
    assert all(minute >= first for minute, _ in bars)
    for (minute, _), bar in bars.items():
        assert ("partial" in bar.flaws) == (minute < begun)


@given(tape=tapes(), wrong=st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_vendors_bar_stands_where_ours_differs(tape: list[TradeTick], wrong: bool) -> None:
    made = builder()
    for trade in tape:
        made.trade(trade)
    for (minute, symbol), (open_, high, low, close, volume, trades) in expected(tape).items():
        more = 1.0 if wrong else 0.0
        prices = {"open": open_, "high": high + more, "low": low, "close": close, "volume": volume}
        made.vendor(TradedMinute(symbol=symbol, minute=minute, **prices, trades=int(trades), vwap=None))
    bars = told(made, END)
    assert {bar.source for bar in bars.values()} <= {"vendor" if wrong else "trades"}
    assert made.differing == (len(bars) if wrong else 0)


def test_a_quote_of_the_minute_or_before_is_its_spread_and_one_after_its_end_is_not() -> None:
    made = builder()

    def quote(seconds: float, bid: float) -> QuoteTick:
        return QuoteTick(symbol="SPY", at=START + timedelta(seconds=seconds), bid=bid, bid_size=1, ask=bid + 0.02, ask_size=1)

    for one in (quote(10, 99), quote(70, 101), quote(59, 100), quote(59, 100), quote(30, 98)):
        made.quote(one)
    made.trade(TradeTick(symbol="SPY", at=START, identity="V/1", price=100, size=1))
    made.trade(TradeTick(symbol="SPY", at=START + 2 * MINUTE, identity="V/2", price=100, size=1))
    bars = told(made, END)
    first, third = bars[START, "SPY"], bars[START + 2 * MINUTE, "SPY"]
    assert (first.bid, first.ask, first.quotes) == (100, 100.02, 3)
    assert (third.bid, third.ask, third.quotes) == (101, 101.02, 0)


def at(seconds: float, number: int) -> TradeTick:
    return TradeTick(symbol="SPY", at=START + timedelta(seconds=seconds), identity=f"V/{number}", price=100, size=1)


def test_a_trade_that_comes_just_after_its_minute_s_end_is_in_its_bar() -> None:
    made = builder()
    made.trade(at(59, 1))
    made.trade(at(61, 2))
    assert told(made, START) == {}, "the feed is not two seconds past the end"
    made.trade(at(59.5, 3))
    made.trade(at(62, 4))
    bar = told(made, START)[START, "SPY"]
    assert (bar.trades, bar.flaws) == (2, ())


def test_a_trade_of_before_the_following_began_makes_no_bar_and_is_counted() -> None:
    made = MinuteBuilder(symbols=NAMES, feed="iex", trading=lambda _minute: True)
    made.begin(START + 2 * MINUTE)
    made.resumed(START + 2 * MINUTE)
    made.trade(at(119, 1))
    assert told(made, END) == {}
    assert made.dropped == 1
