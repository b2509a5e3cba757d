"""SageMaker's endpoints in the emulator: each is a subprocess that runs the packaged `inference.py` on a loopback port.

An update brings up the new server before the old one goes; what cannot be served leaves the endpoint Failed, or InService as before.
"""

# ruff: noqa: SLF001, S310  (ministack's stores are read as they are; plain http on loopback)
# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

import os
import time
import urllib.request

from ministack.core.responses import get_account_id, request_scope

from local.aws.sagemaker_model_server import ModelServer, Response
from local.aws.sagemaker_pipeline import StepError, Storage
from local.aws.sagemaker_records import (
    Record,
    RefusalError,
    arn,
    client,
    create_record,
    find,
    in_background,
    lock,
    refused,
    run_folder,
    stores,
)

QUICK_SECONDS = 5.0  # an endpoint that is up by then is in service when its creation answers: no poll is waited for
_servers: dict[str, ModelServer] = {}


def put_endpoint(request: Record, *, create: bool) -> Record:
    name, config = request["EndpointName"], request["EndpointConfigName"]
    find("endpoint-config", config)
    record = (
        create_record("endpoint", name, {"EndpointName": name, "EndpointArn": arn("endpoint", name)}) if create else find("endpoint", name)
    )
    record |= {"EndpointConfigName": config, "EndpointStatus": "Creating" if create else "Updating", "LastModifiedTime": time.time()}
    in_background(lambda: _serve(record), f"endpoint-{name}", wait_seconds=QUICK_SECONDS)
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
    with lock:
        previous = _servers.pop(key, None)
        _servers[key] = server
    if previous:
        previous.stop()
    record.pop("FailureReason", None)
    record |= {"EndpointStatus": "InService", "LastModifiedTime": time.time()}


def _container(record: Record) -> Record:
    """The container that an endpoint's configuration leads to: a model's own or its package's."""
    variant = find("endpoint-config", record["EndpointConfigName"])["ProductionVariants"][0]
    model = find("model", variant["ModelName"])
    container: Record = model.get("PrimaryContainer") or model["Containers"][0]
    if "ModelPackageName" in container:
        package = find("model-package", container["ModelPackageName"])
        container = {**package["InferenceSpecification"]["Containers"][0], **container}
    return container


def delete_endpoint(request: Record) -> Record:
    record = find("endpoint", request["EndpointName"])
    with lock:
        server = _servers.pop(record["EndpointArn"], None)
    del stores["endpoint"][record["EndpointName"]]
    if server:
        server.stop()
    return {}


def invoke(name: str, body: bytes, headers: dict[str, str]) -> Response:
    record = stores["endpoint"].get(name)
    server = _servers.get(record["EndpointArn"]) if record else None
    if server is None:
        return refused(RefusalError(f"Endpoint {name} of account {get_account_id()} not found.", "ValidationError"))
    return server.invoke(body, headers)


def resume_endpoints() -> None:
    """Start the endpoints of the last run; their archives are in S3, so the emulator must answer first."""
    wait_until_up()
    for (account, region, _), record in list(stores["endpoint"]._data.items()):
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


def stop_endpoints() -> None:
    with lock:
        servers = list(_servers.values())
        _servers.clear()
    for server in servers:
        server.stop()
