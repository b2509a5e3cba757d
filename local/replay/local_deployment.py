"""The whole app on this machine: the exchange, the local cloud, the deployed stacks, and what their user does by hand.

`LocalDeployment` starts the processes and ends them, whatever happens in between. Each step that docs/deploy.md asks of the user
of an AWS account (the broker's secret, the first backfill, the first training) is a method of the same meaning here. What fails raises
`LocalDeploymentError`, `EmulatorError`, `CloudError` or `ExchangeError`: one line with cause and remedy.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import ServedModel
from local.aws.deploy import Deployment, deploy, deploy_templates, deployed
from local.aws.emulator import ROOT, Emulator
from local.exchange.recorded_market import MinutesKind
from local.exchange.server import ExchangeConfig, RunningExchange
from local.replay.folder_lock import locked
from local.replay.runner_start import starts_the_runner, until_it_follows
from schema.lake_layout import MODELS, features_manifest
from schema.loopback import LOCAL_ACCOUNT, LOCAL_SECRET, is_loopback
from schema.settings import Settings
from trading_env.errors import PapertapeError

T = TypeVar("T")
JOB_SECONDS = 900.0
SERVED_SECONDS = 120.0
JOURNAL = "exchange.journal"
DYING_SECONDS = 0.2


class LocalDeploymentError(PapertapeError, RuntimeError):
    """A step of the app's user did not succeed; the message is one line with cause and remedy."""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """A finished pipeline execution: the registered package, its verdict, and who now serves it."""

    evaluation: Mapping[str, Any]
    package_arn: str
    package_version: int
    served: ServedModel
    artifact: bytes
    seconds: float


@dataclass(frozen=True)
class PaperBroker:
    """The broker of a run that trades by the real clock: Alpaca's paper account, or an exchange on this machine at `url`."""

    url: str = ""

    def __post_init__(self) -> None:
        if self.url and not (self.url.startswith("http://") and is_loopback(self.url)):
            raise LocalDeploymentError(f"--exchange must be an exchange on this machine, http://127.0.0.1:<port>, was {self.url}")


