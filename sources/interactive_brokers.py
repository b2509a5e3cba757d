"""Interactive Brokers' Web API: daily bars and snapshots, by the gateway that runs beside this process or by api.ibkr.com.

Whoever uses it is logged in elsewhere: in the gateway's page, or by a token of OAuth. A session that is not authenticated is refused with
the remedy. Bars are of trades in regular hours, adjusted for splits; dividends are not told. The API gives a year per call here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from math import isfinite, nan
from typing import Any

from pydantic import Field

from schema.exchange_time import new_york_date
from schema.loopback import is_loopback
from sources.answers import EpochMilliseconds, Number, Positive, Text, VendorRecord, bar_row, parsed
from sources.port import LastPrice, SourceBars, SourceInvalid, SourceRefused, SourceUnavailable
from sources.transport import TIMEOUTS, VendorTransport

GATEWAY = "http://127.0.0.1:5000/v1/api"
HOSTED = "https://api.ibkr.com/v1/api"
PER_MINUTE = 300  # the vendor's pace is ten a second, and five histories at once; one call at a time stays below both
#: A listing that begins within a year's answer begins this much after its start; beyond it nothing is older.
BEGINS_AFTER = timedelta(days=10)
YEAR = timedelta(days=366)
SNAPSHOT_TRIES = 5
LAST, BID, ASK = "31", "84", "86"
NOT_LOGGED_IN = ("not authenticated", "no bridge", "not connected")
REMEDY = "log in: open the gateway's page in a browser, or renew IBKR_TOKEN; one user has one session at a time"


class _Contract(VendorRecord):
    conid: int  # which some answers write as text
    is_us: bool = Field(alias="isUS", strict=True)


class _Listing(VendorRecord):
    asset_class: Text = Field(alias="assetClass")
    contracts: list[_Contract]


class _Bar(VendorRecord):
    t: EpochMilliseconds
    o: Number
    h: Number
    l: Number  # noqa: E741 -- the vendor's word
    c: Number
    v: Number


class _History(VendorRecord):
    data: list[_Bar]
    volume_factor: Positive = Field(alias="volumeFactor")


class _Snapshot(VendorRecord):
    conid: int
    updated: EpochMilliseconds | None = Field(default=None, alias="_updated")
    last: Text | None = Field(default=None, alias=LAST)
    bid: Text | None = Field(default=None, alias=BID)
    ask: Text | None = Field(default=None, alias=ASK)


class InteractiveBrokers:
    """`BarSource` and `PriceSource`."""

    name = "ibkr"

    def __init__(
        self,
        *,
        url: str = GATEWAY,
        token: str = "",
        timeouts: tuple[float, float] = TIMEOUTS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if url != HOSTED and not is_loopback(url):
            raise SourceRefused(f"{self.name}: IBKR_URL may be {HOSTED} or the gateway on this machine, like {GATEWAY}, was {url}")
        if url == HOSTED and not token:
            raise SourceRefused(f"{self.name}: IBKR_TOKEN is missing, which {HOSTED} asks for; or run the gateway: IBKR_URL={GATEWAY}")
        self._sleep = sleep
        self._transport = VendorTransport(
            source=self.name,
            url=url,
            per_minute=PER_MINUTE,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            refused=_not_logged_in,
            remedy=REMEDY,
            timeouts=timeouts,
            sleep=sleep,
        )

    def daily_bars(self, symbols: Sequence[str], start: date, end: date) -> SourceBars:
        contracts = self._contracts(symbols)
        rows: list[dict[str, Any]] = []
        for symbol, contract in contracts.items():
            own = {row["ts"]: row for year in self._years(symbol, contract, start, end) for row in year}
            rows += [own[ts] for ts in sorted(own)]
        known = {row["symbol"] for row in rows}
        missing = tuple(symbol for symbol in symbols if symbol not in known)
        return SourceBars(rows=rows, prices="split", missing=missing, remarks=("dividends are left out: this source does not tell them",))

    def _years(self, symbol: str, contract: int, start: date, end: date) -> Iterator[list[dict[str, Any]]]:
        """The bars from `start` to `end`, the newest year first."""
        until = datetime(end.year, end.month, end.day, tzinfo=UTC) + timedelta(days=1)
        while until.date() > start:
            query = {
                "conid": contract,
                "period": "1y",
                "bar": "1d",
                "startTime": f"{until:%Y%m%d-%H:%M:%S}",
                "direction": -1,
                "outsideRth": "false",
                "source": "Last",
            }
            body = self._transport.get("/iserver/marketdata/history", query)
            if isinstance(body, dict) and "error" in body:
                raise SourceUnavailable(f"{self.name}: bars of {symbol}: {self._transport.redacted(str(body['error']))}")
            year = parsed(_History, body, source=self.name, what=f"bars of {symbol}")
            days = {new_york_date(datetime.fromtimestamp(bar.t / 1000, UTC)): bar for bar in year.data}
            yield [
                bar_row(symbol, day, prices=(bar.o, bar.h, bar.l, bar.c), volume=round(bar.v * year.volume_factor, 6))
                for day, bar in days.items()
                if start <= day <= end
            ]
            if days and min(days) >= until.date():
                raise SourceInvalid(f"{self.name}: bars of {symbol}: those before {until.date()} were asked for, {min(days)} is the oldest")
            if not days or min(days) > (until - YEAR + BEGINS_AFTER).date():
                return
            until = datetime(min(days).year, min(days).month, min(days).day, tzinfo=UTC)

    def _contracts(self, symbols: Sequence[str]) -> dict[str, int]:
        """The contract of each symbol's stock in the United States; a dot of ours is their blank."""
        written = {symbol.replace(".", " "): symbol for symbol in symbols}
        body = self._transport.get("/trsrv/stocks", {"symbols": ",".join(written)})
        listed = parsed(dict[str, list[_Listing]], body, source=self.name, what="contracts")
        found: dict[str, int] = {}
        for name, symbol in written.items():
            listings = [listing for listing in listed.get(name, []) if listing.asset_class == "STK"]
            own = [contract.conid for listing in listings for contract in listing.contracts if contract.is_us]
            if len(own) > 1:
                raise SourceInvalid(f"{self.name}: contracts: {symbol} is {len(own)} stocks in the United States: {own}")
            if own:
                found[symbol] = own[0]
        return found

    def last_prices(self, symbols: Sequence[str]) -> dict[str, LastPrice]:
        """Asked until each contract has a price, five times at most: the first call only begins the vendor's own subscription."""
        contracts = self._contracts(symbols)
        self._transport.get("/iserver/accounts")  # which the vendor wants to have been called before
        if not contracts:
            return {}
        query = {"conids": ",".join(str(contract) for contract in contracts.values()), "fields": f"{LAST},{BID},{ASK}"}
        told: dict[int, _Snapshot] = {}
        for attempt in range(SNAPSHOT_TRIES):
            body = self._transport.get("/iserver/marketdata/snapshot", query)
            told |= {own.conid: own for own in parsed(list[_Snapshot], body, source=self.name, what="snapshot") if own.last}
            if told.keys() >= set(contracts.values()):
                break
            if attempt + 1 < SNAPSHOT_TRIES:
                self._sleep(1.0)
        return {symbol: self._last(symbol, told[contract]) for symbol, contract in contracts.items() if contract in told}

    def _last(self, symbol: str, told: _Snapshot) -> LastPrice:
        """A `C` before the price: of the last close; an `H`: trading is halted."""
        if told.updated is None:
            raise SourceInvalid(f"{self.name}: snapshot of {symbol}: _updated: Field required")
        fields: Mapping[str, str | None] = {LAST: told.last, BID: told.bid, ASK: told.ask}
        price, bid, ask = (self._price(symbol, field, text) for field, text in fields.items())
        if price is None:
            raise SourceInvalid(f"{self.name}: snapshot of {symbol}: {LAST}: a price was expected, was {told.last!r}")
        return LastPrice(symbol=symbol, ts=datetime.fromtimestamp(told.updated / 1000, UTC), price=price, bid=bid, ask=ask)

    def _price(self, symbol: str, field: str, text: str | None) -> float | None:
        if not text:
            return None
        try:
            price = float(text.lstrip("CH").replace(",", ""))
        except ValueError:
            price = nan
        if not (isfinite(price) and price > 0):
            raise SourceInvalid(f"{self.name}: snapshot of {symbol}: {field}: a price was expected, was {text[:40]!r}")
        return price


def _not_logged_in(status: int, text: str) -> bool:
    """The gateway sends who is not logged in to its page, or says so within a 400 or a 500."""
    return status in {302, 401, 403} or any(words in text.lower() for words in NOT_LOGGED_IN)
