"""deploy_model against a model registry in process: approved decides, rejected watches, and no event does harm twice or too late."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import numpy as np
import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.sagemaker.models import SageMakerModelBackend, sagemaker_backends

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import ServedModel
from lambdas.common.ledger.roles import roles_now
from lambdas.deploy_model import handler as deploying
from lambdas.deploy_model import leftovers
from lambdas.deploy_model import probe as probing
from lambdas.deploy_model.packages import DeploymentError, NotServingYetError
from lambdas.deploy_model.pointers import equal_weight
from learning import serving
from learning.packaging import archive
from schema.sections.learning import GateSettings
from schema.served_names import served_name
from schema.settings import SETTINGS_FILE, Settings
from tests.settings_files import settings_file
from trading_env.data.observation import Layout, observe, unpack
from trading_env.simulation.artifact import read_artifact
from trading_env.simulation.policy import PolicyCard, array_shapes, save_policy

GROUP, BUCKET, EVALUATION = "papertape", "papertape-processed", "models/1/evaluation/evaluation.json"
FEATURE_HASH = "f" * 64
Register = Callable[..., str]


class Runtime:
    """SageMaker's runtime over loopback: each endpoint that exists runs the archive that its model leads to, as `learning.serving` does.

    `instead` maps an endpoint to what it answers in the model's place.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.instead: dict[str, Callable[[bytes], tuple[int, dict[str, Any]]]] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805
                status, answer = self.answer(handler.path.split("/")[2], handler.rfile.read(int(handler.headers["Content-Length"])))
                content = json.dumps(answer).encode()
                handler.send_response(status)
                handler.send_header("Content-Length", str(len(content)))
                handler.end_headers()
                handler.wfile.write(content)

            def log_message(handler, *_: Any) -> None:  # noqa: N805
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, endpoint: str, body: bytes) -> tuple[int, dict[str, Any]]:
        self.asked.append(endpoint)
        if endpoint in self.instead:
            return self.instead[endpoint](body)
        backend = sagemaker_backends[DEFAULT_ACCOUNT_ID]["us-east-1"]
        config = backend.endpoint_configs[backend.endpoints[endpoint].endpoint_config_name]
        uri = backend._models[config.production_variants[0]["ModelName"]].primary_container["ModelDataUrl"]
        content = boto3.client("s3").get_object(Bucket=BUCKET, Key=uri.partition(f"{BUCKET}/")[2])["Body"].read()
        with tempfile.TemporaryDirectory() as folder:
            for name, file in read_artifact(content).items():
                (Path(folder) / name).write_bytes(file)
            return 200, serving.predict_fn(serving.input_fn(body, "application/json"), serving.model_fn(folder))


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    running = Runtime()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", running.url)
    deploying._runtime.cache_clear()
    yield running
    deploying._runtime.cache_clear()
    running.server.shutdown()
    running.server.server_close()


