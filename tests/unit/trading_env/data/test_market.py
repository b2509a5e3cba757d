"""The market's arrays hold what the tables say, row by row, and nothing that was not known."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from papertape.market_data import bundled
from trading_env.data.bars import BarsError, adjust_forward
from trading_env.data.market import TABLE_COLUMNS, Market, MarketError, build_market, from_table, to_table

UNIVERSE = ("SPY", "QQQ", "IWM", "AAPL", "AIG", "BAC", "GOOG", "IBM")
ARRAYS = ("sessions", "open", "high", "low", "close", "volume", "split", "dividend", "tradable", "features", "context")


@pytest.fixture(scope="module")
def market() -> Market:
    return build_market(bundled.daily_bars(), bundled.corporate_actions(), symbols=UNIVERSE)


def assert_same(one: Market, other: Market) -> None:
    assert one.symbols == other.symbols
    for name in ARRAYS:
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right, err_msg=name)


def test_the_shapes_and_types_are_the_contracts(market: Market) -> None:
    length, names = 4089, 8
    assert len(market) == length
    assert market.sessions.dtype == np.dtype("datetime64[D]")
    assert market.tradable.dtype == np.bool_
    assert market.features.shape[:2] == market.close.shape == market.split.shape == market.tradable.shape == (length, names)
    assert market.context.shape[0] == length
    assert {getattr(market, name).dtype for name in ARRAYS[1:] if name != "tradable"} == {np.dtype(np.float64)}


def test_every_raw_value_is_in_its_cell(market: Market) -> None:
    bars = bundled.daily_bars()
    for column in ("open", "high", "low", "close", "volume"):
        expected = bars.pivot(index="session", columns="symbol", values=column)[list(UNIVERSE)].to_numpy()
        np.testing.assert_array_equal(getattr(market, column), expected, err_msg=column)


def test_actions_stand_in_the_row_of_their_ex_date(market: Market) -> None:
    splits = {(market.symbols[name], str(market.sessions[row])): market.split[row, name] for row, name in np.argwhere(market.split != 1)}
    assert splits == pytest.approx(
        {
            ("AAPL", "2005-02-28"): 2.0,
            ("IWM", "2005-06-09"): 2.0,
            ("AIG", "2009-07-01"): 0.05,
            ("GOOG", "2014-04-03"): 2.0,
            ("AAPL", "2014-06-09"): 7.0,
            ("GOOG", "2015-04-27"): 1.0027,
            ("AAPL", "2020-08-31"): 4.0,
        }
    )
    assert market.dividend[market.index_of("2020-08-07"), UNIVERSE.index("AAPL")] == pytest.approx(0.82)
    actions = bundled.corporate_actions().query("kind == 'dividend' and symbol in @UNIVERSE")
    assert market.dividend.sum() == pytest.approx(actions["value"].sum())


def test_the_adjusted_return_is_what_a_holder_of_one_share_earned(market: Market) -> None:
    """close(t) of the shares that one share has become, over what it cost after the dividend: the convention of a total-return index."""
    adjusted = adjust_forward(
        open=market.open,
        high=market.high,
        low=market.low,
        close=market.close,
        volume=market.volume,
        split=market.split,
        dividend=market.dividend,
    ).close
    earned = market.close[1:] * market.split[1:] / (market.close[:-1] - market.dividend[1:])
    np.testing.assert_allclose(adjusted[1:] / adjusted[:-1], earned, rtol=1e-12)


def test_a_name_is_tradable_from_its_253rd_bar_on(market: Market) -> None:
    first = [str(market.sessions[row]) for row in market.tradable.argmax(axis=0)]
    assert first == ["2006-01-03" if symbol != "QQQ" else "2012-03-22" for symbol in UNIVERSE]
    assert market.tradable[market.index_of("2012-03-22") :].all()
    qqq = np.isfinite(market.close[:, 1])
    assert qqq[: market.index_of("2012-03-22")].sum() == 252


def test_a_missing_bar_is_not_tradable_and_everything_after_it_is() -> None:
    bars = bundled.daily_bars()
    halted = bars[~((bars["symbol"] == "AAPL") & bars["session"].between("2019-03-04", "2019-03-06"))]
    market = build_market(halted, bundled.corporate_actions(), symbols=("SPY", "AAPL"))
    rows = slice(market.index_of("2019-03-04"), market.index_of("2019-03-06") + 1)
    assert not market.tradable[rows, 1].any()
    assert np.isnan(market.features[rows, 1]).all()
    assert np.isnan(market.close[rows, 1]).all()
    assert market.tradable[rows, 0].all()
    assert market.tradable[rows.stop, 1]


def test_a_name_without_bars_keeps_its_column() -> None:
    market = build_market(bundled.daily_bars(), bundled.corporate_actions(), symbols=("SPY", "TSLA"))
    assert market.tradable.any(axis=0).tolist() == [True, False]
    assert np.isnan(market.close[:, 1]).all()


def test_an_action_on_a_day_without_bars_takes_effect_at_the_next_session() -> None:
    actions = pd.DataFrame(
        {
            "symbol": "SPY",
            "ex_date": pd.to_datetime(["2019-03-02", "2019-03-04", "2004-01-05", "2030-01-01"]),
            "kind": "split",
            "value": [2.0, 3.0, 5.0, 7.0],
        }
    )
    market = build_market(bundled.daily_bars(), actions, symbols=("SPY",))
    assert {str(market.sessions[row]): market.split[row, 0] for row in np.flatnonzero(market.split[:, 0] != 1)} == {"2019-03-04": 6.0}


def test_rows_are_the_sessions_between_two_dates(market: Market) -> None:
    year = market.rows("2020-01-01", date(2020, 12, 31))
    assert (len(year), str(year.sessions[0]), str(year.sessions[-1])) == (253, "2020-01-02", "2020-12-31")
    first = market.index_of("2020-01-02")
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(year, name), getattr(market, name)[first : first + 253])
    assert len(market.rows("2020-01-02", "2020-01-02")) == 1


def test_index_of_takes_any_kind_of_date(market: Market) -> None:
    rows = {market.index_of(day) for day in ("2020-01-02", date(2020, 1, 2), np.datetime64("2020-01-02"), pd.Timestamp("2020-01-02"))}
    assert len(rows) == 1
    assert str(market.sessions[rows.pop()]) == "2020-01-02"


@pytest.mark.parametrize("day", ["2020-01-01", "2021-04-01", "2004-12-31"])
def test_a_day_that_is_no_session_has_no_row(market: Market, day: str) -> None:
    with pytest.raises(MarketError, match=f"2005-01-03 to 2021-03-31.*was {day}"):
        market.index_of(day)


def test_what_is_no_date_and_ranges_without_sessions_are_refused(market: Market) -> None:
    with pytest.raises(MarketError, match="a session must be a date such as 2020-01-02, was 'yesterday'"):
        market.index_of("yesterday")
    with pytest.raises(MarketError, match="from 2020-01-04 to 2020-01-05"):
        market.rows("2020-01-04", "2020-01-05")
    with pytest.raises(MarketError, match="from 2020-02-01 to 2020-01-01"):
        market.rows("2020-02-01", "2020-01-01")


def test_only_keeps_values_and_takes_the_order_given(market: Market) -> None:
    pair = market.only(("IBM", "SPY"))
    assert pair.symbols == ("IBM", "SPY")
    np.testing.assert_array_equal(pair.features, market.features[:, [7, 0]])
    np.testing.assert_array_equal(pair.tradable, market.tradable[:, [7, 0]])
    np.testing.assert_array_equal(pair.context, market.context)
    for wrong in (("SPY", "TSLA"), ("SPY", "SPY"), ()):
        with pytest.raises(MarketError, match="distinct names of SPY, QQQ"):
            market.only(wrong)


def test_the_table_is_the_market(market: Market, tmp_path: Path) -> None:
    table = to_table(market)
    assert tuple(table.columns) == TABLE_COLUMNS
    assert len(table) == 4089 * 8
    assert_same(from_table(table), market)
    table.to_parquet(tmp_path / "market.parquet")
    assert_same(from_table(pd.read_parquet(tmp_path / "market.parquet")), market)


def test_the_years_of_a_lake_may_be_read_in_any_order(market: Market) -> None:
    years = [market.rows(f"{year}-01-01", f"{year}-12-31") for year in (2020, 2018, 2019)]
    assert_same(from_table(pd.concat([to_table(year) for year in years])), market.rows("2018-01-01", "2020-12-31"))


def test_a_table_that_is_no_panel_is_refused(market: Market) -> None:
    table = to_table(market.rows("2020-01-02", "2020-01-31"))
    with pytest.raises(MarketError, match="rsi_14 missing"):
        from_table(table.drop(columns="rsi_14"))
    with pytest.raises(MarketError, match="one row for each of 21 sessions and 8 names, was 167 rows"):
        from_table(table.iloc[1:])
    with pytest.raises(MarketError, match="was 169 rows"):
        from_table(pd.concat([table, table.iloc[:1]]))


def test_wrong_tables_are_refused() -> None:
    bars, actions = bundled.daily_bars(), bundled.corporate_actions()
    with pytest.raises(MarketError, match="there must be one bar per symbol and session, SPY has several on 2021-03-31"):
        build_market(pd.concat([bars, bars.iloc[[-1]]]), actions, symbols=("SPY",))
    with pytest.raises(MarketError, match="there must be a bar of TSLA"):
        build_market(bars, actions, symbols=("TSLA",))
    with pytest.raises(MarketError, match="distinct names, was SPY, SPY"):
        build_market(bars, actions, symbols=("SPY", "SPY"))
    with pytest.raises(BarsError, match="volume missing"):
        build_market(bars.drop(columns="volume"), actions, symbols=("SPY",))
    with pytest.raises(BarsError, match="finite value > 0, was SPY"):
        build_market(
            bars, pd.DataFrame([{"symbol": "SPY", "ex_date": bars["session"][0], "kind": "split", "value": 0.0}]), symbols=("SPY",)
        )
