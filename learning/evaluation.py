"""Judge the trained seeds, fold by fold and as one ensemble, and pack the model for serving: SageMaker's processing contract.

Reads `input/features` (the channel) and `input/model-<seed>/model.tar.gz` below the root, and the log of trials; writes the log's new
entries, `output/evaluation/evaluation.json` (document.py) and `output/model/model.tar.gz`, the ensemble of the holdout's fold. A
refusal is a result, not an error: the pipeline reads `gate.passed`. The archive is the same bytes for the same model and code.
Failure: a channel, a seed, a log or a registry that is not what it must be ends the job with one line; no output is written then, but
an entry of the log stays, for the trial was made. Asked to stop, it raises `JudgingStopped` before anything is logged.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learning import packaging, registry
from learning.configuration import Configuration, folds_of, read_settings
from learning.dataset import DatasetError, newest_session, read_channel
from learning.document import Evaluated, document, to_json
from learning.judged_books import STOPPED, BookKeeper
from learning.judging import Backtester, Judgement, Trained, books_of, judge, judge_refit, proof_of
from learning.serving import model_hash
from schema.feature_table import rows_said
from schema.training_dates import as_of
from trading_env.data.sentiment import TABLES
from trading_env.simulation.policy import NumpyPolicy, load_policy, save_policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from learning.judging import Books
    from learning.registry import Registered, TrialStore
    from schema.settings import Settings
    from trading_env.evaluation.trials import TrialLog
    from trading_env.evaluation.walk_forward import Fold

# The serving image brings NumPy; nothing is downloaded when an endpoint starts cold.
SERVING_REQUIREMENTS = "numpy>=1.26\n"

Seed = tuple[tuple[NumpyPolicy, ...], tuple[dict[str, Any], ...]]


def read_seed(
    archive: Path, *, seed: int, folds: Sequence[Fold], feature_hash: str = TABLES["none"].hash, slots: Sequence[str] = ()
) -> Seed:
    """Policies and training records of one seed, fold by fold. Raises DatasetError when another's, or trained on a judged session."""
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(archive, mode="r:gz") as tar:
            tar.extractall(scratch, filter="data")
        found = [
            _read_fold(Path(scratch) / f"fold-{fold.number}", seed=seed, fold=fold, feature_hash=feature_hash, slots=slots)
            for fold in folds
        ]
    return tuple(policy for policy, _ in found), tuple(record for _, record in found)


def _read_fold(folder: Path, *, seed: int, fold: Fold, feature_hash: str, slots: Sequence[str]) -> tuple[NumpyPolicy, dict[str, Any]]:
    what = f"model-{seed}, {folder.name}"
    if not folder.is_dir():
        raise DatasetError(f"{what}: is not there; every fold must be trained, the holdout's too")
    policy = load_policy(folder, expected_feature_hash=feature_hash, slots=slots)
    if policy.card.seeds != (seed,):
        raise DatasetError(f"{what}: must hold seed {seed}, was {policy.card.seeds}")
    if policy.card.train_end != str(fold.train_end):
        raise DatasetError(f"{what}: must be trained until {fold.train_end}, was {policy.card.train_end}")
    return policy, json.loads((folder / "training.json").read_text(encoding="utf-8"))


def as_trained(settings: Settings, *, seeds: Sequence[int], records: Sequence[Mapping[str, Any]]) -> Settings:
    """The settings with the seeds that are judged and the timesteps that they were trained for: these make the trial.

    Raises DatasetError when the models were trained under anything else than these settings and this code.
    """
    timesteps = sorted({record["timesteps_asked"] for record in records})
    if len(timesteps) > 1:
        raise DatasetError(f"every seed and fold must be trained for the same timesteps, were {', '.join(map(str, timesteps))}")
    training = {**settings.training.model_dump(), "seeds": tuple(seeds), "timesteps": timesteps[0]}
    made = type(settings).model_validate({**settings.model_dump(), "training": training})
    configuration = Configuration.of(made).of_one_seed
    for record in records:
        if record["configuration_of_one_seed"] != configuration:
            raise DatasetError(f"model-{record['seed']}, fold-{record['fold']}: was trained under other settings or code; train it again")
    return made


