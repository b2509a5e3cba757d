"""Finnhub: quotes, and daily candles for who pays for them; a free key is refused those, and the refusal says so.

Candles are adjusted for splits. Dividends, adjusted as the candles are, are another paid endpoint: without it they are left out, and said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from sources.answers import EpochSeconds, Number, Positive, Text, VendorRecord, action_row, bar_row, parsed
from sources.port import LastPrice, SourceBars, SourceInvalid, SourceRefused
from sources.transport import TIMEOUTS, VendorTransport

URL = "https://finnhub.io/api/v1"
PER_MINUTE = 60  # of the free plan


class _Candles(VendorRecord):
    s: Literal["ok"]
    t: list[EpochSeconds]
    o: list[Number]
    h: list[Number]
    l: list[Number]  # noqa: E741 -- the vendor's word
    c: list[Number]
    v: list[Number]


class _Dividend(VendorRecord):
    date: date
    adjustedAmount: Positive  # noqa: N815 -- the vendor's word
    currency: Text = "USD"


class _Quote(VendorRecord):
    c: Positive
    t: EpochSeconds


class Finnhub:
    """`PriceSource`, and `BarSource` with a paid plan. The key travels in a header, so that no address holds it."""

    name = "finnhub"

    def __init__(
        self,
        *,
        key: str,
        url: str = URL,
        timeouts: tuple[float, float] = TIMEOUTS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = VendorTransport(
            source=self.name,
            url=url,
            per_minute=PER_MINUTE,
            headers={"X-Finnhub-Token": key},
            remedy="check FINNHUB_KEY, and what the plan allows",
            timeouts=timeouts,
            sleep=sleep,
        )

    def daily_bars(self, symbols: Sequence[str], start: date, end: date) -> SourceBars:
        rows: list[dict[str, Any]] = []
        missing: list[str] = []
        for symbol in symbols:
            own = self._candles(symbol, start, end)
            if not own:
                missing.append(symbol)
            rows += own
        known = [symbol for symbol in symbols if symbol not in missing]
        try:
            actions = [dividend for symbol in known for dividend in self._dividends(symbol, start, end)]
            remarks: tuple[str, ...] = ()
        except SourceRefused:
            actions, remarks = [], ("dividends are left out: this plan does not have them",)
        return SourceBars(rows=rows, prices="split", actions=actions, missing=tuple(missing), remarks=remarks)

    def _candles(self, symbol: str, start: date, end: date) -> list[dict[str, Any]]:
        """A candle is stamped within its session's day in UTC, at midnight there or in New York."""
        query = {"symbol": symbol, "resolution": "D", "from": _epoch(start), "to": _epoch(end + timedelta(days=1)) - 1}
        try:
            body = self._transport.get("/stock/candle", query)
        except SourceRefused as refusal:
            raise SourceRefused(f"{refusal}; /stock/candle is a paid endpoint, a free key has quotes and news alone") from None
        if isinstance(body, dict) and body.get("s") == "no_data":
            return []
        candles = parsed(_Candles, body, source=self.name, what=f"candles of {symbol}")
        columns = (candles.o, candles.h, candles.l, candles.c, candles.v)
        if any(len(column) != len(candles.t) for column in columns):
            raise SourceInvalid(f"{self.name}: candles of {symbol}: o, h, l, c, v and t differ in length")
        days = [datetime.fromtimestamp(moment, UTC).date() for moment in candles.t]
        return [
            bar_row(symbol, day, prices=(opened, high, low, close), volume=volume)
            for day, opened, high, low, close, volume in zip(days, *columns, strict=True)
            if start <= day <= end
        ]

    def _dividends(self, symbol: str, start: date, end: date) -> list[dict[str, Any]]:
        body = self._transport.get("/stock/dividend", {"symbol": symbol, "from": start.isoformat(), "to": end.isoformat()})
        paid = parsed(list[_Dividend], body, source=self.name, what=f"dividends of {symbol}")
        foreign = [dividend for dividend in paid if dividend.currency != "USD"]
        if foreign:
            raise SourceInvalid(f"{self.name}: dividends of {symbol}: currency must be USD, was {foreign[0].currency}")
        return [action_row(symbol, dividend.date, "dividend", dividend.adjustedAmount) for dividend in paid]

    def last_prices(self, symbols: Sequence[str]) -> dict[str, LastPrice]:
        """A symbol that the vendor does not know is answered with zeros."""
        found = {}
        for symbol in symbols:
            body = self._transport.get("/quote", {"symbol": symbol})
            if isinstance(body, dict) and body.get("c") == 0 and not body.get("t"):
                continue
            quote = parsed(_Quote, body, source=self.name, what=f"quote of {symbol}")
            found[symbol] = LastPrice(symbol=symbol, ts=datetime.fromtimestamp(quote.t, UTC), price=quote.c)
        return found


def _epoch(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
