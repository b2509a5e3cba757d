"""Alpaca's answers as the port's records, its statuses and refusals as the domain's: no word of the vendor's goes further than here.

Each `*_of` takes one JSON object as sent and raises `BrokerUnavailable` naming what cannot be read; nothing that is missing is made up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from lambdas.common.broker.port import (
    Account,
    AlreadyAccepted,
    Asset,
    BrokerUnavailable,
    Clock,
    Order,
    Position,
    Quote,
    Refusal,
    Rejected,
    Session,
    Trade,
)
from lambdas.common.telemetry import logger
from schema.exchange_time import NEW_YORK, parse_utc
from trading_env.data.corporate_actions import BREAK, Effect, rule_of
from trading_env.orders.order_state import BrokerStatus, OrderStatus

#: How Alpaca says that an order has ended.
_ENDS: Mapping[str, BrokerStatus] = {
    "filled": OrderStatus.FILLED,
    "canceled": OrderStatus.CANCELED,
    "expired": OrderStatus.EXPIRED,
    "rejected": OrderStatus.REJECTED,
    "replaced": OrderStatus.REPLACED,
    "done_for_day": OrderStatus.DONE_FOR_DAY,
}

#: Alpaca's other words, and what they mean: the order lives, as it does under a word that it has not documented.
WORKING: Mapping[str, str] = {
    "new": "at the exchanges",
    "accepted": "taken, not yet routed",
    "pending_new": "routed, not yet accepted",
    "accepted_for_bidding": "being priced",
    "partially_filled": "some has filled",
    "pending_cancel": "to be canceled",
    "pending_replace": "to be replaced",
    "stopped": "a trade is guaranteed, and has not happened",
    "suspended": "may not trade now",
    "calculated": "done for the day, its settlement is not",
    "held": "waits for another order",
}

#: By the words of the message, because the code 40310000 means each of the first three, and more.
_REFUSALS: tuple[tuple[str, Refusal], ...] = (
    ("wash trade", "wash_trade"),
    ("buying power", "buying_power"),
    ("fraction", "not_fractionable"),
    ("not active", "inactive"),
    ("inactive", "inactive"),
    ("halted", "inactive"),
    ("not tradable", "inactive"),
    ("not found", "inactive"),
)


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn what a malformed answer provokes into `BrokerUnavailable`: an answer that cannot be read tells nothing."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, InvalidOperation) as error:
        raise BrokerUnavailable(f"the broker's {what} cannot be read ({type(error).__name__}: {error})") from error


def mapping(body: Any, what: str) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise BrokerUnavailable(f"the broker's {what} cannot be read (an object was expected, was {type(body).__name__})")
    return body


def rows(body: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(body, list) or not all(isinstance(row, dict) for row in body):
        raise BrokerUnavailable(f"the broker's {what} cannot be read (a list of objects was expected, was {type(body).__name__})")
    return body


def clock_of(raw: Any) -> Clock:
    with reading("clock"):
        return Clock(
            now=parse_utc(raw["timestamp"]),
            is_open=_flag(raw["is_open"]),
            next_open=parse_utc(raw["next_open"]),
            next_close=parse_utc(raw["next_close"]),
        )


def session_of(row: dict[str, Any]) -> Session:
    with reading("calendar"):
        day = date.fromisoformat(row["date"])
        opening, closing = (
            datetime.fromisoformat(f"{day.isoformat()}T{row[edge]}:00").replace(tzinfo=NEW_YORK).astimezone(UTC)
            for edge in ("open", "close")
        )
        return Session(date=day, open=opening, close=closing)


def account_of(raw: Any) -> Account:
    with reading("account"):
        return Account(
            id=str(raw["id"]),
            status=str(raw["status"]),
            cash=_number(raw["cash"]),
            buying_power=_number(raw["buying_power"]),
            equity=_number(raw["equity"]),
            blocked=_flag(raw["trading_blocked"]) or _flag(raw["account_blocked"]),
        )


def asset_of(row: dict[str, Any]) -> Asset:
    with reading("assets"):
        return Asset(symbol=str(row["symbol"]), tradable=_flag(row["tradable"]), fractionable=_flag(row["fractionable"]))


def position_of(row: dict[str, Any]) -> Position:
    with reading("positions"):
        return Position(symbol=str(row["symbol"]), quantity=_number(row["qty"]), available=_number(row.get("qty_available", row["qty"])))


def order_of(row: Any) -> Order:
    with reading("order"):
        side = row["side"]
        if side not in {"buy", "sell"}:
            raise ValueError(f"side is buy or sell, was {side!r}")
        price = row["filled_avg_price"]
        filled = _number(row["filled_qty"])
        return Order(
            id=str(row["id"]),
            client_order_id=str(row["client_order_id"]),
            symbol=str(row["symbol"]),
            side=side,
            # A person's order for a notional has no quantity before it fills; such an order may not hide all the others
            quantity=filled if row["qty"] is None else _number(row["qty"]),
            filled_quantity=filled,
            filled_average_price=None if price is None else _number(price),
            status=status_of(str(row["status"]), filled=filled),
            submitted_at=str(row["submitted_at"]),
            filled_at=_text(row.get("filled_at")),
            replaced_by=_text(row.get("replaced_by")),
            replaces=_text(row.get("replaces")),
        )


def status_of(word: str, *, filled: Decimal) -> BrokerStatus:
    """Return what Alpaca's `word` for an order with `filled` shares means; total, because an order under a new word may still fill."""
    if word in _ENDS:
        return _ENDS[word]
    if word not in WORKING:
        logger.warning("an order has a status that is not documented; it counts as working", extra={"word": word})
    return OrderStatus.PARTIALLY_FILLED if filled else OrderStatus.NEW


