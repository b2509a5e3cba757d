"""Reconcile on the runner's events: the order at once, one pass for many, nothing lost while an executor works, a held name's halt told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from lambdas.common.broker.connection import broker_from_environment, market_data_from_environment
from lambdas.common.environment import TimeBudget
from lambdas.common.ledger.ledger import Ledger, LedgerCorrupt
from lambdas.common.ledger.records import Decision, OrderRecord
from lambdas.common.market_events import MarketEventError, market_event_of
from lambdas.common.orders.execution_context import ExecutionContext
from lambdas.reconcile.on_event import act_on
from local.exchange.server import RunningExchange
from schema.realtime.events import EVENTS, SOURCE, MarketEvent, OrderUpdated, PriceMoved, TradingStatusChanged
from schema.settings import Settings
from tests.aws.books import positions, recorded
from trading_env.orders.order_state import OrderStatus

AT = datetime(2020, 1, 2, 14, 36, tzinfo=UTC)
MOVED = PriceMoved(at=AT, received_at=AT, symbol="SPY", price=Decimal(300), before=Decimal(320), change=-0.0625, minutes=5)


def envelope(event: MarketEvent) -> dict[str, Any]:
    """As the bus hands it to a function."""
    return {
        "version": "0", "id": "1", "detail-type": event.detail_type, "source": SOURCE, "account": "000000000000", "region": "us-east-1",
        "time": "2020-01-02T14:36:00Z", "resources": [], "detail": event.model_dump(mode="json"),
    }  # fmt: skip


def updated(client_order_id: str, status: str = "filled") -> OrderUpdated:
    return OrderUpdated(at=AT, received_at=AT, client_order_id=client_order_id, symbol="SPY", event="fill", status=status)


def halted(symbol: str) -> TradingStatusChanged:
    return TradingStatusChanged(at=AT, received_at=AT, symbol=symbol, status="halted", code="T1", reason="news pending")


@pytest.fixture
def on_event(ledger_table: Ledger, exchange: RunningExchange, buckets: SimpleNamespace) -> Callable[[MarketEvent], dict[str, Any]]:
    from lambdas.reconcile.handler import handler

    return lambda event: handler(envelope(event), SimpleNamespace(aws_request_id=f"run-{event.detail_type}"))


@pytest.fixture
def waiting(ledger_table: Ledger, exchange: RunningExchange) -> OrderRecord:
    """An order that the exchange has filled, and that the ledger still has as new."""
    return filled_meanwhile(ledger_table, "pt1-waiting")


def filled_meanwhile(ledger_table: Ledger, name: str) -> OrderRecord:
    order = SimpleNamespace(client_order_id=name, symbol="SPY", side="buy", quantity=Decimal(3))
    sent = broker_from_environment().submit(order, retry_timeout=0)  # type: ignore[arg-type]
    stored = OrderRecord(
        client_order_id=order.client_order_id, decision_id="agent:2020-01-02/open+5", slot="2020-01-02/open+5", symbol="SPY", side="buy",
        quantity=order.quantity, price=320.0, status=OrderStatus.NEW, created_at="2020-01-02T14:35:00Z", broker_id=sent.id,
    )  # fmt: skip
    assert ledger_table.put_external_order(stored)
    return stored


@dataclass
class Timer:
    """Seconds that pass when somebody sleeps."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


def context(ledger: Ledger, settings: Settings, timer: Timer, *, owner: str = "run") -> ExecutionContext:
    return ExecutionContext(
        ledger=ledger, broker=broker_from_environment(), market_data=market_data_from_environment(), settings=settings, owner=owner,
        started=0.0, monotonic=lambda: timer.now, wall=lambda: 1e9 + timer.now, sleep=timer.sleep, budget=TimeBudget(lease_seconds=150),
    )  # fmt: skip


