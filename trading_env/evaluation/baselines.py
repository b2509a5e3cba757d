"""The rows beside a policy: what anyone could have done, traded by the same engine under the same rules and costs.

Promise: every row is a `backtest` over the same sessions, decides from what was known at the close before, and is the same to the bit
when the market is cut after any session. One exception, by definition: the random row's pace is set so that its mean turnover is the
one to be matched, and that is known at the end alone. On a session on which a row rests it sends no order at all.
Failure: `BaselineError` when a row cannot be formed, with the reason; market, fold, accounting and policy errors pass through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from trading_env.data.bars import Adjusted, adjust_forward
from trading_env.data.market import Day, Market
from trading_env.data.observation import Layout, Observation, unpack
from trading_env.errors import PapertapeError
from trading_env.evaluation.allocation import inverse_volatility, minimum_variance, momentum
from trading_env.evaluation.backtest import BacktestResult, backtest
from trading_env.evaluation.walk_forward import Fold, WalkForward
from trading_env.simulation.policy import BoolArray, EqualWeight, FloatArray, Policy
from trading_env.simulation.portfolio import Rules

QUARTER, YEAR = 63, 252
NOTHING = -1e4  # a score that softmax turns into a weight of exactly 0
CALM, WILD = 0.2, 30.0  # deviation of the random scores: hardly off equal weight, and nearly one name at a time
MATCHED, TRIES = 0.02, 12  # the search for the pace ends this near to the turnover, relative, or after so many backtests
BOUND = 3.0  # deviations: features have outliers, and softmax is exponential
FLAT = 1e-10  # share of the largest eigenvalue below which a direction of the features is rounding


class BaselineError(PapertapeError, ValueError):
    """A row cannot be formed; the message says which, and what it needs."""


def all_baselines(
    market: Market,
    *,
    rules: Rules,
    kappa: float,
    benchmark: str | None,
    folds: Sequence[Fold],
    initial_cash: float,
    start: Day,
    end: Day,
    matched_turnover: float,
    seed: int = 0,
) -> list[BacktestResult]:
    """Every baseline over the sessions from `start` to `end`, each with its name in `policy`, in this order.

    | row | what it does |
    |---|---|
    | cash | nothing; cash earns nothing |
    | equal weight held | buys once, on the first session, and never trades again: dividends stay cash, a later listing is not bought |
    | equal weight daily | back to equal weight every session, in its first slot (kappa 1) |
    | equal weight at kappa | towards equal weight every row, by `kappa` |
    | hold <benchmark> | everything in the benchmark, dividends reinvested; no such row when it is None |
    | inverse volatility | monthly: weights as 1 / deviation of the last 63 returns |
    | minimum variance | monthly: long-only, by the shrunk covariance of the last 252 returns |
    | 12-1 momentum | monthly: equally the third of the names, rounded up, that returned most in 252 sessions without the last 21 |
    | random at matched turnover | scores without information through `kappa`, at `matched_turnover` a session, a share of equity |
    | ridge | the features that a policy sees, linearly, through `kappa`; fitted for each of `folds` on its training alone |

    A monthly row trades on the first session, and then by each decision at the close of a month's first session. A name without the
    history that its rule needs gets nothing; while no name has it, the row is equal weight. Returns are those of the market's rows.
    Raises BaselineError.
    """
    if not matched_turnover > 0:
        raise BaselineError(f"random at matched turnover needs a turnover above 0, was {matched_turnover}")
    backtester = _Backtester(market, rules=rules, initial_cash=initial_cash, start=start, end=end)
    linear = ridge(market, backtester.judged(folds), kappa=kappa)
    even, monthly = np.zeros(market.close.shape), backtester.monthly()
    rows = [
        backtester.trade("cash", even, on=np.zeros(len(market), dtype=bool)),
        backtester.trade("equal weight held", even, on=backtester.opening),
        backtester.run(EqualWeight(name="equal weight daily"), market=market.decided_daily()),
        backtester.trade("equal weight at kappa", even, kappa=kappa),
    ]
    if benchmark is not None:
        rows.append(backtester.run(EqualWeight(name=f"hold {benchmark}"), market=market.alone(benchmark)))
    prices = _log_prices(market)
    for name, window, weigh in _MONTHLY:
        scores = _log_weights(prices, market.tradable, rows=np.flatnonzero(monthly), window=window, weigh=weigh)
        rows.append(backtester.trade(name, scores, on=monthly))
    rows.append(_random(backtester, kappa=kappa, turnover=matched_turnover, seed=seed))
    rows.append(backtester.run(linear))
    return rows


@dataclass(frozen=True, eq=False)
class _Listed:
    """A policy whose scores are listed beforehand: `table` (T, A) over the market's `sessions` (T,)."""

    name: str
    kappa: float
    sessions: NDArray[np.datetime64]
    table: FloatArray

    def scores(self, observation: Observation) -> FloatArray:
        return np.asarray(self.table[np.searchsorted(self.sessions, observation.as_of)])


