"""The commands that set a deployment up and take it down; they join the command line when they run."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from papertape.command_line import in_plain_words
from papertape.options import ROOT, SETTINGS, Folder, On, SettingsFile, Where, examples

if TYPE_CHECKING:
    from papertape.operate.cloud import AppCloud

DEPLOY = "Set up and take down"


class KeyOf(StrEnum):
    """The sources of news and prices with a key of their own."""

    FINNHUB = "finnhub"
    X = "x"
    ALPHAVANTAGE = "alphavantage"


app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def _cloud(on: On, folder: Path | None, settings: Path) -> AppCloud:
    from papertape.operate import client, cloud
    from schema.settings import chosen

    return cloud.aws(chosen(settings)) if on is On.AWS else cloud.laptop(chosen(settings), client.folder_of(on, folder))


@app.command(rich_help_panel=DEPLOY, epilog=examples("preflight", "preflight --only quotas"))
def preflight(
    only: Annotated[str, typer.Option(metavar="CHECK", help="Make this check alone: bootstrap, leftovers, quotas, broker or mail.")] = "",
    on: Where = On.AWS,
    folder: Folder = None,
    settings: SettingsFile = SETTINGS,
) -> None:
    """Check what a deployment needs, before and after it; change nothing. Status 1 if something must be mended first."""
    with in_plain_words():
        from papertape.operate import preflight

        ready = preflight.run(_cloud(on, folder, settings), only=only, console=Console())
    if not ready:
        sys.exit(1)


@app.command(rich_help_panel=DEPLOY, epilog=examples("cost", "cost --templates cdk.out --out out/cost.json"))
def cost(
    settings: SettingsFile = SETTINGS,
    templates: Annotated[Path, typer.Option(help="Where `make synth` wrote the templates.", show_default="cdk.out")] = ROOT / "cdk.out",
    out: Annotated[Path, typer.Option(help="The estimate as JSON.", show_default="out/cost.json")] = ROOT / "out" / "cost.json",
) -> None:
    """Estimate a month's bill on AWS from the synthesized templates, by service, with and without what every account gets for nothing."""
    with in_plain_words():
        from papertape.operate import cost as the_cost
        from schema.settings import chosen

        the_cost.run(chosen(settings), templates=templates, out=out, console=Console())


@app.command(rich_help_panel=DEPLOY, epilog=examples("secret", "secret --source x", "secret --source finnhub --on paper"))
def secret(
    source: Annotated[
        KeyOf | None, typer.Option(help="Store the key of this source of news or prices instead.", show_default=False)
    ] = None,
    on: Where = On.AWS,
    folder: Folder = None,
    settings: SettingsFile = SETTINGS,
) -> None:
    """Ask for the paper account's keys without echo, try them, and store them for the deployed functions."""
    with in_plain_words():
        from papertape.operate import secret

        if source is None:
            secret.store(_cloud(on, folder, settings), console=Console())
        else:
            secret.store_source(_cloud(on, folder, settings), source.value, console=Console())


@app.command("first-run", rich_help_panel=DEPLOY, epilog=examples("first-run", "first-run --halted"))
def first_run(
    halted: Annotated[bool, typer.Option("--halted", help="Halt trading first: nothing is bought until resume.")] = False,
    on: Where = On.AWS,
    folder: Folder = None,
    settings: SettingsFile = SETTINGS,
) -> None:
    """After the deploy: check, fill the lake, build features, train and judge, decide once without orders, and say what happens next.

    What stands already is not done again, so it may be repeated, and continues after an interruption.
    """
    with in_plain_words(interrupted="interrupted; a job that was started goes on, and first-run continues from there"):
        from papertape.operate import first_run

        first_run.run(_cloud(on, folder, settings), halted=halted, console=Console())


@app.command(rich_help_panel=DEPLOY, epilog=examples("destroy", "destroy --yes"))
def destroy(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    on: Where = On.AWS,
    folder: Folder = None,
    settings: SettingsFile = SETTINGS,
) -> None:
    """Remove what runs: the stacks but the lake, and what the app made beside them; list what stays."""
    with in_plain_words(interrupted="interrupted; repeat it to remove the rest"):
        from papertape.operate import destroy

        destroy.run(_cloud(on, folder, settings), yes=yes, console=Console())
