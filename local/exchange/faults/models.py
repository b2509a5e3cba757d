"""What every kind of fault in a plan is made of: rates, seconds, and which orders or requests it covers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Rate = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Symbols = tuple[str, ...]


class PlanModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Fault(PlanModel):
    """`rate`: the share of eligible events that it is injected into."""

    rate: Rate


class OrderFault(Fault):
    """Injected into orders, each at most once; with `symbols`, of these only."""

    symbols: Symbols | None = None

    def covers(self, symbol: str) -> bool:
        return self.symbols is None or symbol in self.symbols


class RepeatedOrderFault(OrderFault):
    """Can be injected into one order repeatedly; with `first`, at most so many times."""

    first: Annotated[int, Field(ge=1)] | None = None


class RequestFault(Fault):
    """Injected into requests; with `requests`, only those that begin so, for example "GET /v2/positions"; `first` of the same at one
    moment."""

    requests: tuple[str, ...] | None = None
    first: Annotated[int, Field(ge=1)] | None = None

    def covers(self, request: str) -> bool:
        return self.requests is None or request.startswith(self.requests)
