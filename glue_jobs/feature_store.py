"""All rows of the feature table's newest session, put into SageMaker Feature Store: the option of
docs/decisions/0035-feature-store-is-off.md.

Promises: it reads the published table, so it can only mirror what the manifest lists; a second run puts the same records; whatever happens
here, the table is already there. `FeatureStoreError` names the record that the service refused, or the close that the calendar lacks.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import boto3
import pandas as pd
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from glue_jobs.files import Bucket, read_features
from schema.exchange_time import parse_utc
from schema.features.groups import GROUPS
from schema.features.records import record_of, store_name
from schema.lake_layout import calendar_key
from trading_env.errors import PapertapeError

ATTEMPTS = 5


class FeatureStoreError(PapertapeError, RuntimeError):
    """A record is not in the store; the table itself is whole."""


def mirror_newest(*, raw: Bucket, processed: Bucket, app: str, feature_hash: str, prefix: str) -> int:
    """Put a record per symbol, group and row of the newest session that the table has; return how many. A row is known at its end: a slot
    bar at the next slot, the session's last row at the close. `feature_hash`: of the table below `prefix`."""
    table = read_features(processed, prefix=prefix, feature_hash=feature_hash)
    groups = [group for group in GROUPS if group.columns and set(group.columns) <= set(table.columns)]
    days = table["session"].dt.normalize()
    newest = table[days == days.max()]
    begins = sorted(newest["session"].unique())
    ends = [*(begin.to_pydatetime().replace(tzinfo=UTC) for begin in begins[1:]), _close(raw, begins[0])]
    known_at = dict(zip(begins, ends, strict=True))
    store = boto3.client("sagemaker-featurestore-runtime", config=Config(retries={"mode": "standard", "max_attempts": ATTEMPTS}))
    rows: list[dict[str, Any]] = [{str(name): value for name, value in row.items()} for row in newest.to_dict("records")]
    for group in groups:
        name = store_name(app, group)
        for row in rows:
            try:
                store.put_record(FeatureGroupName=name, Record=record_of(row, group, known_at=known_at[row["session"]]))
            except (BotoCoreError, ClientError) as error:
                raise FeatureStoreError(f"{row['symbol']} of {name}: {error}; the feature table itself is written") from error
    return len(groups) * len(rows)


def _close(raw: Bucket, session: pd.Timestamp) -> datetime:
    day = session.date()
    for line in raw.lines([calendar_key(day.year)]):
        if line["session"] == day.isoformat():
            return parse_utc(line["close"])
    raise FeatureStoreError(f"s3://{raw.name}/{calendar_key(day.year)} has no close of {day}; run backfill_bars")