@pytest.fixture
def sagemaker(ledger_table: Ledger, settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(deploying, "POLL_SECONDS", 0.0)
    monkeypatch.setenv("ENDPOINT_NAME", "papertape")
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings))
    monkeypatch.setenv("SERVING_ROLE_ARN", f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/serving")
    monkeypatch.setenv("MODEL_PACKAGE_GROUP", GROUP)
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    client = boto3.client("sagemaker")
    client.create_model_package_group(ModelPackageGroupName=GROUP, ModelPackageGroupDescription="policies")
    return client


def packed(folder: Path, seed: int, *, slots: tuple[str, ...] = ()) -> tuple[bytes, str]:
    """The archive of a random policy, and its hash."""
    card = PolicyCard(
        features=("a", "b", "c"), context=("m",), feature_hash=FEATURE_HASH, schema_version=1, kappa=0.1, trained_on=("SPY",),
        train_start="2006-01-03", train_end="2015-12-31", seeds=(0,), code_version="test", slots=slots,
    )  # fmt: skip
    random = np.random.default_rng(seed)
    arrays = {name: random.normal(0, 0.2, shape) for name, shape in array_shapes(seeds=1, inputs=card.inputs).items()}
    save_policy(folder, arrays | {"sigma": np.ones(card.inputs)}, card)
    return archive({path.name: path.read_bytes() for path in folder.iterdir()}), serving.model_hash(folder)


@pytest.fixture
def register(sagemaker: Any, tmp_path: Path) -> Register:
    def register(
        status: str,
        *,
        seed: int = 1,
        execution: str = "1",
        evaluation: dict[str, Any] | None = None,
        slots: tuple[str, ...] = (),
        **metadata: str,
    ) -> str:
        """`seed` chooses the policy, `execution` the pipeline's run that leaves it in S3, with the `evaluation` of it."""
        content, model_hash = packed(tmp_path / str(seed), seed, slots=slots)
        key = f"models/{execution}/{seed}/model/model.tar.gz"
        boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=content)
        told = {"model_hash": model_hash, "kappa": "0.1", "feature_hash": FEATURE_HASH, "gate": "passed",
                "trained_until": "2018-12-21", "evaluated_until": "2019-12-31"}  # fmt: skip
        container = {"Image": "registry/serving:1", "ModelDataUrl": f"s3://{BUCKET}/{key}"}
        metrics = {"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": f"s3://{BUCKET}/{EVALUATION}"}}}
        if evaluation is not None:
            boto3.client("s3").put_object(
                Bucket=BUCKET, Key=EVALUATION, Body=json.dumps({"hashes": {"model_hash": model_hash}, **evaluation}).encode()
            )
        arn = sagemaker.create_model_package(
            **({} if evaluation is None else {"ModelMetrics": metrics}),
            ModelPackageGroupName=GROUP,
            ModelPackageDescription="a policy",
            ModelApprovalStatus=status,
            CustomerMetadataProperties={name: value for name, value in (told | metadata).items() if value},
            InferenceSpecification={
                "Containers": [{**container, "Environment": {"SAGEMAKER_PROGRAM": "inference.py"}}],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        )["ModelPackageArn"]
        return str(arn)

    return register


def send(arn: str, *, remaining_ms: int = 600_000, time: str = "2020-01-01T12:00:00Z") -> dict[str, Any]:
    event = {"detail-type": "SageMaker Model Package State Change", "time": time, "detail": {"ModelPackageArn": arn}}
    context = SimpleNamespace(aws_request_id="r", get_remaining_time_in_millis=lambda: remaining_ms)
    return deploying.handler(event, context)  # type: ignore[no-any-return]


def endpoint_of(name: str) -> Any:
    return sagemaker_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].endpoints[name]


