"""I. What holds for every interleaving, every sequence of fills and every sequence of actions.

The machine drives the functions through duplicate events, deaths, pauses, lost answers, lagging views, fills after the answer, the
runner's events, manual trades, halts and clock moves, and then lets everything end. Its examples are the same until the code changes:
Hypothesis mixes the constants of loaded modules into what it draws, so docs/faults.md counts none of them.
PAPERTAPE_FAULT_EXAMPLES=2000 draws as many new ones.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from lambdas.common.broker.port import Order
from lambdas.common.ledger.records import Fill, OrderRecord
from lambdas.common.orders.broker_updates import merged
from local.exchange.orders import Status
from local.exchange.venue import Fills
from schema.exchange_time import iso
from tests.faults.edges import LEDGER
from tests.faults.page import Tally
from tests.faults.simulation import CLOSE, COSTS, FOREIGN, NAMES, OURS, SLOT, Simulation, decision, three_name_settings, with_risk
from tests.markets import walk
from trading_env.orders.order_state import OrderStatus
from trading_env.simulation.policy import softmax
from trading_env.simulation.portfolio import Book, Costs, ExecutionPrices, Rules, step

Open = Callable[..., Simulation]

EXAMPLES = int(os.environ.get("PAPERTAPE_FAULT_EXAMPLES", "0"))
BUDGET = settings(
    max_examples=EXAMPLES or 40,
    stateful_step_count=14,
    derandomize=not EXAMPLES,
    phases=(Phase.generate, Phase.shrink) if EXAMPLES else (Phase.generate,),  # shrinking takes minutes
    database=None,
    deadline=None,
    print_blob=bool(EXAMPLES),
    suppress_health_check=list(HealthCheck),
)
LEASE_OVER = timedelta(seconds=61)
MAX_GROSS = 0.8

#: What goes wrong in one run: nothing; dead before or after its n-th call; overtaken there by reconcile, with or without a lease that has
#: run out, or by an event of its newest order; halted there by a person; without a ledger from its n-th call to it on.
TROUBLE = st.tuples(
    st.sampled_from(["none", "none", "killed", "killed after", "overtaken", "heard", "paused", "halted", "no ledger", "throttled"]),
    st.integers(1, 36),
)
SIDES = st.sampled_from(["buy", "sell"])
WEIGHTS = st.sampled_from(
    [
        dict.fromkeys(NAMES, 1 / 3),
        {"AAPL": 0.5, "IBM": 0.3},
        {"SPY": 0.0, "AAPL": 0.45, "IBM": 0.2},
        {"SPY": 0.5, "AAPL": 0.0},
        dict.fromkeys(NAMES, 0.0),
    ]
)
RATES = st.sampled_from([0.3, 1.0])
FAULTS = st.fixed_dictionaries(
    {},
    optional={
        "post_504_accepted": st.fixed_dictionaries({"rate": RATES}),
        "post_timeout_accepted": st.fixed_dictionaries({"rate": RATES}),
        "post_reset_unaccepted": st.fixed_dictionaries({"rate": RATES, "first": st.sampled_from([1, 2])}),
        "post_garbled": st.fixed_dictionaries({"rate": RATES}),
        "too_many_requests": st.fixed_dictionaries({"rate": st.sampled_from([0.1, 0.4])}),
        "budget": st.fixed_dictionaries({"per_minute": st.sampled_from([10, 30])}),
        "get_5xx": st.fixed_dictionaries({"rate": st.sampled_from([0.1, 0.4])}),
        "get_timeout": st.fixed_dictionaries({"rate": st.sampled_from([0.05, 0.2])}),
        "partial_fill": st.fixed_dictionaries({"rate": RATES, "expires": st.sampled_from([0.0, 0.5]), "seconds": st.sampled_from([2, 60])}),
        "unknown_status": st.fixed_dictionaries({"rate": RATES, "seconds": st.sampled_from([3, 200])}),
        "wash_trade": st.fixed_dictionaries({"false_positive_rate": st.sampled_from([0.0, 0.5])}),
        "insufficient_buying_power": st.fixed_dictionaries({"rate": RATES, "first": st.just(1)}),
        "halted_asset": st.just({"symbols": ["IBM"]}),
        "not_fractionable": st.just({"symbols": ["IBM"]}),
        "vendor_rounding": st.just({}),
        "view_skew": st.fixed_dictionaries({"rate": RATES, "seconds": st.sampled_from([5, 25])}),
        "hidden_order": st.fixed_dictionaries({"rate": RATES, "seconds": st.sampled_from([5, 100])}),
        "stale_order_view": st.fixed_dictionaries({"rate": RATES, "seconds": st.sampled_from([20, 200])}),
        "overfill": st.fixed_dictionaries({"rate": st.just(0.2)}),
    },
)


class Protocol(RuleBasedStateMachine):
    """Everything that may happen to a simulation, in any order."""

    opened: ClassVar[Open]

    def __init__(self) -> None:
        super().__init__()
        self.simulation = type(self).opened(settings=with_risk(three_name_settings(), max_gross=MAX_GROSS, max_weight=0.55))
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[tuple[str, str, str, str]] = []

    @initialize(fills=st.sampled_from(["answer", "after"]))
    def opens(self, fills: Fills) -> None:
        """An exchange that fills in its answer, or a moment after it."""
        self.simulation.venue.fills = fills

    # --- the functions, each run with its trouble

    @rule(weights=WEIGHTS, trouble=TROUBLE)
    def decide(self, weights: dict[str, float], trouble: tuple[str, int]) -> None:
        self.bodies.append(self._body(weights))
        self._run(trouble, self.simulation.accept, self.bodies[-1])

    @rule(which=st.integers(0, 5), trouble=TROUBLE)
    def decide_again(self, which: int, trouble: tuple[str, int]) -> None:
        if self.bodies:
            self._run(trouble, self.simulation.accept, self.bodies[which % len(self.bodies)])

    @rule(symbol=st.sampled_from(NAMES), side=SIDES, quantity=st.sampled_from(["1", "7.5", "40"]), trouble=TROUBLE)
    def order(self, symbol: str, side: str, quantity: str, trouble: tuple[str, int]) -> None:
        self.keys.append((f"k{len(self.keys)}", symbol, side, quantity))
        self._run(trouble, self.simulation.order, *self.keys[-1])

    @rule(which=st.integers(0, 5), trouble=TROUBLE)
    def order_again(self, which: int, trouble: tuple[str, int]) -> None:
        if self.keys:
            self._run(trouble, self.simulation.order, *self.keys[which % len(self.keys)])

    @rule(trouble=TROUBLE)
    def flatten(self, trouble: tuple[str, int]) -> None:
        self._run(trouble, self.simulation.flatten)

    @rule(trouble=TROUBLE)
    def reconcile(self, trouble: tuple[str, int]) -> None:
        self._run(trouble, self.simulation.reconcile)

    @rule(which=st.integers(0, 5), trouble=TROUBLE)
    def hear(self, which: int, trouble: tuple[str, int]) -> None:
        """An event of the runner's, early, late or again, of any order that the broker has."""
        self._run(trouble, self._hear, which)

    @rule(which=st.integers(0, 5), trouble=TROUBLE)
    def cancel(self, which: int, trouble: tuple[str, int]) -> None:
        if waiting := self.simulation.ledger.unsettled_orders():
            self._run(trouble, self.simulation.cancel, waiting[which % len(waiting)].client_order_id)

    @rule(weights=WEIGHTS, other=st.sampled_from(["itself", "reconcile", "an event"]), seed=st.integers(0, 99))
    def at_once(self, weights: dict[str, float], other: str, seed: int) -> None:
        simulation, body = self.simulation, self.bodies[-1] if self.bodies else self._body(weights)
        decide = partial(simulation.accept, body)
        beside = {"itself": decide, "reconcile": simulation.reconcile, "an event": partial(self._hear, seed)}[other]
        simulation.together(decide, beside, seed=seed)

    # --- the world

    @rule(faults=FAULTS, seed=st.integers(0, 5))
    def misbehave(self, faults: dict[str, dict[str, Any]], seed: int) -> None:
        self.simulation.misbehave(seed=seed, **faults)

    @rule()
    def behave(self) -> None:
        self.simulation.calm()

    @rule(seconds=st.sampled_from([1, 6, 31, 61, 61, 300, 1200]))
    def wait(self, seconds: int) -> None:
        self.simulation.advance(timedelta(seconds=seconds))

    @rule(leaving=st.sampled_from([False, False, True]), trouble=TROUBLE)
    def next_session(self, leaving: bool, trouble: tuple[str, int]) -> None:
        """Over the close, where the session is closed, and maybe a flatten asked for, to the next slot."""
        close = self.simulation.venue.calendar.next_close(self.simulation.venue.now)
        self.simulation.advance(close + timedelta(minutes=5))
        self.simulation.reconcile()
        if leaving:
            self._run(trouble, self.simulation.flatten)
        self.simulation.advance(self.simulation.venue.calendar.next_open(self.simulation.venue.now) + timedelta(minutes=5))

    @rule(symbol=st.sampled_from([*NAMES, FOREIGN]), side=SIDES, quantity=st.sampled_from(["1", "2.5", "30"]))
    def person_trades(self, symbol: str, side: str, quantity: str) -> None:
        """At the broker's page; no order of ours follows within the seconds for which its positions may lag."""
        with suppress(requests.RequestException):  # a person's answer may get lost as well
            self.simulation.person_orders(symbol, side, quantity)
        self.simulation.advance(timedelta(seconds=30))

    @rule(state=st.sampled_from(["active", "active", "reduce_only", "halted"]))
    def person_says(self, state: Any) -> None:
        self.simulation.ledger.set_trading_state(state, reason="a person", time=iso(self.simulation.venue.now), by="a person")

    # --- what holds

    @invariant()
    def holds(self) -> None:
        self.simulation.check()

    def teardown(self) -> None:
        simulation = self.simulation
        simulation.calm()
        simulation.advance(LEASE_OVER)
        # to the close: what risk does not let go out again, a person's order above all, stays in doubt until then
        simulation.end_orders(passes=15, minutes=30)
        simulation.advance(simulation.venue.calendar.next_close(simulation.venue.now) + timedelta(minutes=5))
        simulation.end_orders()
        simulation.check()
        simulation.agrees()
        orders = simulation.orders()
        ours = [order for order in orders if order.client_order_id.startswith(OURS)]
        accepted = Counter((order.decision_id, order.symbol) for order in ours if order.client_order_id in simulation.venue.accepted)
        assert max(accepted.values(), default=0) <= 1, "of one intent, attempts included, one order is accepted at most"
        known = {order.client_order_id for order in ours}
        assert {one for one in simulation.venue.accepted if one.startswith(OURS)} <= known, (
            "the broker has no order of ours that the ledger lacks"
        )
        for order in orders:
            theirs = simulation.book.by_client_id(order.client_order_id)
            assert order.filled_quantity == (theirs.filled_quantity if theirs is not None else 0)
        before = self._everything()
        simulation.reconcile()
        assert self._everything() == before, "reconciling again changes nothing"

    # --- how

    def _hear(self, which: int) -> None:
        if orders := list(self.simulation.book.orders.values()):
            ticket = orders[which % len(orders)].ticket
            self.simulation.hear(self.simulation.updated(ticket.client_order_id, ticket.symbol))

    def _body(self, weights: dict[str, float]) -> dict[str, Any]:
        today = self.simulation.venue.today
        earlier = [session.date for session in self.simulation.venue.calendar.sessions if session.date < today]
        return decision(session=today.isoformat(), as_of=earlier[-1].isoformat(), weights=weights)

    def _run(self, trouble: tuple[str, int], run: Callable[..., Any], *arguments: Any) -> None:
        simulation, (kind, nth) = self.simulation, trouble
        match kind:
            case "killed" | "killed after":
                simulation.kill("", nth=nth, after=kind == "killed after")
            case "overtaken":
                simulation.interrupt("", simulation.reconcile, nth=nth)
            case "heard":
                simulation.interrupt("", partial(self._hear, -1), nth=nth)
            case "paused":
                simulation.interrupt("", lambda: (simulation.advance(LEASE_OVER), simulation.reconcile()), nth=nth)
            case "halted":
                simulation.interrupt("", lambda: self.person_says("halted"), nth=nth)
            case "no ledger":
                simulation.interrupt(LEDGER, lambda: setattr(simulation.edges, "unreachable", True), nth=1 + nth // 2)
            case "throttled":
                operations = ("TransactWriteItems", "BatchGetItem", "Query", "UpdateItem")
                simulation.interrupt(LEDGER, lambda: setattr(simulation.edges, "throttled", operations[nth % 4]), nth=1 + nth // 2)
        simulation.platform = kind != "paused"
        run(*arguments)
        simulation.platform = True
        simulation.edges.interruptions.clear()
        simulation.edges.unreachable, simulation.edges.throttled = False, ""

    def _everything(self) -> tuple[Any, ...]:
        items = [item for item in self.simulation.ledger._table.scan()["Items"] if item["pk"] != "lease"]
        book = self.simulation.book
        return sorted(items, key=lambda item: (item["pk"], item["sk"])), book.cash, book.positions, len(book.orders)


@pytest.mark.drawn
def test_i1_i2_i3_i4_every_interleaving(opened: Open, tally: Tally) -> None:
    """Any mix of duplicate events, deaths, pauses, faults, fills after the answer, the runner's events, manual trades, halts and clock
    moves: one acceptance an intent at most, cash and gross within their limits, the ledger's fills are the broker's position, reconciling
    again changes nothing."""
    Protocol.opened = staticmethod(opened)  # type: ignore[assignment]
    run_state_machine_as_test(Protocol, settings=BUDGET)
    assert all((tally.struck["killed"], tally.statuses["filled"], tally.statuses["refused"])), "what holds without trouble is little"


FILLS = st.lists(st.tuples(st.integers(1, 10**9), st.integers(1, 10**6)), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(fills=FILLS, data=st.data())
def test_i5_the_order_in_which_fills_are_heard(fills: list[tuple[int, int]], data: st.DataObject) -> None:
    """The broker's states of one order, each heard at least once, in any order and any number of times: the same quantity, price and
    end."""
    quantity, paid = Decimal(0), Decimal(0)
    states: list[Order] = []
    for quanta, cents in fills:
        quantity += Decimal(quanta) / 10**9
        paid += Decimal(quanta) / 10**9 * Decimal(cents) / 100
        states.append(_seen("partially_filled", quantity, paid / quantity))
    states.append(_seen("filled", quantity, paid / quantity))
    heard = data.draw(st.permutations([*states, *data.draw(st.lists(st.sampled_from(states), max_size=4))]))
    order = OrderRecord(
        client_order_id="pt1-x", decision_id="d", slot="s", symbol="SPY", side="buy", quantity=quantity, price=1.0, created_at="2020-01-02"
    )
    recorded: list[Fill] = []
    for seen in heard:
        order, fill = merged(order, seen, now=SLOT)
        recorded += [fill] if fill is not None else []
    assert (order.status, order.filled_quantity, order.filled_average_price) == ("filled", quantity, paid / quantity)
    assert sum((fill.quantity for fill in recorded), Decimal(0)) == quantity
    cost = sum((fill.quantity * fill.price for fill in recorded), Decimal(0))
    assert abs(cost - paid) <= Decimal("1e-20") * paid


def _seen(status: str, filled: Decimal, average: Decimal) -> Order:
    return Order(
        id="b",
        client_order_id="pt1-x",
        symbol="SPY",
        side="buy",
        quantity=filled,
        filled_quantity=filled,
        filled_average_price=average,
        status=OrderStatus(status),
        submitted_at=iso(SLOT),
        filled_at=iso(datetime(2020, 1, 2, 14, 35, tzinfo=UTC)),
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(market=st.integers(0, 5), scores=st.lists(st.floats(-10, 10), min_size=4, max_size=4), bps=st.sampled_from([0.0, 10.0, 300.0]))
def test_i6_every_dollar_is_accounted_for(market: int, scores: list[float], bps: float) -> None:
    """Any scores over a market with splits, dividends and halts: value moves by shares times price moves and dividends, less the costs."""
    history = walk(sessions=12, seed=market)
    prices, rules = ExecutionPrices.of(history), Rules(costs=Costs(slippage_bps=bps))
    book = Book.of_cash(100_000.0, assets=4)
    for row in range(10):
        weights = softmax(np.array([scores]), history.tradable[[row]])
        before = book.value(prices.closing[[row]])
        done = step(book, prices=prices, rows=np.array([row]), weights=weights, rules=rules)
        split = prices.split[row + 1]
        over_night = (book.quantities * (split * prices.opening[row + 1] - prices.closing[row]))[book.quantities != 0].sum()
        held = done.book.quantities[0]
        over_day = (held * (prices.closing[row + 1] - prices.opening[row + 1]))[held != 0].sum()
        moved = over_night + over_day + done.dividends[0] - done.costs[0]
        assert abs(done.value[0] - before[0] - moved) <= 1e-9 * before[0]
        book = done.book


def test_i7_no_action_costs_nothing(simulation: Simulation) -> None:
    """Three sessions with a decision that names nothing that is held or wanted: no order, no cost, no change but the market's."""
    simulation.accept(decision(weights={"SPY": 0.5}))
    cash, held = simulation.book.cash, simulation.held
    for day in ("2020-01-03", "2020-01-06", "2020-01-07"):
        simulation.advance(f"{day}T14:35:00+00:00")
        earlier = max(session.date for session in simulation.venue.calendar.sessions if session.date < simulation.venue.today)
        simulation.accept(decision(session=day, as_of=earlier.isoformat(), weights={"IBM": 0.0}))
    assert (simulation.book.cash, simulation.held) == (cash, held)
    assert simulation.ours_accepted == 1
    simulation.agrees()


def test_i8_a_round_trip_costs_its_costs(simulation: Simulation) -> None:
    """Shares are bought and sold again at one price: the cash that is missing is both sides' slippage, to the last digit."""
    simulation.order("in", "SPY", "buy", "12.345678901")
    simulation.order("out", "SPY", "sell", "12.345678901")
    notional = Decimal("12.345678901") * simulation.venue.price("SPY")
    assert Decimal(100_000) - simulation.book.cash == 2 * COSTS * notional
    assert simulation.held == {}
    assert {order.status for order in simulation.book.orders.values()} == {Status.FILLED}
    assert simulation.venue.now < CLOSE
    simulation.agrees()
