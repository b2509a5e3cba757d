"""Parity: the equity traded through the deployed functions beside the backtest's, session by session, for three policies.

Each policy has a deployment of its own, side by side: a new account, an empty ledger, a lake that knows nothing of the sessions to come.
Costs, rules and risk limits are the settings' on both sides, dividends are ignored, faults are off. Where a policy reads sentiment, the
replay collects and scores the news, and the backtest reads those scores, over all of history at once. Where a row is a slot bar, the
exchange makes minutes of daily bars, and the backtest gathers the same minutes all at once. The trained policy is one seed's, of
the shortest walk-forward; it decides through its endpoint whatever the gate said of it. A gap above `TOLERANCE`, a book that differs from
the exchange's or an order placed twice is a disagreement: `Agreement.holds` is false. What cannot be run raises a
`PapertapeError`, and every deployment is stopped.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from lambdas.common.ledger.records import ServedModel
from local.aws.emulator import ROOT
from local.replay import schedule as replay_schedule
from local.replay.demo import EVE, HISTORY_STARTS
from local.replay.driver import Day, Replayed, replay
from local.replay.local_deployment import LocalDeployment, synthesize
from local.replay.progress import Show, Stage
from local.replay.replayed_minutes import minutes_start, slot_market
from local.replay.replayed_news import market_with_scores, score_objects
from papertape.market_data.sessions import TradingSession
from papertape.research.reference_backtests import ReferenceBacktests, market_of, policy_of
from schema.settings import Settings
from trading_env.data.bars import Array
from trading_env.data.market import Market
from trading_env.data.sentiment import TABLES
from trading_env.simulation.policy import Policy, make_policy

TOLERANCE = 1e-6
FOLDER = ROOT / "out" / "parity"
TRAINED = "trained"
POLICIES = ("equal-weight", TRAINED, "random:7")


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How one policy's two equity curves compare: their largest relative difference, the session it was at, and the ledger's books.

    `moved_by_sentiment`: the largest relative difference to a backtest in which no source ever answered; 0 where no policy reads scores.
    """

    sessions: int
    largest_gap: float
    at: str
    final_equity: float
    orders: int
    duplicates: int
    ledger_matches_broker: bool
    seconds: float
    moved_by_sentiment: float = 0.0

    @property
    def holds(self) -> bool:
        return self.largest_gap <= TOLERANCE and self.ledger_matches_broker and not self.duplicates


def run(
    settings: Settings,
    *,
    console: Console,
    sessions: Sequence[TradingSession],
    policies: Sequence[str] = POLICIES,
    folder: Path = FOLDER,
) -> dict[str, Agreement]:
    """Trade `sessions` with each of `policies`; return the agreements that `summary.json` in `folder` then holds too."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = shortest(settings)
    show = Show(console)
    with show.progress, ExitStack() as stack:
        with show.stage("synthesize"):
            synthesize(folder / "cdk.out", settings=settings)
        deployments = {
            policy: stack.enter_context(
                LocalDeployment(
                    folder / policy.replace(":", "-"),
                    settings=settings,
                    now=f"{EVE}T22:00:00Z",
                    minutes="recorded" if settings.slot_rows is None else "made",
                )
            )
            for policy in policies
        }

        def work(policy: str) -> Agreement:
            with deployments[policy].explaining(), show.stage(policy, total=len(sessions)) as stage:
                return _trade(policy, deployments[policy], settings=settings, sessions=sessions, cdk_out=folder / "cdk.out", stage=stage)

        found = _side_by_side(work, policies, otherwise=stack.close)
    (folder / "summary.json").write_text(json.dumps({name: asdict(one) for name, one in found.items()}, indent=1) + "\n", encoding="utf-8")
    console.print(_table(found))
    return found


def shortest(settings: Settings) -> Settings:
    """One seed on one fold and the holdout's: a policy to trade with, and no evidence of anything."""
    training = settings.training
    return settings.model_copy(update={"training": training.model_copy(update={"folds": 1, "seeds": training.seeds[:1]})})


def history_starts(settings: Settings, *, policy: str, first: str) -> str:
    """The first session to backfill: of slot bars, features' history before what `policy` is trained on, or before the `first` decision,
    and always some of what is known on the eve."""
    if settings.slot_rows is None:
        return HISTORY_STARTS
    begins = settings.training.dates.start if policy == TRAINED else min(date.fromisoformat(first), date.fromisoformat(EVE))
    return minutes_start(settings.slot_rows, first=begins).isoformat()


def _side_by_side(work: Callable[[str], Agreement], policies: Sequence[str], *, otherwise: Callable[[], object]) -> dict[str, Agreement]:
    """Each policy in a thread. After the first error, or an interruption, `otherwise` must end what the other threads wait for."""
    with ThreadPoolExecutor(max_workers=len(policies)) as pool:
        futures: dict[Future[Agreement], str] = {pool.submit(work, policy): policy for policy in policies}
        try:
            done = {futures[future]: future.result() for future in as_completed(futures)}
        except BaseException:
            otherwise()
            raise
    return {policy: done[policy] for policy in policies}


