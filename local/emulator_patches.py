"""Start ministack with what it lacks or gets wrong put right, each patch a function with its reason.

Runs in the emulator's own environment (`python -m local.emulator_patches`) and ends with the process that started it: standard input is a
pipe, and its end is a request to stop. A patch whose symbol has moved stops the start with the patch's name, because the patches hold for
one exact version of ministack only. What the laptop adds to AWS's API is below `/_papertape/`: `POST fire`, `GET fired`, `published` and
`recorded`.
"""

# ruff: noqa: SLF001, ARG001, ARG005  (patches reach into ministack, keep its signatures, and speak plain http on loopback)
# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import asyncio
import contextvars
import hashlib
import importlib.metadata
import io
import json
import operator
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import types
import uuid
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ministack.app as app
from ministack.core import lambda_runtime, router, sigv4
from ministack.core.arn import parse_arn
from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import apigateway_v1, cloudwatch, dynamodb, eventbridge, glue, lambda_svc, scheduler, sns, sqs
from ministack.services.cloudformation import provisioners

from local import sagemaker_service
from local.sagemaker_pipeline import CHILD, StepError, Storage

VERSION = "1.5.33"
PREFIX = "/_papertape/"
END_OF_LOG = "\x1e"
# Types that deploy as a record only: they have no effect that the loop could see on a laptop.
RECORDED_TYPES = ("AWS::Budgets::Budget",)

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanOrEqualToThreshold": operator.le,
    "LessThanThreshold": operator.lt,
}

Record = dict[str, Any]
_trigger: contextvars.ContextVar[str] = contextvars.ContextVar("trigger", default="direct")
fired: Counter[str] = Counter()
invoked: Counter[tuple[str, str]] = Counter()
published: list[Record] = []
recorded: dict[str, Record] = {}
_unpack_lock = threading.Lock()


class PatchError(Exception):
    """A patch does not fit the installed ministack; the message names both."""


def replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    """Put `wrap(original)` in the place of `owner.name`; raise PatchError when there is no such symbol."""
    original = getattr(owner, name, None)
    if original is None:
        installed = importlib.metadata.version("ministack")
        raise PatchError(f"{owner.__name__}.{name} is not there; ministack {VERSION} is needed, was {installed}")
    setattr(owner, name, wrap(original))


def handler_of(resource_type: str) -> dict[str, Any]:
    """The mutable table of a CloudFormation type's handlers."""
    handlers = provisioners._RESOURCE_HANDLERS
    if resource_type not in handlers:
        raise PatchError(f"ministack has no handlers for {resource_type}; {VERSION} is needed")
    return handlers[resource_type]


@contextmanager
def triggered_by(trigger: str) -> Iterator[None]:
    token = _trigger.set(trigger)
    try:
        yield
    finally:
        _trigger.reset(token)


# Patches


def own_schedulers_are_off() -> None:
    """Two daemons fire schedules and rules on the wall clock; a replay would trade today as well."""
    for module in (scheduler, eventbridge):
        replace(module, "start_scheduler", lambda original: lambda: None)


def schedules_keep_their_time_zone() -> None:
    """Both template handlers drop ScheduleExpressionTimezone, so a schedule reads back as UTC."""
    handlers = handler_of("AWS::Scheduler::Schedule")
    create, update = handlers["create"], handlers["update"]

    def keep(physical: str, properties: Record) -> None:
        schedule = scheduler._schedules[f"{properties.get('GroupName', 'default')}/{physical}"]
        schedule["ScheduleExpressionTimezone"] = properties.get("ScheduleExpressionTimezone", "UTC")

    def created(logical: str, properties: Record, stack: str) -> tuple[str, Record]:
        physical, attributes = create(logical, properties, stack)
        keep(physical, properties)
        return physical, attributes

    def updated(physical: str, old: Record, new: Record, stack: str) -> tuple[str, Record]:
        physical, attributes = update(physical, old, new, stack)
        keep(physical, new)
        return physical, attributes

    handlers |= {"create": created, "update": updated}


def tables_keep_their_time_to_live() -> None:
    """The table's template handler drops TimeToLiveSpecification."""
    handlers = handler_of("AWS::DynamoDB::Table")
    create = handlers["create"]

    def created(logical: str, properties: Record, stack: str) -> tuple[str, Record]:
        physical, attributes = create(logical, properties, stack)
        if properties.get("TimeToLiveSpecification"):
            dynamodb._update_ttl({"TableName": physical, "TimeToLiveSpecification": properties["TimeToLiveSpecification"]})
        return physical, attributes

    handlers["create"] = created


