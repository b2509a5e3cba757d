"""What an account should hold: the last snapshot of this account, and the fills since, over the turn of a year."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Fill, Held, OrderRecord, Snapshot
from lambdas.common.orders.positions import drift_of, last_snapshot, traded_since
from lambdas.common.orders.splits import Splits
from trading_env.orders.order_state import OrderStatus

EVE = "2019-12-31T21:05:00Z"


def snapshot(ledger: Ledger, session: str, *, account: str | None = "ours", **held: int) -> None:
    positions = {symbol: Held(quantity=Decimal(quantity), close=Decimal(10)) for symbol, quantity in held.items()}
    cash, taken_at = Decimal(1000), f"{session}T21:05:00Z"
    ledger.put_snapshot(Snapshot(session=session, account_id=account, cash=cash, equity=cash, positions=positions, taken_at=taken_at))


def fill(ledger: Ledger, name: str, side: Any, quantity: int, *, time: str) -> None:
    named = {
        "client_order_id": name,
        "decision_id": "agent:2020-01-02/open+5",
        "symbol": "SPY",
        "side": side,
        "quantity": Decimal(quantity),
    }
    order = OrderRecord(**named, slot="2020-01-02/open+5", price=10.0, created_at=time, broker_id=name)
    ledger.put_external_order(order)
    done = {"status": OrderStatus.FILLED, "filled_quantity": Decimal(quantity), "fills": 1}
    found = Fill(**named, sequence=1, price=Decimal(10), cumulative=Decimal(quantity), time=time)
    ledger.save_order(order.model_copy(update=done), fill=found)


def test_fills_since_the_snapshot_explain_what_is_held_sells_and_another_year_s_included(ledger_table: Ledger) -> None:
    snapshot(ledger_table, "2019-12-31", SPY=10)
    fill(ledger_table, "before", "buy", 7, time=EVE)
    fill(ledger_table, "late", "buy", 5, time="2019-12-31T21:05:01Z")
    fill(ledger_table, "sold", "sell", 2, time="2020-01-02T14:35:00Z")
    before = last_snapshot(ledger_table, account="ours", before=date(2020, 1, 2))
    assert before is not None
    traded = traded_since(before.taken_at, until=date(2020, 1, 2), ledger=ledger_table)
    assert traded == {"SPY": Decimal(3)}
    assert drift_of({"SPY": Decimal(13)}, before=before, traded=traded, splits=Splits()) == {}
    (told,) = drift_of({"SPY": Decimal(12)}, before=before, traded=traded, splits=Splits()).values()
    assert told == "SPY: our fills say 13, the broker holds 12"


def test_a_snapshot_of_the_day_itself_or_of_another_account_is_none_to_start_from(ledger_table: Ledger) -> None:
    day = date(2020, 1, 3)
    assert last_snapshot(ledger_table, account="ours", before=day) is None
    snapshot(ledger_table, "2020-01-02")
    snapshot(ledger_table, "2020-01-03")
    found = last_snapshot(ledger_table, account="ours", before=day)
    assert found is not None
    assert found.session == "2020-01-02"
    assert last_snapshot(ledger_table, account="another", before=day) is None
    assert last_snapshot(ledger_table, account="ours", before=date(2020, 1, 2)) is None