def _trade(
    policy: str, deployment: LocalDeployment, *, settings: Settings, sessions: Sequence[TradingSession], cdk_out: Path, stage: Stage
) -> Agreement:
    started = time.monotonic()
    stage.note("deploys")
    deployment.deploy(cdk_out, with_cli=False)
    history = history_starts(settings, policy=policy, first=sessions[0].date)
    deployment.backfill(start=history)
    pointer, backtested = _contender(policy, deployment, stage=stage)
    eve = date.fromisoformat(sessions[0].date) - timedelta(days=1)
    if eve > date.fromisoformat(EVE):
        deployment.exchange.advance(f"{eve}T22:00:00Z")
        deployment.backfill(start=EVE)
    deployment.ledger.put_model(pointer)

    def on_session(day: Day) -> None:
        stage.advance()
        stage.note(f"{day.session}  ${day.snapshot.equity:,.0f}")

    traded = replay(
        cloud=deployment,
        exchange=deployment.exchange,
        ledger=deployment.ledger,
        sessions=sessions,
        entries=replay_schedule.parity(settings),
        prefix=settings.name,
        on_session=on_session,
    )
    market = _market(settings, start=history, until=sessions[-1].date)
    agreement = _compare(traded, backtested, market=market, deployment=deployment, seconds=time.monotonic() - started)
    stage.note(f"largest gap {agreement.largest_gap:.1e}")
    return agreement


def _contender(policy: str, deployment: LocalDeployment, *, stage: Stage) -> tuple[ServedModel, Policy]:
    """The policy twice: as the ledger's incumbent, and as the backtest asks it."""
    since = f"{EVE}T22:00:00Z"
    if policy == TRAINED:
        stage.note("builds features")
        deployment.build_features(time=f"{EVE}T23:30:00Z")
        stage.note("trains")
        trained = deployment.train(time=f"{EVE}T23:45:00Z", on_progress=stage.note)
        table = TABLES[deployment.settings.features.sentiment]
        slots = deployment.settings.row_slots
        return trained.served.model_copy(update={"role": "incumbent"}), policy_of(trained.artifact, feature_hash=table.hash, slots=slots)
    made = make_policy(policy)
    kind = policy.split(":")[0]
    fields = {"role": "incumbent", "policy": kind, "spec": policy, "model_version": policy, "kappa": made.kappa, "since": since}
    return ServedModel.model_validate(fields), made


def _compare(traded: Replayed, policy: Policy, *, market: Market, deployment: LocalDeployment, seconds: float) -> Agreement:
    """What was traded against the backtest over the same sessions, under the same limits."""
    days, settings = traded.days, deployment.settings
    gaps = _gaps(traded, policy, settings=settings, market=market_with_scores(market, score_objects(deployment), settings=settings))
    worst = int(gaps.argmax())
    neutral = _gaps(traded, policy, settings=settings, market=market_with_scores(market, {}, settings=settings))
    return Agreement(
        sessions=len(days),
        largest_gap=float(gaps[worst]),
        at=days[worst].session,
        final_equity=round(traded.equity[-1], 2),
        orders=sum(day.fills for day in days),
        duplicates=traded.duplicates,
        ledger_matches_broker=traded.matches,
        seconds=round(seconds, 1),
        moved_by_sentiment=0.0 if settings.features.sentiment == "none" else float(neutral.max()),
    )


def _market(settings: Settings, *, start: str, until: str) -> Market:
    if settings.slot_rows is None:
        return market_of(settings)
    return slot_market(settings, settings.slot_rows, start=date.fromisoformat(start), end=date.fromisoformat(until))


def _gaps(traded: Replayed, policy: Policy, *, settings: Settings, market: Market) -> Array:
    first, last = (date.fromisoformat(day.session) for day in (traded.days[0], traded.days[-1]))
    expected = ReferenceBacktests(settings, start=first, end=last, market=market).of(policy)
    return np.abs(np.asarray(traded.equity) / expected.by_session().equity - 1)


def _table(found: Mapping[str, Agreement]) -> Table:
    sessions = next(iter(found.values())).sessions
    table = Table("policy", "final equity", "largest gap", "at", "books", "seconds", title=f"Traded and backtested, {sessions} sessions")
    for policy, one in found.items():
        gap = f"{one.largest_gap:.1e}" + ("" if one.largest_gap <= TOLERANCE else f" > {TOLERANCE:g}")
        books = "agree" if one.ledger_matches_broker else "DIFFER"
        twice = f", {one.duplicates} TWICE" if one.duplicates else ""
        table.add_row(policy, f"${one.final_equity:,.2f}", gap, one.at, books + twice, f"{one.seconds:.0f}")
    return table