def rules_invoke_functions_asynchronously() -> None:
    """A rule's function runs once and its failure vanishes; on AWS it is retried and then sent to the on-failure destination."""

    def dispatch(arn: str, payload: str) -> None:
        record, config, name = lambda_svc._get_func_record_for_ref(arn)
        if not record or not config:
            raise LookupError(f"function {name} of a rule's target does not exist")
        with triggered_by("event"):
            lambda_svc.invoke_async_with_retry(lambda_svc._execution_record_for_config(record, config), json.loads(payload))

    replace(eventbridge, "_dispatch_to_lambda", lambda original: dispatch)


def invocations_are_counted() -> None:
    """Nothing tells which function ran and why; the end-to-end test needs both."""

    def counting(original: Any) -> Any:
        def execute(func: Record, config: Record, event: Any, request_id: str, started: float) -> Record:
            invoked[config.get("FunctionName", "?"), _trigger.get()] += 1
            return original(func, config, event, request_id, started)

        return execute

    def from_sns(original: Any) -> Any:
        def deliver(*args: Any) -> None:
            with triggered_by("sns"):
                original(*args)

        return deliver

    replace(lambda_svc, "_execute_function_dispatch", counting)
    replace(sns, "_deliver_to_lambda", from_sns)


def log_lines_become_metrics() -> None:
    """Embedded-metric lines reach the logs only; CloudWatch makes metrics of them, and alarms read those."""

    def emitting(original: Any) -> Any:
        def emit(func: Record, request_id: str, log_text: str, *args: Any, **kwargs: Any) -> None:
            original(func, request_id, log_text, *args, **kwargs)
            if '"CloudWatchMetrics"' in log_text:
                _evaluate(set().union(*(_embedded_metrics(line) for line in log_text.splitlines())))

        return emit

    replace(lambda_svc, "_emit_lambda_logs", emitting)


def _embedded_metrics(line: str) -> set[tuple[str, str]]:
    """Store the metrics of one log line; return their (namespace, name)."""
    try:
        document = json.loads(line)
    except ValueError:
        return set()
    stored = set()
    metadata = document.get("_aws", {}) if isinstance(document, dict) else {}
    for directive in metadata.get("CloudWatchMetrics", []):
        for dimensions in directive.get("Dimensions") or [[]]:
            chosen = {name: str(document[name]) for name in dimensions if name in document}
            for metric in directive["Metrics"]:
                value = document[metric["Name"]]
                values = value if isinstance(value, list) else [value]
                at = metadata["Timestamp"] / 1000
                unit = metric.get("Unit", "None")
                cloudwatch._store_datum(directive["Namespace"], metric["Name"], chosen, at, unit, None, values, None, None)
                stored.add((directive["Namespace"], metric["Name"]))
    return stored


def _evaluate(metrics: set[tuple[str, str]]) -> None:
    """Let the alarms on any of `metrics` look at them."""
    for alarm in list(cloudwatch._alarms.values()):
        parts = [part["MetricStat"]["Metric"] for part in alarm.get("Metrics") or [] if "MetricStat" in part] or [alarm]
        if any((part.get("Namespace"), part.get("MetricName")) in metrics for part in parts):
            cloudwatch._evaluate_alarm(alarm)


def every_call_has_lambda_metrics() -> None:
    """Only calls of the Invoke API have AWS/Lambda metrics, and these wake no alarm; a failing schedule must be able to."""

    def measure(name: str, **values: float) -> None:
        for metric, value in values.items():
            for dimensions in ({"FunctionName": name}, {}):
                cloudwatch.record_metric("AWS/Lambda", metric, value, "Milliseconds" if metric == "Duration" else "Count", dimensions)
        _evaluate({("AWS/Lambda", metric) for metric in values})

    def throttles(function_name: str, duration_ms: float, error: bool, throttle: bool) -> None:
        if throttle:
            measure(function_name, Throttles=1)

    def measuring(original: Any) -> Any:
        def execute(func: Record, config: Record, event: Any, request_id: str, started: float) -> Record:
            result = original(func, config, event, request_id, started)
            duration = (time.time() - started) * 1000
            measure(config["FunctionName"], Invocations=1, Errors=float(bool(result.get("error"))), Duration=duration)
            return result

        return execute

    replace(lambda_svc, "_emit_lambda_metrics", lambda original: throttles)
    replace(lambda_svc, "_execute_function_dispatch", measuring)


