"""Nothing after t enters t: cut, poison or shorten the data, and what was known stays what it was."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from papertape.market_data import bundled
from tests import markets
from trading_env.data.bars import Array
from trading_env.data.features import HISTORY_SESSIONS, RANK_FEATURES, features
from trading_env.data.market import Market, build_market
from trading_env.evaluation.lookahead import find_changes, market_futures, play, trade
from trading_env.simulation.env import BatchedTradingEnv, EnvConfig
from trading_env.simulation.policy import SeededRandom
from trading_env.simulation.portfolio import Costs, Rules

UNIVERSE = ("SPY", "QQQ", "IWM", "AAPL", "AIG", "BAC", "GOOG", "IBM")
BARS, ACTIONS = bundled.daily_bars(), bundled.corporate_actions()
WHOLE = build_market(BARS, ACTIONS, symbols=UNIVERSE)
PANEL = ("open", "high", "low", "close", "volume")

# any row of the sixteen years after the first tradable one, and often the rows around a split, AIG's fall or QQQ's first bar
ROWS = st.integers(300, len(WHOLE) - 2) | st.sampled_from(
    [WHOLE.index_of(day) + k for day in ("2008-09-15", "2009-07-01", "2011-03-23", "2014-06-09", "2020-08-31") for k in (-1, 0, 1)]
)


def assert_known_is_unchanged(before: Market, after: Market, row: int) -> None:
    for name in (*PANEL, "split", "dividend", "tradable", "features", "context"):
        known, again = getattr(before, name)[: row + 1], getattr(after, name)[: row + 1]
        assert known.tobytes() == again.tobytes(), name


@settings(max_examples=25, deadline=None)
@given(row=ROWS)
def test_cutting_the_data_after_t_changes_no_bit_until_t(row: int) -> None:
    last = pd.Timestamp(WHOLE.sessions[row])
    cut = build_market(BARS[BARS["session"] <= last], ACTIONS[ACTIONS["ex_date"] <= last], symbols=UNIVERSE)
    assert len(cut) == row + 1
    assert_known_is_unchanged(WHOLE, cut, row)


@settings(max_examples=25, deadline=None)
@given(row=ROWS, seed=st.integers(0, 2**32 - 1), halted=st.floats(0, 0.5))
def test_poison_after_t_changes_no_bit_until_t(row: int, seed: int, halted: float) -> None:
    """Every later price, volume and event is another one, and some later bars are gone."""
    rng = np.random.default_rng(seed)
    last = pd.Timestamp(WHOLE.sessions[row])
    later = BARS["session"] > last
    poisoned = BARS.copy()
    poisoned.loc[later, "volume"] = rng.uniform(0, 1e10, later.sum())
    factor = np.exp(rng.normal(0, 1, later.sum()))
    for column in PANEL[:4]:
        poisoned.loc[later, column] *= factor
    gone = later & (rng.random(len(BARS)) < halted)
    days = pd.Series(WHOLE.sessions[row + 1 :])
    invented = pd.DataFrame(
        {"symbol": rng.choice(UNIVERSE, 20), "ex_date": days.sample(20, replace=True, random_state=seed).to_numpy(), "kind": "split"}
    ).assign(value=rng.uniform(0.05, 20, 20))
    actions = pd.concat([ACTIONS[ACTIONS["ex_date"] <= last], invented.astype({"ex_date": "datetime64[us]"})])
    assert_known_is_unchanged(WHOLE, build_market(poisoned[~gone], actions, symbols=UNIVERSE), row)


@settings(max_examples=30, deadline=None)
@given(row=st.integers(HISTORY_SESSIONS, len(WHOLE) - 1))
def test_600_sessions_of_history_are_enough(row: int) -> None:
    """What live computes from the last 600 sessions is what the whole history gives, for every name that has them."""
    first, last = (pd.Timestamp(WHOLE.sessions[at]) for at in (row - HISTORY_SESSIONS + 1, row))
    recent = BARS[BARS["session"].between(first, last)]
    live = build_market(recent, ACTIONS[ACTIONS["ex_date"] <= last], symbols=UNIVERSE)
    assert len(live) == HISTORY_SESSIONS
    np.testing.assert_allclose(live.context[-1], WHOLE.context[row], rtol=0, atol=1e-9)
    np.testing.assert_allclose(live.features[-1], WHOLE.features[row], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(live.tradable[-1], WHOLE.tradable[row])


def walk(*, seed: int, length: int, names: int, tick: float, absent: float) -> dict[str, Array]:
    """A panel of adjusted bars: coarse ticks make ties and flat stretches, `absent` removes bars."""
    rng = np.random.default_rng(seed)
    close = np.maximum(np.round(50 * np.exp(np.cumsum(rng.normal(0, 0.02, (length, names)), axis=0)) / tick), 1) * tick
    opened = np.maximum(np.round(close * np.exp(rng.normal(0, 0.01, close.shape)) / tick), 1) * tick
    high, low = np.maximum(opened, close) + tick * rng.integers(0, 2, close.shape), np.minimum(opened, close)
    volume = rng.integers(0, 5, close.shape) * 100.0
    panel = dict(zip(PANEL, (opened, high, low, close, volume), strict=True))
    gone = rng.random(close.shape) < absent
    return {name: np.where(gone, np.nan, values) for name, values in panel.items()}


WALKS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "length": st.integers(2, 700),
        "names": st.integers(1, 12),
        "tick": st.sampled_from([0.01, 1.0, 25.0]),
        "absent": st.sampled_from([0.0, 0.05, 0.9]),
    }
)


@settings(max_examples=60, deadline=None)
@given(panel=WALKS, share=st.floats(0, 1))
def test_any_panel_may_be_cut_anywhere(panel: dict[str, float], share: float) -> None:
    bars = walk(**panel)  # type: ignore[arg-type]
    cut = max(1, int(share * len(bars["close"])))
    whole, part = features(**bars), features(**{name: values[:cut] for name, values in bars.items()})
    for known, again in zip(whole, part, strict=True):
        assert known[:cut].tobytes() == again.tobytes()


@settings(max_examples=40, deadline=None)
@given(panel=WALKS)
def test_ranks_are_centred_and_bounded_and_names_may_be_reordered(panel: dict[str, float]) -> None:
    bars = walk(**panel)  # type: ignore[arg-type]
    values, context = features(**bars)
    ranks = values[..., -len(RANK_FEATURES) :]
    assert np.nanmax(np.abs(ranks), initial=0.0) <= 0.5
    np.testing.assert_allclose(np.nansum(ranks, axis=1), 0, atol=1e-12)
    mirrored, mirrored_context = features(**{name: columns[:, ::-1] for name, columns in bars.items()})
    np.testing.assert_array_equal(mirrored[:, ::-1], values)
    np.testing.assert_allclose(mirrored_context, context, rtol=0, atol=1e-12)


COSTS = st.sampled_from(
    [Costs(slippage_bps=0.0), Costs(fee_bps=5.0, slippage_bps=10.0), Costs(slippage_bps=5.0, impact=1.0, max_volume_share=0.001)]
)
STARTS = st.sampled_from(["equal", "random"])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(12, 58), costs=COSTS, start=STARTS, whole=st.booleans())
def test_no_environment_and_no_book_knows_a_later_split_halt_or_price(seed: int, cut: int, costs: Costs, start: str, whole: bool) -> None:
    market = markets.walk(sessions=60, assets=3, seed=seed)
    rules, first = Rules(costs=costs, whole_shares=whole), market.sessions[10]
    assume(market.tradable[10].any())

    def environment(known: Market, sessions: int) -> BatchedTradingEnv:
        config = EnvConfig(rules=rules, episode_sessions=sessions, start=start)  # type: ignore[arg-type]
        return BatchedTradingEnv(known, num_envs=2, config=config)

    assert find_changes(lambda known: play(environment, known, start=first), market, cuts=(cut,), futures=market_futures) == []

    def traded(known: Market) -> dict[str, np.ndarray]:
        return trade(lambda _: SeededRandom(seed), known, rules=rules, start=first, initial_cash=1e4)

    assert find_changes(traded, market, cuts=(cut,), futures=market_futures) == []
