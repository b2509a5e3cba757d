"""How a feature table becomes bytes: the same table, the same file, whoever writes it; and what its manifest says of its rows."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from schema.settings import Settings

ROWS_SAID = ("timeframe", "slots", "slot_window_minutes", "minutes_feed")


def parquet(table: pd.DataFrame) -> bytes:
    """Deterministic Parquet bytes: no pandas metadata, one row group, times in microseconds."""
    # Without one chunk a column, pages would follow how the table came together
    arrow = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None).combine_chunks()
    buffer = io.BytesIO()
    # Arrow's own copy of the schema holds bytes that differ between equal tables
    pq.write_table(arrow, buffer, compression="zstd", coerce_timestamps="us", row_group_size=max(len(table), 1), store_schema=False)
    return buffer.getvalue()


def rows_said(settings: Settings) -> dict[str, Any]:
    """What a manifest says of slot bars, `ROWS_SAID`: which they are follows from all of it. Nothing of daily ones."""
    schedule, training = settings.schedule, settings.training
    values = (training.timeframe, list(settings.row_slots), schedule.slot_window_minutes, settings.data.minutes_feed)
    return dict(zip(ROWS_SAID, values, strict=True)) if settings.row_slots else {}


def rows_in_words(said: Mapping[str, Any]) -> str:
    """`rows_said` for a person."""
    if not said:
        return "daily bars"
    cut = f"bars of the slots {', '.join(said.get('slots', ()))}, each {said.get('slot_window_minutes')} minutes long"
    return f"{cut}, of feed {said.get('minutes_feed')}"
