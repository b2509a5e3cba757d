"""The main job: deploy to this laptop, backfill, build features, train, judge, trade the year 2020, report.

Each stage is what a user of an AWS account does or what a schedule does, on the deployed functions. What is deployed is what a user of
`settings.quick` would deploy: three folds of two seeds, which the gate never passes, so that the year is traded by equal weight while the
challenger watches, or with `agent="trade"` by the refused challenger. The run leaves `out/demo/`: the report, the page of the evaluation,
`summary.json`, `traded.json` (a line per session), the settings, the local cloud's saved state and every log. A stage that fails raises a
`PapertapeError` of one line; the processes that the run started end with it.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lambdas.common.ledger.records import OrderRecord
from lambdas.common.ledger.roles import roles_now
from local.aws.deploy import Deployment
from local.aws.emulator import ROOT
from local.exchange.sessions import ExchangeCalendar
from local.replay import schedule as replay_schedule
from local.replay.driver import Day, Replayed, replay
from local.replay.folder_lock import refuse_in_use
from local.replay.local_deployment import LocalDeployment, TrainingResult, synthesize
from local.replay.progress import Show, Stage, Timings
from local.replay.replayed_news import news_of
from local.replay.schedule import ScheduleEntry
from papertape.market_data.sessions import YEAR, sessions_between
from papertape.reports import demo_page, evaluation_page
from papertape.research.reference_backtests import ReferenceBacktests, largest_gap, policy_of
from schema.sections.learning import GateSettings
from schema.settings import Settings, quick
from trading_env.evaluation.backtest import BacktestResult
from trading_env.evaluation.gate import GateThresholds
from trading_env.simulation.policy import EqualWeight, Policy

Agent = Literal["shadow", "trade"]
FOLDER = ROOT / "out" / "demo"
EVALUATION_PAGE = "evaluation.html"
HISTORY_STARTS = "2005-01-03"
EVE = "2020-01-01"  # the evening before the first decision: history is known, 2020 is not


def run(settings: Settings, *, console: Console, port: int = 0, agent: Agent | None = None) -> dict[str, Any]:
    """Run the demo with the quick form of `settings`; return the summary that it also wrote.

    `agent`: what the refused challenger does, instead of the settings' `gate.refused`.
    """
    replay_schedule.require_daily_bars(settings, command="demo")
    refuse_in_use(FOLDER)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    settings = quick(settings)
    if agent is not None:
        settings = settings.model_copy(update={"gate": GateSettings(refused=agent)})
    console.print(_too_little(settings), style="dim")
    show = Show(console)
    entries = replay_schedule.year(settings)
    with show.progress, ExitStack() as stack:
        with show.stage("start"):
            deployment = stack.enter_context(LocalDeployment(FOLDER, settings=settings, now=f"{EVE}T22:00:00Z", cloud_port=port))
        with show.stage("synthesize"):
            synthesize(FOLDER / "cdk.out", settings=settings)
        with show.stage("deploy") as stage:
            deployed = deployment.deploy(FOLDER / "cdk.out")
            stage.note(f"{deployed.stacks} stacks, {deployed.resources} resources")
        with show.stage("backfill") as stage:
            backfilled = deployment.backfill(start=HISTORY_STARTS)
            stage.note(f"{backfilled['bars']:,} daily bars")
        with show.stage("features") as stage:
            manifest = deployment.build_features(time=f"{EVE}T23:30:00Z")
            stage.note(f"{manifest['rows']:,} rows, {len(manifest['columns'])} columns")
        with show.stage("train") as stage:
            trained = deployment.train(time=f"{EVE}T23:45:00Z", on_progress=stage.note)
            stage.note("passed the gate" if trained.evaluation["gate"]["passed"] else _refused(settings))
        with show.stage("trade 2020", total=len(sessions_between(*YEAR))) as stage:
            traded = _trade(deployment, settings, entries, stage)
        with show.stage("report"):
            page = _Page(deployment, settings, deployed, backfilled, manifest, trained, traded, entries, show.timings)
            summary = page.write()
        summary["seconds"] = round(show.timings.total, 1)
        (FOLDER / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    console.print(_table(summary, trained.evaluation))
    return summary


def _too_little(settings: Settings) -> str:
    """Why the gate will refuse what the demo trains, before it does."""
    training, bar = settings.training, GateThresholds()
    asked = f"{bar.min_seeds} seeds on {bar.min_folds} folds"
    return (
        f"The demo trains {len(training.seeds)} seeds on {training.folds} folds. The gate asks for {asked}, so it refuses them whatever "
        f"they earn: {_fate(settings)}."
    )


def _refused(settings: Settings) -> str:
    return "refused by the gate: " + ("trades all the same, on paper" if settings.gate.refused == "trade" else "runs in shadow")


def _fate(settings: Settings) -> str:
    """What becomes of the challenger that the gate refuses."""
    if settings.gate.refused == "trade":
        return "it trades all the same, on paper, and equal weight watches"
    return "equal weight trades, the challenger watches"


def _trade(deployment: LocalDeployment, settings: Settings, entries: tuple[ScheduleEntry, ...], stage: Stage) -> Replayed:
    with (FOLDER / "traded.json").open("w", encoding="utf-8") as lines:

        def on_session(day: Day) -> None:
            record = {"session": day.session, "equity": str(day.snapshot.equity), "fills": day.fills, "differences": day.differences}
            lines.write(json.dumps(record) + "\n")
            stage.advance()
            stage.note(f"{day.session}  ${day.snapshot.equity:,.0f}")

        return replay(
            cloud=deployment,
            exchange=deployment.exchange,
            ledger=deployment.ledger,
            sessions=sessions_between(*YEAR),
            entries=entries,
            prefix=settings.name,
            on_session=on_session,
        )


@dataclass
class _Page:
    """From what the run measured to `summary.json` and `report.html`."""

    deployment: LocalDeployment
    settings: Settings
    deployed: Deployment
    backfilled: dict[str, Any]
    manifest: dict[str, Any]
    trained: TrainingResult
    traded: Replayed
    entries: tuple[ScheduleEntry, ...]
    timings: Timings

    def write(self) -> dict[str, Any]:
        ledger = self.deployment.ledger
        months = sorted({day.session[:7] for day in self.traded.days})
        self.orders = [order for month in months for order in ledger.orders(month)]
        self.decisions = [decision for month in months for decision in ledger.decisions(month)]
        self.shadow = [decision for month in months for decision in ledger.shadow_decisions(month)]
        self.alerts = [alert for month in months for alert in ledger.alerts(month)]
        self.published = self.deployment.cloud.published()
        self.roles = roles_now(ledger, self.settings)
        challenger = policy_of(self.trained.artifact)
        year = ReferenceBacktests(self.settings, start=YEAR[0], end=YEAR[1])
        equal, benchmark = year.of(EqualWeight()), year.benchmark()
        in_simulator = year.of(challenger)
        agent: Policy = challenger if self.kind == "agent" else EqualWeight()
        gap = largest_gap(self.traded.equity, year.of(agent))
        self.news = news_of(self.deployment, sessions=[day.session for day in self.traded.days], market=year.market)
        summary = self._summary(equal, benchmark)
        summary["trading"]["largest_gap_to_backtest"] = gap
        demo_page.write(self._pictures(summary, equal, benchmark, in_simulator, gap), FOLDER / "report.html")
        evaluation_page.write(self.trained.evaluation, FOLDER / EVALUATION_PAGE, warning=self.roles.warning or "")
        return summary

    @property
    def kind(self) -> str:
        return "agent" if self.roles.trades.policy == "endpoint" else "equal-weight"

    def _summary(self, equal: BacktestResult, benchmark: BacktestResult) -> dict[str, Any]:
        evaluation, traded = self.trained.evaluation, self.traded
        gate, training = evaluation["gate"], evaluation["training"]
        manifest = self.manifest
        return {
            "data": {
                "symbols": len(manifest["symbols"]),
                "sessions": len(
                    ExchangeCalendar.xnys(start=date.fromisoformat(manifest["start"]), end=date.fromisoformat(manifest["end"])).sessions
                ),
                "rows": self.backfilled["bars"],
                "quarantined": manifest["quarantined"],
            },
            "deploy": {
                "stacks": self.deployed.stacks,
                "resources": self.deployed.resources,
                "seconds": round(self.timings.stages["synthesize"] + self.deployed.seconds, 1),
            },
            "features": {
                "rows": manifest["rows"],
                "columns": len(manifest["columns"]),
                "seconds": round(self.timings.stages["features"], 1),
            },
            "training": {key: training[key] for key in ("algorithm", "timesteps", "seeds", "seconds", "steps_per_second")},
            "gate": {key: gate[key] for key in ("passed", "reasons", "sharpe", "equal_weight_sharpe", "benchmark_sharpe", "max_drawdown")},
            "model": {
                "version": self.trained.package_version,
                "kind": self.kind,
                "hash": evaluation["model_hash"],
                **({"warning": self.roles.warning} if self.roles.warning else {}),
            },
            "trading": {
                "sessions": len(traded.days),
                "decisions": len(self.decisions),
                "orders": len(self.orders),
                "fills": sum(day.fills for day in traded.days),
                "rejected": traded.rejected,
                "duplicates": traded.duplicates,
                "ledger_matches_broker": traded.matches,
                "final_equity": round(traded.equity[-1], 2),
                "equal_weight_equity": round(float(equal.equity[-1]), 2),
                "benchmark_equity": round(float(benchmark.equity[-1]), 2),
                "shadow_decisions": len(self.shadow),
            },
            "replay": {
                "fired": {entry.schedule: traded.fired[entry.schedule] for entry in self.entries},
                "thinned": {entry.schedule: entry.reason for entry in self.entries if entry.reason},
            },
            **({"news": {"texts": sum(one.texts for one in self.news.names), "invented": self.news.invented}} if self.news else {}),
            "alerts": {"published": len(self.published)},
            "seconds": round(self.timings.total, 1),
        }

    def _pictures(
        self, summary: dict[str, Any], equal: BacktestResult, benchmark: BacktestResult, challenger: BacktestResult, gap: float
    ) -> demo_page.YearInPictures:
        days, symbols = self.traded.days, self.settings.universe.symbols
        equity: dict[str, list[float]] = {
            "agent": self.traded.equity,
            "equal weight": equal.equity.tolist(),
            self.settings.universe.required_benchmark: benchmark.equity.tolist(),
        }
        if self.kind == "equal-weight":
            equity["challenger in shadow"] = challenger.equity.tolist()
        shares = {
            symbol: [
                float(day.snapshot.positions[symbol].quantity * day.snapshot.positions[symbol].close / day.snapshot.equity)
                if symbol in day.snapshot.positions
                else 0.0
                for day in days
            ]
            for symbol in symbols
        }
        watched = {decision.slot[:10]: decision.weights for decision in self.shadow}
        traded = {decision.slot[:10]: decision.weights for decision in self.decisions}
        warning = self.roles.warning
        targets = traded if warning else watched  # the challenger's
        return demo_page.YearInPictures(
            summary=summary,
            sessions=[day.session for day in days],
            initial_cash=self.settings.portfolio.initial_cash,
            equity=equity,
            weights=shares,
            months=_months(self.orders, self.traded.days),
            last_orders=[
                {
                    "client_order_id": order.client_order_id,
                    "slot": order.slot,
                    "symbol": order.symbol,
                    "side": order.side,
                    "quantity": f"{order.quantity.normalize():f}",
                    "price": f"{order.filled_average_price:,.4f}" if order.filled_average_price is not None else "",
                    "status": order.status,
                }
                for order in sorted(self.orders, key=lambda o: (o.slot, o.symbol))[-16:]
            ],
            alerts=[{"session": alert.session, "rule": alert.rule, "detail": alert.detail} for alert in self.alerts],
            replay=[{**asdict(entry), "mode": entry.mode, "fired": self.traded.fired[entry.schedule]} for entry in self.entries],
            facts=self._facts(summary),
            evaluation=self.trained.evaluation,
            evaluation_page=EVALUATION_PAGE,
            quick_note=_too_little(self.settings),
            parity=gap,
            shadow_note=(
                f"The refused challenger was served by its own endpoint and asked in each of {len(targets)} sessions. "
                f"Its target weights were recorded and {'ordered, on paper' if warning else 'never ordered'}."
            ),
            shadow_weights={symbol: [targets[day.session].get(symbol, 0.0) for day in days] for symbol in symbols}
            if len(targets) == len(days)
            else {},
            warning=warning or "",
            contenders=self._contenders(equal, challenger),
            apart=demo_page.apart(traded, watched),
            news=self.news,
        )

    def _contenders(self, equal: BacktestResult, challenger: BacktestResult) -> list[demo_page.Contender]:
        """Both sides of the year: the one that traded through the functions, the other one in the simulator."""
        if self.kind == "agent" and not self.roles.warning:
            return []  # it passed: nobody challenges it, and equal weight is in the table above
        refused, functions, simulator = bool(self.roles.warning), "the deployed functions", "the simulator"
        return [
            demo_page.Contender(
                role="incumbent",
                name="equal weight",
                verdict="needs none: it is what a model has to beat",
                part="watched" if refused else "traded",
                through=simulator if refused else functions,
                equity=equal.equity.tolist() if refused else self.traded.equity,
            ),
            demo_page.Contender(
                role="challenger",
                name=f"model {self.trained.package_version}",
                verdict="passed it" if self.trained.evaluation["gate"]["passed"] else "refused it",
                part="traded all the same, on paper" if refused else "watched, in shadow",
                through=functions if refused else simulator,
                equity=self.traded.equity if refused else challenger.equity.tolist(),
            ),
        ]

    def _facts(self, summary: dict[str, Any]) -> list[tuple[str, str]]:
        windows, training = self.trained.evaluation["windows"], summary["training"]
        data, features = summary["data"], summary["features"]
        return [
            (
                "bars",
                f"{data['rows']:,} daily bars of {data['symbols']} symbols, {data['sessions']:,} sessions; {data['quarantined']} set aside",
            ),
            ("features", f"{features['rows']:,} rows of {features['columns']} columns in {features['seconds']} s"),
            (
                "training",
                f"{training['algorithm']}, {training['timesteps']:,} steps over {len(windows['folds'])} folds of seeds "
                f"{', '.join(map(str, training['seeds']))}, {training['steps_per_second']:,.0f} steps/s per seed",
            ),
            (
                "judged",
                f"{windows['evaluation_start']} to {windows['evaluation_end']}, each fold by models of what lies before it; "
                f"no bar from {windows['live_start']} on was readable",
            ),
            ("served", f"the seeds' mean, trained on {windows['train_start']} to {windows['train_end']}"),
            ("model", f"version {summary['model']['version']}, sha256 {summary['model']['hash']}"),
            (
                "deployed",
                f"{summary['deploy']['stacks']} stacks, {summary['deploy']['resources']} resources in {summary['deploy']['seconds']} s",
            ),
            ("stages", ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.timings.stages.items())),
        ]


def _months(orders: list[OrderRecord], days: list[Day]) -> list[dict[str, Any]]:
    """Decisions, orders, fills and notional per month, for the report."""
    rows: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for order in orders:
        row = rows[order.slot[:7]]
        row["orders"] += 1
        row["bought" if order.side == "buy" else "sold"] += order.filled_quantity * (order.filled_average_price or Decimal(0))
    for day in days:
        rows[day.session[:7]]["days"] += 1
        rows[day.session[:7]]["fills"] += day.fills
        rows[day.session[:7]]["equity"] += day.snapshot.equity
    return [
        {
            "month": month,
            "decisions": int(row["days"]),
            "orders": int(row["orders"]),
            "fills": int(row["fills"]),
            "bought": f"${row['bought']:,.0f}",
            "sold": f"${row['sold']:,.0f}",
            "turnover": f"{(row['bought'] + row['sold']) / (row['equity'] / row['days']):.1%}",
        }
        for month, row in sorted(rows.items())
    ]


def _table(summary: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Table:
    trading, gate = summary["trading"], summary["gate"]
    table = Table(title="Papertape, the year 2020 through the deployed functions", show_header=False, title_justify="left")
    table.add_column(style="dim")
    table.add_column()
    if warning := summary["model"].get("warning"):
        table.add_row("warning", f"[bold yellow]{escape(warning)}[/]")
    table.add_row("deployed", f"{summary['deploy']['stacks']} stacks, {summary['deploy']['resources']} resources")
    table.add_row("answer", evaluation["answer"])
    table.add_row("gate", gate["reasons"][0])
    table.add_row(
        "traded", f"{summary['model']['kind']}, {trading['sessions']} sessions, {trading['orders']:,} orders, {trading['fills']:,} fills"
    )
    table.add_row("final equity", f"${trading['final_equity']:,.2f}")
    table.add_row("equal weight", f"${trading['equal_weight_equity']:,.2f}  (simulator)")
    table.add_row("benchmark", f"${trading['benchmark_equity']:,.2f}  (simulator)")
    table.add_row("duplicates", str(trading["duplicates"]))
    table.add_row("ledger = broker", "at every session's end" if trading["ledger_matches_broker"] else "NO, see out/demo/traded.json")
    table.add_row("gap to backtest", f"{trading['largest_gap_to_backtest']:.1e} relative, at most, at any session")
    table.add_row("mails published", str(summary["alerts"]["published"]))
    table.add_row("seconds", f"{summary['seconds']:.0f}")
    table.add_row("look at", str((FOLDER / "report.html").relative_to(ROOT)))
    table.add_row("web app", "make dashboard")
    return table
