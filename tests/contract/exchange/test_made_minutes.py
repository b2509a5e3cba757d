"""Minutes made from daily bars, on the wire: bars, quotes, trades and fills go by them, and the answers say what they are."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.exchanges import ExchangeClient

LABEL = "made from daily bars"


@pytest.fixture
def client() -> ExchangeClient:
    """An hour into a session without recorded minutes."""
    return ExchangeClient(now=datetime.fromisoformat("2020-01-03T15:30:00Z"), minutes="made")


def test_bars_quotes_and_trades_go_by_the_minute(client: ExchangeClient) -> None:
    answer = client.get("/v2/stocks/IBM/bars", timeframe="1Min", limit=100)
    rows = answer.json()["bars"]
    assert (len(rows), rows[0]["t"], rows[-1]["t"]) == (60, "2020-01-03T14:30:00Z", "2020-01-03T15:29:00Z")
    assert client.get("/v2/stocks/IBM/bars/latest").json()["bar"] == rows[-1]
    hours = client.get("/v2/stocks/IBM/bars", timeframe="1Hour").json()["bars"]
    assert [(row["t"], row["v"]) for row in hours] == [
        ("2020-01-03T14:00:00Z", sum(row["v"] for row in rows[:30])),
        ("2020-01-03T15:00:00Z", sum(row["v"] for row in rows[30:])),
    ]
    (day,) = client.get("/v2/stocks/IBM/bars", timeframe="1Day").json()["bars"]
    assert (day["o"], day["h"], day["c"]) == (rows[0]["o"], max(row["h"] for row in rows), rows[-1]["c"])
    quote, trade = (client.get(f"/v2/stocks/IBM/{name}s/latest").json()[name] for name in ("quote", "trade"))
    assert quote["bp"] <= trade["p"] <= quote["ap"]
    assert (trade["p"], quote["t"], trade["t"]) == (rows[-1]["c"], "2020-01-03T15:29:59.999000Z", "2020-01-03T15:29:59.999000Z")
    for name in ("quotes", "trades"):
        assert len(client.get(f"/v2/stocks/IBM/{name}", limit=100).json()[name]) == 60
    for path in ("/v2/stocks/IBM/bars/latest", "/v2/stocks/IBM/quotes/latest", "/v2/stocks/snapshots?symbols=IBM"):
        assert client.get(path).headers["X-Papertape-Minutes"] == LABEL
    assert client.get("/admin/books").json()["minutes"] == LABEL


def test_pages_of_minutes_are_the_minutes(client: ExchangeClient) -> None:
    asked = {"symbols": "AAPL,IBM", "timeframe": "1Min", "start": "2020-01-02T15:00:00Z", "end": "2020-01-03T15:00:00Z"}
    whole = client.get("/v2/stocks/bars", limit=10_000, **asked).json()
    assert whole["next_page_token"] is None
    paged, token = {"AAPL": [], "IBM": []}, None
    while token is not None or not paged["AAPL"]:
        page = client.get("/v2/stocks/bars", limit=100, **asked, **({"page_token": token} if token else {})).json()
        for symbol, rows in page["bars"].items():
            paged[symbol] += rows
        token = page["next_page_token"]
    assert paged == whole["bars"]
    assert [len(rows) for rows in paged.values()] == [31, 360 + 31], "both ends included; AAPL's first day has two recorded minutes"


def test_without_the_option_nothing_is_made_and_nothing_says_so() -> None:
    client = ExchangeClient(now=datetime.fromisoformat("2020-01-03T15:30:00Z"))
    answer = client.get("/v2/stocks/IBM/bars", timeframe="1Min")
    assert answer.json()["bars"] == []
    assert "X-Papertape-Minutes" not in answer.headers
    assert "minutes" not in client.get("/admin/books").json()


def test_orders_meet_the_minute(client: ExchangeClient) -> None:
    price = client.get("/v2/stocks/IBM/trades/latest").json()["trade"]["p"]
    client.send("IBM")
    (fill,) = client.get("/admin/books").json()["fills"]
    assert float(fill["price"]) == price
    order = client.limit(price - 0.5, "IBM")
    client.advance("2020-01-03T20:59:00Z")
    rows = client.get("/v2/stocks/IBM/bars", timeframe="1Min", start="2020-01-03T15:30:00Z", limit=400).json()["bars"]
    first = next(row for row in rows if row["c"] <= price - 0.5)
    filled = client.order(order["id"])
    assert (filled["status"], float(filled["filled_avg_price"])) == ("filled", first["c"])


def test_pages_of_a_long_span_are_made_as_they_are_asked_for(client: ExchangeClient) -> None:
    query = {"timeframe": "1Min", "start": "2019-12-23", "sort": "desc", "limit": 500}
    seen, token = [], None
    for _ in range(20):
        page = client.get("/v2/stocks/SPY/bars", page_token=token, **query).json()
        seen += page["bars"]
        token = page["next_page_token"]
        if token is None:
            break
    # Six sessions and a half day, the second of January with its two recorded minutes, and an hour
    assert len(seen) == 5 * 390 + 210 + 2 + 60
    assert [row["t"] for row in seen] == sorted((row["t"] for row in seen), reverse=True)
