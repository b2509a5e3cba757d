"""Where every object of the lake lies: each prefix and key once, for those who write, read, grant and describe them.

Pure: names only. Times in keys are UTC, sessions are dates of XNYS. What a name could make a reader of paths stumble over is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Literal

from schema.path_segment import identity_of, segment_of
from schema.slot import SlotRows

RAW = "raw/"
BARS = "raw/bars/timeframe=1Day/"
ACTIONS = "raw/actions/"
QUOTES = "raw/quotes/"
STREAMED_BARS = "raw/minutes/"  # the bars of the stream, minute by minute
SLOT_MINUTES = 5  # of a stream's object
STREAM_QUARANTINE = "raw/quarantine/stream/"  # what came by the stream and is none of its records, each with its reason
STREAM_UNDELIVERED = f"{STREAM_QUARANTINE}undelivered/"  # what the delivery stream could not hand on
CALENDAR = "raw/calendar/"
CLOSES = "raw/closes/"
NEWS = "raw/news/"
FORGET = "raw/news/forget/"  # what is to be removed everywhere
FORGOTTEN = "raw/news/forgotten/"  # what was

PROCESSED = "processed/"
FEATURE_TABLES = "processed/features/"
TRAINING_VIEWS = "processed/training/"
MINUTE_BARS = "processed/bars/timeframe=1Min/"
QUARANTINE = "processed/quarantine/"
REPORTS = "processed/reports/"
SENTIMENT = "processed/sentiment/"
COLLECTING = f"{SENTIMENT}collecting/"
NEWS_QUARANTINE = f"{QUARANTINE}news/"
FEATURE_STORE = "processed/feature-store/"  # the offline store, which SageMaker writes
MANIFEST = "manifest.json"

RUNS = "runs/"  # what people ask for: a folder a run, schema/runs
RUN_TRIALS = "runs/trials/"  # the log of what was tried in the training room, apart from that of the models that may trade
UPLOADS = "uploads/"  # bars that people have brought, as they came

MODELS = "models/"
TRIALS = "models/trials/"
AUDIT = "audit/"


def bars_prefix(rows: SlotRows | None = None) -> str:
    """Of daily bars, or of slot bars, which are gathered from the vendor's minutes for these slots, of this feed, and no others."""
    if rows is None:
        return BARS
    return f"raw/bars/timeframe=1Min/feed={rows.feed}/slots={'-'.join(map(str, rows.slots))}/window={rows.window}/"


def bars_key(symbol: str, year: int, rows: SlotRows | None = None) -> str:
    return f"{bars_prefix(rows)}symbol={symbol}/{year}.jsonl.gz"


def features_prefix(timeframe: str = "1Day") -> str:
    """Of the feature table of an app that decides on bars of `timeframe`."""
    return f"{FEATURE_TABLES}timeframe={timeframe}/"


def features_manifest(timeframe: str = "1Day") -> str:
    return f"{features_prefix(timeframe)}{MANIFEST}"


def training_prefix(timeframe: str = "1Day") -> str:
    """Of the features before live_start, and nothing later."""
    return f"{TRAINING_VIEWS}timeframe={timeframe}/"


def training_manifest(timeframe: str = "1Day") -> str:
    return f"{training_prefix(timeframe)}{MANIFEST}"


def actions_key(symbol: str) -> str:
    return f"{ACTIONS}symbol={symbol}/actions.jsonl.gz"


def calendar_key(year: int) -> str:
    return f"{CALENDAR}exchange=XNYS/{year}.jsonl.gz"


def closes_key(session: date) -> str:
    """What other sources said the session's closes were; only where they are compared."""
    return f"{CLOSES}session={session.isoformat()}.jsonl.gz"


def quotes_prefix(day: date) -> str:
    return f"{QUOTES}date={day.isoformat()}/"


def quotes_key(minute: datetime) -> str:
    """The object of one scheduled minute; date and time of the key are UTC."""
    utc = minute.astimezone(UTC)
    return f"{quotes_prefix(utc.date())}{utc:%H%M}.jsonl.gz"


def quotes_minute(key: str) -> datetime:
    """The minute (UTC) that an object of quotes is named after, one of `quotes_key` or of the stream. Raises ValueError for another key."""
    found = re.fullmatch(rf"{QUOTES}date=(\d{{4}}-\d\d-\d\d)/(\d{{4}})(?:-.+)?\.jsonl\.gz", key)
    if found is None:
        raise ValueError(f"a key must be like {quotes_key(datetime(2020, 1, 2, 14, 30, tzinfo=UTC))}, was {key}")
    return datetime.strptime(" ".join(found.groups()), "%Y-%m-%d %H%M").replace(tzinfo=UTC)


def stream_partition(kind: Literal["quote", "bar"], at: datetime) -> dict[str, str]:
    """What a record's place follows from, as the stream calls it: `folder`, `date` and the `slot` of SLOT_MINUTES (UTC)."""
    utc = at.astimezone(UTC)
    folder = {"quote": QUOTES, "bar": STREAMED_BARS}[kind].removeprefix(RAW).removesuffix("/")
    return {"folder": folder, "date": utc.date().isoformat(), "slot": f"{utc:%H}{utc.minute - utc.minute % SLOT_MINUTES:02d}"}


