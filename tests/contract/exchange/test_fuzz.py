"""Requests that schemathesis makes from the vendor's descriptions, right ones and wrong ones: no 5xx, and no answer against its schema.

In process and with a fixed seed, so that a run says the same each time. Half of the values are exchanged for ones that mean something here
(a symbol, an order's id, a day, an order that could be sent), or nearly every answer would be a refusal.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from local.exchange.http.app import ROUTES
from local.exchange.http.wire_market import action_json
from tests.descriptions import DATA, TRADING, description, nameless
from tests.exchanges import KEYS, URL, ExchangeClient

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]
SERVED = {(method, nameless(path)) for method, path, _ in ROUTES}
OPERATIONS = [
    found.ok()
    for name in (TRADING, DATA)
    for found in schemathesis.openapi.from_dict(description(name)).get_all_operations()
    if (found.ok().method.upper(), nameless(found.ok().path)) in SERVED
]
SYMBOLS = ["AAPL", "IBM", "SPY", "ZZZZ"]
MOMENTS = ["2019-12-23", "2020-01-02", "2020-01-02T14:38:00Z", "2020-02-10", "9999-12-31", "0001-01-01"]
SENSIBLE: Mapping[str, list[Any]] = {
    "symbols": ["AAPL", "AAPL,IBM,SPY", "ZZZZ"],
    "timeframe": ["1Day", "1Min", "1D", "5Min", "4Hour", "1Week", "3Month"],
    "status": ["all", "open", "closed", "active"],
    **dict.fromkeys(("start", "end", "after", "until", "date"), MOMENTS),
    "limit": [1, 2, 50],
    "client_order_id": ["first"],
    "page_size": [1, 2],
    "page_token": ["QUFQTHwyMDIwLTAxLTAyVDE0OjM4OjAwWg==", "MQ=="],
    "period": ["1D", "1W", "9999A"],
    "adjustment": ["raw", "all", "split,dividend"],
    "ca_types": ["Dividend", "Split,Dividend"],
    "since": ["2020-01-02", "2020-02-03"],
    "until": ["2020-02-03", "2020-02-10"],
    "name": ["mine"],
    "market_type": ["stocks"],
    "by": ["volume"],
    "top": [1, 3],
    "currency": ["USD"],
    "asset_class": ["us_equity"],
    "qty": ["1", "0.5", "3"],
    "percentage": ["50", "100"],
    "side": ["buy", "sell"],
    "types": ["forward_split", "cash_dividend"],
    "activity_type": ["FILL", "DIV", "SPLIT"],
    "activity_types": ["FILL", "DIV,SPLIT"],
    **dict.fromkeys(("symbol", "symbol_or_asset_id"), SYMBOLS),
}
MARKET = {"symbol": "AAPL", "side": "buy", "type": "market", "time_in_force": "day", "qty": "1"}
BODIES: Mapping[str, list[dict[str, Any]]] = {
    "POST": [
        {**MARKET, "qty": "0.5"},
        {**MARKET, "time_in_force": "cls"},
        {**MARKET, "time_in_force": "ioc", "client_order_id": "once"},
        {"symbol": "IBM", "side": "sell", "type": "market", "time_in_force": "day", "notional": "20"},
        {**MARKET, "type": "limit", "limit_price": "45", "time_in_force": "gtc"},
        {**MARKET, "type": "limit", "limit_price": "45", "time_in_force": "fok"},
        {**MARKET, "type": "stop_limit", "limit_price": "60", "stop_price": "55", "time_in_force": "gtc"},
        {**MARKET, "type": "trailing_stop", "trail_percent": "1", "symbol": "SPY", "side": "sell"},
        {**MARKET, "order_class": "bracket", "take_profit": {"limit_price": "90"}, "stop_loss": {"stop_price": "20"}},
        {**MARKET, "type": "limit", "side": "sell", "order_class": "oco", "limit_price": "90", "stop_loss": {"stop_price": "20"}},
        {**MARKET, "symbol": "ZZZZ"},
    ],
    "PATCH": [
        {"qty": "3"},
        {"limit_price": "44"},
        {"stop_price": "21"},
        {"trail": "2"},
        {"time_in_force": "day"},
        {"client_order_id": "other", "qty": "4"},
    ],
}
LISTS = [{"name": "mine", "symbols": ["SPY"]}, {"name": "other"}, {"symbol": "SPY"}]
CONFIGURATIONS = [{"suspend_trade": True}, {"no_shorting": True, "trade_confirm_email": "all"}, {"max_margin_multiplier": "4"}]


def bodies(path: str, method: str) -> list[dict[str, Any]]:
    return LISTS if "watchlists" in path else CONFIGURATIONS if "configurations" in path else BODIES[method]


EXAMPLES = settings(
    max_examples=12,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def old_account() -> ExchangeClient:
    """It holds AAPL and IBM, saw a split and a dividend, and has orders in every state, on 2020-02-10 at 10:00 in New York."""
    client = ExchangeClient()
    client.send(qty="10", client_order_id="first")
    client.send("IBM", notional="500")
    client.send("SPY")
    client.limit(60, tif="gtc")
    client.advance("2020-02-10T15:00:00Z")
    client.limit(45, side="buy", tif="gtc")
    replaced = client.limit(40, "IBM")
    client.http.patch(f"{URL}/v2/orders/{replaced['id']}", json={"limit_price": "41"})
    client.limit(90, side="sell")
    client.http.delete(f"{URL}/v2/orders/{client.limit(30)['id']}")
    client.http.post(f"{URL}/v2/watchlists", json={"name": "mine", "symbols": SYMBOLS[:2]})
    return client


def recorded_minute() -> ExchangeClient:
    return ExchangeClient(now=datetime.fromisoformat("2020-01-02T14:40:00Z"))


def exchanged(values: Any, sensible: Mapping[str, list[Any]], data: st.DataObject) -> None:
    """Put sensible values in the place of half of those that are there."""
    for name in sorted(set(values) & set(sensible)):
        if data.draw(st.booleans()):
            values[name] = data.draw(st.sampled_from(sensible[name]))


@pytest.fixture(autouse=True, scope="module")
def _nothing_left_to_collect() -> None:
    """A socket of another file's test, collected while hypothesis parses a lambda, breaks CPython 3.11's parser: python/cpython#106905."""
    gc.collect()


