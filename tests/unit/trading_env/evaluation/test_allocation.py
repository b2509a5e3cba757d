"""Each rule against arithmetic by hand, a portfolio of least variance against the conditions that only it meets."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from trading_env.evaluation.allocation import (
    AllocationError,
    inverse_volatility,
    least_variance,
    minimum_variance,
    momentum,
    shrunk_covariance,
)


def path_of(returns: np.ndarray) -> np.ndarray:
    return np.log(np.vstack([np.full(returns.shape[1], 50.0), 50 * np.cumprod(1 + returns, axis=0)]))


def test_inverse_volatility_is_the_inverse_of_each_name_s_deviation() -> None:
    pulse = np.array([1.0, -1.0] * 30)[:, None]
    np.testing.assert_allclose(inverse_volatility(path_of(pulse * [0.01, 0.02, 0.04])), [4 / 7, 2 / 7, 1 / 7], rtol=1e-9)


def test_a_price_that_stands_still_has_a_volatility_and_a_weight() -> None:
    weights = inverse_volatility(path_of(np.array([1.0, -1.0] * 30)[:, None] * [0.01, 0.0]))
    assert 0.999 < weights[1] < 1


def test_momentum_takes_the_best_third_and_does_not_see_the_last_month() -> None:
    early, late = np.array([0.0, 2.0, 1.0, 3.0, -1.0, 0.5, 0.0]) / 1e3, np.array([50.0, 0.0, 0.0, -50.0, 50.0, 0.0, 0.0]) / 1e3
    returns = np.vstack([np.tile(early, (231, 1)), np.tile(late, (21, 1))])
    np.testing.assert_allclose(momentum(path_of(returns)), np.array([0, 1, 1, 1, 0, 0, 0]) / 3)
    returns[-21, 0] = 9.0
    assert momentum(path_of(returns))[0] == 0
    returns[-22, 0] = 9.0
    assert momentum(path_of(returns))[0] == 1 / 3


def test_of_equal_momentum_the_first_names_are_taken() -> None:
    np.testing.assert_array_equal(momentum(path_of(np.full((252, 4), 0.001))), [0.5, 0.5, 0, 0])


def test_shrinkage_is_the_formula_spelt_out() -> None:
    returns = np.random.default_rng(0).normal(0, 0.01, (40, 5)) @ np.random.default_rng(1).normal(0, 1, (5, 5))
    x = returns - returns.mean(axis=0)
    sample = sum(np.outer(row, row) for row in x) / 40
    target = np.trace(sample) / 5 * np.eye(5)
    d2 = np.sum((sample - target) ** 2)
    b2 = sum(np.sum((np.outer(row, row) - sample) ** 2) for row in x) / 40**2
    assert 0.01 < b2 / d2 < 0.9
    np.testing.assert_allclose(shrunk_covariance(returns), b2 / d2 * target + (1 - b2 / d2) * sample, rtol=1e-10)


@pytest.mark.parametrize(("sessions", "names"), [(252, 8), (40, 5), (20, 60)])
def test_shrinkage_is_scikit_learns(sessions: int, names: int) -> None:
    """Ledoit and Wolf's formula: the two agree to rounding, also with more names than sessions."""
    rng = np.random.default_rng(sessions)
    returns = rng.normal(0, 0.01, (sessions, names)) @ rng.normal(0, 1, (names, names))
    np.testing.assert_allclose(shrunk_covariance(returns), LedoitWolf().fit(returns).covariance_, rtol=1e-10, atol=1e-16)


def test_shrinkage_makes_more_names_than_sessions_well_conditioned() -> None:
    shrunk = shrunk_covariance(np.random.default_rng(2).normal(0, 0.01, (20, 60)))
    assert np.linalg.cond(shrunk) < 100
    assert np.linalg.eigvalsh(shrunk_covariance(np.zeros((30, 3)))).min() > 0


@pytest.mark.parametrize(
    ("covariance", "weights"),
    [
        (np.diag([1.0, 2.0, 4.0]), [4 / 7, 2 / 7, 1 / 7]),
        (np.array([[4.0, 1.0], [1.0, 2.0]]), [1 / 4, 3 / 4]),
        (np.array([[1.0, 1.9], [1.9, 4.0]]), [1.0, 0.0]),  # unconstrained, the second would be sold short
        (np.array([[9e-8]]), [1.0]),
    ],
)
def test_least_variance_by_hand(covariance: np.ndarray, weights: list[float]) -> None:
    np.testing.assert_allclose(least_variance(covariance), weights, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_no_shift_between_two_names_lowers_the_least_variance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    factors = rng.normal(0.8, 0.5, (60, 3))
    covariance = factors @ factors.T * 1e-4 + np.diag(rng.uniform(1e-5, 4e-4, 60))
    weights = least_variance(covariance)
    marginal = covariance @ weights
    variance = weights @ marginal
    assert weights.sum() == pytest.approx(1)
    assert weights.min() == 0 < 1 / 60 < weights.max()
    np.testing.assert_allclose(marginal[weights > 0], variance, rtol=1e-8)
    assert (marginal[weights == 0] >= variance * (1 - 1e-8)).all()


def test_minimum_variance_prefers_what_moves_least_and_alone() -> None:
    rng = np.random.default_rng(4)
    common = rng.normal(0, 0.01, (252, 1))
    returns = np.hstack([common + rng.normal(0, 0.002, (252, 2)), rng.normal(0, 0.01, (252, 1))])
    weights = minimum_variance(path_of(returns))
    assert weights[2] > max(weights[:2])
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("covariance", [[[1.0, -2.0], [-2.0, 1.0]], [[1.0, -1.0], [-1.0, 1.0]]])
def test_what_is_no_covariance_is_refused(covariance: list[list[float]]) -> None:
    with pytest.raises(AllocationError, match="2 names must be positive definite"):
        least_variance(np.array(covariance))
