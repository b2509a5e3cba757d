"""Train one seed, fold by fold, under SageMaker's training contract (`SM_CHANNEL_FEATURES`, `SM_MODEL_DIR`).

Promise: the same seed, data, settings and code give the same bytes of each fold's `policy.npz` and `policy.json` on one machine; a fold
reads no row after its own training end. `training.json` beside them holds what may differ between runs (seconds, steps a second, the
learning curve), so it stands apart from the artifact; `q-table.json` is Q-learning's table for people. The algorithm is the settings', one
of `TRAINERS`. Failure: a `DatasetError`, a `WalkForwardError`, a validation error or the algorithm's own ends the job with its message;
the fold it met has no files then, those before it do. With a checkpoint a fold may be stopped between two rollouts, by `Stopped`, and the
same command goes on with it to the bytes of an unbroken run; folds that are trained stay.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from learning import forecast
from learning.algorithms import direct, ppo, q_learning
from learning.algorithms.checkpoints import CheckpointFile, Stopped
from learning.algorithms.q_table import q_table
from learning.configuration import Configuration, folds_of, purge_rows, read_settings
from learning.dataset import Dataset, newest_session, read_channel
from schema.feature_table import rows_said
from schema.training_dates import as_of
from trading_env.data.features import CONTEXT, SCHEMA_VERSION
from trading_env.data.sentiment import TABLES
from trading_env.evaluation.walk_forward import everything
from trading_env.simulation.policy import PolicyCard, load_policy, save_policy
from trading_env.simulation.q_table import ARCHITECTURE as TABLES_OF_VALUES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from learning.algorithms.trainer import Trainer
    from schema.settings import Algorithm, Settings
    from trading_env.evaluation.walk_forward import Fold

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on
TRAINERS: Mapping[Algorithm, Trainer] = {
    "ppo": ppo.fit,
    "direct": direct.fit,
    "direct+ppo": ppo.fit_after_direct,
    "q-learning": q_learning.fit,
}


@dataclass(frozen=True)
class Job:
    """What one training run is asked for: a seed, its folds by number (none: all), and where TensorBoard's files go, if anywhere.

    The settings' timesteps are those asked for. `everything`: one fold, of all sessions before live_start, instead of the walk-forward's.
    `checkpoint`: the folder from which a fold that was begun is gone on with; `stop_file`: while it is there, nothing is trained.
    """

    seed: int
    settings: Settings
    folds: tuple[int, ...] = ()
    tensorboard: Path | None = None
    everything: bool = False
    checkpoint: Path | None = None
    stop_file: Path | None = None

    def stops(self) -> bool:
        """Whether somebody asked it to stop."""
        return self.stop_file is not None and self.stop_file.exists()

    def checkpoint_of(self, fold: Fold) -> Path:
        assert self.checkpoint is not None
        return self.checkpoint / f"seed-{self.seed}" / f"fold-{fold.number}.npz"

    def chosen(self, folds: Sequence[Fold]) -> list[Fold]:
        """The folds to train; raises ValueError on a number that is none of them."""
        wrong = [number for number in self.folds if not 0 <= number < len(folds)]
        if wrong:
            raise ValueError(f"--fold must lie in 0 to {len(folds) - 1}, the last being the holdout's, was {wrong[0]}")
        return [fold for fold in folds if not self.folds or fold.number in self.folds]


def main(arguments: Sequence[str] | None = None) -> None:
    job, channel = _job(arguments), Path(os.environ["SM_CHANNEL_FEATURES"])
    settings = as_of(job.settings, newest_session(channel))
    job = replace(job, settings=settings)
    live_start, table = settings.training.dates.live_start, TABLES[settings.features.sentiment]
    dataset = read_channel(channel, symbols=settings.universe.symbols, live_start=live_start, table=table, rows=rows_said(settings))
    sessions, dates = dataset.market.sessions, settings.training.dates
    folds = (everything(sessions, start=dates.start, live_start=dates.live_start),) if job.everything else folds_of(sessions, settings)
    for fold in job.chosen(folds):
        folder = Path(os.environ["SM_MODEL_DIR"]) / f"fold-{fold.number}"
        if job.checkpoint and trained_before(job, fold, dataset=dataset, folder=folder):
            continue
        if job.stops():
            raise Stopped(f"stopped before fold {fold.number}; train again to go on with it")
        train_fold(job, fold, dataset=dataset, folder=folder)


def train_fold(job: Job, fold: Fold, *, dataset: Dataset, folder: Path) -> None:
    """Train the seed on the fold's training rows and write its artifact and training.json into `folder`; a JSON line per rollout."""
    settings, configuration = job.settings, Configuration.of(job.settings)
    market = dataset.market.rows(fold.train_start, fold.train_end)
    which = {"seed": job.seed, "fold": fold.number, "folds": settings.training.folds + 1}
    began = time.monotonic()
    forecasts = settings.features.forecast
    trees = forecast.fit(market).arrays if forecasts == "trees" else {}
    # The policy trains on forecasts of trees that never saw the session, and is served by those that saw them all
    seen = forecast.with_column(market, forecast.cross_fit(market, purge=purge_rows(settings))) if trees else market
    kept = CheckpointFile(job.checkpoint_of(fold)) if job.checkpoint else None
    fitted = TRAINERS[settings.training.algorithm](
        seen,
        settings=settings,
        seed=job.seed,
        timesteps=settings.training.timesteps,
        on_rollout=lambda line: print(json.dumps({**which, **line}), flush=True),
        tensorboard=job.tensorboard / f"seed-{job.seed}" / f"fold-{fold.number}" if job.tensorboard else None,
        checkpoint=kept,
        stop=job.stops if job.stop_file else None,
    )
    seconds = time.monotonic() - began + fitted.seconds
    card = PolicyCard(
        features=TABLES[settings.features.sentiment].features,
        context=tuple(feature.name for feature in CONTEXT),
        feature_hash=dataset.manifest["feature_hash"],
        schema_version=SCHEMA_VERSION,
        kappa=settings.portfolio.kappa,
        trained_on=market.symbols,
        train_start=str(market.days[0]),
        train_end=str(market.days[-1]),
        seeds=(job.seed,),
        code_version=configuration.code_hash,
        metrics={"timesteps": fitted.timesteps},
        architecture=fitted.architecture,
        forecast=forecasts,
        slots=settings.row_slots,
    )
    save_policy(folder, {**fitted.arrays, **trees}, card)
    if card.architecture == TABLES_OF_VALUES:
        table = json.dumps(q_table(load_policy(folder)), allow_nan=False)
        (folder / "q-table.json").write_text(table + "\n", encoding="utf-8")
    record = {
        "algorithm": settings.training.algorithm_name,
        "seed": job.seed,
        "fold": fold.number,
        "configuration_of_one_seed": configuration.of_one_seed,
        "timesteps_asked": settings.training.timesteps,
        "timesteps": fitted.timesteps,
        "seconds": round(seconds, 3),
        "steps_per_second": round(fitted.timesteps / seconds, 1),
        "manifest_sha256": dataset.manifest_sha256,
        "sessions": int(market.ends_session.sum()),
        "curve": fitted.curve,
    }
    (folder / "training.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if kept is not None:
        kept.clear()


def trained_before(job: Job, fold: Fold, *, dataset: Dataset, folder: Path) -> bool:
    """Whether `folder` holds the very training that is asked for: its record is the last file that one writes."""
    try:
        record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    asked = (Configuration.of(job.settings).of_one_seed, dataset.manifest_sha256, job.seed, fold.number)
    return asked == tuple(record.get(name) for name in ("configuration_of_one_seed", "manifest_sha256", "seed", "fold"))


def _job(arguments: Sequence[str] | None) -> Job:
    parser = argparse.ArgumentParser(description="Train one seed, all its folds or those named.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--fold", type=int, action="append", default=[], help="number of a fold, repeatable; the last is the holdout's")
    parser.add_argument("--everything", action="store_true", help="one fold of all sessions before live_start, and none to judge on")
    parser.add_argument("--settings", default="settings.json", help="JSON, or a file beside this script")
    parser.add_argument("--timesteps", type=int, help="a fold; default: the settings'")
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="keep each rollout here, go on from it, keep finished folds")
    parser.add_argument("--stop-file", type=Path, metavar="PATH", help=f"end with status {STOPPED} after the rollout in which it appears")
    parser.add_argument("--tensorboard", type=Path, metavar="FOLDER", help="write TensorBoard's files below it")
    options = parser.parse_args(arguments)
    if options.stop_file is not None and options.checkpoint is None:
        parser.error("--stop-file needs --checkpoint, or there is nothing to go on from")
    settings = read_settings(options.settings)
    if options.timesteps is not None:
        settings = type(settings).model_validate(
            {**settings.model_dump(), "training": {**settings.training.model_dump(), "timesteps": options.timesteps}}
        )
    return Job(
        seed=options.seed,
        settings=settings,
        folds=tuple(options.fold),
        tensorboard=options.tensorboard,
        everything=options.everything,
        checkpoint=options.checkpoint,
        stop_file=options.stop_file,
    )
