"""F. The model: an endpoint that fails or lies, and a registry whose events come twice, late or in the wrong order."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import numpy as np
import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.sagemaker.models import sagemaker_backends
from moto.sagemakerruntime.models import sagemakerruntime_backends

from lambdas.common.ledger.ledger import Ledger
from lambdas.deploy_model import handler as deploying
from learning.packaging import archive
from schema.settings import SETTINGS_FILE
from tests.faults.agent import Agent
from tests.faults.simulation import NAMES, ROOT, SLOT, Simulation
from trading_env.data.features import CONTEXT, FEATURE_HASH, FEATURES, SCHEMA_VERSION
from trading_env.evaluation.gate import Behaviour, GateThresholds, behaviour
from trading_env.simulation.artifact import FILES, artifact_hash
from trading_env.simulation.policy import PolicyCard, PolicyError, array_shapes, load_policy, save_policy

GOOD: dict[str, Any] = {"scores": [0.0] * 3, "model_version": "v", "diagnostics": {"feature_hash": FEATURE_HASH}}
METADATA = {"kappa": "0.1", "feature_hash": FEATURE_HASH, "evaluated_until": "2019-12-31"}
GROUP = "papertape"
Register = Callable[..., str]
NEXT_SLOT = SLOT + timedelta(days=1)


@pytest.fixture
def agent(simulation: Simulation) -> Agent:
    return Agent(simulation)


def said(status: int, body: Any) -> Callable[[bytes], tuple[int, bytes]]:
    return lambda _request: (status, json.dumps(body).encode())


def no_trade(agent: Agent, simulation: Simulation, rule: str) -> str:
    """Decide; nothing may be traded, and the alert must name the rule. Returns the alert's detail."""
    done = agent.decide()
    assert done is not None
    assert (done["outcome"], done["rule"]) == ("no-trade", rule)
    assert simulation.ours_accepted == 0
    (alert,) = simulation.ledger.alerts("2020-01")
    assert alert.rule == rule
    return alert.detail


def test_f1_an_endpoint_that_fails(agent: Agent, simulation: Simulation) -> None:
    """The endpoint answers 500 to each attempt."""
    agent.served(said(500, {"message": "out of memory"}))
    assert "no answer" in no_trade(agent, simulation, "model-unavailable")


def test_f1_an_endpoint_that_does_not_answer(agent: Agent, simulation: Simulation) -> None:
    """The endpoint never answers; an hour of it is not waited for."""
    agent.served(lambda _request: None)
    assert "Read timeout" in no_trade(agent, simulation, "model-unavailable")


def test_f1_a_cold_start(agent: Agent, simulation: Simulation) -> None:
    """The endpoint takes sixty seconds to answer: the slot's window is longer, the decision is traded."""

    def slowly(_request: bytes) -> tuple[int, bytes]:
        simulation.sleep(60)
        return 200, json.dumps(GOOD).encode()

    agent.served(slowly)
    done = agent.decide()
    assert done is not None
    assert (done["outcome"], done["verdict"]) == ("decided", "accepted")
    assert simulation.ours_accepted == 3


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (GOOD | {"scores": [float("nan")] * 3}, "scores"),
        (GOOD | {"scores": [float("inf"), 0.0, 0.0]}, "scores"),
        (GOOD | {"scores": [1e6, 0.0, 0.0]}, "scores"),
        (GOOD | {"scores": [0.0] * 2}, "scores must have 3 values"),
        (GOOD | {"scores": ["1", 0.0, 0.0]}, "scores.0"),
        (GOOD | {"model_version": "w"}, "model_version must be v, was w"),
        (GOOD | {"diagnostics": {"feature_hash": "x"}}, "feature_hash must be"),
        ({"message": "hello"}, "Field required"),
        ([], "body"),
    ],
    ids=["nan", "infinite", "out of range", "wrong shape", "text", "another version", "another feature table", "another answer", "a list"],
)
def test_f2_an_answer_that_cannot_be_believed(agent: Agent, simulation: Simulation, body: Any, named: str) -> None:
    """The endpoint answers 200 with something that its pointer does not promise."""
    agent.served(said(200, body))
    assert named in no_trade(agent, simulation, "model-unavailable")


def test_f2_scores_out_of_all_proportion(agent: Agent, simulation: Simulation) -> None:
    """The endpoint answers scores that put the whole book into one name: risk refuses the order."""
    agent.served(said(200, GOOD | {"scores": [20.0, -20.0, -20.0]}))
    done = agent.decide()
    assert done is not None
    assert done["verdict"] == "refused"
    assert [order.risk for order in simulation.orders()] == ["max_weight"]
    assert simulation.ours_accepted == 0


