"""Alpaca's streamed messages as the port's records; no word of the vendor's goes further than here, but an order's event and status.

Each `*_of` takes one decoded message (msgpack with its Timestamp, or JSON with a text) and raises `UnreadableError` naming what is wrong;
nothing that is missing is made up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any, Literal

from lambdas.common.broker.streams import HaltNotice, OrderNotice, PriceBand, QuoteTick, TradeCorrection, TradedMinute, TradeTick
from schema.exchange_time import parse_utc
from trading_env.errors import PapertapeError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Status codes of the tapes: A and B have digits, C and O letters. Others (indications, imbalances, quotation) neither halt nor resume.
HALTED, RESUMED = frozenset({"2", "H", "P"}), frozenset({"3", "T"})


class UnreadableError(PapertapeError, ValueError):
    """A message is not what its type says."""


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except UnreadableError as error:
        raise UnreadableError(f"{what}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, InvalidOperation) as error:
        raise UnreadableError(f"{what}: {type(error).__name__} {str(error)[:200]}") from None


def quote_of(message: Mapping[str, Any]) -> QuoteTick:
    with _reading("quote"):
        return QuoteTick(
            symbol=_symbol(message["S"]),
            at=_time(message["t"]),
            bid=_number(message["bp"]),
            bid_size=_number(message["bs"]),
            ask=_number(message["ap"]),
            ask_size=_number(message["as"]),
        )


def trade_of(message: Mapping[str, Any]) -> TradeTick:
    with _reading("trade"):
        return _trade(message, identity="i", price="p", size="s")


def correction_of(message: Mapping[str, Any]) -> TradeCorrection:
    with _reading("correction"):
        corrected = _trade(message, identity="ci", price="cp", size="cs")
        return TradeCorrection(symbol=corrected.symbol, at=corrected.at, identity=_identity(message, "oi"), trade=corrected)


def cancel_of(message: Mapping[str, Any]) -> TradeCorrection:
    with _reading("cancel"):
        at, symbol = _time(message["t"]), _symbol(message["S"])
        return TradeCorrection(symbol=symbol, at=at, identity=_identity(message, "i"), trade=None)


def bar_of(message: Mapping[str, Any]) -> TradedMinute:
    with _reading("bar"):
        minute = _time(message["t"])
        if minute.second or minute.microsecond:
            raise UnreadableError(f"begins at {minute.isoformat()}, which is no minute")
        vwap = message.get("vw")
        return TradedMinute(
            symbol=_symbol(message["S"]),
            minute=minute,
            open=_positive(message["o"]),
            high=_positive(message["h"]),
            low=_positive(message["l"]),
            close=_positive(message["c"]),
            volume=_number(message["v"]),
            trades=int(message.get("n", 0)),
            vwap=None if vwap is None else _number(vwap),
            corrected=message["T"] == "u",
        )


def halt_of(message: Mapping[str, Any]) -> HaltNotice | None:
    """None for a status that neither halts nor resumes."""
    with _reading("status"):
        code = str(message["sc"])
        if code not in HALTED | RESUMED:
            return None
        status: Literal["halted", "resumed"] = "halted" if code in HALTED else "resumed"
        reason = str(message.get("rm") or message.get("sm") or "")
        return HaltNotice(symbol=_symbol(message["S"]), at=_time(message["t"]), status=status, code=code, reason=reason)


def band_of(message: Mapping[str, Any]) -> PriceBand:
    with _reading("price band"):
        down, up = _positive(message["d"]), _positive(message["u"])
        if down >= up:
            raise UnreadableError(f"its lower price must be below its upper, was {down} and {up}")
        return PriceBand(symbol=_symbol(message["S"]), at=_time(message["t"]), down=down, up=up, indicator=str(message.get("i", "")))


def order_of(message: Mapping[str, Any]) -> OrderNotice:
    with _reading("order"):
        data = message["data"]
        order = data["order"]
        return OrderNotice(
            client_order_id=_text(order["client_order_id"]),
            symbol=_text(order["symbol"]),
            at=_time(data.get("timestamp") or order["updated_at"]),
            event=_text(data["event"]),
            status=_text(order["status"]),
            filled=Decimal(str(order.get("filled_qty") or 0)),
        )


def _trade(message: Mapping[str, Any], *, identity: str, price: str, size: str) -> TradeTick:
    return TradeTick(
        symbol=_symbol(message["S"]),
        at=_time(message["t"]),
        identity=_identity(message, identity),
        price=_positive(message[price]),
        size=_number(message[size]),
    )


def _identity(message: Mapping[str, Any], key: str) -> str:
    """A trade's number is its exchange's; so many digits sort as numbers."""
    return f"{message.get('x', '')}/{int(message[key]):020d}"


def _time(value: Any) -> datetime:
    if isinstance(value, str):
        return parse_utc(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanoseconds // 1000)


def _number(value: Any) -> float:
    number = float(value)
    if not (isfinite(number) and number >= 0):
        raise UnreadableError(f"a number of 0 or more was expected, was {value!r}")
    return number


def _positive(value: Any) -> float:
    number = _number(value)
    if number == 0:
        raise UnreadableError("a price above 0 was expected, was 0")
    return number


def _symbol(value: Any) -> str:
    return _text(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise UnreadableError(f"a text was expected, was {value!r}")
    return value
