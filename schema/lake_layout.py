"""Where every object of the lake lies: each prefix and key once, for those who write, read, grant and describe them.

Pure: names only. Times in keys are UTC, sessions are dates of XNYS. What a name could make a reader of paths stumble over is replaced.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

RAW = "raw/"
BARS = "raw/bars/timeframe=1Day/"
ACTIONS = "raw/actions/"
QUOTES = "raw/quotes/"
CALENDAR = "raw/calendar/"
NEWS = "raw/news/"

PROCESSED = "processed/"
FEATURES = "processed/features/timeframe=1Day/"
TRAINING = "processed/training/timeframe=1Day/"  # the features before live_start, and nothing later
MINUTE_BARS = "processed/bars/timeframe=1Min/"
QUARANTINE = "processed/quarantine/"
REPORTS = "processed/reports/"
SENTIMENT = "processed/sentiment/"
COLLECTING = f"{SENTIMENT}collecting/"
NEWS_QUARANTINE = f"{QUARANTINE}news/"
FEATURES_MANIFEST = f"{FEATURES}manifest.json"
TRAINING_MANIFEST = f"{TRAINING}manifest.json"

MODELS = "models/"
TRIALS = "models/trials/"
AUDIT = "audit/"


def bars_key(symbol: str, year: int) -> str:
    return f"{BARS}symbol={symbol}/{year}.jsonl.gz"


def actions_key(symbol: str) -> str:
    return f"{ACTIONS}symbol={symbol}/actions.jsonl.gz"


def calendar_key(year: int) -> str:
    return f"{CALENDAR}exchange=XNYS/{year}.jsonl.gz"


def quotes_prefix(day: date) -> str:
    return f"{QUOTES}date={day.isoformat()}/"


def quotes_key(minute: datetime) -> str:
    """The object of one scheduled minute; date and time of the key are UTC."""
    utc = minute.astimezone(UTC)
    return f"{quotes_prefix(utc.date())}{utc:%H%M}.jsonl.gz"


def news_key(source: str, run: datetime) -> str:
    """The object of what one scheduled run collected from a source, empty if it had nothing; date and time of the key are UTC."""
    return f"{NEWS}{_run(source, run)}"


def sentiment_key(source: str, run: datetime) -> str:
    """The scores of the object at `news_key`, item by item."""
    return f"{SENTIMENT}{_run(source, run)}"


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
