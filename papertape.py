"""Papertape's command line for people: `python papertape.py --help`.

Every command ends with status 0, or with one line on standard error that names the cause and the remedy: no traceback for what a user
can mend, and no process left behind.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import settings as settings_module
from local import demo as the_demo

ROOT = Path(__file__).resolve().parent
INTERRUPTED = 130
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
SettingsFile = Annotated[Path, typer.Option("--settings", help="The settings to use.", show_default="settings.toml")]


@app.callback()
def papertape() -> None:
    """An autonomous paper-trading agent, on AWS and on this laptop."""


@app.command()
def demo(settings: SettingsFile = ROOT / "settings.toml") -> None:
    """Deploy to this laptop, train, judge, trade 2020, and write out/demo/report.html."""
    with in_plain_words():
        the_demo.run(settings_module.load(settings), console=Console())


@contextmanager
def in_plain_words() -> Iterator[None]:
    """Turn what a user can mend into one line and a status."""
    try:
        yield
    except the_demo.FAILURES as error:
        print(f"papertape: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print("papertape: interrupted; what was started has been stopped", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


if __name__ == "__main__":
    app()
