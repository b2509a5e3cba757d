"""The soak: recorded sessions through the deployed functions while the exchange does everything that the vendor ever did to a client.

Four runs, each on a deployment of its own: 2020 at realistic rates and 60 sessions of it at brutal ones, two seeds each. A random policy
decides, so that every session has orders to lose. It holds (`SoakResult.holds`) if no order was placed twice, no limit was broken, the
ledger was the exchange's books at every session's end, no order stayed in doubt for longer than its grace and two of reconcile's
intervals, and the distance to the backtest is explained to the cent. `out/soak/summary.json` has the figures. What cannot be run raises a
`PapertapeError`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lambdas.common.ledger.records import ServedModel
from lambdas.decide.attribution import live_day
from local.aws.emulator import ROOT
from local.exchange.faults.plan import brutal, realistic
from local.replay.demo import EVE, HISTORY_STARTS
from local.replay.faulty_driver import FaultyReplay, JudgedSession
from local.replay.local_deployment import LocalDeployment, synthesize
from local.replay.progress import Show, Stage
from local.replay.schedule import require_daily_bars
from papertape.market_data.sessions import YEAR, sessions_between
from papertape.research.reference_backtests import ReferenceBacktests
from schema.settings import Settings
from trading_env.evaluation.attribution import AttributionParts, Explained, explain
from trading_env.simulation.policy import make_policy

FOLDER = ROOT / "out" / "soak"
POLICY = "random:7"
PROFILES = {"realistic": realistic, "brutal": brutal}
SEEDS = (7, 8)
AT_ONCE = 3
CENT = 0.01
#: The exchange answers in milliseconds or, on purpose, never; and while a function waits its clock stands still.
SHORT_TIMEOUTS = {
    "BROKER_CONNECT_TIMEOUT": "0.2",
    "BROKER_READ_TIMEOUT": "0.2",
    "BROKER_PAUSE": "0.01",
    "ORDER_TIMEOUT_SECONDS": "0",
}
BROKERS_CLIENTS = ("BackfillBarsFunction", "DecideFunction", "ExecuteOrdersFunction", "ReconcileFunction")

#: Profile, seed and number of sessions of a run.
RunSpec = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class SoakResult:
    """What one run showed. `parts` is the distance to the backtest by cause, `unexplained` the largest rest of a session, in dollars.

    `longest_doubt`: seconds of the exchange's clock since the sending of the oldest order that a pass of reconcile left in doubt.
    """

    profile: str
    seed: int
    sessions: int
    faults_injected: Mapping[str, int]
    intents: int
    accepted: int
    duplicates: int
    limit_breaches: tuple[str, ...]
    differences: tuple[str, ...]
    unknown_over_grace: int
    longest_doubt: float
    repeated: int
    given_up: int
    final_equity: float
    backtest_equity: float
    parts: Mapping[str, float]
    unexplained: float
    seconds: float

    @property
    def ledger_matches_broker(self) -> bool:
        return self.sessions > 0 and not self.differences

    @property
    def holds(self) -> bool:
        sound = (
            self.intents >= self.sessions
            and self.ledger_matches_broker
            and not self.duplicates
            and not self.limit_breaches
            and not self.unknown_over_grace
        )
        return sound and self.unexplained < CENT and abs(self.final_equity - self.backtest_equity - sum(self.parts.values())) < CENT


def run_specs(seeds: Sequence[int], *, realistic: int, brutal: int) -> list[RunSpec]:
    """A run of each profile and seed, one that works beside one that mostly waits for the exchange; none of 0 sessions."""
    specs = [(profile, seed, sessions) for seed in seeds for profile, sessions in (("realistic", realistic), ("brutal", brutal))]
    return [one for one in specs if one[2]]


def run(settings: Settings, *, console: Console, specs: Sequence[RunSpec], folder: Path = FOLDER) -> list[SoakResult]:
    """Make the runs, three at a time; return what they showed, which `summary.json` in `folder` holds too."""
    require_daily_bars(settings, command="soak")
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    show = Show(console)
    with show.progress:
        with show.stage("synthesize"):
            synthesize(folder / "cdk.out", settings=settings)
        found = _in_turn(specs, settings=settings, folder=folder, show=show)
    summary = summarized(found, seconds=time.monotonic() - started)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    console.print(_table(found))
    for one in found:
        for problem in (*one.limit_breaches, *one.differences):
            console.print(f"{one.profile} {one.seed}: {problem}", style="red")
    return found


def _in_turn(specs: Sequence[RunSpec], *, settings: Settings, folder: Path, show: Show) -> list[SoakResult]:
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        homes = [folder / f"{profile}-{seed}" for profile, seed, _ in specs]
        deployments = [LocalDeployment(home, settings=settings, now=f"{EVE}T22:00:00Z") for home in homes]

        def work(deployment: LocalDeployment, spec: RunSpec, home: Path) -> SoakResult:
            with deployment, deployment.explaining(), show.stage(f"{spec[0]} {spec[1]}", total=spec[2]) as stage:
                result = soak(deployment, spec, settings=settings, cdk_out=folder / "cdk.out", stage=stage)
            if result.holds:  # a third of a gigabyte, which only a run that does not hold is worth
                shutil.rmtree(home / "cloud")
            return result

        futures = [pool.submit(work, *one) for one in zip(deployments, specs, homes, strict=True)]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            for deployment in deployments:
                deployment.close()
            raise
        return [future.result() for future in futures]


def soak(
    deployment: LocalDeployment,
    spec: RunSpec,
    *,
    settings: Settings,
    cdk_out: Path,
    stage: Stage | None = None,
    history: str = HISTORY_STARTS,
) -> SoakResult:
    """One run on a deployment that is up: deploy, backfill from `history` on, then trade 2020 as far as `spec` says."""
    profile, seed, sessions = spec
    started = time.monotonic()
    deploy(deployment, cdk_out, history=history)
    deployment.exchange.use_faults(PROFILES[profile](seed).document())
    replay = FaultyReplay(deployment=deployment, settings=settings)
    for ended in replay.run(sessions_between(*YEAR)[:sessions]):
        if stage is not None:
            stage.advance()
            stage.note(f"{ended.day.session}  ${ended.day.snapshot.equity:,.0f}  {sum(replay.faults.values()):,} faults")
    explained = against_the_backtest(replay.sessions, settings=settings)
    return _result(replay, explained, profile=profile, seed=seed, seconds=time.monotonic() - started)


def deploy(deployment: LocalDeployment, cdk_out: Path, *, history: str) -> None:
    """The stacks with their history, functions that do not wait for the broker, and the random policy as the incumbent."""
    deployment.deploy(cdk_out, with_cli=False)
    deployment.backfill(start=history)
    shorten_timeouts(deployment)
    policy, since = make_policy(POLICY), f"{EVE}T22:00:00Z"
    deployment.ledger.put_model(
        ServedModel(role="incumbent", policy="random", spec=POLICY, model_version=POLICY, kappa=policy.kappa, since=since)
    )


def shorten_timeouts(deployment: LocalDeployment) -> None:
    """Tell the deployed functions how long to wait for the broker."""
    client = deployment.client("lambda")
    for output in BROKERS_CLIENTS:
        name = deployment.output(output)
        variables = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        client.update_function_configuration(FunctionName=name, Environment={"Variables": {**variables, **SHORT_TIMEOUTS}})


def _result(replay: FaultyReplay, explained: Sequence[Explained], *, profile: str, seed: int, seconds: float) -> SoakResult:
    sessions = replay.sessions
    return SoakResult(
        profile=profile,
        seed=seed,
        sessions=len(sessions),
        faults_injected=dict(replay.faults),
        intents=sum(len({(order.slot, order.symbol) for order in one.orders}) for one in sessions),
        accepted=sum(one.accepted for one in sessions),
        duplicates=sum(one.duplicates for one in sessions) + replay.accepted_again,
        limit_breaches=tuple(breach for one in sessions for breach in one.breaches),
        differences=tuple(f"{one.day.session}: {difference}" for one in sessions for difference in one.day.differences),
        unknown_over_grace=len(replay.overdue),
        longest_doubt=replay.longest_doubt.total_seconds(),
        repeated=replay.repeated,
        given_up=replay.given_up,
        final_equity=float(sessions[-1].day.snapshot.equity),
        backtest_equity=explained[-1].backtest,
        parts={part.name: round(sum(getattr(one.parts, part.name) for one in explained), 4) for part in fields(AttributionParts)},
        unexplained=max(abs(one.unexplained) for one in explained),
        seconds=round(seconds, 1),
    )


# The distance to the backtest


def against_the_backtest(sessions: Sequence[JudgedSession], *, settings: Settings) -> tuple[Explained, ...]:
    first, last = (date.fromisoformat(one.day.session) for one in (sessions[0], sessions[-1]))
    book, policy = ReferenceBacktests(settings, start=first, end=last), make_policy(POLICY)
    days = [live_day(one.day.snapshot, decision=one.decision, fills=one.fills, fees=float(one.fees)) for one in sessions]
    return explain(book.market, days, backtested=book.of(policy), policy=policy, rules=book.rules)


# What it shows


def summarized(found: Sequence[SoakResult], *, seconds: float) -> dict[str, Any]:
    """The totals, and beside them each run."""
    by_kind: Counter[str] = Counter()
    for one in found:
        by_kind.update(one.faults_injected)
    return {
        "sessions": sum(one.sessions for one in found),
        **_faults(by_kind),
        **{name: sum(getattr(one, name) for one in found) for name in ("intents", "accepted", "duplicates")},
        "limit_breaches": sum(len(one.limit_breaches) for one in found),
        "ledger_matches_broker": all(one.ledger_matches_broker for one in found),
        "unknown_over_grace": sum(one.unknown_over_grace for one in found),
        "seconds": round(seconds, 1),
        "runs": [_row(one) for one in found],
    }


def _row(one: SoakResult) -> dict[str, Any]:
    return {
        "profile": one.profile,
        "seed": one.seed,
        "sessions": one.sessions,
        **_faults(one.faults_injected),
        "intents": one.intents,
        "accepted": one.accepted,
        "duplicates": one.duplicates,
        "limit_breaches": len(one.limit_breaches),
        "ledger_matches_broker": one.ledger_matches_broker,
        "unknown_over_grace": one.unknown_over_grace,
        "longest_doubt_seconds": one.longest_doubt,
        "repeated_firings": one.repeated,
        "given_up_firings": one.given_up,
        "final_equity": round(one.final_equity, 2),
        "backtest_equity": round(one.backtest_equity, 2),
        "explained": dict(one.parts),
        "unexplained": round(one.unexplained, 6),
        "seconds": one.seconds,
    }


def _faults(by_kind: Mapping[str, int]) -> dict[str, Any]:
    return {"faults_injected": sum(by_kind.values()), "faults": dict(sorted(by_kind.items()))}


def _table(found: Sequence[SoakResult]) -> Table:
    table = Table(title=f"{sum(one.sessions for one in found)} sessions while the exchange misbehaves", show_header=True)
    table.add_column("")
    for one in found:
        table.add_column(f"{one.profile} {one.seed}", justify="right")
    rows: list[tuple[str, list[str]]] = [
        ("sessions", [f"{one.sessions}" for one in found]),
        ("faults injected", [f"{sum(one.faults_injected.values()):,}" for one in found]),
        ("  of kinds", [f"{len(one.faults_injected)}" for one in found]),
        ("firings repeated / given up", [f"{one.repeated} / {one.given_up}" for one in found]),
        ("intents", [f"{one.intents:,}" for one in found]),
        ("orders accepted", [f"{one.accepted:,}" for one in found]),
        ("placed twice", [f"{one.duplicates}" for one in found]),
        ("limit breaches", [f"{len(one.limit_breaches)}" for one in found]),
        ("ledger = exchange", ["at every close" if one.ledger_matches_broker else "NO" for one in found]),
        ("unknown over grace", [f"{one.unknown_over_grace}" for one in found]),
        ("  longest doubt", [f"{one.longest_doubt / 60:.1f} min" for one in found]),
        ("final equity", [f"${one.final_equity:,.2f}" for one in found]),
        ("backtest", [f"${one.backtest_equity:,.2f}" for one in found]),
        *((f"  {part.name}", [f"{one.parts[part.name]:+,.2f}" for one in found]) for part in fields(AttributionParts)),
        ("  unexplained", [f"${one.unexplained:.6f}" for one in found]),
        ("seconds", [f"{one.seconds:.0f}" for one in found]),
        ("holds", ["yes" if one.holds else "NO" for one in found]),
    ]
    for name, cells in rows:
        table.add_row(name, *cells)
    return table
