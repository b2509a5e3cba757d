"""Orders on the exchange: how long they are good, what takes another's place, and how a position is closed."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from local.exchange.faults.plan import FaultPlan
from local.exchange.journal import Journal
from local.exchange.orders import Changes, OrderType, Refused, Side, Status, Ticket, TimeInForce
from local.exchange.rules.time_in_force import AT_ONCE
from tests.exchanges import EVE, SLOT, URL, ExchangeClient, refusal


@pytest.fixture
def client() -> ExchangeClient:
    """On 2020-01-02 at 09:35 in New York; IBM has opened at 50.06 and opens a cent higher each day, AAPL at 100.06."""
    return ExchangeClient()


def said(order: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(order[name] for name in names)


# Time in force


def test_gtc_waits_for_its_price_over_days(client: ExchangeClient) -> None:
    client.send("IBM", qty="1")
    order = client.limit(50.10, "IBM", side="sell", qty="1", tif="gtc")
    assert said(order, "status", "time_in_force", "expires_at") == ("new", "gtc", "2020-03-31T20:00:00Z")
    client.advance("2020-01-08T14:29:59Z")
    assert client.order(order["id"])["status"] == "new"
    client.advance("2020-01-08T14:30:00Z")
    filled = client.order(order["id"])
    assert said(filled, "status", "filled_at", "filled_avg_price") == ("filled", "2020-01-08T14:30:00Z", "50.1")


def test_gtc_ends_with_the_last_close_within_ninety_days(client: ExchangeClient) -> None:
    order = client.limit(1, "IBM", tif="gtc")
    client.advance("2020-03-31T19:59:59Z")
    assert client.order(order["id"])["status"] == "new"
    client.advance("2020-03-31T20:00:00Z")
    assert said(client.order(order["id"]), "status", "expired_at") == ("expired", "2020-03-31T20:00:00Z")


def test_a_limit_outlives_a_split_in_new_shares(client: ExchangeClient) -> None:
    client.send(qty="4")
    buy, sale = client.limit(90.01, "AAPL", tif="gtc", qty="3"), client.limit(140.01, side="sell", tif="gtc", qty="3")
    client.advance("2020-02-03T05:00:00Z")
    assert said(client.order(buy["id"]), "status", "qty", "limit_price", "updated_at") == ("new", "6", "45", "2020-02-03T05:00:00Z")
    assert said(client.order(sale["id"]), "status", "qty", "limit_price") == ("new", "6", "70.01")
    assert client.venue.book.buying_power == client.venue.book.cash - 6 * 45
    assert client.get("/v2/positions/AAPL").json()["qty_available"] == "2"


def test_what_does_not_outlive_a_split_is_canceled(client: ExchangeClient) -> None:
    client.send(qty="1")
    stop = client.send(side="sell", kind="stop", stop_price="50", tif="gtc", qty="1").json()
    client.advance("2020-02-03T05:00:00Z")
    assert said(client.order(stop["id"]), "status", "canceled_at") == ("canceled", "2020-02-03T05:00:00Z")


@pytest.mark.parametrize(
    ("word", "now", "good"),
    [
        ("opg", "2020-01-03T14:27:59Z", True),
        ("opg", "2020-01-03T14:28:00Z", False),
        ("opg", "2020-01-03T23:59:59Z", False),
        ("opg", "2020-01-04T00:00:00Z", True),
        ("opg", "2020-01-04T17:00:00Z", True),  # a Saturday
        ("cls", "2020-01-03T15:00:00Z", True),
        ("cls", "2020-01-03T20:49:59Z", True),
        ("cls", "2020-01-03T20:50:00Z", False),
        ("cls", "2020-01-03T23:59:59Z", False),
        ("cls", "2020-01-04T00:00:00Z", True),
        ("cls", "2019-12-24T17:49:59Z", True),  # a half day
        ("cls", "2019-12-24T17:50:00Z", False),
        ("ioc", "2020-01-03T14:30:00Z", True),
        ("ioc", "2020-01-03T14:29:59Z", False),
        ("fok", "2020-01-03T20:59:59Z", True),
        ("fok", "2020-01-03T21:00:00Z", False),
    ],
)
def test_auction_and_immediate_orders_have_their_hours(word: str, now: str, good: bool) -> None:
    refused = 422 if word in ("ioc", "fok") else 403
    assert ExchangeClient(now=datetime.fromisoformat(now)).send("IBM", tif=word).status_code == (200 if good else refused)


def test_refused_hours_are_said_in_the_vendors_words(client: ExchangeClient) -> None:
    assert refusal(client.send(tif="opg")) == (403, 40310000, "opg orders must be submitted after 7:00pm and before 9:28am")
    client.advance("2020-01-02T20:55:00Z")
    assert refusal(client.send(tif="cls")) == (403, 40310000, "cls orders must be submitted after 7:00pm and before 3:50pm")
    client.advance("2020-01-02T21:00:00Z")
    assert refusal(client.send(tif="ioc"))[:2] == (422, 42210000)
    assert refusal(ExchangeClient(now=datetime.fromisoformat("2019-12-24T17:55:00Z")).send(tif="cls"))[2].endswith("before 12:50pm")


def test_opg_meets_the_open_and_nothing_else() -> None:
    client = ExchangeClient(now=datetime.fromisoformat("2020-01-02T12:00:00Z"))
    market, met, missed = client.send("IBM", tif="opg").json(), client.limit(50.06, "IBM", tif="opg"), client.limit(50.05, "IBM", tif="opg")
    assert market["expires_at"] == "2020-01-02T14:30:00Z"
    client.advance(SLOT)
    for order in (market, met):
        assert said(client.order(order["id"]), "status", "filled_at", "filled_avg_price") == ("filled", "2020-01-02T14:30:00Z", "50.06")
    assert said(client.order(missed["id"]), "status", "canceled_at") == ("canceled", "2020-01-02T14:30:00Z")


def test_cls_meets_the_close_and_nothing_else(client: ExchangeClient) -> None:
    market, met, missed = client.send("IBM", tif="cls").json(), client.limit(51.06, "IBM", tif="cls"), client.limit(51.05, "IBM", tif="cls")
    client.advance("2020-01-02T20:59:59Z")
    assert [client.order(order["id"])["status"] for order in (market, met, missed)] == ["new"] * 3
    client.advance("2020-01-02T21:00:00Z")
    for order in (market, met):
        assert said(client.order(order["id"]), "status", "filled_at", "filled_avg_price") == ("filled", "2020-01-02T21:00:00Z", "51.06")
    assert said(client.order(missed["id"]), "status", "canceled_at") == ("canceled", "2020-01-02T21:00:00Z")
    assert client.get("/v2/account").json()["equity"] == "100000"  # bought at the close's own price


@pytest.mark.parametrize("word", ["ioc", "fok"])
def test_an_immediate_order_fills_or_is_gone(client: ExchangeClient, word: str) -> None:
    assert said(client.send(tif=word).json(), "status", "filled_qty") == ("filled", "2")
    assert said(client.limit(99, tif=word), "status", "filled_qty", "canceled_at") == ("canceled", "0", "2020-01-02T14:35:00Z")
    assert client.venue.book.open_orders == []


@pytest.mark.parametrize(("word", "filled"), [("ioc", True), ("fok", False)])
def test_only_ioc_takes_a_part(client: ExchangeClient, word: str, filled: bool) -> None:
    client.venue.use_faults(FaultPlan.from_document({"faults": {"partial_fill": {"rate": 1}, "unknown_status": {"rate": 1}}}))
    order = client.send(tif=word, qty="10").json()
    assert order["status"] == "canceled"
    assert (0 < Decimal(order["filled_qty"]) < 10) == filled
    assert client.held() == Decimal(order["filled_qty"])


@pytest.mark.parametrize("size", [{"qty": "1.5"}, {"notional": "500"}])
@pytest.mark.parametrize("word", ["gtc", "opg", "cls", "ioc", "fok"])
def test_parts_of_a_share_are_for_the_day(client: ExchangeClient, size: dict[str, str], word: str) -> None:
    assert refusal(client.send(tif=word, **size)) == (422, 42210000, "fractional orders must be DAY orders")


def test_an_asset_is_named_by_its_id_as_well(client: ExchangeClient) -> None:
    asset = client.get("/v2/assets/IBM").json()
    assert client.send(asset["id"]).json()["symbol"] == "IBM"


# Replacement


def patch(client: ExchangeClient, order: dict[str, Any], **changes: Any) -> requests.Response:
    return client.http.patch(f"{URL}/v2/orders/{order['id']}", json=changes)


def test_a_chain_of_replacements(client: ExchangeClient) -> None:
    first = client.limit(90, client_order_id="mine")
    second = patch(client, first, limit_price="91", client_order_id="mine-2").json()
    client.advance("2020-01-02T14:36:00Z")
    third = patch(client, second, qty=5, limit_price=101, time_in_force="gtc").json()
    assert said(third, "status", "qty", "filled_avg_price", "time_in_force") == ("filled", "5", "100.06", "gtc")
    assert said(client.order(first["id"]), "status", "replaces", "replaced_by", "replaced_at") == (
        "replaced",
        None,
        second["id"],
        "2020-01-02T14:35:00Z",
    )
    assert said(client.order(second["id"]), "status", "replaces", "replaced_by", "client_order_id", "limit_price") == (
        "replaced",
        first["id"],
        third["id"],
        "mine-2",
        "91",
    )
    assert said(third, "replaces", "replaced_by", "replaced_at") == (second["id"], None, None)
    assert client.get("/v2/orders", status="open").json() == []
    assert len({order["client_order_id"] for order in client.get("/v2/orders", status="all").json()}) == 3
    assert client.held() == 5


def test_what_is_not_replaced_stays_as_it_was(client: ExchangeClient) -> None:
    resting, market, filled = client.limit(90, client_order_id="mine"), client.send(tif="cls").json(), client.send().json()
    gone = client.limit(80)
    replacement = patch(client, gone, limit_price=81).json()
    books = client.get("/admin/books").json()
    for order, changes, expected in [
        (resting, {}, (422, 42210000, "order parameters are not changed")),
        (resting, {"limit_price": "90", "client_order_id": "other"}, (422, 42210000, "order parameters are not changed")),
        (resting, {"stop_price": "5"}, (422, 40010001, "limit orders have no stop_price, was 5")),
        (resting, {"qty": "0"}, (422, 40010001, "qty must be above 0 and below 1e15, was 0")),
        (resting, {"qty": "1.5"}, (422, 42210000, "qty of a replaced order must be whole, and that of a fractional one stays, was 1.5")),
        (resting, {"qty": "3", "client_order_id": "mine"}, (422, 40010001, "client_order_id must be unique")),
        (resting, {"qty": "100000"}, (403, 40310000, "insufficient buying power")),
        (resting, {"time_in_force": "opg"}, (403, 40310000, "opg orders must be submitted after 7:00pm and before 9:28am")),
        (market, {"limit_price": "100"}, (422, 40010001, "market orders require no stop or limit price")),
        (filled, {"qty": "3"}, (422, 42210000, "cannot replace order in filled status")),
        (gone, {"qty": "3"}, (422, 42210000, "order already replaced")),
        ({"id": "no-such-order"}, {"qty": "3"}, (404, 40410000, "order not found for no-such-order")),
    ]:
        assert refusal(patch(client, order, **changes)) == expected
    after = client.get("/admin/books").json()
    assert {**after, "counts": None} == {**books, "counts": None}
    assert replacement["replaces"] == gone["id"]


def test_an_order_that_has_not_met_the_market_is_not_replaced() -> None:
    client = ExchangeClient(now=EVE)
    order, notional = client.limit(90), client.send("IBM", notional="100").json()
    assert refusal(patch(client, order, qty=3)) == (422, 42210000, "cannot replace order in accepted status")
    client.venue.use_faults(FaultPlan.from_document({"faults": {"partial_fill": {"rate": 1}}}))
    client.advance(SLOT)
    assert patch(client, order, qty=3).status_code == 200
    assert client.order(notional["id"])["status"] == "partially_filled"
    assert refusal(patch(client, notional, time_in_force="gtc"))[2].startswith("notional orders cannot be replaced")


def test_the_cash_of_the_replaced_order_is_free_for_its_successor() -> None:
    client = ExchangeClient(cash="200")
    order = client.limit(99)
    assert patch(client, order, limit_price=100).status_code == 200
    assert client.venue.book.buying_power == 0


def test_the_shares_of_the_replaced_sale_are_free_for_its_successor(client: ExchangeClient) -> None:
    client.send()
    order = client.limit(200, side="sell")
    assert refusal(client.send(side="sell", qty="1"))[0] == 403
    assert patch(client, order, limit_price=100).json()["status"] == "filled"
    assert client.held() == 0


def test_what_was_filled_before_is_not_filled_again(client: ExchangeClient) -> None:
    """`qty` is the whole: the replacement is for what is left of it, and the fills of both are the position."""
    client.venue.use_faults(FaultPlan.from_document({"faults": {"partial_fill": {"rate": 1, "expires": 1}}}))
    order = client.send(qty="100").json()
    filled = Decimal(order["filled_qty"])
    assert 0 < filled < 100
    assert refusal(patch(client, order, qty=int(filled)))[2] == "qty must be > filled_qty"
    client.venue.use_faults(FaultPlan())
    replacement = patch(client, order, qty=60 + int(filled)).json()
    assert said(replacement, "status", "qty", "filled_qty") == ("filled", "60", "60")
    assert said(client.order(order["id"]), "status", "qty", "filled_qty") == ("replaced", "100", order["filled_qty"])
    assert client.held() == filled + 60


def test_a_journal_replays_replacements_and_hours(tmp_path: Path) -> None:
    def begin() -> tuple[ExchangeClient, Journal]:
        client, journal = ExchangeClient(), Journal(tmp_path / "journal.jsonl")
        journal.attach(client.venue, terms={})
        return client, journal

    client, journal = begin()
    patch(client, client.limit(90, "SPY", tif="gtc"), limit_price=91)
    client.send("IBM", tif="cls")
    client.send(tif="ioc")
    client.http.delete(f"{URL}/v2/positions/AAPL", params={"percentage": "50"})
    client.advance("2020-01-03T15:00:00Z")
    orders = client.get("/v2/orders", status="all").json()
    assert [order["status"] for order in orders] == ["filled", "filled", "filled", "new", "replaced"]
    journal.close()
    again, journal = begin()
    journal.close()
    assert again.get("/v2/orders", status="all").json() == orders
    assert again.get("/v2/account/activities").content == client.get("/v2/account/activities").content


# Closing


def close(client: ExchangeClient, path: str = "/AAPL", **query: str) -> requests.Response:
    return client.http.delete(f"{URL}/v2/positions{path}", params=query)


def test_a_position_is_closed_whole_or_in_part(client: ExchangeClient) -> None:
    client.send(qty="10")
    assert said(close(client, qty="3").json(), "side", "type", "qty", "status") == ("sell", "market", "3", "filled")
    assert close(client, percentage="50").json()["qty"] == "3"  # of 7, whole shares only
    asset_id = client.get("/v2/assets/AAPL").json()["id"]
    assert close(client, f"/{asset_id}").json()["qty"] == "4"
    assert refusal(close(client)) == (404, 40410000, "position does not exist")
    client.send(qty="2.5")
    assert close(client, percentage="33.333333333").json()["qty"] == "0.833333333"
    assert close(client, percentage="100").json()["qty"] == "1.666666667"
    assert client.venue.book.positions == {}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"qty": "1", "percentage": "5"}, (422, 40010001, "only one of qty or percentage is accepted")),
        ({"qty": "nan"}, (422, 40010001, "qty must be a number, was 'nan'")),
        ({"percentage": "100.1"}, (422, 40010001, "percentage must be above 0 and at most 100, was 100.1")),
        ({"percentage": "1"}, (422, 40010001, "percentage must be worth at least 1 of 2 shares, was 1")),
        ({"qty": "3"}, (403, 40310000, "insufficient qty available for order (requested: 3, available: 2)")),
    ],
)
def test_a_wrong_part_closes_nothing(client: ExchangeClient, query: dict[str, str], expected: tuple[int, int, str]) -> None:
    client.send()
    assert refusal(close(client, **query)) == expected
    assert client.held() == 2


def test_all_positions_are_closed_but_what_is_promised(client: ExchangeClient) -> None:
    client.send(qty="2")
    client.send("IBM", qty="1.5")
    waiting = client.limit(200, side="sell", qty="1")
    blocked, closed = close(client, "").json()
    assert said(blocked, "symbol", "status") == ("AAPL", 403)
    assert said(blocked["body"], "code", "available", "held_for_orders", "qty") == (40310000, "1", "1", "2")
    assert said(closed, "symbol", "status") == ("IBM", 200)
    assert closed["body"]["status"] == "filled"
    (last,) = close(client, "", cancel_orders="true").json()
    assert said(last, "symbol", "status") == ("AAPL", 200)
    assert client.order(waiting["id"])["status"] == "canceled"
    assert client.venue.book.positions == {}
    assert refusal(close(client, "", cancel_orders="perhaps"))[0] == 422


def test_a_position_closed_at_night_is_sold_at_the_open(client: ExchangeClient) -> None:
    client.send()
    client.advance("2020-01-02T22:00:00Z")
    order = close(client).json()
    assert order["status"] == "accepted"
    client.advance("2020-01-03T14:30:00Z")
    assert said(client.order(order["id"]), "status", "filled_avg_price") == ("filled", "100.07")


# The list


def test_the_list_is_filtered(client: ExchangeClient) -> None:
    first, second = client.limit(90)["id"], client.limit(10, "IBM", tif="gtc")["id"]
    client.advance("2020-01-02T14:36:00Z")
    third = client.limit(91)["id"]

    def found(**query: str) -> list[str]:
        return [order["id"] for order in client.get("/v2/orders", **query).json()]

    assert found() == found(nested="true") == found(asset_class="us_option,us_equity") == [third, second, first]
    assert found(asset_class="crypto") == []
    assert found(before_order_id=third) == [second, first]
    assert found(after_order_id=first, direction="asc") == [second, third]
    assert found(after="2020-01-02T14:35:00Z") == [third]
    assert found(symbols="IBM,SPY") == [second]
    for query, status in [
        ({"nested": "no"}, 422),
        ({"before_order_id": first, "after_order_id": first}, 422),
        ({"before_order_id": "x"}, 404),
        ({"limit": "9" * 5000}, 400),
        ({"side": "short"}, 422),
    ]:
        assert client.get("/v2/orders", **query).status_code == status


# Whatever is asked

STEPS = st.lists(
    st.one_of(
        st.builds(
            lambda symbol, side, quantity, price, word: Ticket(
                symbol=symbol,
                side=side,
                quantity=Decimal(quantity),
                kind=OrderType.LIMIT if price else OrderType.MARKET,
                limit_price=Decimal(price) / 100 if price else None,
                time_in_force=word,
            ),
            st.sampled_from(["AAPL", "IBM"]),
            st.sampled_from(Side),
            st.integers(1, 900),
            st.sampled_from([0, 0, 5_007, 5_010, 9_900, 10_010]),
            st.sampled_from(TimeInForce),
        ),
        st.builds(
            lambda which, quantity, price, word: (
                which,
                Changes(quantity=quantity, limit_price=price, time_in_force=word),
            ),
            st.integers(0, 20),
            st.none() | st.integers(1, 900).map(Decimal),
            st.none() | st.sampled_from([Decimal("50.08"), Decimal("100.09")]),
            st.none() | st.sampled_from(TimeInForce),
        ),
        st.integers(0, 20),
        st.sampled_from([30, 60, 3_600, 19_000, 30_000, 60_000]).map(lambda seconds: timedelta(seconds=seconds)),
    ),
    min_size=5,
    max_size=25,
)


def carry_out(client: ExchangeClient, step: Any) -> None:
    orders = list(client.venue.book.orders.values())
    match step:
        case Ticket():
            client.venue.submit(step)
        case timedelta():
            client.advance(client.venue.now + step)
        case (which, changes) if orders:
            client.venue.replace(orders[which % len(orders)].id, changes)
        case int() if orders:
            client.venue.cancel(orders[step % len(orders)].id)


@given(steps=STEPS, plan=st.sampled_from([{}, {"seed": 5, "profile": "brutal"}]))
@settings(max_examples=60, deadline=None)
def test_the_books_hold_whatever_is_asked(steps: list[Any], plan: dict[str, Any]) -> None:
    client = ExchangeClient(cash="60000")
    client.venue.use_faults(FaultPlan.from_document(plan))
    for step in steps:
        with suppress(Refused):
            carry_out(client, step)
        book = client.venue.book
        assert book.cash >= 0
        assert book.buying_power >= 0
        assert all(book.available(symbol) >= 0 for symbol in ("AAPL", "IBM"))
        assert all(order.ticket.time_in_force not in AT_ONCE for order in book.open_orders)
    filled = {order.id: Decimal(0) for order in book.orders.values()}
    held: dict[str, Decimal] = {}
    for fill in book.fills:
        filled[fill.order_id] += fill.quantity
        held[fill.symbol] = held.get(fill.symbol, Decimal(0)) + (fill.quantity if fill.side is Side.BUY else -fill.quantity)
    for order in book.orders.values():
        assert order.filled_quantity == filled[order.id]
        assert (order.status is Status.REPLACED) == (order.replaced_by is not None)
        assert order.replaces is None or book.orders[order.replaces].replaced_by == order.id
        assert order.ticket.time_in_force is not TimeInForce.FOK or order.filled_quantity in (0, order.ticket.quantity)
    assert {symbol: position.quantity for symbol, position in book.positions.items()} == {s: q for s, q in held.items() if q}
