"""Models as a person signs them off: verdicts and numbers, approve and reject with a reason, audited, and only with the scope."""

from __future__ import annotations

import json
from types import SimpleNamespace

import boto3
import pytest

from lambdas.common.ledger.actions import actions_of
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.registry.rules import WORDS
from schema.path_segment import segment_of
from tests.aws.conftest import TABLE
from tests.aws.dashboard.conftest import Web
from tests.aws.dashboard.judged import registered, watching

KEY = "k-12345678"


def described(arn: str) -> dict[str, str]:
    found = boto3.client("sagemaker").describe_model_package(ModelPackageName=arn)
    return {"status": found["ModelApprovalStatus"], "by": found["CustomerMetadataProperties"].get("decided_by", "")}


def test_every_version_is_shown_with_its_verdict_numbers_lineage_and_card(web: Web, ledger_table: Ledger, buckets: SimpleNamespace) -> None:
    arn = registered(buckets)
    watching(ledger_table, arn)
    shown = web.get("pages/models").text
    assert "Now trades: equal weight." in shown
    assert "the gate refused it: 2 of its 10 checks failed" in shown
    assert f'href="#/models/{segment_of(arn)}"' in shown
    one = web.get(f"pages/models/{segment_of(arn)}").text
    assert "Is luck ruled out?" in one
    assert "A long-only policy by PPO for 3 names (AAA, BBB, CCC)" in one
    assert arn in one
    assert "data-write" not in one, "a refused model cannot be approved here, and is rejected already"
    assert "lets it only watch" in one
    view = web.get(f"api/models/{segment_of(arn)}").body
    assert (view["version"]["role"], view["version"]["metrics"]["p"], view["gate"]["passed"]) == ("shadow", 0.71, False)
    assert web.get("api/models").body["versions"][0]["version"] == 1
    history = web.get("api/models/history").body
    assert [one["role"] for one in history["history"]] == ["shadow"]


def test_a_person_approves_once_with_a_reason_and_it_is_kept_with_who(web: Web, buckets: SimpleNamespace) -> None:
    arn = registered(buckets, passed=True)
    path = f"api/models/{segment_of(arn)}/approve"
    assert f'data-write="models/{segment_of(arn)}/approve"' in web.get(f"pages/models/{segment_of(arn)}").text
    done = web.post(path, {"reason": "holds up"}, key=KEY)
    assert (done.status, done.body["by"]) == (200, "anna")
    assert done.body["message"].startswith("version 1 is approved and trades from the next decision on")
    assert described(arn) == {"status": "Approved", "by": "anna"}
    assert web.post(path, {"reason": "holds up"}, key=KEY).body == done.body
    assert web.post(path, {"reason": "another"}, key=KEY).status == 409
    (kept,) = actions_of(TABLE).actions("2020-01")
    assert (kept.user, kept.name, json.loads(kept.body)["reason"]) == ("anna", "approve model", "holds up")
    shown = web.get(f"pages/models/{segment_of(arn)}").text
    assert "Approved by anna on Thu 2020-01-02 10:00 New York: holds up." in shown
    rejected = web.post(f"api/models/{segment_of(arn)}/reject", {"reason": "odd"}, key="k-12345679")
    assert (rejected.status, described(arn)["status"]) == (200, "Rejected")


def test_without_the_scope_nothing_is_approved_and_no_form_is_shown(web: Web, buckets: SimpleNamespace) -> None:
    arn = registered(buckets, passed=True)
    reader = web.as_user(scopes=("read", "trade"))
    assert "data-write" not in reader.get(f"pages/models/{segment_of(arn)}").text
    refused = reader.post(f"api/models/{segment_of(arn)}/approve", {"reason": "x"}, key=KEY)
    assert (refused.status, described(arn)) == (403, {"status": "Rejected", "by": ""})


@pytest.mark.parametrize(
    ("action", "body", "told"),
    [
        ("approve", {"reason": "let it", "words": WORDS}, "lets it only watch"),
        ("reject", {"reason": "again"}, "is rejected already"),
        ("approve", {}, "reason"),
        ("approve", {"reason": ""}, "reason"),
        ("approve", {"reason": "x", "force": True}, "force"),
        ("promote", {"reason": "x"}, "action"),
    ],
)
def test_what_must_not_be_is_a_422_that_says_why(web: Web, buckets: SimpleNamespace, action: str, body: dict[str, str], told: str) -> None:
    arn = registered(buckets)
    refused = web.post(f"api/models/{segment_of(arn)}/{action}", body, key=KEY)
    assert (refused.status, told in refused.text) == (422, True), refused.text
    assert described(arn) == {"status": "Rejected", "by": ""}


def test_another_groups_package_is_not_there_and_nothing_registered_says_so(web: Web, buckets: SimpleNamespace) -> None:
    registered(buckets)
    other = segment_of("arn:aws:sagemaker:us-east-1:123456789012:model-package/another/1")
    assert web.get(f"api/models/{other}").status == 404
    assert web.post(f"api/models/{other}/approve", {"reason": "x"}, key=KEY).status == 422


def test_nothing_registered_says_so(web: Web) -> None:
    boto3.client("sagemaker").create_model_package_group(ModelPackageGroupName="papertape", ModelPackageGroupDescription="policies")
    assert "No model was registered yet" in web.get("pages/models").text
    assert web.get("api/models", {"cursor": "made up"}).status == 422