@pytest.fixture
def born(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Endpoints that are made from now on begin in the given status, where moto's are in service at once."""

    def be(status: str) -> None:
        def create(backend: Any, *arguments: Any, **options: Any) -> Any:
            endpoint = create_endpoint(backend, *arguments, **options)
            endpoint.endpoint_status, endpoint.failure_reason = status, "no ping"
            return endpoint

        monkeypatch.setattr(SageMakerModelBackend, "create_endpoint", create)

    create_endpoint = SageMakerModelBackend.create_endpoint
    return be


def incumbent_of(ledger: Ledger) -> ServedModel:
    model = ledger.incumbent()
    assert model is not None
    return model


def existing(sagemaker: Any) -> dict[str, list[str]]:
    """Names of what is there, by kind."""
    found: dict[str, list[str]] = {}
    for made in leftovers.made_by(sagemaker=sagemaker, app="papertape"):
        found.setdefault(made.kind, []).append(made.name)
    return found


def test_an_approved_package_becomes_the_incumbent(sagemaker: Any, register: Register, ledger_table: Ledger) -> None:
    arn = register("Approved")
    assert send(arn)["outcome"] == "deployed"
    model = incumbent_of(ledger_table)
    name = f"papertape-1-{model.model_version[:12]}"
    endpoint = sagemaker.describe_endpoint(EndpointName=name)
    assert (endpoint["EndpointConfigName"], endpoint["EndpointStatus"]) == (name, "InService")
    (variant,) = sagemaker.describe_endpoint_config(EndpointConfigName=name)["ProductionVariants"]
    assert variant["ServerlessConfig"]["MemorySizeInMB"] == 3072
    container = sagemaker.describe_model(ModelName=name)["PrimaryContainer"]
    assert container["ModelDataUrl"] == model.model_uri == f"s3://{BUCKET}/models/1/1/model/model.tar.gz"
    assert container["Environment"] == {"SAGEMAKER_PROGRAM": "inference.py"}
    assert (model.policy, model.spec, model.endpoint, model.kappa) == ("endpoint", arn, name, 0.1)
    assert (model.feature_hash, model.known_until) == (FEATURE_HASH, date(2019, 12, 31))
    assert (model.trained_until, model.evaluated_until) == ("2018-12-21", "2019-12-31"), "the holdout is no training"
    assert ledger_table.shadow() is None


def test_the_probe_is_an_observation_of_the_package_s_own_shape() -> None:
    card = probing.Card(features=["a", "b", "c"], context=["m", "n"])
    asked = probing.observation(card)
    vector = np.asarray(asked["observation"], dtype=np.float32)
    parts = unpack(vector, layout=Layout(assets=2, features=3, context=2))
    assert parts.tradable.all()
    wanted = observe(np.zeros((2, 3)), np.zeros(2), np.ones(2, dtype=bool), np.zeros(2), 1.0)
    assert vector.tobytes() == wanted.tobytes()


def test_the_answer_names_the_trial_and_the_configuration_that_the_package_was_made_by(register: Register) -> None:
    made_by = {"trial": "t" * 64, "configuration": "r" * 64}
    answer = send(register("Approved", **made_by))
    assert answer.items() >= made_by.items()
    assert send(register("Approved"))["trial"] == "", "packages from before there were trials are served as well"


def test_a_rejected_package_becomes_the_shadow(register: Register, ledger_table: Ledger) -> None:
    arn = register("Rejected")
    send(arn)
    shadow = ledger_table.shadow()
    assert shadow is not None
    assert (shadow.spec, shadow.endpoint) == (arn, f"papertape-1-{shadow.model_version[:12]}")
    assert ledger_table.incumbent() is None


def judged(*, passed: bool, **hashes: str) -> dict[str, Any]:
    """Of the package's own model, unless told otherwise."""
    reasons = ["refused: the mean excess is -3.1 bp per year", "refused: 2 seeds, 10 are needed", "passed: turnover 0.6 %"]
    return {"gate": {"passed": passed, "reasons": reasons}, **({"hashes": hashes} if hashes else {})}


def test_the_shadow_carries_the_gates_reasons_against_it(register: Register, ledger_table: Ledger) -> None:
    send(register("Rejected", evaluation=judged(passed=False)))
    shadow = ledger_table.shadow()
    assert shadow is not None
    assert shadow.refused == ("the mean excess is -3.1 bp per year", "2 seeds, 10 are needed")


@pytest.mark.parametrize("evaluation", [judged(passed=True), judged(passed=False, model_hash="b" * 64), {}])
def test_what_a_person_rejected_or_nobody_judged_carries_no_verdict(
    register: Register, ledger_table: Ledger, evaluation: dict[str, Any]
) -> None:
    send(register("Rejected", evaluation=evaluation))
    shadow = ledger_table.shadow()
    assert shadow is not None
    assert shadow.refused == ()


def test_a_verdict_is_noticed_once_with_what_follows_from_it(
    register: Register, ledger_table: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, passed = register("Rejected", evaluation=judged(passed=False)), register("Approved", seed=2)
    for arn in (refused, refused, passed):
        send(arn)
    watching = ledger_table.shadow()
    assert watching is not None
    first, second = ledger_table.waiting_notices()
    assert (first.subject, second.subject) == ("a model passed and trades", "a model was refused")
    assert second.detail.startswith(f"The gate refused the model {watching.model_version[:12]}")
    assert "the mean excess is -3.1 bp per year; 2 seeds, 10 are needed. It only watches. Equal weight trades." in second.detail
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings.model_copy(update={"gate": GateSettings(refused="trade")})))
    ledger_table.put_model(equal_weight(since="2020-01-01T12:00:00Z"))
    arn = register("Rejected", seed=3, evaluation=judged(passed=False))
    send(arn)
    third = next(one for one in ledger_table.waiting_notices() if arn in one.detail)
    assert third.subject == "a refused model trades on paper"
    assert "It trades all the same from the next decision on, on paper only." in third.detail


