"""What the laptop adds to AWS's API, below `/_papertape/`: fire a schedule; read what ran, was published, was only recorded."""

# ruff: noqa: SLF001  (ministack's stores and helpers have no public names)
# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import asyncio
import contextvars
import json
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from ministack.core.arn import parse_arn
from ministack.core.responses import request_scope
from ministack.services import ecs, eventbridge, glue, lambda_svc, scheduler

from local.aws import emulator_state, sagemaker_service
from trading_env.errors import PapertapeError

PREFIX = "/_papertape/"
Record = dict[str, Any]

trigger: contextvars.ContextVar[str] = contextvars.ContextVar("trigger", default="direct")
fired: Counter[str] = Counter()
invoked: Counter[tuple[str, str]] = Counter()
published: list[Record] = []
recorded: dict[str, Record] = {}
clock: dict[str, float] = {}  # time of the schedule fired last, seconds since 1970; empty before the first


@contextmanager
def triggered_by(name: str) -> Iterator[None]:
    """Calls inside the block count as triggered by `name`."""
    token = trigger.set(name)
    try:
        yield
    finally:
        trigger.reset(token)


async def answer(method: str, route: str, body: bytes) -> tuple[int, Any]:
    """Status and document of one control request."""
    match method, route:
        case "POST", "fire":
            request = json.loads(body)
            return await asyncio.to_thread(fire, request["schedule"], request["time"], final=request.get("final", True))
        case "POST", "save":
            try:
                emulator_state.save(whole=json.loads(body or b"{}").get("whole", False))
            except emulator_state.StateError as error:
                return 500, {"error": str(error)}
            return 200, {}
        case "POST", "deliver":
            return await asyncio.to_thread(_deliver_streams)
        case "GET", "fired":
            functions: dict[str, dict[str, int]] = {}
            for (name, trigger), count in sorted(invoked.items()):
                functions.setdefault(name, {})[trigger] = count
            return 200, {"schedules": dict(sorted(fired.items())), "functions": functions}
        case "GET", "published":
            return 200, published
        case "GET", "recorded":
            return 200, recorded
    return 404, {"error": f"{method} {PREFIX}{route} is not a route"}


def fire(name: str, at: str, *, final: bool = True) -> tuple[int, Record]:
    """Invoke the target of a deployed schedule as the scheduler would at `at` (ISO, UTC), and wait for a function's result.

    `name` is the schedule's, with or without the app's prefix. A job or a pipeline is started, not awaited. A failure goes to the
    dead letters if it is `final`: nobody will try again.
    """
    found = [(k, s) for k, s in scheduler._schedules._data.items() if s["Name"] == name or s["Name"].endswith(f"-{name}")]
    if len(found) != 1:
        known = ", ".join(sorted(s["Name"] for s in scheduler._schedules._data.values())) or "none"
        return 404, {"status": "failed", "error": f"one deployed schedule called {name} is needed, {len(found)} found; deployed: {known}"}
    ((account, region, _), schedule) = found[0]
    if schedule["State"] != "ENABLED":
        return 409, {"status": "failed", "error": f"schedule {name} is {schedule['State']}"}
    fired[schedule["Name"]] += 1
    clock["now"] = datetime.fromisoformat(at).timestamp()
    target = schedule["Target"]
    attributes = {
        "scheduled-time": at,
        "schedule-arn": schedule["Arn"],
        "execution-id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{schedule['Arn']}/{at}")),
        "attempt-number": "1",
    }
    text = target.get("Input") or "{}"
    for attribute, value in attributes.items():
        text = text.replace(f"<aws.scheduler.{attribute}>", value)
    with request_scope(account, region), triggered_by("schedule"):
        result = _deliver(target["Arn"], json.loads(text), target, final=final)
        if final and result["status"] == "failed" and not target["Arn"].startswith("arn:aws:lambda:") and target.get("DeadLetterConfig"):
            eventbridge._dispatch_to_sqs(parse_arn(target["DeadLetterConfig"]["Arn"]), text)
    return 200, result


def _deliver_streams() -> tuple[int, Record]:
    """Hand on everything that streams have acknowledged until now, windows and buffers or not."""
    from local.aws.services import delivery_streams, shards  # they take hold of this module

    try:
        objects = delivery_streams.deliver_streams(all_of_it=True)
        shards.deliver_shards()
    except PapertapeError as error:
        return 500, {"error": str(error)}
    return 200, {"objects": objects}


def _deliver(arn: str, payload: Any, target: Record, *, final: bool) -> Record:
    service, _, action = arn.removeprefix("arn:aws:scheduler:::aws-sdk:").partition(":")
    if arn.startswith("arn:aws:lambda:"):
        return _invoke_function(arn, payload, final=final)
    if arn.startswith("arn:aws:sagemaker:") and ":pipeline/" in arn:
        parameters = (target.get("SageMakerPipelineParameters") or {}).get("PipelineParameterList", [])
        service, action, payload = (
            "sagemaker",
            "startPipelineExecution",
            {"PipelineName": arn.rsplit("/", 1)[-1], "PipelineParameters": parameters},
        )
    match service, action:
        case "glue", "startJobRun":
            status, _, body = glue._start_job_run(payload)
        case "sagemaker", "startPipelineExecution":
            status, _, body = sagemaker_service.call("StartPipelineExecution", payload)
        case "ecs", "updateService":
            status, _, body = ecs._update_service({f"{name[0].lower()}{name[1:]}": value for name, value in payload.items()})
        case _:
            return {"status": "failed", "error": f"target {arn} is not dispatched on the laptop"}
    answer = json.loads(body)
    return (
        {"status": "succeeded", "payload": answer} if status == 200 else {"status": "failed", "error": answer.get("message", str(answer))}
    )


def _invoke_function(arn: str, payload: Any, *, final: bool) -> Record:
    """One asynchronous invocation without its retries: a `final` failure goes to the function's on-failure destination."""
    record, config, name = lambda_svc._get_func_record_for_ref(arn)
    if not record or not config:
        return {"status": "failed", "error": f"function {name} does not exist"}
    record = lambda_svc._execution_record_for_config(record, config)
    result = lambda_svc._execute_function(record, payload)
    if not result.get("error") and not result.get("throttle"):
        return {"status": "succeeded", "payload": result.get("body")}
    settings = (record.get("event_invoke_configs") or {}).get("$LATEST") or record.get("event_invoke_config") or {}
    destination = (settings.get("DestinationConfig") or {}).get("OnFailure", {}).get("Destination")
    destination = destination or (config.get("DeadLetterConfig") or {}).get("TargetArn")
    if destination and final:
        lambda_svc._route_async_failure(destination, name, payload, result)
    error = result.get("body")
    message = error.get("errorMessage") if isinstance(error, dict) else str(error)
    return {"status": "failed", "error": message or "the function was throttled", "log": result.get("log", "")[-4000:]}
