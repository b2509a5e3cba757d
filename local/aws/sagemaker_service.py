"""The part of SageMaker that Papertape uses, as a service inside the emulator's process.

Pipelines run for real (`local.aws.sagemaker_pipeline`), model packages have versions and approvals whose changes reach EventBridge, and an
endpoint is a subprocess that runs the packaged `inference.py` on a loopback port. What is not implemented answers with a
ValidationException that names the operation. State survives a clean stop: endpoints start again, an execution that was under way is
recorded as failed.
"""

# ruff: noqa: SLF001, ARG001, ARG005  (ministack's signatures and stores are kept)
# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from local.aws.sagemaker_endpoints import delete_endpoint, invoke, put_endpoint, resume_endpoints, stop_endpoints
from local.aws.sagemaker_model_server import Response
from local.aws.sagemaker_pipeline import PipelineExecution, Storage
from local.aws.sagemaker_records import (
    KINDS,
    Record,
    RefusalError,
    arn,
    client,
    create_record,
    emit,
    find,
    in_background,
    iso,
    lock,
    refused,
    run_folder,
    stores,
)
from local.aws.services import feature_store

STOPPED = "the emulator was stopped while it ran"
_executions: dict[str, PipelineExecution] = {}


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
    stores["pipeline"][name] = {"CreationTime": now, **(stores["pipeline"].get(name) or {}), **record, "LastModifiedTime": now}
    return str(record["PipelineArn"])


