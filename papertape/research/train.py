"""`papertape train`: one or more seeds, of the holdout's fold or of all, with their progress.

Promise: what is trained is what `evaluate` and SageMaker train, byte for byte; or, with `--until`, one model on every session up to then.
It is in the run's folder, where `backtest --policy` takes it from. Failure: as `training_run`.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from papertape.research import training_run
from papertape.research.evaluate import shown
from papertape.research.study import ResearchError, Study
from trading_env.evaluation.walk_forward import Fold


def run(study: Study, *, folder: Path, all_folds: bool, fresh: bool, tensorboard: bool, console: Console) -> None:
    """Train; say where the models are and what to do with them."""
    if study.everything and all_folds:
        raise ResearchError("--until trains one model on all that lies before it: leave --all-folds out")
    study.folds()  # bars without room for them are refused before a word is said
    for line in (*study.notes, *study.dates):
        console.print(line)
    prepared = training_run.prepare(study, folder)
    folds = prepared.folds if all_folds else prepared.folds[-1:]
    for fold in folds:
        tested = f"nothing from {fold.test_start} on is read" if study.everything else f"test {fold.test_start} to {fold.test_end}"
        console.print(f"fold {fold.number}: training {fold.train_start} to {fold.train_end}, {tested}")
    training_run.train(prepared, folds=[fold.number for fold in folds], console=console, fresh=fresh, tensorboard=tensorboard)
    for seed in study.settings.training.seeds:
        made = f"{shown(prepared.seed(seed))}/fold-{folds[0].number}"
        console.print(f"seed {seed}: {made}{f' to fold-{folds[-1].number}' if len(folds) > 1 else ''}", highlight=False, soft_wrap=True)
    console.print(next_command(study, folds[0], folder=folder), highlight=False, soft_wrap=True)
    if tensorboard:
        console.print(f"curves: tensorboard --logdir {shown(folder / 'tensorboard')}", highlight=False, soft_wrap=True)


def next_command(study: Study, fold: Fold, *, folder: Path) -> str:
    """The backtest of what was trained, out of sample."""
    after = study.market.days[study.market.days >= fold.test_start]
    if len(after):
        return f"try it: papertape backtest{study.arguments} --policy {shown(folder)} --from {after[0]}"
    return f"the bars end with the training: trade longer ones by papertape backtest --bars FILE --policy {shown(folder)}"
