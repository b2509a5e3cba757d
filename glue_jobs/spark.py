"""The same build on Spark: one task per symbol for its own features, one task per year for ranks, context and the file.

A task reads and writes S3 by itself, so the driver holds only calendar, quarantine and the list of files. Values are the in-process
build's to the last bit: a symbol's features depend on its own bars and on which sessions the panel has; ranks and context depend on no more
than `LOOKBACK` sessions, which each year's task gets as a halo from the year before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from glue_jobs.features_job import Built, Inputs, ScoreInputs
from glue_jobs.files import Bucket, FeatureFile, write_year
from schema.features.sentiment import reach, sentiment_of
from schema.lake_layout import sentiment_keys_between
from trading_env.data.bars import BAR_COLUMNS, validate
from trading_env.data.features import ASSET_FEATURES, LOOKBACK, context_features, cross_section
from trading_env.data.market import CONTEXT_NAMES, FEATURE_NAMES, TABLE_COLUMNS, build_market, table_columns, to_table
from trading_env.data.raw_lines import action_table, bar_table
from trading_env.data.sentiment import SENTIMENT_NAMES, TABLES, closes_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

ASSET_NAMES = tuple(feature.name for feature in ASSET_FEATURES)
OWN_COLUMNS = tuple(name for name in TABLE_COLUMNS if name not in CONTEXT_NAMES and (name not in FEATURE_NAMES or name in ASSET_NAMES))
CALENDAR_NAME = "(calendar)"

_NUMBERS = "open double, high double, low double, close double, volume double"
CHECKED_SCHEMA = f"symbol string, session timestamp_ntz, {_NUMBERS}, outcome string, reason string"
OWN_SCHEMA = f"session timestamp_ntz, symbol string, {_NUMBERS}, split double, dividend double, tradable boolean, " + ", ".join(
    f"{name} double" for name in ASSET_NAMES
)
PART_SCHEMA = "year int, key string, rows long, sha256 string"


def build_on_spark(
    *, raw: Bucket, processed: Bucket, inputs: Inputs, symbols: tuple[str, ...], present: frozenset[str], prefix: str
) -> Built:
    """The job on whatever Spark session there is, or a new one."""
    spark = SparkSession.builder.appName("build_features").getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    checked = _checked(spark, raw=raw, inputs=inputs).persist()
    good = checked.where("outcome = 'good'").drop("outcome", "reason")
    sessions = pd.DatetimeIndex(good.select("session").distinct().toPandas()["session"]).sort_values()
    set_aside = checked.where("outcome = 'quarantined'").drop("outcome").toPandas()
    gaps = checked.where("outcome = 'gap'").count()

    own = _own_features(spark, good, raw=raw, inputs=inputs, sessions=sessions)

    def write(year: int, table: pd.DataFrame) -> FeatureFile:
        return write_year(processed, year, table, present=present, prefix=prefix)

    parts = _years(spark, own, processed=processed, inputs=inputs, symbols=symbols, sessions=sessions, write=write)
    checked.unpersist()
    return Built(
        parts=tuple(parts),
        quarantined=set_aside,
        gaps=gaps,
        start=sessions[0].date().isoformat(),
        end=sessions[-1].date().isoformat(),
    )


def _checked(spark: SparkSession, *, raw: Bucket, inputs: Inputs) -> DataFrame:
    """Every bar with its outcome: good, quarantined with a reason, or (without prices) a gap of the calendar."""
    calendar, by_slot = inputs.sessions, inputs.by_slot

    def check(keys: pd.DataFrame) -> pd.DataFrame:
        found = validate(bar_table(raw.lines(sorted(keys["key"])), by_slot=by_slot), sessions=calendar)
        tables = [
            found.bars.assign(outcome="good", reason=""),
            found.quarantined.assign(outcome="quarantined"),
            found.gaps.reindex(columns=list(BAR_COLUMNS)).assign(outcome="gap", reason=""),
        ]
        return _plain(pd.concat([table for table in tables if not table.empty], ignore_index=True)[[*BAR_COLUMNS, "outcome", "reason"]])

    keys = pd.DataFrame([(symbol, key) for symbol, found in inputs.bars.items() for key in found], columns=["symbol", "key"])
    return spark.createDataFrame(keys).groupBy("symbol").applyInPandas(check, CHECKED_SCHEMA)


def _own_features(spark: SparkSession, good: DataFrame, *, raw: Bucket, inputs: Inputs, sessions: pd.DatetimeIndex) -> DataFrame:
    """One row a symbol and session of the panel, with the symbol's own features; a symbol without a bar has its actions only."""
    # A name that has a bar in every session makes each symbol's rows, and the rows its actions fall on, those of the whole panel
    prices = dict.fromkeys(("open", "high", "low", "close"), 1.0)
    calendar = pd.DataFrame({"symbol": CALENDAR_NAME, "session": sessions, **prices, "volume": 0.0})
    actions = inputs.actions

    def features(names: pd.DataFrame, bars: pd.DataFrame) -> pd.DataFrame:
        symbol = str(names["symbol"].iloc[0])
        events = action_table(raw.lines([key for key in actions if f"symbol={symbol}/" in key]))
        panel = build_market(pd.concat([bars, calendar], ignore_index=True), events, symbols=(symbol, CALENDAR_NAME))
        return _plain(to_table(panel.only((symbol,)))[list(OWN_COLUMNS)])

    names = spark.createDataFrame(pd.DataFrame({"symbol": list(inputs.bars)}))
    return names.groupBy("symbol").cogroup(good.groupBy("symbol")).applyInPandas(features, OWN_SCHEMA)


