"""Serve a policy: `{"schema", "as_of", "symbols", "observation"}` -> `{"scores", "model_version", "diagnostics"}`.

`model_fn`, `input_fn`, `predict_fn` and `output_fn` are the contract of Amazon's PyTorch serving container; `inference.py --serve PORT
--model-dir DIR` answers the same over loopback (GET /ping, POST /invocations) and ends with the process that started it. NumPy alone: no
torch, no pickle. A request that cannot be answered raises `RequestError`, which either server turns into a 4xx whose JSON names the field,
its value and what is allowed: wrong schema, wrong shape, NaN, a mask that is not 0 or 1, another feature table (`feature_hash`, optional in
the request). A folder without a sound policy raises when it is loaded, so that the container never becomes healthy.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_env.data.observation import Layout, Observation, ObservationError
from trading_env.simulation.artifact import FILES, artifact_hash
from trading_env.simulation.policy import NumpyPolicy, PolicyError, load_policy, outside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

try:
    from sagemaker_inference.errors import BaseInferenceToolkitError  # type: ignore[import-not-found]
except ImportError:  # outside the container

    class BaseInferenceToolkitError(Exception):  # type: ignore[no-redef]
        """What the serving toolkit answers with its own status instead of 500."""

        def __init__(self, status_code: int, message: str, phrase: str) -> None:
            self.status_code, self.message, self.phrase = status_code, message, phrase
            super().__init__(status_code, message, phrase)


SCHEMA = 1
JSON = "application/json"
MAX_BODY = 4 * 1024 * 1024  # what a serverless endpoint accepts


class RequestError(BaseInferenceToolkitError):  # type: ignore[misc]
    """The request is wrong; `problem` says in which field and why."""

    def __init__(self, *, field: str, error: str, status: int = 400, **more: Any) -> None:
        self.problem = {"error": error, "field": field, **more}
        super().__init__(status, json.dumps(self.problem), "Bad Request")


@dataclass(frozen=True)
class Request:
    """A well-formed request; the vector has shape (width,) and is finite."""

    as_of: np.datetime64
    symbols: tuple[str, ...]
    vector: np.ndarray[Any, np.dtype[np.float32]]
    feature_hash: str | None


@dataclass(frozen=True)
class Model:
    policy: NumpyPolicy
    version: str


def model_fn(model_dir: str) -> Model:
    """Load policy.npz and policy.json from `model_dir`; its version is the hash of both."""
    folder = Path(model_dir)
    return Model(policy=load_policy(folder), version=model_hash(folder))


def model_hash(folder: Path) -> str:
    """sha256 of policy.npz and policy.json: the model's version wherever it is named."""
    return artifact_hash({name: (folder / name).read_bytes() for name in FILES})


