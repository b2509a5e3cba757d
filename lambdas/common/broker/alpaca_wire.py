"""The broker's answers as frozen dataclasses: `Decimal` from its strings, UTC times, and no default for what is missing.

Each `*_of` takes one JSON object as sent and raises `BrokerUnavailable` naming what cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from lambdas.common.broker.transport import BrokerUnavailable
from schema.exchange_time import NEW_YORK, new_york_date, parse_utc


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The broker's time; the only "now" of the market rules. All UTC."""

    now: datetime
    is_open: bool
    next_open: datetime
    next_close: datetime

    @property
    def session_date(self) -> date:
        """Date in New York now; whether it is a session, `sessions` tells."""
        return new_york_date(self.now)


@dataclass(frozen=True, kw_only=True)
class Session:
    date: date
    open: datetime
    close: datetime


@dataclass(frozen=True, kw_only=True)
class Account:
    id: str
    status: str
    cash: Decimal
    buying_power: Decimal
    equity: Decimal
    blocked: bool


@dataclass(frozen=True, kw_only=True)
class Position:
    symbol: str
    quantity: Decimal
    available: Decimal


@dataclass(frozen=True, kw_only=True)
class Order:
    """An order as the broker tells it. `status` is its word, known to us or not; `replaced_by` and `replaces` are the broker's own ids."""

    id: str
    client_order_id: str
    symbol: str
    side: Literal["buy", "sell"]
    quantity: Decimal
    filled_quantity: Decimal
    filled_average_price: Decimal | None
    status: str
    submitted_at: str
    filled_at: str | None
    replaced_by: str | None = None
    replaces: str | None = None


@dataclass(frozen=True, kw_only=True)
class Quote:
    symbol: str
    ts: str
    bid: float
    bid_size: float
    ask: float
    ask_size: float


@dataclass(frozen=True, kw_only=True)
class Trade:
    symbol: str
    ts: str
    price: float


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


def position_of(row: dict[str, Any]) -> Position:
    with reading("positions"):
        return Position(symbol=str(row["symbol"]), quantity=_number(row["qty"]), available=_number(row.get("qty_available", row["qty"])))


def order_of(row: Any) -> Order:
    with reading("order"):
        side = row["side"]
        if side not in {"buy", "sell"}:
            raise ValueError(f"side is buy or sell, was {side!r}")
        price = row["filled_avg_price"]
        return Order(
            id=str(row["id"]),
            client_order_id=str(row["client_order_id"]),
            symbol=str(row["symbol"]),
            side=side,
            # A person's order for a notional has no quantity before it fills; such an order may not hide all the others
            quantity=_number(row["filled_qty"] if row["qty"] is None else row["qty"]),
            filled_quantity=_number(row["filled_qty"]),
            filled_average_price=None if price is None else _number(price),
            status=str(row["status"]),
            submitted_at=str(row["submitted_at"]),
            filled_at=_text(row.get("filled_at")),
            replaced_by=_text(row.get("replaced_by")),
            replaces=_text(row.get("replaces")),
        )


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


def trade_of(symbol: str, row: dict[str, Any]) -> Trade:
    with reading(f"trade of {symbol}"):
        return Trade(symbol=symbol, ts=str(row["t"]), price=float(row["p"]))


def bar_of(symbol: str, bar: dict[str, Any]) -> dict[str, Any]:
    """Return a raw bar as the row symbol, ts, open, high, low, close, volume, and trade_count and vwap when sent."""
    with reading(f"bar of {symbol}"):
        row: dict[str, Any] = {"symbol": symbol, "ts": str(bar["t"])}
        row |= {name: float(bar[key]) for name, key in (("open", "o"), ("high", "h"), ("low", "l"), ("close", "c"), ("volume", "v"))}
        row |= {name: bar[key] for name, key in (("trade_count", "n"), ("vwap", "vw")) if key in bar}
        return row


ACTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], float]]] = {
    "forward_splits": ("split", lambda row: float(row["new_rate"]) / float(row["old_rate"])),
    "reverse_splits": ("split", lambda row: float(row["new_rate"]) / float(row["old_rate"])),
    "stock_dividends": ("split", lambda row: 1.0 + float(row["rate"])),
    "cash_dividends": ("dividend", lambda row: float(row["rate"])),
}


def action_of(vendor_kind: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return a corporate action as the row symbol, ex_date, kind, value; `vendor_kind` must be one of `ACTIONS`."""
    with reading(f"corporate actions ({vendor_kind})"):
        kind, value = ACTIONS[vendor_kind]
        return {"symbol": str(row["symbol"]), "ex_date": str(row["ex_date"]), "kind": kind, "value": value(row)}


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
