"""`papertape paper`: the deployed app on this machine, trading an Alpaca paper account by the real clock, until it is told to stop.

Promise: the stacks are those of an AWS account; the broker is Alpaca's paper account and data service, or an exchange on this machine, and
nothing else is ever reached. What is in the run's folder goes on at the next start, whatever ended the last one; only one process runs in a
folder. Failure: a `PapertapeError` of one line with the remedy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from botocore.exceptions import ClientError
from rich.console import Console

from lambdas.common.broker.port import Account, Broker
from local.aws.emulator import ROOT
from local.dashboard.run import beside
from local.paper import keys as paper_keys
from local.paper.app import PaperApp
from local.paper.clock import ExchangeClock, RunClock, WallClock
from local.paper.loop import LastAlive, PaperLoop
from local.paper.mailbox import Mailbox
from local.paper.schedules import STARTING_RUNNER, DeployedSchedule
from local.replay.local_deployment import LocalDeployment, PaperBroker, settings_text, synthesize
from local.replay.schedule import STOP_RUNNER
from papertape.operate.client import announced
from papertape.operate.jobs import history_start
from schema.exchange_time import NEW_YORK, iso
from schema.lake_layout import features_manifest
from schema.settings import Settings
from trading_env.errors import PapertapeError

#: Before anything that a vendor has: the backfill of daily bars begins where its history does.
FIRST_BARS = "2005-01-03"
#: The keys of an exchange on this machine.
EXCHANGE_KEYS = ("local-key", "local-secret")
#: What the deployed app is made of.
SOURCES = (
    "app.py",
    "cdk.json",
    "requirements.txt",
    "stacks",
    "lambdas",
    "schema",
    "sources",
    "trading_env",
    "learning",
    "glue_jobs",
    "sagemaker",
)
SKEW_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class PaperOptions:
    """`exchange` "" is Alpaca; else the URL of an exchange on this machine, whose clock then rules. `first_bars` "" is all that there are,
    and of minutes what the training needs. Without `runner` the deployed one, if there is any, is not started: a plan has one connection,
    and `papertape run` in another terminal takes it."""

    folder: Path
    exchange: str = ""
    port: int = 0
    new_keys: bool = False
    first_bars: str = ""
    training: bool = True
    web_app: bool = True
    runner: bool = True


def run(settings: Settings, options: PaperOptions, *, console: Console) -> None:
    """Deploy or go on, then fire the schedules until Ctrl-C or SIGTERM."""
    broker = PaperBroker(options.exchange)
    _refuse_another_broker(options)
    asked = _asked_first(options)
    with LocalDeployment(
        options.folder, settings=settings, now="2020-01-02T00:00:00Z", cloud_port=options.port, broker=broker
    ) as deployment:
        PaperRun(deployment, options, console=console).run(asked)


def _refuse_another_broker(options: PaperOptions) -> None:
    """A folder's ledger is of one account: a run on Alpaca never goes on at an exchange on this machine, nor the other way round."""
    file, wanted = options.folder / "broker.json", "exchange" if options.exchange else "alpaca"
    if file.exists():
        bound = json.loads(file.read_text(encoding="utf-8"))["broker"]
        if bound != wanted:
            shown, names = options.folder, {"alpaca": "Alpaca's paper account", "exchange": "an exchange on this machine"}
            raise PaperRunError(f"{shown} trades {names[bound]}, not {names[wanted]}: choose another --folder")


class PaperRunError(PapertapeError, RuntimeError):
    """The run cannot go on as it was asked to; the message is one line with the remedy."""


def _asked_first(options: PaperOptions) -> tuple[str, str] | None:
    """The keys, where it is plain that they must be asked for, before anything is started."""
    if options.exchange:
        return EXCHANGE_KEYS
    saved = options.folder / "cloud" / "state" / "CURRENT"
    return paper_keys.ask() if options.new_keys or not saved.exists() else None


