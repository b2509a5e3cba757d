"""Each statistic against its formula by hand, and what it refuses."""

from __future__ import annotations

import math
from itertools import combinations
from statistics import NormalDist

import numpy as np
import pytest

from trading_env.evaluation import statistics as st

Z = NormalDist()
NOISE = np.random.default_rng(0).normal(0, 0.01, (1000, 8))
DAYS = NOISE[:, 0]


class TestBootstrap:
    def test_blocks_have_the_length_asked_for_and_wrap_around(self):
        rows = st.stationary_indices(50, draws=2000, mean_block=10, rng=np.random.default_rng(1))
        assert rows.shape == (2000, 50)
        assert set(np.unique(rows)) == set(range(50))
        follows = rows[:, 1:] == (rows[:, :-1] + 1) % 50
        assert follows.mean() == pytest.approx(0.9 + 0.1 / 50, abs=0.005)
        assert ((rows[:, :-1] == 49) & (rows[:, 1:] == 0)).sum() > 1000
        plain = st.stationary_indices(50, draws=2000, mean_block=1, rng=np.random.default_rng(1))
        assert (plain[:, 1:] == (plain[:, :-1] + 1) % 50).mean() == pytest.approx(1 / 50, abs=0.005)

    def test_means_are_those_of_the_rows_drawn_and_leave_out_what_is_missing(self):
        values = NOISE[:40, :3].copy()
        values[:15, 1] = np.nan
        values[1:, 2] = np.nan
        rng = np.random.default_rng(5)
        rows = np.concatenate([st.stationary_indices(40, draws=size, mean_block=4, rng=rng) for size in (256, 44)])
        means = st.resampling(40, draws=300, mean_block=4, seed=5).means(values)
        np.testing.assert_allclose(means[:, 0], values[rows, 0].mean(axis=1), atol=1e-15)
        np.testing.assert_allclose(means[:, 1], [np.nanmean(values[row, 1]) for row in rows], atol=1e-15)
        np.testing.assert_allclose(means[:, 2], values[0, 2], atol=1e-15)  # drawn or not, it is all there is

    @pytest.mark.parametrize(("block", "size"), [(1, 1000), (5, 1000), (20, 1000), (20, 50)])
    def test_the_long_run_deviation_is_what_the_draws_show(self, block, size):
        slow = np.convolve(DAYS, np.ones(5), mode="same")[:size]
        drawn = st.resampling(size, draws=5000, mean_block=block, seed=2).means(slow[:, None]).std() * math.sqrt(size)
        weights = 1 + 2 * sum((1 - i / size) * (1 - 1 / block) ** i for i in range(1, size))
        assert st.long_run_deviation(slow, mean_block=block) == pytest.approx(drawn / math.sqrt(1 - weights / size), rel=0.03)

    def test_a_block_of_one_is_the_textbook(self):
        assert st.long_run_deviation(DAYS, mean_block=1) == pytest.approx(DAYS.std(ddof=1))
        low, high = st.mean_interval(DAYS, level=0.9, mean_block=1, draws=8_000)
        half = Z.inv_cdf(0.95) * DAYS.std(ddof=1) / math.sqrt(1000)
        assert [low, high] == pytest.approx([DAYS.mean() - half, DAYS.mean() + half], abs=0.04 * half)

    def test_the_bound_is_one_end_of_the_interval_and_the_same_again_for_a_seed(self):
        assert st.lower_bound(DAYS, confidence=0.9) == st.mean_interval(DAYS, level=0.8)[0]
        st.resampling.cache_clear()
        assert st.lower_bound(DAYS, confidence=0.9, seed=3) == st.lower_bound(DAYS.copy(), confidence=0.9, seed=3)
        assert st.lower_bound(DAYS, seed=3) != st.lower_bound(DAYS, seed=4)
        assert st.lower_bound(DAYS, confidence=0.95) < st.lower_bound(DAYS, confidence=0.9) < DAYS.mean()

    def test_what_cannot_be_resampled_is_refused(self):
        for days in (np.array([0.1]), np.array([0.1, np.nan]), NOISE):
            with pytest.raises(st.StatisticError, match="two or more sessions, all finite"):
                st.lower_bound(days)
        with pytest.raises(st.StatisticError, match="mean_block must be 1 or more, were 10, 5 and 0"):
            st.stationary_indices(10, draws=5, mean_block=0, rng=np.random.default_rng(0))
        with pytest.raises(st.StatisticError, match="at most 65535 sessions"):
            st.resampling(70_000)


