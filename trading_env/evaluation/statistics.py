"""What luck alone could have done: the bootstrap, the Reality Check, Sharpe ratios with their errors, and overfitting.

Promise: each function is its published formula, the same to the bit for the same seed, and never keeps more than (draws, T) small
integers in memory. Series are daily, (T,), in shares (0.01 is one per cent); a year has 252 sessions.
Failure: `StatisticError` when a series is too short, not finite, or of the wrong shape; the message names what was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from trading_env.errors import PapertapeError
from trading_env.evaluation.metrics import SESSIONS_PER_YEAR

FloatArray = NDArray[np.float64]
_NORMAL = NormalDist()
_CHUNK = 256
_STILL = 1e-12  # a deviation below this share of the mean is rounding: the series does not vary
# Nor does one that deviates by less than this a session: what two books differ by that hold the same to the ninth decimal of a share
ROUNDING = 1e-10


class StatisticError(PapertapeError, ValueError):
    """The numbers cannot carry the statistic; the message says which and what is needed."""


def stationary_indices(sessions: int, *, draws: int, mean_block: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """(draws, sessions) rows to resample: blocks of geometric length, mean `mean_block`, from uniform starts, wrapping around.

    Politis and Romano (1994), the stationary bootstrap; mean_block 1 is the plain one. Raises StatisticError below one session or block.
    """
    if sessions < 1 or draws < 1 or mean_block < 1:
        raise StatisticError(f"sessions, draws and mean_block must be 1 or more, were {sessions}, {draws} and {mean_block}")
    begins = rng.random((draws, sessions)) < 1 / mean_block
    begins[:, 0] = True
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=begins.size)
    origins = rng.integers(sessions, size=len(starts))
    rows = (np.repeat(origins - starts, lengths) + np.arange(begins.size)) % sessions
    return np.asarray(rows.reshape(draws, sessions), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Resampling:
    """`counts` (draws, T): how often each draw took each session; a mean needs no more than that."""

    counts: NDArray[np.uint16]

    def means(self, values: FloatArray) -> FloatArray:
        """(draws, N) means of `values` (T, N) over each draw; NaN marks a session that a column lacks, and is left out of its mean."""
        present = np.isfinite(values).astype(float)
        filled, own = np.where(present > 0, values, 0.0), _column_means(values)
        result = np.empty((len(self.counts), values.shape[1]))
        for first in range(0, len(self.counts), _CHUNK):
            counts = self.counts[first : first + _CHUNK].astype(float)
            size = counts @ present if not present.all() else np.full((len(counts), 1), float(len(values)))
            # A draw without one session of a short column says nothing about it: the column's own mean, no deviation
            result[first : first + _CHUNK] = np.where(size > 0, counts @ filled / np.maximum(size, 1.0), own)
        return result


@lru_cache(maxsize=4)
def resampling(sessions: int, *, draws: int = 5000, mean_block: float = 20, seed: int = 0) -> Resampling:
    """The stationary bootstrap's draws for series of this length, kept for the next series as long (20 MB at 5,000 × 2,000)."""
    if sessions > np.iinfo(np.uint16).max:
        raise StatisticError(f"at most {np.iinfo(np.uint16).max} sessions can be resampled, were {sessions}")
    rng = np.random.default_rng(seed)
    counts = np.empty((draws, sessions), dtype=np.uint16)
    for first in range(0, draws, _CHUNK):
        part = stationary_indices(sessions, draws=min(_CHUNK, draws - first), mean_block=mean_block, rng=rng)
        flat = np.arange(len(part))[:, None] * sessions + part
        counts[first : first + _CHUNK] = np.bincount(flat.ravel(), minlength=part.size).reshape(part.shape)
    counts.setflags(write=False)
    return Resampling(counts)


def _kernel(sessions: int, mean_block: float) -> FloatArray:
    lag = np.arange(sessions)
    weight = 2 * (1 - lag / sessions) * (1 - 1 / mean_block) ** lag
    weight[0] = 1.0
    return np.asarray(weight)


def _shortfall(sessions: int, mean_block: float) -> float:
    """Expected share of the true deviation that blocks around the *estimated* mean show, for independent days: below 1."""
    return float(np.sqrt(1 - _kernel(sessions, mean_block).sum() / sessions))