class _Backtester:
    """Where all rows meet: one market, one span, one set of rules."""

    def __init__(self, market: Market, *, rules: Rules, initial_cash: float, start: Day, end: Day) -> None:
        self.market, self._rules, self._cash, self._start, self._end = market, rules, initial_cash, start, end
        self._traded = market.rows(start, end).sessions
        self._first, self._last = self._traded[[0, -1]].astype("datetime64[D]")
        self.opening = np.arange(len(market)) == market.index_of(self._traded[0]) - 1

    def run(self, policy: Policy, *, market: Market | None = None) -> BacktestResult:
        return backtest(
            self.market if market is None else market,
            policy,
            rules=self._rules,
            start=self._start,
            end=self._end,
            initial_cash=self._cash,
            limits=None,
        )

    def trade(self, name: str, scores: FloatArray, *, kappa: float = 1.0, on: BoolArray | None = None) -> BacktestResult:
        """Trade `scores` (T, A), by the decisions at the closes of the rows `on` (T,) or of all.

        Elsewhere it rests by the engine's own rule, as `Market.decided` says.
        """
        policy = _Listed(name, kappa, self.market.sessions, scores)
        if on is None:
            return self.run(policy)
        return self.run(policy, market=self.market.decided(on))

    def monthly(self) -> BoolArray:
        """(T,) the first decision and the first session of each month after it."""
        months = self.market.sessions.astype("datetime64[M]")
        begins = np.append(False, months[1:] > months[:-1])
        within = (self.market.sessions < self._traded[-1]) & (np.cumsum(self.opening) > 0)
        return np.asarray((begins & within) | self.opening)

    def judged(self, folds: Sequence[Fold]) -> list[Fold]:
        """The folds whose test has a session of the span."""
        return [fold for fold in folds if fold.test_start <= self._last and fold.test_end >= self._first]


_MONTHLY: tuple[tuple[str, int, Callable[[FloatArray], FloatArray]], ...] = (
    ("inverse volatility", QUARTER, inverse_volatility),
    ("minimum variance", YEAR, minimum_variance),
    ("12-1 momentum", YEAR, momentum),
)


