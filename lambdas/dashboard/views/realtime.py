"""What follows the market, and where its quotes go, as the health page shows it: the runner's last beat and what the stream has brought.

Promise: None where the settings have it off; what is not known is None, never zero. A runner whose beat is older than health allows is
silent, whatever it said last.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from lambdas.common.health.checks import RUNNER_LIMIT, RunnerFacts
from lambdas.dashboard.request import PageRequest
from schema.exchange_time import iso, parse_utc
from schema.lake_layout import stream_quarantine_prefix


class SocketView(BaseModel):
    """`heard`: when its last message came (ISO 8601 UTC), None for none since the runner began."""

    name: Literal["orders", "market data"]
    heard: str | None


class RunnerView(BaseModel):
    """`following` since `since`, `stopped` for `reason`, `silent`: its last `beat` is too old; `never`: there is no beat. Times are of the
    machine that it runs on (ISO 8601 UTC), counts since it began: `lost` of records and events that nobody has, `refused` of messages."""

    state: Literal["following", "stopped", "silent", "never"]
    reason: str = ""
    since: str | None = None
    beat: str | None = None
    sockets: tuple[SocketView, ...] = ()
    minutes: int | None = None
    reconnects: int | None = None
    differing: int | None = None
    refused: int | None = None
    queued: int | None = None
    lost: int | None = None


class StreamView(BaseModel):
    """`newest`: the slot of the day's newest quotes in the lake (ISO 8601 UTC); `set_aside`: objects of today that could not be read."""

    kind: Literal["firehose", "kinesis"]
    newest: str | None
    set_aside: int


def runner_view(facts: RunnerFacts | None) -> RunnerView | None:
    if facts is None:
        return None
    beat = facts.beat
    if beat is None:
        return RunnerView(state="never")
    silent = beat.state == "following" and facts.asked_at - parse_utc(beat.beat_at) > RUNNER_LIMIT
    return RunnerView(
        state="silent" if silent else beat.state,
        reason=beat.reason,
        since=beat.since,
        beat=beat.beat_at,
        sockets=(SocketView(name="orders", heard=beat.heard_orders), SocketView(name="market data", heard=beat.heard_data)),
        minutes=beat.minutes,
        reconnects=beat.reconnects,
        differing=beat.differing,
        refused=beat.refused,
        queued=beat.queued,
        lost=beat.lost,
    )


def stream_view(request: PageRequest, *, newest: datetime | None) -> StreamView | None:
    """`newest` as the loop's step of quotes has it; asks the lake for what was set aside today, by this machine's clock as it arrives."""
    kind = request.settings.stream.kind
    if kind == "none":
        return None
    aside = request.lake.raw_index(stream_quarantine_prefix(parse_utc(request.now).date()))
    return StreamView(kind=kind, newest=None if newest is None else iso(newest), set_aside=len(aside))
