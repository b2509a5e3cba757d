"""Slot bars of one-minute bars, traded through the deployed functions in every slot, beside the backtest of all minutes at once.

Made minutes: two sessions of three names, twelve slots each, and all three policies; the trained one's features, training and endpoint are
the deployed ones. Recorded minutes: a real session with a slot every seven minutes, where the exchange fills at the last trade it knows.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lambdas.common.ledger.records import ServedModel
from local.aws.emulator import ROOT
from local.replay import parity
from local.replay.driver import compare, duplicates
from local.replay.local_deployment import LocalDeployment, synthesize
from local.replay.parity import POLICIES, Agreement
from local.replay.replayed_minutes import slot_market
from local.replay.schedule import PUBLISHED
from papertape.market_data.sessions import sessions_between
from papertape.research.reference_backtests import ReferenceBacktests
from schema.exchange_time import iso
from schema.lake_layout import decision_key
from schema.settings import Settings, load
from schema.slot import decision_id_of
from tests.e2e.test_kill import TIMEOUT, driver
from trading_env.data.observation import observe
from trading_env.simulation.policy import EqualWeight

pytestmark = pytest.mark.rehearse

#: The quotes stand at the trades, so nothing is left but the last bits of a sum.
EXACT = 1e-12
#: Recorded, the next minute's open is not the last trade: a session's equity is so far from the backtest's at most.
APART = 1e-4
SLOTS = 12
TRAINING = {
    "timeframe": "1Min",
    "algorithm": "ppo",
    "start": "2019-11-04",
    "test_start": "2019-12-16",
    "live_start": "2020-01-02",
    "folds": 1,
    "purge_sessions": 1,
    "holdout_sessions": 2,
    "timesteps": 2000,
    "seeds": (0,),
    "environments": 8,
    "episode_sessions": 60,
}


def minute_settings(symbols: tuple[str, ...], *, every: int) -> Settings:
    """The bundled settings with rows of `every` minutes; limits of a day that several slots can keep."""
    document = load(ROOT / "data" / "settings.toml").model_dump()
    document["universe"]["symbols"] = symbols
    document["schedule"] |= {
        "slots": tuple(f"open+{minute}" for minute in range(every, 390 - every + 1, every)),
        "slot_window_minutes": min(every, 30),
    }
    document["risk"] |= {"max_turnover_per_day": 15.0, "max_orders_per_day": 1000}
    document["training"] |= TRAINING
    return Settings.model_validate(document)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Agreement]:
    """Three names, a slot every half an hour: rows from August on, of which 600 are the features' history before the training."""
    sessions = sessions_between(date(2020, 1, 2), date(2020, 1, 3))
    settings = minute_settings(("SPY", "AAPL", "IBM"), every=30)
    folder = tmp_path_factory.mktemp("minutes") / "run"
    return parity.run(settings, console=Console(quiet=True), sessions=sessions, policies=POLICIES, folder=folder)


@pytest.mark.parametrize("policy", POLICIES)
def test_on_made_minutes_equity_is_the_backtests_at_every_session(made: dict[str, Agreement], policy: str) -> None:
    found = made[policy]
    print(f"{policy}: largest gap {found.largest_gap:.1e} at {found.at}, {found.orders} orders, {found.seconds:.0f} s")
    assert found.sessions == 2
    assert found.largest_gap <= EXACT, found
    assert found.holds
    assert found.orders > (2 if policy == "equal-weight" else 2 * SLOTS), "in every slot, but equal weight once a session"


def test_the_policies_are_three(made: dict[str, Agreement]) -> None:
    assert len({one.final_equity for one in made.values()}) == len(POLICIES)


#: Six sessions are recorded: 253 rows are the features', and the last one is traded.
FIRST, EVE, DAY = date(2013, 10, 4), date(2013, 10, 10), date(2013, 10, 11)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalDeployment]:
    settings = minute_settings(("AIG", "BAC", "IBM", "SPY"), every=7)
    folder = tmp_path_factory.mktemp("recorded")
    synthesize(folder / "cdk.out", settings=settings)
    with LocalDeployment(folder / "run", settings=settings, now=f"{EVE}T22:00:00Z") as deployment:
        deployment.deploy(folder / "cdk.out", with_cli=False)
        deployment.backfill(start=FIRST.isoformat())
        yield deployment


