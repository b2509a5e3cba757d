"""Train seeds on this machine as SageMaker would: `train.py` in processes of its own, as many as there are cores.

Promise: code, settings and bars of a run are copied before the first process starts, so that nothing changes under it: the code to
`out/code/<its hash>`, where what was compiled from it stays, the rest to the run's folder. A fold that was trained before from the same
bars, settings and code is kept. No process outlives this one, however it ends.
Failure: `TrainingError` with the last words of the process that failed; the others are stopped, and what they had finished stays.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from learning import packaging
from learning.configuration import Configuration
from papertape.research.run_record import JudgedFold, RunRecord
from papertape.research.study import Study
from schema.feature_table import parquet, rows_said
from schema.settings import Settings
from trading_env.data.market import table_within, to_table
from trading_env.errors import PapertapeError
from trading_env.evaluation.walk_forward import Fold

ROOT = Path(__file__).resolve().parents[2]
CHILD = ROOT / "papertape" / "child_process.py"
CODE = ROOT / "out" / "code"
WIDE = 110  # columns of a terminal that has room for more than the live line
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class TrainingError(PapertapeError, RuntimeError):
    """A training process failed; the message is its own last line and where its log is."""


@dataclass(frozen=True)
class TrainingRun:
    """A folder that holds what a training needs, and what it makes: `seeds/<seed>/fold-<k>/`. `code` is where its scripts are.

    `everything`: its one fold is of all sessions before live_start.
    """

    folder: Path
    code: Path
    settings: Settings
    folds: tuple[Fold, ...]
    manifest_sha256: str
    configuration_of_one_seed: str
    everything: bool = False

    @property
    def settings_file(self) -> Path:
        return self.folder.resolve() / "settings.json"

    @property
    def channel(self) -> Path:
        return self.folder / "input" / "features"

    def seed(self, seed: int) -> Path:
        return self.folder / "seeds" / str(seed)

    def finished(self, seed: int, fold: int) -> bool:
        """Whether this very training was done before."""
        return self.record.finished(self.folder, seed=seed, fold=fold)

    @property
    def record(self) -> RunRecord:
        """What `backtest` needs to know of the run."""
        folds = tuple(
            JudgedFold(
                fold.number,
                str(fold.train_start),
                str(fold.train_end),
                str(fold.test_start),
                None if self.everything else str(fold.test_end),
            )
            for fold in self.folds
        )
        return RunRecord(
            configuration_of_one_seed=self.configuration_of_one_seed,
            manifest_sha256=self.manifest_sha256,
            seeds=self.settings.training.seeds,
            folds=folds,
            holdout=next((fold.number for fold in self.folds if fold.holdout), None),
        )


def prepare(study: Study, folder: Path) -> TrainingRun:
    """Copy code, settings and bars; raises WalkForwardError or ResearchError when the bars have no room for the folds."""
    folds = study.folds()
    manifest = write_channel(study, folder / "input" / "features")
    configuration = Configuration.of(study.settings).of_one_seed
    run = TrainingRun(folder, unpacked_code(), study.settings, folds, manifest, configuration, everything=study.everything)
    run.settings_file.write_text(study.settings.model_dump_json(indent=1) + "\n", encoding="utf-8")
    run.record.write(folder)
    return run


def write_channel(study: Study, folder: Path) -> str:
    """The features of every session before live_start with their manifest, as the feature job leaves them; the manifest's sha256."""
    eve = study.settings.training.dates.live_start - timedelta(days=1)
    market = study.market.rows(study.market.sessions[0], eve)
    table = to_table(market)
    body = parquet(table)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "features.parquet").write_bytes(body)
    entry = {"key": "features.parquet", "rows": len(table), "sha256": hashlib.sha256(body).hexdigest()}
    manifest = {
        "feature_hash": table_within(market).hash,
        "symbols": list(market.symbols),
        "start": str(market.sessions[0]),
        "end": str(market.sessions[-1]),
        "rows": len(table),
        "files": [entry],
        **rows_said(study.settings),
    }
    content = (json.dumps(manifest, indent=1) + "\n").encode()
    (folder / "manifest.json").write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def unpacked_code() -> Path:
    """What a container would unpack, in a folder named after its hash; a run's settings are in the run's folder."""
    source = packaging.source_archive(settings_json="{}")
    folder = CODE / hashlib.sha256(source).hexdigest()[:16]
    if not folder.is_dir():
        CODE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CODE) as scratch:
            with tarfile.open(fileobj=io.BytesIO(source), mode="r:gz") as tar:
                tar.extractall(Path(scratch) / "code", filter="data")
            # Whoever is first names it; the other's is the same
            with suppress(OSError):
                (Path(scratch) / "code").rename(folder)
    return folder


@dataclass(frozen=True)
class Task:
    """What one process trains."""

    seed: int
    folds: tuple[int, ...]


def tasks(missing: dict[int, list[int]], *, workers: int) -> list[Task]:
    """One process per seed; where the seeds do not fill the last round of `workers`, the folds of each are dealt out to several."""
    seeds = {seed: folds for seed, folds in missing.items() if folds}
    parts = workers // math.gcd(workers, len(seeds))
    dealt = [Task(seed, tuple(folds[part::parts])) for seed, folds in seeds.items() for part in range(parts)]
    return [task for task in dealt if task.folds]


