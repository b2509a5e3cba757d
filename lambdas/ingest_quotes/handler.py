"""Each minute of a session: the latest quote of every symbol, one call, one object.

Event: {"schedule": "ingest_quotes", "time": "<scheduled minute>"}. The object is named after that minute, so a retry overwrites it. While
the broker says that the market is closed nothing is written, and the answer says so.
"""

from __future__ import annotations

from typing import Any

from lambdas.common import environment
from lambdas.common.broker.connection import broker_from_environment, market_data_from_environment
from lambdas.common.lake import lake
from lambdas.common.telemetry import MetricUnit, entry, logger, metrics
from lambdas.ingest_quotes.quotes import minute_of
from schema.exchange_time import parse_utc
from schema.lake_layout import quotes_key
from schema.settings import deployed


class IngestQuotesVariables(environment.Variables):
    raw_bucket: str


@entry
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    scheduled, settings = parse_utc(event["time"]), deployed()
    clock = broker_from_environment().clock()
    if not clock.is_open:
        return {"outcome": "skipped", "reason": f"the market is closed until {clock.next_open.isoformat()}"}
    symbols = settings.universe.symbols
    minute = minute_of(quotes=market_data_from_environment().latest_quotes(symbols), symbols=symbols, received_at=clock.now)
    key = quotes_key(scheduled)
    lake.lake(raw_bucket=environment.read(IngestQuotesVariables).raw_bucket).write({key: minute.lines})
    if minute.missing:
        logger.warning("no quote", extra={"symbols": list(minute.missing)})
        metrics.add_metric(name="MissingQuotes", unit=MetricUnit.Count, value=len(minute.missing))
    return {"outcome": "written", "key": key, "quotes": len(minute.lines), "missing": list(minute.missing)}
