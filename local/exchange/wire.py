"""Alpaca's wire format: how each answer is printed.

Money and quantities are printed in full, as strings; prices of market data are JSON numbers, as the vendor prints them. What was not
recorded but may not be left out is printed as a number that nobody can mistake for a measurement: a bar has `n` 0 and `vw` 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import uuid5

from local.exchange.book import NAMESPACE, QUANTUM, RATIOS, Fill, Order, Position, Refused, Side, Status, plain
from local.exchange.sessions import NEW_YORK, Calendar, Session
from local.exchange.tape import ROUND_LOT, Action, Bar, Quote, Trade
from local.exchange.venue import Venue

Json = dict[str, Any]
BOOK_FIELDS = (
    "id",
    "client_order_id",
    "symbol",
    "side",
    "type",
    "qty",
    "notional",
    "limit_price",
    "status",
    "submitted_at",
    "updated_at",
    "filled_qty",
    "filled_avg_price",
)

ACCOUNT_ID = str(uuid5(NAMESPACE, "account"))
ACCOUNT_NUMBER = "PA0PAPERTAPE"
SHOWN = Decimal("1e-10")
VENUE_CODE = "V"
LISTINGS = {
    "AAPL": ("Apple Inc. Common Stock", "NASDAQ", "C"),
    "AIG": ("American International Group, Inc. Common Stock", "NYSE", "A"),
    "BAC": ("Bank of America Corporation Common Stock", "NYSE", "A"),
    "FB": ("Facebook, Inc. Class A Common Stock", "NASDAQ", "C"),
    "GOOG": ("Alphabet Inc. Class C Capital Stock", "NASDAQ", "C"),
    "GOOGL": ("Alphabet Inc. Class A Common Stock", "NASDAQ", "C"),
    "IBM": ("International Business Machines Corporation Common Stock", "NYSE", "A"),
    "IWM": ("iShares Russell 2000 ETF", "ARCA", "B"),
    "QQQ": ("Invesco QQQ Trust, Series 1", "NASDAQ", "C"),
    "SPY": ("SPDR S&P 500 ETF Trust", "ARCA", "B"),
}


def dumps(content: object) -> str:
    """Compact JSON; NaN and infinity are a `ValueError`."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


# Numbers and times


def shown(number: Decimal) -> str:
    """A ratio or an average, to ten decimals: shown, never reckoned with."""
    return plain(number.quantize(SHOWN, context=RATIOS))


def utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def eastern(moment: datetime) -> str:
    return moment.astimezone(NEW_YORK).isoformat()


# Orders


def order_json(order: Order) -> Json:
    ticket = order.ticket
    ended = utc(order.settled_at) if order.settled_at is not None else None
    notional = ticket.notional
    return {
        "id": order.id,
        "client_order_id": order.client_order_id,
        "created_at": utc(order.submitted_at),
        "updated_at": utc(order.updated_at),
        "submitted_at": utc(order.submitted_at),
        "filled_at": ended if order.status is Status.FILLED else None,
        "expired_at": ended if order.status is Status.EXPIRED else None,
        "canceled_at": ended if order.status is Status.CANCELED else None,
        "failed_at": ended if order.status is Status.REJECTED else None,
        "replaced_at": None,
        "replaced_by": None,
        "replaces": None,
        "asset_id": asset_id(ticket.symbol),
        "symbol": ticket.symbol,
        "asset_class": "us_equity",
        "notional": plain(notional) if notional is not None else None,
        "qty": plain(ticket.quantity) if notional is None and ticket.quantity is not None else None,
        "filled_qty": plain(order.filled_quantity),
        "filled_avg_price": plain(order.filled_price) if order.filled_price is not None else None,
        "order_class": "simple",
        "order_type": ticket.kind.value,
        "type": ticket.kind.value,
        "side": ticket.side.value,
        "time_in_force": "day",
        "limit_price": plain(ticket.limit_price) if ticket.limit_price is not None else None,
        "stop_price": None,
        "status": order.status.value,
        "extended_hours": False,
        "legs": None,
        "trail_percent": None,
        "trail_price": None,
        "hwm": None,
        "position_intent": "buy_to_open" if ticket.side is Side.BUY else "sell_to_close",
        "expires_at": utc(order.expires_at),
    }