class TestRealityCheck:
    def test_one_trial_is_a_one_sided_test(self):
        days = DAYS - DAYS.mean() + 2 * DAYS.std(ddof=1) / math.sqrt(1000)
        found = st.reality_check(days[:, None], column=0, mean_block=1, draws=8_000)
        assert found.t == found.best_t == pytest.approx(2.0, rel=0.02)
        assert found.p_value == pytest.approx(1 - Z.cdf(2.0), rel=0.15)
        assert found.critical == pytest.approx(Z.inv_cdf(0.95), rel=0.03)

    def test_the_statistic_is_the_mean_over_its_error_and_a_short_trial_is_not_flattered(self):
        days = DAYS[:63] + 0.003
        found = st.reality_check(days[:, None], column=0)
        assert found.t == pytest.approx(days.mean() * math.sqrt(63) / st.long_run_deviation(days), rel=0.03)

    def test_every_further_trial_costs_and_eight_cost_what_sidak_says(self):
        planted = NOISE - NOISE.mean(axis=0)
        planted[:, 0] += 2.5 * 0.01 / math.sqrt(1000)
        alone, many = (st.reality_check(planted[:, :n], column=0, mean_block=1).p_value for n in (1, 8))
        assert many == pytest.approx(1 - (1 - alone) ** 8, rel=0.25)

    def test_a_poor_trial_does_not_pass_on_a_good_one(self):
        table = NOISE - NOISE.mean(axis=0)
        table[:, 3] += 0.003
        poor, good = st.reality_check(table, column=0), st.reality_check(table, column=3)
        assert poor.p_value > 0.9
        assert good.p_value < 0.001
        assert poor.best_p_value == good.best_p_value == good.p_value

    def test_the_unit_of_a_trial_does_not_matter(self):
        scaled = NOISE * np.array([1, 100, 1, 1, 1, 1, 1, 0.01])
        one, other = st.reality_check(NOISE, column=2), st.reality_check(scaled, column=2)
        assert one.t == pytest.approx(other.t)
        assert one.p_value == pytest.approx(other.p_value, abs=1e-3)

    def test_trials_of_other_sessions_and_trials_that_never_vary_are_trials_too(self):
        table = NOISE[:, :3].copy()
        table[500:, 1] = np.nan
        table[:, 2] = 1e-4
        found = st.reality_check(table, column=0)
        assert found.trials == 3
        assert math.isfinite(found.t)
        still = st.reality_check(table, column=2)
        assert (still.t, still.p_value) == (0.0, pytest.approx(1.0, abs=0.35))
        assert st.reality_check(table[:, 2:], column=0).p_value == 1.0

    def test_shapes_that_are_no_log_are_refused(self):
        with pytest.raises(st.StatisticError, match=r"N > column = 8, was \(1000, 8\)"):
            st.reality_check(NOISE, column=8)
        short = NOISE.copy()
        short[1:, 4] = np.nan
        with pytest.raises(st.StatisticError, match="the shortest of 8 has 1"):
            st.reality_check(short, column=0)


class TestSharpe:
    RETURNS = np.array([0.01, -0.02, 0.015, 0.0, -0.005, 0.03, 0.004, 0.011])

    def test_psr_by_hand(self):
        x = self.RETURNS
        ratio, m, s = x.mean() / x.std(ddof=1), x.mean(), x.std()
        skewness, kurtosis = ((x - m) ** 3).mean() / s**3, ((x - m) ** 4).mean() / s**4
        error = math.sqrt((1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2) / 7)
        assert st.sharpe_error(x) == pytest.approx(error)
        assert st.probabilistic_sharpe(x, threshold=0.1) == pytest.approx(Z.cdf((ratio - 0.1) / error))
        assert st.probabilistic_sharpe(x, threshold=ratio) == pytest.approx(0.5)

    def test_the_best_of_n_by_hand_and_near_the_simulated_one(self):
        g = 0.5772156649015329
        by_hand = 0.02 * ((1 - g) * Z.inv_cdf(0.9) + g * Z.inv_cdf(1 - 1 / (10 * math.e)))
        assert st.expected_max_sharpe(trials=10, variance=4e-4) == pytest.approx(by_hand)
        best = np.random.default_rng(1).normal(0, 0.02, (20_000, 10)).max(axis=1).mean()
        assert by_hand == pytest.approx(best, rel=0.04)

    def test_one_trial_deflates_nothing_and_more_trials_more(self):
        x = self.RETURNS
        assert st.deflated_sharpe(x, trial_sharpes=[st.sharpe(x)]) == st.probabilistic_sharpe(x)
        pair = [0.1, -0.1]
        values = [st.deflated_sharpe(x, trial_sharpes=pair * n) for n in (1, 2, 5, 50)]
        assert values == sorted(values, reverse=True)
        assert values[0] < st.probabilistic_sharpe(x)

    def test_a_trial_that_never_varies_was_tried_as_well(self):
        x, flat = self.RETURNS, st.sharpe(np.zeros(10))
        assert math.isnan(flat)
        charged = st.deflated_sharpe(x, trial_sharpes=[st.sharpe(x), flat, flat, flat])
        assert charged == st.deflated_sharpe(x, trial_sharpes=[st.sharpe(x), 0.0, 0.0, 0.0])
        assert charged < st.probabilistic_sharpe(x)

    def test_returns_that_do_not_vary_have_no_ratio(self):
        assert math.isnan(st.sharpe(np.full(10, 0.1)))
        assert math.isnan(st.probabilistic_sharpe(np.zeros(10)))
        mean = 4 / 3 * 0.4 * math.sqrt(10 / 9)  # of the two-point law whose skewness takes all of its ratio's error away
        without_error = np.r_[np.full(2, 0.8), np.full(8, -0.2)] + mean
        assert st.sharpe_error(without_error) == pytest.approx(0.0, abs=1e-6)
        assert not st.probabilistic_sharpe(without_error) < 0.999
        with pytest.raises(st.StatisticError, match="trials must be 1 or more"):
            st.expected_max_sharpe(trials=0, variance=1.0)
        with pytest.raises(st.StatisticError, match="variance not negative"):
            st.expected_max_sharpe(trials=2, variance=float("nan"))


