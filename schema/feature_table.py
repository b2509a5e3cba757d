"""How a feature table becomes bytes: the same table, the same file, whoever writes it."""

from __future__ import annotations

import io

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


def parquet(table: pd.DataFrame) -> bytes:
    """Deterministic Parquet bytes: no pandas metadata, one row group, times in microseconds."""
    # Without one chunk a column, pages would follow how the table came together
    arrow = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None).combine_chunks()
    buffer = io.BytesIO()
    # Arrow's own copy of the schema holds bytes that differ between equal tables
    pq.write_table(arrow, buffer, compression="zstd", coerce_timestamps="us", row_group_size=max(len(table), 1), store_schema=False)
    return buffer.getvalue()
