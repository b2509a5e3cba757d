"""What the soak judges by: each kind of breach is named on books that are wrong, a run with one does not hold, and no failure of a function
is excused but that of a broker which does not answer.
"""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import ClientError

from lambdas.common.api.client import ExecutionApi, ExecutionApiError
from lambdas.common.broker.alpaca import AlpacaBroker, Credentials
from lambdas.common.broker.port import BrokerError
from lambdas.common.ledger.records import Held, OrderRecord, Snapshot
from lambdas.execute_orders.handler import not_now
from local.replay.driver import Day
from local.replay.faulty_driver import UNREACHED, breaches, planned
from local.replay.schedule import check
from local.replay.soak import SoakResult, run_specs, summarized
from schema.settings import load

SETTINGS = load(Path(__file__).parents[4] / "data" / "settings.toml")
DATE = "2020-01-02"
ORDER = OrderRecord(
    client_order_id="pt1-a",
    decision_id=f"agent:{DATE}/open+5",
    slot=f"{DATE}/open+5",
    symbol="SPY",
    side="buy",
    quantity=Decimal(500),
    price=100.0,
    created_at=f"{DATE}T14:35:00Z",
    broker_id="b-1",
)


def books(**changed: Any) -> dict[str, Any]:
    """Of a session in which half of the cash bought 500 shares."""
    order = {"client_order_id": "pt1-a", "symbol": "SPY", "submitted_at": f"{DATE}T14:35:00Z", "status": "filled"}
    fill = {"client_order_id": "pt1-a", "quantity": "500", "price": "100.1", "fee": "0", "at": f"{DATE}T14:35:00Z"}
    return {"cash": "49950", "positions": {"SPY": "500"}, "orders": [order], "fills": [fill], **changed}


def found(told: dict[str, Any], *orders: OrderRecord, held: str = "500") -> list[str]:
    cash = Decimal(told["cash"])
    positions = {"SPY": Held(quantity=Decimal(held), close=Decimal(100))}
    snapshot = Snapshot(session=DATE, cash=cash, equity=cash + Decimal(held) * 100, positions=positions, taken_at=f"{DATE}T21:02:00Z")
    day = Day(session=DATE, snapshot=snapshot, fills=1, differences=())
    return list(breaches(told, day=day, orders=orders or (ORDER,), sizing_equity=100_000.0, settings=SETTINGS))


def test_sound_books_break_nothing() -> None:
    assert found(books()) == []


@pytest.mark.parametrize(
    ("told", "order", "held", "said"),
    [
        (books(cash="-0.01"), ORDER, "500", "cash is -0.01"),
        (books(cash="-50", positions={"SPY": "1001"}), ORDER, "1001", "gross is"),
        (books(positions={"SPY": "-1"}), ORDER, "500", "SPY is held short"),
        (books(positions={"SPY": "601"}), ORDER, "601", "bought to 0.601000 of equity, at most 0.6"),
        (books(orders=books()["orders"] * 61), ORDER, "500", "61 orders, at most 60"),
        (books(fills=books()["fills"] * 5), ORDER, "500", "turnover is 2.5000, at most 2.0"),
        (books(), ORDER.model_copy(update={"client_order_id": "pt1-b"}), "500", "pt1-a was filled and is not in the ledger"),
        (books(), ORDER.model_copy(update={"quantity": Decimal(1001)}), "500", "ordered for 100100.00, at most 100000.0"),
    ],
)
def test_every_breach_is_named(told: dict[str, Any], order: OrderRecord, held: str, said: str) -> None:
    assert any(said in one for one in found(told, order, held=held)), found(told, order, held=held)


RUN = SoakResult(
    profile="brutal",
    seed=7,
    sessions=60,
    faults_injected={"get_5xx": 3, "view_skew": 2},
    intents=480,
    accepted=470,
    duplicates=0,
    limit_breaches=(),
    differences=(),
    unknown_over_grace=0,
    longest_doubt=60.0,
    repeated=4,
    given_up=1,
    final_equity=100_010.0,
    backtest_equity=100_000.0,
    parts={"price": 10.0},
    unexplained=1e-9,
    seconds=30.0,
)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sessions": 0},
        {"intents": 59},
        {"duplicates": 1},
        {"limit_breaches": ("a",)},
        {"differences": ("a",)},
        {"unknown_over_grace": 1},
        {"unexplained": 0.01},
        {"parts": {"price": 9.98}},
        {"unexplained": float("nan")},
    ],
)
def test_a_run_holds_only_without_any_of_these(wrong: dict[str, Any]) -> None:
    assert RUN.holds
    assert not replace(RUN, **wrong).holds


def test_the_summary_is_of_all_runs() -> None:
    summary = summarized([RUN, replace(RUN, seed=8, differences=("a",), faults_injected={"get_5xx": 1})], seconds=61.04)
    runs = summary.pop("runs")
    assert summary == {
        "sessions": 120,
        "faults_injected": 6,
        "faults": {"get_5xx": 4, "view_skew": 2},
        "intents": 960,
        "accepted": 940,
        "duplicates": 0,
        "limit_breaches": 0,
        "ledger_matches_broker": False,
        "unknown_over_grace": 0,
        "seconds": 61.0,
    }
    assert [(one["seed"], one["ledger_matches_broker"]) for one in runs] == [(7, True), (8, False)]


