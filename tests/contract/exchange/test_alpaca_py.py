"""The broker's own client, unmodified, drives every route that the exchange serves."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
import requests
from alpaca.common.enums import Sort
from alpaca.common.exceptions import APIError
from alpaca.data.enums import Adjustment
from alpaca.data.historical import NewsClient, StockHistoricalDataClient
from alpaca.data.historical.corporate_actions import CorporateActionsClient
from alpaca.data.requests import (
    CorporateActionsRequest,
    NewsRequest,
    StockBarsRequest,
    StockLatestBarRequest,
    StockLatestQuoteRequest,
    StockLatestTradeRequest,
    StockQuotesRequest,
    StockSnapshotRequest,
    StockTradesRequest,
)
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import AccountStatus, OrderSide, OrderStatus, QueryOrderStatus, TimeInForce
from alpaca.trading.requests import (
    ClosePositionRequest,
    GetAssetsRequest,
    GetCalendarRequest,
    GetOrderByIdRequest,
    GetOrdersRequest,
    GetPortfolioHistoryRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    ReplaceOrderRequest,
)

from local.exchange.server import RunningExchange

FIRST_SLOT = "2020-01-02T14:35:00Z"
AAPL_OPEN = Decimal("296.27")  # raw open of AAPL on 2020-01-02, in data/daily_bars.parquet


@pytest.fixture
def trading(exchange: RunningExchange) -> TradingClient:
    return TradingClient("local-key", "local-secret", paper=True, url_override=exchange.url)


@pytest.fixture
def data(exchange: RunningExchange) -> StockHistoricalDataClient:
    return StockHistoricalDataClient("local-key", "local-secret", url_override=exchange.url)


def market(symbol: str = "AAPL", side: OrderSide = OrderSide.BUY, **fields: object) -> MarketOrderRequest:
    return MarketOrderRequest(symbol=symbol, side=side, time_in_force=TimeInForce.DAY, **fields)


def refusal(error: pytest.ExceptionInfo[APIError]) -> tuple[int, int, str]:
    return error.value.status_code, error.value.code, error.value.message


def test_clock_follows_the_administrator(exchange: RunningExchange, trading: TradingClient) -> None:
    before = trading.get_clock()
    assert not before.is_open
    assert before.timestamp == datetime(2019, 12, 31, 22, tzinfo=UTC)
    assert before.next_open == datetime(2020, 1, 2, 14, 30, tzinfo=UTC)
    assert exchange.advance(FIRST_SLOT) == {"now": FIRST_SLOT, "is_open": True}
    during = trading.get_clock()
    assert during.is_open
    assert during.next_close == datetime(2020, 1, 2, 21, tzinfo=UTC)


def test_calendar_has_holidays_and_half_days(trading: TradingClient) -> None:
    days = trading.get_calendar(GetCalendarRequest(start=date(2020, 11, 25), end=date(2020, 11, 30)))
    assert [(day.date, day.open.strftime("%H:%M"), day.close.strftime("%H:%M")) for day in days] == [
        (date(2020, 11, 25), "09:30", "16:00"),
        (date(2020, 11, 27), "09:30", "13:00"),
        (date(2020, 11, 30), "09:30", "16:00"),
    ]


def test_new_account(trading: TradingClient) -> None:
    account = trading.get_account()
    assert account.status is AccountStatus.ACTIVE
    assert (account.currency, account.cash, account.equity, account.last_equity, account.buying_power) == ("USD", *["100000"] * 4)
    assert trading.get_all_positions() == []


def test_market_order_fills_at_the_open_with_slippage(exchange: RunningExchange, trading: TradingClient) -> None:
    exchange.advance(FIRST_SLOT)
    order = trading.submit_order(market(qty=10.123456789, client_order_id="pt1-one"))
    price = AAPL_OPEN * Decimal("1.001")
    assert order.status is OrderStatus.FILLED
    assert (order.filled_qty, order.filled_avg_price) == ("10.123456789", str(price))
    assert order.filled_at == datetime(2020, 1, 2, 14, 35, tzinfo=UTC)
    account, position = trading.get_account(), trading.get_open_position("AAPL")
    spent = Decimal("10.123456789") * price
    assert Decimal(account.cash) == 100_000 - spent
    assert Decimal(account.equity) == 100_000 - spent + Decimal("10.123456789") * AAPL_OPEN
    assert (position.qty, position.qty_available, Decimal(position.avg_entry_price)) == ("10.123456789", "10.123456789", price)
    assert trading.get_order_by_id(order.id) == trading.get_order_by_client_id("pt1-one") == order
    assert trading.get_open_position(position.asset_id) == position


def test_notional_order_buys_what_the_money_buys(exchange: RunningExchange, trading: TradingClient) -> None:
    exchange.advance(FIRST_SLOT)
    order = trading.submit_order(market(notional=1000))
    assert order.notional == "1000"
    assert order.qty is None
    spent = Decimal(order.filled_qty) * Decimal(order.filled_avg_price)
    assert 0 <= 1000 - spent < Decimal(order.filled_avg_price) * Decimal("1e-9")


def test_sell_everything_leaves_no_position(exchange: RunningExchange, trading: TradingClient) -> None:
    exchange.advance(FIRST_SLOT)
    bought = trading.submit_order(market(notional=5000))
    sold = trading.submit_order(market(side=OrderSide.SELL, qty=float(bought.filled_qty)))
    assert sold.status is OrderStatus.FILLED
    assert trading.get_all_positions() == []
    with pytest.raises(APIError) as error:
        trading.get_open_position("AAPL")
    assert refusal(error) == (404, 40410000, "position does not exist")


def test_order_at_night_waits_for_the_open(exchange: RunningExchange, trading: TradingClient) -> None:
    order = trading.submit_order(market(qty=1))
    assert order.status is OrderStatus.ACCEPTED
    assert [o.id for o in trading.get_orders()] == [order.id]
    exchange.advance("2020-01-02T14:29:59Z")
    assert trading.get_order_by_id(order.id).status is OrderStatus.ACCEPTED
    exchange.advance(FIRST_SLOT)
    filled = trading.get_order_by_id(order.id)
    assert filled.filled_at == datetime(2020, 1, 2, 14, 30, tzinfo=UTC)
    assert Decimal(filled.filled_avg_price) == AAPL_OPEN * Decimal("1.001")


def test_limit_orders_fill_rest_expire_and_cancel(exchange: RunningExchange, trading: TradingClient) -> None:
    exchange.advance(FIRST_SLOT)

    def limit(price: float) -> LimitOrderRequest:
        return LimitOrderRequest(symbol="AAPL", qty=2, side=OrderSide.BUY, time_in_force=TimeInForce.DAY, limit_price=price)

    assert trading.submit_order(limit(300)).status is OrderStatus.FILLED
    resting, unwanted = trading.submit_order(limit(290)), trading.submit_order(limit(280))
    trading.cancel_order_by_id(unwanted.id)
    assert trading.get_order_by_id(unwanted.id).status is OrderStatus.CANCELED
    exchange.advance("2020-01-02T21:00:00Z")
    expired = trading.get_order_by_id(resting.id)
    assert (expired.status, expired.expired_at) == (OrderStatus.EXPIRED, datetime(2020, 1, 2, 21, tzinfo=UTC))
    with pytest.raises(APIError) as error:
        trading.cancel_order_by_id(resting.id)
    assert error.value.status_code == 422


def test_cancel_all_orders(exchange: RunningExchange, trading: TradingClient) -> None:
    orders = [trading.submit_order(market(symbol, qty=1)) for symbol in ("AAPL", "SPY")]
    assert [(c.id, c.status) for c in trading.cancel_orders()] == [(order.id, 200) for order in orders]
    assert trading.get_orders() == []


def test_orders_are_listed_by_filter(exchange: RunningExchange, trading: TradingClient) -> None:
    exchange.advance(FIRST_SLOT)
    first = trading.submit_order(market("AAPL", qty=1))
    exchange.advance("2020-01-03T14:35:00Z")
    second = trading.submit_order(market("SPY", qty=1))
    waiting = trading.submit_order(LimitOrderRequest(symbol="IBM", qty=1, side="buy", time_in_force="day", limit_price=1))

    def found(**filters: object) -> list[str]:
        return [str(order.id) for order in trading.get_orders(GetOrdersRequest(**filters))]

    a, b, c = (str(order.id) for order in (first, second, waiting))
    assert found() == [c]
    assert found(status=QueryOrderStatus.ALL) == [c, b, a]
    assert found(status=QueryOrderStatus.CLOSED, direction="asc") == [a, b]
    assert found(status=QueryOrderStatus.ALL, limit=2) == [c, b]
    assert found(status=QueryOrderStatus.ALL, symbols=["AAPL", "IBM"]) == [c, a]
    assert found(status=QueryOrderStatus.ALL, after=datetime(2020, 1, 2, 14, 35, tzinfo=UTC)) == [c, b]
    assert found(status=QueryOrderStatus.ALL, until=datetime(2020, 1, 2, 14, 35, tzinfo=UTC)) == [a]
    assert found(status=QueryOrderStatus.ALL, side=OrderSide.SELL) == []


def test_refusals_have_the_vendors_codes(exchange: RunningExchange, trading: TradingClient) -> None:
    exchange.advance(FIRST_SLOT)
    trading.submit_order(market(qty=1, client_order_id="pt1-once"))
    for request, expected in [
        (market(qty=1, client_order_id="pt1-once"), (422, 40010001, "client_order_id must be unique")),
        (market(qty=1000), (403, 40310000, "insufficient buying power")),
        (market(side=OrderSide.SELL, qty=2), (403, 40310000, "insufficient qty available for order (requested: 2, available: 1)")),
        (market("ZZZZ", qty=1), (422, 42210000, 'asset "ZZZZ" not found')),
    ]:
        with pytest.raises(APIError) as error:
            trading.submit_order(request)
        assert refusal(error) == expected
    with pytest.raises(APIError) as error:
        trading.get_order_by_client_id("never sent")
    assert refusal(error) == (404, 40410000, "order not found for never sent")
    assert exchange.books()["counts"] == {"orders": 1, "fills": 1, "refused": 4, "duplicates": 1}


def test_assets(exchange: RunningExchange, trading: TradingClient) -> None:
    listed = {asset.symbol: asset for asset in trading.get_all_assets(GetAssetsRequest())}
    assert {"SPY", "QQQ", "IWM", "AAPL", "AIG", "BAC", "GOOG", "IBM"} <= listed.keys()
    assert trading.get_asset("AAPL") == trading.get_asset(listed["AAPL"].id) == listed["AAPL"]
    assert listed["AAPL"].fractionable
    exchange.reset(now="2011-03-22T15:00:00Z")
    assert not trading.get_asset("QQQ").tradable
    exchange.advance("2011-03-23T14:00:00Z")
    assert trading.get_asset("QQQ").tradable
    with pytest.raises(APIError) as error:
        trading.get_asset("ZZZZ")
    assert error.value.status_code == 404


def test_daily_bars_end_with_the_running_session_as_far_as_it_has_run(exchange: RunningExchange, data: StockHistoricalDataClient) -> None:
    exchange.advance("2020-01-03T20:59:59Z")
    request = StockBarsRequest(
        symbol_or_symbols=["SPY", "AAPL"],
        timeframe=TimeFrame.Day,
        start=datetime(2019, 12, 31, tzinfo=UTC),
        end=datetime(2020, 6, 1, tzinfo=UTC),
        adjustment=Adjustment.RAW,
    )
    bars = data.get_stock_bars(request).data
    days = [datetime(2019, 12, 31, 5, tzinfo=UTC), datetime(2020, 1, 2, 5, tzinfo=UTC), datetime(2020, 1, 3, 5, tzinfo=UTC)]
    assert {symbol: [bar.timestamp for bar in rows] for symbol, rows in bars.items()} == {"AAPL": days, "SPY": days}
    assert Decimal(str(bars["AAPL"][1].open)) == AAPL_OPEN
    running = bars["AAPL"][2]
    assert (running.high, running.low, running.close, running.volume) == (running.open, running.open, running.open, 0)
    exchange.advance("2020-01-03T21:00:00Z")
    *_, closed = data.get_stock_bars(request).data["AAPL"]
    assert (closed.timestamp, closed.open) == (running.timestamp, running.open)
    assert closed.volume > 0


def test_pages_hold_every_bar_once(exchange: RunningExchange, http: requests.Session) -> None:
    query = {"symbols": "SPY,IBM,AAPL", "timeframe": "1Day", "start": "2019-12-02", "end": "2019-12-31"}
    whole = http.get(f"{exchange.url}/v2/stocks/bars", params=query).json()
    assert whole["next_page_token"] is None
    for limit in (1, 7, 21, 22, 62):
        seen: dict[str, list[dict[str, object]]] = {}
        token, pages = None, 0
        while pages == 0 or token is not None:
            page = http.get(f"{exchange.url}/v2/stocks/bars", params={**query, "limit": limit, "page_token": token}).json()
            assert 0 < sum(len(rows) for rows in page["bars"].values()) <= limit
            for symbol, rows in page["bars"].items():
                seen.setdefault(symbol, []).extend(rows)
            token, pages = page["next_page_token"], pages + 1
        assert seen == whole["bars"]


def test_bars_are_adjusted_and_put_together(exchange: RunningExchange, data: StockHistoricalDataClient) -> None:
    """AAPL split 4:1 on 2020-08-31; its five minutes from 2014-06-09 9:30 on hold those minutes."""
    exchange.advance("2020-09-01T21:00:00Z")
    span = {"symbol_or_symbols": "AAPL", "start": datetime(2020, 8, 28, tzinfo=UTC), "end": datetime(2020, 8, 29, tzinfo=UTC)}
    (raw,), (split,) = (
        data.get_stock_bars(StockBarsRequest(timeframe=TimeFrame.Day, adjustment=kind, **span)).data["AAPL"]
        for kind in (Adjustment.RAW, Adjustment.SPLIT)
    )
    assert (split.close, split.volume) == (round(raw.close / 4, 4), 4 * raw.volume)
    start = datetime(2014, 6, 9, 13, 30, tzinfo=UTC)
    five, minutes = (
        data.get_stock_bars(StockBarsRequest(symbol_or_symbols="AAPL", timeframe=frame, start=start, limit=count)).data["AAPL"]
        for frame, count in ((TimeFrame(5, TimeFrameUnit.Minute), 1), (TimeFrame.Minute, 5))
    )
    assert (five[0].timestamp, five[0].volume) == (start, sum(bar.volume for bar in minutes))
    assert (five[0].open, five[0].high, five[0].close) == (minutes[0].open, max(bar.high for bar in minutes), minutes[-1].close)


def test_quotes_and_trades_of_a_day_without_recorded_minutes(exchange: RunningExchange, data: StockHistoricalDataClient) -> None:
    exchange.advance(FIRST_SLOT)
    quote = data.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols=["AAPL", "ZZZZ"]))
    trade = data.get_stock_latest_trade(StockLatestTradeRequest(symbol_or_symbols="AAPL"))
    assert quote.keys() == trade.keys() == {"AAPL"}
    assert quote["AAPL"].bid_price == quote["AAPL"].ask_price == trade["AAPL"].price == float(AAPL_OPEN)
    assert trade["AAPL"].timestamp == datetime(2020, 1, 2, 14, 30, tzinfo=UTC)
    exchange.advance("2020-01-02T21:00:00Z")
    assert data.get_stock_latest_trade(StockLatestTradeRequest(symbol_or_symbols="AAPL"))["AAPL"].price == 300.35


def test_recorded_minutes_are_served_as_they_end(exchange: RunningExchange, data: StockHistoricalDataClient) -> None:
    exchange.reset(now="2013-10-04T15:00:00Z")
    quote = data.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols="SPY"))["SPY"]
    assert quote.timestamp == datetime(2013, 10, 4, 14, 59, 59, 999000, tzinfo=UTC)
    assert 0 < quote.ask_price - quote.bid_price < 0.05
    trade = data.get_stock_latest_trade(StockLatestTradeRequest(symbol_or_symbols="SPY"))["SPY"]
    bar = data.get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols="SPY"))["SPY"]
    assert (trade.price, trade.timestamp) == (bar.close, quote.timestamp)
    assert quote.bid_price <= trade.price <= quote.ask_price
    request = StockBarsRequest(symbol_or_symbols="SPY", timeframe=TimeFrame.Minute, start=datetime(2013, 10, 4, 13, 30, tzinfo=UTC))
    minutes = data.get_stock_bars(request).data["SPY"]
    assert (len(minutes), minutes[0].timestamp, minutes[-1]) == (90, datetime(2013, 10, 4, 13, 30, tzinfo=UTC), bar)


def test_corporate_actions_appear_on_their_ex_date(exchange: RunningExchange) -> None:
    client = CorporateActionsClient("local-key", "local-secret", url_override=exchange.url)
    request = CorporateActionsRequest(symbols=["AAPL"], start=date(2020, 8, 1), end=date(2020, 9, 30))
    exchange.advance("2020-08-31T03:59:59Z")
    assert [(d.ex_date, d.rate) for d in client.get_corporate_actions(request).data["cash_dividends"]] == [(date(2020, 8, 7), 0.82)]
    assert "forward_splits" not in client.get_corporate_actions(request).data
    exchange.advance("2020-08-31T04:00:00Z")
    (split,) = client.get_corporate_actions(request).data["forward_splits"]
    assert (split.ex_date, split.new_rate, split.old_rate) == (date(2020, 8, 31), 4.0, 1.0)


def test_reverse_split_of_aig(exchange: RunningExchange) -> None:
    exchange.reset(now="2009-07-01T12:00:00Z")
    client = CorporateActionsClient("local-key", "local-secret", url_override=exchange.url)
    (split,) = client.get_corporate_actions(CorporateActionsRequest(symbols=["AIG"], start=date(2009, 7, 1))).data["reverse_splits"]
    assert (split.new_rate, split.old_rate) == (1.0, 20.0)


def test_the_bundle_s_news_is_invented_and_says_so(exchange: RunningExchange) -> None:
    exchange.advance("2020-02-03T14:35:00Z")
    request = NewsRequest(symbols="AAPL,SPY", start=datetime(2020, 1, 2, tzinfo=UTC), limit=50)
    articles = NewsClient("local-key", "local-secret", url_override=exchange.url).get_news(request).data["news"]
    assert len(articles) > 5
    assert {(one.author, one.source) for one in articles} == {("papertape (invented)", "papertape (invented)")}
    assert {symbol for one in articles for symbol in one.symbols} == {"AAPL", "SPY"}


def test_position_through_apples_split(exchange: RunningExchange, trading: TradingClient) -> None:
    exchange.advance("2020-08-28T14:00:00Z")
    trading.submit_order(market(qty=3.5))
    exchange.advance("2020-08-31T03:59:59Z")
    before, equity = trading.get_open_position("AAPL"), trading.get_account().equity
    exchange.advance("2020-08-31T04:00:00Z")
    after = trading.get_open_position("AAPL")
    assert (before.qty, after.qty) == ("3.5", "14")
    assert Decimal(after.avg_entry_price) * 4 == Decimal(before.avg_entry_price)
    assert Decimal(after.current_price) * 4 == Decimal(before.current_price)
    assert trading.get_account().equity == equity
    exchange.advance("2020-08-31T13:35:00Z")
    assert trading.get_open_position("AAPL").current_price == "127.67"  # the raw open of that day


def test_wrong_keys_are_refused(exchange: RunningExchange) -> None:
    with pytest.raises(APIError) as error:
        TradingClient("local-key", "wrong", url_override=exchange.url).get_account()
    assert (error.value.status_code, error.value.message) == (403, "forbidden.")
    assert requests.get(f"{exchange.url}/v2/account", timeout=5).status_code == 401


def test_an_order_is_replaced_and_its_position_closed(exchange: RunningExchange, trading: TradingClient) -> None:
    exchange.advance(FIRST_SLOT)
    request = LimitOrderRequest(symbol="AAPL", qty=2, side=OrderSide.BUY, time_in_force=TimeInForce.GTC, limit_price=280)
    resting = trading.submit_order(request)
    replacement = trading.replace_order_by_id(resting.id, ReplaceOrderRequest(qty=4, limit_price=300.5))
    assert (replacement.replaces, replacement.status, replacement.filled_qty) == (resting.id, OrderStatus.FILLED, "4")
    replaced = trading.get_order_by_id(resting.id, GetOrderByIdRequest(nested=True))
    assert (replaced.status, replaced.replaced_by, replaced.replaced_at) == (OrderStatus.REPLACED, replacement.id, replacement.created_at)
    assert trading.close_position("AAPL", ClosePositionRequest(percentage="25")).qty == "1"
    assert trading.close_position("AAPL", ClosePositionRequest(qty="1")).status is OrderStatus.FILLED
    promised = trading.submit_order(
        LimitOrderRequest(symbol="AAPL", qty=1, side=OrderSide.SELL, time_in_force=TimeInForce.DAY, limit_price=900)
    )
    (refused,) = trading.close_all_positions()
    assert (refused.status, refused.symbol, refused.body.code, refused.body.available) == (403, "AAPL", 40310000, 1)
    (closed,) = trading.close_all_positions(cancel_orders=True)
    assert (closed.status, closed.body.status) == (200, OrderStatus.FILLED)
    assert trading.get_order_by_id(promised.id).status is OrderStatus.CANCELED
    assert trading.get_all_positions() == []


def test_the_account_past_and_present(exchange: RunningExchange, trading: TradingClient) -> None:
    exchange.advance(FIRST_SLOT)
    trading.submit_order(market(qty=1))
    exchange.advance("2020-01-04T15:00:00Z")
    history = trading.get_portfolio_history(GetPortfolioHistoryRequest(period="1W", timeframe="1D"))
    assert (len(history.equity), history.base_value) == (2, history.equity[0])
    (fill,) = trading.get("/account/activities/FILL")
    assert (fill["symbol"], fill["qty"]) == ("AAPL", "1")
    assert trading.get_account_configurations().no_shorting


def test_history_and_snapshots_of_recorded_minutes(exchange: RunningExchange, data: StockHistoricalDataClient) -> None:
    exchange.reset(now="2013-10-04T15:00:00Z")
    start = datetime(2013, 10, 4, 13, 30, tzinfo=UTC)
    quotes = data.get_stock_quotes(StockQuotesRequest(symbol_or_symbols="SPY", start=start, limit=5)).data["SPY"]
    trades = data.get_stock_trades(StockTradesRequest(symbol_or_symbols="SPY", start=start, sort=Sort.DESC)).data["SPY"]
    assert (len(quotes), len(trades), trades[0].timestamp > trades[-1].timestamp) == (5, 90, True)
    snapshot = data.get_stock_snapshot(StockSnapshotRequest(symbol_or_symbols=["SPY", "BAC"]))["SPY"]
    assert snapshot.daily_bar.close == snapshot.minute_bar.close == snapshot.latest_trade.price == trades[0].price
    assert snapshot.daily_bar.volume > snapshot.minute_bar.volume > 0
    assert snapshot.previous_daily_bar.timestamp == datetime(2013, 10, 3, 4, tzinfo=UTC)


def test_other_routes_say_that_they_are_not_served(trading: TradingClient) -> None:
    with pytest.raises(APIError) as error:
        trading.get("/wallets")
    assert (error.value.status_code, error.value.message) == (501, "GET /v2/wallets is not served by this exchange")
