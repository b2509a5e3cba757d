"""Vendors of bars and prices on 127.0.0.1: a small HTTP server that answers as each of them does, and what can go wrong with it.

Alpaca's and Finnhub's answers validate against the vendors' own descriptions (tests/contract/specs). Those of Alpha Vantage, Interactive
Brokers and Yahoo, and the errors of all, are shapes written by hand after the vendors' documentation; the prices are invented.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

import pandas as pd
import requests
from hypothesis import strategies as st

from papertape.market_data.sessions import sessions_between
from sources.alpaca_bars import AlpacaBars
from sources.alpha_vantage import AlphaVantage
from sources.answers import session_start
from sources.finnhub_quotes import Finnhub
from sources.interactive_brokers import InteractiveBrokers
from sources.yahoo import Yahoo

KEY, SECRET = "key-7f3a+91/bd", "secret-55c0e8d2"
FIRST, LAST = date(2018, 1, 2), date(2020, 9, 2)
DAYS = [date.fromisoformat(session.date) for session in sessions_between(FIRST, LAST)]
SPLIT_DAY, EX_DATE = date(2020, 8, 31), date(2020, 8, 7)
NOW = datetime(2020, 9, 2, 22, tzinfo=UTC)
#: Close of the first session, and how much it rises per session, after all splits.
NAMES = {"AAPL": (100.0, 0.05), "BRK.B": (200.0, 0.03)}
SPLITS = {"AAPL": (SPLIT_DAY, 4.0)}
DIVIDENDS = {"AAPL": (EX_DATE, 0.82)}  # dollars per share as it was then

Reply = tuple[int, Any, Mapping[str, str]]
Respond = Callable[[str, dict[str, str]], Reply]


@dataclass(frozen=True)
class Bar:
    day: date
    open: float
    high: float
    low: float
    close: float
    volume: float


def bars(symbol: str, start: date, end: date, prices: str) -> list[Bar]:
    """The invented history as `raw`, `split` or `adjusted` prices."""
    return [bar for bar in _history(symbol, prices) if start <= bar.day <= end]


@cache
def _history(symbol: str, prices: str) -> list[Bar]:
    base, step = NAMES[symbol]
    closes = [base + step * number for number in range(len(DAYS))]
    before_it_paid = closes[DAYS.index(EX_DATE) - 1]
    found = []
    for number, (day, close) in enumerate(zip(DAYS, closes, strict=True)):
        factor, volume = 1.0, 1_000_000 + number * 4
        if symbol in SPLITS and prices == "raw" and day < SPLITS[symbol][0]:
            factor, volume = SPLITS[symbol][1], volume // 4
        if symbol in DIVIDENDS and prices == "adjusted" and day < DIVIDENDS[symbol][0]:
            factor = 1 - DIVIDENDS[symbol][1] / 4 / before_it_paid
        values = [round(value * factor, 6) for value in (close - 0.5, close + 1, close - 1, close)]
        found.append(Bar(day, *values, float(volume)))
    return found


def stamp(day: date) -> str:
    return f"{session_start(day):%Y-%m-%dT%H:%M:%SZ}"


def _asked(query: Mapping[str, str], first: str, last: str) -> tuple[date, date]:
    return date.fromisoformat(query[first][:10]), date.fromisoformat(query[last][:10])


class AlpacaVendor:
    name, keyed, limited, described = "alpaca", True, 429, "alpaca_market-data-api.json"
    page = 500
    revoked: Reply = (401, {"message": f"request is not authorized: {KEY}"}, {})

    def source(self, url: str, **options: Any) -> AlpacaBars:
        return AlpacaBars(key_id=KEY, secret_key=SECRET, url=url, **options)

    def respond(self, path: str, query: dict[str, str]) -> Reply:
        symbols = [symbol for symbol in query["symbols"].split(",") if symbol in NAMES]
        if path == "/v2/stocks/bars":
            start, end = _asked(query, "start", "end")
            assert (query["timeframe"], query["adjustment"], query["feed"]) == ("1Day", "raw", "sip")
            rows = [(symbol, bar) for symbol in symbols for bar in bars(symbol, start, end, "raw")]
            at = int(query.get("page_token", "0"))
            held: dict[str, list[dict[str, Any]]] = {}
            for symbol, bar in rows[at : at + self.page]:
                own = {"t": stamp(bar.day), "o": bar.open, "h": bar.high, "l": bar.low, "c": bar.close, "v": int(bar.volume)}
                held.setdefault(symbol, []).append({**own, "n": 100, "vw": bar.close})
            return 200, {"bars": held, "next_page_token": str(at + self.page) if at + self.page < len(rows) else None}, {}
        if path == "/v1/corporate-actions":
            if date.fromisoformat(query["end"]) > NOW.date():
                return 422, {"message": "end should not be in the future"}, {}
            return 200, {"corporate_actions": self._actions(symbols), "next_page_token": None}, {}
        kind = path.split("/")[3]
        return 200, {kind: {symbol: self._latest(kind, bars(symbol, LAST, LAST, "raw")[0]) for symbol in symbols}}, {}

    @staticmethod
    def _actions(symbols: list[str]) -> dict[str, Any]:
        ident, cusip = "189bd849-ab9f-4b4d-aaaa-a6d415fd976d", "037833100"
        splits = [{"symbol": name, "ex_date": str(SPLITS[name][0]), "new_rate": 4, "old_rate": 1} for name in symbols if name in SPLITS]
        paid = [
            {"symbol": name, "ex_date": str(DIVIDENDS[name][0]), "rate": DIVIDENDS[name][1], "special": False, "foreign": False}
            for name in symbols
            if name in DIVIDENDS
        ]
        both = [{**row, "id": ident, "cusip": cusip, "process_date": "2020-08-31"} for row in (*splits, *paid)]
        return {"forward_splits": both[: len(splits)], "cash_dividends": both[len(splits) :]}

    @staticmethod
    def _latest(kind: str, bar: Bar) -> dict[str, Any]:
        if kind == "trades":
            return {"t": "2020-09-02T19:59:59.123456789Z", "p": bar.close, "s": 100, "x": "V", "c": ["@"], "i": 7, "z": "C"}
        sides = {"ap": bar.close + 0.01, "as": 1, "ax": "V", "bp": 0, "bs": 0, "bx": "V"}
        return {"t": "2020-09-02T19:59:59.5Z", **sides, "c": ["R"], "z": "C"}


class AlphaVantageVendor:
    name, keyed, limited, described = "alphavantage", True, 200, None
    revoked: Reply = (200, {"Error Message": f"the parameter apikey is invalid or missing: {KEY}. Please claim your free API key"}, {})
    LIMIT = (
        f"We have detected your API key as {KEY} and our standard API rate limit is 25 requests per day. Please subscribe to any of the "
        "premium plans to instantly remove all daily rate limits."
    )
    paid_per_minute: int | None = None

    def source(self, url: str, **options: Any) -> AlphaVantage:
        return AlphaVantage(key=KEY, today=NOW.date(), paid_per_minute=self.paid_per_minute, url=url, **options)

    def respond(self, path: str, query: dict[str, str]) -> Reply:
        assert path == "/query"
        function, symbol = query["function"], query["symbol"].replace("-", ".")
        if symbol not in NAMES:
            unknown = {"Error Message": f"Invalid API call. Please retry or visit the documentation for {function}."}
            return 200, {"Global Quote": {}} if function == "GLOBAL_QUOTE" else unknown, {}
        if function == "SPLITS":
            own = SPLITS.get(symbol)
            return 200, {"symbol": symbol, "data": [{"effective_date": str(own[0]), "split_factor": f"{own[1]:.4f}"}] if own else []}, {}
        if function == "DIVIDENDS":
            paid = DIVIDENDS.get(symbol)
            rows = [{"ex_dividend_date": str(paid[0]), "declaration_date": "None", "amount": str(paid[1])}] if paid else []
            return 200, {"symbol": symbol, "data": rows}, {}
        if function == "GLOBAL_QUOTE":
            last = bars(symbol, LAST, LAST, "raw")[0]
            return 200, {"Global Quote": {"01. symbol": symbol, "05. price": str(last.close), "07. latest trading day": str(last.day)}}, {}
        adjusted = function == "TIME_SERIES_DAILY_ADJUSTED"
        if adjusted and self.paid_per_minute is None:
            return 200, {"Information": "Thank you for using Alpha Vantage! This is a premium endpoint."}, {}
        held = bars(symbol, FIRST, LAST, "raw")[0 if query["outputsize"] == "full" else -100 :]
        days = {str(bar.day): self._day(symbol, bar, adjusted) for bar in held}
        return 200, {"Meta Data": {"2. Symbol": symbol}, "Time Series (Daily)": days}, {}

    @staticmethod
    def _day(symbol: str, bar: Bar, adjusted: bool) -> dict[str, str]:
        row = {"1. open": str(bar.open), "2. high": str(bar.high), "3. low": str(bar.low), "4. close": str(bar.close)}
        if not adjusted:
            return {**row, "5. volume": f"{bar.volume:.0f}"}
        split = SPLITS[symbol][1] if symbol in SPLITS and SPLITS[symbol][0] == bar.day else 1.0
        paid = DIVIDENDS[symbol][1] if symbol in DIVIDENDS and DIVIDENDS[symbol][0] == bar.day else 0.0
        beside = {"5. adjusted close": "1.0", "6. volume": f"{bar.volume:.0f}", "7. dividend amount": str(paid)}
        return {**row, **beside, "8. split coefficient": str(split)}


class PaidAlphaVantageVendor(AlphaVantageVendor):
    paid_per_minute = 75


class FinnhubVendor:
    name, keyed, limited, described = "finnhub", True, 429, "finnhub_prices.json"
    revoked: Reply = (401, {"error": f"Invalid API key: {KEY}"}, {})

    def source(self, url: str, **options: Any) -> Finnhub:
        return Finnhub(key=KEY, url=url, **options)

    def respond(self, path: str, query: dict[str, str]) -> Reply:
        symbol = query["symbol"]
        if path == "/quote":
            if symbol not in NAMES:  # which the vendor's own description does not allow: its d and dp are numbers
                return 200, {"c": 0, "d": None, "dp": None, "h": 0, "l": 0, "o": 0, "pc": 0, "t": 0}, {}
            last = bars(symbol, LAST, LAST, "raw")[0]
            told = {"c": last.close, "d": 0.1, "dp": 0.05, "h": last.high, "l": last.low, "o": last.open, "pc": last.close - 0.1}
            return 200, {**told, "t": 1599076800}, {}
        if path == "/stock/dividend":
            start, end = _asked(query, "from", "to")
            paid = DIVIDENDS.get(symbol)
            if paid is None or not start <= paid[0] <= end:
                return 200, [], {}
            return 200, [{"symbol": symbol, "date": str(paid[0]), "amount": paid[1], "adjustedAmount": paid[1] / 4, "currency": "USD"}], {}
        first, last_day = (datetime.fromtimestamp(int(query[name]), UTC).date() for name in ("from", "to"))
        held = bars(symbol, first, last_day, "split") if symbol in NAMES else []
        if not held:
            return 200, {"s": "no_data"}, {}
        columns = {letter: [getattr(bar, word) for bar in held] for letter, word in WORDS.items()}
        return 200, {**columns, "t": [int(session_start(bar.day).timestamp()) for bar in held], "s": "ok"}, {}


WORDS = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}


class InteractiveBrokersVendor:
    name, keyed, limited, described = "ibkr", True, 429, None
    revoked: Reply = (401, {"error": "not authenticated", "statusCode": 401}, {})
    CONIDS: ClassVar = {"AAPL": 265598, "BRK B": 72063691}

    def __init__(self) -> None:
        self.snapshots = 0

    def source(self, url: str, **options: Any) -> InteractiveBrokers:
        return InteractiveBrokers(url=url, token=KEY, **options)

    def respond(self, path: str, query: dict[str, str]) -> Reply:
        if path == "/trsrv/stocks":
            return 200, {name: self._listings(name) for name in query["symbols"].split(",")}, {}
        if path == "/iserver/accounts":
            return 200, {"accounts": ["U1234567"], "selectedAccount": "U1234567"}, {}
        symbols = {conid: name.replace(" ", ".") for name, conid in self.CONIDS.items()}
        if path == "/iserver/marketdata/snapshot":
            self.snapshots += 1
            conids = [int(text) for text in query["conids"].split(",")]
            return 200, [self._snapshot(conid, bars(symbols[conid], LAST, LAST, "raw")[0]) for conid in conids], {}
        until = datetime.strptime(query["startTime"], "%Y%m%d-%H:%M:%S").replace(tzinfo=UTC)
        assert (query["period"], query["bar"], query["direction"]) == ("1y", "1d", "-1")
        held = bars(symbols[int(query["conid"])], until.date() - timedelta(days=365), until.date() - timedelta(days=1), "split")
        rows = [
            {"o": bar.open, "h": bar.high, "l": bar.low, "c": bar.close, "v": bar.volume / 100, "t": self._opens(bar.day)} for bar in held
        ]
        return 200, {"symbol": symbols[int(query["conid"])], "data": rows, "points": len(rows) - 1, "volumeFactor": 100}, {}

    def _listings(self, name: str) -> list[dict[str, Any]]:
        if name not in self.CONIDS:
            return []
        abroad, own = {"conid": 38708077, "exchange": "MEXI", "isUS": False}, {"conid": self.CONIDS[name], "exchange": "NYSE", "isUS": True}
        return [{"name": name, "assetClass": "STK", "contracts": [abroad, own]}]

    def _snapshot(self, conid: int, bar: Bar) -> dict[str, Any]:
        """The first answer has no price: it only begins the subscription."""
        told = {"conid": conid, "conidEx": str(conid), "_updated": 1599076800000}
        return told if self.snapshots == 1 else {**told, "31": f"C{bar.close:.2f}", "84": f"{bar.close - 0.01:.2f}", "86": ""}

    @staticmethod
    def _opens(day: date) -> int:
        return int((session_start(day) + timedelta(hours=9.5)).timestamp() * 1000)


class YahooVendor:
    name, keyed, limited, described = "yahoo", False, 429, None
    revoked: Reply = (401, {}, {})

    def source(self, url: str, **options: Any) -> Yahoo:  # noqa: ARG002 -- the stand-in has it
        timeouts = options.get("timeouts")
        return Yahoo(deployed=False, today=NOW.date(), **({"timeout": timeouts[1]} if timeouts else {}))

    def respond(self, path: str, query: dict[str, str]) -> Reply:
        symbol = path.rsplit("/", 1)[1].replace("-", ".")
        if symbol not in NAMES:
            return 404, {"chart": {"result": None, "error": {"code": "Not Found"}}}, {}
        start, end = (date.fromisoformat(query[name]) for name in ("start", "end"))
        held = bars(symbol, start, end - timedelta(days=1), "adjusted")
        columns = {word.capitalize(): [getattr(bar, word) for bar in held] for word in WORDS.values()}
        return 200, {"days": [str(bar.day) for bar in held], **columns}, {}


VENDORS = (AlpacaVendor, AlphaVantageVendor, PaidAlphaVantageVendor, FinnhubVendor, InteractiveBrokersVendor, YahooVendor)


@dataclass
class VendorServer:
    """A vendor, and what it does to requests: `mend` may replace each reply."""

    vendor: Any
    url: str = ""
    mend: Callable[[Reply], Reply] = lambda reply: reply
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    replies: list[tuple[str, Any]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    open_again: threading.Event = field(default_factory=threading.Event)

    def revoke(self) -> None:
        self.mend = lambda _reply: self.vendor.revoked

    def limit(self, times: int, headers: Mapping[str, str] | None = None) -> None:
        """The next `times` requests are one too many."""
        left = [times]
        body = {"Note": AlphaVantageVendor.LIMIT} if self.vendor.limited == 200 else {"message": f"too many requests of {KEY}"}

        def limited(reply: Reply) -> Reply:
            left[0] -= 1
            return reply if left[0] < 0 else (self.vendor.limited, body, headers or {})

        self.mend = limited

    def stall(self) -> None:
        """Answer nothing until the test is over."""

        def stalled(reply: Reply) -> Reply:
            self.open_again.wait(10)
            return reply

        self.mend = stalled


@contextmanager
def serving(vendor: Any) -> Iterator[VendorServer]:
    state = VendorServer(vendor)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            state.requests.append((parts.path, query))
            state.heads.append(f"{self.headers} {query}")
            status, body, headers = state.mend(vendor.respond(parts.path, query))
            if status == 200:
                state.replies.append((parts.path, body))
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response_only(status)
            for name, value in {
                "Content-Length": str(len(data)),
                "Content-Type": "application/json",
                "Connection": "close",
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = True

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.open_again.set()
        server.shutdown()
        server.server_close()
        thread.join()


def yfinance_at(url: Callable[[], str]) -> ModuleType:
    """A stand-in for yfinance, which is not installed here: the calls that the adapter makes, over the socket, and its errors by name.

    `Ticker.history`, its errors, the 404 of an unknown symbol and what a wrong type raises were compared with yfinance 1.7.0.
    """
    module: Any = ModuleType("yfinance")
    limited = type("YFRateLimitError", (Exception,), {})

    class Ticker:
        def __init__(self, symbol: str) -> None:
            self._symbol = symbol

        def history(self, *, start: str, end: str, interval: str, auto_adjust: bool, actions: bool, timeout: float) -> pd.DataFrame:
            assert (interval, auto_adjust, actions) == ("1d", True, False)
            query = {"start": start, "end": end}
            with requests.Session() as session:
                session.trust_env = False
                response = session.get(f"{url()}/v8/finance/chart/{self._symbol}", params=query, timeout=timeout)
            if response.status_code == 429:
                raise limited("Too Many Requests. Rate limited. Try after a while.")
            response.raise_for_status()
            body = response.json()
            days = pd.to_datetime(body.pop("days")).tz_localize("America/New_York")
            return pd.DataFrame(body, index=days).astype("float64")

    module.Ticker, module.config = Ticker, SimpleNamespace(debug=SimpleNamespace(hide_exceptions=True))
    return module


#: What may stand in the place of a value: of another type, beyond every range, or of no day.
LEAVES: st.SearchStrategy[Any] = (
    st.sampled_from(["0001-01-01", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-10:00", "nan", "1e999", 10**400, -1, [], {}, [[{}]]])
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
)


def replaced(body: Any, at: int, leaf: Any) -> Any:
    """`body` with `leaf` in the place of one of its values."""
    copy = json.loads(json.dumps(body))
    places = list(_places(copy))
    if not places:
        return leaf
    holder, key = places[at % len(places)]
    holder[key] = leaf
    return copy


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []:
        yield node, key
        yield from _places(value)
