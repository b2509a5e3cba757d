"""Inside the exchange's process: from a configuration to a listening server.

Promise: it listens on loopback only, says on standard output when it is ready (one JSON line, with its port), and ends within two seconds
of SIGTERM, or of the death of the parent that it was told to follow. What goes wrong at the start (a port in use, a corrupt data file,
a wrong clock) is an `ExchangeError` of one line.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from datetime import date
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from local.exchange.costs import TradingCosts
from local.exchange.faults.middleware import CONNECTION, Application, Receive, Scope, Send
from local.exchange.faults.plan import FaultPlan
from local.exchange.http.app import Keys, create_app
from local.exchange.http.guard import Guard
from local.exchange.http.parsing import parse_moment
from local.exchange.http.wire import utc
from local.exchange.invented_news import invented
from local.exchange.journal import Journal
from local.exchange.market.first_start import default_start, require_within
from local.exchange.orders import Refused
from local.exchange.recorded_market import MinutesKind, QuotesKind, RecordedMarket
from local.exchange.running_clock import RunningClock
from local.exchange.server import SECRET_VARIABLE, ExchangeConfig, ExchangeError
from local.exchange.sessions import ExchangeCalendar
from local.exchange.streams.application import Streams
from local.exchange.venue import Dividends, Fills, Venue
from local.listening import HOST, PortError, listening
from papertape.market_data import bundled
from papertape.market_data.own_bars import read_own_bars

PARENT_POLL_SECONDS = 0.5
KEPT_SECONDS = 75  # that a connection may idle, about as long as a load balancer lets it
TERMS = ("now", "cash", "fee_bps", "slippage_bps", "dividends")


def serve(config: ExchangeConfig, *, ready_file: Path | None, parent_pid: int | None) -> None:
    """Serve until a signal, or until `parent_pid` is no longer the parent. Raises `ExchangeError` when it cannot start."""
    try:
        listener = listening(config.port)
    except PortError as error:
        raise ExchangeError(f"exchange: {error}") from error
    with listener:
        venue, speed = _venue(config), float(_decimal(config.speed, "speed"))
        keys = Keys(key_id=config.key_id, secret_key=config.secret_key)
        app = Guard(RunningClock(Streams(create_app(venue=venue, keys=keys), venue=venue, keys=keys), venue=venue, speed=speed))
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=_Connection,
                ws="websockets-sansio",
                ws_per_message_deflate=False,
                loop="asyncio",
                lifespan="off",
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=1,
                timeout_keep_alive=KEPT_SECONDS,
            )
        )
        if parent_pid is not None:
            threading.Thread(target=_follow, args=(parent_pid, server), daemon=True).start()
        ready = json.dumps(_ready(config, venue, port=listener.getsockname()[1], speed=speed))
        if ready_file is not None:
            partial = ready_file.with_suffix(ready_file.suffix + ".part")
            partial.write_text(ready + "\n", encoding="utf-8")
            partial.replace(ready_file)
        print(ready, flush=True)
        server.run(sockets=[listener])


class _Connection(H11Protocol):
    """uvicorn's connection; the application finds its transport in the scope, to be able to reset it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app = partial(_with_connection, self.app, transport)


async def _with_connection(application: Application, transport: asyncio.Transport, scope: Scope, receive: Receive, send: Send) -> None:
    await application({**scope, "extensions": {CONNECTION: transport}}, receive, send)


def _ready(config: ExchangeConfig, venue: Venue, *, port: int, speed: float) -> dict[str, Any]:
    """What a person or a program wants to know of an exchange that is ready; a secret of one's own stays one."""
    first, last = venue.market.span
    return {
        "port": port,
        "pid": os.getpid(),
        "url": f"http://{HOST}:{port}",
        "key_id": config.key_id,
        "secret_key": config.secret_key if config.secret_key == ExchangeConfig.secret_key else f"in {SECRET_VARIABLE}",
        "data": {"first": first.isoformat(), "last": last.isoformat(), "symbols": len(venue.market.symbols)},
        "now": utc(venue.now),
        "clock": f"runs, {speed:g} market seconds per second" if speed else "stands still until POST /admin/clock moves it",
        "minutes": venue.market.minutes_label,
    }