class LocalDeployment:
    """Use as a context manager; `deploy` first. Nobody else runs in `run_dir` meanwhile, or it is a FolderInUseError."""

    def __init__(
        self,
        run_dir: Path,
        *,
        settings: Settings,
        now: str,
        exchange_port: int = 0,
        cloud_port: int = 0,
        keys: tuple[str, str] = ("local-key", "local-secret"),
        broker: PaperBroker | None = None,
        data: Path = ROOT / "data",
        minutes: MinutesKind = "recorded",
    ) -> None:
        """`broker` None: an exchange of its own over `data`, the bundle or raw daily bars in a file or folder, whose clock starts at `now`;
        else that one, and what the ledger says survives a crash. Quotes of `minutes` that are made stand at the trade: what fills sizes."""
        self.run_dir, self.settings, costs = run_dir, settings, settings.costs
        self._broker = broker
        if broker is None and (costs.impact or costs.max_volume_share):
            raise LocalDeploymentError(
                "settings.toml: costs.impact and costs.max_volume_share must be 0 here; the exchange fills every order whole"
            )
        self._stack = ExitStack()
        self._exchange_config = ExchangeConfig(
            now=now,
            cash=str(settings.portfolio.initial_cash),
            port=exchange_port,
            data=data,
            fee_bps=str(settings.costs.fee_bps),
            slippage_bps=str(Decimal(str(costs.slippage_bps)) + Decimal(str(costs.half_spread_bps))),
            journal=run_dir / JOURNAL,
            minutes=minutes,
            quotes="trade" if minutes == "made" else "spread",
            key_id=keys[0],
            secret_key=keys[1],
        )
        self._aws_session = boto3.Session()  # clients of the default session may not be made in two threads at once
        self._cloud_port = cloud_port
        self._deployment: Deployment | None = None
        self._exchange: RunningExchange | None = None

    def __enter__(self) -> Self:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        try:
            lock = self._stack.enter_context(locked(self.run_dir))
            self.cloud = self._stack.enter_context(
                Emulator.start(
                    self.run_dir,
                    port=self._cloud_port,
                    exchange_url=self._exchange_url(),
                    region=self.settings.region,
                    durable=self._broker is not None,
                    held=lock,
                )
            )
        except BaseException:
            self._stack.close()
            raise
        return self

    def _exchange_url(self) -> str:
        if self._broker is not None:
            return self._broker.url
        self._exchange = self._stack.enter_context(RunningExchange(self._exchange_config, log=self.run_dir / "exchange.log"))
        return self._exchange.url

    @property
    def exchange(self) -> RunningExchange:
        """The deployment's own; raises LocalDeploymentError with a `broker`, which is not ours to steer."""
        if self._exchange is None:
            raise LocalDeploymentError("this deployment has no exchange of its own")
        return self._exchange

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if isinstance(error, Exception):
                self._explain(error)
        finally:
            self.close()

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Errors inside the block become what lies behind them, as at the end of the deployment's own block."""
        try:
            yield
        except Exception as error:
            self._explain(error)
            raise

    def close(self) -> None:
        """End both processes; whoever waits for them in another thread gets an error."""
        self._stack.close()

    def _explain(self, error: Exception) -> None:
        """Raise what lies behind `error`: a process that has ended, or a refused call; return when it speaks for itself."""
        time.sleep(DYING_SECONDS)
        if self._exchange is not None:
            self._exchange.check()
        self.cloud.check()
        if isinstance(error, BotoCoreError | ClientError):
            raise LocalDeploymentError(f"the local cloud did not do what it was asked: {error}; see {self.cloud.log}") from error

    # --- what the app's user does

    def deploy(self, cdk_out: Path, *, with_cli: bool = True) -> Deployment:
        """Store the broker's secret, if there is none yet, then deploy every stack of `cdk_out`."""
        if not self.has_keys():
            self.store_keys((self._exchange_config.key_id, self._exchange_config.secret_key))
        self._deployment = deploy(self.run_dir, self.cloud, cdk_out=cdk_out) if with_cli else deploy_templates(self.cloud, cdk_out=cdk_out)
        return self._deployment

    def has_keys(self) -> bool:
        """Whether the broker's secret is in the local cloud's secret store."""
        try:
            self.client("secretsmanager").describe_secret(SecretId=f"{self.settings.name}/alpaca")
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return False
            raise
        return True

    def store_keys(self, keys: tuple[str, str]) -> None:
        """Put the broker's key id and secret key into the local cloud's secret store, in place of what was there."""
        store, name = self.client("secretsmanager"), f"{self.settings.name}/alpaca"
        value = json.dumps({"key_id": keys[0], "secret_key": keys[1]})
        if self.has_keys():
            store.put_secret_value(SecretId=name, SecretString=value)
        else:
            store.create_secret(Name=name, SecretString=value)

    def stored_keys(self) -> tuple[str, str]:
        """The key id and secret key in the local cloud's secret store."""
        secret = self.client("secretsmanager").get_secret_value(SecretId=f"{self.settings.name}/alpaca")
        keys = json.loads(secret["SecretString"])
        return keys["key_id"], keys["secret_key"]

    def resume(self) -> Deployment:
        """Go on with what is deployed in this folder's cloud already; raise CloudError when nothing is."""
        self._deployment = deployed(self.cloud)
        return self._deployment

    def backfill(self, *, start: str) -> dict[str, Any]:
        """The first backfill: every bar from `start` to the exchange's last close; minutes of years take several calls."""
        first = answer = self.invoke(self.output("BackfillBarsFunction"), {"start": start})
        while (following := answer.get("slots", {}).get("next")) is not None:
            answer = self.invoke(self.output("BackfillBarsFunction"), {"start": following})
        return first

    def build_features(self, *, time: str) -> dict[str, Any]:
        """Fire the nightly feature job and wait for it; return the manifest that it wrote."""
        started = self._fire("build_features", time)["payload"]["JobRunId"]
        glue, job = self.client("glue"), self.output("GlueJobName")
        run = self._wait(lambda: glue.get_job_run(JobName=job, RunId=started)["JobRun"], done=lambda r: r["JobRunState"] not in RUNNING)
        if run["JobRunState"] != "SUCCEEDED":
            raise LocalDeploymentError(f"the feature job {run['JobRunState'].lower()}: {run.get('ErrorMessage', 'see its log')}")
        manifest: dict[str, Any] = json.loads(self.object("processed", features_manifest(self.settings.training.timeframe)))
        return manifest

    def train(self, *, time: str, on_progress: Callable[[str], None] = lambda _: None) -> TrainingResult:
        """Fire the weekly training and wait until its model is registered and served, as incumbent or as shadow.

        Raises LocalDeploymentError when none was due, with the reason, as when a step fails.
        `on_progress` gets in words how far the seeds are, then which step runs.
        """
        started, logged = _now(), self.cloud.log.stat().st_size
        self._fire("train", time)
        sagemaker = self.client("sagemaker")
        executions = sagemaker.list_pipeline_executions(PipelineName=self.output("PipelineName"))["PipelineExecutionSummaries"]
        arn = max(executions, key=lambda e: e["StartTime"])["PipelineExecutionArn"]

        def state() -> dict[str, Any]:
            steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn, SortOrder="Ascending")["PipelineExecutionSteps"]
            running = [step["StepName"] for step in steps if step["StepStatus"] == "Executing"]
            on_progress(_progress(running, log=self.cloud.log.read_bytes()[logged:].decode(errors="replace")))
            described: dict[str, Any] = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
            return described

        execution = self._wait(state, done=lambda e: e["PipelineExecutionStatus"] not in {"Executing", "Stopping"}, pause=0.25)
        if execution["PipelineExecutionStatus"] != "Succeeded":
            raise LocalDeploymentError(f"the training pipeline failed: {execution.get('FailureReason', 'see the logs of its steps')}")
        folder = f"{MODELS}{arn.rsplit('/', 1)[1]}"
        answer = json.loads(self.object("processed", f"{folder}/due/due.json"))
        if not answer["due"]:
            raise LocalDeploymentError(f"no training was due: {answer['reason']}")
        package = self._newest_package()
        return TrainingResult(
            evaluation=json.loads(self.object("processed", f"{folder}/evaluation/evaluation.json")),
            package_arn=package["ModelPackageArn"],
            package_version=int(package["ModelPackageVersion"]),
            served=self._served(package["ModelPackageArn"]),
            artifact=self.object("processed", f"{folder}/model/model.tar.gz"),
            seconds=_now() - started,
        )

    def _newest_package(self) -> dict[str, Any]:
        sagemaker = self.client("sagemaker")
        listed = sagemaker.list_model_packages(ModelPackageGroupName=self.output("ModelPackageGroup"))["ModelPackageSummaryList"]
        newest = max(listed, key=lambda p: p["ModelPackageVersion"])
        described: dict[str, Any] = sagemaker.describe_model_package(ModelPackageName=newest["ModelPackageArn"])
        return described

    def _served(self, arn: str) -> ServedModel:
        """Wait until deploy_model has pointed a role to the package."""

        def pointer() -> ServedModel | None:
            return next((m for m in (self.ledger.incumbent(), self.ledger.shadow()) if m is not None and m.spec == arn), None)

        found = self._wait(pointer, done=lambda model: model is not None, limit=SERVED_SECONDS, what=f"the deployment of {arn}")
        assert found is not None
        return found

    # --- what a replay needs

    def schedules(self) -> list[str]:
        pages = self.client("scheduler").get_paginator("list_schedules").paginate()
        return [schedule["Name"] for page in pages for schedule in page["Schedules"]]

    def fire(self, schedule: str, time: str, *, final: bool = True) -> dict[str, Any]:
        asked, outcome = datetime.now(UTC), self.cloud.fire(schedule, time, final=final)
        return until_it_follows(outcome, self.ledger, since=asked) if starts_the_runner(schedule) else outcome

    @property
    def ledger(self) -> Ledger:
        return Ledger(self._resource("dynamodb").Table(self.output("LedgerTable")))

    # --- plumbing

    def output(self, key: str) -> str:
        if self._deployment is None:
            raise LocalDeploymentError(f"{key} is an output of the stacks, and nothing is deployed yet")
        return self._deployment.output(key)

    def client(self, service: str) -> Any:
        return self._aws_session.client(service, **self._aws())

    def _resource(self, service: str) -> Any:
        return self._aws_session.resource(service, **self._aws())

    def _aws(self) -> dict[str, Any]:
        return {
            "endpoint_url": self.cloud.url,
            "region_name": self.settings.region,
            "aws_access_key_id": LOCAL_ACCOUNT,
            "aws_secret_access_key": LOCAL_SECRET,
            "config": Config(read_timeout=900, retries={"total_max_attempts": 1}),
        }

    def object(self, bucket: str, key: str) -> bytes:
        """An object of the raw, processed or audit bucket."""
        body: bytes = self.client("s3").get_object(Bucket=self.output(f"{bucket.capitalize()}Bucket"), Key=key)["Body"].read()
        return body

    def invoke(self, function: str, event: Mapping[str, Any]) -> dict[str, Any]:
        """Call a function and wait; raise LocalDeploymentError with its own words when it fails."""
        answer = self.client("lambda").invoke(FunctionName=function, Payload=json.dumps(event).encode())
        payload: dict[str, Any] = json.load(answer["Payload"])
        if "FunctionError" in answer:
            raise LocalDeploymentError(f"function {function} failed: {payload.get('errorMessage', payload)}")
        return payload

    def _fire(self, schedule: str, time: str) -> dict[str, Any]:
        answer = self.fire(f"{self.settings.name}-{schedule}", time)
        if answer["status"] != "succeeded":
            raise LocalDeploymentError(f"schedule {schedule} at {time} failed: {answer.get('error', answer)}")
        return answer

    def _wait(
        self, look: Callable[[], T], *, done: Callable[[T], bool], limit: float = JOB_SECONDS, pause: float = 0.1, what: str = "the job"
    ) -> T:
        deadline = _now() + limit
        while not done(seen := look()):
            self.cloud.check()
            if _now() > deadline:
                raise LocalDeploymentError(f"{what} did not end within {limit:g} s; see the logs in {self.run_dir}")
            time.sleep(pause)
        return seen


