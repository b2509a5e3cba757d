"""Raw bars and actions to the feature table, in one process or on Spark, by the same functions.

Promises: both engines write the same bytes; rows that break a rule are kept, with their reason, under processed/quarantine/; the manifest
tells what was built from what. Raises `NothingToBuildError` when the lake has no calendar or no bar of the symbols.
"""

from __future__ import annotations

import hashlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Literal

import pandas as pd

from glue_jobs.files import Bucket, FeatureFile, publish, write_year
from glue_jobs.training_view import publish_training_view
from schema.feature_table import rows_said
from schema.features.sentiment import market_with_sentiment
from schema.lake_layout import ACTIONS, CALENDAR, QUARANTINE, bars_prefix, features_prefix, sentiment_prefix
from schema.settings import Settings
from schema.slot import SlotRows
from schema.training_dates import dates_as_of
from trading_env.data.bars import Sessions, validate
from trading_env.data.features import SCHEMA_VERSION
from trading_env.data.market import build_market, table_columns, to_table
from trading_env.data.raw_lines import action_table, bar_table, session_closes, session_hours, session_index
from trading_env.data.sentiment import TABLES
from trading_env.errors import PapertapeError

SOURCES = (
    ("trading_env", "data/bars.py"),
    ("trading_env", "data/corporate_actions.py"),
    ("trading_env", "data/cross_section.py"),
    ("trading_env", "data/features.py"),
    ("trading_env", "data/indicators.py"),
    ("trading_env", "data/market.py"),
    ("trading_env", "data/raw_lines.py"),
    ("trading_env", "data/sentiment.py"),
    ("trading_env", "data/slot_bars.py"),
    ("trading_env", "data/windows.py"),
    ("schema", "feature_table.py"),
    ("schema", "features/sentiment.py"),
    ("glue_jobs", "features_job.py"),
    ("glue_jobs", "files.py"),
    ("glue_jobs", "spark.py"),
    ("glue_jobs", "training_view.py"),
)

Engine = Literal["pandas", "spark"]


class NothingToBuildError(PapertapeError, RuntimeError):
    """The raw lake is empty where the job must read."""


@dataclass(frozen=True)
class ScoreInputs:
    """The objects of scored posts of these sources, and the instants at which the calendar's sessions close."""

    keys: tuple[str, ...]
    closes: Mapping[date, datetime]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Inputs:
    """Which objects a build reads: bar keys by symbol, action keys, the rows that the calendar has, sessions or (`by_slot`) slots, scores
    where sentiment is on, and a hash of all versions."""

    bars: Mapping[str, tuple[str, ...]]
    actions: tuple[str, ...]
    sessions: pd.DatetimeIndex | Sessions
    sha256: str
    scores: ScoreInputs | None = None
    by_slot: bool = False


@dataclass(frozen=True)
class Built:
    """What an engine returns: files written or found unchanged, rows set aside with `reason`, calendar gaps, first and last session."""

    parts: tuple[FeatureFile, ...]
    quarantined: pd.DataFrame
    gaps: int
    start: str
    end: str


def build_features(*, raw: Bucket, processed: Bucket, settings: Settings, built_for: datetime, engine: Engine) -> dict[str, Any]:
    """Build the whole table, write the years that changed, then the manifest, then the training view; return the manifest without files."""
    symbols, training, table = settings.universe.symbols, settings.training, TABLES[settings.features.sentiment]
    inputs, prefix = find_inputs(raw, symbols, rows=settings.slot_rows), features_prefix(training.timeframe)
    if settings.features.sentiment == "daily":
        inputs = with_scores(inputs, raw=raw, processed=processed, sources=settings.news.sources)
    present = frozenset(processed.index(prefix))
    if engine == "spark":
        from glue_jobs.spark import build_on_spark  # Spark is only there where it is asked for

        built = build_on_spark(raw=raw, processed=processed, inputs=inputs, symbols=symbols, present=present, prefix=prefix)
    else:
        built = build_in_process(raw=raw, processed=processed, inputs=inputs, symbols=symbols, present=present, prefix=prefix)
    quarantine(processed, "bars", built.quarantined, built_for=built_for)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "feature_hash": table.hash,
        "code_sha256": code_sha256(),
        "inputs_sha256": inputs.sha256,
        "columns": list(table_columns(table)),
        "symbols": list(symbols),
        "start": built.start,
        "end": built.end,
        "rows": sum(part.rows for part in built.parts),
        "quarantined": len(built.quarantined),
        "gaps": built.gaps,
        "built_for": built_for.isoformat().replace("+00:00", "Z"),
        **rows_said(settings),
    }
    publish(processed, manifest, built.parts, prefix=prefix)
    live_start = dates_as_of(training, date.fromisoformat(built.end)).live_start
    publish_training_view(processed, manifest, built.parts, live_start=live_start, timeframe=training.timeframe)
    return manifest


