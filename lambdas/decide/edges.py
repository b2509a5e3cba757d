"""What a decision stands on outside of itself, and the one outcome that every part of it may end in: no trade."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lambdas.common.api.client import ExecutionApi
from lambdas.common.broker.port import Broker, MarketData
from lambdas.common.lake.lake import Lake
from lambdas.common.ledger.ledger import Ledger
from trading_env.errors import PapertapeError


class NoTrade(PapertapeError):  # noqa: N818 -- an outcome, not an error
    """This slot must pass without an order; `rule` is the health rule that tells why."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule


@dataclass(frozen=True, kw_only=True)
class Edges:
    """Everything outside; `runtime` is SageMaker's runtime client.

    `monotonic` and `sleep` are of one clock, in seconds, for what is tried again; market time never comes from them.
    """

    broker: Broker
    market_data: MarketData
    lake: Lake
    ledger: Ledger
    runtime: Any
    execution: ExecutionApi
    code_version: str
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
