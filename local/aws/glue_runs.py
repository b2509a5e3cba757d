"""A Glue job's run, carried out: the real script in the app's Python, with its arguments, on the pandas engine."""

# ruff: noqa: SLF001, ARG001  (ministack's helpers have no public names; its signature is kept)
# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from ministack.services import eventbridge

from local.aws.sagemaker_pipeline import CHILD, StepError, Storage
from local.aws.sagemaker_records import client

Record = dict[str, Any]


def run_job(run: Record, job: Record, arguments: dict[str, str], script: str) -> None:
    """Run a Glue job's script in the app's Python; its exit code is the run's state."""
    storage = Storage(client("s3"))
    folder = Path(os.environ["PAPERTAPE_RUN_DIR"]) / "glue" / run["Id"]
    arguments = {**arguments, "--JOB_NAME": run["JobName"], "--JOB_RUN_ID": run["Id"], "--ENGINE": "pandas"}
    try:
        storage.download(script, folder)
        for archive in filter(None, arguments.get("--extra-py-files", "").split(",")):
            with zipfile.ZipFile(io.BytesIO(storage.read(archive))) as file:
                file.extractall(folder / "lib")
        child = subprocess.run(
            [
                os.environ["PAPERTAPE_PYTHON"],
                str(CHILD),
                str(folder / script.rsplit("/", 1)[-1]),
                *(v for pair in arguments.items() for v in pair),
            ],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder / "lib") if "--extra-py-files" in arguments else os.environ["PAPERTAPE_ROOT"]},
            stdin=_held_open(),
            capture_output=True,
            text=True,
            check=False,
        )
        sys.stderr.write(child.stdout + child.stderr)
        tail = " | ".join(line for line in child.stderr.splitlines()[-5:] if line)
        state, message = ("SUCCEEDED", "") if child.returncode == 0 else ("FAILED", f"exit code {child.returncode}: {tail}")
    except (StepError, OSError, zipfile.BadZipFile) as error:
        state, message = "FAILED", str(error)
    shutil.rmtree(folder, ignore_errors=True)
    run |= {"JobRunState": state, "ErrorMessage": message[:2000]}
    detail = {
        "jobName": run["JobName"],
        "jobRunId": run["Id"],
        "state": state,
        "severity": "ERROR" if message else "INFO",
        "message": message,
    }
    entry = {"Source": "aws.glue", "DetailType": "Glue Job State Change", "Detail": json.dumps(detail)}
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)


_pipes: list[int] = []


def _held_open() -> int:
    """The read end of a pipe whose write end this process keeps, so that a child notices its end."""
    if not _pipes:
        _pipes.extend(os.pipe())
    return _pipes[0]
