"""How market data are printed: prices are JSON numbers, as the vendor prints them.

What was not recorded but may not be left out is printed as a number that nobody can mistake for a measurement: a bar has `n` 0 and `vw` 0,
a trade the size of a round lot.
"""

from __future__ import annotations

from decimal import Decimal
from uuid import uuid5

from local.exchange.http.listings import tape_of
from local.exchange.http.wire import Json, utc
from local.exchange.invented_news import AUTHOR, SUMMARY, InventedHeadline
from local.exchange.money import RATIOS
from local.exchange.orders import NAMESPACE
from local.exchange.recorded_market import ROUND_LOT, Action, RecordedBar, RecordedQuote, RecordedTrade

VENUE_CODE = "V"


def bar_json(bar: RecordedBar) -> Json:
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


def quote_json(symbol: str, quote: RecordedQuote) -> Json:
    return {
        "t": utc(quote.at),
        "bx": VENUE_CODE,
        "bp": float(quote.bid),
        "bs": quote.bid_size,
        "ax": VENUE_CODE,
        "ap": float(quote.ask),
        "as": quote.ask_size,
        "c": ["R"],
        "z": tape_of(symbol),
    }


def trade_json(symbol: str, trade: RecordedTrade) -> Json:
    return {
        "t": utc(trade.at),
        "x": VENUE_CODE,
        "p": float(trade.price),
        "s": ROUND_LOT,
        "c": ["@"],
        "i": int(trade.at.timestamp()),
        "z": tape_of(symbol),
    }


def action_json(action: Action) -> tuple[str, Json]:
    """The list it belongs to, and the action. CUSIPs are not recorded and stay empty."""
    day, processed = action.ex_date.isoformat(), action.process_date.isoformat()
    common = {
        "id": str(uuid5(NAMESPACE, f"{action.kind} {action.symbol} {day}")),
        "symbol": action.symbol,
        "ex_date": day,
        "process_date": processed,
    }
    if action.kind == "dividend":
        return "cash_dividends", {
            **common,
            "cusip": "",
            "rate": float(action.value),
            "special": False,
            "foreign": False,
            "payable_date": processed,
        }
    if action.value > 1:
        return "forward_splits", {**common, "cusip": "", "new_rate": float(action.value), "old_rate": 1.0}
    old_rate = float(RATIOS.divide(Decimal(1), action.value))
    return "reverse_splits", {**common, "old_cusip": "", "new_cusip": "", "new_rate": 1.0, "old_rate": old_rate}


def news_json(one: InventedHeadline) -> Json:
    """Written for nobody to mistake it for news: author, source, summary and content say that it is invented."""
    return {
        "id": one.id,
        "headline": one.headline,
        "author": AUTHOR,
        "created_at": utc(one.at),
        "updated_at": utc(one.at),
        "summary": SUMMARY,
        "content": SUMMARY,
        "url": None,
        "images": [],
        "symbols": [one.symbol],
        "source": AUTHOR,
    }