def test_a_person_who_approves_what_the_gate_refused_is_not_taken_for_the_gate(
    register: Register, ledger_table: Ledger, settings: Settings
) -> None:
    send(register("Approved", evaluation=judged(passed=False)))
    (notice,) = ledger_table.waiting_notices()
    assert notice.subject == "a refused model was approved and trades"
    warning = roles_now(ledger_table, settings).warning
    assert warning == (
        "The gate refused the model that trades here, approved by a person: the mean excess is -3.1 bp per year; 2 seeds, 10 are needed"
    )


def test_a_model_that_waits_says_how_it_is_approved(register: Register, ledger_table: Ledger) -> None:
    arn = register("PendingManualApproval")
    for _ in range(2):
        assert send(arn)["outcome"] == "waits"
    (notice,) = ledger_table.waiting_notices()
    assert notice.subject == "a model waits for approval"
    assert (
        f"aws sagemaker update-model-package --region us-east-1 --model-package-arn {arn} --model-approval-status Approved" in notice.detail
    )


def test_a_pending_or_foreign_package_changes_nothing(
    sagemaker: Any, register: Register, ledger_table: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert send(register("PendingManualApproval"))["outcome"] == "waits"
    (notice,) = ledger_table.waiting_notices()
    monkeypatch.setenv("MODEL_PACKAGE_GROUP", "another")
    assert send(register("Approved"))["outcome"] == "ignored"
    assert send(register("PendingManualApproval"))["outcome"] == "ignored"
    assert ledger_table.waiting_notices() == [notice], "of another group, nothing is said"
    assert (ledger_table.incumbent(), ledger_table.shadow()) == (None, None)
    assert sagemaker.list_endpoints()["Endpoints"] == []


def test_the_same_event_twice_changes_nothing(sagemaker: Any, register: Register, ledger_table: Ledger) -> None:
    arn = register("Approved")
    send(arn)
    first = ledger_table.incumbent()
    assert send(arn, time="2020-02-01T12:00:00Z")["outcome"] == "unchanged"
    assert ledger_table.incumbent() == first
    assert len(sagemaker.list_models()["Models"]) == 1


def test_a_newer_package_takes_over_and_a_late_event_of_the_older_does_not(
    sagemaker: Any, register: Register, ledger_table: Ledger
) -> None:
    old, new = register("Approved"), register("Approved", seed=2)
    send(old)
    send(new)
    assert send(old)["outcome"] == "superseded"
    assert incumbent_of(ledger_table).spec == new


def test_the_pointer_waits_until_the_endpoint_serves(register: Register, ledger_table: Ledger, born: Any) -> None:
    arn = register("Approved")
    send(arn)
    newer = register("Approved", seed=2)
    born("Creating")
    with pytest.raises(NotServingYetError, match=r"papertape-2-[0-9a-f]{12} is not in service yet"):
        send(newer, remaining_ms=0)
    assert incumbent_of(ledger_table).spec == arn
    (name,) = (name for name in sagemaker_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].endpoints if name.startswith("papertape-2-"))
    endpoint_of(name).endpoint_status = "InService"
    assert send(newer)["outcome"] == "deployed"
    assert incumbent_of(ledger_table).spec == newer


