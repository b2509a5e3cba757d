"""Five hundred names from ingest to orders: what is stored and sent fits its limits, and 400 generated names trade within them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest

from lambdas.backfill_bars.handler import handler as backfill
from lambdas.common.broker.port import BrokerUnavailable
from lambdas.common.lake import lake as lakes
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Decision, Held, PlannedOrder, ServedModel, Snapshot
from lambdas.decide import handler as deciding
from lambdas.decide.endpoint import EndpointError, ask
from lambdas.ingest_quotes.handler import handler as ingest_quotes
from lambdas.reconcile.handler import handler as reconcile
from local.exchange.server import ExchangeConfig, RunningExchange
from papertape.operate.jobs import BARS_PER_CALL, _spans
from schema.settings import SETTINGS_FILE, Settings
from schema.universes import MOST
from tests.aws.conftest import FIRST_SLOT, through_gateway
from tests.aws.lambdas.test_decide import DECISION, SLOT, Cloud
from tests.many_names import MANY, NAMES, generated
from tests.settings_files import settings_file
from trading_env.data.features import CONTEXT, FEATURES
from trading_env.data.observation import Layout

ITEM, PAYLOAD = 400 * 1024, 4 * 1024 * 1024  # bytes: DynamoDB's item, a serverless endpoint's request
A_LINE = "the broker refused it: " + 80 * "x"


def size(value: Any) -> int:
    """Bytes of an attribute at DynamoDB, rather too many."""
    match value:
        case str():
            return len(value.encode())
        case bool() | None:
            return 1
        case Decimal() | int():
            return 21
        case dict():
            return 3 + sum(1 + len(name.encode()) + size(one) for name, one in value.items())
        case list() | tuple() | set():
            return 3 + sum(1 + size(one) for one in value)
    raise TypeError(type(value))


def test_the_largest_records_of_the_ledger_fit_an_item() -> None:
    """Every name with weight and score, an order, a second attempt, and a reason why that was refused, too."""
    odd = 1 / 3
    plan = [
        PlannedOrder(symbol=name, side="buy", quantity=Decimal("12345.123456789"), price=odd, client_order_id=48 * "x", attempt=attempt)
        for name in NAMES
        for attempt in (0, 1)
    ]
    decision = Decision(
        decision_id=DECISION,
        strategy="agent",
        slot="2020-01-02/open+5",
        body_sha256=64 * "0",
        received_at=FIRST_SLOT,
        weights=dict.fromkeys(NAMES, odd),
        scores=dict.fromkeys(NAMES, odd),
        plan=tuple(plan),
        refused=dict.fromkeys(NAMES, A_LINE),
    )
    held = dict.fromkeys(NAMES, Held(quantity=Decimal("12345.123456789"), close=Decimal("123.4567")))
    snapshot = Snapshot(session="2020-01-02", cash=Decimal(1), equity=Decimal(2), positions=held, taken_at=FIRST_SLOT)
    assert size(decision.item()) < ITEM
    assert size(snapshot.item()) < ITEM


def test_the_largest_observation_fits_an_endpoints_request() -> None:
    width = Layout(assets=MOST, features=len(FEATURES), context=len(CONTEXT)).width
    sent: list[bytes] = []

    def invoke_endpoint(**request: Any) -> Any:
        sent.append(request["Body"])
        return {"Body": SimpleNamespace(read=lambda: b"{}")}

    model = ServedModel(
        role="incumbent", policy="endpoint", spec="m", model_version="m", kappa=0.1, feature_hash=64 * "0", endpoint="e", since=FIRST_SLOT
    )
    with pytest.raises(EndpointError):
        ask(
            runtime=SimpleNamespace(invoke_endpoint=invoke_endpoint),
            model=model,
            as_of=date(2020, 1, 2),
            symbols=NAMES,
            observation=np.full(width, -1.2345678e-5, dtype=np.float32),
        )
    assert len(sent[0]) < PAYLOAD / 2


def test_a_history_is_asked_for_in_parts_that_the_function_can_hold() -> None:
    start, last = date(2016, 1, 1), date(2026, 11, 20)
    assert _spans(start, last, names=30) == [(start, last)]
    spans = _spans(start, last, names=MOST)
    assert (spans[0][0], spans[-1][1]) == (start, last)
    assert all(following[0] == span[1] + timedelta(days=1) for span, following in pairwise(spans))
    assert all((end - begin).days / 365.25 * 252 * MOST <= BARS_PER_CALL * 1.01 for begin, end in spans)


# --- a morning of 400 generated names


MINUTE_BEFORE = "2020-01-02T14:34:00Z"
START, SESSIONS = "2018-10-15", 305  # to 2019-12-31


@pytest.fixture
def large(settings: Settings) -> Settings:
    universe = settings.universe.model_copy(update={"symbols": MANY, "benchmark": MANY[0]})
    return settings.model_copy(update={"universe": universe, "risk": settings.risk.model_copy(update={"max_orders_per_day": len(MANY)})})


@pytest.fixture
def exchange(
    tmp_path: Path, ledger_table: Ledger, buckets: SimpleNamespace, large: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningExchange]:
    """One that has the generated bars and answers 200 requests a minute."""
    generated(start=START, end="2020-01-03").to_parquet(tmp_path / "bars.parquet", index=False)
    (tmp_path / "faults.toml").write_text("[faults.budget]\nper_minute = 200\n", encoding="utf-8")
    config = ExchangeConfig(
        now=MINUTE_BEFORE, cash="1000000", slippage_bps="10", data=tmp_path / "bars.parquet", faults=tmp_path / "faults.toml"
    )
    with RunningExchange(config) as running:
        keys = {"key_id": config.key_id, "secret_key": config.secret_key}
        secret = boto3.client("secretsmanager").create_secret(Name=f"{large.name}/alpaca", SecretString=json.dumps(keys))
        variables = {"BROKER_SECRET_ARN": secret["ARN"], "ALPACA_TRADING_URL": running.url, "ALPACA_DATA_URL": running.url}
        for name, value in {**variables, SETTINGS_FILE: settings_file(large), "CODE_VERSION": "test"}.items():
            monkeypatch.setenv(name, value)
        lakes.lake.cache_clear()
        yield running
        lakes.lake.cache_clear()


@pytest.mark.rehearse
def test_a_morning_of_400_names_goes_from_the_vendors_bars_to_filled_orders_within_the_window(
    exchange: RunningExchange, ledger_table: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lambdas.execute_orders.handler import handler as execute

    cloud = Cloud(through_gateway(execute))
    monkeypatch.setenv("EXECUTION_API_URL", "https://abcdefgh.execute-api.us-east-1.amazonaws.com/v1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_EXECUTE_API", cloud.url)
    stored = backfill({"start": START}, None)
    assert stored["bars"] == len(MANY) * SESSIONS
    assert stored["silent"] == []
    assert ingest_quotes({"schedule": "ingest_quotes", "time": MINUTE_BEFORE}, None)["quotes"] == len(MANY)
    exchange.advance(FIRST_SLOT)
    try:
        assert deciding.handler(SLOT, None)["outcome"] == "decided"
    finally:
        cloud.server.shutdown()
        cloud.server.server_close()
    # As fast as this machine is: only the broker's budget, on its own clock, makes a run pause
    monkeypatch.setenv("BATCH_BUDGET_SECONDS", "840")
    monkeypatch.setenv("LEASE_SECONDS", "900")
    minutes, runs = 5, 0
    while (made := ledger_table.decision(DECISION)) is not None and made.state == "working":
        assert minutes <= 30, f"{len(ledger_table.fills('2020-01'))} of {len(MANY)} orders were filled when the window ended"
        exchange.advance(pd.Timestamp(FIRST_SLOT).to_pydatetime() + timedelta(minutes=minutes))
        # A run that has used up the minute's requests fails in what it reads last; the next one goes on
        with suppress(BrokerUnavailable):
            reconcile({"schedule": "reconcile", "time": FIRST_SLOT}, SimpleNamespace(aws_request_id=f"reconcile-{runs}"))
        minutes, runs = minutes + 5, runs + 1
    assert made is not None
    assert made.refused == {}
    books = exchange.books()
    assert len(books["orders"]) == len(MANY), "each name is ordered once"
    assert {order["status"] for order in books["orders"]} == {"filled"}
    assert len(books["positions"]) == len(MANY)
    assert runs >= 2, "the broker's budget of 200 requests was felt"
    exchange.check()