def test_a_fill_reaches_the_ledger_with_the_event_that_names_its_order(
    on_event: Any, waiting: OrderRecord, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    summary = on_event(updated(waiting.client_order_id))
    assert (summary["order"], summary["passes"]) == ("filled, 3 filled", 1)
    (fill,) = ledger_table.fills_of(waiting.client_order_id)
    assert (fill.quantity, fill.symbol) == (Decimal(3), "SPY")
    assert recorded(ledger_table) == positions(exchange)


def test_one_event_brings_what_all_of_a_crowd_tell(waiting: OrderRecord, ledger_table: Ledger, settings: Settings) -> None:
    other = filled_meanwhile(ledger_table, "pt1-another")
    act_on(updated(waiting.client_order_id), context(ledger_table, settings, Timer()), one_pass=dict, time_budget=45)
    assert [len(ledger_table.fills_of(one.client_order_id)) for one in (waiting, other)] == [1, 1]
    late = act_on(updated(other.client_order_id), context(ledger_table, settings, Timer()), one_pass=dict, time_budget=45)
    assert late["order"] == "known"


def test_a_fill_is_recorded_while_an_executor_works_and_without_its_lease(
    waiting: OrderRecord, ledger_table: Ledger, settings: Settings
) -> None:
    timer = Timer()
    assert ledger_table.acquire_lease("executor", now=1e9, seconds=20) is not None
    seen: list[bool] = []

    def one_pass() -> dict[str, Any]:
        seen.append(ledger_table.lease_is_free(now=1e9 + timer.now))
        return {}

    done = act_on(updated(waiting.client_order_id), context(ledger_table, settings, timer), one_pass=one_pass, time_budget=45)
    assert done["order"] == "filled, 3 filled"
    assert seen == [True], "the pass waited until the lease had ended"
    assert 20 <= timer.now < 22


def test_an_executor_that_outlasts_the_time_budget_is_left_to_the_schedule(ledger_table: Ledger, settings: Settings, exchange: Any) -> None:
    timer, passes = Timer(), []
    ledger_table.acquire_lease("executor", now=1e9, seconds=600)
    done = act_on(MOVED, context(ledger_table, settings, timer), one_pass=lambda: passes.append(1) or {}, time_budget=10)  # type: ignore[func-returns-value]
    assert (done["passes"], len(passes)) == (1, 1), "one pass, which leaves what needs the lease and does the rest"
    assert timer.now < 11


def test_what_has_ended_with_its_decision_asks_nobody(on_event: Any, waiting: OrderRecord, ledger_table: Ledger) -> None:
    ledger_table.save_order(waiting.model_copy(update={"status": OrderStatus.FILLED}))
    assert on_event(updated(waiting.client_order_id)) == {"event": "order updated", "order": "known"}
    ledger_table.open_decision(
        Decision(
            decision_id=waiting.decision_id,
            strategy="agent",
            slot=waiting.slot,
            body_sha256="b",
            received_at="2020-01-02T14:35:00Z",
            data_as_of="2019-12-31",
            weights={"SPY": 0.0},
        )
    )
    assert on_event(updated(waiting.client_order_id))["passes"] == 1, "its decision still works: the last order's end finishes it"


def test_an_order_that_is_being_sent_is_recorded_by_its_sender(on_event: Any, waiting: OrderRecord, ledger_table: Ledger) -> None:
    ledger_table.save_order(waiting.model_copy(update={"status": OrderStatus.PENDING, "broker_id": None}))
    assert on_event(updated(waiting.client_order_id))["order"] == "being sent"


def test_another_order_that_cannot_be_read_does_not_keep_a_fill_from_the_ledger(
    on_event: Any, waiting: OrderRecord, ledger_table: Ledger
) -> None:
    """The function fails of it, for its alarm, after the rest was done."""
    other = filled_meanwhile(ledger_table, "pt1-another")
    key = {"pk": f"order#{other.client_order_id}", "sk": "order"}
    ledger_table._table.update_item(Key=key, UpdateExpression="SET quantity = :x", ExpressionAttributeValues={":x": "many"})
    with pytest.raises(LedgerCorrupt, match=other.client_order_id):
        on_event(updated(waiting.client_order_id))
    assert len(ledger_table.fills_of(waiting.client_order_id)) == 1


def test_a_storm_of_events_is_one_pass_and_one_more(ledger_table: Ledger, settings: Settings, exchange: RunningExchange) -> None:
    """Thirty events while one run is at its first pass: none of them passes, and that run passes once more for all of them."""
    timer, others = Timer(), []

    def one_pass() -> dict[str, Any]:
        if not others:
            others.extend(
                act_on(
                    MOVED,
                    context(ledger_table, settings, Timer(), owner=f"other-{n}"),
                    one_pass=lambda: pytest.fail("passed"),
                    time_budget=45,
                )
                for n in range(30)
            )
        return {"now": "x"}

    done = act_on(MOVED, context(ledger_table, settings, timer), one_pass=one_pass, time_budget=45)
    assert (done["passes"], timer.slept) == (2, [2.0])
    assert [other["passes"] for other in others] == [0] * 30
    again = act_on(MOVED, context(ledger_table, settings, timer, owner="later"), one_pass=dict, time_budget=45)
    assert again["passes"] == 1, "the turn was given back"


def test_a_pass_that_fails_gives_the_turn_back_and_a_dead_run_loses_it(
    ledger_table: Ledger, settings: Settings, exchange: RunningExchange
) -> None:
    timer = Timer()

    def failing() -> dict[str, Any]:
        raise RuntimeError("the broker is away")

    with pytest.raises(RuntimeError, match="away"):
        act_on(MOVED, context(ledger_table, settings, timer), one_pass=failing, time_budget=45)
    assert ledger_table.ask_for_turn("dies", now=1e9, seconds=150) is not None
    assert ledger_table.ask_for_turn("early", now=1e9 + 149, seconds=150) is None
    asked = ledger_table.ask_for_turn("late", now=1e9 + 151, seconds=150)
    assert asked is not None
    assert ledger_table.end_turn("dies", asked=asked) is None, "it passed on: the dead run's end changes nothing"
    assert ledger_table.ask_for_turn("another", now=1e9 + 152, seconds=150) is None


def test_a_run_out_of_time_gives_the_turn_back_whoever_asks(ledger_table: Ledger, settings: Settings, exchange: RunningExchange) -> None:
    timer = Timer()

    def asked_again() -> dict[str, Any]:
        ledger_table.ask_for_turn("somebody", now=1e9 + timer.now, seconds=150)
        timer.now += 20
        return {}

    assert act_on(MOVED, context(ledger_table, settings, timer), one_pass=asked_again, time_budget=45)["passes"] == 3
    assert ledger_table.ask_for_turn("next", now=1e9 + timer.now, seconds=150) is not None


def test_a_fall_between_slots_trips_the_breaker_with_the_event(
    on_event: Any, reconcile: Any, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    reconcile()
    ledger_table.change_breakers(
        lambda now: now.model_copy(
            update={
                "account_id": broker_from_environment().account().id,
                "last_close_equity": Decimal(200_000),
                "peak_equity": Decimal(200_000),
            }
        )
    )
    on_event(MOVED)
    assert "max_daily_loss" in ledger_table.breakers().tripped


def test_the_halt_of_a_held_name_is_told_once_and_of_another_never(on_event: Any, waiting: OrderRecord, ledger_table: Ledger) -> None:
    assert on_event(halted("SPY"))["halted"] is True
    on_event(halted("SPY"))
    on_event(halted("IBM"))
    (alert,) = ledger_table.alerts("2020-01")
    assert alert.rule == "halted:SPY"
    assert "T1: news pending" in alert.detail


def test_every_event_of_the_runner_is_read_back_and_others_are_refused() -> None:
    assert market_event_of(envelope(MOVED)) == MOVED
    assert market_event_of({"schedule": "reconcile", "time": "2020-01-02T14:36:00Z"}) is None
    assert market_event_of({}) is None
    assert len({kind.detail_type for kind in EVENTS}) == len(EVENTS)
    with pytest.raises(MarketEventError, match="was 'price moved' of 'someone'"):
        market_event_of({**envelope(MOVED), "source": "someone"})
    with pytest.raises(MarketEventError, match="'price moved' cannot be read: price: "):
        market_event_of({**envelope(MOVED), "detail": {**MOVED.model_dump(mode="json"), "price": "-1"}})