class TestCscv:
    def test_against_the_definition_spelt_out(self):
        table = NOISE[:62, :5] + 0.001
        parts = np.array_split(np.arange(62), 4)
        below, losses = [], []
        for chosen in combinations(range(4), 2):
            inside = table[np.concatenate([parts[i] for i in chosen])]
            outside = table[np.concatenate([parts[i] for i in range(4) if i not in chosen])]
            best = int((inside.mean(axis=0) / inside.std(axis=0)).argmax())
            ratios = outside.mean(axis=0) / outside.std(axis=0)
            rank = int((ratios < ratios[best]).sum()) + 1
            below.append(1.0 if rank < 3 else 0.5 if rank == 3 else 0.0)
            losses.append(outside[:, best].mean() <= 0)
        found = st.cscv(table, blocks=4)
        assert (found.splits, found.columns) == (6, 5)
        assert (found.pbo, found.loss_share) == (pytest.approx(np.mean(below)), pytest.approx(np.mean(losses)))

    def test_all_splits_of_sixteen(self):
        assert st.cscv(NOISE).splits == math.comb(16, 8)

    @pytest.mark.parametrize(
        ("table", "blocks"), [(NOISE[:, :1], 16), (NOISE[:31], 16), (NOISE, 15), (np.where(NOISE > 0.02, np.nan, NOISE), 16), (DAYS, 16)]
    )
    def test_what_cannot_be_split_is_refused(self, table, blocks):
        with pytest.raises(st.StatisticError, match=rf"{blocks} blocks \(even\) need finite"):
            st.cscv(table, blocks=blocks)


class TestRest:
    def test_detectable_ir(self):
        years = 1000 / 252
        by_hand = (Z.inv_cdf(0.95) + Z.inv_cdf(0.8)) / math.sqrt(years)
        assert st.detectable_ir(DAYS, mean_block=1) == pytest.approx(by_hand)
        assert st.detectable_ir(DAYS, mean_block=1, critical=3.0) == pytest.approx((3 + Z.inv_cdf(0.8)) / math.sqrt(years))
        slow = np.convolve(DAYS, np.ones(3), mode="same")
        assert st.detectable_ir(slow) > 1.3 * by_hand
        assert math.isnan(st.detectable_ir(np.zeros(100)))

    def test_information_ratio_is_a_years(self):
        assert st.information_ratio(DAYS) == pytest.approx(DAYS.mean() / DAYS.std(ddof=1) * math.sqrt(252))

    @pytest.mark.parametrize(
        ("excess", "cost"),
        [
            ([30, 10, -10], 15.0),
            ([30, 20, 10], 30.0),
            ([30, 10, 0], 20.0),
            ([-1, -2, -3], 0.0),
            ([5, 5, 5], math.inf),
            ([5, 4, 6], math.inf),
        ],
    )
    def test_break_even(self, excess, cost):
        assert st.break_even_cost([0, 10, 20], excess) == pytest.approx(cost)

    @pytest.mark.parametrize(("costs", "excess"), [([0], [1]), ([0, 0], [1, 0]), ([0, 10], [1]), ([0, 10], [1, math.nan])])
    def test_break_even_needs_two_rising_costs(self, costs, excess):
        with pytest.raises(st.StatisticError, match="two or more rising costs"):
            st.break_even_cost(costs, excess)

    def test_spread_over_seeds(self):
        found = st.spread([3.0, 1.0, 2.0, 5.0, 4.0])
        assert found == st.Spread(1.0, 2.0, 3.0, 4.0, 5.0, pytest.approx(math.sqrt(2.5)))
        assert math.isnan(st.spread([1.0]).deviation)
        for values in ([], [1.0, math.nan]):
            with pytest.raises(st.StatisticError, match="one finite value per seed"):
                st.spread(values)


def test_rounding_is_no_difference() -> None:
    """Two books that hold the same but for a last digit: no ratio, no t, and luck does as well with certainty."""
    noise = np.random.default_rng(0).normal(3e-12, 3e-12, 2000)
    assert np.isnan(st.information_ratio(noise))
    assert np.isnan(st.detectable_ir(noise))
    found = st.reality_check(noise[:, None], column=0, draws=200)
    assert (found.t, found.p_value) == (0.0, 1.0)
