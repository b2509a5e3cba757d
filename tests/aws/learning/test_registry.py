"""The edges of judging: a log of trials that only grows, in a folder or in S3, and the model that trades now."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from moto import mock_aws

from learning import registry
from schema.loopback import ForeignEndpointError
from tests import small_run
from trading_env.data.features import FEATURE_HASH, SCHEMA_VERSION
from trading_env.evaluation.trials import TrialLog, TrialLogError
from trading_env.simulation.policy import PolicyCard, array_shapes, save_policy

REGION, BUCKET, GROUP = "us-east-1", "lake", "papertape-models"
CHOSEN = small_run.settings(training={"algorithm": "q-learning"})  # the fastest to train
DAYS = np.busday_offset(np.datetime64("2015-01-05", "D"), np.arange(30))


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        boto3.client("s3", region_name=REGION).create_bucket(Bucket=BUCKET)
        yield


Open = Callable[[], Any]


@pytest.fixture(params=["folder", "bucket"])
def kept(request: pytest.FixtureRequest, cloud: None, tmp_path: Path) -> Open:
    """Opens the log anew, as another judgement would."""
    where = str(tmp_path / "trials") if request.param == "folder" else f"s3://{BUCKET}/models/trials/"
    return lambda: registry.trial_store(where, region=REGION)


def trial(log: TrialLog, number: int) -> TrialLog:
    excess = np.random.default_rng(number).normal(size=30)
    return log.append(settings={"number": number}, feature_hash="f", code_hash="c", sessions=DAYS, excess=excess, excess_at_kappa=excess)


def test_what_is_written_is_read_by_the_next_judgement(kept: Open) -> None:
    log = registry.read_log(kept())
    assert log.entries == ()
    for number in range(12):
        longer = trial(log, number)
        registry.write_log(kept(), longer, after=log)
        log = registry.read_log(kept())
        assert log.head == longer.head
    opened = log.open_holdout(trial=log.trials[3].trial_id, sessions=DAYS, excess=np.ones(30), excess_at_kappa=np.ones(30))
    registry.write_log(kept(), opened, after=log)
    assert registry.read_log(kept()).to_lines() == opened.to_lines()
    registry.write_log(kept(), opened, after=opened)
    assert len(kept().names()) == 13


def test_of_two_judgements_at_once_one_is_told_to_run_again_and_nothing_is_overwritten(kept: Open) -> None:
    before = registry.read_log(kept())
    first, second = trial(before, 1), trial(before, 2)
    registry.write_log(kept(), first, after=before)
    with pytest.raises(registry.RegistryError, match=r"another judgement wrote 000001\.json .* run this one again"):
        registry.write_log(kept(), second, after=before)
    assert registry.read_log(kept()).head == first.head
    again = registry.read_log(kept())
    registry.write_log(kept(), trial(again, 2), after=again)
    assert len(registry.read_log(kept()).trials) == 2


def test_an_entry_that_is_missing_empty_or_changed_is_found(kept: Open) -> None:
    store, log = kept(), trial(trial(TrialLog(), 1), 2)
    lines = log.to_lines()
    store.put("000002.json", lines[1])
    with pytest.raises(registry.RegistryError, match=r"must hold 000001\.json, its next entry is 000002\.json"):
        registry.read_log(kept())
    store.put("000001.json", lines[1])
    with pytest.raises(TrialLogError, match="line 1: follows"):
        registry.read_log(kept())
    store.put("000003.json", "")
    with pytest.raises(registry.RegistryError, match=r"empty entry, 000003\.json is"):
        registry.read_log(kept())


def test_what_is_no_entry_is_not_read(kept: Open) -> None:
    kept().put("notes.txt", "not a trial")
    assert registry.read_log(kept()).entries == ()


def test_a_prefix_ends_with_a_slash_and_a_bucket_that_is_not_there_is_an_error(cloud: None) -> None:
    with pytest.raises(registry.RegistryError, match="must end with a slash, was s3://lake/trials"):
        registry.trial_store("s3://lake/trials", region=REGION)
    with pytest.raises(registry.RegistryError, match="an S3 URI is s3://bucket/key, was s3:///trials/"):
        registry.trial_store("s3:///trials/", region=REGION)
    with pytest.raises(registry.RegistryError, match=r"cannot be listed: .*NoSuchBucket"):
        registry.read_log(registry.trial_store("s3://elsewhere/trials/", region=REGION))


def test_only_this_machine_may_stand_in_for_aws(cloud: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:4566")
    registry.trial_store("s3://lake/trials/", region=REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://example.org")
    with pytest.raises(ForeignEndpointError, match="AWS_ENDPOINT_URL_S3 may only point to this machine"):
        registry.trial_store("s3://lake/trials/", region=REGION)


def archive_of(folder: Path) -> tuple[bytes, dict[str, Any]]:
    card = PolicyCard(("a",), ("b",), FEATURE_HASH, SCHEMA_VERSION, 0.1, ("X", "Y"), "2006-01-03", "2010-12-31", (0, 1), "c")
    rng = np.random.default_rng(0)
    arrays = {name: np.abs(rng.normal(size=shape)) for name, shape in array_shapes(seeds=2, inputs=card.inputs).items()}
    save_policy(folder, arrays, card)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, arcname=".")
    return buffer.getvalue(), arrays


def register(status: str, *, model: str, **metadata: str) -> str:
    client = boto3.client("sagemaker", region_name=REGION)
    created = client.create_model_package(
        ModelPackageGroupName=GROUP,
        ModelApprovalStatus=status,
        CustomerMetadataProperties=metadata or {"kappa": "0.1"},
        InferenceSpecification={
            "Containers": [{"Image": "image", "ModelDataUrl": model}],
            "SupportedContentTypes": ["application/json"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    )
    arn: str = created["ModelPackageArn"]
    return arn


def test_the_newest_approved_package_trades_now(cloud: None, tmp_path: Path) -> None:
    boto3.client("sagemaker", region_name=REGION).create_model_package_group(ModelPackageGroupName=GROUP)
    assert registry.incumbent(GROUP, region=REGION) is None
    register("Rejected", model="s3://lake/rejected", trial="t0", configuration="r0")
    assert registry.incumbent(GROUP, region=REGION) is None
    register("Approved", model="s3://lake/older", trial="t1", configuration="r1")
    model = f"s3://{BUCKET}/models/newer/model.tar.gz"
    name = register("Approved", model=model, trial="t2", configuration="r2")
    waits = register("PendingManualApproval", model="s3://lake/waits", trial="t3", configuration="r3", data_sha256="d3")
    assert registry.incumbent(GROUP, region=REGION) == registry.Registered(name, "t2", "r2", "", model)
    assert registry.newest(GROUP, region=REGION) == registry.Registered(waits, "t3", "r3", "d3", "s3://lake/waits")

    content, arrays = archive_of(tmp_path)
    with pytest.raises(registry.RegistryError, match=r"newer/model\.tar\.gz cannot be read: .*NoSuchKey"):
        registry.fetch_policy(model, region=REGION)
    s3 = boto3.client("s3", region_name=REGION)
    s3.put_object(Bucket=BUCKET, Key="models/newer/model.tar.gz", Body=content)
    policy = registry.fetch_policy(model, region=REGION)
    np.testing.assert_array_equal(policy.arrays["w1"], arrays["w1"])
    s3.put_object(Bucket=BUCKET, Key="models/newer/model.tar.gz", Body=b"nothing of the kind")
    with pytest.raises(registry.RegistryError, match="is not an archive"):
        registry.fetch_policy(model, region=REGION)


def test_an_approved_package_that_does_not_say_what_it_is_stops_the_judgement(cloud: None) -> None:
    boto3.client("sagemaker", region_name=REGION).create_model_package_group(ModelPackageGroupName=GROUP)
    name = register("Approved", model="s3://lake/older", kappa="0.1", trial="t1")
    with pytest.raises(registry.RegistryError, match=f"{name} is approved and names no configuration: reject it"):
        registry.incumbent(GROUP, region=REGION)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the jobs before evaluate.py left."""
    return small_run.train_all(tmp_path_factory.mktemp("judged"), chosen=CHOSEN)


