"""D. The data that a decision rests on."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from lambdas.common.lake.lake import Lake
from lambdas.common.ledger.records import Held, Snapshot
from schema.lake_layout import bars_key, sentiment_key, sentiment_run
from schema.settings import Settings
from tests.faults.agent import Agent
from tests.faults.simulation import FOREIGN, NAMES, SLOT, Simulation, decision, recorded_market, three_name_settings
from tests.scored_posts import SOURCES, fill_scores, scored
from trading_env.data.features import CONTEXT
from trading_env.data.observation import Layout, unpack
from trading_env.data.sentiment import SENTIMENT, SENTIMENT_NAMES, TABLES

SESSION_OVER = "2020-01-02T21:05:00+00:00"
NEXT_SLOT = SLOT + timedelta(days=1)


@pytest.fixture
def agent(simulation: Simulation) -> Agent:
    return Agent(simulation)


def test_the_agent_decides_when_nothing_is_wrong(agent: Agent, simulation: Simulation) -> None:
    done = agent.decide()
    assert done is not None
    assert (done["outcome"], done["verdict"], done["orders"]) == ("decided", "accepted", 3)
    assert simulation.ours_accepted == 3
    simulation.agrees()


def test_d1_a_stale_bar(agent: Agent, simulation: Simulation) -> None:
    """The newest bar of every name is of the session before the last."""
    for symbol in NAMES:
        agent.rewrite(symbol, agent.bars(symbol)[:-1])
    done = agent.decide()
    assert done is not None
    assert (done["outcome"], done["rule"]) == ("no-trade", "stale-data")
    assert simulation.alerts() == ["stale-data"]
    assert simulation.ours_accepted == 0


def test_d1_a_decision_on_an_old_bar(simulation: Simulation) -> None:
    """A decision arrives that says itself that its newest bar is three sessions old: the executor's risk refuses each order."""
    answer = simulation.accept(decision(as_of="2019-12-26"))
    assert answer is not None
    assert {order["risk"] for order in answer.body["orders"]} == {"stale_data"}
    assert simulation.ours_accepted == 0


def test_d2_a_missing_symbol(agent: Agent, simulation: Simulation) -> None:
    """IBM has no bar at the last close: it is left out and named, its position would be carried, the others are traded."""
    agent.rewrite("IBM", agent.bars("IBM")[:-1])
    done = agent.decide()
    assert done is not None
    assert done["missing"] == ["IBM"]
    assert simulation.alerts() == ["missing-bar:IBM"]
    assert set(simulation.held) == {"AAPL", "SPY"}
    simulation.agrees()


@pytest.mark.parametrize("price", ["NaN", "Infinity", "0", "-1"])
def test_d3_a_price_that_is_none(agent: Agent, simulation: Simulation, price: str) -> None:
    """IBM's last close is no price: the row is quarantined, the name left out and named; nothing is set to zero."""
    rows = agent.bars("IBM")
    lines = [json.dumps(row) for row in rows[:-1]] + [json.dumps({**rows[-1], "close": "?"}).replace('"?"', price)]
    agent.lake.s3.put_object(Bucket=agent.raw, Key=bars_key("IBM", 2019), Body=gzip.compress("\n".join(lines).encode(), mtime=0))
    done = agent.decide()
    assert done is not None
    assert done["missing"] == ["IBM"]
    assert set(simulation.held) == {"AAPL", "SPY"}
    assert simulation.alerts() == ["missing-bar:IBM"]
    simulation.agrees()


@pytest.mark.parametrize(
    ("bid", "ask"),
    [(0, 0), (134, 0), (0, 134), (-1, 1), (136, 130), (0.01, 400), (128, 142)],
    ids=["none", "no ask", "no bid", "negative", "crossed", "stub", "wide"],
)
def test_d3_a_quote_that_is_none(simulation: Simulation, bid: float, ask: float) -> None:
    """IBM's live quote is no price, far from its last trade or wide: IBM is not traded and says why, no other order changes its size."""

    def changed(told: Any) -> Any:
        return {**told, "quotes": {**told["quotes"], "IBM": {**told["quotes"]["IBM"], "bp": bid, "ap": ask}}}

    simulation.retell("GET /v2/stocks/quotes/latest", changed)
    answer = simulation.accept()
    assert answer is not None
    assert set(answer.body["refused"]) == {"IBM"}
    assert set(simulation.held) == {"AAPL", "SPY"}
    worth = {symbol: quantity * simulation.venue.price(symbol) for symbol, quantity in simulation.held.items()}
    assert all(abs(value / 100_000 - Decimal("0.995") / 3) < Decimal("0.001") for value in worth.values())
    simulation.agrees()


