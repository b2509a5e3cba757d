"""docs/scoreboard.md: whether the agent beats equal weight, over every recorded run, and the raw results that it is made from.

Promise: `record` keeps an evaluation as one small file that is itself an evaluation.json, its curves thinned, so that page and tearsheet
are made again without training; `write` makes the page from those files alone, the same bytes from the same files.
Failure: `ScoreboardError` for what cannot be recorded or written, `evaluation_file.EvaluationFileError` for a file that is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from papertape.reports.evaluation_page import COLUMNS, COSTS, SLOW, STANDARD, bp, break_even, p_values, percent, plain, ratio, yardsticks
from schema.evaluation_document import Evaluation, EvaluationFileError, Row, read
from trading_env.errors import PapertapeError

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "scoreboard"
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
FOLDERS = re.compile(r"(?<![\w.:/~-])~?/(?:\S*/)?(?=\S)")  # of an absolute path
VALUES = 8000  # of all curves together in a recorded file: about 60 kB
MEASURES = [column for column in COLUMNS if column[0] not in ("information ratio", "IR at kappa")]  # which are told at every cost
NOTES = """\
## What these figures are, and are not

- Each row of a run trades the same bars in the same engine at the same costs, and is filled at the next open. Excess, information ratio
  (IR) and tracking error are against equal weight rebalanced daily, net of cost. Who trades more slowly than that saves cost without any
  skill: equal weight at kappa and random scores at the agent's turnover say how much. *At kappa* is against equal weight that trades as
  slowly as the agent, and luck must be ruled out against both: p is the Reality Check's, daily / at kappa, and the larger counts. A dash
  is a number that does not exist, or that the run was recorded without. A break-even of 0 bp: no excess even free of cost; none: the
  excess does not fall with cost. The detectable IR is the smallest true one that these sessions find with 80 % power.
- The agent is the mean of all seeds' weights, each fold traded by models that were trained on what lies before it. No seed and no fold is
  selected, and the gate charges for every trial in the log.
- **Survivorship.** Every universe was chosen afterwards: the Dow names and the 422 names of the S&P 500 are today's members, and
  most-traded-100, whose rule takes the hundred most traded of each month, chooses among the latter, none of which ended: each row, equal
  weight included, is flattered by what survived. The comparison between rows says more than any row's own return.
- The bundled bars are in `data/`, with their provenance. The bars of the Dow names and of the 422 names are not part of this project; the
  manifest's hash says which they were.
- The raw results are in [docs/scoreboard](scoreboard), curves thinned. Paper trading only; past results say little about future ones.
"""


class ScoreboardError(PapertapeError, ValueError):
    """The run cannot be recorded, or there is none to write about; the message says why."""


def check_name(name: str) -> str:
    """The name of a run, which is its file's; raises ScoreboardError. For a caller who asks before hours of training."""
    if not NAME.fullmatch(name):
        raise ScoreboardError(f"a run's name must be lower-case letters, digits and single dashes, like dow-30, was {name!r}")
    return name