RUNNING = {"STARTING", "RUNNING", "STOPPING", "WAITING"}
_now = time.monotonic


def _progress(running: Sequence[str], *, log: str) -> str:
    """How far the seeds of the running training steps are, by the newest line that each wrote; else the names of the steps."""
    lines = [json.loads(found) for found in re.findall(r'\{"seed": [^{}\n]*\}', log)]
    newest = {f"Train-{line['seed']}": line for line in lines}
    shown = [newest[name] for name in running if name in newest]
    far = [f"seed {line['seed']}: fold {line['fold'] + 1}/{line['folds']} {line['timesteps'] / line['of']:.0%}" for line in shown]
    return ", ".join(far or running)


def settings_text(settings: Settings) -> str:
    """`settings` as its user would write them in a settings.toml: a value of JSON is one of TOML too."""

    def lines(section: Mapping[str, Any]) -> list[str]:
        return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in section.items() if not isinstance(value, dict)]

    document = settings.model_dump(mode="json")
    sections = [[f"[{name}]", *lines(section)] for name, section in document.items() if isinstance(section, dict)]
    return "\n\n".join("\n".join(part) for part in (lines(document), *sections)) + "\n"


def synthesize(cdk_out: Path, *, settings: Settings) -> None:
    """Run `app.py` for this laptop into `cdk_out`, as a user with `settings` would: from a settings.toml, which is written beside it.

    CloudFormation's own rules are left to `make synth`: they ask what AWS would refuse, and cost more than all the rest.
    Raises LocalDeploymentError when the app refuses.
    """
    file = cdk_out.resolve().with_name("settings.toml")
    file.write_text(settings_text(settings), encoding="utf-8")
    context = {"target": "laptop", "settings": str(file)}
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env={**os.environ, "CDK_OUTDIR": str(cdk_out.resolve()), "CDK_CONTEXT_JSON": json.dumps(context), "CDK_VALIDATION": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise LocalDeploymentError((lines[-1] if lines else f"app.py ended with {done.returncode}").removeprefix("papertape: "))
