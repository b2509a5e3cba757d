"""Size and power of the gate: whole gates over simulated trial logs, rule by rule.

    python benchmarks/gate_power.py --runs 400 --draws 1000 --out out/gate_power.json

Promise: each run builds a hash-chained log, opens the holdout and calls `gate_verdict` as evaluation does; the same seed gives the same
table. d of a trial is simulated, not traded: 8 folds of 252 sessions and a holdout of 252, a tracking error, a true information ratio
net at the standard cost. Who trades slowly has what that saves or costs in d against equal weight daily, the same in every trial, and not
in d against equal weight at kappa. A null log is judged by its best trial, which is what somebody who tried N times would submit.
"former luck" is luck as it was, against equal weight daily alone. Failure: none of its own; what the gate raises passes through. One
process; minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy.signal import lfilter

from trading_env.evaluation.gate import Behaviour, GateThresholds, GateVerdict, TrialResult, gate_verdict
from trading_env.evaluation.statistics import FloatArray
from trading_env.evaluation.trials import TrialLog

YEAR, FOLDS, SEEDS = 252, 8, 10
JUDGED = YEAR * FOLDS
DAYS = np.busday_offset(np.datetime64("2010-01-04", "D"), np.arange(JUDGED + YEAR))
TURNOVER, EXTRA_COST = 0.01, 10e-4  # of equity per day; per side, from the standard cost to twice it
SEED_CORRELATION = 0.5


@dataclass(frozen=True)
class World:
    """`ir`: the true information ratio of the first trial, the others have 0. `incumbent`: sessions against an incumbent without an edge.

    `autocorrelation` of a day with the next, `common`: correlation between trials, `wild`: t(5) days whose volatility clusters.
    `sequence`: the trials are logged one by one and each is judged when logged; the run passes if any does. `aside`: a quarter of the runs.
    `pace`: basis points per year that slow trading is ahead of equal weight daily, with the tracking error `pace_error`.
    """

    name: str
    trials: int
    ir: float = 0.0
    tracking_error: float = 0.03
    autocorrelation: float = 0.0
    common: float = 0.0
    wild: bool = False
    incumbent: int = 0
    sequence: bool = False
    aside: bool = False
    pace: float = 0.0
    pace_error: float = 0.0


WORLDS = (
    World("null, 1 trial", 1),
    World("null, best of 8", 8),
    World("null, best of 20", 20),
    World("null, best of 20, hard days", 20, autocorrelation=0.1, common=0.5, wild=True),
    World("null, 20 in a row, each judged", 20, sequence=True),
    World("IR 2, 1 trial", 1, ir=2.0),
    World("IR 2, 1 of 8", 8, ir=2.0),
    World("IR 2, 1 of 20", 20, ir=2.0),
    World("IR 2, 1 of 20, hard days", 20, ir=2.0, autocorrelation=0.1, common=0.5, wild=True),
    World("IR 2, 1 of 4", 4, ir=2.0, aside=True),
    World("IR 2, 1 of 20, tracking 6 %", 20, ir=2.0, tracking_error=0.06, aside=True),
    World("IR 2, 1 of 20, tracking 1.2 %", 20, ir=2.0, tracking_error=0.012, aside=True),
    World("IR 2, 1 of 20, incumbent 252 days", 20, ir=2.0, incumbent=252, aside=True),
    World("IR 2, 1 of 20, incumbent 2,016 days", 20, ir=2.0, incumbent=2016, aside=True),
    World("IR 1.5, 1 of 20", 20, ir=1.5, aside=True),
    World("IR 1, 1 of 20", 20, ir=1.0, aside=True),
    World("IR 1, 1 trial", 1, ir=1.0, aside=True),
    World("IR 0.6, 1 trial", 1, ir=0.6, aside=True),
    World("null, best of 4", 4, aside=True),
    World("slow pays 20 bp, no view", 1, tracking_error=1e-12, pace=20, pace_error=0.0025),
    World("slow pays 20 bp, noise of .3 %", 1, tracking_error=0.003, pace=20, pace_error=0.0025),
    World("slow pays 20 bp, noise of .3 %, best of 20", 20, tracking_error=0.003, pace=20, pace_error=0.0025),
    World("slow pays 20 bp, noise of 3 %", 1, pace=20, pace_error=0.0025),
    World("slow pays 8 bp, noise of .3 %", 1, tracking_error=0.003, pace=8, pace_error=0.0025),
    World("slow costs 15 bp, noise of .3 %", 1, tracking_error=0.003, pace=-15, pace_error=0.0025),
    World("slow pays 20 bp, IR 2 of .3 %", 1, ir=2.0, tracking_error=0.003, pace=20, pace_error=0.0025, aside=True),
    World("slow costs 15 bp, IR 2 of .3 %", 1, ir=2.0, tracking_error=0.003, pace=-15, pace_error=0.0025, aside=True),
    World("slow costs 15 bp, IR 2 of 3 %, 1 of 20", 20, ir=2.0, pace=-15, pace_error=0.0025, aside=True),
    World("slow pays 20 bp, IR 2 of 3 %, 1 of 20", 20, ir=2.0, pace=20, pace_error=0.0025, aside=True),
)


def days(world: World, columns: int, rng: np.random.Generator) -> FloatArray:
    """(sessions, columns) of unit variance, with the world's dependence over time."""
    shape = (len(DAYS) + YEAR, columns)
    shocks = rng.normal(size=shape)
    if world.wild:
        logarithm = lfilter([0.2], [1, -0.97], rng.normal(size=(shape[0], 1)), axis=0)
        shocks = rng.standard_t(5, size=shape) / np.sqrt(5 / 3) * np.exp(logarithm - logarithm.var())
    series = lfilter([np.sqrt(1 - world.autocorrelation**2)], [1, -world.autocorrelation], shocks, axis=0)[YEAR:]
    return np.asarray(series / np.sqrt(np.mean(np.square(series))) if world.wild else series)


