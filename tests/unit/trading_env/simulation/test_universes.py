"""One policy, any universe: other numbers of names, other orders, other masks, in torch, in NumPy and through a whole backtest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from learning import network
from tests.markets import walk
from trading_env.data.market import Market
from trading_env.data.observation import observe
from trading_env.evaluation.backtest import BacktestResult, backtest
from trading_env.simulation.policy import NumpyPolicy, PolicyCard, softmax
from trading_env.simulation.portfolio import Costs, Rules

F, G = 2, 2  # what `walk` gives a name, and all of them
INPUTS = F + 2 + 1 + G
RULES = Rules(costs=Costs(slippage_bps=10.0))


def networks_of(seeds: int) -> tuple[list[Any], NumpyPolicy]:
    """Networks with heads that are not zero, and what is served of them."""
    rng = np.random.default_rng(7)
    mu, sigma = rng.normal(0, 0.01, INPUTS), rng.uniform(0.01, 0.5, INPUTS)
    made = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        one = network.ScoreNetwork(features=F, context=G, mu=mu, sigma=sigma)
        with torch.no_grad():
            one.head.weight.copy_(torch.randn_like(one.head.weight) / 4)
        made.append(one)
    card = PolicyCard(
        features=("a", "b"),
        context=("c", "d"),
        feature_hash="of a test",
        schema_version=0,
        kappa=0.1,
        trained_on=("A", "B"),
        train_start="",
        train_end="",
        seeds=tuple(range(seeds)),
        code_version="of a test",
    )
    return made, NumpyPolicy(network.export(made), card)


NETWORKS, POLICY = networks_of(2)


def observations(count: int, assets: int, *, share: float) -> tuple[np.ndarray, np.ndarray]:
    """(count, width), and the mask (count, assets): the first row has no tradable name, the second one, the last all."""
    rng = np.random.default_rng(assets)
    tradable = rng.random((count, assets)) < share
    tradable[0], tradable[1], tradable[-1] = False, np.arange(assets) == assets // 2, True
    held = rng.dirichlet(np.ones(assets), count)
    features, context = rng.normal(0, 0.1, (count, assets, F)), rng.normal(0, 0.1, (count, G))
    return observe(features, context, tradable, held, np.full(count, 0.005)), tradable


@pytest.mark.parametrize("assets", [1, 3, 30, 422])
@pytest.mark.parametrize("share", [0.05, 0.6])
def test_numpy_is_torch_on_any_number_of_names_under_any_mask(assets: int, share: float) -> None:
    vectors, tradable = observations(8, assets, share=share)
    with torch.no_grad():
        scores = [network(torch.as_tensor(vectors))[0].double().numpy() for network in NETWORKS]
    served = POLICY.scores(vectors)
    expected = np.mean([softmax(one, tradable) for one in scores], axis=0)
    np.testing.assert_allclose(softmax(served, tradable), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.exp(served)[tradable], expected[tradable], rtol=0, atol=1e-6)
    assert (served[~tradable] == 0).all()
    if assets > 1:
        assert np.ptp(scores[0][-1]) > 0.01, "a constant policy would pass"


@pytest.mark.parametrize("assets", [3, 30])
def test_another_order_of_names_is_another_order_of_scores(assets: int) -> None:
    vectors, _ = observations(8, assets, share=0.6)
    order, split = np.random.default_rng(3).permutation(assets), assets * (F + 2)
    blocks = vectors[:, :split].reshape(8, assets, F + 2)
    other = np.concatenate([blocks[:, order].reshape(8, split), vectors[:, split:]], axis=1)
    np.testing.assert_allclose(POLICY.scores(other), POLICY.scores(vectors)[:, order], rtol=0, atol=1e-12)
    with torch.no_grad():
        before, after = (NETWORKS[0].double()(torch.as_tensor(seen, dtype=torch.float64))[0].numpy() for seen in (vectors, other))
    NETWORKS[0].float()
    np.testing.assert_allclose(after, before[:, order], rtol=0, atol=1e-12)


MARKET = walk(sessions=120, assets=6, seed=3)


def traded(market: Market) -> BacktestResult:
    return backtest(market, POLICY, rules=RULES, start=market.sessions[10], end=market.sessions[-1], initial_cash=1e5)


def test_a_backtest_does_not_care_for_the_order_of_its_names() -> None:
    order = [4, 0, 5, 2, 1, 3]
    ours, other = traded(MARKET), traded(MARKET.only([MARKET.symbols[index] for index in order]))
    np.testing.assert_allclose(other.weights, ours.weights[:, order], rtol=0, atol=1e-9)
    np.testing.assert_allclose(other.equity, ours.equity, rtol=1e-9)


def test_names_that_never_trade_change_nothing() -> None:
    def widened(values: np.ndarray, fill: float | bool) -> np.ndarray:
        return np.concatenate([values, np.full((len(values), 3, *values.shape[2:]), fill, dtype=values.dtype)], axis=1)

    absent = dict.fromkeys(("open", "high", "low", "close", "volume", "features"), np.nan)
    fills: dict[str, float | bool] = {**absent, "split": 1.0, "dividend": 0.0, "tradable": False}
    wide = replace(
        MARKET, symbols=(*MARKET.symbols, "X", "Y", "Z"), **{name: widened(getattr(MARKET, name), fill) for name, fill in fills.items()}
    )
    ours, other = traded(MARKET), traded(wide)
    np.testing.assert_allclose(other.weights[:, :6], ours.weights, rtol=0, atol=1e-9)
    np.testing.assert_allclose(other.equity, ours.equity, rtol=1e-9)
    assert (other.quantities[:, 6:] == 0).all()


@pytest.mark.parametrize("names", [("S0",), ("S1", "S5"), ("S0", "S1", "S2", "S3", "S4", "S5")])
def test_halted_and_late_names_are_kept_and_the_rest_is_traded(names: tuple[str, ...]) -> None:
    market = MARKET.only(names)
    result, seen = traded(market), slice(9, 119)
    tradable, invested = market.tradable[seen], result.weights.sum(axis=1) > 0
    np.testing.assert_allclose(result.weights.sum(axis=1)[invested], 1.0, atol=1e-12)
    assert (~tradable).any(), "a market without a halt proves nothing"
    kept = ~tradable[1:] & (market.split[11:] == 1)
    np.testing.assert_array_equal(result.quantities[1:][kept], result.quantities[:-1][kept])
    assert result.turnover[1:].max() > 0 or len(names) == 1
