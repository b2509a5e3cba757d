"""The part of SageMaker that Papertape uses, as a service inside the emulator's process.

Pipelines run for real (`local.aws.sagemaker_pipeline`), model packages have versions and approvals whose changes reach EventBridge, and an
endpoint is a subprocess that runs the packaged `inference.py` on a loopback port. What is not implemented answers with a
ValidationException that names the operation. State survives a clean stop: endpoints start again, an execution that was under way is
recorded as failed.
"""

# ruff: noqa: SLF001, ARG001, ARG005, S310  (ministack's signatures and stores are kept; plain http on loopback)
# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

import asyncio
import contextvars
import copy
import hashlib
import json
import os
import re
import threading
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ministack.services.eventbridge as eventbridge
from ministack.core.responses import AccountRegionScopedDict, get_account_id, get_region, request_scope

from local.aws.sagemaker_endpoint import ModelServer, Response
from local.aws.sagemaker_pipeline import Execution, StepError, Storage
from trading_env.errors import PapertapeError

Record = dict[str, Any]

KINDS = ("pipeline", "execution", "model-package-group", "model-package", "model", "endpoint-config", "endpoint")
QUICK_SECONDS = 5.0  # an endpoint that is up by then is in service when its creation answers: no poll is waited for
_stores: dict[str, Any] = {kind: AccountRegionScopedDict() for kind in KINDS}
_executions: dict[str, Execution] = {}
_servers: dict[str, ModelServer] = {}
_lock = threading.RLock()


class RefusalError(PapertapeError):
    """A request that SageMaker would refuse: its type and message."""

    def __init__(self, message: str, kind: str = "ValidationException") -> None:
        super().__init__(message)
        self.kind = kind


def run_folder() -> Path:
    return Path(os.environ["PAPERTAPE_RUN_DIR"]) / "sagemaker"


def arn(kind: str, name: str) -> str:
    return f"arn:aws:sagemaker:{get_region()}:{get_account_id()}:{kind}/{name}"


def _find(kind: str, name: str) -> Record:
    """The record called `name`, which may also be an ARN or `group/version`."""
    key = re.sub(r"^arn:aws:sagemaker:[^:]*:[^:]*:[a-z-]+/", "", name)
    record = _stores[kind].get(key)
    if record is None:
        raise RefusalError(
            f'Could not find {kind} "{arn(kind, key)}".', "ResourceNotFound" if kind == "pipeline" else "ValidationException"
        )
    return record  # type: ignore[no-any-return]


def _create(kind: str, name: str, record: Record) -> Record:
    if name in _stores[kind]:
        raise RefusalError(f'Cannot create already existing {kind} "{arn(kind, name)}".')
    now = time.time()
    _stores[kind][name] = {**record, "CreationTime": now, "LastModifiedTime": now}
    return _stores[kind][name]  # type: ignore[no-any-return]


def _in_background(work: Callable[[], None], name: str, *, patience: float = 0.0) -> None:
    """Run `work` on a thread that keeps the request's account and region; return when it ends or after `patience` seconds."""
    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True, name=name)
    thread.start()
    thread.join(patience)


def _emit(detail_type: str, resource: str, detail: Record) -> None:
    """Put an event of AWS's own on the default bus, as only services can."""
    entry = {"Source": "aws.sagemaker", "DetailType": detail_type, "Resources": [resource], "Detail": json.dumps(detail, default=str)}
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# Pipelines


def put_pipeline(name: str, properties: Record) -> str:
    """Create or replace a pipeline; raise RefusalError when its definition is not JSON of the schema that runs here."""
    try:
        definition = json.loads(properties["PipelineDefinition"])
    except ValueError as error:
        raise RefusalError(f"pipeline {name}: the definition is not JSON ({error})") from error
    if definition.get("Version") != "2020-12-01" or not isinstance(definition.get("Steps"), list):
        raise RefusalError(f"pipeline {name}: schema 2020-12-01 with Steps is needed, Version was {definition.get('Version')!r}")
    now = time.time()
    record = {**properties, "PipelineName": name, "PipelineArn": arn("pipeline", name), "PipelineStatus": "Active"}
    _stores["pipeline"][name] = {"CreationTime": now, **(_stores["pipeline"].get(name) or {}), **record, "LastModifiedTime": now}
    return str(record["PipelineArn"])


