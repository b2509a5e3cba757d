"""The portfolio page: closes, fills and the lake's bars in, dollars and shares out."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from lambdas.common.lake import lake as lakes
from lambdas.common.lake.lake import pack
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import BrokerState, Fill, Held, OrderRecord, Snapshot
from schema.lake_layout import actions_key, bars_key, quotes_prefix
from tests.aws.dashboard.conftest import Web

SESSIONS = ("2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07")
#: SPY splits two for one on the 6th, QQQ pays a dollar on the 7th.
CLOSES = {"SPY": (100.0, 110.0, 60.0, 57.0), "QQQ": (200.0, 200.0, 210.0, 209.0)}
EQUITY = ("3000", "3100", "3400", "3230")


@pytest.fixture
def lake(buckets: SimpleNamespace) -> SimpleNamespace:
    lakes.lake.cache_clear()
    s3 = boto3.client("s3")
    for symbol, closes in CLOSES.items():
        rows = [
            {"symbol": symbol, "ts": f"{day}T05:00:00Z", "open": c, "high": c, "low": c, "close": c, "volume": 1.0}
            for day, c in zip(SESSIONS, closes, strict=True)
        ]
        s3.put_object(Bucket=buckets.raw, Key=bars_key(symbol, 2020), Body=pack(rows))
    events = {"SPY": ("2020-01-06", "split", 2.0), "QQQ": ("2020-01-07", "dividend", 1.0)}
    for symbol, (ex_date, kind, value) in events.items():
        row = {"id": symbol, "symbol": symbol, "ex_date": ex_date, "kind": kind, "value": value}
        s3.put_object(Bucket=buckets.raw, Key=actions_key(symbol), Body=pack([row]))
    return buckets


@pytest.fixture
def traded(ledger_table: Ledger, lake: SimpleNamespace) -> Ledger:
    """20 SPY and 5 QQQ from the first close on; 10 SPY, after the split of 40, are sold on the last day at 58."""
    quantities = {"SPY": (20, 20, 40, 30), "QQQ": (5, 5, 5, 5)}
    for place, (session, equity) in enumerate(zip(SESSIONS, EQUITY, strict=True)):
        held = {symbol: Held(quantity=Decimal(quantities[symbol][place]), close=Decimal(str(CLOSES[symbol][place]))) for symbol in CLOSES}
        value = sum(one.quantity * one.close for one in held.values())
        snapshot = Snapshot(
            session=session, cash=Decimal(equity) - value, equity=Decimal(equity), positions=held, taken_at=f"{session}T21:05:00Z"
        )
        assert ledger_table.put_snapshot(snapshot)
    _filled(ledger_table, "pt1-a", symbol="SPY", side="sell", quantity="10", price="58", time="2020-01-07T14:35:00Z")
    return ledger_table


def _filled(ledger: Ledger, name: str, *, symbol: str, side: Any, quantity: str, price: str, time: str) -> None:
    order = OrderRecord(
        client_order_id=name, decision_id="manual:a", slot="a", symbol=symbol, side=side, quantity=Decimal(quantity), price=float(price),
        status="filled", created_at=time,
    )  # fmt: skip
    assert ledger.put_external_order(order)
    fill = Fill(
        client_order_id=name, decision_id="manual:a", sequence=1, symbol=symbol, side=side, quantity=Decimal(quantity),
        price=Decimal(price), cumulative=Decimal(quantity), time=time,
    )  # fmt: skip
    ledger.save_order(order, fill=fill)


def _seen(ledger: Ledger, now: str, *, is_open: bool, equity: str) -> None:
    state = BrokerState(
        now=now,
        is_open=is_open,
        next_open="2020-01-08T14:30:00Z",
        next_close="2020-01-08T21:00:00Z",
        account_id="a",
        equity=Decimal(equity),
    )
    ledger.put_broker_state(state)


def test_an_account_that_is_worth_nothing_is_shown_without_ratios(web: Web, lake: SimpleNamespace, ledger_table: Ledger) -> None:
    for session in SESSIONS:
        ledger_table.put_snapshot(
            Snapshot(session=session, cash=Decimal(0), equity=Decimal(0), positions={}, taken_at=f"{session}T21:05:00Z")
        )
    _seen(ledger_table, "2020-01-08T15:00:00Z", is_open=True, equity="0")
    for path in ("pages/portfolio", "pages/portfolio/live", "api/portfolio/equity"):
        assert web.get(path).status == 200
    view = web.get("api/portfolio/performance").body
    assert (view["turnover"], view["agent"]["change"], view["dollars"]) == (None, None, 0)
    assert web.get("api/portfolio/live").body["day_change"] is None


def test_an_empty_ledger_has_no_numbers(web: Web, lake: SimpleNamespace) -> None:
    assert web.get("api/portfolio").body == {
        "session": None, "equity": None, "cash": None, "cash_weight": None, "fills_since": 0, "positions": []
    }  # fmt: skip
    assert web.get("api/portfolio/performance").body is None
    assert web.get("api/portfolio/equity").body["sessions"] == []
    assert web.get("api/portfolio/live").body["as_of"] is None


def test_positions_have_weight_the_last_session_by_its_fills_and_what_they_won_since_they_were_opened(web: Web, traded: Ledger) -> None:
    shown = web.get("api/portfolio").body
    assert (shown["session"], shown["equity"], shown["fills_since"]) == ("2020-01-07", "3230.0", 0)
    by_symbol = {one["symbol"]: one for one in shown["positions"]}
    assert [one["symbol"] for one in shown["positions"]] == ["SPY", "QQQ"]  # the largest first
    assert by_symbol["SPY"]["weight"] == pytest.approx(30 * 57 / 3230)
    assert by_symbol["SPY"]["day"] == pytest.approx(30 * 57 + 10 * 58 - 40 * 60)
    assert by_symbol["SPY"]["opened"] == "2020-01-02"
    # 20 from 100 to 110, then as 40 from 55 to 60, then 40 from 60 to 57
    assert by_symbol["SPY"]["since_opened"] == pytest.approx(200 + 200 - 120)
    assert by_symbol["QQQ"]["since_opened"] == pytest.approx(5 * 9)


def test_equal_weight_is_rebalanced_at_each_close_through_splits_and_dividends(web: Web, traded: Ledger) -> None:
    shown = web.get("api/portfolio/equity", {"span": "ALL"}).body
    spy = (1, 1.1, 60 * 2 / 110, 57 / 60)
    qqq = (1, 1, 1.05, (209 + 1) / 210)
    index, path = 1.0, []
    for one, other in zip(spy, qqq, strict=True):
        index *= (one + other) / 2
        path.append(3000 * index)
    assert shown["sessions"] == list(SESSIONS)
    assert shown["equity"] == [3000, 3100, 3400, 3230]
    assert shown["equal"] == pytest.approx(path, abs=0.005)
    assert shown["benchmark"] == pytest.approx([3000, 3300, 3600, 3420])
    assert shown["drawdown"] == pytest.approx([0, 0, 0, 3230 / 3400 - 1], abs=1e-6)


def test_a_close_without_bars_is_a_gap_and_no_guess(web: Web, traded: Ledger, lake: SimpleNamespace) -> None:
    held = {"SPY": Held(quantity=Decimal(30), close=Decimal(58))}
    traded.put_snapshot(
        Snapshot(session="2020-01-08", cash=Decimal(0), equity=Decimal(3300), positions=held, taken_at="2020-01-08T21:05:00Z")
    )
    shown = web.get("api/portfolio/equity", {"span": "ALL"}).body
    assert (shown["equity"][-1], shown["equal"][-1], shown["benchmark"][-1]) == (3300, None, None)


def test_a_span_in_numbers_sums_up_to_the_change_of_the_account(web: Web, traded: Ledger) -> None:
    shown = web.get("api/portfolio/performance", {"span": "ALL"}).body
    assert shown["agent"]["change"] == pytest.approx(3230 / 3000 - 1)
    assert shown["agent"]["drawdown"] == pytest.approx(1 - 3230 / 3400)
    assert shown["agent"]["volatility"] > 0
    # The split is no trade; ten shares at 57 of 3,230 dollars were
    assert shown["turnover"] == pytest.approx(10 * 57 / 3230 / 3)
    assert sum(shown["names"].values()) + shown["rest"] == pytest.approx(230)
    assert shown["names"] == pytest.approx({"SPY": 280, "QQQ": 45})
    assert web.get("api/portfolio/performance", {"span": "5Y"}).status == 422


def test_fills_and_quotes_after_the_close_are_in_the_book(web: Web, traded: Ledger, lake: SimpleNamespace) -> None:
    _seen(traded, "2020-01-08T15:00:00Z", is_open=True, equity="3300")
    _filled(traded, "pt1-b", symbol="AAPL", side="buy", quantity="2", price="300", time="2020-01-08T14:40:00Z")
    quote = {"symbol": "SPY", "ts": "2020-01-08T14:59:00Z", "bid": 59.0, "ask": 61.0, "bid_size": 1.0, "ask_size": 1.0}
    boto3.client("s3").put_object(Bucket=lake.raw, Key=f"{quotes_prefix_of('2020-01-08')}1500.jsonl.gz", Body=pack([quote]))
    shown = web.get("api/portfolio").body
    prices = {one["symbol"]: (float(one["quantity"]), float(one["price"]), one["priced"]) for one in shown["positions"]}
    assert prices == {"SPY": (30, 60, "quote"), "QQQ": (5, 209, "close"), "AAPL": (2, 300, "fill")}
    assert float(shown["cash"]) == pytest.approx(3230 - 30 * 57 - 5 * 209 - 600)
    live = web.get("api/portfolio/live").body
    assert (live["is_open"], live["since"], float(live["day"])) == (True, "2020-01-07", 70)


def quotes_prefix_of(day: str) -> str:
    from datetime import date

    return quotes_prefix(date.fromisoformat(day))


def test_closes_that_are_known_are_not_read_again(web: Web, traded: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    _seen(traded, "2020-01-07T21:10:00Z", is_open=False, equity="3230")
    assert web.get("api/portfolio/equity").status == 200
    asked: list[str] = []
    client = traded._table.meta.client
    client.meta.events.register("before-call.dynamodb", lambda model, **_: asked.append(model.name))
    assert len(web.get("api/portfolio/equity", {"span": "ALL"}).body["sessions"]) == 4
    assert asked == ["GetItem"]  # the broker's state; no day since can have a close
    _seen(traded, "2020-01-08T21:10:00Z", is_open=False, equity="3300")
    traded.put_snapshot(Snapshot(session="2020-01-08", cash=Decimal(1), equity=Decimal(3300), taken_at="2020-01-08T21:05:00Z"))
    asked.clear()
    assert web.get("api/portfolio/equity", {"span": "ALL"}).body["equity"][-1] == 3300
    assert "Query" not in asked


def test_the_page_says_in_words_what_its_charts_show(web: Web, traded: Ledger) -> None:
    _seen(traded, "2020-01-08T15:00:00Z", is_open=True, equity="3300")
    shown = web.get("pages/portfolio", {"span": "ALL"}).text
    for words in ("every 15s", "+$70.00", "+7.67 %", "Equal weight is today", "$1,710.00", "Trades against their day"):
        assert words in shown, words
    assert 'hx-trigger="every 60s, ' in _after(web, traded)


def _after(web: Web, ledger: Ledger) -> str:
    _seen(ledger, "2020-01-08T22:00:00Z", is_open=False, equity="3300")
    return web.get("pages/portfolio/live").text