def stream_prefix(folder: str, day: str, slot: str) -> str:
    """How the keys of a partition begin; like `quotes_key` with the time of day, so that keys sort by it."""
    return f"{RAW}{folder}/date={day}/{slot}-"


def stream_key(partition: Mapping[str, str], identity: str) -> str:
    """The object called `identity` of a partition."""
    return f"{stream_prefix(partition['folder'], partition['date'], partition['slot'])}{identity}.jsonl.gz"


def stream_quarantine_prefix(day: date) -> str:
    """What arrived on the UTC date `day` and could not be read."""
    return f"{STREAM_QUARANTINE}date={day.isoformat()}/"


def stream_quarantine_key(arrived: datetime, identity: str) -> str:
    return f"{stream_quarantine_prefix(arrived.astimezone(UTC).date())}{identity}.jsonl.gz"


def firehose_prefix() -> str:
    """The delivery stream's own words for `stream_prefix`. A prefix without the time of delivery would get one as four folders."""
    folder, day, slot = (f"!{{partitionKeyFromLambda:{key}}}" for key in ("folder", "date", "slot"))
    return f"{stream_prefix(folder, day, slot)}!{{timestamp:yyyyMMddHHmmss}}-"


def news_key(source: str, run: datetime) -> str:
    """The object of what one scheduled run collected from a source, empty if it had nothing; date and time of the key are UTC."""
    return f"{NEWS}{_run(source, run)}"


def sentiment_key(source: str, run: datetime) -> str:
    """The scores of the object at `news_key`, item by item."""
    return f"{SENTIMENT}{_run(source, run)}"


def sentiment_prefix(source: str) -> str:
    return f"{SENTIMENT}source={source}/"


def first_sentiment_key(source: str, since: datetime) -> str:
    """Sorts before every key of a run at `since` or later."""
    return f"{sentiment_prefix(source)}date={since.astimezone(UTC).date().isoformat()}/"


def sentiment_run(key: str) -> tuple[str, datetime]:
    """Source and instant (UTC) of the run that an object is of. Raises ValueError for another key."""
    found = re.fullmatch(rf"{SENTIMENT}source=([^/]+)/date=(\d{{4}}-\d\d-\d\d)/(\d{{4}})\.jsonl\.gz", key)
    if found is None:
        raise ValueError(f"a key must be like {sentiment_key('alpaca', datetime(2020, 1, 2, 14, 30, tzinfo=UTC))}, was {key}")
    source, day, clock = found.groups()
    return source, datetime.strptime(f"{day} {clock}", "%Y-%m-%d %H%M").replace(tzinfo=UTC)


def sentiment_keys_between(keys: Iterable[str], *, since: datetime, until: datetime) -> list[str]:
    """Those of runs at `since` to `until`, in order."""
    return sorted(key for key in keys if since <= sentiment_run(key)[1] <= until)


def news_quarantine_key(source: str, run: datetime) -> str:
    """The records of a run that could not be read, each with its reason."""
    return f"{NEWS_QUARANTINE}{_run(source, run)}"


def collecting_key(name: str) -> str:
    """How far a source was collected, or how many of its posts were read in a month."""
    return f"{COLLECTING}{name}.json"


def forget_key(source: str, identity: str) -> str:
    """The request to remove an item everywhere; its name says all, its content says when it was made."""
    return f"{FORGET}source={source}/{segment_of(identity)}.json"


def forgotten_key(source: str, identity: str) -> str:
    """What says that the request at `forget_key` was carried out, and when."""
    return f"{FORGOTTEN}source={source}/{segment_of(identity)}.json"


def forgotten_item(key: str) -> tuple[str, str]:
    """Source and id of a `forget_key` or `forgotten_key`."""
    source, _, segment = key.partition("/source=")[2].partition("/")
    return source, identity_of(segment.removesuffix(".json"))


def _run(source: str, run: datetime) -> str:
    utc = run.astimezone(UTC)
    return f"source={source}/date={utc.date().isoformat()}/{utc:%H%M}.jsonl.gz"


def audit_prefix(table: str) -> str:
    return f"{AUDIT}{table}/"


def audit_key(table: str, day: str, name: str) -> str:
    """One record of an audit table; a slash, a colon and their like in `name` become `_`."""
    return f"{audit_prefix(table)}{day}/{re.sub(r'[^A-Za-z0-9._+-]', '_', name)}.json"


def decision_key(session: date, decision_id: str) -> str:
    return audit_key("decisions", session.isoformat(), decision_id)


def report_key(day: date) -> str:
    return f"{REPORTS}{day.isoformat()}.json"


def run_key(run_id: str, name: str) -> str:
    """A file of a run: `request.json`, `stop` (asked for by a person), and below `checkpoint/` and `results/` what the run makes."""
    return f"{RUNS}{run_id}/{name}"


def run_events_key(run_id: str, first: int) -> str:
    """The object of the events from sequence number `first` on; keys sort as the events do."""
    return run_key(run_id, f"events/{first:08d}.jsonl")


def upload_key(name: str) -> str:
    return f"{UPLOADS}{name}"