def start_pipeline_execution(request: Record) -> Record:
    pipeline = find("pipeline", request["PipelineName"])
    definition, name = json.loads(pipeline["PipelineDefinition"]), pipeline["PipelineName"]
    given = {p["Name"]: p["Value"] for p in request.get("PipelineParameters", [])}
    declared = {p["Name"]: p for p in definition.get("Parameters", [])}
    unknown, missing = given.keys() - declared.keys(), [n for n, p in declared.items() if n not in given and "DefaultValue" not in p]
    if unknown or missing:
        raise RefusalError(f"pipeline {name}: unknown parameters {sorted(unknown)}, parameters without a value {missing}")
    with lock:
        identifier = hashlib.sha256(f"{name}/{len(stores['execution']._data)}".encode()).hexdigest()[:12]
        execution_arn = f"{pipeline['PipelineArn']}/execution/{identifier}"
        record = create_record(
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
    execution = PipelineExecution(
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
        emit("SageMaker Model Building Pipeline Execution Status Change", execution_arn, detail)

    in_background(work, f"pipeline-{identifier}")
    return {"PipelineExecutionArn": execution_arn}


def _typed(value: Any, kind: str) -> Any:
    converters: dict[str, Callable[[Any], Any]] = {"Integer": int, "Float": float, "Boolean": lambda v: str(v).lower() == "true"}
    return converters.get(kind, str)(value)


def _describe_execution(request: Record) -> Record:
    record = find("execution", request["PipelineExecutionArn"])
    return {k: v for k, v in record.items() if k != "Steps"}


def _execution_steps(request: Record) -> Record:
    steps = list(find("execution", request["PipelineExecutionArn"])["Steps"].values())
    return {"PipelineExecutionSteps": copy.deepcopy(steps if request.get("SortOrder") == "Ascending" else steps[::-1])}


def _stop_execution(request: Record) -> Record:
    record = find("execution", request["PipelineExecutionArn"])
    running = _executions.get(record["PipelineExecutionArn"])
    if running:
        record["PipelineExecutionStatus"] = "Stopping"
        running.stop()
    return {"PipelineExecutionArn": record["PipelineExecutionArn"]}


# Model packages


def create_model_package(request: Record) -> Record:
    group = find("model-package-group", request["ModelPackageGroupName"])["ModelPackageGroupName"]
    with lock:
        version = 1 + max(
            (r["ModelPackageVersion"] for r in stores["model-package"].values() if r["ModelPackageGroupName"] == group), default=0
        )
        identity = {
            "ModelPackageGroupName": group,
            "ModelPackageVersion": version,
            "ModelPackageArn": arn("model-package", f"{group}/{version}"),
            "ModelPackageStatus": "Completed",
            "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
        }
        record = create_record(
            "model-package", f"{group}/{version}", {"ModelApprovalStatus": "PendingManualApproval", **request, **identity}
        )
    _package_event(record)
    return {"ModelPackageArn": record["ModelPackageArn"]}


def _update_model_package(request: Record) -> Record:
    record = find("model-package", request["ModelPackageArn"])
    record |= {k: v for k, v in request.items() if k in ("ModelApprovalStatus", "ApprovalDescription")}
    record["CustomerMetadataProperties"] = {**record.get("CustomerMetadataProperties", {}), **request.get("CustomerMetadataProperties", {})}
    record["LastModifiedTime"] = time.time()
    _package_event(record)
    return {"ModelPackageArn": record["ModelPackageArn"]}


def _package_event(record: Record) -> None:
    detail = {k: v for k, v in record.items() if k != "LastModifiedTime"} | {"CreationTime": iso(record["CreationTime"])}
    emit("SageMaker Model Package State Change", record["ModelPackageArn"], detail)


def _list_model_packages(request: Record) -> Record:
    """Pages of the versions of one group, in the order in which they were made; the registry's own default is the oldest first."""
    group = find("model-package-group", request["ModelPackageGroupName"])["ModelPackageGroupName"]
    approval = request.get("ModelApprovalStatus")
    shown = (
        "ModelPackageGroupName", "ModelPackageVersion", "ModelPackageArn", "ModelPackageStatus", "ModelApprovalStatus", "CreationTime",
    )  # fmt: skip
    found = [
        {k: r[k] for k in shown}
        for r in stores["model-package"].values()
        if r["ModelPackageGroupName"] == group and approval in (None, r["ModelApprovalStatus"])
    ]
    found.sort(key=lambda r: (r["CreationTime"], r["ModelPackageVersion"]), reverse=request.get("SortOrder") == "Descending")
    start = int(request.get("NextToken", 0))
    end = start + int(request.get("MaxResults", 100))
    return {"ModelPackageSummaryList": found[start:end], **({"NextToken": str(end)} if end < len(found) else {})}


# The API


def _put_named(kind: str, field: str) -> Callable[[Record], Record]:
    title = "".join(part.title() for part in kind.split("-"))

    def create(request: Record) -> Record:
        create_record(kind, request[field], {**request, f"{title}Arn": arn(kind, request[field])})
        return {f"{title}Arn": arn(kind, request[field])}

    return create


def _delete(kind: str, field: str) -> Callable[[Record], Record]:
    def delete(request: Record) -> Record:
        record = find(kind, request[field])
        del stores[kind][next(k for k, v in stores[kind].items() if v is record)]
        return {}

    return delete


def _list(kind: str, key: str) -> Callable[[Record], Record]:
    def listing(request: Record) -> Record:
        return {key: [{k: v for k, v in r.items() if k != "Steps"} for r in stores[kind].values()]}

    return listing


def create_model_package_group(request: Record, *, exists: bool = False) -> Record:
    """Create a group; with `exists` a group of that name is kept as it is."""
    name = request["ModelPackageGroupName"]
    group = {"ModelPackageGroupArn": arn("model-package-group", name), "ModelPackageGroupStatus": "Completed"}
    if not exists or name not in stores["model-package-group"]:
        create_record("model-package-group", name, {**request, **group})
    return {"ModelPackageGroupArn": group["ModelPackageGroupArn"]}


def _delete_group(request: Record) -> Record:
    name = find("model-package-group", request["ModelPackageGroupName"])["ModelPackageGroupName"]
    if any(package["ModelPackageGroupName"] == name for package in stores["model-package"].values()):
        raise RefusalError(f"Model package group {name} still holds model packages.")
    return _delete("model-package-group", "ModelPackageGroupName")(request)


def forget(kind: str, name: str) -> None:
    """Remove what a template created."""
    stores[kind].pop(name.rsplit("/", 1)[-1], None)


OPERATIONS: dict[str, Callable[[Record], Record]] = {
    "DescribePipeline": lambda r: find("pipeline", r["PipelineName"]),
    "ListPipelines": _list("pipeline", "PipelineSummaries"),
    "StartPipelineExecution": start_pipeline_execution,
    "DescribePipelineExecution": _describe_execution,
    "ListPipelineExecutions": lambda r: {
        "PipelineExecutionSummaries": [
            {**_describe_execution(e), "StartTime": e["CreationTime"]}
            for e in reversed(list(stores["execution"].values()))
            if e["PipelineArn"].endswith("/" + r["PipelineName"].rsplit("/", 1)[-1])
        ]
    },
    "ListPipelineExecutionSteps": _execution_steps,
    "StopPipelineExecution": _stop_execution,
    "CreateModelPackageGroup": create_model_package_group,
    "DescribeModelPackageGroup": lambda r: find("model-package-group", r["ModelPackageGroupName"]),
    "ListModelPackageGroups": _list("model-package-group", "ModelPackageGroupSummaryList"),
    "DeleteModelPackageGroup": _delete_group,
    "CreateModelPackage": create_model_package,
    "DescribeModelPackage": lambda r: find("model-package", r["ModelPackageName"]),
    "UpdateModelPackage": _update_model_package,
    "DeleteModelPackage": _delete("model-package", "ModelPackageName"),
    "ListModelPackages": _list_model_packages,
    "CreateModel": _put_named("model", "ModelName"),
    "DescribeModel": lambda r: find("model", r["ModelName"]),
    "DeleteModel": _delete("model", "ModelName"),
    "ListModels": _list("model", "Models"),
    "CreateEndpointConfig": _put_named("endpoint-config", "EndpointConfigName"),
    "DescribeEndpointConfig": lambda r: find("endpoint-config", r["EndpointConfigName"]),
    "DeleteEndpointConfig": _delete("endpoint-config", "EndpointConfigName"),
    "ListEndpointConfigs": _list("endpoint-config", "EndpointConfigs"),
    "CreateEndpoint": lambda r: put_endpoint(r, create=True),
    "UpdateEndpoint": lambda r: put_endpoint(r, create=False),
    "DescribeEndpoint": lambda r: find("endpoint", r["EndpointName"]),
    "DeleteEndpoint": delete_endpoint,
    "ListEndpoints": _list("endpoint", "Endpoints"),
    **feature_store.OPERATIONS,
    "AddTags": lambda r: {"Tags": r.get("Tags", [])},
    "ListTags": lambda r: {"Tags": []},
}


def call(operation: str, request: Record) -> Response:
    """Carry out one API call in the current account and region."""
    if operation not in OPERATIONS:
        return refused(RefusalError(f"SageMaker {operation} is not implemented on the laptop"))
    try:
        answer = OPERATIONS[operation](request)
    except RefusalError as refusal:
        return refused(refusal)
    except KeyError as error:
        return refused(RefusalError(f"{operation}: {error} is required"))
    return 200, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(answer, default=str).encode()


async def handle_request(method: str, path: str, headers: dict[str, str], body: bytes, query: Record) -> Response:
    """The service's entry in the emulator: SageMaker's JSON API and the runtime's InvokeEndpoint."""
    invocation = re.fullmatch(r"/endpoints/([^/]+)/invocations", path)
    if invocation:
        return await asyncio.to_thread(invoke, invocation[1], body, headers)
    if path.startswith(feature_store.PATHS):
        return await asyncio.to_thread(feature_store.answer, method, path, query, body)
    return await asyncio.to_thread(call, headers.get("x-amz-target", "").rsplit(".", 1)[-1], json.loads(body or b"{}"))


# State, in the form that the emulator's persistence expects of a service module


def get_state() -> Record:
    """A copy; an execution under way is failed in it, because whoever reads it back does not run it."""
    state: Record = copy.deepcopy(stores)
    for record in state["execution"]._data.values():
        if record["PipelineExecutionStatus"] in ("Executing", "Stopping"):
            record |= {"PipelineExecutionStatus": "Failed", "FailureReason": STOPPED}
    return state


def load_persisted_state(data: Record) -> None:
    for kind in KINDS:
        stores[kind].update(data.get(kind, {}))
    threading.Thread(target=resume_endpoints, daemon=True, name="endpoints-resume").start()


def reset() -> None:
    stop()
    for store in stores.values():
        store._data.clear()


def stop() -> None:
    """End every subprocess of this service."""
    for execution in list(_executions.values()):
        execution.stop()
    stop_endpoints()
