"""Anchored walk-forward: which sessions a fold trains on, and which it is judged on.

A fold, its purge and the holdout are whole sessions; only what training needs at least is counted in rows of the market.

Promise: every judged session belongs to one fold, whose training ends at least `purge` sessions before the fold's first one; nothing of
the holdout, the last sessions before the live period, is trained on or judged by another fold. No embargo is needed, for no training
data follow test data. Failure: `WalkForwardError` when the sessions do not have room for what is asked, with the counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trading_env.data.market import Day
from trading_env.data.observation import Observation
from trading_env.errors import PapertapeError
from trading_env.simulation.policy import FloatArray, Policy

Sessions = NDArray[np.datetime64]
MIN_TRAINING = 252


class WalkForwardError(PapertapeError, ValueError):
    """The sessions cannot be cut into these folds; the message says how many there are and how many are needed."""


@dataclass(frozen=True)
class Fold:
    """Sessions, each bound included. `number` counts from 0 in the order of time; the last fold is the holdout's."""

    number: int
    train_start: np.datetime64
    train_end: np.datetime64
    test_start: np.datetime64
    test_end: np.datetime64
    holdout: bool = False


def split(
    sessions: Sessions, *, start: Day, test_start: Day, live_start: Day, folds: int, purge_sessions: int, holdout_sessions: int
) -> tuple[Fold, ...]:
    """`folds` + 1 folds over the sessions of the rows (T,) from `start` to before `live_start`, the holdout last."""
    first, split_at, live = np.array([start, test_start, live_start], dtype="datetime64[D]")
    days, counts = np.unique(sessions[(sessions >= first) & (sessions < live)].astype("datetime64[D]"), return_counts=True)
    at = int(np.searchsorted(days, split_at))
    judged = days[at : max(at, len(days) - holdout_sessions)]
    if counts[: max(at - purge_sessions, 0)].sum() < MIN_TRAINING or len(judged) < folds:
        raise WalkForwardError(
            f"{len(days)} sessions from {first} to before {live}: {at} lie before test_start {split_at}, {_needed(counts, purge_sessions)} "
            f"are needed; {len(judged)} lie between it and the {holdout_sessions} holdout ones, {folds} folds need at least one each"
        )
    tests = [*np.array_split(judged, folds), days[len(days) - holdout_sessions :]]
    return tuple(_fold(days, test, number=number, purge=purge_sessions, holdout=number == folds) for number, test in enumerate(tests))


def everything(sessions: Sessions, *, start: Day, live_start: Day) -> Fold:
    """The one fold that trains on every session from `start` to before `live_start`, and trades from `live_start` on.

    There is no purge: what it learned from ends before the first session that it trades.
    """
    first, live = np.array([start, live_start], dtype="datetime64[D]")
    rows = sessions[(sessions >= first) & (sessions < live)]
    if len(rows) < MIN_TRAINING:
        word = "sessions" if rows.dtype == np.dtype("datetime64[D]") else "slot bars"
        raise WalkForwardError(f"{len(rows)} {word} from {first} to before {live}, training needs {MIN_TRAINING}")
    return Fold(0, rows[0].astype("datetime64[D]"), rows[-1].astype("datetime64[D]"), live, live)


def _needed(counts: NDArray[np.int64], purge: int) -> int:
    """Sessions before the first test, of which each holds so many rows as they do on average."""
    return int(np.ceil(MIN_TRAINING / max(counts.mean() if len(counts) else 1.0, 1.0))) + purge


def _fold(days: Sessions, test: Sessions, *, number: int, purge: int, holdout: bool) -> Fold:
    end = int(np.searchsorted(days, test[0])) - purge - 1
    return Fold(number, days[0], days[end], test[0], test[-1], holdout)


class WalkForward:
    """One policy from several: each decision is made by the policy of the fold whose test holds the session that it trades.

    `policies` in the order of `folds`, all of one kappa; `sessions` (T,) are the keys of the market's rows. Raises WalkForwardError on a
    decision for a session of no fold.
    """

    def __init__(self, policies: Sequence[Policy], *, folds: Sequence[Fold], sessions: Sessions, name: str) -> None:
        if len(policies) != len(folds) or len({policy.kappa for policy in policies}) != 1:
            raise WalkForwardError(f"{len(folds)} folds need a policy each, all of one kappa, was {len(policies)}")
        self._policies, self._folds, self._sessions, self._name = policies, folds, sessions, name

    @property
    def name(self) -> str:
        return self._name

    @property
    def kappa(self) -> float:
        return self._policies[0].kappa

    def scores(self, observation: Observation) -> FloatArray:
        position = int(np.searchsorted(self._sessions, observation.as_of.astype(self._sessions.dtype))) + 1
        if position < len(self._sessions):
            traded = self._sessions[position].astype("datetime64[D]")
            for policy, fold in zip(self._policies, self._folds, strict=True):
                if fold.test_start <= traded <= fold.test_end:
                    return policy.scores(observation)
        raise WalkForwardError(f"no fold is judged on the session after {observation.as_of}")
