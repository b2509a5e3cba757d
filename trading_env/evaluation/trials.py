"""How often it was tried: an append-only, hash-chained log of trials and of holdouts opened, as pure data.

Promise: a trial is what its settings, feature table and code hash to, and is counted once however often it runs; its first result stands.
Every entry holds the hash of the one before, so an entry changed, dropped or moved is found when the log is read. A chain cannot see
its own end cut off: give `from_lines` the head that was written down elsewhere. Reading and writing files is the caller's.
Failure: `TrialLogError`, naming the line and what is wrong with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trading_env.errors import PapertapeError

FloatArray = NDArray[np.float64]
Days = NDArray[np.datetime64]
Kind = Literal["trial", "opening"]
GENESIS = "0" * 64
_FIELDS = {"kind", "trial_id", "recipe", "sessions", "excess", "previous", "hash"}
_AT_KAPPA = "excess_at_kappa"  # lines from before it was logged do without, and hash as they did
_CONFIGURATION = {"settings", "feature_hash", "code_hash"}


class TrialLogError(PapertapeError, ValueError):
    """The log is not what it says it is, or an entry does not belong in it."""


def trial_id(*, settings: Mapping[str, Any], feature_hash: str, code_hash: str) -> str:
    """sha256 of the three as canonical JSON; two settings that differ only in the order of keys are one trial.

    Raises TrialLogError when the settings are not JSON, or hold NaN or infinity.
    """
    return _sha256(_configuration(settings, feature_hash, code_hash))


def configuration_id(*, settings: Mapping[str, Any], feature_hash: str, code_hash: str) -> str:
    """`trial_id` without `training.live_start`: the same for a configuration that is trained or judged again on later data."""
    training = settings.get("training")
    if isinstance(training, Mapping):
        settings = {**settings, "training": {key: value for key, value in training.items() if key != "live_start"}}
    return trial_id(settings=settings, feature_hash=feature_hash, code_hash=code_hash)


@dataclass(frozen=True, eq=False)
class TrialEntry:
    """One line. `excess` (T,): daily log growth less that of equal weight rebalanced daily on `sessions` (T,), rising days, net of the
    standard cost; `excess_at_kappa` (T,): less that of equal weight rebalanced at the policy's own kappa, None in a line from before it
    was logged.

    A trial's `configuration` is its settings, feature_hash and code_hash; an opening has none, and its series are the holdout's.
    """

    kind: Kind
    trial_id: str
    configuration: Mapping[str, Any]
    sessions: Days
    excess: FloatArray
    previous: str
    excess_at_kappa: FloatArray | None = None

    @cached_property
    def hash(self) -> str:
        """sha256 of everything else in the line, the previous hash included."""
        return _sha256(self._body())

    @cached_property
    def configuration_id(self) -> str:
        """Of a trial: what it has in common with a judgement of the same on other data."""
        return configuration_id(**self.configuration)

    def to_line(self) -> str:
        """One line of JSON, without the newline; a double reads back as the same double."""
        return _canonical({**self._body(), "hash": self.hash})

    def _body(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "trial_id": self.trial_id,
            "recipe": dict(self.configuration),  # the key of every log so far, and what its hashes are over
            "sessions": self.sessions.astype(str).tolist(),
            "excess": self.excess.tolist(),
            "previous": self.previous,
            **({} if self.excess_at_kappa is None else {_AT_KAPPA: self.excess_at_kappa.tolist()}),
        }


@dataclass(frozen=True, eq=False)
class TrialLog:
    """Entries in the order they were made. Immutable: `append` and `open_holdout` return the longer log."""

    entries: tuple[TrialEntry, ...] = field(default=())

    @property
    def head(self) -> str:
        """Hash of the last entry; whoever writes it down can later prove that nothing before it changed or went."""
        return self.entries[-1].hash if self.entries else GENESIS

    @property
    def trials(self) -> tuple[TrialEntry, ...]:
        return tuple(entry for entry in self.entries if entry.kind == "trial")

    @property
    def openings(self) -> tuple[TrialEntry, ...]:
        return tuple(entry for entry in self.entries if entry.kind == "opening")

    def trial(self, identity: str) -> TrialEntry | None:
        return next((entry for entry in self.trials if entry.trial_id == identity), None)

    def opening(self, identity: str) -> TrialEntry | None:
        return next((entry for entry in self.openings if entry.trial_id == identity), None)

    def append(
        self,
        *,
        settings: Mapping[str, Any],
        feature_hash: str,
        code_hash: str,
        sessions: ArrayLike,
        excess: ArrayLike,
        excess_at_kappa: ArrayLike,
    ) -> TrialLog:
        """With the trial, or this same log when it holds it already: the first result stands, whatever a repeat gave.

        Raises TrialLogError when the settings are not JSON or a series is not one finite value for each of two or more rising sessions.
        """
        configuration = _configuration(settings, feature_hash, code_hash)
        identity = _sha256(configuration)
        return self if self.trial(identity) else self._with("trial", identity, configuration, sessions, excess, excess_at_kappa)

    def open_holdout(self, *, trial: str, sessions: ArrayLike, excess: ArrayLike, excess_at_kappa: ArrayLike) -> TrialLog:
        """With the opening of the holdout for a logged trial, or this same log when it was opened: it opens once.

        Raises TrialLogError when the trial is not in the log, or as `append` does.
        """
        if self.trial(trial) is None:
            raise TrialLogError(f"the holdout opens for a logged trial, {trial} is none of {len(self.trials)}")
        return self if self.opening(trial) else self._with("opening", trial, {}, sessions, excess, excess_at_kappa)

    def _with(
        self,
        kind: Kind,
        identity: str,
        configuration: Mapping[str, Any],
        sessions: ArrayLike,
        excess: ArrayLike,
        excess_at_kappa: ArrayLike,
    ) -> TrialLog:
        days, values = _checked_series(sessions, excess)
        slow = _checked_series(sessions, excess_at_kappa)[1]
        return TrialLog((*self.entries, TrialEntry(kind, identity, configuration, days, values, self.head, slow)))

    def columns(self, *, at_kappa: bool = False) -> tuple[Days, FloatArray]:
        """Sessions (T,) of any trial, rising, and (T, N) excess in the order of `trials`; NaN where a trial has no such session.

        `at_kappa`: against equal weight at the policy's own kappa. A trial logged without it has its d against equal weight daily there,
        for it was tried as well and must stay charged for.
        """
        trials = self.trials
        if not trials:
            return np.array([], dtype="datetime64[D]"), np.empty((0, 0))
        days = np.unique(np.concatenate([trial.sessions for trial in trials]))
        table = np.full((len(days), len(trials)), np.nan)
        for column, trial in enumerate(trials):
            own = trial.excess_at_kappa if at_kappa and trial.excess_at_kappa is not None else trial.excess
            table[np.searchsorted(days, trial.sessions), column] = own
        return days, table

    def verify(self) -> None:
        """Raises TrialLogError at the first entry that does not follow from those before it."""
        previous, above = GENESIS, set[tuple[Kind, str]]()
        for number, entry in enumerate(self.entries, start=1):
            if entry.previous != previous:
                raise TrialLogError(f"line {number}: follows {entry.previous[:12]}, but the line before it is {previous[:12]}")
            if entry.kind == "trial" and (set(entry.configuration) != _CONFIGURATION or _sha256(entry.configuration) != entry.trial_id):
                raise TrialLogError(f"line {number}: trial id {entry.trial_id[:12]} is not the hash of its configuration")
            if entry.kind == "opening" and ("trial", entry.trial_id) not in above:
                raise TrialLogError(f"line {number}: opens the holdout for trial {entry.trial_id[:12]}, which is not above it")
            if (entry.kind, entry.trial_id) in above:
                raise TrialLogError(f"line {number}: {entry.kind} {entry.trial_id[:12]} is in the log already")
            above.add((entry.kind, entry.trial_id))
            previous = entry.hash

    def to_lines(self) -> list[str]:
        return [entry.to_line() for entry in self.entries]

    @classmethod
    def from_lines(cls, lines: Iterable[str], *, head: str = GENESIS) -> Self:
        """The verified log; blank lines are skipped. `head`: a hash that must be in the chain, to notice a log cut short.

        Raises TrialLogError on a line that is not an entry, a hash that is wrong, or a head that is missing.
        """
        log = cls(tuple(_parsed(line, number) for number, line in enumerate(lines, start=1) if line.strip()))
        log.verify()
        if head != GENESIS and head not in {entry.hash for entry in log.entries}:
            raise TrialLogError(f"the log of {len(log.entries)} lines does not hold {head[:12]}, which it held before: it was cut short")
        return log


def _parsed(line: str, number: int) -> TrialEntry:
    try:
        raw = json.loads(line)
    except json.JSONDecodeError as error:
        raise TrialLogError(f"line {number}: not JSON ({error})") from error
    known = isinstance(raw, dict) and set(raw) - {_AT_KAPPA} == _FIELDS
    if not known or raw["kind"] not in ("trial", "opening") or not isinstance(raw["recipe"], dict):
        fields = ", ".join(sorted(_FIELDS))
        raise TrialLogError(f"line {number}: an entry has the fields {fields}, since later {_AT_KAPPA}, and no others")
    try:
        days, values = _checked_series(raw["sessions"], raw["excess"])
        slow = _checked_series(raw["sessions"], raw[_AT_KAPPA])[1] if _AT_KAPPA in raw else None
    except (TrialLogError, TypeError, ValueError) as error:
        raise TrialLogError(f"line {number}: {error}") from error
    entry = TrialEntry(raw["kind"], str(raw["trial_id"]), raw["recipe"], days, values, str(raw["previous"]), slow)
    if entry.hash != raw["hash"]:
        raise TrialLogError(f"line {number}: its hash is {entry.hash[:12]}, it says {str(raw['hash'])[:12]}: the line was changed")
    return entry


def _checked_series(sessions: ArrayLike, excess: ArrayLike) -> tuple[Days, FloatArray]:
    days, values = np.array(sessions, dtype="datetime64[D]"), np.array(excess, dtype=np.float64)
    if days.ndim != 1 or days.shape != values.shape or len(days) < 2 or not np.isfinite(values).all():
        raise TrialLogError(f"a series is one finite excess per session, two or more; was {values.shape} on {days.shape} sessions")
    if not (np.diff(days) > np.timedelta64(0, "D")).all():
        raise TrialLogError("sessions must rise from day to day")
    for array in (days, values):
        array.setflags(write=False)
    return days, values


def _configuration(settings: Mapping[str, Any], feature_hash: str, code_hash: str) -> dict[str, Any]:
    configuration = {"settings": dict(settings), "feature_hash": feature_hash, "code_hash": code_hash}
    try:
        # A copy through JSON: nobody changes a logged configuration afterwards, and it hashes as it will when read back
        return dict(json.loads(_canonical(configuration)))
    except (TypeError, ValueError) as error:
        raise TrialLogError(f"settings must be JSON without NaN or infinity: {error}") from error


def _canonical(value: Mapping[str, Any] | Sequence[Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _sha256(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()
