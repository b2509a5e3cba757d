"""Bars to features: one function for training, backtest and live.

The promises:

- Every feature is scale-free: prices and volumes in other units, or history anchored elsewhere, give the same values.
- Only the past enters: cutting or changing the input after t leaves every value at or before t bit-identical.
- Started `HISTORY_SESSIONS` earlier than the first row of interest, recursive indicators agree with the whole history to 1e-9.
- Nothing is made up: a value without enough history is NaN, and a constant price has the value that its formula states.
- Nothing says how large a name is: no size, no price level, no dollar volume.
- Residual ranks are neutral to the market, to beta and to volatility, by the session's own regression; no column is neutral to sectors.

`FEATURES` and `CONTEXT` are the one table: each row's name, formula, window and unit beside what computes it, of a name's `Bars` or of the
names' `Panel`.
`FEATURE_HASH` names the table; a model trained on one table refuses another. Adjusted bars that are not finite raise `FeaturesError`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from trading_env.data import cross_section as across
from trading_env.data.bars import Array, Mask
from trading_env.data.cross_section import BETA_RETURNS, BETA_SESSIONS, LEAST_NAMES
from trading_env.data.indicators import Bars
from trading_env.data.windows import deviation, rolling_sum
from trading_env.errors import PapertapeError

SCHEMA_VERSION = 1
HISTORY_SESSIONS = 600

BLOCK = 16_384  # values of a column that go through the formulas together: what a core's cache holds


class FeaturesError(PapertapeError, ValueError):
    """Bars that features cannot be computed from; the message names the column and the row."""


@dataclass(frozen=True)
class Panel:
    """What ranks and context features see: names' own features (T, A, len(ASSET_FEATURES)), here (A, T) each, of a universe's members
    (T, A) at that session; None, of all names.
    """

    asset: Array
    member: Mask | None = None

    def own(self, name: str) -> Array:
        """Of all names, members or not."""
        return np.ascontiguousarray(self.asset[:, :, POSITION[name]].T)

    def column(self, name: str) -> Array:
        return self.own(name) if self.member is None else np.where(self.member.T, self.own(name), np.nan)

    def share(self, name: str, *, above: float) -> Array:
        """Share of the names with a value whose value is above a constant."""
        values = self.column(name)
        return across.mean(np.where(np.isfinite(values), values > above, np.nan))

    def mean(self, name: str) -> Array:
        return across.mean(self.column(name))

    def volatility(self, name: str) -> Array:
        """Standard deviation of the last 21 means across names."""
        mean = self.mean(name)
        return deviation(rolling_sum(mean, 7, 3), rolling_sum(mean * mean, 7, 3), 21)

    def dispersion(self, name: str) -> Array:
        """Standard deviation across the names with a value."""
        values = self.column(name)
        return np.sqrt(across.mean((values - across.mean(values)) ** 2))

    def rank(self, name: str) -> Array:
        return across.ranks(self.column(name))

    def residual_rank(self, name: str) -> Array:
        return across.ranks(self.residual[name])

    @cached_property
    def beta(self) -> Array:
        """Of the names with a year of their own: after a break the panel's last year holds returns of another series."""
        betas = across.betas(self.own("return_1"), market=self.mean("return_1"))
        return np.where(np.isfinite(self.column("momentum_12_1")), betas, np.nan)

    @cached_property
    def residual(self) -> Mapping[str, Array]:
        values = np.stack([self.column(name) for name in RESIDUAL_OF])
        return dict(zip(RESIDUAL_OF, across.residuals(values, self.beta, self.column("volatility_21")), strict=True))


@dataclass(frozen=True)
class Feature:
    """A row of the table.

    Attributes:
        name: the column's name.
        formula: how it is computed; a[t−k] is k of the name's own sessions before. `std` divides by the window's length.
        window: own sessions needed up to and including t for the first value; for recursive indicators (RSI, MACD) too.
        unit: log, ratio, share, z, or rank.

    What compares names reads no further back than `LOOKBACK` of the panel's sessions.
    """

    name: str
    formula: str
    window: int
    unit: str


@dataclass(frozen=True)
class AssetFeature(Feature):
    compute: Callable[[Bars], Array] = field(repr=False, compare=False)


@dataclass(frozen=True)
class RankFeature(Feature):
    compute: Callable[[Panel], Array] = field(repr=False, compare=False)


@dataclass(frozen=True)
class ContextFeature(Feature):
    compute: Callable[[Panel], Array] = field(repr=False, compare=False)


