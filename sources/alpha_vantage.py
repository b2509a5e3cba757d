"""Alpha Vantage: daily bars as they traded, with splits and dividends, and the last session's price.

Its errors come with status 200, as `Note`, `Information` or `Error Message`; each is what it says here: a limit, a refusal, an unknown
symbol. A free key has 25 calls a day, 5 a minute, one a second, the last 100 sessions, and splits and dividends in two calls of their own:
three calls per symbol. A paid plan has all sessions and one call. Counted is what this process asks; the vendor counts the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from sources.answers import VendorRecord, action_row, bar_row, parsed, session_start
from sources.port import LastPrice, SourceBars, SourceInvalid, SourceLimited, SourceRefused
from sources.transport import TIMEOUTS, VendorTransport

URL = "https://www.alphavantage.co"
FREE_PER_MINUTE, FREE_PER_DAY = 5, 25
A_SECOND = 1.1  # between two calls: a free key is refused beyond one a second
#: Whether 100 sessions reach back far enough: they span at least 140 days.
COMPACT = timedelta(days=140)
LIMIT_WORDS = ("rate limit", "requests per day", "calls per day", "per minute", "per second", "call frequency")
REFUSAL_WORDS = ("premium", "apikey is invalid", "api key is invalid", "demo** api key", "claim your free api key")
UNKNOWN_WORDS = ("invalid api call",)


def _number(value: Any) -> Any:
    """The vendor writes numbers as text; anything else is of the wrong type."""
    if not isinstance(value, str):
        raise ValueError(f"a number written as text was expected, was {type(value).__name__}")  # noqa: TRY004 -- Pydantic's
    return float(value)


Written = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
WrittenPositive = Annotated[float, BeforeValidator(_number), Field(gt=0, allow_inf_nan=False)]


class _Day(VendorRecord):
    opened: Written = Field(alias="1. open")
    high: Written = Field(alias="2. high")
    low: Written = Field(alias="3. low")
    close: Written = Field(alias="4. close")
    volume: Written = Field(alias="5. volume")


class _Series(VendorRecord):
    days: dict[date, _Day] = Field(alias="Time Series (Daily)")


class _AdjustedDay(VendorRecord):
    opened: Written = Field(alias="1. open")
    high: Written = Field(alias="2. high")
    low: Written = Field(alias="3. low")
    close: Written = Field(alias="4. close")
    volume: Written = Field(alias="6. volume")
    dividend: Written = Field(alias="7. dividend amount")
    split: WrittenPositive = Field(alias="8. split coefficient")


class _AdjustedSeries(VendorRecord):
    days: dict[date, _AdjustedDay] = Field(alias="Time Series (Daily)")


class _Split(VendorRecord):
    effective_date: date
    split_factor: WrittenPositive


class _Splits(VendorRecord):
    data: list[_Split]


class _Dividend(VendorRecord):
    ex_dividend_date: date
    amount: Written


class _Dividends(VendorRecord):
    data: list[_Dividend]


class _Quote(VendorRecord):
    price: WrittenPositive = Field(alias="05. price")
    day: date = Field(alias="07. latest trading day")


class _QuoteAnswer(VendorRecord):
    quote: _Quote = Field(alias="Global Quote")


class AlphaVantage:
    """`BarSource` and `PriceSource`. With `paid_per_minute`, the calls of a paid plan."""

    name = "alphavantage"

    def __init__(
        self,
        *,
        key: str,
        today: date,
        paid_per_minute: int | None = None,
        url: str = URL,
        timeouts: tuple[float, float] = TIMEOUTS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paid, self._today = paid_per_minute is not None, today
        self._transport = VendorTransport(
            source=self.name,
            url=url,
            per_minute=paid_per_minute or FREE_PER_MINUTE,
            per_day=None if self._paid else FREE_PER_DAY,
            spacing=0.0 if self._paid else A_SECOND,
            params={"apikey": key},
            remedy="check ALPHAVANTAGE_KEY, and what the plan allows",
            timeouts=timeouts,
            sleep=sleep,
            clock=clock,
        )

    def daily_bars(self, symbols: Sequence[str], start: date, end: date) -> SourceBars:
        self._refuse_more_than_today(len(symbols) * (1 if self._paid else 3))
        rows: list[dict[str, Any]] = []
        actions: list[dict[str, Any]] = []
        missing = []
        for symbol in symbols:
            found = (self._adjusted if self._paid else self._daily)(symbol, start, end)
            if found is None:
                missing.append(symbol)
            else:
                rows += found[0]
                actions += [action for action in found[1] if start.isoformat() <= action["ex_date"] <= end.isoformat()]
        return SourceBars(rows=rows, prices="raw", actions=actions, missing=tuple(missing))

    def _adjusted(self, symbol: str, start: date, end: date) -> tuple[list[dict[str, Any]], list[dict[str, Any]]] | None:
        body = self._asked("TIME_SERIES_DAILY_ADJUSTED", symbol, outputsize=self._size(start))
        if body is None:
            return None
        days = parsed(_AdjustedSeries, body, source=self.name, what=f"daily bars of {symbol}").days
        own = {day: bar for day, bar in sorted(days.items()) if start <= day <= end}
        rows = [bar_row(symbol, day, prices=(bar.opened, bar.high, bar.low, bar.close), volume=bar.volume) for day, bar in own.items()]
        actions = [action_row(symbol, day, "split", bar.split) for day, bar in own.items() if bar.split != 1]
        return rows, actions + [action_row(symbol, day, "dividend", bar.dividend) for day, bar in own.items() if bar.dividend > 0]

    def _daily(self, symbol: str, start: date, end: date) -> tuple[list[dict[str, Any]], list[dict[str, Any]]] | None:
        body = self._asked("TIME_SERIES_DAILY", symbol, outputsize=self._size(start))
        if body is None:
            return None
        days = parsed(_Series, body, source=self.name, what=f"daily bars of {symbol}").days
        rows = [
            bar_row(symbol, day, prices=(bar.opened, bar.high, bar.low, bar.close), volume=bar.volume)
            for day, bar in sorted(days.items())
            if start <= day <= end
        ]
        splits = parsed(_Splits, self._asked("SPLITS", symbol), source=self.name, what=f"splits of {symbol}").data
        paid = parsed(_Dividends, self._asked("DIVIDENDS", symbol), source=self.name, what=f"dividends of {symbol}").data
        actions = [action_row(symbol, split.effective_date, "split", split.split_factor) for split in splits]
        return rows, actions + [action_row(symbol, own.ex_dividend_date, "dividend", own.amount) for own in paid if own.amount > 0]

    def last_prices(self, symbols: Sequence[str]) -> dict[str, LastPrice]:
        """The vendor tells the session, not the time: `ts` is its start."""
        self._refuse_more_than_today(len(symbols))
        found = {}
        for symbol in symbols:
            body = self._asked("GLOBAL_QUOTE", symbol)
            if body is None or body.get("Global Quote") == {}:
                continue
            quote = parsed(_QuoteAnswer, body, source=self.name, what=f"quote of {symbol}").quote
            found[symbol] = LastPrice(symbol=symbol, ts=session_start(quote.day), price=quote.price)
        return found

    def _size(self, start: date) -> str:
        return "compact" if self._today - start < COMPACT else "full"

    def _refuse_more_than_today(self, calls: int) -> None:
        left = self._transport.left_today
        if left is not None and calls > left:
            raise SourceLimited(
                f"{self.name}: {calls} calls are needed, and {left} of a free key's {FREE_PER_DAY} a day are left; ask for fewer symbols"
            )

    def _asked(self, function: str, symbol: str, **query: str) -> Mapping[str, Any] | None:
        """The answer's object; None where the vendor does not know the symbol."""
        body = self._transport.get("/query", {"function": function, "symbol": symbol.replace(".", "-"), **query})
        if not isinstance(body, dict):
            raise SourceInvalid(f"{self.name}: {function} of {symbol}: an object was expected, was {type(body).__name__}")
        told = next((body[key] for key in ("Error Message", "Note", "Information") if key in body), None)
        if told is None:
            return body
        text, lower = self._transport.redacted(str(told)), str(told).lower()
        if any(words in lower for words in LIMIT_WORDS):
            raise SourceLimited(f"{self.name}: the rate limit is used up ({text})")
        if any(words in lower for words in REFUSAL_WORDS):
            raise SourceRefused(f"{self.name} refused {function} of {symbol} ({text}); check ALPHAVANTAGE_KEY, and what the plan allows")
        if any(words in lower for words in UNKNOWN_WORDS):
            return None
        raise SourceInvalid(f"{self.name}: {function} of {symbol}: {text}")
