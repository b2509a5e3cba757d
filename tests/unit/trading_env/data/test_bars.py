"""Validation, corporate actions, forward adjustment and quote bars, each at its boundary."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from papertape.market_data import bundled
from trading_env.data.bars import (
    BAR_COLUMNS,
    QUOTE_BAR_COLUMNS,
    BarsError,
    actions_from_factors,
    adjust_forward,
    check_actions,
    quotes_to_bars,
    validate,
)


@pytest.fixture
def week() -> pd.DataFrame:
    """Real bars of two names, 2020-08-24 to 09-04, across AAPL's split."""
    bars = bundled.daily_bars()
    return bars[bars["symbol"].isin(["AAPL", "SPY"]) & bars["session"].between("2020-08-24", "2020-09-04")].reset_index(drop=True)


@pytest.fixture
def calendar() -> pd.DatetimeIndex:
    return bundled.sessions()


def edit(row: int, **values: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(bars: pd.DataFrame) -> pd.DataFrame:
        bars = bars.copy()
        for column, value in values.items():
            bars.loc[row, column] = value
        return bars

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (edit(3, symbol=None), "symbol is missing"),
        (edit(3, session=pd.Timestamp("2020-08-29")), "session is not in the calendar"),
        (edit(3, session=pd.Timestamp("2020-08-27 15:30")), "session is not in the calendar"),
        (edit(3, session=pd.NaT), "session is not in the calendar"),
        (edit(3, close=np.nan), "price is missing or not finite"),
        (edit(3, high=np.inf), "price is missing or not finite"),
        (edit(3, low=0.0), "price is not positive"),
        (edit(3, open=-1.0), "price is not positive"),
        (edit(3, high=500.0), "high is below open, low or close"),
        (edit(3, low=501.0), "low is above open or close"),
        (edit(3, volume=-1.0), "volume is missing, negative or not finite"),
        (edit(3, volume=np.nan), "volume is missing, negative or not finite"),
        (edit(3, volume=np.inf), "volume is missing, negative or not finite"),
    ],
)
def test_a_bad_row_is_set_aside_with_its_reason(
    week: pd.DataFrame, calendar: pd.DatetimeIndex, change: Callable[[pd.DataFrame], pd.DataFrame], reason: str
) -> None:
    checked = validate(change(week), sessions=calendar)
    assert checked.quarantined["reason"].tolist() == [reason]
    assert len(checked.bars) == len(week) - 1
    assert checked.gaps["symbol"].tolist() == ["AAPL"]
    assert checked.gaps["session"].tolist() == [pd.Timestamp("2020-08-27")]


def test_a_bar_without_volume_or_range_is_a_bar(week: pd.DataFrame, calendar: pd.DatetimeIndex) -> None:
    flat = edit(3, open=500.0, high=500.0, low=500.0, close=500.0, volume=0.0)(week)
    assert validate(flat, sessions=calendar).quarantined.empty


def test_of_identical_duplicates_one_stays(week: pd.DataFrame, calendar: pd.DatetimeIndex) -> None:
    checked = validate(pd.concat([week, week.iloc[[3, 3]]]), sessions=calendar)
    pd.testing.assert_frame_equal(checked.bars, week)
    assert checked.quarantined["reason"].tolist() == ["repeats an identical bar"] * 2


def test_of_conflicting_duplicates_none_stays(week: pd.DataFrame, calendar: pd.DatetimeIndex) -> None:
    rival = week.iloc[[3]].assign(volume=1.0)
    checked = validate(pd.concat([week, rival, week.iloc[[3]]]), sessions=calendar)
    assert checked.quarantined["reason"].tolist() == ["conflicts with another bar of its session"] * 3
    assert len(checked.bars) == len(week) - 1


def test_a_bad_duplicate_does_not_discredit_the_good_bar(week: pd.DataFrame, calendar: pd.DatetimeIndex) -> None:
    checked = validate(pd.concat([week, week.iloc[[3]].assign(low=-1.0)]), sessions=calendar)
    pd.testing.assert_frame_equal(checked.bars, week)
    assert checked.quarantined["reason"].tolist() == ["price is not positive"]


