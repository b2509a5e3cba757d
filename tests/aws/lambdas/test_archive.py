"""From an order back to its data, over what the functions themselves have written: decide, execute_orders, reconcile, then the trace.

And the same records by the columns of Athena's tables.
"""

# ruff: noqa: F401, F811  (fixtures of another module are used by their names)
from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from lambdas.common.lake.lake import Lake
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Fill, OrderRecord, ServedModel
from local.exchange.server import RunningExchange
from schema.lake_layout import audit_key, training_manifest
from stacks.constructs.audit_tables import TABLES
from tests.aws.hive import problems
from tests.aws.lambdas.test_decide import Cloud, cloud, lake, run, served

SESSION = "2020-01-02"
DECISION = f"agent:{SESSION}/open+5"
MODEL, EVALUATION = "models/e1/model/model.tar.gz", "models/e1/evaluation/evaluation.json"
MANIFEST = '{"end": "2019-12-31", "rows": 8}\n'
ALL = ["order", "risk verdict", "decision", "observation", "input data", "model package", "gate", "training data", "code"]


def put(bucket: str, key: str, body: bytes | str) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body)


def archive(folder: Path) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name in ("policy.json", "policy.npz"):
            tar.add(folder / name, name)
    return raw.getvalue()


def evaluation(model_hash: str, manifest: str = MANIFEST) -> str:
    hashes = {
        "model_hash": model_hash,
        "manifest_sha256": hashlib.sha256(manifest.encode()).hexdigest(),
        "code_version": "c0de",
        "settings": "5e7",
    }
    gate = {"passed": False, "reasons": ["10 seeds are needed, were 2"]}
    return json.dumps({"schema": 3, "trial": "t1", "configuration": "r1", "hashes": hashes, "gate": gate})


