"""What every rule of a gate gives back, the thresholds that it is judged by, and how both equal weights are told apart.

Promise: a verdict passes when it has checks and all of them hold; the numbers of a sentence are beside it, those against equal weight at
the policy's own kappa under names that end in `AT_KAPPA`. Failure: none of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trading_env.errors import PapertapeError
from trading_env.evaluation.statistics import FloatArray
from trading_env.evaluation.trials import TrialEntry

AT_KAPPA = "_at_kappa"


class GateError(PapertapeError, ValueError):
    """The evidence is not about one and the same thing; the message says which parts differ."""


@dataclass(frozen=True)
class GateThresholds:
    """Shares are of 1, floors a year, sessions and seeds counts. docs/decisions/0025-two-equal-weights.md: what they pass and refuse."""

    min_folds: int = 8
    min_sessions: int = 1500
    min_seeds: int = 10
    power: float = 0.80
    max_detectable_ir: float = 1.5
    significance: float = 0.05
    mean_block: int = 20
    draws: int = 5000
    seed: int = 0
    min_fold_share: float = 5 / 8
    min_seed_share: float = 8 / 10
    cscv_blocks: int = 16
    min_columns: int = 8
    min_common_share: float = 3 / 4
    max_loss_share: float = 0.25
    confidence: float = 0.90
    min_holdout_sessions: int = 252
    holdout_floor: float = -0.03
    min_incumbent_sessions: int = 63
    incumbent_floor: float = -0.02
    max_turnover: float = 0.10
    min_pace: float = 0.9
    min_effective_share: float = 1 / 3
    min_score_range: float = 1e-3
    refit_sessions: int = 63
    refit_tracking_errors: float = 2.0
    max_distance: float = 0.25


@dataclass(frozen=True)
class Check:
    """One rule's answer. `numbers`: what the sentence rests on, each name with its unit."""

    name: str
    passed: bool
    sentence: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GateVerdict:
    """`title` names the gate. Passed when every check did; no check at all is no pass."""

    title: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """One sentence per rule, the refusals first."""
        ordered = sorted(self.checks, key=lambda check: check.passed)
        return [f"{'passed' if check.passed else 'refused'}: {check.sentence}" for check in ordered]

    @property
    def numbers(self) -> dict[str, float]:
        return {name: value for check in self.checks for name, value in check.numbers.items()}


def logged_series(entry: TrialEntry) -> dict[str, FloatArray]:
    """d by the suffix of its numbers: "" against equal weight daily, AT_KAPPA against equal weight at the policy's own kappa, if logged."""
    return {"": entry.excess, **({} if entry.excess_at_kappa is None else {AT_KAPPA: entry.excess_at_kappa})}


def against_both(form: str, values: Sequence[object]) -> str:
    """Each value with the baseline that it is against."""
    baselines = ("against equal weight daily", "against equal weight at its own kappa")
    return " and ".join(f"{form.format(value)} {name}" for value, name in zip(values, baselines, strict=False))
