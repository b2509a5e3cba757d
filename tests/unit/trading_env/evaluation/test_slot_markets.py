"""Books on slot bars: traded row by row, limited by day, judged by session, and never ahead of the slot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from papertape.research.compiled_backtest import compiled_backtest
from tests.markets import walk
from tests.minutes import NO_ACTIONS, hours, minutes
from trading_env.data.market import Market, build_market
from trading_env.data.observation import Observation
from trading_env.data.slot_bars import slot_bars
from trading_env.evaluation import scorecard
from trading_env.evaluation.backtest import backtest
from trading_env.evaluation.lookahead import find_changes, market_futures, market_record, open_futures, play, trade
from trading_env.evaluation.walk_forward import MIN_TRAINING, WalkForward, WalkForwardError, everything, split
from trading_env.orders.risk import Limits
from trading_env.simulation.env import BatchedTradingEnv, EnvConfig
from trading_env.simulation.policy import EqualWeight, SeededRandom
from trading_env.simulation.portfolio import Rules

SLOTS = np.array([5, 120, 240], dtype="timedelta64[m]")


def in_slots(market: Market) -> Market:
    """The same rows, three to a session."""
    days = np.busday_offset(np.datetime64("2019-01-02", "D"), np.arange(-(-len(market) // len(SLOTS))))
    keys = ((days.astype("datetime64[m]") + np.timedelta64(14 * 60 + 30, "m"))[:, None] + SLOTS).ravel()
    return replace(market, sessions=keys[: len(market)])


MARKET = in_slots(walk(sessions=150, assets=4, seed=3))
START, END = MARKET.days[30], MARKET.days[-1]


def test_slot_bars_of_one_slot_at_the_open_are_the_daily_bars_to_the_bit():
    span = ("2018-01-02", "2019-03-29")
    table, times = minutes(*span, symbols=("AAA", "BBB")).iloc[::30], hours(*span)
    bars = slot_bars(table, hours=times, slots=[0], window=390).bars
    by_slot = build_market(bars, NO_ACTIONS, symbols=("AAA", "BBB"))
    daily = build_market(bars.assign(session=bars["session"].dt.normalize()), NO_ACTIONS, symbols=("AAA", "BBB"))
    assert (by_slot.by_slot, daily.by_slot, by_slot.tradable.any()) == (True, False, True)
    for name, values in market_record(daily).items():
        np.testing.assert_array_equal(market_record(by_slot)[name], values, err_msg=name)
    first, last = daily.sessions[np.flatnonzero(daily.tradable.any(axis=1))[0] + 1], daily.sessions[-1]
    policy = EqualWeight(kappa=0.3)
    ours, theirs = (backtest(one, policy, start=first, end=last) for one in (by_slot, daily))
    for name in ("equity", "cash", "costs", "turnover", "quantities"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert theirs.by_session() is theirs
    np.testing.assert_array_equal(ours.by_session().sessions, theirs.sessions)


def test_a_book_is_traded_in_every_slot_and_read_at_the_closes_of_its_sessions():
    result = backtest(MARKET, SeededRandom(seed=1), start=START, end=END, limits=None)
    daily = result.by_session()
    closes = MARKET.ends_session[30:]
    assert (len(result.sessions), len(daily.sessions), str(daily.sessions.dtype)) == (120, 40, "datetime64[D]")
    np.testing.assert_array_equal(daily.equity, result.equity[closes])
    np.testing.assert_array_equal(daily.held, result.held[closes])
    np.testing.assert_allclose(daily.growth.sum(), result.growth.sum(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(daily.deltas.sum(axis=0), result.deltas.sum(axis=0), atol=1e-6)
    np.testing.assert_allclose(daily.turnover, result.turnover.reshape(-1, 3).sum(axis=1))
    assert (result.deltas != 0).any(axis=1).all()
    measured = scorecard.measures(daily, equal_weight=daily, at_kappa=daily)
    assert measured["turnover_per_day"] == pytest.approx(3 * result.turnover.mean())


def test_limits_of_a_day_count_every_slot_of_its_session():
    limits = Limits(max_turnover_per_day=1.3, max_orders_per_day=9, max_weight=1.0)
    result = backtest(MARKET, SeededRandom(seed=1), start=START, end=END, limits=limits)
    orders = (result.deltas != 0).sum(axis=1).reshape(-1, 3)
    assert orders.sum(axis=1).max() <= 9 < 3 * orders.max()
    assert any("orders_per_day" in line for line in result.denied)
    # Equity moves a little within a day, so the sum of a session's turnovers may lie a little off the limit
    assert result.by_session().turnover.max() < 1.3 * 1.05
    assert any("turnover_per_day" in line for line in result.denied)
    assert result.turnover.reshape(-1, 3)[:, 0].max() > 0.9  # the next day begins anew


def test_equal_weight_daily_trades_once_per_session_so_that_slots_give_nobody_a_dear_yardstick():
    daily = backtest(MARKET.decided_daily(), EqualWeight(), start=START, end=END, limits=None)
    orders = (daily.deltas != 0).any(axis=1).reshape(-1, 3)
    assert orders[:, 0].all()
    assert not orders[:, 1:].any()
    every = backtest(MARKET, EqualWeight(), start=START, end=END, limits=None)
    assert every.costs.sum() > 1.2 * daily.costs.sum()
    by_day = replace(MARKET, sessions=np.busday_offset(np.datetime64("2019-01-02", "D"), np.arange(len(MARKET))))
    assert by_day.decided_daily() is by_day


def falling() -> Market:
    """One name of two that falls by a tenth in each slot of a session."""
    price = np.full((12, 2), 100.0)
    price[6:9, 0] = [90.0, 81.0, 72.9]
    price[9:, 0] = price[8, 0]
    return in_slots(replace(walk(sessions=12, assets=2, eventful=False), open=price, close=price, high=price, low=price))


def test_the_daily_loss_is_measured_from_the_last_close_and_not_from_the_last_slot():
    market = falling()
    limits = Limits(max_daily_loss=0.08, max_weight=1.0, max_drawdown=0.9)
    result = backtest(market, EqualWeight(), start=market.days[3], end=market.days[-1], limits=limits)
    # Half the book is in the name: about 5 % are lost by the first slot and 10 % by the second, never 8 % from one slot to the next
    assert [str(session)[:10] for session in result.sessions[:6]] == [str(market.days[3])] * 3 + [str(market.days[6])] * 3
    assert (result.deltas[3] > 0).any()
    assert not (result.deltas[4:] > 0).any()
    assert "since the close" in result.denied[0]


def test_the_kernels_pages_trade_slot_bars_by_the_reference_itself():
    options = {"start": START, "end": END, "rules": Rules(), "initial_cash": 1e5, "limits": Limits(max_orders_per_day=9)}
    ours, theirs = (run(MARKET, SeededRandom(seed=1), **options) for run in (compiled_backtest, backtest))
    np.testing.assert_array_equal(ours.equity, theirs.equity)
    assert ours.denied == theirs.denied


def test_an_environment_steps_from_slot_to_slot_with_the_books_of_a_backtest():
    env = BatchedTradingEnv(MARKET, num_envs=1, config=EnvConfig(kappa=1.0, episode_sessions=60, start="cash", limits=None))
    env.reset(seed=0, options={"session": MARKET.sessions[29]})
    values = [env.step(np.zeros((1, 4), dtype=np.float32))[4]["value"][0] for _ in range(60)]
    result = backtest(MARKET, EqualWeight(), start=START, end=MARKET.sessions[89], limits=None)
    np.testing.assert_allclose(values, result.equity, rtol=1e-12)


def test_nothing_of_a_later_slot_enters_a_decision_and_nothing_but_its_price_a_fill():
    def decided(market: Market) -> dict[str, np.ndarray]:
        return trade(lambda _: SeededRandom(seed=2), market, rules=Rules(), start=START, initial_cash=1e5, limits=Limits())

    def played(market: Market) -> dict[str, np.ndarray]:
        def make(one: Market, steps: int) -> BatchedTradingEnv:
            return BatchedTradingEnv(one, num_envs=2, config=EnvConfig(episode_sessions=steps, start="random"))

        return play(make, market, start=MARKET.sessions[30])

    cuts = [40, 41]  # within a session, and at its close
    assert find_changes(decided, MARKET, cuts=cuts, futures=market_futures) == []
    assert find_changes(played, MARKET, cuts=cuts, futures=market_futures) == []
    fills = [name for name in decided(MARKET) if name in ("deltas", "cash", "costs", "quantities")]
    assert find_changes(lambda one: {name: decided(one)[name] for name in fills}, MARKET, cuts=cuts, futures=open_futures) == []


def test_folds_are_whole_sessions_and_what_training_needs_is_counted_in_rows():
    days = np.busday_offset(np.datetime64("2019-01-02", "D"), np.arange(130))
    keys = ((days.astype("datetime64[m]") + np.timedelta64(14 * 60 + 30, "m"))[:, None] + SLOTS).ravel()
    bounds = {"start": days[0], "live_start": "2030-01-01", "folds": 2, "holdout_sessions": 10}
    folds = split(keys, test_start=days[90], purge_sessions=6, **bounds)
    assert [fold.train_end for fold in folds[:1]] == [days[83]]
    assert (folds[0].test_start, folds[1].test_end, folds[2].test_start, folds[2].test_end) == (days[90], days[119], days[120], days[129])
    with pytest.raises(WalkForwardError, match="89 lie before test_start 2019-05-07, 90 are needed"):
        split(keys, test_start=days[89], purge_sessions=6, **bounds)
    assert everything(keys, start=days[0], live_start=days[-1]).train_end == days[-2]
    with pytest.raises(WalkForwardError, match=f"249 slot bars from .*, training needs {MIN_TRAINING}"):
        everything(keys[:249], start=days[0], live_start=days[-1])

    walker = WalkForward([EqualWeight(name=str(fold.number)) for fold in folds], folds=folds, sessions=keys, name="walk")
    for key in (keys[89 * 3 + 2], keys[90 * 3], keys[-2]):  # the last slot before a session is traded by that session's fold
        walker.scores(Observation(as_of=key, symbols=("A",), vector=np.zeros(3, dtype=np.float32)))
    with pytest.raises(WalkForwardError, match="no fold is judged"):
        walker.scores(Observation(as_of=keys[89 * 3 + 1], symbols=("A",), vector=np.zeros(3, dtype=np.float32)))


def test_a_random_policy_scores_anew_in_every_slot():
    policy, vector = SeededRandom(seed=1), np.zeros(3, dtype=np.float32)
    scores = [policy.scores(Observation(as_of=key, symbols=("A",), vector=vector))[0] for key in (*MARKET.sessions[:3], MARKET.days[0])]
    assert len(set(scores)) == 4
    assert pd.Series(scores).notna().all()


def test_an_action_that_came_late_enters_the_features_at_the_close_of_the_session_that_knew_it():
    span = ("2019-03-04", "2019-04-12")
    bars = slot_bars(minutes(*span, symbols=("AAA", "BBB")), hours=hours(*span), slots=[5, 120, 240], window=30).bars
    sessions = np.unique(bars["session"].to_numpy().astype("datetime64[D]"))
    day, knew = (pd.Timestamp(sessions[place]) for place in (15, 17))
    split = {"symbol": "AAA", "ex_date": day, "kind": "split", "value": 2.0, "known": knew}
    without, late = (build_market(bars, actions, symbols=("AAA", "BBB")) for actions in (NO_ACTIONS, pd.DataFrame([split])))
    changed = (late.features[:, 0] != without.features[:, 0]) & np.isfinite(without.features[:, 0])
    rows = np.flatnonzero(changed.any(axis=1))
    assert late.sessions[rows[0]] == late.sessions[late.days == np.datetime64(knew, "D")][-1]
    assert late.split[late.index_of(str(day.date())), 0] == 2.0
