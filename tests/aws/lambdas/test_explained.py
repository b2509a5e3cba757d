"""A decision says why: what `decide` records of the network's gradient, when it cannot, and what the API answers of it."""

# ruff: noqa: F401, F811  (fixtures of another module are used by their names)
from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lambdas.common.lake.lake import Lake
from lambdas.common.ledger.ledger import Ledger
from lambdas.decide import explaining
from tests.aws.lambdas.test_decide import DECISION, Cloud, cloud, lake, record, run, served
from trading_env.data.features import CONTEXT, FEATURES
from trading_env.data.observation import Observation
from trading_env.simulation.policy import load_policy
from trading_env.simulation.score_gradient import score_gradient

PACKAGE = "models/incumbent/model/model.tar.gz"
INPUTS = [*(one.name for one in FEATURES), "held_weight", "cash_weight", *(one.name for one in CONTEXT)]


def test_the_record_has_the_gradient_of_the_model_that_scored(
    run: Any, lake: Lake, served: Any, control: Any, ledger_table: Ledger, tmp_path: Path
) -> None:
    served()
    assert run()["outcome"] == "decided"
    audit = record(lake)
    reasons = audit["explanation"]
    assert (reasons["kind"], reasons["inputs"]) == ("gradient", INPUTS)
    vector = np.array(audit["observation"], dtype=np.float32)
    seen = Observation(as_of=np.datetime64("2019-12-31"), symbols=tuple(audit["symbols"]), vector=vector)
    own = score_gradient(load_policy(tmp_path / "incumbent"), seen)
    for row, symbol in enumerate(audit["symbols"]):
        np.testing.assert_allclose(reasons["gradient"][symbol], own.gradient[row], rtol=0, atol=5.1e-7)
        np.testing.assert_allclose(reasons["contribution"][symbol], own.contribution[row], rtol=0, atol=5.1e-7)
        sizes = [abs(cause["contribution"]) for cause in reasons["top"][symbol]]
        assert sizes == sorted(map(abs, reasons["contribution"][symbol]), reverse=True)[:5]

    answered = control("GET", f"/decisions/{DECISION}").body["explained"]
    assert (answered["kind"], answered["model_version"]) == ("gradient", audit["model"]["model_version"])
    assert {name["symbol"] for name in answered["names"]} == set(audit["symbols"])
    first = answered["names"][0]
    assert first["held"] == 0.0
    assert first["target"] == first["change"] == audit["decision"]["weights"][first["symbol"]]
    assert first["causes"] == reasons["top"][first["symbol"]]
    assert first["causes"][0]["input"] in first["words"]
    order = ledger_table.orders("2020-01")[0]
    (own_name,) = control("GET", f"/orders/{order.client_order_id}").body["explained"]["names"]
    assert own_name == next(name for name in answered["names"] if name["symbol"] == order.symbol)


def test_a_rule_has_no_gradient_and_says_so(run: Any, lake: Lake, control: Any) -> None:
    run()
    reasons = record(lake)["explanation"]
    assert (reasons["kind"], reasons["gradient"], reasons["top"]) == ("rule", {}, {})
    answered = control("GET", f"/decisions/{DECISION}").body["explained"]
    assert answered["says"] == "equal-weight is a rule: its scores read nothing of the observation, so they have no gradient"
    assert answered["names"][0]["words"].endswith("0.0% held, target 12.5% (+12.5 points)")


@pytest.mark.parametrize("failure", ["gone", "another", "slow", "other scores"])
def test_a_model_that_cannot_be_explained_decides_as_before_and_the_record_says_why(
    run: Any, lake: Lake, served: Any, cloud: Cloud, buckets: SimpleNamespace, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served()
    why = {"gone": "is not there", "another": "cannot be read", "slow": "was not read within 0 s", "other scores": "gives other scores"}
    if failure == "gone":
        lake.s3.delete_object(Bucket=buckets.processed, Key=PACKAGE)
    elif failure == "another":
        lake.s3.put_object(Bucket=buckets.processed, Key=PACKAGE, Body=b"no archive")
    elif failure == "slow":
        monkeypatch.setattr(explaining, "TIMEOUT", 0.0)
    else:
        honest = cloud.endpoints["papertape-incumbent"]
        cloud.endpoints["papertape-incumbent"] = lambda body: _shifted(*honest(body))
    told = run()
    assert (told["outcome"], told["verdict"]) == ("decided", "accepted")
    reasons = record(lake)["explanation"]
    assert (reasons["kind"], reasons["gradient"]) == ("missing", {})
    assert why[failure] in reasons["says"]


def test_the_same_decision_is_explained_by_the_same_bytes(
    run: Any, lake: Lake, served: Any, control: Any, buckets: SimpleNamespace, ledger_table: Ledger
) -> None:
    """The second time from the function's memory: its package is gone."""
    served()
    control("PUT", "/trading-state", {"state": "halted", "reason": "no order changes the book"})
    assert run()["outcome"] == "halted"
    first = record(lake)
    assert first["explanation"]["kind"] == "gradient"
    lake.s3.delete_object(Bucket=buckets.processed, Key=PACKAGE)
    ledger_table._table.delete_item(Key={"pk": f"decision#{DECISION}", "sk": "decision"})
    assert run()["outcome"] == "halted"
    assert json.dumps(record(lake)) == json.dumps(first)


def test_the_model_that_watches_is_explained_beside_the_one_that_trades(
    run: Any, lake: Lake, served: Any, control: Any, ledger_table: Ledger
) -> None:
    served()
    served("shadow", seed=2)
    run()
    (watched,) = ledger_table.shadow_decisions("2020-01")
    reasons = watched.explanation
    assert reasons is not None
    assert (reasons.kind, reasons.gradient, reasons.top.keys()) == ("gradient", {}, set(record(lake)["symbols"]))
    assert {symbol: [cause.model_dump() for cause in top] for symbol, top in reasons.top.items()} != record(lake)["explanation"]["top"]
    (beside,) = control("GET", f"/decisions/{DECISION}").body["watched"]
    assert (beside["model_version"], beside["kind"], len(beside["names"])) == (watched.model_version, "gradient", 8)
    assert {name["symbol"]: name["target"] for name in beside["names"]} == watched.weights


def _shifted(status: int, answer: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return status, {**answer, "scores": [score + 0.001 * place for place, score in enumerate(answer["scores"])]}
