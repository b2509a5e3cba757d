"""Train what a run asks for, in the processes of `papertape evaluate`, and say of each rollout what it measured.

Promise: a fold that is trained stays, and a fold that was stopped goes on where its `train.py` can; asked to stop, every process ends
between two rollouts, or is ended where it cannot. The weights are those of an unbroken run. Failure: `TrainingError`, the last line of the
process that failed; the others are stopped.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any

from papertape.research.training_run import Task, TrainingError, TrainingRun, follow, start, stop, tasks
from papertape.runs.recorder import RunRecorder
from schema.runs.events import FoldTrained, Progressed

STOPPED = 75  # train.py's status when it was asked to stop and can be gone on with
STOP_WITHIN = 90.0  # seconds that a rollout may take to its end; then its process is ended
TOLD_EVERY = 1.0  # seconds between two words on one fold: a short rollout is over faster than anyone reads
KEEP_EVERY = 60.0  # seconds between two times that what is done so far is kept, where nothing else is a reason to
MEASURED = ("excess", "value_loss", "entropy", "explained_variance", "kl", "steps_per_second")


class RunTraining:
    """One start of a training: `stopping` says whether it was asked to stop, `keep` makes what is done outlive the machine."""

    def __init__(
        self,
        run: TrainingRun,
        *,
        recorder: RunRecorder,
        stopping: Callable[[], bool],
        keep: Callable[[], None],
        pace: float,
        workers: int,
        told_every: float = TOLD_EVERY,
    ) -> None:
        self._run, self._recorder, self._stopping, self._keep = run, recorder, stopping, keep
        self._pace, self._workers = pace, workers
        self._resumable = "--stop-file" in (run.code / "learning" / "training.py").read_text(encoding="utf-8")
        self._stop_file = run.folder / "stop"
        self._children: set[subprocess.Popen[str]] = set()
        self._guard, self._ending = threading.Lock(), threading.Event()
        self._missing = {
            seed: [fold.number for fold in run.folds if not run.finished(seed, fold.number)] for seed in run.settings.training.seeds
        }
        self._shares: dict[tuple[int, int], float] = {}
        self._told: dict[tuple[int, int], float] = {}
        self._told_every = told_every
        self._began = time.monotonic()
        self._kept, self._new = time.monotonic(), False

    def train(self) -> bool:
        """Whether all is trained; False when it was stopped before."""
        self._stop_file.unlink(missing_ok=True)
        work = tasks(self._missing, workers=self._workers)
        with ThreadPoolExecutor(max_workers=self._workers, thread_name_prefix="train") as pool:
            futures = [pool.submit(self._one, task) for task in work]
            try:
                return self._watch(futures)
            finally:
                self._end()

    def _watch(self, futures: list[Future[bool]]) -> bool:
        asked: float | None = None
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=self._pace, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            self._recorder.check()
            now = time.monotonic()
            if asked is None and waiting and self._stopping():
                asked = now
                self._ask()
            if asked is not None and (not self._resumable or now - asked > STOP_WITHIN):
                self._end()
            if self._new or now - self._kept > KEEP_EVERY:
                self._kept, self._new = now, False
                self._keep()
        return all(self._run.finished(seed, fold) for seed, folds in self._missing.items() for fold in folds)

    def _ask(self) -> None:
        """No process starts another fold, and each ends after its rollout."""
        with self._guard:
            self._ending.set()
        self._stop_file.touch()

    def _end(self) -> None:
        with self._guard:
            self._ending.set()
            children = list(self._children)
        for child in children:
            child.terminate()

    def _one(self, task: Task) -> bool:
        """Whether the task's folds are all trained."""
        run = self._run
        command = [str(run.code / "train.py"), "--settings", str(run.settings_file), "--seed", str(task.seed)]
        command += [f"--fold={fold}" for fold in task.folds]
        if self._resumable:
            command += ["--checkpoint", str((run.folder / "resume").resolve()), "--stop-file", str(self._stop_file.resolve())]
        log = run.folder / "logs" / f"train-{task.seed}-{task.folds[0]}.log"
        environment = {"SM_CHANNEL_FEATURES": str(run.channel), "SM_MODEL_DIR": str(run.seed(task.seed))}
        with self._guard:
            if self._ending.is_set():
                return False
            child = start(command, environment=environment, log=log)
            self._children.add(child)
        told: set[int] = set()

        def line(measured: dict[str, Any]) -> None:
            self._tell_trained(task, [fold for fold in task.folds if fold != measured["fold"]], told)
            self._progress(measured)

        try:
            follow(child, log=log, on_line=line)
        except TrainingError as error:
            if self._ending.is_set() or child.returncode == STOPPED:
                return False
            raise TrainingError(str(error).partition(" (its log is ")[0]) from error
        finally:
            stop(child)
            with self._guard:
                self._children.discard(child)
            self._tell_trained(task, list(task.folds), told)
        return True

    def _tell_trained(self, task: Task, folds: list[int], told: set[int]) -> None:
        for fold in folds:
            if fold not in told and self._run.finished(task.seed, fold):
                told.add(fold)
                self._shares[task.seed, fold] = 1.0
                self._recorder.tell(FoldTrained, seed=task.seed, fold=fold, folds=len(self._run.folds))
                self._new = True

    def _progress(self, line: dict[str, Any]) -> None:
        """A JSON line of `train.py`: `seed`, `fold`, `timesteps` of `of`, and what the rollout measured."""
        algorithm = self._run.settings.training.algorithm
        phase = str(line.get("phase") or algorithm)
        share = line["timesteps"] / line["of"]
        if "+" in algorithm:
            share = share / 2 + (0.5 if phase == algorithm.rpartition("+")[2] else 0.0)
        which = (line["seed"], line["fold"])
        self._shares[which] = share
        now, last = time.monotonic(), line["timesteps"] >= line["of"]
        if not last and now - self._told.get(which, -self._told_every) < self._told_every:
            return
        self._told[which] = now
        self._recorder.tell(
            Progressed,
            phase=phase,
            seed=line["seed"],
            fold=line["fold"],
            folds=len(self._run.folds),
            timesteps=line["timesteps"],
            of=line["of"],
            reward=line.get("rollout_reward"),
            seconds_left=self._seconds_left(),
            **{name: line.get(name) for name in MEASURED},
        )

    def _seconds_left(self) -> float | None:
        """Of the whole run, at the pace of this start so far; judging not counted."""
        done, everything = sum(self._shares.values()), sum(map(len, self._missing.values()))
        return None if done == 0 else round((time.monotonic() - self._began) * (everything - done) / done, 1)