@pytest.fixture
def judged(cloud: None, root: Path) -> Callable[[], dict[str, Any]]:
    """Runs evaluate.py, its log and its registry in AWS; the models' books are traded once."""
    boto3.client("sagemaker", region_name=REGION).create_model_package_group(ModelPackageGroupName=GROUP)
    where, arguments = f"s3://{BUCKET}/models/trials/", ["--package-group", GROUP, "--checkpoint", str(root / "kept")]
    return lambda: small_run.evaluate(root, trials=where, chosen=CHOSEN, arguments=arguments)


def approve(root: Path, **metadata: str) -> None:
    """Register what evaluate.py packed."""
    archive = (root / "output" / "model" / "model.tar.gz").read_bytes()
    boto3.client("s3", region_name=REGION).put_object(Bucket=BUCKET, Key="models/1/model.tar.gz", Body=archive)
    register("Approved", model=f"s3://{BUCKET}/models/1/model.tar.gz", **metadata)


def test_a_configuration_that_trades_already_meets_the_refit_check_and_is_no_second_trial(
    judged: Callable[[], dict[str, Any]], root: Path
) -> None:
    first = judged()
    assert (first["gate"]["title"], first["log"]["trials"], first["log"]["new"]) == ("gate", 1, True)
    approve(root, **first["metadata"])
    second = judged()
    checks = {check["name"]: check for check in second["gate"]["checks"]}
    assert second["gate"]["title"] == "refit check"
    assert [checks[name]["passed"] for name in ("configuration", "finite", "distance")] == [True] * 3
    assert checks["distance"]["numbers"] == {"incumbent_distance_l1": 0.0}
    assert second["log"] == {**first["log"], "new": False}
    assert (second["trial"], second["metadata"]["configuration"]) == (first["trial"], first["metadata"]["configuration"])


def test_another_configuration_meets_the_incumbent_in_the_gate(judged: Callable[[], dict[str, Any]], root: Path) -> None:
    approve(root, **{**judged()["metadata"], "configuration": "of another", "trial": "of another"})
    second = judged()
    (incumbent,) = (check for check in second["gate"]["checks"] if check["name"] == "incumbent")
    assert second["gate"]["title"] == "gate"
    assert incumbent["sentence"].startswith("0 sessions follow both training ends")
    assert not incumbent["passed"]
