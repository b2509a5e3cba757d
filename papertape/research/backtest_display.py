"""`papertape backtest`: a comparison as tables on the terminal, and as files.

Promise: a file that is there already is never replaced, and that is known before anything is traded. Failure: `BacktestError`, one line.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console, Group
from rich.table import Table

from papertape.research.backtest import DAILY, KAPPA, BacktestError, ComparedBacktest, compare, day
from papertape.research.study import Study
from schema.feature_table import parquet
from trading_env.evaluation import metrics
from trading_env.evaluation.backtest import BacktestResult

TABLES = ("curve", "weights", "trades")
NOTHING = "n/a"


def run(study: Study, *, policy: str, start: str, end: str, dividends: str, out: Path | None, console: Console) -> None:
    """Backtest, print the tables, write the files. Empty `start`, `end`, `dividends`: as `compare`."""
    first, last = day("--from", start), day("--to", end)
    files = {} if out is None else files_of(out)
    found = compare(study, policy, start=first, end=last, dividends=dividends)
    for line in found.notes:
        console.print(line, highlight=False, soft_wrap=True)
    console.print(tables(found, name=Path(policy).name))
    if denied := found.policy.denied:
        console.print(f"{len(denied)} orders were denied by the risk limits, the first: {denied[0]}")
    for name, path in files.items():
        write(getattr(found, name), path)
    if files:
        console.print(f"written: {', '.join(map(str, files.values()))}", highlight=False, soft_wrap=True)


def files_of(out: Path) -> dict[str, Path]:
    """The file of each table: in a folder `curve.csv` and so on; of `mine.csv` or `mine.parquet` that is the curve, the others beside it.

    Raises BacktestError when the ending is another, or one of them is there.
    """
    if out.is_dir() or not out.suffix:
        files = {name: out / f"{name}.csv" for name in TABLES}
    elif out.suffix in (".csv", ".parquet"):
        files = {name: out if name == "curve" else out.with_name(f"{out.stem}-{name}{out.suffix}") for name in TABLES}
    else:
        raise BacktestError(f"--out must be a folder, or end in .csv or .parquet, was {out}")
    if there := [path for path in files.values() if path.exists()]:
        raise BacktestError(f"--out {out}: {there[0]} is there already; remove it or choose another name")
    if blocked := next((parent for parent in out.parents if parent.is_file()), None):
        raise BacktestError(f"--out {out}: {blocked} is a file, not a folder")
    return files


def write(table: pd.DataFrame, path: Path) -> None:
    """CSV with every digit, or Parquet, by the ending; the same table, the same bytes. Raises BacktestError when it cannot be written."""
    content = parquet(table) if path.suffix == ".parquet" else table.to_csv(index=False).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(content)
    except OSError as error:
        raise BacktestError(f"{path} cannot be written ({error.strerror})") from error


def tables(found: ComparedBacktest, *, name: str) -> Group:
    """What it earned beside the others, and what of that is skill."""
    own = found.policy.by_session()
    columns = {name: own}
    if not (found.kappa == 1 and not own.scores.any()):  # the policy is not equal weight daily itself
        columns[DAILY] = found.equal_weight
    if found.kappa < 1:
        columns[f"{KAPPA} {found.kappa:g}"] = found.equal_weight_at_kappa
    if found.benchmark is not None:
        columns[found.benchmark.symbols[0]] = found.benchmark
    sample = "" if not found.in_sample.any() else ", in sample" if found.in_sample.all() else ", partly in sample"
    earned = Table(title=f"{own.sessions[0]} to {own.sessions[-1]}, dividends {found.dividends}{sample}")
    earned.add_column("", no_wrap=True)
    for heading in columns:
        earned.add_column(heading, justify="right", overflow="fold")
    for measure, values in zip(_MEASURES, zip(*map(_measures, columns.values()), strict=True), strict=True):
        earned.add_row(measure, *values)
    return Group(earned, _skill(found, sample=sample)) if found.skill and DAILY in columns else Group(earned)


def _skill(found: ComparedBacktest, *, sample: str) -> Table:
    table = Table(title=f"against equal weight, by cost per side{sample}")
    table.add_column("")
    for cost in found.skill:
        table.add_column(f"{cost} bp", justify="right", no_wrap=True)
    rows = {
        f"excess over {DAILY}, bp per year": [_number(skill.excess_bp, "+.1f") for skill in found.skill.values()],
        "IR, its information ratio": [_number(skill.information_ratio, "+.2f") for skill in found.skill.values()],
        f"excess over {KAPPA} {found.kappa:g}, bp per year": [_number(skill.excess_kappa_bp, "+.1f") for skill in found.skill.values()],
        "IRk, its information ratio": [_number(skill.information_ratio_kappa, "+.2f") for skill in found.skill.values()],
        "tracking error per year": [_number(skill.tracking_error, ".2%") for skill in found.skill.values()],
    }
    for measure, values in rows.items():
        table.add_row(measure, *values)
    return table


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else NOTHING


_MEASURES = (
    "sessions",
    "final equity",
    "return",
    "volatility (year)",
    "Sharpe ratio (year)",
    "deepest drawdown",
    "turnover (session)",
    "costs",
)


def _measures(result: BacktestResult) -> tuple[str, ...]:
    result = result.by_session()
    many = len(result.sessions) > 1
    return (
        f"{len(result.sessions)}",
        f"${result.equity[-1]:,.2f}",
        f"{result.equity[-1] / result.initial_cash - 1:+.2%}",
        _number(metrics.volatility(result.growth), ".2%") if many else "",
        _number(metrics.sharpe(result.growth), ".2f") if many else "",
        f"{metrics.max_drawdown(result.equity, initial=result.initial_cash):.2%}" if many else "",
        f"{np.mean(result.turnover):.2%}",
        f"${result.costs.sum():,.2f}",
    )
