"""The deployed functions in one process: the real broker client, the real exchange, a ledger in moto's DynamoDB, one clock.

Nothing of ours is replaced but time: `sleep` moves the exchange's clock, which is every clock here. Each call of a function
is one *life* (`edges.Life`) with a client of its own, as a new process would have; it can be killed, delayed, doubled and
overtaken at any of its calls. `Simulation.check` holds what must hold whatever happened: at most one acceptance of an
intent, cash and gross within their limits, fills that the broker knows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import requests
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from lambdas.common.broker.alpaca import AlpacaBroker, Credentials
from lambdas.common.broker.port import BrokerError
from lambdas.common.ledger.ledger import Ledger, LedgerCorrupt, Stale
from lambdas.common.ledger.records import OrderRecord
from lambdas.common.orders.execution_context import ExecutionContext
from lambdas.execute_orders import handler as execution
from lambdas.execute_orders import service
from lambdas.reconcile.handler import ReconcileVariables
from lambdas.reconcile.on_event import act_on
from lambdas.reconcile.service import reconcile
from local.exchange.book import AccountBook
from local.exchange.costs import TradingCosts
from local.exchange.faults.plan import FaultPlan
from local.exchange.http.app import Keys, create_app
from local.exchange.in_process import InProcess
from local.exchange.recorded_market import RecordedMarket
from local.exchange.sessions import ExchangeCalendar
from local.exchange.venue import Fills, Venue
from papertape.market_data import bundled
from schema.api_requests import Body, DecisionRequest, FlattenRequest, OrderRequest, parse
from schema.exchange_time import iso
from schema.realtime.events import MarketEvent, OrderUpdated
from schema.settings import Settings, load
from tests.faults.edges import Edges, Interruption, Killed, Life, Wire

ROOT = Path(__file__).resolve().parents[2]
URL = "http://127.0.0.1:9"
NAMES = ("AAPL", "IBM", "SPY")
FOREIGN = "BAC"
SESSION, AS_OF = "2020-01-02", "2019-12-31"
SLOT = datetime(2020, 1, 2, 14, 35, tzinfo=UTC)
CLOSE = datetime(2020, 1, 2, 21, 0, tzinfo=UTC)
EQUAL = dict.fromkeys(NAMES, 1 / 3)
#: Seconds after which the platform kills a function: those of the stacks.
EXECUTE_SECONDS, RECONCILE_SECONDS = 29.0, 120.0
OURS = "pt1-"
COSTS = Decimal("0.001")
ROOM = Decimal("0.003")  # what a price may move, and the costs, between sizing and fill, as a share of equity

T = TypeVar("T")


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]

    @property
    def statuses(self) -> list[str]:
        return sorted(order["status"] for order in self.body["orders"])


@lru_cache(maxsize=1)
def three_name_settings() -> Settings:
    """The project's own settings with a universe of three names."""
    settings = load(ROOT / "data" / "settings.toml")
    return settings.model_copy(update={"universe": settings.universe.model_copy(update={"symbols": NAMES})})


def with_risk(settings: Settings, **limits: Any) -> Settings:
    return settings.model_copy(update={"risk": settings.risk.model_copy(update=limits)})


@lru_cache(maxsize=4)
def recorded_market(*, gone: tuple[tuple[str, str], ...] = ()) -> RecordedMarket:
    """The bundled bars of four names from 2016 on; of those `gone`, up to the day before."""
    bars = bundled.daily_bars()
    bars = bars[bars["symbol"].isin([*NAMES, FOREIGN]) & (bars["session"] >= "2016-01-04")]
    for symbol, day in gone:
        bars = bars[(bars["symbol"] != symbol) | (bars["session"] < day)]
    return RecordedMarket(calendar=_calendar(), bars=bars, actions=bundled.corporate_actions())


@lru_cache(maxsize=1)
def _calendar() -> ExchangeCalendar:
    return ExchangeCalendar.xnys(start=date(2016, 1, 4), end=date(2021, 3, 31))


def decision(
    *, session: str = SESSION, as_of: str = AS_OF, weights: dict[str, float] | None = None, strategy: str = "agent", **more: Any
) -> dict[str, Any]:
    """A body of POST /decisions: equal weight unless told otherwise."""
    slot = f"{session}/open+5"
    return {
        "decision_id": f"{strategy}:{slot}",
        "slot": slot,
        "strategy": strategy,
        "model_version": "equal-weight",
        "data_as_of": as_of,
        "weights": EQUAL if weights is None else weights,
        "feature_hash": "0" * 64,
        "observation_hash": "1" * 64,
        **more,
    }


