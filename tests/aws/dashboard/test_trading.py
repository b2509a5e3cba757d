"""The trading page at its boundary: what a person orders, cancels, halts and watches, through the real handlers and the exchange."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from lambdas.common.lake import lake as lakes
from lambdas.common.lake.lake import pack
from lambdas.common.ledger.actions import actions_of
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import BrokerState, OrderRecord
from local.exchange.server import RunningExchange
from schema.lake_layout import bars_key
from tests.aws.books import positions, recorded
from tests.aws.conftest import TABLE, decision
from tests.aws.dashboard.conftest import Web
from tests.aws.gateway import Gateway

BUY = {"symbol": "SPY", "side": "buy", "quantity": "2"}
KEY = "click-0001"


@pytest.fixture(autouse=True)
def fresh_lake(buckets: SimpleNamespace) -> SimpleNamespace:
    lakes.lake.cache_clear()
    return buckets


def _put(web: Web, path: str, body: Any, *, key: str) -> Any:
    return web.call("PUT", path, body=body, headers={"Idempotency-Key": key})


def _delete(web: Web, path: str, *, key: str) -> Any:
    return web.call("DELETE", path, body={}, headers={"Idempotency-Key": key})


def test_a_ledger_of_nothing_says_so_in_words(web: Web) -> None:
    shown = web.get("pages/trading")
    assert shown.status == 200
    for words in ("never changed", "Nothing is held or watched yet", "No order is open", "No order was made in 2020-01", 'value="halted"'):
        assert words in shown.text, words
    assert web.get("api/candles/SPY").body["sessions"] == []
    assert web.get("api/orders").body == {"month": "2020-01", "orders": [], "cursor": None}


def test_a_manual_order_goes_from_the_page_to_a_fill_in_the_ledger(
    web: Web, execution_api: Gateway, exchange: RunningExchange, ledger_table: Ledger
) -> None:
    done = web.post("api/orders", BUY, key=KEY)
    assert done.status == 200
    assert done.body["message"].startswith("Bought 2 SPY at $")
    assert positions(exchange) == recorded(ledger_table) == {"SPY": Decimal(2)}
    assert ledger_table.decision(f"manual:{KEY}") is not None
    (order,) = web.get("api/orders").body["orders"]
    assert (order["who"], order["status"], order["filled"]) == ("you", "filled", "2")
    life = web.get(f"api/orders/{order['segment']}").body
    assert [one["event"] for one in life["events"]] == ["created and sent", "filled"]
    assert life["trace"][0]["link"] == "order"
    page = web.get(f"pages/trading/orders/{order['segment']}").text
    assert "Buy 2 SPY" in page
    assert "nothing was observed or predicted" in page
    assert "buy SPY" in web.get("pages/trading").text


def test_the_same_click_twice_is_one_order_and_another_body_is_none(
    web: Web, execution_api: Gateway, exchange: RunningExchange, ledger_table: Ledger
) -> None:
    first = web.post("api/orders", BUY, key=KEY)
    assert web.post("api/orders", BUY, key=KEY).body == first.body
    assert web.post("api/orders", {**BUY, "quantity": "3"}, key=KEY).status == 409
    assert positions(exchange) == {"SPY": Decimal(2)}
    assert len(ledger_table.orders("2020-01")) == 1


def test_a_click_whose_answer_was_lost_is_the_same_order_when_it_is_repeated(
    web: Web, execution_api: Gateway, exchange: RunningExchange
) -> None:
    assert web.post("api/orders", BUY, key=KEY).status == 200  # known to executor and exchange
    actions_of(TABLE)._table.delete_item(Key={"pk": f"action#{KEY}", "sk": "action"})  # as if the function had died before it was kept
    execution_api.down = True
    lost = web.post("api/orders", BUY, key=KEY)
    assert lost.status == 503
    assert "send the same request again" in lost.body["message"]
    execution_api.down = False
    assert web.post("api/orders", BUY, key=KEY).status == 200
    assert positions(exchange) == {"SPY": Decimal(2)}


def test_after_a_halt_an_order_is_refused_with_the_reason_and_after_resuming_it_passes(
    web: Web, execution_api: Gateway, exchange: RunningExchange
) -> None:
    halted = _put(web, "api/trading-state", {"state": "halted", "reason": "odd <b>fills</b>", "version": 0}, key="halt-0001")
    assert (halted.status, halted.body["message"]) == (200, "Trading is halted: nothing is sent.")
    refused = web.post("api/orders", BUY, key=KEY)
    assert refused.status == 423
    assert refused.body["message"].startswith("Trading is halted (odd <b>fills</b> (anna, web app)): nothing was sent.")
    assert positions(exchange) == {}
    shown = web.get("pages/trading").text
    assert "odd &lt;b&gt;fills&lt;/b&gt; (anna, web app)" in shown
    assert "<b>fills" not in shown
    version = web.get("api/trading-state").body["version"]
    assert _put(web, "api/trading-state", {"state": "active", "reason": "looked", "version": version}, key="go-00001").status == 200
    assert web.post("api/orders", BUY, key="click-0002").status == 200


@pytest.mark.parametrize("reason", ["", "  ", "\n\t"])
def test_a_change_without_a_reason_is_refused(web: Web, execution_api: Gateway, ledger_table: Ledger, reason: str) -> None:
    """The web app signs a reason with the person's name, which must not pass for one."""
    halted = _put(web, "api/trading-state", {"state": "halted", "reason": reason, "version": 0}, key="halt-0001")
    flat = web.post("api/flatten", {"reason": reason}, key="flat-0001")
    assert [(one.status, one.body["errors"][0]["field"]) for one in (halted, flat)] == [(422, "body.reason")] * 2
    assert ledger_table.trading_state().state == "active"