def find_inputs(raw: Bucket, symbols: Sequence[str], *, rows: SlotRows | None = None) -> Inputs:
    """List what the lake has of the symbols, daily bars or those of slots; raises `NothingToBuildError`."""
    prefix = bars_prefix(rows)
    index = raw.index(prefix) | raw.index(ACTIONS) | raw.index(CALENDAR)
    bars = {symbol: tuple(sorted(key for key in index if key.startswith(f"{prefix}symbol={symbol}/"))) for symbol in symbols}
    calendar = sorted(key for key in index if key.startswith(CALENDAR))
    actions = tuple(key for key in sorted(index) if key in {f"{ACTIONS}symbol={symbol}/actions.jsonl.gz" for symbol in symbols})
    if not calendar or not any(bars.values()):
        what = "calendar" if not calendar else f"bar of {', '.join(symbols)}{f' below {prefix}' if rows else ''}"
        raise NothingToBuildError(f"s3://{raw.name} has no {what}; run backfill_bars with a start date first")
    read = [*(key for keys in bars.values() for key in keys), *actions, *calendar]
    digest = hashlib.sha256("\n".join(f"{key} {index[key]}" for key in sorted(read)).encode()).hexdigest()
    days = raw.lines(calendar)
    sessions = session_index(days) if rows is None else session_hours(days).rows(rows.slots)
    return Inputs(bars=bars, actions=actions, sessions=sessions, sha256=digest, by_slot=rows is not None)


def with_scores(inputs: Inputs, *, raw: Bucket, processed: Bucket, sources: Sequence[str]) -> Inputs:
    """The inputs with every scored post that the lake has of the sources; that it has none is no error: they were down."""
    index = {key: etag for source in sources for key, etag in processed.index(sentiment_prefix(source)).items()}
    lines = raw.lines(sorted(raw.index(CALENDAR)))
    digest = hashlib.sha256("\n".join([inputs.sha256, *(f"{key} {index[key]}" for key in sorted(index))]).encode()).hexdigest()
    return replace(inputs, sha256=digest, scores=ScoreInputs(tuple(sorted(index)), session_closes(lines), tuple(sources)))


def build_in_process(
    *, raw: Bucket, processed: Bucket, inputs: Inputs, symbols: tuple[str, ...], present: frozenset[str], prefix: str
) -> Built:
    """Everything in memory: a few hundred symbols."""
    lines = raw.lines([key for keys in inputs.bars.values() for key in keys])
    checked = validate(bar_table(lines, by_slot=inputs.by_slot), sessions=inputs.sessions)
    market = build_market(checked.bars, action_table(raw.lines(inputs.actions)), symbols=symbols)
    if inputs.scores is not None:
        scores = inputs.scores
        market = market_with_sentiment(market, processed.objects(scores.keys), closes=scores.closes, sources=scores.sources)
    table = to_table(market)
    years = table.groupby(table["session"].dt.year)  # a slot's year in UTC is New York's, for no session reaches midnight
    parts = [write_year(processed, int(str(year)), rows, present=present, prefix=prefix) for year, rows in years]
    return Built(
        parts=tuple(parts),
        quarantined=checked.quarantined,
        gaps=len(checked.gaps),
        start=str(market.days[0]),
        end=str(market.days[-1]),
    )


def quarantine(processed: Bucket, kind: str, rows: pd.DataFrame, *, built_for: datetime) -> None:
    """Keep what was set aside, one object a build."""
    if not rows.empty:
        lines = [{str(name): _plain(value) for name, value in row.items()} for row in rows.to_dict("records")]
        processed.put_lines(f"{QUARANTINE}{kind}/{built_for:%Y-%m-%d}.jsonl.gz", lines)


def code_sha256(sources: Iterable[tuple[str, str]] = SOURCES) -> str:
    """Hash of the source that makes the values; also inside the archive that Glue imports from."""
    digest = hashlib.sha256()
    for package, name in sources:
        digest.update(pkgutil.get_data(package, name) or b"")
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """A cell as JSON: what was not finite stays visible, as text."""
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, float) and not float("-inf") < value < float("inf"):
        return str(value)
    return value