@pytest.fixture
def model(served: Any, buckets: SimpleNamespace, tmp_path: Path) -> ServedModel:
    """An incumbent with its package in the registry, its archive, its evaluation and its training data's manifest in the lake."""
    boto3.client("s3").put_bucket_versioning(Bucket=buckets.processed, VersioningConfiguration={"Status": "Enabled"})
    sagemaker = boto3.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="papertape", ModelPackageGroupDescription="policies")
    arn = sagemaker.create_model_package(
        ModelPackageGroupName="papertape",
        ModelPackageDescription="a policy",
        ModelApprovalStatus="Approved",
        ModelMetrics={
            "ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": f"s3://{buckets.processed}/{EVALUATION}"}}
        },
        InferenceSpecification={
            "Containers": [{"Image": "registry/inference:1", "ModelDataUrl": f"s3://{buckets.processed}/{MODEL}"}],
            "SupportedContentTypes": ["application/json"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    )["ModelPackageArn"]
    pointer: ServedModel = served(spec=arn)
    put(buckets.processed, MODEL, archive(tmp_path / "incumbent"))
    put(buckets.processed, EVALUATION, evaluation(pointer.model_version))
    put(buckets.processed, training_manifest(), MANIFEST)
    return pointer


@pytest.fixture
def close(reconcile: Any, exchange: RunningExchange) -> Callable[[], dict[str, Any]]:
    """The end of the first session: what reconcile says of it, its archive included."""

    def close() -> dict[str, Any]:
        exchange.advance(f"{SESSION}T21:05:00Z")
        summary: dict[str, Any] = reconcile()
        return summary

    return close


def found(trace: list[dict[str, str]]) -> dict[str, str]:
    return {link["link"]: link["status"] for link in trace}


def link(trace: list[dict[str, str]], name: str) -> dict[str, str]:
    return next(one for one in trace if one["link"] == name)


def an_order(ledger: Ledger) -> str:
    return next(order.client_order_id for order in ledger.orders("2020-01") if order.status == "filled")


def records(bucket: str) -> dict[str, list[tuple[str, bytes]]]:
    """Table -> its objects, as the audit bucket holds them."""
    s3, kept = boto3.client("s3"), {}
    for item in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
        body = s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        kept.setdefault(item["Key"].split("/")[1], []).append((item["Key"], body))
    return kept


def test_every_link_of_an_order_is_verified_or_recorded(
    run: Any, close: Any, model: ServedModel, control: Any, ledger_table: Ledger, buckets: SimpleNamespace
) -> None:
    run()
    assert close()["archived"] == "10 records"  # eight orders, their batch, the model
    put(buckets.processed, training_manifest(), "built again the next night")
    order = an_order(ledger_table)
    shown = control("GET", f"/orders/{order}").body
    trace = shown["trace"]
    assert [one["link"] for one in trace] == ALL
    assert {one["link"] for one in trace if one["status"] == "verified"} == set(ALL) - {"risk verdict", "input data"}
    assert {one["status"] for one in trace} == {"verified", "recorded"}
    assert (shown["client_order_id"], len(shown["fills"])) == (order, 1)
    decision = ledger_table.decision(DECISION)
    assert decision is not None
    assert link(trace, "risk verdict")["says"] == "allowed"
    assert link(trace, "observation")["hash"] == decision.observation_hash
    assert link(trace, "model package")["hash"] == decision.model_version == model.model_version
    assert model.spec in link(trace, "model package")["where"]
    assert link(trace, "gate")["says"] == "refused: 10 seeds are needed, were 2; trial t1, configuration r1"
    assert link(trace, "training data")["hash"] == hashlib.sha256(MANIFEST.encode()).hexdigest()
    assert link(trace, "code")["detail"] == "what is deployed now"
    assert all(one.get("where") for one in trace)
    assert [one["link"] for one in control("GET", f"/decisions/{DECISION}").body["trace"]] == ALL[2:]


def test_what_was_changed_afterwards_is_named(
    run: Any, close: Any, model: ServedModel, control: Any, ledger_table: Ledger, buckets: SimpleNamespace, tmp_path: Path
) -> None:
    run()
    close()
    order = an_order(ledger_table)
    key = audit_key("decisions", SESSION, DECISION)
    original = dict(records(buckets.audit)["decisions"])[key]

    def trace() -> list[dict[str, str]]:
        return control("GET", f"/orders/{order}").body["trace"]  # type: ignore[no-any-return]

    changed = json.loads(original)
    changed["observation"][0] += 0.25
    changed["decision"]["weights"]["SPY"] += 0.01
    put(buckets.audit, key, json.dumps(changed))
    assert {name for name, status in found(trace()).items() if status == "differs"} == {"decision", "observation"}
    assert link(trace(), "decision")["detail"] == "the audit record has another weights"
    put(buckets.audit, key, original)

    (tmp_path / "incumbent" / "policy.json").write_text("{}", encoding="utf-8")
    put(buckets.processed, MODEL, archive(tmp_path / "incumbent"))
    assert {name for name, status in found(trace()).items() if status == "differs"} == {"model package"}

    put(buckets.processed, EVALUATION, evaluation(model.model_version) + " ")
    assert link(trace(), "gate")["status"] == "differs"

    stored = ledger_table.order(order)
    assert stored is not None
    more = Fill(
        client_order_id=order, decision_id=DECISION, sequence=9, symbol=stored.symbol, side="buy", quantity=1, price=1,
        cumulative=1, time="2020-01-02T15:00:00Z",
    )  # fmt: skip
    ledger_table.save_order(stored, fill=more)
    assert link(trace(), "order")["status"] == "differs"


def test_what_is_not_there_is_named_and_hides_nothing(
    run: Any, model: ServedModel, control: Any, ledger_table: Ledger, buckets: SimpleNamespace
) -> None:
    run()
    s3, order = boto3.client("s3"), an_order(ledger_table)
    for key in (MODEL, EVALUATION):
        s3.delete_object(Bucket=buckets.processed, Key=key)
    trace = control("GET", f"/orders/{order}").body["trace"]
    assert {name for name, status in found(trace).items() if status == "missing"} == {"model package", "gate", "training data"}
    assert "reconcile writes it after a session's close" in link(trace, "gate")["detail"]
    s3.delete_object(Bucket=buckets.audit, Key=audit_key("decisions", SESSION, DECISION))
    trace = control("GET", f"/orders/{order}").body["trace"]
    assert [one["link"] for one in trace] == ["order", "risk verdict", "decision", "audit record", "code"]
    assert link(trace, "audit record")["status"] == "missing"
    assert control("GET", "/orders/pt1-nobody").status == 404


def test_a_registry_that_knows_no_such_package_hides_nothing_else(run: Any, close: Any, served: Any, control: Any) -> None:
    served()
    run()
    assert "not archived: ClientError" in close()["archived"]
    trace = control("GET", f"/decisions/{DECISION}").body["trace"]
    assert "cannot be read now" in link(trace, "model package")["detail"]
    assert [one["link"] for one in trace] == ALL[2:]


def test_equal_weight_and_a_person_need_no_model(run: Any, execution: Any, control: Any, exchange: RunningExchange) -> None:
    run()
    trace = control("GET", f"/decisions/{DECISION}").body["trace"]
    held = {"decision": "verified", "observation": "verified", "input data": "recorded"}
    assert found(trace) == {**held, "model": "none", "code": "verified"}
    bought = execution("POST", "/orders", {"key": "mine", "symbol": "SPY", "side": "buy", "quantity": "1"}).body["orders"][0]
    trace = control("GET", f"/orders/{bought['client_order_id']}").body["trace"]
    assert found(trace) == {"order": "verified", "risk verdict": "recorded", "decision": "recorded", "model": "none", "code": "verified"}


@pytest.mark.parametrize(("strategy", "status"), [("foreign", "none"), ("recovered", "missing"), ("agent", "missing")])
def test_an_order_without_a_decision_says_why(control: Any, ledger_table: Ledger, strategy: str, status: str) -> None:
    order = OrderRecord(
        client_order_id="found", decision_id=f"{strategy}:{SESSION}", slot=SESSION, symbol="SPY", side="buy", quantity=1, price=300.0,
        created_at=f"{SESSION}T15:00:00Z", broker_id="b1", status="filled",
    )  # fmt: skip
    assert ledger_table.put_external_order(order)
    trace = control("GET", "/orders/found").body["trace"]
    assert [one["link"] for one in trace] == ["order", "risk verdict", "decision"]
    assert found(trace) == {"order": "verified", "risk verdict": "missing", "decision": status}


def test_a_session_is_archived_once_and_a_later_word_beside_it(
    run: Any, close: Any, reconcile: Any, ledger_table: Ledger, buckets: SimpleNamespace
) -> None:
    ledger_table.set_trading_state("active", reason="begin", time="2020-01-01T12:00:00Z", by="someone")
    run()
    assert close()["archived"] == "10 records"  # eight orders, their batch, the change of state
    before = records(buckets.audit)
    assert reconcile()["archived"] == "0 records"
    assert records(buckets.audit) == before

    order = next(one for one in ledger_table.orders("2020-01") if one.status == "filled")
    ledger_table.save_order(order.model_copy(update={"reason": "the broker corrected it"}))
    assert reconcile()["archived"] == "1 records"
    after = records(buckets.audit)
    assert {key for key, _ in before["orders"]} < {key for key, _ in after["orders"]}
    told = [json.loads(body)["reason"] for key, body in after["orders"] if order.client_order_id in key]
    assert told == [None, "the broker corrected it"]


def test_an_archive_that_cannot_be_written_is_an_alert_and_the_next_run_catches_up(
    run: Any, close: Any, reconcile: Any, ledger_table: Ledger, buckets: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    monkeypatch.setenv("AUDIT_BUCKET", "papertape-gone")
    summary = close()
    assert summary["snapshot"] == "taken"
    assert summary["archived"].startswith("not archived: NoSuchBucket")
    assert "archive-late" in {alert.rule for alert in ledger_table.alerts("2020-01")}
    monkeypatch.setenv("AUDIT_BUCKET", buckets.audit)
    assert reconcile()["archived"] == "9 records"


def test_the_tables_columns_parse_the_very_records_that_are_written(
    run: Any, close: Any, model: ServedModel, control: Any, execution: Any, buckets: SimpleNamespace
) -> None:
    run()
    control("PUT", "/trading-state", {"state": "reduce_only", "reason": "a test"})
    execution("POST", "/orders", {"key": "mine", "symbol": "SPY", "side": "buy", "quantity": "1"})  # refused: only sells pass
    control("PUT", "/trading-state", {"state": "active", "reason": "over"})
    close()
    kept = records(buckets.audit)
    assert kept.keys() == TABLES.keys()
    for table, (_, columns) in TABLES.items():
        for key, body in kept[table]:
            assert body.count(b"\n") == 1, "one line a record"
            record = json.loads(body)
            assert problems(record, f"struct<{','.join(f'{name}:{kind}' for name, kind in columns)}>") == [], key
            assert key.startswith(f"audit/{table}/2020-01-0") or table == "models"
    assert {json.loads(body)["risk"] for _, body in kept["orders"]} == {"allowed", "trading_state"}
