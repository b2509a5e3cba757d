"""Six sessions across AAPL's 4:1 split of 2020-08-31 through the deployed functions: no jump, the backtest's equity, and the same twice.

The second deployment is born without the broker's secret, which is also how a user who forgot it would see the app.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lambdas.common.ledger.records import AlertRecord, Breakers, Fill, OrderRecord, ServedModel
from local.replay import schedule as replay_schedule
from local.replay.driver import Replayed, replay
from local.replay.local_deployment import LocalDeployment, LocalDeploymentError, TrainingResult
from local.replay.schedule import PlanError, ScheduleEntry
from papertape.market_data.sessions import sessions_between
from papertape.research.reference_backtests import ReferenceBacktests, largest_gap, market_of, policy_of
from schema.settings import Settings
from tests.e2e.conftest import EVE, FIRST, HISTORY, LAST, App
from trading_env.data.features import FEATURES
from trading_env.simulation.policy import EqualWeight, Policy, make_policy

BEFORE, SPLIT, AFTER = "2020-08-28", "2020-08-31", "2020-09-01"
SESSIONS = sessions_between(date.fromisoformat(FIRST), date.fromisoformat(LAST))


@dataclass(frozen=True, kw_only=True)
class Week:
    """What a replay of the week left behind, in the ledger and at the exchange."""

    replayed: Replayed
    runs: Counter[tuple[str, str]]
    books: dict[str, Any]
    orders: list[OrderRecord]
    fills: list[Fill]
    alerts: list[AlertRecord]
    breakers: Breakers

    def quantity(self, session: str, symbol: str) -> Decimal:
        return next(day for day in self.replayed.days if day.session == session).snapshot.positions[symbol].quantity


def trade(app: App, entries: tuple[ScheduleEntry, ...]) -> Week:
    before = app.invoked()
    replayed = replay(
        cloud=app.deployment,
        exchange=app.exchange,
        ledger=app.deployment.ledger,
        sessions=SESSIONS,
        entries=entries,
        prefix=app.settings.name,
        on_session=lambda _: None,
    )
    ledger, months = app.deployment.ledger, (FIRST[:7], LAST[:7])
    return Week(
        replayed=replayed,
        runs=app.invoked() - before,
        books=app.exchange.books(),
        orders=[order for month in months for order in ledger.orders(month)],
        fills=[fill for month in months for fill in ledger.fills(month)],
        alerts=[alert for month in months for alert in ledger.alerts(month)],
        breakers=ledger.breakers(),
    )


def gap_to_backtest(week: Week, policy: Policy, settings: Settings) -> float:
    """Largest relative difference at any session to the backtest of `policy`, from bundled bars, under the same rules and limits."""
    year = ReferenceBacktests(settings, start=date.fromisoformat(FIRST), end=date.fromisoformat(LAST))
    return largest_gap(week.replayed.equity, year.of(policy))


@pytest.fixture(scope="module")
def week(app: App) -> Week:
    """Equal weight, on the deployment that all tests share."""
    app.begin(f"{EVE}T22:00:00Z")
    return trade(app, replay_schedule.parity(app.settings))


def test_no_function_runs_that_the_replay_did_not_fire(week: Week) -> None:
    assert week.replayed.fired == {"decide": 6, "reconcile": 12, "backfill_bars": 6}
    scheduled = {(schedule, "schedule"): count for schedule, count in week.replayed.fired.items()}
    assert week.runs == scheduled | {("execute_orders", "api"): 6}, "and each decision's own request"


def test_the_ledger_is_the_exchange_s_books_at_every_session_s_end(week: Week) -> None:
    assert [day.session for day in week.replayed.days] == [session.date for session in SESSIONS]
    assert week.replayed.matches, [day.differences for day in week.replayed.days]
    assert week.replayed.duplicates == week.replayed.rejected == 0
    assert all(day.fills for day in week.replayed.days)


def test_the_split_moves_positions_as_a_broker_does(week: Week) -> None:
    """Four for one, to the last decimal, beside what was traded that day; no other name changes but by its fills."""
    for symbol, ratio in (("AAPL", 4), ("SPY", 1)):
        traded = sum(
            (fill.quantity if fill.side == "buy" else -fill.quantity)
            for fill in week.fills
            if fill.symbol == symbol and fill.time.startswith(SPLIT)
        )
        assert week.quantity(SPLIT, symbol) == ratio * week.quantity(BEFORE, symbol) + traded
    assert abs(week.quantity(SPLIT, "AAPL") / week.quantity(BEFORE, "AAPL") - 4) < Decimal("0.2")


def test_equity_sees_no_jump_at_the_split(week: Week, small: Settings) -> None:
    moves = np.diff(np.log(week.replayed.equity))
    assert np.abs(moves).max() < 0.03, "a split that was missed, or counted twice, moves equity by a tenth or more"
    assert gap_to_backtest(week, EqualWeight(), small) < 1e-9


def test_risk_sees_no_jump_at_the_split(week: Week) -> None:
    assert week.alerts == []
    assert week.breakers.tripped == {}
    assert week.breakers.peak_equity == max(day.snapshot.equity for day in week.replayed.days)
    assert {order.status for order in week.orders} == {"filled"}
    assert {order.risk for order in week.orders} == {"allowed"}


def test_features_see_no_jump_at_the_split(week: Week, app: App, small: Settings) -> None:
    """The observation after the split's close, as the audit bucket keeps it: AAPL's return is the market's, and all values the batch's."""
    key = f"audit/decisions/{AFTER}/agent_{AFTER}_open+5.json"
    audit = json.loads(app.deployment.object("audit", key))
    symbols, market = audit["symbols"], market_of(small)
    width = len(FEATURES) + 2
    features = np.array(audit["observation"][: len(symbols) * width]).reshape(len(symbols), width)[:, : len(FEATURES)]
    row = market.index_of(np.datetime64(SPLIT))
    np.testing.assert_allclose(features, market.features[row].astype(np.float32), rtol=1e-6, atol=1e-6)
    closes = market.close[[row - 1, row], symbols.index("AAPL")]
    one_day = features[symbols.index("AAPL"), [feature.name for feature in FEATURES].index("return_1")]
    assert one_day == pytest.approx(np.log(4 * closes[1] / closes[0]), abs=1e-6)
    assert abs(one_day) < 0.05


def served(policy: str) -> tuple[ServedModel, Policy]:
    made = make_policy(policy)
    kind = policy.partition(":")[0]
    fields = {"role": "incumbent", "policy": kind, "spec": policy, "model_version": policy, "kappa": made.kappa, "since": EVE}
    return ServedModel.model_validate(fields), made


@pytest.mark.parametrize("name", ["the trained network through its endpoint", "random:7"])
def test_the_week_of_another_policy_agrees_with_its_backtest(app: App, trained: TrainingResult, name: str) -> None:
    """The short form of `make parity`, whatever the gate said; equal weight is above."""
    through_endpoint = trained.served.model_copy(update={"role": "incumbent"})
    pointer, policy = served(name) if name.startswith("random") else (through_endpoint, policy_of(trained.artifact))
    app.begin(f"{EVE}T22:00:00Z")
    app.deployment.ledger.put_model(pointer)
    week = trade(app, replay_schedule.parity(app.settings))
    decided = app.deployment.ledger.decisions(FIRST[:7])
    assert {decision.model_version for decision in decided} == {pointer.model_version}
    assert len(set(decided[0].weights.values())) == 8, "weights of its own"
    assert week.replayed.matches
    assert gap_to_backtest(week, policy, app.settings) < 1e-6


def test_a_schedule_that_the_plan_forgets_fails_the_replay_before_it_fires(app: App) -> None:
    fired, entries = app.fired(), replay_schedule.parity(app.settings)
    with pytest.raises(PlanError, match=r"^deployed but not in the replay plan: health; add each to local/replay/schedule.py"):
        trade(app, tuple(entry for entry in entries if entry.schedule != "health"))
    with pytest.raises(PlanError, match=r"^in the replay plan but not deployed: nightly; remove it"):
        trade(app, (*entries, replace(entries[0], schedule="nightly")))
    assert app.fired() == fired


@dataclass(frozen=True, kw_only=True)
class Bare:
    """A second deployment whose user forgot the secret: what its first steps said, then the app once it was stored."""

    app: App
    backfill: str
    reconcile: dict[str, Any]
    dead: list[dict[str, Any]]
    mails: list[dict[str, Any]]
    alarm: str


@pytest.fixture(scope="module")
def bare(app: App, small: Settings, synthesized: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    with LocalDeployment(tmp_path_factory.mktemp("bare"), settings=small, now=f"{EVE}T22:00:00Z") as deployment:
        deployment.deploy(synthesized, with_cli=False)
        secrets, name = deployment.client("secretsmanager"), f"{small.name}/alpaca"
        kept = secrets.get_secret_value(SecretId=name)["SecretString"]
        secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
        app = App(deployment, small)
        with pytest.raises(LocalDeploymentError) as refused:
            deployment.backfill(start=HISTORY)
        outcome = app.fire("reconcile", f"{EVE}T22:00:00Z")
        alarm = app.alarm("reconcile-failed")["StateValue"]
        dead, mails = app.dead_letters(), deployment.cloud.published()
        secrets.create_secret(Name=name, SecretString=kept)
        yield Bare(app=app, backfill=str(refused.value), reconcile=outcome, dead=dead, mails=mails, alarm=alarm)


def test_a_missing_secret_is_one_line_that_names_it_and_the_remedy(bare: Bare) -> None:
    for message in (bare.backfill, bare.reconcile["error"]):
        assert "\n" not in message
        assert "the broker's secret papertape/alpaca cannot be read (ResourceNotFoundException)" in message
        assert "store it: make secret" in message
    assert bare.reconcile["status"] == "failed"


def test_a_schedule_that_fails_for_a_missing_secret_is_kept_and_mailed(bare: Bare) -> None:
    (letter,) = bare.dead
    assert letter["requestPayload"] == {"schedule": "reconcile", "time": f"{EVE}T22:00:00Z"}
    assert "papertape/alpaca" in json.dumps(letter["responsePayload"])
    assert bare.alarm == "ALARM"
    assert any("papertape-reconcile-failed" in mail["subject"] for mail in bare.mails)


def test_two_identical_runs_end_with_the_same_equity_and_the_same_books(bare: Bare, week: Week) -> None:
    """Once the secret is stored, the second deployment works without being deployed again, and lives the same week."""
    bare.app.deployment.backfill(start=HISTORY)
    again = trade(bare.app, replay_schedule.parity(bare.app.settings))
    assert [day.snapshot.equity for day in again.replayed.days] == [day.snapshot.equity for day in week.replayed.days]
    assert again.books == week.books
    assert [day.snapshot for day in again.replayed.days] == [day.snapshot for day in week.replayed.days]
    assert again.fills == week.fills
