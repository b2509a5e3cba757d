"""The gate's statistics on planted truths: what is true is known, so how often they are wrong can be counted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.signal import lfilter

from trading_env.evaluation import statistics as truth
from trading_env.evaluation.trials import TrialLog

DAILY = hnp.arrays(np.float64, st.integers(30, 80), elements=st.integers(-10_000, 10_000).map(lambda n: n * 1e-6)).filter(
    lambda days: days.std() > 1e-5
)


def dependent(phi: float, *, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """(sessions, ...) of mean 0 and unit variance, each day correlated by `phi` with the one before."""
    shocks = np.random.default_rng(seed).normal(size=(shape[0] + 100, *shape[1:]))
    return lfilter([math.sqrt(1 - phi**2)], [1, -phi], shocks, axis=0)[100:]


@given(days=DAILY)
@settings(deadline=None, max_examples=30)
def test_one_trial_deflates_nothing_and_its_own_ratio_is_a_coin(days):
    ratio = truth.sharpe(days)
    assert truth.deflated_sharpe(days, trial_sharpes=[ratio]) == truth.probabilistic_sharpe(days)
    assert truth.probabilistic_sharpe(days, threshold=ratio) == pytest.approx(0.5)
    assert truth.probabilistic_sharpe(days, threshold=ratio - 0.1) > 0.5 > truth.probabilistic_sharpe(days, threshold=ratio + 0.1)


@given(days=DAILY, variance=st.floats(1e-4, 1.0), trials=st.integers(1, 500))
@settings(deadline=None, max_examples=30)
def test_more_trials_expect_a_better_best(days, variance, trials):
    few, more = (truth.expected_max_sharpe(trials=n, variance=variance) for n in (trials, trials + 1))
    assert more > few
    assert truth.probabilistic_sharpe(days, threshold=more) <= truth.probabilistic_sharpe(days, threshold=few)


@given(days=DAILY, scale=st.sampled_from([1e-3, 0.5, 100.0]), shift=st.floats(-0.01, 0.01))
@settings(deadline=None, max_examples=30)
def test_units_move_bounds_and_leave_statistics_alone(days, scale, shift):
    low, high = truth.mean_interval(days, draws=200)
    assert truth.mean_interval(days * scale + shift, draws=200) == pytest.approx((low * scale + shift, high * scale + shift), abs=1e-9)
    assert low < high
    assert truth.long_run_deviation(days * scale + shift) == pytest.approx(truth.long_run_deviation(days) * scale, rel=1e-5)


@given(table=hnp.arrays(np.float64, (60, 4), elements=st.floats(-0.01, 0.01)))
@settings(deadline=None, max_examples=30)
def test_a_further_trial_never_helps(table):
    table = table + np.random.default_rng(0).normal(0, 1e-3, table.shape)
    p = [truth.reality_check(table[:, :n], column=0, draws=200).p_value for n in (1, 2, 3, 4)]
    assert p == sorted(p)
    assert all(0 < value <= 1 for value in p)


@given(
    values=hnp.arrays(np.float64, st.integers(2, 20), elements=st.floats(-1, 1)),
    name=st.sampled_from(["", "kappa", '"quoted"', "größe", "\n\u2028", "😀"]),
    level=st.floats(0, 1),
)
@settings(deadline=None, max_examples=30)
def test_any_trial_reads_back_as_it_was_written(values, name, level):
    days = np.datetime64("2020-01-01", "D") + np.arange(len(values))
    log = TrialLog().append(settings={name: level}, feature_hash=name, code_hash="c", sessions=days, excess=values, excess_at_kappa=values)
    back = TrialLog.from_lines(log.to_lines(), head=log.head)
    assert back.trials[0].excess.tobytes() == values.tobytes()
    assert back.trials[0].trial_id == log.trials[0].trial_id


@pytest.mark.parametrize(("phi", "sessions"), [(0.0, 750), (0.3, 750), (-0.2, 750), (0.3, 252)])
def test_the_interval_covers_the_mean_as_often_as_it_says(phi, sessions):
    days = dependent(phi, shape=(sessions, 400), seed=11)
    intervals = [truth.mean_interval(column, level=0.9, draws=500) for column in days.T]
    covered = np.mean([low < 0 < high for low, high in intervals])
    assert 0.84 <= covered <= 0.945  # standard error 0.015; a mean block of 20 shortens a strong dependence a little


def test_without_the_blocks_it_would_not():
    days = dependent(0.3, shape=(750, 400), seed=11)
    covered = np.mean([low < 0 < high for low, high in (truth.mean_interval(d, level=0.9, draws=500, mean_block=1) for d in days.T)])
    assert covered < 0.82


@pytest.mark.parametrize("sessions", [63, 252])
def test_the_long_run_variance_of_a_short_series_is_not_too_small(sessions):
    days = dependent(0.0, shape=(sessions, 500), seed=12)
    assert np.mean([truth.long_run_deviation(column) ** 2 for column in days.T]) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("trials", "phi"), [(1, 0.0), (10, 0.0), (10, 0.2)])
def test_the_reality_check_refuses_noise_nineteen_times_in_twenty(trials, phi):
    worlds = [dependent(phi, shape=(400, trials), seed=1000 + seed) for seed in range(300)]
    passed = np.mean([truth.reality_check(w, column=int((w.mean(0) / w.std(0)).argmax()), draws=400).p_value <= 0.05 for w in worlds])
    assert 0.025 <= passed <= 0.095


def test_the_reality_check_finds_a_planted_edge_among_twenty():
    edge = np.r_[2.0, np.zeros(19)] / math.sqrt(252)
    worlds = [dependent(0.0, shape=(2016, 20), seed=seed) + edge for seed in range(12)]
    assert np.mean([truth.reality_check(world, column=0, draws=500).p_value <= 0.05 for world in worlds]) >= 0.9


@pytest.mark.parametrize("trials", [6, 9])
def test_noise_is_overfit_half_of_the_time(trials):
    found = [truth.cscv(dependent(0.0, shape=(400, trials), seed=2000 + seed), blocks=8) for seed in range(150)]
    assert np.mean([f.pbo for f in found]) == pytest.approx(0.5, abs=0.06)
    assert np.mean([f.loss_share for f in found]) == pytest.approx(0.5, abs=0.06)


def test_a_planted_edge_is_not_overfit_and_the_more_the_less():
    noise = dependent(0.0, shape=(2016, 10), seed=3)
    found = [truth.cscv(noise + np.r_[ir, np.zeros(9)] / math.sqrt(252)) for ir in (0.0, 1.0, 3.0)]
    assert [f.pbo for f in found] == sorted((f.pbo for f in found), reverse=True)
    assert found[-1].pbo < 0.005
    assert found[-1].loss_share < 0.005


def test_the_detectable_ratio_is_detected_four_times_in_five():
    noise = dependent(0.2, shape=(1500, 300), seed=4)
    noise = (noise - noise.mean()) / noise.std()
    true_deviation = math.sqrt((1 + 0.2) / (1 - 0.2))
    edge = np.median([truth.detectable_ir(column) for column in noise.T]) / math.sqrt(252)
    t = (noise.mean(axis=0) + edge) * math.sqrt(1500) / true_deviation
    assert np.mean(t > 1.645) == pytest.approx(0.8, abs=0.06)
