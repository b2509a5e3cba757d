"""In each decision slot: observe the market and the book, ask the model, send target weights to the execution API.

Event: {"schedule": "decide", "time": "<the slot's instant>", "slot": "open+5"}; a single slot needs no name. A holiday is skipped and said
so. Every error leaves the function: the schedule may repeat it, because the same slot decides once. {"dry_run": true} answers what would
be decided in the slot that is open or comes next, and does nothing else (`lambdas.decide.dry_run`).
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import boto3
from botocore.config import Config
from pydantic import Field

from lambdas.common import environment
from lambdas.common.api.client import execution_api_from_environment
from lambdas.common.broker.connection import broker_from_environment, market_data_from_environment
from lambdas.common.lake import lake
from lambdas.common.ledger.ledger import ledger_from_environment
from lambdas.common.telemetry import entry, logger
from lambdas.decide.agent import decide
from lambdas.decide.dry_run import dry_run
from lambdas.decide.edges import Edges, Publication
from lambdas.decide.endpoint import Retries
from schema.exchange_time import parse_utc
from schema.settings import deployed

RESERVE_SECONDS = 90.0  # the decision may be sent twice, 38 s each


class DecideVariables(environment.Variables):
    """`processed_bucket`: of the scored posts, needed where `[features] sentiment` is on."""

    raw_bucket: str
    audit_bucket: str
    processed_bucket: str = ""
    code_version: str = "unknown"


class EndpointVariables(environment.Variables):
    """In seconds. An endpoint is asked for `endpoint_retry_seconds` at most; pauses begin at `endpoint_pause_seconds` and double."""

    endpoint_connect_timeout: float = Field(default=3.0, gt=0, le=30)
    endpoint_read_timeout: float = Field(default=60.0, gt=0, le=120)
    endpoint_retry_seconds: float = Field(default=240.0, ge=0, le=600)
    endpoint_pause_seconds: float = Field(default=2.0, gt=0, le=60)


class MinutesVariables(environment.Variables):
    """With slot bars: a minute's bar is read so many seconds after its end at the earliest; 0 where the broker's clock stands still."""

    minutes_pause_seconds: float = Field(default=5.0, ge=0, le=30)


@entry
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    variables = environment.read(DecideVariables)
    edges = Edges(
        broker=broker_from_environment(),
        market_data=market_data_from_environment(),
        lake=lake.lake(raw_bucket=variables.raw_bucket, processed_bucket=variables.processed_bucket, audit_bucket=variables.audit_bucket),
        ledger=ledger_from_environment(),
        runtime=_runtime(),
        execution=execution_api_from_environment(),
        code_version=variables.code_version,
        retries=_retries(context),
        publication=Publication(seconds=environment.read(MinutesVariables).minutes_pause_seconds),
    )
    if event.get("dry_run"):
        now = parse_utc(event["time"]) if "time" in event else None
        return dry_run(settings=deployed(), edges=edges, now=now, slot_name=event.get("slot"))
    result = decide(time=parse_utc(event["time"]), settings=deployed(), edges=edges, slot_name=event.get("slot"))
    logger.info(result["outcome"], extra=result)
    return result


def _retries(context: Any) -> Retries:
    """Over while enough of the function's life is left to score by itself, send the decision and be answered."""
    times = environment.read(EndpointVariables)
    left = context.get_remaining_time_in_millis() / 1000 - RESERVE_SECONDS if context else times.endpoint_retry_seconds
    whole = Retries(
        until=time.monotonic() + times.endpoint_retry_seconds,
        attempt=times.endpoint_connect_timeout + times.endpoint_read_timeout,
        pause=times.endpoint_pause_seconds,
    )
    return whole.within(left)


@lru_cache(maxsize=1)
def _runtime() -> Any:
    """A cold serverless endpoint takes tens of seconds: wait for it; `Retries` say whether it is asked again."""
    timeouts = environment.read(EndpointVariables)
    config = Config(
        connect_timeout=timeouts.endpoint_connect_timeout,
        read_timeout=timeouts.endpoint_read_timeout,
        retries={"total_max_attempts": 1},
    )
    return boto3.client("sagemaker-runtime", config=config)
