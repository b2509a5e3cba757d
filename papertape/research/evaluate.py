"""`papertape evaluate`: train every seed on every fold, judge them as the pipeline does, and make the page.

Promise: what judges is `sagemaker/evaluate.py` itself, with the log of trials in a folder; a trial that was logged before is not counted
again. The run's folder then holds `evaluation.json`, `page.html` and `model.tar.gz`, or those of the run before if this one fails.
Failure: `TrainingError` with the last words of the script that failed, or `ScoreboardError` before anything is trained.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from learning import packaging
from learning.judged_books import STOPPED, JudgingStopped
from papertape.reports import evaluation_page
from papertape.research import scoreboard, training_run
from papertape.research.study import ResearchError, Study
from schema.evaluation_document import Evaluation, read
from trading_env.evaluation.gate import GateThresholds

ASKED_EVERY = 0.5  # seconds


def run(
    study: Study,
    *,
    folder: Path,
    trials: Path,
    command: str,
    console: Console,
    quick: bool = False,
    record: str = "",
    fresh: bool = False,
    tensorboard: bool = False,
) -> dict[str, Any]:
    """Train, judge and show; return the evaluation. `command` is what the page says to type; `record` a name on the scoreboard."""
    least, folds = GateThresholds().min_folds, study.settings.training.folds
    if record and folds < least:
        raise ResearchError(f"--record is for evidence, which takes {least} folds or more, was {folds}; leave --record or --quick out")
    if record:
        scoreboard.check_name(record)
    study.folds()  # bars without room for them are refused before a word is said
    for line in (*study.notes, *study.dates):
        console.print(line)
    if quick:
        training = study.settings.training
        size = f"{_counted(training.folds, 'fold')} of {_counted(len(training.seeds), 'seed')}"
        console.print(f"quick: {size} and a holdout show how it goes; this cannot pass the gate")
    prepared = training_run.prepare(study, folder)
    seeds = study.settings.training.seeds
    training_run.train(prepared, folds=range(len(prepared.folds)), console=console, fresh=fresh, tensorboard=tensorboard)
    with console.status("judging"):
        evaluation = judge(prepared, seeds=seeds, trials=trials, command=command)
    evaluation_page.write(evaluation, folder / "page.html")
    console.print(_summary(read(evaluation)))
    notes = [f"page: {shown(folder / 'page.html')}", f"try it: papertape backtest{study.arguments} --policy {shown(folder)}"]
    if record:
        notes.append(f"recorded: {shown(scoreboard.record(evaluation, name=record))}, {shown(scoreboard.write())}")
    for line in notes:
        console.print(line, highlight=False, soft_wrap=True)
    return evaluation


def judge(
    prepared: training_run.TrainingRun,
    *,
    seeds: Sequence[int],
    trials: Path | str,
    command: str,
    stopping: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Run the processing job over the trained seeds; its results go to the top of the run's folder. With `stopping`, which is asked twice a
    second, books are kept in `judging/`, and a judgement that was asked to stop raises `JudgingStopped`; the next one goes on there."""
    folder = prepared.folder
    for old in (*(folder / "input").glob("model-*"), folder / "output"):
        shutil.rmtree(old, ignore_errors=True)
    for seed in seeds:
        made = prepared.seed(seed)
        folders = [made / f"fold-{fold.number}" for fold in prepared.folds]
        packed = {f"{path.name}/{file.name}": file.read_bytes() for path in folders for file in path.iterdir()}
        archive = folder / "input" / f"model-{seed}" / "model.tar.gz"
        archive.parent.mkdir(parents=True)
        archive.write_bytes(packaging.archive(packed))
    log = folder / "logs" / "evaluate.log"
    arguments = [
        "--settings",
        str(prepared.settings_file),
        "--root",
        str(folder),
        "--trials",
        str(trials),
        "--command",
        command,
        "--seeds",
        *map(str, seeds),
    ]
    stop_file, kept = folder.resolve() / "stop", folder.resolve() / "judging"
    stop_file.unlink(missing_ok=True)
    if stopping is not None:
        arguments += ["--checkpoint", str(kept), "--stop-file", str(stop_file)]
    child = training_run.start([str(prepared.code / "evaluate.py"), *arguments], environment={}, log=log)
    try:
        with _asked(child, stopping, stop_file=stop_file):
            training_run.follow(child, log=log, on_line=lambda _: None)
    except training_run.TrainingError:
        if child.returncode == STOPPED:
            raise JudgingStopped from None
        raise
    finally:
        training_run.stop(child)
    for result in (folder / "output" / "evaluation" / "evaluation.json", folder / "output" / "model" / "model.tar.gz"):
        result.replace(folder / result.name)
    shutil.rmtree(folder / "output")
    shutil.rmtree(kept, ignore_errors=True)
    evaluation: dict[str, Any] = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return evaluation


@contextmanager
def _asked(child: subprocess.Popen[str], stopping: Callable[[], bool] | None, *, stop_file: Path) -> Iterator[None]:
    """Tell `child` to stop once `stopping` says so, while the block runs."""
    over = threading.Event()

    def look() -> None:
        while stopping is not None and child.poll() is None and not over.wait(ASKED_EVERY):
            if stopping():
                stop_file.touch()
                return

    watch = threading.Thread(target=look, name="judging-stop", daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def _summary(evaluation: Evaluation) -> Group:
    """The answer, the headline, and what the gate says of it, refusals first."""
    headline = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for value, meaning in evaluation_page.cards(evaluation):
        headline.add_row(value, meaning)
    verdict = "passed" if evaluation.gate.passed else f"refused by {len(evaluation.gate.refusals)} of {len(evaluation.gate.checks)} checks"
    refusals = [Text(f"  refused  {check.name}: {check.sentence}") for check in evaluation.gate.refusals]
    passed = ", ".join(check.name for check in evaluation.gate.checks if check.passed)
    count = f"trial {evaluation.trial[:12]}, {'new' if evaluation.log.new else 'logged before'}; {evaluation.log.trials} in the log"
    return Group(
        "",
        Text(evaluation.answer, style="bold"),
        headline,
        "",
        Text(f"{evaluation.gate.title}: {verdict} ({count})"),
        *refusals,
        Text(f"  passed   {passed}"),
    )


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def shown(path: Path) -> str:
    """A path as one would type it here."""
    resolved = path.resolve()
    return str(resolved.relative_to(Path.cwd())) if resolved.is_relative_to(Path.cwd()) else str(path)


def as_typed(arguments: Sequence[str]) -> str:
    """The command line that repeats this one, without this machine's paths: below here they are relative, elsewhere a name alone."""

    def relative(argument: str) -> str:
        option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        path = Path(value)
        if not path.is_absolute():
            return argument
        return f"{option}{equals}{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name}"

    return shlex.join(["papertape", *map(relative, arguments[1:])])
