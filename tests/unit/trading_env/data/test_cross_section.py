"""What compares names: neutral to what it claims to be neutral to, and stated where there is too little to compare."""

from __future__ import annotations

import numpy as np
import pytest

from trading_env.data.bars import Array
from trading_env.data.cross_section import BETA_RETURNS, BETA_SESSIONS, LEAST_NAMES, betas, mean, ranks, residuals
from trading_env.data.features import ASSET_FEATURES, FEATURES, LOOKBACK, Panel, context_features, cross_section, features

NAMES, SESSIONS = 12, 400
RESIDUAL = [column for column, feature in enumerate(FEATURES) if feature.name.startswith("rank_residual_")]


def drawn(*, absent: float = 0.0) -> tuple[Array, Array, Array]:
    """Values, betas and volatilities (A, T) that have a lot to do with each other, some of the values absent."""
    rng = np.random.default_rng(5)
    beta = rng.normal(1, 0.4, (NAMES, SESSIONS))
    volatility = np.exp(rng.normal(-4, 0.5, beta.shape)) + 0.01 * beta
    values = 0.02 * beta + 0.5 * volatility + rng.normal(0.03, 0.02, beta.shape)
    return np.where(rng.random(beta.shape) < absent, np.nan, values), beta, volatility


def returns(*, names: int = NAMES, sessions: int = SESSIONS, seed: int = 1) -> Array:
    """(A, T) with one factor in it; as of prices, the first session has none."""
    rng = np.random.default_rng(seed)
    moves = rng.normal(0, 0.015, (names, sessions)) + rng.uniform(0.5, 1.5, (names, 1)) * rng.normal(0.0003, 0.01, sessions)
    moves[:, 0] = np.nan
    return moves


def thinned(values: Array, absent: float) -> Array:
    return np.where(np.random.default_rng(3).random(values.shape) < absent, np.nan, values)


def bars_of(moves: Array) -> dict[str, Array]:
    """A panel (T, A) whose daily log returns are these, of which a third is overnight."""
    steps = np.nan_to_num(moves.T)
    close = 50 * np.exp(np.cumsum(steps, axis=0))
    opened = close * np.exp(-2 / 3 * steps)
    high, low = np.maximum(opened, close) * 1.001, np.minimum(opened, close) * 0.999
    return {"open": opened, "high": high, "low": low, "close": close, "volume": np.full(close.shape, 1e6)}


def correlations(values: Array, exposure: Array) -> Array:
    """Of each session with enough names, over the names with a value."""
    sessions = np.flatnonzero(np.isfinite(values).sum(axis=0) >= LEAST_NAMES)
    known = [np.isfinite(values[:, session]) for session in sessions]
    return np.array([np.corrcoef(values[own, at], exposure[own, at])[0, 1] for own, at in zip(known, sessions, strict=True)])


@pytest.mark.parametrize("absent", [0.0, 0.3])
def test_a_residual_has_nothing_to_do_with_the_market_beta_or_volatility(absent: float) -> None:
    values, beta, volatility = drawn(absent=absent)
    left = residuals(values, beta, volatility)
    assert np.array_equal(np.isnan(left), np.isnan(values))
    np.testing.assert_allclose(mean(left), 0, rtol=0, atol=1e-14)
    for exposure in (beta, volatility):
        assert correlations(values, exposure).mean() > 0.3
        assert np.abs(correlations(left, exposure)).max() < 1e-11


def test_a_constant_or_a_multiple_of_an_exposure_added_to_all_values_changes_nothing() -> None:
    values, beta, volatility = drawn()
    left = residuals(values, beta, volatility)
    moved = values + 0.07 + 0.05 * beta - 3 * volatility
    np.testing.assert_allclose(residuals(moved, beta, volatility), left, rtol=0, atol=1e-14)


def test_a_drift_that_all_names_have_changes_no_residual_rank() -> None:
    moves = returns()
    here, there = (features(**bars_of(drift + moves))[0][..., RESIDUAL] for drift in (0.0, 0.002))
    assert np.isfinite(here[252:]).all()
    np.testing.assert_array_equal(there, here)


def test_the_columns_of_the_table_rank_residuals_that_are_neutral() -> None:
    """As above, of the panel that the table's ranks are computed of: today's beta and volatility, whatever was ranked."""
    asset = features(**bars_of(returns()))[0]
    panel = Panel(asset[..., : len(ASSET_FEATURES)])
    exposures = (panel.beta, panel.column("volatility_21"))
    for column, name in zip(RESIDUAL, ("return_1", "return_5", "momentum_12_1"), strict=True):
        left = residuals(panel.column(name), *exposures)
        np.testing.assert_array_equal(ranks(left).T, asset[..., column])
        for exposure in exposures:
            assert np.abs(correlations(left, exposure)).max() < 1e-11