def dead_letters_are_measured() -> None:
    """A failure that reaches its queue changes no AWS/SQS metric, so the alarm on dead letters cannot ring."""

    def routing(original: Any) -> Any:
        def route(target: str, *args: Any) -> None:
            original(target, *args)
            _measure_queue(target)

        return route

    replace(lambda_svc, "_route_async_failure", routing)


def _measure_queue(arn: str) -> None:
    waiting = sqs._queue_by_arn(arn)
    if waiting is not None:
        dimensions = {"QueueName": arn.rsplit(":", 1)[-1]}
        cloudwatch.record_metric("AWS/SQS", "ApproximateNumberOfMessagesVisible", len(waiting["messages"]), "Count", dimensions)
        _evaluate({("AWS/SQS", "ApproximateNumberOfMessagesVisible")})


def alarms_read_their_own_metrics() -> None:
    """An alarm sees every dimension of its metric, so one function's error alarms for all; an alarm on a sum of metrics is refused."""

    def describing(original: Any) -> Any:
        def record(name: str, properties: Record) -> Record:
            queries = properties.get("Metrics") or []
            parts = [query["MetricStat"] for query in queries if "MetricStat" in query]
            if not parts:
                return original(name, properties)
            plain = {**properties, "Metrics": None, **parts[0]["Metric"], "Period": parts[0]["Period"], "Statistic": parts[0]["Stat"]}
            return {**original(name, plain), "Metrics": queries}

        return record

    replace(provisioners, "_cw_metric_alarm_record", describing)
    replace(cloudwatch, "_evaluate_alarm", lambda original: _evaluate_one)


def _evaluate_one(alarm: Record) -> None:
    """Compare the alarm's statistic over its periods with its threshold; act on a change. Without data nothing changes."""
    queries = alarm.get("Metrics") or []
    sources = [query["MetricStat"]["Metric"] for query in queries if "MetricStat" in query] or [alarm]
    sums = [query["Expression"] for query in queries if "Expression" in query]
    comparison = COMPARISONS.get(alarm.get("ComparisonOperator", ""))
    if comparison is None or not all(re.fullmatch(r"\w+( \+ \w+)*", expression) for expression in sums):
        return
    since = time.time() - alarm.get("Period", 60) * alarm.get("EvaluationPeriods", 1)
    named = [(s.get("Namespace"), s.get("MetricName"), {d["Name"]: d["Value"] for d in s.get("Dimensions") or []}) for s in sources]
    stored = [cloudwatch._metrics.get((space, name, cloudwatch._dims_key(dimensions))) or [] for space, name, dimensions in named]
    recent = [point for points in stored for point in points if point["Timestamp"] >= since]
    statistic = "Sum" if sums else alarm.get("ExtendedStatistic") or alarm.get("Statistic", "Average")
    value = cloudwatch._stat_value(cloudwatch._calc_stats(recent), statistic, recent) if recent else None
    before = alarm["StateValue"]
    after = before if value is None else "ALARM" if comparison(value, alarm["Threshold"]) else "OK"
    if after == before:
        return
    reason = f"Threshold Crossed: {statistic} {value} {alarm['ComparisonOperator']} {alarm['Threshold']}"
    alarm |= {"StateValue": after, "StateReason": reason, "StateUpdatedTimestamp": int(time.time())}
    cloudwatch._record_history(alarm["AlarmName"], before, after, reason)
    cloudwatch._dispatch_alarm_actions(alarm, before, after, reason)


def layers_are_unpacked_once() -> None:
    """Each worker unpacks its layers anew, again after every error; 180 MB for each of five functions is minutes and gigabytes."""

    def spawning(original: Any) -> Any:
        def spawn(worker: Any) -> None:
            config = worker.config
            folders = [str(_unpacked(lambda_svc._resolve_layer_zip(layer))) for layer in config.get("Layers") or []]
            variables = {**config.get("Environment", {}).get("Variables", {}), "_LAMBDA_LAYERS_DIRS": os.pathsep.join(folders)}
            worker.config = {**config, "Layers": [], "Environment": {"Variables": variables}}
            try:
                original(worker)
            finally:
                worker.config = config

        return spawn

    replace(lambda_runtime.Worker, "_spawn", spawning)