ASSET_FEATURES = (
    AssetFeature("return_1", "log(close[t] / close[t-1])", 2, "log", lambda b: b.log_return(1)),
    AssetFeature("return_5", "log(close[t] / close[t-5])", 6, "log", lambda b: b.log_return(5)),
    AssetFeature("return_21", "log(close[t] / close[t-21])", 22, "log", lambda b: b.return_21),
    AssetFeature("return_63", "log(close[t] / close[t-63])", 64, "log", lambda b: b.return_63),
    AssetFeature("return_126", "log(close[t] / close[t-126])", 127, "log", lambda b: b.log_return(126)),
    AssetFeature("gap", "log(open[t] / close[t-1])", 2, "log", lambda b: b.gap),
    AssetFeature("overnight_21", "sum_21(log(open[t] / close[t-1]))", 22, "log", lambda b: b.overnight),
    AssetFeature(
        "intraday_21", "sum_21(log(close[t] / open[t])), as return_21 - overnight_21", 22, "log", lambda b: b.return_21 - b.overnight
    ),
    AssetFeature("range", "min(log(high[t] / low[t]), 0.5)", 1, "log", Bars.range),
    AssetFeature("location", "(close - low) / (high - low) - 0.5; 0 if high = low", 1, "share", Bars.location),
    AssetFeature("rsi_14", "RSI(14) / 100 - 0.5, Wilder; 0 if the last 15 closes are equal", 15, "share", Bars.rsi),
    AssetFeature("macd", "(EMA(12) - EMA(26)) / close", 34, "ratio", lambda b: b.macd[0]),
    AssetFeature("macd_histogram", "(MACD - EMA(9) of MACD) / close", 34, "ratio", lambda b: b.macd[1]),
    AssetFeature(
        "bollinger_position",
        "(close - mean_20) / (2 sd), sd = max(std_20(close), 1e-6 close)",
        20,
        "z",
        Bars.bollinger_position,
    ),
    AssetFeature("volatility_21", "std_21(return_1)", 22, "log", lambda b: b.volatility_21),
    AssetFeature("volatility_ratio", "log(max(std_21(return_1), 1e-6) / max(std_63(return_1), 1e-6))", 64, "log", Bars.volatility_ratio),
    AssetFeature(
        "volume_z",
        "(volume - mean_63) / max(std_63(volume), 1e-6 mean_63), within [-5, 5]; 0 if mean_63 = 0",
        63,
        "z",
        Bars.volume_score,
    ),
    AssetFeature("distance_50", "close / SMA(50) - 1", 50, "ratio", lambda b: b.distance(50)),
    AssetFeature("distance_200", "close / SMA(200) - 1", 200, "ratio", lambda b: b.distance(200)),
    AssetFeature("momentum_12_1", "log(close[t-21] / close[t-252])", 253, "log", lambda b: b.log_return(252, skip=21)),
    AssetFeature("drawdown_252", "close / max_252(close) - 1", 252, "ratio", lambda b: b.drawdown(252)),
)

POSITION = {feature.name: column for column, feature in enumerate(ASSET_FEATURES)}
RESIDUAL_OF = ("return_1", "return_5", "momentum_12_1")


def _ranked(what: str) -> str:
    return f"rank of {what} among the names with a value, ties (to 1e-9) averaged, from -0.5 (lowest) to 0.5; 0 if alone"


def _residual(of: str) -> str:
    return (
        f"(residual of {of} in the session's regression on 1, beta, volatility_21 across names; 0 for fewer than {LEAST_NAMES} names; "
        "a regressor whose deviation is below 1e-6 has no part; beta = cov(return_1, m) / max(var(m), 1e-12), m = mean of return_1 across "
        f"names, over the panel's last {BETA_SESSIONS} sessions, of a name with {BETA_RETURNS} returns there and 253 sessions of its own)"
    )


RANK_FEATURES = (
    RankFeature("rank_return_5", _ranked("return_5"), 6, "rank", lambda p: p.rank("return_5")),
    RankFeature("rank_return_21", _ranked("return_21"), 22, "rank", lambda p: p.rank("return_21")),
    RankFeature("rank_volatility_21", _ranked("volatility_21"), 22, "rank", lambda p: p.rank("volatility_21")),
    RankFeature("rank_momentum_12_1", _ranked("momentum_12_1"), 253, "rank", lambda p: p.rank("momentum_12_1")),
    RankFeature("rank_residual_1", _ranked(_residual("return_1")), 253, "rank", lambda p: p.residual_rank("return_1")),
    RankFeature("rank_residual_5", _ranked(_residual("return_5")), 253, "rank", lambda p: p.residual_rank("return_5")),
    RankFeature("rank_residual_12_1", _ranked(_residual("momentum_12_1")), 253, "rank", lambda p: p.residual_rank("momentum_12_1")),
)

FEATURES: tuple[Feature, ...] = (*ASSET_FEATURES, *RANK_FEATURES)

CONTEXT: tuple[ContextFeature, ...] = (
    ContextFeature(
        "market_breadth",
        "share of names with distance_50 > 1e-9, minus 0.5",
        50,
        "share",
        lambda p: p.share("distance_50", above=1e-9) - 0.5,
    ),
    ContextFeature("market_return_21", "mean of return_21 across names", 22, "log", lambda p: p.mean("return_21")),
    ContextFeature("market_volatility_21", "std_21(mean of return_1 across names)", 22, "log", lambda p: p.volatility("return_1")),
    ContextFeature("market_dispersion_21", "std of return_21 across names", 22, "log", lambda p: p.dispersion("return_21")),
)


