"""A person approves, rejects and returns to versions of the model: what the registry holds then, what is refused, and what trades."""

# ruff: noqa: F401, F811  (fixtures of another module are used by their names)
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from lambdas.common.lake.audit import AuditBucket, model_key
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import BrokerState, ServedModel
from lambdas.common.registry.approval import ModelActionError, ModelGroup
from lambdas.common.registry.rules import WORDS
from lambdas.common.registry.versions import ModelVersion
from schema.sections.learning import GateSettings
from schema.settings import Settings
from tests.aws.lambdas.test_deploy_model import BUCKET, FEATURE_HASH, GROUP, Runtime, packed, runtime, sagemaker, send
from tests.evaluations import evaluation_of

NOW = datetime(2020, 6, 1, 15, 0, tzinfo=UTC)
Registered = Callable[..., str]


@pytest.fixture
def registered(sagemaker: Any, tmp_path: Path) -> Registered:
    """Register a version as the pipeline does, judged: `passed` None leaves it without an evaluation."""

    def register(status: str, *, seed: int, passed: bool | None = True, slots: tuple[str, ...] = (), **metadata: str) -> str:
        content, model_hash = packed(tmp_path / str(seed), seed, slots=slots)
        s3, where = boto3.client("s3"), f"models/{seed}"
        s3.put_object(Bucket=BUCKET, Key=f"{where}/model/model.tar.gz", Body=content)
        evaluation = evaluation_of(passed=bool(passed))
        evaluation["hashes"]["model_hash"] = model_hash
        s3.put_object(Bucket=BUCKET, Key=f"{where}/evaluation.json", Body=json.dumps(evaluation).encode())
        told = {"model_hash": model_hash, "kappa": "0.1", "feature_hash": FEATURE_HASH, "trial": f"trial {seed}",
                "trained_until": "2018-12-21", "evaluated_until": "2019-12-31", "data_sha256": "d" * 64}  # fmt: skip
        quality = {"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": f"s3://{BUCKET}/{where}/evaluation.json"}}}
        return str(
            sagemaker.create_model_package(
                **({} if passed is None else {"ModelMetrics": quality}),
                ModelPackageGroupName=GROUP,
                ModelPackageDescription="a policy",
                ModelApprovalStatus=status,
                CustomerMetadataProperties={name: value for name, value in (told | metadata).items() if value},
                InferenceSpecification={
                    "Containers": [{"Image": "registry/serving:1", "ModelDataUrl": f"s3://{BUCKET}/{where}/model/model.tar.gz"}],
                    "SupportedContentTypes": ["application/json"],
                    "SupportedResponseMIMETypes": ["application/json"],
                },
            )["ModelPackageArn"]
        )

    return register


@pytest.fixture
def group(sagemaker: Any, ledger_table: Ledger, settings: Settings, buckets: SimpleNamespace) -> Callable[..., ModelGroup]:
    def of(refused: str = "shadow") -> ModelGroup:
        return ModelGroup(
            sagemaker=sagemaker, s3=boto3.client("s3"), ledger=ledger_table, group=GROUP, audit_bucket=buckets.audit,
            settings=settings.model_copy(update={"gate": GateSettings.model_validate({"refused": refused})}),
        )  # fmt: skip

    return of


def shown(models: ModelGroup) -> list[ModelVersion]:
    return list(models.page(now=NOW).versions)


def statuses(models: ModelGroup) -> dict[int, str]:
    return {one.version: one.status for one in shown(models)}


def trading(ledger: Ledger) -> str:
    incumbent = ledger.incumbent()
    return "none" if incumbent is None else incumbent.spec


