"""The places where a function touches the world, and what can be done to it there: die, be overtaken, be answered by another story.

A *life* is one run of a function. Each call that it makes to the ledger or to the broker passes here, before it leaves and after it was
answered; everything beyond is real: moto's DynamoDB on one side, the exchange's application on the other, bytes in and bytes out.
A life that dies raises `Killed`, and so does every later call of it: what its `finally` blocks would have written is not written, as when
the process is killed. Lives that run together move one at a time, from call to call, in an order drawn from a seed: every run is the same.
"""

from __future__ import annotations

import io
import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError
from moto.core.botocore_stubber import MockRawResponse
from urllib3 import HTTPResponse

from local.exchange.faults.middleware import Application
from local.exchange.in_process import InProcess

#: What an interruption is asked to match: `ledger write order pending`, `ledger read`, `POST /v2/orders`, `GET /v2/clock`, ...
LEDGER, WRITE, READ = "ledger ", "ledger write ", "ledger read"


class Killed(BaseException):
    """The process died here; no `except Exception` may know of it."""


@dataclass
class Life:
    """One run of a function; at `ends` (of the simulated clock) its platform kills it."""

    name: str
    ends: float
    calls: list[str] = field(default_factory=list)
    dead: bool = False


@dataclass
class Interruption:
    """Something that happens once, at the `nth` call whose name begins with `call`, before it is made or after it was answered."""

    call: str
    nth: int
    after: bool
    do: Callable[[], None]
    seen: int = 0


Said = tuple[int, bytes]
#: Answers in the exchange's place, which never sees the request; None: it does.
Instead = Callable[[requests.PreparedRequest], Said | None]
#: Tells another story than the exchange did; None: the same.
Retold = Callable[[requests.PreparedRequest, requests.Response], Said | None]