def test_a_state_that_changed_since_the_page_was_seen_stays(web: Web, execution_api: Gateway, ledger_table: Ledger) -> None:
    ledger_table.set_trading_state("halted", reason="another person", time="2020-01-02T14:30:00Z", by="eve")
    late = _put(web, "api/trading-state", {"state": "active", "reason": "go", "version": 0}, key="go-00001")
    assert late.status == 409
    assert late.body["message"].startswith(
        "The trading state has changed since you looked, and stays as it is: the trading state is halted by eve"
    )
    assert ledger_table.trading_state().state == "halted"


def test_flatten_sells_everything_and_lets_nothing_buy(web: Web, execution_api: Gateway, exchange: RunningExchange) -> None:
    assert web.post("api/orders", BUY, key=KEY).status == 200
    done = web.post("api/flatten", {"reason": "enough"}, key="flat-0001")
    assert (done.status, done.body["message"]) == (200, "Nothing buys any more. 1 sell order.")
    assert positions(exchange) == {}
    assert web.get("api/trading-state").body["state"] == "reduce_only"
    bought = web.post("api/orders", BUY, key="click-0002").body["message"]
    assert bought.startswith("The order to buy 2 SPY is refused")
    assert web.post("api/flatten", {"reason": "again"}, key="flat-0002").body["message"].endswith("Nothing was sold: nothing is held.")


def test_an_open_order_is_cancelled_from_the_page(
    web: Web, execution_api: Gateway, exchange: RunningExchange, ledger_table: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDER_TIMEOUT_SECONDS", "0.2")
    exchange.use_faults({"faults": {"partial_fill": {"rate": 1, "expires": 1}}})
    try:
        sent = web.post("api/orders", {**BUY, "quantity": "20"}, key=KEY)
        assert (sent.status, sent.body["message"]) == (202, "The order to buy 20 SPY is partially filled and goes on.")
        (open_order,) = ledger_table.unsettled_orders()
        assert f'data-write="orders/{open_order.client_order_id}"' in web.get("pages/trading").text
        done = _delete(web, f"api/orders/{open_order.client_order_id}", key="stop-0001")
        assert done.status == 200
        assert done.body["message"].startswith("The order to buy 20 SPY is canceled, after ")
        assert ledger_table.unsettled_orders() == []
        events = [one["event"] for one in web.get(f"api/orders/{open_order.client_order_id}").body["events"]]
        assert (events[0], events[-1]) == ("created and sent", "canceled")
    finally:
        exchange.use_faults({})
    gone = _delete(web, "api/orders/pt1-nothing", key="stop-0002")
    assert (gone.status, gone.body["message"]) == (404, "There is no order pt1-nothing.")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**BUY, "quantity": "-1"}, "quantity"),
        ({**BUY, "quantity": "NaN"}, "quantity"),
        ({**BUY, "side": "hold"}, "side"),
        ({"symbol": "SPY"}, "side"),
    ],
)
def test_a_wrong_order_names_its_field_and_nothing_is_kept(web: Web, execution_api: Gateway, body: Any, field: str) -> None:
    refused = web.post("api/orders", body, key=KEY)
    assert refused.status == 422
    assert any(one["field"].endswith(field) for one in refused.body["errors"])
    assert execution_api.calls == []


def test_what_the_executor_refuses_is_told_in_its_words(web: Web, execution_api: Gateway) -> None:
    refused = web.post("api/orders", {**BUY, "symbol": "NOPE"}, key=KEY)
    assert refused.status == 422
    assert refused.body["message"].startswith("Refused: symbol: ")


