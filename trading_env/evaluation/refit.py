"""The check of a weekly retrain of a configuration that passed the gate: a refit is no new trial, so it needs no new proof, only sanity.

Promise: passes what is the same configuration, finite, near what trades and not failing; one sentence with its numbers per rule. NaN never
passes.
Failure: `GateError` when the weights are not about the same sessions and names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_env.evaluation.checks import AT_KAPPA, Check, GateError, GateThresholds, GateVerdict, against_both
from trading_env.evaluation.gate import Behaviour, behaviour
from trading_env.evaluation.statistics import FloatArray


@dataclass(frozen=True, eq=False)
class RefitResult:
    """A configuration trained again. `weights` and `incumbent_weights` (K, A): targets on the same K latest sessions. `excess` (M,): daily
    d of the refit at the standard cost, latest last; `tracking_error`: deviation of a session's d in the configuration's logged trial.
    Each with `_at_kappa`: against equal weight at the policy's own kappa instead of daily.
    """

    trial: str
    configuration: str
    weights: FloatArray
    incumbent_weights: FloatArray
    excess: FloatArray
    excess_at_kappa: FloatArray
    tracking_error: float
    tracking_error_at_kappa: float
    behaviour: Behaviour

    def __post_init__(self) -> None:
        if self.weights.ndim != 2 or self.weights.shape != self.incumbent_weights.shape:
            raise GateError(f"weights must be (K, A) as the incumbent's {self.incumbent_weights.shape}, were {self.weights.shape}")
        if self.excess.shape != self.excess_at_kappa.shape:
            raise GateError(f"d must be of the same sessions, was {self.excess.shape} and {self.excess_at_kappa.shape} at kappa")


def refit_check(result: RefitResult, *, bar: GateThresholds | None = None) -> GateVerdict:
    """Judge a weekly retrain of a configuration that passed: it is the same configuration, sane, near what trades, and not failing."""
    rules = bar if bar is not None else GateThresholds()
    same = Check(
        "configuration",
        result.trial == result.configuration,
        f"it is trial {result.trial[:12]}, the configuration that passed is {result.configuration[:12]}",
    )
    parts = (result.weights, result.excess, result.excess_at_kappa)
    finite = bool(result.weights.size and all(np.isfinite(part).all() for part in parts))
    sane = Check("finite", finite, "every weight and every d is finite" if finite else "a weight or a d is missing or not finite")
    return GateVerdict(
        "refit check", (same, sane, distance(result, bar=rules), recent(result, bar=rules), *behaviour(result.behaviour, bar=rules))
    )


def distance(result: RefitResult, *, bar: GateThresholds) -> Check:
    """No session on which a week's new data turned the book over."""
    gaps = np.abs(result.weights - result.incumbent_weights).sum(axis=1)
    widest = float(gaps.max()) if len(gaps) else float("nan")
    sentence = (
        f"weights differ from the incumbent's by {widest:.3f} (L1) at most over {len(gaps)} sessions, {bar.max_distance:.3f} is allowed"
    )
    return Check("distance", widest <= bar.max_distance, sentence, {"incumbent_distance_l1": widest})


def recent(result: RefitResult, *, bar: GateThresholds) -> Check:
    """The latest sessions are not worse than chance makes of a configuration without an edge, against either equal weight.

    Each against its own tracking error: where a policy trades slowly, d against equal weight daily is mostly the pace's, and hides a
    failing view or fails a sound one.
    """
    sums, held = [], True
    numbers: dict[str, float] = {}
    for suffix, excess, error in (
        ("", result.excess, result.tracking_error),
        (AT_KAPPA, result.excess_at_kappa, result.tracking_error_at_kappa),
    ):
        last = excess[-bar.refit_sessions :]
        floor, total = -bar.refit_tracking_errors * error * float(np.sqrt(bar.refit_sessions)), float(last.sum())
        held = held and len(last) == bar.refit_sessions and error > 0 and total >= floor
        sums.append(f"{total * 1e4:+.0f} bp (not below {floor * 1e4:+.0f})")
        numbers |= {f"recent{suffix}_bp": total * 1e4, f"recent_floor{suffix}_bp": floor * 1e4}
    sentence = (
        f"over the last {len(result.excess[-bar.refit_sessions :])} sessions ({bar.refit_sessions} are needed) d adds up to "
        f"{against_both('{}', sums)}, {bar.refit_tracking_errors:g} tracking errors"
    )
    return Check("recent", held, sentence, numbers)
