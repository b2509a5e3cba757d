"""The local cloud: ministack with our patches, as a subprocess in its own environment, on loopback only.

`Emulator.start` returns when the emulator answers, or raises `EmulatorError` whose one line names the cause and the remedy: no
environment, a port in use, a process that ended. It leaves no orphan: the subprocess holds a pipe from this process and stops itself,
state saved, when the pipe closes; `stop` asks first and kills after a grace period. What clients need is in `env`.
"""

# ruff: noqa: S310  (plain http, to our own loopback port only)
from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from schema.loopback import LOCAL_ACCOUNT, LOCAL_SECRET
from trading_env.errors import PapertapeError

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
STOP_SECONDS = 60.0
FIRE_SECONDS = 900.0
#: What would point a child at another cloud, broker, account or Python.
FOREIGN = ("AWS_", "ALPACA_", "APCA_", "ALLOW_LIVE_TRADING", "PYTHON", "VIRTUAL_ENV")


class EmulatorError(PapertapeError, RuntimeError):
    """The local cloud cannot be used; the message is one line with cause and remedy."""


@dataclass
class Emulator:
    """A running local cloud. Use `start`, and `stop` or a `with` block."""

    url: str
    region: str
    log: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(
        cls,
        run_dir: Path,
        *,
        port: int = 0,
        exchange_url: str = "",
        python: str = sys.executable,
        cloud_python: Path = ROOT / ".venv-cloud" / "bin" / "python",
        region: str = "us-east-1",
        durable: bool = False,
        held: int | None = None,
    ) -> Self:
        """Start in `run_dir`, where state persists between runs, on `port` (0: a free one); the functions' broker is `exchange_url`,
        or Alpaca's paper account without one.

        `durable`: what the ledger answered is on the disk whatever happens; else state is saved at a clean stop and by `save`.
        `held` is the descriptor of a lock that the process holds on to for as long as it lives.
        """
        if not cloud_python.is_file():
            raise EmulatorError(f"the local cloud's environment is not there ({cloud_python.parent.parent.name}): run `make setup`")
        port = _bindable(port)
        home = run_dir.resolve() / "cloud"
        shutil.rmtree(home / "tmp", ignore_errors=True)
        for folder in ("tmp", "state", "s3"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        url, log = f"http://127.0.0.1:{port}", home / "emulator.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(cloud_python), "-m", "local.aws.emulator_patches"],
                cwd=ROOT,
                env={
                    **_neutral(os.environ),
                    **_server_environment(home, url=url, exchange_url=exchange_url, python=python, region=region),
                    "PAPERTAPE_DURABLE": "1" if durable else "0",
                },
                umask=0o077,  # the state holds the broker's keys
                pass_fds=() if held is None else (held,),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        emulator = cls(url=url, region=region, log=log, process=process)
        try:
            emulator._wait_until_up()
        except BaseException:
            emulator.stop()
            raise
        return emulator

    def stop(self) -> None:
        """Stop cleanly, so that the state is saved; kill after a grace period. Safe to call twice."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._kill_group()
                self.process.wait()
        self._kill_group()  # a function that was at work when the emulator was killed would try to reach it for a while
        if self.process.stdin:
            self.process.stdin.close()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def env(self) -> dict[str, str]:
        """The variables that point AWS clients at this emulator and at nothing else."""
        return _client_environment(self.url, region=self.region, home=self.log.parent)

    def environment(self) -> dict[str, str]:
        """This process's environment for a child that talks to the emulator: no other AWS variable is left."""
        return {**_neutral(os.environ), **self.env()}

    def save(self, *, whole: bool = False) -> None:
        """Put the state on the disk now; `whole` saves what only a deployment changes as well. Raises EmulatorError."""
        answer = self._call("save", {"whole": whole})
        if "error" in answer:
            raise EmulatorError(answer["error"])

    def deliver(self) -> None:
        """Hand on everything that streams have acknowledged until now, without waiting for a window or a buffer. Raises EmulatorError."""
        answer = self._call("deliver", {})
        if "error" in answer:
            raise EmulatorError(answer["error"])

    def fire(self, schedule: str, time: str, *, final: bool = True) -> dict[str, Any]:
        """Invoke the deployed schedule's target as of `time` (ISO, UTC) and wait; `status` is `succeeded` or `failed`.

        A function's failure is an answer (`error`, `log`), not an exception; so is a schedule that is not deployed. Jobs and pipelines
        are started, not awaited. Only a `final` failure, after which nobody tries again, is a dead letter.
        """
        answer = self._call("fire", {"schedule": schedule, "time": time, "final": final})
        assert isinstance(answer, dict)
        return answer

    def fired(self) -> dict[str, Any]:
        """`{"schedules": {name: count}, "functions": {name: {trigger: count}}}`; triggers: schedule, api, event, sns, direct."""
        answer = self._call("fired")
        assert isinstance(answer, dict)
        return answer

    def published(self) -> list[dict[str, Any]]:
        """Every SNS message of the run: `topic`, `subject`, `message` and the addresses it would have been mailed to."""
        answer = self._call("published")
        assert isinstance(answer, list)
        return answer

    def check(self) -> None:
        """Raise EmulatorError when the process has ended."""
        if self.process.poll() is not None:
            raise EmulatorError(f"the local cloud has ended ({_ending(self.process.returncode)}): see {_shown(self.log)} and start again")

    def _call(self, route: str, body: dict[str, Any] | None = None) -> Any:
        self.check()
        request = urllib.request.Request(
            f"{self.url}/_papertape/{route}",
            data=None if body is None else json.dumps(body).encode(),
            method="GET" if body is None else "POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=FIRE_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)
        except (OSError, http.client.HTTPException) as error:
            time.sleep(0.2)
            self.check()
            raise EmulatorError(f"the local cloud does not answer {route} ({error}): see {_shown(self.log)}") from error

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                last = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                raise EmulatorError(f"the local cloud did not start: {''.join(last) or _ending(self.process.returncode)}")
            try:
                with urllib.request.urlopen(f"{self.url}/_papertape/fired", timeout=2):
                    return
            except OSError:
                time.sleep(0.05)
        raise EmulatorError(f"the local cloud did not answer within {START_SECONDS:g} s: see {_shown(self.log)}")


def _bindable(port: int) -> int:
    """`port`, or a free one for 0; raise EmulatorError when something listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise EmulatorError(
                f"port {port} is in use ({error.strerror}): stop what listens there or choose another with --port"
            ) from error
        return int(probe.getsockname()[1])


def _client_environment(url: str, *, region: str, home: Path) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": LOCAL_ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": LOCAL_SECRET,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(home / "no-aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / "no-aws-credentials"),
    }


def _server_environment(home: Path, *, url: str, exchange_url: str, python: str, region: str) -> dict[str, str]:
    """Variables of the emulator and, by inheritance, of every function and job that it runs."""
    broker = {"ALPACA_TRADING_URL": exchange_url, "ALPACA_DATA_URL": exchange_url} if exchange_url else {}
    return {
        **_client_environment(url, region=region, home=home),
        **broker,
        "AWS_ENDPOINT_URL_EXECUTE_API": url,
        "GATEWAY_PORT": url.rsplit(":", 1)[-1],
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "localhost",
        "MINISTACK_REGION": region,
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
        "PERSIST_STATE": "1",
        "STATE_DIR": str(home / "state"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(home / "s3"),
        "TMPDIR": str(home / "tmp"),
        "PAPERTAPE_RUN_DIR": str(home),
        "PAPERTAPE_PYTHON": python,
        "PAPERTAPE_ROOT": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
    }


def _neutral(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without what would point a child at another cloud, broker or Python."""
    return {k: v for k, v in environment.items() if not k.startswith(FOREIGN)}


def _ending(code: int | None) -> str:
    return f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
