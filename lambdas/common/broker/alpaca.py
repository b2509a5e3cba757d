"""Alpaca behind both ports: alpaca-py's clients on a transport of our own (`transport`). Nothing else speaks to it.

Promises: every call has a connect and a read timeout; a read is tried at most three times; an order is POSTed once, and repeated only
after a 429 or, with rotated keys, a refusal of the keys (which say that it was not accepted) with the same client order id. No address but
Alpaca's paper and data endpoints or this machine is ever contacted, unless two independent switches allow real money. Keys come from
Secrets Manager and appear nowhere else. What it raises is the tree in `port`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache, partial
from typing import Any
from urllib.parse import quote

import boto3
from alpaca.common.enums import Sort
from alpaca.data.enums import Adjustment, DataFeed
from alpaca.data.historical.corporate_actions import CorporateActionsClient
from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.data.requests import CorporateActionsRequest, StockBarsRequest, StockLatestQuoteRequest, StockLatestTradeRequest
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import AssetClass, AssetStatus, QueryOrderStatus
from alpaca.trading.requests import GetAssetsRequest, GetCalendarRequest, GetOrdersRequest
from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lambdas.common.broker import alpaca_wire as wire
from lambdas.common.broker.port import (
    Account,
    Asset,
    BrokerRefused,
    BrokerUnavailable,
    Clock,
    NotFound,
    Order,
    Position,
    QueryRefused,
    Quote,
    Session,
    Submittable,
    Trade,
    Unresolved,
)
from lambdas.common.broker.transport import PAUSE, RESET_TIMEOUT, RETRY_TIMEOUT, Transport
from lambdas.common.environment import Variables, read
from lambdas.common.telemetry import logger
from schema.loopback import is_loopback
from schema.slot import MinutesFeed

#: What one list of orders holds at most.
LIST_LIMIT = 500
PAPER_TRADING = "https://paper-api.alpaca.markets"
LIVE_TRADING = "https://api.alpaca.markets"
DATA = "https://data.alpaca.markets"
LIVE_SWITCH = "yes-real-money"
#: How far an action's process date, by which Alpaca filters, may lie from its ex-date: a dividend is processed on the day it is paid.
PROCESSED_WITHIN = timedelta(days=120)
#: Who may read a feed of minutes, for whoever is refused one.
FEEDS: Mapping[MinutesFeed, str] = {
    "iex": "every plan includes it",
    "sip": "its last fifteen minutes need a paid plan, 'iex' does not",
}


class Credentials(BaseModel):
    """The secret's value. Neither its representation nor an error about it shows anything."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)
    key_id: str = Field(min_length=1, repr=False)
    secret_key: str = Field(min_length=1, repr=False)
    live: bool = False


class BrokerAddresses(Variables):
    alpaca_trading_url: str = PAPER_TRADING
    alpaca_data_url: str = DATA


class BrokerVariables(BrokerAddresses):
    broker_secret_arn: str
    allow_live_trading: str = ""
    broker_connect_timeout: float = Field(default=3.0, gt=0, le=10)
    broker_read_timeout: float = Field(default=10.0, gt=0, le=15)
    broker_pause: float = Field(default=PAUSE, gt=0, le=10)
    broker_reset_timeout: float = Field(default=RESET_TIMEOUT, gt=0, le=90)


def refuse_foreign_broker(*, trading_url: str, data_url: str, environment_switch: str, secret_switch: bool) -> None:
    """Raise `BrokerRefused` unless both addresses are Alpaca's paper and data endpoints or this machine.

    Real money needs two independent switches, ALLOW_LIVE_TRADING in the environment and `"live": true` in the secret, and even then
    only Alpaca's own live address is reachable.
    """
    live = environment_switch == LIVE_SWITCH and secret_switch
    allowed = {PAPER_TRADING, LIVE_TRADING} if live else {PAPER_TRADING}
    if trading_url not in allowed and not _is_local(trading_url):
        raise BrokerRefused(
            f"ALPACA_TRADING_URL may be {PAPER_TRADING} or http://127.0.0.1:<port>, was {trading_url}; "
            f"real money needs both ALLOW_LIVE_TRADING={LIVE_SWITCH} and live in the secret"
        )
    if data_url != DATA and not _is_local(data_url):
        raise BrokerRefused(f"ALPACA_DATA_URL may be {DATA} or http://127.0.0.1:<port>, was {data_url}")