def record(evaluation: Mapping[str, Any], *, name: str, folder: Path = FOLDER) -> Path:
    """Keep a parsed evaluation.json as `folder`/`name`.json, in place of a former one.

    The command keeps the last part only of an absolute path, as the file is public. Raises ScoreboardError for a quick evaluation.
    """
    check_name(name)
    if read(evaluation).quick:
        raise ScoreboardError(f"{name}: a quick evaluation is no evidence and is not recorded; evaluate without --quick")
    training = evaluation["training"]
    records = [{key: value for key, value in one.items() if key != "curve"} for one in training.get("records", [])]
    thin = {
        **evaluation,
        "command": FOLDERS.sub("", evaluation["command"]),
        "training": {**training, "records": records},
        "curves": _thinned(evaluation["curves"]),
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'), allow_nan=False)}" for key, value in thin.items()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return path


def write(*, folder: Path = FOLDER) -> Path:
    """Make the page beside `folder` again from every file in it; raises ScoreboardError when there is none."""
    page = folder.with_suffix(".md")
    page.write_text(text(folder), encoding="utf-8")
    return page


def text(folder: Path = FOLDER) -> str:
    """The page, one section per recorded run, in the order of their names."""
    runs = {path.stem: _load(path) for path in sorted(folder.glob("*.json"))}
    if not runs:
        raise ScoreboardError(f"no run is recorded in {folder.name}/; record one with papertape evaluate --record NAME")
    trials = [run.trial for run in runs.values()]
    if len(set(trials)) < len(trials):
        raise ScoreboardError(f"each trial is recorded once, two of {', '.join(runs)} hold the same one: delete a file")
    intro = "Made by `papertape scoreboard` from the recorded runs in [docs/scoreboard](scoreboard); not to be edited by hand."
    sections = [_section(name, run) for name, run in runs.items()]
    return "\n\n".join([f"# {answer(runs)}", intro, _overview(runs), *sections, NOTES])


def answer(runs: Mapping[str, Evaluation]) -> str:
    """Whether the agent beats equal weight, by the gate's verdicts over the runs."""
    passed = [name for name, run in runs.items() if _passed(run)]
    agent = " and ".join(dict.fromkeys(_safe(run.training.algorithm) for run in runs.values()))
    every = "the only recorded run" if len(runs) == 1 else f"all {len(runs)} recorded runs"
    if len(passed) == len(runs):
        claim = f"{agent} beats equal weight in {every}, by a gate that counts every trial"
    elif passed:
        claim = f"{agent} beats equal weight in {len(passed)} of {len(runs)} recorded runs, {', '.join(passed)}; elsewhere it is not shown"
    else:
        ahead = any(all(value > 0 for value in _excesses(run) if value is not None) for run in runs.values())
        claim = f"{agent} {'is not shown to beat' if ahead else 'does not beat'} equal weight: the gate refused {every}"
    figures = "; ".join(
        f"{' / '.join(map(bp, _excesses(run)))}, information ratio {' / '.join(map(ratio, _ratios(run)))} ({name})"
        for name, run in runs.items()
    )
    return f"{claim}. Growth less that of equal weight daily / at the agent's own kappa, in bp per year at 10 bp per side: {figures}"


def _passed(run: Evaluation) -> bool:
    """By a gate that asked for an edge over equal weight at kappa too: what passed before that must be judged anew."""
    return run.gate.passed and None not in _excesses(run)


def _excesses(run: Evaluation) -> tuple[float | None, float | None]:
    """Over equal weight daily and at kappa, in bp per year at the standard cost; None where the run was recorded without."""
    return run.headline.excess_bp_per_year[STANDARD], run.headline.excess_at_kappa_bp_per_year.get(STANDARD)


def _ratios(run: Evaluation) -> tuple[float | None, float | None]:
    """The information ratios of the same."""
    return run.headline.information_ratio[STANDARD], run.headline.information_ratio_at_kappa.get(STANDARD)


def _load(path: Path) -> Evaluation:
    try:
        return read(json.loads(path.read_text(encoding="utf-8")))
    except EvaluationFileError as error:
        raise ScoreboardError(f"{path.name}: {error}") from error
    except ValueError as error:
        raise ScoreboardError(f"{path.name}: is not JSON ({error})") from error


def _overview(runs: Mapping[str, Evaluation]) -> str:
    heads = (
        "universe",
        "names",
        "folds × seeds",
        "sessions",
        "IR at 0 / 10 / 20 bp",
        "IR at kappa at 0 / 10 / 20 bp",
        "excess at 10 bp, bp per year",
        "excess at kappa",
        *SLOW,
        "break-even a side",
        "turnover per day",
        "IR of the seeds at 10 bp: worst, median, best",
        "detectable IR",
        "p: daily / at kappa",
        "DSR",
        "PBO",
        "verdict",
    )
    return _table(heads, [_line(name, run) for name, run in runs.items()])


def _line(name: str, run: Evaluation) -> list[str]:
    head, seeds = run.headline, run.headline.seed_spread
    return [
        f"[{name}](#{name})",
        str(len(run.data.symbols)),
        f"{len(run.tests)} × {head.seeds}",
        f"{run.gate.sessions:,}",
        " / ".join(ratio(head.information_ratio[cost]) for cost in COSTS),
        " / ".join(ratio(head.information_ratio_at_kappa.get(cost)) for cost in COSTS),
        *map(bp, _excesses(run)),
        *(bp(dict(yardsticks(run)).get(name)) for name in SLOW),
        break_even(head),
        percent(head.turnover_per_day, 2),
        ", ".join(ratio(value) for value in (seeds.worst, seeds.median, seeds.best)),
        ratio(head.detectable_ir),
        p_values(run),
        *(ratio(run.statistics.get(name)) for name in ("dsr_excess", "pbo")),
        _verdict(run),
    ]


def _verdict(run: Evaluation) -> str:
    if run.gate.passed:
        return "passed" if _passed(run) else "to be judged anew"
    return f"**refused** by {len(run.gate.refusals)} of {len(run.gate.checks)} checks"


def _section(name: str, run: Evaluation) -> str:
    rows = [run.agent, *run.baselines]
    years = sorted({year for row in rows for year in row.years})
    verdict = f"The {_safe(run.gate.title)} {'passed' if run.gate.passed else 'refused'} it."
    facts = {
        "trial": run.trial,
        "configuration": run.configuration,
        **run.hashes,
        "head of the trial log": run.log.head,
    }
    window = (
        f"{run.windows.evaluation_start} to {run.windows.evaluation_end}, {len(run.data.symbols)} names, "
        f"{run.training.timesteps:,} steps of {_safe(run.training.algorithm)} in all. Trials in the log: {run.log.trials}, "
        f"openings of the holdout: {run.log.openings}."
    )
    return "\n\n".join(
        [
            f"## {name}",
            f"{_safe(run.answer.rstrip('.'))}. {verdict} {window}",
            *(
                ["\n".join(f"- **{_safe(check.name)}**: {_safe(check.sentence)}" for check in run.gate.refusals)]
                if run.gate.refusals
                else []
            ),
            "At 10 bp per side:",
            _table(("row", "IR at 0 / 10 / 20 bp", "IR at kappa", *(heading for heading, _ in MEASURES)), [_cells(row) for row in rows]),
            "Calendar years, at 10 bp per side; the first and the last may be parts of one:",
            _table(("row", *years), [[_safe(row.name), *(percent(row.years.get(year)) for year in years)] for row in rows]),
            "    " + " ".join(run.command.split()),
            _table(("", ""), [[_safe(plain(key)), f"`{_code(value)}`"] for key, value in facts.items()], left=2),
        ]
    )


def _cells(row: Row) -> list[str]:
    daily, at_kappa = (
        " / ".join(ratio(getattr(row.at[cost], name)) for cost in COSTS) for name in ("information_ratio", "information_ratio_at_kappa")
    )
    return [_safe(row.name), daily, at_kappa, *(cell(row.at[STANDARD]) for _, cell in MEASURES)]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    rule = ["---" if column < left else "---:" for column in range(len(heads))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *rows))


def _safe(words: str) -> str:
    """Words of a file as plain text in a cell or a sentence."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(words.split())).replace("&", "&amp;")


def _code(word: str) -> str:
    """A hash or an id between backticks."""
    return re.sub(r"[^\w.:+-]", "?", word)


def _thinned(curves: Mapping[str, Any]) -> dict[str, Any]:
    """Every so-many-th session and the last, that all curves together stay below VALUES."""
    size, count = len(curves["sessions"]), len(curves["growth"]) + len(curves["seeds"]) + 2
    every = max(1, -(-size * count // VALUES))
    kept = sorted({*range(0, size, every), size - 1})

    def thin(series: Sequence[float], digits: int) -> list[float]:
        return [round(series[row], digits) for row in kept]

    return {
        **curves,
        "sessions": [curves["sessions"][row] for row in kept],
        "growth": {name: thin(series, 2) for name, series in curves["growth"].items()},
        "excess": thin(curves["excess"], 6),
        "seeds": {seed: thin(series, 6) for seed, series in curves["seeds"].items()},
        "every": every * curves.get("every", 1),
    }
