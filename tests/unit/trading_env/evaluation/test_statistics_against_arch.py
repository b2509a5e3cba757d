"""The bootstrap and the Reality Check against `arch`, whose authors and ours never met.

Fed with the same resamples, `arch`'s Reality Check (the upper p-value of its SPA) and ours agree to rounding: the statistic, its critical
value and the count behind the p-value. `arch` does not studentise, so it gets each trial in units of its own error; it knows no
shortfall either, by which our t of a short series is smaller. With resamples of its own the p-values agree within sampling error.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from arch.bootstrap import SPA, StationaryBootstrap
from numpy.typing import NDArray

from trading_env.evaluation import statistics as st

SESSIONS, TRIALS, BLOCK, DRAWS, SEED = 400, 6, 5, 1024, 3
RNG = np.random.default_rng(11)
# Dependent days, and one trial with an edge of about 1.4 errors
NOISE = np.array([np.convolve(days, [0.6, 0.3, 0.1], mode="same") for days in RNG.normal(0, 0.01, (TRIALS, SESSIONS))]).T
TABLE = NOISE - NOISE.mean(axis=0) + 0.0007 * np.eye(TRIALS)[2]


def rows_of(sessions: int, *, draws: int, seed: int) -> NDArray[np.int64]:
    """The rows that `resampling` draws, chunk by chunk."""
    rng, sizes = np.random.default_rng(seed), [256] * (draws // 256)
    return np.concatenate([st.stationary_indices(sessions, draws=size, mean_block=BLOCK, rng=rng) for size in sizes])


class OurDraws:
    """In the place of `arch`'s bootstrap: the same data on our rows."""

    def __init__(self, values: NDArray[np.float64], rows: NDArray[np.int64]) -> None:
        self._values, self._rows = values, rows

    def bootstrap(self, draws: int) -> Iterator[tuple[tuple[NDArray[np.float64]], dict[str, object]]]:
        assert draws == len(self._rows)
        yield from (((self._values[row],), {}) for row in self._rows)


def standardised(rows: NDArray[np.int64], *, shortfall: float) -> NDArray[np.float64]:
    """Each trial over its own error, its mean lowered by the shortfall."""
    error = TABLE[rows].mean(axis=1).std(axis=0)
    scaled = TABLE / error
    return np.asarray(scaled + scaled.mean(axis=0) * (shortfall - 1))


def test_on_the_same_resamples_the_reality_check_is_archs() -> None:
    rows = rows_of(SESSIONS, draws=DRAWS, seed=SEED)
    ours = st.reality_check(TABLE, column=2, mean_block=BLOCK, draws=DRAWS, seed=SEED)
    values = standardised(rows, shortfall=st._shortfall(SESSIONS, BLOCK))
    theirs = SPA(np.zeros(SESSIONS), -values, block_size=BLOCK, reps=DRAWS, seed=SEED)
    theirs.bootstrap = OurDraws(values, rows)
    theirs.compute()
    assert ours.t == ours.best_t == pytest.approx(values.mean(axis=0).max(), rel=1e-12)
    assert ours.critical == pytest.approx(theirs.critical_values(0.05)["upper"], rel=1e-12)
    # Ours counts the observed series among the draws, so that no p-value is 0
    assert ours.p_value * (1 + DRAWS) - 1 == pytest.approx(theirs.pvalues["upper"] * DRAWS, abs=1e-9)
    assert 0.2 < ours.p_value < 0.6, "neither end of the scale would tell them apart"


def test_on_resamples_of_its_own_arch_finds_the_same_p_value() -> None:
    draws = 20 * 256
    ours = st.reality_check(TABLE, column=2, mean_block=BLOCK, draws=draws, seed=0)
    values = standardised(rows_of(SESSIONS, draws=draws, seed=0), shortfall=st._shortfall(SESSIONS, BLOCK))
    theirs = SPA(np.zeros(SESSIONS), -values, block_size=BLOCK, reps=draws, seed=SEED)
    theirs.compute()
    assert ours.p_value == pytest.approx(theirs.pvalues["upper"], abs=0.03)  # three deviations of a difference of two counts
    assert ours.critical == pytest.approx(theirs.critical_values(0.05)["upper"], rel=0.04)


def test_resampled_means_are_distributed_as_archs() -> None:
    series = TABLE[:, 2]
    ours = st.resampling(SESSIONS, draws=20_480, mean_block=BLOCK, seed=1).means(series[:, None])[:, 0]
    theirs = StationaryBootstrap(BLOCK, series, seed=2).apply(np.mean, reps=20_000)[:, 0]
    quantiles = [0.05, 0.25, 0.5, 0.75, 0.95]
    np.testing.assert_allclose(np.quantile(ours, quantiles), np.quantile(theirs, quantiles), atol=0.04 * theirs.std())
    assert ours.std() == pytest.approx(theirs.std(), rel=0.02)


def test_the_long_run_deviation_is_archs_variance_over_the_shortfall() -> None:
    spa = SPA(np.zeros(SESSIONS), -TABLE, block_size=BLOCK, reps=10, seed=0)
    spa.compute()
    ours = [st.long_run_deviation(series, mean_block=BLOCK) for series in TABLE.T]
    np.testing.assert_allclose(ours, np.sqrt(spa._loss_diff_var) / st._shortfall(SESSIONS, BLOCK), rtol=1e-12)
