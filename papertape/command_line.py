"""The command line: `papertape --help`.

Promise: a command ends with status 0, or with one line on standard error that names cause and remedy; no process is left behind. Status 1
is a failure, 2 a wrong command line, 130 Ctrl-C, 143 SIGTERM. The commands of other packages join by the entry point
`papertape.commands`: its name is the command's, its value a Typer app that has it. A command imports what it needs when it runs.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from papertape.options import (
    ROOT,
    RUN,
    Actions,
    Adjusted,
    Bars,
    Folds,
    Fresh,
    LiveStart,
    OwnSettings,
    Seeds,
    Sentiment,
    Slots,
    Symbols,
    TensorBoard,
    TestStart,
    Timesteps,
    TrainingStart,
    Universe,
    Until,
    examples,
)
from trading_env.errors import PapertapeError

if TYPE_CHECKING:
    from papertape.research.study import StudyOptions

INTERRUPTED, TERMINATED = 130, 143
JOINING = "papertape.commands"
#: As `--help` lists them; the commands of other packages follow.
IN_ORDER_OF_USE = (
    *("demo", "dashboard", "local", "paper", "bars", "train", "evaluate", "backtest", "lookahead", "scoreboard"),
    *("exchange", "parity", "soak"),
    *("preflight", "cost", "secret", "first-run", "destroy"),
    *("run", "status", "halt", "resume", "flatten", "explain", "mails", "repair", "forget"),
)


class Terminated(BaseException):
    """SIGTERM arrived."""


class Commands(TyperGroup):
    """Our commands and those of the entry point, which are imported when they run or are listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = {*super().list_commands(ctx), *_joined()}
        return [name for name in IN_ORDER_OF_USE if name in names] + sorted(names.difference(IN_ORDER_OF_USE))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in _joined():
            return own
        group: Any = typer.main.get_group(_joined()[cmd_name].load())
        return group.commands[cmd_name]


#: Commands of ours that have a module of their own.
DEPLOYING = ("preflight", "cost", "secret", "first-run", "destroy")
OPERATING = ("run", "status", "halt", "resume", "flatten", "explain", "mails", "repair", "forget")
APART = {
    name: EntryPoint(name, f"papertape.{module}:app", JOINING)
    for module, names in (("bars_command", ("bars",)), ("deployment_commands", DEPLOYING), ("operator_commands", OPERATING))
    for name in names
}


@cache
def _joined() -> dict[str, EntryPoint]:
    return APART | {entry.name: entry for entry in entry_points(group=JOINING)}


