"""How fast the web app answers over ten years of closes and 100,000 filled orders, in the local cloud: p50 and p95 per route, wall time.

    .venv/bin/python -m benchmarks.dashboard_speed [--sessions 2520] [--orders 100000] [--calls 60]

The function runs in this process as a warm one does on AWS, the ledger and the lake are the emulator's over loopback. `first` is the first
call of a process, which reads every close. The goal is the portfolio's: p95 below 150 ms.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.harness import ROOT
from local.aws.emulator import Emulator

GOAL = 150.0  # ms, p95
NAMES = ("SPY", "QQQ", "IWM", "AAPL", "AIG", "BAC", "GOOG", "IBM")
FIRST = date(2010, 1, 4)
TABLE, RAW = "speed-ledger", "speed-raw"
ROUTES: dict[str, dict[str, str]] = {
    "api/portfolio": {},
    "api/portfolio/live": {},
    "api/portfolio/performance": {"span": "ALL"},
    "api/portfolio/equity": {"span": "ALL"},
    "pages/portfolio": {"span": "ALL"},
    "api/orders": {},
    "pages/trading": {},
}


def sessions(count: int) -> list[str]:
    days = (FIRST + timedelta(days=one) for one in range(count * 2))
    return [day.isoformat() for day in days if day.weekday() < 5][:count]


def closes(count: int) -> dict[str, list[float]]:
    """A seedless walk: the numbers do not matter, only how many there are."""
    return {name: [100 + 20 * math.sin(place / 90 + number) + place / 100 for place in range(count)] for number, name in enumerate(NAMES)}


def snapshots(days: list[str], prices: dict[str, list[float]]) -> Iterator[dict[str, Any]]:
    from lambdas.common.ledger.records import Held, Snapshot

    for place, day in enumerate(days):
        held = {name: Held(quantity=Decimal(10 + place % 7), close=Decimal(repr(round(prices[name][place], 2)))) for name in NAMES}
        value = sum((one.quantity * one.close for one in held.values()), Decimal(0))
        made = Snapshot(session=day, cash=Decimal(500), equity=value + 500, positions=held, orders=8, fills=8, taken_at=f"{day}T21:05:00Z")
        yield made.item()


def orders(days: list[str], count: int) -> Iterator[dict[str, Any]]:
    """As many per session; those of the last 100 sessions, which is what the pages read of them, with their fills."""
    from lambdas.common.ledger.records import Fill, OrderRecord

    for number in range(count):
        day, name = days[number * len(days) // count], NAMES[number % len(NAMES)]
        common = {"decision_id": f"agent:{day}/open+5", "symbol": name, "side": "buy", "quantity": Decimal(1)}
        moment = f"{day}T14:35:{number % 60:02d}Z"
        identity = f"pt1-{number:08d}"
        yield OrderRecord(
            client_order_id=identity, slot=f"{day}/open+5", price=100.0, status="filled", created_at=moment, updated_at=moment, fills=1,
            filled_quantity=Decimal(1), filled_average_price=Decimal(100), version=1, broker_id=identity, risk="allowed", **common,
        ).item()  # fmt: skip
        if day >= days[-100]:
            yield Fill(client_order_id=identity, sequence=1, price=Decimal(100), cumulative=Decimal(1), time=moment, **common).item()


def fill(*, session_count: int, order_count: int) -> None:
    """The ledger and the lake of a run that has traded so long."""
    import boto3

    from lambdas.common.lake.lake import pack
    from lambdas.common.ledger.ledger import ledger_of
    from lambdas.common.ledger.records import BrokerState
    from schema.lake_layout import bars_key
    from tests.tables import create_ledger_table

    create_ledger_table(TABLE)
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=RAW)
    days, prices = sessions(session_count), closes(session_count)
    table = boto3.resource("dynamodb").Table(TABLE)
    with table.batch_writer() as batch:
        for item in snapshots(days, prices):
            batch.put_item(Item=item)
        for item in orders(days, order_count):
            batch.put_item(Item=item)
    for name in NAMES:
        rows = [
            (day[:4], {"symbol": name, "ts": f"{day}T05:00:00Z", **dict.fromkeys(("open", "high", "low", "close"), price), "volume": 1.0})
            for day, price in zip(days, prices[name], strict=True)
        ]
        for year in sorted({day[:4] for day in days}):
            s3.put_object(Bucket=RAW, Key=bars_key(name, int(year)), Body=pack(row for its, row in rows if its == year))
    now = datetime.fromisoformat(f"{days[-1]}T21:10:00").replace(tzinfo=UTC)
    ledger_of(TABLE).put_broker_state(
        BrokerState(
            now=now.isoformat().replace("+00:00", "Z"), is_open=False, next_open=f"{days[-1]}T14:30:00Z",
            next_close=f"{days[-1]}T21:00:00Z", account_id="a", equity=Decimal(10_000),
        )
    )  # fmt: skip


def event(path: str, query: dict[str, str]) -> dict[str, Any]:
    return {
        "resource": "/app/{proxy+}", "path": f"/app/{path}", "httpMethod": "GET", "headers": {}, "multiValueHeaders": {}, "body": None,
        "queryStringParameters": query or None, "isBase64Encoded": False,
        "multiValueQueryStringParameters": {name: [value] for name, value in query.items()} or None,
        "requestContext": {
            "stage": "v1", "path": f"/v1/app/{path}", "requestTimeEpoch": int(time.time() * 1000),
            "authorizer": {"claims": {"username": "speed", "scope": "papertape/read papertape/trade"}},
        },
    }  # fmt: skip


def measured(calls: int) -> list[dict[str, Any]]:
    """A row per route: milliseconds."""
    from lambdas.dashboard.handler import handler

    rows = []
    for path, query in ROUTES.items():
        spent = []
        for _ in range(calls + 1):
            began = time.perf_counter()
            answer = handler(event(path, query), SimpleNamespace(aws_request_id="speed"))
            spent.append((time.perf_counter() - began) * 1e3)
            if answer["statusCode"] != 200:
                raise SystemExit(f"dashboard_speed: {path} answered {answer['statusCode']}: {answer['body'][:300]}")
        warm = sorted(spent[1:])
        p95 = warm[min(len(warm) - 1, math.ceil(0.95 * len(warm)) - 1)]
        rows.append({"route": path, "first": spent[0], "p50": statistics.median(warm), "p95": p95, "bytes": len(answer["body"])})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=2520)
    parser.add_argument("--orders", type=int, default=100_000)
    parser.add_argument("--calls", type=int, default=60)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Emulator.start(Path(folder)) as cloud:
        names = {"LEDGER_TABLE": TABLE, "RAW_BUCKET": RAW, "PROCESSED_BUCKET": "p", "AUDIT_BUCKET": "a", "PACKAGE_GROUP": "g"}
        settings = {"PAPERTAPE_SETTINGS_FILE": str(ROOT / "data" / "settings.toml"), "LOG_LEVEL": "ERROR"}
        os.environ.update({**cloud.env(), **names, **settings})
        began = time.perf_counter()
        fill(session_count=asked.sessions, order_count=asked.orders)
        took = f"{time.perf_counter() - began:.0f} s"
        sys.stdout.write(f"{asked.sessions} closes, {asked.orders} filled orders in {took}; load {os.getloadavg()[0]:.1f}\n")
        rows = measured(asked.calls)
        for row in rows:
            spent = f"first {row['first']:7.0f} ms   p50 {row['p50']:6.1f}   p95 {row['p95']:6.1f}"
            sys.stdout.write(f"{row['route']:28} {spent}   {row['bytes']:>8} bytes\n")
        out = ROOT / "out" / "dashboard_speed.json"
        out.parent.mkdir(exist_ok=True)
        out.write_text(json.dumps({"goal_p95_ms": GOAL, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
