"""Whether the runner loses a quote at 5,000 a second, and what a quote costs it: from a vendor's socket to a delivery stream.

    .venv/bin/python -m benchmarks.runner_speed [--rate 5000] [--seconds 60]

The runner is its own process (`python -m runner`) on one core. The vendor (msgpack over a websocket, REST for clock and calendar) and AWS
(a stub of four services, which reads each record that it is given) are another. Each quote has a number; the sink counts what arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgpack
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from benchmarks.harness import ROOT
from local.listening import listening
from schema.settings import SETTINGS_FILE, load

OPEN = datetime(2020, 1, 2, 14, 30, tzinfo=UTC)
NAMES = ("SPY", "QQQ", "IWM", "AAPL", "AIG", "BAC", "GOOG", "IBM")
FRAMES_PER_SECOND = 50
#: Seconds without a record after which nothing more is expected.
STANDING = 15.0
KEYS = {"key_id": "a-key", "secret_key": "a-secret"}


class VendorAndCloud:
    """Both ends of the runner. `arrived`: the numbers of the quotes that the delivery stream was given."""

    def __init__(self) -> None:
        self.arrived: set[int] = set()
        self.repeated = self.bars = self.calls = self.events = 0
        self.market: WebSocket | None = None
        self.beats: list[dict[str, Any]] = []
        self.last = 0.0

    async def aws(self, request: Request) -> Response:
        action = request.headers["x-amz-target"].rpartition(".")[2]
        body = json.loads(await request.body())
        answer: dict[str, Any] = {}
        if action == "PutRecordBatch":
            self.calls, self.last = self.calls + 1, time.monotonic()
            for record in body["Records"]:
                line = json.loads(base64.b64decode(record["Data"]))
                if line["kind"] == "bar":
                    self.bars += 1
                    continue
                self.repeated += int(line["bid_size"]) in self.arrived
                self.arrived.add(int(line["bid_size"]))
            answer = {"FailedPutCount": 0, "RequestResponses": [{"RecordId": "1"}] * len(body["Records"])}
        elif action == "PutEvents":
            self.events += len(body["Entries"])
            answer = {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}] * len(body["Entries"])}
        elif action == "GetSecretValue":
            answer = {"ARN": "arn", "Name": "keys", "SecretString": json.dumps(KEYS)}
        elif action == "PutItem":
            self.beats.append({name: next(iter(value.values())) for name, value in body["Item"].items()})
        return Response(json.dumps(answer), media_type="application/x-amz-json-1.1")

    async def clock(self, _request: Request) -> JSONResponse:
        ends = (OPEN + timedelta(hours=6.5)).isoformat()
        return JSONResponse({"timestamp": OPEN.isoformat(), "is_open": True, "next_open": ends, "next_close": ends})

    async def calendar(self, _request: Request) -> JSONResponse:
        return JSONResponse([{"date": "2020-01-02", "open": "09:30", "close": "16:00"}])

    async def data(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_bytes(msgpack.packb([{"T": "success", "msg": "connected"}]))
        try:
            while True:
                message = msgpack.unpackb(await socket.receive_bytes())
                said = {"T": "success", "msg": "authenticated"} if message["action"] == "auth" else {"T": "subscription", "quotes": NAMES}
                await socket.send_bytes(msgpack.packb([said]))
                if message["action"] == "subscribe":
                    self.market = socket
        except WebSocketDisconnect:
            self.market = None

    async def orders(self, socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                message = json.loads(await socket.receive_text())
                authorized = {"stream": "authorization", "data": {"status": "authorized", "action": "authenticate"}}
                listening_to = {"stream": "listening", "data": {"streams": ["trade_updates"]}}
                await socket.send_bytes(json.dumps(authorized if message["action"] == "authenticate" else listening_to).encode())
        except WebSocketDisconnect:
            return

    async def push(self, *, rate: int, seconds: int) -> float:
        """Send numbered quotes, and a trade per name and second, at an even pace; return how long it took."""
        assert self.market is not None
        per_frame, begun, number = rate // FRAMES_PER_SECOND, time.monotonic(), 0
        for frame in range(seconds * FRAMES_PER_SECOND):
            messages = []
            at = OPEN + timedelta(seconds=frame / FRAMES_PER_SECOND)
            for place in range(per_frame):
                number += 1
                price = 100 + number % 50 / 100
                moment = at + timedelta(microseconds=place * 20_000 // per_frame)
                quote = {"T": "q", "S": NAMES[number % len(NAMES)], "bp": price, "bs": number, "ap": price + 0.01, "as": 1, "t": moment}
                messages.append({**quote, "bx": "V", "ax": "V", "c": ["R"], "z": "B"})
            if frame % FRAMES_PER_SECOND == 0:
                sold = {"T": "t", "p": 100.0, "s": 100, "x": "V", "c": ["@"], "z": "B", "t": at, "i": frame + 1}
                messages += [{**sold, "S": name} for name in NAMES]
            await self.market.send_bytes(msgpack.packb(messages, datetime=True))
            await asyncio.sleep(max(0.0, begun + (frame + 1) / FRAMES_PER_SECOND - time.monotonic()))
        return time.monotonic() - begun

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self.aws, methods=["POST"]),
                Route("/v2/clock", self.clock),
                Route("/v2/calendar", self.calendar),
                WebSocketRoute("/v2/iex", self.data),
                WebSocketRoute("/stream", self.orders),
            ]
        )


def start(url: str, *, settings: Path) -> subprocess.Popen[bytes]:
    """The runner, on the first core of this process's."""
    variables = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "ALPACA_TRADING_URL": url,
        "ALPACA_DATA_URL": url,
        "BROKER_SECRET_ARN": "keys",
        "LEDGER_TABLE": "ledger",
        "EVENT_BUS_NAME": "market",
        "STREAM_KIND": "firehose",
        "STREAM_NAME": "quotes",
        SETTINGS_FILE: str(settings),
    }
    core = min(os.sched_getaffinity(0))
    command = ["taskset", "-c", str(core), sys.executable, "-m", "runner"]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