def verdict_of(
    trained: Trained,
    books: Books,
    backtester: Backtester,
    *,
    configuration: Configuration,
    store: TrialStore,
    trades_now: Registered | None,
    region: str,
) -> Judgement:
    """The refit check when what trades is of this configuration and its proof is in the log, else the gate."""
    log = registry.read_log(store)
    proof = proof_of(configuration, log)
    if trades_now is not None and trades_now.configuration == configuration.identity and proof is not None:
        policy = registry.fetch_policy(trades_now.model, region=region)
        return judge_refit(trained, backtester, configuration=configuration, log=log, proof=proof, trades_now=policy)
    written = log

    def keep(longer: TrialLog) -> None:
        nonlocal written
        registry.write_log(store, longer, after=written)
        written = longer

    incumbent = trades_now.trial if trades_now is not None else None
    return judge(trained, books, backtester, configuration=configuration, log=log, keep=keep, incumbent_trial=incumbent)


def model_archive(folder: Path) -> bytes:
    """policy.npz and policy.json of `folder` with the code that serves them."""
    return packaging.archive(
        {
            "policy.npz": (folder / "policy.npz").read_bytes(),
            "policy.json": (folder / "policy.json").read_bytes(),
            "code/requirements.txt": SERVING_REQUIREMENTS.encode(),
            **{f"code/{name}": content for name, content in packaging.serving_files().items()},
        }
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    source = options.root / "input"
    requested = as_of(read_settings(options.settings), newest_session(source / "features"))
    seeds = tuple(options.seeds or requested.training.seeds)
    live_start, table = requested.training.dates.live_start, TABLES[requested.features.sentiment]
    dataset = read_channel(
        source / "features", symbols=requested.universe.symbols, live_start=live_start, table=table, rows=rows_said(requested)
    )
    folds = folds_of(dataset.market.sessions, requested)
    read = [
        read_seed(source / f"model-{seed}" / "model.tar.gz", seed=seed, folds=folds, feature_hash=table.hash, slots=requested.row_slots)
        for seed in seeds
    ]
    trained = Trained(seeds, folds, tuple(policies for policies, _ in read), tuple(records for _, records in read))
    settings = as_trained(requested, seeds=seeds, records=[record for records in trained.records for record in records])
    configuration = Configuration.of(settings)
    about = [source / "features" / "manifest.json", *(source / f"model-{seed}" / "model.tar.gz" for seed in seeds), configuration.trial]
    keeper = BookKeeper(options.checkpoint, stop_file=options.stop_file, about=about)
    backtester = Backtester(dataset.market, settings, keeper=keeper)
    store = registry.trial_store(options.trials, region=settings.region)
    trades_now = registry.incumbent(options.package_group, region=settings.region) if options.package_group else None

    books = books_of(trained, backtester)
    keeper.check()
    judgement = verdict_of(
        trained, books, backtester, configuration=configuration, store=store, trades_now=trades_now, region=settings.region
    )
    deployed = trained.ensemble(trained.holdout.number)
    with tempfile.TemporaryDirectory() as scratch:
        save_policy(Path(scratch), deployed.arrays, deployed.card)
        version, archive = model_hash(Path(scratch)), model_archive(Path(scratch))
    body = document(Evaluated(settings, configuration, dataset, trained, books, judgement, deployed, version, options.command))
    _write(options.root / "output" / "model" / "model.tar.gz", archive)
    _write(options.root / "output" / "evaluation" / "evaluation.json", to_json(body))
    print(json.dumps({"passed": judgement.verdict.passed, "model_hash": version, "trial": judgement.trial}))
    print(body["answer"])
    for reason in judgement.verdict.reasons:
        print(reason)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Judge the trained seeds and pack the ensemble.")
    parser.add_argument("--root", type=Path, default=Path(os.environ.get("PROCESSING_ROOT", "/opt/ml/processing")))
    parser.add_argument("--trials", required=True, metavar="WHERE", help="the log of trials: a folder, or s3://bucket/prefix/")
    parser.add_argument("--package-group", metavar="NAME", help="its newest approved package trades now; without it equal weight does")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--settings", default="settings.json", help="JSON, or a file beside this script")
    parser.add_argument("--command", default="", metavar="TEXT", help="what the reader of the evaluation would type to repeat it")
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="where books are kept, to go on with after a stop")
    parser.add_argument("--stop-file", type=Path, metavar="PATH", help=f"end with status {STOPPED} before the next book once it is there")
    options = parser.parse_args(arguments)
    options.command = options.command or shlex.join(["evaluate.py", *(sys.argv[1:] if arguments is None else arguments)])
    return options


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
