"""The jobs of a first run: fill the lake, build the features, train and judge. Each is started only where its result does not stand.

Promises: a job that runs already, started by an earlier first run or by its schedule, is waited for and not started twice; whatever ends
the waiting leaves the job itself alone, so that the next first run finds it. Failure: `OperatorError` with the job's own reason.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.common.broker.port import AccountReads
from papertape.operate.client import OperatorError
from papertape.operate.cloud import AppCloud, asking, stored_json
from schema.exchange_time import iso, new_york_date, parse_utc
from schema.lake_layout import ACTIONS, CALENDAR, MODELS, bars_prefix, features_manifest, training_manifest, training_prefix
from schema.settings import Settings
from schema.training_dates import dates_as_of

Note = Callable[[str], None]

RECENT_DAYS = 21  # longer than any run of days without a session
FIRST_DAYS = timedelta(days=10)  # from the start asked for to the first session
A_YEAR = timedelta(days=365)
SESSIONS_A_YEAR = 252
BARS_PER_CALL = 200_000  # at about 2 kB each while they are merged, under half of the function's memory
GLUE_RUNNING = {"STARTING", "RUNNING", "STOPPING", "WAITING"}
PIPELINE_RUNNING = {"Executing", "Stopping"}


@dataclass(frozen=True, kw_only=True)
class DeployedApp:
    """A deployed app, its stacks' outputs, its broker, and how many seconds to pause between two looks at a job."""

    cloud: AppCloud
    outputs: Mapping[str, str]
    broker: AccountReads
    pause: float

    @property
    def settings(self) -> Settings:
        return self.cloud.settings

    def invoke(self, output: str, event: Mapping[str, Any]) -> dict[str, Any]:
        """Call the function that the output names, and wait; raise OperatorError with its own words when it fails."""
        name = self.outputs[output]
        with asking(f"function {name} did not answer"):
            answer = self.cloud.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event).encode())
        payload: dict[str, Any] = json.load(answer["Payload"])
        if "FunctionError" in answer:
            raise OperatorError(f"function {name} failed: {payload.get('errorMessage', payload)}")
        return payload

    def newest(self, bucket: str, *prefixes: str) -> datetime | None:
        """When the newest object below `prefixes` was written; None where there is none."""
        listed = (entry["LastModified"] for prefix in prefixes for entry in self.objects(bucket, prefix))
        return max(listed, default=None)

    def objects(self, bucket: str, prefix: str) -> list[dict[str, Any]]:
        with asking(f"the lake's bucket {self.outputs[bucket]} cannot be listed"):
            pages = self.cloud.client("s3").get_paginator("list_objects_v2").paginate(Bucket=self.outputs[bucket], Prefix=prefix)
            return [entry for page in pages for entry in page.get("Contents", ())]


# The lake


def history_start(settings: Settings, *, last: date) -> date:
    """The first day that features and training as of session `last` need: a year of bars before the first that is trained on."""
    return date(dates_as_of(settings.training, last).start.year - 1, 1, 1)


def last_session(broker: AccountReads) -> date:
    """The last session that has closed."""
    now = broker.clock().now
    today = new_york_date(now)
    closed = [session.date for session in broker.sessions(today - timedelta(days=RECENT_DAYS), today) if session.close <= now]
    if not closed:
        raise OperatorError(f"the broker's calendar has no session that closed before {iso(now)}")
    return closed[-1]


def lacking(run: DeployedApp, *, last: date) -> list[str]:
    """The symbols whose bars do not reach from the start of history, or a year back for a name listed since, to `last`.

    Slot rows too, where decisions are made on them: the benchmark's reach `last`, another name may not have traded in its last slots.
    """
    symbols, benchmark = run.settings.universe.symbols, run.settings.universe.required_benchmark
    lagging = set(_lagging(run, bars_prefix(), due=dict.fromkeys(symbols, last), last=last))
    if rows := run.settings.slot_rows:
        due = {symbol: last if symbol == benchmark else last - FIRST_DAYS for symbol in symbols}
        lagging |= set(_lagging(run, bars_prefix(rows), due=due, last=last))
    return [symbol for symbol in symbols if symbol in lagging]