def _log_weights(
    prices: FloatArray, tradable: BoolArray, *, rows: NDArray[np.int64], window: int, weigh: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    """(T, A) scores whose softmax is the weights at the closes of `rows`; 0 where no name has a path of `window` returns."""
    scores = np.zeros(prices.shape)
    for row in rows[rows >= window]:
        path = prices[row - window : row + 1]
        names = tradable[row] & np.isfinite(path).all(axis=0)
        if names.any():
            weights = weigh(path[:, names])
            scores[row, ~names] = NOTHING
            scores[row, names] = np.log(weights, out=np.full(len(weights), NOTHING), where=weights > 0)
    return scores


def _log_prices(market: Market) -> FloatArray:
    """(T, A) log closes, dividends reinvested, the last one carried through a halt; NaN before a name's first bar."""
    prices = np.log(_adjusted(market).close)
    for row in range(1, len(prices)):
        prices[row] = np.where(np.isfinite(prices[row]), prices[row], prices[row - 1])
    return prices


def _adjusted(market: Market) -> Adjusted:
    names = ("open", "high", "low", "close", "volume", "split", "dividend")
    return adjust_forward(**{name: getattr(market, name) for name in names})


def _random(backtester: _Backtester, *, kappa: float, turnover: float, seed: int) -> BacktestResult:
    """Normal scores at the pace whose mean turnover is `turnover`, or at the nearest where none is.

    A pace of 0 to 1 is the share of the sessions on which the row trades, of 1 to 2 raises the deviation of its scores from CALM to WILD.
    """
    moods = np.random.default_rng([seed, 0]).random(len(backtester.market))
    scores = np.random.default_rng([seed, 1]).standard_normal(backtester.market.close.shape)

    @cache
    def trade(pace: float) -> BacktestResult:
        scale = CALM * (WILD / CALM) ** max(pace - 1, 0.0)
        return backtester.trade("random at matched turnover", scale * scores, kappa=kappa, on=(moods < pace) | backtester.opening)

    @cache
    def miss(pace: float) -> float:
        return float(np.log(trade(pace).by_session().turnover.mean() / turnover))

    low, high = (0.0, 1.0) if miss(1.0) > 0 else (1.0, 2.0)
    under, over = miss(low), miss(high)
    for _ in range(TRIES):  # false position; the side that stays counts half (the Illinois rule), so that both close in
        if under >= 0 or over <= 0 or min(-miss(low), miss(high)) <= MATCHED:
            break
        pace = low - under * (high - low) / (over - under)
        if miss(pace) < 0:
            low, under, over = pace, miss(pace), over / 2
        else:
            high, over, under = pace, miss(pace), under / 2
    return trade(min((low, high), key=lambda pace: abs(miss(pace))))


class _Linear:
    """Scores = features x `coefficients` (F,) of what the observation shows, less their mean over the tradable names, within BOUND of 0."""

    def __init__(self, coefficients: FloatArray, *, kappa: float) -> None:
        self._coefficients, self.kappa, self.name = coefficients, kappa, "ridge"

    def scores(self, observation: Observation) -> FloatArray:
        names, features = len(observation.symbols), len(self._coefficients)
        layout = Layout(assets=names, features=features, context=len(observation.vector) - names * (features + 2) - 1)
        parts = unpack(observation.vector, layout=layout)
        scores = parts.assets[:, :features].astype(np.float64) @ self._coefficients
        mean = scores[parts.tradable].sum() / max(parts.tradable.sum(), 1)
        return np.asarray(np.clip(scores - mean, -BOUND, BOUND))


def ridge(market: Market, folds: Sequence[Fold], *, kappa: float) -> WalkForward:
    """The policy of each fold's regression: of the return from the next open to the one after, which is what a decision at a close can
    earn, on the features at that close, both less their mean over the session's names.

    No row is used whose label needs a session after the fold's `train_end`, so not even the purge is touched. Raises BaselineError when
    there is no fold, or one without the rows to fit.
    """
    if not folds:
        raise BaselineError("ridge needs a fold whose test lies in the span, was none")
    opens = np.log(_adjusted(market).open)
    label = np.full(opens.shape, np.nan)
    label[:-2] = opens[2:] - opens[1:-1]
    trained = [market.span(fold.train_start, fold.train_end) for fold in folds]
    spans = [(rows.start, rows.stop - 2) for rows in trained]
    moments = np.zeros((len(market), *[market.features.shape[-1] + 1] * 2))
    counts = np.zeros(len(market))
    for row in range(min(first for first, _ in spans), max(stop for _, stop in spans)):
        names = market.tradable[row] & np.isfinite(label[row])
        if names.any():
            both = np.column_stack([market.features[row, names], label[row, names]])
            both -= both.mean(axis=0)
            moments[row], counts[row] = both.T @ both, len(both)
    policies = []
    for fold, (first, stop) in zip(folds, spans, strict=True):
        rows = int(counts[first:stop].sum())
        if rows <= market.features.shape[-1]:
            raise BaselineError(f"ridge needs more labelled rows than features, fold {fold.number} has {rows}")
        policies.append(_Linear(ridge_coefficients(moments[first:stop].sum(axis=0), rows=rows), kappa=kappa))
    return WalkForward(policies, folds=folds, sessions=market.sessions, name="ridge")


def ridge_coefficients(moments: FloatArray, *, rows: int) -> FloatArray:
    """(F,) from the sums of products (F + 1, F + 1) of the features and, last, the label, over `rows`: ridge on standardised features.

    The penalty is F s^2 / |b|^2, b and s^2 the least squares' coefficients and residual variance (Hoerl, Kennard and Baldwin,
    Communications in Statistics 4, 1975). Scaled so that predictions deviate by 1 over the rows, as the scores of a random policy do;
    0 when the label varies with no feature.
    """
    scale = np.sqrt(np.diag(moments)[:-1] / rows)
    scale = np.where(scale > 0, scale, np.inf)
    gram, cross = moments[:-1, :-1] / np.outer(scale, scale), moments[:-1, -1] / scale
    values, vectors = np.linalg.eigh(gram)
    kept = values > FLAT * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    along = vectors.T @ cross
    fitted = along / values
    if not (fitted != 0).any():
        return np.zeros(len(scale))
    noise = max(float(moments[-1, -1] - along @ fitted), 0.0) / (rows - len(values))
    shrunk = along / (values + len(values) * noise / float(fitted @ fitted))
    return np.asarray((vectors @ shrunk) / scale / np.sqrt(values @ shrunk**2 / rows))
