"""The policies that `backtest` takes: by name, from an artifact, or a whole run's folder, walking forward over its folds.

Promise: a run's folder trades each session by the seeds' ensemble of the fold that judges it; sessions after the last fold's by the last,
sessions before the first trained one by the first, and `trained_on` says which sessions a model was trained on. A fold that not every
seed has trained is left out, and `left_out` says so. Failure: `ChosenPolicyError`, one line with the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from papertape.research import run_record
from papertape.research.reference_backtests import policy_of
from papertape.research.run_record import JudgedFold, RunRecord
from trading_env.data.features import FEATURE_HASH
from trading_env.data.observation import Observation
from trading_env.errors import PapertapeError
from trading_env.simulation.policy import FloatArray, NumpyPolicy, Policy, PolicyError, load_policy, make_policy, stack_policies

ALLOWED = "equal-weight, random:<seed>, a model.tar.gz, a folder with one or with policy.npz and policy.json, or a run's folder"


class ChosenPolicyError(PapertapeError, ValueError):
    """There is no such policy, or it cannot be read; the message says what is allowed."""


@dataclass(frozen=True, eq=False)
class WalkedRun:
    """A run's models, one per fold in the order of time. `sessions` (T,) is the calendar of the market that it is to trade."""

    name: str
    folder: Path
    seeds: tuple[int, ...]
    holdout: int | None
    folds: tuple[JudgedFold, ...]
    models: tuple[NumpyPolicy, ...]
    sessions: NDArray[np.datetime64]
    left_out: tuple[str, ...] = ()

    @property
    def kappa(self) -> float:
        return self.models[0].kappa

    def which(self, traded: NDArray[np.datetime64]) -> NDArray[np.int64]:
        """(n,) the place in `folds` of the one that trades each session."""
        begin = np.array([fold.test_start for fold in self.folds], dtype="datetime64[D]")
        return np.maximum(np.searchsorted(begin, traded.astype("datetime64[D]"), side="right") - 1, 0)

    def scores(self, observation: Observation) -> FloatArray:
        position = int(np.searchsorted(self.sessions, observation.as_of.astype(self.sessions.dtype))) + 1
        if position >= len(self.sessions):
            raise ChosenPolicyError(f"{self.name}: no session follows {observation.as_of} in these bars")
        return self.models[int(self.which(self.sessions[[position]])[0])].scores(observation)


def policy_called(name: str, *, sessions: NDArray[np.datetime64], feature_hash: str = FEATURE_HASH, slots: Sequence[str] = ()) -> Policy:
    """What `ALLOWED` lists; `sessions` (T,) are the rows' keys of the market that it is to trade, `feature_hash` that of its table, `slots`
    those of its rows, if any."""
    path = Path(name)
    try:
        if (path / run_record.NAME).is_file():
            return walked_run(path, sessions=sessions, feature_hash=feature_hash, slots=slots)
        if (path / "model.tar.gz").is_file():
            path = path / "model.tar.gz"
        if path.is_dir():
            return load_policy(path, expected_feature_hash=feature_hash, slots=slots)
        return policy_of(path.read_bytes(), feature_hash=feature_hash, slots=slots) if path.is_file() else make_policy(name)
    except PolicyError as error:
        if path.exists():
            raise ChosenPolicyError(f"--policy {name}: {error}") from error
        raise ChosenPolicyError(f"--policy must be {ALLOWED}; there is no {name}") from error


