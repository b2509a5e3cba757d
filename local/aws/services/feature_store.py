"""SageMaker Feature Store in the emulator: feature groups, records that are put and got, and the offline store's Parquet.

Requests and answers follow the service's own model, botocore's: where each member travels, its type, what is required. An answer that does
not fit the model is an error of this module's. The offline store is written at once, in the service's layout, where the service takes up
to fifteen minutes; it makes no Glue table of it. Other operations are refused by name. Failure: the service's errors, as it words them.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import hashlib
import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import botocore.session
from botocore.validate import ParamValidator
from ministack.core.responses import get_account_id, get_region

from local.aws.sagemaker_model_server import Response
from local.aws.sagemaker_records import Record, RefusalError, arn, client, create_record, find, lock, stores

CONTROL, RUNTIME = "sagemaker", "sagemaker-featurestore-runtime"
GROUP = "feature-group"
TYPES = {"String": "VARCHAR", "Fractional": "DOUBLE", "Integral": "BIGINT"}
READERS: Mapping[str, Callable[[str], Any]] = {"String": str, "Fractional": float, "Integral": int}
BOTH = ("OnlineStore", "OfflineStore")
ADDED = '"write_time" TIMESTAMP, "api_invocation_time" TIMESTAMP, "is_deleted" BOOLEAN'


# By the service's model


@cache
def _operation(service: str, name: str) -> Any:
    return botocore.session.get_session().get_service_model(service).operation_model(name)


def _fitting(value: Any, shape: Any) -> Any:
    """`value`, when it fits the model's shape; raise RefusalError with botocore's own words."""
    problems = ParamValidator().validate(value, shape)
    if problems.has_errors():
        raise RefusalError(problems.generate_report())
    return value


def _request(operation: Any, path: str, query: Mapping[str, Sequence[str]], body: bytes) -> Record:
    """The operation's parameters from where its model says that they travel."""
    template = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", operation.http["requestUri"])
    in_path = re.fullmatch(template, path)
    document = json.loads(body) if body else {}
    parameters: Record = {}
    for name, shape in operation.input_shape.members.items():
        sent = shape.serialization.get("name", name)
        match shape.serialization.get("location"):
            case "uri":
                parameters[name] = unquote(in_path[sent]) if in_path else None
            case "querystring" if sent in query:
                parameters[name] = list(query[sent]) if shape.type_name == "list" else query[sent][0]
            case None if sent in document:
                parameters[name] = document[sent]
    return _fitting(parameters, operation.input_shape)


def answer(method: str, path: str, query: Mapping[str, Sequence[str]], body: bytes) -> Response:
    """One call of the runtime's API."""
    service = botocore.session.get_session().get_service_model(RUNTIME)
    for name in service.operation_names:
        operation = _operation(RUNTIME, name)
        template = re.sub(r"\{\w+\}", "[^/]+", operation.http["requestUri"])
        if operation.http["method"] == method and re.fullmatch(template, path):
            return _carried_out(operation, path, query, body)
    return _refusal(RefusalError(f"{method} {path} is no operation of Feature Store", "ValidationError"), 400)


def _carried_out(operation: Any, path: str, query: Mapping[str, Sequence[str]], body: bytes) -> Response:
    if operation.name not in RECORDS:
        return _refusal(RefusalError(f"Feature Store's {operation.name} is not implemented on the laptop", "ValidationError"), 400)
    try:
        result = RECORDS[operation.name](_request(operation, path, query, body))
    except RefusalError as refusal:
        kinds = {shape.name: shape.metadata["error"]["httpStatusCode"] for shape in operation.error_shapes}
        kind = refusal.kind if refusal.kind in kinds else "ValidationError"
        return _refusal(RefusalError(str(refusal), kind), kinds[kind])
    if operation.output_shape is not None:
        _fitting(result, operation.output_shape)
    return 200, {"Content-Type": "application/json"}, json.dumps(result).encode()


def _refusal(refusal: RefusalError, status: int) -> Response:
    headers = {"Content-Type": "application/json", "x-amzn-errortype": refusal.kind}
    return status, headers, json.dumps({"Message": str(refusal)}).encode()