def test_what_is_asked_for() -> None:
    assert run_specs((7, 8), realistic=253, brutal=60) == [
        ("realistic", 7, 253),
        ("brutal", 7, 60),
        ("realistic", 8, 253),
        ("brutal", 8, 60),
    ]
    assert run_specs((7,), realistic=0, brutal=6) == [("brutal", 7, 6)]


def test_every_schedule_is_planned() -> None:
    entries = planned(SETTINGS)
    check(entries, [entry.schedule for entry in entries])
    assert {entry.schedule for entry in entries if entry.moments} == {"decide", "reconcile", "backfill_bars"}


def answered(status: int, text: str = "") -> requests.Response:
    response = requests.Response()
    response.status_code, response._content = status, text.encode()
    return response


def of_the_wire(monkeypatch: pytest.MonkeyPatch, outcome: requests.Response | Exception) -> None:
    def request(*_: object, **__: object) -> requests.Response:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(requests.Session, "request", request)


def says_the_broker(monkeypatch: pytest.MonkeyPatch, outcome: requests.Response | Exception, *, of: str = "clock") -> BrokerError:
    """What the real transport raises when every request ends so."""
    of_the_wire(monkeypatch, outcome)
    keys = Credentials(key_id="k", secret_key="s")
    broker = AlpacaBroker(credentials=keys, trading_url="http://127.0.0.1:1", data_url="http://127.0.0.1:1", sleep=lambda _: None)
    with pytest.raises(BrokerError) as raised:
        broker.cancel("o-1") if of == "cancel" else broker.clock()
    return raised.value


def says_the_api(monkeypatch: pytest.MonkeyPatch, outcome: requests.Response | Exception) -> str:
    """What `decide` raises when the execution API answers so."""
    of_the_wire(monkeypatch, outcome)
    session = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b")
    api = ExecutionApi(url="https://a.execute-api.us-east-1.amazonaws.com/v1", region="us-east-1", session=session)
    with pytest.raises(ExecutionApiError) as raised:
        api.post_decision({})
    return str(raised.value)


def unavailable(error: Exception) -> requests.Response:
    """The execution function's own answer when it failed of `error`."""
    response = not_now(error)
    return answered(response.status_code, response.body or "")


SILENT: list[requests.Response | Exception] = [
    answered(429, '{"message": "rate limit exceeded"}'),
    answered(500, "internal"),
    answered(502, "<html>\n<body>502 Bad Gateway</body>\n</html>"),
    answered(503, 'it\'s "down"'),
    requests.ConnectionError("reset"),
    requests.ConnectTimeout("late"),
    requests.ReadTimeout("late"),
]
SPOKEN: list[requests.Response | Exception] = [
    answered(400, "no"),
    answered(401, "no"),
    answered(403, "no"),
    answered(404, "no"),
    answered(422, '{"message": "was 503"}'),
    answered(200, "half a bo"),
    answered(200, "{}"),
    requests.exceptions.InvalidURL("no host"),
]


@pytest.mark.parametrize("outcome", SILENT, ids=str)
def test_a_broker_that_does_not_answer_is_excused(monkeypatch: pytest.MonkeyPatch, outcome: requests.Response | Exception) -> None:
    silence = says_the_broker(monkeypatch, outcome)
    assert UNREACHED.match(str(silence)), silence
    told = says_the_api(monkeypatch, unavailable(silence))
    assert UNREACHED.match(told), told


@pytest.mark.parametrize("outcome", SPOKEN, ids=str)
def test_an_answer_excuses_nothing(monkeypatch: pytest.MonkeyPatch, outcome: requests.Response | Exception) -> None:
    refusal = says_the_broker(monkeypatch, outcome)
    assert not UNREACHED.match(str(refusal)), refusal
    told = says_the_api(monkeypatch, unavailable(refusal))
    assert not UNREACHED.match(told), told


@pytest.mark.parametrize("outcome", SILENT, ids=str)
def test_nor_does_a_lost_order_or_cancellation(monkeypatch: pytest.MonkeyPatch, outcome: requests.Response | Exception) -> None:
    lost = says_the_broker(monkeypatch, outcome, of="cancel")
    assert str(lost).startswith("DELETE http://127.0.0.1:1/v2/orders/o-1: ")
    assert not UNREACHED.match(str(lost))


def test_nor_do_the_execution_api_and_its_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = ClientError({"Error": {"Code": "ValidationException", "Message": "GET http://x failed (503: "}}, "PutItem")
    for outcome in (unavailable(ledger), answered(502, json.dumps({"message": "Internal server error"})), requests.ReadTimeout("late")):
        told = says_the_api(monkeypatch, outcome)
        assert told.startswith("POST /decisions: no answer (")
        assert not UNREACHED.match(told), told
    assert not UNREACHED.match("POST /decisions for agent:2020-01-02 must answer 200, 202 or 423, was 422: GET http://x failed (503: )")
