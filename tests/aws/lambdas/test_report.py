"""The report: its numbers from a ledger with known history, the mail, and the JSON in the lake."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from lambdas.common.lake import lake as lakes
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import AlertRecord, Attribution, Decision, Fill, Held, OrderRecord, ServedModel, ShadowDecision, Snapshot
from lambdas.report import handler as reporting
from schema.sections.learning import GateSettings
from schema.settings import SETTINGS_FILE, Settings
from tests.settings_files import settings_file

FRIDAY = "2020-01-10T22:30:00Z"
KEY = "processed/reports/2020-01-10.json"
EQUITY = {
    "2019-12-31": "100000",
    "2020-01-02": "101000",
    "2020-01-03": "100500",
    "2020-01-06": "99000",
    "2020-01-08": "102000",
    "2020-01-10": "100980",
}


@pytest.fixture
def run(
    ledger_table: Ledger, buckets: SimpleNamespace, topic: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., dict[str, Any]]]:
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings))
    lakes.lake.cache_clear()
    reporting._sns.cache_clear()
    yield lambda **more: reporting.handler({"schedule": "report", "time": FRIDAY, **more}, None)
    lakes.lake.cache_clear()
    reporting._sns.cache_clear()


@pytest.fixture
def history(ledger_table: Ledger) -> Ledger:
    for session, equity in EQUITY.items():
        held = {"SPY": Held(quantity=Decimal(100), close=Decimal("302.94"))}
        ledger_table.put_snapshot(
            Snapshot(session=session, cash=Decimal(70686), equity=Decimal(equity), positions=held, taken_at=f"{session}T21:05:00Z")
        )
    fence = ledger_table.acquire_lease("test", now=0, seconds=60)
    assert fence is not None
    for session, status in (("2020-01-02", "filled"), ("2020-01-06", "filled"), ("2020-01-08", "rejected")):
        slot = f"{session}/open+5"
        ledger_table.open_decision(
            Decision(decision_id=f"agent:{slot}", strategy="agent", slot=slot, body_sha256="b", received_at=f"{session}T14:35:00Z")
        )
        ledger_table.open_order(
            OrderRecord(
                client_order_id=f"pt1-{session}", decision_id=f"agent:{slot}", slot=slot, symbol="SPY", side="buy", quantity=Decimal(100),
                price=300.0, status=status, created_at=f"{session}T14:35:00Z",
            ),
            fence=fence,
        )  # fmt: skip
        ledger_table.put_alert(
            AlertRecord(rule="health:slot-missed", session=session, subject="s", detail="d", time=f"{session}T20:00:00Z")
        )
    for number, symbol in enumerate(("IBM", "AAPL")):  # a person's: their slot is no date
        ledger_table.open_decision(
            Decision(decision_id=f"manual:{symbol}", strategy="manual", slot=symbol, body_sha256="b", received_at="2020-01-07T15:00:00Z")
        )
        ledger_table.open_order(
            OrderRecord(
                client_order_id=f"pt1-{number}", decision_id=f"manual:{symbol}", slot=symbol, symbol=symbol, side="buy",
                quantity=Decimal(1), price=1.0, status="canceled", created_at="2020-01-07T15:00:00Z",
            ),
            fence=fence,
        )  # fmt: skip
    for rule in ("health:alert-raised:drift:IBM", "health:slot-missed~2", "health:over:slot-missed"):  # again, and over: nothing more
        ledger_table.put_alert(AlertRecord(rule=rule, session="2020-01-08", subject="s", detail="d", time="t"))
    ledger_table.put_model(
        ServedModel(role="incumbent", policy="random", spec="random:7", model_version="random:7", kappa=1.0, since="2020-01-02")
    )
    ledger_table.put_shadow_decision(
        ShadowDecision(
            slot="2020-01-08/open+5", model_version="challenger", data_as_of="2020-01-07", weights={"SPY": 1.0}, time="2020-01-08"
        )
    )
    return ledger_table


def stored(buckets: SimpleNamespace) -> dict[str, Any]:
    return json.loads(boto3.client("s3").get_object(Bucket=buckets.processed, Key=KEY)["Body"].read())  # type: ignore[no-any-return]


def test_the_week_in_numbers(run: Any, history: Ledger, buckets: SimpleNamespace, topic: Any) -> None:
    assert run()["key"] == KEY
    report = stored(buckets)
    assert (report["start"], report["end"], report["sessions"]) == ("2020-01-04", "2020-01-10", 3)
    assert report["change"] == pytest.approx(100980 / 100500 - 1)
    assert report["change_before"] == pytest.approx(100500 / 100000 - 1)
    assert report["change_since_start"] == pytest.approx(0.0098)
    assert report["drawdown"] == pytest.approx(100980 / 102000 - 1)
    assert report["positions"]["SPY"] == pytest.approx(30294 / 100980)
    assert (report["decisions"], report["orders"], report["fills"]) == (4, {"canceled": 2, "filled": 1, "rejected": 1}, 0)
    assert report["alerts"] == {"alert-raised": 1, "slot-missed": 2}
    assert (report["incumbent"], report["shadow_decisions"]) == ("random random:7 since 2020-01-02", 1)

    (mail,) = topic()
    assert mail["Subject"] == "papertape: 2020-01-10 $100,980.00 (+0.48%)"
    assert "The one before  +0.50%" in mail["Message"]
    assert "Since 1st close +0.98%" in mail["Message"], "what the first session cost lies before it"
    assert "This period     +$480.00 (+0.48%); SPY +0.00%" in mail["Message"]
    assert "canceled 2, filled 1, rejected 1" in mail["Message"]


def test_what_trading_cost_order_by_order_and_against_the_ideal(run: Any, history: Ledger, buckets: SimpleNamespace, topic: Any) -> None:
    """8 of 10 shares bought at 100.20 that arrived at 100.10 and were decided at 100, closing at 103; the second attempt of a refused one
    counts once, another hand's order not at all. The history's two buys of 100 SPY at 300 never filled, and it closed at 302.94."""
    fence = history.acquire_lease("costs", now=61, seconds=60)
    assert fence is not None
    slot, when = "2020-01-10/open+5", "2020-01-10T14:35:00Z"
    told = {"decision_id": f"agent:{slot}", "slot": slot, "symbol": "IBM", "side": "buy", "price": 100.0, "created_at": when}
    bought = {"arrival_price": 100.1, "quantity": Decimal(10), "filled_quantity": Decimal(8), "filled_average_price": Decimal("100.2")}
    history.open_order(OrderRecord(client_order_id="pt1-first", quantity=Decimal(30), status="rejected", **told), fence=fence)
    history.open_order(OrderRecord(client_order_id="pt1-again", status="expired", attempt=1, **told, **bought), fence=fence)
    foreign = {**told, **bought, "decision_id": "foreign:2020-01-10", "symbol": "AIG"}
    history.put_external_order(OrderRecord(client_order_id="by-hand", status="filled", **foreign))
    last = history.snapshot("2020-01-10")
    assert last is not None
    history._table.put_item(Item=last.model_copy(update={"closes": {"IBM": Decimal(103)}}).item())
    for session, price, decision in (("2020-01-02", -50.0, "d"), ("2020-01-03", -5.0, "d"), ("2020-01-09", 1.5, None)):
        parts = {"price": price, "missed": -2.0, "cash": 0.001}
        history.put_attribution(
            Attribution(session=session, decision_id=decision, live=100.0, ideal=100.0 - sum(parts.values()), parts=parts)
        )
    run()
    report = stored(buckets)
    cost = report["cost"]
    assert (cost["traded"], cost["delay"], cost["slippage"], cost["missed"]) == pytest.approx((800.8, 0.8, 0.8, 6.0 + 2 * 294.0))
    assert cost["slippage_bp"] == pytest.approx(0.1 / 100.1 * 1e4)
    difference = report["difference"]
    assert (difference["sessions"], difference["undecided"]) == (2, 1), "from the Friday before to the day before this one"
    assert difference["live"] - difference["ideal"] == pytest.approx(sum(difference["parts"].values())) == pytest.approx(-7.498)
    (mail,) = topic()
    assert (
        "Slippage        lost $0.80 (10.0 bp) against the quotes at which orders arrived; by delay lost $0.80, by what did not fill lost "
        "$594.00; 2 orders not known yet\n"
    ) in mail["Message"]
    assert (
        "Execution       $7.50 worse than the backtest of the same decisions, 2 sessions, 1 without a decision: price -$3.50, "
        "missed -$4.00\n"
    ) in mail["Message"]


def close(session: str, equity: int, **held: tuple[int, int]) -> Snapshot:
    """`held`: shares and close by name."""
    positions = {symbol: Held(quantity=Decimal(shares), close=Decimal(price)) for symbol, (shares, price) in held.items()}
    return Snapshot(session=session, cash=Decimal(0), equity=Decimal(equity), positions=positions, taken_at=f"{session}T21:05:00Z")


@pytest.fixture
def two_names(ledger_table: Ledger) -> Ledger:
    """SPY rises from 100 to 110 and to 99; IBM falls from 50 to 40, five of it are bought at 45, and all is sold at 42."""
    for snapshot in (
        close("2020-01-03", 10_000, SPY=(50, 100), IBM=(100, 50)),
        close("2020-01-06", 9_700, SPY=(50, 110), IBM=(105, 40)),
        close("2020-01-07", 9_500, SPY=(50, 99)),
    ):
        ledger_table.put_snapshot(snapshot)
    ledger_table.change_breakers(lambda now: now.model_copy(update={"account_id": "account-7"}))
    for session, weights in (("2020-01-03", {"SPY": 0.5, "IBM": 0.5}), ("2020-01-06", {"SPY": 1.0})):
        slot = f"{session}/open+5"
        ledger_table.open_decision(
            Decision(decision_id=f"agent:{slot}", strategy="agent", slot=slot, body_sha256="b", received_at=f"{session}T14:35:00Z",
                     weights=weights)
        )  # fmt: skip
        shadow = ShadowDecision(slot=slot, model_version="m", data_as_of=session, weights={"SPY": 1.0}, time=f"{session}T14:35:00Z")
        ledger_table.put_shadow_decision(shadow)
    for day, side, shares, price in (("2020-01-06", "buy", 5, 45), ("2020-01-07", "sell", 105, 42)):
        told = {"decision_id": f"agent:{day}/open+5", "symbol": "IBM", "side": side, "quantity": Decimal(shares)}
        fill = Fill(
            client_order_id=f"pt1-{day}", sequence=1, price=Decimal(price), cumulative=Decimal(shares), time=f"{day}T14:35:01Z", **told
        )
        ledger_table._table.put_item(Item=fill.item())
    return ledger_table


def test_the_mail_names_the_account_the_dollars_the_benchmark_and_who_won_them(
    run: Any, two_names: Ledger, buckets: SimpleNamespace, topic: Any
) -> None:
    run()
    report = stored(buckets)
    assert (report["dollars"], report["benchmark_change"]) == (-500.0, pytest.approx(-0.01))
    assert report["names"] == {"SPY": -50.0, "IBM": -5000.0 - 5 * 45 + 105 * 42}
    assert report["side_by_side"] == {"sessions": 2, "traded": pytest.approx(0.95 * 0.9 - 1), "watched": pytest.approx(1.1 * 0.9 - 1)}
    (mail,) = topic()
    for line in (
        "papertape, paper account account-7",
        "This period     -$500.00 (-5.00%); SPY -1.00%",
        "Side by side    traded -14.50%, watched -1.00%",
        "  SPY         -$50.00   52.1%",
        "  IBM        -$815.00    0.0%",
    ):
        assert f"{line}\n" in mail["Message"]


def test_a_split_of_the_benchmark_is_no_fall(run: Any, ledger_table: Ledger, buckets: SimpleNamespace) -> None:
    for snapshot in (close("2020-01-03", 10_000, SPY=(50, 100)), close("2020-01-06", 10_000, SPY=(100, 50))):
        ledger_table.put_snapshot(snapshot)
    run()
    assert stored(buckets)["benchmark_change"] is None
    assert stored(buckets)["names"] == {"SPY": 0.0}


def test_while_a_refused_model_trades_the_mail_begins_with_the_gates_reasons(
    run: Any, history: Ledger, settings: Settings, topic: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.put_model(
        ServedModel(role="shadow", policy="endpoint", spec="arn/1", model_version="m" * 64, kappa=0.1, since="2020-01-01T00:00:00Z",
                    refused=("2 seeds, 10 are needed",))
    )  # fmt: skip
    run()
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings.model_copy(update={"gate": GateSettings(refused="trade")})))
    run()
    shadow, trading = sorted((mail["Message"] for mail in topic()), key=lambda text: "Trades          model" in text)
    assert trading.startswith("The gate refused the model that trades here, on paper only: 2 seeds, 10 are needed.\n")
    assert "Trades          model mmmmmmmmmmmm, which the gate refused, since 2020-01-01\nWatches         random:7 (" in trading
    assert shadow.startswith("2020-01-04 to")
    assert "Trades          random:7\nWatches         model mmmmmmmmmmmm, which the gate refused, since 2020-01-01 (" in shadow


def test_the_month_so_far(run: Any, history: Ledger, buckets: SimpleNamespace) -> None:
    run(period="month")
    report = stored(buckets)
    assert (report["start"], report["sessions"], report["decisions"]) == ("2020-01-01", 5, 5)
    assert report["change"] == pytest.approx(0.0098)


def test_a_retry_writes_the_same_report(run: Any, history: Ledger, buckets: SimpleNamespace) -> None:
    run()
    first = stored(buckets)
    run()
    assert stored(buckets) == first


def test_an_empty_ledger_is_told_as_such(run: Any, buckets: SimpleNamespace, topic: Any) -> None:
    run()
    report = stored(buckets)
    assert (report["equity"], report["change"], report["drawdown"]) == (None, None, None)
    (mail,) = topic()
    assert mail["Subject"] == "papertape: 2020-01-10 no snapshot (n/a)"


def test_an_unknown_period_is_refused(run: Any) -> None:
    with pytest.raises(ValueError, match="period must be week or month, was 'decade'"):
        run(period="decade")
