"""The rules of the gate that rest on the log of trials: what could have been found, what luck does, and what choosing does.

Promise: each judges the logged d of a trial against both equal weights, daily and at its own kappa, and the worse of the two counts.
Failure: what the statistics raise.
"""

from __future__ import annotations

import numpy as np

from trading_env.evaluation import statistics
from trading_env.evaluation.checks import AT_KAPPA, Check, GateThresholds, against_both, logged_series
from trading_env.evaluation.trials import TrialEntry, TrialLog


def power(trial: TrialEntry, *, bar: GateThresholds) -> Check:
    """Could a good configuration have been told from luck at all? One trial's own test: what the log adds to it is the Reality Check's."""
    numbers: dict[str, float] = {}
    for suffix, excess in logged_series(trial).items():
        found = statistics.detectable_ir(excess, power=bar.power, significance=bar.significance, mean_block=bar.mean_block)
        numbers |= {f"detectable_ir{suffix}": found, f"information_ratio{suffix}": statistics.information_ratio(excess)}
    detectable = [value for name, value in numbers.items() if name.startswith("detectable")]
    held = all(value <= bar.max_detectable_ir for value in detectable)
    shown = [f"{value:.2f}" if np.isfinite(value) else "none (it does not differ)" for value in detectable]
    sentence = (
        f"{'' if held else 'underpowered, '}{len(trial.sessions)} sessions find an information ratio of "
        f"{against_both('{}', shown)} with {bar.power:.0%} power, it must be at most {bar.max_detectable_ir:.2f}"
    )
    return Check("power", held, sentence, numbers)


def luck(trial: str, *, log: TrialLog, bar: GateThresholds) -> Check:
    """White's Reality Check over every logged trial, against each equal weight: the larger p counts.

    No edge over either of the two is enough to refuse, and each is tested at the level of the whole: an intersection-union test
    (Berger, Technometrics 24, 1982), whose size is at most the level. A trial that was logged before d at kappa was cannot pass.
    """
    column = [entry.trial_id for entry in log.trials].index(trial)
    tables = {suffix: log.columns(at_kappa=bool(suffix))[1] for suffix in logged_series(log.trials[column])}
    found = {
        suffix: statistics.reality_check(
            table, column=column, significance=bar.significance, mean_block=bar.mean_block, draws=bar.draws, seed=bar.seed
        )
        for suffix, table in tables.items()
    }
    numbers: dict[str, float] = {}
    for suffix, check in found.items():
        own = tables[suffix][np.isfinite(tables[suffix][:, column]), column]
        numbers |= {
            f"reality_check_p{suffix}": check.p_value,
            f"reality_check_t{suffix}": check.t,
            f"reality_check_critical_t{suffix}": check.critical,
            f"detectable_ir_among_trials{suffix}": statistics.detectable_ir(own, power=bar.power, critical=check.critical),
        }
    if AT_KAPPA not in found:
        return Check("luck", False, f"trial {trial[:12]} was logged without d against equal weight at its own kappa", numbers)
    chances = against_both("{0.p_value:.3f} (t {0.t:.2f})", list(found.values()))
    sentence = (
        f"the best of {len(log.trials)} trials without an edge does as well with probability {chances} (Reality Check), "
        f"both must be at most {bar.significance:.2f}"
    )
    return Check("luck", all(check.p_value <= bar.significance for check in found.values()), sentence, numbers)


def overfitting(trial: TrialEntry, *, log: TrialLog, bar: GateThresholds) -> Check:
    """CSCV: does choosing the best configuration on half of the sessions lose to equal weight, to either one, on the other half?

    Columns are the judged trial and the newest of every other configuration that covers most of its sessions, over those that all of them
    cover: a configuration judged again on later data was not chosen from, and one judged earlier has no later sessions. One configuration
    chose nothing; too few columns cannot say. One that was logged without d at kappa is no column there: what it saved would flatter.
    """
    newest = {entry.configuration_id: column for column, entry in enumerate(log.trials)}
    newest[trial.configuration_id] = [entry.trial_id for entry in log.trials].index(trial.trial_id)
    if len(newest) == 1:
        what = "trial" if len(log.trials) == 1 else "configuration"
        return Check("overfitting", True, f"one {what} logged, nothing was selected, so overfitting by selection does not apply")
    found: dict[str, statistics.CrossValidation] = {}
    for suffix in ("", AT_KAPPA):
        chosen = sorted(column for column in newest.values() if not suffix or log.trials[column].excess_at_kappa is not None)
        days, table = log.columns(at_kappa=bool(suffix))
        rows = table[np.isin(days, trial.sessions)][:, chosen]
        columns = rows[:, np.isfinite(rows).mean(axis=0) >= bar.min_common_share]
        columns = columns[np.isfinite(columns).all(axis=1)]
        if columns.shape[1] < max(2, bar.min_columns) or len(columns) < 2 * bar.cscv_blocks:
            sentence = (
                f"overfitting cannot be assessed: {columns.shape[1]} of {len(newest)} logged configurations share {len(columns)} sessions"
                f"{' with d against equal weight at their own kappa' if suffix else ''}, "
                f"at least {bar.min_columns} configurations and {2 * bar.cscv_blocks} sessions are needed"
            )
            return Check("overfitting", False, sentence, {"cscv_columns": float(columns.shape[1])})
        found[suffix] = statistics.cscv(columns, blocks=bar.cscv_blocks)
    fewest = min(check.columns for check in found.values())
    losses = against_both("{0.loss_share:.1%} (PBO {0.pbo:.2f})", list(found.values()))
    sentence = (
        f"the best of {fewest} trials in sample loses out of sample in {losses} of {found[''].splits} splits, "
        f"at most {bar.max_loss_share:.0%} are allowed"
    )
    numbers = {"cscv_columns": float(fewest)}
    for suffix, check in found.items():
        numbers |= {f"cscv_loss_share{suffix}": check.loss_share, f"pbo{suffix}": check.pbo}
    return Check("overfitting", all(check.loss_share <= bar.max_loss_share for check in found.values()), sentence, numbers)
