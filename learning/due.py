"""Whether a training is due: the pipeline's first step, before anything is trained.

Promise: a training begins only where its result can be news. Nothing changed since the newest package: not due. A configuration that was
never judged, or that trades now (a refit, decision 12), is due. One that was judged and does not trade is judged again a quarter later at
the earliest, and after its holdout was opened only on sessions that come after it (decision 20). Reads `input/features/manifest.json` below
the root, the log of trials and the registry; writes `output/due/due.json` and changes nothing else.
Failure: `DatasetError`, `TrialLogError` or `RegistryError`, one line; the pipeline ends there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

from learning import registry
from learning.configuration import Configuration, read_settings
from learning.dataset import data_sha256, newest_session
from learning.registry import Registered
from schema.training_dates import as_of
from trading_env.evaluation.trials import TrialLog

#: A quarter: each judgement of a configuration that does not trade is a trial, and four per year are enough to find one that came good
JUDGED_EVERY = timedelta(days=91)
#: Of a year, when the exchange was closed on the most weekdays
FEWEST_SESSIONS = 250


@dataclass(frozen=True)
class Due:
    """The answer, and why, in one sentence for the log of the job and for whoever asks why no model came."""

    due: bool
    reason: str


def due(
    configuration: Configuration, *, live_start: date, data: str, log: TrialLog, newest: Registered | None, trades_now: Registered | None
) -> Due:
    """`data`: the hash of the channel's files. `newest`: the group's last package, whatever its verdict; `trades_now`: the approved one."""
    if newest is not None and (newest.configuration, newest.data) == (configuration.identity, data):
        return Due(False, f"nothing changed: {newest.version} was made from the same data, settings and code")
    judged = configuration.trials_in(log)
    if not judged:
        return Due(True, "this configuration was never judged")
    if trades_now is not None and trades_now.configuration == configuration.identity:
        return Due(True, f"{trades_now.version} trades and is of this configuration: a refit on newer data")
    if log.trial(configuration.trial) is not None and (newest is None or newest.trial != configuration.trial):
        return Due(True, "this trial is logged and not the newest package: the same judgement again, no further look")
    last = max(_live_start(Configuration.of_entry(entry)) for entry in judged)
    again = _again(configuration, last=last, log=log)
    words = f"this configuration was judged with live_start {last} and does not trade; it is judged again from {again} on"
    return Due(live_start >= again, words)


def _again(configuration: Configuration, *, last: date, log: TrialLog) -> date:
    """The first live_start with which a configuration that does not trade is judged again."""
    opened: list[date] = [entry.sessions[-1].astype(object) for entry in configuration.openings_in(log)]
    renewed = timedelta(days=math.ceil(configuration.settings["training"]["holdout_sessions"] * 365 / FEWEST_SESSIONS) + 1)
    return max([last + JUDGED_EVERY, *(day + renewed for day in opened)])


def _live_start(configuration: Configuration) -> date:
    return date.fromisoformat(str(configuration.settings["training"]["live_start"]))


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    channel = options.root / "input" / "features"
    settings = as_of(read_settings(options.settings), newest_session(channel))
    answer = due(
        Configuration.of(settings),
        live_start=settings.training.dates.live_start,
        data=data_sha256(channel),
        log=registry.read_log(registry.trial_store(options.trials, region=settings.region)),
        newest=registry.newest(options.package_group, region=settings.region),
        trades_now=registry.incumbent(options.package_group, region=settings.region),
    )
    file = options.root / "output" / "due" / "due.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(answer)) + "\n", encoding="utf-8")
    print(f"{'due' if answer.due else 'not due'}: {answer.reason}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Say whether a training is due.")
    parser.add_argument("--root", type=Path, default=Path(os.environ.get("PROCESSING_ROOT", "/opt/ml/processing")))
    parser.add_argument("--trials", required=True, metavar="WHERE", help="the log of trials: a folder, or s3://bucket/prefix/")
    parser.add_argument("--package-group", required=True, metavar="NAME", help="where models are registered")
    parser.add_argument("--settings", default="settings.json", help="JSON, or a file beside this script")
    return parser.parse_args(arguments)