def test_a_failed_endpoint_is_an_error_that_says_why_and_the_next_attempt_makes_another(
    register: Register, ledger_table: Ledger, born: Any
) -> None:
    arn = register("Rejected")
    born("Failed")
    with pytest.raises(DeploymentError, match=r"endpoint papertape-1-[0-9a-f]{12} failed: no ping"):
        send(arn)
    assert ledger_table.shadow() is None
    (alert,) = ledger_table.alerts("2020-01")
    assert (alert.rule, alert.session) == ("model-not-served:1", "2020-01-01")
    assert "no ping" in alert.detail
    born("InService")
    assert send(arn)["outcome"] == "deployed"


def test_an_endpoint_in_service_that_answers_500_moves_no_pointer(register: Register, ledger_table: Ledger, runtime: Runtime) -> None:
    """Its server listens and its model was never loaded."""
    send(register("Approved"))
    before = incumbent_of(ledger_table)
    broken = register("Approved", seed=2)
    name = endpoint_name(broken, seed_hash(broken))
    runtime.instead[name] = lambda _body: (500, {"message": "no model was loaded"})
    with pytest.raises(DeploymentError, match="is in service and does not answer"):
        send(broken, time="2020-02-01T12:00:00Z")  # a Saturday
    assert incumbent_of(ledger_table) == before
    assert runtime.asked.count(name) == 3
    (alert,) = ledger_table.alerts("2020-02")
    assert (alert.rule, alert.session) == ("model-not-served:2", "2020-02-03"), "health looks on Monday"
    assert alert.subject == "Version 2 is not the incumbent; what was stays"


def test_an_endpoint_that_answers_as_another_model_moves_no_pointer(register: Register, ledger_table: Ledger, runtime: Runtime) -> None:
    arn = register("Approved")
    right = {"scores": [0.0, 0.0], "model_version": seed_hash(arn), "diagnostics": {"feature_hash": FEATURE_HASH}}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"model_version": "0" * 64}, "model_version must be"),
        ({"diagnostics": {"feature_hash": "0" * 64}}, "feature_hash must be"),
        ({"scores": [0.0]}, "scores must be 2 finite numbers"),
        ({"scores": [0.0, float("nan")]}, "scores must be 2 finite numbers"),
        ({"scores": "none"}, "answers no scores: scores"),
    ]
    for changed, named in wrong:
        runtime.instead[endpoint_name(arn, seed_hash(arn))] = lambda _body, changed=changed: (200, right | changed)  # type: ignore[misc]
        with pytest.raises(DeploymentError, match=named):
            send(arn)
        assert ledger_table.incumbent() is None


def seed_hash(arn: str) -> str:
    """The hash that the package was registered with."""
    return str(boto3.client("sagemaker").describe_model_package(ModelPackageName=arn)["CustomerMetadataProperties"]["model_hash"])


def endpoint_name(arn: str, model_hash: str) -> str:
    return served_name("papertape", version=int(arn.rpartition("/")[2]), model_hash=model_hash)


@pytest.mark.parametrize(("wrong", "named"), [({"model_hash": "0" * 64}, "must have the hash"), ({"gone": "yes"}, "is not there")])
def test_a_package_that_is_not_what_was_registered_moves_no_pointer(
    register: Register, ledger_table: Ledger, wrong: dict[str, str], named: str
) -> None:
    arn = register("Approved", **wrong)
    if "gone" in wrong:
        boto3.client("s3").delete_object(Bucket=BUCKET, Key="models/1/1/model/model.tar.gz")
    with pytest.raises(DeploymentError, match=named):
        send(arn)
    assert ledger_table.incumbent() is None