def test_on_recorded_minutes_every_decision_observes_the_row_that_research_has(recorded: LocalDeployment) -> None:
    """Equal weight at kappa, which trades in every slot. Fills differ: the exchange knows the last trade, a backtest the next minute's."""
    settings, ledger, exchange = recorded.settings, recorded.ledger, recorded.exchange
    rows = settings.slot_rows
    assert rows is not None
    policy = EqualWeight(kappa=settings.portfolio.kappa)
    pointer = {"role": "incumbent", "policy": "equal-weight", "spec": "equal-weight", "model_version": "equal-weight"}
    ledger.put_model(ServedModel.model_validate({**pointer, "kappa": policy.kappa, "since": f"{EVE}T22:00:00Z"}))
    market = slot_market(settings, rows, start=FIRST, end=DAY, minutes="recorded")
    session, first = sessions_between(EVE, DAY)[-1], market.index_of(DAY)
    for number, (schedule, name) in enumerate(settings.schedule.deciding.items()):
        slot = session.opens + timedelta(minutes=rows.slots[number])
        exchange.advance(slot + PUBLISHED)
        answer = recorded.fire(f"{settings.name}-{schedule}", iso(slot))
        assert answer["payload"]["outcome"] == "decided", (name, answer)
        record = decision_record(recorded, name)
        row = first + number - 1
        held = np.array([record["held"][symbol] for symbol in market.symbols])
        expected = observe(market.features[row], market.context[row], market.tradable[row], held, record["cash_weight"])
        np.testing.assert_array_equal(np.array(record["observation"], dtype=np.float32), expected.astype(np.float32), err_msg=name)
    closed = iso(session.closes + timedelta(minutes=5))
    exchange.advance(closed)
    assert recorded.fire(f"{settings.name}-reconcile", closed)["status"] == "succeeded"
    books = exchange.books()
    day = compare(ledger, books, session.date)
    assert day.differences == ()
    assert duplicates(books, decisions=len(rows.slots)) == books["counts"]["refused"] == 0
    tested = ReferenceBacktests(settings, start=DAY, end=DAY, market=market).of(policy).by_session()
    gap = float(day.snapshot.equity) / float(tested.equity[-1]) - 1
    print(f"{len(books['fills'])} fills; equity {day.snapshot.equity:.2f} traded, {tested.equity[-1]:.2f} backtested, apart {gap:+.1e}")
    assert abs(gap) < APART


def decision_record(deployment: LocalDeployment, slot: str) -> dict[str, Any]:
    key = decision_key(DAY, decision_id_of("agent", f"{DAY}/{slot}"))
    found: dict[str, Any] = json.loads(deployment.object("audit", key))
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")
def test_killed_in_a_later_slot_every_order_of_the_day_is_sent_once_and_the_books_agree(tmp_path: Path) -> None:
    """Exchange, emulator and functions with the driver, at the tenth order: the first of the day's fourth slot.

    The driver holds the ledger to the exchange. What the slot had left goes out a few minutes later, when a made minute has another price.
    """
    settings = minute_settings(("SPY", "AAPL", "IBM"), every=60)
    synthesize(tmp_path / "cdk.out", settings=settings)
    with driver(tmp_path / "whole", tmp_path / "cdk.out", settings, dies_at=0) as undisturbed:
        with driver(tmp_path / "run", tmp_path / "cdk.out", settings, dies_at=10) as first:
            first.communicate(timeout=TIMEOUT)
        assert first.returncode == -signal.SIGKILL
        with driver(tmp_path / "run", tmp_path / "cdk.out", settings, dies_at=0) as second:
            output, error = second.communicate(timeout=TIMEOUT)
        assert second.returncode == 0, error[-3000:]
        expected, error = undisturbed.communicate(timeout=TIMEOUT)
        assert undisturbed.returncode == 0, error[-3000:]
    killed, whole = (json.loads(said.splitlines()[-1]) for said in (output, expected))
    assert len(whole["orders"]) > 10
    assert [(*order[:3], order[-1]) for order in killed["orders"]] == [(*order[:3], order[-1]) for order in whole["orders"]]
    assert {order[-1] for order in killed["orders"]} == {"filled"}
    assert killed["positions"].keys() == whole["positions"].keys()
    for symbol, quantity in whole["positions"].items():
        assert float(killed["positions"][symbol]) == pytest.approx(float(quantity), rel=1e-3), symbol