@dataclass
class Simulation:
    """`story` collects what was done to it, for docs/faults.md; `failures` what left a function as an error.

    Without a `platform` a function may live as long as it likes.
    """

    ledger: Ledger
    settings: Settings = field(default_factory=three_name_settings)
    now: datetime = SLOT
    cash: str = "100000"
    market: RecordedMarket = field(default_factory=recorded_market)
    credentials: Credentials = field(default_factory=lambda: Credentials(key_id="local-key", secret_key="local-secret"))
    renew: Callable[[], tuple[str, str] | None] = lambda: None
    skew: timedelta = timedelta(0)
    story: list[str] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    platform: bool = True
    fills: Fills = "answer"

    def __post_init__(self) -> None:
        costs = TradingCosts(slippage=COSTS)
        self.venue = Venue(market=self.market, now=self.now, cash=Decimal(self.cash), costs=costs, fills=self.fills)
        self.edges = Edges(now=self.monotonic)
        self.lives: list[Life] = []
        self.persons: dict[str, Decimal] = {}
        self.open_doors()

    def open_doors(self, *, key_id: str = "local-key", secret_key: str = "local-secret") -> None:
        """Open the exchange for one key pair."""
        self.application = create_app(venue=self.venue, keys=Keys(key_id=key_id, secret_key=secret_key))
        self.person = requests.Session()
        self.person.headers.update({"APCA-API-KEY-ID": key_id, "APCA-API-SECRET-KEY": secret_key})
        self.person.mount(URL, InProcess(self.application))

    # --- the clock

    def monotonic(self) -> float:
        return self.venue.now.timestamp()

    def wall(self) -> float:
        return (self.venue.now + self.skew).timestamp()

    def sleep(self, seconds: float) -> None:
        self.venue.advance(self.venue.now + timedelta(seconds=seconds))

    def advance(self, to: datetime | str | timedelta) -> None:
        """Move every clock, to a moment or by so much."""
        moment = datetime.fromisoformat(to) if isinstance(to, str) else to
        self.venue.advance(max(self.venue.now, self.venue.now + moment if isinstance(moment, timedelta) else moment))

    # --- what goes wrong

    def misbehave(self, *, seed: int = 0, **faults: dict[str, Any]) -> None:
        """The exchange's own faults, from now on; none ends them."""
        self.venue.use_faults(FaultPlan.from_document({"seed": seed, "faults": faults}))

    def interrupt(self, call: str, do: Callable[[], Any], *, nth: int = 1, after: bool = False) -> None:
        """Once, at the `nth` call that begins with `call`, do something before it is made, or after it was answered."""
        self.edges.interruptions.append(Interruption(call=call, nth=nth, after=after, do=do))

    def kill(self, call: str, *, nth: int = 1, after: bool = False) -> None:
        """Kill the life that makes this call, before it is made or after it was answered."""

        def die() -> None:
            self.story.append("killed")
            self.edges.die()

        self.interrupt(call, die, nth=nth, after=after)

    def instead(self, call: str, status: int, body: dict[str, Any] | bytes = b"", *, times: int | None = None) -> None:
        """Answer calls that begin with `call` in the exchange's place, all or the first `times`."""
        left = [times]

        def answer(_request: requests.PreparedRequest) -> tuple[int, bytes] | None:
            if left[0] is not None:
                if not left[0]:
                    return None
                left[0] -= 1
            self.story.append(f"{status} instead")
            return status, body if isinstance(body, bytes) else json.dumps(body).encode()

        self.edges.instead.append((call, answer))

    def retell(self, call: str, change: Callable[[Any], Any]) -> None:
        """Change what the exchange answers to calls that begin with `call`."""

        def retold(_request: requests.PreparedRequest, response: requests.Response) -> tuple[int, bytes]:
            self.story.append("answer changed")
            return response.status_code, json.dumps(change(response.json())).encode()

        self.edges.retold.append((call, retold))

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.misbehave()
        self.edges.interruptions.clear()
        self.edges.instead.clear()
        self.edges.retold.clear()
        self.edges.throttled, self.edges.unreachable, self.edges.failing = "", False, ""

    # --- the functions

    def accept(self, body: dict[str, Any] | None = None) -> Answer | None:
        """POST /decisions; None if the function was killed."""
        return self._execute(DecisionRequest, decision() if body is None else body, service.accept_decision)

    def order(self, key: str, symbol: str, side: str, quantity: str) -> Answer | None:
        """POST /orders: a person's order through the API."""
        body = {"key": key, "symbol": symbol, "side": side, "quantity": quantity}
        return self._execute(OrderRequest, body, service.accept_order)

    def flatten(self, reason: str = "a test") -> Answer | None:
        return self._execute(FlattenRequest, {"reason": reason}, partial(service.flatten, by="a person", time=iso(SLOT)))

    def cancel(self, order_id: str) -> Answer | None:
        return self.execute(lambda context: service.cancel_order(order_id, context))

    def _execute(self, model: type[Body], body: Any, serve: Callable[[Any, ExecutionContext], service.Outcome]) -> Answer | None:
        def run(context: ExecutionContext) -> tuple[int, dict[str, Any]]:
            return serve(parse(model, json.dumps(body), settings=self.settings), context)

        return self.execute(run)

    def execute(self, run: Callable[[ExecutionContext], tuple[int, dict[str, Any]]]) -> Answer | None:
        """One life of the execution function; what it cannot answer becomes what its handler makes of it."""

        def handled(context: ExecutionContext) -> Answer:
            try:
                return Answer(*run(context))
            except (BrokerError, ClientError, BotoCoreError) as error:
                told = execution.not_now(error)
            except ValidationError as error:
                told = execution.wrong_body(error)
            return Answer(told.status_code, json.loads(told.body))

        return self.live("execute_orders", handled, execution.ExecutionVariables(), seconds=EXECUTE_SECONDS)

    def reconcile(self) -> dict[str, Any] | None:
        """One pass; None if it was killed or left as an error, which is then the last of `failures`."""
        return self._reconciling(reconcile)

    def hear(self, event: MarketEvent) -> dict[str, Any] | None:
        """Reconcile on an event of the runner's, as `reconcile`."""
        return self._reconciling(
            lambda context: act_on(
                event,
                context,
                one_pass=lambda: reconcile(replace(context, started=self.monotonic())),
                time_budget=ReconcileVariables().event_seconds,
            )
        )

    def updated(self, client_order_id: str, symbol: str) -> OrderUpdated:
        """What the runner says of an order; which update it was, nobody reads."""
        now = self.venue.now
        return OrderUpdated(at=now, received_at=now, client_order_id=client_order_id, symbol=symbol, event="fill", status="filled")

    def _reconciling(self, run: Callable[[ExecutionContext], dict[str, Any]]) -> dict[str, Any] | None:
        try:
            return self.live("reconcile", run, ReconcileVariables(), seconds=RECONCILE_SECONDS)
        except (BrokerError, ClientError, BotoCoreError, LedgerCorrupt, Stale) as error:
            self.failures.append(error)
            return None

    def live(self, name: str, run: Callable[[ExecutionContext], T], budget: Any, *, seconds: float) -> T | None:
        """One life of a function, with edges of its own; None if it was killed."""
        life = Life(name=name, ends=self.monotonic() + seconds if self.platform else float("inf"))
        self.lives.append(life)
        broker = self.broker()
        context = ExecutionContext(
            ledger=self.ledger,
            broker=broker,
            market_data=broker,
            settings=self.settings,
            owner=f"{name} {len(self.lives)}",
            code_version="test",
            budget=budget,
            started=self.monotonic(),
            monotonic=self.monotonic,
            wall=self.wall,
            sleep=self._sleep_of(life),
        )
        with self.edges.living(life):
            try:
                return run(context)
            except Killed:
                return None

    def _sleep_of(self, life: Life) -> Callable[[float], None]:
        def sleep(seconds: float) -> None:
            if life.dead:
                raise Killed(life.name)
            self.sleep(seconds)

        return sleep

    def broker(self) -> AlpacaBroker:
        """A client of a new process."""
        broker = AlpacaBroker(credentials=self.credentials, trading_url=URL, data_url=URL, sleep=self.sleep, renew=self.renew)
        for client in (broker._trading, broker._stocks, broker._actions):
            client._session.mount(URL, Wire(self._served, edges=self.edges, sleep=self.sleep))
        return broker

    async def _served(self, scope: Any, receive: Any, send: Any) -> None:
        """The exchange as it is now, whatever keys it has; each acceptance is looked at with the eyes of risk."""
        before = self.ours_accepted
        try:
            await self.application(scope, receive, send)
        finally:
            if self.ours_accepted > before:
                self._measure()

    def together(self, *runs: Callable[[], Any], seed: int) -> list[Any]:
        """Lives at the same time, in an order of their calls that the seed draws."""
        return self.edges.together(runs, seed=seed)

    def end_orders(self, *, passes: int = 12, minutes: int = 5) -> None:
        """Reconcile every few minutes, until nothing is under way; fails when that never comes."""
        for _ in range(passes):
            self.reconcile()
            if not self.ledger.working_decisions() and not self.ledger.unsettled_orders():
                return
            self.advance(timedelta(minutes=minutes))
        left = [order.status for order in self.ledger.unsettled_orders()]
        raise AssertionError(f"after {passes} passes {left} and {len(self.ledger.working_decisions())} decisions are under way")

    # --- a person at the broker's own page

    def person_orders(self, symbol: str, side: str, quantity: str, **more: str) -> dict[str, Any]:
        body = {"symbol": symbol, "qty": quantity, "side": side, "type": "market", "time_in_force": "day", **more}
        answer: dict[str, Any] = self.person.post(f"{URL}/v2/orders", json=body).json()
        self.story.append("a person's order")
        return answer

    # --- what is so

    @property
    def book(self) -> AccountBook:
        return self.venue.book

    @property
    def ours_accepted(self) -> int:
        return sum(count for order_id, count in self.venue.accepted.items() if order_id.startswith(OURS))

    @property
    def held(self) -> dict[str, Decimal]:
        """What the broker holds."""
        return {symbol: position.quantity for symbol, position in sorted(self.book.positions.items())}

    @property
    def recorded(self) -> dict[str, Decimal]:
        """What the ledger's fills add up to."""
        held: dict[str, Decimal] = {}
        for order in self.orders():
            for fill in self.ledger.fills_of(order.client_order_id):
                held[fill.symbol] = held.get(fill.symbol, Decimal(0)) + (fill.quantity if fill.side == "buy" else -fill.quantity)
        return {symbol: quantity for symbol, quantity in sorted(held.items()) if quantity}

    @property
    def months(self) -> list[str]:
        first, last = (moment.year * 12 + moment.month - 1 for moment in (self.now, self.venue.now))
        return [f"{month // 12}-{month % 12 + 1:02d}" for month in range(first, last + 1)]

    def orders(self) -> list[OrderRecord]:
        """Every order of the ledger, of all months that were lived through."""
        return [order for month in self.months for order in self.ledger.orders(month)]

    def statuses(self) -> list[str]:
        return sorted(order.status for order in self.orders())

    def alerts(self) -> list[str]:
        return [alert.rule for month in self.months for alert in self.ledger.alerts(month)]

    def agrees(self) -> None:
        """The ledger's fills, and those of a person's orders that it has not adopted, are the broker's position."""
        known = {order.client_order_id for order in self.orders()}
        expected = dict(self.recorded)
        for fill in self.book.fills:
            if not fill.client_order_id.startswith(OURS) and fill.client_order_id not in known:
                signed = fill.quantity if fill.side.value == "buy" else -fill.quantity
                expected[fill.symbol] = expected.get(fill.symbol, Decimal(0)) + signed
        assert {symbol: quantity for symbol, quantity in sorted(expected.items()) if quantity} == self.held

    def check(self) -> None:
        """What holds at any moment, whatever happened."""
        accepted = {order_id: count for order_id, count in self.venue.accepted.items() if count > 1}
        assert not accepted, f"accepted more than once: {accepted}"
        cash = self.venue.initial_cash
        for fill in self.book.fills:
            cash += (1 if fill.side.value == "sell" else -1) * fill.quantity * fill.price - fill.fee
            assert cash >= 0, f"cash was {cash} after {fill}"
        assert not self.breaches, self.breaches

    def _measure(self) -> None:
        """Gross exposure if every open buy fills, right after a buy of ours was accepted."""
        newest = max(self.book.orders.values(), key=lambda order: order.sequence)
        if newest.ticket.side.value != "buy":
            return
        prices = {symbol: self.venue.price(symbol) for symbol in self.market.symbols if self.venue.last_trade(symbol) is not None}
        working = sum(
            ((order.rest * prices[order.ticket.symbol]) for order in self.book.open_orders if order.ticket.side.value == "buy"), Decimal(0)
        )
        gross = sum((held.quantity * prices[symbol] for symbol, held in self.book.positions.items()), working)
        limit = Decimal(repr(self.settings.risk.max_gross))
        if gross > (limit + ROOM) * self.venue.equity:
            share = (gross / self.venue.equity).quantize(Decimal("0.0001"))
            self.breaches.append(f"gross {share} of equity after {newest.client_order_id}, at most {limit}")


def quantities(orders: Iterable[OrderRecord]) -> dict[str, Decimal]:
    return {order.client_order_id: order.quantity for order in orders}


def ids(answers: Sequence[Answer | None]) -> set[str]:
    """The client order ids that several answers name."""
    return {order["client_order_id"] for answer in answers if answer is not None for order in answer.body.get("orders", [])}