def excesses(world: World, rng: np.random.Generator) -> FloatArray:
    """(sessions, trials) d; the planted edge, if any, is in the first column."""
    own, shared = days(world, world.trials, rng), days(world, 1, rng)
    noise = np.sqrt(world.common) * shared + np.sqrt(1 - world.common) * own
    edge = np.where(np.arange(world.trials) == 0, world.ir, 0.0) / np.sqrt(YEAR)
    return np.asarray((noise + edge) * world.tracking_error / np.sqrt(YEAR))


def pace_of(world: World, rng: np.random.Generator) -> FloatArray:
    """(sessions,) what every trial has against equal weight daily alone."""
    if not world.pace_error:
        return np.zeros(len(DAYS))
    return np.asarray(rng.normal(size=len(DAYS)) * world.pace_error / np.sqrt(YEAR) + world.pace / 1e4 / YEAR)


def judge(
    log: TrialLog, identity: str, world: World, d: FloatArray, pace: FloatArray, rng: np.random.Generator, bar: GateThresholds
) -> GateVerdict:
    """The gate on one logged trial, `d` at kappa: its seeds scatter around it, twice the cost takes what its turnover pays."""
    log = log.open_holdout(trial=identity, sessions=DAYS[JUDGED:], excess=(d + pace)[JUDGED:], excess_at_kappa=d[JUDGED:])
    excess, deviation, ahead = d[:JUDGED], world.tracking_error / np.sqrt(YEAR), pace[:JUDGED]
    # Seeds whose mean is this d and which correlate as asked: solves (1 - v/S) / (1 + v (1 - 1/S)) = correlation
    variance = (1 - SEED_CORRELATION) / (1 / SEEDS + SEED_CORRELATION * (1 - 1 / SEEDS))
    scatter = rng.normal(size=(SEEDS, JUDGED)) * np.sqrt(variance) * deviation
    # A policy that hardly deviates pays hardly more than equal weight at its pace
    paid = TURNOVER * EXTRA_COST * min(1.0, world.tracking_error / 0.03)
    against = excess[-world.incumbent :] - days(world, 1, rng)[: world.incumbent, 0] * deviation if world.incumbent else None
    result = TrialResult(
        trial=identity,
        sessions=DAYS[:JUDGED],
        fold=np.repeat(np.arange(FOLDS), YEAR),
        excess=excess + ahead,
        excess_at_kappa=excess,
        excess_stressed=excess + ahead - paid,
        excess_stressed_at_kappa=excess - paid,
        seeds_stressed=excess + ahead + scatter - scatter.mean(axis=0) - paid,
        seeds_stressed_at_kappa=excess + scatter - scatter.mean(axis=0) - paid,
        behaviour=Behaviour(turnover=TURNOVER, effective_n=20.0, names=30, score_range=1.0),
        turnover_at_kappa=TURNOVER,
        against_incumbent=against,
    )
    return gate_verdict(result, log=log, bar=bar)