def input_fn(body: bytes | str, content_type: str) -> Request:
    """Read one request; everything that does not depend on the model is checked here."""
    if content_type.partition(";")[0].strip().lower() != JSON:
        raise RequestError(field="content-type", error=f"must be {JSON}, was {content_type!r}", status=415)
    try:
        document = json.loads(body)
    except (ValueError, UnicodeDecodeError) as error:
        raise RequestError(field="body", error=f"is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise RequestError(field="body", error=f"must be an object, was {type(document).__name__}")
    _refuse_unknown_fields(document)
    if type(document["schema"]) is not int or document["schema"] != SCHEMA:
        raise RequestError(field="schema", error=f"must be {SCHEMA}, was {document['schema']!r}")
    return Request(
        as_of=_session(document["as_of"]),
        symbols=_symbols(document["symbols"]),
        vector=_vector(document["observation"]),
        feature_hash=document.get("feature_hash"),
    )


def predict_fn(request: Request, model: Model) -> dict[str, Any]:
    """Scores of the assets in the order of `symbols`, 0 for an untradable one."""
    card = model.policy.card
    if request.feature_hash is not None and request.feature_hash != card.feature_hash:
        raise RequestError(
            field="feature_hash", error="the model knows another feature table", value=request.feature_hash, allowed=card.feature_hash
        )
    layout = Layout(assets=len(request.symbols), features=len(card.features), context=len(card.context))
    if request.vector.shape != (layout.width,):
        raise RequestError(
            field="observation",
            error=f"must hold {layout.width} numbers for {layout.assets} symbols, was {request.vector.size}",
            allowed=layout.width,
        )
    mask = request.vector[layout.features + 1 : layout.width - 1 - layout.context : layout.features + 2]
    if not np.isin(mask, (0.0, 1.0)).all():
        raise RequestError(field="observation", error="each tradable mask must be 0 or 1", value=[float(value) for value in mask])
    try:
        scores = model.policy.scores(Observation(as_of=request.as_of, symbols=request.symbols, vector=request.vector))
    except (ObservationError, PolicyError) as error:
        raise RequestError(field="observation", error=str(error)) from error
    return {
        "scores": [float(score) for score in scores],
        "model_version": model.version,
        "diagnostics": {
            "kappa": card.kappa,
            "feature_hash": card.feature_hash,
            **({"slots": list(card.slots)} if card.slots else {}),
            "seeds": list(card.seeds),
            "tradable": int(mask.sum()),
            "outside": outside(model.policy, request.vector, layout),
        },
    }


def output_fn(prediction: dict[str, Any], accept: str) -> str:
    """The answer as JSON, which is all that `accept` may ask for."""
    if accept and not any(kind in accept for kind in (JSON, "*/*", "application/*")):
        raise RequestError(field="accept", error=f"must allow {JSON}, was {accept!r}", status=406)
    return json.dumps(prediction, allow_nan=False)


def _refuse_unknown_fields(document: Mapping[str, Any]) -> None:
    required, optional = {"schema", "as_of", "symbols", "observation"}, {"feature_hash"}
    for name in sorted(required - document.keys()):
        raise RequestError(field=name, error="is missing")
    for name in sorted(document.keys() - required - optional):
        raise RequestError(field=name, error="is not a field of schema 1", allowed=sorted(required | optional))


def _session(value: Any) -> np.datetime64:
    try:
        if isinstance(value, str) and len(value) == len("2020-01-02"):
            return np.datetime64(value, "D")
    except ValueError:
        pass  # refused below, with the value
    raise RequestError(field="as_of", error=f"must be a session date like '2020-01-02', was {value!r}")


def _symbols(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(symbol, str) and symbol for symbol in value):
        raise RequestError(field="symbols", error="must be a list of names")
    if len(set(value)) != len(value):
        raise RequestError(field="symbols", error="must be distinct", value=value)
    return tuple(value)


def _vector(value: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    if not isinstance(value, list) or not value:
        raise RequestError(field="observation", error="must be a flat list of numbers")
    limit = float(np.finfo(np.float32).max)
    for index, number in enumerate(value):
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise RequestError(field=f"observation[{index}]", error=f"must be a number, was {number!r}")
        if not (math.isfinite(number) and abs(number) <= limit):
            raise RequestError(field=f"observation[{index}]", error=f"must be finite in float32, was {number}")
    return np.asarray(value, dtype=np.float32)


class _Handler(BaseHTTPRequestHandler):
    """The two routes of a SageMaker container."""

    protocol_version = "HTTP/1.1"
    model: Model

    def do_GET(self) -> None:
        self._answer(*((200, "{}") if self.path == "/ping" else (404, '{"error": "is not a route", "field": "path"}')))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MAX_BODY:
            self.close_connection = True
            self._answer(413, json.dumps({"error": f"must be 0 to {MAX_BODY}, was {length!r}", "field": "content-length"}))
            return
        body = self.rfile.read(int(length))
        if self.path != "/invocations":
            self._answer(404, json.dumps({"error": "is not a route", "field": "path", "value": self.path}))
            return
        try:
            prediction = predict_fn(input_fn(body, self.headers.get("Content-Type", JSON)), self.model)
            self._answer(200, output_fn(prediction, self.headers.get("Accept", "")))
        except RequestError as error:
            self._answer(error.status_code, json.dumps(error.problem))

    def _answer(self, status: int, body: str) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", JSON)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (inherited name)
        """One line per request would drown the job's log."""


def serve(*, port: int, model_dir: str) -> None:
    """Answer on 127.0.0.1:`port` (0: any free one) until the starting process is gone; the first line printed says where."""
    handler = type("Handler", (_Handler,), {"model": model_fn(model_dir)})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    threading.Thread(target=_stop_when_orphaned, args=(server, os.getppid()), daemon=True).start()
    print(json.dumps({"ready": True, "port": server.server_address[1]}), flush=True)
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def _stop_when_orphaned(server: ThreadingHTTPServer, parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    server.shutdown()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Serve a policy on the loopback interface.")
    parser.add_argument("--serve", type=int, metavar="PORT", required=True)
    parser.add_argument("--model-dir", default=os.environ.get("SM_MODEL_DIR", "/opt/ml/model"))
    options = parser.parse_args(arguments)
    serve(port=options.serve, model_dir=options.model_dir)
