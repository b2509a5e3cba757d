"""SageMaker pipeline definitions (schema 2020-12-01), executed with real subprocesses on this machine.

`PipelineExecution.run()` walks the steps of a definition in dependency order, independent ones in parallel, and leaves a status and a
reason on every step; it never raises for a failing step, and a step that it does not know fails by name. Training and processing scripts
run in the app's Python with the directories, variables and arguments that SageMaker's containers give them, below a temporary root. Runs
inside the emulator's interpreter and imports nothing but the standard library and boto3.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trading_env.errors import PapertapeError

PROCESSING = "/opt/ml/processing"
CHILD = Path(__file__).resolve().parents[2] / "papertape" / "child_process.py"
_TOKEN = re.compile(r"\.?([^.\[\]]+)|\[(?:'([^']*)'|\"([^\"]*)\"|(\d+))\]")
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "Equals": lambda a, b: a == b,
    "GreaterThan": lambda a, b: a > b,
    "GreaterThanOrEqualTo": lambda a, b: a >= b,
    "LessThan": lambda a, b: a < b,
    "LessThanOrEqualTo": lambda a, b: a <= b,
}


class StepError(PapertapeError):
    """A step or a reference in the definition cannot be carried out; the message is its FailureReason."""


def tokens(path: str) -> list[str | int]:
    """`A.B['c'][0]` as `["A", "B", "c", 0]`."""
    return [int(m[4]) if m[4] else next(p for p in (m[1], m[2], m[3]) if p is not None) for m in _TOKEN.finditer(path)]


def navigate(value: Any, path: list[str | int], *, source: str) -> Any:
    for token in path:
        try:
            value = value[token]
        except (KeyError, IndexError, TypeError) as error:
            known = ", ".join(value) if isinstance(value, dict) else type(value).__name__
            raise StepError(f"{source}: {token!r} is not there, known: {known}") from error
    return value


def references(value: Any) -> Iterator[str]:
    """Names of the steps that a fragment of the definition refers to."""
    if isinstance(value, dict):
        target = value.get("Get")
        if isinstance(target, str) and target.startswith("Steps."):
            yield str(tokens(target)[1])
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def deterministic_tar(folder: Path) -> bytes:
    """`folder` as a tar.gz whose bytes depend on names and contents alone."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size, entry.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                tar.addfile(entry, file)
    return gzip.compress(raw.getvalue(), mtime=0)


def command_line(hyperparameters: dict[str, str]) -> list[str]:
    """The arguments that SageMaker's training toolkit makes of hyperparameters: values are JSON, mappings become `k=v,k=v`."""
    arguments: list[str] = []
    for key in sorted(k for k in hyperparameters if not k.startswith("sagemaker_")):
        value = decoded(hyperparameters[key])
        shown = ",".join(f"{k}={v}" for k, v in sorted(value.items())) if isinstance(value, dict) else str(value)
        arguments += [f"--{key}" if len(key) > 1 else f"-{key}", shown]
    return arguments


def decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def split_uri(uri: str) -> tuple[str, str]:
    if not uri.startswith("s3://"):
        raise StepError(f"an S3 URI is needed, was {uri!r}")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