def long_run_deviation(series: FloatArray, *, mean_block: float = 20) -> float:
    """omega, deviation of sqrt(T) times the mean, dependence included, in the unit of `series`: exactly what the bootstrap estimates.

    omega^2 = [C_0 + 2 sum_i (1 - i/T)(1 - 1/b)^i C_i] / (1 - W/T), C circular autocovariances (Politis and Romano 1994, lemma 1), W the
    sum of the weights: with the divisor it is unbiased for independent days. Raises StatisticError as `mean_interval` does.
    """
    values = _series(series)
    size = len(values)
    centred = values - values.mean()
    circular = np.fft.irfft(np.abs(np.fft.rfft(centred)) ** 2, n=size) / size
    variance = float(_kernel(size, mean_block) @ circular)
    return float(np.sqrt(max(variance, 0.0)) / _shortfall(size, mean_block))


def mean_interval(
    series: FloatArray, *, level: float = 0.90, mean_block: float = 20, draws: int = 5000, seed: int = 0
) -> tuple[float, float]:
    """Two-sided interval of the mean at `level`, in the unit of `series` (T,): the basic stationary bootstrap.

    [m - (q_hi - m)/s, m - (q_lo - m)/s], q the quantiles of the resampled means, s the shortfall of short series (1 for long ones).
    Raises StatisticError with fewer than two sessions or one that is not finite.
    """
    values = _series(series)
    mean, size = float(values.mean()), len(values)
    means = resampling(size, draws=draws, mean_block=mean_block, seed=seed).means(values[:, None])[:, 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    short = _shortfall(size, mean_block)
    return mean - (float(high) - mean) / short, mean - (float(low) - mean) / short


def lower_bound(series: FloatArray, *, confidence: float = 0.90, mean_block: float = 20, draws: int = 5000, seed: int = 0) -> float:
    """One-sided lower bound of the mean of `series` (T,), in its unit; `mean_interval`'s formula and errors."""
    return mean_interval(series, level=2 * confidence - 1, mean_block=mean_block, draws=draws, seed=seed)[0]


@dataclass(frozen=True)
class RealityCheck:
    """`t`, `p_value`: the judged trial's statistic against the largest of all trials' under the null. `best_t`, `best_p_value`: the
    same for the best trial (White's own question). `critical`: the t needed at the significance asked for.
    """

    t: float
    p_value: float
    best_t: float
    best_p_value: float
    critical: float
    trials: int


def reality_check(
    excess: FloatArray, *, column: int, significance: float = 0.05, mean_block: float = 20, draws: int = 5000, seed: int = 0
) -> RealityCheck:
    """Is column `column` of `excess` (T, N) better than the best of N trials without an edge? NaN where a trial lacks a session.

    White (2000), studentised as in Hansen (2005): t_k = mean_k / se_k, t*_k = (mean*_k - mean_k) / se_k, p = (1 + #{max_k t*_k >= t}) /
    (1 + draws). The judged trial's own t enters, not the best's (Romano and Wolf's single step), so a poor trial does not pass on a good
    one's evidence. A trial that never varies has t = 0. Raises StatisticError on another shape or a trial of fewer than two sessions.
    """
    if excess.ndim != 2 or not 0 <= column < excess.shape[1]:
        raise StatisticError(f"excess must be (T, N) with N > column = {column}, was {excess.shape}")
    sizes = np.isfinite(excess).sum(axis=0)
    if np.isinf(excess).any() or sizes.min() < 2:
        raise StatisticError(f"each trial needs two or more sessions, none infinite; the shortest of {excess.shape[1]} has {sizes.min()}")
    own = _column_means(excess)
    deviations = resampling(len(excess), draws=draws, mean_block=mean_block, seed=seed).means(excess) - own
    error = deviations.std(axis=0)
    varies = (error > _STILL * np.abs(own)) & (np.nanstd(excess, axis=0) > ROUNDING)
    scale = np.where(varies, error, 1.0)
    short = np.array([_shortfall(int(size), mean_block) for size in sizes])
    t = np.where(varies, own / scale * short, 0.0)
    highest = np.where(varies, deviations / scale, 0.0).max(axis=1)

    def p_value(value: float) -> float:
        return float((1 + (highest >= value).sum()) / (1 + draws))

    judged, best = float(t[column]), float(t.max())
    critical = float(np.quantile(highest, 1 - significance))
    return RealityCheck(judged, p_value(judged), best, p_value(best), critical, excess.shape[1])


def sharpe(returns: FloatArray) -> float:
    """Mean over standard deviation (ddof 1) of `returns` (T,), a session's, not annualised; NaN when they do not vary."""
    values = _series(returns)
    deviation = values.std(ddof=1)
    return float(values.mean() / deviation) if deviation > max(_STILL * abs(values.mean()), ROUNDING) else float("nan")


def sharpe_error(returns: FloatArray) -> float:
    """Standard error of `sharpe`: sqrt((1 - g3 SR + (g4 - 1)/4 SR^2) / (T - 1)), g3 skewness, g4 kurtosis (3 if normal); Mertens (2002)."""
    values, ratio = _series(returns), sharpe(returns)
    centred = values - values.mean()
    spread = float(np.sqrt(np.mean(centred**2)))
    skewness, kurtosis = (float(np.mean(centred**power)) / spread**power if spread > 0 else float("nan") for power in (3, 4))
    # Not below 0 but for rounding, as kurtosis >= 1 + skewness^2; max would lose the NaN of a series that does not vary
    return float(np.sqrt(np.maximum(1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2, 0.0) / (len(values) - 1)))


def probabilistic_sharpe(returns: FloatArray, *, threshold: float = 0.0) -> float:
    """PSR: probability that the true Sharpe ratio exceeds `threshold` (a session's): Phi((SR - threshold) / error).

    Bailey and López de Prado (2012). NaN when the returns do not vary, or their ratio has no error.
    """
    error = sharpe_error(returns)
    return _NORMAL.cdf((sharpe(returns) - threshold) / error) if error > 0 else float("nan")


def expected_max_sharpe(*, trials: int, variance: float) -> float:
    """SR*: the best Sharpe ratio (a session's) expected of `trials` independent ones whose true ratio is 0; one trial: 0.

    sqrt(V) ((1 - g) z(1 - 1/N) + g z(1 - 1/(N e))), g Euler's constant, z the normal quantile; Bailey and López de Prado (2014).
    """
    if trials < 1 or not variance >= 0:
        raise StatisticError(f"trials must be 1 or more and the variance not negative, were {trials} and {variance}")
    if trials == 1:
        return 0.0
    gamma = float(np.euler_gamma)
    ends = (1 - gamma) * _NORMAL.inv_cdf(1 - 1 / trials) + gamma * _NORMAL.inv_cdf(1 - 1 / (trials * np.e))
    return float(np.sqrt(variance) * ends)


def deflated_sharpe(returns: FloatArray, *, trial_sharpes: Sequence[float]) -> float:
    """DSR: PSR against SR* of all trials, `trial_sharpes` (N,) a session's, the judged one included. One trial: PSR(0).

    A trial whose d never varies (NaN) was tried as well: it counts, with a ratio of 0, as it does in `reality_check`.
    """
    ratios = np.array([ratio if np.isfinite(ratio) else 0.0 for ratio in trial_sharpes])
    variance = float(ratios.var(ddof=1)) if len(ratios) > 1 else 0.0
    return probabilistic_sharpe(returns, threshold=expected_max_sharpe(trials=len(ratios), variance=variance))


@dataclass(frozen=True)
class CrossValidation:
    """Over all splits, shares: `pbo`, the best in sample is below the median out of sample; `loss_share`, its mean there is not above 0."""

    pbo: float
    loss_share: float
    splits: int
    columns: int


def cscv(excess: FloatArray, *, blocks: int = 16) -> CrossValidation:
    """Combinatorially symmetric cross-validation of `excess` (T, N): each half of the blocks selects by Sharpe, the other half judges.

    Bailey, Borwein, López de Prado and Zhu (2017). A rank in the very middle counts half, so noise gives 0.5 for odd N too.
    Raises StatisticError with fewer than two trials, two sessions a block, an odd number of blocks, or a value that is not finite.
    """
    if excess.ndim != 2 or excess.shape[1] < 2 or blocks % 2 or len(excess) < 2 * blocks or not np.isfinite(excess).all():
        raise StatisticError(f"{blocks} blocks (even) need finite (T >= {2 * blocks}, N >= 2) excess, was {excess.shape}")
    parts = np.array_split(excess, blocks)
    sums = np.array([[len(part) + part[0] * 0, part.sum(axis=0), (part**2).sum(axis=0)] for part in parts])  # (blocks, 3, N)
    chosen = _halves(blocks).astype(float)
    inside = np.einsum("sb,bmn->smn", chosen, sums, optimize=True)
    outside = sums.sum(axis=0) - inside
    best = _sharpes(inside).argmax(axis=1)
    ratios, rows = _sharpes(outside), np.arange(len(best))
    value = ratios[rows, best][:, None]
    rank = (ratios < value).sum(axis=1) + ((ratios == value).sum(axis=1) + 1) / 2
    middle = (excess.shape[1] + 1) / 2
    pbo = float((rank < middle).mean() + (rank == middle).mean() / 2)
    return CrossValidation(pbo, float((outside[rows, 1, best] <= 0).mean()), len(best), excess.shape[1])


@lru_cache(maxsize=4)
def _halves(blocks: int) -> NDArray[np.bool_]:
    chosen = np.array(list(combinations(range(blocks), blocks // 2)))
    halves = np.zeros((len(chosen), blocks), dtype=bool)
    np.put_along_axis(halves, chosen, values=True, axis=1)
    return halves


def _sharpes(sums: FloatArray) -> FloatArray:
    """(splits, N) from (splits, 3, N) counts, sums and sums of squares; 0 for what does not vary."""
    mean = sums[:, 1] / sums[:, 0]
    variance = sums[:, 2] / sums[:, 0] - mean**2
    return np.asarray(np.divide(mean, np.sqrt(np.maximum(variance, 0)), out=np.zeros_like(mean), where=variance > _STILL * mean**2))


def information_ratio(excess: FloatArray) -> float:
    """`sharpe` of daily excess growth (T,), a year's."""
    return sharpe(excess) * float(np.sqrt(SESSIONS_PER_YEAR))


def detectable_ir(
    excess: FloatArray, *, power: float = 0.80, significance: float = 0.05, critical: float | None = None, mean_block: float = 20
) -> float:
    """Smallest true information ratio per year that a one-sided test on a series like `excess` (T,) finds with `power`.

    (z(1 - significance) + z(power)) (omega / sigma) / sqrt(years); `critical` replaces the first quantile (a Reality Check's, for many
    trials). omega / sigma is the price of dependence, 1 for independent days. NaN when the series does not vary.
    """
    needed = (_NORMAL.inv_cdf(1 - significance) if critical is None else critical) + _NORMAL.inv_cdf(power)
    deviation = float(_series(excess).std(ddof=1))
    if not deviation > max(_STILL * abs(float(excess.mean())), ROUNDING):
        return float("nan")
    return needed * long_run_deviation(excess, mean_block=mean_block) / deviation * float(np.sqrt(SESSIONS_PER_YEAR / len(excess)))


def break_even_cost(costs_bp: Sequence[float], excess: Sequence[float]) -> float:
    """Cost per side in basis points at which `excess` (K,), measured at rising `costs_bp` (K,), is 0: linear between and beyond them.

    0 when there is no excess even at the lowest; infinite when it does not fall at the end. Raises StatisticError on other shapes.
    """
    cost, gain = np.asarray(costs_bp, dtype=float), np.asarray(excess, dtype=float)
    if cost.shape != gain.shape or len(cost) < 2 or not (np.diff(cost) > 0).all() or not np.isfinite(gain).all():
        raise StatisticError(f"two or more rising costs, a finite excess each, are needed; were {list(costs_bp)} and {list(excess)}")
    if gain[0] <= 0:
        return 0.0
    crossing = np.flatnonzero(gain <= 0)
    last = int(crossing[0]) if len(crossing) else len(gain) - 1
    slope = (gain[last] - gain[last - 1]) / (cost[last] - cost[last - 1])
    return float(cost[last] - gain[last] / slope) if slope < 0 else float("inf")


@dataclass(frozen=True)
class Spread:
    """One number per seed, in its own unit: worst, first quartile, median, third quartile, best, and the standard deviation (ddof 1)."""

    worst: float
    lower: float
    median: float
    upper: float
    best: float
    deviation: float


def spread(values: Sequence[float]) -> Spread:
    """The spread over seeds of one measure where more is better; the deviation of one seed is NaN. Raises StatisticError on nothing."""
    seeds = np.asarray(values, dtype=float)
    if seeds.ndim != 1 or len(seeds) == 0 or not np.isfinite(seeds).all():
        raise StatisticError(f"one finite value per seed is needed, was {list(values)}")
    worst, lower, median, upper, best = (float(q) for q in np.quantile(seeds, [0, 0.25, 0.5, 0.75, 1]))
    return Spread(worst, lower, median, upper, best, float(seeds.std(ddof=1)) if len(seeds) > 1 else float("nan"))


def _column_means(values: FloatArray) -> FloatArray:
    present = np.isfinite(values)
    return np.asarray(np.where(present, values, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1))


def _series(values: FloatArray) -> FloatArray:
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        finite = int(np.isfinite(values).sum())
        raise StatisticError(f"a series of two or more sessions, all finite, is needed; was {values.shape}, {finite} finite")
    return values