# Account and positions


def asset_id(symbol: str) -> str:
    return str(uuid5(NAMESPACE, f"asset {symbol}"))


def asset_json(symbol: str, *, tradable: bool) -> Json:
    name, exchange, _ = LISTINGS.get(symbol, (symbol, "OTC", "C"))
    return {
        "id": asset_id(symbol),
        "class": "us_equity",
        "exchange": exchange,
        "symbol": symbol,
        "name": name,
        "status": "active",
        "tradable": tradable,
        "marginable": False,
        "shortable": False,
        "easy_to_borrow": False,
        "fractionable": True,
        "min_order_size": plain(QUANTUM),
        "min_trade_increment": plain(QUANTUM),
        "price_increment": "0.0001",
        "attributes": [],
    }


def account_json(venue: Venue) -> Json:
    equity, (balance_day, last_equity) = venue.equity, venue.last_equity
    cash, power = plain(venue.book.cash), plain(venue.book.buying_power)
    positions = RATIOS.subtract(equity, venue.book.cash)
    account = {
        "id": ACCOUNT_ID,
        "account_number": ACCOUNT_NUMBER,
        "status": "ACTIVE",
        "crypto_status": "INACTIVE",
        "currency": "USD",
        "cash": cash,
        "buying_power": power,
        "regt_buying_power": power,
        "daytrading_buying_power": "0",
        "non_marginable_buying_power": power,
        "options_buying_power": "0",
        "portfolio_value": plain(equity),
        "equity": plain(equity),
        "last_equity": plain(last_equity),
        "long_market_value": plain(positions),
        "short_market_value": "0",
        "initial_margin": plain(positions),
        "maintenance_margin": plain(positions),
        "last_maintenance_margin": "0",
        "sma": "0",
        "accrued_fees": "0",
        "pending_transfer_in": "0",
        "pending_transfer_out": "0",
        "multiplier": "1",
        "daytrade_count": 0,
        "pattern_day_trader": False,
        "shorting_enabled": False,
        "trading_blocked": False,
        "transfers_blocked": False,
        "account_blocked": False,
        "trade_suspended_by_user": False,
        "options_approved_level": 0,
        "options_trading_level": 0,
        "created_at": utc(venue.created_at),
    }
    return account if balance_day is None else {**account, "balance_asof": balance_day.isoformat()}


def position_json(venue: Venue, symbol: str, held: Position) -> Json:
    price = venue.price(symbol)
    before = venue.tape.previous_close(symbol, venue.now) or price
    value = RATIOS.multiply(held.quantity, price)
    profit = RATIOS.subtract(value, held.cost)
    move = RATIOS.subtract(price, before)
    change = shown(RATIOS.divide(move, before))
    return {
        "asset_id": asset_id(symbol),
        "symbol": symbol,
        "exchange": LISTINGS.get(symbol, ("", "OTC", ""))[1],
        "asset_class": "us_equity",
        "asset_marginable": False,
        "qty": plain(held.quantity),
        "qty_available": plain(venue.book.available(symbol)),
        "avg_entry_price": shown(held.average_price),
        "side": "long",
        "market_value": plain(value),
        "cost_basis": shown(held.cost),
        "unrealized_pl": shown(profit),
        "unrealized_plpc": shown(RATIOS.divide(profit, held.cost)),
        "unrealized_intraday_pl": shown(RATIOS.multiply(held.quantity, move)),
        "unrealized_intraday_plpc": change,
        "current_price": plain(price),
        "lastday_price": plain(before),
        "change_today": change,
    }


class Printed(str):
    """JSON that is already text."""

    __slots__ = ()


