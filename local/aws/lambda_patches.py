"""The emulator's patches of Lambda and what is measured of it: functions, their workers, CloudWatch's metrics and alarms.

Each is a function with its reason; `local.aws.emulator_patches` lists and applies them.
"""

# ruff: noqa: SLF001, ARG001, ARG005  (patches reach into ministack and keep its signatures)
# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import contextvars
import fcntl
import hashlib
import io
import os
import queue
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import cloudwatch, lambda_svc, sns
from ministack.services.cloudformation import provisioners

from local.aws import emulator_control as control
from local.aws import emulator_metrics as metrics
from local.aws.patching import VERSION, PatchError, replace

END_OF_LOG = "\x1e"

Record = dict[str, Any]
#: Two at least: one run may wait for what another brings.
EVENTS_AT_ONCE = max(2, os.cpu_count() or 1)

#: Of all deployments: what the layers hold changes with the requirements only.
LAYERS = Path(__file__).resolve().parents[2] / ".cache" / "layers"
NO_FILES = b"PK\x05\x06" + bytes(18)  # an empty zip archive

_turns_lock = threading.Lock()


def invocations_are_counted() -> None:
    """Nothing tells which function ran and why; the end-to-end test needs both."""

    def counting(original: Any) -> Any:
        def execute(func: Record, config: Record, event: Any, request_id: str, started: float) -> Record:
            control.invoked[config.get("FunctionName", "?"), control.trigger.get()] += 1
            return original(func, config, event, request_id, started)

        return execute

    def from_sns(original: Any) -> Any:
        def deliver(*args: Any) -> None:
            with control.triggered_by("sns"):
                original(*args)

        return deliver

    replace(lambda_svc, "_execute_function_dispatch", counting)
    replace(sns, "_deliver_to_lambda", from_sns)


def events_take_turns() -> None:
    """A crowd of events starts as many workers at once; on AWS each has a processor of its own, here they would share this machine's and
    keep the warm ones from working. What Lambda queues, asynchronous events, waits here for one of as many turns as there are cores."""
    turns: dict[str, threading.Semaphore] = {}
    has_turn: contextvars.ContextVar[bool] = contextvars.ContextVar("has_turn", default=False)

    def waiting(original: Any) -> Any:
        def execute(func: Record, event: Any) -> Record:
            if control.trigger.get() != "event" or has_turn.get():  # it calls itself, in another scope
                return original(func, event)
            with _turns_lock:
                turn = turns.setdefault((func.get("config") or func)["FunctionName"], threading.Semaphore(EVENTS_AT_ONCE))
            with turn:
                token = has_turn.set(True)
                try:
                    return original(func, event)
                finally:
                    has_turn.reset(token)

        return execute

    replace(lambda_svc, "_execute_function", waiting)


def log_lines_become_metrics() -> None:
    """Embedded-metric lines reach the logs only; CloudWatch makes metrics of them, and alarms read those."""

    def emitting(original: Any) -> Any:
        def emit(func: Record, request_id: str, log_text: str, *args: Any, **kwargs: Any) -> None:
            original(func, request_id, log_text, *args, **kwargs)
            if '"CloudWatchMetrics"' in log_text:
                metrics.evaluate(set().union(*(metrics.embedded_metrics(line) for line in log_text.splitlines())))

        return emit

    replace(lambda_svc, "_emit_lambda_logs", emitting)


def every_call_has_lambda_metrics() -> None:
    """Only calls of the Invoke API have AWS/Lambda metrics, and these wake no alarm; a failing schedule must be able to."""

    def throttles(function_name: str, duration_ms: float, error: bool, throttle: bool) -> None:
        if throttle:
            metrics.measure_call(function_name, Throttles=1)

    def measuring(original: Any) -> Any:
        def execute(func: Record, config: Record, event: Any, request_id: str, started: float) -> Record:
            result = original(func, config, event, request_id, started)
            duration = (time.time() - started) * 1000
            metrics.measure_call(config["FunctionName"], Invocations=1, Errors=float(bool(result.get("error"))), Duration=duration)
            return result

        return execute

    replace(lambda_svc, "_emit_lambda_metrics", lambda original: throttles)
    replace(lambda_svc, "_execute_function_dispatch", measuring)


