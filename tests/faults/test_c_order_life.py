"""C. The life of an order at the broker."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.faults.simulation import FOREIGN, SLOT, Simulation, decision, recorded_market

SESSION_OVER = "2020-01-02T21:05:00+00:00"
NEXT_SLOT = SLOT + timedelta(days=1)
NEXT = {"session": "2020-01-03", "as_of": "2020-01-02"}


def all_ended(simulation: Simulation) -> None:
    simulation.end_orders()
    simulation.agrees()


def told(simulation: Simulation) -> None:
    """Each order of the ledger is what the broker's is: quantity, price, and the word, with the fills that add up to them."""
    for order in simulation.orders():
        theirs = simulation.book.by_client_id(order.client_order_id)
        assert theirs is not None
        assert (order.filled_quantity, order.status) == (theirs.filled_quantity, theirs.shown_status)
        fills = simulation.ledger.fills_of(order.client_order_id)
        assert sum((fill.quantity for fill in fills), Decimal(0)) == order.filled_quantity
        assert [fill.cumulative for fill in fills] == sorted(fill.cumulative for fill in fills)
        if order.filled_average_price is not None:
            paid = sum((fill.quantity * fill.price for fill in fills), Decimal(0))
            assert paid / order.filled_quantity == pytest.approx(order.filled_average_price, rel=Decimal("1e-20"))


def test_c1_a_partial_fill_and_then_the_rest(simulation: Simulation) -> None:
    """Every order fills in two or three parts a minute apart, each at a price that is 10 basis points worse."""
    simulation.misbehave(partial_fill={"rate": 1, "expires": 0, "drift_bps": 10})
    answer = simulation.accept()
    assert answer is not None
    assert (answer.status, answer.statuses) == (202, ["partially_filled"] * 3)
    all_ended(simulation)
    assert simulation.statuses() == ["filled"] * 3
    assert max(order.fills for order in simulation.orders()) >= 2
    told(simulation)


@pytest.mark.parametrize("ends_as", ["expired", "done_for_day", "canceled"])
def test_c2_a_partial_fill_whose_rest_never_comes(simulation: Simulation, ends_as: str) -> None:
    """Every order fills in part, and the rest ends at the close; the next session's decision starts from what is held."""
    simulation.misbehave(partial_fill={"rate": 1, "expires": 1, "ends_as": ends_as})
    simulation.accept()
    simulation.advance(SESSION_OVER)
    all_ended(simulation)
    assert simulation.statuses() == [ends_as] * 3
    told(simulation)
    assert simulation.alerts() == []
    simulation.calm()
    simulation.advance(NEXT_SLOT)
    again = simulation.accept(decision(**NEXT))
    assert again is not None
    assert (again.status, again.body["verdict"]) == (200, "accepted")
    simulation.agrees()


def test_c3_updates_out_of_order_and_repeated(simulation: Simulation) -> None:
    """Orders fill in parts, and every read of one shows an older state of it for two minutes after each change."""
    simulation.misbehave(partial_fill={"rate": 1, "expires": 0}, stale_order_view={"rate": 1, "seconds": 120})
    simulation.accept()
    for _ in range(6):
        simulation.advance(timedelta(seconds=40))
        before = {order.client_order_id: order.filled_quantity for order in simulation.orders()}
        simulation.reconcile()
        assert all(order.filled_quantity >= before.get(order.client_order_id, 0) for order in simulation.orders()), "fills never fall"
    all_ended(simulation)
    told(simulation)


def test_c4_more_filled_than_ordered(simulation: Simulation) -> None:
    """The first order fills a tenth more than was ordered."""
    simulation.misbehave(overfill={"rate": 1})
    answer = simulation.accept(decision(weights={"AAPL": 0.2, "IBM": 0.2, "SPY": 0.2}))
    assert answer is not None
    assert (answer.status, answer.body["verdict"]) == (200, "halted")
    assert simulation.ours_accepted == 1
    assert simulation.ledger.trading_state().state == "halted"
    assert [rule.partition(":")[0] for rule in simulation.alerts()] == ["overfill"]
    all_ended(simulation)


@pytest.mark.parametrize("word", ["under_review", "pending", "unknown"])
def test_c5_a_status_that_nobody_knows(simulation: Simulation, word: str) -> None:
    """Every order shows a word that the vendor does not list, or one of ours, for ten seconds."""
    simulation.misbehave(unknown_status={"rate": 1, "seconds": 10, "status": word})
    answer = simulation.accept()
    assert answer is not None
    assert answer.status == 202
    assert len(simulation.edges.posts) == 3, "buys are sent whatever the others' words are"
    all_ended(simulation)
    assert simulation.statuses() == ["filled"] * 3
    told(simulation)