def start_pipeline_execution(request: Record) -> Record:
    pipeline = _find("pipeline", request["PipelineName"])
    definition, name = json.loads(pipeline["PipelineDefinition"]), pipeline["PipelineName"]
    given = {p["Name"]: p["Value"] for p in request.get("PipelineParameters", [])}
    declared = {p["Name"]: p for p in definition.get("Parameters", [])}
    unknown, missing = given.keys() - declared.keys(), [n for n, p in declared.items() if n not in given and "DefaultValue" not in p]
    if unknown or missing:
        raise RefusalError(f"pipeline {name}: unknown parameters {sorted(unknown)}, parameters without a value {missing}")
    with _lock:
        identifier = hashlib.sha256(f"{name}/{len(_stores['execution']._data)}".encode()).hexdigest()[:12]
        execution_arn = f"{pipeline['PipelineArn']}/execution/{identifier}"
        record = _create(
            "execution",
            f"{name}/execution/{identifier}",
            {
                "PipelineArn": pipeline["PipelineArn"],
                "PipelineExecutionArn": execution_arn,
                "PipelineExecutionStatus": "Executing",
                "Steps": {},
            },
        )
    record["PipelineExecutionDisplayName"] = request.get("PipelineExecutionDisplayName", f"execution-{identifier}")
    execution = Execution(
        identifier=identifier,
        arn=execution_arn,
        pipeline=name,
        definition=definition,
        parameters={n: _typed(given.get(n, p.get("DefaultValue")), p["Type"]) for n, p in declared.items()},
        root=run_folder() / identifier,
        storage=Storage(client("s3")),
        python=os.environ["PAPERTAPE_PYTHON"],
        register=lambda arguments: create_model_package(arguments)["ModelPackageArn"],
        job_arn=arn,
        steps=record["Steps"],
    )
    _executions[execution_arn] = execution

    def work() -> None:
        status, reason = execution.run()
        record.update(PipelineExecutionStatus=status, LastModifiedTime=time.time(), **({"FailureReason": reason} if reason else {}))
        del _executions[execution_arn]
        detail = {
            "pipelineArn": pipeline["PipelineArn"],
            "pipelineExecutionArn": execution_arn,
            "previousPipelineExecutionStatus": "Executing",
            "currentPipelineExecutionStatus": status,
        }
        _emit("SageMaker Model Building Pipeline Execution Status Change", execution_arn, detail)

    _in_background(work, f"pipeline-{identifier}")
    return {"PipelineExecutionArn": execution_arn}


def _typed(value: Any, kind: str) -> Any:
    converters: dict[str, Callable[[Any], Any]] = {"Integer": int, "Float": float, "Boolean": lambda v: str(v).lower() == "true"}
    return converters.get(kind, str)(value)


def client(service: str) -> Any:
    import boto3

    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    return boto3.client(service, region_name=get_region(), aws_access_key_id=get_account_id(), aws_secret_access_key=secret)


def _describe_execution(request: Record) -> Record:
    record = _find("execution", request["PipelineExecutionArn"])
    return {k: v for k, v in record.items() if k != "Steps"}


def _execution_steps(request: Record) -> Record:
    steps = list(_find("execution", request["PipelineExecutionArn"])["Steps"].values())
    return {"PipelineExecutionSteps": copy.deepcopy(steps if request.get("SortOrder") == "Ascending" else steps[::-1])}


def _stop_execution(request: Record) -> Record:
    record = _find("execution", request["PipelineExecutionArn"])
    running = _executions.get(record["PipelineExecutionArn"])
    if running:
        record["PipelineExecutionStatus"] = "Stopping"
        running.stop()
    return {"PipelineExecutionArn": record["PipelineExecutionArn"]}