def _lagging(run: DeployedApp, prefix: str, *, due: Mapping[str, date], last: date) -> Iterator[str]:
    """The names of which the objects below `prefix` do not reach from the start of history to the day when they are due."""
    keys: dict[str, list[str]] = {}
    for entry in run.objects("RawBucket", prefix):
        keys.setdefault(entry["Key"].removeprefix(f"{prefix}symbol=").partition("/")[0], []).append(entry["Key"])
    start = history_start(run.settings, last=last)
    for symbol, day in due.items():
        stored = sorted(keys.get(symbol, ()))
        if not stored:
            yield symbol
            continue
        begins, ends = _days(run, stored[0])[0], _days(run, stored[-1])[-1]
        if ends < day or not (begins <= start + FIRST_DAYS or begins <= last - A_YEAR):
            yield symbol


def _days(run: DeployedApp, key: str) -> tuple[date, date]:
    with asking(f"s3://{run.outputs['RawBucket']}/{key} cannot be read"):
        body = run.cloud.client("s3").get_object(Bucket=run.outputs["RawBucket"], Key=key)["Body"].read()
    days = [new_york_date(parse_utc(json.loads(line)["ts"])) for line in gzip.decompress(body).splitlines()]
    return min(days), max(days)


def backfill(run: DeployedApp, note: Note) -> str:
    """Every bar from the start of history to the last session; what was done, in words."""
    last = last_session(run.broker)
    if not (missing := lacking(run, last=last)):
        return f"stands: every symbol's bars reach {last}"
    start = history_start(run.settings, last=last)
    note(f"{len(missing)} of {len(run.settings.universe.symbols)} symbols, from {start} on")
    spans = _spans(start, last, names=len(run.settings.universe.symbols))
    bars = rows = 0
    for begin, end in spans:
        pieces = list(_pieces(run, begin, end if end < last else None, note))
        done = pieces[0]
        bars += done["bars"]
        rows += sum(piece["slots"]["rows"] for piece in pieces if "slots" in piece)
    silent = f"; the vendor sent nothing of {', '.join(done['silent'])}" if done.get("silent") else ""
    return f"{bars:,} daily bars{f' and {rows:,} slot rows' if run.settings.slot_rows else ''} to {done['end']}{silent}"


def _pieces(run: DeployedApp, begin: date, end: date | None, note: Note) -> Iterator[dict[str, Any]]:
    """What each call did: the function stops before its time is over, and says from which session on minutes are missing."""
    start: str | None = begin.isoformat()
    while start:
        done = run.invoke("BackfillBarsFunction", {"start": start, **({"end": end.isoformat()} if end else {})})
        yield done
        following = done.get("slots", {}).get("next")
        if following and following <= start:
            raise OperatorError(f"the backfill from {start} on got no further than {following}; see its log, then repeat this")
        if start := following:
            note(f"minutes from {start} on")