def run(world: World, rng: np.random.Generator, bar: GateThresholds) -> list[GateVerdict]:
    """The verdicts of one world's run: one, or one a trial worth judging in a sequence."""
    table, log = excesses(world, rng), TrialLog()
    pace = pace_of(world, rng)
    daily = table + pace[:, None]
    t = daily[:JUDGED].mean(axis=0) / daily[:JUDGED].std(axis=0) * np.sqrt(JUDGED)
    chosen = 0 if world.ir else int(t.argmax())
    verdicts = []
    for column in range(world.trials):
        log = log.append(
            settings={"trial": column},
            feature_hash="f",
            code_hash="c",
            sessions=DAYS[:JUDGED],
            excess=daily[:JUDGED, column],
            excess_at_kappa=table[:JUDGED, column],
        )
        # A t below 1.2 is past any critical value the gate could find: not worth the minutes
        if world.sequence and t[column] > 1.2:
            verdicts.append(judge(log, log.trials[column].trial_id, world, table[:, column], pace, rng, bar))
    if not world.sequence:
        verdicts.append(judge(log, log.trials[chosen].trial_id, world, table[:, chosen], pace, rng, bar))
    return verdicts


def measure(world: World, *, number: int, runs: int, seed: int, bar: GateThresholds) -> dict[str, object]:
    """Share of runs that pass, its standard error, and the share of judged trials that each rule alone lets through."""
    began, passed, judged, former, rules = time.monotonic(), 0, 0, 0, Counter[str]()
    for index in range(runs):
        verdicts = run(world, np.random.default_rng([seed, number, index]), bar)
        passed += any(verdict.passed for verdict in verdicts)
        former += any(former_luck(verdict, bar) for verdict in verdicts)
        judged += len(verdicts)
        rules.update(check.name for verdict in verdicts for check in verdict.checks if check.passed)
        names = [check.name for check in verdicts[-1].checks] if verdicts else []
        rules.update(dict.fromkeys(names, 0))
    share = passed / runs
    return {
        "world": asdict(world),
        "runs": runs,
        "pass_share": share,
        "former_luck_share": former / runs,
        "standard_error": float(np.sqrt(share * (1 - share) / runs)),
        "rule_pass_share": {name: count / max(judged, 1) for name, count in rules.items()},
        "seconds": round(time.monotonic() - began, 1),
    }


def former_luck(verdict: GateVerdict, bar: GateThresholds) -> bool:
    """Whether luck against equal weight daily alone lets it through."""
    return verdict.numbers["reality_check_p"] <= bar.significance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="simulated gates a world")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", default="", help="worlds whose name contains this")
    parser.add_argument("--draws", type=int, default=GateThresholds().draws, help="of the bootstrap; the shipped gate takes the default")
    parser.add_argument("--out", type=Path, default=Path("out/gate_power.json"))
    for name in ("min_columns", "max_loss_share", "holdout_floor"):
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(getattr(GateThresholds(), name)), default=getattr(GateThresholds(), name)
        )
    chosen = parser.parse_args()
    names = ("draws", "min_columns", "max_loss_share", "holdout_floor")
    bar = replace(GateThresholds(), **{name: getattr(chosen, name) for name in names})
    rows = []
    for number, world in enumerate(WORLDS):
        if chosen.only not in world.name:
            continue
        row = measure(world, number=number, runs=chosen.runs // (4 if world.aside else 1), seed=chosen.seed, bar=bar)
        rows.append(row)
        binding = sorted((share, name) for name, share in row["rule_pass_share"].items() if share < 0.995)  # type: ignore[attr-defined]
        detail = ", ".join(f"{name} {share:.0%}" for share, name in binding)
        share = f"{row['pass_share']:6.1%} ± {row['standard_error']:.1%}"
        sys.stdout.write(f"{world.name:44s} {share}  {row['seconds']:>6} s  former luck {row['former_luck_share']:.1%}; {detail}\n")
        sys.stdout.flush()
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps({"thresholds": asdict(bar), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
