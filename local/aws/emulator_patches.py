"""Start ministack with what it lacks or gets wrong put right, each patch a function with its reason.

Runs in the emulator's own environment (`python -m local.aws.emulator_patches`) and ends with the process that started it: standard input
is a pipe, and its end is a request to stop. A patch whose symbol has moved stops the start with the patch's name, because the patches
hold for one exact version of ministack only. What the laptop adds to AWS's API is below `/_papertape/`: `POST fire`, `GET fired`,
`published` and `recorded`, `POST save`, `POST deliver`.
"""

# ruff: noqa: SLF001, ARG001, ARG005  (patches reach into ministack and keep its signatures)
# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import json
import os
import signal
import sys
import threading
import types
from typing import Any

import ministack.app as app
from ministack.core import iam_evaluator, lambda_runtime, router, sigv4
from ministack.core.responses import get_account_id, get_region
from ministack.services import apigateway_v1, eventbridge, glue, lambda_svc, s3, scheduler, sns
from ministack.services.cloudformation import provisioners

from local.aws import emulator_control as control
from local.aws import glue_runs, sagemaker_service, sagemaker_templates
from local.aws.emulator_state import state_is_saved_whole, table_writes_are_journaled
from local.aws.lambda_patches import (
    alarms_read_their_own_metrics,
    archives_are_unpacked_once,
    dead_letters_are_measured,
    events_take_turns,
    every_call_has_lambda_metrics,
    invocations_are_counted,
    log_lines_become_metrics,
    logs_end_at_a_marker,
)
from local.aws.patching import VERSION, PatchError, replace
from local.aws.services.athena import queries_read_data, saved_queries_are_kept, tables_are_what_glue_says, views_are_kept
from local.aws.services.containers import tasks_run_as_processes
from local.aws.services.delivery_streams import delivery_streams_buffer
from local.aws.services.shards import shard_records_are_spooled, shards_deliver_as_lambda_does

# Types that deploy as a record only: they have no effect that the loop could see on a laptop.
RECORDED_TYPES = ("AWS::Budgets::Budget", "AWS::Cognito::UserPoolUser")

Record = dict[str, Any]


def handler_of(resource_type: str) -> dict[str, Any]:
    """The mutable table of a CloudFormation type's handlers."""
    handlers = provisioners._RESOURCE_HANDLERS
    if resource_type not in handlers:
        raise PatchError(f"ministack has no handlers for {resource_type}; {VERSION} is needed")
    return handlers[resource_type]


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


def events_carry_the_replays_time() -> None:
    """Events are stamped with the wall clock; what follows from a schedule fired for 2020 happens in 2020."""
    replace(eventbridge, "_now_ts", lambda original: lambda: control.clock["now"] if control.clock else original())


def gateway_does_not_throttle() -> None:
    """Decisions that are days apart pass within milliseconds of a replay, and the stage's rate a second would refuse them."""
    replace(apigateway_v1, "_check_throttle", lambda original: lambda *args: None)


def rules_invoke_functions_asynchronously() -> None:
    """A rule's function runs once and its failure vanishes; on AWS it is retried and then sent to the on-failure destination."""

    def dispatch(arn: str, payload: str) -> None:
        record, config, name = lambda_svc._get_func_record_for_ref(arn)
        if not record or not config:
            raise LookupError(f"function {name} of a rule's target does not exist")
        with control.triggered_by("event"):
            lambda_svc.invoke_async_with_retry(lambda_svc._execution_record_for_config(record, config), json.loads(payload))

    replace(eventbridge, "_dispatch_to_lambda", lambda original: dispatch)


def unknown_types_are_recorded() -> None:
    """A template with one type that ministack does not know is refused whole."""

    def create(logical: str, properties: Record, stack: str) -> tuple[str, Record]:
        physical = f"{stack}-{logical}"
        control.recorded[physical] = properties
        return physical, {"Arn": f"arn:aws:recorded:{get_region()}:{get_account_id()}:{physical}"}

    def update(physical: str, old: Record, new: Record, stack: str) -> tuple[str, Record]:
        control.recorded[physical] = new
        return physical, {"Arn": f"arn:aws:recorded:{get_region()}:{get_account_id()}:{physical}"}

    def delete(physical: str, properties: Record) -> None:
        control.recorded.pop(physical, None)

    for name in RECORDED_TYPES:
        if name in provisioners._RESOURCE_HANDLERS:
            raise PatchError(f"ministack knows {name} now; take it out of RECORDED_TYPES")
        provisioners._RESOURCE_HANDLERS[name] = {"create": create, "update": update, "delete": delete}


