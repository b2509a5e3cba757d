"""Orders of every kind, mixed at random: the books hold, however time is cut and whenever fills come."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from local.exchange.faults.plan import FaultPlan
from local.exchange.orders import Side
from tests.exchanges import URL, ExchangeClient

SIDES, SYMBOLS = st.sampled_from(["buy", "sell"]), st.sampled_from(["AAPL", "SPY"])
PRICE = st.integers(9_000, 11_000).map(lambda cents: str(Decimal(cents) / 100))
SIMPLE = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"kind": st.just("limit"), "limit_price": PRICE, "tif": st.sampled_from(["day", "gtc", "ioc", "fok", "cls"])}),
    st.fixed_dictionaries({"kind": st.just("stop"), "stop_price": PRICE}),
    st.fixed_dictionaries({"kind": st.just("stop_limit"), "stop_price": PRICE, "limit_price": PRICE, "tif": st.just("gtc")}),
    st.fixed_dictionaries({"kind": st.just("trailing_stop"), "trail_price": st.sampled_from(["0.5", "1", "3"])}),
    st.fixed_dictionaries({"kind": st.just("trailing_stop"), "trail_percent": st.sampled_from(["0.1", "1"]), "tif": st.just("gtc")}),
)
EXITS = st.fixed_dictionaries(
    {
        "take_profit": st.fixed_dictionaries({"limit_price": st.sampled_from(["100.50", "101", "102", "120"])}),
        "stop_loss": st.fixed_dictionaries({"stop_price": st.sampled_from(["90", "99.50", "100"])}),
        "tif": st.sampled_from(["day", "gtc"]),
    }
)
COMPLEX = st.one_of(
    EXITS.map(lambda exits: {"order_class": "bracket", "side": "buy", **exits}),
    st.tuples(EXITS, PRICE).map(lambda both: {"order_class": "bracket", "side": "buy", "kind": "limit", "limit_price": both[1], **both[0]}),
    EXITS.map(lambda exits: {"order_class": "oco", "side": "sell", "kind": "limit", **exits}),
    EXITS.map(lambda exits: {"order_class": "oto", "side": "buy", "stop_loss": exits["stop_loss"], "tif": exits["tif"]}),
)
STEP = st.one_of(
    st.tuples(st.just("send"), SYMBOLS, SIDES, st.sampled_from(["1", "3", "40", "600"]), st.one_of(SIMPLE, COMPLEX)),
    st.tuples(st.just("send"), SYMBOLS, SIDES, st.sampled_from(["1", "3"]), COMPLEX),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("replace"), st.integers(0, 20), PRICE),
    st.tuples(st.just("wait"), st.sampled_from([30, 60, 240, 3600, 86_400, 32 * 86_400])),
)


def happen(client: ExchangeClient, step: tuple[Any, ...], *, cut: int = 1) -> int:
    """Do it; waiting is done in `cut` steps. Returns the status of the answer, 200 for a wait."""
    orders = list(client.venue.book.orders.values())
    match step:
        case ("send", symbol, side, quantity, order):
            status: int = client.send(symbol, **{"side": side, "qty": quantity, **order}).status_code
            return status
        case ("cancel", number) if orders:
            return client.http.delete(f"{URL}/v2/orders/{orders[number % len(orders)].id}").status_code
        case ("replace", number, price) if orders:
            order = orders[number % len(orders)]
            name = "limit_price" if order.ticket.limit_price is not None else "stop_price"
            return client.http.patch(f"{URL}/v2/orders/{order.id}", json={name: price}).status_code
        case ("wait", seconds):
            for _ in range(cut):
                client.advance(client.venue.now + pd.Timedelta(seconds=seconds / cut).to_pytimedelta())
    return 200


def check(client: ExchangeClient) -> None:
    """Cash and shares are what the fills say, nothing is promised twice, and of two exits one fills."""
    book = client.venue.book
    cash, shares = client.venue.initial_cash, dict.fromkeys(("AAPL", "IBM", "SPY"), Decimal(0))
    for fill in book.fills:
        sign = 1 if fill.side is Side.BUY else -1
        cash -= sign * fill.quantity * fill.price + fill.fee
        shares[fill.symbol] += sign * fill.quantity
    for booking in book.bookings:
        cash += booking.amount
        shares[booking.symbol] += booking.quantity if booking.kind == "SPLIT" else 0
    assert cash == book.cash >= 0
    assert shares == {symbol: client.held(symbol) for symbol in shares}
    assert min(shares.values()) >= 0
    assert min((order.reserved for order in book.orders.values()), default=Decimal(0)) >= 0
    for symbol in shares:
        assert book.available(symbol) >= 0
    for order in book.orders.values():
        legs = [book.orders[leg] for leg in book.links.legs(order.id)]
        exits = legs if order.ticket.side is Side.BUY else [order, *legs]
        if legs and not book.bookings:
            whole = order.filled_quantity if order.ticket.side is Side.BUY else order.ticket.quantity
            assert sum((leg.filled_quantity for leg in exits), Decimal(0)) <= (whole or 0)
            assert not (order.ticket.side is Side.BUY and order.open and any(leg.filled_quantity for leg in legs))


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(steps=st.lists(STEP, max_size=14), parts=st.booleans())
def test_the_books_hold_under_any_orders_however_time_is_cut(steps: list[tuple[Any, ...]], parts: bool) -> None:
    now, later, once = (ExchangeClient(cash="50000") for _ in range(3))
    later.venue.fills = "after"
    plan = FaultPlan.from_document({"seed": 5, "faults": {"partial_fill": {"rate": 0.5}}} if parts else {})
    for client in (now, later, once):
        client.venue.use_faults(plan)
    for step in steps:
        assert happen(now, step) == happen(later, step) == happen(once, step, cut=3)
        check(now)
    books = [client.get("/admin/books").content for client in (now, later, once)]
    assert books[0] == books[1] == books[2]
    check(now)
