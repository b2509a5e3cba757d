"""Papertape's command line for people: `python papertape.py --help`.

Every command ends with status 0, or with one line on standard error that names the cause and the remedy: no traceback for what a user
can mend, and no process left behind. Status 1 is a failure, 2 a wrong command line, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

# The commands import what they need: a failing import of one is no failure of another, and Ctrl-C is in good hands from the start.

ROOT = Path(__file__).resolve().parent
INTERRUPTED, TERMINATED = 130, 143
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
SettingsFile = Annotated[Path, typer.Option("--settings", help="The settings to use.", show_default="settings.toml")]
Start = Annotated[str, typer.Option("--start", help="The first session, YYYY-MM-DD.")]
End = Annotated[str, typer.Option("--end", help="The last session, YYYY-MM-DD.")]
SETTINGS = ROOT / "settings.toml"


class Terminated(BaseException):
    """SIGTERM arrived."""


@app.callback()
def papertape() -> None:
    """An autonomous paper-trading agent, on AWS and on this laptop."""


@app.command()
def demo(
    settings: SettingsFile = SETTINGS,
    port: Annotated[int, typer.Option(help="The local cloud's port; 0 is a free one.", min=0, max=65535)] = 0,
) -> None:
    """Deploy to this laptop, train, judge, trade 2020, and write out/demo/report.html."""
    with in_plain_words():
        from local import demo as the_demo
        from settings import load

        the_demo.run(load(settings), console=Console(), settings_file=settings, port=port)


@app.command()
def local(
    settings: SettingsFile = SETTINGS,
    port: Annotated[int, typer.Option(help="The local cloud's port; 0 is a free one.", min=0, max=65535)] = 0,
    folder: Annotated[Path, typer.Option(help="The run to bring back.", show_default="out/demo")] = ROOT / "out" / "demo",
) -> None:
    """Bring the traded year of the last demo back up, until Ctrl-C."""
    with in_plain_words():
        from local import comeback
        from settings import load

        comeback.run(load(settings), folder=folder, port=port, console=Console())


@app.command()
def backtest(
    settings: SettingsFile = SETTINGS,
    policy: Annotated[str, typer.Option(help="equal-weight, random:<seed>, a model.tar.gz, or its folder.")] = "equal-weight",
    start: Start = "2020-01-02",
    end: End = "2020-12-31",
    dividends: Annotated[str, typer.Option(help="credit or ignore.", show_default="as the settings say")] = "",
) -> None:
    """Trade the bundled bars in the simulator, beside equal weight and the benchmark."""
    with in_plain_words():
        from local import backtests
        from settings import load

        backtests.run(load(settings), policy=policy, start=start, end=end, dividends=dividends, console=Console())


@app.command()
def parity(
    settings: SettingsFile = SETTINGS,
    policy: Annotated[list[str] | None, typer.Option(help="One of the three; may be repeated.", show_default="all three")] = None,
    start: Start = "2020-01-02",
    end: End = "2020-12-31",
) -> None:
    """Trade 2020 through the deployed functions and compare with the backtest, session by session, for three policies."""
    with in_plain_words():
        from local import backtests
        from local import parity as the_parity
        from settings import load

        known = load(settings)
        sessions = backtests.sessions_of_2020(start, end)
        chosen = backtests.one_of(the_parity.POLICIES, policy)
        found = the_parity.run(known, console=Console(), sessions=sessions, policies=chosen, settings_file=settings)
    if not all(agreement.holds for agreement in found.values()):
        sys.exit(1)


@app.command()
def prove(
    function: Annotated[str, typer.Argument(help="Your feature function, path/to/file.py:function.", show_default="our own features")] = "",
    symbol: Annotated[str, typer.Option(help="The bundled name whose bars to use.")] = "AAPL",
) -> None:
    """Prove that a feature function does not know the future, or name the column that does."""
    with in_plain_words():
        from local import proofs

        clean = proofs.run(function, symbol=symbol, console=Console())
    if not clean:
        sys.exit(1)


@contextmanager
def in_plain_words() -> Iterator[None]:
    """Turn what a user can mend, and what a user asked for, into one line and a status."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    except KeyboardInterrupt:
        _end("interrupted; what was started has been stopped", INTERRUPTED)
    except Terminated:
        _end("terminated; what was started has been stopped", TERMINATED)
    except Exception as error:
        if not isinstance(error, _failures()):
            raise
        _end(str(error), 1)


def _failures() -> tuple[type[Exception], ...]:
    """What has a message for the user: one line with cause and remedy."""
    from local.backtests import BacktestError
    from local.comeback import ComebackError
    from local.demo import FAILURES
    from local.proofs import ProofError

    return (*FAILURES, BacktestError, ComebackError, ProofError)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _end(words: str, status: int) -> None:
    print(f"papertape: {' '.join(words.split())}", file=sys.stderr)
    raise typer.Exit(status) from None


if __name__ == "__main__":
    app()
