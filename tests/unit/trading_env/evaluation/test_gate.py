"""Each rule of the gate and of the refit check, alone: evidence that passes, and one thing wrong with it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from trading_env.evaluation.gate import Behaviour, Check, GateError, GateThresholds, GateVerdict, TrialResult, gate_verdict
from trading_env.evaluation.refit import RefitResult, refit_check
from trading_env.evaluation.trials import TrialEntry, TrialLog, TrialLogError

FOLDS, YEAR = 8, 200
JUDGED = FOLDS * YEAR
DAYS = np.busday_offset(np.datetime64("2010-01-04", "D"), np.arange(JUDGED + 252))
DEVIATION = 0.03 / np.sqrt(252)
BAR = GateThresholds(draws=1000)
SANE = Behaviour(turnover=0.01, effective_n=6.0, names=8, score_range=0.5)


def series(ir: float, *, seed: int, size: int = JUDGED + 252) -> np.ndarray:
    """Daily d of exactly this information ratio per year, over the judged sessions and over the holdout ones."""
    noise = np.random.default_rng(seed).normal(size=size)
    for part in (slice(None, JUDGED), slice(JUDGED, None)):
        noise[part] = (noise[part] - noise[part].mean()) / noise[part].std() if noise[part].size else noise[part]
    return (noise + ir / np.sqrt(252)) * DEVIATION


GOOD = series(2.0, seed=1)


def logged(
    d: np.ndarray = GOOD, *, slow: np.ndarray | None = None, others: int = 0, other_ir: float = 0.0, opened: bool = True
) -> tuple[TrialLog, str]:
    """A log whose last trial is `d`, and `slow` against equal weight at kappa (the same unless given), after `others`."""
    log, at_kappa = TrialLog(), d if slow is None else slow
    for number in range(others):
        log = entered(log, series(other_ir, seed=100 + number)[:JUDGED], settings={"n": number})
    log = entered(log, d[:JUDGED], slow=at_kappa[:JUDGED], settings={"n": "judged"})
    identity = log.trials[-1].trial_id
    return (opening(log, d[JUDGED:], slow=at_kappa[JUDGED:]) if opened else log), identity


def entered(log: TrialLog, d: np.ndarray, *, slow: np.ndarray | None = None, settings: Any = None) -> TrialLog:
    """The log with a trial over the first sessions, as many as `d` has."""
    return log.append(
        settings=settings or {},
        feature_hash="f",
        code_hash="c",
        sessions=DAYS[: len(d)],
        excess=d,
        excess_at_kappa=d if slow is None else slow,
    )


def opening(log: TrialLog, d: np.ndarray = GOOD[JUDGED:], *, slow: np.ndarray | None = None, days: np.ndarray = DAYS[JUDGED:]) -> TrialLog:
    """The log with the holdout opened for its last trial."""
    return log.open_holdout(trial=log.trials[-1].trial_id, sessions=days, excess=d, excess_at_kappa=d if slow is None else slow)


def before_kappa(log: TrialLog, *, trials: int) -> TrialLog:
    """The log as it would read if its first `trials` had been logged before d at kappa was."""
    entries: list[TrialEntry] = []
    for number, entry in enumerate(log.entries):
        old = replace(entry, excess_at_kappa=None) if number < trials else entry
        entries.append(replace(old, previous=entries[-1].hash if entries else entry.previous))
    return TrialLog(tuple(entries))


def result(d: np.ndarray = GOOD, *, trial: str, **changes: object) -> TrialResult:
    """What is not given against equal weight at kappa is as it is against equal weight daily."""
    excess = d[:JUDGED]
    values = {
        "trial": trial,
        "sessions": DAYS[:JUDGED],
        "fold": np.repeat(np.arange(FOLDS), YEAR),
        "excess": excess,
        "excess_stressed": excess - 1e-5,
        "seeds_stressed": np.tile(excess - 1e-5, (10, 1)),
        "behaviour": SANE,
        "turnover_at_kappa": 0.01,
    } | changes
    same = {f"{name}_at_kappa": values[name] for name in ("excess", "excess_stressed", "seeds_stressed")}
    return TrialResult(**(same | values))


LOG, TRIAL = logged()


def refusals(found: GateVerdict) -> list[str]:
    return [check.name for check in found.checks if not check.passed]


def judge(d: np.ndarray = GOOD, *, log: TrialLog = LOG, bar: GateThresholds = BAR, **changes: object) -> GateVerdict:
    return gate_verdict(result(d, **({"trial": log.trials[-1].trial_id} | changes)), log=log, bar=bar)


class TestGate:
    def test_an_edge_passes_and_says_why(self):
        found = judge()
        assert found.passed, found.reasons
        assert all(reason.startswith("passed: ") for reason in found.reasons)
        assert found.reasons[1] == "passed: 8 folds, 1600 sessions out of sample and 10 seeds, at least 8, 1500 and 10 are needed"
        assert found.numbers["information_ratio"] == pytest.approx(2.0, rel=1e-3)
        assert found.numbers["excess_stressed_bp_per_year"] == pytest.approx(2.0 * 300 - 25.2, rel=1e-3)
        assert found.numbers["holdout_openings"] == 1
        again = judge()
        assert (again.reasons, again.numbers) == (found.reasons, found.numbers)

    def test_no_edge_is_refused_with_the_refusals_first(self):
        d = series(0.0, seed=2)
        found = judge(d, log=logged(d)[0])
        assert refusals(found) == ["luck", "stressed costs", "slow equal weight", "folds", "seeds", "holdout"]
        assert [reason.split(":")[0] for reason in found.reasons] == ["refused"] * 6 + ["passed"] * 9
        assert re.search(r"with probability 0\.\d+ \(t .*\) against equal weight daily and 0\.\d+ \(t .*\) against", found.reasons[0])

    @pytest.mark.parametrize(
        ("changes", "name", "words"),
        [
            ({"fold": np.repeat(np.arange(7), [400, *[200] * 6])}, "evidence", "7 folds, 1600 sessions"),
            ({"seeds_stressed": np.tile(GOOD[:JUDGED], (9, 1))}, "evidence", "and 9 seeds"),
            ({"excess_stressed": GOOD[:JUDGED] * 0}, "stressed costs", "at twice the cost it grows +0 bp per year"),
            ({"excess_stressed": np.where(np.arange(JUDGED) < 800, 1e-3, -1e-5)}, "folds", "in 4 of 8 folds, at least 62.5%"),
            (
                {"seeds_stressed": np.vstack([np.tile(GOOD[:JUDGED], (7, 1)), -np.tile(GOOD[:JUDGED], (3, 1))])},
                "seeds",
                "7 of 10 seeds alone",
            ),
            ({"behaviour": replace(SANE, turnover=0.11)}, "turnover", "turnover is 11.00% of equity per day, at most 10.00%"),
            ({"turnover_at_kappa": 0.0112}, "pace", "is 1.00% of equity per day, equal weight's at its own kappa 1.12%: below 1.01%"),
            ({"turnover_at_kappa": np.nan}, "pace", "below nan%"),
            ({"behaviour": replace(SANE, effective_n=2.5)}, "concentration", "2.5 effective names of 8, at least 2.7"),
            ({"behaviour": replace(SANE, score_range=1e-5)}, "constant", "scores move by 1e-05"),
            ({"behaviour": replace(SANE, turnover=np.nan)}, "turnover", "turnover is nan%"),
            ({"behaviour": replace(SANE, effective_n=np.nan)}, "concentration", "nan effective names"),
            ({"excess_stressed": GOOD[:JUDGED] * np.nan}, "stressed costs", "nan bp per year"),
            (
                {"excess_stressed_at_kappa": -GOOD[:JUDGED]},
                "slow equal weight",
                "against equal weight rebalanced with its own kappa, it must be above 0",
            ),
            ({"excess_stressed_at_kappa": GOOD[:JUDGED] * np.nan}, "slow equal weight", "nan bp per year"),
            ({"excess_stressed_at_kappa": np.where(np.arange(JUDGED) < 800, 1e-3, -1e-5)}, "folds", "in 4 of 8 folds"),
            (
                {"seeds_stressed_at_kappa": np.vstack([np.tile(GOOD[:JUDGED], (7, 1)), -np.tile(GOOD[:JUDGED], (3, 1))])},
                "seeds",
                "7 of 10 seeds alone are ahead of both equal weights",
            ),
            ({"excess_at_kappa": GOOD[:JUDGED] + 1e-6}, "logged", "differs from the one first logged"),
            ({"excess": GOOD[:JUDGED] + 1e-6}, "logged", "differs from the one first logged"),
            ({"against_incumbent": GOOD[:62]}, "incumbent", "62 sessions follow both training ends, at least 63"),
            ({"against_incumbent": GOOD[:300] * np.nan}, "incumbent", "300 sessions follow"),
            ({"against_incumbent": series(-1.0, seed=4)}, "incumbent", "against the incumbent -300 bp per year over 1852 sessions"),
        ],
    )
    def test_one_thing_wrong_is_enough(self, changes, name, words):
        found = judge(**changes)
        assert not found.passed
        assert name in refusals(found)
        assert words in next(check.sentence for check in found.checks if check.name == name)
        assert found.reasons[0].startswith("refused: ")

    def test_five_folds_and_eight_seeds_ahead_are_enough(self):
        stressed = np.where(np.arange(JUDGED) < 1000, 1e-3, -1e-5)
        seeds = np.vstack([np.tile(GOOD[:JUDGED], (8, 1)), -np.tile(GOOD[:JUDGED], (2, 1))])
        assert judge(excess_stressed=stressed, seeds_stressed=seeds, against_incumbent=GOOD[:JUDGED]).passed

    def test_too_few_sessions_and_underpowered_are_refused(self):
        short = GOOD[: YEAR * 3]
        log = entered(TrialLog(), short)
        found = gate_verdict(
            TrialResult(
                trial=log.trials[0].trial_id,
                sessions=DAYS[: YEAR * 3],
                fold=np.repeat(np.arange(3), YEAR),
                excess=short,
                excess_at_kappa=short,
                excess_stressed=short,
                excess_stressed_at_kappa=short,
                seeds_stressed=np.tile(short, (2, 1)),
                seeds_stressed_at_kappa=np.tile(short, (2, 1)),
                behaviour=SANE,
                turnover_at_kappa=0.01,
            ),
            log=log,
            bar=BAR,
        )
        assert {"evidence", "power", "holdout"} <= set(refusals(found))
        assert any(reason.startswith("refused: underpowered, 600 sessions find an information ratio of") for reason in found.reasons)

    def test_a_policy_that_is_slow_equal_weight_is_refused_in_words(self):
        nothing = np.zeros(JUDGED)
        log = entered(TrialLog(), GOOD[:JUDGED], slow=nothing)
        found = judge(log=log, excess_at_kappa=nothing, excess_stressed_at_kappa=nothing)
        assert {"power", "luck"} <= set(refusals(found))
        (reason,) = [reason for reason in found.reasons if "underpowered" in reason]
        assert "and none (it does not differ) against equal weight at its own kappa" in reason
        assert "nan" not in reason

    def test_an_unlogged_trial_is_refused_and_a_broken_log_raises(self):
        found = judge(trial="nobody")
        assert {"logged", "holdout"} <= set(refusals(found))
        broken = TrialLog((replace(LOG.entries[0], excess=GOOD[:JUDGED] * 2), *LOG.entries[1:]))
        with pytest.raises(TrialLogError, match="line 2: follows"):
            judge(log=broken)

    def test_luck_counts_every_trial(self):
        d = series(0.8, seed=3)
        alone, among = judge(d, log=logged(d)[0]), judge(d, log=logged(d, others=30)[0])
        assert "luck" not in refusals(alone)
        assert "luck" in refusals(among)
        assert among.numbers["reality_check_p"] > 3 * alone.numbers["reality_check_p"]
        assert among.numbers["detectable_ir_among_trials"] > alone.numbers["detectable_ir_among_trials"]
        assert among.numbers["detectable_ir"] == alone.numbers["detectable_ir"]

    def test_overfitting_needs_columns_and_refuses_selection_that_does_not_last(self):
        assert "does not apply" in next(reason for reason in judge().reasons if "overfitting" in reason)
        few = judge(log=logged(others=6)[0])
        assert refusals(few) == ["overfitting"]
        assert "7 of 7 logged configurations share 1600 sessions, at least 8 configurations" in few.reasons[0]
        assert judge(log=logged(others=7)[0]).passed
        null = series(0.0, seed=5)
        noise = judge(null, log=logged(null, others=9)[0])
        assert noise.numbers["cscv_loss_share"] > 0.25
        assert "overfitting" in refusals(noise)

    def test_a_trial_of_other_sessions_counts_for_luck_but_is_no_column(self):
        log = TrialLog()
        for number in range(8):
            log = entered(log, series(0, seed=number)[:300], settings={"q": number})
        log = entered(log, GOOD[:JUDGED])
        found = judge(log=opening(log))
        assert refusals(found) == ["overfitting"]
        assert "1 of 9 logged configurations share 1600 sessions" in found.reasons[0]
        assert found.numbers["reality_check_critical_t"] > 2.3

    def test_a_configuration_judged_again_on_later_data_was_not_chosen_from(self):
        """It is charged by the Reality Check, and no column of the selection."""
        log = TrialLog()
        for live_start, last in (("2027-01-01", JUDGED - 63), ("2027-04-01", JUDGED)):
            settings = {"training": {"live_start": live_start, "folds": 8}}
            log = entered(log, GOOD[:last], settings=settings)
        found = judge(log=opening(log))
        assert found.passed, found.reasons
        assert "one configuration logged, nothing was selected" in " ".join(found.reasons)
        assert "the best of 2 trials" in " ".join(found.reasons)

    @pytest.mark.parametrize(("earlier", "columns"), [(63, 8), (500, 1)])
    def test_configurations_judged_earlier_are_compared_on_the_sessions_that_all_share(self, earlier, columns):
        log = TrialLog()
        for number in range(7):
            d = series(0, seed=number)[: JUDGED - earlier]
            log = entered(log, d, settings={"q": number})
        log = entered(log, GOOD[:JUDGED])
        found = judge(log=opening(log))
        assert found.numbers["cscv_columns"] == columns
        assert found.passed == (columns == 8), found.reasons

    @pytest.mark.parametrize(
        ("holdout", "words"),
        [
            (None, "the holdout is not opened: it is once per configuration"),
            ((DAYS[JUDGED : JUDGED + 251], GOOD[JUDGED : JUDGED + 251]), "shows 251 sessions"),
            ((DAYS[JUDGED - 1 : -1], GOOD[JUDGED:]), "it must be after the last judged session"),
            ((DAYS[JUDGED:], -GOOD[JUDGED:]), "it grows -600 (bound"),
            ((DAYS[JUDGED:], 4 * series(0.05, seed=6)[JUDGED:]), "it grows +60 (bound"),
        ],
    )
    def test_the_holdout_is_a_veto(self, holdout, words):
        log = logged(opened=False)[0]
        if holdout is not None:
            log = opening(log, holdout[1], days=holdout[0])
        found = judge(log=log)
        assert refusals(found) == ["holdout"]
        assert words in found.reasons[0]

    def test_parts_that_do_not_fit_are_an_error(self):
        with pytest.raises(GateError, match=r"1600 sessions need series of as many; were fold \(3,\)"):
            result(trial=TRIAL, fold=np.arange(3))
        with pytest.raises(GateError, match=r"seeds_stressed \(10, 5\)"):
            result(trial=TRIAL, seeds_stressed=np.zeros((10, 5)))
        with pytest.raises(GateError, match=r"seeds_stressed \(10, 1600\), seeds_stressed_at_kappa \(9, 1600\)"):
            result(trial=TRIAL, seeds_stressed_at_kappa=np.zeros((9, JUDGED)))

    def test_no_check_is_no_pass(self):
        assert not GateVerdict("nothing", ()).passed
        assert GateVerdict("one", (Check("a", True, "b"),)).passed


class TestBothEqualWeights:
    """What slow trading alone saves or gains is in d against equal weight daily, and not in d against equal weight at kappa."""

    NOTHING = series(0.0, seed=8)

    def test_an_edge_over_one_of_them_is_luck_and_p_is_the_larger(self):
        d, slow = GOOD, self.NOTHING
        for one, other, name in ((d, slow, "reality_check_p_at_kappa"), (slow, d, "reality_check_p")):
            log = logged(one, slow=other)[0]
            found = judge(one, log=log, excess_at_kappa=other[:JUDGED])
            assert "luck" in refusals(found)
            assert found.numbers[name] > 0.05
            assert min(found.numbers["reality_check_p"], found.numbers["reality_check_p_at_kappa"]) < 0.01

    def test_d_at_kappa_that_never_varies_is_neither_detectable_nor_lucky(self):
        """Equal weight at kappa itself, however much it gains over equal weight daily."""
        still = np.zeros(JUDGED + 252)
        log = logged(slow=still)[0]
        found = judge(log=log, excess_at_kappa=still[:JUDGED])
        assert {"power", "luck", "holdout"} <= set(refusals(found))
        assert found.numbers["reality_check_p_at_kappa"] == 1.0

    @pytest.mark.parametrize("trials", [1, 30])
    def test_trials_from_before_d_at_kappa_stay_charged_for_in_both_checks(self, trials):
        d = series(0.8, seed=3)
        whole = logged(d, others=30, opened=False)[0]
        old = before_kappa(whole, trials=trials)
        old.verify()
        found = [judge(d, log=log).numbers for log in (whole, old)]
        for name in ("reality_check_p", "reality_check_p_at_kappa", "reality_check_critical_t_at_kappa"):
            assert found[0][name] == found[1][name]  # the same d against both here, so the stand-in is what they would have had
        assert found[1]["reality_check_p_at_kappa"] > 0.05

    def test_a_trial_or_an_opening_from_before_d_at_kappa_cannot_pass(self):
        log = before_kappa(logged()[0], trials=2)
        found = judge(log=log)
        assert refusals(found) == ["luck", "holdout"]
        assert (
            found.reasons[0] == f"refused: trial {log.trials[0].trial_id[:12]} was logged without d against equal weight at its own kappa"
        )
        assert "opened without d" in found.reasons[1]

    def test_configurations_from_before_d_at_kappa_are_no_columns_there(self):
        """Their d against equal weight daily may hold what slow trading saved, and would be chosen for it."""
        assert judge(log=logged(others=7)[0]).passed
        found = judge(log=before_kappa(logged(others=7)[0], trials=1))
        assert refusals(found) == ["overfitting"]
        assert "7 of 8 logged configurations share 1600 sessions with d against equal weight at their own kappa" in found.reasons[0]

    def test_the_best_of_slow_traders_that_choose_nothing_is_overfitting(self):
        """Each saves as much against equal weight daily, and none has anything against equal weight at kappa."""
        log = TrialLog()
        for number in range(10):
            log = entered(log, GOOD[:JUDGED], slow=series(0.0, seed=number)[:JUDGED], settings={"n": number})
        found = judge(log=opening(log), excess_at_kappa=log.trials[-1].excess_at_kappa)
        assert found.numbers["cscv_loss_share"] == 0
        assert found.numbers["cscv_loss_share_at_kappa"] > 0.25
        assert {"luck", "overfitting"} <= set(refusals(found))

    def test_the_holdout_vetoes_against_either(self):
        slow = np.where(np.arange(len(GOOD)) < JUDGED, GOOD, -GOOD)
        for d, at_kappa, numbers in ((GOOD, slow, ("+600", "-600")), (slow, GOOD, ("-600", "+600"))):
            found = judge(d, log=logged(d, slow=at_kappa)[0], excess_at_kappa=at_kappa[:JUDGED])
            assert refusals(found) == ["holdout"]
            assert re.search(rf"grows \{numbers[0]} .* daily and \{numbers[1]} .* at its own kappa", found.reasons[0])


class TestRefitCheck:
    WEIGHTS = np.full((63, 8), 0.125)

    def check(self, **changes: object) -> GateVerdict:
        values = {
            "trial": TRIAL,
            "configuration": TRIAL,
            "weights": self.WEIGHTS,
            "incumbent_weights": self.WEIGHTS,
            "excess": np.zeros(80),
            "tracking_error": DEVIATION,
            "behaviour": SANE,
        } | changes
        same = {f"{name}_at_kappa": values[name] for name in ("excess", "tracking_error")}
        return refit_check(RefitResult(**(same | values)), bar=BAR)

    def shifted(self, by: float) -> np.ndarray:
        weights = self.WEIGHTS.copy()
        weights[40, :2] += [by / 2, -by / 2]
        return weights

    def test_the_same_configuration_near_the_incumbent_passes(self):
        assert self.check().passed
        assert self.check(weights=self.shifted(0.249)).passed
        assert self.check(excess=np.r_[np.full(50, -1.0), np.full(63, -1.99 * DEVIATION / np.sqrt(63))]).passed

    @pytest.mark.parametrize(
        ("changes", "name", "words"),
        [
            ({"trial": "0" * 64}, "configuration", "it is trial 000000000000"),
            ({"excess": np.r_[np.nan, np.zeros(80)]}, "finite", "not finite"),
            (
                {"excess": np.full(63, -2.01 * DEVIATION / np.sqrt(63))},
                "recent",
                "over the last 63 sessions (63 are needed) d adds up to -",
            ),
            ({"excess": np.zeros(62)}, "recent", "the last 62 sessions (63 are needed)"),
            ({"excess_at_kappa": np.full(80, -2.01 * DEVIATION / np.sqrt(63))}, "recent", "against equal weight at its own kappa"),
            ({"excess_at_kappa": np.full(80, np.nan)}, "finite", "not finite"),
            ({"tracking_error_at_kappa": np.nan}, "recent", "not below +nan"),
            ({"tracking_error": np.nan}, "recent", "not below +nan"),
            ({"behaviour": replace(SANE, turnover=0.5)}, "turnover", "50.00%"),
            ({"weights": WEIGHTS[:0], "incumbent_weights": WEIGHTS[:0]}, "distance", "by nan (L1)"),
        ],
    )
    def test_one_thing_wrong_is_enough(self, changes, name, words):
        found = self.check(**changes)
        assert name in refusals(found)
        assert words in next(check.sentence for check in found.checks if check.name == name)

    def test_one_session_far_from_the_incumbent_is_enough(self):
        found = self.check(weights=self.shifted(0.251))
        assert refusals(found) == ["distance"]
        assert found.reasons[0] == "refused: weights differ from the incumbent's by 0.251 (L1) at most over 63 sessions, 0.250 is allowed"
        broken = self.WEIGHTS.copy()
        broken[3, 3] = np.nan
        assert refusals(self.check(weights=broken)) == ["finite", "distance"]

    def test_weights_of_other_names_are_an_error(self):
        with pytest.raises(GateError, match=r"same sessions, was \(80,\) and \(79,\) at kappa"):
            self.check(excess_at_kappa=np.zeros(79))
        with pytest.raises(GateError, match=r"\(K, A\) as the incumbent's \(63, 8\), were \(63, 7\)"):
            self.check(weights=self.WEIGHTS[:, :7])
