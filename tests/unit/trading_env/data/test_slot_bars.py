"""Minutes between slots: what a slot bar holds, what it never holds, and that no price is made up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.minutes import NO_ACTIONS, hours, minutes
from trading_env.data.bars import BarsError
from trading_env.data.market import Market, build_market, from_table, to_table
from trading_env.data.slot_bars import SessionHours, slot_bars

NAMES = ("AAA", "BBB")
WEEK = ("2019-03-04", "2019-03-06")
chosen_slots = st.lists(st.integers(0, 389), min_size=1, max_size=6, unique=True).map(sorted)


def stamp(text: str) -> pd.Timestamp:
    return pd.Timestamp(text)


@settings(max_examples=8, deadline=None)
@given(slots=chosen_slots, seed=st.integers(0, 5), window=st.integers(1, 60))
def test_a_bar_holds_the_minutes_from_its_slot_to_the_next_one_and_no_other(slots, seed, window):
    table, times = minutes(*WEEK, symbols=NAMES, seed=seed, missing=0.3), hours(*WEEK)
    found = slot_bars(table, hours=times, slots=slots, window=window)
    own = table.assign(session=table["ts"].dt.tz_localize(None))
    for name in NAMES:
        of_name = own[own["symbol"] == name]
        bars = found.bars[found.bars["symbol"] == name].set_index("session")
        for opens, closes in zip(times.opens, times.closes, strict=True):
            begins = [opens + np.timedelta64(slot, "m") for slot in slots]
            for place, begin in enumerate(begins):
                end = begins[place + 1] if place + 1 < len(begins) else closes
                within = of_name[(of_name["session"] >= (opens if place == 0 else begin)) & (of_name["session"] < end)]
                after = within[within["session"] >= begin]
                if after.empty or after["session"].iloc[0] >= begin + np.timedelta64(window, "m"):
                    assert pd.Timestamp(begin) not in bars.index  # no price is made up
                    continue
                bar = bars.loc[pd.Timestamp(begin)]
                assert bar["open"] == after["open"].iloc[0]
                assert (bar["high"], bar["low"]) == (within["high"].max(), within["low"].min())
                assert (bar["close"], bar["volume"]) == (within["close"].iloc[-1], within["volume"].sum())
    # Nothing is lost either: with a slot at the open and a wide window each minute is in a bar
    whole = slot_bars(table, hours=times, slots=[0, *[slot for slot in slots if slot]], window=390)
    assert whole.bars["volume"].sum() == table["volume"].sum()


def test_a_shortened_session_has_the_slots_before_its_close_and_no_other():
    found = slot_bars(minutes("2019-11-27", "2019-12-02"), hours=hours("2019-11-27", "2019-12-02"), slots=[5, 120, 240], window=30)
    slots = found.bars.loc[found.bars["symbol"] == "AAA", "session"]
    assert [f"{slot:%m-%d %H:%M}" for slot in slots] == [
        *("11-27 14:35", "11-27 16:30", "11-27 18:30"),
        *("11-29 14:35", "11-29 16:30"),  # the day after Thanksgiving closes at 13:00, 210 minutes after its open
        *("12-02 14:35", "12-02 16:30", "12-02 18:30"),
    ]
    only_late = slot_bars(minutes("2019-11-29", "2019-12-02"), hours=hours("2019-11-29", "2019-12-02"), slots=[240], window=30)
    assert only_late.bars["session"].dt.normalize().unique().tolist() == [stamp("2019-12-02")]


def test_slots_follow_the_exchange_when_the_clocks_change():
    found = slot_bars(minutes("2019-03-08", "2019-03-11"), hours=hours("2019-03-08", "2019-03-11"), slots=[30], window=30)
    slots = found.bars.loc[found.bars["symbol"] == "AAA", "session"]
    assert [f"{slot:%m-%d %H:%M}" for slot in slots] == ["03-08 15:00", "03-11 14:00"]  # both 10:00 in New York


def test_a_name_whose_first_minute_comes_after_the_window_has_no_bar_and_is_counted():
    table = minutes(*WEEK, symbols=NAMES)
    begin, end = pd.Timestamp("2019-03-05 15:30", tz="UTC"), pd.Timestamp("2019-03-05 16:05", tz="UTC")
    halted = table[~(table["symbol"].eq("AAA") & table["ts"].between(begin, end, inclusive="left"))]
    found = slot_bars(halted, hours=hours(*WEEK), slots=[5, 60, 240], window=30)  # 10:30 in New York is 15:30 UTC
    assert found.late.to_dict("list") == {"symbol": ["AAA"], "session": [stamp("2019-03-05 15:30")]}
    assert len(found.bars) == 2 * 9 - 1


def test_what_is_no_minute_bar_is_set_aside_by_reason_and_other_hours_are_counted():
    table = minutes(*WEEK, symbols=("AAA",))
    odd = table.iloc[[40, 41, 42]].copy()
    odd["high"] = [np.nan, -1.0, odd["low"].iloc[2] / 2]
    before = table.iloc[[0]].assign(ts=pd.Timestamp("2019-03-04 12:00", tz="UTC"))
    seconds = table.iloc[[50]].assign(ts=table["ts"].iloc[50] + pd.Timedelta(seconds=7))
    whole = pd.concat([table.drop(index=odd.index), odd, before, seconds], ignore_index=True)
    found = slot_bars(whole, hours=hours(*WEEK), slots=[5], window=30)
    assert found.quarantined["reason"].value_counts().to_dict() == {
        "price is missing or not finite": 1,
        "price is not positive": 1,
        "high is below open, low or close": 1,
        "session is not in the calendar": 1,
    }
    assert (found.outside, len(found.bars)) == (1, 3)


@pytest.mark.parametrize("slots", [[], [60, 5], [5, 5], [-1]])
def test_slots_out_of_order_are_refused(slots):
    with pytest.raises(BarsError, match="slots must be minutes after the open, in order"):
        slot_bars(minutes(*WEEK), hours=hours(*WEEK), slots=slots, window=30)


def test_minutes_without_a_zone_are_refused():
    naive = minutes(*WEEK).assign(ts=lambda table: table["ts"].dt.tz_localize(None))
    with pytest.raises(BarsError, match="with a tz-aware ts"):
        slot_bars(naive, hours=hours(*WEEK), slots=[5], window=30)


def built(table: pd.DataFrame, times: SessionHours, *, slots: list[int], actions: pd.DataFrame = NO_ACTIONS) -> Market:
    bars = slot_bars(table, hours=times, slots=slots, window=30).bars
    return build_market(bars, actions, symbols=sorted(bars["symbol"].unique()))


def test_no_minute_after_a_slot_enters_a_row_that_was_known_then():
    days = ("2019-03-04", "2019-03-29")
    table, times, slots = minutes(*days, missing=0.1, seed=3), hours(*days), [5, 35, 120, 240]
    whole = built(table, times, slots=slots)
    for cut in (0, 7, 30, 41, len(whole) - 2):
        known = table["ts"].dt.tz_localize(None) < whole.sessions[cut + 1]
        truncated = built(table[known], times, slots=slots)
        poison = {column: table[column].where(known, table[column] * 7.3) for column in ("open", "high", "low", "close", "volume")}
        for other in (truncated, built(table.assign(**poison), times, slots=slots)):
            for name in ("open", "high", "low", "close", "volume", "tradable", "features", "context"):
                np.testing.assert_array_equal(getattr(whole, name)[: cut + 1], getattr(other, name)[: cut + 1], err_msg=name)


def test_a_split_and_a_dividend_are_applied_before_the_first_slot_of_their_day():
    actions = pd.DataFrame(
        {
            "symbol": ["AAA", "BBB"],
            "ex_date": pd.to_datetime(["2019-03-05", "2019-03-06"]).astype("datetime64[us]"),
            "kind": ["split", "dividend"],
            "value": [4.0, 0.5],
        }
    )
    market = built(minutes(*WEEK, symbols=NAMES), hours(*WEEK), slots=[5, 120], actions=actions)
    assert market.split[:, 0].tolist() == [1, 1, 4, 1, 1, 1]
    assert market.dividend[:, 1].tolist() == [0, 0, 0, 0, 0.5, 0]
    assert market.ends_session.tolist() == [False, True] * 3


def test_a_market_of_slot_bars_is_read_by_session_and_by_slot_and_survives_its_table():
    market = built(minutes(*WEEK, symbols=NAMES), hours(*WEEK), slots=[5, 120])
    assert (market.by_slot, len(market), len(np.unique(market.days))) == (True, 6, 3)
    assert market.index_of("2019-03-05") == 2
    assert market.index_of(market.sessions[3]) == 3
    assert len(market.rows("2019-03-05", "2019-03-06")) == 4
    assert len(market.rows(market.sessions[1], market.sessions[2])) == 2
    again = from_table(to_table(market))
    assert again.sessions.dtype == market.sessions.dtype
    for name in ("sessions", "open", "close", "split", "tradable", "features", "context"):
        np.testing.assert_array_equal(getattr(again, name), getattr(market, name))


def test_an_action_that_was_told_late_enters_with_its_session_s_last_row():
    """Told in the evening of a session, no decision in its slots knew it."""
    span = ("2018-08-01", "2019-03-06")
    table, times = minutes(*span, symbols=("AAA", "BBB")).iloc[::20], hours(*span)
    bars = slot_bars(table, hours=times, slots=[0, 120], window=120).bars
    split = pd.DataFrame({"symbol": ["AAA"], "ex_date": pd.to_datetime(["2019-03-01"]), "kind": ["split"], "value": [2.0]})
    never, always, late = (
        build_market(bars, actions, symbols=("AAA", "BBB"))
        for actions in (NO_ACTIONS, split, split.assign(known=pd.to_datetime(["2019-03-05"])))
    )
    row = late.index_of("2019-03-05") + 1
    assert (late.ends_session[row], late.tradable[row:].any()) == (True, True)
    np.testing.assert_array_equal(late.features[:row], never.features[:row])
    np.testing.assert_array_equal(late.features[row:], always.features[row:])
    assert not np.array_equal(never.features[row:], always.features[row:])