async def measured(*, rate: int, seconds: int) -> dict[str, float]:
    ends = VendorAndCloud()
    server = uvicorn.Server(uvicorn.Config(ends.app, log_level="warning", ws="websockets-sansio", timeout_graceful_shutdown=1))
    with listening(0) as socket, tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "settings.json"
        settings.write_text(load(ROOT / "data" / "settings.toml").model_dump_json(), encoding="utf-8")
        serving = asyncio.create_task(server._serve([socket]))  # noqa: SLF001 -- `serve` takes the signals
        process = start(f"http://127.0.0.1:{socket.getsockname()[1]}", settings=settings)
        try:
            while ends.market is None or ends.events < 2:
                await asyncio.sleep(0.05)
            before = processor_seconds(process.pid)
            took = await ends.push(rate=rate, seconds=seconds)
            sent = rate // FRAMES_PER_SECOND * FRAMES_PER_SECOND * seconds
            ended = time.monotonic()
            while len(ends.arrived) < sent and time.monotonic() - max(ends.last, ended) < STANDING:
                await asyncio.sleep(0.02)
            behind = time.monotonic() - ended
            used = processor_seconds(process.pid) - before
            memory = memory_mb(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait)
            server.should_exit = True
            await serving
    return {
        "sent": sent,
        "arrived": len(ends.arrived),
        "lost": sent - len(ends.arrived),
        "repeated": ends.repeated,
        "seconds": round(took, 2),
        "rate": round(sent / took),
        "seconds behind at the end": round(behind, 2),
        "core": round(used / took, 3),
        "microseconds per quote": round(1e6 * used / sent, 1),
        "memory MB": round(memory),
        "calls": ends.calls,
        "events": ends.events,
        "lost by its own count": int(ends.beats[-1]["lost"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=int, default=5000, help=f"quotes per second, a multiple of {FRAMES_PER_SECOND}")
    parser.add_argument("--seconds", type=int, default=60)
    chosen = parser.parse_args()
    found = asyncio.run(measured(rate=chosen.rate, seconds=chosen.seconds))
    sys.stdout.write(json.dumps({**found, "load": os.getloadavg()[0]}, indent=2) + "\n")
    sys.exit(0 if found["lost"] == 0 else 1)


if __name__ == "__main__":
    main()