def test_c6_an_order_that_a_person_replaced(simulation: Simulation) -> None:
    """A person replaces an open order by a smaller one, and that one by another: all three are orders of the ledger, each with its
    fills."""
    simulation.misbehave(partial_fill={"rate": 1, "expires": 1})
    simulation.order("k", "SPY", "buy", "60")
    (ours,) = simulation.book.open_orders
    first = replace(simulation, ours.id, quantity="50")
    simulation.reconcile()
    last = replace(simulation, first, quantity="40")
    simulation.advance(SESSION_OVER)
    simulation.end_orders()
    orders = {order.broker_id: order for order in simulation.orders()}
    assert set(orders) == {ours.id, first, last}
    assert [orders[one].status for one in (ours.id, first)] == ["replaced"] * 2
    assert {rule.partition(":")[0] for rule in simulation.alerts()} >= {"replaced"}
    assert simulation.recorded == simulation.held


def replace(simulation: Simulation, order_id: str, *, quantity: str) -> str:
    """The vendor's PATCH of an open order; the replacement's id."""
    answer = simulation.person.patch(f"http://127.0.0.1:9/v2/orders/{order_id}", json={"qty": quantity})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def test_c7_an_asset_that_is_not_fractionable(simulation: Simulation) -> None:
    """IBM is for whole shares only: the fraction is refused, and tried once more in whole shares."""
    simulation.misbehave(not_fractionable={"symbols": ["IBM"]})
    answer = simulation.accept()
    assert answer is not None
    assert answer.status == 200
    asked = [(order.attempt, order.status) for order in simulation.orders() if order.symbol == "IBM"]
    assert sorted(asked) == [(0, "rejected"), (1, "filled")]
    assert simulation.held["IBM"] == int(simulation.held["IBM"])
    all_ended(simulation)


def test_c7_what_is_sent_is_always_a_market_order_for_the_day(simulation: Simulation) -> None:
    """Buys, sells and a flatten, looked at on the wire: market, day, shares, and never a notional."""
    simulation.accept()
    simulation.advance(NEXT_SLOT)
    simulation.accept(decision(**NEXT, weights={"SPY": 0.6, "IBM": 0.0}))
    simulation.flatten()
    assert {post["side"] for post in simulation.edges.posts} == {"buy", "sell"}
    for post in simulation.edges.posts:
        assert set(post) == {"symbol", "qty", "side", "type", "time_in_force", "client_order_id"}
        assert (post["type"], post["time_in_force"]) == ("market", "day")
        assert len(post["client_order_id"]) <= 48
        assert Decimal(post["qty"]) == Decimal(post["qty"]).quantize(Decimal("1e-9"))
    all_ended(simulation)


def test_c7_dust_is_not_traded(simulation: Simulation) -> None:
    """Weights that are worth less than a dollar."""
    answer = simulation.accept(decision(weights={"AAPL": 0.5, "IBM": 0.000009}))
    assert answer is not None
    assert [order["symbol"] for order in answer.body["orders"]] == ["AAPL"]
    all_ended(simulation)


def test_c7_a_full_exit_leaves_nothing(simulation: Simulation) -> None:
    """Nine decimals of each name are sold by weight 0 and by a flatten: no residue of a billionth stays."""
    simulation.accept(decision(weights={"AAPL": 0.333333333, "IBM": 0.111111111}))
    assert all(quantity != int(quantity) for quantity in simulation.held.values())
    simulation.advance(NEXT_SLOT)
    simulation.accept(decision(**NEXT, weights={"AAPL": 0.0}))
    assert set(simulation.held) == {"IBM"}
    simulation.flatten()
    assert simulation.held == {}
    all_ended(simulation)


def test_c8_sells_pay_for_buys(simulation: Simulation) -> None:
    """All of the cash is in SPY and goes to IBM: the buy is sent when the sell has ended, and is never refused."""
    simulation.accept(decision(weights={"SPY": 0.6, "AAPL": 0.4}))
    simulation.advance(NEXT_SLOT)
    answer = simulation.accept(decision(**NEXT, weights={"SPY": 0.0, "AAPL": 0.4, "IBM": 0.6}))
    assert answer is not None
    assert (answer.status, answer.body["verdict"]) == (200, "accepted")
    sides = [post["side"] for post in simulation.edges.posts[2:]]
    assert sides == sorted(sides, reverse=True)
    assert simulation.book.refused == 0
    all_ended(simulation)


BUYING_POWER = {"code": 40310000, "message": "insufficient buying power"}


