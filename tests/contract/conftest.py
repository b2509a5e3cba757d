"""One exchange process for the contract tests; each test begins with a new account on the last evening of 2019."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from local.exchange.server import RunningExchange

EVE = "2019-12-31T22:00:00Z"
FIRST_SLOT = "2020-01-02T14:35:00Z"
KEYS = {"APCA-API-KEY-ID": "local-key", "APCA-API-SECRET-KEY": "local-secret"}


@pytest.fixture
def exchange(exchange_process: RunningExchange) -> RunningExchange:
    exchange_process.reset(now=EVE, cash="100000")
    return exchange_process


@pytest.fixture
def http() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.headers.update(KEYS)
        yield session