# Model packages


def create_model_package(request: Record) -> Record:
    group = _find("model-package-group", request["ModelPackageGroupName"])["ModelPackageGroupName"]
    with _lock:
        version = 1 + max(
            (r["ModelPackageVersion"] for r in _stores["model-package"].values() if r["ModelPackageGroupName"] == group), default=0
        )
        identity = {
            "ModelPackageGroupName": group,
            "ModelPackageVersion": version,
            "ModelPackageArn": arn("model-package", f"{group}/{version}"),
            "ModelPackageStatus": "Completed",
            "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
        }
        record = _create("model-package", f"{group}/{version}", {"ModelApprovalStatus": "PendingManualApproval", **request, **identity})
    _package_event(record)
    return {"ModelPackageArn": record["ModelPackageArn"]}


def _update_model_package(request: Record) -> Record:
    record = _find("model-package", request["ModelPackageArn"])
    record |= {k: v for k, v in request.items() if k in ("ModelApprovalStatus", "ApprovalDescription")}
    record["CustomerMetadataProperties"] = {**record.get("CustomerMetadataProperties", {}), **request.get("CustomerMetadataProperties", {})}
    record["LastModifiedTime"] = time.time()
    _package_event(record)
    return {"ModelPackageArn": record["ModelPackageArn"]}


def _package_event(record: Record) -> None:
    detail = {k: v for k, v in record.items() if k != "LastModifiedTime"} | {"CreationTime": _iso(record["CreationTime"])}
    _emit("SageMaker Model Package State Change", record["ModelPackageArn"], detail)


def _list_model_packages(request: Record) -> Record:
    """Pages of the versions of one group, in the order in which they were made; the registry's own default is the oldest first."""
    group = _find("model-package-group", request["ModelPackageGroupName"])["ModelPackageGroupName"]
    approval = request.get("ModelApprovalStatus")
    shown = (
        "ModelPackageGroupName", "ModelPackageVersion", "ModelPackageArn", "ModelPackageStatus", "ModelApprovalStatus", "CreationTime",
    )  # fmt: skip
    found = [
        {k: r[k] for k in shown}
        for r in _stores["model-package"].values()
        if r["ModelPackageGroupName"] == group and approval in (None, r["ModelApprovalStatus"])
    ]
    found.sort(key=lambda r: (r["CreationTime"], r["ModelPackageVersion"]), reverse=request.get("SortOrder") == "Descending")
    start = int(request.get("NextToken", 0))
    end = start + int(request.get("MaxResults", 100))
    return {"ModelPackageSummaryList": found[start:end], **({"NextToken": str(end)} if end < len(found) else {})}


# Endpoints


def _put_endpoint(request: Record, *, create: bool) -> Record:
    name, config = request["EndpointName"], request["EndpointConfigName"]
    _find("endpoint-config", config)
    record = _create("endpoint", name, {"EndpointName": name, "EndpointArn": arn("endpoint", name)}) if create else _find("endpoint", name)
    record |= {"EndpointConfigName": config, "EndpointStatus": "Creating" if create else "Updating", "LastModifiedTime": time.time()}
    _in_background(lambda: _serve(record), f"endpoint-{name}", patience=QUICK_SECONDS)
    return {"EndpointArn": record["EndpointArn"]}


def _serve(record: Record) -> None:
    """Bring up the endpoint's server, then take down the one it replaces."""
    key = record["EndpointArn"]
    try:
        folder = run_folder() / "endpoints" / f"{record['EndpointName']}-{record['EndpointConfigName']}"
        server = ModelServer.start(_container(record), folder=folder, storage=Storage(client("s3")), python=os.environ["PAPERTAPE_PYTHON"])
    except (StepError, RefusalError, OSError, KeyError) as error:
        record |= {"EndpointStatus": "InService" if key in _servers else "Failed", "FailureReason": str(error)[:1024]}
        return
    with _lock:
        previous = _servers.pop(key, None)
        _servers[key] = server
    if previous:
        previous.stop()
    record.pop("FailureReason", None)
    record |= {"EndpointStatus": "InService", "LastModifiedTime": time.time()}


