"""The training room: what was asked for and how far it is, and the writes that start, stop and resume a run.

A run is a folder of the lake (`schema/runs`): this module reads it, and writes what is asked for, `stop` and `resume`, nothing else. On AWS
a pipeline does the run; on the laptop the server that finds it queued.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from typing import Annotated, Any

import boto3
from aws_lambda_powertools.event_handler import Response, content_types
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.params import Query
from botocore.exceptions import ClientError
from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails

from lambdas.common.api.responses import answer
from lambdas.dashboard.request import PageRequest
from lambdas.dashboard.routing import PageRouter
from lambdas.dashboard.runs.uploads import new_id
from lambdas.dashboard.runs.views import (
    RESUMABLE,
    SECTIONS,
    EventsView,
    InspectedBars,
    RunDetail,
    RunOrder,
    RunsView,
    detail,
    folder,
    later_events,
    listed,
    refuse,
    request_of,
    status_of,
)
from lambdas.dashboard.writes import HEADER, Written, write
from schema.exchange_time import parse_utc
from schema.runs.daily_settings import on_daily_bars
from schema.runs.request import RUN_ID, BacktestOf, BundledBars, RunRequest, UploadedBars
from schema.sections.learning import RewardSettings
from schema.settings import Settings

router = PageRouter()
REWARDLESS = ("direct", "q-learning")  # algorithms that are not paid the settings' reward
COMPARED = 6  # runs beside each other
PACKAGE = re.compile(r"package:arn:[a-z0-9-]+:sagemaker:[a-z0-9-]+:\d{12}:model-package/(?P<group>[A-Za-z0-9-]+)/\d+")
UNKNOWN_PACKAGE = ("ValidationException", "ResourceNotFound")  # what SageMaker says of a package that is not there
BASELINE = re.compile(r"equal-weight|random:\d{1,9}")


class ResultLink(BaseModel):
    """Where the file can be downloaded, for five minutes."""

    link: str


@router.get("/api/runs", summary="Runs, the newest first")
def get_runs(cursor: Annotated[str, Query(max_length=40, pattern="^[a-z0-9-]*$")] = "") -> RunsView:
    return listed(router.asked, before=cursor)


@router.post("/api/runs", summary="Start a run", responses={200: {"description": "The run; the same key gives the same run"}})
def post_run(order: RunOrder) -> Response[str]:
    asked, key = router.asked, router.header(HEADER)
    body = order.model_dump(mode="json")
    done = write(asked, name="run", key=key, scope="trade", body=body, act=lambda: started(asked, order, key=key))
    return answer(done.status, done.body)


@router.get("/api/runs/<run_id>", summary="What was asked for, and how far it is")
def get_run(run_id: str) -> RunDetail:
    return detail(router.asked, run_id)


@router.get("/api/runs/<run_id>/events", summary="The events later than a sequence number")
def get_events(run_id: str, after: Annotated[int, Query(ge=-1, le=2**53)] = -1) -> EventsView:
    return later_events(router.asked, run_id, after=after)


@router.get("/api/runs/<run_id>/results/<name>", summary="A result: JSON itself, other files a link that downloads them")
def get_result(run_id: str, name: str) -> Response[str]:
    runs = folder(router.asked)
    request_of(runs, run_id)
    if name not in runs.result_names(run_id):
        raise NotFoundError(f"run {run_id} has no result {name}")
    if not name.endswith(".json"):
        return answer(200, ResultLink(link=runs.result_link(run_id, name)).model_dump())
    body = runs.result(run_id, name)
    if body is None:
        raise NotFoundError(f"run {run_id} has no result {name}")
    return Response(status_code=200, content_type=content_types.APPLICATION_JSON, body=body.decode())


@router.post("/api/runs/<run_id>/stop", summary="Stop where it can go on")
def post_stop(run_id: str) -> Response[str]:
    return _changed(run_id, "stop", _stopped)


@router.post("/api/runs/<run_id>/resume", summary="Go on where it was")
def post_resume(run_id: str) -> Response[str]:
    return _changed(run_id, "resume", _resumed)


def _changed(run_id: str, name: str, act: Any) -> Response[str]:
    asked = router.asked
    body = {"run": run_id}
    done = write(asked, name=f"run-{name}", key=router.header(HEADER), scope="trade", body=body, act=lambda: act(asked, run_id))
    return answer(done.status, done.body)


# --- what writes do


def started(request: PageRequest, order: RunOrder, *, key: str) -> Written:
    """Put the request, and start the pipeline that does it where there is one."""
    made = run_request(request, order, run_id=new_id(request, key))
    folder(request).put_request(made)  # False: the answer of the first time was lost
    _start(request, made.id, token=made.id)
    place = "simulation" if made.kind == "backtest" else "training"
    return Written(200, {"id": made.id, "message": "The run is queued.", "open": f"#/{place}/{made.id}"})


def run_request(request: PageRequest, order: RunOrder, *, run_id: str) -> RunRequest:
    """Raises ValidationError with the field that cannot be."""
    settings = _settings(request.settings, order)
    bars = _bars(request, order)
    if order.kind == "inspect" and isinstance(bars, BundledBars):
        raise refuse("bars.source", "bundled", "an inspection looks at an upload")
    return RunRequest(
        id=run_id,
        kind=order.kind,
        title=order.title,
        by=request.principal.user,
        requested_at=request.now,
        bars=bars,
        settings=settings,
        backtest=None if order.backtest is None else _backtest(request, order.backtest),
    )


def _settings(deployed: Settings, order: RunOrder) -> dict[str, dict[str, Any]]:
    """What differs, after it was checked as settings.toml is."""
    unknown = [name for name in order.settings if name not in SECTIONS]
    if unknown:
        raise refuse(f"settings.{unknown[0]}", unknown[0], f"a run may change {', '.join(SECTIONS)}")
    changed = {name: dict(values) for name, values in order.settings.items()}
    if (timeframe := changed.get("training", {}).get("timeframe", "1Day")) != "1Day":
        raise refuse("settings.training.timeframe", str(timeframe), '"1Day": the bars of a run are daily')
    if universe := changed.pop("universe", {}):
        raise refuse("settings.universe", universe, "the names of a run are its field symbols")
    if order.seeds is not None:
        changed.setdefault("training", {})["seeds"] = list(range(order.seeds))
    if (
        changed.get("training", {}).get("algorithm", "ppo") in REWARDLESS
        and "reward" not in changed
        and deployed.reward != RewardSettings()
    ):
        changed["reward"] = RewardSettings().model_dump(mode="json")  # the deployed one is of another algorithm
    document = on_daily_bars(deployed).model_dump(mode="json")
    own = {name: {**document[name], **values} for name, values in changed.items() if values}
    try:
        Settings.model_validate({**document, **own})
    except ValidationError as error:
        problems = [
            InitErrorDetails(type=one["type"], loc=("settings", *one["loc"]), input=one["input"], ctx=one.get("ctx", {}))
            for one in error.errors()
        ]
        raise ValidationError.from_exception_data("RunOrder", problems) from error
    kept = {name: values for name, values in changed.items() if values}
    return kept | ({"universe": {"symbols": list(order.symbols)}} if order.symbols else {})


def _bars(request: PageRequest, order: RunOrder) -> BundledBars | UploadedBars:
    bars, runs = order.bars, folder(request)
    if isinstance(bars, InspectedBars):
        asked = runs.request(bars.run)
        seen = None if asked is None or asked.kind != "inspect" else runs.status(bars.run, now=parse_utc(request.now)).inspected
        if asked is None or not isinstance(asked.bars, UploadedBars) or seen is None:
            raise refuse("bars.run", bars.run, "the id of an inspection that has finished")
        if seen.problem is not None:
            raise refuse("bars.run", bars.run, f"bars that can be used: {seen.problem}")
        columns: Mapping[str, Any] = seen.columns
        forms: Mapping[str, Any] = seen.forms
        bars = UploadedBars(name=asked.bars.name, columns=columns, numbers=forms, adjusted=bars.adjusted or asked.bars.adjusted)
    if isinstance(bars, UploadedBars) and runs.upload_bytes(bars.name) is None:
        raise refuse("bars.name", bars.name, "an upload that is there: it is kept for a while only, upload it again")
    return bars


def _backtest(request: PageRequest, asked: BacktestOf) -> BacktestOf:
    """With a package by where its model lies, which the worker can read."""
    field, policy = "backtest.policy", asked.policy
    for name, day in (("start", asked.start), ("end", asked.end)):
        if not _is_a_day(day):
            raise refuse(f"backtest.{name}", day, "a day of the calendar, as 2020-12-31")
    if asked.start > asked.end:
        raise refuse("backtest.start", asked.start, f"not after the end, {asked.end}")
    if policy.startswith("run:"):
        runs = folder(request)
        trained = runs.request(policy.removeprefix("run:")) if RUN_ID.fullmatch(policy.removeprefix("run:")) else None
        if trained is None or trained.kind != "train":
            raise refuse(field, policy, "run:<id> of a training run")
        if "model.tar.gz" not in runs.result_names(trained.id):
            raise refuse(field, policy, "a run that has trained its model")
        return asked
    if policy.startswith("package:"):
        found = PACKAGE.fullmatch(policy)
        if found is None or found["group"] != request.variables.package_group:
            raise refuse(field, policy, f"package:<ARN> of a model package of {request.variables.package_group}")
        try:
            uri = request.registry.package(policy.removeprefix("package:")).model_uri
        except ClientError as error:
            if error.response["Error"]["Code"] not in UNKNOWN_PACKAGE:
                raise
            raise refuse(field, policy, f"a model package that {found['group']} has") from error
        return asked.model_copy(update={"policy": f"package:{uri}"})
    if not BASELINE.fullmatch(policy):
        raise refuse(field, policy, "equal-weight, random:<seed>, run:<id> or package:<ARN>")
    return asked


def _is_a_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _stopped(request: PageRequest, run_id: str) -> Written:
    runs = folder(request)
    request_of(runs, run_id)
    status = status_of(runs, run_id, now=parse_utc(request.now))
    if status.state not in ("queued", "running"):
        return Written(409, {"message": f"The run is {status.state}: there is nothing to stop."})
    runs.ask_to_stop(run_id, by=request.principal.user)
    return Written(200, {"message": "The run stops where it can go on."})


def _resumed(request: PageRequest, run_id: str) -> Written:
    runs = folder(request)
    request_of(runs, run_id)
    status = status_of(runs, run_id, now=parse_utc(request.now))
    if status.state not in RESUMABLE:
        return Written(409, {"message": f"The run is {status.state}: there is nothing to resume."})
    runs.ask_to_resume(run_id, after=status.sequence, by=request.principal.user)
    _start(request, run_id, token=f"{run_id}-{status.sequence}")
    return Written(200, {"message": "The run is queued; it goes on where it was."})


def _start(request: PageRequest, run_id: str, *, token: str) -> None:
    """On AWS an execution of the pipeline, one per token; on the laptop the server looks for what is queued."""
    if not request.variables.runs_pipeline:
        return
    _sagemaker().start_pipeline_execution(
        PipelineName=request.variables.runs_pipeline,
        PipelineExecutionDisplayName=run_id,
        PipelineParameters=[{"Name": "Run", "Value": run_id}],
        ClientRequestToken=token.ljust(32, "-"),
    )


@lru_cache(maxsize=1)
def _sagemaker() -> Any:
    return boto3.client("sagemaker")
