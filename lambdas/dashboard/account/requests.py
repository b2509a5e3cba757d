"""The bodies that the trading page sends, as the execution API will judge them; a wrong one is a 422 that names the field."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schema.api_requests import Quantity, State

REASON = 300
Why = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), Field(description="kept with the change, and shown")
]
Name = Annotated[str, Field(pattern=re.compile(r"^[A-Z][A-Z0-9.]{0,9}$"))]


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OrderBody(_Asked):
    symbol: Name
    side: Literal["buy", "sell"]
    quantity: Quantity


class StateBody(_Asked):
    """`version`: of the state that the person has seen."""

    state: State
    reason: Why
    version: Annotated[int, Field(ge=0)]


class FlattenBody(_Asked):
    reason: Why


class WatchBody(_Asked):
    symbol: Name


def signed(reason: str, user: str) -> str:
    """The reason with the person's name: the gateway only knows the web app's own."""
    return f"{reason} ({user}, web app)"[:REASON]
