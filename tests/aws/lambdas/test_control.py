"""The control function: the state and the ledger's reads, without a broker."""

from __future__ import annotations

import subprocess
import sys
from typing import Any
from urllib.parse import quote

import pytest

from lambdas.common.ledger.ledger import Ledger
from schema.path_segment import segment_of

DECISION = "agent:2020-01-02/open+5"


def test_the_state_is_active_until_someone_sets_it(control: Any, ledger_table: Ledger) -> None:
    assert control("GET", "/trading-state").body["state"] == "active"
    answer = control("PUT", "/trading-state", {"state": "halted", "reason": "odd fills"})
    assert (answer.status, answer.body["state"]) == (200, "halted")
    assert answer.body["by"] == "arn:aws:iam::000000000000:user/person"
    assert control("GET", "/trading-state").body["reason"] == "odd fills"
    assert [change.was for change in ledger_table.state_changes("2020-01")] == ["active"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"state": "paused", "reason": "x"}, "state"),
        ({"state": "halted"}, "reason"),
        ({"state": "halted", "reason": ""}, "reason"),
        ({"state": "halted", "reason": "x", "until": "noon"}, "until"),
        ("not JSON", "body"),
    ],
)
def test_a_wrong_state_is_a_422_that_names_the_field(control: Any, ledger_table: Ledger, body: Any, field: str) -> None:
    answer = control("PUT", "/trading-state", body)
    assert answer.status == 422
    assert [error["field"] for error in answer.body["errors"]] == [field]
    assert ledger_table.trading_state().since is None


def test_a_halt_lands_while_a_batch_holds_the_lease(control: Any, ledger_table: Ledger) -> None:
    ledger_table.acquire_lease("a batch", now=0.0, seconds=1e9)
    assert control("PUT", "/trading-state", {"state": "halted", "reason": "now"}).status == 200


@pytest.mark.parametrize("path", [f"/decisions/{one}" for one in (segment_of(DECISION), quote(DECISION, safe=""), DECISION)])
def test_a_decision_is_shown_with_its_orders_however_the_gateway_passes_its_id(
    execution: Any, control: Any, exchange: Any, decide: Any, path: str
) -> None:
    made = execution("POST", "/decisions", decide(weights={"SPY": 0.5}))
    shown = control("GET", path).body
    assert [link["link"] for link in shown.pop("trace")] == ["decision", "audit record", "code"]
    assert (shown.pop("explained")["kind"], shown.pop("watched")) == ("missing", [])
    assert shown == made.body
    assert control("GET", "/decisions/agent%3Aother").status == 404


def test_an_id_with_a_slash_is_no_order_and_the_answer_says_where_to_look(control: Any) -> None:
    for path in ("/orders/agent:2020-01-02/open+5", f"/orders/{quote(DECISION, safe='')}"):
        answer = control("GET", path)
        assert (answer.status, answer.body["message"]) == (
            404, f"no order {DECISION}: an order's id has no slash; GET /decisions/{{id}} shows a decision"
        )  # fmt: skip


def test_the_status_says_what_comes_next_as_the_broker_was_seen_last(control: Any, reconcile: Any, exchange: Any) -> None:
    assert control("GET", "/status").body["next_decision"] is None
    for now, market, following in (
        ("2020-01-02T14:31:00Z", True, "2020-01-02T14:35:00Z"),
        ("2020-01-02T15:00:00Z", True, "2020-01-03T14:35:00Z"),
        ("2020-01-03T21:30:00Z", False, "2020-01-06T14:35:00Z"),
        ("2020-01-06T14:00:00Z", False, "2020-01-06T14:35:00Z"),
    ):
        if now > "2020-01-02T14:35:00Z":
            exchange.advance(now)
        else:
            exchange.reset(now=now, cash="100000")
        reconcile()
        told = control("GET", "/status").body
        assert told["broker"]["is_open"] == market
        assert told["next_decision"] == {"slot": f"{following[:10]}/open+5", "time": following}
    assert told["day"] == {"since": "2020-01-03", "dollars": "0", "share": "0.000000"}
    assert told["account"] == told["broker"]["account_id"]


def test_portfolio_and_orders(execution: Any, control: Any, reconcile: Any, exchange: Any, decide: Any) -> None:
    assert control("GET", "/portfolio").body == {"snapshot": None, "unsettled": [], "trading_state": "active"}
    execution("POST", "/decisions", decide())
    exchange.advance("2020-01-02T21:05:00Z")
    reconcile()
    portfolio = control("GET", "/portfolio").body
    assert portfolio["snapshot"]["session"] == "2020-01-02"
    assert len(portfolio["snapshot"]["positions"]) == 8
    first = control("GET", "/orders", query={"month": "2020-01", "limit": "5"}).body
    rest = control("GET", "/orders", query={"month": "2020-01", "limit": "5", "cursor": first["cursor"]}).body
    assert (len(first["orders"]), len(rest["orders"]), rest["cursor"]) == (5, 3, None)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (None, "month"),
        ({"month": "2020-13"}, "month"),
        ({"month": "2020-01", "cursor": "x"}, "cursor"),
        ({"month": "2020-01", "limit": "0"}, "limit"),
    ],
)
def test_a_wrong_query_is_a_422_that_names_the_field(control: Any, query: Any, field: str) -> None:
    answer = control("GET", "/orders", query=query)
    assert answer.status == 422
    assert [error["field"] for error in answer.body["errors"]] == [field]


def test_the_edge_bundle_needs_no_broker_and_no_numpy() -> None:
    script = "import sys, lambdas.control.handler; print([m for m in ('numpy', 'pandas', 'alpaca') if m in sys.modules])"
    environment = {"AWS_DEFAULT_REGION": "us-east-1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
