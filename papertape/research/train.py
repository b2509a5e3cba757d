"""`papertape train`: one or more seeds, of the holdout's fold or of all, with their progress.

Promise: what is trained is what `evaluate` and SageMaker train, byte for byte; it is in the run's folder, where `backtest --policy` takes
it from. Failure: as `training_run`.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from papertape.research import training_run
from papertape.research.evaluate import shown
from papertape.research.study import Study


def run(study: Study, *, folder: Path, all_folds: bool, fresh: bool, tensorboard: bool, console: Console) -> None:
    """Train; say where the models are and what to do with them."""
    for line in study.notes:
        console.print(line)
    prepared = training_run.prepare(study, folder)
    folds = prepared.folds if all_folds else prepared.folds[-1:]
    for fold in folds:
        console.print(f"fold {fold.number}: training {fold.train_start} to {fold.train_end}, test {fold.test_start} to {fold.test_end}")
    training_run.train(prepared, folds=[fold.number for fold in folds], console=console, fresh=fresh, tensorboard=tensorboard)
    for seed in study.settings.training.seeds:
        made = f"{shown(prepared.seed(seed))}/fold-{folds[0].number}"
        console.print(f"seed {seed}: {made}{f' to fold-{folds[-1].number}' if len(folds) > 1 else ''}", highlight=False, soft_wrap=True)
    newest = prepared.seed(study.settings.training.seeds[0]) / f"fold-{folds[-1].number}"
    console.print(f"try it: papertape backtest{study.arguments} --policy {shown(newest)}", highlight=False, soft_wrap=True)
    if tensorboard:
        console.print(f"curves: tensorboard --logdir {shown(folder / 'tensorboard')}", highlight=False, soft_wrap=True)
