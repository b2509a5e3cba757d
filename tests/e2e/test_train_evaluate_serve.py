"""The jobs of the pipeline as SageMaker runs them: train two seeds, judge them, serve the result; twice, for the same model."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from learning import packaging
from learning.serving import RequestError, output_fn
from papertape.market_data import bundled
from schema import settings as settings_module
from trading_env.data.bars import validate
from trading_env.data.features import CONTEXT, FEATURE_HASH, FEATURES
from trading_env.data.market import Market, build_market, to_table
from trading_env.data.observation import Layout, Observation, observe
from trading_env.simulation.policy import load_policy

ROOT = Path(__file__).parents[2]
SEEDS = (0, 1)
# PPO: in so few names direct reinforcement finds nothing, and scores of zero would prove little of what is served
BRIEF: dict[str, Any] = {"algorithm": "ppo", "test_start": date(2018, 1, 2), "folds": 2, "seeds": SEEDS, "timesteps": 4096}
APP = settings_module.load(ROOT / "data" / "settings.toml")
SETTINGS = APP.model_copy(update={"training": APP.training.model_copy(update=BRIEF)})
SYMBOLS = SETTINGS.universe.symbols


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"papertape_sagemaker_{name}", ROOT / "sagemaker" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


pipeline = load("pipeline")


@pytest.fixture(scope="module")
def market() -> Market:
    bars = bundled.daily_bars()
    bars = bars[bars["symbol"].isin(SYMBOLS) & (bars["session"] < pd.Timestamp(SETTINGS.training.live_start))]
    sessions = bundled.sessions()
    valid = validate(bars, sessions=sessions[sessions < pd.Timestamp(SETTINGS.training.live_start)]).bars
    return build_market(valid, bundled.corporate_actions(), symbols=SYMBOLS)


@pytest.fixture(scope="module")
def channel(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("channel")
    table = to_table(market)
    path = folder / "year=all" / "part-0.parquet"
    path.parent.mkdir()
    table.to_parquet(path, index=False)
    entry = {"key": "year=all/part-0.parquet", "rows": len(table)}
    entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = {"feature_hash": FEATURE_HASH, "rows": len(table), "end": str(market.sessions[-1]), "files": [entry]}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Run:
    """What one run of the pipeline's jobs left behind."""

    evaluation: dict[str, Any]
    archive: bytes
    training: dict[int, list[dict[str, Any]]]
    trials: dict[str, bytes]
    log: str


def clean(**variables: str) -> dict[str, str]:
    """A container's environment: nothing of the repository on the path, the app's Python first."""
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/tmp"), **variables}


@dataclass(frozen=True)
class Source:
    """The archive of the code, and where it is unpacked: once, and with what numba has compiled of it already."""

    archive: bytes
    folder: Path


