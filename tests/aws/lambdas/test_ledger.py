"""The ledger's promises, on a table with the deployed keys and indexes."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import boto3
import pytest

from lambdas.common.broker.port import Order
from lambdas.common.ledger.ledger import AlreadyThere, CursorError, Fenced, Ledger, Stale
from lambdas.common.ledger.records import (
    AlertRecord,
    Breakers,
    Decision,
    Fill,
    OrderRecord,
    PlannedOrder,
    ServedModel,
    ShadowDecision,
    Snapshot,
)
from lambdas.common.orders.broker_updates import RecordingError, note, record
from schema.exchange_time import parse_utc
from trading_env.orders.order_state import Event, OrderStatus

NOW = parse_utc("2020-01-02T14:35:00Z")


def an_order(number: int = 1, **more: Any) -> OrderRecord:
    body = {"client_order_id": f"pt1-{number:06d}", "decision_id": "agent:2020-01-02/open+5", "slot": "2020-01-02/open+5", "symbol": "SPY"}
    sized = {"side": "buy", "quantity": Decimal("10.123456789"), "price": 324.87, "created_at": "2020-01-02T14:35:00Z"}
    return OrderRecord(**{**body, **sized, **more})


def seen(filled: str, *, status: str = "partially_filled", price: str = "100", **more: Any) -> Order:
    fixed = {"id": "broker-1", "client_order_id": "pt1-000001", "symbol": "SPY", "side": "buy", "quantity": Decimal("10.123456789")}
    fills = {"filled_quantity": Decimal(filled), "filled_average_price": Decimal(price) if Decimal(filled) else None}
    return Order(**{**fixed, **fills, "status": OrderStatus(status), "submitted_at": "2020-01-02T14:35:00Z", "filled_at": None, **more})


def lease(ledger: Ledger) -> int:
    fence = ledger.acquire_lease("me", now=1000.0, seconds=60)
    assert fence is not None
    return fence


def test_a_decision_survives_the_round_trip_bit_for_bit(ledger_table: Ledger) -> None:
    planned = PlannedOrder(symbol="SPY", side="buy", quantity=Decimal("38.254817492"), price=0.1 + 0.2, client_order_id="pt1-x")
    weights = {"SPY": 1 / 3, "IBM": math.nextafter(0.1, 1)}
    decision = Decision(
        decision_id="agent:2020-01-02/open+5",
        strategy="agent",
        slot="2020-01-02/open+5",
        body_sha256="0" * 64,
        received_at="2020-01-02T14:35:00Z",
        weights=weights,
        plan=(planned,),
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


@pytest.mark.parametrize("word", ["accepted", "held", "levitating"])
def test_a_broker_s_word_in_an_older_item_is_of_an_order_that_works(ledger_table: Ledger, word: str) -> None:
    ledger_table.open_order(an_order(), fence=lease(ledger_table))
    order = record(ledger_table, an_order(), seen("0", status="new"), now=NOW)
    ledger_table._table.put_item(Item={**order.item(), "status": word})
    assert (order.status, order.terminal) == ("new", False)
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


def test_going_on_re_arms_the_breakers_and_the_trail_says_which(ledger_table: Ledger) -> None:
    pinned = {"account_id": "a", "peak_equity": Decimal(100), "last_close_equity": Decimal(90), "last_close_session": "2020-01-02"}
    ledger_table.change_breakers(lambda now: now.model_copy(update={**pinned, "tripped": {"max_drawdown": "51 %"}}))
    ledger_table.set_trading_state("reduce_only", reason="look first", time="2020-01-02T15:00:00Z", by="person")
    assert ledger_table.breakers().tripped == {"max_drawdown": "51 %"}
    ledger_table.set_trading_state("active", reason="looked at it", time="2020-01-02T16:00:00Z", by="person")
    now = ledger_table.breakers()
    assert (now.tripped, now.account_id, now.peak_equity, now.last_close_equity) == ({}, "a", 0, 0)
    assert now.last_close_session == "2020-01-02"
    ledger_table.set_trading_state("active", reason="again", time="2020-01-02T17:00:00Z", by="person")
    trail = [(change.state, change.rearmed) for change in ledger_table.state_changes("2020-01")]
    assert trail == [("reduce_only", {}), ("active", {"max_drawdown": "51 %"}), ("active", {})]


def test_a_breaker_that_trips_while_a_person_goes_on_is_in_the_trail_or_in_force(
    ledger_table: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trips between our reading and our writing: what nobody has seen is not cleared unsaid."""
    real = Ledger.breakers

    def overtaken(self: Ledger) -> Breakers:
        read = real(self)
        monkeypatch.setattr(Ledger, "breakers", real)
        self.change_breakers(lambda now: now.model_copy(update={"tripped": {"max_daily_loss": "26 %", "max_drawdown": "51 %"}}))
        return read

    ledger_table.change_breakers(lambda now: now.model_copy(update={"tripped": {"max_drawdown": "51 %"}}))
    monkeypatch.setattr(Ledger, "breakers", overtaken)
    ledger_table.set_trading_state("active", reason="looked at it", time="2020-01-02T16:00:00Z", by="person")
    (change,) = ledger_table.state_changes("2020-01")
    assert change.rearmed.keys() | ledger_table.breakers().tripped.keys() == {"max_daily_loss", "max_drawdown"}


