"""decide on slot bars: three slots of a session over a lake of slot rows, with today's minutes from the vendor and the broker's book.

The vendor's minutes are made up and stand behind a server of their own; whatever else is asked goes to the exchange.
"""

# ruff: noqa: F401, F811  (fixtures of another module are used by their names)
from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import numpy as np
import pandas as pd
import pytest
import requests

from lambdas.common.broker.connection import market_data_from_environment
from lambdas.common.health import checks
from lambdas.common.lake import lake as lakes
from lambdas.common.lake.lake import Lake, pack
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Decision, Fill, Held, OrderRecord, ServedModel, Snapshot
from lambdas.common.ledger.roles import FIRST_INCUMBENT
from lambdas.decide import handler as deciding
from lambdas.decide.attribution import attribute_session
from lambdas.decide.edges import NoTrade, Publication
from lambdas.decide.today import await_minutes
from learning import serving
from learning.packaging import archive
from local.exchange.server import RunningExchange
from papertape.market_data.sessions import hours_between
from schema.lake_layout import actions_key, bars_key, bars_prefix, calendar_key
from schema.settings import SETTINGS_FILE, Settings
from schema.slot import SlotRows
from tests.aws.lambdas.test_decide import Cloud, by_hand, cloud, record
from tests.aws.lambdas.test_health import WELL
from tests.aws.proxy import running
from tests.minutes import NO_ACTIONS, minutes
from tests.settings_files import settings_file
from trading_env.data.features import CONTEXT, FEATURE_HASH, FEATURES, SCHEMA_VERSION
from trading_env.data.market import Market, build_market
from trading_env.data.observation import observe
from trading_env.data.slot_bars import slot_bars
from trading_env.orders.order_state import OrderStatus
from trading_env.simulation.policy import PolicyCard, SeededRandom, array_shapes, save_policy

SYMBOLS = ("SPY", "QQQ", "IWM", "AAPL", "AIG", "BAC", "GOOG", "IBM")
SLOTS = ("open+5", "open+120", "open+240")
ROWS = SlotRows((5, 120, 240), 30)
TIMES = dict(zip(SLOTS, ("14:35", "16:30", "18:30"), strict=True))
FIRST, EVE, DAY, NEXT = "2019-08-19", "2019-12-31", "2020-01-02", "2020-01-03"
RANDOM = ServedModel(role="incumbent", policy="random", spec="random:7", model_version="random:7", kappa=0.2, since="2019-12-31T00:00:00Z")


@lru_cache(maxsize=1)
def history() -> pd.DataFrame:
    """A fifth of the minutes of a third of a year, the day that is decided on and the one after it included."""
    return minutes(FIRST, NEXT, symbols=SYMBOLS, seed=3, missing=0.8)


@lru_cache(maxsize=1)
def slot_rows() -> pd.DataFrame:
    return gather(history())


@lru_cache(maxsize=1)
def whole() -> Market:
    """The market of all minutes at once, as research builds it."""
    return build_market(slot_rows(), NO_ACTIONS, symbols=SYMBOLS)


def gather(table: pd.DataFrame, *, first: str = FIRST, last: str = NEXT) -> pd.DataFrame:
    hours = hours_between(date.fromisoformat(first), date.fromisoformat(last))
    return slot_bars(table, hours=hours, slots=ROWS.slots, window=ROWS.window).bars


def moment(slot: str, day: str = DAY) -> str:
    return f"{day}T{TIMES[slot]}:00Z"


def event(slot: str, day: str = DAY) -> dict[str, str]:
    return {"schedule": "decide", "time": moment(slot, day), "slot": slot}


@pytest.fixture(scope="session")
def by_slot(settings: Settings) -> Settings:
    assert settings.universe.symbols == SYMBOLS
    schedule = settings.schedule.model_copy(update={"slots": SLOTS, "slot_window_minutes": ROWS.window})
    training = settings.training.model_copy(update={"timeframe": "1Min"})
    risk = settings.risk.model_copy(update={"max_turnover_per_day": 20.0})  # made-up minutes and the exchange's prices are far apart
    return settings.model_copy(update={"schedule": schedule, "training": training, "risk": risk})


def fill(lake: Lake, *, until: str) -> None:
    """Write the slot rows of the sessions up to `until`, as the backfill keeps them."""
    for key, body in packed(until).items():
        lake.s3.put_object(Bucket=lake.raw_bucket, Key=key, Body=body)


