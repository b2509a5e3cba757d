"""The bar a configuration clears before its models may trade; refit.py has the shorter one for each weekly refit of one that did.

Promise: every rule is judged on d, daily log growth less that of equal weight, net of cost, and gives one sentence with its numbers;
all must hold. The logged d of a trial counts, not what a later run of it made, and evidence that is missing, short or NaN refuses.
Failure: `GateError` when the pieces contradict each other in shape. A refusal is a verdict, not an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trading_env.errors import PapertapeError
from trading_env.evaluation import statistics
from trading_env.evaluation.metrics import SESSIONS_PER_YEAR
from trading_env.evaluation.statistics import FloatArray
from trading_env.evaluation.trials import Days, TrialEntry, TrialLog

TITLE = "gate"


class GateError(PapertapeError, ValueError):
    """The evidence is not about one and the same thing; the message says which parts differ."""


@dataclass(frozen=True)
class GateThresholds:
    """Shares are of 1, floors a year, sessions and seeds counts. docs/decisions/0010-gate-thresholds.md: what they pass and refuse."""

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

    d of the seeds' mean weights, (T,): `excess` at the standard cost, as logged, and `excess_stressed` at twice that; `excess_over_slow` is
    at twice the cost as well, against equal weight rebalanced with the policy's own kappa. `seeds_stressed` (S, T): d of each seed alone
    at twice the cost. `against_incumbent` (K,): log growth less the incumbent's on sessions after both training ends;
    None while the incumbent is equal weight itself.
    """

    trial: str
    sessions: Days
    fold: NDArray[np.int64]
    excess: FloatArray
    excess_stressed: FloatArray
    excess_over_slow: FloatArray
    seeds_stressed: FloatArray
    behaviour: Behaviour
    against_incumbent: FloatArray | None = None

    def __post_init__(self) -> None:
        size = len(self.sessions)
        series = ("fold", "excess", "excess_stressed", "excess_over_slow")
        shapes = {name: getattr(self, name).shape for name in series}
        wrong = [f"{name} {shape}" for name, shape in shapes.items() if shape != (size,)]
        if wrong or self.seeds_stressed.ndim != 2 or self.seeds_stressed.shape[1] != size:
            raise GateError(
                f"{size} sessions need series of as many; were {', '.join(wrong) or f'seeds_stressed {self.seeds_stressed.shape}'}"
            )


def gate_verdict(result: TrialResult, *, log: TrialLog, bar: GateThresholds | None = None) -> GateVerdict:
    """Judge a trial against all that was tried. The log is verified first; raises TrialLogError when its chain is broken."""
    rules = bar if bar is not None else GateThresholds()
    log.verify()
    checks = [logged(result, log=log), evidence(result, bar=rules)]
    trial = log.trial(result.trial)
    if trial is not None:
        checks += [
            power(trial.excess, bar=rules),
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
        *behaviour(result.behaviour, bar=rules),
    ]
    return GateVerdict(TITLE, tuple(checks))


def logged(result: TrialResult, *, log: TrialLog) -> Check:
    """The trial is in the log with these sessions and this d: seeds drawn again until they please are not its result."""
    trial, count = log.trial(result.trial), float(len(log.trials))
    if trial is None:
        return Check("logged", False, f"trial {result.trial[:12]} is none of the {count:.0f} in the log", {"trials": count})
    same = np.array_equal(trial.sessions, result.sessions) and np.allclose(trial.excess, result.excess, rtol=0, atol=1e-9)
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


def power(excess: FloatArray, *, bar: GateThresholds) -> Check:
    """Could a good configuration have been told from luck at all? One trial's own test: what the log adds to it is the Reality Check's."""
    detectable = statistics.detectable_ir(excess, power=bar.power, significance=bar.significance, mean_block=bar.mean_block)
    held = detectable <= bar.max_detectable_ir
    sentence = (
        f"{'' if held else 'underpowered, '}{len(excess)} sessions find an information ratio of {detectable:.2f} with {bar.power:.0%} "
        f"power, it must be at most {bar.max_detectable_ir:.2f}"
    )
    return Check("power", held, sentence, {"detectable_ir": detectable, "information_ratio": statistics.information_ratio(excess)})


def luck(trial: str, *, log: TrialLog, bar: GateThresholds) -> Check:
    """White's Reality Check over every logged trial."""
    column = [entry.trial_id for entry in log.trials].index(trial)
    table = log.columns()[1]
    found = statistics.reality_check(
        table, column=column, significance=bar.significance, mean_block=bar.mean_block, draws=bar.draws, seed=bar.seed
    )
    family = statistics.detectable_ir(table[np.isfinite(table[:, column]), column], power=bar.power, critical=found.critical)
    sentence = (
        f"the best of {found.trials} trials without an edge does as well with probability {found.p_value:.3f} (t {found.t:.2f}, "
        f"Reality Check), it must be at most {bar.significance:.2f}"
    )
    numbers = {"reality_check_p": found.p_value, "reality_check_t": found.t, "reality_check_critical_t": found.critical}
    return Check("luck", found.p_value <= bar.significance, sentence, {**numbers, "detectable_ir_among_trials": family})


