"""decide, from raw bars in S3 to orders at a real exchange: data, policy, audit, shadow, and every reason not to trade.

The execution API and SageMaker's runtime are one loopback server: it hands decisions to the real execution handler, and observations to
the real `sagemaker/inference.py` with a real artifact.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest
import requests
from botocore.exceptions import ReadTimeoutError

from lambdas.backfill_bars.handler import handler as backfill
from lambdas.common.lake import lake as lakes
from lambdas.common.lake.lake import Lake
from lambdas.common.ledger.item import LedgerCorrupt
from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import Held, ServedModel, Snapshot
from lambdas.decide import handler as deciding
from lambdas.decide.attribution import live_day
from lambdas.decide.data import market_snapshot
from lambdas.decide.decision import AccountAtClose, observe_state
from lambdas.decide.endpoint import EndpointError, Retries, ask_again
from learning import serving
from learning.packaging import archive
from local.exchange.server import RunningExchange
from papertape.market_data import bundled
from schema.lake_layout import actions_key, bars_key
from schema.sections.learning import GateSettings
from schema.settings import SETTINGS_FILE, Settings
from schema.trading_rules import limits_of, rules_of
from tests.lakes import calendar_objects, fill_raw
from tests.markets import market_of
from tests.settings_files import settings_file
from trading_env.data.features import CONTEXT, FEATURE_HASH, FEATURES, SCHEMA_VERSION
from trading_env.data.market import Market, build_market
from trading_env.data.observation import Layout
from trading_env.evaluation.attribution import AttributionParts, explain
from trading_env.evaluation.backtest import BacktestResult, backtest
from trading_env.simulation.policy import (
    NumpyPolicy,
    PolicyCard,
    SeededRandom,
    array_shapes,
    outside,
    save_policy,
    weights_from_scores,
)
from trading_env.simulation.portfolio import Rules

ROOT = Path(__file__).resolve().parents[3]
SLOT = {"schedule": "decide", "time": "2020-01-02T14:35:00Z"}
DECISION = "agent:2020-01-02/open+5"
RECORD = "audit/decisions/2020-01-02/agent_2020-01-02_open+5.json"
Answer = tuple[int, dict[str, Any]]


class Cloud:
    """What decide calls over HTTP. `endpoints` maps a name to what answers a request's body."""

    def __init__(self, execute: Callable[..., Any]) -> None:
        self.endpoints: dict[str, Callable[[bytes], Answer]] = {}
        self.decisions = 0

        def post(path: str, body: bytes) -> Answer:
            if path.startswith("/endpoints/"):
                return self.endpoints[path.split("/")[2]](body)
            self.decisions += 1
            answer = execute("POST", "/decisions", body.decode())
            return answer.status, answer.body

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, answer = post(self.path, self.rfile.read(int(self.headers["Content-Length"])))
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                if status == 424:
                    self.send_header("x-amzn-ErrorType", "ModelError")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def cloud(execution: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    running = Cloud(execution)
    monkeypatch.setenv("EXECUTION_API_URL", "https://abcdefgh.execute-api.us-east-1.amazonaws.com/v1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_EXECUTE_API", running.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", running.url)
    for name, seconds in {"CONNECT_TIMEOUT": "0.1", "READ_TIMEOUT": "1", "RETRY_SECONDS": "0", "PAUSE_SECONDS": "0.01"}.items():
        monkeypatch.setenv(f"ENDPOINT_{name}", seconds)
    deciding._runtime.cache_clear()
    yield running
    deciding._runtime.cache_clear()
    running.server.shutdown()
    running.server.server_close()


@pytest.fixture
def lake(buckets: SimpleNamespace, settings: Settings) -> Iterator[Lake]:
    lakes.lake.cache_clear()
    lake = Lake(s3=boto3.client("s3"), raw_bucket=buckets.raw, audit_bucket=buckets.audit)
    fill_raw(lake, symbols=settings.universe.symbols, start="2016-01-04", end="2019-12-31")
    yield lake
    lakes.lake.cache_clear()


@pytest.fixture
def run(cloud: Cloud, lake: Lake) -> Callable[..., dict[str, Any]]:
    return lambda event=SLOT: deciding.handler(event, None)  # type: ignore[no-any-return]


@pytest.fixture
def served(cloud: Cloud, ledger_table: Ledger, buckets: SimpleNamespace, tmp_path: Path) -> Callable[..., ServedModel]:
    """Put a random artifact behind an endpoint and point a role to it; keywords change the pointer."""
    module = serving

    def serve(role: str = "incumbent", *, seed: int = 1, **changes: Any) -> ServedModel:
        folder = tmp_path / role
        card = PolicyCard(
            features=tuple(feature.name for feature in FEATURES),
            context=tuple(feature.name for feature in CONTEXT),
            feature_hash=FEATURE_HASH,
            schema_version=SCHEMA_VERSION,
            kappa=0.1,
            trained_on=("SPY",),
            train_start="2006-01-03",
            train_end="2015-12-31",
            seeds=(0, 1),
            code_version="test",
        )
        random = np.random.default_rng(seed)
        shapes = array_shapes(seeds=2, inputs=card.inputs)
        arrays = {name: random.normal(0, 0.2, shape) for name, shape in shapes.items()}
        save_policy(folder, arrays | {"sigma": np.ones(shapes["sigma"])}, card)
        model = module.model_fn(str(folder))

        def answer(body: bytes) -> Answer:
            return 200, module.predict_fn(module.input_fn(body, "application/json"), model)

        cloud.endpoints[f"papertape-{role}"] = answer
        uri = f"models/{role}/model/model.tar.gz"
        boto3.client("s3").put_object(
            Bucket=buckets.processed, Key=uri, Body=archive({path.name: path.read_bytes() for path in folder.iterdir()})
        )
        pointer = ServedModel(
            role=role,  # type: ignore[arg-type]
            policy="endpoint",
            spec=f"arn:aws:sagemaker:us-east-1:0:model-package/papertape/{seed}",
            endpoint=f"papertape-{role}",
            model_version=model.version,
            kappa=0.1,
            feature_hash=FEATURE_HASH,
            since="2019-12-31T00:00:00Z",
            trained_until="2019-12-31",
            model_hash=model.version,
            model_uri=f"s3://{buckets.processed}/{uri}",
        ).model_copy(update=changes)
        ledger_table.put_model(pointer)
        return pointer

    return serve


def alerts(ledger: Ledger) -> dict[str, str]:
    return {alert.rule: alert.detail for alert in ledger.alerts("2020-01")}


def record(lake: Lake, key: str = RECORD) -> dict[str, Any]:
    return json.loads(lake.s3.get_object(Bucket=lake.audit_bucket, Key=key)["Body"].read())  # type: ignore[no-any-return]


def test_each_slot_of_a_session_decides_once(
    run: Any,
    reconcile: Any,
    lake: Lake,
    ledger_table: Ledger,
    exchange: RunningExchange,
    two_slots: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the second day: on the first there is no closing snapshot that a later slot could start from."""
    monkeypatch.setenv(SETTINGS_FILE, settings_file(two_slots))
    with pytest.raises(ValueError, match=r"the slot must be one of open\+5, open\+60, was None"):
        run(SLOT)
    assert run({**SLOT, "slot": "open+5"})["decision_id"] == DECISION
    exchange.advance("2020-01-02T21:05:00Z")
    reconcile()
    fill_raw(lake, symbols=two_slots.universe.symbols, start="2016-01-04", end="2020-01-02")
    for slot, time in (("open+5", "14:35"), ("open+60", "15:30")):
        event = {"schedule": "decide", "time": f"2020-01-03T{time}:00Z", "slot": slot}
        exchange.advance(event["time"])
        told = run(event)
        assert (told["outcome"], told["decision_id"], told["verdict"]) == ("decided", f"agent:2020-01-03/{slot}", "accepted")
        assert run(event)["outcome"] == "decided before"
    first, second = (ledger_table.decision(f"agent:2020-01-03/{slot}") for slot in two_slots.schedule.slots)
    assert first is not None
    assert second is not None
    assert (first.window_ends, second.window_ends) == ("2020-01-03T15:05:00Z", "2020-01-03T16:00:00Z")
    assert first.weights == second.weights  # of the same close and the same book
    exchange.advance("2020-01-03T21:05:00Z")
    reconcile()
    fill_raw(lake, symbols=two_slots.universe.symbols, start="2016-01-04", end="2020-01-03")
    exchange.advance("2020-01-06T14:35:00Z")
    assert run({"schedule": "decide", "time": "2020-01-06T14:35:00Z", "slot": "open+5"})["outcome"] == "decided"
    assert [one.session for one in ledger_table.attributions("2020-01-01", "2020-01-31")] == []


def test_the_first_decision_is_equal_weight_from_the_broker_s_account(
    run: Any, cloud: Cloud, lake: Lake, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    result = run()
    assert (result["outcome"], result["as_of"], result["orders"], result["verdict"]) == ("decided", "2019-12-31", 8, "accepted")
    assert len(exchange.books()["positions"]) == 8
    made = ledger_table.decision(DECISION)
    assert made is not None
    assert made.weights == dict.fromkeys(made.weights, 0.125)
    assert (made.model_version, made.feature_hash) == ("equal-weight", FEATURE_HASH)

    audit = record(lake)
    assert audit["decision"]["weights"] == made.weights
    assert audit["decision"]["observation_hash"] == made.observation_hash
    assert audit["cash_weight"] == 1.0
    assert len(audit["observation"]) == 8 * (len(FEATURES) + 2) + 1 + len(CONTEXT)

    again = run()
    assert (again["outcome"], again["state"]) == ("decided before", "done")
    assert cloud.decisions == 1


def test_a_holiday_is_skipped_and_said(run: Any, cloud: Cloud) -> None:
    result = run({"schedule": "decide", "time": "2020-01-01T14:35:00Z"})
    assert result == {"outcome": "skipped", "reason": "2020-01-01 is not a session"}
    assert cloud.decisions == 0


def stored(ledger: Ledger) -> list[Any]:
    """Everything that is written anywhere: the ledger's items, and every object of every bucket with its time."""
    items = boto3.client("dynamodb").scan(TableName=ledger._table.name)["Items"]
    s3 = boto3.client("s3")
    names = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    listed = [(name, one["Key"], one["LastModified"]) for name in names for one in s3.list_objects_v2(Bucket=name).get("Contents", ())]
    return [items, listed]


@pytest.mark.parametrize("now", ["2020-01-02T14:40:00Z", "2020-01-03T02:00:00Z"])  # in the window, and in the night
def test_a_dry_run_says_what_would_be_decided_at_any_hour_and_writes_nothing(
    run: Any, cloud: Cloud, ledger_table: Ledger, exchange: RunningExchange, settings: Settings, now: str
) -> None:
    exchange.reset(now=now, cash="100000")
    before = stored(ledger_table)
    told = json.loads(json.dumps(run({"dry_run": True})))
    assert told["targets"] == dict.fromkeys(settings.universe.symbols, 0.125)
    assert (told["dry_run"], told["strategy"], told["rule"]) == (True, "equal-weight", None)
    assert told["slot"] == ("2020-01-02/open+5" if now < "2020-01-02T15:05" else "2020-01-03/open+5")
    assert told["cash"] == pytest.approx(settings.portfolio.cash_buffer)
    assert "from the close of 2019-12-31" in told["reason"]
    assert stored(ledger_table) == before
    assert cloud.decisions == 0
    assert exchange.books()["orders"] == []


def test_a_dry_run_is_the_decision_that_follows(run: Any, served: Any, ledger_table: Ledger) -> None:
    model = served()
    told = run({"dry_run": True})
    assert (told["strategy"], told["model_version"]) == ("endpoint", model.model_version)
    run()
    made = ledger_table.decision(DECISION)
    assert made is not None
    assert told["targets"] == made.weights


def test_a_dry_run_starts_from_the_book_as_it_is_now(run: Any, ledger_table: Ledger, exchange: RunningExchange, served: Any) -> None:
    """A decision is refused, for nobody knows what this account was worth at the close; a look ahead needs no such proof."""
    served()
    by_hand(exchange, "SPY", "100")
    told = run({"dry_run": True})
    assert told["rule"] is None
    assert max(told["targets"], key=told["targets"].get) == "SPY"  # a tenth of the way from all in SPY
    assert told["cash"] < 0.005


def test_a_dry_run_names_what_stands_in_the_way_and_raises_no_alert(run: Any, cloud: Cloud, served: Any, ledger_table: Ledger) -> None:
    served(model_uri=None)
    cloud.endpoints["papertape-incumbent"] = lambda _body: (500, {})
    before = stored(ledger_table)
    told = run({"dry_run": True})
    assert (told["targets"], told["cash"], told["rule"]) == ({}, None, "model-unavailable")
    assert "no answer" in told["reason"]
    assert stored(ledger_table) == before


def test_a_dry_run_over_a_lake_that_is_behind_says_what_to_run(run: Any, exchange: RunningExchange, lake: Lake) -> None:
    exchange.reset(now="2020-01-06T14:40:00Z", cash="100000")
    told = run({"dry_run": True})
    assert (told["slot"], told["targets"], told["rule"]) == ("2020-01-06/open+5", {}, "stale-data")
    assert "must be of 2020-01-02, was 2019-12-31; run backfill_bars" in told["reason"]
    for key in lake.raw_index(""):
        lake.s3.delete_object(Bucket=lake.raw_bucket, Key=key)
    assert "calendar does not reach 2020-01-06; run backfill_bars" in run({"dry_run": True})["reason"]


def test_live_features_are_the_batch_s(lake: Lake, settings: Settings) -> None:
    """Three years of history, cut at the session, against the whole of it with the year that follows."""
    fresh = Lake(s3=lake.s3, raw_bucket=lake.raw_bucket)
    sessions = [date.fromisoformat(row["session"]) for rows in calendar_objects().values() for row in rows]
    snapshot = market_snapshot(lake=fresh, symbols=settings.universe.symbols, sessions=sessions, as_of=date(2019, 12, 31))
    whole = build_market(bundled.daily_bars(), bundled.corporate_actions(), symbols=settings.universe.symbols)
    row = whole.index_of("2019-12-31")
    np.testing.assert_allclose(snapshot.market.features[-1], whole.features[row], rtol=0, atol=1e-9)
    np.testing.assert_allclose(snapshot.market.context[-1], whole.context[row], rtol=0, atol=1e-9)
    assert (snapshot.market.tradable[-1] == whole.tradable[row]).all()
    assert (snapshot.quarantined, snapshot.missing) == (0, {})


def test_bars_after_the_close_observed_do_not_enter(lake: Lake, settings: Settings) -> None:
    sessions = [date.fromisoformat(row["session"]) for rows in calendar_objects().values() for row in rows]
    before = market_snapshot(lake=lake, symbols=settings.universe.symbols, sessions=sessions, as_of=date(2019, 12, 31)).market
    fill_raw(lake, symbols=settings.universe.symbols, start="2016-01-04", end="2020-01-31")
    after = market_snapshot(lake=lake, symbols=settings.universe.symbols, sessions=sessions, as_of=date(2019, 12, 31)).market
    assert after.features.tobytes() == before.features.tobytes()
    assert after.sessions[-1] == before.sessions[-1]


def test_a_name_without_a_bar_at_the_close_is_left_out_and_named(run: Any, lake: Lake, ledger_table: Ledger) -> None:
    key = bars_key("IBM", 2019)
    lake.write({key: lake.read([key], prefix=lakes.BARS)[key][:-1]})
    result = run()
    made = ledger_table.decision(DECISION)
    assert result["missing"] == ["IBM"]
    told = "IBM has no bar of 2019-12-31, its last is of 2019-12-30; it is left out and its position carried"
    assert alerts(ledger_table) == {"missing-bar:IBM": told}
    assert made is not None
    assert "IBM" not in made.weights
    assert sum(made.weights.values()) == pytest.approx(1.0)


def test_a_name_that_is_gone_is_named_every_day_until_a_person_takes_it_out(run: Any, lake: Lake, ledger_table: Ledger) -> None:
    """Delisted a month ago, and another of which the vendor never had a bar: neither is silent after its first day."""
    key = bars_key("IBM", 2019)
    lake.write({key: [row for row in lake.read([key], prefix=lakes.BARS)[key] if row["ts"] < "2019-12-02"]})
    for year in (2016, 2017, 2018, 2019):
        key = bars_key("AIG", year)
        lake.s3.delete_object(Bucket=lake.raw_bucket, Key=key)
    assert set(run()["missing"]) == {"AIG", "IBM"}
    told = alerts(ledger_table)
    assert "its last is of 2019-11-29" in told["missing-bar:IBM"]
    assert "the lake has none of it at all" in told["missing-bar:AIG"]
    made = ledger_table.decision(DECISION)
    assert made is not None
    assert made.weights.keys() & {"AIG", "IBM"} == set()


def test_a_held_name_without_any_bar_is_valued_as_the_snapshot_says(run: Any, lake: Lake, ledger_table: Ledger) -> None:
    for year in (2016, 2017, 2018, 2019):
        lake.s3.delete_object(Bucket=lake.raw_bucket, Key=bars_key("AIG", year))
    held = {"AIG": Held(quantity=Decimal(100), close=Decimal("50"))}
    ledger_table.put_snapshot(
        Snapshot(session="2019-12-31", cash=Decimal(5_000), equity=Decimal(10_000), positions=held, taken_at="2019-12-31T21:05:00Z")
    )
    assert run()["outcome"] == "decided"
    audit = record(lake)
    assert (audit["held"]["AIG"], audit["cash_weight"]) == (0.5, 0.5)


def test_the_first_decision_waits_for_the_close_of_an_account_that_holds_something(
    run: Any, cloud: Cloud, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    """A ledger that was lost over night, or a used account: what it was worth at the last close nobody has written down."""
    by_hand(exchange, "SPY", "3")
    assert run()["rule"] == "book-unknown"
    assert "an account without positions, was SPY" in alerts(ledger_table)["book-unknown"]
    assert cloud.decisions == 0


def test_the_snapshot_of_another_account_is_none(run: Any, cloud: Cloud, ledger_table: Ledger) -> None:
    ledger_table.put_snapshot(
        Snapshot(session="2019-12-31", cash=Decimal(1), equity=Decimal(1), account_id="old", taken_at="2019-12-31T21:05:00Z")
    )
    ledger_table.change_breakers(lambda now: now.model_copy(update={"account_id": "new"}))
    assert run()["rule"] == "book-unknown"
    assert cloud.decisions == 0


def test_a_split_that_is_not_in_the_positions_yet_makes_no_decision(
    run: Any, lake: Lake, cloud: Cloud, ledger_table: Ledger, exchange: RunningExchange, settings: Settings
) -> None:
    """The morning of AAPL's 4:1: with 100 shares where 400 are due nothing is sized; with 400 the book is what it was at the close."""
    fill_raw(lake, symbols=settings.universe.symbols, start="2016-01-04", end="2020-08-28")
    exchange.reset(now="2020-08-31T13:35:00Z", cash="100000")
    held = {"AAPL": Held(quantity=Decimal(100), close=Decimal("499.23"))}
    ledger_table.put_snapshot(
        Snapshot(session="2020-08-28", cash=Decimal(50_077), equity=Decimal(100_000), positions=held, taken_at="2020-08-28T20:05:00Z")
    )
    by_hand(exchange, "AAPL", "100")
    morning = {"schedule": "decide", "time": "2020-08-31T13:35:00Z"}
    assert run(morning)["rule"] == "split-pending"
    said = {alert.rule: alert.detail for alert in ledger_table.alerts("2020-08")}
    assert said["split-pending"] == "AAPL splits 4 for 1, and the broker holds 100 still, not 400"
    assert cloud.decisions == 0
    by_hand(exchange, "AAPL", "300")
    assert run(morning)["outcome"] == "decided"
    audit = record(lake, RECORD.replace("2020-01-02", "2020-08-31"))
    assert audit["held"]["AAPL"] == pytest.approx(100 * 499.23 / 100_000, rel=1e-9)


def by_hand(exchange: RunningExchange, symbol: str, quantity: str) -> None:
    keys = {"APCA-API-KEY-ID": exchange.config.key_id, "APCA-API-SECRET-KEY": exchange.config.secret_key}
    order = {"symbol": symbol, "qty": quantity, "side": "buy", "type": "market", "time_in_force": "day"}
    assert requests.post(f"{exchange.url}/v2/orders", data=json.dumps(order), headers=keys, timeout=5).status_code == 200


def test_old_bars_make_no_decision(run: Any, lake: Lake, cloud: Cloud, ledger_table: Ledger, settings: Settings) -> None:
    for symbol in settings.universe.symbols:
        key = bars_key(symbol, 2019)
        lake.write({key: lake.read([key], prefix=lakes.BARS)[key][:-1]})
    result = run()
    assert (result["outcome"], result["rule"]) == ("no-trade", "stale-data")
    assert "must be of 2019-12-31, was 2019-12-30" in alerts(ledger_table)["stale-data"]
    assert cloud.decisions == 0
    assert ledger_table.decision(DECISION) is None


def test_a_missing_snapshot_makes_no_decision_once_there_was_one(run: Any, ledger_table: Ledger, cloud: Cloud) -> None:
    ledger_table.put_snapshot(Snapshot(session="2019-12-30", cash=Decimal(1000), equity=Decimal(1000), taken_at="2019-12-30T21:05:00Z"))
    assert run()["rule"] == "book-unknown"
    assert "no closing snapshot of 2019-12-31" in alerts(ledger_table)["book-unknown"]
    assert cloud.decisions == 0


def test_the_book_observed_is_the_closing_snapshot_at_raw_closes(run: Any, ledger_table: Ledger, lake: Lake, served: Any) -> None:
    """The broker's own equity figure, which moves after hours, does not count; a name outside the universe does."""
    model = served()
    positions = {
        "AAPL": Held(quantity=Decimal("100"), close=Decimal("1")),
        "SPY": Held(quantity=Decimal("50.5"), close=Decimal("1")),
        "TLT": Held(quantity=Decimal("10"), close=Decimal("135.48")),
    }
    ledger_table.put_snapshot(
        Snapshot(session="2019-12-31", cash=Decimal("5000"), equity=Decimal("99"), positions=positions, taken_at="2019-12-31T21:05:00Z")
    )
    run()
    closes = bundled.daily_bars().set_index(["symbol", "session"])["close"].xs(pd.Timestamp("2019-12-31"), level="session")
    equity = 5000 + 100 * closes["AAPL"] + 50.5 * closes["SPY"] + 10 * 135.48
    audit = record(lake)
    assert audit["held"]["AAPL"] == pytest.approx(100 * closes["AAPL"] / equity, rel=1e-12)
    assert audit["held"]["SPY"] == pytest.approx(50.5 * closes["SPY"] / equity, rel=1e-12)
    assert audit["cash_weight"] == pytest.approx(5000 / equity, rel=1e-12)
    held, values = np.array(list(audit["held"].values())), np.array(list(audit["scores"].values()))
    wanted = weights_from_scores(values, held, np.ones(8, dtype=bool), kappa=model.kappa)
    assert list(audit["decision"]["weights"].values()) == list(wanted)


def test_a_halted_name_is_valued_through_a_split_while_it_has_no_bar() -> None:
    """Four for one while halted: the broker holds four times the shares, and the equity observed does not jump."""
    nan = np.nan
    prices = np.array([[100.0, 50.0], [100.0, 50.0], [nan, 50.0]])
    split = np.array([[1.0, 1.0], [1.0, 1.0], [4.0, 1.0]])
    market = market_of(
        open=prices, close=prices, split=split, features=np.zeros((3, 2, len(FEATURES))), context=np.zeros((3, len(CONTEXT)))
    )
    observed = observe_state(market=market, account=AccountAtClose(cash=100.0, quantities={"S0": 4.0, "S1": 4.0}, closes={}))
    assert list(observed.held) == [0.25, 0.5]
    assert observed.cash_weight == 0.25


def test_the_incumbent_s_endpoint_decides(run: Any, served: Any, ledger_table: Ledger, lake: Lake) -> None:
    model = served()
    assert run()["outcome"] == "decided"
    made = ledger_table.decision(DECISION)
    assert made is not None
    assert made.model_version == model.model_version
    assert len(set(made.weights.values())) == 8
    audit = record(lake)
    assert audit["model"]["spec"] == model.spec
    values = np.array([audit["scores"][symbol] for symbol in made.weights])
    wanted = weights_from_scores(values, np.zeros(8), np.ones(8, dtype=bool), kappa=0.1)
    assert list(made.weights.values()) == list(wanted)


def test_a_random_incumbent_is_its_seed(run: Any, ledger_table: Ledger) -> None:
    ledger_table.put_model(
        ServedModel(role="incumbent", policy="random", spec="random:7", model_version="random:7", kappa=1.0, since="2019-12-31T00:00:00Z")
    )
    run()
    made = ledger_table.decision(DECISION)
    scores = np.random.default_rng([7, np.datetime64("2019-12-31").astype(int)]).standard_normal(8)
    assert made is not None
    assert list(made.weights.values()) == pytest.approx(list(np.exp(scores) / np.exp(scores).sum()), rel=1e-12)


GOOD = {"scores": [0.0] * 8, "model_version": "v", "diagnostics": {"feature_hash": FEATURE_HASH}}


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ((500, {"message": "out of memory"}), "no answer"),
        ((200, GOOD | {"scores": [0.0] * 7}), "scores must have 8 values, was 7"),
        ((200, GOOD | {"scores": [float("nan")] * 8}), "scores"),
        ((200, GOOD | {"scores": [True] * 8}), "scores.0"),
        ((200, GOOD | {"model_version": "other"}), "model_version must be v, was other"),
        ((200, GOOD | {"diagnostics": {"feature_hash": "abc"}}), f"feature_hash must be {FEATURE_HASH}, was abc"),
        ((200, {"scores": [0.0] * 8}), "model_version: Field required"),
        ((200, GOOD | {"scores": [0.0] * 7 + [50.1]}), "scores must lie within 50 of 0, was 50.1"),
        ((200, GOOD | {"scores": [1e300] * 8}), "scores must lie within 50 of 0"),
        ((200, GOOD | {"diagnostics": {"feature_hash": FEATURE_HASH, "outside": 1.5}}), "diagnostics.outside"),
    ],
)
def test_an_endpoint_that_cannot_be_believed_makes_no_decision(
    run: Any, cloud: Cloud, served: Any, ledger_table: Ledger, answer: Answer, named: str
) -> None:
    served(model_version="v")  # which is not the hash of its package either
    cloud.endpoints["papertape-incumbent"] = lambda _body: answer
    result = run()
    assert (result["outcome"], result["rule"]) == ("no-trade", "model-unavailable")
    assert named in alerts(ledger_table)["model-unavailable"]
    assert cloud.decisions == 0


def failing(times: int, then: Callable[[bytes], Answer]) -> tuple[Callable[[bytes], Answer], list[bytes]]:
    """An endpoint that answers 500 so many times, then as it should; and what it was asked."""
    asked: list[bytes] = []

    def answer(body: bytes) -> Answer:
        asked.append(body)
        return (500, {"message": "cold"}) if len(asked) <= times else then(body)

    return answer, asked


def test_an_endpoint_that_fails_twice_and_then_answers_decides(
    run: Any, cloud: Cloud, served: Any, ledger_table: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_RETRY_SECONDS", "60")
    served()
    cloud.endpoints["papertape-incumbent"], asked = failing(2, then=cloud.endpoints["papertape-incumbent"])
    assert run()["outcome"] == "decided"
    assert len(asked) == 3
    assert alerts(ledger_table) == {}


def test_with_the_endpoint_down_its_package_decides_bit_for_bit_the_same_and_an_alert_says_so(
    run: Any, cloud: Cloud, served: Any, ledger_table: Ledger, lake: Lake
) -> None:
    model = served()
    wanted = run({"dry_run": True})["targets"]
    honest = cloud.endpoints["papertape-incumbent"]
    cloud.endpoints["papertape-incumbent"], asked = failing(1_000, then=honest)
    assert run()["outcome"] == "decided"
    made = ledger_table.decision(DECISION)
    assert made is not None
    assert made.weights == wanted
    assert len(set(made.weights.values())) == 8
    audit, answer = record(lake), honest(asked[-1])[1]
    assert [audit["scores"][symbol] for symbol in json.loads(asked[-1])["symbols"]] == answer["scores"]
    assert audit["outside"] == answer["diagnostics"]["outside"]
    assert "no answer" in audit["fallback"]
    said = alerts(ledger_table)["endpoint-fallback"]
    assert "no answer" in said
    assert str(model.model_uri) in said


def test_a_request_that_the_model_refuses_is_not_sent_again(run: Any, cloud: Cloud, served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDPOINT_RETRY_SECONDS", "60")
    served()
    asked: list[bytes] = []
    refused = {"OriginalStatusCode": 400, "OriginalMessage": '{"field": "observation"}', "Message": "received a client error"}
    cloud.endpoints["papertape-incumbent"] = lambda body: (asked.append(body), (424, refused))[1]
    assert run()["outcome"] == "decided"
    assert len(asked) == 1


def test_a_package_that_cannot_be_verified_trades_nothing(run: Any, cloud: Cloud, served: Any, buckets: SimpleNamespace) -> None:
    served()
    served("shadow", seed=2)
    cloud.endpoints["papertape-incumbent"] = lambda _body: (500, {})
    s3, bucket, key = boto3.client("s3"), buckets.processed, "models/incumbent/model/model.tar.gz"
    whole = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    other = s3.get_object(Bucket=bucket, Key="models/shadow/model/model.tar.gz")["Body"].read()
    for body, named in ((other, "must have the hash"), (whole[:-100], "cannot be read"), (None, "is not there")):
        if body is None:
            s3.delete_object(Bucket=bucket, Key=key)
        else:
            s3.put_object(Bucket=bucket, Key=key, Body=body)
        told = run()
        assert (told["outcome"], told["rule"]) == ("no-trade", "model-unavailable")
        assert named in told["reason"]
    assert cloud.decisions == 0


class Day:
    """A clock that only sleeping and waiting for answers move."""

    def __init__(self) -> None:
        self.now, self.pauses = 0.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)

    def invoke_endpoint(self, **_: Any) -> Any:
        """The runtime of an endpoint that never answers: a minute's wait, then nothing."""
        self.now += self.waits
        raise ReadTimeoutError(endpoint_url="https://runtime")

    waits = 60.0


@pytest.mark.parametrize(
    ("waits", "seconds", "attempts", "ended"), [(60.0, 240.0, 3, 186.0), (0.0, 240.0, 9, 150.0), (60.0, 100.0, 1, 60.0), (0.0, 0.0, 1, 0.0)]
)
def test_an_endpoint_is_asked_again_only_while_another_attempt_can_end_in_time(
    waits: float, seconds: float, attempts: int, ended: float
) -> None:
    day = Day()
    day.waits = waits
    retries = Retries(until=240.0, attempt=63.0, monotonic=lambda: day.now, sleep=day.sleep).within(seconds)
    model = ServedModel(role="incumbent", policy="endpoint", spec="a", endpoint="e", model_version="v", kappa=0.1, since="")
    with pytest.raises(EndpointError, match="no answer"):
        ask_again(
            retries=retries, runtime=day, model=model, as_of=date(2020, 1, 2), symbols=("A",), observation=np.zeros(1, dtype=np.float32)
        )
    assert (len(day.pauses) + 1, day.now) == (attempts, ended)


def test_nothing_is_asked_again_past_the_slot_s_window(
    run: Any, cloud: Cloud, served: Any, ledger_table: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_RETRY_SECONDS", "600")
    served()
    cloud.endpoints["papertape-incumbent"], asked = failing(1_000, then=cloud.endpoints["papertape-incumbent"])
    assert run({**SLOT, "time": "2020-01-02T15:04:58.8Z"})["verdict"] == "accepted"
    assert len(asked) == 1


def test_nothing_is_asked_again_when_the_function_has_hardly_time_to_send(
    run: Any, cloud: Cloud, served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_RETRY_SECONDS", "600")
    served()
    cloud.endpoints["papertape-incumbent"], asked = failing(1_000, then=cloud.endpoints["papertape-incumbent"])
    context = SimpleNamespace(aws_request_id="r", get_remaining_time_in_millis=lambda: 91_000)
    assert deciding.handler(SLOT, context)["outcome"] == "decided"
    assert len(asked) == 1


def test_an_endpoint_that_is_too_slow_leaves_the_decision_to_its_package(
    run: Any, cloud: Cloud, served: Any, ledger_table: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    served()
    monkeypatch.setenv("ENDPOINT_READ_TIMEOUT", "0.1")
    deciding._runtime.cache_clear()
    asked = threading.Event()

    def slow(_body: bytes) -> Answer:
        asked.wait(1.0)
        return 200, {}

    cloud.endpoints["papertape-incumbent"] = slow
    assert run()["outcome"] == "decided"
    asked.set()
    assert "Read timeout" in alerts(ledger_table)["endpoint-fallback"]


def test_an_observation_from_another_world_makes_no_decision(run: Any, cloud: Cloud, served: Any, ledger_table: Ledger, lake: Lake) -> None:
    """More than a tenth of the inputs beyond eight standard deviations of the training's, as the endpoint tells."""
    model = served()
    honest = cloud.endpoints["papertape-incumbent"]

    def told(share: float) -> Callable[[bytes], Answer]:
        def answer(body: bytes) -> Answer:
            status, document = honest(body)
            return status, {**document, "diagnostics": {**document["diagnostics"], "outside": share}}

        return answer

    cloud.endpoints["papertape-incumbent"] = told(0.101)
    assert run()["rule"] == "out-of-envelope"
    assert alerts(ledger_table)["out-of-envelope"] == (
        f"model {model.model_version}: 10.1% of its inputs lie outside of what it was trained on, at most 10%"
    )
    assert cloud.decisions == 0
    cloud.endpoints["papertape-incumbent"] = told(0.1)
    assert run()["outcome"] == "decided"
    assert record(lake)["outside"] == 0.1


def test_the_endpoint_measures_how_far_from_its_training_an_observation_lies() -> None:
    """Two names of which one trades, three inputs each and one of the market's: only what may trade is counted, nine sigma are outside."""
    card = PolicyCard(
        features=("a",), context=("m",), feature_hash="f", schema_version=1, kappa=0.1, trained_on=("S",),
        train_start="2019-01-02", train_end="2019-12-31", seeds=(0,), code_version="test",
    )  # fmt: skip
    shapes = array_shapes(seeds=1, inputs=card.inputs)
    arrays = {name: np.zeros(shape) for name, shape in shapes.items()} | {"mu": np.full(5, 1.0), "sigma": np.full(5, 2.0)}
    policy = NumpyPolicy(arrays, card)
    layout = Layout(assets=2, features=1, context=1)
    near = np.array([1.0, 0.5, 1.0, 99.0, 0.0, 0.0, 0.5, 1.0], dtype=np.float32)
    assert outside(policy, near, layout) == 0.0
    far = near.copy()
    far[0] = 1 + 8.1 * 2
    assert outside(policy, far, layout) == 1 / 5
    assert outside(policy, np.where(np.arange(8) == 2, 0, far).astype(np.float32), layout) == 0.0, "nothing may trade"


def test_a_model_of_another_feature_table_is_not_even_asked(run: Any, cloud: Cloud, served: Any, ledger_table: Ledger) -> None:
    served(feature_hash="0" * 64)
    cloud.endpoints.clear()
    assert run()["rule"] == "model-unavailable"
    assert "0" * 64 in alerts(ledger_table)["model-unavailable"]


def test_a_model_past_its_age_stops_trading(run: Any, cloud: Cloud, served: Any, ledger_table: Ledger) -> None:
    served(trained_until="2018-08-19")
    assert run()["rule"] == "stale-model"
    assert "may be 500 days old, was 501" in alerts(ledger_table)["stale-model"]
    assert cloud.decisions == 0


def test_the_shadow_watches_the_same_observation(run: Any, served: Any, ledger_table: Ledger) -> None:
    shadow = served("shadow", seed=2)
    run()
    made, (seen,) = ledger_table.decision(DECISION), ledger_table.shadow_decisions("2020-01")
    assert made is not None
    assert (made.model_version, seen.model_version) == ("equal-weight", shadow.model_version)
    assert seen.observation_hash == made.observation_hash
    assert sum(seen.weights.values()) == pytest.approx(1.0)
    assert seen.weights != made.weights


REFUSED = ("the mean excess is -3.1 bp per year, above 0 is asked", "2 seeds, 10 are needed", "1 fold, 8 are needed")


@pytest.fixture
def refused_trades(settings: Settings, exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch) -> Settings:
    changed = settings.model_copy(update={"gate": GateSettings(refused="trade")})
    monkeypatch.setenv(SETTINGS_FILE, settings_file(changed))
    return changed


def test_a_refused_model_trades_on_paper_when_told_to_and_equal_weight_watches(
    run: Any, served: Any, ledger_table: Ledger, lake: Lake, refused_trades: Settings
) -> None:
    challenger = served("shadow", seed=2, refused=REFUSED)
    assert run()["model_version"] == challenger.model_version
    made, (seen,) = ledger_table.decision(DECISION), ledger_table.shadow_decisions("2020-01")
    assert made is not None
    assert (made.verdict, made.model_version, seen.model_version) == ("accepted", challenger.model_version, "equal-weight")
    assert seen.weights == dict.fromkeys(refused_trades.universe.symbols, pytest.approx(1 / 8))
    assert record(lake)["model"]["refused"] == list(REFUSED)


@pytest.mark.parametrize("reasons", [REFUSED, ()])
def test_a_model_that_passed_is_never_displaced_and_one_without_a_verdict_never_trades(
    run: Any, served: Any, ledger_table: Ledger, refused_trades: Settings, reasons: tuple[str, ...]
) -> None:
    served("shadow", seed=2, refused=reasons)
    traded = served("incumbent", seed=1).model_version if reasons else "equal-weight"
    assert run()["model_version"] == traded
    assert [one.model_version != traded for one in ledger_table.shadow_decisions("2020-01")] == [True]


def test_a_refused_model_past_its_age_stops_trading_too(
    run: Any, cloud: Cloud, served: Any, ledger_table: Ledger, refused_trades: Settings
) -> None:
    served("shadow", refused=REFUSED, trained_until="2018-08-19", evaluated_until=None)
    assert run()["rule"] == "stale-model"
    assert cloud.decisions == 0


def test_a_shadow_that_cannot_be_read_does_not_stop_the_decision(run: Any, served: Any, ledger_table: Ledger) -> None:
    served("shadow")
    ledger_table._table.update_item(Key={"pk": "model", "sk": "shadow"}, UpdateExpression="REMOVE kappa")
    with pytest.raises(LedgerCorrupt):
        run()
    made = ledger_table.decision(DECISION)
    assert made is not None
    assert made.verdict == "accepted"


def test_a_failing_shadow_is_an_alert_and_nothing_else(run: Any, cloud: Cloud, served: Any, ledger_table: Ledger) -> None:
    served("shadow", seed=2, model_uri=None)
    cloud.endpoints["papertape-shadow"] = lambda _body: (500, {})
    assert run()["outcome"] == "decided"
    assert "papertape-shadow" in alerts(ledger_table)["shadow-unavailable"]
    assert ledger_table.shadow_decisions("2020-01") == []


def test_a_halt_is_told_and_nothing_is_ordered(run: Any, ledger_table: Ledger, exchange: RunningExchange) -> None:
    ledger_table.set_trading_state("halted", reason="test", time="2020-01-02T14:00:00Z", by="test")
    assert run()["outcome"] == "halted"
    assert exchange.books()["orders"] == []


def test_a_corrupt_action_stops_the_function(run: Any, lake: Lake, cloud: Cloud) -> None:
    lake.write({actions_key("SPY"): [{"symbol": "SPY", "ex_date": "2019-12-20", "kind": "split", "value": -1.0}]})
    with pytest.raises(ValueError, match="SPY"):
        run()
    assert cloud.decisions == 0


@dataclass(frozen=True)
class Lived:
    """Sessions that were decided, traded and closed by the functions, with the backtest of the same policy."""

    sessions: list[str]
    backtested: BacktestResult
    market: Market
    policy: SeededRandom
    rules: Rules


@pytest.fixture
def live(
    run: Any, reconcile: Any, lake: Lake, ledger_table: Ledger, exchange: RunningExchange, settings: Settings
) -> Callable[[str, str], Lived]:
    """Slot, close, night: decide, execute, reconcile, backfill, from the first day to the last."""

    def lived(first: str, last: str) -> Lived:
        policy = SeededRandom(seed=7, kappa=0.3)
        pointer = {"role": "incumbent", "policy": "random", "spec": "random:7", "model_version": "random:7", "kappa": 0.3}
        ledger_table.put_model(ServedModel(**pointer, since="2020-08-21T00:00:00Z"))
        fill_raw(lake, symbols=settings.universe.symbols, start="2016-01-04", end=str(pd.Timestamp(first).date() - timedelta(days=1)))
        sessions = list(pd.bdate_range(first, last).strftime("%Y-%m-%d"))
        for day in sessions:
            exchange.advance(f"{day}T13:35:00Z")
            assert run({"schedule": "decide", "time": f"{day}T13:35:00Z"})["outcome"] == "decided"
            for minute in ("13:40", "20:05"):
                exchange.advance(f"{day}T{minute}:00Z")
                reconcile()
            exchange.advance(f"{day}T22:00:00Z")
            assert backfill({"schedule": "backfill_bars", "time": f"{day}T22:00:00Z"}, None)["end"] == day
        market = build_market(bundled.daily_bars(), bundled.corporate_actions(), symbols=settings.universe.symbols)
        rules = replace(rules_of(settings), credit_dividends=False)
        limits = limits_of(settings)
        traded = backtest(market, policy, rules=rules, start=first, end=last, initial_cash=100_000.0, limits=limits)
        assert not traded.denied
        return Lived(sessions, traded, market, policy, rules)

    return lived


@pytest.mark.rehearse
def test_a_fortnight_across_a_split_is_the_backtest(
    live: Callable[[str, str], Lived], ledger_table: Ledger, exchange: RunningExchange
) -> None:
    """From 2020-08-24 to 09-04, with AAPL 4:1 on 08-31; and nothing is left for the attribution to explain."""
    exchange.reset(now="2020-08-24T13:00:00Z", cash="100000")
    lived = live("2020-08-24", "2020-09-04")
    first, last = lived.sessions[0], lived.sessions[-1]
    equity = [float(snapshot.equity) for snapshot in ledger_table.snapshots(first, last)]
    np.testing.assert_allclose(equity, lived.backtested.equity, rtol=1e-9)
    assert not [alert for alert in ledger_table.alerts("2020-08") if alert.rule.startswith("drift")]

    explained = ledger_table.attributions(first, last)
    assert [one.session for one in explained] == lived.sessions[1:-1], (
        "the first has no snapshot before it, the last no bars of its day yet"
    )
    assert max(abs(part) for one in explained for part in one.parts.values()) < 1e-6
    np.testing.assert_allclose([one.live for one in explained], np.diff(equity)[:-1], rtol=1e-9)


@pytest.mark.rehearse
def test_with_faults_on_the_difference_to_the_backtest_is_explained_to_the_cent(
    live: Callable[[str, str], Lived],
    ledger_table: Ledger,
    exchange: RunningExchange,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parts of orders that never fill, prices that get worse, cents that are rounded, a deposit's worth of a person's trade: each in its
    own part, and together all of it."""
    exchange.reset(now="2020-08-24T13:00:00Z", cash="100000")
    monkeypatch.setenv("ORDER_TIMEOUT_SECONDS", "0")  # what is not filled at once fills a minute later, on the exchange's clock
    partly = {"rate": 0.5, "expires": 0.5, "drift_bps": 20, "seconds": 60}
    exchange.use_faults({"seed": 3, "faults": {"partial_fill": partly, "vendor_rounding": {}, "halted_asset": {"symbols": ["BAC"]}}})
    try:
        lived = live("2020-08-24", "2020-08-31")
    finally:
        exchange.use_faults({})
    snapshots = {snapshot.session: snapshot for snapshot in ledger_table.snapshots(lived.sessions[0], lived.sessions[-1])}
    fills = ledger_table.fills("2020-08")
    days = [
        live_day(
            snapshots[session],
            decision=ledger_table.decision(f"agent:{session}/open+5"),
            fills=[fill for fill in fills if fill.time.startswith(session)],
        )
        for session in lived.sessions
    ]
    explained = explain(lived.market, days, backtested=lived.backtested, policy=lived.policy, rules=lived.rules)
    assert max(abs(one.unexplained) for one in explained) < 1e-6
    gap = explained[-1].live - explained[-1].backtest
    assert round(sum(one.parts.total for one in explained), 2) == round(gap, 2)
    assert abs(gap) > 10
    total = {name: sum(abs(getattr(one.parts, name)) for one in explained) for name in AttributionParts.__dataclass_fields__}
    assert all(total[name] > 1 for name in ("carried", "price", "missed")), total
    assert all(total[name] < 1e-6 for name in ("marks", "model", "foreign")), str(total)
    told = 0.0001 * sum(float(fill.quantity) for fill in fills) + 0.01 * len(lived.sessions)
    assert 0 < total["cash"] <= told, f"prices are told with four decimals, cash in cents, which is at most {told:.2f} dollars: {total}"
    stored = {one.session: one.parts for one in ledger_table.attributions(lived.sessions[0], lived.sessions[-1])}
    for one in explained[1:-1]:
        told = {name: getattr(one.parts, name) for name in stored[str(one.session)]}
        assert stored[str(one.session)] == pytest.approx(told, abs=1e-6), "what decide wrote is what the whole comparison says"


def test_a_spin_off_stops_the_buying_and_says_why(run: Any, lake: Lake, ledger_table: Ledger) -> None:
    """It cannot be applied: the name gets no weight, is not said to be missing, and the record names the reason."""
    spun = {"id": "1", "symbol": "IBM", "ex_date": "2019-12-30", "kind": "break", "value": None, "action": "spin_off"}
    lake.write({actions_key("IBM"): [*lake.actions(symbols=["IBM"]), spun]})
    result = run()
    made = ledger_table.decision(DECISION)
    assert made is not None
    assert (result["missing"], "IBM" in made.weights, len(made.weights)) == ([], False, 7)
    assert list(alerts(ledger_table)) == ["series-broken:IBM"]
    assert "spin off of 2019-12-30" in alerts(ledger_table)["series-broken:IBM"]
    assert list(record(lake)["broken"]) == ["IBM"]