class PaperRun:
    """One run in a deployment that is up."""

    def __init__(self, deployment: LocalDeployment, options: PaperOptions, *, console: Console) -> None:
        self._deployment, self._options, self._console = deployment, options, console
        self._settings = deployment.settings

    def run(self, asked: tuple[str, str] | None) -> None:
        broker, account = self._open(asked)
        clock: RunClock = ExchangeClock(lambda: broker.clock().now) if self._options.exchange else WallClock()
        self._warn_of_skew(clock, broker)
        self._deploy()
        self._first_run(clock)
        app = PaperApp(self._deployment, broker=broker)
        schedules = self._fired(app, clock)
        loop = PaperLoop(
            cloud=app,
            clock=clock,
            schedules=schedules,
            alive=LastAlive(self._options.folder / "alive.json"),
            mailbox=Mailbox(self._options.folder / "mail"),
            say=self._say,
        )
        deployment, folder = self._deployment, self._options.folder
        api, cloud = deployment.output("ExecutionApiUrl"), deployment.cloud.url
        with ExitStack() as up:
            up.enter_context(
                announced(folder, api_url=api, cloud_url=cloud, settings=self._settings, name="paper", broker_url=self._options.exchange)
            )
            if self._options.web_app:
                up.enter_context(beside(folder))
            self._show(account, schedules, now=clock.now())
            try:
                loop.run()
            except KeyboardInterrupt:
                self._say("stopping; positions and what was recorded stay, `make paper` goes on from here")

    def _fired(self, app: PaperApp, clock: RunClock) -> tuple[DeployedSchedule, ...]:
        """The schedules that the loop fires; without the runner none that starts it, and one that an earlier run has left is stopped."""
        schedules = app.schedules()
        if self._options.runner or not self._settings.runner.enabled:
            return schedules
        stopped = app.fire(STOP_RUNNER, iso(clock.now().replace(microsecond=0)), final=False)
        if stopped["status"] != "succeeded":
            raise PaperRunError(f"the deployed runner was not stopped: {stopped.get('error', stopped)}")
        self._say("the deployed runner stays down; in another terminal: papertape run --on paper")
        return tuple(one for one in schedules if one.name not in STARTING_RUNNER)

    def _open(self, asked: tuple[str, str] | None) -> tuple[Broker, Account]:
        """The account of the stored keys, or of new ones, which are stored when they have opened it."""
        deployment = self._deployment
        if asked is None and not deployment.has_keys():
            asked = paper_keys.ask()
        broker, account = paper_keys.opened(asked or deployment.stored_keys(), url=self._options.exchange)
        if asked is not None:
            kind = "exchange" if self._options.exchange else "alpaca"
            (self._options.folder / "broker.json").write_text(json.dumps({"broker": kind}) + "\n", encoding="utf-8")
            deployment.store_keys(asked)
            deployment.cloud.save(whole=True)
        return broker, account

    def _warn_of_skew(self, clock: RunClock, broker: Broker) -> None:
        ahead = (clock.now() - broker.clock().now).total_seconds()
        if abs(ahead) > SKEW_SECONDS:
            self._say(f"this machine's clock is {ahead:+.0f} s off the broker's: set it, slots are fired by it")

    def _deploy(self) -> None:
        """Deploy what the sources and settings say, unless that is what is deployed."""
        made = self._options.folder / "deployed.json"
        wanted = _fingerprint(self._settings)
        if made.exists() and json.loads(made.read_text(encoding="utf-8"))["fingerprint"] == wanted:
            self._deployment.resume()
            return
        cdk_out = self._options.folder / "cdk.out"
        with self._console.status("deploying the stacks to the local cloud"):
            synthesize(cdk_out, settings=self._settings)
            done = self._deployment.deploy(cdk_out, with_cli=False)
            self._deployment.cloud.save(whole=True)
        made.write_text(json.dumps({"fingerprint": wanted}) + "\n", encoding="utf-8")
        self._say(f"deployed {done.stacks} stacks, {done.resources} resources")

    def _first_run(self, clock: RunClock) -> None:
        """Bars, features and a first training for the universe as it is; nothing where that was done."""
        done, slots = self._options.folder / "prepared.json", list(self._settings.row_slots)
        prepared = {"symbols": sorted(self._settings.universe.symbols), **({"slots": slots} if slots else {})}
        if done.exists() and json.loads(done.read_text(encoding="utf-8")) == prepared and self._has_features():
            return
        deployment, now = self._deployment, iso(clock.now().replace(microsecond=0))
        with self._console.status("filling the lake with the vendor's history" + (", minutes of years take minutes" if slots else "")):
            start = self._options.first_bars or (self._first_minutes(clock) if slots else FIRST_BARS)
            self._say(
                f"backfilled {deployment.backfill(start=start)['bars']:,} daily bars" + (f", and minutes from {start} on" if slots else "")
            )
        with self._console.status("building features"):
            self._say(f"built {deployment.build_features(time=now)['rows']:,} rows of features")
        if self._options.training:
            deployment.fire(f"{self._settings.name}-train", now)
            self._say("the first training runs in the background; until a model has passed the gate, equal weight trades")
        deployment.cloud.save()
        done.write_text(json.dumps(prepared) + "\n", encoding="utf-8")

    def _first_minutes(self, clock: RunClock) -> str:
        return history_start(self._settings, last=clock.now().date()).isoformat()

    def _has_features(self) -> bool:
        try:
            return bool(self._deployment.object("processed", features_manifest(self._settings.training.timeframe)))
        except ClientError as error:
            if error.response["Error"]["Code"] not in {"NoSuchKey", "404"}:
                raise
            return False

    def _show(self, account: Account, schedules: tuple[DeployedSchedule, ...], *, now: datetime) -> None:
        folder = self._options.folder
        where = self._options.exchange or "Alpaca's paper account"
        self._say(f"Papertape trades {where}: equity ${account.equity:,.2f}, cash ${account.cash:,.2f}. No real money is reachable.")
        for one in schedules:
            if one.deciding:
                at = one.cron.next(now)
                self._say(f"next slot {one.slot}: {at.astimezone(NEW_YORK):%a %Y-%m-%d %H:%M} New York, {at.astimezone():%H:%M} here")
        self._say(f"mails: {folder / 'mail'}; this machine must be awake in the slot and five minutes past the close")
        self._say("In another terminal: make status, make halt reason=..., make resume reason=..., make flatten reason=...")
        self._say("Ctrl-C stops it.")

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, highlight=False, markup=False)


def _fingerprint(settings: Settings) -> str:
    """Hash of the settings and of every source that the stacks carry."""
    digest = hashlib.sha256(settings_text(settings).encode())
    for path in _sources():
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _sources() -> Iterator[Path]:
    for name in SOURCES:
        root = ROOT / name
        yield from [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
