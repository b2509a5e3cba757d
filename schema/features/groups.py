"""The feature table as groups: what each describes, its columns, who computes them, and when a row of it is known.

Promise: each column of `trading_env.data.features` is of exactly one group (a test holds it), and rows of all groups have the keys `KEYS`.
Pure: names only, so that infrastructure can read it. `papertape/reports/feature_groups_page.py` prints docs/feature-groups.md from it.
"""

from __future__ import annotations

from dataclasses import dataclass

KEYS = ("session", "symbol")
WRITTEN = "the same night, by the Glue job build_features (18:30 New York)"


@dataclass(frozen=True, kw_only=True)
class FeatureGroup:
    """Columns of the feature table that belong together.

    Attributes:
        holds: what the columns say of a name, or of the market.
        columns: their names in the table; empty for a group that no code computes yet.
        computed_by: the functions that own the columns, as importable paths.
        known: from when on a row may be used; nothing later enters it.
        optional: the table has the columns only where `[features] sentiment = "daily"`.
    """

    name: str
    holds: str
    columns: tuple[str, ...]
    computed_by: tuple[str, ...]
    known: str
    optional: bool = False


AT_THE_CLOSE = "at the session's close, as the exchange's calendar has it, early closes too"

GROUPS = (
    FeatureGroup(
        name="price_trends",
        holds="how a name's own price has moved: returns, gaps, ranges, indicators, volatility, distance to its averages and highs",
        columns=(
            "return_1", "return_5", "return_21", "return_63", "return_126", "gap", "overnight_21", "intraday_21", "range", "location",
            "rsi_14", "macd", "macd_histogram", "bollinger_position", "volatility_21", "volatility_ratio", "distance_50", "distance_200",
            "momentum_12_1", "drawdown_252",
        ),
        computed_by=("trading_env.data.features.asset_features",),
        known=AT_THE_CLOSE,
    ),
    FeatureGroup(
        name="volume",
        holds="how much of a name was traded, against its own last quarter",
        columns=("volume_z",),
        computed_by=("trading_env.data.features.asset_features",),
        known=AT_THE_CLOSE,
    ),
    FeatureGroup(
        name="market_context",
        holds="where a name stands among the others, and what the market as a whole does",
        columns=(
            "rank_return_5", "rank_return_21", "rank_volatility_21", "rank_momentum_12_1", "rank_residual_1", "rank_residual_5",
            "rank_residual_12_1", "market_breadth", "market_return_21", "market_volatility_21", "market_dispersion_21",
        ),
        computed_by=("trading_env.data.features.cross_section", "trading_env.data.features.context_features"),
        known=AT_THE_CLOSE,
    ),
    FeatureGroup(
        name="sentiment",
        holds="what was written about a name, and received before the close",
        columns=(
            "sentiment", "sentiment_slow", "sentiment_dispersion", "sentiment_count_z", "sentiment_recency", "sentiment_known",
        ),
        computed_by=("trading_env.data.sentiment.sentiment_features",),
        known=AT_THE_CLOSE,
        optional=True,
    ),
)  # fmt: skip


def groups_in_table(*, sentiment: bool) -> tuple[FeatureGroup, ...]:
    """Those that have columns in the table, with or without sentiment."""
    return tuple(group for group in GROUPS if group.columns and (sentiment or not group.optional))


def group_of(column: str) -> FeatureGroup:
    """The group of a column; raise KeyError for one that no group has."""
    for group in GROUPS:
        if column in group.columns:
            return group
    raise KeyError(f"{column} is of no feature group")
