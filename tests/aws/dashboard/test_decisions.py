"""Decisions as a person sees them: one sentence first, weights beside what was held, reasons, verdicts, orders, the chain."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from lambdas.common.lake.lake import Lake
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Decision, Held, ServedModel, ShadowDecision, Snapshot
from lambdas.common.ledger.roles import FIRST_INCUMBENT
from lambdas.dashboard.views.decision import decision_view
from lambdas.dashboard.views.gate import VerdictView
from schema.lake_layout import decision_key
from schema.path_segment import segment_of
from schema.settings import Settings
from tests.aws.dashboard.conftest import Web
from tests.aws.dashboard.judged import VERSION, registered, watching
from tests.aws.dashboard.test_writes import request_of
from tests.aws.gateway import Gateway

SLOT = "2020-01-02/open+5"
DECISION = f"agent:{SLOT}"
PAGE = f"pages/decisions/{segment_of(DECISION)}"
NAMES = ("SPY", "QQQ", "IWM", "AAPL", "AIG", "BAC", "GOOG", "IBM")
CAUSE = {"input": "momentum_21<b>", "gradient": 0.2, "value": -1.5, "contribution": -0.3}


def recorded(buckets: SimpleNamespace, body: dict[str, Any], *, model: ServedModel = FIRST_INCUMBENT, **more: Any) -> None:
    """The audit record that `decide` writes before it sends."""
    document = {"schema": 1, "decision": body, "model": model.model_dump(mode="json"), "held": {"SPY": 0.2, "IBM": 0.6}, "cash_weight": 0.2}
    lake = Lake(s3=boto3.client("s3"), audit_bucket=buckets.audit)
    lake.put_decision_record(decision_key(date(2020, 1, 2), DECISION), {**document, "observation": [], "symbols": [], **more})


def closed(ledger: Ledger, session: str, *, ibm: str) -> None:
    closes = {name: Held(quantity=Decimal(1), close=Decimal(100)) for name in NAMES} | {
        "IBM": Held(quantity=Decimal(1), close=Decimal(ibm))
    }
    ledger.put_snapshot(Snapshot(session=session, cash=Decimal(0), equity=Decimal(800), positions=closes, taken_at=f"{session}T21:05:00Z"))


@pytest.fixture
def decided(
    web: Web, ledger_table: Ledger, buckets: SimpleNamespace, execution: Any, execution_api: Gateway, decide: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    """Equal weight trades what a refused model only watches; the orders went through the real executor."""
    body = decide()
    watching(ledger_table, registered(buckets))
    recorded(buckets, body)
    ledger_table.put_shadow_decision(
        ShadowDecision(slot=SLOT, model_version=VERSION, data_as_of="2019-12-31", weights={"IBM": 1.0}, time="2020-01-02T14:35:00Z")
    )
    assert execution("POST", "/decisions", body).status == 200
    return body


def test_the_first_thing_is_the_newest_decision_in_one_sentence(web: Web, decided: Any) -> None:
    shown = web.get("pages/decisions").text
    said = "It holds eight names at about 12.5 % each by equal weight, because the gate refused the trained model: luck is not ruled out"
    assert said in shown
    assert shown.index(said) < shown.index("<table")
    assert "The trained model 256b150c4442 would hold" in shown
    assert shown.count("recorded before explanations were kept") == 2


def test_a_decision_says_what_was_held_what_is_wanted_and_what_became_of_it(web: Web, decided: Any, ledger_table: Ledger) -> None:
    closed(ledger_table, "2020-01-02", ibm="100")
    closed(ledger_table, "2020-01-03", ibm="110")
    view = web.get(f"api/decisions/{segment_of(DECISION)}").body
    names = {one["symbol"]: one for one in view["names"]}
    assert (names["IBM"]["held"], names["IBM"]["target"], names["IBM"]["watched"]) == (pytest.approx(0.75), 0.125, 1.0)
    assert view["names"][0]["symbol"] == "IBM", "the largest change first"
    assert (names["QQQ"]["held"], names["QQQ"]["change"]) == (None, None), "what was not recorded is not 0"
    assert (view["verdict"], view["judged"]) == ("accepted", "Every order was within the limits.")
    assert len(view["orders"]) == 8
    assert view["orders"][0]["slippage_bp"] == pytest.approx(10, abs=0.01)
    assert view["shadow"]["day_traded"] == pytest.approx(0.0125)
    assert (view["shadow"]["day"], view["shadow"]["month"], view["shadow"]["sessions"]) == (pytest.approx(0.1), pytest.approx(0.1), 1)
    assert view["gate"]["passed"] is False
    refused = [one["name"] for one in view["gate"]["checks"] if not one["passed"]]
    assert refused == ["luck", "stressed costs"] == [one["name"] for one in view["gate"]["checks"]][:2]
    assert view["chain_problem"] is None
    assert [one["link"] for one in view["chain"]] == ["decision", "observation", "input data", "model", "code"]
    shown = web.get(PAGE).text
    assert "Is luck ruled out?" in shown
    assert "+10.000 %" in shown
    assert "Fri" not in shown.split("<h1>")[1].split("</h1>")[0]


def test_reasons_are_shown_name_by_name_as_text(web: Web, decided: Any, buckets: SimpleNamespace) -> None:
    top = {"SPY": [{**CAUSE, "input": "volatility_20", "contribution": 0.4}, CAUSE]}
    recorded(buckets, decided, explanation={"kind": "gradient", "says": "the gradient of each score", "top": top})
    shown = web.get("pages/decisions").text
    assert "The gradient of each score" in shown
    assert "volatility_20</code> +0.400" in shown
    assert "momentum_21&lt;b&gt;</code> −0.300" in shown
    assert "SPY: 25.0% held, target 12.5% (-12.5 points). For it: volatility_20 is 1.5 deviations below its mean (+0.400" in shown
    assert "<b>" not in shown


def test_without_record_without_shadow_and_without_the_api_the_rest_is_shown_and_says_what_is_missing(
    web: Web, ledger_table: Ledger, buckets: SimpleNamespace, execution: Any, execution_api: Gateway, decide: Any
) -> None:
    execution("POST", "/decisions", decide(weights={"SPY": 0.5}, model_version="abc"))
    execution_api.down = True
    view = web.get(f"api/decisions/{segment_of(DECISION)}").body
    assert (view["chain"], view["shadow"], view["gate"], view["cash"]) == (None, None, None, None)
    assert view["chain_problem"].startswith("GET /decisions/")
    assert view["headline"] == "It holds SPY alone at 50.0 % by model abc."
    assert "is not there" in view["explained"]
    assert "Not known now: GET /decisions/" in web.get(PAGE).text


def test_an_approved_model_is_named_with_its_verdict(
    web: Web, ledger_table: Ledger, buckets: SimpleNamespace, execution: Any, decide: Any
) -> None:
    model = ServedModel(
        role="incumbent", policy="endpoint", spec=registered(buckets, passed=True), model_version=VERSION, kappa=0.1, since="2020-01-01"
    )
    body = decide(weights={"SPY": 0.5, "IBM": 0.3, "AIG": 0.15, "QQQ": 0.05}, model_version=VERSION)
    recorded(buckets, body, model=model)
    execution("POST", "/decisions", body)
    shown = web.get("pages/decisions").text
    assert (
        "four names, most of it in SPY (50.0 %), IBM (30.0 %), AIG (15.0 %) by the trained model 256b150c4442, which passed the gate."
        in shown
    )


def test_an_evaluation_that_cannot_be_read_says_so(
    web: Web, ledger_table: Ledger, buckets: SimpleNamespace, execution: Any, decide: Any, settings: Settings
) -> None:
    arn = registered(buckets, document={"schema": 2})
    model = ServedModel(role="incumbent", policy="endpoint", spec=arn, model_version=VERSION, kappa=0.1, since="2020-01-01")
    body = decide(weights={"SPY": 0.5}, model_version=VERSION)
    recorded(buckets, body, model=model)
    execution("POST", "/decisions", body)
    shown = web.get("pages/decisions").text
    assert "It holds SPY alone at 50.0 % by the trained model 256b150c4442" in shown
    assert decision_view(request_of(settings), ledger_table.decisions("2020-01")[0], chain=False).gate == VerdictView(
        package=arn, passed=None, problem="evaluation.json: schema must be 3, was 2; run the evaluation again with this version"
    )


def made(ledger: Ledger, at: str, *, strategy: str = "agent", **more: Any) -> None:
    slot = f"{at[:10]}/open+5"
    decision_id = f"{strategy}:{slot if strategy == 'agent' else at}"
    weights = {"SPY": 0.5, "IBM": 0.5}
    ledger.open_decision(
        Decision(decision_id=decision_id, strategy=strategy, slot=slot, body_sha256="b", received_at=at, weights=weights, **more)
    )


def test_a_month_is_paged_newest_first(web: Web, ledger_table: Ledger) -> None:
    for at in ("2019-12-30T14:35:00Z", "2020-01-02T14:35:00Z", "2020-01-03T14:35:00Z", "2020-01-06T14:35:00Z"):
        made(ledger_table, at, state="done", verdict="halted", reason="odd fills")
    made(ledger_table, "2020-01-03T16:00:00Z", strategy="manual")
    first = web.get("api/decisions", {"limit": "3"}).body
    assert (first["month"], first["earlier"], first["later"]) == ("2020-01", "2019-12", None)
    assert [one["received_at"][:10] for one in first["decisions"]] == ["2020-01-06", "2020-01-03", "2020-01-03"]
    assert first["decisions"][1]["says"] == "A person ordered: nothing was planned."
    rest = web.get("api/decisions", {"month": "2020-01", "cursor": first["cursor"]}).body
    assert ([one["received_at"][:10] for one in rest["decisions"]], rest["cursor"]) == (["2020-01-02"], None)
    assert web.get("api/decisions", {"month": "2019-12"}).body["later"] == "2020-01"
    assert web.get("api/decisions", {"month": "2019-12", "cursor": first["cursor"]}).status == 422, "a cursor is of its own month"
    shown = web.get("pages/decisions", {"month": "2019-12"}).text
    assert "two names at about 50.0 % each" in shown
    assert "Nothing was decided in 2019-11." in web.get("pages/decisions", {"month": "2019-11"}).text
    told = web.get("pages/decisions").text
    said = "It wanted to hold two names at about 50.0 % each by a model that was not recorded. Nothing more was sent: trading is halted"
    assert said in told
    assert "odd fills" in told


def test_several_decisions_of_a_session_each_say_what_they_observed(
    web: Web, ledger_table: Ledger, buckets: SimpleNamespace, execution_api: Gateway
) -> None:
    """With slot bars a later slot observes its own session, up to its beginning."""
    asked = {}
    for slot, at, as_of in (("open+5", "14:35", "2019-12-31"), ("open+120", "16:30", "2020-01-02")):
        named, received = f"2020-01-02/{slot}", f"2020-01-02T{at}:00Z"
        body = {"decision_id": f"agent:{named}", "slot": named, "data_as_of": as_of, "weights": {"SPY": 0.5, "IBM": 0.5}}
        document = {"schema": 1, "decision": body, "model": FIRST_INCUMBENT.model_dump(mode="json"), "held": {"SPY": 0.2, "IBM": 0.6}}
        lake = Lake(s3=boto3.client("s3"), audit_bucket=buckets.audit)
        lake.put_decision_record(
            decision_key(date(2020, 1, 2), f"agent:{named}"),
            {**document, "cash_weight": 0.2, "observation": [], "symbols": [], "inputs_sha256": "ab"},
        )
        ledger_table.open_decision(Decision(**body, strategy="agent", body_sha256="b", received_at=received, state="done"))
        asked[slot] = segment_of(f"agent:{named}")
    shown = web.get("pages/decisions").text
    assert "on the slot bars of" in shown
    assert "on the closes of" not in shown
    assert [one["slot"][11:] for one in web.get("api/decisions").body["decisions"]] == ["open+120", "open+5"]
    chains = {
        slot: {one["link"]: one["says"] for one in web.get(f"api/decisions/{segment}").body["chain"]} for slot, segment in asked.items()
    }
    assert chains["open+5"]["input data"] == "closes of 2019-12-31"
    assert chains["open+120"]["input data"] == "the slot bars of 2020-01-02 that ended before the slot"
    assert all(web.get(f"pages/decisions/{segment}").status == 200 for segment in asked.values())


@pytest.mark.parametrize(
    "query",
    [
        {"month": "2020-13"},
        {"month": "0000-01"},
        {"month": "0001-01"},
        {"month": "٢٠٢٠-01"},  # digits, but no ISO date
        {"month": "<b>"},
        {"cursor": "x"},
        {"cursor": base64.urlsafe_b64encode(b"[" * 1400).decode()},
        {"limit": "0"},
        {"limit": "nine"},
    ],
)
def test_a_wrong_query_is_a_422(web: Web, ledger_table: Ledger, query: dict[str, str]) -> None:
    made(ledger_table, "2020-01-02T14:35:00Z")
    assert web.get("api/decisions", query).status == 422
    if "limit" not in query:
        assert web.get("pages/decisions", query).status == 422
        assert web.get("api/orders", query).status == 422


def test_nothing_decided_and_no_such_decision_say_so(web: Web) -> None:
    assert "Nothing has been decided yet" in web.get("pages/decisions").text
    assert web.get("api/decisions").body["decisions"] == []
    assert web.get(f"pages/decisions/{segment_of('agent:2020-01-02/open+9')}").status == 404