def test_d4_duplicate_and_unordered_bars(opened: Callable[..., Simulation]) -> None:
    """Every bar of 2019 twice and backwards: the same observation, to the last bit, as from the clean lake."""
    seen = []
    for untidy in (False, True):
        simulation = opened()
        agent = Agent(simulation)
        for symbol in NAMES if untidy else ():
            agent.rewrite(symbol, [*agent.bars(symbol)[::-1], *agent.bars(symbol)])
        agent.decide()
        seen.append(agent.decision.observation_hash)
        assert simulation.ours_accepted == 3
    assert seen[0] == seen[1]


def test_d4_bars_that_contradict_each_other(agent: Agent, simulation: Simulation) -> None:
    """Two different bars of IBM for the last session: none is believed."""
    rows = agent.bars("IBM")
    agent.rewrite("IBM", [*rows, {**rows[-1], "close": rows[-1]["close"] * 1.001, "high": rows[-1]["high"] * 1.01}])
    done = agent.decide()
    assert done is not None
    assert done["missing"] == ["IBM"]
    assert "IBM" not in simulation.held


def test_d5_the_morning_of_a_split(opened: Callable[..., Simulation]) -> None:
    """AAPL splits four for one while it is held: no crash is seen, no breaker trips, next to nothing is traded, nothing drifts."""
    friday = datetime(2020, 8, 28, 13, 35, tzinfo=UTC)
    simulation = opened(now=friday)
    agent = Agent(simulation, until="2020-08-27")
    assert agent.decide(friday) is not None
    before = simulation.held["AAPL"]
    simulation.advance("2020-08-28T20:05:00+00:00")
    simulation.reconcile()
    agent.fill(until="2020-08-28")
    monday = friday + timedelta(days=3)
    simulation.advance(monday)
    assert simulation.held["AAPL"] == before * 4
    simulation.reconcile()
    done = agent.decide(monday)
    assert done is not None
    assert done["verdict"] == "accepted"
    traded = [order for order in simulation.orders() if order.created_at >= "2020-08-31"]
    assert sum(order.traded for order in traded) < Decimal("0.05") * simulation.venue.equity
    simulation.advance("2020-08-31T20:05:00+00:00")
    simulation.reconcile()
    agent.fill(until="2020-08-31")
    simulation.advance("2020-09-01T13:35:00+00:00")
    assert agent.decide(datetime(2020, 9, 1, 13, 35, tzinfo=UTC)) is not None
    assert simulation.alerts() == []
    assert simulation.ledger.breakers().tripped == {}
    first, second = (simulation.ledger.snapshot(day) for day in ("2020-08-28", "2020-08-31"))
    assert first is not None
    assert second is not None
    assert abs(second.equity / first.equity - 1) < Decimal("0.05")


def test_d6_an_ex_date_of_a_dividend(opened: Callable[..., Simulation]) -> None:
    """AAPL and IBM go ex-dividend while they are held, and paper pays none: no drift, no breaker, cash as it was."""
    simulation = opened(now=datetime(2020, 2, 6, 14, 35, tzinfo=UTC))
    simulation.accept(decision(session="2020-02-06", as_of="2020-02-05"))
    cash = simulation.book.cash
    for close in ("2020-02-06T21:05:00+00:00", "2020-02-07T21:05:00+00:00"):
        simulation.advance(close)
        simulation.reconcile()
    assert simulation.book.cash == cash
    snapshot = simulation.ledger.snapshot("2020-02-07")
    assert snapshot is not None
    assert snapshot.cash == cash
    assert simulation.alerts() == ["slot-missed:open+5"]


