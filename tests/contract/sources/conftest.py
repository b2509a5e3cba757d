"""One vendor's server per test, for the suites of both ports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.price_vendors import VENDORS, VendorServer, serving, yfinance_at


@dataclass
class Vendor:
    """A vendor's server and its adapter; `waited` is what the adapter would have slept."""

    server: VendorServer = field(repr=False)
    source: Any
    waited: list[float] = field(default_factory=list, repr=False)

    @property
    def name(self) -> str:
        return str(self.server.vendor.name)

    def hurried(self) -> Any:
        """The adapter with a tenth of a second for each answer."""
        return self.server.vendor.source(self.server.url, timeouts=(1.0, 0.1), sleep=self.waited.append)


@pytest.fixture(params=VENDORS, ids=lambda vendor: vendor.__name__.removesuffix("Vendor"))
def vendor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendor]:
    with serving(request.param()) as server:
        monkeypatch.setitem(sys.modules, "yfinance", yfinance_at(lambda: server.url))
        waited: list[float] = []
        source = server.vendor.source(server.url, sleep=waited.append)
        yield Vendor(server=server, source=source, waited=waited)