def dead_letters_are_measured() -> None:
    """A failure that reaches its queue changes no AWS/SQS metric, so the alarm on dead letters cannot ring."""

    def routing(original: Any) -> Any:
        def route(target: str, *args: Any) -> None:
            original(target, *args)
            metrics.measure_queue(target)

        return route

    replace(lambda_svc, "_route_async_failure", routing)


def alarms_read_their_own_metrics() -> None:
    """An alarm sees every dimension of its metric, so one function's error alarms for all; an alarm on a sum of metrics is refused."""

    def describing(original: Any) -> Any:
        def record(name: str, properties: Record) -> Record:
            queries = properties.get("Metrics") or []
            parts = [query["MetricStat"] for query in queries if "MetricStat" in query]
            if not parts:
                return original(name, properties)
            plain = {**properties, "Metrics": None, **parts[0]["Metric"], "Period": parts[0]["Period"], "Statistic": parts[0]["Stat"]}
            return {**original(name, plain), "Metrics": queries}

        return record

    replace(provisioners, "_cw_metric_alarm_record", describing)
    replace(cloudwatch, "_evaluate_alarm", lambda original: metrics.evaluate_alarm)


def archives_are_unpacked_once() -> None:
    """Each worker unpacks its code and layers anew, again after every error, without the bytecode of the one before; 180 MB for each of
    five functions is minutes and gigabytes. Code comes before the layers here as there, from a folder that lies beside the empty own."""

    def spawning(original: Any) -> Any:
        def spawn(worker: Any) -> None:
            config, code = worker.config, worker.code_zip
            layers = [_unpacked(lambda_svc._resolve_layer_zip(layer), LAYERS) for layer in config.get("Layers") or []]
            folders = os.pathsep.join(map(str, [*layers, _unpacked(code, Path(os.environ["TMPDIR"]))]))
            variables = {**config.get("Environment", {}).get("Variables", {}), "_LAMBDA_LAYERS_DIRS": folders}
            worker.config = {**config, "Layers": [], "Environment": {"Variables": variables}}
            worker.code_zip = NO_FILES
            try:
                original(worker)
            finally:
                worker.config, worker.code_zip = config, code

        return spawn

    replace(lambda_runtime.Worker, "_spawn", spawning)


def _unpacked(archive: bytes | None, parent: Path) -> Path:
    """The folder below `parent` that holds an archive's content, shared by all who ask, in this process and in others."""
    if archive is None:
        raise RuntimeError("a layer version has no content")
    folder = parent / hashlib.sha256(archive).hexdigest()[:16]
    parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            with zipfile.ZipFile(io.BytesIO(archive)) as file:
                file.extractall(partial)
            partial.rename(folder)
    return folder


def logs_end_at_a_marker() -> None:
    """A call waits 50 ms for a first log line and 5 ms after the last, and lines that come later land in the next call's log."""
    handled = "            result = handler_fn(event, context)\n"
    marked = (
        "            try:\n                result = handler_fn(event, context)\n"
        f"            finally:\n                sys.stderr.write({END_OF_LOG!r} + chr(10)); sys.stderr.flush()\n"
    )
    if lambda_runtime._PYTHON_WORKER_SCRIPT.count(handled) != 1:
        raise PatchError(f"the worker script has changed; ministack {VERSION} is needed")
    lambda_runtime._PYTHON_WORKER_SCRIPT = lambda_runtime._PYTHON_WORKER_SCRIPT.replace(handled, marked)

    def draining(original: Any) -> Any:
        def drain(worker: Any, *args: Any, **kwargs: Any) -> str:
            lines, deadline = [], time.monotonic() + 1.0
            while True:
                try:
                    line = worker._stderr_queue.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    break
                if line == END_OF_LOG:
                    break
                lines.append(line)
            return "\n".join(lines)

        return drain

    replace(lambda_runtime.Worker, "_drain_stderr_bounded", draining)