def train(
    run: TrainingRun, *, folds: Sequence[int], console: Console, fresh: bool = False, tensorboard: bool = False, workers: int | None = None
) -> None:
    """Train every seed of the settings on `folds`, but what was trained before; with `fresh`, that too."""
    missing: dict[int, list[int]] = {}
    for seed in run.settings.training.seeds:
        missing[seed] = [fold for fold in folds if fresh or not run.finished(seed, fold)]
        for fold in missing[seed]:
            shutil.rmtree(run.seed(seed) / f"fold-{fold}", ignore_errors=True)
    kept = sum(len(folds) - len(own) for own in missing.values())
    if kept:
        console.print(f"{kept} of {len(missing) * len(folds)} trainings kept from before, --fresh would repeat them")
    wide = console.width >= WIDE
    columns: list[ProgressColumn] = [
        TextColumn("{task.description:<7}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=24 if wide else 6),
    ]
    columns += [TaskProgressColumn(), TimeElapsedColumn()] if wide else []
    columns.append(TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True)))
    cores = workers or os.cpu_count() or 1
    with Progress(*columns, console=console) as progress:
        bars = {seed: progress.add_task(f"seed {seed}", total=1.0, note="waiting", start=False) for seed, own in missing.items() if own}
        shown = {seed: Shown(progress, bar, folds=len(missing[seed])) for seed, bar in bars.items()}
        _run_all(run, tasks(missing, workers=cores), shown=shown, tensorboard=tensorboard, workers=cores)


class Shown:
    """A seed's bar and its live line, from the lines that its processes print."""

    def __init__(self, progress: Progress, bar: TaskID, *, folds: int) -> None:
        self._progress, self._bar, self._folds = progress, bar, folds
        self._taken: dict[int, float] = {}
        self._told = False

    def line(self, line: dict[str, Any]) -> None:
        """`timesteps` of `of` in `fold`, and what the rollout measured; the first rollouts have no kl yet."""
        self._progress.start_task(self._bar)
        self._taken[line["fold"]] = line["timesteps"] / line["of"]
        note = [
            f"fold {line['fold']} ({len(self._taken)}/{self._folds})",
            f"reward {line['rollout_reward']:+.3f}",
            *(f"{name} {line[name]:+.3f}" for name in ("kl", "log_std") if line.get(name) is not None),
            f"{line['steps_per_second']:,} steps/s",
        ]
        done = sum(self._taken.values()) / self._folds
        self._progress.update(self._bar, completed=done, note=" ".join(note))

    def ended(self, seed: int) -> None:
        """On a terminal the bar says it; elsewhere a line does."""
        if sum(self._taken.values()) >= self._folds and not self._told and not self._progress.console.is_terminal:
            self._told = True  # by one of the processes that shared the seed's folds
            self._progress.console.print(f"seed {seed}: {self._folds} {'fold' if self._folds == 1 else 'folds'} trained")


def _run_all(run: TrainingRun, work: list[Task], *, shown: dict[int, Shown], tensorboard: bool, workers: int) -> None:
    children: set[subprocess.Popen[str]] = set()
    guard, ending = threading.Lock(), threading.Event()

    def one(task: Task) -> None:
        command = [
            str(run.code / "train.py"),
            "--settings",
            str(run.settings_file),
            "--seed",
            str(task.seed),
            *(f"--fold={fold}" for fold in task.folds),
            *(["--everything"] if run.everything else []),
        ]
        if tensorboard:
            command += ["--tensorboard", str(run.folder / "tensorboard")]
        environment = {"SM_CHANNEL_FEATURES": str(run.channel), "SM_MODEL_DIR": str(run.seed(task.seed))}
        log = run.folder / "logs" / f"train-{task.seed}-{task.folds[0]}.log"
        with guard:
            if ending.is_set():
                return
            child = start(command, environment=environment, log=log)
            children.add(child)
        follow(child, log=log, on_line=shown[task.seed].line)
        shown[task.seed].ended(task.seed)

    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="train") as pool:
        futures = [pool.submit(one, task) for task in work]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            with guard:
                ending.set()
            for child in children:
                stop(child)


def start(command: Sequence[str], *, environment: dict[str, str], log: Path) -> subprocess.Popen[str]:
    """A script in this Python, which ends when this process does; `follow` reads it, and keeps in `log` what it says on standard error."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("", encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, str(CHILD), *command],
        env={**os.environ, **ONE_THREAD, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def follow(child: subprocess.Popen[str], *, log: Path, on_line: Callable[[dict[str, Any]], None]) -> list[str]:
    """Read a child to its end; give each JSON line to `on_line`, return the others; raises TrainingError with its last word when it failed.

    OSError: it ended well, and its log could not be written.
    """
    assert child.stdout is not None
    output = []
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="log") as pool:
        errors = pool.submit(_kept, child, log)
        for line in child.stdout:
            if line.startswith("{"):
                on_line(json.loads(line))
            else:
                output.append(line.rstrip("\n"))
    last, unwritten = errors.result()
    if child.wait():
        raise TrainingError(f"{last or f'ended with status {child.returncode}'} (its log is {log})")
    if unwritten is not None:
        raise unwritten
    return output


def _kept(child: subprocess.Popen[str], log: Path) -> tuple[str, OSError | None]:
    """The last line that a child said on standard error, which a full disk does not take away, and why its log is not whole."""
    assert child.stderr is not None
    last, unwritten = "", None
    for line in child.stderr:
        last = line.strip() or last
        if unwritten is None:
            try:
                with log.open("a", encoding="utf-8") as file:
                    file.write(line)
            except OSError as error:
                unwritten = error
    return last, unwritten


def stop(child: subprocess.Popen[str]) -> None:
    """End a child and what it started, if it still runs; close its pipes."""
    child.terminate()
    child.wait()
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
