"""A move and a band are raised once each, and never out of two prices between which nobody followed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.common.broker.streams import PriceBand, QuoteTick, TradeTick
from runner.moves import MoveWatch

START = datetime(2020, 1, 2, 14, 30, tzinfo=UTC)


def trade(minutes: float, price: float) -> TradeTick:
    return TradeTick(symbol="SPY", at=START + timedelta(minutes=minutes), identity=str(minutes), price=price, size=1)


def raised(*trades: tuple[float, float], watch: MoveWatch | None = None) -> list[float]:
    watch = watch or MoveWatch(threshold=0.03, minutes=5)
    return [move.price for one in trades if (move := watch.trade(trade(*one))) is not None]


def test_a_fall_beyond_the_threshold_is_told_once() -> None:
    assert raised((0, 100), (4, 99), (5, 96), (5.5, 95), (6, 94)) == [96]


def test_a_fall_that_takes_longer_is_none() -> None:
    assert raised((0, 100), (5, 99), (10, 97.5), (15, 95)) == []


def test_a_move_is_told_again_after_it_was_over_or_the_other_way() -> None:
    assert raised((0, 100), (5, 96), (6, 99.5), (7, 96)) == [96, 96]
    assert raised((0, 100), (5, 96), (6, 104)) == [96, 104]


def test_without_a_price_of_then_there_is_no_move() -> None:
    assert raised((0, 100), (4.9, 50)) == []


def test_a_trade_that_comes_late_changes_nothing() -> None:
    assert raised((0, 100), (6, 100), (5, 50), (6.1, 100)) == []


def test_prices_of_before_a_gap_are_forgotten() -> None:
    watch = MoveWatch(threshold=0.03, minutes=5)
    assert raised((0, 100), watch=watch) == []
    watch.forget_prices()
    assert raised((5, 50), (9, 50), watch=watch) == []


def test_a_fall_after_a_gap_is_told_though_one_was_before() -> None:
    watch = MoveWatch(threshold=0.03, minutes=5)
    assert raised((0, 100), (5, 96), watch=watch) == [96]
    watch.forget_prices()
    assert raised((20, 100), (25, 96), watch=watch) == [96]


@given(prices=st.lists(st.floats(97.6, 100), max_size=50))
@settings(max_examples=50, deadline=None)
def test_prices_within_the_threshold_never_raise(prices: list[float]) -> None:
    assert raised(*((minute / 2, price) for minute, price in enumerate(prices))) == []


def test_a_band_is_told_when_a_trade_or_a_quote_is_at_it_and_again_after_it_was_left() -> None:
    watch = MoveWatch(threshold=0.5, minutes=5)
    band = PriceBand(symbol="SPY", at=START, down=95, up=105, indicator="B")
    watch.band(band)

    def bid(minutes: float, price: float) -> QuoteTick:
        return QuoteTick(symbol="SPY", at=START + timedelta(minutes=minutes), bid=price, bid_size=1, ask=price + 1, ask_size=1)

    ticks = (trade(1, 100), trade(2, 95), trade(3, 94), bid(4, 100), bid(5, 105), trade(-1, 95))
    assert [watch.reached(tick) for tick in ticks] == [None, band, None, None, band, None]
    none_offered = QuoteTick(symbol="SPY", at=START, bid=0, bid_size=0, ask=0, ask_size=0)
    assert watch.reached(trade(6, 100)) is None
    assert watch.reached(none_offered) is None
