"""The linear policy: what is planted is found and nothing else, nothing is found where nothing is, and costs decide how far to lean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet

from benchmarks.trained import trained
from learning.algorithms import direct, linear
from learning.algorithms.differentiable import Sessions
from learning.algorithms.trainer import standardisation
from learning.network import ScoreNetwork
from tests.learning.training import PLACE, TEN_BP, WARM, settings, shuffled, traded, with_forecast
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


@pytest.fixture(scope="module")
def planted() -> Market:
    return with_forecast(TRAINING, correlation=0.15)


@pytest.fixture(scope="module")
def found(planted: Market) -> np.ndarray:
    return coefficients(planted)


def test_the_planted_input_is_found_and_no_other_comes_near(found: np.ndarray) -> None:
    sizes = np.abs(found)
    assert sizes.argmax() == PLACE
    assert sizes[PLACE] > 5 * np.delete(sizes, PLACE).max()


def test_nothing_is_found_where_nothing_is_planted() -> None:
    assert not coefficients(with_forecast(TRAINING, correlation=0.0)).any()


def test_nothing_is_found_where_nothing_is_planted_and_trading_is_free() -> None:
    """Costs alone would keep most noise out; here the hurdle must."""
    free = {"slippage_bps": 0.0}
    assert not any(coefficients(with_forecast(TRAINING, correlation=0.0, seed=seed), seed=seed, costs=free).any() for seed in range(4))


def test_most_inputs_that_know_nothing_are_left_out(found: np.ndarray) -> None:
    assert np.count_nonzero(found) < len(found) / 2


@pytest.mark.parametrize(("lasso", "ridge"), [(0.0, 0.1), (0.02, 0.0), (0.02, 0.3), (10.0, 0.1)])
def test_the_elastic_net_is_the_librarys(lasso: float, ridge: float) -> None:
    rng = np.random.default_rng(2)
    gains = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6)) + rng.normal(0.1, 0.1, 6)
    second, mean = gains.T @ gains / 400, gains.mean(axis=0)
    # 1/2n |1 - X b|^2 is b' S b / 2 - b' m and a constant
    library = ElasticNet(alpha=lasso + ridge, l1_ratio=lasso / (lasso + ridge), fit_intercept=False, tol=1e-12, max_iter=100_000)
    expected = library.fit(gains, np.ones(400)).coef_
    np.testing.assert_allclose(linear.elastic_net(mean, second, lasso=lasso, ridge=ridge), expected, atol=1e-4)


def test_what_is_judged_on_a_block_was_fitted_two_months_away_from_it() -> None:
    blocks = list(linear.left_out(500))
    assert np.concatenate([block for block, _ in blocks]).tolist() == list(range(500))
    assert all(np.abs(rest[:, None] - block).min() > linear.PURGE for block, rest in blocks)
    assert all(len(rest) > 500 - len(block) - 2 * linear.PURGE - 2 for block, rest in blocks)


def climbed(market: Market, *, steps: int = 4, last: int | None = None) -> ScoreNetwork:
    """A network after some steps of the gradient, from one that already leans; on one thread, as the algorithm itself."""
    torch.set_num_threads(1)
    mu, sigma = standardisation(SHORT)
    start = np.where(np.arange(market.features.shape[2]) == PLACE, 0.3, 0.0)
    spans = direct.Spans.of(market)
    network = direct.started(SHORT, start, seed=0, mu=mu, sigma=sigma)
    ascent = direct.Ascent(network, spans, settings=CHOSEN, seed=0, rounds=steps, last=spans.last if last is None else last)
    for _ in range(steps):
        ascent.step()
    return network


def test_the_gradient_learns_nothing_of_what_is_held_nor_of_later_sessions() -> None:
    market, last = with_forecast(SHORT, correlation=0.3), len(SHORT) // 2
    network = climbed(market, last=last)
    blind = slice(network.block - 2, network.block + 1)
    assert not network.first.weight[:, blind].any()
    later = np.arange(len(market)) > last + 1
    spoiled = {name: np.where(later[:, None], 3.0, getattr(market, name)) for name in ("open", "high", "low", "close")}
    other = climbed(replace(market, **spoiled), last=last)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(network.parameters(), other.parameters(), strict=True))


def test_risk_holds_the_gradient_back(monkeypatch: pytest.MonkeyPatch) -> None:
    market = with_forecast(SHORT, correlation=0.0)
    spans, rows, names = direct.Spans.of(market), np.arange(0, 200)[None], np.arange(len(market.symbols))[None]

    def leaning(risk: float) -> float:
        monkeypatch.setattr(direct, "RISK", risk)
        return float(direct.scores_of(climbed(market, steps=8), spans, rows, names).detach().std())

    assert leaning(2_000.0) < 0.9 * leaning(0.0)


def test_dear_trading_leans_less_and_a_cost_above_the_edge_not_at_all(planted: Market) -> None:
    cheap, dear, ruinous = (coefficients(planted, costs={"slippage_bps": bps})[PLACE] for bps in (1.0, 10.0, 200.0))
    assert cheap >= dear > 0
    assert ruinous == 0


def test_a_breaker_that_would_have_latched_once_hides_no_evidence(planted: Market, found: np.ndarray) -> None:
    """One book trades all the years: halted by a drawdown of the first, it would say that nothing is worth its costs."""
    np.testing.assert_array_equal(coefficients(planted, risk={"max_drawdown": 0.02, "max_daily_loss": 0.01}), found)


def test_a_market_too_short_to_leave_anything_out_is_refused() -> None:
    short = TRAINING.rows(TRAINING.sessions[0], TRAINING.sessions[linear.LEAST - 1])
    with pytest.raises(ValueError, match=f"needs more than {linear.LEAST} sessions from a tradable one on, were {linear.LEAST}"):
        coefficients(short)


def test_what_the_gradient_gains_by_chance_is_not_kept() -> None:
    looks, rng = np.array([10, 20, 30]), np.random.default_rng(0)
    lucky = [rng.normal(2.5e-4, 2e-3, 500), rng.normal(0.0, 2e-3, 500), rng.normal(-1e-3, 2e-3, 500)]
    assert lucky[0].mean() > 2 * lucky[0].std() / np.sqrt(500)
    assert direct.kept_steps(lucky, looks) == 0
    sure = [rng.normal(1e-3, 2e-3, 500), rng.normal(2e-3, 2e-3, 500), rng.normal(5e-4, 2e-3, 500)]
    assert direct.kept_steps(sure, looks) == 20


def test_the_last_line_of_a_training_is_its_end_however_early() -> None:
    lines: list[dict[str, float]] = []
    fitted = direct.fit(with_forecast(SHORT, correlation=0.0), settings=CHOSEN, seed=0, timesteps=12_100, on_rollout=lines.append)
    assert lines == fitted.curve
    assert all(line["timesteps"] < line["of"] for line in lines[:-1])
    assert lines[-1]["timesteps"] == lines[-1]["of"] == fitted.timesteps < 12_100


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
    policy = trained(with_forecast(SHORT, correlation=0.0), settings=CHOSEN, seed=0, timesteps=3_100)
    ours = traded(policy, NOISE, rules=TEN_BP, first=FIRST)
    pace = traded(EqualWeight(kappa=CHOSEN.portfolio.kappa), NOISE, rules=TEN_BP, first=FIRST)
    np.testing.assert_allclose(ours.equity, pace.equity, rtol=1e-12)


def test_the_same_seed_gives_the_same_bytes() -> None:
    market = with_forecast(SHORT, correlation=0.3)
    once, again = (direct.fit(market, settings=CHOSEN, seed=1, timesteps=3_100).arrays for _ in range(2))
    assert once["w4"].any(), "a policy without a view would be the same whatever happened"
    assert all(once[name].tobytes() == again[name].tobytes() for name in once)


def test_a_span_beyond_the_market_is_refused() -> None:
    spans = direct.Spans.of(TRAINING)
    with pytest.raises(ValueError, match=r"rows must lie in 0 to \d+, was"):
        Sessions.of(spans.prices, rows=np.array([[len(TRAINING) - 1]]), names=np.arange(5)[None])
