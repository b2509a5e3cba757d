"""A small exchange in process, with the vendor's own clients at it: three names from the end of 2019 to May 2020, prices made by hand.

AAPL splits 2:1 on 2020-02-03, IBM pays half a dollar on 2020-02-07, and two minutes of AAPL and SPY are recorded on 2020-01-02.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any

import pandas as pd
import requests
from alpaca.data.historical import NewsClient, StockHistoricalDataClient
from alpaca.trading.client import TradingClient

from lambdas.common.broker.alpaca import AlpacaBroker, Credentials
from local.exchange.costs import TradingCosts
from local.exchange.http.app import Keys, create_app
from local.exchange.in_process import InProcess
from local.exchange.recorded_market import MinutesKind, RecordedMarket
from local.exchange.sessions import ExchangeCalendar
from local.exchange.venue import Venue

URL = "http://exchange.test"
NOBODY = "http://127.0.0.1:9"
KEYS = {"APCA-API-KEY-ID": "local-key", "APCA-API-SECRET-KEY": "local-secret"}
EVE, SLOT = datetime(2019, 12, 31, 22, tzinfo=UTC), datetime(2020, 1, 2, 14, 35, tzinfo=UTC)
#: Open and close of the first session; each session's are a hundredth of a dollar higher than those of the one before.
PRICES = {"AAPL": (100, 104), "IBM": (50, 51), "SPY": (300, 290)}
SPLIT, DIVIDEND = date(2020, 2, 3), date(2020, 2, 7)


@lru_cache(maxsize=3)
def small_market(*, lists_announced: bool = True, minutes: MinutesKind = "recorded") -> RecordedMarket:
    calendar = ExchangeCalendar.xnys(start=date(2019, 11, 25), end=date(2020, 12, 31))
    days = [session.date for session in calendar.sessions if date(2019, 12, 23) <= session.date <= date(2020, 5, 29)]
    rows = []
    for number, day in enumerate(days):
        for symbol, prices in PRICES.items():
            shares = 2 if symbol == "AAPL" and day >= SPLIT else 1
            opens, closes = (price / shares + number / 100 for price in prices)
            rows.append((symbol, pd.Timestamp(day), opens, max(opens, closes) + 1, min(opens, closes) - 1, closes, 1_000_000))
    trades = [
        (symbol, pd.Timestamp(minute), base, base + 2, base - 2, base + move, 500)
        for symbol, base in (("AAPL", 100.0), ("SPY", 300.0))
        for minute, move in (("2020-01-02T14:38:00Z", 1.0), ("2020-01-02T14:39:00Z", -1.0))
    ]
    quotes = [(symbol, ts + pd.Timedelta("59.999s"), close - 0.01, 200, close + 0.01, 300) for symbol, ts, _, _, _, close, _ in trades]
    actions = [("AAPL", pd.Timestamp(SPLIT), "split", 2.0), ("IBM", pd.Timestamp(DIVIDEND), "dividend", 0.5)]
    return RecordedMarket(
        calendar=calendar,
        bars=pd.DataFrame(rows, columns=["symbol", "session", "open", "high", "low", "close", "volume"]),
        actions=pd.DataFrame(actions, columns=["symbol", "ex_date", "kind", "value"]),
        minute_quotes=pd.DataFrame(quotes, columns=["symbol", "ts", "bid", "bid_size", "ask", "ask_size"]),
        minute_trades=pd.DataFrame(trades, columns=["symbol", "ts", "open", "high", "low", "close", "volume"]),
        lists_announced=lists_announced,
        minutes=minutes,
    )


def adapter_of_nobody() -> AlpacaBroker:
    """The app's adapter at an address where nobody listens: whatever it asks fails, and at once."""
    keys = Credentials(key_id="local-key", secret_key="local-secret")
    return AlpacaBroker(credentials=keys, trading_url=NOBODY, data_url=NOBODY, sleep=lambda _: None)


class ExchangeClient:
    """A client at an exchange of its own, without costs, whose dividends are paid."""

    def __init__(
        self, *, now: datetime = SLOT, cash: str = "100000", lists_announced: bool = True, minutes: MinutesKind = "recorded"
    ) -> None:
        market = small_market(lists_announced=lists_announced, minutes=minutes)
        self.venue = Venue(market=market, now=now, cash=Decimal(cash), costs=TradingCosts(), dividends="credit")
        self.adapter = InProcess(create_app(venue=self.venue, keys=Keys()))
        self.http = requests.Session()
        self.http.headers.update(KEYS)
        self.http.mount(URL, self.adapter)

    @cached_property
    def trading(self) -> TradingClient:
        client = TradingClient(*KEYS.values(), url_override=URL)
        client._session.mount(URL, self.adapter)
        return client

    @cached_property
    def stocks(self) -> StockHistoricalDataClient:
        client = StockHistoricalDataClient(*KEYS.values(), url_override=URL)
        client._session.mount(URL, self.adapter)
        return client

    @cached_property
    def broker(self) -> AlpacaBroker:
        """The app's own adapter, whose guard lets it ask this machine alone."""
        own = adapter_of_nobody()
        for client in (own._trading, own._stocks, own._actions):
            client._session.mount(NOBODY, self.adapter)
        return own

    @cached_property
    def news(self) -> NewsClient:
        client = NewsClient(*KEYS.values(), url_override=URL)
        client._session.mount(URL, self.adapter)
        return client

    def advance(self, now: str | datetime) -> None:
        self.venue.advance(now if isinstance(now, datetime) else datetime.fromisoformat(now))

    def send(self, symbol: str = "AAPL", *, side: str = "buy", kind: str = "market", tif: str = "day", **more: Any) -> requests.Response:
        order = {"symbol": symbol, "side": side, "type": kind, "time_in_force": tif, **more}
        return self.http.post(f"{URL}/v2/orders", json=order if "notional" in more else {"qty": "2", **order})

    def limit(self, price: float, symbol: str = "AAPL", **more: Any) -> dict[str, Any]:
        answer = self.send(symbol, kind="limit", limit_price=str(price), **more)
        assert answer.status_code == 200, answer.text
        order: dict[str, Any] = answer.json()
        return order

    def order(self, order_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/v2/orders/{order_id}").json()
        return found

    def get(self, path: str, **query: Any) -> requests.Response:
        return self.http.get(URL + path, params=query)

    def held(self, symbol: str = "AAPL") -> Decimal:
        position = self.venue.book.positions.get(symbol)
        return position.quantity if position is not None else Decimal(0)


def refusal(answer: requests.Response) -> tuple[int, int, str]:
    body = answer.json()
    return answer.status_code, body["code"], body["message"]
