"""How the account, its positions and its past, the assets, the clock and the calendar are printed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from decimal import Decimal, localcontext
from itertools import takewhile

from local.exchange.http.listings import asset_id, exchange_of, name_of
from local.exchange.http.wire import Json, eastern, shown, utc
from local.exchange.money import QUANTUM, RATIOS, plain
from local.exchange.orders import Booking, ExchangeFill, ExchangeOrder, ExchangePosition, Side
from local.exchange.sessions import NEW_YORK, ExchangeCalendar, ExchangeSession, new_york_date
from local.exchange.venue import Venue

ACCOUNT_NUMBER = "PA0PAPERTAPE"


def asset_json(symbol: str, *, tradable: bool, fractionable: bool = True) -> Json:
    return {
        "id": asset_id(symbol),
        "class": "us_equity",
        "exchange": exchange_of(symbol),
        "symbol": symbol,
        "name": name_of(symbol),
        "status": "active",
        "tradable": tradable,
        "marginable": False,
        "shortable": False,
        "easy_to_borrow": False,
        "fractionable": fractionable,
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
        "id": venue.account_id,
        "account_number": f"{ACCOUNT_NUMBER}{venue.accounts or ''}",
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
        "trade_suspended_by_user": venue.preferences.configurations["suspend_trade"],
        "options_approved_level": 0,
        "options_trading_level": 0,
        "created_at": utc(venue.created_at),
    }
    return account if balance_day is None else {**account, "balance_asof": balance_day.isoformat()}


def position_json(venue: Venue, symbol: str, held: ExchangePosition) -> Json:
    price = venue.price(symbol)
    before = venue.market.previous_close(symbol, venue.now) or price
    value = RATIOS.multiply(held.quantity, price)
    profit = RATIOS.subtract(value, held.cost)
    basis = _intraday_basis(venue, symbol, held, before)
    gain = RATIOS.subtract(value, basis)
    return {
        "asset_id": asset_id(symbol),
        "symbol": symbol,
        "exchange": exchange_of(symbol),
        "asset_class": "us_equity",
        "asset_marginable": False,
        "qty": plain(held.quantity),
        "qty_available": plain(venue.available(symbol)),
        "avg_entry_price": shown(held.average_price),
        "side": "long",
        "market_value": plain(value),
        "cost_basis": shown(held.cost),
        "unrealized_pl": shown(profit),
        "unrealized_plpc": shown(RATIOS.divide(profit, held.cost)),
        "unrealized_intraday_pl": shown(gain),
        "unrealized_intraday_plpc": shown(RATIOS.divide(gain, basis)),
        "current_price": plain(price),
        "lastday_price": plain(before),
        "change_today": shown(RATIOS.divide(RATIOS.subtract(price, before), before)),
    }


def _intraday_basis(venue: Venue, symbol: str, held: ExchangePosition, before: Decimal) -> Decimal:
    """What the day's profit counts from: shares held since yesterday are at its close, those bought today at what they cost. The oldest
    are sold first."""
    today = takewhile(lambda fill: new_york_date(fill.at) == venue.today, reversed(venue.book.fills))
    bought = [fill for fill in today if fill.symbol == symbol and fill.side is Side.BUY]
    with localcontext(RATIOS):
        shares = sum((fill.quantity for fill in bought), Decimal(0))
        if not shares:
            return held.quantity * before
        since = max(Decimal(0), held.quantity - shares)
        paid = sum((fill.quantity * fill.price for fill in bought), Decimal(0)) / shares
        return since * before + (held.quantity - since) * paid


# The past


def activity_id(activity: ExchangeFill | Booking) -> str:
    return f"{activity.at.astimezone(NEW_YORK):%Y%m%d%H%M%S}{activity.at.microsecond // 1000:03d}::{activity.id}"


def activity_json(activity: ExchangeFill | Booking, orders: Mapping[str, ExchangeOrder]) -> Json:
    return _fill_json(activity, orders[activity.order_id]) if isinstance(activity, ExchangeFill) else _booking_json(activity)


def _fill_json(fill: ExchangeFill, order: ExchangeOrder) -> Json:
    whole = fill.left <= 0
    return {
        "id": activity_id(fill),
        "activity_type": "FILL",
        "transaction_time": utc(fill.at),
        "type": "fill" if whole else "partial_fill",
        "price": plain(fill.price),
        "qty": plain(fill.quantity),
        "side": fill.side.value,
        "symbol": fill.symbol,
        "leaves_qty": plain(fill.left),
        "order_id": fill.order_id,
        "cum_qty": plain(fill.total),
        "order_status": order.status.value,
    }


def _booking_json(booking: Booking) -> Json:
    common = {
        "id": activity_id(booking),
        "activity_type": booking.kind,
        "date": eastern(booking.at)[:10],
        "created_at": utc(booking.at),
        "net_amount": plain(booking.amount),
        "symbol": booking.symbol,
        "qty": plain(booking.quantity),
        "currency": "USD",
        "status": "executed",
    }
    if booking.kind == "SPLIT":
        return common
    return {**common, "per_share_amount": shown(RATIOS.divide(booking.amount, booking.quantity))}


# Clock and calendar


def clock_json(venue: Venue) -> Json:
    return {
        "timestamp": eastern(venue.now),
        "is_open": venue.is_open,
        "next_open": eastern(venue.calendar.next_open(venue.now)),
        "next_close": eastern(venue.calendar.next_close(venue.now)),
    }


def session_json(session: ExchangeSession, calendar: ExchangeCalendar) -> Json:
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
