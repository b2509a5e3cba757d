"""The part of the feature table that training may know: every row before `live_start`, under a prefix of its own.

The roles of training and evaluation read this prefix and no other, so a bar of the live period is not only refused by their code but out
of their reach. Whole years before `live_start` are the same files, byte for byte; only the year that it falls into is cut.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from glue_jobs.files import Bucket, FeatureFile, publish, write_year
from schema.lake_layout import features_prefix, training_prefix


def publish_training_view(
    processed: Bucket, manifest: Mapping[str, Any], parts: Sequence[FeatureFile], *, live_start: date, timeframe: str
) -> int:
    """Write the view of a table that was just written as `parts`; returns its rows. Without a row before `live_start`: nothing, 0."""
    table_prefix, prefix = features_prefix(timeframe), training_prefix(timeframe)
    present = frozenset(processed.index(prefix))
    kept: list[FeatureFile] = []
    newest = pd.Timestamp.min
    for part in parts:
        year = int(part.key.split("/")[0].removeprefix("year="))
        if year > live_start.year:
            continue
        table = _read(processed, table_prefix + part.key)
        known = table[table["session"] < pd.Timestamp(live_start)]
        if not known.empty:
            kept.append(write_year(processed, year, known, present=present, prefix=prefix))
            newest = max(newest, known["session"].max())
    if kept:
        rows = sum(part.rows for part in kept)
        publish(processed, {**manifest, "end": f"{newest:%Y-%m-%d}", "rows": rows}, kept, prefix=prefix)
        return rows
    return 0


def _read(bucket: Bucket, key: str) -> pd.DataFrame:
    body = bucket.get(key)
    if body is None:
        raise FileNotFoundError(f"s3://{bucket.name}/{key} was written a moment ago and is not there; is another build running?")
    table: pd.DataFrame = pq.read_table(io.BytesIO(body)).to_pandas()
    return table