def test_c8_buying_power_refused_once(simulation: Simulation) -> None:
    """The first buy is refused for want of buying power; it is tried once more, under another id."""
    simulation.instead("POST /v2/orders", 403, BUYING_POWER, times=1)
    answer = simulation.accept()
    assert answer is not None
    assert sorted((order.attempt, order.status) for order in simulation.orders()) == [
        (0, "filled"),
        (0, "filled"),
        (0, "rejected"),
        (1, "filled"),
    ]
    assert len(simulation.held) == 3
    all_ended(simulation)


def test_c8_buying_power_refused_for_good(simulation: Simulation) -> None:
    """Every buy of IBM is refused for want of buying power: two attempts, then its reason is told."""
    simulation.misbehave(insufficient_buying_power={"rate": 1, "symbols": ["IBM"]})
    answer = simulation.accept()
    assert answer is not None
    assert (answer.status, answer.body["verdict"]) == (200, "partial")
    assert "insufficient buying power" in answer.body["refused"]["IBM"]
    assert sorted(order.attempt for order in simulation.orders() if order.symbol == "IBM") == [0, 1]
    all_ended(simulation)


def test_c8_wash_trade(simulation: Simulation) -> None:
    """A person's limit order of the other side appears after the plan was made: cancelled, waited for, tried once more."""
    simulation.accept(decision(weights={"AAPL": 0.5}))
    simulation.advance(NEXT_SLOT)
    simulation.misbehave(wash_trade={})
    limit = {"type": "limit", "limit_price": "1.00"}
    simulation.interrupt("POST /v2/orders", lambda: simulation.person_orders("AAPL", "buy", "1", **limit))
    answer = simulation.accept(decision(**NEXT, weights={"AAPL": 0.2}))
    assert answer is not None
    assert answer.status == 200
    assert simulation.book.open_orders == []
    second = [(order.attempt, order.status) for order in simulation.orders() if order.side == "sell"]
    assert sorted(second) == [(0, "rejected"), (1, "filled")]
    assert any(rule.startswith("cancelled") for rule in simulation.alerts()), "a person hears of it"
    all_ended(simulation)


def test_c8_wash_trade_that_nobody_sees(simulation: Simulation) -> None:
    """Every order is refused as a wash trade, though no order stands against it: two attempts, then its reason is told."""
    simulation.misbehave(wash_trade={"false_positive_rate": 1})
    answer = simulation.accept()
    assert answer is not None
    assert (answer.status, answer.body["verdict"]) == (200, "refused")
    assert len(simulation.edges.posts) == 6
    assert set(answer.body["refused"]) == {"AAPL", "IBM", "SPY"}
    assert simulation.ours_accepted == 0
    all_ended(simulation)


def test_c8_a_halted_asset(simulation: Simulation) -> None:
    """IBM may not be traded today: refused with its reason, the others are traded, nothing is tried again."""
    simulation.misbehave(halted_asset={"symbols": ["IBM"]})
    answer = simulation.accept()
    assert answer is not None
    assert (answer.status, answer.body["verdict"]) == (200, "partial")
    assert [(order.attempt, order.status) for order in simulation.orders() if order.symbol == "IBM"] == [(0, "rejected")]
    assert set(simulation.held) == {"AAPL", "SPY"}
    all_ended(simulation)


def test_c8_a_delisted_asset(opened: Any) -> None:
    """IBM does not trade any more from the second session on: its position is carried, with the reason, the others are traded."""
    simulation = opened(market=recorded_market(gone=(("IBM", "2020-01-03"),)))
    simulation.accept()
    held = simulation.held["IBM"]
    simulation.advance(NEXT_SLOT)
    answer = simulation.accept(decision(**NEXT, weights={"AAPL": 0.6, "IBM": 0.0, "SPY": 0.3}))
    assert answer is not None
    assert "IBM" in answer.body["refused"]
    assert simulation.held["IBM"] == held
    assert [order.status for order in simulation.orders() if order.symbol == "IBM" and order.side == "sell"] == ["rejected"]
    assert answer.body["verdict"] == "partial"
    all_ended(simulation)


def test_c8_short_sales(simulation: Simulation) -> None:
    """A person sells through the API what is not held; and what positions show for some seconds although it has just been sold."""
    nothing = simulation.order("a", "SPY", "sell", "1")
    assert nothing is not None
    assert nothing.body["orders"][0]["risk"] == "long_only"
    simulation.accept(decision(weights={"SPY": 0.3}))
    simulation.misbehave(view_skew={"rate": 1, "seconds": 30})
    held = str(simulation.held["SPY"])
    first, second = simulation.order("b", "SPY", "sell", held), simulation.order("c", "SPY", "sell", held)
    assert first is not None
    assert second is not None
    assert first.statuses == ["filled"]
    assert second.statuses in (["refused"], ["rejected"])
    assert simulation.held == {}
    all_ended(simulation)