def books_json(venue: Venue, *, since: datetime | None) -> Printed:
    """The exchange's own books; `since` leaves out orders and fills that were last touched before it."""
    book = venue.book
    summary = {
        "now": utc(venue.now),
        "cash": plain(book.cash),
        "equity": plain(venue.equity),
        "positions": {symbol: plain(held.quantity) for symbol, held in sorted(book.positions.items())},
        "counts": {"orders": len(book.orders), "fills": len(book.fills), "refused": book.refused, "duplicates": book.duplicates},
    }
    orders = ",".join(_order_line(order) for order in book.orders.values() if since is None or order.updated_at >= since)
    fills = ",".join(_fill_line(fill) for fill in book.fills if since is None or fill.at >= since)
    return Printed(f'{dumps(summary)[:-1]},"orders":[{orders}],"fills":[{fills}]}}')


# A year's books are read after every session: what has been printed once is kept.


@lru_cache(maxsize=100_000)
def _order_line(order: Order) -> str:
    full = order_json(order)
    return dumps({name: full[name] for name in BOOK_FIELDS})


@lru_cache(maxsize=100_000)
def _fill_line(fill: Fill) -> str:
    return dumps(
        {
            "id": fill.id,
            "order_id": fill.order_id,
            "client_order_id": fill.client_order_id,
            "symbol": fill.symbol,
            "side": fill.side.value,
            "quantity": plain(fill.quantity),
            "price": plain(fill.price),
            "fee": plain(fill.fee),
            "at": utc(fill.at),
        }
    )


# Clock and calendar


def clock_json(venue: Venue) -> Json:
    return {
        "timestamp": eastern(venue.now),
        "is_open": venue.is_open,
        "next_open": eastern(venue.calendar.next_open(venue.now)),
        "next_close": eastern(venue.calendar.next_close(venue.now)),
    }


def session_json(session: Session, calendar: Calendar) -> Json:
    closes = session.close.astimezone(NEW_YORK)
    after_hours = "2000" if closes.time() >= time(16) else "1700"
    return {
        "date": session.date.isoformat(),
        "open": session.open.astimezone(NEW_YORK).strftime("%H:%M"),
        "close": closes.strftime("%H:%M"),
        "session_open": "0400",
        "session_close": after_hours,
        "settlement_date": calendar.settlement(session).isoformat(),
    }


# Market data: prices are JSON numbers, as the vendor prints them


def bar_json(bar: Bar) -> Json:
    return {
        "t": utc(bar.start),
        "o": float(bar.open),
        "h": float(bar.high),
        "l": float(bar.low),
        "c": float(bar.close),
        "v": bar.volume,
        "n": 0,
        "vw": 0.0,
    }


def quote_json(symbol: str, quote: Quote) -> Json:
    return {
        "t": utc(quote.at),
        "bx": VENUE_CODE,
        "bp": float(quote.bid),
        "bs": quote.bid_size,
        "ax": VENUE_CODE,
        "ap": float(quote.ask),
        "as": quote.ask_size,
        "c": ["R"],
        "z": _tape_letter(symbol),
    }


def trade_json(symbol: str, trade: Trade) -> Json:
    return {
        "t": utc(trade.at),
        "x": VENUE_CODE,
        "p": float(trade.price),
        "s": ROUND_LOT,
        "c": ["@"],
        "i": int(trade.at.timestamp()),
        "z": _tape_letter(symbol),
    }


def _tape_letter(symbol: str) -> str:
    return LISTINGS.get(symbol, ("", "", "C"))[2]


def action_json(action: Action) -> tuple[str, Json]:
    """The list it belongs to, and the action. It is processed on its ex-date; CUSIPs are not recorded and stay empty."""
    day = action.ex_date.isoformat()
    common = {
        "id": str(uuid5(NAMESPACE, f"{action.kind} {action.symbol} {day}")),
        "symbol": action.symbol,
        "ex_date": day,
        "process_date": day,
    }
    if action.kind == "dividend":
        return "cash_dividends", {**common, "cusip": "", "rate": float(action.value), "special": False, "foreign": False}
    if action.value > 1:
        return "forward_splits", {**common, "cusip": "", "new_rate": float(action.value), "old_rate": 1.0}
    old_rate = float(RATIOS.divide(Decimal(1), action.value))
    return "reverse_splits", {**common, "old_cusip": "", "new_cusip": "", "new_rate": 1.0, "old_rate": old_rate}


def error_json(refused: Refused) -> Mapping[str, Any]:
    return {"code": refused.code, "message": refused.message, **refused.details}