def test_a_missing_session_is_a_gap_but_not_before_the_first_bar(week: pd.DataFrame, calendar: pd.DatetimeIndex) -> None:
    holes = week[~((week["symbol"] == "SPY") & week["session"].isin(pd.to_datetime(["2020-08-24", "2020-08-28", "2020-09-01"])))]
    gaps = validate(holes, sessions=calendar).gaps
    assert gaps["symbol"].tolist() == ["SPY", "SPY"]
    assert gaps["session"].dt.strftime("%Y-%m-%d").tolist() == ["2020-08-28", "2020-09-01"]


def test_the_good_rows_come_sorted_with_the_contracts_columns(week: pd.DataFrame, calendar: pd.DatetimeIndex) -> None:
    shuffled = week.sample(frac=1, random_state=1).assign(vendor="x")
    checked = validate(shuffled, sessions=calendar)
    pd.testing.assert_frame_equal(checked.bars, week)
    assert tuple(checked.bars.columns) == BAR_COLUMNS
    assert tuple(checked.quarantined.columns) == (*BAR_COLUMNS, "reason")


def test_an_empty_table_is_valid(week: pd.DataFrame, calendar: pd.DatetimeIndex) -> None:
    checked = validate(week[:0], sessions=calendar)
    assert (len(checked.bars), len(checked.quarantined), len(checked.gaps)) == (0, 0, 0)


def test_a_table_of_another_shape_is_refused(week: pd.DataFrame, calendar: pd.DatetimeIndex) -> None:
    with pytest.raises(BarsError, match="volume missing"):
        validate(week.drop(columns="volume"), sessions=calendar)
    with pytest.raises(BarsError, match="column close must hold numbers"):
        validate(week.astype({"close": "object"}).assign(close="dear"), sessions=calendar)
    with pytest.raises(BarsError, match="column session must hold tz-naive dates"):
        validate(week.assign(session=week["session"].dt.tz_localize("UTC")), sessions=calendar)