# Feature groups


def create_feature_group(request: Record) -> Record:
    """Create a group; its offline store's place is known from then on."""
    _fitting(request, _operation(CONTROL, "CreateFeatureGroup").input_shape)
    name = request["FeatureGroupName"]
    declared = [definition["FeatureName"] for definition in request["FeatureDefinitions"]]
    keys = (request["RecordIdentifierFeatureName"], request["EventTimeFeatureName"])
    if len(set(declared)) < len(declared) or not set(keys) <= set(declared):
        raise RefusalError(f"{name}: features must be distinct, with {' and '.join(keys)} among them, were {', '.join(declared)}")
    record = create_record(GROUP, name, {**request, "FeatureGroupArn": arn(GROUP, name), "FeatureGroupStatus": "Created"})
    if offline := request.get("OfflineStoreConfig"):
        storage = offline["S3StorageConfig"]
        place = f"{get_account_id()}/sagemaker/{get_region()}/offline-store/{name}-{int(record['CreationTime'])}/data"
        resolved = {**storage, "ResolvedOutputS3Uri": f"{storage['S3Uri'].rstrip('/')}/{place}"}
        record["OfflineStoreConfig"] = {**offline, "S3StorageConfig": resolved}
        record["OfflineStoreStatus"] = {"Status": "Active"}
    return {"FeatureGroupArn": record["FeatureGroupArn"]}


def declare_again(name: str, request: Record) -> None:
    """What a template's update changes of a group: its features; records that it has stay."""
    find(GROUP, name)["FeatureDefinitions"] = request["FeatureDefinitions"]


def delete_feature_group(request: Record) -> Record:
    """Remove a group and its online records; the offline store's objects stay, as in the service."""
    name = find(GROUP, request["FeatureGroupName"])["FeatureGroupName"]
    with lock:
        del stores[GROUP][name]
        stores["feature-record"].pop(name, None)
    return {}


def _list(request: Record) -> Record:
    shown = ("FeatureGroupName", "FeatureGroupArn", "CreationTime", "FeatureGroupStatus")
    named = request.get("NameContains", "")
    return {
        "FeatureGroupSummaries": [{key: one[key] for key in shown} for one in stores[GROUP].values() if named in one["FeatureGroupName"]]
    }


# Records


def _group(request: Record) -> Record:
    try:
        return find(GROUP, request["FeatureGroupName"])
    except RefusalError as refusal:
        raise RefusalError(str(refusal), "ResourceNotFound") from refusal


def _put(request: Record) -> Record:
    """Keep a record whole: what it leaves out is not taken from the one before. An older one than the online store's is offline only."""
    group, record = _group(request), request["Record"]
    values = _checked(group, record)
    moment = _event_time(values[group["EventTimeFeatureName"]])
    targets = request.get("TargetStores", BOTH)
    if "OfflineStore" in targets and group.get("OfflineStoreConfig"):
        _write_offline(group, values, moment)
    if "OnlineStore" in targets and group.get("OnlineStoreConfig", {}).get("EnableOnlineStore"):
        with lock:
            online = stores["feature-record"].get(group["FeatureGroupName"], {})
            identifier = values[group["RecordIdentifierFeatureName"]]
            kept = online.get(identifier)
            if kept is None or _event_time(_value(kept, group["EventTimeFeatureName"])) <= moment:
                stores["feature-record"][group["FeatureGroupName"]] = {**online, identifier: record}
    return {}


def _checked(group: Record, record: Sequence[Record]) -> dict[str, str]:
    """A record's texts by feature; raise RefusalError for one that the group does not have, twice, of another type, or without its keys."""
    types = {definition["FeatureName"]: definition["FeatureType"] for definition in group["FeatureDefinitions"]}
    values: dict[str, str] = {}
    for entry in record:
        name, text = entry["FeatureName"], entry.get("ValueAsString", "")
        if name not in types or name in values:
            raise RefusalError(f"{group['FeatureGroupName']}: {name} is {'given twice' if name in values else 'no feature of the group'}")
        try:
            number = READERS[types[name]](text)
        except ValueError as error:
            raise RefusalError(f"{group['FeatureGroupName']}: {name} must be {types[name]}, was {text!r}") from error
        if isinstance(number, float) and not math.isfinite(number):
            raise RefusalError(f"{group['FeatureGroupName']}: {name} must be a finite number, was {text!r}")
        values[name] = text
    for key in (group["RecordIdentifierFeatureName"], group["EventTimeFeatureName"]):
        if not values.get(key):
            raise RefusalError(f"{group['FeatureGroupName']}: a record needs {key}")
    return values


