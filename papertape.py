"""Papertape's command line for people: `python papertape.py --help`.

Every command ends with status 0, or with one line on standard error that names the cause and the remedy: no traceback for what a user
can mend, and no process left behind. Status 1 is a failure, 2 a wrong command line, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from local.research import Asked
    from local.target import Target

# The commands import what they need: a failing import of one is no failure of another, and Ctrl-C is in good hands from the start.

ROOT = Path(__file__).resolve().parent
INTERRUPTED, TERMINATED = 130, 143
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
SettingsFile = Annotated[Path, typer.Option("--settings", help="The settings to use.", show_default="settings.toml")]
Start = Annotated[str, typer.Option("--start", help="The first session, YYYY-MM-DD.")]
End = Annotated[str, typer.Option("--end", help="The last session, YYYY-MM-DD.")]
SETTINGS = ROOT / "settings.toml"

BARS, SIZE, RUN = "Bars and settings", "Dates and size, in place of the settings'", "This run"
OwnSettings = Annotated[
    Path | None,
    typer.Option("--settings", help="A settings file of your own, taken at its word.", show_default="settings.toml", rich_help_panel=BARS),
]
Bars = Annotated[
    Path | None,
    typer.Option(help="Your daily bars: CSV or Parquet, or a folder of one file a name.", show_default="the bundled", rich_help_panel=BARS),
]
Adjusted = Annotated[
    bool | None,
    typer.Option(
        "--adjusted/--raw",
        help="Your prices are adjusted for splits and dividends, or as they were traded, with what stands beside them.",
        rich_help_panel=BARS,
    ),
]
Actions = Annotated[Path | None, typer.Option(help="Splits and dividends: symbol, ex_date, kind, value.", rich_help_panel=BARS)]
Symbols = Annotated[str, typer.Option(help="Names to use, A,B,C.", show_default="all of the file", rich_help_panel=BARS)]


def _day(text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(help=text, formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", rich_help_panel=SIZE)
    return option


TrainingStart = Annotated[datetime | None, _day("The first session to train on.")]
TestStart = Annotated[datetime | None, _day("The first session of the first test.")]
LiveStart = Annotated[datetime | None, _day("Nothing from here on is read; the sealed span lies before it.")]
Folds = Annotated[int | None, typer.Option(help="Tests, one after the other.", min=1, max=32, rich_help_panel=SIZE)]
Seeds = Annotated[int | None, typer.Option(help="How many: 0, 1, 2, ...", min=1, max=32, rich_help_panel=SIZE)]
Timesteps = Annotated[int | None, typer.Option(help="Of each seed and fold.", min=1000, rich_help_panel=SIZE)]
Fresh = Annotated[bool, typer.Option("--fresh", help="Train again what was trained before.", rich_help_panel=RUN)]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Keep the curves for TensorBoard.", rich_help_panel=RUN)]


def _examples(*commands: str) -> str:
    """An epilog that shows each command on a line of its own."""
    return "\n\n".join(["Examples:", *(f"  python papertape.py {command}" for command in commands)])


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

        the_demo.run(load(settings), console=Console(), port=port)


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


@app.command(epilog=_examples("train", "train --seeds 2 --all-folds --tensorboard", "train --bars mine.csv --adjusted --timesteps 500000"))
def train(
    settings: OwnSettings = None,
    bars: Bars = None,
    adjusted: Adjusted = None,
    actions: Actions = None,
    symbols: Symbols = "",
    start: TrainingStart = None,
    test_start: TestStart = None,
    live_start: LiveStart = None,
    folds: Folds = None,
    seeds: Seeds = 1,
    timesteps: Timesteps = None,
    all_folds: Annotated[
        bool, typer.Option("--all-folds", help="Every fold of the walk-forward, not the newest alone.", rich_help_panel=RUN)
    ] = False,
    fresh: Fresh = False,
    tensorboard: TensorBoard = False,
    out: Annotated[Path, typer.Option(help="The run's folder.", show_default="out/train", rich_help_panel=RUN)] = ROOT / "out" / "train",
) -> None:
    """Train PPO, a process a seed, with a live line of what it measures; the models are in out/train."""
    with in_plain_words():
        from local import research, trainings

        asked = _asked(settings, bars, adjusted, actions, symbols, (start, test_start, live_start), folds, seeds, timesteps)
        study = research.study(asked)
        trainings.run(study, folder=out, all_folds=all_folds, fresh=fresh, tensorboard=tensorboard, console=Console())


@app.command(
    epilog=_examples(
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
    start: TrainingStart = None,
    test_start: TestStart = None,
    live_start: LiveStart = None,
    folds: Folds = None,
    seeds: Seeds = None,
    timesteps: Timesteps = None,
    quick: Annotated[bool, typer.Option("--quick", help="3 folds of 2 seeds: minutes, and no evidence.", rich_help_panel=RUN)] = False,
    trials: Annotated[
        Path, typer.Option(help="The log of trials; the gate charges for each.", show_default="out/trials", rich_help_panel=RUN)
    ] = ROOT / "out" / "trials",
    record: Annotated[str, typer.Option(metavar="NAME", help="Put the result on the scoreboard.", rich_help_panel=RUN)] = "",
    fresh: Fresh = False,
    tensorboard: TensorBoard = False,
    out: Annotated[Path, typer.Option(help="The run's folder.", show_default="out/evaluate", rich_help_panel=RUN)] = ROOT
    / "out"
    / "evaluate",
) -> None:
    """Train all seeds and folds, judge them out of sample against equal weight, and write out/evaluate/page.html.

    What was trained before from the same bars, settings and code is kept, so an interrupted run goes on where it stopped.
    """
    with in_plain_words():
        from local import evaluations, research

        days = (start, test_start, live_start)
        study = research.study(_asked(settings, bars, adjusted, actions, symbols, days, folds, seeds, timesteps, quick=quick))
        evaluations.run(
            study,
            folder=out,
            trials=trials,
            command=evaluations.as_typed(sys.argv),
            console=Console(),
            quick=quick,
            record=record,
            fresh=fresh,
            tensorboard=tensorboard,
        )


@app.command(
    epilog=_examples(
        "backtest --policy random:7",
        "backtest --policy out/evaluate",
        "backtest --bars mine.csv --adjusted --policy out/train/seeds/0/fold-8 --start 2020-01-02",
    )
)
def backtest(
    settings: OwnSettings = None,
    bars: Bars = None,
    adjusted: Adjusted = None,
    actions: Actions = None,
    symbols: Symbols = "",
    policy: Annotated[str, typer.Option(help="equal-weight, random:<seed>, a model.tar.gz, or its folder.")] = "equal-weight",
    start: Annotated[str, typer.Option(help="The first session, YYYY-MM-DD.", show_default="2020-01-02, or that of your bars")] = "",
    end: Annotated[str, typer.Option(help="The last session, YYYY-MM-DD.", show_default="2020-12-31, or that of your bars")] = "",
    dividends: Annotated[str, typer.Option(help="credit or ignore.", show_default="as the settings say")] = "",
) -> None:
    """Trade a policy in the simulator, beside equal weight and the benchmark."""
    with in_plain_words():
        from local import backtests, research

        study = research.study(_asked(settings, bars, adjusted, actions, symbols))
        backtests.run(study, policy=policy, start=start, end=end, dividends=dividends, console=Console())


@app.command(epilog=_examples("exchange --port 8090", "exchange --data prices.csv --now 2024-03-04T14:30:00Z --faults plan.toml"))
def exchange(
    data: Annotated[
        Path, typer.Option(help="Raw daily bars of your own: CSV, Parquet, or a folder of them.", show_default="the bundled")
    ] = ROOT / "data",
    port: Annotated[int, typer.Option(help="On 127.0.0.1; 0 is a free one.", min=0, max=65535)] = 0,
    faults: Annotated[Path | None, typer.Option(help="A fault plan, TOML: see docs/exchange.md.", show_default="none")] = None,
    now: Annotated[str, typer.Option(help="The clock's start; it moves by POST /admin/clock.")] = "2020-01-02T14:35:00Z",
    cash: Annotated[str, typer.Option(help="US dollars to start with.")] = "100000",
) -> None:
    """Serve an Alpaca-compatible paper exchange over recorded bars, until Ctrl-C; with a fault plan it misbehaves as Alpaca does."""
    with in_plain_words():
        from local.exchange.server import ExchangeConfig
        from local.exchange.serving import serve

        serve(ExchangeConfig(now=now, cash=cash, port=port, data=data, faults=faults), ready_file=None, parent_pid=None)


class On(StrEnum):
    """Where the Papertape runs that is spoken to."""

    LAPTOP = "laptop"
    AWS = "aws"


Where = Annotated[On, typer.Option("--on", envvar="PAPERTAPE_ON", help="What `make local` holds up, or the account of your credentials.")]
Url = Annotated[str, typer.Option(help="The execution API's address, in place of --on.", show_default=False)]
Run = Annotated[Path, typer.Option("--folder", help="The laptop's run.", show_default="out/demo")]
Reason = Annotated[str, typer.Option(help="Why; it is kept with the change.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="The API's own answer.")]
OPERATE, DEMO = "Operate what runs", ROOT / "out" / "demo"


def _target(on: On, url: str, folder: Path, settings: Path) -> Target:
    from local import target
    from settings import load

    if url:
        return target.at_url(url)
    return target.on_aws(load(settings)) if on is On.AWS else target.on_laptop(folder)


@app.command(rich_help_panel=OPERATE, epilog=_examples('halt --reason "odd fills"', 'halt --on aws --reason "odd fills"'))
def halt(reason: Reason = "", on: Where = On.LAPTOP, url: Url = "", folder: Run = DEMO, settings: SettingsFile = SETTINGS) -> None:
    """Send nothing more, at once, also of a batch under way; positions and open orders stay."""
    with in_plain_words():
        from local import operating

        operating.halt(_target(on, url, folder, settings), reason, console=Console())


@app.command(rich_help_panel=OPERATE, epilog=_examples('resume --reason "it was a test"', 'resume --on aws --reason "understood" --yes'))
def resume(
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    account: Annotated[str, typer.Option(help="Go on with this account, after the broker's was reset.", show_default=False)] = "",
    on: Where = On.LAPTOP,
    url: Url = "",
    folder: Run = DEMO,
    settings: SettingsFile = SETTINGS,
) -> None:
    """Trade again; shows first what stopped it and which breakers are re-armed, and asks."""
    with in_plain_words():
        from local import operating

        operating.resume(_target(on, url, folder, settings), reason, account=account, yes=yes, console=Console())


@app.command(rich_help_panel=OPERATE, epilog=_examples('flatten --reason "away"', 'flatten --on aws --reason "odd fills"'))
def flatten(reason: Reason = "", on: Where = On.LAPTOP, url: Url = "", folder: Run = DEMO, settings: SettingsFile = SETTINGS) -> None:
    """Cancel what is open, sell all that is held (on a closed market, after the next open), and buy nothing more until resume."""
    with in_plain_words():
        from local import operating

        operating.flatten(_target(on, url, folder, settings), reason, console=Console())


@app.command(rich_help_panel=OPERATE, epilog=_examples("status", "status --on aws", "status --json"))
def status(on: Where = On.LAPTOP, url: Url = "", folder: Run = DEMO, settings: SettingsFile = SETTINGS, as_json: Json = False) -> None:
    """Trading state, breakers, last snapshot and decision, open orders, models, alerts; 0 if it could be read, halted or not."""
    with in_plain_words():
        from local import operating

        operating.status(_target(on, url, folder, settings), as_json=as_json, console=Console())


@app.command(rich_help_panel=OPERATE, epilog=_examples("explain agent:2020-12-31/open+5", "explain pt1-jzohzbvq2udixcm6wvqbkrfj4q --json"))
def explain(
    identity: Annotated[str, typer.Argument(metavar="ID", help="A decision id, or a client order id.", show_default=False)],
    on: Where = On.LAPTOP,
    url: Url = "",
    folder: Run = DEMO,
    settings: SettingsFile = SETTINGS,
    as_json: Json = False,
) -> None:
    """Where an order comes from: risk verdict, decision, observation, model, gate, data, code; 1 if a link is missing or differs."""
    with in_plain_words():
        from local import operating

        sound = operating.explain(_target(on, url, folder, settings), identity, as_json=as_json, console=Console())
    if not sound:
        sys.exit(1)


@app.command(epilog=_examples("scoreboard"))
def scoreboard() -> None:
    """Make docs/scoreboard.md again from the recorded runs."""
    with in_plain_words():
        from local import evaluations
        from local import scoreboard as the_scoreboard

        Console().print(evaluations.shown(the_scoreboard.write()))


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
        found = the_parity.run(known, console=Console(), sessions=sessions, policies=chosen)
    if not all(agreement.holds for agreement in found.values()):
        sys.exit(1)


@app.command()
def soak(
    settings: SettingsFile = SETTINGS,
    sessions: Annotated[int, typer.Option(help="Of 2020, at realistic rates.", min=0, max=253)] = 253,
    brutal: Annotated[int, typer.Option(help="And at brutal rates.", min=0, max=253)] = 60,
    seed: Annotated[list[int] | None, typer.Option(help="Of the faults; may be repeated.", show_default="7 and 8")] = None,
) -> None:
    """Trade through the deployed functions while the exchange misbehaves; 1 if anything was placed twice, lost or left in doubt."""
    with in_plain_words():
        from local import soak as the_soak
        from settings import load

        asked = the_soak.plans(seed or the_soak.SEEDS, realistic=sessions, brutal=brutal)
        found = the_soak.run(load(settings), console=Console(), asked=asked)
    if not all(one.holds for one in found):
        sys.exit(1)


@app.command(epilog=_examples("prove", "prove mine.py:my_features", "prove mine.py:my_features --bars mine.csv --adjusted --symbol IBM"))
def prove(
    function: Annotated[str, typer.Argument(help="Your feature function, path/to/file.py:function.", show_default="our own code")] = "",
    symbol: Annotated[
        str,
        typer.Option(help="The name whose bars your function gets; all: every name's in one table.", show_default="AAPL, or your first"),
    ] = "",
    bars: Bars = None,
    adjusted: Adjusted = None,
    actions: Actions = None,
) -> None:
    """Prove that a feature function, or our own code, does not know the future; or name the column that does."""
    with in_plain_words():
        from local import proofs, research

        console = Console()
        history, names, told = research.history(research.Asked(bars=bars, adjusted=adjusted, actions=actions))
        for line in told:
            console.print(line)
        clean = proofs.run(function, symbol=symbol or ("AAPL" if bars is None else names[0]), console=console, history=history)
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
) -> Asked:
    from local.research import Asked

    start, test_start, live_start = (day.date() if day else None for day in days)
    names = tuple(dict.fromkeys(name.strip().upper() for name in symbols.split(",") if name.strip()))
    return Asked(settings, bars, adjusted, actions, names, start, test_start, live_start, folds, seeds, timesteps, quick)


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
    from local.evaluation_file import EvaluationFileError
    from local.own_tables import OwnBarsError
    from local.proofs import ProofError
    from local.research import ResearchError
    from local.scoreboard import ScoreboardError
    from local.storm import StormError
    from local.target import OperatorError
    from local.training_run import TrainingError
    from trading_env.walk_forward import WalkForwardError

    ours = (BacktestError, ComebackError, ProofError, OwnBarsError, ResearchError, TrainingError, WalkForwardError)
    return (*FAILURES, *ours, ScoreboardError, StormError, EvaluationFileError, OperatorError)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _end(words: str, status: int) -> None:
    print(f"papertape: {' '.join(words.split())}", file=sys.stderr)
    raise typer.Exit(status) from None


if __name__ == "__main__":
    app()