def test_a_version_shows_verdict_numbers_lineage_and_what_may_not_be_done(registered: Registered, group: Any) -> None:
    good, bad = registered("Approved", seed=1), registered("Rejected", seed=2, passed=False)
    send(good)
    newest, first = shown(group())
    assert [(newest.arn, newest.version), (first.arn, first.version)] == [(bad, 2), (good, 1)], "the newest first"
    assert (first.status, first.verdict, first.role, first.trades) == ("approved", "passed", "incumbent", True)
    assert (first.says, first.reasons) == ("the gate passed it: all of its 10 checks hold", ())
    assert (newest.verdict, newest.role, newest.trades) == ("refused", None, False)
    assert newest.says == "the gate refused it: 2 of its 10 checks failed"
    assert len(newest.reasons) == 2
    assert {check.sentence for check in newest.checks if not check.passed} == set(newest.reasons)
    document = evaluation_of(passed=True)
    headline, numbers = document["headline"], document["statistics"]
    assert first.metrics.model_dump() == {
        "information_ratio": headline["information_ratio"]["10"],
        "information_ratio_at_kappa": headline["information_ratio_at_kappa"]["10"],
        "excess_bp_per_year": headline["excess_bp_per_year"]["10"],
        "excess_at_kappa_bp_per_year": headline["excess_at_kappa_bp_per_year"]["10"],
        "p": numbers["reality_check_p"],
        "p_at_kappa": numbers["reality_check_p_at_kappa"],
        "dsr": numbers["dsr_excess"],
        "pbo": None,
    }
    lineage = first.lineage
    assert (lineage.trial, lineage.data_sha256, lineage.kappa, lineage.algorithm) == ("trial 1", "d" * 64, 0.1, "PPO")
    assert (lineage.manifest_sha256, lineage.code_version) == (document["hashes"]["manifest_sha256"], document["hashes"]["code_version"])
    assert first.blocked == {
        "approve": "version 1 is approved already; to go back to it, return to it",
        "return": "version 1 is the incumbent already",
    }
    refused = newest.blocked["approve"]
    assert refused.startswith("the gate refused version 2 (")
    assert refused.endswith('and [gate] refused = "shadow" lets it only watch')
    assert newest.blocked["reject"] == "version 2 is rejected already"
    assert ModelVersion.model_validate_json(first.model_dump_json()) == first, "a page and the API read the same"


def test_versions_come_in_pages(registered: Registered, group: Any) -> None:
    for seed in (1, 2, 3):
        registered("Rejected", seed=seed)
    models = group()
    page = models.page(now=NOW, limit=2)
    assert [one.version for one in page.versions] == [3, 2]
    rest = models.page(now=NOW, limit=2, cursor=page.cursor)
    assert ([one.version for one in rest.versions], rest.cursor) == ([1], None)


def test_an_approved_version_trades_and_says_who_let_it_and_why(registered: Registered, group: Any, ledger_table: Ledger) -> None:
    arn, models = registered("PendingManualApproval", seed=1), group()
    done = models.approve(arn, reason="  numbers hold\n up ", by="ann@example", at=NOW)
    assert (done.version, done.by, done.reason, done.at) == (1, "ann@example", "numbers hold up", "2020-06-01T15:00:00Z")
    assert done.words == "version 1 is approved and trades from the next decision on, once its endpoint answers; until then nothing changes"
    version = models.version(arn, now=NOW)
    assert (version.status, version.decided_by, version.decided_at) == ("approved", "ann@example", "2020-06-01T15:00:00Z")
    assert version.reason == "numbers hold up"
    assert version.lineage.trial == "trial 1", "the metadata of before is kept"
    assert send(arn)["outcome"] == "deployed"
    assert trading(ledger_table) == arn


def test_a_rejected_incumbent_hands_over_to_equal_weight(registered: Registered, group: Any, ledger_table: Ledger) -> None:
    arn, models = registered("Approved", seed=1), group()
    send(arn)
    done = models.reject(arn, reason="it churns", by="ann", at=NOW)
    assert done.words == "version 1 is rejected and only watches; equal weight trades from the next decision on"
    send(arn)
    assert trading(ledger_table) == "equal-weight"
    with pytest.raises(ModelActionError, match=r"^version 1 is rejected already$"):
        models.reject(arn, reason="again", by="ann", at=NOW)


