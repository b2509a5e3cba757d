"""ECS on this machine: a task's container is a process of its command, where ministack asks for a Docker that is not there.

`Daemon` answers what ministack asks of Docker: run, find, stop, wait, logs. The process has the task's variables, finds the app's Python
and code instead of an image, and ends with the emulator, however that ends. One that ends at once is started anew ever more slowly, as on
AWS. SIGTERM is what a stop or a scale-in sends, SIGKILL what follows `timeout`.
"""

# ruff: noqa: ARG005  (a patch keeps the signature)
# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ministack.services import ecs

from local.aws.patching import replace

#: What a task inside of Docker would find this machine under.
HOST = "host.docker.internal"
#: A process that lives shorter has crashed; the next of its family waits a second longer than the last, at most `LONGEST`.
CRASHED, LONGEST = 10.0, 10.0
SUPERVISOR = Path(__file__).resolve().with_name("supervisor.py")


def tasks_run_as_processes() -> None:
    """Without Docker a task is marked RUNNING and nothing runs; here its command does, on this machine."""
    daemon = Daemon()
    replace(ecs, "_get_docker", lambda original: lambda: daemon)


class NoSuchContainerError(LookupError):
    """What is asked for is not here, or not any more."""


class Container:
    """One process, as Docker's client shows a container. `labels` are ECS's."""

    def __init__(self, *, image: str, command: Sequence[str], environment: Mapping[str, str], labels: Mapping[str, str]) -> None:
        self.id, self.image, self.labels = uuid.uuid4().hex, image, dict(labels)
        self.attrs: dict[str, Any] = {"NetworkSettings": {"Networks": {}, "Ports": {}}}  # a process has no network of its own
        self.started, self._ended = time.monotonic(), 0.0
        self._log = Path(os.environ["PAPERTAPE_RUN_DIR"]) / "containers" / f"{self.id}.log"
        self._log.parent.mkdir(exist_ok=True)
        with self._log.open("wb") as output:
            # Its standard input is a pipe from this process: when that closes, however, the supervisor ends what it runs
            self._process = subprocess.Popen(
                [sys.executable, str(SUPERVISOR), *_here(command)],
                cwd=os.environ["PAPERTAPE_ROOT"],
                env=_environment(environment),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            )

    @property
    def status(self) -> str:
        if self._process.poll() is None:
            return "running"
        self._ended = self._ended or time.monotonic()
        return "exited"

    @property
    def crashed(self) -> bool:
        return self.status == "exited" and self._process.returncode != 0 and self._ended - self.started < CRASHED

    def reload(self) -> None:
        """Docker's client must be told to look; this one always does."""

    def wait(self) -> dict[str, int]:
        return {"StatusCode": self._process.wait()}

    def stop(self, timeout: float = 10) -> None:
        """SIGTERM, and SIGKILL after `timeout` seconds."""
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.remove()

    def remove(self, **_: Any) -> None:
        if self._process.stdin:
            self._process.stdin.close()  # the supervisor kills what it runs
        self._process.wait()

    def logs(self, *, stream: bool = False, tail: int | None = None, **_: Any) -> Any:
        """Its output: so far, or as it comes until the process has ended."""
        if stream:
            return self._follow()
        lines = self._log.read_bytes().splitlines(keepends=True)
        return b"".join(lines[-tail:] if tail else lines)

    def _follow(self) -> Iterator[bytes]:
        with self._log.open("rb") as output:
            rest = b""
            while True:
                over = self.status == "exited"
                *lines, rest = (rest + output.read()).split(b"\n")
                if lines:
                    yield b"\n".join(lines)
                if over:
                    if rest:
                        yield rest
                    return
                time.sleep(0.1)


class Containers:
    def __init__(self) -> None:
        self._all: dict[str, Container] = {}
        self._crashes: dict[str, int] = {}

    def run(self, image: str, *, environment: Mapping[str, str], labels: Mapping[str, str], command: Any = None, **_: Any) -> Container:
        if not command:
            raise ValueError(f"{image} has no command: images are not run on this machine, a task's command is")
        family = labels.get("com.amazonaws.ecs.task-definition-family", image)
        time.sleep(self._pause(family))
        container = Container(image=image, command=list(command), environment=environment, labels=labels)
        self._all[container.id] = container
        return container

    def _pause(self, family: str) -> float:
        """Seconds until the next process of a family may start: it grows while they crash."""
        of_family = [one for one in self._all.values() if one.labels.get("com.amazonaws.ecs.task-definition-family") == family]
        last = max(of_family, key=lambda one: one.started, default=None)
        self._crashes[family] = self._crashes.get(family, 0) + 1 if last is not None and last.crashed else 0
        return min(float(self._crashes[family]), LONGEST)

    def get(self, container_id: str) -> Container:
        if container_id not in self._all:
            raise NoSuchContainerError(container_id)
        return self._all[container_id]

    def list(self, **_: Any) -> list[Container]:
        return list(self._all.values())


class LocalImage:
    """An image is a name here: what runs is the command."""

    def __init__(self, name: str) -> None:
        self.name = self.id = name

    def tag(self, *_: Any, **__: Any) -> bool:
        return True


class LocalImages:
    def pull(self, name: str, **_: Any) -> LocalImage:
        return LocalImage(name)

    def get(self, name: str) -> LocalImage:
        return LocalImage(name)

    def get_registry_data(self, name: str, **_: Any) -> LocalImage:
        raise NoSuchContainerError(f"{name}: there is no registry on this machine")


class Daemon:
    def __init__(self) -> None:
        self.containers, self.images = Containers(), LocalImages()


def _here(command: Sequence[str]) -> list[str]:
    """The command with the app's own Python for any."""
    first, *rest = command
    return [os.environ["PAPERTAPE_PYTHON"] if first in {"python", "python3"} else first, *rest]


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """The emulator's own, as functions and jobs have it, and over it the task's. Addresses are this machine's."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("STATE_", "S3_", "PERSIST_"))}
    task = {name: value.replace(HOST, "127.0.0.1") for name, value in given.items()}
    return {**own, **task, "AWS_REGION": os.environ["AWS_REGION"], "PYTHONPATH": os.environ["PAPERTAPE_ROOT"]}
