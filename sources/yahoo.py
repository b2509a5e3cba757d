"""Yahoo through yfinance, for research on a person's own machine: its terms allow personal use only, so a deployed function is refused.

yfinance is an optional extra of the installation and is imported when it is used. Prices are adjusted for splits and dividends, as Yahoo
does that, so they are other numbers after each dividend.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from pydantic import Field

from sources.answers import Number, VendorRecord, bar_row, parsed
from sources.port import LastPrice, SourceBars, SourceInvalid, SourceLimited, SourceRefused, SourceUnavailable

PERSONAL = "yahoo: for personal use only, by its terms; a deployed function may not ask it, choose another source"
INSTALL = "yahoo: yfinance is not installed; pip install yfinance==1.7.0"
TIMEOUT = 10.0
COLUMNS = ("Open", "High", "Low", "Close", "Volume")
#: yfinance's error for a symbol without prices or without a time zone, which is how it says that it does not know it.
UNKNOWN = "YFTickerMissingError"


class _Bar(VendorRecord):
    opened: Number = Field(alias="Open")
    high: Number = Field(alias="High")
    low: Number = Field(alias="Low")
    close: Number = Field(alias="Close")
    volume: Number = Field(alias="Volume")


class Yahoo:
    """`BarSource` and `PriceSource`."""

    name = "yahoo"

    def __init__(self, *, deployed: bool, today: date, timeout: float = TIMEOUT) -> None:
        """`deployed`: whether this runs in a function; then `SourceRefused`, as without yfinance."""
        if deployed:
            raise SourceRefused(PERSONAL)
        try:
            self._yfinance: Any = importlib.import_module("yfinance")
        except ModuleNotFoundError as error:
            raise SourceRefused(INSTALL) from error
        self._yfinance.config.debug.hide_exceptions = False
        self._today, self._timeout = today, timeout

    def daily_bars(self, symbols: Sequence[str], start: date, end: date) -> SourceBars:
        rows: list[dict[str, Any]] = []
        missing = []
        for symbol in symbols:
            own = self._history(symbol, start, end)
            rows += own
            if not own:
                missing.append(symbol)
        return SourceBars(rows=rows, prices="adjusted", missing=tuple(missing))

    def last_prices(self, symbols: Sequence[str]) -> dict[str, LastPrice]:
        """The close of the newest daily bar, today's while it trades; `ts` is that session's start."""
        found = {}
        for symbol in symbols:
            rows = self._history(symbol, self._today - timedelta(days=10), self._today)
            if rows:
                found[symbol] = LastPrice(symbol=symbol, ts=datetime.fromisoformat(rows[-1]["ts"]), price=rows[-1]["close"])
        return found

    def _history(self, symbol: str, start: date, end: date) -> list[dict[str, Any]]:
        """Rows of the port, none for a symbol that is not known; a dot of ours is Yahoo's dash."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its own, of the pandas to come, ten a symbol
                table = self._yfinance.Ticker(symbol.replace(".", "-")).history(
                    start=start.isoformat(),
                    end=(end + timedelta(days=1)).isoformat(),
                    interval="1d",
                    auto_adjust=True,
                    actions=False,
                    timeout=self._timeout,
                )
        except Exception as error:  # noqa: BLE001 -- it lets through what its own transport, a parser of JSON and pandas raise
            names = {kind.__name__ for kind in type(error).__mro__}
            if UNKNOWN in names or getattr(getattr(error, "response", None), "status_code", None) == 404:
                return []
            if "YFRateLimitError" in names:
                raise SourceLimited("yahoo: too many requests; it limits addresses, not keys, so wait an hour") from None
            if names & {"ValueError", "TypeError"} and "JSONDecodeError" not in names:
                raise SourceInvalid(f"yahoo: bars of {symbol}: {' '.join(str(error).split())[:200]}") from None
            raise SourceUnavailable(f"yahoo did not answer {symbol} ({type(error).__name__})") from None
        absent = [column for column in COLUMNS if column not in table.columns]
        if absent:
            raise SourceInvalid(f"yahoo: bars of {symbol}: {absent[0]}: the column is missing")
        rows = zip([moment.date() for moment in table.index], table[list(COLUMNS)].to_numpy(), strict=True)
        return [self._row(symbol, day, values) for day, values in rows if not all(_is_nothing(value) for value in values[:4])]

    def _row(self, symbol: str, day: date, values: Sequence[Any]) -> dict[str, Any]:
        """A session that Yahoo has nothing of has no row; one that it has a part of is refused."""
        told = {column: value.item() if hasattr(value, "item") else value for column, value in zip(COLUMNS, values, strict=True)}
        bar = parsed(_Bar, told, source=self.name, what=f"bar of {symbol} on {day}")
        return bar_row(symbol, day, prices=(bar.opened, bar.high, bar.low, bar.close), volume=bar.volume)


def _is_nothing(value: Any) -> bool:
    return value is None or value != value
