"""first-run: what it starts, what it finds standing, what it waits for, and what it says at the end; the jobs are played by the test."""

from __future__ import annotations

import gzip
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner, Result

from lambdas.common.broker.paper import paper_account
from lambdas.common.ledger.ledger import Ledger
from local.exchange.server import RunningExchange
from papertape import command_line
from papertape.operate import first_run
from papertape.operate.cloud import AppCloud
from papertape.operate.jobs import DeployedApp, lacking
from papertape.operate.preflight import BOOTSTRAP_VERSION
from schema.lake_layout import bars_key, features_manifest, training_manifest, training_prefix
from schema.settings import Settings
from schema.slot import SlotRows
from tests.aws.gateway import serving
from tests.aws.services import Stacks, answering
from tests.settings_files import settings_file

EVE, LAST = "2019-12-31T22:00:00Z", "2019-12-31"
API = "https://abcdefgh.execute-api.us-east-1.amazonaws.com/v1"
SETTLED = 1.1  # S3 and SageMaker tell the second, and a job that has just changed counts as newer


@dataclass
class Jobs:
    """Glue, SageMaker and Lambda: what runs, how it ends, and what its end leaves in the lake."""

    processed: str
    glue: dict[str, list[str]] = field(default_factory=dict)
    pipeline: dict[str, list[str]] = field(default_factory=dict)
    decision: dict[str, Any] = field(default_factory=dict)
    started: list[tuple[str, Any]] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    judged: tuple[str, dict[str, Any]] = (
        "evaluation/evaluation.json", {"answer": "PPO is not shown to beat equal weight.", "gate": {"passed": False}}
    )  # fmt: skip
    failing: set[str] = field(default_factory=set)
    lost: int = 0
    slots: list[dict[str, Any]] = field(default_factory=list)
    timeframe: str = "1Day"

    def answer(self, operation: str, request: Any) -> tuple[int, Any]:
        if self.lost and operation.startswith(("GetJobRun", "DescribePipelineExecution")):
            self.lost -= 1
            return 503, {"__type": "ServiceUnavailableException"}
        played = getattr(self, re.sub(r"(?<!^)([A-Z])", r"_\1", operation).lower(), None)
        return (200, played(request)) if played else self._invoke(operation, request)

    def _invoke(self, path: str, event: Any) -> tuple[int, Any]:
        name = path.split("/")[-2]
        self.started.append((name, event))
        if name == "backfill":
            return 200, {"start": event["start"], "end": LAST, "bars": 12, "silent": [], **(self.slots.pop(0) if self.slots else {})}
        return 200, self.decision

    def get_service_quota(self, _: Any) -> Any:
        return {"Quota": {"Value": 100.0}}

    # Glue

    def get_job_runs(self, _: Any) -> Any:
        return {"JobRuns": [{"Id": name, "JobRunState": states[0]} for name, states in self.glue.items()]}

    def get_job(self, _: Any) -> Any:
        return {"Job": {"Name": "job", "LastModifiedOn": self.times["job"]}}

    def get_job_run(self, request: Any) -> Any:
        states = self.glue[request["RunId"]]
        state = states.pop(0) if len(states) > 1 else states[0]
        if state == "SUCCEEDED":
            manifest = json.dumps({"rows": 8, "end": LAST}).encode()
            for key in _table(self.timeframe):
                boto3.client("s3").put_object(Bucket=self.processed, Key=key, Body=manifest)
        return {"JobRun": {"Id": request["RunId"], "JobRunState": state, "ErrorMessage": "no bar of SPY" if state == "FAILED" else ""}}

    def start_job_run(self, request: Any) -> Any:
        self.started.append(("glue", request["Arguments"]))
        self.glue["ours"] = ["RUNNING", "RUNNING", "FAILED" if "glue" in self.failing else "SUCCEEDED"]
        return {"JobRunId": "ours"}

    # SageMaker

    def list_model_package_groups(self, _: Any) -> Any:
        return {"ModelPackageGroupSummaryList": []}

    def list_pipeline_executions(self, _: Any) -> Any:
        return {
            "PipelineExecutionSummaries": [
                {"PipelineExecutionArn": arn, "PipelineExecutionStatus": states[0], "StartTime": self.times[arn]}
                for arn, states in self.pipeline.items()
            ]
        }

    def describe_pipeline(self, _: Any) -> Any:
        return {"PipelineName": "training", "LastModifiedTime": self.times["job"]}

    def list_pipeline_execution_steps(self, request: Any) -> Any:
        failed = self.pipeline[request["PipelineExecutionArn"]][0] == "Failed"
        step = {"StepName": "Train-3", "StepStatus": "Failed" if failed else "Executing", "FailureReason": "quota of 0"}
        return {"PipelineExecutionSteps": [step]}

    def describe_pipeline_execution(self, request: Any) -> Any:
        states = self.pipeline[request["PipelineExecutionArn"]]
        state = states.pop(0) if len(states) > 1 else states[0]
        if state == "Succeeded":
            result, body = self.judged
            key = f"models/{request['PipelineExecutionArn'].rsplit('/', 1)[1]}/{result}"
            boto3.client("s3").put_object(Bucket=self.processed, Key=key, Body=json.dumps(body).encode())
        return {"PipelineExecutionStatus": state, "PipelineExecutionArn": request["PipelineExecutionArn"]}

    def start_pipeline_execution(self, request: Any) -> Any:
        arn = "arn:aws:sagemaker:us-east-1:1:pipeline/training/execution/ours"
        self.started.append(("pipeline", request["PipelineName"]))
        self.times[arn] = time.time()
        self.pipeline[arn] = ["Executing", "Failed" if "pipeline" in self.failing else "Succeeded"]
        return {"PipelineExecutionArn": arn}


