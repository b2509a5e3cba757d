"""An endpoint's server: the packaged `code/inference.py` as a subprocess on a loopback port.

`ModelServer.start` returns when the container's health check passes and raises `StepError` with the reason when it does not; `invoke`
answers as the SageMaker runtime does, a model's own refusal as ModelError with its status and words.
"""

# ruff: noqa: S310  (plain http, to our own loopback port only)
from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from os import environ
from pathlib import Path
from typing import Any, Self

from local.aws.sagemaker_pipeline import CHILD, StepError, Storage, extract

Response = tuple[int, dict[str, str], bytes]
READY_SECONDS = 60.0
INVOKE_SECONDS = 60.0
STOP_SECONDS = 3.0


@dataclass(frozen=True)
class ModelServer:
    process: subprocess.Popen[bytes]
    port: int

    @classmethod
    def start(cls, container: dict[str, Any], *, folder: Path, storage: Storage, python: str) -> Self:
        """Unpack the container's model archive into `folder` and serve it."""
        shutil.rmtree(folder, ignore_errors=True)
        extract(storage.read(container["ModelDataUrl"]), folder)
        program = folder / "code" / container.get("Environment", {}).get("SAGEMAKER_PROGRAM", "inference.py")
        if not program.is_file():
            raise StepError(f"{container['ModelDataUrl']} holds no {program.relative_to(folder)}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        process = subprocess.Popen(
            [python, str(CHILD), str(program), "--serve", str(port), "--model-dir", str(folder)],
            cwd=program.parent,
            env={**environ, "OMP_NUM_THREADS": "1", **container.get("Environment", {})},
            stdin=subprocess.PIPE,
            stdout=sys.stderr,
        )
        server = cls(process=process, port=port)
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                    return server
            except OSError:
                time.sleep(0.05)
        server.stop()
        raise StepError(f"The primary container did not pass the ping health check (exit code {process.poll()})")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def invoke(self, body: bytes, headers: dict[str, str]) -> Response:
        """Pass a request on; a status above 399 becomes ModelError (424)."""
        kept = {k: v for k, v in headers.items() if k in ("content-type", "accept")}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/invocations", data=body, headers=kept, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=INVOKE_SECONDS) as answer:
                content = answer.headers.get("Content-Type", "application/json")
                return 200, {"Content-Type": content, "x-Amzn-Invoked-Production-Variant": "AllTraffic"}, answer.read()
        except urllib.error.HTTPError as error:
            return _model_error(error.read().decode("utf-8", "replace"), error.code)
        except OSError as error:
            return _model_error(f"the model's server does not answer ({error})", 500)


def _model_error(message: str, status: int) -> Response:
    side = "client" if status < 500 else "server"
    document = {
        "OriginalStatusCode": status,
        "OriginalMessage": message,
        "Message": f'Received {side} error ({status}) from primary with message "{message}".',
        "LogStreamArn": "",
    }
    return 424, {"Content-Type": "application/json", "x-amzn-errortype": "ModelError"}, json.dumps(document).encode()