@lru_cache(maxsize=8)
def packed(until: str) -> dict[str, bytes]:
    kept = slot_rows()[slot_rows()["session"] < pd.Timestamp(until) + pd.Timedelta(days=1)]
    lines = kept.assign(ts=kept["session"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")).drop(columns="session")
    return {
        bars_key(str(symbol), int(year), ROWS): pack(own.to_dict("records"))  # type: ignore[arg-type]
        for (symbol, year), own in lines.groupby([kept["symbol"], kept["session"].dt.year])  # type: ignore[misc]
    }


@lru_cache(maxsize=1)
def calendar() -> dict[str, bytes]:
    hours = hours_between(date(2019, 1, 2), date(2020, 12, 31))
    lines: dict[str, list[dict[str, str]]] = {}
    for opens, closes in zip(hours.opens, hours.closes, strict=True):
        day = str(opens.astype("datetime64[D]"))
        line = {"session": day, "open": f"{opens}:00Z", "close": f"{closes}:00Z"}
        lines.setdefault(calendar_key(int(day[:4])), []).append(line)
    return {key: pack(own) for key, own in lines.items()}


@pytest.fixture
def lake(buckets: SimpleNamespace) -> Iterator[Lake]:
    lakes.lake.cache_clear()
    made = Lake(s3=boto3.client("s3"), raw_bucket=buckets.raw, audit_bucket=buckets.audit)
    for key, body in calendar().items():
        made.s3.put_object(Bucket=buckets.raw, Key=key, Body=body)
    fill(made, until=EVE)
    yield made
    lakes.lake.cache_clear()


@dataclass
class Vendor:
    """What answers one-minute bars: of `minutes`, or, if it is set, with `fails`, a status and what it says; and `actions`, if set."""

    minutes: pd.DataFrame
    fails: tuple[int, str] | None = None
    actions: bytes | None = None
    asked: int = 0

    def answer(self, path: str) -> tuple[int, bytes] | None:
        parts = urlsplit(path)
        if parts.path == "/v1/corporate-actions" and self.actions is not None:
            return 200, self.actions
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path != "/v2/stocks/bars" or query["timeframe"] != "1Min":
            return None
        assert query["feed"] == "iex"
        self.asked += 1
        if self.fails is not None:
            return self.fails[0], json.dumps({"message": self.fails[1]}).encode()
        table = self.minutes
        start, end = (pd.Timestamp(query[name]) for name in ("start", "end"))
        within = table[table["symbol"].isin(query["symbols"].split(",")) & (table["ts"] >= start) & (table["ts"] <= end)]
        bars: dict[str, list[dict[str, Any]]] = {}
        for row in within.itertuples():
            bar = {"t": f"{row.ts:%Y-%m-%dT%H:%M:%SZ}", "o": row.open, "h": row.high, "l": row.low, "c": row.close, "v": row.volume}
            bars.setdefault(str(row.symbol), []).append(bar)
        return 200, json.dumps({"bars": bars, "next_page_token": None}).encode()


@pytest.fixture
def vendor(exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendor]:
    today = history()
    made = Vendor(today[today["ts"] >= pd.Timestamp(DAY, tz="UTC")])
    with running(exchange.url) as between:
        between.instead = lambda method, path, _body: made.answer(path) if method == "GET" else None
        monkeypatch.setenv("ALPACA_DATA_URL", between.url)
        yield made


@pytest.fixture
def run(
    cloud: Cloud, lake: Lake, vendor: Vendor, exchange: RunningExchange, by_slot: Settings, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Decide a slot when the exchange's clock, which stands still, is at its beginning."""
    monkeypatch.setenv(SETTINGS_FILE, settings_file(by_slot))
    monkeypatch.setenv("MINUTES_PAUSE_SECONDS", "0")
    monkeypatch.setenv("BROKER_PAUSE", "0.001")

    def decide(slot: str, day: str = DAY) -> dict[str, Any]:
        exchange.advance(moment(slot, day))
        return deciding.handler(event(slot, day), None)

    return decide


def audit(lake: Lake, slot: str, day: str = DAY) -> dict[str, Any]:
    return record(lake, f"audit/decisions/{day}/agent_{day}_{slot}.json")


def alerts(ledger: Ledger) -> dict[str, str]:
    return {alert.rule: alert.detail for alert in ledger.alerts("2020-01")}


def researched(market: Market, row: int, *, cash: float, quantities: dict[str, float]) -> np.ndarray[Any, Any]:
    """The observation that the environment and a backtest make of a row, with a book at its closes."""
    held = np.array([quantities.get(symbol, 0.0) for symbol in market.symbols]) * market.close[row]
    equity = cash + held.sum()
    return observe(market.features[row], market.context[row], market.tradable[row], held / equity, cash / equity)


def holdings(exchange: RunningExchange) -> tuple[float, dict[str, float]]:
    books = exchange.books()
    return float(books["cash"]), {symbol: float(quantity) for symbol, quantity in books["positions"].items()}


def test_each_slot_observes_what_research_does_to_the_bit(
    run: Any, lake: Lake, vendor: Vendor, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    ledger_table.put_model(RANDOM)
    market = whole()
    before = {"open+5": market.index_of(DAY) - 1, "open+120": market.index_of(DAY), "open+240": market.index_of(DAY) + 1}
    hashes = []
    for slot in SLOTS:
        cash, quantities = holdings(exchange)
        told = run(slot)
        assert (told["outcome"], told["verdict"], told["state"]) == ("decided", "accepted", "done")
        kept = audit(lake, slot)
        vector = researched(market, before[slot], cash=cash, quantities=quantities)
        assert np.array(kept["observation"], dtype=np.float32).tobytes() == vector.tobytes()
        scores = SeededRandom(7).scores(SimpleNamespace(as_of=market.sessions[before[slot]], symbols=SYMBOLS))  # type: ignore[arg-type]
        assert [kept["scores"][symbol] for symbol in SYMBOLS] == list(scores)
        hashes.append(kept["inputs_sha256"])
        assert bool(quantities) == (slot != "open+5")
    assert len(set(hashes)) == 3
    reached = [(audit(lake, slot)["decision"]["data_as_of"], audit(lake, slot)["observed_until"]) for slot in SLOTS]
    assert reached == [(EVE, "2019-12-31T21:00:00Z"), (DAY, "2020-01-02T16:30:00Z"), (DAY, "2020-01-02T18:30:00Z")]
    assert vendor.asked == 2  # the first slot needs none of today's
    assert run("open+240")["outcome"] == "decided before"
    assert alerts(ledger_table) == {}


def test_minutes_and_rows_from_the_slot_on_change_nothing(
    run: Any, lake: Lake, vendor: Vendor, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    ledger_table.put_model(RANDOM)
    begins = pd.Timestamp(moment("open+120"))
    later = vendor.minutes["ts"] >= begins
    prices = ["open", "high", "low", "close"]
    vendor.minutes = vendor.minutes.assign(**{name: vendor.minutes[name].where(~later, 7 * vendor.minutes[name]) for name in prices})
    fill(lake, until=NEXT)  # rows of today and tomorrow, as no lake has them yet; nor an action that the vendor tells this evening
    late = {"id": "late", "symbol": "IBM", "ex_date": "2019-12-30", "kind": "split", "value": 2.0, "action": "forward_split", "known": DAY}
    lake.s3.put_object(Bucket=lake.raw_bucket, Key=actions_key("IBM"), Body=pack([late]))
    market = build_market(gather(history()[history()["ts"] < begins]), NO_ACTIONS, symbols=SYMBOLS)
    for slot, row in (("open+5", len(market) - 2), ("open+120", len(market) - 1)):
        cash, quantities = holdings(exchange)
        run(slot)
        kept = np.array(audit(lake, slot)["observation"], dtype=np.float32)
        assert kept.tobytes() == researched(market, row, cash=cash, quantities=quantities).tobytes()


def test_a_minute_before_the_slot_does_change_what_is_recorded_of_the_data(
    run: Any, lake: Lake, vendor: Vendor, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    """So that the look at poisoned minutes is none at a constant; and a minute that the vendor lacks is one that nobody traded in."""
    ledger_table.put_model(RANDOM)
    last = vendor.minutes["ts"] == vendor.minutes.loc[vendor.minutes["ts"] < pd.Timestamp(moment("open+120")), "ts"].max()
    vendor.minutes = vendor.minutes[~last]
    assert run("open+120")["outcome"] == "decided"
    market = build_market(gather(vendor.minutes, first=DAY), NO_ACTIONS, symbols=SYMBOLS)
    assert sorted(market.close[0]) != sorted(whole().close[-6])
    kept = audit(lake, "open+120")
    assert kept["decision"]["data_as_of"] == DAY


def test_a_vendor_without_todays_minutes_or_without_an_answer_makes_no_decision(
    run: Any, cloud: Cloud, vendor: Vendor, ledger_table: Ledger
) -> None:
    ledger_table.put_model(RANDOM)
    vendor.minutes, whole = vendor.minutes[:0], vendor.minutes
    assert run("open+120")["rule"] == "stale-data"
    wanted = "no name has a bar of the slot 2020-01-02T14:35Z, the newest is of 2019-12-31T18:30Z"
    assert wanted in alerts(ledger_table)["stale-data"]
    vendor.minutes, vendor.fails = whole, (403, "subscription does not permit querying recent SIP data")
    refused = run("open+240")
    assert (refused["outcome"], refused["rule"]) == ("no-trade", "stale-data")
    assert "the minutes of 2020-01-02 up to 2020-01-02T18:30:00Z could not be read" in refused["reason"]
    assert "subscription does not permit" in refused["reason"]
    vendor.fails, vendor.minutes = None, whole[whole["ts"] < pd.Timestamp(moment("open+120"))]
    assert "the newest is of 2020-01-02T14:35Z" in run("open+240")["reason"]
    assert cloud.decisions == 0


def test_a_lake_without_the_session_before_makes_no_decision_in_any_slot(run: Any, lake: Lake, cloud: Cloud, ledger_table: Ledger) -> None:
    ledger_table.put_model(RANDOM)
    fill(lake, until="2019-12-30")
    for slot in SLOTS:
        told = run(slot)
        assert told["rule"] == "stale-data"
        assert "newest slot bar must be of 2019-12-31T18:30Z, was 2019-12-30T18:30Z; run backfill_bars" in told["reason"]
    assert cloud.decisions == 0


def test_a_name_without_a_bar_in_the_slot_is_left_out_carried_and_named(
    run: Any, lake: Lake, vendor: Vendor, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    ledger_table.put_model(RANDOM)
    run("open+5")
    vendor.minutes = vendor.minutes[vendor.minutes["symbol"] != "IBM"]
    cash, quantities = holdings(exchange)
    told = run("open+120")
    assert told["missing"] == ["IBM"]
    detail = "IBM has no bar of 2020-01-02T14:35Z, its last is of 2019-12-31T18:30Z; it is left out and its position carried"
    assert alerts(ledger_table)["missing-bar:IBM"] == detail
    kept = audit(lake, "open+120")
    assert "IBM" not in kept["decision"]["weights"]
    market = build_market(
        gather(history()[(history()["symbol"] != "IBM") | (history()["ts"] < pd.Timestamp(DAY, tz="UTC"))]), NO_ACTIONS, symbols=SYMBOLS
    )
    row = market.index_of(DAY)
    closes = np.where(np.isfinite(market.close[row]), market.close[row], market.close[row - 1])
    worth = np.array([quantities[symbol] for symbol in SYMBOLS]) * closes
    assert kept["held"]["IBM"] == pytest.approx(worth[-1] / (cash + worth.sum()), rel=1e-12)
    assert holdings(exchange)[1]["IBM"] == quantities["IBM"]


def test_equal_weight_daily_trades_in_the_first_slot_and_rests_in_the_others(
    run: Any, reconcile: Any, cloud: Cloud, vendor: Vendor, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    assert run("open+5")["orders"] == 8
    held = holdings(exchange)
    for slot in SLOTS[1:]:
        told = run(slot)
        assert told == {
            "outcome": "rests",
            "decision_id": f"agent:{DAY}/{slot}",
            "reason": "equal weight daily trades once a session, in its first slot",
        }
    assert holdings(exchange) == held
    assert cloud.decisions == 1
    exchange.advance(f"{DAY}T19:05:00Z")
    reconcile()
    assert not [rule for rule in alerts(ledger_table) if rule.startswith("slot-missed")]


def test_an_order_at_rest_a_position_that_nothing_explains_and_another_account_make_no_decision(
    run: Any, lake: Lake, cloud: Cloud, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    ledger_table.put_model(RANDOM)
    run("open+5")
    by_hand(exchange, "SPY", "0.5")
    told = run("open+120")
    assert told["rule"] == "book-unknown"
    assert "SPY: our fills say" in told["reason"]
    ledger_table.change_breakers(lambda now: now.model_copy(update={"account_id": "another"}))
    told = run("open+240")
    assert told["rule"] == "book-unknown"
    assert "this app's is another" in told["reason"]
    assert cloud.decisions == 1


def test_an_order_in_doubt_or_open_makes_no_decision(run: Any, cloud: Cloud, ledger_table: Ledger, exchange: RunningExchange) -> None:
    ledger_table.put_model(RANDOM)
    run("open+5")
    (placed,) = [one for one in ledger_table.orders_of_day(DAY) if one.symbol == "SPY"]
    late = placed.model_copy(
        update={"client_order_id": "pt-late", "status": OrderStatus.UNKNOWN, "broker_id": None, "unknown_since": placed.created_at}
    )
    ledger_table.put_external_order(late)
    told = run("open+120")
    assert told["rule"] == "orders-open"
    assert "SPY (pt-late)" in told["reason"]
    assert alerts(ledger_table)["orders-open"] == told["reason"]
    assert cloud.decisions == 1


def test_an_order_that_a_person_left_at_the_broker_makes_no_decision(
    run: Any, cloud: Cloud, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    keys = {"APCA-API-KEY-ID": exchange.config.key_id, "APCA-API-SECRET-KEY": exchange.config.secret_key}
    resting = {"symbol": "SPY", "qty": "1", "side": "buy", "type": "limit", "limit_price": "100", "time_in_force": "day"}
    exchange.advance(moment("open+5"))
    assert requests.post(f"{exchange.url}/v2/orders", json=resting, headers=keys, timeout=5).status_code == 200
    ledger_table.put_model(RANDOM)
    told = run("open+120")
    assert told["rule"] == "orders-open"
    assert "has open orders: buy SPY" in told["reason"]
    assert cloud.decisions == 0


def test_a_batch_that_is_not_finished_makes_no_decision(run: Any, cloud: Cloud, ledger_table: Ledger) -> None:
    """It may have planned orders of which nobody knows yet."""
    ledger_table.put_model(RANDOM)
    ledger_table.open_decision(
        Decision(decision_id="manual:one", strategy="manual", slot="one", body_sha256="b", received_at=f"{DAY}T16:29:00Z")
    )
    told = run("open+120")
    assert (told["rule"], told["reason"]) == ("orders-open", "the book must be at rest, and manual:one is not finished")
    assert cloud.decisions == 0


def test_a_fill_between_the_last_snapshot_and_the_open_explains_its_position(
    run: Any, lake: Lake, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    exchange.reset(now="2019-12-31T15:00:00Z", cash="100000")
    ledger_table.put_snapshot(
        Snapshot(session=EVE, cash=Decimal(100_000), equity=Decimal(100_000), positions={}, taken_at=f"{EVE}T14:59:00Z")
    )
    by_hand(exchange, "SPY", "3")
    named: dict[str, Any] = {
        "client_order_id": "by-hand",
        "decision_id": f"external:{EVE}",
        "symbol": "SPY",
        "side": "buy",
        "quantity": Decimal(3),
    }
    order = OrderRecord(**named, slot=EVE, price=320.0, created_at=f"{EVE}T15:00:00Z", broker_id="theirs")
    ledger_table.put_external_order(order)
    ledger_table.save_order(
        order.model_copy(update={"status": OrderStatus.FILLED, "filled_quantity": Decimal(3), "fills": 1}),
        fill=Fill(**named, sequence=1, price=Decimal(320), cumulative=Decimal(3), time=f"{EVE}T15:00:01Z"),
    )
    ledger_table.put_model(RANDOM)
    assert run("open+120")["outcome"] == "decided"
    assert audit(lake, "open+120")["held"]["SPY"] > 0


def test_a_name_outside_of_the_universe_is_worth_its_last_trade(
    run: Any, lake: Lake, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    exchange.reset(now="2019-12-31T15:00:00Z", cash="100000")
    by_hand(exchange, "FB", "100")
    cash, _ = holdings(exchange)
    held = {"FB": Held(quantity=Decimal(100), close=Decimal(1))}
    ledger_table.put_snapshot(
        Snapshot(session=EVE, cash=Decimal(str(cash)), equity=Decimal(100_000), positions=held, taken_at=f"{EVE}T21:05:00Z")
    )
    ledger_table.put_model(RANDOM)
    assert run("open+120")["outcome"] == "decided"
    price = market_data_from_environment().latest_trades(["FB"])["FB"].price
    assert audit(lake, "open+120")["cash_weight"] == pytest.approx(cash / (cash + 100 * price), rel=1e-12)


def test_a_fill_that_the_ledger_does_not_know_waits_for_reconcile(
    run: Any, reconcile: Any, by_slot: Settings, ledger_table: Ledger, exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The orders of the first slot are filled in parts, the last of them when nobody asks."""
    ledger_table.put_model(RANDOM)
    monkeypatch.setenv("ORDER_TIMEOUT_SECONDS", "0.1")
    exchange.use_faults({"seed": 5, "faults": {"partial_fill": {"rate": 1, "seconds": 60, "expires": 0}}})
    try:
        assert run("open+5")["outcome"] == "decided"
        told = run("open+120")
        assert told["rule"] == "orders-open"
        assert "buy SPY" in told["reason"]
        reconcile()
        exchange.use_faults({})
        assert run("open+120")["outcome"] == "decided"
    finally:
        exchange.use_faults({})


def splits_of(*, symbol: str, day: str) -> bytes:
    split = {"id": "one", "symbol": symbol, "new_rate": 4, "old_rate": 1, "ex_date": day, "process_date": day}
    return json.dumps({"corporate_actions": {"forward_splits": [split]}, "next_page_token": None}).encode()


def test_a_split_of_the_day_is_in_the_market_and_until_it_is_in_the_position_nothing_is_decided(
    run: Any, lake: Lake, vendor: Vendor, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    """The lake hears of it in the evening; the vendor is asked in the slot."""
    exchange.reset(now="2019-12-31T15:00:00Z", cash="100000")
    by_hand(exchange, "AAPL", "10")
    cash, quantities = holdings(exchange)
    ledger_table.put_model(RANDOM)
    held = {"AAPL": Held(quantity=Decimal(10), close=Decimal("290"))}
    ledger_table.put_snapshot(
        Snapshot(session=EVE, cash=Decimal(str(cash)), equity=Decimal(100_000), positions=held, taken_at=f"{EVE}T21:05:00Z")
    )
    vendor.actions = splits_of(symbol="AAPL", day=DAY)
    for slot in SLOTS[:2]:
        told = run(slot)
        assert (told["rule"], told["reason"]) == ("split-pending", "AAPL splits 4 for 1, and the broker holds 10 still, not 40")
    vendor.actions = splits_of(symbol="IBM", day=DAY)
    told = {"id": "one", "symbol": "IBM", "ex_date": DAY, "kind": "split", "value": 4.0, "action": "forward_split"}
    lake.s3.put_object(Bucket=lake.raw_bucket, Key=actions_key("IBM"), Body=pack([told]))  # as from this evening on: it counts once
    assert run("open+120")["outcome"] == "decided"
    split = pd.DataFrame({"symbol": ["IBM"], "ex_date": [pd.Timestamp(DAY)], "kind": ["split"], "value": [4.0]})
    market = build_market(slot_rows(), split, symbols=SYMBOLS)
    vector = researched(market, market.index_of(DAY), cash=cash, quantities=quantities)
    assert np.array(audit(lake, "open+120")["observation"], dtype=np.float32).tobytes() == vector.tobytes()


def test_a_half_day_has_no_slot_after_its_close_and_its_last_row_ends_there(
    run: Any, lake: Lake, vendor: Vendor, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    exchange.reset(now="2019-12-23T22:00:00Z", cash="100000")
    ledger_table.put_model(RANDOM)
    half = "2019-12-24"
    for key in lake.raw_index(bars_prefix(ROWS)):
        lake.s3.delete_object(Bucket=lake.raw_bucket, Key=key)
    fill(lake, until="2019-12-23")
    vendor.minutes = history()
    assert run("open+120", half)["outcome"] == "decided"
    told = run("open+240", half)
    assert (told["outcome"], told["reason"]) == ("skipped", "2019-12-24 closes before slot 2019-12-24/open+240")
    fill(lake, until=half)
    cash, quantities = holdings(exchange)
    held = {name: Held(quantity=Decimal(str(quantity)), close=Decimal(1)) for name, quantity in quantities.items()}
    ledger_table.put_snapshot(
        Snapshot(session=half, cash=Decimal(str(cash)), equity=Decimal(100_000), positions=held, taken_at=f"{half}T18:05:00Z")
    )
    assert run("open+5", "2019-12-26")["outcome"] == "decided"
    kept = audit(lake, "open+5", "2019-12-26")
    assert (kept["decision"]["data_as_of"], kept["observed_until"]) == (half, "2019-12-24T18:00:00Z")
    market = whole()
    vector = researched(market, market.index_of("2019-12-26") - 1, cash=cash, quantities=quantities)
    assert np.array(kept["observation"], dtype=np.float32).tobytes() == vector.tobytes()


def serve(cloud: Cloud, ledger: Ledger, folder: Path, buckets: SimpleNamespace, *, slots: tuple[str, ...], role: str = "incumbent") -> None:
    """A random artifact of `slots` behind an endpoint, and a pointer to both."""
    names, context = tuple(feature.name for feature in FEATURES), tuple(feature.name for feature in CONTEXT)
    card = PolicyCard(
        features=names, context=context, feature_hash=FEATURE_HASH, schema_version=SCHEMA_VERSION, kappa=0.1, trained_on=("SPY",),
        train_start="2006-01-03", train_end="2015-12-31", seeds=(0,), code_version="test", slots=slots,
    )  # fmt: skip
    random, shapes = np.random.default_rng(1), array_shapes(seeds=1, inputs=card.inputs)
    arrays = {name: random.normal(0, 0.2, shape) for name, shape in shapes.items()}
    save_policy(folder, arrays | {"sigma": np.ones(shapes["sigma"])}, card)
    model = serving.model_fn(str(folder))
    cloud.endpoints[f"papertape-{role}"] = lambda body: (200, serving.predict_fn(serving.input_fn(body, "application/json"), model))
    content = archive({path.name: path.read_bytes() for path in folder.iterdir()})
    boto3.client("s3").put_object(Bucket=buckets.processed, Key=f"models/{role}/model/model.tar.gz", Body=content)
    ledger.put_model(
        ServedModel(
            role=role,
            policy="endpoint",
            spec=f"arn:{role}",
            endpoint=f"papertape-{role}",
            model_version=model.version,
            kappa=0.1,  # type: ignore[arg-type]
            feature_hash=FEATURE_HASH,
            since="2019-12-31T00:00:00Z",
            trained_until="2019-12-31",
            model_hash=model.version,
            model_uri=f"s3://{buckets.processed}/models/{role}/model/model.tar.gz",
        )
    )


def test_reconcile_misses_no_slot_that_begins_after_an_early_close(
    run: Any, reconcile: Any, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    exchange.reset(now="2019-12-24T20:00:00Z", cash="100000")
    ledger_table.put_model(RANDOM)
    reconcile()
    assert sorted(alert.rule for alert in ledger_table.alerts("2019-12")) == ["slot-missed:open+120", "slot-missed:open+5"]


def test_a_model_decides_between_its_own_slots_and_no_others(
    run: Any, cloud: Cloud, lake: Lake, buckets: SimpleNamespace, ledger_table: Ledger, tmp_path: Path
) -> None:
    """The endpoint and the package are refused alike."""
    serve(cloud, ledger_table, tmp_path / "daily", buckets, slots=())
    told = run("open+5")
    wanted = "slots must be open+5, open+120, open+240, was none (daily bars)"
    assert told["rule"] == "model-unavailable"
    assert f"endpoint papertape-incumbent: {wanted}; and without it: " in told["reason"]
    assert f"policy.json: {wanted}" in told["reason"]
    serve(cloud, ledger_table, tmp_path / "own", buckets, slots=SLOTS)
    assert run("open+120")["outcome"] == "decided"
    assert audit(lake, "open+120")["fallback"] is None
    cloud.endpoints["papertape-incumbent"] = lambda _body: (500, {})
    assert run("open+240")["outcome"] == "decided"
    kept = audit(lake, "open+240")
    assert "no answer" in kept["fallback"]
    assert kept["explanation"]["kind"] == "gradient"


def test_a_model_that_watches_equal_weight_is_asked_in_the_slots_in_which_that_rests(
    run: Any, cloud: Cloud, lake: Lake, buckets: SimpleNamespace, ledger_table: Ledger, tmp_path: Path
) -> None:
    serve(cloud, ledger_table, tmp_path, buckets, slots=SLOTS, role="shadow")
    assert [run(slot)["outcome"] for slot in SLOTS] == ["decided", "rests", "rests"]
    watched = {slot: ledger_table.shadow_decisions_in(f"{DAY}/{slot}") for slot in SLOTS}
    assert [len(found) for found in watched.values()] == [1, 1, 1]
    assert [found[0].data_as_of for found in watched.values()] == [EVE, DAY, DAY]
    assert alerts(ledger_table) == {}


def test_a_later_slot_is_executed_on_its_own_session_s_data_alone(
    execution: Any, decide: Any, by_slot: Settings, monkeypatch: pytest.MonkeyPatch, exchange: RunningExchange
) -> None:
    monkeypatch.setenv(SETTINGS_FILE, settings_file(by_slot))
    exchange.advance(moment("open+120"))

    def ask(slot: str, as_of: str) -> Any:
        named = f"{DAY}/{slot}"
        return execution("POST", "/decisions", decide(slot=named, decision_id=f"agent:{named}", data_as_of=as_of)).body

    stale = ask("open+120", EVE)
    assert (stale["verdict"], stale["orders"]) == ("refused", [])
    assert "data_as_of of a later slot must be its session, 2020-01-02, was 2019-12-31" in json.dumps(stale)
    ahead = ask("open+5", DAY)
    assert "data_as_of must be a session before 2020-01-02, was 2020-01-02" in json.dumps(ahead)


def test_the_last_minute_is_waited_for_by_the_broker_s_clock() -> None:
    until = datetime(2020, 1, 2, 16, 30, tzinfo=UTC)

    class Running:
        """A clock that runs as it is slept by, and stands at `now` otherwise."""

        def __init__(self, now: datetime, *, speed: float = 1.0) -> None:
            self.now, self.speed, self.slept = now, speed, 0.0

        def clock(self) -> Any:
            return SimpleNamespace(now=self.now)

        def sleep(self, seconds: float) -> None:
            self.slept += seconds
            self.now += timedelta(seconds=self.speed * seconds)

    def wait(now: datetime, *, speed: float = 1.0) -> float:
        broker = Running(now, speed=speed)
        await_minutes(broker, until=until, publication=Publication(seconds=5.0, sleep=broker.sleep))  # type: ignore[arg-type]
        return broker.slept

    assert wait(until + timedelta(seconds=9)) == 0
    assert wait(until + timedelta(seconds=1)) == 4
    assert wait(until - timedelta(seconds=2)) == 7
    for stopped in (until, until - timedelta(minutes=5)):
        with pytest.raises(NoTrade, match="the broker's clock must reach 2020-01-02T16:30:05Z before the minutes up to"):
            wait(stopped, speed=0.0)


def test_a_dry_run_says_what_a_later_slot_would_decide_of_what_has_ended(
    run: Any, lake: Lake, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    ledger_table.put_model(RANDOM)
    exchange.advance(f"{DAY}T16:29:00Z")
    early = deciding.handler({"dry_run": True}, None)
    assert (early["slot"], early["rule"]) == (f"{DAY}/open+120", None)
    assert "from the close of 2019-12-31" in early["reason"]
    exchange.advance(moment("open+120"))
    told = deciding.handler({"dry_run": True}, None)
    assert "from the slot bars up to 2020-01-02T16:30:00Z" in told["reason"]
    run("open+120")
    assert told["targets"] == audit(lake, "open+120")["decision"]["weights"]
    ledger_table.put_model(RANDOM.model_copy(update={"policy": "equal-weight", "spec": "equal-weight", "kappa": 1.0}))
    resting = deciding.handler({"dry_run": True, "slot": "open+240"}, None)
    assert (resting["targets"], resting["rule"]) == ({}, None)
    assert "once a session" in resting["reason"]


def test_a_session_of_one_slot_bar_is_explained_and_one_of_several_is_not(ledger_table: Ledger, by_slot: Settings) -> None:
    """Quantities that did not change have nothing but the marks to explain: the broker's closes against the last minutes'."""
    positions = {"SPY": Held(quantity=Decimal(10), close=Decimal(50))}
    for session in (EVE, DAY):
        ledger_table.put_snapshot(
            Snapshot(session=session, cash=Decimal(100), equity=Decimal(600), positions=positions, taken_at=f"{session}T21:05:00Z")
        )
    assert attribute_session(market=whole().rows(FIRST, DAY), settings=by_slot, ledger=ledger_table) is None
    hours = hours_between(date(2019, 12, 30), date(2020, 1, 2))
    recent = history()[(history()["ts"] >= pd.Timestamp("2019-12-30", tz="UTC")) & (history()["ts"] < pd.Timestamp(NEXT, tz="UTC"))]
    bars = slot_bars(recent, hours=hours, slots=[5], window=30).bars
    once = by_slot.model_copy(update={"schedule": by_slot.schedule.model_copy(update={"slots": ("open+5",)})})
    found = attribute_session(market=build_market(bars, NO_ACTIONS, symbols=SYMBOLS), settings=once, ledger=ledger_table)
    assert found is not None
    assert (found.session, found.live) == (DAY, 0.0)
    assert sum(found.parts.values()) == pytest.approx(found.live - found.ideal, abs=1e-9)


def test_health_misses_the_slots_in_which_a_decision_was_due_and_no_others(by_slot: Settings) -> None:
    evening = replace(WELL, now=WELL.now.replace(hour=20), decisions=())
    assert list(checks.slot(evening, by_slot)) == list(SLOTS)
    assert list(checks.slot(replace(evening, trader=FIRST_INCUMBENT), by_slot)) == ["open+5"]
    half = replace(evening, closes=WELL.now.replace(hour=18))
    assert list(checks.slot(half, by_slot)) == ["open+5", "open+120"]
    daily = by_slot.model_copy(update={"training": by_slot.training.model_copy(update={"timeframe": "1Day"})})
    assert list(checks.slot(replace(half, trader=FIRST_INCUMBENT), daily)) == list(SLOTS)