def test_going_on_with_another_account_forgets_the_old_one_s_heights(ledger_table: Ledger) -> None:
    pinned = {"account_id": "a", "peak_equity": Decimal(100), "last_close_equity": Decimal(90), "last_close_session": "2020-01-02"}
    ledger_table.change_breakers(lambda now: now.model_copy(update=pinned))
    ledger_table.set_trading_state("active", reason="reset", time="2020-01-02T16:00:00Z", by="person", account="b")
    assert ledger_table.breakers() == Breakers(account_id="b", version=2)
    assert [change.account for change in ledger_table.state_changes("2020-01")] == ["b"]


def test_every_change_of_the_trading_state_is_kept_even_two_of_one_second(ledger_table: Ledger) -> None:
    assert ledger_table.trading_state().state == "active"
    ledger_table.set_trading_state("halted", reason="one", time="2020-01-02T15:00:00Z", by="a")
    ledger_table.set_trading_state("active", reason="two", time="2020-01-02T15:00:00Z", by="b")
    ledger_table.set_trading_state("halted", reason="three", time="2020-01-02T15:00:00Z", by="c", automatic=True)
    assert ledger_table.trading_state().reason == "three"
    trail = [(change.was, change.state, change.reason, change.by, change.automatic) for change in ledger_table.state_changes("2020-01")]
    assert trail == [
        ("active", "halted", "one", "a", False),
        ("halted", "active", "two", "b", False),
        ("active", "halted", "three", "c", True),
    ]


@pytest.mark.parametrize(
    ("was", "wanted", "then"),
    [
        ("active", "reduce_only", "reduce_only"),
        ("active", "halted", "halted"),
        ("reduce_only", "halted", "halted"),
        ("reduce_only", "active", "reduce_only"),
        ("halted", "reduce_only", "halted"),
        ("halted", "active", "halted"),
    ],
)
def test_an_automatic_change_only_tightens_what_a_person_has_set(ledger_table: Ledger, was: Any, wanted: Any, then: str) -> None:
    ledger_table.set_trading_state(was, reason="a person", time="2020-01-02T15:00:00Z", by="person")
    holds = ledger_table.set_trading_state(wanted, reason="a rule", time="2020-01-02T15:01:00Z", by="rule", automatic=True)
    assert holds == ledger_table.trading_state()
    assert (holds.state, holds.reason) == (then, "a rule" if then == wanted else "a person")
    assert len(ledger_table.state_changes("2020-01")) == (2 if then == wanted else 1)


