"""What runs on this machine: demo, local, dashboard, paper, parity, soak, and the exchange. They join `papertape` by its entry point."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from local.paper.service_file import ServiceKind, service_file
from papertape.command_line import in_plain_words
from papertape.options import BUNDLED_SETTINGS, ROOT, SETTINGS, End, ReplaySettings, SettingsFile, Start, examples

app = typer.Typer(add_completion=False)


class RefusedAgent(StrEnum):
    SHADOW = "shadow"
    TRADE = "trade"


@app.command(epilog=examples("demo", "demo --agent trade"))
def demo(
    settings: ReplaySettings = BUNDLED_SETTINGS,
    port: Annotated[int, typer.Option(help="The emulator's port; 0 picks a free one.", min=0, max=65535)] = 0,
    agent: Annotated[
        RefusedAgent | None,
        typer.Option(help="What the challenger does that the gate refuses.", show_default="gate.refused of the settings"),
    ] = None,
) -> None:
    """Deploy to your laptop, train, evaluate, trade 2020, and write out/demo/report.html."""
    with in_plain_words():
        from local.replay import demo as the_demo
        from schema.settings import load

        the_demo.run(load(settings), console=Console(), port=port, agent=None if agent is None else agent.value)


@app.command()
def local(
    settings: ReplaySettings = BUNDLED_SETTINGS,
    port: Annotated[int, typer.Option(help="The emulator's port; 0 picks a free one.", min=0, max=65535)] = 0,
    folder: Annotated[Path, typer.Option(help="The run to restore.", show_default="out/demo")] = ROOT / "out" / "demo",
) -> None:
    """Restore the last demo's deployment and keep it up until Ctrl-C."""
    with in_plain_words():
        from local.replay import restore
        from schema.settings import load

        restore.run(load(settings), folder=folder, port=port, console=Console())


@app.command(epilog=examples("dashboard", "dashboard --port 8080"))
def dashboard(
    port: Annotated[int, typer.Option(help="The web app's port on 127.0.0.1; 0 picks a free one.", min=0, max=65535)] = 0,
    folder: Annotated[
        Path | None, typer.Option(help="The run that is up, or to restore.", show_default="whichever is up, else out/demo")
    ] = None,
) -> None:
    """Open the web app over the run that is up on this machine, or over the last demo's year, until Ctrl-C."""
    with in_plain_words():
        from local.dashboard import run

        run.run(None if folder is None else folder.resolve(), port=port, console=Console())


@app.command(epilog=examples("paper", "paper --service systemd", "paper --exchange http://127.0.0.1:8090"))
def paper(
    settings: SettingsFile = SETTINGS,
    exchange: Annotated[
        str, typer.Option(help="An exchange on this machine instead of Alpaca; its clock rules.", show_default="Alpaca's paper account")
    ] = "",
    service: Annotated[
        ServiceKind | None, typer.Option(help="Print the file that starts it with the computer, and end.", show_default=False)
    ] = None,
    new_keys: Annotated[bool, typer.Option("--new-keys", help="Ask for the account's keys again.")] = False,
    port: Annotated[int, typer.Option(help="The emulator's port; 0 picks a free one.", min=0, max=65535)] = 0,
    runner: Annotated[bool, typer.Option("--runner/--no-runner", help="Start the runner; without, `papertape run` may.")] = True,
    folder: Annotated[Path, typer.Option(help="The run's folder.", show_default="out/paper")] = ROOT / "out" / "paper",
) -> None:
    """Trade an Alpaca paper account from this machine, by the real clock, until Ctrl-C; no AWS account is needed."""
    if service is not None:
        print(service_file(service, folder=folder.resolve()), end="")
        return
    with in_plain_words():
        from local.paper import run
        from schema.settings import load

        options = run.PaperOptions(folder=folder.resolve(), exchange=exchange.rstrip("/"), port=port, new_keys=new_keys, runner=runner)
        run.run(load(settings), options, console=Console())


class DividendsPaid(StrEnum):
    IGNORE = "ignore"
    CREDIT = "credit"


class ActionsListed(StrEnum):
    ANNOUNCED = "announced"
    PROCESSED = "processed"


class MinutesServed(StrEnum):
    RECORDED = "recorded"
    MADE = "made"


class MadeQuotes(StrEnum):
    SPREAD = "spread"
    TRADE = "trade"