def test_names_without_a_beta_or_a_volatility_have_no_residual_and_no_part_in_the_others() -> None:
    values, beta, volatility = drawn()
    beta[3, 10], volatility[7, 10] = np.nan, np.nan
    left = residuals(values, beta, volatility)[:, 10]
    assert np.flatnonzero(np.isnan(left)).tolist() == [3, 7]
    others = np.delete(np.arange(NAMES), [3, 7])
    alone = residuals(*(column[others][:, [10]] for column in (values, beta, volatility)))[:, 0]
    np.testing.assert_allclose(left[others], alone, rtol=0, atol=1e-16)


def test_too_few_names_have_no_residual_to_rank_and_say_so_by_zero() -> None:
    values, beta, volatility = (column[:LEAST_NAMES].copy() for column in drawn())
    assert np.abs(residuals(values, beta, volatility)).max() > 1e-3
    values[0] = np.nan
    left = residuals(values, beta, volatility)
    assert np.isnan(left[0]).all()
    assert (left[1:] == 0).all()
    assert (ranks(left)[1:] == 0).all()


def test_an_exposure_without_differences_has_no_part() -> None:
    values, beta, _ = drawn()
    flat = np.full(beta.shape, 0.013)
    np.testing.assert_allclose(residuals(values, beta, flat), residuals(values, beta), rtol=0, atol=1e-14)
    np.testing.assert_allclose(residuals(values, beta, 0.1 + 2 * beta), residuals(values, beta), rtol=0, atol=1e-14)


def test_names_may_stand_in_any_order() -> None:
    values, beta, volatility = drawn(absent=0.1)
    there = residuals(values[::-1], beta[::-1], volatility[::-1])[::-1]
    np.testing.assert_allclose(there, residuals(values, beta, volatility), rtol=0, atol=1e-14)


def test_beta_is_least_squares_on_the_mean_of_the_names_over_the_pairs_of_a_year() -> None:
    moves = thinned(returns(), 0.2)
    market, found = mean(moves), betas(moves, market=mean(moves))
    assert np.isnan(found[:, : BETA_SESSIONS - 1]).all()
    for session in (251, 252, 300, 399):
        year = slice(session + 1 - BETA_SESSIONS, session + 1)
        for name in range(NAMES):
            known = np.isfinite(moves[name, year])
            slope = np.polyfit(market[year][known], moves[name, year][known], 1)[0]
            assert found[name, session] == pytest.approx(slope, abs=1e-12)


def test_a_beta_needs_half_a_year_of_returns() -> None:
    moves = returns()
    moves[0, : SESSIONS - BETA_RETURNS] = np.nan
    moves[1, : SESSIONS - BETA_RETURNS + 1] = np.nan
    last = betas(moves, market=mean(moves))[:, -1]
    assert np.isfinite(last).tolist() == [True, False] + [True] * (NAMES - 2)


def test_prices_that_stand_still_have_no_beta_to_speak_of() -> None:
    assert (betas(np.zeros((NAMES, 300)), market=np.zeros(300))[:, BETA_SESSIONS:] == 0).all()
    drifting = betas(np.full((NAMES, 300), 0.001), market=np.full(300, 0.001))[:, BETA_SESSIONS:]
    assert np.abs(drifting).max() < 1e-6


@pytest.mark.parametrize("start", [1, 77, SESSIONS - BETA_SESSIONS])
def test_betas_have_the_same_bits_wherever_the_history_starts(start: int) -> None:
    moves = thinned(returns(), 0.1)
    late = betas(moves[:, start:], market=mean(moves[:, start:]))
    assert late[:, BETA_SESSIONS - 1 :].tobytes() == betas(moves, market=mean(moves))[:, start + BETA_SESSIONS - 1 :].tobytes()


def test_the_mean_skips_the_absent() -> None:
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]])
    np.testing.assert_array_equal(mean(values), [2.0, 5.0, np.nan])


def test_ranks_and_context_read_no_further_back_than_lookback() -> None:
    """To the last bit: a year's file is made of its rows and so many before."""
    panel = {name: thinned(values, 0.05) for name, values in bars_of(returns(sessions=700)).items()}  # the same bars of each column
    asset = features(**panel)[0][..., : len(ASSET_FEATURES)]
    assert np.isfinite(asset[600:]).mean() > 0.9
    whole = cross_section(asset)[600:], context_features(asset)[600:]
    late = asset[601 - LOOKBACK :]
    for expected, found in zip(whole, (cross_section(late), context_features(late)), strict=True):
        np.testing.assert_array_equal(found[LOOKBACK - 1 :], expected)
