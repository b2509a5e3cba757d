"""`python -m papertape.runs --run ID (--folder PATH | --bucket NAME)`: do one run. SIGTERM asks it to stop where it can be resumed.

Status 0: finished, or stopped; 1: failed, which the run's state says, or could not be begun; 3: another worker does it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from papertape.runs.store import LocalRunStore, RunHeldError, RunStore
from papertape.runs.studies import Studies
from papertape.runs.worker import Worker
from trading_env.errors import PapertapeError

HELD = 3
DEPLOYED = Path(__file__).resolve().parents[2] / "settings.json"  # where `packaging.runs_archive` has them


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m papertape.runs", description="Do one run of the training room.")
    parser.add_argument("--run", required=True, metavar="ID")
    add_store(parser)
    parser.add_argument("--workers", type=int, help="processes at once; default: one per core")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="papertape-run-") as scratch:
            studies = Studies(settings=options.settings, scratch=Path(scratch))
            worker = Worker(store_of(options), studies, scratch=Path(scratch), workers=options.workers)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: worker.terminated.set())
            state = worker.do(options.run)
    except RunHeldError as error:
        print(error, file=sys.stderr)
        return HELD
    except (PapertapeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"run {options.run}: {state}")
    return 1 if state == "failed" else 0


def add_store(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--folder", type=Path, metavar="PATH", help="laid out as the processed bucket")
    where.add_argument("--bucket", metavar="NAME", help="the processed bucket")
    packed = DEPLOYED if DEPLOYED.is_file() else None
    said = "what requests differ from; default: those of the archive that was unpacked, else the research settings"
    parser.add_argument("--settings", type=Path, default=packed, metavar="FILE", help=said)


def store_of(options: argparse.Namespace) -> RunStore:
    if options.folder is not None:
        return LocalRunStore(options.folder)
    from papertape.runs.s3_store import s3_store

    return s3_store(options.bucket)


if __name__ == "__main__":
    sys.exit(main())