def rejection(status: int, code: int | None, message: str) -> Rejected:
    """Return what a definite refusal of a write is, by its HTTP status, the vendor's code and its message."""
    text = f"broker refused with {status}{f' ({code})' if code else ''}: {message}"
    if "client_order_id must be unique" in message:
        return AlreadyAccepted(text)
    lower = message.lower()
    return Rejected(text, refusal=next((refusal for words, refusal in _REFUSALS if words in lower), "other"))


def quote_of(symbol: str, row: dict[str, Any]) -> Quote:
    with reading(f"quote of {symbol}"):
        parse_utc(row["t"])
        return Quote(
            symbol=symbol,
            ts=str(row["t"]),
            bid=float(row["bp"]),
            bid_size=float(row["bs"]),
            ask=float(row["ap"]),
            ask_size=float(row["as"]),
        )


def trade_of(symbol: str, row: dict[str, Any]) -> Trade | None:
    """None for a price that is none: a position that is valued by its last trade is carried then, and not worth nothing."""
    with reading(f"trade of {symbol}"):
        price = float(row["p"])
        if not 0 < price < float("inf"):
            logger.warning("a last trade without a price counts as none", extra={"symbol": symbol, "price": str(row["p"])})
            return None
        return Trade(symbol=symbol, ts=str(row["t"]), price=price)


def bar_of(symbol: str, bar: dict[str, Any]) -> dict[str, Any]:
    """Return a raw bar as the row symbol, ts, open, high, low, close, volume, and trade_count and vwap when sent."""
    with reading(f"bar of {symbol}"):
        row: dict[str, Any] = {"symbol": symbol, "ts": str(bar["t"])}
        row |= {name: float(bar[key]) for name, key in (("open", "o"), ("high", "h"), ("low", "l"), ("close", "c"), ("volume", "v"))}
        row |= {name: bar[key] for name, key in (("trade_count", "n"), ("vwap", "vw")) if key in bar}
        return row


#: Who is affected, and from when: the vendor has other fields for each kind; of a merger it is who is bought.
_AFFECTED = ("symbol", "source_symbol", "old_symbol", "acquiree_symbol")
_EFFECTIVE = ("ex_date", "effective_date", "process_date")
_VALUES: Mapping[str, Callable[[dict[str, Any]], float]] = {
    "forward_split": lambda row: float(row["new_rate"]) / float(row["old_rate"]),
    "reverse_split": lambda row: float(row["new_rate"]) / float(row["old_rate"]),
    "stock_dividend": lambda row: 1.0 + float(row["rate"]),
    "cash_dividend": lambda row: float(row["rate"]),
}


def action_of(listed_as: str, row: dict[str, Any]) -> dict[str, Any] | None:
    """Return a corporate action as the port's row; `listed_as` is the vendor's list. None: nothing changes for who holds the name.

    What has another currency, or leaves the name under another symbol, is not applied.
    """
    with reading(f"corporate actions ({listed_as})"):
        action = listed_as.removesuffix("s")
        symbol = str(_first(row, _AFFECTED))
        if (action == "name_change" and row["new_symbol"] == symbol) or (action == "cash_dividend" and float(row["rate"]) == 0):
            return None
        foreign = row.get("currency") or "USD"
        renamed = action == "reverse_split" and (row.get("new_symbol") or symbol) != symbol
        kind: Effect = BREAK if renamed or foreign != "USD" else rule_of(action).effect
        return {
            "id": str(row["id"]),
            "symbol": symbol,
            "ex_date": date.fromisoformat(_first(row, _EFFECTIVE)).isoformat(),
            "kind": kind,
            "value": None if kind == BREAK else _positive(_VALUES[action](row)),
            "action": action,
        }


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    found = [row[name] for name in names if name in row]
    if not found:
        raise KeyError(" or ".join(names))
    return found[0]


def _positive(value: float) -> float:
    if not 0 < value < float("inf"):
        raise ValueError(f"a rate above 0 was expected, was {value}")
    return value


def _number(value: Any) -> Decimal:
    """Parse a decimal number exactly; NaN and infinities are not numbers."""
    number = Decimal(str(value))
    if not number.is_finite():
        raise ValueError(f"a finite number was expected, was {value!r}")
    return number


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"true or false was expected, was {value!r}")
    return value
