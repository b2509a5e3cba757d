"""Who sends a request and when, as the gateway says: one clock and one name for every change that a person makes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from schema.exchange_time import iso


def requested_at(context: Mapping[str, Any]) -> str:
    """The time of the request whose context this is, ISO 8601 UTC."""
    return iso(datetime.fromtimestamp(int(context["requestTimeEpoch"]) / 1000, tz=UTC))


def caller(context: Mapping[str, Any]) -> str:
    """The ARN that signed it."""
    identity = context.get("identity") or {}
    return str(identity.get("userArn") or identity.get("caller") or "unknown")
