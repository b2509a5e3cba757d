"""The exchange from outside: `RunningExchange` starts one as a process of its own, talks to its `/admin`, and ends it by its pid.

Promise: after `stop` nothing is left, and an exchange whose parent dies ends by itself. A start that fails, or an exchange that no longer
answers, is an `ExchangeError` of one line with the cause and the remedy.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from local.listening import HOST
from trading_env.errors import PapertapeError

ROOT = Path(__file__).resolve().parents[2]

START_SECONDS = 60.0
STOP_SECONDS = 5.0
KEY_VARIABLE, SECRET_VARIABLE = "PAPERTAPE_EXCHANGE_KEY_ID", "PAPERTAPE_EXCHANGE_SECRET_KEY"


class ExchangeError(PapertapeError, RuntimeError):
    """The exchange did not start or does not answer; the message is one line with the cause and the remedy."""


@dataclass(frozen=True, kw_only=True)
class ExchangeConfig:
    """How an exchange starts. `now` is its clock, `cash` US dollars, costs basis points of one side; port 0 is a free one.

    With a `journal` the books outlive the process: a start on the same terms goes on where the file ends. `faults` is a plan, see
    `faults.py`; without one the exchange does not misbehave. `actions`: "announced" lists a corporate action from its ex-date on with its
    process date ahead, "processed" from its process date on; which of the two the vendor does is not documented. The clock stands still
    between two moves of it, unless it has a `speed`: 1 is that of the machine's clock, and at 60 a session takes six and a half minutes.
    `fills`: "answer" fills an order within the answer to it, "after" a moment later.
    Without a `now` the data say where it begins (`market/first_start.py`). `minutes`: "made" has minutes made from daily bars on days of
    which none are recorded; they must never judge a strategy. Their `quotes`: "spread" is about a basis point wide, "trade" stands at the
    last trade on both sides, so that an order is sized at the price that fills it.
    """

    now: str | None = None
    cash: str = "100000"
    port: int = 0
    data: Path = ROOT / "data"
    fee_bps: str = "0"
    slippage_bps: str = "0"
    dividends: str = "ignore"
    actions: str = "announced"
    journal: Path | None = None
    faults: Path | None = None
    speed: str = "0"
    fills: str = "answer"
    minutes: str = "recorded"
    quotes: str = "spread"
    key_id: str = field(default="local-key", repr=False)
    secret_key: str = field(default="local-secret", repr=False)


class RunningExchange:
    """An exchange in a process of its own, for drivers and tests: a context manager.

    `url` serves both ALPACA_TRADING_URL and ALPACA_DATA_URL. `log` receives the server's standard error; without it nothing is kept but
    the line that says why a start failed.
    """

    def __init__(self, config: ExchangeConfig, *, log: Path | None = None) -> None:
        self.config = config
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._port: int | None = None
        self._session = requests.Session()
        # A kept connection may be closed by the other side in the moment it is used again, and a POST is not sent twice
        self._session.headers["Connection"] = "close"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        if self._port is None:
            raise ExchangeError("exchange: it is not running; call start() first")
        return f"http://{HOST}:{self._port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ExchangeError("exchange: it is not running; call start() first")
        return self._process.pid

    def start(self) -> None:
        """Start the process and wait until it is ready. Raises `ExchangeError`."""
        config = self.config
        command = [
            sys.executable,
            "-m",
            "local.exchange",
            "--port",
            str(config.port),
            "--data",
            str(config.data.resolve()),
            "--cash",
            config.cash,
        ]
        command += [
            "--fee-bps",
            config.fee_bps,
            "--slippage-bps",
            config.slippage_bps,
            "--dividends",
            config.dividends,
            "--actions",
            config.actions,
            "--speed",
            config.speed,
            "--fills",
            config.fills,
            "--minutes",
            config.minutes,
            "--quotes",
            config.quotes,
        ]
        command += ["--now", config.now] if config.now is not None else []
        command += ["--parent-pid", str(os.getpid())]
        for name in ("journal", "faults"):
            path: Path | None = getattr(config, name)
            command += [f"--{name}", str(path.resolve())] if path is not None else []
        environment = {**os.environ, KEY_VARIABLE: config.key_id, SECRET_VARIABLE: config.secret_key}
        with (self._log or Path(os.devnull)).open("a", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )
        line = self._first_line()
        try:
            self._port = int(json.loads(line)["port"])
        except (ValueError, KeyError, TypeError) as error:
            self.stop()
            raise ExchangeError(line.strip() or f"exchange: it did not start within {START_SECONDS:.0f} s; see {self._log}") from error

    def stop(self) -> None:
        """End the process, if it runs: SIGTERM, and SIGKILL after five seconds."""
        process, self._process, self._port = self._process, None, None
        self._session.close()
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
        if process.stdout is not None:
            process.stdout.close()

    def check(self) -> None:
        """Raise `ExchangeError` when the process has ended by itself."""
        if self._process is not None and (code := self._process.poll()) is not None:
            ending = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise ExchangeError(f"exchange: it has ended ({ending}): see {self._log or 'its log'} and start again")

    def advance(self, now: str | datetime) -> dict[str, Any]:
        """Move the clock forward to `now` (UTC); returns {now, is_open}."""
        return self._admin("POST", "/admin/clock", body={"now": _text(now)})

    def books(self, *, since: str | datetime | None = None) -> dict[str, Any]:
        """The exchange's own books; `since` leaves out orders and fills untouched since then."""
        return self._admin("GET", "/admin/books", params={"since": _text(since)} if since is not None else None)

    def use_faults(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        """Misbehave by `plan`, a document as `faults.py` has it, from now on; {} is not at all. Returns {plan, faults}."""
        return self._admin("POST", "/admin/faults", body=plan)

    def reset(self, *, now: str | datetime, cash: str | None = None) -> dict[str, Any]:
        """A new account at any moment; returns its books."""
        return self._admin("POST", "/admin/reset", body={"now": _text(now)} | ({"cash": cash} if cash is not None else {}))

    def _admin(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, params: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        try:
            response = self._session.request(method, self.url + path, json=body, params=params, timeout=(3, 60))
        except requests.RequestException as error:
            raise ExchangeError(
                f"exchange: {method} {path} got no answer ({type(error).__name__}); it has stopped, start it again"
            ) from error
        content: dict[str, Any] = response.json()
        if response.status_code != 200:
            raise ExchangeError(f"exchange: {method} {path} answered {response.status_code}: {content.get('message')}")
        return content

    def _first_line(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        return self._process.stdout.readline() if readable else ""


def _text(moment: str | datetime) -> str:
    return moment if isinstance(moment, str) else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