def overfitting(trial: TrialEntry, *, log: TrialLog, bar: GateThresholds) -> Check:
    """CSCV: does choosing the best configuration on half of the sessions lose to equal weight on the other half?

    Columns are the judged trial and the newest of every other configuration that covers most of its sessions, over those that all of them
    cover: a configuration judged again on later data was not chosen from, and one judged earlier has no later sessions. One configuration
    chose nothing; too few columns cannot say.
    """
    newest = {entry.configuration_id: column for column, entry in enumerate(log.trials)}
    newest[trial.configuration_id] = [entry.trial_id for entry in log.trials].index(trial.trial_id)
    if len(newest) == 1:
        what = "trial" if len(log.trials) == 1 else "configuration"
        return Check("overfitting", True, f"one {what} logged, nothing was selected, so overfitting by selection does not apply")
    days, table = log.columns()
    rows = table[np.isin(days, trial.sessions)][:, sorted(newest.values())]
    columns = rows[:, np.isfinite(rows).mean(axis=0) >= bar.min_common_share]
    columns = columns[np.isfinite(columns).all(axis=1)]
    if columns.shape[1] < max(2, bar.min_columns) or len(columns) < 2 * bar.cscv_blocks:
        sentence = (
            f"overfitting cannot be assessed: {columns.shape[1]} of {len(newest)} logged configurations share {len(columns)} sessions, "
            f"at least {bar.min_columns} configurations and {2 * bar.cscv_blocks} sessions are needed"
        )
        return Check("overfitting", False, sentence, {"cscv_columns": float(columns.shape[1])})
    found = statistics.cscv(columns, blocks=bar.cscv_blocks)
    sentence = (
        f"the best of {found.columns} trials in sample loses to equal weight out of sample in {found.loss_share:.1%} of {found.splits} "
        f"splits, at most {bar.max_loss_share:.0%} (PBO {found.pbo:.2f})"
    )
    numbers = {"cscv_loss_share": found.loss_share, "pbo": found.pbo, "cscv_columns": float(found.columns)}
    return Check("overfitting", found.loss_share <= bar.max_loss_share, sentence, numbers)


def stressed_costs(result: TrialResult) -> Check:
    """Still ahead at twice the standard cost."""
    yearly = _yearly(result.excess_stressed)
    sentence = f"at twice the cost it grows {yearly * 1e4:+.0f} bp per year against equal weight, it must be above 0"
    return Check("stressed costs", yearly > 0, sentence, {"excess_stressed_bp_per_year": yearly * 1e4})


def slow_equal_weight(result: TrialResult) -> Check:
    """Ahead of an equal weight that trades as slowly: what slow trading alone saves in costs is no skill."""
    yearly = _yearly(result.excess_over_slow)
    sentence = (
        f"at twice the cost it grows {yearly * 1e4:+.0f} bp per year against equal weight rebalanced with its own kappa, it must be above 0"
    )
    return Check("slow equal weight", yearly > 0, sentence, {"excess_over_slow_bp_per_year": yearly * 1e4})


def folds(result: TrialResult, *, bar: GateThresholds) -> Check:
    """Ahead at twice the cost in most folds, not in one lucky year."""
    names = np.unique(result.fold)
    ahead = sum(bool(result.excess_stressed[result.fold == name].mean() > 0) for name in names)
    held = len(names) > 0 and ahead / len(names) >= bar.min_fold_share
    sentence = f"ahead at twice the cost in {ahead} of {len(names)} folds, at least {bar.min_fold_share:.1%} are needed"
    return Check("folds", held, sentence, {"folds_ahead": float(ahead)})


def seeds(result: TrialResult, *, bar: GateThresholds) -> Check:
    """Ahead at twice the cost whatever the seed; none is selected."""
    count = len(result.seeds_stressed)
    ahead = sum(bool(series.mean() > 0) for series in result.seeds_stressed)
    held = count > 0 and ahead / count >= bar.min_seed_share
    sentence = f"{ahead} of {count} seeds alone are ahead at twice the cost, at least {bar.min_seed_share:.0%} are needed"
    return Check("seeds", held, sentence, {"seeds_ahead": float(ahead)})


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
    yearly, lower = _yearly(opening.excess), _lower(opening.excess, bar)
    times = sum(bool(np.isin(other.sessions, opening.sessions).any()) for other in log.openings)
    sentence = (
        f"over the {len(opening.excess)} holdout sessions (openings so far: {times}) it grows {yearly * 1e4:+.0f} bp per year "
        f"against equal weight, {bar.confidence:.0%} bound {lower * 1e4:+.0f}; above 0 and {bar.holdout_floor * 1e4:+.0f} are needed"
    )
    numbers = {"holdout_bp_per_year": yearly * 1e4, "holdout_lower_bp_per_year": lower * 1e4, "holdout_openings": float(times)}
    return Check("holdout", yearly > 0 and lower > bar.holdout_floor, sentence, numbers)


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