class Edges:
    """Every call of every life, in one place."""

    def __init__(self, *, now: Callable[[], float]) -> None:
        self._now = now
        self._local = threading.local()
        self._turns: Turns | None = None
        self.interruptions: list[Interruption] = []
        self.instead: list[tuple[str, Instead]] = []
        self.retold: list[tuple[str, Retold]] = []
        self.throttled = ""
        self.unreachable = False
        self.failing = ""
        self.endpoint: Callable[[bytes], Said | None] | None = None
        self.latency: Callable[[], None] = lambda: None
        self.posts: list[dict[str, Any]] = []
        self.refused = 0

    @contextmanager
    def living(self, life: Life) -> Iterator[None]:
        """Calls belong to `life` from here to the end of the block, and then to whoever lived before."""
        before = getattr(self._local, "life", None)
        self._local.life = life
        try:
            yield
        finally:
            self._local.life = before

    @property
    def life(self) -> Life | None:
        return getattr(self._local, "life", None)

    def passes(self, name: str, *, after: bool) -> None:
        """A call of the life that runs now leaves, or has been answered."""
        life = self.life
        if life is None:
            return
        if not after:
            if self._turns is not None:
                self._turns.wait()
            self.latency()
        if life.dead or self._now() > life.ends:
            life.dead = True
            raise Killed(life.name)
        if not after:
            life.calls.append(name)
        for interruption in [one for one in self.interruptions if one.after == after and name.startswith(one.call)]:
            interruption.seen += 1
            if interruption.seen == interruption.nth:
                self.interruptions.remove(interruption)
                interruption.do()

    def die(self) -> None:
        """What an interruption does that kills the life it interrupts."""
        life = self.life
        assert life is not None
        life.dead = True
        raise Killed(life.name)

    def together(self, runs: Sequence[Callable[[], Any]], *, seed: int) -> list[Any]:
        """Run all at once, one moving at a time; return what each answered. An error of one is raised when all have ended."""
        self._turns = Turns(len(runs), seed=seed)
        results: list[Any] = [None] * len(runs)
        errors: list[BaseException] = []

        def alone(index: int, run: Callable[[], Any]) -> None:
            assert self._turns is not None
            self._turns.begin(index)
            try:
                results[index] = run()
            except BaseException as error:  # noqa: BLE001 -- raised below, in the thread of the test
                errors.append(error)
            finally:
                self._turns.end()

        threads = [threading.Thread(target=alone, args=pair, daemon=True) for pair in enumerate(runs)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive(), "lives that run together wait for each other"
        finally:
            self._turns = None
        if errors:
            raise errors[0]
        return results

    # --- AWS, as handlers of botocore's own events

    def before_call(self, model: Any, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context["papertape"] = _aws_name(model, params)
        self.passes(context["papertape"], after=False)

    def after_call(self, context: dict[str, Any], **_: Any) -> None:
        self.passes(context["papertape"], after=True)

    def instead_of_aws(self, request: Any) -> AWSResponse | None:
        """What the network does to a call to AWS: nothing, a throttle's answer, an error, or no answer; and what the endpoint says."""
        if self.life is None:
            return None
        if "runtime.sagemaker" in request.url:
            return self._endpoint_answers(request)
        if self.failing and self.failing in request.url:
            self.refused += 1
            return _aws_answer(request.url, 503, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
        if "dynamodb" not in request.url:
            return None
        if self.unreachable:
            self.refused += 1
            raise ConnectTimeoutError(endpoint_url=request.url)
        if not self.throttled or not request.headers.get("X-Amz-Target", b"").endswith(self.throttled.encode()):
            return None
        self.refused += 1
        body = {"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException", "message": "slow down"}
        return _aws_answer(request.url, 400, json.dumps(body).encode())

    def _endpoint_answers(self, request: Any) -> AWSResponse:
        assert self.endpoint is not None, "no endpoint is served"
        said = self.endpoint(request.body)
        if said is None:
            raise ReadTimeoutError(endpoint_url=request.url)
        return _aws_answer(request.url, *said, kind="application/json")


class Wire(InProcess):
    """The broker's end of a `requests` session; the read timeout of a call that is never answered passes on the simulated clock."""

    def __init__(self, application: Application, *, edges: Edges, sleep: Callable[[float], None]) -> None:
        super().__init__(application)
        self._edges = edges
        self._sleep = sleep

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        name = f"{request.method} {request.path_url}"
        self._edges.passes(name, after=False)
        if name == "POST /v2/orders":
            self._edges.posts.append(json.loads(request.body or b"{}"))
        try:
            response = self._answered(name, request, *arguments, **options)
        except requests.ReadTimeout:
            self._sleep(options["timeout"][1])
            self._edges.passes(name, after=True)
            raise
        self._edges.passes(name, after=True)
        return response

    def _answered(self, name: str, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        for call, instead in self._edges.instead:
            if name.startswith(call) and (said := instead(request)) is not None:
                return self._saying(request, said)
        response = super().send(request, *arguments, **options)
        for call, retell in self._edges.retold:
            if name.startswith(call) and (said := retell(request, response)) is not None:
                response = self._saying(request, said)
        return response

    def _saying(self, request: requests.PreparedRequest, said: Said) -> requests.Response:
        status, body = said
        return self.build_response(request, HTTPResponse(body=io.BytesIO(body), status=status, preload_content=False))


class Turns:
    """Who moves next, of lives that run together: one at a time, drawn from a seed at each call."""

    def __init__(self, count: int, *, seed: int) -> None:
        self._random = random.Random(seed)
        self._condition = threading.Condition()
        self._local = threading.local()
        self._waiting = set(range(count))
        self._next = self._random.choice(sorted(self._waiting))

    def begin(self, index: int) -> None:
        self._local.index = index
        self._until_mine()

    def wait(self) -> None:
        """Let somebody move, maybe this one again."""
        if getattr(self._local, "index", None) is None:
            return
        with self._condition:
            self._next = self._random.choice(sorted(self._waiting))
            self._condition.notify_all()
        self._until_mine()

    def end(self) -> None:
        with self._condition:
            self._waiting.discard(self._local.index)
            if self._waiting:
                self._next = self._random.choice(sorted(self._waiting))
            self._condition.notify_all()

    def _until_mine(self) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._next == self._local.index, timeout=60)


def _aws_name(model: Any, params: dict[str, Any]) -> str:
    service = model.service_model.service_name
    if service != "dynamodb":
        return f"{service} {model.name}"
    body = json.loads(params["body"])
    if model.name == "TransactWriteItems":
        first = next((action["Put"]["Item"] for action in body["TransactItems"] if "Put" in action), {})
        return WRITE + _item_name(first)
    if model.name == "PutItem":
        return WRITE + _item_name(body["Item"])
    if model.name == "UpdateItem":
        return WRITE + body["Key"]["pk"]["S"]
    return READ


def _item_name(item: dict[str, Any]) -> str:
    words = [item.get(name, {}).get("S", "") for name in ("kind", "status", "state")]
    return " ".join(word for word in words if word)


def _aws_answer(url: str, status: int, content: bytes, *, kind: str = "application/x-amz-json-1.0") -> AWSResponse:
    return AWSResponse(url, status, {"Content-Type": kind}, MockRawResponse(content))