@pytest.mark.parametrize("automatic", [True, False])
def test_of_two_who_set_the_trading_state_at_once_neither_is_lost(
    ledger_table: Ledger, automatic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one writes between our reading and our writing."""
    real = Ledger.trading_state

    def overtaken(self: Ledger) -> Any:
        read = real(self)
        monkeypatch.setattr(Ledger, "trading_state", real)
        self.set_trading_state("halted", reason="a person", time="2020-01-02T15:00:00Z", by="person")
        return read

    monkeypatch.setattr(Ledger, "trading_state", overtaken)
    holds = ledger_table.set_trading_state("reduce_only", reason="ours", time="2020-01-02T15:00:01Z", by="us", automatic=automatic)
    assert (holds.state, holds.reason) == (("halted", "a person") if automatic else ("reduce_only", "ours"))
    changes = [(change.was, change.state) for change in ledger_table.state_changes("2020-01")]
    assert changes == [("active", "halted")] + ([] if automatic else [("halted", "reduce_only")])


def test_who_has_seen_another_state_does_not_change_this_one(ledger_table: Ledger) -> None:
    seen = ledger_table.trading_state().version
    halted = ledger_table.set_trading_state("halted", reason="overfill", time="2020-01-02T15:00:00Z", by="recording", automatic=True)
    with pytest.raises(Stale, match="halted by recording"):
        ledger_table.set_trading_state("active", reason="go on", time="2020-01-02T15:00:01Z", by="person", expected=seen)
    assert ledger_table.trading_state() == halted
    ledger_table.set_trading_state("active", reason="go on", time="2020-01-02T15:00:02Z", by="person", expected=halted.version)
    assert ledger_table.trading_state().state == "active"


def test_the_switches_are_one_read_of_what_each_says(ledger_table: Ledger) -> None:
    assert ledger_table.switches() == (ledger_table.trading_state(), ledger_table.breakers())
    ledger_table.set_trading_state("reduce_only", reason="one", time="2020-01-02T15:00:00Z", by="a")
    ledger_table.change_breakers(lambda now: now.model_copy(update={"tripped": {"max_drawdown": "51 %"}}))
    assert ledger_table.switches() == (ledger_table.trading_state(), ledger_table.breakers())
    assert ledger_table.switches()[1].tripped == {"max_drawdown": "51 %"}


def test_the_day_s_orders_are_all_there_while_an_index_lags(ledger_table: Ledger) -> None:
    """An index that lags for ever is one that is not there."""
    fence = lease(ledger_table)
    boto3.client("dynamodb").update_table(
        TableName="papertape-ledger", GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": name}} for name in ("by_month", "unsettled")]
    )
    for number in range(3):
        ledger_table.open_order(an_order(number), fence=fence)
    ledger_table.open_order(an_order(9, created_at="2020-01-03T14:35:00Z"), fence=fence)
    ledger_table.put_external_order(an_order(4, replaces="pt1-000001", created_at="2020-01-02T14:34:00Z"))
    assert [order.client_order_id for order in ledger_table.orders_of_day("2020-01-02")] == [
        "pt1-000004",
        "pt1-000000",
        "pt1-000001",
        "pt1-000002",
    ]
    assert not ledger_table.put_external_order(an_order(1, quantity=Decimal(5)))
    assert ledger_table.order("pt1-000001") == an_order(1)


def test_what_fills_after_a_last_word_is_recorded(ledger_table: Ledger) -> None:
    ledger_table.open_order(an_order(), fence=lease(ledger_table))
    order = record(ledger_table, an_order(), seen("4", status="canceled"), now=NOW)
    order = record(ledger_table, order, seen("6", status="canceled"), now=NOW)
    order = record(ledger_table, order, seen("6", status="new"), now=NOW)
    assert (order.status, order.filled_quantity) == ("canceled", Decimal(6))
    assert [fill.cumulative for fill in ledger_table.fills_of("pt1-000001")] == [Decimal(4), Decimal(6)]


def test_an_end_of_ours_gives_way_to_what_the_broker_shows_and_is_asked_for_again(ledger_table: Ledger) -> None:
    ledger_table.open_order(an_order(status="expired"), fence=lease(ledger_table))
    assert ledger_table.unsettled_orders() == []
    order = record(ledger_table, an_order(status="expired"), seen("4"), now=NOW)
    assert (order.status, order.filled_quantity) == ("partially_filled", Decimal(4))
    assert ledger_table.unsettled_orders() == [order]


def test_a_fill_without_a_price_waits_for_its_price(ledger_table: Ledger) -> None:
    ledger_table.open_order(an_order(), fence=lease(ledger_table))
    told = seen("10.123456789", status="filled", filled_average_price=None)
    assert record(ledger_table, an_order(), told, now=NOW) == an_order()
    assert record(ledger_table, an_order(), seen("10.123456789", status="filled"), now=NOW).status == "filled"


def test_a_contradiction_halts_once_a_session_and_lets_a_person_go_on(ledger_table: Ledger) -> None:
    ledger_table.open_order(an_order(), fence=lease(ledger_table))
    for _ in range(2):
        with pytest.raises(RecordingError, match="buy SPY pt1-000001 is buy IBM pt1-000001 at the broker"):
            record(ledger_table, an_order(), seen("4", symbol="IBM"), now=NOW)
        assert [alert.rule for alert in ledger_table.alerts("2020-01")] == ["contradiction:pt1-000001"]
    state = ledger_table.trading_state()
    assert (state.state, state.automatic, state.version) == ("halted", True, 1)
    ledger_table.set_trading_state("active", reason="looked at it", time="2020-01-02T15:00:00Z", by="person")
    with pytest.raises(RecordingError):
        record(ledger_table, an_order(), seen("4", symbol="IBM"), now=NOW)
    assert ledger_table.trading_state().state == "active"


def test_an_event_of_ours_is_stored_by_the_machine_whoever_was_first(ledger_table: Ledger) -> None:
    fence = lease(ledger_table)
    ledger_table.open_order(an_order(), fence=fence)
    doubted = note(ledger_table, an_order(), Event.DOUBT, now=NOW, reason="504", unknown_since="2020-01-02T14:35:00Z")
    assert (doubted.status, doubted.reason) == ("unknown", "504")
    late = note(ledger_table, an_order(), Event.TURNED_DOWN, now=NOW, reason="no")  # of a run that had read PENDING
    assert (late.status, late.version) == ("unknown", 2)
    with pytest.raises(Fenced):
        note(ledger_table, late, Event.SENT, now=NOW, fence=fence + 1, sent_at="2020-01-02T14:36:00Z")
    shown = record(ledger_table, late, seen("0", status="new"), now=NOW)
    assert note(ledger_table, late, Event.WINDOW_ENDED, now=NOW, reason="too late") == shown