def run_jobs(root: Path, channel: Path, *, source: Source, trials: Path) -> Run:
    """Train the seeds side by side, then run the processing job through its real entrypoint.

    The log of trials is a folder here, and there is no registry: nothing of AWS is running.
    """
    processing, training = root / "processing", {}

    def train(seed: int) -> str:
        base = root / f"train-{seed}"
        (base / "model").mkdir(parents=True)
        job = subprocess.run(
            [sys.executable, "train.py", "--seed", str(seed), "--settings", "settings.json"],
            cwd=source.folder,
            env=clean(SM_CHANNEL_FEATURES=str(channel), SM_MODEL_DIR=str(base / "model"), SM_OUTPUT_DATA_DIR=str(base)),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert job.returncode == 0, job.stderr
        return job.stdout

    with ThreadPoolExecutor() as pool:
        log = "".join(pool.map(train, SEEDS))
    for seed in SEEDS:
        model = root / f"train-{seed}" / "model"
        training[seed] = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(model.glob("fold-*/training.json"))]
        target = processing / "input" / "models" / str(seed) / f"pipelines-x-Train-{seed}" / "output" / "model.tar.gz"
        target.parent.mkdir(parents=True)
        files = {path.relative_to(model).as_posix(): path.read_bytes() for path in model.rglob("*") if path.is_file()}
        target.write_bytes(packaging.archive(files))
    (processing / "input" / "code").mkdir()
    (processing / "input" / "code" / "0abc.gz").write_bytes(source.archive)
    (processing / "input" / "features").symlink_to(channel)
    definition = pipeline.definition(settings=SETTINGS, role_arn="r", bucket="b", package_group="g", source_uri="s3://b/0abc.gz")
    steps = definition["Steps"][-1]["Arguments"]["IfSteps"]
    application = next(step for step in steps if step["Name"] == "Evaluate")["Arguments"]["AppSpecification"]
    given = application["ContainerArguments"]
    given[given.index("--trials") + 1] = str(trials)
    unregistered = given.index("--package-group")
    command = [*application["ContainerEntrypoint"], *given[:unregistered], *given[unregistered + 2 :]]
    judged = subprocess.run(
        [part.replace("/opt/ml/processing", str(processing)) for part in command],
        env=clean(PIP_NO_INDEX="1"),  # what the containers would install is all here
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert judged.returncode == 0, judged.stderr
    evaluation = json.loads((processing / "output" / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    archive = (processing / "output" / "model" / "model.tar.gz").read_bytes()
    entries = {path.name: path.read_bytes() for path in trials.iterdir()}
    return Run(evaluation=evaluation, archive=archive, training=training, trials=entries, log=log + judged.stdout)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trials")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    archive, folder = packaging.source_archive(settings_json=SETTINGS.model_dump_json()), tmp_path_factory.mktemp("code")
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        tar.extractall(folder, filter="data")
    compiled = list((ROOT / "trading_env").rglob("__pycache__/*.nb[ci]"))
    for path in compiled:
        kept = folder / path.relative_to(ROOT)
        kept.parent.mkdir(exist_ok=True)
        shutil.copy(path, kept)
    for module in {path.parents[1] / f"{path.name.partition('.')[0]}.py" for path in compiled}:
        shutil.copystat(module, folder / module.relative_to(ROOT))  # numba asks for the time and size of its source
    return Source(archive, folder)


@pytest.fixture(scope="module")
def first(channel: Path, source: Source, trials: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_jobs(tmp_path_factory.mktemp("first"), channel, source=source, trials=trials)


@pytest.fixture(scope="module")
def model(first: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    with tarfile.open(fileobj=io.BytesIO(first.archive), mode="r:gz") as tar:
        tar.extractall(folder, filter="data")
    return folder


def test_the_verdict_says_what_it_rests_on(first: Run, market: Market) -> None:
    evaluation, window = first.evaluation, market.rows("2018-01-02", "2018-12-31")
    folds = evaluation["windows"]["folds"]
    assert [(fold["number"], fold["test_start"], fold["holdout"]) for fold in folds] == [
        (0, "2018-01-02", False),
        (1, "2018-07-03", False),
        (2, "2019-01-02", True),
    ]
    assert evaluation["windows"]["train_end"] == folds[2]["train_end"] == "2018-12-21"
    assert (evaluation["windows"]["evaluation_start"], evaluation["windows"]["evaluation_end"]) == ("2018-01-02", "2018-12-31")
    assert evaluation["curves"]["sessions"] == [str(session) for session in window.sessions]
    growth = evaluation["curves"]["growth"]
    assert {"agent", "equal weight", "SPY"} <= set(growth)
    assert {len(series) for series in growth.values()} == {len(window)}
    assert growth["agent"] != growth["equal weight"]
    assert set(evaluation["curves"]["seeds"]) == {"0", "1"}
    records = [record for own in first.training.values() for record in own]
    assert len(records) == len(SEEDS) * len(folds)
    assert evaluation["training"]["timesteps"] == sum(record["timesteps"] for record in records)
    assert evaluation["training"]["steps_per_second"] > 0


def test_two_folds_of_two_seeds_are_too_little_evidence_and_the_holdout_stays_shut(first: Run) -> None:
    gate = first.evaluation["gate"]
    assert gate["passed"] is False
    checks = {check["name"]: check for check in gate["checks"]}
    assert checks["evidence"]["passed"] is False
    assert "2 folds" in checks["evidence"]["sentence"]
    assert "2 seeds" in checks["evidence"]["sentence"]
    assert checks["holdout"]["passed"] is False
    assert first.evaluation["log"]["openings"] == 0
    assert first.evaluation["answer"].startswith(f"{SETTINGS.training.algorithm_name} ")
    assert f"refused: {checks['evidence']['sentence']}" in gate["reasons"]


def test_the_benchmark_grew_as_its_own_prices_and_dividends_say(first: Run, market: Market) -> None:
    """Against arithmetic that shares nothing with the simulator: total return of SPY from the first open to the last close."""
    spy, window = SYMBOLS.index("SPY"), market.rows("2018-01-02", "2018-12-31")
    growth = window.close[0, spy] / window.open[0, spy]
    for row in range(1, len(window)):
        growth *= (window.close[row, spy] + window.dividend[row, spy]) / window.close[row - 1, spy]
    curves = first.evaluation["curves"]
    reported = curves["growth"]["SPY"][-1] / curves["initial_cash"]
    assert reported == pytest.approx(growth, rel=0.01)  # half a percent in cash, ten basis points to buy


def test_metadata_fits_a_model_package(first: Run) -> None:
    metadata = first.evaluation["metadata"]
    registered = pipeline.definition(settings=SETTINGS, role_arn="r", bucket="b", package_group="g", source_uri="s")["Steps"][-1][
        "Arguments"
    ]["IfSteps"][-1]
    properties = registered["Arguments"]["CustomerMetadataProperties"]
    assert {value["Std:JsonGet"]["Path"] for value in properties.values()} == {f"metadata.{name}" for name in metadata}
    for value in metadata.values():
        assert isinstance(value, str)
        assert len(value) <= 256
        assert all(character.isalnum() or character in " _.:/=+-@" for character in value)


@pytest.mark.rehearse
def test_a_second_run_gives_the_same_weights_table_and_verdict_and_adds_no_trial(
    first: Run, channel: Path, source: Source, trials: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    second = run_jobs(tmp_path_factory.mktemp("second"), channel, source=source, trials=trials)
    assert second.archive == first.archive
    same = (
        "trial",
        "configuration",
        "answer",
        "hashes",
        "windows",
        "headline",
        "rows",
        "statistics",
        "gate",
        "trials",
        "curves",
        "metadata",
    )
    for part in same:
        assert second.evaluation[part] == first.evaluation[part], part
    assert list(first.trials) == ["000001.json"]
    assert second.trials == first.trials
    assert (first.evaluation["log"]["new"], second.evaluation["log"]["new"]) == (True, False)


def test_seeds_differ_and_report_their_progress(first: Run) -> None:
    rewards = [[line["rollout_reward"] for line in record["curve"]] for seed in SEEDS for record in first.training[seed]]
    assert len({tuple(one) for one in rewards}) == len(SEEDS) * 3
    lines = [json.loads(line) for line in first.log.splitlines() if line.startswith('{"seed"')]
    assert {(line["seed"], line["fold"], line["folds"]) for line in lines} == {(seed, fold, 3) for seed in SEEDS for fold in range(3)}
    assert all(0 < line["timesteps"] <= line["of"] and line["steps_per_second"] > 0 for line in lines)


def test_training_past_live_start_is_refused_and_leaves_no_model(channel: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_dump(mode="json")
    settings["training"] |= {"live_start": "2019-12-02"}
    run = subprocess.run(
        [sys.executable, ROOT / "sagemaker" / "train.py", "--seed", "0", "--settings", json.dumps(settings)],
        env=clean(SM_CHANNEL_FEATURES=str(channel), SM_MODEL_DIR=str(tmp_path), PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode != 0
    assert run.stderr.strip().splitlines()[-1] == (
        "train.py: manifest.json: end must be before live_start 2019-12-02, was 2019-12-31; such rows are never read here"
    )
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True)
class Endpoint:
    port: int

    def post(self, body: bytes, *, content_type: str = "application/json") -> tuple[int, dict[str, Any]]:
        return self.ask("POST", "/invocations", body, {"Content-Type": content_type})

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            document: dict[str, Any] = json.loads(answer.read())
            return answer.status, document
        finally:
            connection.close()


@contextmanager
def serving(model: Path, cwd: Path) -> Iterator[Endpoint]:
    process = subprocess.Popen(
        [sys.executable, model / "code" / "inference.py", "--serve", "0", "--model-dir", model],
        cwd=cwd,
        env=clean(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        assert ready["ready"] is True
        yield Endpoint(ready["port"])
    finally:
        process.terminate()
        process.wait(timeout=10)
        process.stdout.close()


@pytest.fixture(scope="module")
def endpoint(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with serving(model, tmp_path_factory.mktemp("elsewhere")) as running:
        yield running


@pytest.fixture(scope="module")
def request_body(market: Market) -> dict[str, Any]:
    row = len(market) - 1
    held = np.full(len(SYMBOLS), 0.995 / len(SYMBOLS))
    vector = observe(market.features[row], market.context[row], market.tradable[row], held, 0.005)
    return {"schema": 1, "as_of": str(market.sessions[row]), "symbols": list(SYMBOLS), "observation": [float(value) for value in vector]}


def test_the_endpoint_gives_the_artifacts_scores(endpoint: Endpoint, model: Path, first: Run, request_body: dict[str, Any]) -> None:
    assert endpoint.ask("GET", "/ping")[0] == 200
    status, answer = endpoint.post(json.dumps({**request_body, "feature_hash": FEATURE_HASH}).encode())
    assert status == 200
    vector = np.asarray(request_body["observation"], dtype=np.float32)
    observation = Observation(as_of=np.datetime64(request_body["as_of"]), symbols=SYMBOLS, vector=vector)
    assert answer["scores"] == load_policy(model).scores(observation).tolist()
    assert np.ptp(answer["scores"]) > 0
    assert answer["model_version"] == first.evaluation["model_hash"]
    assert answer["diagnostics"]["kappa"] == SETTINGS.portfolio.kappa
    assert answer["diagnostics"]["feature_hash"] == FEATURE_HASH


def altered(body: dict[str, Any], name: str, value: Any) -> bytes:
    return json.dumps({**body, name: value}).encode()


def test_a_wrong_request_is_a_4xx_that_says_which(endpoint: Endpoint, request_body: dict[str, Any]) -> None:
    observed = request_body["observation"]
    width = Layout(assets=len(SYMBOLS), features=len(FEATURES), context=len(CONTEXT)).width
    cases: list[tuple[bytes, str, str]] = [
        (altered(request_body, "observation", observed[:-1]), "observation", f"must hold {width} numbers"),
        (altered(request_body, "observation", [*observed[:5], float("nan"), *observed[6:]]), "observation[5]", "was nan"),
        (altered(request_body, "observation", [1e300, *observed[1:]]), "observation[0]", "finite in float32"),
        (altered(request_body, "observation", ["1.0", *observed[1:]]), "observation[0]", "must be a number"),
        (
            altered(request_body, "observation", [*observed[: len(FEATURES) + 1], 0.5, *observed[len(FEATURES) + 2 :]]),
            "observation",
            "mask",
        ),
        (altered(request_body, "feature_hash", "0" * 64), "feature_hash", "another feature table"),
        (altered(request_body, "symbols", [*SYMBOLS[:-1], SYMBOLS[0]]), "symbols", "distinct"),
        (altered(request_body, "symbols", list(SYMBOLS[:-1])), "observation", "for 7 symbols"),
        (altered(request_body, "schema", 2), "schema", "must be 1, was 2"),
        (altered(request_body, "as_of", "yesterday"), "as_of", "yesterday"),
        (altered(request_body, "colour", 1), "colour", "not a field"),
        (json.dumps({name: value for name, value in request_body.items() if name != "as_of"}).encode(), "as_of", "missing"),
        (b"{", "body", "not JSON"),
        (b"[]", "body", "must be an object"),
    ]
    for body, field, words in cases:
        status, answer = endpoint.post(body)
        assert 400 <= status < 500, (field, answer)
        assert answer["field"] == field
        assert words in answer["error"]
    assert endpoint.post(json.dumps(request_body).encode(), content_type="text/csv")[0] == 415
    assert endpoint.post(json.dumps(request_body).encode())[0] == 200, "a refused request must not harm the next one"


def test_an_altered_artifact_never_serves(model: Path, tmp_path: Path) -> None:
    for name in ("policy.npz", "policy.json"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    (tmp_path / "policy.npz").write_bytes((model / "policy.npz").read_bytes()[:-100])
    command = [sys.executable, model / "code" / "inference.py", "--serve", "0", "--model-dir", tmp_path]
    run = subprocess.run(command, env=clean(), capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode != 0
    assert "policy.npz" in run.stderr
    assert "ready" not in run.stdout


def test_the_server_ends_with_the_process_that_started_it(model: Path, tmp_path: Path) -> None:
    starter = (
        "import subprocess, sys\n"
        "server = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)\n"
        "print(server.pid, server.stdout.readline(), flush=True)\n"
    )
    command = [sys.executable, str(model / "code" / "inference.py"), "--serve", "0", "--model-dir", str(model)]
    run = subprocess.run(
        [sys.executable, "-c", starter, *command], cwd=tmp_path, env=clean(), stdout=subprocess.PIPE, text=True, timeout=30, check=True
    )
    assert '"ready": true' in run.stdout
    pid = int(run.stdout.split()[0])
    deadline = time.monotonic() + 5
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    if _alive(pid):
        os.kill(pid, 9)
        pytest.fail("the server outlived the process that started it")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_archive_serves_under_the_toolkits_contract(model: Path) -> None:
    """What the container's toolkit looks for, by name and by number of parameters; and nothing but data and code inside."""
    inference = load("inference")
    counts = {name: len(signature(getattr(inference, name)).parameters) for name in ("model_fn", "input_fn", "predict_fn", "output_fn")}
    assert counts == {"model_fn": 1, "input_fn": 2, "predict_fn": 2, "output_fn": 2}
    files = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {"policy.npz", "policy.json", "code/inference.py", "code/requirements.txt", "code/trading_env/simulation/policy.py"} <= files
    assert {Path(name).suffix for name in files} == {".npz", ".json", ".py", ".txt"}
    with pytest.raises(RequestError) as caught:
        output_fn({"scores": []}, "text/csv")
    assert caught.value.status_code == 406