def _unpacked(archive: bytes | None) -> Path:
    """The folder that holds a layer's content, shared by all functions."""
    if archive is None:
        raise RuntimeError("a layer version has no content")
    folder = Path(os.environ["PAPERTAPE_RUN_DIR"]) / "layers" / hashlib.sha256(archive).hexdigest()[:16]
    with _unpack_lock:
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            with zipfile.ZipFile(io.BytesIO(archive)) as file:
                file.extractall(partial)
            partial.rename(folder)
    return folder


def logs_end_at_a_marker() -> None:
    """A call waits 50 ms for a first log line and 5 ms after the last, and lines that come later land in the next call's log."""
    handled = "            result = handler_fn(event, context)\n"
    marked = (
        "            try:\n                result = handler_fn(event, context)\n"
        f"            finally:\n                sys.stderr.write({END_OF_LOG!r} + chr(10)); sys.stderr.flush()\n"
    )
    if lambda_runtime._PYTHON_WORKER_SCRIPT.count(handled) != 1:
        raise PatchError(f"the worker script has changed; ministack {VERSION} is needed")
    lambda_runtime._PYTHON_WORKER_SCRIPT = lambda_runtime._PYTHON_WORKER_SCRIPT.replace(handled, marked)

    def draining(original: Any) -> Any:
        def drain(worker: Any, *args: Any, **kwargs: Any) -> str:
            lines, deadline = [], time.monotonic() + 1.0
            while True:
                try:
                    line = worker._stderr_queue.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    break
                if line == END_OF_LOG:
                    break
                lines.append(line)
            return "\n".join(lines)

        return drain

    replace(lambda_runtime.Worker, "_drain_stderr_bounded", draining)


def unknown_types_are_recorded() -> None:
    """A template with one type that ministack does not know is refused whole."""

    def create(logical: str, properties: Record, stack: str) -> tuple[str, Record]:
        physical = f"{stack}-{logical}"
        recorded[physical] = properties
        return physical, {"Arn": f"arn:aws:recorded:{get_region()}:{get_account_id()}:{physical}"}

    def update(physical: str, old: Record, new: Record, stack: str) -> tuple[str, Record]:
        recorded[physical] = new
        return physical, {"Arn": f"arn:aws:recorded:{get_region()}:{get_account_id()}:{physical}"}

    def delete(physical: str, properties: Record) -> None:
        recorded.pop(physical, None)

    for name in RECORDED_TYPES:
        if name in provisioners._RESOURCE_HANDLERS:
            raise PatchError(f"ministack knows {name} now; take it out of RECORDED_TYPES")
        provisioners._RESOURCE_HANDLERS[name] = {"create": create, "update": update, "delete": delete}


def sagemaker_is_a_service() -> None:
    """ministack has no SageMaker: neither resource types, nor the API, nor the runtime."""
    if "sagemaker" in app.SERVICE_HANDLERS:
        raise PatchError("ministack has a SageMaker service now; compare it with local/sagemaker_service.py")
    provisioners._RESOURCE_HANDLERS.update(
        sagemaker_service.cloudformation_handlers(lambda stack, logical: provisioners._physical_name(stack, logical, max_len=63))
    )
    app.SERVICE_HANDLERS["sagemaker"] = sagemaker_service.handle_request
    app.SERVICE_REGISTRY["sagemaker"] = {"module": "sagemaker"}
    app._loaded_modules["sagemaker"] = sagemaker_service
    app._state_map["sagemaker"] = "sagemaker"
    router.SERVICE_PATTERNS["sagemaker"] = {"target_prefixes": ["SageMaker."]}

    def routing(original: Any) -> Any:
        def detect(method: str, path: str, headers: Record, query: Record) -> str:
            return "sagemaker" if "/sagemaker/aws4_request" in headers.get("authorization", "") else original(method, path, headers, query)

        return detect

    replace(router, "detect_service", routing)
    replace(app, "detect_service", lambda original: router.detect_service)


def spark_jobs_run() -> None:
    """A Spark job's run is SUCCEEDED at once and nothing has run; here the real script runs, with `--ENGINE pandas`."""
    replace(glue, "_get_docker", lambda original: lambda: None)
    replace(glue, "_is_spark_job", lambda original: lambda job: False)
    replace(glue, "_resolve_script", lambda original: lambda location: location if str(location).endswith(".py") else f"{location}.py")
    replace(glue, "_execute_subprocess", lambda original: _run_job)