def test_d7_a_name_that_is_delisted(opened: Callable[..., Simulation]) -> None:
    """IBM's last session was yesterday: refused by the broker today, left out by the agent from tomorrow on, its position carried."""
    simulation = opened(market=recorded_market(gone=(("IBM", "2020-01-03"),)))
    agent = Agent(simulation)
    agent.decide()
    held = simulation.held["IBM"]
    simulation.advance(SESSION_OVER)
    simulation.reconcile()
    agent.fill(until="2020-01-02")
    simulation.advance(NEXT_SLOT)
    done = agent.decide(NEXT_SLOT)
    assert done is not None
    assert done["outcome"] == "decided"
    simulation.advance("2020-01-03T21:05:00+00:00")
    simulation.reconcile()
    agent.fill(until="2020-01-03")
    agent.rewrite("IBM", [row for row in agent.bars("IBM", 2020) if row["ts"] < "2020-01-03"], 2020)
    monday = SLOT + timedelta(days=4)
    simulation.advance(monday)
    done = agent.decide(monday)
    assert done is not None
    assert done["missing"] == ["IBM"]
    assert simulation.held["IBM"] == held
    simulation.agrees()


def test_d7_a_name_that_is_renamed(agent: Agent, simulation: Simulation) -> None:
    """The account holds a name that the universe does not have, as after a renaming: valued, told, never traded."""
    agent.decide()
    simulation.person_orders(FOREIGN, "buy", "5")
    simulation.advance(SESSION_OVER)
    simulation.reconcile()
    agent.fill(until="2020-01-02")
    simulation.advance(NEXT_SLOT)
    done = agent.decide(NEXT_SLOT)
    assert done is not None
    assert done["outcome"] == "decided"
    assert FOREIGN not in {post["symbol"] for post in simulation.edges.posts}
    assert [rule.rpartition(":")[2] for rule in simulation.alerts()] == [FOREIGN]


@pytest.mark.parametrize(("answered", "known"), [((), 0.0), (("alpaca",), 0.5), (("alpaca", "x"), 1.0)], ids=["none", "one", "both"])
def test_d8_a_sentiment_source_that_is_down(opened: Callable[..., Simulation], answered: tuple[str, ...], known: float) -> None:
    """Of two sources these answered in the last session, the other was down: neutral, flagged by the share that is known, and traded on."""
    simulation = opened(settings=_with_sentiment(three_name_settings()))
    agent = Agent(simulation)
    hours = (datetime(2019, 12, day, 20, tzinfo=UTC) for day in (30, 31))
    earlier, last = ({sentiment_key(source, run): [_good_news(run, source)] for source in SOURCES} for run in hours)
    fill_scores(agent.lake, earlier | {key: rows for key, rows in last.items() if sentiment_run(key)[0] in answered})
    done = agent.decide()
    assert done is not None
    assert (done["outcome"], done["verdict"], simulation.ours_accepted) == ("decided", "accepted", 3)
    layout = Layout(assets=3, features=TABLES["daily"].width, context=len(CONTEXT))
    seen = unpack(np.array(agent.record()["observation"], dtype=np.float32), layout=layout).assets[:, -len(SENTIMENT) - 2 : -2]
    named = dict(zip(SENTIMENT_NAMES, seen.T, strict=True))
    assert named["sentiment_known"].tolist() == [known] * 3
    assert [bool(value) for value in named["sentiment"] > 0] == [symbol == "IBM" and known > 0 for symbol in NAMES], "no answer is no zero"
    simulation.agrees()


def _with_sentiment(settings: Settings) -> Settings:
    return Settings.model_validate(settings.model_dump() | {"features": {"sentiment": "daily"}, "news": {"sources": SOURCES}})


def _good_news(run: datetime, source: str) -> dict[str, Any]:
    return scored(received=run, symbols=("IBM",), number=run.day, source=source, score=0.8).model_dump(mode="json")


