"""Judge the trained seeds as one ensemble, out of sample, and pack it for serving: SageMaker's processing contract.

Reads `input/features` (the channel) and `input/model-<seed>/model.tar.gz` below the root; writes `output/evaluation/evaluation.json` and
`output/model/model.tar.gz`. The window is what lies after the training's end, up to `evaluation_end`: agent, equal weight and benchmark
trade it under the same rules, costs and cash, and `trading_env.evaluation.gate` gives the verdict. A refusal is a result, not an error:
the pipeline reads `gate.passed`. The archive is the same bytes for the same model and code. What cannot be computed is null, never NaN.
Failure: a channel or a seed that is not what the settings say ends the job with one line, and nothing is written.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import tarfile
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import package
from dataset import Dataset, DatasetError, read_channel
from inference import model_hash
from job import FOLDER, limits_of, read_settings, rules_of

import trading_env
from trading_env.evaluation import BacktestResult, backtest, buy_and_hold, gate
from trading_env.features import FEATURE_HASH
from trading_env.policy import EqualWeight, NumpyPolicy, load_policy, save_policy, stack_policies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from settings import Settings

# The serving image brings NumPy; nothing is downloaded when an endpoint starts cold.
SERVING_REQUIREMENTS = "numpy>=1.26\n"
METADATA_FORBIDDEN = re.compile(r"[^\w .:/=+\-@]")


def read_seed(archive: Path, *, seed: int, settings: Settings) -> tuple[NumpyPolicy, dict[str, Any]]:
    """One trained seed and its training record; raises DatasetError when it is another seed's or knows the judged window."""
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(archive, mode="r:gz") as tar:
            tar.extractall(scratch, filter="data")
        policy = load_policy(Path(scratch), expected_feature_hash=FEATURE_HASH)
        record = json.loads((Path(scratch) / "training.json").read_text(encoding="utf-8"))
    if policy.card.seeds != (seed,):
        raise DatasetError(f"{archive.parent.name}: must hold seed {seed}, was {policy.card.seeds}")
    if policy.card.train_end > settings.training.end.isoformat():
        raise DatasetError(f"{archive.parent.name}: must be trained until {settings.training.end}, was {policy.card.train_end}")
    return policy, record


class Judge:
    """Backtests over the window out of sample, all under the same terms."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        training = settings.training
        self.market = dataset.market.rows(training.start, training.evaluation_end)
        self.benchmark = settings.universe.benchmark
        self.limits = limits_of(settings)
        self.terms: dict[str, Any] = {
            "rules": rules_of(settings),
            "start": training.end + timedelta(days=1),
            "end": training.evaluation_end,
            "initial_cash": settings.portfolio.initial_cash,
        }

    def of(self, policy: NumpyPolicy | EqualWeight) -> BacktestResult:
        return backtest(self.market, policy, limits=self.limits, **self.terms)

    def hold(self) -> BacktestResult:
        return buy_and_hold(self.market, self.benchmark, **self.terms)


def evaluation(
    *, ensemble: NumpyPolicy, seeds: Sequence[NumpyPolicy], records: Sequence[dict[str, Any]], dataset: Dataset, settings: Settings
) -> dict[str, Any]:
    """Everything about the verdict that a report or the registry needs, without the model's hash."""
    judge = Judge(dataset, settings)
    agent, equal_weight, benchmark = judge.of(ensemble), judge.of(EqualWeight()), judge.hold()
    verdict = gate(agent, equal_weight=equal_weight, benchmark=benchmark)
    alone = {policy.card.seeds[0]: gate(judge.of(policy), equal_weight=equal_weight, benchmark=benchmark) for policy in seeds}
    card = ensemble.card
    seconds = max(record["seconds"] for record in records)
    timesteps = sum(record["timesteps"] for record in records)
    return {
        "schema": 1,
        "gate": {"passed": verdict.passed, "reasons": verdict.reasons, **verdict.numbers},
        "metrics": verdict.numbers,
        "kappa": card.kappa,
        "feature_hash": card.feature_hash,
        "code_version": card.code_version,
        "manifest_sha256": dataset.manifest_sha256,
        "windows": {
            "train_start": card.train_start,
            "train_end": card.train_end,
            "evaluation_start": str(agent.sessions[0]),
            "evaluation_end": str(agent.sessions[-1]),
            "live_start": settings.training.live_start.isoformat(),
        },
        "training": {
            "algorithm": records[0]["algorithm"],
            "timesteps": timesteps,
            "seeds": [record["seed"] for record in records],
            "seconds": seconds,  # the slowest seed: they run side by side
            "steps_per_second": round(sum(record["steps_per_second"] for record in records) / len(records), 1),  # of one seed
            "records": list(records),
        },
        "seeds": {str(seed): {"passed": one.passed, **one.numbers} for seed, one in alone.items()},
        "curves": {
            "sessions": [str(session) for session in agent.sessions],
            "initial_cash": agent.initial_cash,
            "agent": _rounded(agent),
            "equal_weight": _rounded(equal_weight),
            "benchmark": _rounded(benchmark),
        },
        "weights": {"symbols": list(agent.symbols), "mean": [round(float(share), 6) for share in agent.held.mean(axis=0)]},
    }


