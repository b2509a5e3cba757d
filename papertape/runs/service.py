"""`python -m papertape.runs.service (--folder PATH | --bucket NAME)`: a warm worker for what somebody waits for.

Promise: a line of standard input is the id of a run to do, a backtest or a look at an upload; a JSON line of standard output says that it
is ready, and then of each run the state it was left in. Imports, the compiled step and the bundled bars' features are there before the
first run, and the process that reads the next upload has its libraries loaded. It ends with its input; a training is refused, for it
would keep the others waiting. Failure of a run is its line; the service goes on.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from papertape.runs.__main__ import add_store, store_of
from papertape.runs.backtests import traded
from papertape.runs.store import LocalRunStore, RunStore
from papertape.runs.studies import RunRefusedError, Studies
from papertape.runs.worker import Worker
from schema.exchange_time import iso
from schema.runs.request import BacktestOf, RunRequest
from trading_env.errors import PapertapeError
from trading_env.simulation.policy import SeededRandom


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m papertape.runs.service", description=__doc__.splitlines()[0] if __doc__ else None)
    add_store(parser)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for whoever holds the other end of the pipe
    with tempfile.TemporaryDirectory(prefix="papertape-runs-") as scratch:
        studies = Studies(settings=options.settings, scratch=Path(scratch), ahead=True)
        try:
            warm(studies, LocalRunStore(Path(scratch)))
            _say({"ready": True})
            store = store_of(options)
            worker = Worker(store, studies, scratch=Path(scratch))
            for line in sys.stdin:
                if line.strip():
                    _say(_done(line.strip(), store, worker))
        finally:
            studies.close()


def warm(studies: Studies, store: RunStore) -> None:
    """Do once what the first run would otherwise wait for; settings without bundled bars leave it to the first run."""
    bundled = {"source": "bundled"}
    request = RunRequest.model_validate(
        {"id": "warming-up", "kind": "inspect", "by": "", "requested_at": iso(datetime.now(UTC)), "bars": bundled}
    )
    try:
        study = studies.of(request, store)
    except PapertapeError as error:
        _say({"ready": False, "message": str(error)})
        return
    first, last = study.market.sessions[[-20, -1]]
    traded(study, SeededRandom(0, kappa=0.5), BacktestOf(policy="random:0", start=str(first), end=str(last)))


def _done(run_id: str, store: RunStore, worker: Worker) -> dict[str, object]:
    try:
        if store.request(run_id).kind == "train":
            raise RunRefusedError(f"run {run_id} is a training: start it on its own, python -m papertape.runs --run {run_id}")
        return {"run": run_id, "state": worker.do(run_id)}
    except (PapertapeError, OSError) as error:
        return {"run": run_id, "state": None, "message": str(error)}


def _say(document: dict[str, object]) -> None:
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    main()
