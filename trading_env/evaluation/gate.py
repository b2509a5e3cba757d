"""The bar a configuration clears before its models may trade; refit.py has the shorter one for each weekly refit of one that did.

Promise: every rule is judged on d, daily log growth less that of equal weight, net of cost, and gives one sentence with its numbers;
all must hold. Equal weight is two baselines: rebalanced daily, and at the policy's own kappa, for what slow trading alone saves in costs
or gains by drifting is no skill. The logged d of a trial counts, not what a later run of it made, and evidence that is missing, short or
NaN refuses.
Failure: `GateError` when the pieces contradict each other in shape. A refusal is a verdict, not an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trading_env.evaluation import statistics
from trading_env.evaluation.checks import Check, GateError, GateThresholds, GateVerdict, against_both, logged_series
from trading_env.evaluation.metrics import SESSIONS_PER_YEAR
from trading_env.evaluation.selection import luck, overfitting, power
from trading_env.evaluation.statistics import FloatArray
from trading_env.evaluation.trials import Days, TrialLog

TITLE = "gate"
__all__ = ["Behaviour", "Check", "GateError", "GateThresholds", "GateVerdict", "TrialResult", "behaviour", "gate_verdict"]


@dataclass(frozen=True)
class Behaviour:
    """Over the judged sessions: mean `turnover` of a day (buys and sells over equity), mean effective names of `names`, range of scores."""

    turnover: float
    effective_n: float
    names: int
    score_range: float


@dataclass(frozen=True, eq=False)
class TrialResult:
    """A trial out of sample: T concatenated `sessions`, each of a `fold` (T,) in which it was not trained on.

    d of the seeds' mean weights, (T,): `excess` at the standard cost, as logged, and `excess_stressed` at twice that. `seeds_stressed`
    (S, T): d of each seed alone at twice the cost. Each with `_at_kappa`: against equal weight rebalanced at the policy's own kappa
    instead of daily, whose mean turnover of a day is `turnover_at_kappa`. `against_incumbent` (K,): log growth less the incumbent's on
    sessions after both training ends; None while the incumbent is equal weight itself.
    """

    trial: str
    sessions: Days
    fold: NDArray[np.int64]
    excess: FloatArray
    excess_at_kappa: FloatArray
    excess_stressed: FloatArray
    excess_stressed_at_kappa: FloatArray
    seeds_stressed: FloatArray
    seeds_stressed_at_kappa: FloatArray
    behaviour: Behaviour
    turnover_at_kappa: float
    against_incumbent: FloatArray | None = None

    def __post_init__(self) -> None:
        size = len(self.sessions)
        series = ("fold", "excess", "excess_at_kappa", "excess_stressed", "excess_stressed_at_kappa")
        wrong = [f"{name} {getattr(self, name).shape}" for name in series if getattr(self, name).shape != (size,)]
        seeds = {"seeds_stressed": self.seeds_stressed.shape, "seeds_stressed_at_kappa": self.seeds_stressed_at_kappa.shape}
        wrong += [f"{name} {shape}" for name, shape in seeds.items() if len(shape) != 2 or shape[1] != size]
        if wrong or len(set(seeds.values())) > 1:
            raise GateError(
                f"{size} sessions need series of as many; were {', '.join(wrong or [f'{name} {shape}' for name, shape in seeds.items()])}"
            )


def gate_verdict(result: TrialResult, *, log: TrialLog, bar: GateThresholds | None = None) -> GateVerdict:
    """Judge a trial against all that was tried. The log is verified first; raises TrialLogError when its chain is broken."""
    rules = bar if bar is not None else GateThresholds()
    log.verify()
    checks = [logged(result, log=log), evidence(result, bar=rules)]
    trial = log.trial(result.trial)
    if trial is not None:
        checks += [
            power(trial, bar=rules),
            luck(result.trial, log=log, bar=rules),
            overfitting(trial, log=log, bar=rules),
        ]
    checks += [
        stressed_costs(result),
        slow_equal_weight(result),
        folds(result, bar=rules),
        seeds(result, bar=rules),
        holdout(result.trial, log=log, bar=rules),
        incumbent(result.against_incumbent, bar=rules),
        pace(result, bar=rules),
        *behaviour(result.behaviour, bar=rules),
    ]
    return GateVerdict(TITLE, tuple(checks))


def logged(result: TrialResult, *, log: TrialLog) -> Check:
    """The trial is in the log with these sessions and this d: seeds drawn again until they please are not its result."""
    trial, count = log.trial(result.trial), float(len(log.trials))
    if trial is None:
        return Check("logged", False, f"trial {result.trial[:12]} is none of the {count:.0f} in the log", {"trials": count})
    slow = trial.excess if trial.excess_at_kappa is None else trial.excess_at_kappa
    again = result.excess if trial.excess_at_kappa is None else result.excess_at_kappa
    same = np.array_equal(trial.sessions, result.sessions) and np.allclose([trial.excess, slow], [result.excess, again], rtol=0, atol=1e-9)
    words = "is the one" if same else "differs from the one"
    return Check("logged", bool(same), f"the result {words} first logged for trial {result.trial[:12]}, of {count:.0f}", {"trials": count})


def evidence(result: TrialResult, *, bar: GateThresholds) -> Check:
    """Enough folds, sessions and seeds."""
    counts = {"folds": len(np.unique(result.fold)), "sessions": len(result.sessions), "seeds": len(result.seeds_stressed)}
    held = counts["folds"] >= bar.min_folds and counts["sessions"] >= bar.min_sessions and counts["seeds"] >= bar.min_seeds
    sentence = (
        f"{counts['folds']} folds, {counts['sessions']} sessions out of sample and {counts['seeds']} seeds, "
        f"at least {bar.min_folds}, {bar.min_sessions} and {bar.min_seeds} are needed"
    )
    return Check("evidence", held, sentence, {name: float(count) for name, count in counts.items()})


def stressed_costs(result: TrialResult) -> Check:
    """Still ahead at twice the standard cost."""
    yearly = _yearly(result.excess_stressed)
    sentence = f"at twice the cost it grows {yearly * 1e4:+.0f} bp per year against equal weight, it must be above 0"
    return Check("stressed costs", yearly > 0, sentence, {"excess_stressed_bp_per_year": yearly * 1e4})


def slow_equal_weight(result: TrialResult) -> Check:
    """Ahead of an equal weight that trades as slowly, at twice the cost too."""
    yearly = _yearly(result.excess_stressed_at_kappa)
    sentence = (
        f"at twice the cost it grows {yearly * 1e4:+.0f} bp per year against equal weight rebalanced with its own kappa, it must be above 0"
    )
    return Check("slow equal weight", yearly > 0, sentence, {"excess_stressed_at_kappa_bp_per_year": yearly * 1e4})


def folds(result: TrialResult, *, bar: GateThresholds) -> Check:
    """Ahead of both at twice the cost in most folds, not in one lucky year."""
    names, both = np.unique(result.fold), np.stack([result.excess_stressed, result.excess_stressed_at_kappa])
    ahead = sum(bool((both[:, result.fold == name].mean(axis=1) > 0).all()) for name in names)
    held = len(names) > 0 and ahead / len(names) >= bar.min_fold_share
    told = f"ahead of both equal weights at twice the cost in {ahead} of {len(names)} folds"
    return Check("folds", held, f"{told}, at least {bar.min_fold_share:.1%} are needed", {"folds_ahead": float(ahead)})


def seeds(result: TrialResult, *, bar: GateThresholds) -> Check:
    """Ahead of both at twice the cost whatever the seed; none is selected."""
    count, both = len(result.seeds_stressed), np.stack([result.seeds_stressed, result.seeds_stressed_at_kappa])
    ahead = int((both.mean(axis=2) > 0).all(axis=0).sum())
    held = count > 0 and ahead / count >= bar.min_seed_share
    told = f"{ahead} of {count} seeds alone are ahead of both equal weights at twice the cost"
    return Check("seeds", held, f"{told}, at least {bar.min_seed_share:.0%} are needed", {"seeds_ahead": float(ahead)})


def holdout(trial: str, *, log: TrialLog, bar: GateThresholds) -> Check:
    """The last sessions before the live period, traded once per configuration: a veto, not a proof, for which it is too short."""
    judged, opening = log.trial(trial), log.opening(trial)
    if judged is None or opening is None:
        sentence = "the holdout is not opened: it is once per configuration, when everything else holds and it has at least"
        return Check("holdout", False, f"{sentence} {bar.min_holdout_sessions} sessions")
    if len(opening.excess) < bar.min_holdout_sessions:
        sentence = f"the holdout shows {len(opening.excess)} sessions, at least {bar.min_holdout_sessions} are needed"
        return Check("holdout", False, sentence)
    if opening.sessions[0] <= judged.sessions[-1]:
        sentence = f"the holdout begins {opening.sessions[0]}, it must be after the last judged session, {judged.sessions[-1]}"
        return Check("holdout", False, sentence)
    series = logged_series(opening)
    if len(series) < 2:
        return Check("holdout", False, "the holdout was opened without d against equal weight at its own kappa")
    yearly, lower = [[measure(own) * 1e4 for own in series.values()] for measure in (_yearly, lambda own: _lower(own, bar))]
    times = sum(bool(np.isin(other.sessions, opening.sessions).any()) for other in log.openings)
    grows = [f"{mean:+.0f} (bound {bound:+.0f})" for mean, bound in zip(yearly, lower, strict=True)]
    sentence = (
        f"over the {len(opening.excess)} holdout sessions (openings so far: {times}) it grows {against_both('{}', grows)} bp per year, "
        f"{bar.confidence:.0%} bounds; above 0 and {bar.holdout_floor * 1e4:+.0f} are needed"
    )
    numbers = {"holdout_openings": float(times)}
    for suffix, mean, bound in zip(series, yearly, lower, strict=True):
        numbers |= {f"holdout{suffix}_bp_per_year": mean, f"holdout_lower{suffix}_bp_per_year": bound}
    held = all(mean > 0 for mean in yearly) and all(bound > bar.holdout_floor * 1e4 for bound in lower)
    return Check("holdout", held, sentence, numbers)


def incumbent(difference: FloatArray | None, *, bar: GateThresholds) -> Check:
    """Not clearly worse than what trades now."""
    if difference is None:
        return Check("incumbent", True, "the incumbent is equal weight, which the other rules judge against")
    if len(difference) < bar.min_incumbent_sessions or not np.isfinite(difference).all():
        sentence = f"{len(difference)} sessions follow both training ends, at least {bar.min_incumbent_sessions} finite ones are needed"
        return Check("incumbent", False, sentence)
    lower = _lower(difference, bar)
    sentence = (
        f"against the incumbent {_yearly(difference) * 1e4:+.0f} bp per year over {len(difference)} sessions, "
        f"{bar.confidence:.0%} bound {lower * 1e4:+.0f}, it must be above {bar.incumbent_floor * 1e4:+.0f}"
    )
    return Check("incumbent", lower > bar.incumbent_floor, sentence, {"incumbent_lower_bp_per_year": lower * 1e4})


def pace(result: TrialResult, *, bar: GateThresholds) -> Check:
    """It trades no more slowly than its kappa says: who scores what it holds goes a smaller share of the way, unseen by d at kappa."""
    own, least = result.behaviour.turnover, bar.min_pace * result.turnover_at_kappa
    sentence = (
        f"turnover is {own:.2%} of equity per day, equal weight's at its own kappa {result.turnover_at_kappa:.2%}: "
        f"below {least:.2%} it would trade more slowly than what it is compared with"
    )
    return Check("pace", own >= least, sentence, {"turnover_at_kappa_per_day": result.turnover_at_kappa})


def behaviour(measured: Behaviour, *, bar: GateThresholds) -> tuple[Check, Check, Check]:
    """It trades within its means, holds many names, and reacts to what it observes."""
    least = bar.min_effective_share * measured.names
    return (
        Check(
            "turnover",
            measured.turnover <= bar.max_turnover,
            f"turnover is {measured.turnover:.2%} of equity per day, at most {bar.max_turnover:.2%}",
            {"turnover_per_day": measured.turnover},
        ),
        Check(
            "concentration",
            measured.effective_n >= least,
            f"{measured.effective_n:.1f} effective names of {measured.names}, at least {least:.1f}",
            {"effective_n": measured.effective_n},
        ),
        Check(
            "constant",
            measured.score_range >= bar.min_score_range,
            f"scores move by {measured.score_range:.2g} over the period, a constant policy by less than {bar.min_score_range:.2g}",
            {"score_range": measured.score_range},
        ),
    )


def _yearly(series: FloatArray) -> float:
    return float(series.mean() * SESSIONS_PER_YEAR) if len(series) else float("nan")


def _lower(series: FloatArray, bar: GateThresholds) -> float:
    bound = statistics.lower_bound(series, confidence=bar.confidence, mean_block=bar.mean_block, draws=bar.draws, seed=bar.seed)
    return bound * SESSIONS_PER_YEAR