def _container(record: Record) -> Record:
    """The container that an endpoint's configuration leads to: a model's own or its package's."""
    variant = _find("endpoint-config", record["EndpointConfigName"])["ProductionVariants"][0]
    model = _find("model", variant["ModelName"])
    container: Record = model.get("PrimaryContainer") or model["Containers"][0]
    if "ModelPackageName" in container:
        package = _find("model-package", container["ModelPackageName"])
        container = {**package["InferenceSpecification"]["Containers"][0], **container}
    return container


def _delete_endpoint(request: Record) -> Record:
    record = _find("endpoint", request["EndpointName"])
    with _lock:
        server = _servers.pop(record["EndpointArn"], None)
    del _stores["endpoint"][record["EndpointName"]]
    if server:
        server.stop()
    return {}


def _invoke(name: str, body: bytes, headers: dict[str, str]) -> Response:
    record = _stores["endpoint"].get(name)
    server = _servers.get(record["EndpointArn"]) if record else None
    if server is None:
        return _refused(RefusalError(f"Endpoint {name} of account {get_account_id()} not found.", "ValidationError"))
    return server.invoke(body, headers)


# The API


def _put_named(kind: str, field: str) -> Callable[[Record], Record]:
    title = "".join(part.title() for part in kind.split("-"))

    def create(request: Record) -> Record:
        _create(kind, request[field], {**request, f"{title}Arn": arn(kind, request[field])})
        return {f"{title}Arn": arn(kind, request[field])}

    return create


def _delete(kind: str, field: str) -> Callable[[Record], Record]:
    def delete(request: Record) -> Record:
        record = _find(kind, request[field])
        del _stores[kind][next(k for k, v in _stores[kind].items() if v is record)]
        return {}

    return delete


def _list(kind: str, key: str) -> Callable[[Record], Record]:
    def listing(request: Record) -> Record:
        return {key: [{k: v for k, v in r.items() if k != "Steps"} for r in _stores[kind].values()]}

    return listing


def create_model_package_group(request: Record, *, exists: bool = False) -> Record:
    """Create a group; with `exists` a group of that name is kept as it is."""
    name = request["ModelPackageGroupName"]
    group = {"ModelPackageGroupArn": arn("model-package-group", name), "ModelPackageGroupStatus": "Completed"}
    if not exists or name not in _stores["model-package-group"]:
        _create("model-package-group", name, {**request, **group})
    return {"ModelPackageGroupArn": group["ModelPackageGroupArn"]}


def forget(kind: str, name: str) -> None:
    """Remove what a template created."""
    _stores[kind].pop(name.rsplit("/", 1)[-1], None)