def _is_local(url: str) -> bool:
    return url.startswith("http://") and is_loopback(url)


class _Trading(Transport, TradingClient):
    pass


class _Stocks(Transport, StockHistoricalDataClient):
    pass


class _Actions(Transport, CorporateActionsClient):
    pass


class AlpacaBroker:
    """One account at Alpaca, and its market data: `port.Broker` and `port.MarketData`."""

    def __init__(
        self,
        *,
        credentials: Credentials,
        trading_url: str = PAPER_TRADING,
        data_url: str = DATA,
        live_switch: str = "",
        timeouts: tuple[float, float] = (3.0, 10.0),
        pause: float = PAUSE,
        reset_timeout: float = RESET_TIMEOUT,
        sleep: Callable[[float], None] = time.sleep,
        renew: Callable[[], tuple[str, str] | None] = lambda: None,
    ) -> None:
        refuse_foreign_broker(trading_url=trading_url, data_url=data_url, environment_switch=live_switch, secret_switch=credentials.live)
        self.real_money = live_switch == LIVE_SWITCH or credentials.live
        keys: dict[str, Any] = {"api_key": credentials.key_id, "secret_key": credentials.secret_key, "raw_data": True}
        self._trading = _Trading(**keys, paper=trading_url != LIVE_TRADING, url_override=trading_url)
        self._stocks = _Stocks(**keys, url_override=data_url)
        self._actions = _Actions(**keys, url_override=data_url)
        self.list_limit = LIST_LIMIT
        for client in (self._trading, self._stocks, self._actions):
            client.use(timeouts=timeouts, pause=pause, reset_timeout=reset_timeout, sleep=sleep, renew=renew)

    def clock(self) -> Clock:
        return wire.clock_of(self._trading.get_clock())

    def sessions(self, start: date, end: date) -> list[Session]:
        answer = self._trading.get_calendar(GetCalendarRequest(start=start, end=end))
        return [wire.session_of(row) for row in wire.rows(answer, "calendar")]

    def account(self) -> Account:
        return wire.account_of(self._trading.get_account())

    def assets(self) -> dict[str, Asset]:
        request = GetAssetsRequest(status=AssetStatus.ACTIVE, asset_class=AssetClass.US_EQUITY)
        listed = [wire.asset_of(row) for row in wire.rows(self._trading.get_all_assets(request), "assets")]
        return {asset.symbol: asset for asset in listed}

    def positions(self) -> dict[str, Position]:
        held = [wire.position_of(row) for row in wire.rows(self._trading.get_all_positions(), "positions")]
        return {position.symbol: position for position in held}

    def open_orders(self) -> list[Order]:
        return self._orders(GetOrdersRequest(status=QueryOrderStatus.OPEN, limit=LIST_LIMIT))

    def orders_since(self, moment: datetime) -> list[Order]:
        return self._orders(GetOrdersRequest(status=QueryOrderStatus.ALL, after=moment, limit=LIST_LIMIT, direction=Sort.ASC))

    def _orders(self, request: GetOrdersRequest) -> list[Order]:
        return [wire.order_of(row) for row in wire.rows(self._trading.get_orders(request), "orders")]

    def order(self, order_id: str) -> Order | None:
        try:
            return wire.order_of(self._trading.get(f"/orders/{quote(order_id, safe='')}"))
        except NotFound:
            return None

    def order_by_client_id(self, client_order_id: str) -> Order | None:
        try:
            return wire.order_of(self._trading.get_order_by_client_id(client_order_id))
        except NotFound:
            return None

    def submit(self, order: Submittable, *, retry_timeout: float = RETRY_TIMEOUT) -> Order:
        """POST the order once; after a 429 the same POST is made again if the budget is back within `retry_timeout` seconds."""
        body = {
            "symbol": order.symbol,
            "qty": format(order.quantity, "f"),
            "side": str(order.side),
            "type": "market",
            "time_in_force": "day",
            "client_order_id": order.client_order_id,
        }
        try:
            accepted = wire.order_of(self._trading.write("POST", "/orders", body, retry_timeout=retry_timeout))
        except BrokerUnavailable as error:
            raise Unresolved(f"{order.client_order_id}: {error}") from error
        if accepted.client_order_id != order.client_order_id:
            raise Unresolved(f"the broker answered {order.client_order_id} with another order, {accepted.client_order_id}")
        return accepted

    def cancel(self, order_id: str) -> None:
        self._trading.delete(f"/orders/{quote(order_id, safe='')}")

    def latest_quotes(self, symbols: Sequence[str]) -> dict[str, Quote]:
        request = StockLatestQuoteRequest(symbol_or_symbols=list(symbols), feed=DataFeed.IEX)
        answer = self._market("quotes", lambda: self._stocks.get_stock_latest_quote(request))
        return {symbol: wire.quote_of(symbol, row) for symbol, row in answer.items()}

    def latest_trades(self, symbols: Sequence[str]) -> dict[str, Trade]:
        request = StockLatestTradeRequest(symbol_or_symbols=list(symbols), feed=DataFeed.IEX)
        answer = self._market("trades", lambda: self._stocks.get_stock_latest_trade(request))
        return {symbol: trade for symbol, row in answer.items() if (trade := wire.trade_of(symbol, row)) is not None}

    def daily_bars(self, symbols: Sequence[str], start: date, end: date) -> list[dict[str, Any]]:
        """Ask for the whole days from `start` to `end`.

        A bar is stamped with midnight in New York, so noon UTC of `end` is after it; a later hour would lie in the future when the evening
        asks for its own session, and a free subscription refuses whatever reaches into the last fifteen minutes.
        """
        request = StockBarsRequest(
            symbol_or_symbols=list(symbols),
            timeframe=TimeFrame(1, TimeFrameUnit.Day),
            start=datetime(start.year, start.month, start.day, tzinfo=UTC),
            end=datetime(end.year, end.month, end.day, 12, tzinfo=UTC),
            adjustment=Adjustment.RAW,
            feed=DataFeed.SIP,
        )
        answer = self._market("bars", lambda: self._stocks.get_stock_bars(request))
        return [wire.bar_of(symbol, bar) for symbol in sorted(answer) for bar in answer[symbol]]

    def minute_bars(self, symbols: Sequence[str], start: datetime, end: datetime, *, feed: MinutesFeed) -> list[dict[str, Any]]:
        """A plan that does not include the feed, or its last minutes: `QueryRefused`, with the setting."""
        request = StockBarsRequest(
            symbol_or_symbols=list(symbols),
            timeframe=TimeFrame(1, TimeFrameUnit.Minute),
            start=start,
            end=end,
            adjustment=Adjustment.RAW,
            feed=DataFeed(feed),
        )
        try:
            answer = self._market("minutes", lambda: self._stocks.get_stock_bars(request))
        except QueryRefused as refusal:
            raise QueryRefused(f"{refusal}; settings.data.minutes_feed is {feed!r}: {FEEDS[feed]}") from refusal
        return [wire.bar_of(symbol, bar) for symbol in sorted(answer) for bar in answer[symbol]]

    def corporate_actions(self, symbols: Sequence[str], start: date, end: date) -> list[dict[str, Any]]:
        """Ask for whatever is processed around these ex-dates, ahead of today too.

        Whether Alpaca lists actions that are announced and not processed is not documented; where it does not, they come when they are
        processed. Should it refuse an end that lies ahead, it is asked up to `end`.
        """
        try:
            answer = self._processed(symbols, start - PROCESSED_WITHIN, end + PROCESSED_WITHIN)
        except QueryRefused as refusal:
            logger.warning("actions are not listed ahead", extra={"error": str(refusal)})
            answer = self._processed(symbols, start - PROCESSED_WITHIN, end)
        first, last, names = start.isoformat(), end.isoformat(), set(symbols)
        found = [action for kind, rows in answer.items() for row in rows if (action := wire.action_of(kind, row)) is not None]
        own = {row["id"]: row for row in found if row["symbol"] in names and first <= row["ex_date"] <= last}
        return sorted(own.values(), key=lambda row: (row["symbol"], row["ex_date"], row["kind"], row["id"]))

    def _processed(self, symbols: Sequence[str], start: date, end: date) -> dict[str, Any]:
        request = CorporateActionsRequest(symbols=list(symbols), start=start, end=end, limit=None)
        return self._market("corporate actions", lambda: self._actions.get_corporate_actions(request))

    def _market(self, what: str, call: Callable[[], Any]) -> dict[str, Any]:
        """Call a data client; its own complaint about a body that it does not know is a failed read."""
        with wire.reading(what):
            return wire.mapping(call(), what)