def _run_job(run: Record, job: Record, arguments: dict[str, str], script: str) -> None:
    """Run a Glue job's script in the app's Python; its exit code is the run's state. A stop request wins over the result."""
    storage = Storage(sagemaker_service._client("s3"))
    folder = Path(os.environ["PAPERTAPE_RUN_DIR"]) / "glue" / run["Id"]
    arguments = {**arguments, "--JOB_NAME": run["JobName"], "--JOB_RUN_ID": run["Id"], "--ENGINE": "pandas"}
    try:
        storage.download(script, folder)
        for archive in filter(None, arguments.get("--extra-py-files", "").split(",")):
            with zipfile.ZipFile(io.BytesIO(storage.read(archive))) as file:
                file.extractall(folder / "lib")
        child = subprocess.run(
            [
                os.environ["PAPERTAPE_PYTHON"],
                str(CHILD),
                str(folder / script.rsplit("/", 1)[-1]),
                *(v for pair in arguments.items() for v in pair),
            ],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder / "lib") if "--extra-py-files" in arguments else os.environ["PAPERTAPE_ROOT"]},
            stdin=_held_open(),
            capture_output=True,
            text=True,
            check=False,
        )
        sys.stderr.write(child.stdout + child.stderr)
        tail = " | ".join(line for line in child.stderr.splitlines()[-5:] if line)
        state, message = ("SUCCEEDED", "") if child.returncode == 0 else ("FAILED", f"exit code {child.returncode}: {tail}")
    except (StepError, OSError, zipfile.BadZipFile) as error:
        state, message = "FAILED", str(error)
    run |= {"JobRunState": state, "ErrorMessage": message[:2000]}
    detail = {
        "jobName": run["JobName"],
        "jobRunId": run["Id"],
        "state": state,
        "severity": "ERROR" if message else "INFO",
        "message": message,
    }
    entry = {"Source": "aws.glue", "DetailType": "Glue Job State Change", "Detail": json.dumps(detail)}
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)


_pipes: list[int] = []


def _held_open() -> int:
    """The read end of a pipe whose write end this process keeps, so that a child notices its end."""
    if not _pipes:
        _pipes.extend(os.pipe())
    return _pipes[0]


def messages_are_kept() -> None:
    """Mail subscriptions end in a log line; what was published is a result of a run."""

    def keeping(original: Any) -> Any:
        def fan_out(topic_arn: str, message_id: str, message: str, subject: str, *args: Any, **kwargs: Any) -> None:
            topic = sns._topic_by_arn_any_scope(topic_arn) or {"subscriptions": []}
            mails = [s["endpoint"] for s in topic["subscriptions"] if s.get("protocol", "").startswith("email")]
            published.append({"topic": topic_arn, "id": message_id, "subject": subject, "message": message, "mails": mails})
            original(topic_arn, message_id, message, subject, *args, **kwargs)

        return fan_out

    replace(sns, "_fanout", keeping)


def execute_api_checks_signatures() -> None:
    """Without AUTH any signature opens an IAM route; a request that was tampered with must be refused."""

    def checking(original: Any) -> Any:
        async def handle(host: str, path: str, method: str, headers: Record, body: bytes, query: Record, **raw: Any) -> Any:
            if app._parse_execute_api_url(host, path) is None:
                return await original(host, path, method, headers, body, query, **raw)
            if headers.get("authorization", "").startswith("AWS4-HMAC-SHA256"):
                signature = sigv4.parse_header_signature(headers)
                secret = os.environ["AWS_SECRET_ACCESS_KEY"]
                failure = (
                    signature
                    if isinstance(signature, tuple)
                    else sigv4.header_signature_failure(signature, secret, method, raw.get("raw_path") or path, query, headers, body)
                )
                if failure:
                    kind, message = failure
                    return 403, {"Content-Type": "application/json", "x-amzn-errortype": kind}, json.dumps({"message": message}).encode()
            with triggered_by("api"):
                return await original(host, path, method, headers, body, query, **raw)

        return handle

    replace(app, "_handle_execute_api_request", checking)


def state_holds_what_was_counted() -> None:
    """What was published and recorded belongs to the run's state, and no service of ministack's keeps it."""
    module = types.ModuleType("papertape")

    def load(data: Record) -> None:
        published.extend(data["published"])
        recorded.update(data["recorded"])

    def reset() -> None:
        for store in (published, recorded, fired, invoked):
            store.clear()

    module.__dict__.update(get_state=lambda: {"published": published, "recorded": recorded}, load_persisted_state=load, reset=reset)
    app.SERVICE_REGISTRY["papertape"] = {"module": "papertape"}
    app._loaded_modules["papertape"] = module
    app._state_map["papertape"] = "papertape"


