"""Prices as charts and yardsticks want them: through splits, dividends, breaks and gaps, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lambdas.dashboard.account.performance import drawdowns, first_of, measures
from lambdas.dashboard.account.yardsticks import equal_weight
from lambdas.dashboard.market.candles import candles, sparkline
from lambdas.dashboard.market.prices import history

DAYS = ("2020-01-02", "2020-01-03", "2020-01-06")
ACTIONS = [{"symbol": "A", "ex_date": "2020-01-06", "kind": "split", "value": 4.0}]


def _bars(symbol: str, closes: tuple[float | None, ...]) -> list[dict[str, object]]:
    return [
        {"symbol": symbol, "ts": f"{day}T05:00:00Z", "open": c, "high": c, "low": c, "close": c, "volume": 100.0}
        for day, c in zip(DAYS, closes, strict=True)
        if c is not None
    ]


def test_bars_before_a_split_are_in_todays_shares() -> None:
    bars = _bars("A", (400.0, 440.0, 100.0))
    shown = candles("A", bars, prices=history(bars, ACTIONS), first=DAYS[0], markers=[])
    assert shown.close == pytest.approx((100, 110, 100))
    assert shown.volume == pytest.approx((400, 400, 100))
    spark = sparkline("A", history(bars, ACTIONS))
    assert spark is not None
    assert spark.change == pytest.approx(0)


def test_a_break_and_a_gap_leave_no_number() -> None:
    merged = [{"symbol": "A", "ex_date": "2020-01-06", "kind": "break", "value": None}]
    prices = history(_bars("A", (400.0, 440.0, 100.0)), merged)
    assert prices.growth("A", DAYS[1], DAYS[2], dividends=True) is None
    assert equal_weight(("A",), DAYS, prices, dividends=True) == (1.0, pytest.approx(1.1), None)
    gap = history(_bars("A", (100.0, None, 121.0)), [])
    assert equal_weight(("A",), DAYS, gap, dividends=True) == (1.0, None, pytest.approx(1.21))


def test_a_name_without_a_close_is_not_in_the_average_of_that_session() -> None:
    prices = history([*_bars("A", (100.0, 110.0, 121.0)), *_bars("B", (100.0, 100.0, None))], [])
    assert equal_weight(("A", "B"), DAYS, prices, dividends=True) == pytest.approx((1, 1.05, 1.05 * 1.1))


def test_measures_need_three_values_and_a_deviation() -> None:
    assert measures([100.0, 101.0]).change is None
    still = measures([100.0, 100.0, 100.0])
    assert (still.change, still.volatility, still.sharpe, still.drawdown) == (0, 0, None, 0)
    assert drawdowns([100.0, None, 80.0, 110.0]) == [0, None, pytest.approx(-0.2), 0]


def test_measures_are_those_of_the_domain() -> None:
    from trading_env.evaluation import metrics

    path = [100.0, 103.0, 99.0, 104.5, 104.0, 108.0]
    growth = metrics.log_growth(np.array(path[1:]), initial=path[0])
    found = measures(path)
    assert found.volatility == pytest.approx(metrics.volatility(growth), rel=1e-12)
    assert found.sharpe == pytest.approx(metrics.sharpe(growth), rel=1e-12)


@pytest.mark.parametrize(("span", "place"), [("ALL", 0), ("YTD", 1), ("1M", 2), ("1Y", 0)])
def test_a_span_begins_with_the_last_close_before_its_first_day(span: object, place: int) -> None:
    assert first_of(span, ["2019-12-30", "2019-12-31", "2020-05-29", "2020-06-30"]) == place  # type: ignore[arg-type]