def sagemaker_is_a_service() -> None:
    """ministack has no SageMaker: neither resource types, nor the API, nor the runtime."""
    if "sagemaker" in app.SERVICE_HANDLERS:
        raise PatchError("ministack has a SageMaker service now; compare it with local/aws/sagemaker_service.py")
    provisioners._RESOURCE_HANDLERS.update(
        sagemaker_templates.handlers(lambda stack, logical: provisioners._physical_name(stack, logical, max_len=63))
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
    replace(glue, "_execute_subprocess", lambda original: glue_runs.run_job)


def messages_are_kept() -> None:
    """Mail subscriptions end in a log line; what was published is a result of a run."""

    def keeping(original: Any) -> Any:
        def fan_out(topic_arn: str, message_id: str, message: str, subject: str, *args: Any, **kwargs: Any) -> None:
            topic = sns._topic_by_arn_any_scope(topic_arn) or {"subscriptions": []}
            mails = [s["endpoint"] for s in topic["subscriptions"] if s.get("protocol", "").startswith("email")]
            control.published.append({"topic": topic_arn, "id": message_id, "subject": subject, "message": message, "mails": mails})
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
            with control.triggered_by("api"):
                return await original(host, path, method, headers, body, query, **raw)

        return handle

    replace(app, "_handle_execute_api_request", checking)


def cloudfront_reads_its_buckets_over_tls() -> None:
    """CloudFront's own request to a bucket counts as one over HTTP, which a bucket that demands TLS refuses."""

    def encrypted(original: Any) -> Any:
        def allows(*args: Any) -> bool:
            address, _ = iam_evaluator._request_origin.get()
            token = iam_evaluator._request_origin.set((address, True))
            try:
                return original(*args)
            finally:
                iam_evaluator._request_origin.reset(token)

        return allows

    replace(s3, "_cloudfront_origin_allows", encrypted)


def state_holds_what_was_counted() -> None:
    """What was published and recorded belongs to the run's state, and no service of ministack's keeps it."""
    module = types.ModuleType("papertape")

    def load(data: Record) -> None:
        control.published.extend(data["published"])
        control.recorded.update(data["recorded"])
        control.clock.update(data["clock"])

    def reset() -> None:
        for store in (control.published, control.recorded, control.fired, control.invoked, control.clock):
            store.clear()

    module.__dict__.update(
        get_state=lambda: {"published": control.published, "recorded": control.recorded, "clock": control.clock},
        load_persisted_state=load,
        reset=reset,
    )
    app.SERVICE_REGISTRY["papertape"] = {"module": "papertape"}
    app._loaded_modules["papertape"] = module
    app._state_map["papertape"] = "papertape"


def control_routes_are_served() -> None:
    """The replay fires schedules and reads results over routes of its own."""

    def serving(original: Any) -> Any:
        async def serve(scope: Record, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or not scope["path"].startswith(control.PREFIX):
                await original(scope, receive, _stopping(send) if scope["type"] == "lifespan" else send)
                return
            body = b""
            while True:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
            status, answer = await control.answer(scope["method"], scope["path"].removeprefix(control.PREFIX), body)
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
    events_carry_the_replays_time,
    gateway_does_not_throttle,
    rules_invoke_functions_asynchronously,
    events_take_turns,
    invocations_are_counted,
    alarms_read_their_own_metrics,
    dead_letters_are_measured,
    log_lines_become_metrics,
    every_call_has_lambda_metrics,
    archives_are_unpacked_once,
    logs_end_at_a_marker,
    unknown_types_are_recorded,
    sagemaker_is_a_service,
    queries_read_data,
    views_are_kept,
    tables_are_what_glue_says,
    saved_queries_are_kept,
    spark_jobs_run,
    tasks_run_as_processes,
    messages_are_kept,
    execute_api_checks_signatures,
    cloudfront_reads_its_buckets_over_tls,
    shards_deliver_as_lambda_does,
    shard_records_are_spooled,
    delivery_streams_buffer,
    state_holds_what_was_counted,
    state_is_saved_whole,
    table_writes_are_journaled,
    control_routes_are_served,
)


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
    stop_with_parent()
    app.main()


if __name__ == "__main__":
    main()