def _event_time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise RefusalError(f"an event time must be as 2026-01-31T21:00:00Z, was {text!r}") from error
    if moment.tzinfo is None:
        raise RefusalError(f"an event time needs its zone, was {text!r}")
    return moment.astimezone(UTC)


def _value(record: Sequence[Record], name: str) -> str:
    return next(str(entry["ValueAsString"]) for entry in record if entry["FeatureName"] == name)


def _get(request: Record) -> Record:
    """The record, or those of its features that were asked for; without one, no `Record`."""
    group = _group(request)
    record = stores["feature-record"].get(group["FeatureGroupName"], {}).get(request["RecordIdentifierValueAsString"])
    if record is None:
        return {}
    wanted = request.get("FeatureNames") or [entry["FeatureName"] for entry in record]
    return {"Record": [entry for entry in record if entry["FeatureName"] in wanted]}


def _get_many(request: Record) -> Record:
    found = []
    for asked in request["Identifiers"]:
        for identifier in asked["RecordIdentifiersValueAsString"]:
            one = {**asked, "RecordIdentifierValueAsString": identifier}
            if record := _get(one).get("Record"):
                name = asked["FeatureGroupName"]
                found.append({"FeatureGroupName": name, "RecordIdentifierValueAsString": identifier, "Record": record})
    return {"Records": found, "Errors": [], "UnprocessedIdentifiers": []}


def _write_offline(group: Record, values: Mapping[str, str], moment: datetime) -> None:
    """One Parquet file of one record, where and as the service writes its files, with the three columns that it adds."""
    import duckdb

    now = datetime.fromtimestamp(time.time(), UTC).replace(tzinfo=None)
    types = {definition["FeatureName"]: definition["FeatureType"] for definition in group["FeatureDefinitions"]}
    columns = ", ".join(f'"{name}" {TYPES[kind]}' for name, kind in types.items())
    cells = [READERS[kind](values[name]) if name in values else None for name, kind in types.items()]
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(":memory:") as connection:
        path = Path(folder) / "record.parquet"
        connection.execute(f"CREATE TABLE record ({columns}, {ADDED})")
        connection.execute(f"INSERT INTO record VALUES ({', '.join('?' * (len(cells) + 3))})", [*cells, now, now, False])  # noqa: S608
        connection.execute(f"COPY record TO '{path}' (FORMAT parquet)")
        body = path.read_bytes()
    bucket, _, prefix = group["OfflineStoreConfig"]["S3StorageConfig"]["ResolvedOutputS3Uri"].removeprefix("s3://").partition("/")
    hour = f"year={moment:%Y}/month={moment:%m}/day={moment:%d}/hour={moment:%H}"
    key = f"{prefix}/{hour}/{moment:%Y%m%dT%H%M%SZ}_{hashlib.sha256(body).hexdigest()[:16]}.parquet"
    client("s3").put_object(Bucket=bucket, Key=key, Body=body)


OPERATIONS: dict[str, Callable[[Record], Record]] = {
    "CreateFeatureGroup": create_feature_group,
    "DescribeFeatureGroup": lambda request: {**find(GROUP, request["FeatureGroupName"]), "NextToken": ""},
    "DeleteFeatureGroup": delete_feature_group,
    "ListFeatureGroups": _list,
}
RECORDS: dict[str, Callable[[Record], Record]] = {"PutRecord": _put, "GetRecord": _get, "BatchGetRecord": _get_many}
PATHS = ("/FeatureGroup/", "/BatchGetRecord", "/BatchWriteRecord")
