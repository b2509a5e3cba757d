"""The linear policy: what is planted is found and nothing else, nothing is found where nothing is, and costs decide how far to lean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from learning.algorithms import direct, linear
from learning.algorithms.differentiable import Sessions
from learning.algorithms.trainer import standardisation
from learning.network import export
from tests.learning.training import PLACE, TEN_BP, WARM, settings, shuffled, traded, trained, with_forecast
from trading_env.data.market import Market
from trading_env.simulation.policy import EqualWeight

CHOSEN = settings(training={"algorithm": "direct"})
NOISE = shuffled(("SPY", "AAPL", "BAC", "IBM", "QQQ"), seed=1)
FIRST = len(NOISE) - 500
TRAINING = NOISE.rows(NOISE.sessions[WARM], NOISE.sessions[FIRST - 30])
SHORT = NOISE.rows(NOISE.sessions[FIRST - 730], NOISE.sessions[FIRST - 30])


def coefficients(market: Market, *, seed: int = 0, **changes: dict[str, float]) -> np.ndarray:
    mu, sigma = standardisation(market)
    return linear.fit(market, settings=settings(**changes) if changes else CHOSEN, seed=seed, mu=mu, sigma=sigma)


def test_the_planted_input_is_found_and_no_other_comes_near() -> None:
    found = np.abs(coefficients(with_forecast(TRAINING, correlation=0.15)))
    assert found.argmax() == PLACE
    assert found[PLACE] > 5 * np.delete(found, PLACE).max()


def test_nothing_is_found_where_nothing_is_planted() -> None:
    assert not any(coefficients(with_forecast(TRAINING, correlation=0.0, seed=seed), seed=seed).any() for seed in range(3))


def test_dear_trading_leans_less_and_a_cost_above_the_edge_not_at_all() -> None:
    market = with_forecast(TRAINING, correlation=0.15)
    cheap, dear, ruinous = (coefficients(market, costs={"slippage_bps": bps})[PLACE] for bps in (1.0, 10.0, 200.0))
    assert cheap >= dear > 0
    assert ruinous == 0


def test_a_network_starts_at_the_linear_policys_scores() -> None:
    mu, sigma = standardisation(TRAINING)
    wanted = np.zeros(TRAINING.features.shape[2])
    wanted[[0, PLACE]] = 0.2, -0.4
    network = direct.started(TRAINING, wanted, seed=0, mu=mu, sigma=sigma)
    spans = direct.Spans.of(TRAINING)
    rows, names = np.arange(20, 60)[None], np.arange(5)[None]
    with torch.no_grad():
        scores = direct.scores_of(network, spans, rows, names)[0].numpy()
    linearly = linear.winsorised(TRAINING, mu=mu, sigma=sigma)[20:60] @ wanted
    linearly -= linearly.mean(axis=1, keepdims=True)
    assert np.abs(scores - linearly).max() < 0.1 * np.abs(linearly).max()
    assert np.corrcoef(scores.ravel(), linearly.ravel())[0, 1] > 0.998


def test_without_evidence_the_policy_is_equal_weight() -> None:
    policy = trained(with_forecast(SHORT, correlation=0.0), chosen=CHOSEN, seed=0, timesteps=3_100)
    ours = traded(policy, NOISE, rules=TEN_BP, first=FIRST)
    pace = traded(EqualWeight(kappa=CHOSEN.portfolio.kappa), NOISE, rules=TEN_BP, first=FIRST)
    np.testing.assert_allclose(ours.equity, pace.equity, rtol=1e-12)


def test_the_same_seed_gives_the_same_bytes() -> None:
    market = with_forecast(SHORT, correlation=0.3)
    once, again = (export([direct.fit(market, settings=CHOSEN, seed=1, timesteps=3_100).network]) for _ in range(2))
    assert once["w4"].any(), "a policy without a view would be the same whatever happened"
    assert all(once[name].tobytes() == again[name].tobytes() for name in once)


def test_a_span_beyond_the_market_is_refused() -> None:
    spans = direct.Spans.of(TRAINING)
    with pytest.raises(ValueError, match=r"rows must lie in 0 to \d+, was"):
        Sessions.of(spans.prices, rows=np.array([[len(TRAINING) - 1]]), names=np.arange(5)[None])
