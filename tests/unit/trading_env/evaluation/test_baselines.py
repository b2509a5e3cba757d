"""Each row does what its line in the table says, through the engine that trades the policy."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.markets import market_of, walk
from trading_env.data.market import Market
from trading_env.evaluation.allocation import inverse_volatility, minimum_variance, momentum
from trading_env.evaluation.backtest import BacktestResult, backtest, buy_and_hold
from trading_env.evaluation.baselines import BaselineError, all_baselines, ridge, ridge_coefficients
from trading_env.evaluation.walk_forward import Fold
from trading_env.simulation.policy import EqualWeight
from trading_env.simulation.portfolio import Costs, Rules

RULES = Rules(costs=Costs(slippage_bps=10.0))
CALM = walk(sessions=400, assets=5, seed=2, eventful=False)
EVENTFUL = walk(sessions=400, assets=5, seed=3)
FIRST, LAST = 300, 350


def folds_of(market: Market, *, first: int = FIRST, last: int = LAST, tests: int = 2) -> list[Fold]:
    edges = np.linspace(first, last + 1, tests + 1).astype(int)
    days = market.sessions
    return [Fold(number, days[0], days[begin - 6], days[begin], days[end - 1]) for number, (begin, end) in enumerate(pairwise(edges))]


def run(market: Market = CALM, *, first: int = FIRST, last: int = LAST, **options) -> dict[str, BacktestResult]:
    given = {"rules": RULES, "kappa": 0.1, "benchmark": "S1", "initial_cash": 1e5, "matched_turnover": 0.02, **options}
    folds = given.pop("folds", folds_of(market, first=first, last=last))
    results = all_baselines(market, folds=folds, start=market.sessions[first], end=market.sessions[last], **given)
    return {result.policy: result for result in results}


ROWS, EVENTFUL_ROWS = run(), run(EVENTFUL, matched_turnover=9.0)


def test_the_rows_come_in_order_over_the_same_sessions() -> None:
    names = [
        "cash",
        "equal weight held",
        "equal weight daily",
        "equal weight at kappa",
        "hold S1",
        "inverse volatility",
        "minimum variance",
        "12-1 momentum",
        "random at matched turnover",
        "ridge",
    ]
    assert list(ROWS) == names
    for result in (*ROWS.values(), *EVENTFUL_ROWS.values()):
        np.testing.assert_array_equal(result.sessions, CALM.sessions[FIRST : LAST + 1])
    assert list(run(benchmark=None, last=FIRST + 2, matched_turnover=9.0)) == [name for name in names if name != "hold S1"]


def test_cash_stays_what_it_is() -> None:
    assert (ROWS["cash"].equity == 1e5).all()
    assert not ROWS["cash"].deltas.any()


def test_held_is_bought_once_and_changed_by_splits_alone() -> None:
    for rows in (ROWS, EVENTFUL_ROWS):
        assert (rows["equal weight held"].deltas[0] > 0).sum() >= 4
        assert not rows["equal weight held"].deltas[1:].any()
    bought = ROWS["equal weight held"].quantities
    np.testing.assert_array_equal(bought, np.tile(bought[0], (len(bought), 1)))
    np.testing.assert_allclose(bought[0] * CALM.open[FIRST] / 1e5, 0.995 / 5, rtol=1e-6)
    assert EVENTFUL_ROWS["equal weight held"].dividends.sum() > 0


def test_held_does_not_buy_what_is_listed_later() -> None:
    rows = run(EVENTFUL, first=130, last=140, matched_turnover=9.0)  # row 133 is its first
    assert not rows["equal weight held"].quantities[:, -1].any()
    assert rows["equal weight daily"].quantities[-1, -1] > 0


@pytest.mark.parametrize(("name", "kappa"), [("equal weight daily", 1.0), ("equal weight at kappa", 0.1)])
def test_equal_weight_is_the_backtest_of_zero_scores(name: str, kappa: float) -> None:
    days = EVENTFUL.sessions
    same = backtest(EVENTFUL, EqualWeight(kappa=kappa), rules=RULES, start=days[FIRST], end=days[LAST], initial_cash=1e5, limits=None)
    np.testing.assert_array_equal(EVENTFUL_ROWS[name].equity, same.equity)


def test_the_benchmark_is_bought_and_held() -> None:
    same = buy_and_hold(CALM, "S1", rules=RULES, start=CALM.sessions[FIRST], end=CALM.sessions[LAST], initial_cash=1e5)
    np.testing.assert_array_equal(ROWS["hold S1"].equity, same.equity)


@pytest.mark.parametrize(
    ("name", "window", "weigh"),
    [("inverse volatility", 63, inverse_volatility), ("minimum variance", 252, minimum_variance), ("12-1 momentum", 252, momentum)],
)
def test_a_monthly_row_goes_to_its_rule_s_weights_and_rests_between(name: str, window: int, weigh) -> None:
    result, months = ROWS[name], CALM.sessions.astype("datetime64[M]")
    decided = [FIRST - 1, *(row for row in range(FIRST, LAST) if months[row] != months[row - 1])]
    assert len(decided) >= 3
    traded = np.flatnonzero(result.deltas.any(axis=1)) + FIRST - 1
    np.testing.assert_array_equal(traded, decided)
    path = np.log(CALM.close)
    for row in decided:
        np.testing.assert_allclose(result.weights[row - FIRST + 1], weigh(path[row - window : row + 1]), rtol=1e-9, atol=1e-15)
    assert (result.weights[0] == 0).sum() == (3 if weigh is momentum else 0)


def test_a_split_is_no_return_and_a_dividend_is() -> None:
    days, flat = 330, np.full((330, 3), 100.0)
    flat *= 1.0 + 0.002 * np.sin(np.arange(days) * 1.7)[:, None] * [1, 1, 1]
    split, dividend = np.ones(flat.shape), np.zeros(flat.shape)
    split[100, 0], dividend[60:200, 1] = 2.0, 0.1
    price = flat / np.cumprod(split, axis=0)
    price[:, 2] *= np.linspace(1, 1.05, days)
    rows = run(market_of(open=price, close=price, split=split, dividend=dividend), first=280, last=300)
    assert rows["12-1 momentum"].weights[0].tolist() == [0.0, 1.0, 0.0]
    np.testing.assert_allclose(rows["inverse volatility"].weights[0, 0], 1 / 3, atol=0.01)


def test_without_the_history_a_row_is_equal_weight_and_a_young_name_gets_nothing() -> None:
    early = run(first=40, last=42, matched_turnover=9.0)
    for name in ("inverse volatility", "minimum variance", "12-1 momentum"):
        np.testing.assert_allclose(early[name].weights[0], 0.2)
    assert EVENTFUL.tradable[[189, 199], -1].all()  # listed at row 133
    young, grown = (
        run(EVENTFUL, first=first, last=first + 2, matched_turnover=9.0)["inverse volatility"].weights[0] for first in (190, 200)
    )
    assert young[-1] == 0 < young[:-1].min()
    assert grown[-1] > 0


class TestRandom:
    @pytest.mark.parametrize("turnover", [0.025, 0.06])
    def test_its_turnover_is_the_one_to_match(self, turnover: float) -> None:
        """Below what equal weight at kappa trades, 3 % a day here with the first purchase in it, and above."""
        assert 0.025 < ROWS["equal weight at kappa"].turnover.mean() < 0.06
        assert run(matched_turnover=turnover)["random at matched turnover"].turnover.mean() == pytest.approx(turnover, rel=0.0205)

    def test_its_seed_decides(self) -> None:
        once, again, other = (
            run(seed=seed, last=FIRST + 5, matched_turnover=9.0)["random at matched turnover"].weights for seed in (0, 0, 1)
        )
        np.testing.assert_array_equal(once, again)
        assert abs(once - other).max() > 0.1

    def test_out_of_reach_it_comes_as_near_as_it_can(self) -> None:
        wild, still = (
            run(matched_turnover=turnover, last=FIRST + 20)["random at matched turnover"].turnover.mean() for turnover in (3.0, 1e-6)
        )
        assert 0.15 < wild < 0.3
        assert still == pytest.approx(0.995 / 21, rel=1e-3)

    @pytest.mark.parametrize("turnover", [0.0, -0.1, np.nan])
    def test_no_turnover_cannot_be_matched(self, turnover: float) -> None:
        with pytest.raises(BaselineError, match="needs a turnover above 0, was"):
            run(matched_turnover=turnover)


def told(*, strength: float, until: int = 400, seed: int = 0) -> Market:
    """A walk whose first feature is, up to the row `until`, `strength` x the move from the next open to the one after."""
    rng = np.random.default_rng(seed)
    signal, noise = rng.normal(size=(400, 5)), rng.normal(0, 0.01, (400, 5))
    moves = noise + strength * signal * (np.arange(400) < until)[:, None]
    opens = 50 * np.exp(np.cumsum(np.vstack([np.zeros((2, 5)), moves[:-2]]), axis=0))
    features = np.stack([signal, rng.normal(size=(400, 5))], axis=-1)
    return market_of(open=opens, close=np.vstack([opens[1:], opens[-1:]]), features=features)


def fitted(market: Market, folds: list[Fold], *, last: int = FIRST + 5, rules: Rules = RULES, kappa: float = 0.1) -> BacktestResult:
    days = market.sessions
    return backtest(
        market, ridge(market, folds, kappa=kappa), rules=rules, start=days[FIRST], end=days[last], initial_cash=1e5, limits=None
    )


class TestRidge:
    def test_the_row_is_its_policy(self) -> None:
        np.testing.assert_array_equal(ROWS["ridge"].equity, fitted(CALM, folds_of(CALM), last=LAST).equity)

    @pytest.mark.parametrize(("strength", "low", "high"), [(0.01, 0.004, 0.02), (0.0, -0.002, 0.002)])
    def test_it_earns_what_features_say_and_no_more(self, strength: float, low: float, high: float) -> None:
        market = told(strength=strength)
        result = fitted(market, folds_of(market), last=LAST, rules=Rules(costs=Costs(slippage_bps=0.0)), kappa=1.0)
        days = market.sessions
        even = backtest(
            market,
            EqualWeight(),
            rules=Rules(costs=Costs(slippage_bps=0.0)),
            start=days[FIRST],
            end=days[LAST],
            initial_cash=1e5,
            limits=None,
        )
        assert low < (result.growth - even.growth).mean() < high
        assert abs(result.scores).max() <= 3.0

    def test_its_scores_follow_the_feature_that_tells(self) -> None:
        market = told(strength=0.01)
        signal = market.features[FIRST - 1 : FIRST + 5, :, 0]
        scores = fitted(market, folds_of(market)).scores
        assert np.corrcoef(scores.ravel(), (signal - signal.mean(axis=1, keepdims=True)).ravel())[0, 1] > 0.95

    def test_each_fold_knows_its_training_alone(self) -> None:
        """Every price after a fold's training is replaced: its scores for the same features stay to the bit. The last one counts."""
        fold = folds_of(EVENTFUL, tests=1)[0]
        end = EVENTFUL.index_of(fold.train_end)
        mixed = {name: getattr(EVENTFUL, name).copy() for name in ("open", "high", "low", "close")}
        for values in mixed.values():
            values[end + 1 :] *= np.random.default_rng(9).uniform(0.8, 1.2, values[end + 1 :].shape)
        scores = fitted(EVENTFUL, [fold]).scores
        np.testing.assert_array_equal(fitted(replace(EVENTFUL, **mixed), [fold]).scores, scores)
        mixed["open"][end] *= [1.1, 0.9, 1.0, 1.1, 0.9]
        assert (fitted(replace(EVENTFUL, **mixed), [fold]).scores != scores).any()

    def test_folds_are_fitted_each_on_its_own(self) -> None:
        first, second = folds_of(CALM, last=FIRST + 5)
        both = fitted(CALM, [first, second]).scores
        np.testing.assert_array_equal(both[:3], fitted(CALM, [replace(first, test_end=second.test_end)]).scores[:3])
        np.testing.assert_array_equal(both[3:], fitted(CALM, [replace(second, test_start=first.test_start)]).scores[3:])
        assert (both[:3] != fitted(CALM, [replace(second, test_start=first.test_start)]).scores[:3]).any()

    def test_what_it_cannot_be_fitted_on_is_refused(self) -> None:
        fold = folds_of(CALM, tests=1)[0]
        with pytest.raises(BaselineError, match="more labelled rows than features, fold 0 has 0"):
            ridge(CALM, [replace(fold, train_end=CALM.sessions[1])], kappa=0.1)
        with pytest.raises(BaselineError, match="a fold whose test lies in the span"):
            run(last=FIRST + 2, folds=[replace(fold, test_end=CALM.sessions[FIRST - 1])], matched_turnover=9.0)

    def test_the_coefficients_are_the_published_formula(self) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(200, 3)) * [1.0, 5.0, 0.2]
        x -= x.mean(axis=0)
        y = x @ [0.02, 0.0, -0.1] + rng.normal(0, 0.1, 200)
        y -= y.mean()
        z = x / np.sqrt((x**2).mean(axis=0))
        least = np.linalg.lstsq(z, y, rcond=None)[0]
        penalty = 3 * ((y - z @ least) ** 2).sum() / (200 - 3) / (least @ least)
        expected = np.linalg.solve(z.T @ z + penalty * np.eye(3), z.T @ y)
        assert np.linalg.norm(expected) < 0.99 * np.linalg.norm(least)
        both = np.column_stack([x, y])
        predicted = x @ ridge_coefficients(both.T @ both, rows=200)
        np.testing.assert_allclose(predicted, z @ expected / (z @ expected).std(), rtol=1e-9)

    def test_features_that_say_the_same_or_nothing_do_not_break_it(self) -> None:
        rng = np.random.default_rng(1)
        x = rng.normal(size=100)
        y = x + rng.normal(size=100)
        both = np.column_stack([x, 2 * x, np.zeros(100), y])
        np.testing.assert_allclose(
            np.column_stack([x, 2 * x]) @ ridge_coefficients(both.T @ both, rows=100)[:2], x / np.sqrt((x**2).mean()), rtol=1e-9
        )
        assert not ridge_coefficients(np.diag([1.0, 1.0, 0.0]), rows=10).any()
        assert not ridge_coefficients(np.diag([0.0, 0.0, 1.0]), rows=10).any()
