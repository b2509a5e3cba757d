"""What open pages ask again and again, answered once for all of them: kept for a few seconds in the warm process.

Promise: an answer is given again only to the same user with the same scopes, for the same path and query, to a poll of `POLLED`, for at
most its seconds by the gateway's clock; whoever opens a page is always answered anew. A write forgets all of them, whatever came of it. On
AWS each sandbox has its own: after a write that another one answered, a poll may be as old as its seconds, and the page says as of when.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from lambdas.dashboard.principal import Principal

#: Path of a fragment that pages ask for by themselves -> seconds; well below the interval at which they ask.
POLLED = {"/app/pages/portfolio/live": 5.0, "/app/pages/health/live": 15.0}
MOST = 64  # answers


class SharedAnswers:
    """Those of this process, by who asked for what; only whole answers (200) are kept."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}

    def of(self, event: Mapping[str, Any], principal: Principal) -> dict[str, Any] | None:
        """What this poll would be answered anyway; None: nobody has asked for it just now."""
        if event["httpMethod"] != "GET" or event["path"] not in POLLED:
            return None
        at, answer = self._kept.get(_asked(event, principal), (-math.inf, {}))
        return dict(answer) if 0 <= _seconds(event) - at < POLLED[event["path"]] else None

    def keep(self, event: Mapping[str, Any], principal: Principal, answer: Mapping[str, Any]) -> None:
        """Remember an answer to a poll; after any write, forget all."""
        if event["httpMethod"] != "GET" or len(self._kept) >= MOST:
            self.forget()
        if event["httpMethod"] == "GET" and event["path"] in POLLED and int(answer["statusCode"]) == 200:
            self._kept[_asked(event, principal)] = (_seconds(event), dict(answer))

    def forget(self) -> None:
        self._kept.clear()


def _asked(event: Mapping[str, Any], principal: Principal) -> str:
    query = event.get("multiValueQueryStringParameters") or {}
    return json.dumps([principal.user, sorted(principal.scopes), event["path"], query], sort_keys=True)


def _seconds(event: Mapping[str, Any]) -> float:
    return int(event["requestContext"]["requestTimeEpoch"]) / 1000