@app.command(epilog=examples("exchange --port 8090", "exchange --data prices.csv --faults plan.toml --journal account.jsonl"))
def exchange(
    data: Annotated[
        Path, typer.Option(help="Your raw daily bars: CSV, Parquet, or a folder of them.", show_default="the bundled bars")
    ] = ROOT / "data",
    port: Annotated[int, typer.Option(help="The port on 127.0.0.1; 0 picks a free one.", min=0, max=65535)] = 0,
    faults: Annotated[Path | None, typer.Option(help="A fault plan in TOML, see docs/exchange.md.", show_default="none")] = None,
    now: Annotated[
        str | None, typer.Option(help="The clock's start; POST /admin/clock moves it.", show_default="9:35 on a day with a year before it")
    ] = None,
    cash: Annotated[str, typer.Option(help="US dollars to start with.")] = "100000",
    speed: Annotated[str, typer.Option(help="Market seconds per second: 1 is real time, 0 a clock that only you move.")] = "0",
    fills: Annotated[str, typer.Option(help="An order meets the price after its answer, as at the vendor's, or in the answer.")] = "after",
    journal: Annotated[Path | None, typer.Option(help="A file that keeps the account across restarts.", show_default="none")] = None,
    fee_bps: Annotated[str, typer.Option(help="Fee of one side, in basis points of the amount traded.")] = "0",
    slippage_bps: Annotated[str, typer.Option(help="What a fill is worse than the last trade, in basis points.")] = "0",
    dividends: Annotated[DividendsPaid, typer.Option(help="Paper accounts get none.")] = DividendsPaid.IGNORE,
    actions: Annotated[ActionsListed, typer.Option(help="Dividends are listed from the ex-date, or when paid.")] = ActionsListed.ANNOUNCED,
    minutes: Annotated[
        MinutesServed, typer.Option(help="made: minutes from daily bars where none are recorded; no evidence of anything.")
    ] = MinutesServed.RECORDED,
    quotes: Annotated[MadeQuotes, typer.Option(help="Of made minutes: around the last trade, or at it.")] = MadeQuotes.SPREAD,
) -> None:
    """Serve an Alpaca-compatible paper exchange over recorded bars until Ctrl-C, with faults if you give a plan."""
    with in_plain_words():
        from local.exchange.server import KEY_VARIABLE, SECRET_VARIABLE, ExchangeConfig
        from local.exchange.serving import serve

        config = ExchangeConfig(
            now=now,
            cash=cash,
            port=port,
            data=data,
            faults=faults,
            speed=speed,
            fills=fills,
            journal=journal,
            fee_bps=fee_bps,
            slippage_bps=slippage_bps,
            dividends=dividends.value,
            actions=actions.value,
            minutes=minutes.value,
            quotes=quotes.value,
            key_id=os.environ.get(KEY_VARIABLE, ExchangeConfig.key_id),
            secret_key=os.environ.get(SECRET_VARIABLE, ExchangeConfig.secret_key),
        )
        serve(config, ready_file=None, parent_pid=None)


@app.command()
def parity(
    settings: ReplaySettings = BUNDLED_SETTINGS,
    policy: Annotated[list[str] | None, typer.Option(help="One of the three policies; may be repeated.", show_default="all three")] = None,
    start: Start = "2020-01-02",
    end: End = "2020-12-31",
) -> None:
    """Trade 2020 through the deployed functions and compare each session with the backtest, for three policies."""
    with in_plain_words():
        from local.replay import parity as the_parity
        from papertape.research import backtest
        from schema.settings import load

        known = load(settings)
        sessions = backtest.sessions_of_2020(start, end)
        chosen = backtest.one_of(the_parity.POLICIES, policy)
        found = the_parity.run(known, console=Console(), sessions=sessions, policies=chosen)
    if not all(agreement.holds for agreement in found.values()):
        sys.exit(1)


@app.command()
def soak(
    settings: ReplaySettings = BUNDLED_SETTINGS,
    sessions: Annotated[int, typer.Option(help="Sessions of 2020 at realistic fault rates.", min=0, max=253)] = 253,
    brutal: Annotated[int, typer.Option(help="Sessions of 2020 at brutal fault rates.", min=0, max=253)] = 60,
    seed: Annotated[list[int] | None, typer.Option(help="Seed of the faults; may be repeated.", show_default="7 and 8")] = None,
) -> None:
    """Trade through the deployed functions while the exchange misbehaves; status 1 if an order was duplicated, lost or left in doubt."""
    with in_plain_words():
        from local.replay import soak as the_soak
        from schema.settings import load

        specs = the_soak.run_specs(seed or the_soak.SEEDS, realistic=sessions, brutal=brutal)
        found = the_soak.run(load(settings), console=Console(), specs=specs)
    if not all(one.holds for one in found):
        sys.exit(1)
