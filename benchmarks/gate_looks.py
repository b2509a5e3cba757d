"""How often the gate passes one configuration without an edge that is judged again and again on later data.

    python benchmarks/gate_looks.py --runs 400 --pace 20

Promise: as `gate_power.py`, with the shipped dates: 1,732 judged sessions at the first look and `every` more at each further one for five
years; the holdout is the next 252, opened when it is all that refuses, and then not again before a holdout that is all new. d of an old
session is drawn again at each look, correlated `AGAIN` with the base: folds are cut anew and models trained anew. With `--pace`, what
slow trading is ahead of equal weight daily by is in d against that, the same at each look, and not in d at kappa. The same seed gives the
same table. Failure: none of its own. One process; minutes.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import numpy as np

from trading_env.evaluation.gate import Behaviour, GateThresholds, TrialResult, gate_verdict
from trading_env.evaluation.trials import TrialLog

YEAR, FIRST, HOLDOUT, YEARS, FOLDS, SEEDS = 252, 1732, 252, 5, 8, 10
DAYS = np.busday_offset(np.datetime64("2019-01-02", "D"), np.arange(FIRST + HOLDOUT + YEARS * YEAR))
AGAIN, SEED_CORRELATION = 0.9, 0.5
PACE_ERROR = 0.0025  # tracking error of what slow trading is ahead by


def passes(every: int, *, ir: float, view: float, pace: float, rng: np.random.Generator, bar: GateThresholds) -> int | None:
    """The look at which the configuration passes, counted from 0; None when it never does."""
    edge, deviation = ir / np.sqrt(YEAR), view / np.sqrt(YEAR)
    base, log, opened = rng.normal(size=len(DAYS)), TrialLog(), -1
    ahead = (rng.normal(size=len(DAYS)) * PACE_ERROR / np.sqrt(YEAR) + pace / 1e4 / YEAR) * (pace != 0)
    for look, judged in enumerate(range(FIRST, len(DAYS) - HOLDOUT + 1, every)):
        known = np.sqrt(AGAIN) * base + np.sqrt(1 - AGAIN) * rng.normal(size=len(DAYS))
        d = (known + edge) * deviation
        daily = d + ahead
        settings = {"training": {"live_start": look}}
        log = log.append(
            settings=settings,
            feature_hash="f",
            code_hash="c",
            sessions=DAYS[:judged],
            excess=daily[:judged],
            excess_at_kappa=d[:judged],
        )
        # Below this t no critical value lets it pass, and a seen holdout is not judged again
        if min(own[:judged].mean() / own[:judged].std() for own in (d, daily)) * np.sqrt(judged) < 1.2 or judged <= opened:
            continue
        result = trial_result(log.trials[-1].trial_id, d[:judged], daily[:judged], view, rng)
        refused = [check.name for check in gate_verdict(result, log=log, bar=bar).checks if not check.passed]
        if refused == ["holdout"]:
            opened, holdout = judged + HOLDOUT, slice(judged, judged + HOLDOUT)
            log = log.open_holdout(trial=log.trials[-1].trial_id, sessions=DAYS[holdout], excess=daily[holdout], excess_at_kappa=d[holdout])
            if gate_verdict(result, log=log, bar=bar).passed:
                return look
    return None


def trial_result(identity: str, at_kappa: np.ndarray, daily: np.ndarray, view: float, rng: np.random.Generator) -> TrialResult:
    """Seeds that scatter around the ensemble, and twice the cost."""
    judged, paid = len(daily), 1e-5 * min(1.0, view / 0.03)
    variance = (1 - SEED_CORRELATION) / (1 / SEEDS + SEED_CORRELATION * (1 - 1 / SEEDS))
    scatter = rng.normal(size=(SEEDS, judged)) * np.sqrt(variance) * view / np.sqrt(YEAR)
    scatter -= scatter.mean(axis=0)
    return TrialResult(
        trial=identity,
        sessions=DAYS[:judged],
        fold=np.arange(judged) * FOLDS // judged,
        excess=daily,
        excess_at_kappa=at_kappa,
        excess_stressed=daily - paid,
        excess_stressed_at_kappa=at_kappa - paid,
        seeds_stressed=daily + scatter - paid,
        seeds_stressed_at_kappa=at_kappa + scatter - paid,
        behaviour=Behaviour(turnover=0.01, effective_n=20.0, names=30, score_range=1.0),
        turnover_at_kappa=0.01,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--every", type=int, action="append", default=[], help="sessions between looks; default 10000 (one look), 63 and 21"
    )
    parser.add_argument("--ir", type=float, default=0.0, help="true information ratio, net")
    parser.add_argument("--view", type=float, default=0.03, help="tracking error of the policy's own view, or of its noise")
    parser.add_argument("--pace", type=float, default=0.0, help="basis points per year that slow trading is ahead of equal weight daily")
    parser.add_argument("--draws", type=int, default=GateThresholds().draws)
    chosen = parser.parse_args()
    bar = replace(GateThresholds(), draws=chosen.draws)
    for every in chosen.every or (10_000, 63, 21):
        how = {"ir": chosen.ir, "view": chosen.view, "pace": chosen.pace, "bar": bar}
        found = [passes(every, **how, rng=np.random.default_rng([chosen.seed, run])) for run in range(chosen.runs)]
        looks = [look for look in found if look is not None]
        share, first = len(looks) / chosen.runs, sum(look == 0 for look in looks) / chosen.runs
        error = np.sqrt(share * (1 - share) / chosen.runs)
        what = f"every {every:>5} sessions, IR {chosen.ir:g} of {chosen.view:.1%}, pace {chosen.pace:+g} bp"
        sys.stdout.write(f"{what}: {share:.1%} ± {error:.1%} pass, {first:.1%} at the first look\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