def test_a_request_that_comes_twice_has_one_answer(registered: Registered, group: Any, sagemaker: Any) -> None:
    """The function died after the registry had changed, and the page sent it again."""
    first, second = registered("Rejected", seed=1), registered("Approved", seed=2)
    models, told = group(), {"reason": "better", "by": "Ann O'Hara", "at": NOW}
    models.return_to(first, **told)
    changed = sagemaker.describe_model_package(ModelPackageName=first)["LastModifiedTime"]
    again = models.return_to(first, **(told | {"at": NOW + timedelta(minutes=1)}))
    assert (again.at, again.version) == ("2020-06-01T15:00:00Z", 1)
    assert sagemaker.describe_model_package(ModelPackageName=first)["LastModifiedTime"] == changed
    with pytest.raises(ModelActionError, match=r"^version 1 is approved already"):
        models.approve(first, **(told | {"by": "somebody else"}))
    assert statuses(models) == {1: "approved", 2: "rejected"}
    assert models.reject(second, reason="returned to version 1: better", by="Ann O'Hara", at=NOW).words.endswith("only watches")


def test_a_way_back_that_breaks_off_is_finished_by_asking_again(
    registered: Registered, group: Any, sagemaker: Any, ledger_table: Ledger
) -> None:
    first, second = registered("Approved", seed=1), registered("Approved", seed=2)
    send(second)
    models, calls = group(), []

    def break_off(params: dict[str, Any], **_: Any) -> None:
        calls.append(json.loads(params["body"])["ModelApprovalStatus"])
        if calls == ["Rejected", "PendingManualApproval"]:
            raise EndpointConnectionError(endpoint_url="the registry")

    sagemaker.meta.events.register("before-call.sagemaker.UpdateModelPackage", break_off)
    with pytest.raises(EndpointConnectionError):
        models.return_to(first, reason="the newer churns", by="ann", at=NOW)
    assert statuses(models) == {1: "approved", 2: "rejected"}
    send(second)
    assert trading(ledger_table) == "equal-weight"
    models.return_to(first, reason="the newer churns", by="ann", at=NOW)
    assert calls == ["Rejected", "PendingManualApproval", "PendingManualApproval", "Approved"], "an approval that is an event again"
    send(first)
    assert trading(ledger_table) == first


def test_the_way_back_withdraws_what_is_newer_and_the_older_trades_in_whatever_order_the_events_come(
    registered: Registered, group: Any, ledger_table: Ledger
) -> None:
    first, second, third = (registered("Approved", seed=seed) for seed in (1, 2, 3))
    models = group()
    send(third)
    assert send(first)["outcome"] == "superseded"
    done = models.return_to(first, reason="the newer ones churn", by="ann", at=NOW)
    assert done.withdrawn == (3, 2)
    assert done.words == (
        "version 3, version 2 rejected; version 1 is approved again and trades from the next decision on, once its endpoint answers; "
        "until then equal weight does"
    )
    assert statuses(models) == {3: "rejected", 2: "rejected", 1: "approved"}
    assert models.version(third, now=NOW).reason == "returned to version 1: the newer ones churn"
    assert [send(arn)["outcome"] for arn in (first, third, second, first)] == ["deployed", "deployed", "superseded", "unchanged"]
    assert trading(ledger_table) == first
    shadow = ledger_table.shadow()
    assert shadow is not None
    assert shadow.spec == third
    with pytest.raises(ModelActionError, match=r"^version 1 is the incumbent already$"):
        models.return_to(first, reason="again", by="ann", at=NOW)


