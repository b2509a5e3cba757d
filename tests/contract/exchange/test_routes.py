"""Which routes are served: any other operation of the vendor's two descriptions answers 501 with its name, and the page says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from local.exchange.http.app import ADMIN, ROUTES
from tests.descriptions import nameless, operations
from tests.exchanges import URL, ExchangeClient

ROOT = Path(__file__).resolve().parents[3]

#: What the exchange is for. A route is added or taken away here first, and in the page.
SERVED = """
GET /v2/clock
GET /v2/calendar
GET /v2/account
GET /v2/account/configurations
PATCH /v2/account/configurations
GET /v2/account/activities
GET /v2/account/activities/{}
GET /v2/account/portfolio/history
GET /v2/assets
GET /v2/assets/{}
GET /v2/positions
DELETE /v2/positions
GET /v2/positions/{}
DELETE /v2/positions/{}
GET /v2/orders
POST /v2/orders
DELETE /v2/orders
GET /v2/orders:by_client_order_id
GET /v2/orders/{}
PATCH /v2/orders/{}
DELETE /v2/orders/{}
GET /v2/stocks/bars
GET /v2/stocks/bars/latest
GET /v2/stocks/quotes
GET /v2/stocks/quotes/latest
GET /v2/stocks/trades
GET /v2/stocks/trades/latest
GET /v2/stocks/snapshots
GET /v2/stocks/{}/bars
GET /v2/stocks/{}/bars/latest
GET /v2/stocks/{}/quotes
GET /v2/stocks/{}/quotes/latest
GET /v2/stocks/{}/trades
GET /v2/stocks/{}/trades/latest
GET /v2/stocks/{}/snapshot
GET /v2/watchlists
POST /v2/watchlists
GET /v2/watchlists:by_name
POST /v2/watchlists:by_name
PUT /v2/watchlists:by_name
DELETE /v2/watchlists:by_name
GET /v2/watchlists/{}
POST /v2/watchlists/{}
PUT /v2/watchlists/{}
DELETE /v2/watchlists/{}
DELETE /v2/watchlists/{}/{}
GET /v2/corporate_actions/announcements
GET /v2/corporate_actions/announcements/{}
GET /v1beta1/screener/stocks/most-actives
GET /v1beta1/screener/{}/movers
GET /v1/corporate-actions
GET /v1beta1/news
""".strip().splitlines()


OPERATIONS = operations()


@pytest.fixture(scope="module")
def client() -> ExchangeClient:
    return ExchangeClient()


def test_the_descriptions_are_whole() -> None:
    assert len(OPERATIONS) == 118
    assert len({path for _, path in OPERATIONS}) == 98


def test_what_is_served_is_described_by_the_vendor() -> None:
    assert [f"{method} {nameless(path)}" for method, path, _ in ROUTES] == SERVED
    assert set(SERVED) <= {f"{method} {nameless(path)}" for method, path in OPERATIONS}


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[f"{method} {path}" for method, path in OPERATIONS])
def test_each_described_operation_is_served_or_says_that_it_is_not(client: ExchangeClient, method: str, path: str) -> None:
    asked = re.sub(r"\{[^}]*\}", "AAPL", path)
    answer = client.http.request(method, URL + asked, json={} if method in ("POST", "PUT", "PATCH") else None)
    if f"{method} {nameless(path)}" in SERVED:
        assert answer.status_code < 500
    else:
        assert (answer.status_code, answer.json()["message"]) == (501, f"{method} {asked} is not served by this exchange")


def test_a_route_of_nobodys_says_so_too(client: ExchangeClient) -> None:
    for method, path in (("GET", "/"), ("GET", "/v2/orders/"), ("GET", "/v2/orders/a/b"), ("DELETE", "/v3/anything")):
        answer = client.http.request(method, URL + path)
        assert (answer.status_code, answer.json()["message"]) == (501, f"{method} {path} is not served by this exchange")


def test_another_method_of_a_served_path_is_not_allowed(client: ExchangeClient) -> None:
    for method, path in (("PUT", "/v2/orders"), ("PUT", "/v2/clock"), ("OPTIONS", "/v2/clock"), ("TRACE", "/v2/account")):
        answer = client.http.request(method, URL + path)
        assert (answer.status_code, answer.json()) == (405, {"code": 40510000, "message": f"{method} is not allowed for {path}"})


def test_every_route_asks_for_keys_but_the_administrators(client: ExchangeClient) -> None:
    for method, path, _ in ROUTES:
        asked = URL + re.sub(r"\{[^}]*\}", "AAPL", path)
        assert client.http.request(method, asked, headers={"APCA-API-SECRET-KEY": None}).status_code == 401
        assert client.http.request(method, asked, headers={"APCA-API-SECRET-KEY": "wrong"}).status_code == 403
    assert client.http.get(f"{URL}/admin/books", headers={"APCA-API-SECRET-KEY": None}).status_code == 200


def test_the_page_lists_the_routes() -> None:
    page = (ROOT / "docs" / "exchange.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(/v[^`]*)` \| ([A-Z, ]+) \|", page, flags=re.MULTILINE)
    listed = {f"{method} {nameless(path)}" for path, methods in rows for method in methods.split(", ")}
    assert listed == set(SERVED)
    for method, path, _ in ADMIN:
        assert f"`{method} {path}" in page