app = typer.Typer(cls=Commands, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def papertape() -> None:
    """An autonomous paper-trading agent, on AWS and on your laptop."""


@app.command(
    epilog=examples(
        "train",
        "train --until 2018-12-31",
        "train --seeds 2 --all-folds --tensorboard",
        "train --bars mine.csv --adjusted --timesteps 500000",
    )
)
def train(
    settings: OwnSettings = None,
    bars: Bars = None,
    adjusted: Adjusted = None,
    actions: Actions = None,
    symbols: Symbols = "",
    universe: Universe = "",
    sentiment: Sentiment = None,
    slots: Slots = "",
    start: TrainingStart = None,
    test_start: TestStart = None,
    live_start: LiveStart = None,
    folds: Folds = None,
    seeds: Seeds = 1,
    timesteps: Timesteps = None,
    until: Until = None,
    all_folds: Annotated[
        bool, typer.Option("--all-folds", help="Train every fold of the walk-forward, not only the last.", rich_help_panel=RUN)
    ] = False,
    fresh: Fresh = False,
    tensorboard: TensorBoard = False,
    out: Annotated[Path, typer.Option(help="The run's folder.", show_default="out/train", rich_help_panel=RUN)] = ROOT / "out" / "train",
) -> None:
    """Train the agent, one process per seed, with live progress; write the models to out/train."""
    with in_plain_words():
        from papertape.research import study, train

        asked = _asked(
            settings,
            bars,
            adjusted,
            actions,
            symbols,
            (start, test_start, live_start),
            folds,
            seeds,
            timesteps,
            until=until,
            universe=universe,
            sentiment=sentiment,
            slots=slots,
        )
        train.run(study.study(asked), folder=out, all_folds=all_folds, fresh=fresh, tensorboard=tensorboard, console=_plain())


@app.command(
    epilog=examples(
        "evaluate --quick",
        "evaluate --record bundled",
        "evaluate --bars mine.parquet --adjusted --seeds 3 --out out/mine",
        "evaluate --bars prices/ --actions splits.csv --settings mine.toml",
    )
)
def evaluate(
    settings: OwnSettings = None,
    bars: Bars = None,
    adjusted: Adjusted = None,
    actions: Actions = None,
    symbols: Symbols = "",
    universe: Universe = "",
    sentiment: Sentiment = None,
    slots: Slots = "",
    start: TrainingStart = None,
    test_start: TestStart = None,
    live_start: LiveStart = None,
    folds: Folds = None,
    seeds: Seeds = None,
    timesteps: Timesteps = None,
    quick: Annotated[bool, typer.Option("--quick", help="3 folds of 2 seeds: takes minutes, proves nothing.", rich_help_panel=RUN)] = False,
    trials: Annotated[
        Path, typer.Option(help="The log of trials; the gate corrects for their number.", show_default="out/trials", rich_help_panel=RUN)
    ] = ROOT / "out" / "trials",
    record: Annotated[str, typer.Option(metavar="NAME", help="Add the result to the scoreboard.", rich_help_panel=RUN)] = "",
    fresh: Fresh = False,
    tensorboard: TensorBoard = False,
    out: Annotated[Path, typer.Option(help="The run's folder.", show_default="out/evaluate", rich_help_panel=RUN)] = ROOT
    / "out"
    / "evaluate",
) -> None:
    """Train all seeds and folds, judge them out of sample against equal weight, and write out/evaluate/page.html.

    Models already trained from the same bars, settings and code are kept, so an interrupted run continues where it stopped.
    """
    with in_plain_words():
        from papertape.research import evaluate, study

        days = (start, test_start, live_start)
        chosen = study.study(
            _asked(
                *(settings, bars, adjusted, actions, symbols, days, folds, seeds, timesteps),
                quick=quick,
                universe=universe,
                sentiment=sentiment,
                slots=slots,
            )
        )
        evaluate.run(
            chosen,
            folder=out,
            trials=trials,
            command=evaluate.as_typed(sys.argv),
            console=_plain(),
            quick=quick,
            record=record,
            fresh=fresh,
            tensorboard=tensorboard,
        )


@app.command(
    epilog=examples(
        "backtest --policy random:7",
        "backtest --policy out/evaluate --from 2011-01-03 --to 2018-12-31",
        "backtest --bars mine.csv --adjusted --policy out/train --from 2020-01-02 --out out/backtest",
    )
)
def backtest(
    settings: OwnSettings = None,
    bars: Bars = None,
    adjusted: Adjusted = None,
    actions: Actions = None,
    symbols: Symbols = "",
    universe: Universe = "",
    sentiment: Sentiment = None,
    slots: Slots = "",
    policy: Annotated[
        str,
        typer.Option(
            help="equal-weight, random:<seed>, a model.tar.gz or the folder of one; or the folder of a run: each session is then traded by "
            "the seeds' ensemble of the fold that judges it.",
        ),
    ] = "equal-weight",
    start: Annotated[
        str,
        typer.Option("--from", "--start", help="The first session, YYYY-MM-DD.", show_default="2020-01-02, or the first of your bars"),
    ] = "",
    end: Annotated[
        str, typer.Option("--to", "--end", help="The last session, YYYY-MM-DD.", show_default="2020-12-31, or the last of your bars")
    ] = "",
    dividends: Annotated[str, typer.Option(help="credit or ignore.", show_default="from the settings")] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write curve, weights and trades: to a folder, or to FILE.csv or FILE.parquet and beside it.", show_default=False
        ),
    ] = None,
) -> None:
    """Backtest a policy in the simulator, next to equal weight, daily and at the policy's own pace, and the benchmark."""
    with in_plain_words():
        from papertape.research import backtest_display, study

        chosen = study.study(_asked(settings, bars, adjusted, actions, symbols, universe=universe, sentiment=sentiment, slots=slots))
        backtest_display.run(chosen, policy=policy, start=start, end=end, dividends=dividends, out=out, console=_plain())