def test_c8_pattern_day_trader(simulation: Simulation) -> None:
    """Every order is refused with the vendor's 40310100: each once, with its reason."""
    simulation.instead("POST /v2/orders", 403, {"code": 40310100, "message": "trade denied due to pattern day trading protection"})
    answer = simulation.accept()
    assert answer is not None
    assert (answer.status, answer.body["verdict"], answer.statuses) == (200, "refused", ["rejected"] * 3)
    assert len(simulation.edges.posts) == 3
    assert all("pattern day trading" in reason for reason in answer.body["refused"].values())
    all_ended(simulation)


def test_c9_filled_while_it_is_cancelled(simulation: Simulation) -> None:
    """An order that filled in part is cancelled; while the request is under way the rest fills."""
    simulation.misbehave(partial_fill={"rate": 1, "expires": 0, "seconds": 10})
    simulation.accept(decision(weights={"SPY": 0.5}))
    (order,) = simulation.orders()
    simulation.interrupt("DELETE /v2/orders", lambda: simulation.advance(timedelta(seconds=21)))
    answer = simulation.cancel(order.client_order_id)
    assert answer is not None
    assert (answer.status, answer.body["status"]) == (200, "filled")
    all_ended(simulation)
    told(simulation)


def test_c9_cancelled_in_time(simulation: Simulation) -> None:
    """An order that filled in part is cancelled, and the answer to the cancellation is lost."""
    simulation.misbehave(partial_fill={"rate": 1, "expires": 0})
    simulation.accept(decision(weights={"SPY": 0.5}))
    (order,) = simulation.orders()
    simulation.retell("DELETE /v2/orders", lambda _: {})
    answer = simulation.cancel(order.client_order_id)
    assert answer is not None
    assert (answer.status, answer.body["status"]) == (200, "canceled")
    simulation.advance(timedelta(minutes=10))
    all_ended(simulation)
    told(simulation)


def test_c10_orders_that_yesterday_left_in_the_ledger(simulation: Simulation) -> None:
    """Orders fill in part, and every function is dead until the next slot: the new decision starts from the broker, yesterday is
    recorded."""
    simulation.misbehave(partial_fill={"rate": 1, "expires": 1})
    simulation.kill("POST /v2/orders", nth=2, after=True)
    simulation.accept()
    simulation.calm()
    simulation.advance(NEXT_SLOT)
    answer = simulation.accept(decision(**NEXT))
    assert answer is not None
    assert (answer.status, answer.body["verdict"]) == (200, "accepted")
    all_ended(simulation)
    assert simulation.statuses() == ["expired"] * 2 + ["filled"] * 3
    told(simulation)


def test_c10_a_person_s_open_order_at_the_start(simulation: Simulation) -> None:
    """A person's limit order in AAPL waits at the broker when the slot comes: AAPL is left alone and says why."""
    simulation.person_orders("AAPL", "buy", "1", type="limit", limit_price="1.00")
    answer = simulation.accept()
    assert answer is not None
    assert answer.body["refused"] == {"AAPL": "AAPL has an open order"}
    assert set(simulation.held) == {"IBM", "SPY"}
    assert len(simulation.book.open_orders) == 1
    all_ended(simulation)


def test_c11_a_manual_trade(simulation: Simulation) -> None:
    """A person buys IBM, which the agent trades, and BAC, which it does not: flagged at the close, carried, never sold back."""
    simulation.accept(decision(weights={"SPY": 0.5}))
    for symbol, quantity in (("IBM", "3"), (FOREIGN, "10")):
        simulation.person_orders(symbol, "buy", quantity)
    simulation.advance(SESSION_OVER)
    all_ended(simulation)
    assert {rule.rpartition(":")[2] for rule in simulation.alerts()} == {FOREIGN, "IBM"}
    told = len(simulation.alerts())
    simulation.advance(NEXT_SLOT)
    answer = simulation.accept(decision(**NEXT, weights={"SPY": 0.4}))
    assert answer is not None
    assert {post["symbol"] for post in simulation.edges.posts} == {"SPY"}
    assert (simulation.held["IBM"], simulation.held[FOREIGN]) == (3, 10)
    simulation.advance("2020-01-03T21:05:00+00:00")
    all_ended(simulation)
    assert len(simulation.alerts()) == told, "what was adopted is not told again"
