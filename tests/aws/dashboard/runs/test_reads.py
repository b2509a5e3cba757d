"""Looking changes nothing: no GET of the web app makes a call that writes, whatever is there to be seen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import botocore.client
import pytest

from lambdas.common.ledger.ledger import Ledger
from schema.path_segment import segment_of
from tests.aws.dashboard.conftest import Web
from tests.aws.dashboard.judged import registered, watching
from tests.aws.dashboard.runs.conftest import Lab, started, state
from tests.aws.gateway import Gateway

READS = ("Get", "List", "Head", "Query", "Scan", "Describe", "BatchGet", "Search")
ORDER = {"symbol": "SPY", "side": "buy", "quantity": "2"}


def test_no_get_writes(
    web: Web,
    execution_api: Gateway,
    lab: Lab,
    ledger_table: Ledger,
    buckets: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arn = registered(buckets)
    watching(ledger_table, arn)
    run = started(web)
    lab.say(run, state(0, "running"))
    assert web.post("api/orders", ORDER, key="click-0001").status == 200
    (order,) = web.get("api/orders").body["orders"]
    names = {
        "decisions": segment_of(ledger_table.decisions("2020-01")[0].decision_id),
        "orders": order["segment"],
        "models": segment_of(arn),
        "runs": run,
    }
    paths = [
        f"{path.removeprefix('/app/')}".replace("{segment}", names.get(path.split("/")[3], "")).replace("{order_id}", names["orders"])
        .replace("{run_id}", run).replace("{symbol}", "SPY").replace("{name}", "backtest.json")
        for path, routes in web.get("api/openapi.json").body["paths"].items() if "get" in routes
    ]  # fmt: skip
    paths += [f"pages/{one}" for one in ("decisions", "portfolio", "portfolio/live", "trading", "trading/orders", "news", "health")]
    paths += [f"pages/{one}" for one in ("health/live", "models", "training", "training/new", "training/upload", "simulation")]
    paths += [f"pages/decisions/{names['decisions']}", f"pages/trading/orders/{order['segment']}", f"pages/models/{segment_of(arn)}"]
    paths += [f"pages/{room}/{run}{part}" for room in ("training", "simulation") for part in ("", "/live")]
    called: list[str] = []
    real = botocore.client.BaseClient._make_api_call

    def noted(client: Any, operation: str, parameters: Any) -> Any:
        called.append(operation)
        return real(client, operation, parameters)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", noted)
    for path in paths:
        for method in ("GET", "HEAD"):
            answer = web.call(method, path)
            assert answer.status < 500, (method, path, answer.text)
    assert {"Query", "GetItem", "ListObjectsV2", "DescribeModelPackage"} <= set(called)
    assert sorted({one for one in called if not one.startswith(READS)}) == []