def test_an_older_version_that_would_never_trade_is_not_approved(registered: Registered, group: Any) -> None:
    older, _ = registered("Rejected", seed=1), registered("Approved", seed=2)
    with pytest.raises(ModelActionError, match=r"^version 2 is approved and newer, so version 1 would never trade: return to it instead$"):
        group().approve(older, reason="better", by="ann", at=NOW)


def test_what_the_gate_refused_trades_only_with_the_settings_own_words(
    registered: Registered, group: Any, sagemaker: Any, ledger_table: Ledger
) -> None:
    arn = registered("Rejected", seed=1, passed=False)
    for words in ("", WORDS):  # saying the words does not change what the settings allow
        with pytest.raises(ModelActionError, match=r'and \[gate\] refused = "shadow" lets it only watch$'):
            group().approve(arn, reason="I like it", by="ann", at=NOW, words=words)
        with pytest.raises(ModelActionError, match=r'and \[gate\] refused = "shadow" lets it only watch$'):
            group().return_to(arn, reason="I like it", by="ann", at=NOW, words=words)
    with pytest.raises(ModelActionError, match=r'to let it trade all the same repeat refused = "trade"$'):
        group("trade").approve(arn, reason="I like it", by="ann", at=NOW, words="yes")
    assert sagemaker.describe_model_package(ModelPackageName=arn)["ModelApprovalStatus"] == "Rejected", "nothing was changed"
    assert "approve" not in group("trade").version(arn, now=NOW).blocked
    group("trade").approve(arn, reason="I like it", by="ann", at=NOW, words=WORDS)
    send(arn)
    incumbent = ledger_table.incumbent()
    assert incumbent is not None
    assert len(incumbent.refused) == 2, "every page and mail begins with it"


def test_what_is_not_whole_or_too_old_is_not_approved(registered: Registered, group: Any, settings: Settings) -> None:
    refusals = {
        registered("PendingManualApproval", seed=1, passed=None): "cannot be approved: nobody judged it: it was registered without an",
        registered("PendingManualApproval", seed=2, kappa=""): "was registered without kappa: register it again",
        registered(
            "PendingManualApproval", seed=3, evaluated_until="2016-01-04"
        ): f"may be {settings.risk.max_model_age_days} days old, was",
        registered("PendingManualApproval", seed=4, model_hash="0" * 64): "nobody judged it: its evaluation is about another model",
    }
    for arn, says in refusals.items():
        with pytest.raises(ModelActionError, match=says):
            group().approve(arn, reason="better", by="ann", at=NOW)
    assert set(statuses(group()).values()) == {"waiting"}


def test_a_replay_s_day_counts_where_the_broker_s_clock_is_another_than_the_person_s(
    registered: Registered, group: Any, ledger_table: Ledger
) -> None:
    arn, later = registered("PendingManualApproval", seed=1), datetime(2026, 11, 22, tzinfo=UTC)
    with pytest.raises(ModelActionError, match="it knows data to 2019-12-31; train again"):
        group().approve(arn, reason="better", by="ann", at=later)
    ledger_table.put_broker_state(
        BrokerState(
            now="2020-06-01T15:00:00Z",
            is_open=True,
            next_open="2020-06-02T13:30:00Z",
            next_close="2020-06-01T20:00:00Z",
            account_id="a",
            equity=Decimal(100000),
        )
    )
    assert group().approve(arn, reason="better", by="ann", at=later).at == "2026-11-22T00:00:00Z"


@pytest.mark.parametrize("gone", ["an evaluation that is not there", "an evaluation that is not JSON"])
def test_a_version_is_shown_though_its_evaluation_cannot_be_read(registered: Registered, group: Any, gone: str) -> None:
    arn, s3 = registered("Rejected", seed=1), boto3.client("s3")
    if "JSON" in gone:
        s3.put_object(Bucket=BUCKET, Key="models/1/evaluation.json", Body=b"{")
    else:
        s3.delete_object(Bucket=BUCKET, Key="models/1/evaluation.json")
    version = group().version(arn, now=NOW)
    assert version.verdict == "not judged"
    assert version.says.startswith("nobody judged it: s3://")
    assert version.metrics.model_dump() == dict.fromkeys(version.metrics.model_dump())


