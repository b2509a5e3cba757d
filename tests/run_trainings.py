"""A training of seconds instead of minutes: a `train.py` of arithmetic that keeps the real one's contract, and a run that uses it.

`python -m tests.run_trainings FOLDER` trains in FOLDER until it is done, asked to stop by FOLDER/asked, or killed.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from papertape.research.training_run import TrainingRun
from papertape.runs.recorder import RunRecorder
from papertape.runs.store import LocalRunStore
from papertape.runs.training import RunTraining
from schema.settings import load
from trading_env.evaluation.walk_forward import Fold

RUN = "training-0001"
STUDIED = load(Path(__file__).parents[1] / "data" / "settings.toml")
SETTINGS = STUDIED.model_copy(update={"training": STUDIED.training.model_copy(update={"seeds": (0, 1), "algorithm": "direct"})})
ROLLOUTS = 8
SCRIPT = """
import argparse, json, os, sys, time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--settings")
parser.add_argument("--seed", type=int)
parser.add_argument("--fold", type=int, action="append")
parser.add_argument("--checkpoint", type=Path)
parser.add_argument("--stop-file", type=Path)
asked = parser.parse_args()
if (Path(os.environ["SM_CHANNEL_FEATURES"]) / "broken").exists():
    print("a warning\\ntrain.py: the bars are broken", file=sys.stderr)
    sys.exit(1)
for fold in asked.fold:
    folder = Path(os.environ["SM_MODEL_DIR"]) / f"fold-{fold}"
    kept = (asked.checkpoint or Path("/nonexistent")) / f"seed-{asked.seed}" / f"fold-{fold}.json"
    done, weight = json.loads(kept.read_text()) if kept.exists() else (0, float(asked.seed))
    while done < ROLLOUTS:
        time.sleep(0.03)
        done, weight = done + 1, weight * 1.5 + fold
        print(json.dumps({"seed": asked.seed, "fold": fold, "folds": 2, "timesteps": done * 100, "of": ROLLOUTS * 100, "phase": "direct",
                          "rollout_reward": weight, "steps_per_second": 1000, "excess": 0.1}), flush=True)
        if asked.checkpoint:
            kept.parent.mkdir(parents=True, exist_ok=True)
            new = kept.with_suffix(".new")
            new.write_text(json.dumps([done, weight]))
            new.replace(kept)
        if asked.stop_file and asked.stop_file.exists() and done < ROLLOUTS:
            print("train.py: stopped", file=sys.stderr)
            sys.exit(75)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights").write_text(repr(weight))
    (folder / "training.json").write_text(json.dumps({"configuration_of_one_seed": "c", "manifest_sha256": "m", "seed": asked.seed,
                                                      "fold": fold}))
"""


def prepared(folder: Path, *, resumable: bool = True) -> TrainingRun:
    """Two folds of two seeds; without `resumable`, by a `train.py` that knows no --stop-file."""
    code = folder / "code"
    (code / "learning").mkdir(parents=True, exist_ok=True)
    (code / "learning" / "training.py").write_text('"--stop-file"' if resumable else "")
    (code / "train.py").write_text(SCRIPT.replace("ROLLOUTS", str(ROLLOUTS)))
    day = np.datetime64("2020-01-02")
    folds = (Fold(0, day, day, day, day), Fold(1, day, day, day, day, holdout=True))
    run = TrainingRun(folder / "run", code, SETTINGS, folds, "m", "c")
    run.channel.mkdir(parents=True, exist_ok=True)
    run.settings_file.write_text("{}")
    return run


def train(folder: Path, *, resumable: bool = True, workers: int = 2, told_every: float = 0.0) -> bool:
    store = LocalRunStore(folder)
    store.pace = 0.02
    with RunRecorder(store, RUN, clock=lambda: datetime.now(UTC)) as recorder:
        return RunTraining(
            prepared(folder, resumable=resumable),
            recorder=recorder,
            stopping=(folder / "asked").exists,
            keep=lambda: None,
            pace=0.02,
            workers=workers,
            told_every=told_every,
        ).train()


def weights(folder: Path) -> dict[str, str]:
    found = sorted((folder / "run" / "seeds").glob("*/fold-*/weights"))
    return {str(path.relative_to(folder / "run" / "seeds")): path.read_text() for path in found}


if __name__ == "__main__":
    sys.exit(0 if train(Path(sys.argv[1])) else 75)
