"""The ledger's promises, on a table with the deployed keys and indexes."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest

from lambdas.common.broker import Order
from lambdas.common.broker_time import parse_utc
from lambdas.common.ledger import AlreadyThere, CursorError, Fenced, Ledger, Stale
from lambdas.common.recording import RecordingError, record
from lambdas.common.records import AlertRecord, Breakers, Decision, Fill, Leg, OrderRecord, ServedModel, ShadowDecision, Snapshot

NOW = parse_utc("2020-01-02T14:35:00Z")


def an_order(number: int = 1, **more: Any) -> OrderRecord:
    body = {"client_order_id": f"pt1-{number:06d}", "decision_id": "agent:2020-01-02/open+5", "slot": "2020-01-02/open+5", "symbol": "SPY"}
    sized = {"side": "buy", "quantity": Decimal("10.123456789"), "price": 324.87, "created_at": "2020-01-02T14:35:00Z"}
    return OrderRecord(**{**body, **sized, **more})


def seen(filled: str, *, status: str = "partially_filled", price: str = "100", **more: Any) -> Order:
    fixed = {"id": "broker-1", "client_order_id": "pt1-000001", "symbol": "SPY", "side": "buy", "quantity": Decimal("10.123456789")}
    told = {"filled_quantity": Decimal(filled), "filled_average_price": Decimal(price) if Decimal(filled) else None, "status": status}
    return Order(**{**fixed, **told, "submitted_at": "2020-01-02T14:35:00Z", "filled_at": None, **more})


def lease(ledger: Ledger) -> int:
    fence = ledger.acquire_lease("me", now=1000.0, seconds=60)
    assert fence is not None
    return fence


def test_a_decision_survives_the_round_trip_bit_for_bit(ledger_table: Ledger) -> None:
    leg = Leg(symbol="SPY", side="buy", quantity=Decimal("38.254817492"), price=0.1 + 0.2, client_order_id="pt1-x")
    weights = {"SPY": 1 / 3, "IBM": math.nextafter(0.1, 1)}
    decision = Decision(
        decision_id="agent:2020-01-02/open+5",
        strategy="agent",
        slot="2020-01-02/open+5",
        body_sha256="0" * 64,
        received_at="2020-01-02T14:35:00Z",
        weights=weights,
        plan=(leg,),
        sizing_equity=100_000.1,
    )
    ledger_table.open_decision(decision)
    assert ledger_table.decision(decision.decision_id) == decision
    assert ledger_table.decisions("2020-01") == [decision]
    with pytest.raises(AlreadyThere) as raised:
        ledger_table.open_decision(decision.model_copy(update={"slot": "other"}))
    assert raised.value.stored == decision


def test_what_is_not_finite_is_never_stored(ledger_table: Ledger) -> None:
    with pytest.raises(ValueError, match="finite"):
        ledger_table.open_order(an_order(price=float("nan")), fence=lease(ledger_table))


def test_an_order_is_put_once_and_only_by_the_holder_of_the_lease(ledger_table: Ledger) -> None:
    fence = lease(ledger_table)
    ledger_table.open_order(an_order(), fence=fence)
    with pytest.raises(AlreadyThere):
        ledger_table.open_order(an_order(quantity=Decimal(1)), fence=fence)
    assert ledger_table.order("pt1-000001") == an_order()
    with pytest.raises(Fenced):
        ledger_table.open_order(an_order(2), fence=fence - 1)
    assert ledger_table.order("pt1-000002") is None


def test_the_lease_passes_on_only_when_it_has_run_out_or_was_given_back(ledger_table: Ledger) -> None:
    first = lease(ledger_table)
    assert ledger_table.acquire_lease("other", now=1059.9, seconds=60) is None
    second = ledger_table.acquire_lease("other", now=1060.0, seconds=60)
    assert second == first + 1
    ledger_table.release_lease(first)  # too late: it is not ours any more
    assert ledger_table.acquire_lease("third", now=1061.0, seconds=60) is None
    with pytest.raises(Fenced):
        ledger_table.open_order(an_order(), fence=first)
    ledger_table.release_lease(second)
    assert ledger_table.acquire_lease("third", now=1061.0, seconds=60) == second + 1


def test_a_write_from_an_old_version_is_stale_and_writes_no_fill(ledger_table: Ledger) -> None:
    ledger_table.open_order(an_order(), fence=lease(ledger_table))
    ledger_table.save_order(an_order(status="accepted"))
    fill = Fill(
        client_order_id="pt1-000001",
        decision_id="d",
        sequence=1,
        symbol="SPY",
        side="buy",
        quantity=Decimal(1),
        price=Decimal(1),
        cumulative=Decimal(1),
        time="2020-01-02T14:35:00Z",
    )
    with pytest.raises(Stale):
        ledger_table.save_order(an_order(status="filled", fills=1), fill=fill)
    assert ledger_table.fills_of("pt1-000001") == []


def test_fills_are_cumulative_monotone_and_counted_once(ledger_table: Ledger) -> None:
    ledger_table.open_order(an_order(), fence=lease(ledger_table))
    order = an_order()
    news = [
        seen("0", status="new"),
        seen("4"),
        seen("4"),
        seen("1"),
        seen("10.123456789", status="filled", price="102"),
        seen("4"),
        seen("0"),
    ]
    for one in news:
        order = record(ledger_table, order, one, now=NOW)
    fills = ledger_table.fills_of("pt1-000001")
    assert [(fill.sequence, fill.quantity) for fill in fills] == [(1, Decimal(4)), (2, Decimal("6.123456789"))]
    paid = sum(fill.quantity * fill.price for fill in fills)
    assert abs(paid - Decimal("10.123456789") * 102) < Decimal("1e-20")
    assert (order.status, order.filled_quantity) == ("filled", Decimal("10.123456789"))
    assert ledger_table.fills("2020-01") == fills
    assert ledger_table.unsettled_orders() == []


def test_two_who_record_the_same_news_write_one_fill(ledger_table: Ledger) -> None:
    ledger_table.open_order(an_order(), fence=lease(ledger_table))
    record(ledger_table, an_order(), seen("4"), now=NOW)
    order = record(ledger_table, an_order(), seen("7"), now=NOW)
    assert order.filled_quantity == Decimal(7)
    assert [fill.quantity for fill in ledger_table.fills_of("pt1-000001")] == [Decimal(4), Decimal(3)]


def test_a_status_that_nobody_has_heard_of_is_kept_and_not_terminal(ledger_table: Ledger) -> None:
    ledger_table.open_order(an_order(), fence=lease(ledger_table))
    order = record(ledger_table, an_order(), seen("0", status="levitating"), now=NOW)
    assert (order.status, order.terminal) == ("levitating", False)
    assert ledger_table.unsettled_orders() == [order]


@pytest.mark.parametrize("wrong", [{"symbol": "IBM"}, {"side": "sell"}])
def test_a_contradiction_is_never_recorded(ledger_table: Ledger, wrong: dict[str, Any]) -> None:
    ledger_table.open_order(an_order(), fence=lease(ledger_table))
    with pytest.raises(RecordingError):
        record(ledger_table, an_order(), seen("4", **wrong), now=NOW)
    assert ledger_table.order("pt1-000001") == an_order()


def test_more_filled_than_ordered_halts_trading_once_and_is_recorded_as_it_is(ledger_table: Ledger) -> None:
    ledger_table.open_order(an_order(), fence=lease(ledger_table))
    order = record(ledger_table, an_order(), seen("11", status="filled"), now=NOW)
    assert (order.status, order.filled_quantity) == ("filled", Decimal(11))
    state = ledger_table.trading_state()
    assert (state.state, state.by) == ("halted", "recording")
    assert "at most 10.123456789 may fill, 11 did" in state.reason
    assert [alert.rule for alert in ledger_table.alerts("2020-01")] == ["overfill:pt1-000001"]
    ledger_table.set_trading_state("active", reason="looked at it", time="2020-01-02T15:00:00Z", by="person")
    record(ledger_table, order, seen("11", status="filled"), now=NOW)
    assert ledger_table.trading_state().state == "active"


def test_orders_page_in_time_order_without_loss(ledger_table: Ledger) -> None:
    fence = lease(ledger_table)
    for number in range(25):
        ledger_table.open_order(an_order(number, created_at=f"2020-01-02T14:35:{number:02d}Z"), fence=fence)
    ledger_table.open_order(an_order(99, created_at="2020-02-03T14:35:00Z"), fence=fence)
    cursor, pages = None, []
    while True:
        page = ledger_table.page_of_orders("2020-01", limit=10, cursor=cursor)
        pages.append([order.client_order_id for order in page.orders])
        cursor = page.cursor
        if cursor is None:
            break
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [one for page in pages for one in page] == [f"pt1-{number:06d}" for number in range(25)]
    assert len(ledger_table.orders_of_day("2020-01-02")) == 25
    assert len(ledger_table.orders_by_id([f"pt1-{number:06d}" for number in range(150)])) == 26
    for wrong in ("nonsense", "e30="):
        with pytest.raises(CursorError):
            ledger_table.page_of_orders("2020-01", cursor=wrong)


def test_snapshots_are_taken_once_and_found_by_session(ledger_table: Ledger) -> None:
    cash = Decimal("0.12345678901234567890123456789012345678901234")
    for day in ("2020-01-02", "2020-01-03"):
        taken = Snapshot(session=day, cash=cash, equity=cash, taken_at=f"{day}T21:00:00Z")
        assert ledger_table.put_snapshot(taken)
        assert not ledger_table.put_snapshot(taken.model_copy(update={"cash": Decimal(0)}))
    latest, earlier = ledger_table.latest_snapshot(), ledger_table.latest_snapshot(before="2020-01-03")
    assert latest is not None
    assert earlier is not None
    assert (latest.session, earlier.session) == ("2020-01-03", "2020-01-02")
    assert abs(latest.cash - cash) < Decimal("1e-37")
    assert [one.session for one in ledger_table.snapshots("2020-01-03", "2020-12-31")] == ["2020-01-03"]


def test_models_shadow_decisions_and_alerts_are_found_again(ledger_table: Ledger) -> None:
    model = ServedModel(role="incumbent", policy="endpoint", spec="s3://m", endpoint="e", model_version="v1", kappa=0.1, since="2020-01-01")
    assert ledger_table.incumbent() is None
    ledger_table.put_model(model)
    ledger_table.put_model(model.model_copy(update={"role": "shadow", "model_version": "v2"}))
    shadow = ledger_table.shadow()
    assert shadow is not None
    assert (ledger_table.incumbent(), shadow.model_version) == (model, "v2")
    watched = ShadowDecision(
        slot="2020-01-02/open+5", model_version="v2", data_as_of="2019-12-31", weights={"SPY": 1.0}, time="2020-01-02T14:35:00Z"
    )
    assert ledger_table.put_shadow_decision(watched)
    assert not ledger_table.put_shadow_decision(watched)
    assert ledger_table.shadow_decisions("2020-01") == [watched]
    alert = AlertRecord(rule="drift:SPY", session="2020-01-02", subject="s", detail="d", time="2020-01-02T21:00:00Z")
    assert ledger_table.put_alert(alert)
    assert not ledger_table.put_alert(alert)
    assert ledger_table.alerts("2020-01") == [alert]


def test_a_breaker_that_trips_while_another_writes_is_not_lost(ledger_table: Ledger) -> None:
    def trip(now: Breakers) -> Breakers:
        return now.model_copy(update={"tripped": {**now.tripped, "max_drawdown": "51 %"}})

    def close(now: Breakers) -> Breakers:
        if not now.tripped:
            ledger_table.change_breakers(trip)  # the executor, between reading and writing
        return now.model_copy(update={"last_close_equity": Decimal(49_000)})

    ledger_table.change_breakers(close)
    stored = ledger_table.breakers()
    assert (stored.tripped, stored.last_close_equity, stored.version) == ({"max_drawdown": "51 %"}, Decimal(49_000), 2)
    ledger_table.rearm_breakers()
    assert ledger_table.breakers().tripped == {}


def test_every_change_of_the_trading_state_is_kept(ledger_table: Ledger) -> None:
    assert ledger_table.trading_state().state == "active"
    ledger_table.set_trading_state("halted", reason="one", time="2020-01-02T15:00:00Z", by="a")
    ledger_table.set_trading_state("active", reason="two", time="2020-01-02T16:00:00Z", by="b")
    assert ledger_table.trading_state().reason == "two"
    trail = [(change.was, change.state, change.reason, change.by) for change in ledger_table.state_changes("2020-01")]
    assert trail == [("active", "halted", "one", "a"), ("halted", "active", "two", "b")]