def control_routes_are_served() -> None:
    """The replay fires schedules and reads results over routes of its own."""

    def serving(original: Any) -> Any:
        async def serve(scope: Record, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
                await original(scope, receive, _stopping(send) if scope["type"] == "lifespan" else send)
                return
            body = b""
            while True:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
            status, answer = await _control(scope["method"], scope["path"].removeprefix(PREFIX), body)
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": json.dumps(answer, default=str).encode()})

        return serve

    replace(app, "app", serving)


def _stopping(send: Any) -> Any:
    async def stop_after(message: Record) -> None:
        if message["type"] == "lifespan.shutdown.complete":
            sagemaker_service.stop()
            lambda_runtime.reset()
        await send(message)

    return stop_after


PATCHES = (
    own_schedulers_are_off,
    schedules_keep_their_time_zone,
    tables_keep_their_time_to_live,
    rules_invoke_functions_asynchronously,
    invocations_are_counted,
    alarms_read_their_own_metrics,
    dead_letters_are_measured,
    log_lines_become_metrics,
    every_call_has_lambda_metrics,
    layers_are_unpacked_once,
    logs_end_at_a_marker,
    unknown_types_are_recorded,
    sagemaker_is_a_service,
    spark_jobs_run,
    messages_are_kept,
    execute_api_checks_signatures,
    state_holds_what_was_counted,
    control_routes_are_served,
)


# Control routes


async def _control(method: str, route: str, body: bytes) -> tuple[int, Any]:
    match method, route:
        case "POST", "fire":
            request = json.loads(body)
            return await asyncio.to_thread(fire, request["schedule"], request["time"])
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


def fire(name: str, at: str) -> tuple[int, Record]:
    """Invoke the target of a deployed schedule as the scheduler would at `at` (ISO, UTC), and wait for a function's result.

    `name` is the schedule's, with or without the app's prefix. A job or a pipeline is started, not awaited.
    """
    found = [(k, s) for k, s in scheduler._schedules._data.items() if s["Name"] == name or s["Name"].endswith(f"-{name}")]
    if len(found) != 1:
        known = ", ".join(sorted(s["Name"] for s in scheduler._schedules._data.values())) or "none"
        return 404, {"status": "failed", "error": f"one deployed schedule called {name} is needed, {len(found)} found; deployed: {known}"}
    ((account, region, _), schedule) = found[0]
    if schedule["State"] != "ENABLED":
        return 409, {"status": "failed", "error": f"schedule {name} is {schedule['State']}"}
    fired[schedule["Name"]] += 1
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
        result = _deliver(target["Arn"], json.loads(text), target)
        if result["status"] == "failed" and not target["Arn"].startswith("arn:aws:lambda:") and target.get("DeadLetterConfig"):
            eventbridge._dispatch_to_sqs(parse_arn(target["DeadLetterConfig"]["Arn"]), text)
    return 200, result


def _deliver(arn: str, payload: Any, target: Record) -> Record:
    service, _, action = arn.removeprefix("arn:aws:scheduler:::aws-sdk:").partition(":")
    if arn.startswith("arn:aws:lambda:"):
        return _invoke_function(arn, payload)
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
        case _:
            return {"status": "failed", "error": f"target {arn} is not dispatched on the laptop"}
    answer = json.loads(body)
    return (
        {"status": "succeeded", "payload": answer} if status == 200 else {"status": "failed", "error": answer.get("message", str(answer))}
    )


def _invoke_function(arn: str, payload: Any) -> Record:
    """One asynchronous invocation without its retries: the failure goes to the function's on-failure destination."""
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
    if destination:
        lambda_svc._route_async_failure(destination, name, payload, result)
    error = result.get("body")
    message = error.get("errorMessage") if isinstance(error, dict) else str(error)
    return {"status": "failed", "error": message or "the function was throttled", "log": result.get("log", "")[-4000:]}


def stop_with_parent() -> None:
    """Ask this process to stop, state saved, when standard input closes."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def main() -> None:
    try:
        for patch in PATCHES:
            patch()
    except PatchError as error:
        sys.exit(f"patch {patch.__name__}: {error}")
    assert apigateway_v1  # loaded early: the persistence of a module counts from its import
    stop_with_parent()
    app.main()


if __name__ == "__main__":
    main()