class Storage:
    """The emulator's S3 through its own front door; `client` is a boto3 S3 client."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def download(self, uri: str, folder: Path) -> int:
        """Copy the object at `uri`, or every object below it, into `folder`; raise StepError when there is none."""
        bucket, key = split_uri(uri)
        found = 0
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key):
            for entry in page.get("Contents", []):
                name = entry["Key"]
                relative = name.removeprefix(key).lstrip("/") if name != key else name.rsplit("/", 1)[-1]
                if name.endswith("/") or (name != key and not key.endswith("/") and name[len(key) : len(key) + 1] != "/"):
                    continue
                target = folder / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self.client.get_object(Bucket=bucket, Key=name)["Body"].read())
                found += 1
        if not found:
            raise StepError(f"ClientError: no S3 object found at {uri}")
        return found

    def read(self, uri: str) -> bytes:
        bucket, key = split_uri(uri)
        try:
            return bytes(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())
        except self.client.exceptions.NoSuchKey as error:
            raise StepError(f"ClientError: no S3 object found at {uri}") from error

    def write(self, uri: str, body: bytes) -> None:
        bucket, key = split_uri(uri)
        self.client.put_object(Bucket=bucket, Key=key, Body=body)

    def upload(self, folder: Path, uri: str) -> None:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            self.write(f"{uri.rstrip('/')}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def extract(archive: bytes, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


@dataclass
class PipelineExecution:
    """One run of a definition. `steps` maps a step's name to its public record, in the order in which they started."""

    identifier: str
    arn: str
    pipeline: str
    definition: dict[str, Any]
    parameters: dict[str, Any]
    root: Path
    storage: Storage
    python: str
    register: Callable[[dict[str, Any]], str]
    job_arn: Callable[[str, str], str]
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    stopped: bool = False
    _properties: dict[str, dict[str, Any]] = field(default_factory=dict)
    _children: set[subprocess.Popen[str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> tuple[str, str]:
        """Run every step; return ("Succeeded" | "Failed" | "Stopped", reason)."""
        pending = {step["Name"]: step for step in self.definition["Steps"]}
        running: dict[Future[dict[str, Any]], str] = {}
        failure = ""
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="pipeline") as pool:
            while pending or running:
                ready = [] if failure or self.stopped else [name for name, step in pending.items() if self._ready(step, pending)]
                for name in ready:
                    step = pending.pop(name)
                    self.steps[name] = {"StepName": name, "StepStatus": "Starting", "StartTime": time.time()}
                    running[pool.submit(self._run_step, step)] = name
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    name = running.pop(future)
                    record, error = self.steps[name], future.exception()
                    record["EndTime"] = time.time()
                    if error is None:
                        record["StepStatus"] = "Succeeded"
                        pending |= {step["Name"]: step for step in future.result().get("next", [])}
                    else:
                        record |= {"StepStatus": "Stopped" if self.stopped else "Failed", "FailureReason": _reason(error)}
                        failure = failure or f"Step failure: {name}: {_reason(error)}"
        shutil.rmtree(self.root, ignore_errors=True)
        if self.stopped:
            return "Stopped", "stopped on request"
        if not failure and pending:
            failure = f"steps that depend on what is not there: {', '.join(pending)}"
        return ("Failed", failure) if failure else ("Succeeded", "")

    def stop(self) -> None:
        self.stopped = True
        with self._lock:
            for child in self._children:
                child.terminate()

    def _ready(self, step: dict[str, Any], pending: dict[str, Any]) -> bool:
        arguments = {k: v for k, v in step["Arguments"].items() if k not in ("IfSteps", "ElseSteps")} if step.get("Arguments") else {}
        needs = {*step.get("DependsOn", []), *references(arguments)}
        return all(name in self._properties and name not in pending for name in needs)

    def _run_step(self, step: dict[str, Any]) -> dict[str, Any]:
        runners = {
            "Training": self._train,
            "Processing": self._process,
            "Condition": self._choose,
            "RegisterModel": self._register,
            "Fail": self._fail,
        }
        if step["Type"] not in runners:
            raise StepError(f"step type {step['Type']!r} does not run on the laptop, known: {', '.join(runners)}")
        self.steps[step["Name"]]["StepStatus"] = "Executing"
        result = runners[step["Type"]](step)
        self._properties[step["Name"]] = result
        return result

    def _train(self, step: dict[str, Any]) -> dict[str, Any]:
        request = self.resolve(step["Arguments"])
        job, base = self._job_name(step["Name"]), self.root / step["Name"] / "opt" / "ml"
        self.steps[step["Name"]]["Metadata"] = {"TrainingJob": {"Arn": self.job_arn("training-job", job)}}
        folders = {name: base / name for name in ("model", "code", "output/data", "output/intermediate", "input/data")}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        hyperparameters: dict[str, str] = request.get("HyperParameters", {})
        environment = {
            **request.get("Environment", {}),
            "SM_BASE_DIR": str(base),
            "SM_MODEL_DIR": str(folders["model"]),
            "SM_OUTPUT_DIR": str(base / "output"),
            "SM_OUTPUT_DATA_DIR": str(folders["output/data"]),
            "SM_INPUT_DIR": str(base / "input"),
            "SM_HPS": json.dumps({k: decoded(v) for k, v in hyperparameters.items() if not k.startswith("sagemaker_")}),
            "SM_NUM_CPUS": str(os.cpu_count() or 1),
            "SM_NUM_GPUS": "0",
            "SM_HOSTS": '["algo-1"]',
            "SM_CURRENT_HOST": "algo-1",
            "TRAINING_JOB_NAME": job,
        }
        for channel in request.get("InputDataConfig", []):
            name = channel["ChannelName"]
            folder = folders["input/data"] / name
            self.storage.download(channel["DataSource"]["S3DataSource"]["S3Uri"], folder)
            environment[f"SM_CHANNEL_{name.upper().replace('-', '_')}"] = str(folder)
        program = decoded(hyperparameters.get("sagemaker_program", '"train.py"'))
        extract(self.storage.read(decoded(hyperparameters["sagemaker_submit_directory"])), folders["code"])
        self._child([str(folders["code"] / program), *command_line(hyperparameters)], cwd=folders["code"], environment=environment)
        prefix = f"{request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{job}/output"
        self.storage.write(f"{prefix}/model.tar.gz", deterministic_tar(folders["model"]))
        self.storage.write(f"{prefix}/output.tar.gz", deterministic_tar(folders["output/data"]))
        return {
            **request,
            "TrainingJobName": job,
            "TrainingJobStatus": "Completed",
            "ModelArtifacts": {"S3ModelArtifacts": f"{prefix}/model.tar.gz"},
        }

    def _process(self, step: dict[str, Any]) -> dict[str, Any]:
        request = self.resolve(step["Arguments"])
        job, base = self._job_name(step["Name"]), self.root / step["Name"] / "processing"
        self.steps[step["Name"]]["Metadata"] = {"ProcessingJob": {"Arn": self.job_arn("processing-job", job)}}

        def local(text: str) -> str:
            return text.replace(PROCESSING, str(base))

        for entry in request.get("ProcessingInputs", []):
            source = entry["S3Input"]
            self.storage.download(source["S3Uri"], Path(local(source["LocalPath"])))
        outputs = {entry["OutputName"]: entry for entry in request.get("ProcessingOutputConfig", {}).get("Outputs", [])}
        for entry in outputs.values():
            Path(local(entry["S3Output"]["LocalPath"])).mkdir(parents=True, exist_ok=True)
        specification = request["AppSpecification"]
        command = [local(part) for part in (*specification["ContainerEntrypoint"], *specification.get("ContainerArguments", []))]
        environment = {**{k: local(v) for k, v in request.get("Environment", {}).items()}, "PROCESSING_ROOT": str(base)}
        interpreted = Path(command[0]).name.startswith("python")
        self._child(command[1:] if interpreted else command, cwd=base, environment=environment, interpreted=interpreted)
        for entry in outputs.values():
            self.storage.upload(Path(local(entry["S3Output"]["LocalPath"])), entry["S3Output"]["S3Uri"])
        files = {}
        for entry in step.get("PropertyFiles", []):
            path = Path(local(outputs[entry["OutputName"]]["S3Output"]["LocalPath"])) / entry["FilePath"]
            if not path.is_file():
                raise StepError(f"property file {entry['PropertyFileName']}: {entry['FilePath']} was not written")
            files[entry["PropertyFileName"]] = json.loads(path.read_text(encoding="utf-8"))
        return {**request, "ProcessingJobName": job, "ProcessingOutputConfig": {"Outputs": outputs}, "PropertyFiles": files}

    def _choose(self, step: dict[str, Any]) -> dict[str, Any]:
        arguments = step["Arguments"]
        outcome = all(self._holds(condition) for condition in arguments["Conditions"])
        self.steps[step["Name"]]["Metadata"] = {"Condition": {"Outcome": str(outcome)}}
        return {"Outcome": outcome, "next": arguments.get("IfSteps" if outcome else "ElseSteps", [])}

    def _register(self, step: dict[str, Any]) -> dict[str, Any]:
        arn = self.register(self.resolve(step["Arguments"]))
        self.steps[step["Name"]]["Metadata"] = {"RegisterModel": {"Arn": arn}}
        return {"ModelPackageArn": arn}

    def _fail(self, step: dict[str, Any]) -> dict[str, Any]:
        raise StepError(str(self.resolve(step["Arguments"])["ErrorMessage"]))

    def _holds(self, condition: dict[str, Any]) -> bool:
        match condition["Type"]:
            case "Or":
                return any(self._holds(inner) for inner in condition["Conditions"])
            case "And":
                return all(self._holds(inner) for inner in condition["Conditions"])
            case "Not":
                return not self._holds(condition["Expression"])
            case "In":
                return self.resolve(condition["QueryValue"]) in self.resolve(condition["Values"])
            case kind if kind in _COMPARISONS:
                return _COMPARISONS[kind](self.resolve(condition["LeftValue"]), self.resolve(condition["RightValue"]))
        raise StepError(f"condition type {condition['Type']!r} is not known, known: {', '.join(_COMPARISONS)}, In, Not, And, Or")

    def resolve(self, value: Any) -> Any:
        """Replace every reference and function in a fragment of the definition by its value."""
        if isinstance(value, list):
            return [self.resolve(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"Get"}:
            return self._get(value["Get"])
        if set(value) == {"Std:Join"}:
            return value["Std:Join"]["On"].join(str(self.resolve(part)) for part in value["Std:Join"]["Values"])
        if set(value) == {"Std:JsonGet"}:
            call = value["Std:JsonGet"]
            return navigate(self.resolve(call["PropertyFile"]), tokens(call["Path"].removeprefix("$")), source=f"JsonGet {call['Path']}")
        return {key: self.resolve(inner) for key, inner in value.items()}

    def _get(self, path: str) -> Any:
        kind, *rest = tokens(path)
        execution = {"PipelineExecutionId": self.identifier, "PipelineExecutionArn": self.arn, "PipelineName": self.pipeline}
        scopes = {"Parameters": self.parameters, "Execution": execution, "Steps": self._properties}
        return navigate(navigate(scopes, [kind], source=path), rest, source=path)

    def _job_name(self, step: str) -> str:
        return f"pipelines-{self.identifier}-{step}"[:63]

    def _child(self, command: list[str], *, cwd: Path, environment: dict[str, str], interpreted: bool = True) -> None:
        """Run a script in the app's Python, or a command with that Python first on its path; raise StepError with its last lines.

        Libraries get one thread each, because steps run in parallel. pip gets no index: what the app's environment lacks is an error; and
        does not look for conflicts among the rest of that environment, which takes longer than all else that it does.
        """
        path = f"{Path(self.python).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        pip = {"PIP_NO_INDEX": "1", "PIP_NO_WARN_CONFLICTS": "1"}
        limits = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **pip, "PATH": path}
        child = subprocess.Popen(
            [self.python, str(CHILD), *([] if interpreted else ["--"]), *command],
            cwd=cwd,
            env={**os.environ, **limits, **environment},
            stdin=subprocess.PIPE,
            stdout=sys.stderr,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stderr is not None
        with self._lock:
            self._children.add(child)
        try:
            tail: list[str] = []
            for line in child.stderr:
                sys.stderr.write(line)
                tail = [*tail[-19:], line.rstrip()]
            code = child.wait()
        finally:
            with self._lock:
                self._children.discard(child)
        if code:
            raise StepError(f"AlgorithmError: {Path(command[0]).name}, exit code: {code}. {' | '.join(t for t in tail[-5:] if t)}")


def _reason(error: BaseException) -> str:
    return str(error)[:1024] if isinstance(error, StepError) else f"{type(error).__name__}: {error}"[:1024]
