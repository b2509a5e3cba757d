"""The options that several commands share: names, help texts, bounds and defaults."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parents[1]
SettingsFile = Annotated[Path, typer.Option("--settings", help="The settings to use.", show_default="settings.toml")]
ReplaySettings = Annotated[Path, typer.Option("--settings", help="The settings to use.", show_default="data/settings.toml")]
Start = Annotated[str, typer.Option("--start", help="The first session, YYYY-MM-DD.")]
End = Annotated[str, typer.Option("--end", help="The last session, YYYY-MM-DD.")]
SETTINGS = ROOT / "settings.toml"  # what is deployed
BUNDLED_SETTINGS = ROOT / "data" / "settings.toml"  # of the bundled bars


class On(StrEnum):
    """Where the Papertape runs that a command is for."""

    LAPTOP = "laptop"
    PAPER = "paper"
    AWS = "aws"


Where = Annotated[
    On,
    typer.Option("--on", envvar="PAPERTAPE_ON", help="laptop: what runs here; paper: `make paper`; aws: the account of your credentials."),
]
Folder = Annotated[Path | None, typer.Option("--folder", help="The folder of the laptop's run.", show_default="the one that is up")]

BARS, SIZE, RUN = "Bars and settings", "Dates and size, overriding the settings", "This run"
OwnSettings = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        help="Your settings file; nothing in it is adapted to your bars.",
        show_default="data/settings.toml",
        rich_help_panel=BARS,
    ),
]
Bars = Annotated[
    Path | None,
    typer.Option(
        help="Your daily bars (with --slots, minute bars): CSV, Parquet, or a folder with one file per symbol.",
        show_default="the bundled bars",
        rich_help_panel=BARS,
    ),
]
Adjusted = Annotated[
    bool | None,
    typer.Option(
        "--adjusted/--raw",
        help="Your prices are adjusted for splits and dividends, or raw, with split and dividend columns or --actions.",
        rich_help_panel=BARS,
    ),
]
Actions = Annotated[Path | None, typer.Option(help="Your splits and dividends: symbol, ex_date, kind, value.", rich_help_panel=BARS)]
Symbols = Annotated[str, typer.Option(help="Symbols to use: A,B,C.", show_default="all of the file", rich_help_panel=BARS)]

Slots = Annotated[
    str,
    typer.Option(
        help="Your bars are of one minute, decided on at these slots of a session: open+5,open+120, or every:30.",
        show_default="one decision per daily bar",
        rich_help_panel=BARS,
    ),
]

Universe = Annotated[
    str,
    typer.Option(
        help="Who is a member when: dow-30, nasdaq-100, or most-traded:N of each month, ended names included.",
        show_default="all of the file, always",
        rich_help_panel=BARS,
    ),
]

Sentiment = Annotated[
    Path | None,
    typer.Option(
        help='Your sentiment columns, if the settings have \\[features] sentiment = "daily": CSV or Parquet, a row per name and session.',
        show_default=False,
        rich_help_panel=BARS,
    ),
]


def _day(text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(help=text, formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", rich_help_panel=SIZE)
    return option


TrainingStart = Annotated[datetime | None, _day("The first session to train on.")]
TestStart = Annotated[datetime | None, _day("The first session of the first test.")]
LiveStart = Annotated[datetime | None, _day("The first session that is never read; the holdout ends before it.")]
Until = Annotated[datetime | None, _day("Train one model on every session up to this one, instead of folds; trade after it.")]
Folds = Annotated[int | None, typer.Option(help="How many folds the walk-forward has.", min=1, max=32, rich_help_panel=SIZE)]
Seeds = Annotated[int | None, typer.Option(help="How many seeds: 0, 1, 2, ...", min=1, max=32, rich_help_panel=SIZE)]
Timesteps = Annotated[int | None, typer.Option(help="Per seed and fold.", min=1000, rich_help_panel=SIZE)]
Fresh = Annotated[bool, typer.Option("--fresh", help="Retrain models that are already there.", rich_help_panel=RUN)]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write curves for TensorBoard.", rich_help_panel=RUN)]


def examples(*commands: str) -> str:
    """An epilog that shows each command on a line of its own."""
    return "\n\n".join(["Examples:", *(f"  papertape {command}" for command in commands)])
