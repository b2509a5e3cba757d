"""One day's raw quotes to 1-minute bars of the mid price.

Promises: the bars of a day are rebuilt whole from all its objects, so a late or repeated minute only replaces them; quotes come in the
order in which they were received, whichever objects they lie in, so a day gives the same bars by minute and by stream; quotes that break a
rule are kept with their reason under processed/quarantine/. Raises `NothingToBuildError` when the day has no quotes.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import awswrangler as wr

from glue_jobs.features_job import NothingToBuildError, quarantine
from glue_jobs.files import Bucket
from schema.exchange_time import parse_utc
from schema.lake_layout import MINUTE_BARS, QUOTES
from trading_env.data.bars import quotes_to_bars
from trading_env.data.raw_lines import quote_table


def build_minute_bars(*, raw: Bucket, processed: Bucket, day: date, built_for: datetime) -> dict[str, Any]:
    """Write the bars of the UTC date `day`; returns counts."""
    keys = sorted(raw.index(f"{QUOTES}date={day.isoformat()}/"))
    if not keys:
        place = f"s3://{raw.name}/{QUOTES}date={day.isoformat()}/"
        raise NothingToBuildError(f"{place} has no quotes; was ingest_quotes, or the stream, running?")
    lines = sorted(raw.lines(keys), key=lambda line: parse_utc(line["received_at"]))
    quoted = quotes_to_bars(quote_table(lines))
    written = wr.s3.to_parquet(
        df=quoted.bars.assign(date=day.isoformat()),
        path=f"s3://{processed.name}/{MINUTE_BARS}",
        dataset=True,
        partition_cols=["date"],
        mode="overwrite_partitions",
    )
    quarantine(processed, "quotes", quoted.quarantined, built_for=built_for)
    return {
        "date": day.isoformat(),
        "objects": len(keys),
        "bars": len(quoted.bars),
        "quarantined": len(quoted.quarantined),
        "files": [str(path).removeprefix(f"s3://{processed.name}/") for path in written["paths"]],
    }