@pytest.mark.parametrize("operation", OPERATIONS, ids=[operation.label for operation in OPERATIONS])
def test_no_answer_is_an_error_of_ours_or_against_its_schema(operation: Any) -> None:
    client = recorded_minute() if operation.path.startswith("/v2/stocks") else old_account()
    ids = list(client.venue.book.orders)  # those of the beginning: what is drawn may not depend on what was answered
    lists = [one.id for one in client.venue.preferences.watchlists]
    actions = [action_json(action)[1]["id"] for action in client.venue.market.actions]
    statuses: list[int] = []

    def ask(case: Any, data: st.DataObject) -> None:
        exchanged(case.query, {**SENSIBLE, **dict.fromkeys(("before_order_id", "after_order_id"), ids)}, data)
        exchanged(case.path_parameters, {**SENSIBLE, "order_id": ids, "watchlist_id": lists, "id": actions}, data)
        if isinstance(case.body, dict) and data.draw(st.booleans()):
            case.body = dict(data.draw(st.sampled_from(bodies(operation.path, case.method))))
        # A symbol with a slash in it, or none, is another path here.
        assume(all(str(value).strip(".") and "/" not in str(value) for value in case.path_parameters.values()))
        answer = case.call_and_validate(base_url=URL, session=client.http, headers=dict(KEYS), checks=CHECKS)
        statuses.append(answer.status_code)
        if answer.status_code >= 400:
            assert {"code", "message"} <= answer.json().keys()
        assert client.venue.book.cash >= 0

    # Few orders can still be replaced, few spans are asked for rightly, and few names are of something: it takes more tries to find one
    rare = operation.method == "patch" or operation.path.endswith("announcements")
    examples = settings(EXAMPLES, max_examples=96 if rare else 24 if "{" in operation.path else 12)
    for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
        seed(20200102)(examples(given(case=operation.as_strategy(generation_mode=mode), data=st.data())(ask)))()
    assert any(status < 300 for status in statuses), f"nothing but refusals: {statuses}"