def test_a_package_of_another_group_is_none_of_this_one_s(registered: Registered, group: Any, sagemaker: Any) -> None:
    own = registered("Rejected", seed=1)
    sagemaker.create_model_package_group(ModelPackageGroupName="another", ModelPackageGroupDescription="not ours")
    for arn in (own.replace(f"/{GROUP}/", "/another/"), f"{own}9", "nonsense", own.replace("/1", "/x")):
        with pytest.raises(ModelActionError, match=f"^{GROUP} has no model package "):
            group().approve(arn, reason="better", by="ann", at=NOW)


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_a_reason_is_needed(registered: Registered, group: Any, reason: str) -> None:
    arn = registered("Approved", seed=1)
    with pytest.raises(ModelActionError, match=r"^a reason of 1 to 500 characters is needed, was "):
        group().reject(arn, reason=reason, by="ann", at=NOW)
    assert statuses(group()) == {1: "approved"}


def test_the_history_tells_who_decided_from_when_to_when(group: Any, ledger_table: Ledger, buckets: SimpleNamespace) -> None:
    def model(number: int, since: str, **changes: Any) -> ServedModel:
        fields: dict[str, Any] = {
            "role": "incumbent", "policy": "endpoint", "spec": f"arn:aws:sagemaker:us-east-1:0:model-package/{GROUP}/{number}",
            "model_version": f"{number}" * 64, "kappa": 0.1, "since": since,
        }  # fmt: skip
        return ServedModel(**(fields | changes))

    older, newer = model(1, "2020-01-04T12:00:00Z"), model(2, "2020-04-04T12:00:00Z")
    audit = AuditBucket(s3=boto3.client("s3"), name=buckets.audit)
    audit.add({model_key(one): {**one.model_dump(mode="json"), "gate_passed": True, "trial": "t"} for one in (older, newer)})
    equal = model(0, "2020-05-01T12:00:00Z", policy="equal-weight", spec="equal-weight", model_version="equal-weight")
    ledger_table.put_model(equal)
    ledger_table.put_model(model(2, "2020-05-01T12:00:00Z", role="shadow"))
    told = group().history()
    assert [(one.role, one.version, one.since[:10], (one.until or "")[:10]) for one in told] == [
        ("incumbent", None, "2020-05-01", ""),
        ("shadow", 2, "2020-05-01", ""),
        ("incumbent", 2, "2020-04-04", "2020-05-01"),
        ("incumbent", 1, "2020-01-04", "2020-04-04"),
    ]
    assert told[0].words == "equal-weight was the incumbent since 2020-05-01T12:00:00Z"
    assert told[3].words == (
        "version 1 (model 111111111111) was the incumbent from 2020-01-04T12:00:00Z to 2020-04-04T12:00:00Z, passed by the gate"
    )


def test_a_model_of_other_slots_is_approved_by_nobody(registered: Registered, group: Any) -> None:
    arn = registered("PendingManualApproval", seed=1, slots=("open+5", "open+120"))
    models = group()
    for act in (models.approve, models.return_to):
        with pytest.raises(
            ModelActionError, match=r"version 1 cannot trade here: slots must be none \(daily bars\), was open\+5, open\+120"
        ):
            act(arn, reason="it looks good", by="ann", at=NOW)
    assert statuses(models) == {1: "waiting"}
    training = models.settings.training.model_copy(update={"timeframe": "1Min"})
    schedule = models.settings.schedule.model_copy(update={"slots": ("open+5", "open+120")})
    by_slot = replace(models, settings=models.settings.model_copy(update={"training": training, "schedule": schedule}))
    assert by_slot.approve(arn, reason="it looks good", by="ann", at=NOW).action == "approve"