def broker_from_environment(*, environ: Mapping[str, str] | None = None) -> AlpacaBroker:
    """Return this process's broker: addresses and timeouts from the environment, keys from the secret, the paper guard over both."""
    return _broker(read(BrokerVariables, environ=os.environ if environ is None else environ))


def paper_account(secret: str, *, environ: Mapping[str, str]) -> AlpacaBroker:
    """Return the paper account of the keys in `secret`, the text of a secret; real money is out of reach, whatever it says."""
    addresses = read(BrokerAddresses, environ=environ)
    return AlpacaBroker(
        credentials=_parsed(secret, remedy="store the keys again: make secret"),
        trading_url=addresses.alpaca_trading_url,
        data_url=addresses.alpaca_data_url,
    )


@lru_cache(maxsize=4)
def _broker(variables: BrokerVariables) -> AlpacaBroker:
    return AlpacaBroker(
        credentials=stored_credentials(variables.broker_secret_arn),
        trading_url=variables.alpaca_trading_url,
        data_url=variables.alpaca_data_url,
        live_switch=variables.allow_live_trading,
        timeouts=(variables.broker_connect_timeout, variables.broker_read_timeout),
        pause=variables.broker_pause,
        reset_timeout=variables.broker_reset_timeout,
        renew=partial(_rotated, variables.broker_secret_arn),
    )


def forget_broker() -> None:
    """Drop the cached broker and with it the keys."""
    _broker.cache_clear()


def _rotated(arn: str) -> tuple[str, str] | None:
    try:
        now = stored_credentials(arn)
    except BrokerRefused as error:
        logger.error("the keys were refused and cannot be read again", extra={"error": str(error)})
        return None
    return now.key_id, now.secret_key


def stored_credentials(arn: str) -> Credentials:
    """The keys of the secret as they are now; raise `BrokerRefused` where they cannot be read."""
    name = arn.rsplit(":", 1)[-1]
    remedy = "store it: make secret"
    try:
        value = boto3.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]
    except (ClientError, KeyError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else "no text in it"
        raise BrokerRefused(f"the broker's secret {name} cannot be read ({code}); {remedy}") from None
    return _parsed(value, name=name, remedy=remedy)


def _parsed(text: str, *, remedy: str, name: str = "") -> Credentials:
    try:
        return Credentials.model_validate(json.loads(text))
    except (ValueError, ValidationError):
        shape = '{"key_id": "...", "secret_key": "..."}'
        raise BrokerRefused(f"the broker's secret {name or 'text'} is not {shape}; {remedy}") from None