def _years(
    spark: SparkSession,
    own: DataFrame,
    *,
    processed: Bucket,
    inputs: Inputs,
    symbols: tuple[str, ...],
    sessions: pd.DatetimeIndex,
    write: Callable[[int, pd.DataFrame], FeatureFile],
) -> list[FeatureFile]:
    scores = inputs.scores

    def finish(rows: pd.DataFrame) -> pd.DataFrame:
        year = int(str(rows["year"].iloc[0]))
        table = _year_table(rows, year=year, symbols=symbols)
        if scores is not None:
            days = np.sort(rows["session"].unique())
            table = _with_sentiment(table, days=days, scores=scores, processed=processed, symbols=symbols)
        part = write(year, table)
        return pd.DataFrame([{"year": year, "key": part.key, "rows": part.rows, "sha256": part.sha256}])

    needed = pd.DataFrame(_needed_by(sessions), columns=["session", "year"]).astype({"year": "int32"})
    plan = spark.createDataFrame(needed, "session timestamp_ntz, year int")
    written = own.join(plan, "session").groupBy("year").applyInPandas(finish, PART_SCHEMA).collect()
    return [FeatureFile(key=row.key, rows=row.rows, sha256=row.sha256) for row in sorted(written, key=lambda row: int(row.year))]


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Texts as objects: pandas keeps them in Arrow's chunked arrays, which Spark 3.5 cannot take over."""
    return table.astype(dict.fromkeys(table.columns[table.dtypes == "str"], object))


def _needed_by(sessions: pd.DatetimeIndex) -> Iterator[tuple[pd.Timestamp, int]]:
    """Each session with the years whose file needs it: its own, and the next one when it lies in that year's halo."""
    years = sessions.year.to_numpy()
    for year in np.unique(years):
        first = int(np.searchsorted(years, year, side="left"))
        stop = int(np.searchsorted(years, year, side="right"))
        for session in sessions[max(first - LOOKBACK, 0) : stop]:
            yield session, int(year)


def _year_table(rows: pd.DataFrame, *, year: int, symbols: tuple[str, ...]) -> pd.DataFrame:
    """TABLE_COLUMNS of one year from the own features of that year and its halo."""
    days = np.sort(rows["session"].unique())
    grid = pd.MultiIndex.from_product([days, symbols], names=["session", "symbol"])
    table = rows.set_index(["session", "symbol"]).reindex(grid).reset_index()
    asset = table[list(ASSET_NAMES)].to_numpy(dtype=np.float64).reshape(len(days), len(symbols), len(ASSET_NAMES))
    values = np.concatenate([asset, cross_section(asset)], axis=-1)
    context = context_features(asset)
    for column, name in enumerate(FEATURE_NAMES):
        table[name] = values[:, :, column].ravel()
    for column, name in enumerate(CONTEXT_NAMES):
        table[name] = np.repeat(context[:, column], len(symbols))
    finite: NDArray[np.bool_] = np.isfinite(np.concatenate([values, np.repeat(context[:, None], len(symbols), axis=1)], axis=-1)).all(
        axis=-1
    )
    table["tradable"] = np.isfinite(table["close"].to_numpy(dtype=np.float64)) & finite.ravel()
    first = int(np.searchsorted(days, np.datetime64(f"{year}-01-01"))) * len(symbols)
    return table[list(TABLE_COLUMNS)].iloc[first:].astype({"symbol": "str"}).reset_index(drop=True)


def _with_sentiment(
    table: pd.DataFrame, *, days: NDArray[np.datetime64], scores: ScoreInputs, processed: Bucket, symbols: tuple[str, ...]
) -> pd.DataFrame:
    """The year's table with its sentiment columns; `days` are its sessions and those of its halo, which is longer than they look back."""
    first = len(days) - len(table) // len(symbols)
    closes = closes_of(days, scores.closes)
    since, until = reach(closes, first=first)
    objects = processed.objects(sentiment_keys_between(scores.keys, since=since, until=until))
    values = sentiment_of(objects, closes=closes, symbols=symbols, sources=scores.sources)[first:]
    told = table.assign(**{name: values[:, :, column].ravel() for column, name in enumerate(SENTIMENT_NAMES)})
    return told[list(table_columns(TABLES["daily"]))]