OPERATIONS: dict[str, Callable[[Record], Record]] = {
    "DescribePipeline": lambda r: _find("pipeline", r["PipelineName"]),
    "ListPipelines": _list("pipeline", "PipelineSummaries"),
    "StartPipelineExecution": start_pipeline_execution,
    "DescribePipelineExecution": _describe_execution,
    "ListPipelineExecutions": lambda r: {
        "PipelineExecutionSummaries": [
            {**_describe_execution(e), "StartTime": e["CreationTime"]}
            for e in reversed(list(_stores["execution"].values()))
            if e["PipelineArn"].endswith("/" + r["PipelineName"].rsplit("/", 1)[-1])
        ]
    },
    "ListPipelineExecutionSteps": _execution_steps,
    "StopPipelineExecution": _stop_execution,
    "CreateModelPackageGroup": create_model_package_group,
    "DescribeModelPackageGroup": lambda r: _find("model-package-group", r["ModelPackageGroupName"]),
    "ListModelPackageGroups": _list("model-package-group", "ModelPackageGroupSummaryList"),
    "CreateModelPackage": create_model_package,
    "DescribeModelPackage": lambda r: _find("model-package", r["ModelPackageName"]),
    "UpdateModelPackage": _update_model_package,
    "DeleteModelPackage": _delete("model-package", "ModelPackageName"),
    "ListModelPackages": _list_model_packages,
    "CreateModel": _put_named("model", "ModelName"),
    "DescribeModel": lambda r: _find("model", r["ModelName"]),
    "DeleteModel": _delete("model", "ModelName"),
    "ListModels": _list("model", "Models"),
    "CreateEndpointConfig": _put_named("endpoint-config", "EndpointConfigName"),
    "DescribeEndpointConfig": lambda r: _find("endpoint-config", r["EndpointConfigName"]),
    "DeleteEndpointConfig": _delete("endpoint-config", "EndpointConfigName"),
    "ListEndpointConfigs": _list("endpoint-config", "EndpointConfigs"),
    "CreateEndpoint": lambda r: _put_endpoint(r, create=True),
    "UpdateEndpoint": lambda r: _put_endpoint(r, create=False),
    "DescribeEndpoint": lambda r: _find("endpoint", r["EndpointName"]),
    "DeleteEndpoint": _delete_endpoint,
    "ListEndpoints": _list("endpoint", "Endpoints"),
    "AddTags": lambda r: {"Tags": r.get("Tags", [])},
    "ListTags": lambda r: {"Tags": []},
}


def _refused(refusal: RefusalError) -> Response:
    document = {"__type": refusal.kind, "message": str(refusal)}
    return 400, {"Content-Type": "application/x-amz-json-1.1", "x-amzn-errortype": refusal.kind}, json.dumps(document).encode()


def call(operation: str, request: Record) -> Response:
    """Carry out one API call in the current account and region."""
    if operation not in OPERATIONS:
        return _refused(RefusalError(f"SageMaker {operation} is not implemented on the laptop"))
    try:
        answer = OPERATIONS[operation](request)
    except RefusalError as refusal:
        return _refused(refusal)
    except KeyError as error:
        return _refused(RefusalError(f"{operation}: {error} is required"))
    return 200, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(answer, default=str).encode()


async def handle_request(method: str, path: str, headers: dict[str, str], body: bytes, query: Record) -> Response:
    """The service's entry in the emulator: SageMaker's JSON API and the runtime's InvokeEndpoint."""
    invocation = re.fullmatch(r"/endpoints/([^/]+)/invocations", path)
    if invocation:
        return await asyncio.to_thread(_invoke, invocation[1], body, headers)
    return await asyncio.to_thread(call, headers.get("x-amz-target", "").rsplit(".", 1)[-1], json.loads(body or b"{}"))


# State, in the form that the emulator's persistence expects of a service module


def get_state() -> Record:
    for record in _stores["execution"]._data.values():
        if record["PipelineExecutionStatus"] in ("Executing", "Stopping"):
            record |= {"PipelineExecutionStatus": "Failed", "FailureReason": "the emulator was stopped while it ran"}
    return copy.deepcopy(_stores)


def load_persisted_state(data: Record) -> None:
    for kind in KINDS:
        _stores[kind].update(data.get(kind, {}))
    threading.Thread(target=_resume_endpoints, daemon=True, name="endpoints-resume").start()


def _resume_endpoints() -> None:
    """Start the endpoints of the last run; their archives are in S3, so the emulator must answer first."""
    wait_until_up()
    for (account, region, _), record in list(_stores["endpoint"]._data.items()):
        with request_scope(account, region):
            record["EndpointStatus"] = "Updating"
            _serve(record)


def wait_until_up() -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{os.environ['AWS_ENDPOINT_URL']}/_ministack/health", timeout=1):
                return
        except OSError:
            time.sleep(0.05)


def reset() -> None:
    stop()
    for store in _stores.values():
        store._data.clear()


def stop() -> None:
    """End every subprocess of this service."""
    for execution in list(_executions.values()):
        execution.stop()
    with _lock:
        servers = list(_servers.values())
        _servers.clear()
    for server in servers:
        server.stop()