def test_a_model_of_other_slots_is_refused_before_an_endpoint_is_made(
    register: Register, sagemaker: Any, ledger_table: Ledger, runtime: Runtime, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = register("Approved", seed=1, slots=("open+5", "open+120"))
    with pytest.raises(DeploymentError, match=r"policy\.json: slots must be none \(daily bars\), was open\+5, open\+120; train with"):
        send(own)
    assert ledger_table.incumbent() is None
    assert sagemaker.list_endpoints()["Endpoints"] == []
    schedule = settings.schedule.model_copy(update={"slots": ("open+5", "open+120")})
    training = settings.training.model_copy(update={"timeframe": "1Min"})
    by_slot = settings.model_copy(update={"schedule": schedule, "training": training})
    monkeypatch.setenv(SETTINGS_FILE, settings_file(by_slot))
    with pytest.raises(DeploymentError, match=r"slots must be open\+5, open\+120, was none \(daily bars\)"):
        send(register("Approved", seed=2))
    assert send(own)["outcome"] == "deployed"
    served = ledger_table.incumbent()
    assert served is not None
    assert served.spec == own


def test_what_no_pointer_names_is_deleted_after_a_move(sagemaker: Any, register: Register, ledger_table: Ledger) -> None:
    send(register("Rejected", seed=3))
    for seed in (4, 5):
        told = send(register("Approved", seed=seed))
    serving = {ledger_table.incumbent().endpoint, ledger_table.shadow().endpoint}  # type: ignore[union-attr]
    assert {kind: set(names) for kind, names in existing(sagemaker).items()} == dict.fromkeys(leftovers.LISTED, serving)
    assert told["removed"].count("papertape-2-") == 3


def test_an_endpoint_under_the_names_of_an_earlier_release_serves_until_it_is_replaced(
    sagemaker: Any, register: Register, ledger_table: Ledger
) -> None:
    arn = register("Rejected", seed=3)
    container = {"Image": "i", "ModelDataUrl": "s3://b/k"}
    for number in (0, 1):
        sagemaker.create_model(ModelName=f"papertape-{number}", ExecutionRoleArn="arn:aws:iam::1:role/x", PrimaryContainer=container)
        variant = {"VariantName": "v", "ModelName": f"papertape-{number}", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
        sagemaker.create_endpoint_config(EndpointConfigName=f"papertape-{number}-shadow", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="papertape-shadow", EndpointConfigName="papertape-1-shadow")
    pointer = {"role": "shadow", "policy": "endpoint", "spec": arn.replace("/1", "/0"), "endpoint": "papertape-shadow"}
    ledger_table.put_model(ServedModel(**pointer, model_version="v", kappa=0.1, since="2020-01-01T00:00:00Z"))
    send(register("Approved", seed=4))
    assert existing(sagemaker)["model"] == ["papertape-1", incumbent_of(ledger_table).endpoint]
    assert "papertape-shadow" in existing(sagemaker)["endpoint"]
    send(register("Rejected", seed=5))
    assert len(existing(sagemaker)["endpoint"]) == 2
    assert "papertape-shadow" not in existing(sagemaker)["endpoint"]


def test_destroyed_and_deployed_again_under_one_name_the_new_model_is_served(
    sagemaker: Any, register: Register, ledger_table: Ledger, runtime: Runtime
) -> None:
    """The stacks are gone and came back: another registry that counts from 1, another ledger; what was made outside of them stayed."""
    send(register("Approved", seed=1, execution="old"))
    left = existing(sagemaker)
    backend = sagemaker_backends[DEFAULT_ACCOUNT_ID]["us-east-1"]
    for seed, execution in ((2, "new"), (1, "again")):  # another model; and the same bits from another place
        backend.model_packages.clear()
        backend.model_package_name_mapping.clear()
        backend.model_package_groups.clear()
        sagemaker.create_model_package_group(ModelPackageGroupName=GROUP, ModelPackageGroupDescription="policies")
        ledger_table._table.delete_item(Key={"pk": "model", "sk": "incumbent"})
        arn = register("Approved", seed=seed, execution=execution)
        assert arn.endswith("/1")
        assert send(arn)["outcome"] == "deployed"
        model = incumbent_of(ledger_table)
        assert model.model_version == seed_hash(arn)
        described = sagemaker.describe_model(ModelName=model.endpoint)["PrimaryContainer"]
        assert described["ModelDataUrl"] == f"s3://{BUCKET}/models/{execution}/{seed}/model/model.tar.gz"
        assert existing(sagemaker) == {kind: [model.endpoint] for kind in leftovers.LISTED}, "and nothing else is left"
    assert left == {kind: [f"papertape-1-{seed_hash(arn)[:12]}"] for kind in leftovers.LISTED}


def test_the_same_model_from_another_place_takes_the_place_of_a_leftover(sagemaker: Any, register: Register, ledger_table: Ledger) -> None:
    """An archive of the same bits in another bucket, and a role that is there: the leftover has neither."""
    arn = register("Approved")
    name = endpoint_name(arn, seed_hash(arn))
    gone = {"Image": "registry/serving:1", "ModelDataUrl": "s3://gone/model.tar.gz"}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn="arn:aws:iam::1:role/gone", PrimaryContainer=gone)
    variant = {"VariantName": "v", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert send(arn)["outcome"] == "deployed"
    assert sagemaker.describe_model(ModelName=name)["PrimaryContainer"]["ModelDataUrl"].startswith(f"s3://{BUCKET}/")


def test_all_that_an_app_made_is_listed_and_deleted_and_nothing_of_another_s(sagemaker: Any, register: Register) -> None:
    send(register("Approved", seed=1))
    send(register("Rejected", seed=2))
    for name in ("papertape-dev-1-aaaaaaaaaaaa", "papertape-1-notes", "my-papertape-1"):
        sagemaker.create_model(ModelName=name, ExecutionRoleArn="arn:aws:iam::1:role/x", PrimaryContainer={"Image": "i"})
    made = leftovers.made_by(sagemaker=sagemaker, app="papertape")
    assert [one.kind for one in made] == ["endpoint"] * 2 + ["endpoint-config"] * 2 + ["model"] * 2
    assert all(leftovers.remove(sagemaker=sagemaker, made=one) for one in made)
    assert leftovers.made_by(sagemaker=sagemaker, app="papertape") == []
    assert not any(leftovers.remove(sagemaker=sagemaker, made=one) for one in made if one.kind != "endpoint-config")
    assert len(sagemaker.list_models()["Models"]) == 3


def test_rejecting_the_incumbent_hands_over_to_equal_weight(sagemaker: Any, register: Register, ledger_table: Ledger) -> None:
    """Its endpoint watches on as it is."""
    arn = register("Approved")
    send(arn)
    serving = incumbent_of(ledger_table).endpoint
    kept = sagemaker.describe_model_package(ModelPackageName=arn)["CustomerMetadataProperties"]  # which moto would drop
    sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Rejected", CustomerMetadataProperties=kept)
    send(arn)
    incumbent, shadow = incumbent_of(ledger_table), ledger_table.shadow()
    assert shadow is not None
    assert (incumbent.policy, incumbent.kappa) == ("equal-weight", 1.0)
    assert (shadow.spec, shadow.endpoint) == (arn, serving)


@pytest.mark.parametrize(("missing", "value"), [("model_hash", ""), ("kappa", ""), ("kappa", "fast"), ("kappa", "1.5")])
def test_a_package_without_its_metadata_is_refused(register: Register, ledger_table: Ledger, missing: str, value: str) -> None:
    with pytest.raises(DeploymentError, match=f"CustomerMetadataProperties.{missing}"):
        send(register("Approved", **{missing: value}))
    assert ledger_table.incumbent() is None