def _table(timeframe: str) -> tuple[str, str, str]:
    return features_manifest(timeframe), training_manifest(timeframe), f"{training_prefix(timeframe)}year=2019/part-0.parquet"


@dataclass(frozen=True)
class Account:
    """A deployed app whose jobs the test plays, on the evening before the first session of 2020."""

    jobs: Jobs
    settings: Settings
    raw: str

    def run(self, *options: str) -> Result:
        return CliRunner(env={"COLUMNS": "300"}).invoke(
            command_line.app, ["first-run", "--settings", settings_file(self.settings), *options]
        )

    def fill(self, *symbols: str, last: str = LAST, rows: SlotRows | None = None) -> None:
        """Bars of the symbols from the start of history to `last`; slot rows if `rows` is given."""
        for symbol in symbols:
            for year, day in ((2016, "2016-01-04"), (int(last[:4]), last)):
                line = json.dumps({"symbol": symbol, "ts": f"{day}T{'05:00' if rows is None else '14:35'}:00Z"}) + "\n"
                boto3.client("s3").put_object(Bucket=self.raw, Key=bars_key(symbol, year, rows), Body=gzip.compress(line.encode()))

    @property
    def started(self) -> list[str]:
        return [what for what, _ in self.jobs.started]


@pytest.fixture
def account(
    stacks: Stacks, exchange: RunningExchange, buckets: SimpleNamespace, control: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Account]:
    exchange.reset(now=EVE, cash="100000")
    boto3.client("ssm").put_parameter(Name=BOOTSTRAP_VERSION, Value="30", Type="String")
    stacks.deployed |= {f"papertape-{part}": {} for part in ("ingest", "features", "model", "monitoring")}
    stacks.deployed["papertape-lake"] = {"RawBucket": buckets.raw, "ProcessedBucket": buckets.processed}
    stacks.deployed["papertape-trading"] = {
        "BackfillBarsFunction": "backfill", "DecideFunction": "decide", "GlueJobName": "features", "PipelineName": "training",
        "ExecutionApiUrl": API,
    }  # fmt: skip
    dates = {"start": date(2017, 1, 3), "test_start": date(2018, 2, 1), "live_start": date(2019, 12, 2)}
    own = settings.model_copy(update={"training": settings.training.model_copy(update=dates)})
    symbols = own.universe.symbols
    decision = {"dry_run": True, "slot": "2020-01-02/open+5", "strategy": "equal-weight", "targets": dict.fromkeys(symbols, 0.125)}
    jobs = Jobs(
        processed=buckets.processed, decision={**decision, "reason": "from the close of 2019-12-31"}, times={"job": time.time() - 60}
    )
    monkeypatch.setattr(first_run, "PAUSE", 0.01)
    with answering(jobs.answer) as service, serving(None, control, boto3.Session().get_credentials()) as gateway:
        for name in ("LAMBDA", "GLUE", "SAGEMAKER", "SERVICE_QUOTAS"):
            monkeypatch.setenv(f"AWS_ENDPOINT_URL_{name}", service.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_EXECUTE_API", gateway.url)
        yield Account(jobs=jobs, settings=own, raw=buckets.raw)


def refused(result: Result) -> str:
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.output
    return result.stderr


def test_an_empty_account_gets_bars_features_a_model_and_a_decision(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        result = account.run()
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert result.exit_code == 0, result.output
    assert account.jobs.started == [
        ("backfill", {"start": "2016-01-01"}),
        ("glue", {"--EVENT_TIME": EVE}),
        ("pipeline", "training"),
        ("decide", {"dry_run": True}),
    ]
    assert "refused by the gate: it is watched and does not trade" in result.stdout
    assert "PPO is not shown to beat equal weight." in result.stdout
    assert "decision  2020-01-02/open+5 by equal-weight; nothing was ordered" in result.stdout
    assert "Armed. Next decision: 2020-01-02/open+5 at Thu 2020-01-02 09:35 New York (Thu 2020-01-02 15:35 here)" in result.stdout
    assert "equal weight decides, and puts the whole account, $100,000.00, into 8 names at once" in result.stdout


def test_what_stands_is_not_done_again(account: Account) -> None:
    account.fill(*account.settings.universe.symbols)
    assert account.run().exit_code == 0
    assert account.started == ["glue", "pipeline", "decide"], "every symbol's bars reach the last session"
    account.jobs.started.clear()
    result = account.run()
    assert result.exit_code == 0, result.output
    assert account.started == ["decide"]
    assert "features  stands: 8 rows to 2019-12-31" in result.stdout
    assert "training  stands" in result.stdout

    account.jobs.started.clear()
    time.sleep(SETTLED)
    account.jobs.times["job"] = time.time()
    assert account.run().exit_code == 0
    assert account.started == ["glue", "pipeline", "decide"], "another deployment has other settings or other code"


def test_symbols_that_lag_or_are_new_are_backfilled(account: Account) -> None:
    new, lagging, *others = account.settings.universe.symbols
    account.fill(*others)
    account.fill(lagging, last="2019-12-30")
    boto3.client("s3").put_object(
        Bucket=account.raw, Key=bars_key(new, 2019), Body=gzip.compress(json.dumps({"ts": "2019-12-31T05:00:00Z"}).encode())
    )
    broker = paper_account('{"key_id": "local-key", "secret_key": "local-secret"}', environ=os.environ)
    cloud = AppCloud(name="here", settings=account.settings, session=boto3.Session())
    app = DeployedApp(cloud=cloud, outputs={"RawBucket": account.raw}, broker=broker, pause=0)
    assert lacking(app, last=date.fromisoformat(LAST)) == [new, lagging]
    assert account.run().exit_code == 0
    assert account.jobs.started[0] == ("backfill", {"start": "2016-01-01"})


def by_slot(account: Account) -> Account:
    account.jobs.timeframe = "1Min"
    training = account.settings.training.model_copy(update={"timeframe": "1Min"})
    return replace(account, settings=account.settings.model_copy(update={"training": training}))


def test_minutes_are_backfilled_in_as_many_calls_as_the_function_needs(account: Account) -> None:
    own = by_slot(account)
    own.fill(*own.settings.universe.symbols)
    own.jobs.slots = [{"slots": {"rows": 700, "next": "2017-05-01"}}, {"slots": {"rows": 900}}]
    result = own.run()
    assert result.exit_code == 0, result.output
    assert own.jobs.started[:2] == [("backfill", {"start": "2016-01-01"}), ("backfill", {"start": "2017-05-01"})]
    assert "backfill  12 daily bars and 1,600 slot rows to 2019-12-31" in result.stdout

    own.jobs.started.clear()
    own.jobs.slots = [{"slots": {"rows": 700, "next": "2016-01-01"}}]
    assert "the backfill from 2016-01-01 on got no further than 2016-01-01; see its log" in refused(own.run())


def test_slot_rows_stand_where_the_benchmark_s_reach_the_last_session_and_others_a_few_days_less(account: Account) -> None:
    own = by_slot(account)
    rows, benchmark = own.settings.slot_rows, own.settings.universe.benchmark
    others = [symbol for symbol in own.settings.universe.symbols if symbol != benchmark]
    own.fill(*own.settings.universe.symbols)
    own.fill(*others, last="2019-12-24", rows=rows)
    broker = paper_account('{"key_id": "local-key", "secret_key": "local-secret"}', environ=os.environ)
    app = DeployedApp(
        cloud=AppCloud(name="here", settings=own.settings, session=boto3.Session()), outputs={"RawBucket": own.raw}, broker=broker, pause=0
    )
    assert lacking(app, last=date.fromisoformat(LAST)) == [benchmark]
    assert benchmark is not None
    own.fill(benchmark, last="2019-12-30", rows=rows)
    assert lacking(app, last=date.fromisoformat(LAST)) == [benchmark]
    own.fill(benchmark, rows=rows)
    assert lacking(app, last=date.fromisoformat(LAST)) == []


def test_a_job_that_runs_already_is_waited_for_and_not_started_twice(account: Account) -> None:
    account.fill(*account.settings.universe.symbols)
    earlier = "arn:aws:sagemaker:us-east-1:1:pipeline/training/execution/earlier"
    account.jobs.glue["nightly"] = ["RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"]
    account.jobs.pipeline[earlier] = ["Executing", "Executing", "Executing", "Succeeded"]
    account.jobs.times[earlier] = time.time() + 60
    account.jobs.lost = 3
    result = account.run()
    assert result.exit_code == 0, result.output
    assert account.started == ["decide"]


def test_after_ctrl_c_the_next_run_finds_the_job(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.fill(*account.settings.universe.symbols)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", interrupt)
        stopped = account.run()
    assert stopped.exit_code == 130
    assert "a job that was started goes on, and first-run continues from there" in stopped.stderr
    assert account.started == ["glue"]
    result = account.run()
    assert result.exit_code == 0, result.output
    assert account.started == ["glue", "pipeline", "decide"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda jobs: jobs.failing.add("glue"), "Glue job features failed: no bar of SPY; then repeat this"),
        (lambda jobs: jobs.failing.add("pipeline"), "the training pipeline failed: Train-3: quota of 0; mend it and repeat this"),
        (lambda jobs: jobs.decision.update(errorMessage="'time'"), "function decide failed: 'time'"),
        (lambda jobs: jobs.decision.pop("dry_run"), "the deployed decide does not know dry_run"),
        (
            lambda jobs: jobs.decision.update(targets={}, reason="bars-late"),
            "slot 2020-01-02/open+5 would pass without an order: bars-late",
        ),
    ],
)
def test_what_fails_says_why_in_one_line(account: Account, spoil: Callable[[Jobs], Any], told: str) -> None:
    account.fill(*account.settings.universe.symbols)
    spoil(account.jobs)
    assert told in refused(account.run())


def test_a_training_that_is_not_due_says_why(account: Account) -> None:
    account.jobs.judged = ("due/due.json", {"due": False, "reason": "nothing changed: version 3 was made from the same data"})
    result = account.run()
    assert result.exit_code == 0, result.output
    assert "training  no new model: nothing changed: version 3 was made from the same data" in result.stdout


def test_started_halted_it_says_that_nothing_will_be_bought(account: Account, ledger_table: Ledger) -> None:
    result = account.run("--halted")
    assert result.exit_code == 0, result.output
    assert ledger_table.trading_state().state == "halted"
    assert "Halted (first run: started halted): no order until `make resume" in result.stdout
    assert "Armed" not in result.stdout


def test_what_preflight_stops_is_not_started(account: Account) -> None:
    boto3.client("secretsmanager").delete_secret(SecretId="papertape/alpaca", ForceDeleteWithoutRecovery=True)
    assert "preflight found what must be mended first; nothing was started" in refused(account.run())
    assert account.jobs.started == []


def test_before_the_deploy_it_says_so(account: Account, stacks: Stacks) -> None:
    del stacks.deployed["papertape-features"]
    assert "stack papertape-features in us-east-1 does not exist: deploy first, with `make deploy`" in refused(account.run())