def factors(*rows: tuple[str, float, float, float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["date", "price_factor", "split_factor", "ref_price"])
    return table.assign(symbol="X", date=pd.to_datetime(table["date"]))


def actions_of(table: pd.DataFrame) -> list[tuple[str, str, float]]:
    actions = actions_from_factors(table, bundled.sessions())
    return [(f"{row.ex_date:%Y-%m-%d}", row.kind, row.value) for row in actions.itertuples()]


def test_the_ex_date_is_the_session_after_the_factors_date() -> None:
    friday_before_a_holiday = factors(("2020-01-17", 0.99, 1.0, 100.0), ("2050-12-31", 1.0, 1.0, 0.0))
    assert actions_of(friday_before_a_holiday) == [("2020-01-21", "dividend", 1.0)]


def test_a_row_may_carry_a_split_and_a_dividend() -> None:
    both = factors(("2020-03-02", 0.98, 0.5, 50.0), ("2050-12-31", 1.0, 1.0, 0.0))
    assert actions_of(both) == [("2020-03-03", "dividend", 1.0), ("2020-03-03", "split", 2.0)]


def test_factor_rounding_does_not_leak_into_ratios() -> None:
    seven = factors(("2014-06-06", 1.0, 0.0357143, 645.57), ("2050-12-31", 1.0, 0.25, 0.0))
    merged = factors(("2009-06-30", 1.0, 29.999999, 1.13), ("2050-12-31", 1.0, 1.0, 0.0))
    assert actions_of(seven) == [("2014-06-09", "split", 7.0)]
    assert actions_of(merged) == [("2009-07-01", "split", 1 / 30)]


def test_rows_outside_the_calendar_and_rows_that_change_nothing_yield_nothing() -> None:
    assert actions_of(factors(("2004-12-31", 0.9, 0.5, 10.0), ("2010-03-02", 1.0, 1.0, 20.0), ("2050-12-31", 1.0, 1.0, 0.0))) == []
    assert actions_of(factors(("2021-03-31", 0.9, 0.5, 10.0), ("2050-12-31", 1.0, 1.0, 0.0))) == []


def test_a_price_factor_that_falls_is_refused() -> None:
    with pytest.raises(BarsError, match=r"was 1.0 for X on 2020-03-02"):
        actions_of(factors(("2020-03-02", 1.0, 1.0, 50.0), ("2050-12-31", 0.9, 1.0, 0.0)))


@pytest.mark.parametrize("bad", [{"value": 0.0}, {"value": np.nan}, {"kind": "merger"}, {"ex_date": pd.NaT}])
def test_an_action_that_cannot_be_applied_is_refused(bad: dict[str, object]) -> None:
    action = {"symbol": "AAPL", "ex_date": pd.Timestamp("2020-08-31"), "kind": "split", "value": 4.0} | bad
    with pytest.raises(BarsError, match="AAPL"):
        check_actions(pd.DataFrame([action]))


def adjust(close: list[float], split: list[float], dividend: list[float]) -> tuple[list[float], list[float]]:
    column = np.array(close)[:, None]
    adjusted = adjust_forward(
        open=column,
        high=column,
        low=column,
        close=column,
        volume=np.full_like(column, 100.0),
        split=np.array(split)[:, None],
        dividend=np.array(dividend)[:, None],
    )
    return adjusted.close[:, 0].tolist(), adjusted.volume[:, 0].tolist()


def test_a_split_leaves_no_jump_and_rescales_volume() -> None:
    close, volume = adjust([400.0, 100.0, 110.0], [1, 4, 1], [0, 0, 0])
    assert close == [400.0, 400.0, 440.0]
    assert volume == [100.0, 25.0, 25.0]


def test_a_dividend_is_a_return_and_leaves_volume() -> None:
    close, volume = adjust([100.0, 98.0, 99.0], [1, 1, 1], [0, 2, 0])
    assert close == pytest.approx([100.0, 100.0, 99.0 / 0.98])
    assert volume == [100.0, 100.0, 100.0]


def test_a_dividend_counts_shares_of_before_the_split_of_its_day() -> None:
    close, _ = adjust([100.0, 49.0], [1, 2], [0, 2])
    assert close == pytest.approx([100.0, 100.0])


def test_an_event_during_a_halt_is_applied_at_the_next_bar() -> None:
    close, _ = adjust([100.0, np.nan, 49.0], [1, 2, 1], [0, 2, 0])
    assert close == pytest.approx([100.0, np.nan, 100.0], nan_ok=True)


def test_events_up_to_the_first_bar_are_without_effect() -> None:
    close, volume = adjust([np.nan, 50.0, 51.0], [2, 3, 1], [1, 1, 0])
    assert close == pytest.approx([np.nan, 50.0, 51.0], nan_ok=True)
    assert volume == [100.0, 100.0, 100.0]


def test_a_dividend_as_large_as_the_price_is_refused() -> None:
    with pytest.raises(BarsError, match=r"was 10.0 against 10.0 \(row 1, name 0\)"):
        adjust([10.0, 1.0], [1, 1], [0, 10.0])


def quote(second: float, bid: float, ask: float, size: float = 100.0) -> dict[str, object]:
    return {
        "symbol": "SPY",
        "ts": pd.Timestamp("2019-03-04T14:30:00Z") + pd.Timedelta(seconds=second),
        "bid": bid,
        "bid_size": size,
        "ask": ask,
        "ask_size": size,
    }


def test_quotes_become_bars_of_the_mid() -> None:
    rows = [quote(59, 10.0, 10.2), quote(0, 10.0, 10.0), quote(30, 10.4, 10.6), quote(61, 11.0, 11.5)]
    bars = quotes_to_bars(pd.DataFrame(rows)).bars
    assert tuple(bars.columns) == QUOTE_BAR_COLUMNS
    assert bars["ts"].dt.strftime("%H:%M:%S %Z").tolist() == ["14:30:00 UTC", "14:31:00 UTC"]
    assert bars.iloc[0, 2:].tolist() == pytest.approx([10.0, 10.5, 10.0, 10.1, 0.4 / 3, 3])
    assert bars.iloc[1, 2:].tolist() == pytest.approx([11.25, 11.25, 11.25, 11.25, 0.5, 1])


def test_bars_may_be_longer_and_times_in_any_zone() -> None:
    rows = pd.DataFrame([quote(0, 10.0, 10.0), quote(299, 12.0, 12.0), quote(300, 13.0, 13.0)])
    rows["ts"] = rows["ts"].dt.tz_convert("America/New_York")
    bars = quotes_to_bars(rows, minutes=5).bars
    assert bars["ts"].dt.strftime("%H:%M %Z").tolist() == ["14:30 UTC", "14:35 UTC"]
    assert bars["close"].tolist() == [12.0, 13.0]


def test_a_bad_quote_is_set_aside_with_its_reason() -> None:
    rows = [
        quote(0, 10.0, 10.1),
        quote(1, np.nan, 10.0),
        quote(2, 10.0, np.inf),
        quote(3, 0.0, 10.0),
        quote(4, 10.1, 10.0),
        quote(5, 10.0, 10.1, size=-1.0),
        quote(0, 10.0, 10.1),
        quote(6, 10.0, 10.1) | {"symbol": None},
    ]
    quoted = quotes_to_bars(pd.DataFrame(rows))
    assert quoted.quarantined["reason"].tolist() == [
        "bid or ask is missing or not finite",
        "bid or ask is missing or not finite",
        "bid or ask is not positive",
        "bid is above ask",
        "size is missing or negative",
        "repeats an identical quote",
        "symbol or ts is missing",
    ]
    assert quoted.bars["quotes"].tolist() == [1]


def test_times_without_a_zone_and_odd_lengths_are_refused() -> None:
    rows = pd.DataFrame([quote(0, 10.0, 10.1)])
    with pytest.raises(BarsError, match="tz-aware"):
        quotes_to_bars(rows.assign(ts=rows["ts"].dt.tz_localize(None)))
    with pytest.raises(BarsError, match="divisor of 1440, was 7"):
        quotes_to_bars(rows, minutes=7)


def test_all_bundled_quotes_are_bars_or_set_aside() -> None:
    quotes = bundled.minute_quotes()
    quoted = quotes_to_bars(quotes)
    assert quoted.bars["quotes"].sum() + len(quoted.quarantined) == len(quotes)
    assert quoted.quarantined["reason"].unique().tolist() == ["bid or ask is missing or not finite"]
    assert len(quoted.quarantined) == 12


def test_quote_bars_agree_with_the_recorded_trades() -> None:
    """SPY, AIG, BAC and IBM in regular hours, 2013-10-04..11: both come from the same minutes, by different routes.

    A trade prints at the bid or the ask, the mid is half a spread away, and within the minute's last seconds the quote may move once
    more: so the close of both may differ by the spread and a cent. Measured: 99.3% of 9,357 minutes agree so, IBM (180 dollars, the
    least traded) 98.6%; the rest are fast minutes, by 1 to 9 cents. Shifted by one minute, 64% would agree; by an hour, 17%.
    """
    mid, trades = quotes_to_bars(bundled.minute_quotes()).bars, bundled.minute_trades()
    both = mid.merge(trades, on=["symbol", "ts"], suffixes=("", "_of_trades"))
    clock = both["ts"].dt.tz_convert("America/New_York").dt.strftime("%Y-%m-%d %H:%M")
    in_hours = clock.str[11:].between("09:30", "15:59") & clock.str[:10].between("2013-10-04", "2013-10-11")
    both = both[in_hours & both["symbol"].isin(["SPY", "AIG", "BAC", "IBM"])]
    within = (both["close"] - both["close_of_trades"]).abs() <= both["spread"] + 0.01 + 1e-9
    assert len(both) == 9357
    assert within.mean() >= 0.99
    assert within.groupby(both["symbol"]).mean().min() >= 0.985
