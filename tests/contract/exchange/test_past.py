"""What the exchange tells of an account's past: activities page by page, and the equity of each close."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from alpaca.trading.models import NonTradeActivity, TradeActivity
from alpaca.trading.requests import GetPortfolioHistoryRequest
from pydantic import TypeAdapter

from local.exchange.faults.plan import FaultPlan
from tests.exchanges import ExchangeClient, refusal


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


@pytest.fixture(scope="module")
def veteran() -> ExchangeClient:
    """Bought AAPL and IBM, lived through a split and a dividend, sold IBM; on 2020-02-10 at noon."""
    client = ExchangeClient()
    client.send(qty="1.5")
    client.send("IBM", qty="10")
    client.advance("2020-02-10T15:00:00Z")
    client.send("IBM", side="sell", qty="10")
    client.advance("2020-02-10T17:00:00Z")
    return client


def activities(client: ExchangeClient, path: str = "", **query: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/v2/account/activities{path}", **query)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()
    return rows


def test_activities_are_fills_splits_and_dividends(veteran: ExchangeClient) -> None:
    rows = activities(veteran)
    assert [(row["activity_type"], row["symbol"]) for row in rows] == [
        ("FILL", "IBM"),
        ("DIV", "IBM"),
        ("SPLIT", "AAPL"),
        ("FILL", "IBM"),
        ("FILL", "AAPL"),
    ]
    sold, dividend, split, _, bought = rows
    assert (sold["side"], sold["price"], sold["qty"], sold["cum_qty"], sold["leaves_qty"]) == ("sell", "50.32", "10", "10", "0")
    assert (dividend["net_amount"], dividend["per_share_amount"], dividend["qty"]) == ("5", "0.5", "10")
    assert (dividend["date"], dividend["created_at"]) == ("2020-02-07", "2020-02-07T05:00:00Z")
    assert (split["qty"], split["net_amount"]) == ("1.5", "0")
    assert bought["id"].startswith("20200102093500000::")
    assert (bought["type"], bought["order_status"], bought["transaction_time"]) == ("fill", "filled", "2020-01-02T14:35:00Z")
    assert len({row["id"] for row in rows}) == 5


def test_the_vendors_client_reads_activities(veteran: ExchangeClient) -> None:
    fills = TypeAdapter(list[TradeActivity]).validate_python(
        [{"account_id": veteran.venue.account_id, **row} for row in veteran.trading.get("/account/activities/FILL")]
    )
    assert [fill.qty for fill in fills] == [10, 10, 1.5]
    booked = TypeAdapter(list[NonTradeActivity]).validate_python(
        [
            {"account_id": veteran.venue.account_id, "description": "", "price": 0, **row}
            for row in veteran.trading.get("/account/activities", {"category": "non_trade_activity"})
        ]
    )
    assert [(row.activity_type, row.net_amount) for row in booked] == [("DIV", 5), ("SPLIT", 0)]


def test_pages_of_activities_hold_each_once(veteran: ExchangeClient) -> None:
    for direction in ("asc", "desc"):
        whole = activities(veteran, direction=direction)
        for size in (1, 2, 3, 5):
            seen: list[dict[str, Any]] = []
            while page := activities(veteran, direction=direction, page_size=size, page_token=seen[-1]["id"] if seen else None):
                assert len(page) <= size
                seen += page
            assert seen == whole
    assert activities(veteran, direction="asc") == activities(veteran)[::-1]


@pytest.mark.parametrize(
    ("path", "query", "found"),
    [
        ("", {"activity_types": "FILL"}, 3),
        ("", {"activity_types": "DIV,SPLIT"}, 2),
        ("/SPLIT", {}, 1),
        ("/CSD", {}, 0),
        ("", {"category": "trade_activity"}, 3),
        ("", {"date": "2020-02-10"}, 1),
        ("", {"after": "2020-02-07T05:00:00Z"}, 1),
        ("", {"until": "2020-02-07T05:00:00Z"}, 3),
        ("", {"after": "2020-01-03", "until": "2020-02-08"}, 2),
    ],
)
def test_activities_are_filtered(veteran: ExchangeClient, path: str, query: dict[str, str], found: int) -> None:
    assert len(activities(veteran, path, **query)) == found


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/GIFT", {}, 422),
        ("", {"activity_types": "FILL,GIFT"}, 422),
        ("", {"activity_types": "FILL", "category": "trade_activity"}, 422),
        ("", {"category": "all"}, 422),
        ("", {"page_size": "101"}, 400),
        ("", {"page_token": "20200102093500000::x"}, 422),
        ("", {"after": "then"}, 400),
        ("", {"direction": "up"}, 422),
    ],
)
def test_wrong_questions_about_activities(veteran: ExchangeClient, path: str, query: dict[str, str], status: int) -> None:
    answer = veteran.get(f"/v2/account/activities{path}", **query)
    assert (answer.status_code, bool(answer.json()["message"])) == (status, True)


def test_a_partial_fill_says_what_is_left() -> None:
    client = ExchangeClient()
    client.venue.use_faults(FaultPlan.from_document({"faults": {"partial_fill": {"rate": 1, "expires": 0, "seconds": 60}}}))
    client.send(qty="100")
    client.send("IBM", notional="1000")
    client.advance("2020-01-02T16:00:00Z")
    for symbol in ("AAPL", "IBM"):
        rows = [row for row in activities(client, direction="asc") if row["symbol"] == symbol]
        assert [row["type"] for row in rows] == ["partial_fill"] * (len(rows) - 1) + ["fill"]
        assert len(rows) >= 2
        total = Decimal(0)
        for row in rows:
            total += Decimal(row["qty"])
            assert Decimal(row["cum_qty"]) == total
        assert total == client.held(symbol)
        assert all(Decimal(row["leaves_qty"]) > 0 for row in rows[:-1])
        assert rows[-1]["leaves_qty"] == "0"
    assert {Decimal(row["cum_qty"]) + Decimal(row["leaves_qty"]) for row in activities(client) if row["symbol"] == "AAPL"} == {100}


# Portfolio history


def test_portfolio_history_is_the_equity_of_each_close() -> None:
    client = ExchangeClient()
    client.send(qty="100")  # at 100.06, and each session closes a cent above the one before: 104.06, 104.07, ...
    client.advance("2020-01-08T00:59:59Z")
    history = client.trading.get_portfolio_history()
    assert history.timestamp == [moment("2020-01-03T01:00:00Z"), moment("2020-01-04T01:00:00Z"), moment("2020-01-07T01:00:00Z")]
    assert (history.equity, history.base_value, history.timeframe) == ([100400, 100401, 100402], 100400, "1D")
    assert (history.profit_loss, history.profit_loss_pct) == ([0, 1, 1], [0, 0.00001, 0.00001])
    client.advance("2020-01-08T01:00:00Z")  # eight in the evening
    assert client.trading.get_portfolio_history().equity == [100400, 100401, 100402, 100403]
    last = client.trading.get_portfolio_history(GetPortfolioHistoryRequest(period="2D", pnl_reset="no_reset"))
    assert (last.equity, last.profit_loss, last.base_value) == ([100402, 100403], [1, 2], 100401)
    raw = client.get("/v2/account/portfolio/history", period="2D").json()
    assert (raw["profit_loss"], raw["base_value_asof"]) == ([1, 1], "2020-01-03")
    assert "cashflow" not in raw


@pytest.mark.parametrize(
    ("query", "first", "last", "length"),
    [
        ({}, "2020-01-13", "2020-02-07", 19),  # a month before today, the 10th
        ({"period": "1W"}, "2020-02-04", "2020-02-07", 4),
        ({"period": "5D"}, "2020-02-03", "2020-02-07", 5),
        ({"period": "1A"}, "2020-01-02", "2020-02-07", 26),
        ({"period": "9999A"}, "2020-01-02", "2020-02-07", 26),
        ({"period": "9999M", "end": "0001-01-02"}, None, None, 0),
        ({"start": "2020-02-01"}, "2020-02-03", "2020-02-07", 5),
        ({"start": "2020-01-31", "end": "2020-02-04"}, "2020-01-31", "2020-02-04", 3),
        ({"end": "2020-01-09", "period": "2D"}, "2020-01-08", "2020-01-09", 2),
        ({"date_end": "2020-01-09", "period": "1W"}, "2020-01-03", "2020-01-09", 5),
        ({"start": "2020-01-31", "period": "2D"}, "2020-01-31", "2020-02-03", 2),
        ({"start": "2020-01-02", "period": "1M"}, "2020-01-02", "2020-01-31", 21),
        ({"start": "9999-12-30", "period": "9999A"}, None, None, 0),
    ],
)
def test_the_span_of_a_history(veteran: ExchangeClient, query: dict[str, str], first: str | None, last: str | None, length: int) -> None:
    answer = veteran.get("/v2/account/portfolio/history", **query)
    assert answer.status_code == 200, answer.text
    history = answer.json()
    days = [datetime.fromtimestamp(stamp, tz=UTC).date() for stamp in history["timestamp"]]
    assert len(days) == len(history["equity"]) == len(history["profit_loss"]) == len(history["profit_loss_pct"]) == length
    if first is not None and last is not None:
        # 20:00 in New York is the next day in UTC.
        assert [days[0].toordinal() - 1, days[-1].toordinal() - 1] == [date.fromisoformat(day).toordinal() for day in (first, last)]


def test_dividends_are_in_the_cashflow(veteran: ExchangeClient) -> None:
    history = veteran.trading.get_portfolio_history(GetPortfolioHistoryRequest(period="3D", cashflow_types="ALL"))
    assert history.cashflow == {"DIV": [0, 0, 5]}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"timeframe": "2Min"}, "timeframe must be one of 1D, 1Min, 5Min, 15Min, 1H, was '2Min'"),
        ({"timeframe": "1Min", "intraday_reporting": "continuous"}, "intraday_reporting must be one of market_hours, was 'continuous'"),
        ({"period": "0D"}, "period must be a number from 1 to 9999 and D, W, M or A, was '0D'"),
        ({"period": "1Y"}, "period must be a number from 1 to 9999 and D, W, M or A, was '1Y'"),
        ({"period": "1D", "start": "2020-01-02", "end": "2020-01-03"}, "only two of start, end and period are accepted"),
        ({"pnl_reset": "never"}, "pnl_reset must be one of per_day, no_reset, was 'never'"),
    ],
)
def test_wrong_questions_about_the_history(veteran: ExchangeClient, query: dict[str, str], message: str) -> None:
    assert refusal(veteran.get("/v2/account/portfolio/history", **query)) == (422, 40010001, message)


def test_a_new_account_has_no_past() -> None:
    client = ExchangeClient()
    assert activities(client) == []
    history = client.get("/v2/account/portfolio/history").json()
    assert history == {"timestamp": [], "equity": [], "profit_loss": [], "profit_loss_pct": [], "base_value": 100000.0, "timeframe": "1D"}


def test_the_account_says_what_it_may(veteran: ExchangeClient) -> None:
    allowed = veteran.trading.get_account_configurations()
    assert (allowed.no_shorting, allowed.fractional_trading, allowed.suspend_trade) == (True, True, False)


@pytest.mark.parametrize(("frame", "minutes"), [("1Min", 1), ("15Min", 15), ("1H", 60)])
def test_the_equity_within_a_day_is_what_the_account_said_then(frame: str, minutes: int) -> None:
    """Over fills, a sale, the split of 2020-02-03 and the dividend of 2020-02-07."""
    client = ExchangeClient(now=datetime.fromisoformat("2020-01-31T15:30:00Z"), minutes="made")
    client.send("AAPL", qty="10")
    client.send("IBM", qty="100")
    said = {}
    for day in ("2020-01-31", "2020-02-03", "2020-02-07"):
        begins = datetime.fromisoformat(f"{day}T14:30:00Z")
        for step in range(0, 391, minutes if minutes > 1 else 13):
            stamp = begins + timedelta(minutes=step)
            if stamp < client.venue.now:
                continue
            client.advance(stamp)
            if (day, step) == ("2020-02-03", 195):
                client.send("AAPL", qty="3", side="sell")
            said[int(stamp.timestamp())] = round(float(client.get("/v2/account").json()["equity"]), 2)
    history = client.get("/v2/account/portfolio/history", timeframe=frame, start="2020-01-31").json()
    told = dict(zip(history["timestamp"], history["equity"], strict=True))
    assert {stamp: told[stamp] for stamp in said} == said
    assert (history["timeframe"], history["base_value"], history["profit_loss"][0]) == (frame, 100_000, 0)
    today = client.get("/v2/account/portfolio/history", timeframe=frame, period="1D").json()
    assert today["equity"] == history["equity"][-len(today["equity"]) :]
    assert len(today["equity"]) == 390 // minutes + 1
    assert today["base_value"] == float(round(client.venue.last_equity[1], 2))
