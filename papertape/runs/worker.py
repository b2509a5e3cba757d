"""Do ONE run: train and judge, trade a backtest, or look at an upload, and say in the run's folder where it is.

Promise: a run ends finished, failed with one line, or stopped; whatever ends it otherwise leaves a folder from which the same call goes
on. A result is whole when its event is there. A second worker on the same run refuses and changes nothing.
Failure: `RunHeldError` or `RunStoreError` when the run cannot even be begun; every other failure is the run's state.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from learning.judged_books import JudgingStopped
from papertape.reports import evaluation_page
from papertape.research import evaluate, training_run
from papertape.runs.backtests import candles, traded
from papertape.runs.full_disk import REMEDY, is_full
from papertape.runs.inspection import looked_at
from papertape.runs.recorder import RunRecorder
from papertape.runs.store import RunHeldError, RunStore
from papertape.runs.studies import RunRefusedError, Studies, model_of
from papertape.runs.training import RunTraining
from schema.evaluation_document import Evaluation, read
from schema.runs.events import Inspected, Judged, ResultMade, RunState, StateChanged
from schema.runs.request import RunRequest, UploadedBars
from trading_env.errors import PapertapeError

JUDGED_AGAIN = 3  # times, when another judgement wrote to the log of trials meanwhile


class Worker:
    """Does runs of one store, one after the other. `clock`: the time now, aware, for people and for signs of life."""

    def __init__(
        self,
        store: RunStore,
        studies: Studies,
        *,
        scratch: Path,
        workers: int | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store, self._studies, self._scratch = store, studies, scratch
        self._workers, self._clock = workers or os.cpu_count() or 1, clock
        self.terminated = threading.Event()

    def do(self, run_id: str) -> RunState:
        """The state that the run was left in. A finished one is left as it is."""
        request = self._store.request(run_id)
        with self._store.hold(run_id):
            last = [event for event in self._store.events(run_id) if isinstance(event, StateChanged)][-1:]
            if last and last[0].state == "finished":
                return "finished"
            with RunRecorder(self._store, run_id, clock=self._clock) as recorder:
                return self._begun(request, recorder)

    def _begun(self, request: RunRequest, recorder: RunRecorder) -> RunState:
        recorder.tell(StateChanged, state="running")
        state: RunState = "failed"
        try:
            state, message = self._done(request, recorder), ""
        except RunHeldError:
            raise
        except Exception as error:  # noqa: BLE001 -- a run says why it ended, whatever it was
            message = said(error)
            if not isinstance(error, (PapertapeError, OSError)):
                traceback.print_exception(error)
            self._store.make_room(request.id)
            recorder.forgive()
        recorder.tell(StateChanged, state=state, message=message)
        return state

    def _done(self, request: RunRequest, recorder: RunRecorder) -> RunState:
        if self._stopping(request.id):
            return self._stopped(request.id)
        if request.kind == "inspect":
            return self._inspect(request, recorder)
        study = self._studies.of(request, self._store)
        if request.backtest is not None:
            with ExitStack() as within:
                policy = model_of(request.backtest.policy, study=study, store=self._store, scratch=self._scratch, within=within)
                document = traded(study, policy, request.backtest)
                self._result(request.id, "backtest.json", document, recorder)
                drawn = candles(study, document)
                if drawn is not None:
                    self._result(request.id, "candles.json", drawn, recorder)
            return "finished"
        with self._store.workspace(request.id) as workspace:
            return self._train(request, workspace, recorder)

    def _train(self, request: RunRequest, workspace: Path, recorder: RunRecorder) -> RunState:
        study = self._studies.of(request, self._store)
        prepared = training_run.prepare(study, workspace)
        keep = partial(self._store.keep, request.id, workspace)
        training = RunTraining(
            prepared,
            recorder=recorder,
            stopping=lambda: self._stopping(request.id),
            keep=keep,
            pace=self._store.pace,
            workers=self._workers,
        )
        whole = training.train()
        keep()
        if not whole:
            return self._stopped(request.id)
        try:
            evaluation = self._judged(prepared, stopping=lambda: self._stopping(request.id), command=f"training room, run {request.id}")
        except JudgingStopped:
            keep()
            return self._stopped(request.id)
        self._put(request.id, "evaluation.json", workspace / "evaluation.json", recorder)
        evaluation_page.write(evaluation, workspace / "page.html")
        self._put(request.id, "page.html", workspace / "page.html", recorder)
        self._put(request.id, "model.tar.gz", workspace / "model.tar.gz", recorder)
        table = prepared.seed(prepared.settings.training.seeds[0]) / f"fold-{prepared.folds[-1].number}" / "q-table.json"
        if table.is_file():  # of the first seed, as it would go on
            self._put(request.id, "q-table.json", table, recorder)
        recorder.tell(Judged, **verdict(read(evaluation)))
        keep()
        return "finished"

    def _judged(self, prepared: training_run.TrainingRun, *, stopping: Callable[[], bool], command: str) -> dict[str, Any]:
        """Raises `JudgingStopped` when it was asked for between two books."""
        seeds, trials = prepared.settings.training.seeds, self._store.trials
        for left in range(JUDGED_AGAIN, 0, -1):
            try:
                return evaluate.judge(prepared, seeds=seeds, trials=trials, command=command, stopping=stopping)
            except training_run.TrainingError as error:
                if left == 1 or "run this one again" not in str(error):
                    raise training_run.TrainingError(str(error).partition(" (its log is ")[0]) from error
        raise AssertionError("the loop returns or raises")

    def _inspect(self, request: RunRequest, recorder: RunRecorder) -> RunState:
        if not isinstance(request.bars, UploadedBars):
            raise RunRefusedError("bars: to inspect is for an upload, the bundled bars are known")
        recorder.tell(Inspected, **looked_at(request.bars, store=self._store, studies=self._studies))
        return "finished"

    def _result(self, run_id: str, name: str, document: Mapping[str, Any], recorder: RunRecorder) -> None:
        with tempfile.TemporaryDirectory(dir=self._scratch) as scratch:
            file = Path(scratch) / name
            file.write_text(json.dumps(document, separators=(",", ":"), allow_nan=False), encoding="utf-8")
            self._put(run_id, name, file, recorder)

    def _put(self, run_id: str, name: str, file: Path, recorder: RunRecorder) -> None:
        self._store.put(run_id, f"results/{name}", file)
        recorder.tell(ResultMade, name=name, bytes=file.stat().st_size)

    def _stopping(self, run_id: str) -> bool:
        return self.terminated.is_set() or self._store.stop_asked(run_id)

    def _stopped(self, run_id: str) -> RunState:
        self._store.stop_honoured(run_id)
        return "stopped"


def said(error: BaseException) -> str:
    """One line for people."""
    if is_full(error):
        return REMEDY
    line = " ".join(str(error).split())
    return line[:500] or type(error).__name__


def verdict(evaluation: Evaluation) -> dict[str, Any]:
    """The fields of `Judged`: the gate's refusals in its own words, and the agent's measures at the standard cost."""
    agent = evaluation.agent.at[evaluation_page.STANDARD]
    return {
        "passed": evaluation.gate.passed,
        "reasons": tuple(f"{check.name}: {check.sentence}" for check in evaluation.gate.refusals),
        "metrics": agent.model_dump(),
    }
