"""The stream of an account's orders: what its clients say, and what a change of an order is announced as. Pure.

Promise: one message per event, with the order as REST shows it, in the order in which things happened. Times are the venue's clock; a
fill's `execution_id` is the id of the fill in the account's activities, that of another event is made from the order and its state.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid5

from local.exchange.book import AccountBook
from local.exchange.http.rounding import as_vendor_prints
from local.exchange.http.wire import Json, order_json, utc
from local.exchange.money import plain
from local.exchange.orders import NAMESPACE, ExchangeOrder, Status

STREAM = "trade_updates"
#: What a status is announced as, where it is not by its own name.
EVENTS = {Status.FILLED.value: "fill", Status.PARTIALLY_FILLED.value: "partial_fill"}


class TradeSession:
    """One client: `keys` is the accepted pair, None when there is none."""

    def __init__(self, *, keys: tuple[str, str] | None) -> None:
        self._keys = keys
        self.authorized = False
        self.listening = False

    def receive(self, message: Any) -> Json:
        """The answer to a message of the client."""
        if not isinstance(message, dict):
            return _error("invalid message")
        action, data = message.get("action"), message.get("data")
        data = data if isinstance(data, dict) else {}
        match action:
            case "authenticate":
                return self.authorize(data.get("key_id"), data.get("secret_key"))
            case "auth":
                return self.authorize(message.get("key"), message.get("secret"))
            case "listen":
                return self._listen(data.get("streams"))
        return _error(f"unknown action {action!r}")

    def authorize(self, key: object, secret: object) -> Json:
        self.authorized = self._keys is not None and (key, secret) == self._keys
        self.listening = self.listening and self.authorized
        return self._authorization("authenticate")

    def _listen(self, streams: object) -> Json:
        if not self.authorized:
            return self._authorization("listen")
        if not isinstance(streams, list):
            return _error("streams must be a list")
        self.listening = STREAM in streams
        return {"stream": "listening", "data": {"streams": [STREAM] if self.listening else []}}

    def _authorization(self, action: str) -> Json:
        return {"stream": "authorization", "data": {"status": "authorized" if self.authorized else "unauthorized", "action": action}}


def _error(text: str) -> Json:
    return {"action": "error", "data": {"error_message": text}}


def event_name(order: ExchangeOrder, before: ExchangeOrder | None, *, market_open: bool) -> str | None:
    """What the step from `before` to `order` is announced as; None for one that is not. An order that is taken on while the market is
    closed is accepted, and new is one that is at the market.
    """
    if before is not None and order.filled_quantity != before.filled_quantity:
        return "fill" if order.status is Status.FILLED else "partial_fill"
    if order.status_override is not None:
        return "pending_new" if before is None else None
    if before is not None and order.status is before.status and before.status_override is None:
        return None
    if order.status is Status.ACCEPTED and market_open:
        return "new"
    return EVENTS.get(order.status.value, order.status.value)


def trade_update(book: AccountBook, order: ExchangeOrder, *, market_open: bool) -> Json | None:
    """The message for the latest state of an order of `book`, whose last fill is the last of the book; None where nothing is announced."""
    states = book.history[order.id]
    event = event_name(order, states[-2] if len(states) > 1 else None, market_open=market_open)
    if event is None:
        return None
    shown: Json = order_json(order)
    data: Json = {"event": event, "timestamp": utc(order.updated_at), "order": shown}
    if event in ("fill", "partial_fill"):
        fill, held = book.fills[-1], book.positions.get(order.ticket.symbol)
        assert (fill.order_id, fill.total) == (order.id, order.filled_quantity), "the fill is in the book before its order changes"
        data |= {"price": plain(fill.price), "qty": plain(fill.quantity), "position_qty": plain(held.quantity) if held else "0"}
        data["execution_id"] = fill.id
    else:
        data["execution_id"] = str(uuid5(NAMESPACE, f"{order.id} {event} {len(states)}"))
    return {"stream": STREAM, "data": as_vendor_prints(data) if book.rounded else data}