def test_who_may_only_look_sees_no_button_and_changes_nothing(web: Web, execution_api: Gateway, exchange: RunningExchange) -> None:
    guest = web.as_user("guest", scopes=("read",))
    assert "data-write" not in guest.get("pages/trading").text
    for refused in (
        guest.post("api/orders", BUY, key=KEY),
        guest.post("api/flatten", {"reason": "x"}, key=KEY),
        guest.post("api/watchlist", {"symbol": "SPY"}, key=KEY),
        _put(guest, "api/trading-state", {"state": "halted", "reason": "x", "version": 0}, key=KEY),
        _delete(guest, "api/orders/pt1-a", key=KEY),
    ):
        assert (refused.status, refused.body["message"]) == (403, "guest needs the scope papertape/trade, has read")
    assert execution_api.calls == []


def test_the_watchlist_holds_names_of_the_universe(web: Web, buckets: SimpleNamespace) -> None:
    rows = [
        {"symbol": "IBM", "ts": f"2020-01-0{day}T05:00:00Z", "open": c, "high": c, "low": c, "close": c, "volume": 1.0}
        for day, c in ((2, 100.0), (3, 90.0))
    ]
    boto3.client("s3").put_object(Bucket=buckets.raw, Key=bars_key("IBM", 2020), Body=pack(rows))
    for number, symbol in enumerate(("IBM", "SPY", "IBM")):
        assert web.post("api/watchlist", {"symbol": symbol}, key=f"watch-000{number}").status == 200
    refused = web.post("api/watchlist", {"symbol": "TSLA"}, key="watch-0009")
    assert refused.status == 422
    assert refused.body["message"].startswith("TSLA is not watched: quotes and bars are of the universe only, SPY, ")
    shown = web.get("api/watchlist").body
    assert [one["symbol"] for one in shown] == ["IBM", "SPY"]
    assert shown[0]["spark"]["change"] == pytest.approx(-0.1)
    assert shown[1]["spark"] is None
    assert 'aria-label="IBM: −10.0 % over 2 closes"' in web.get("pages/trading").text
    assert _delete(web, "api/watchlist/IBM", key="watch-0010").body["message"] == "IBM is not watched any more."
    assert actions_of(TABLE).watchlist() == ("SPY",)
    assert [one.name for one in actions_of(TABLE).actions("2020-01")].count("watch") == 4


def test_candles_carry_the_agents_fills_and_changes_of_its_target(
    web: Web, execution: Any, exchange: RunningExchange, ledger_table: Ledger, buckets: SimpleNamespace
) -> None:
    assert execution("POST", "/decisions", decision(weights={"IBM": 0.1})).status == 200
    exchange.advance("2020-01-03T14:35:00Z")
    assert execution("POST", "/decisions", decision(session="2020-01-03", as_of="2020-01-02", weights={"IBM": 0.2})).status == 200
    rows = [
        {"symbol": "IBM", "ts": f"2020-01-0{day}T05:00:00Z", "open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 9.0}
        for day in (2, 3)
    ]
    boto3.client("s3").put_object(Bucket=buckets.raw, Key=bars_key("IBM", 2020), Body=pack(rows))
    state = BrokerState(
        now="2020-01-03T15:00:00Z",
        is_open=True,
        next_open="2020-01-06T14:30:00Z",
        next_close="2020-01-03T21:00:00Z",
        account_id="a",
        equity=Decimal(1),
    )
    ledger_table.put_broker_state(state)
    shown = web.get("api/candles/IBM", {"span": "1M"}).body
    assert shown["sessions"] == ["2020-01-02", "2020-01-03"]
    assert [(one["session"], one["kind"]) for one in shown["markers"]] == [
        ("2020-01-02", "buy"), ("2020-01-03", "buy"), ("2020-01-03", "signal")
    ]  # fmt: skip
    assert shown["markers"][2]["text"] == "target 10.0% to 20.0%"
    assert web.get("api/candles/TSLA").status == 404
    assert "▲ bought" in web.get("pages/trading", {"symbol": "IBM", "span": "1M"}).text


def test_orders_page_by_page_the_newest_first_and_hostile_words_are_text(web: Web, ledger_table: Ledger) -> None:
    for number in range(5):
        ledger_table.put_external_order(
            OrderRecord(
                client_order_id=f"x{number}", decision_id="foreign:a", slot="a", symbol="SPY", side="buy", quantity=Decimal(1), price=1.0,
                status="rejected", reason="<script>alert(1)</script>", created_at=f"2020-01-02T15:00:0{number}Z",
            )
        )  # fmt: skip
    seen, cursor = [], None
    for _ in range(3):
        found = web.get("api/orders", {"month": "2020-01", "limit": "2", **({} if cursor is None else {"cursor": cursor})}).body
        seen += [one["client_order_id"] for one in found["orders"]]
        cursor = found["cursor"]
    assert seen == ["x4", "x3", "x2", "x1", "x0"]
    shown = web.get("pages/trading/orders", {"month": "2020-01"}).text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "<script" not in shown
    assert web.get("api/orders", {"cursor": "nonsense"}).status == 422
    assert web.get("api/orders", {"month": "2020-13"}).status == 422
