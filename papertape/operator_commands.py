"""The commands that operate a running deployment; they join the command line when they run."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from papertape.command_line import in_plain_words
from papertape.options import SETTINGS, Folder, On, SettingsFile, Where, examples

if TYPE_CHECKING:
    from papertape.operate.client import Client

OPERATE = "Operate a running deployment"
#: What the examples explain: of the demo's year.
A_DECISION = "agent:2020-12-31/open+5"
AN_ORDER = "pt1-ejfuel4lzekwkugey2plrfjtw5xjyetciqnxbw5z"
Url = Annotated[str, typer.Option(help="The execution API's address, instead of --on.", show_default=False)]
Reason = Annotated[str, typer.Option(help="Why; recorded with the change.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the API's response.")]


class NewsOf(StrEnum):
    """`schema.sections.news.NewsSourceName`, which a test compares."""

    ALPACA = "alpaca"
    FINNHUB = "finnhub"
    X = "x"


app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def _client(on: On, url: str, folder: Path | None, settings: Path) -> Client:
    from papertape.operate import client
    from schema.settings import chosen

    if url:
        return client.at_url(url)
    if on is On.AWS:
        return client.on_aws(chosen(settings))
    return client.on_laptop(client.folder_of(on, folder))


@app.command(rich_help_panel=OPERATE, epilog=examples('halt --reason "odd fills"', 'halt --on aws --reason "odd fills"'))
def halt(reason: Reason = "", on: Where = On.LAPTOP, url: Url = "", folder: Folder = None, settings: SettingsFile = SETTINGS) -> None:
    """Stop sending orders at once, even within a batch; positions and open orders stay."""
    with in_plain_words():
        from papertape.operate import commands

        commands.halt(_client(on, url, folder, settings), reason, console=Console())


@app.command(rich_help_panel=OPERATE, epilog=examples('resume --reason "it was a test"', 'resume --on aws --reason "understood" --yes'))
def resume(
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    account: Annotated[str, typer.Option(help="Continue with this account, after the broker's was reset.", show_default=False)] = "",
    on: Where = On.LAPTOP,
    url: Url = "",
    folder: Folder = None,
    settings: SettingsFile = SETTINGS,
) -> None:
    """Resume trading, after showing what stopped it and which breakers are re-armed, and asking."""
    with in_plain_words():
        from papertape.operate import commands

        commands.resume(_client(on, url, folder, settings), reason, account=account, yes=yes, console=Console())


@app.command(rich_help_panel=OPERATE, epilog=examples('flatten --reason "away"', 'flatten --on aws --reason "odd fills"'))
def flatten(reason: Reason = "", on: Where = On.LAPTOP, url: Url = "", folder: Folder = None, settings: SettingsFile = SETTINGS) -> None:
    """Cancel open orders, sell every position (after the next open if the market is closed), and buy nothing until resume."""
    with in_plain_words():
        from papertape.operate import commands

        commands.flatten(_client(on, url, folder, settings), reason, console=Console())


@app.command(rich_help_panel=OPERATE, epilog=examples("status", "status --on aws", "status --json"))
def status(on: Where = On.LAPTOP, url: Url = "", folder: Folder = None, settings: SettingsFile = SETTINGS, as_json: Json = False) -> None:
    """Show trading state, breakers, last snapshot and decision, open orders, models and alerts; status 0 even if halted."""
    with in_plain_words():
        from papertape.operate import commands

        commands.status(_client(on, url, folder, settings), as_json=as_json, console=Console())


@app.command(
    rich_help_panel=OPERATE, epilog=examples(f"explain {A_DECISION}", f"explain {AN_ORDER} --json", "explain SPY --day 2020-12-31")
)
def explain(
    identity: Annotated[
        str, typer.Argument(metavar="ID", help="A decision id or a client order id; with --day, a symbol.", show_default=False)
    ],
    day: Annotated[str, typer.Option(help="Explain the symbol's orders of this day, YYYY-MM-DD.", show_default=False)] = "",
    on: Where = On.LAPTOP,
    url: Url = "",
    folder: Folder = None,
    settings: SettingsFile = SETTINGS,
    as_json: Json = False,
) -> None:
    """Trace an order to its risk verdict, decision, observation, model, gate, data and code; status 1 if a link is missing or differs."""
    with in_plain_words():
        from papertape.operate import commands

        sound = commands.explain(_client(on, url, folder, settings), identity, day=day, as_json=as_json, console=Console())
    if not sound:
        sys.exit(1)


@app.command(rich_help_panel=OPERATE, epilog=examples("repair", "repair --on aws", "repair --on aws --yes"))
def repair(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    on: Where = On.LAPTOP,
    folder: Folder = None,
    settings: SettingsFile = SETTINGS,
) -> None:
    """Show which corporate actions the lake has more than once, or not as the vendor lists them, and put them right after asking."""
    with in_plain_words():
        from papertape.operate import client
        from papertape.operate import repair as repairing
        from schema.settings import chosen

        function = (
            repairing.function_on_aws(chosen(settings)) if on is On.AWS else repairing.function_on_laptop(client.folder_of(on, folder))
        )
        repairing.repair(function, yes=yes, console=Console())


@app.command(rich_help_panel=OPERATE, epilog=examples("forget 1857923746509234176 --source x", "forget 24843171 --source alpaca --on aws"))
def forget(
    identity: Annotated[str, typer.Argument(metavar="ID", help="The source's own id.", show_default=False)],
    source: Annotated[NewsOf, typer.Option(help="Whose headline or post it is.", show_default=False)],
    on: Where = On.LAPTOP,
    folder: Folder = None,
    settings: SettingsFile = SETTINGS,
) -> None:
    """Have a headline or a post removed everywhere: text, scores and unread records, at the next run of collecting."""
    with in_plain_words():
        from papertape.operate import client, cloud
        from papertape.operate import forget as forgetting
        from schema.settings import chosen

        where = cloud.aws(chosen(settings)) if on is On.AWS else cloud.laptop(chosen(settings), client.folder_of(on, folder))
        forgetting.forget(where, identity, source=source.value, console=Console())


@app.command(rich_help_panel=OPERATE, epilog=examples("run", "run --on paper", "run --on aws"))
def run(on: Where = On.LAPTOP, folder: Folder = None, settings: SettingsFile = SETTINGS) -> None:
    """Follow the market in the foreground as the deployed runner does, a line a minute, until Ctrl-C; it orders nothing."""
    with in_plain_words():
        from papertape.operate import client, cloud, foreground
        from schema.settings import chosen

        where = cloud.aws(chosen(settings)) if on is On.AWS else cloud.laptop(chosen(settings), client.folder_of(on, folder))
        foreground.run(where, console=Console())


@app.command(rich_help_panel=OPERATE, epilog=examples("mails", "mails --last 0"))
def mails(
    last: Annotated[int, typer.Option(help="So many of the newest; 0: all.", min=0)] = 3,
    on: Where = On.LAPTOP,
    folder: Folder = None,
) -> None:
    """Show what a run on this laptop has mailed."""
    with in_plain_words():
        from papertape.operate import client
        from papertape.operate import mails as the_mails

        the_mails.show(client.folder_of(on, folder), last=last, console=Console())