@app.command(epilog=examples("scoreboard"))
def scoreboard() -> None:
    """Rewrite docs/scoreboard.md from the recorded runs."""
    with in_plain_words():
        from papertape.research import evaluate
        from papertape.research import scoreboard as the_scoreboard

        _plain().print(evaluate.shown(the_scoreboard.write()), highlight=False, soft_wrap=True)


@app.command(
    epilog=examples("lookahead", "lookahead mine.py:my_features", "lookahead mine.py:my_features --bars mine.csv --adjusted --symbol IBM")
)
def lookahead(
    function: Annotated[str, typer.Argument(help="Your feature function, path/to/file.py:function.", show_default="Papertape's own")] = "",
    symbol: Annotated[
        str,
        typer.Option(
            help="The symbol whose bars your function gets; all: every symbol's in one table.", show_default="AAPL, or your first"
        ),
    ] = "",
    bars: Bars = None,
    adjusted: Adjusted = None,
    actions: Actions = None,
    slots: Slots = "",
) -> None:
    """Check a feature function, or Papertape's own, for look-ahead: name every column that knows the future."""
    with in_plain_words():
        from papertape.research import lookahead_check, study

        console = _plain()
        history, names, notes = study.history(study.StudyOptions(bars=bars, adjusted=adjusted, actions=actions, slots=slots))
        for line in notes:
            console.print(line)
        clean = lookahead_check.run(function, symbol=symbol or ("AAPL" if bars is None else names[0]), console=console, history=history)
    if not clean:
        sys.exit(1)


def _asked(
    settings: Path | None,
    bars: Path | None,
    adjusted: bool | None,
    actions: Path | None,
    symbols: str,
    days: tuple[datetime | None, datetime | None, datetime | None] = (None, None, None),
    folds: int | None = None,
    seeds: int | None = None,
    timesteps: int | None = None,
    *,
    quick: bool = False,
    until: datetime | None = None,
    universe: str = "",
    sentiment: Path | None = None,
    slots: str = "",
) -> StudyOptions:
    from papertape.research.study import StudyOptions

    start, test_start, live_start, last = (day.date() if day else None for day in (*days, until))
    names = tuple(dict.fromkeys(name.strip().upper() for name in symbols.split(",") if name.strip()))
    chosen = (settings, bars, adjusted, actions, names, start, test_start, live_start, folds, seeds, timesteps, quick)
    return StudyOptions(*chosen, until=last, universe=universe, sentiment=sentiment, slots=slots)


def _plain() -> Console:
    """What is printed is what was said: a path or a column with brackets in its name is no markup."""
    return Console(markup=False, emoji=False)


@contextmanager
def in_plain_words(*, interrupted: str = "interrupted; what was started has been stopped") -> Iterator[None]:
    """Turn an error that a user can fix, and an interruption, into one line and a status."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    except KeyboardInterrupt:
        _end(interrupted, INTERRUPTED)
    except Terminated:
        _end("terminated; what was started has been stopped", TERMINATED)
    except PapertapeError as error:
        _end(str(error), 1)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _end(words: str, status: int) -> None:
    print(f"papertape: {' '.join(words.split())}", file=sys.stderr)
    raise typer.Exit(status) from None


if __name__ == "__main__":
    app()
