"""A training and judging small enough for a unit test: three invented names, two folds, two seeds, a thousand timesteps each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd

from learning import evaluation, packaging, training
from schema.settings import Settings, load
from trading_env.data.bars import ACTION_COLUMNS
from trading_env.data.features import FEATURE_HASH
from trading_env.data.market import Market, build_market, to_table

SYMBOLS = ("AAA", "BBB", "CCC")
DAYS = np.busday_offset(np.datetime64("2015-01-05", "D"), np.arange(640))
LIVE_START = str(np.busday_offset(DAYS[-1], 1))


def settings(**changes: dict[str, Any]) -> Settings:
    """The project's, cut down to what trains in a second; sections changed on top."""
    document = load(Path(__file__).parents[1] / "data" / "settings.toml").model_dump(mode="json")
    document["universe"] = {"symbols": SYMBOLS, "benchmark": "AAA"}
    document["risk"] |= {"max_weight": 1.0}
    document["training"] |= {
        "start": str(DAYS[0]),
        "test_start": str(DAYS[540]),
        "live_start": LIVE_START,
        "folds": 2,
        "holdout_sessions": 30,
        "seeds": [0, 1],
        "timesteps": 1000,
        "environments": 8,
        "episode_sessions": 21,
    }
    for section, values in changes.items():
        document[section] |= values
    return Settings.model_validate(document)


def market() -> Market:
    """Walks at random about waves out of step, so that there is something to learn, and a look ahead would show."""
    rng, angle = np.random.default_rng(0), 2 * np.pi * np.arange(len(DAYS)) / 40
    bars = []
    for number, symbol in enumerate(SYMBOLS):
        close = 50 * np.exp(np.cumsum(rng.normal(3e-4, 0.01, len(DAYS))) + 0.05 * np.sin(angle + 2 * np.pi * number / len(SYMBOLS)))
        prices = {"open": close * np.exp(rng.normal(0, 0.002, len(DAYS))), "high": close * 1.02, "low": close * 0.98, "close": close}
        bars.append(pd.DataFrame({"symbol": symbol, "session": DAYS.astype("datetime64[us]"), **prices, "volume": 1e6}))
    return build_market(pd.concat(bars), pd.DataFrame(columns=list(ACTION_COLUMNS)), symbols=SYMBOLS)


def write_channel(folder: Path) -> Path:
    """The features channel as the features job leaves it, in one file."""
    table, path = to_table(market()), folder / "year=all" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    table.to_parquet(path, index=False)
    entry = {"key": "year=all/part-0.parquet", "rows": len(table), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    manifest = {"feature_hash": FEATURE_HASH, "rows": len(table), "end": str(DAYS[-1]), "files": [entry]}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def train(channel: Path, model: Path, *arguments: str, chosen: Settings) -> None:
    """What SageMaker runs for one seed."""
    with patch.dict(os.environ, SM_CHANNEL_FEATURES=str(channel), SM_MODEL_DIR=str(model)):
        training.main([*arguments, "--settings", chosen.model_dump_json()])


def train_all(root: Path, *, chosen: Settings) -> Path:
    """Channel and trained seeds below `root`, laid out for evaluate.py."""
    channel = write_channel(root / "input" / "features")
    for seed in chosen.training.seeds:
        model = root / f"trained-{seed}"
        train(channel, model, "--seed", str(seed), chosen=chosen)
        pack(model, root / "input" / f"model-{seed}")
    return root


def pack(model: Path, target: Path) -> None:
    """model.tar.gz of a folder, as SageMaker makes it."""
    target.mkdir(parents=True, exist_ok=True)
    files = {path.relative_to(model).as_posix(): path.read_bytes() for path in model.rglob("*") if path.is_file()}
    (target / "model.tar.gz").write_bytes(packaging.archive(files))


def evaluate(root: Path, *, trials: str, chosen: Settings, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Run evaluate.py on `root` and return evaluation.json."""
    evaluation.main(["--root", str(root), "--trials", trials, "--settings", chosen.model_dump_json(), *arguments])
    document: dict[str, Any] = json.loads((root / "output" / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    return document