def test_f3_a_model_past_its_age(agent: Agent, simulation: Simulation) -> None:
    """The incumbent was trained until 501 days ago, one more than is allowed; it is not even asked."""
    agent.served(lambda _request: pytest.fail("a stale model was asked"), trained_until="2018-08-19")
    assert "may be 500 days old, was 501" in no_trade(agent, simulation, "stale-model")


def saved(folder: Path, *, seed: int = 0) -> str:
    """Write a policy of the feature table that runs here; answers its hash."""
    card = PolicyCard(
        features=tuple(feature.name for feature in FEATURES),
        context=tuple(feature.name for feature in CONTEXT),
        feature_hash=FEATURE_HASH,
        schema_version=SCHEMA_VERSION,
        kappa=0.1,
        trained_on=NAMES,
        train_start="2006-01-03",
        train_end="2015-12-31",
        seeds=(seed,),
        code_version="test",
    )
    save_policy(folder, {name: np.ones(shape) for name, shape in array_shapes(seeds=1, inputs=card.inputs).items()}, card)
    return artifact_hash({name: (folder / name).read_bytes() for name in FILES})


@pytest.fixture
def register(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Register:
    """A model registry in process, whose packages' endpoints answer a probe as they should; answers a new package's ARN."""
    monkeypatch.setattr(deploying, "POLL_SECONDS", 0.0)
    deploying._runtime.cache_clear()
    role = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/serving"
    for name, value in {
        "ENDPOINT_NAME": "papertape",
        "SERVING_ROLE_ARN": role,
        "MODEL_PACKAGE_GROUP": GROUP,
        "LEDGER_TABLE": "faults",
        SETTINGS_FILE: str(ROOT / "settings.toml"),
    }.items():
        monkeypatch.setenv(name, value)
    for backends in (sagemaker_backends, sagemakerruntime_backends):
        backends[DEFAULT_ACCOUNT_ID]["us-east-1"].reset()
    answers = sagemakerruntime_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].results_queue
    client, s3 = boto3.client("sagemaker"), boto3.client("s3")
    client.create_model_package_group(ModelPackageGroupName=GROUP, ModelPackageGroupDescription="policies")
    s3.create_bucket(Bucket="papertape-processed")

    def registered(status: str, *, seed: int = 0) -> str:
        folder, key = tmp_path / str(seed), f"models/{seed}/model/model.tar.gz"
        model_hash = saved(folder, seed=seed)
        s3.put_object(Bucket="papertape-processed", Key=key, Body=archive({name: (folder / name).read_bytes() for name in FILES}))
        probed = {"scores": [0.0, 0.0], "model_version": model_hash, "diagnostics": {"feature_hash": FEATURE_HASH}}
        answers.insert(0, (json.dumps(probed), "application/json", "AllTraffic", ""))  # the newest package is deployed first below
        answer = client.create_model_package(
            ModelPackageGroupName=GROUP,
            ModelPackageDescription="a policy",
            ModelApprovalStatus=status,
            CustomerMetadataProperties=METADATA | {"model_hash": model_hash},
            InferenceSpecification={
                "Containers": [{"Image": "registry/serving:1", "ModelDataUrl": f"s3://papertape-processed/{key}"}],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        )
        return str(answer["ModelPackageArn"])

    return registered


def event(arn: str) -> str:
    """The registry's event of a change, delivered; answers what was done."""
    told = {"time": "2020-01-01T12:00:00Z", "detail": {"ModelPackageArn": arn}}
    done = deploying.handler(told, SimpleNamespace(aws_request_id="r", get_remaining_time_in_millis=lambda: 600_000))
    return str(done["outcome"])


def test_f4_registry_events_twice_late_and_out_of_order(register: Register, ledger: Ledger, verdict: Callable[[str], None]) -> None:
    """Two packages are approved; the events come newer first, each twice, and the newer is rejected after its approval."""
    older, newer = register("Approved"), register("Approved", seed=1)
    assert [event(arn) for arn in (newer, newer, older, older)] == ["deployed", "unchanged", "superseded", "superseded"]
    incumbent = ledger.incumbent()
    assert incumbent is not None
    assert incumbent.spec == newer
    sagemaker = boto3.client("sagemaker")
    kept = sagemaker.describe_model_package(ModelPackageName=newer)["CustomerMetadataProperties"]  # which moto would drop
    sagemaker.update_model_package(ModelPackageArn=newer, ModelApprovalStatus="Rejected", CustomerMetadataProperties=kept)
    assert [event(newer), event(newer)] == ["deployed", "unchanged"]
    incumbent, shadow = ledger.incumbent(), ledger.shadow()
    assert incumbent is not None
    assert shadow is not None
    assert (incumbent.policy, shadow.spec) == ("equal-weight", newer)
    verdict("the newer decides, once; withdrawn, equal weight decides and it watches")


def test_f5_an_observation_outside_of_what_was_trained(agent: Agent, simulation: Simulation) -> None:
    """The endpoint says that a fifth of its inputs lie outside of what the model was trained on."""
    agent.served(said(200, GOOD | {"diagnostics": {"feature_hash": FEATURE_HASH, "outside": 0.2}}))
    assert "20.0% of its inputs lie outside" in no_trade(agent, simulation, "out-of-envelope")


def test_f5_an_observation_just_within_it(agent: Agent, simulation: Simulation) -> None:
    """The endpoint makes the most of what it has hardly seen, for a book that is held: one step moves a tenth of it at most."""
    agent.decide()
    simulation.advance("2020-01-02T21:05:00+00:00")
    simulation.reconcile()
    agent.fill(until="2020-01-02")
    simulation.advance(NEXT_SLOT)
    agent.served(said(200, GOOD | {"scores": [20.0, -20.0, -20.0], "diagnostics": {"feature_hash": FEATURE_HASH, "outside": 0.09}}))
    done = agent.decide(NEXT_SLOT)
    assert done is not None
    assert done["verdict"] == "accepted"
    moved = sum(order.traded for order in simulation.orders() if order.created_at >= "2020-01-03")
    assert 0 < float(moved / simulation.venue.equity) < 2 * 0.1


def test_f6_a_policy_that_never_changes_its_mind(verdict: Callable[[str], None]) -> None:
    """Scores that move by nothing over the whole judged period: the gate refuses the model and says why."""
    checks = behaviour(Behaviour(turnover=0.01, effective_n=3.0, names=3, score_range=0.0), bar=GateThresholds())
    (constant,) = [check for check in checks if check.name == "constant"]
    assert not constant.passed
    assert "a constant policy" in constant.sentence
    verdict("the gate refuses")


class Trap:
    """An object whose unpickling would run code."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize("forged", ["pickle", "hash", "cut"])
def test_f7_an_artifact_that_is_not_what_it_should_be(tmp_path: Path, forged: str, verdict: Callable[[str], None]) -> None:
    """The archive holds a pickle, belongs to another feature table, or is cut off: it is refused before anything of it runs."""
    saved(tmp_path)
    load_policy(tmp_path, expected_feature_hash=FEATURE_HASH)
    archive = tmp_path / "policy.npz"
    if forged == "pickle":
        np.save(tmp_path / "b4.npy", np.array([Trap()], dtype=object), allow_pickle=True)
        with zipfile.ZipFile(archive) as whole:
            kept = {name: whole.read(name) for name in whole.namelist() if name != "b4.npy"}
        with zipfile.ZipFile(archive, "w") as other:
            for name, content in {**kept, "b4.npy": (tmp_path / "b4.npy").read_bytes()}.items():
                other.writestr(name, content)
    if forged == "cut":
        archive.write_bytes(archive.read_bytes()[:1000])
    with pytest.raises(PolicyError):
        load_policy(tmp_path, expected_feature_hash="0" * 64 if forged == "hash" else FEATURE_HASH)
    verdict("refused")


def test_f8_a_new_model_watches_before_it_decides(register: Register, agent: Agent, simulation: Simulation) -> None:
    """A package that the gate refused is served as the shadow: it sees each observation, is recorded, and orders nothing."""
    assert event(register("Rejected")) == "deployed"
    shadow = simulation.ledger.shadow()
    assert shadow is not None
    simulation.edges.endpoint = said(200, GOOD | {"scores": [5.0, 0.0, 0.0], "model_version": shadow.model_version})
    done = agent.decide()
    assert done is not None
    assert done["model_version"] == "equal-weight"
    (watched,) = simulation.ledger.shadow_decisions("2020-01")
    assert watched.weights["AAPL"] > 0.9
    assert {round(float(quantity * simulation.venue.price(symbol)), -3) for symbol, quantity in simulation.held.items()} == {33000.0}