def _venue(config: ExchangeConfig) -> Venue:
    """The venue over its data, brought to where the journal ends, under its fault plan. Raises `ExchangeError`."""
    try:
        asked, cash = parse_moment(config.now, "now") if config.now is not None else None, _decimal(config.cash, "cash")
        costs = TradingCosts.from_basis_points(
            fee_bps=_decimal(config.fee_bps, "fee-bps"), slippage_bps=_decimal(config.slippage_bps, "slippage-bps")
        )
        plan = FaultPlan.load(config.faults) if config.faults is not None else None
        market = recorded_market(
            config.data,
            lists_announced=_lists_announced(config.actions),
            minutes=_minutes(config.minutes),
            quotes=_quotes(config.quotes),
        )
        now = asked or default_start(market, bundled=_is_bundle(config.data))
        require_within(market, now)
        venue = Venue(
            market=market,
            now=now,
            cash=cash,
            costs=costs,
            dividends=_dividends(config.dividends),
            news=invented(market.symbols) if _is_bundle(config.data) else (),
            fills=_fills(config.fills),
        )
        if config.journal is not None:
            terms = {name: getattr(config, name) for name in TERMS} | {"now": config.now or utc(now)}
            terms |= {"minutes": config.minutes} if config.minutes != "recorded" else {}
            terms |= {"quotes": config.quotes} if config.quotes != "spread" else {}
            Journal(config.journal).attach(venue, terms=terms)
        if plan is not None and plan != venue.plan:
            venue.use_faults(plan)
    except (bundled.BundledDataError, Refused, ValueError, OSError) as error:
        raise ExchangeError(f"exchange: {error}") from error
    return venue


def recorded_market(
    data: Path, *, lists_announced: bool = True, minutes: MinutesKind = "recorded", quotes: QuotesKind = "spread"
) -> RecordedMarket:
    """The market of the bundle, or of raw daily bars in a file or folder."""
    if not _is_bundle(data):
        own = read_own_bars(data, adjusted=False)
        first = min(date(2004, 1, 2), own.bars["session"].min().date())
        return RecordedMarket(
            calendar=ExchangeCalendar.xnys(start=first, end=date(2029, 12, 31)),
            bars=own.bars,
            actions=own.actions,
            lists_announced=lists_announced,
            minutes=minutes,
            quotes=quotes,
        )
    return RecordedMarket(
        calendar=ExchangeCalendar.xnys(start=date(2004, 1, 2), end=date(2029, 12, 31)),
        bars=bundled.daily_bars(folder=data),
        actions=bundled.corporate_actions(folder=data),
        minute_quotes=bundled.minute_quotes(folder=data),
        minute_trades=bundled.minute_trades(folder=data),
        lists_announced=lists_announced,
        minutes=minutes,
        quotes=quotes,
    )


def _is_bundle(data: Path) -> bool:
    return data == bundled.DATA or (data / "SHA256SUMS").exists()


def _dividends(word: str) -> Dividends:
    if word != "ignore" and word != "credit":
        raise ExchangeError(f"exchange: dividends must be ignore or credit, was {word}")
    return "ignore" if word == "ignore" else "credit"


def _fills(word: str) -> Fills:
    if word != "answer" and word != "after":
        raise ExchangeError(f"exchange: fills must be answer or after, was {word}")
    return "answer" if word == "answer" else "after"


def _lists_announced(word: str) -> bool:
    if word not in ("announced", "processed"):
        raise ExchangeError(f"exchange: actions must be announced or processed, was {word}")
    return word == "announced"


def _quotes(word: str) -> QuotesKind:
    if word != "spread" and word != "trade":
        raise ExchangeError(f"exchange: quotes must be spread or trade, was {word}")
    return "trade" if word == "trade" else "spread"


def _minutes(word: str) -> MinutesKind:
    if word != "recorded" and word != "made":
        raise ExchangeError(f"exchange: minutes must be recorded or made, was {word}")
    return "made" if word == "made" else "recorded"


def _decimal(text: str, name: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number < 0:
        raise ExchangeError(f"exchange: {name} must be a number of at least 0, was {text!r}")
    return number


def _follow(parent_pid: int, server: uvicorn.Server) -> None:
    while os.getppid() == parent_pid:
        time.sleep(PARENT_POLL_SECONDS)
    server.should_exit = True