def summary(verdict: dict[str, Any]) -> str:
    """The verdict in the characters that a model package's metadata may hold, at most 256."""
    text = (
        f"{'passed' if verdict['passed'] else 'refused'}: excess {verdict['excess_bp_per_year']:+.1f} bp a year"
        f" lower bound {verdict['excess_lower_bp_per_year']:+.1f} turnover {verdict['turnover_per_day']:.4f} a day"
        f" sharpe {verdict['sharpe']:.2f} equal weight {verdict['equal_weight_sharpe']:.2f} sessions {verdict['sessions']:.0f}"
    )
    return METADATA_FORBIDDEN.sub(" ", text)[:256]


def model_archive(folder: Path) -> bytes:
    """policy.npz and policy.json of `folder` with the code that serves them."""
    domain = package.domain_files(Path(str(trading_env.__file__)).parents[1])
    return package.archive(
        {
            "policy.npz": (folder / "policy.npz").read_bytes(),
            "policy.json": (folder / "policy.json").read_bytes(),
            "code/inference.py": (FOLDER / "inference.py").read_bytes(),
            "code/requirements.txt": SERVING_REQUIREMENTS.encode(),
            **{f"code/{name}": content for name, content in domain.items()},
        }
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Judge the trained seeds and pack the ensemble.")
    parser.add_argument("--root", type=Path, default=Path(os.environ.get("PROCESSING_ROOT", "/opt/ml/processing")))
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--settings", default="settings.json", help="JSON, or a file beside this script")
    options = parser.parse_args(arguments)
    settings = read_settings(options.settings)
    wanted = tuple(options.seeds or settings.training.seeds)
    source = options.root / "input"
    dataset = read_channel(source / "features", symbols=settings.universe.symbols, live_start=settings.training.live_start)
    trained = [read_seed(source / f"model-{seed}" / "model.tar.gz", seed=seed, settings=settings) for seed in wanted]
    policies, records = [policy for policy, _ in trained], [record for _, record in trained]
    ensemble = stack_policies(policies)
    document = evaluation(ensemble=ensemble, seeds=policies, records=records, dataset=dataset, settings=settings)
    with tempfile.TemporaryDirectory() as scratch:
        save_policy(Path(scratch), ensemble.arrays, ensemble.card)
        document["model_hash"] = model_hash(Path(scratch))
        archive = model_archive(Path(scratch))
    document["metadata"] = {
        "model_hash": document["model_hash"],
        "kappa": str(document["kappa"]),
        "feature_hash": document["feature_hash"],
        "gate": summary(document["gate"]),
        "trained_until": document["windows"]["train_end"],
        "evaluated_until": document["windows"]["evaluation_end"],
    }
    _write(options.root / "output" / "model" / "model.tar.gz", archive)
    _write(options.root / "output" / "evaluation" / "evaluation.json", _json(document))
    print(json.dumps({"passed": document["gate"]["passed"], "model_hash": document["model_hash"]}))
    for reason in document["gate"]["reasons"]:
        print(reason)


def _rounded(result: BacktestResult) -> list[float]:
    return [round(float(dollars), 4) for dollars in result.equity]


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(_finite(document), indent=1, allow_nan=False) + "\n").encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, tarfile.TarError) as error:
        sys.exit(f"evaluate.py: {error}")
