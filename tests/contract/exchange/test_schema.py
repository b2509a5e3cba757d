"""Each answer of the exchange validates against Alpaca's own OpenAPI documents (specs/README.md)."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import requests
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from local.exchange.server import RunningExchange
from tests.descriptions import DATA, TRADING, description

ORDER = {"symbol": "AAPL", "qty": "2.5", "side": "buy", "type": "market", "time_in_force": "day"}
ALL = "SPY,QQQ,IWM,AAPL,AIG,BAC,GOOG,IBM"

ANNOUNCED = {"ca_types": "Dividend,Split", "since": "2019-10-20", "until": "2020-01-03"}

READS = [
    (TRADING, "/v2/clock", "/v2/clock", {}),
    (TRADING, "/v2/calendar", "/v2/calendar", {"start": "2020-11-20", "end": "2020-12-31"}),
    (TRADING, "/v2/calendar", "/v2/calendar", {"start": "2020-11-20", "end": "2020-12-31", "date_type": "SETTLEMENT"}),
    (TRADING, "/v2/account", "/v2/account", {}),
    (TRADING, "/v2/account/configurations", "/v2/account/configurations", {}),
    (TRADING, "/v2/watchlists", "/v2/watchlists", {}),
    (TRADING, "/v2/corporate_actions/announcements", "/v2/corporate_actions/announcements", ANNOUNCED),
    (DATA, "/v1beta1/screener/{market_type}/movers", "/v1beta1/screener/stocks/movers", {"top": "3"}),
    (DATA, "/v1beta1/screener/stocks/most-actives", "/v1beta1/screener/stocks/most-actives", {}),
    (DATA, "/v2/stocks/bars", "/v2/stocks/bars", {"symbols": "AAPL", "timeframe": "1Month", "start": "2019-01-01", "adjustment": "all"}),
    (TRADING, "/v2/account/activities", "/v2/account/activities", {}),
    (TRADING, "/v2/account/activities/{activity_type}", "/v2/account/activities/FILL", {}),
    (TRADING, "/v2/account/portfolio/history", "/v2/account/portfolio/history", {"cashflow_types": "ALL"}),
    (TRADING, "/v2/assets", "/v2/assets", {"status": "active"}),
    (TRADING, "/v2/assets/{symbol_or_asset_id}", "/v2/assets/AAPL", {}),
    (TRADING, "/v2/positions", "/v2/positions", {}),
    (TRADING, "/v2/positions/{symbol_or_asset_id}", "/v2/positions/AAPL", {}),
    (TRADING, "/v2/orders", "/v2/orders", {"status": "all"}),
    (TRADING, "/v2/orders:by_client_order_id", "/v2/orders:by_client_order_id", {"client_order_id": "held"}),
    (DATA, "/v2/stocks/bars", "/v2/stocks/bars", {"symbols": ALL, "timeframe": "1Day", "start": "2019-12-01", "limit": "20"}),
    (DATA, "/v2/stocks/quotes/latest", "/v2/stocks/quotes/latest", {"symbols": ALL}),
    (DATA, "/v2/stocks/trades/latest", "/v2/stocks/trades/latest", {"symbols": ALL}),
    (DATA, "/v2/stocks/bars/latest", "/v2/stocks/bars/latest", {"symbols": ALL}),
    (DATA, "/v2/stocks/snapshots", "/v2/stocks/snapshots", {"symbols": ALL}),
    (DATA, "/v2/stocks/{symbol}/bars", "/v2/stocks/AAPL/bars", {"timeframe": "1Day", "start": "2019-12-01", "sort": "desc"}),
    (DATA, "/v2/stocks/{symbol}/quotes/latest", "/v2/stocks/AAPL/quotes/latest", {}),
    (DATA, "/v2/stocks/{symbol}/trades/latest", "/v2/stocks/AAPL/trades/latest", {}),
    (DATA, "/v2/stocks/{symbol}/snapshot", "/v2/stocks/AAPL/snapshot", {}),
    (DATA, "/v1/corporate-actions", "/v1/corporate-actions", {"symbols": ALL, "start": "2005-01-01", "limit": "1000"}),
    (DATA, "/v1beta1/news", "/v1beta1/news", {"symbols": ALL}),
]


@cache
def document(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = _as_json_schema(description(name))
    return schema


def _as_json_schema(node: Any) -> Any:
    """OpenAPI 3.0 as JSON Schema: `nullable` becomes a type, examples that look like keywords go."""
    if isinstance(node, list):
        return [_as_json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    copied = {key: _as_json_schema(value) for key, value in node.items() if key not in ("example", "examples", "x-examples")}
    return {"anyOf": [copied, {"type": "null"}]} if copied.pop("nullable", False) is True else copied


@cache
def validator(name: str, path: str, method: str, status: str) -> Draft202012Validator:
    resource = Resource.from_contents(document(name), default_specification=DRAFT202012)
    pointer = "/".join(["#", "paths", path.replace("/", "~1"), method, "responses", status, "content", "application~1json", "schema"])
    schema = {"$ref": f"urn:{name}{pointer}"}
    return Draft202012Validator(schema, registry=Registry().with_resource(f"urn:{name}", resource), format_checker=FormatChecker())


@pytest.fixture
def trader(exchange: RunningExchange, http: requests.Session) -> requests.Session:
    """A session whose account holds AAPL, has a resting limit order and an expired one, on 2020-01-03 at 09:35."""
    exchange.advance("2020-01-02T14:35:00Z")
    resting = {**ORDER, "type": "limit", "qty": "1", "limit_price": "250"}
    for order in ({**ORDER, "client_order_id": "held"}, resting):
        assert http.post(f"{exchange.url}/v2/orders", json=order).status_code == 200
    exchange.advance("2020-01-03T14:35:00Z")
    assert http.post(f"{exchange.url}/v2/orders", json=resting).status_code == 200
    return http


@pytest.mark.parametrize(("spec", "route", "path", "query"), READS, ids=[f"{read[2]} {len(read[3])}" for read in READS])
def test_reads(exchange: RunningExchange, trader: requests.Session, spec: str, route: str, path: str, query: dict[str, str]) -> None:
    response = trader.get(exchange.url + path, params=query)
    assert response.status_code == 200, response.text
    validator(spec, route, "get", "200").validate(response.json())


def test_minute_data(exchange: RunningExchange, http: requests.Session) -> None:
    exchange.reset(now="2013-10-07T15:00:00Z")
    for route, query in [
        ("/v2/stocks/bars", {"symbols": "SPY,BAC", "timeframe": "1Min"}),
        ("/v2/stocks/quotes/latest", {"symbols": "SPY,BAC"}),
        ("/v2/stocks/trades/latest", {"symbols": "SPY,BAC"}),
        ("/v2/stocks/bars/latest", {"symbols": "SPY,BAC"}),
        ("/v2/stocks/quotes", {"symbols": "SPY,BAC"}),
        ("/v2/stocks/trades", {"symbols": "SPY,BAC"}),
    ]:
        answer = http.get(exchange.url + route, params=query).json()
        (by_symbol,) = (value for key, value in answer.items() if key != "next_page_token")
        assert by_symbol.keys() == {"SPY", "BAC"}
        validator(DATA, route, "get", "200").validate(answer)
    for name, query in (("bars", {"timeframe": "1Min"}), ("quotes", {}), ("trades", {}), ("bars/latest", {})):
        answer = http.get(f"{exchange.url}/v2/stocks/SPY/{name}", params=query).json()
        assert answer[name.split("/")[0] if "latest" not in name else "bar"]
        validator(DATA, f"/v2/stocks/{{symbol}}/{name}", "get", "200").validate(answer)
    snapshots = http.get(f"{exchange.url}/v2/stocks/snapshots", params={"symbols": "SPY"}).json()
    assert snapshots["SPY"].keys() == {"latestTrade", "latestQuote", "minuteBar", "dailyBar", "prevDailyBar"}
    validator(DATA, "/v2/stocks/snapshots", "get", "200").validate(snapshots)


def test_activities_of_each_kind(exchange: RunningExchange, http: requests.Session) -> None:
    exchange.reset(now="2020-08-28T14:00:00Z")
    assert http.post(f"{exchange.url}/v2/orders", json=ORDER).status_code == 200
    exchange.advance("2020-09-01T14:00:00Z")
    rows = http.get(f"{exchange.url}/v2/account/activities").json()
    assert [row["activity_type"] for row in rows] == ["SPLIT", "FILL"]
    validator(TRADING, "/v2/account/activities", "get", "200").validate(rows)
    history = http.get(f"{exchange.url}/v2/account/portfolio/history").json()
    assert len(history["equity"]) == 2
    validator(TRADING, "/v2/account/portfolio/history", "get", "200").validate(history)


def test_replacements_and_closings(exchange: RunningExchange, trader: requests.Session) -> None:
    (resting,) = trader.get(f"{exchange.url}/v2/orders").json()
    replacement = trader.patch(f"{exchange.url}/v2/orders/{resting['id']}", json={"limit_price": "251"})
    validator(TRADING, "/v2/orders/{order_id}", "patch", "200").validate(replacement.json())
    replaced = trader.get(f"{exchange.url}/v2/orders/{resting['id']}").json()
    assert (replaced["status"], replaced["replaced_by"]) == ("replaced", replacement.json()["id"])
    validator(TRADING, "/v2/orders/{order_id}", "get", "200").validate(replaced)
    trader.delete(f"{exchange.url}/v2/orders")
    part = trader.delete(f"{exchange.url}/v2/positions/AAPL", params={"percentage": "50"})
    validator(TRADING, "/v2/positions/{symbol_or_asset_id}", "delete", "200").validate(part.json())
    sale = {**ORDER, "type": "limit", "side": "sell", "qty": "1", "limit_price": "900"}
    assert trader.post(f"{exchange.url}/v2/orders", json=sale).status_code == 200
    for query, statuses in (({}, [403]), ({"cancel_orders": "true"}, [200])):
        closed = trader.delete(f"{exchange.url}/v2/positions", params=query)
        assert (closed.status_code, [row["status"] for row in closed.json()]) == (207, statuses)
        validator(TRADING, "/v2/positions", "delete", "207").validate(closed.json())


def test_orders(exchange: RunningExchange, trader: requests.Session) -> None:
    accepted = trader.post(f"{exchange.url}/v2/orders", json={**ORDER, "qty": None, "notional": "100"})
    validator(TRADING, "/v2/orders", "post", "200").validate(accepted.json())
    read = trader.get(f"{exchange.url}/v2/orders/{accepted.json()['id']}")
    validator(TRADING, "/v2/orders/{order_id}", "get", "200").validate(read.json())
    canceled = trader.delete(f"{exchange.url}/v2/orders")
    assert (canceled.status_code, len(canceled.json())) == (207, 1)
    validator(TRADING, "/v2/orders", "delete", "207").validate(canceled.json())


def test_order_by_id_is_canceled_without_a_body(exchange: RunningExchange, trader: requests.Session) -> None:
    (resting,) = trader.get(f"{exchange.url}/v2/orders").json()
    canceled = trader.delete(f"{exchange.url}/v2/orders/{resting['id']}")
    assert (canceled.status_code, canceled.content) == (204, b"")


BAD_ORDERS = [
    ("{", 400, "request body format is invalid"),
    ("[]", 400, "request body format is invalid"),
    ('{"qty": NaN}', 400, "request body format is invalid"),
    ({**ORDER, "notional": "5"}, 422, "only one of qty or notional is accepted"),
    ({**ORDER, "qty": None}, 422, "qty or notional is required"),
    ({**ORDER, "qty": "0"}, 422, "qty must be above 0 and below 1e15, was 0"),
    ({**ORDER, "qty": "-1"}, 422, "qty must be above 0 and below 1e15, was -1"),
    ({**ORDER, "qty": "NaN"}, 422, "qty must be a number, was 'NaN'"),
    ({**ORDER, "qty": "1_0"}, 422, "qty must be a number, was '1_0'"),
    ({**ORDER, "qty": " 1"}, 422, "qty must be a number, was ' 1'"),
    ({**ORDER, "qty": "1\n"}, 422, "qty must be a number, was '1\\n'"),
    ({**ORDER, "qty": True}, 422, "qty must be a number, was True"),
    ({**ORDER, "qty": "ten"}, 422, "qty must be a number, was 'ten'"),
    ({**ORDER, "qty": "0.0000000001"}, 422, "qty is limited to 9 decimal places, was 0.0000000001"),
    ({**ORDER, "side": "short"}, 422, "side must be one of 'buy', 'sell', was 'short'"),
    ({**ORDER, "side": ["buy"]}, 422, "side must be one of 'buy', 'sell', was ['buy']"),
    ({**ORDER, "type": "on_close"}, 422, "type must be one of 'limit', 'market', 'stop', 'stop_limit', 'trailing_stop', was 'on_close'"),
    ({**ORDER, "order_class": "mleg"}, 422, "order_class must be one of 'bracket', 'oco', 'oto', 'simple', was 'mleg'"),
    ({**ORDER, "position_intent": "buy_to_close"}, 422, "position_intent must be one of 'buy_to_open', was 'buy_to_close'"),
    ({**ORDER, "time_in_force": "gtd"}, 422, "time_in_force must be one of 'cls', 'day', 'fok', 'gtc', 'ioc', 'opg', was 'gtd'"),
    ({**ORDER, "time_in_force": "gtc"}, 422, "fractional orders must be DAY orders"),
    ({**ORDER, "qty": None, "notional": "50", "time_in_force": "ioc"}, 422, "fractional orders must be DAY orders"),
    (
        '{"symbol": "AAPL", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day", "client_order_id": "\\ud800"}',
        422,
        "client_order_id must be text, was '\\ud800'",
    ),
    ({**ORDER, "limit_price": "300"}, 422, "market orders require no stop or limit price"),
    ({**ORDER, "type": "limit"}, 422, "limit orders require a limit price, and no stop price"),
    ({**ORDER, "type": "limit", "limit_price": "300", "stop_price": "5"}, 422, "limit orders require a limit price, and no stop price"),
    ({**ORDER, "symbol": 5}, 422, "symbol is required, was 5"),
    ({**ORDER, "client_order_id": "x" * 129}, 422, f"client_order_id must be a string of at most 128 characters, was '{'x' * 129}'"),
    ({**ORDER, "trail_price": "1"}, 422, "market orders require no stop or limit price"),
    ({**ORDER, "advanced_instructions": {"algorithm": "DMA"}}, 422, "advanced_instructions: not supported by this exchange"),
    ({**ORDER, "extended_hours": True}, 422, "extended hours order must be DAY or GTC limit orders"),
]


@pytest.mark.parametrize(("order", "status", "message"), BAD_ORDERS, ids=range(len(BAD_ORDERS)))
def test_bad_orders_change_nothing(exchange: RunningExchange, http: requests.Session, order: Any, status: int, message: str) -> None:
    exchange.advance("2020-01-02T14:35:00Z")
    body = order if isinstance(order, str) else json.dumps(order)
    response = http.post(f"{exchange.url}/v2/orders", data=body)
    assert (response.status_code, response.json()["message"]) == (status, message)
    assert exchange.books()["orders"] == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/stocks/bars?symbols=SPY&timeframe=1Day&start=yesterday", 400),
        ("/v2/stocks/bars?symbols=SPY&timeframe=1Day&start=0001-01-01T00:00:00%2B23:00", 400),
        ("/v2/stocks/bars?symbols=SPY&timeframe=1Day&limit=0", 400),
        ("/v2/stocks/bars?symbols=SPY&timeframe=1Day&limit=10001", 400),
        ("/v2/stocks/bars?symbols=SPY&timeframe=1Day&page_token=%FF", 400),
        ("/v2/stocks/bars?symbols=SPY&timeframe=1Day&page_token=QUFQTA==", 400),
        ("/v2/stocks/bars?timeframe=1Day", 400),
        ("/v2/stocks/quotes/latest", 400),
        ("/v1/corporate-actions?page_token=LTE=", 400),
        ("/v2/orders?status=some", 422),
        ("/v2/orders?after=then", 400),
        ("/v2/orders/not-an-order", 404),
        ("/v2/calendar?start=2020-13-01", 400),
        ("/v2/wallets", 501),
    ],
)
def test_bad_reads_say_why(exchange: RunningExchange, http: requests.Session, path: str, status: int) -> None:
    response = http.get(exchange.url + path)
    assert response.status_code == status
    assert response.json()["message"]


def test_the_schemas_can_refuse(exchange: RunningExchange, trader: requests.Session) -> None:
    """The translation of the OpenAPI documents kept their teeth: a missing field, a wrong type, an unknown status are seen."""
    account = trader.get(f"{exchange.url}/v2/account").json()
    check = validator(TRADING, "/v2/account", "get", "200")
    bars = trader.get(f"{exchange.url}/v2/stocks/bars", params={"symbols": "SPY", "timeframe": "1Day", "start": "2020-01-02"}).json()
    del bars["bars"]["SPY"][0]["c"]
    for broken, checker in [
        ({**account, "cash": 5}, check),
        ({**account, "status": "FINE"}, check),
        ({key: value for key, value in account.items() if key != "id"}, check),
        (bars, validator(DATA, "/v2/stocks/bars", "get", "200")),
    ]:
        with pytest.raises(ValidationError):
            checker.validate(broken)
