"""Alpaca's market data: raw daily bars with their corporate actions, and the newest trade and quote.

Bars are of the consolidated tape (`sip`), as the lake's, which a free plan has up to the last fifteen minutes; `feed="iex"` asks for one
exchange's. Prices now are IEX's, which each plan has. Splits, stock and cash dividends are told, not spin-offs, mergers and renamings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Literal

from schema.exchange_time import new_york_date
from sources.answers import Moment, Number, Positive, Text, VendorRecord, action_row, bar_row, pages, parsed
from sources.port import LastPrice, SourceBars, SourceInvalid
from sources.transport import TIMEOUTS, VendorTransport

URL = "https://data.alpaca.markets"
PER_MINUTE = 200  # of the free plan
PAGE, ACTIONS_PAGE = 10_000, 1_000
#: Actions are listed by the date they are processed on; a dividend's is the day it is paid.
PROCESSED_WITHIN = timedelta(days=120)
KINDS = ("forward_split", "reverse_split", "stock_dividend", "cash_dividend")


class _Bar(VendorRecord):
    t: Moment
    o: Number
    h: Number
    l: Number  # noqa: E741 -- the vendor's word
    c: Number
    v: Number


class _BarsPage(VendorRecord):
    bars: dict[str, list[_Bar]]
    next_page_token: Text | None


class _Split(VendorRecord):
    symbol: Text
    ex_date: date
    new_rate: Positive
    old_rate: Positive


class _Dividend(VendorRecord):
    symbol: Text
    ex_date: date
    rate: Number
    currency: Text = "USD"


class _Actions(VendorRecord):
    forward_splits: tuple[_Split, ...] = ()
    reverse_splits: tuple[_Split, ...] = ()
    stock_dividends: tuple[_Dividend, ...] = ()
    cash_dividends: tuple[_Dividend, ...] = ()


class _ActionsPage(VendorRecord):
    corporate_actions: _Actions
    next_page_token: Text | None


class _Trade(VendorRecord):
    t: Moment
    p: Positive


class _Trades(VendorRecord):
    trades: dict[str, _Trade]


class _Quote(VendorRecord):
    bp: Number
    ap: Number


class _Quotes(VendorRecord):
    quotes: dict[str, _Quote]


class AlpacaBars:
    """`BarSource` and `PriceSource`."""

    name = "alpaca"

    def __init__(
        self,
        *,
        key_id: str,
        secret_key: str,
        url: str = URL,
        feed: Literal["sip", "iex"] = "sip",
        timeouts: tuple[float, float] = TIMEOUTS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._feed = feed
        self._transport = VendorTransport(
            source=self.name,
            url=url,
            per_minute=PER_MINUTE,
            headers={"APCA-API-KEY-ID": key_id, "APCA-API-SECRET-KEY": secret_key},
            remedy="check ALPACA_KEY_ID and ALPACA_SECRET_KEY, and what the plan allows",
            timeouts=timeouts,
            sleep=sleep,
        )

    def daily_bars(self, symbols: Sequence[str], start: date, end: date) -> SourceBars:
        """Noon UTC of `end` is after its bar's stamp; a later hour may reach into the last fifteen minutes, which cost money."""
        query = {
            "symbols": ",".join(symbols),
            "timeframe": "1Day",
            "start": start.isoformat(),
            "end": f"{end.isoformat()}T12:00:00Z",
            "adjustment": "raw",
            "feed": self._feed,
            "limit": PAGE,
        }
        rows = [
            bar_row(symbol, new_york_date(bar.t), prices=(bar.o, bar.h, bar.l, bar.c), volume=bar.v)
            for body in self._pages("/v2/stocks/bars", query)
            for symbol, bars in parsed(_BarsPage, body, source=self.name, what="bars").bars.items()
            for bar in bars
        ]
        rows.sort(key=lambda row: (row["symbol"], row["ts"]))
        known = {row["symbol"] for row in rows}
        missing = tuple(symbol for symbol in symbols if symbol not in known)
        actions, remarks = self._actions(sorted(known), start, end) if known else ([], ())
        feed = () if self._feed == "sip" else ("prices and volumes are of one exchange, IEX",)
        return SourceBars(rows=rows, prices="raw", actions=actions, missing=missing, remarks=(*feed, *remarks))

    def _actions(self, symbols: Sequence[str], start: date, end: date) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
        bodies = self._processed(symbols, start - PROCESSED_WITHIN, end)
        told = [parsed(_ActionsPage, body, source=self.name, what="corporate actions").corporate_actions for body in bodies]
        splits = [split for page in told for split in (*page.forward_splits, *page.reverse_splits)]
        paid = [dividend for page in told for dividend in page.cash_dividends]
        rows = [action_row(split.symbol, split.ex_date, "split", split.new_rate / split.old_rate) for split in splits]
        rows += [action_row(own.symbol, own.ex_date, "split", 1 + own.rate) for page in told for own in page.stock_dividends]
        rows += [action_row(own.symbol, own.ex_date, "dividend", own.rate) for own in paid if own.currency == "USD" and own.rate > 0]
        own = [row for row in rows if row["symbol"] in symbols and start.isoformat() <= row["ex_date"] <= end.isoformat()]
        foreign = sorted({dividend.symbol for dividend in paid if dividend.currency != "USD"})
        remarks = (f"dividends in another currency than USD are left out: {', '.join(foreign)}",) if foreign else ()
        return sorted(own, key=lambda row: (row["symbol"], row["ex_date"], row["kind"])), remarks

    def _processed(self, symbols: Sequence[str], first: date, end: date) -> list[Any]:
        """Asked for beyond `end`; where the vendor does not take an end that lies ahead of today, up to `end`."""
        query = {"symbols": ",".join(symbols), "types": ",".join(KINDS), "start": first.isoformat(), "limit": ACTIONS_PAGE}
        try:
            return list(self._pages("/v1/corporate-actions", {**query, "end": (end + PROCESSED_WITHIN).isoformat()}))
        except SourceInvalid:
            return list(self._pages("/v1/corporate-actions", {**query, "end": end.isoformat()}))

    def last_prices(self, symbols: Sequence[str]) -> dict[str, LastPrice]:
        query = {"symbols": ",".join(symbols), "feed": "iex"}
        trades = parsed(_Trades, self._transport.get("/v2/stocks/trades/latest", query), source=self.name, what="trades").trades
        quotes = parsed(_Quotes, self._transport.get("/v2/stocks/quotes/latest", query), source=self.name, what="quotes").quotes
        return {symbol: _last(symbol, trades[symbol], quotes.get(symbol)) for symbol in symbols if symbol in trades}

    def _pages(self, path: str, query: Mapping[str, Any]) -> Iterator[Any]:
        def page(token: str | None) -> tuple[Sequence[Any], Any]:
            body = self._transport.get(path, {**query, **({"page_token": token} if token else {})})
            return [body], body.get("next_page_token") if isinstance(body, dict) else None

        return pages(page, source=self.name)


def _last(symbol: str, trade: _Trade, quote: _Quote | None) -> LastPrice:
    bid, ask = (quote.bp or None, quote.ap or None) if quote else (None, None)  # the vendor's 0 is none
    moment: datetime = trade.t
    return LastPrice(symbol=symbol, ts=moment, price=trade.p, bid=bid, ask=ask)