def _spans(start: date, last: date, *, names: int) -> list[tuple[date, date]]:
    """Whole years of about `BARS_PER_CALL` bars, for the function's memory holds what one call asks for; one span where it all fits."""
    years = max(1, BARS_PER_CALL // (SESSIONS_A_YEAR * names))
    begins = [start, *(date(year, 1, 1) for year in range(start.year + years, last.year + 1, years))]
    ends = [*(begin - timedelta(days=1) for begin in begins[1:]), last]
    return list(zip(begins, ends, strict=True))


# The features


def features(run: DeployedApp, note: Note) -> str:
    """The feature table of what the lake holds, by the nightly job; what was done, in words."""
    last = last_session(run.broker)
    glue, job = run.cloud.client("glue"), run.outputs["GlueJobName"]
    with asking(f"Glue job {job} cannot be asked"):
        running = [r["Id"] for r in glue.get_job_runs(JobName=job)["JobRuns"] if r["JobRunState"] in GLUE_RUNNING]
    for identity in running:
        _wait_for_glue(run, identity, note)
    if (built := _built(run, last=last)) is None:
        with asking(f"Glue job {job} cannot be started"):
            identity = glue.start_job_run(JobName=job, Arguments={"--EVENT_TIME": iso(run.broker.clock().now)})["JobRunId"]
        _wait_for_glue(run, identity, note)
        bucket, key = run.outputs["ProcessedBucket"], features_manifest(run.settings.training.timeframe)
        built = stored_json(run.cloud, bucket=bucket, key=key)
        if built is None:
            raise OperatorError(f"Glue job {job} succeeded and left no manifest in s3://{bucket}/{key}")
        return f"{built['rows']:,} rows to {built['end']}"
    return f"stands: {built['rows']:,} rows to {built['end']}"


def _built(run: DeployedApp, *, last: date) -> dict[str, Any] | None:
    """The manifest of the table, if it is of the bars as they are, by the job as it is; a new job has other settings or other code."""
    timeframe = run.settings.training.timeframe
    written = run.newest("ProcessedBucket", features_manifest(timeframe))
    if written is None or run.newest("ProcessedBucket", training_manifest(timeframe)) is None:
        return None
    with asking("the feature job cannot be described"):
        job = run.cloud.client("glue").get_job(JobName=run.outputs["GlueJobName"])["Job"]
    changed = [
        run.newest("RawBucket", bars_prefix(run.settings.slot_rows), ACTIONS, CALENDAR),
        job.get("LastModifiedOn"),
        job.get("CreatedOn"),
    ]
    manifest = stored_json(run.cloud, bucket=run.outputs["ProcessedBucket"], key=features_manifest(timeframe))
    stands = manifest is not None and manifest["end"][:10] >= last.isoformat() and all(w <= written for w in changed if w is not None)
    return manifest if stands else None


def _wait_for_glue(run: DeployedApp, identity: str, note: Note) -> None:
    glue, job = run.cloud.client("glue"), run.outputs["GlueJobName"]

    def look() -> dict[str, Any]:
        state: dict[str, Any] = glue.get_job_run(JobName=job, RunId=identity)["JobRun"]
        note(f"Glue run {identity[:12]} {state['JobRunState'].lower()}")
        return state

    ended = _wait(run, look, running=lambda state: state["JobRunState"] in GLUE_RUNNING, what=f"Glue job {job}")
    if ended["JobRunState"] != "SUCCEEDED":
        raise OperatorError(
            f"Glue job {job} {ended['JobRunState'].lower()}: {ended.get('ErrorMessage') or 'see its log'}; then repeat this"
        )


# The model


@dataclass(frozen=True, kw_only=True)
class TrainingVerdict:
    """What a finished execution of the pipeline said of its model; no `evaluation` where it made none, for a `reason` of its own."""

    evaluation: Mapping[str, Any] | None
    reason: str
    stood: bool

    def words(self) -> list[str]:
        if self.evaluation is None:
            return [f"no new model: {self.reason}"]
        passed = self.evaluation["gate"]["passed"]
        verdict = "passed the gate" if passed else "refused by the gate: it is watched and does not trade"
        return ["stands" if self.stood else "trained and judged", verdict, str(self.evaluation["answer"])]


def training(run: DeployedApp, note: Note) -> TrainingVerdict:
    """The verdict on a model trained on the features as they are, by the pipeline as it is."""
    for execution in (e for e in _executions(run) if e["PipelineExecutionStatus"] in PIPELINE_RUNNING):
        _wait_for_pipeline(run, execution["PipelineExecutionArn"], note)
    stands = _trained(run)
    if stands is not None:
        return _verdict(run, stands, stood=True)
    name = run.outputs["PipelineName"]
    with asking(f"pipeline {name} cannot be started"):
        token = f"first-run-{datetime.now(UTC):%Y%m%dT%H%M%S%f}-of-{name}".ljust(32, "-")
        started = run.cloud.client("sagemaker").start_pipeline_execution(PipelineName=name, ClientRequestToken=token)[
            "PipelineExecutionArn"
        ]
    _wait_for_pipeline(run, started, note)
    return _verdict(run, started, stood=False)


def _executions(run: DeployedApp) -> Sequence[dict[str, Any]]:
    name = run.outputs["PipelineName"]
    with asking(f"pipeline {name} cannot be asked"):
        answer = run.cloud.client("sagemaker").list_pipeline_executions(PipelineName=name, SortBy="CreationTime", SortOrder="Descending")
    listed: list[dict[str, Any]] = answer["PipelineExecutionSummaries"]
    return listed


def _trained(run: DeployedApp) -> str | None:
    """The newest execution that succeeded, if it began after the last change of the training features and of the pipeline."""
    with asking("the training pipeline cannot be described"):
        pipeline = run.cloud.client("sagemaker").describe_pipeline(PipelineName=run.outputs["PipelineName"])
    timeframe = run.settings.training.timeframe
    view = run.objects("ProcessedBucket", training_prefix(timeframe))
    files = [e["LastModified"] for e in view if e["Key"] != training_manifest(timeframe)]
    changed = max([*files, pipeline["LastModifiedTime"]])
    done = [e for e in _executions(run) if e["PipelineExecutionStatus"] == "Succeeded" and e["StartTime"] >= changed]
    return max(done, key=lambda e: e["StartTime"])["PipelineExecutionArn"] if done else None


def _verdict(run: DeployedApp, execution: str, *, stood: bool) -> TrainingVerdict:
    folder, bucket = f"{MODELS}{execution.rsplit('/', 1)[1]}", run.outputs["ProcessedBucket"]
    evaluation = stored_json(run.cloud, bucket=bucket, key=f"{folder}/evaluation/evaluation.json")
    due = None if evaluation else stored_json(run.cloud, bucket=bucket, key=f"{folder}/due/due.json")
    return TrainingVerdict(evaluation=evaluation, reason=due["reason"] if due else f"{execution} left no evaluation", stood=stood)


def _wait_for_pipeline(run: DeployedApp, execution: str, note: Note) -> None:
    sagemaker = run.cloud.client("sagemaker")

    def look() -> dict[str, Any]:
        answer = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution, SortOrder="Ascending")
        note(_progress(answer["PipelineExecutionSteps"]))
        described: dict[str, Any] = sagemaker.describe_pipeline_execution(PipelineExecutionArn=execution)
        return described

    ended = _wait(run, look, running=lambda e: e["PipelineExecutionStatus"] in PIPELINE_RUNNING, what="the training pipeline")
    if ended["PipelineExecutionStatus"] != "Succeeded":
        steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution)["PipelineExecutionSteps"]
        failed = [f"{s['StepName']}: {s.get('FailureReason', 'no reason given')}" for s in steps if s["StepStatus"] == "Failed"]
        why = "; ".join(failed[:2]) or ended.get("FailureReason", "see the logs of its steps")
        raise OperatorError(f"the training pipeline {ended['PipelineExecutionStatus'].lower()}: {why}; mend it and repeat this")


def _progress(steps: Sequence[Mapping[str, Any]]) -> str:
    done = sum(step["StepStatus"] == "Succeeded" for step in steps)
    working = [str(step["StepName"]) for step in steps if step["StepStatus"] in {"Starting", "Executing"}]
    return f"{done} steps done; at work: {', '.join(working) or 'none yet'}"


def _wait(run: DeployedApp, look: Callable[[], dict[str, Any]], *, running: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    """Look until it has ended. A look that fails is taken again: the job goes on without it."""
    failed = 0
    while True:
        try:
            seen = look()
            failed = 0
        except (BotoCoreError, ClientError) as error:
            failed += 1
            if failed == 5 or _is_definite(error):
                raise OperatorError(f"{what} cannot be asked ({error}); it may go on without us: repeat this to continue") from error
            seen = None
        if seen is not None and not running(seen):
            return seen
        time.sleep(run.pause)


def _is_definite(error: Exception) -> bool:
    """Whether asking again would be told the same: another account's, no permission, no such job."""
    return (
        isinstance(error, ClientError) and 400 <= error.response["ResponseMetadata"]["HTTPStatusCode"] < 500 and "Thrott" not in str(error)
    )