def test_d9_half_an_object(agent: Agent, simulation: Simulation) -> None:
    """An object of raw bars is cut off in the middle: the function fails and names it, nothing is ordered; whole again, it decides."""
    key = bars_key("SPY", 2019)
    whole = agent.lake.s3.get_object(Bucket=agent.raw, Key=key)["Body"].read()
    agent.lake.s3.put_object(Bucket=agent.raw, Key=key, Body=whole[: len(whole) // 2])
    assert agent.decide() is None
    assert key in str(simulation.failures[-1])
    assert simulation.ours_accepted == 0
    agent.lake.s3.put_object(Bucket=agent.raw, Key=key, Body=whole)
    assert agent.decide() is not None
    assert simulation.ours_accepted == 3


def test_d9_features_without_their_manifest(agent: Agent, verdict: Callable[[str], None]) -> None:
    """A build of features ended before its manifest was written: whoever reads finds nothing."""
    s3 = agent.lake.s3
    s3.put_object(Bucket=agent.raw, Key="processed/features/timeframe=1Day/date=2019/part-0.parquet", Body=b"half")
    assert Lake(s3=s3, processed_bucket=agent.raw).manifest("1Day") is None
    verdict("no features")


@pytest.mark.parametrize("drift", ["renamed", "text"])
def test_d10_schema_drift(agent: Agent, simulation: Simulation, drift: str) -> None:
    """The vendor's rows have lost a field, or hold words for numbers: the function fails and names the field, nothing is ordered."""
    rows = agent.bars("IBM")
    last = {("adjusted_close" if name == "close" else name): value for name, value in rows[-1].items()}
    agent.rewrite("IBM", [*rows[:-1], last if drift == "renamed" else {**rows[-1], "close": "n/a"}])
    assert agent.decide() is None
    assert "close" in str(simulation.failures[-1])
    assert simulation.ours_accepted == 0


def test_d11_a_bar_that_is_restated(opened: Callable[..., Simulation]) -> None:
    """SPY's close of two sessions ago is restated by a cent: the decision's record has other input and observation hashes."""
    records = []
    for cent in (0.0, 0.01):
        agent = Agent(opened())
        rows = agent.bars("SPY")
        agent.rewrite("SPY", [*rows[:-3], {**rows[-3], "close": rows[-3]["close"] + cent}, *rows[-2:]])
        agent.decide()
        records.append(agent.record())
    assert records[0]["inputs_sha256"] != records[1]["inputs_sha256"]
    assert records[0]["decision"]["observation_hash"] != records[1]["decision"]["observation_hash"]


def test_d12_nothing_after_the_close_enters(opened: Callable[..., Simulation]) -> None:
    """The lake holds three weeks of bars after the close that is observed: the same observation, to the last bit, as without them."""
    seen = []
    for until in ("2019-12-31", "2020-01-22"):
        agent = Agent(opened(), until=until)
        agent.decide()
        seen.append(agent.record()["observation"])
    assert np.array(seen[0], dtype="<f4").tobytes() == np.array(seen[1], dtype="<f4").tobytes()


def test_d5_a_split_that_the_broker_has_not_applied(opened: Callable[..., Simulation]) -> None:
    """The snapshot says 100 shares at 500 dollars; at the slot the broker has 400, at a quarter of it: sized by what the broker says."""
    monday = datetime(2020, 8, 31, 13, 35, tzinfo=UTC)
    simulation = opened(now=monday)
    close = Decimal("499.23")
    simulation.ledger.put_snapshot(
        Snapshot(
            session="2020-08-28",
            cash=Decimal(50_000),
            equity=Decimal(50_000) + 100 * close,
            positions={"AAPL": Held(quantity=Decimal(100), close=close)},
            taken_at="2020-08-28T20:05:00Z",
        )
    )
    simulation.person_orders("AAPL", "buy", "400")
    agent = Agent(simulation, until="2020-08-28")
    done = agent.decide(monday)
    assert done is not None
    assert done["verdict"] == "accepted"
    worth = {symbol: quantity * simulation.venue.price(symbol) / simulation.venue.equity for symbol, quantity in simulation.held.items()}
    assert all(abs(share - Decimal("0.995") / 3) < Decimal("0.002") for share in worth.values())
