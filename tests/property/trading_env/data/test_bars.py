"""Bars for any input: nothing is lost, nothing is invented, and order doesn't matter."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from papertape.market_data import bundled
from trading_env.data.bars import BAR_COLUMNS, PRICE_COLUMNS, Array, actions_from_factors, adjust_forward, quotes_to_bars, validate

CALENDAR = bundled.sessions()[:40]
PRICE = st.sampled_from([-1.0, 0.0, 9.0, 10.0, 10.5, 11.0, float("nan"), float("inf")])
DAYS = st.sampled_from([*CALENDAR[:6], pd.Timestamp("2005-01-08"), pd.NaT])
ROW = st.tuples(st.sampled_from(["A", "B", None]), DAYS, PRICE, PRICE, PRICE, PRICE, st.sampled_from([-1.0, 0.0, 100.0, float("nan")]))
TABLES = st.lists(ROW, max_size=25).map(lambda rows: pd.DataFrame(rows, columns=list(BAR_COLUMNS)).astype({"session": "datetime64[us]"}))

REAL = bundled.daily_bars().query("symbol in ('AAPL', 'SPY')").groupby("symbol").head(40).reset_index(drop=True)


def multiset(table: pd.DataFrame) -> list[str]:
    return sorted(repr(row) for row in table[list(BAR_COLUMNS)].astype("object").itertuples(index=False, name=None))


@settings(max_examples=40, deadline=None)
@given(table=TABLES)
def test_every_row_is_kept_as_it_came_or_set_aside_with_a_reason(table: pd.DataFrame) -> None:
    checked = validate(table, sessions=CALENDAR)
    assert multiset(pd.concat([checked.bars, checked.quarantined])) == multiset(table)
    assert (checked.quarantined["reason"] != "").all()


@settings(max_examples=40, deadline=None)
@given(table=TABLES)
def test_what_is_kept_satisfies_every_rule(table: pd.DataFrame) -> None:
    bars = validate(table, sessions=CALENDAR).bars
    prices = bars[list(PRICE_COLUMNS)].to_numpy()
    assert (np.isfinite(prices) & (prices > 0)).all()
    assert (bars["high"] == prices.max(axis=1)).all()
    assert (bars["low"] == prices.min(axis=1)).all()
    assert (bars["volume"] >= 0).all()
    assert bars["session"].isin(CALENDAR).all()
    assert not bars.duplicated(["symbol", "session"]).any()
    again = validate(bars, sessions=CALENDAR)
    assert again.quarantined.empty
    pd.testing.assert_frame_equal(again.bars, bars)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), gone=st.sets(st.integers(0, len(REAL) - 1), max_size=60), copies=st.lists(st.integers(0, len(REAL) - 1), max_size=5))
def test_good_rows_survive_any_order_repeats_and_holes(data: st.DataObject, gone: set[int], copies: list[int]) -> None:
    kept = REAL.drop(index=sorted(gone))
    copied = kept[kept.index.isin(copies)]
    mixed = pd.concat([kept, copied]).sample(frac=1, random_state=data.draw(st.integers(0, 1000)))
    checked = validate(mixed, sessions=CALENDAR)
    pd.testing.assert_frame_equal(checked.bars, kept.reset_index(drop=True))
    assert set(checked.quarantined["reason"]) <= {"repeats an identical bar"}
    for symbol, own in checked.bars.groupby("symbol"):
        first, last = CALENDAR.get_indexer([own["session"].min(), own["session"].max()])
        gaps = checked.gaps.loc[checked.gaps["symbol"] == symbol, "session"]
        assert sorted([*own["session"], *gaps]) == list(CALENDAR[first : last + 1])


def panel(seed: int, length: int, absent: float) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shape = (length, 3)
    close = np.exp(rng.normal(3, 0.5, shape))
    bars = {"open": close * 1.01, "high": close * 1.02, "low": close * 0.99, "close": close, "volume": rng.uniform(1, 1e6, shape)}
    gone = rng.random(shape) < absent
    events = rng.random(shape) < 0.2
    return {name: np.where(gone, np.nan, values) for name, values in bars.items()} | {
        "split": np.where(events, rng.choice([0.05, 0.5, 1.0027, 2, 4, 7], shape), 1.0),
        "dividend": np.where(rng.random(shape) < 0.2, rng.uniform(0, 1, shape), 0.0),
    }


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(2, 80), absent=st.sampled_from([0.0, 0.3]), cut=st.floats(0, 1))
def test_adjusted_returns_are_a_holders_and_the_past_stays(seed: int, length: int, absent: float, cut: float) -> None:
    """Between two bars of a name: splits multiply its shares, each dividend is reinvested at the close before it."""
    raw = panel(seed, length, absent)
    adjusted = adjust_forward(**raw)
    part = adjust_forward(**{name: values[: 1 + int(cut * (length - 1))] for name, values in raw.items()})
    for name in ("open", "high", "low", "close", "volume"):
        known = getattr(part, name)
        assert known.tobytes() == getattr(adjusted, name)[: len(known)].tobytes()
    for name in range(3):
        rows = np.flatnonzero(np.isfinite(raw["close"][:, name]))
        for before, after in itertools.pairwise(rows):
            price, shares = raw["close"][before, name], 1.0
            for event in range(before + 1, after + 1):
                shares *= raw["split"][event, name] / (1 - raw["dividend"][event, name] / price)
            expected = shares * raw["close"][after, name] / price
            np.testing.assert_allclose(adjusted.close[after, name] / adjusted.close[before, name], expected, rtol=1e-9)


ACTIONS = st.dictionaries(
    st.integers(1, 38),
    st.tuples(st.sampled_from([1.0, 2.0, 3.0, 7.0, 1.5, 0.05, 0.1]), st.sampled_from([0.0, 0.01, 0.25, 8.42])),
    max_size=6,
)


@settings(max_examples=50, deadline=None)
@given(actions=ACTIONS)
def test_factors_are_turned_back_into_the_actions_they_were_made_of(actions: dict[int, tuple[float, float]]) -> None:
    price_factor, split_factor = 1.0, 1.0
    rows = [("2050-12-31", 1.0, 1.0, 0.0)]
    for at in sorted(actions, reverse=True):
        split, cash = actions[at]
        price_factor, split_factor = price_factor * (1 - cash / 50), split_factor / split
        rows.append((f"{CALENDAR[at - 1]:%Y-%m-%d}", round(price_factor, 7), split_factor, 50.0))
    factors = pd.DataFrame(rows, columns=["date", "price_factor", "split_factor", "ref_price"]).assign(symbol="X")
    found = actions_from_factors(factors, CALENDAR).set_index(["ex_date", "kind"])["value"].to_dict()
    splits = {(CALENDAR[at], "split"): split for at, (split, _) in actions.items() if split != 1}
    dividends = {(CALENDAR[at], "dividend"): cash for at, (_, cash) in actions.items() if cash > 0}
    assert found.keys() == (splits | dividends).keys()
    for key, value in (splits | dividends).items():
        assert abs(found[key] - value) < 1e-3, key


QUOTES = st.lists(
    st.tuples(st.sampled_from(["A", "B"]), st.integers(0, 1800), st.sampled_from([-1.0, 10.0, 10.1, float("nan")]), st.floats(9.9, 10.3)),
    max_size=40,
    unique_by=lambda row: row[:2],
)


@settings(max_examples=40, deadline=None)
@given(rows=QUOTES, minutes=st.sampled_from([1, 5, 30]), seed=st.integers(0, 100))
def test_quote_bars_hold_every_good_quote_once_whatever_their_order(
    rows: list[tuple[str, int, float, float]], minutes: int, seed: int
) -> None:
    quotes = pd.DataFrame(rows, columns=["symbol", "second", "bid", "ask"]).assign(bid_size=1.0, ask_size=1.0)
    quotes["ts"] = pd.Timestamp("2019-03-04T14:30:00Z") + pd.to_timedelta(quotes["second"], unit="s")
    quoted = quotes_to_bars(quotes, minutes=minutes)
    assert quoted.bars["quotes"].sum() + len(quoted.quarantined) == len(quotes)
    assert (quoted.bars["low"] <= quoted.bars[["open", "close"]].min(axis=1)).all()
    assert (quoted.bars["high"] >= quoted.bars[["open", "close"]].max(axis=1)).all()
    assert (quoted.bars["spread"] >= 0).all()
    assert not quoted.bars.duplicated(["symbol", "ts"]).any()
    shuffled = quotes_to_bars(quotes.sample(frac=1, random_state=seed), minutes=minutes)
    pd.testing.assert_frame_equal(shuffled.bars, quoted.bars)
