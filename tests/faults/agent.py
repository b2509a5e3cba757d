"""The agent on the simulation: decide, from raw bars in S3 to the execution function, with its own clients over transports of ours.

The execution API's client signs and speaks HTTP; here its requests go to the same functions that API Gateway would call. SageMaker's
runtime is botocore's own client; what the endpoint answers is said by the test, in bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import boto3
import requests
from botocore.exceptions import BotoCoreError, ClientError
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from lambdas.common.api.client import ExecutionApi, ExecutionApiError
from lambdas.common.broker.port import BrokerError
from lambdas.common.lake.lake import Lake, LakeError
from lambdas.common.ledger.records import ServedModel
from lambdas.decide import agent as deciding
from lambdas.decide import handler
from lambdas.decide.endpoint import Retries
from lambdas.execute_orders import service
from schema.api_requests import DecisionRequest, parse
from schema.lake_layout import actions_key, bars_key
from tests.faults.simulation import NAMES, SLOT, Simulation
from tests.lakes import action_lines, bar_lines, calendar_objects
from trading_env.data.bars import BarsError
from trading_env.data.features import FEATURE_HASH

DECIDE_SECONDS = 420.0
HISTORY = "2016-01-04"
URL = "https://abcdefgh.execute-api.us-east-1.amazonaws.com/v1"
#: What leaves decide as an error of the function, which the schedule repeats and then puts into its dead-letter queue.
ERRORS = (BrokerError, ClientError, BotoCoreError, ExecutionApiError, LakeError, BarsError)


class Agent:
    """Decides on `simulation`; its lake holds real bars of the universe up to `until`."""

    def __init__(self, simulation: Simulation, *, until: str = "2019-12-31") -> None:
        self.simulation = simulation
        s3 = boto3.client("s3")
        self.raw, self.processed, self.audit = (f"{kind}-{len(s3.list_buckets()['Buckets'])}" for kind in ("raw", "processed", "audit"))
        for bucket in (self.raw, self.processed, self.audit):
            s3.create_bucket(Bucket=bucket)
        self.lake = self._lake()
        self.fill(until=until)

    def fill(self, *, until: str, start: str = HISTORY) -> None:
        """Write bars, actions and calendar as backfill_bars leaves them after the session `until`."""
        objects: dict[str, list[Any]] = {}
        for row in bar_lines(symbols=NAMES, start=start, end=until):
            objects.setdefault(bars_key(row["symbol"], int(row["ts"][:4])), []).append(row)
        for row in action_lines(symbols=NAMES, end=until):
            objects.setdefault(actions_key(row["symbol"]), []).append(row)
        calendar = {key: rows for key, rows in calendar_objects().items() if key.rsplit("/", 1)[1] >= "2016"}
        self.lake.write(objects | calendar)

    def bars(self, symbol: str, year: int = 2019) -> list[dict[str, Any]]:
        """The raw rows of a symbol's year, to be changed and written back."""
        key = bars_key(symbol, year)
        return [dict(row) for row in self.lake.read([key], prefix=key)[key]]

    def rewrite(self, symbol: str, rows: list[dict[str, Any]], year: int = 2019) -> None:
        self.lake.write({bars_key(symbol, year): rows})

    def decide(self, time: datetime = SLOT) -> dict[str, Any] | None:
        """One life of the function in the slot at `time`; None if it failed (the last of the simulation's failures) or was killed."""
        edges = deciding.Edges(
            broker=(broker := self.simulation.broker()),
            market_data=broker,
            lake=self._lake(),
            ledger=self.simulation.ledger,
            runtime=handler._runtime(),
            execution=self._api(),
            code_version="test",
            retries=self._retries(),
        )
        try:
            return self.simulation.live(
                "decide",
                lambda _context: deciding.decide(time=time, settings=self.simulation.settings, edges=edges),
                time_budget(),
                seconds=DECIDE_SECONDS,
            )
        except ERRORS as error:
            self.simulation.failures.append(error)
            return None

    def _lake(self) -> Lake:
        """As a process has it that has read nothing yet."""
        return Lake(s3=boto3.client("s3"), raw_bucket=self.raw, processed_bucket=self.processed, audit_bucket=self.audit)

    def _retries(self) -> Retries:
        """As the handler has them, on the simulation's clock."""
        now = self.simulation.monotonic
        return Retries(until=now() + 240.0, attempt=63.0, monotonic=now, sleep=self.simulation.sleep)

    def _api(self) -> ExecutionApi:
        api = ExecutionApi(url=URL, region="us-east-1")
        api._http.mount(URL, Gateway(self.simulation))
        return api

    def served(self, answer: Callable[[bytes], tuple[int, bytes] | None], **changes: Any) -> ServedModel:
        """Point the ledger to an endpoint that answers so; None is no answer at all."""
        self.simulation.edges.endpoint = answer
        pointer = ServedModel(
            role="incumbent",
            policy="endpoint",
            spec="arn:aws:sagemaker:us-east-1:0:model-package/papertape/1",
            endpoint="papertape-incumbent",
            model_version="v",
            kappa=0.1,
            feature_hash=FEATURE_HASH,
            since="2019-12-31T00:00:00Z",
            trained_until="2019-12-31",
            model_hash="v",
        ).model_copy(update=changes)
        self.simulation.ledger.put_model(pointer)
        return pointer

    @property
    def decision(self) -> Any:
        return self.simulation.ledger.decision("agent:2020-01-02/open+5")

    def record(self) -> dict[str, Any]:
        """The audit record of the first slot's decision."""
        key = "audit/decisions/2020-01-02/agent_2020-01-02_open+5.json"
        document: dict[str, Any] = json.loads(self.lake.s3.get_object(Bucket=self.audit, Key=key)["Body"].read())
        return document


def time_budget() -> Any:
    from lambdas.common.environment import TimeBudget

    return TimeBudget()


class Gateway(HTTPAdapter):
    """API Gateway: a signed request in, the execution function's answer out; a function that dies is a 502."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__()
        self._simulation = simulation

    def send(self, request: requests.PreparedRequest, *_arguments: Any, **_options: Any) -> requests.Response:
        assert request.headers["Authorization"].startswith("AWS4-HMAC-SHA256")
        assert (request.method, request.path_url) == ("POST", "/v1/decisions")
        text = request.body.decode() if isinstance(request.body, bytes) else request.body
        answer = self._simulation.execute(
            lambda context: service.accept_decision(parse(DecisionRequest, text, settings=self._simulation.settings), context)
        )
        status, body = (502, {"message": "Internal server error"}) if answer is None else (answer.status, answer.body)
        content = io.BytesIO(json.dumps(body).encode())
        return self.build_response(request, HTTPResponse(body=content, status=status, preload_content=False))