def walked_run(folder: Path, *, sessions: NDArray[np.datetime64], feature_hash: str = FEATURE_HASH, slots: Sequence[str] = ()) -> WalkedRun:
    """The models of the folds that every seed of the run has trained; raises ChosenPolicyError when there is none."""
    record = RunRecord.read(folder)
    missing = {
        fold.number: [seed for seed in record.seeds if not record.finished(folder, seed=seed, fold=fold.number)] for fold in record.folds
    }
    folds = tuple(fold for fold in record.folds if not missing[fold.number])
    if not folds:
        raise ChosenPolicyError(
            f"--policy {folder}: no fold is trained by all of its {len(record.seeds)} seeds; repeat the run to finish it"
        )
    begun = {number: seeds for number, seeds in missing.items() if 0 < len(seeds) < len(record.seeds)}
    return WalkedRun(
        name=folder.resolve().name,
        folder=folder,
        seeds=record.seeds,
        holdout=record.holdout,
        folds=folds,
        models=tuple(_ensemble(folder, record.seeds, fold, feature_hash=feature_hash, slots=slots) for fold in folds),
        sessions=sessions,
        left_out=tuple(
            f"fold {number} is left out, it is not trained by seed {', '.join(map(str, seeds))}" for number, seeds in begun.items()
        ),
    )


def _ensemble(folder: Path, seeds: Sequence[int], fold: JudgedFold, *, feature_hash: str, slots: Sequence[str]) -> NumpyPolicy:
    folders = [folder / "seeds" / str(seed) / f"fold-{fold.number}" for seed in seeds]
    return stack_policies([load_policy(one, expected_feature_hash=feature_hash, slots=slots) for one in folders])


def in_sample(policy: Policy, traded: NDArray[np.datetime64]) -> NDArray[np.bool_]:
    """(n,) whether the model that trades a session was trained on it, or on a later one."""
    days = traded.astype("datetime64[D]")
    if isinstance(policy, WalkedRun):
        ends = np.array([fold.train_end for fold in policy.folds], dtype="datetime64[D]")
        return np.asarray(days <= ends[policy.which(days)])
    if isinstance(policy, NumpyPolicy):
        return np.asarray(days <= np.datetime64(policy.card.train_end))
    return np.zeros(len(days), dtype=bool)


def said(policy: Policy, traded: NDArray[np.datetime64]) -> list[str]:
    """What a user should know of a model that trades these sessions (n,): which folder trades which of them, and what was trained on."""
    lines: list[str] = []
    if isinstance(policy, WalkedRun):
        lines += policy.left_out
        which = policy.which(traded)
        for place, fold in enumerate(policy.folds):
            own = traded[which == place]
            if len(own):
                lines.append(
                    f"{own[0]} to {own[-1]}: {policy.folder}/seeds/{_braced(policy.seeds)}/fold-{fold.number}, "
                    f"trained on {fold.train_start} to {fold.train_end}"
                )
    inside = in_sample(policy, traded)
    if inside.any():
        first = policy.folds[0] if isinstance(policy, WalkedRun) else None
        start, end = (first.train_start, first.train_end) if first else _trained(policy)
        after = traded[~inside]
        lines.append(
            f"in sample: this model was trained on {start} to {end}; its results there, {inside.sum()} of {len(traded)} sessions, are no "
            f"evidence{f', --from {after[0]} leaves them out' if len(after) else ''}"
        )
    if isinstance(policy, WalkedRun) and policy.holdout is not None:
        lines += _of_the_holdout(policy, traded)
    return lines


def _of_the_holdout(policy: WalkedRun, traded: NDArray[np.datetime64]) -> list[str]:
    for fold in policy.folds:
        if fold.number == policy.holdout and fold.test_end is not None:
            seen = traded[(traded >= np.datetime64(fold.test_start)) & (traded <= np.datetime64(fold.test_end))]
            if len(seen):
                return [f"holdout: {seen[0]} to {seen[-1]} are the run's; looked at here, they are no fresh evidence for choosing"]
    return []


def _trained(policy: Policy) -> tuple[str, str]:
    assert isinstance(policy, NumpyPolicy)
    return policy.card.train_start, policy.card.train_end


def _braced(seeds: Sequence[int]) -> str:
    return str(seeds[0]) if len(seeds) == 1 else f"{{{','.join(map(str, seeds))}}}"
