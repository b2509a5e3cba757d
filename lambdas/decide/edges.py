"""What a decision stands on outside of itself, and the one outcome that every part of it may end in: no trade."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lambdas.common.api.client import ExecutionApi
from lambdas.common.broker.port import Broker, MarketData
from lambdas.common.lake.lake import Lake
from lambdas.common.ledger.ledger import Ledger
from lambdas.decide.endpoint import Retries
from trading_env.errors import PapertapeError


class NoTrade(PapertapeError):  # noqa: N818 -- an outcome, not an error
    """This slot must pass without an order; `rule` is the health rule that tells why."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A vendor publishes a minute's bar within `seconds` after its end; `sleep` waits for the broker's clock to be there."""

    seconds: float = 5.0
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, kw_only=True)
class Edges:
    """Everything outside; `runtime` is SageMaker's runtime client, `retries` say how long an endpoint is asked again, `publication` from
    when on the running session's minutes are read."""

    broker: Broker
    market_data: MarketData
    lake: Lake
    ledger: Ledger
    runtime: Any
    execution: ExecutionApi
    code_version: str
    retries: Retries = field(default_factory=Retries)
    publication: Publication = field(default_factory=Publication)