def asset_features(open: Array, high: Array, low: Array, close: Array, volume: Array) -> Array:  # noqa: A002  the column's name
    """Names' own features, (T, len(ASSET_FEATURES)) of one name or (T, A, len(ASSET_FEATURES)) of many, NaN in warm-up.

    Args:
        open, high, low, close, volume: (T,) or (T, A) forward-adjusted bars of sessions that all these names have, one after the other.

    Raises:
        FeaturesError: a value is not finite, or a price not positive.
    """
    columns = {"open": open, "high": high, "low": low, "close": close, "volume": volume}
    if close.ndim == 1:
        columns = {name: values[:, None] for name, values in columns.items()}
    sessions, names = columns["close"].shape
    result = np.empty((len(ASSET_FEATURES), names, sessions))
    _fill(result, columns)
    return result.T if close.ndim == 2 else result[:, 0].T


def _fill(result: Array, columns: Mapping[str, Array]) -> None:
    """Names' own features into (len(ASSET_FEATURES), A, T), of columns (T, A)."""
    for name, values in columns.items():
        _check(name, values)
    _, names, sessions = result.shape
    together = max(BLOCK // max(sessions, 1), 1)
    for first in range(0, names if sessions else 0, together):
        some = slice(first, first + together)
        bars = Bars(**{name: np.ascontiguousarray(values[:, some].T, dtype=np.float64) for name, values in columns.items()})
        for column, feature in enumerate(ASSET_FEATURES):
            result[column, some] = feature.compute(bars)


def cross_section(asset: Array, *, member: Mask | None = None) -> Array:
    """Ranks across names at the same session: (T, A, len(ASSET_FEATURES)) -> (T, A, len(RANK_FEATURES)), NaN where the value is.

    `member` (T, A): ranks are among a universe's members of the session, and others have none; None: all names are.
    """
    panel = Panel(asset, member)
    return np.stack([feature.compute(panel) for feature in RANK_FEATURES]).T


def context_features(asset: Array, *, member: Mask | None = None) -> Array:
    """Market-wide features, (T, A, len(ASSET_FEATURES)) -> (T, len(CONTEXT)), each over the names with a value, NaN if there is none.

    `member` (T, A): over a universe's members of the session alone.
    """
    panel = Panel(asset, member)
    return np.column_stack([feature.compute(panel) for feature in CONTEXT])


def features(
    open: Array,  # noqa: A002  the column's name
    high: Array,
    low: Array,
    close: Array,
    volume: Array,
) -> tuple[Array, Array]:
    """All features of a panel.

    A name's indicators run over its own bars: a session without a bar is skipped, not filled, and has NaN.

    Args:
        open, high, low, close, volume: (T, A) forward-adjusted, NaN where a name has no bar.

    Returns:
        features (T, A, len(FEATURES)), in memory column by column, and context (T, len(CONTEXT)), float64, in the order of the tables.
    """
    table = np.empty((len(FEATURES), *close.shape[::-1]))
    own = table[: len(ASSET_FEATURES)]
    panel = {"open": open, "high": high, "low": low, "close": close, "volume": volume}
    calendars: dict[bytes, list[int]] = {}
    for name, present in enumerate(np.isfinite(close).T):
        calendars.setdefault(present.tobytes(), []).append(name)
    for calendar, names in calendars.items():
        present = np.frombuffer(calendar, dtype=np.bool_)
        if present.all() and len(calendars) == 1:
            _fill(own, panel)
        else:
            some = np.ix_(present, np.array(names))
            own[:, names] = np.nan
            own[:, np.array(names)[:, None], np.flatnonzero(present)] = asset_features(**{k: values[some] for k, values in panel.items()}).T
    table[len(ASSET_FEATURES) :] = cross_section(own.T).T
    return table.T, context_features(own.T)


def _check(name: str, values: Array) -> None:
    zero_too = name == "volume"
    if not values.size:
        return
    least = values.min()
    if least >= 0 and (zero_too or least > 0) and values.max() < np.inf:
        return
    bad = ~np.isfinite(values) | (values < 0) | ((values == 0) & (not zero_too))
    allowed = "finite and >= 0" if zero_too else "finite and > 0"
    raise FeaturesError(f"{name} must be {allowed}, was {values[bad][0]} in row {np.argwhere(bad)[0][0]}")


LOOKBACK = max(BETA_SESSIONS, *(feature.window for feature in CONTEXT))  # of the panel's sessions, that ranks and context read


def _hash() -> str:
    table = [[f.name, f.formula, f.window, f.unit] for f in (*FEATURES, *CONTEXT)]
    return hashlib.sha256(json.dumps([SCHEMA_VERSION, HISTORY_SESSIONS, table], separators=(",", ":")).encode()).hexdigest()


FEATURE_HASH = _hash()
