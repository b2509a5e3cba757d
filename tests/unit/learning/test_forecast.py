"""The forecast: what its labels are, that neither the future nor a block's own sessions enter, and that its arrays are the library's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from learning import forecast
from learning.forecast import BLOCKS, BOUND, HORIZON, HYPERPARAMETERS, QUARTER, REACH, ForecastError
from tests.markets import market_of, walk
from trading_env.data.market import Market
from trading_env.evaluation.backtest import backtest
from trading_env.evaluation.walk_forward import Fold
from trading_env.simulation.portfolio import Costs, Rules
from trading_env.simulation.trees import Trees

PRICES = ("open", "high", "low", "close")
FEW = HYPERPARAMETERS | {"max_iter": 15}


def planted(*, sessions: int = 700, names: int = 8, strength: float = 0.06, seed: int = 0) -> Market:
    """The last feature returns to 0 within weeks, and returns follow it; three more know nothing. A session opens where one closed."""
    rng = np.random.default_rng(seed)
    beta, size = rng.uniform(0.5, 1.5, names), rng.uniform(0.5, 2.0, names)
    signal = np.zeros((sessions, names))
    for row in range(1, sessions):
        signal[row] = 0.95 * signal[row - 1] + np.sqrt(1 - 0.95**2) * rng.normal(size=names)
    own = 0.012 * size * rng.normal(size=signal.shape)
    own[1:] += 0.012 * size * strength * signal[:-1]
    close = 50 * np.exp(np.cumsum(own + beta * rng.normal(0, 0.01, (sessions, 1)), axis=0))
    features = np.concatenate([rng.normal(size=(sessions, names, 3)), signal[..., None]], axis=-1)
    return market_of(open=np.vstack([close[:1], close[:-1]]), close=close, features=features)


MARKET = planted()


def same(one: Trees, other: Trees) -> bool:
    return all(np.array_equal(values, other.arrays[name]) for name, values in one.arrays.items())


def changed(market: Market, rows: slice, *, features: bool = False) -> Market:
    """The same but for the prices of `rows`, and where asked the features."""
    by = np.exp(np.random.default_rng(5).normal(0, 0.2, market.close[rows].shape))
    values: dict[str, Any] = {}
    for name in PRICES:
        values[name] = getattr(market, name).copy()
        values[name][rows] *= by
    if features:
        values["features"] = market.features.copy()
        values["features"][rows] += 9.0
    return replace(market, **values)


class TestLabels:
    def test_the_return_from_the_next_open_over_21_sessions_less_what_mean_beta_and_volatility_explain(self) -> None:
        row, labels = 200, forecast.neutral_labels(MARKET)
        raw = np.log(MARKET.open[row + 1 + HORIZON] / MARKET.open[row + 1])
        returns = np.diff(np.log(MARKET.close[row - QUARTER : row + 1]), axis=0)
        together = returns.mean(axis=1)
        beta = [np.cov(own, together, ddof=0)[0, 1] / together.var() for own in returns.T]
        exposures = np.column_stack([np.ones(8), beta, returns.std(axis=0)])
        residual = raw - exposures @ np.linalg.lstsq(exposures, raw, rcond=None)[0]
        np.testing.assert_allclose(labels[row], np.clip(residual / residual.std(), -BOUND, BOUND), atol=1e-8)
        assert abs(labels[row] @ exposures).max() < 1e-7

    def test_a_label_is_complete_or_not_there(self) -> None:
        known = np.isfinite(forecast.neutral_labels(MARKET))
        assert known.any(axis=1).tolist() == [QUARTER <= row < len(MARKET) - REACH for row in range(len(MARKET))]
        assert not np.isfinite(forecast.neutral_labels(MARKET.rows(MARKET.sessions[0], MARKET.sessions[QUARTER + REACH - 1]))).any()

    def test_few_names_are_compared_with_their_mean_alone(self) -> None:
        market, row = planted(names=3), 150
        raw = np.log(market.open[row + REACH] / market.open[row + 1])
        np.testing.assert_allclose(forecast.neutral_labels(market)[row], (raw - raw.mean()) / raw.std(), atol=1e-9)

    def test_a_split_is_no_return_and_halts_and_young_names_have_no_label(self) -> None:
        market = walk(sessions=300, assets=7, seed=4)
        labels = forecast.neutral_labels(market)
        assert np.nanmax(np.abs(labels)) <= BOUND
        assert not np.isfinite(labels[~market.tradable]).any()
        listed = int(np.argmax(market.tradable[:, -1]))
        assert not np.isfinite(labels[: listed + QUARTER, -1]).any()
        flat = replace(MARKET, split=np.ones(MARKET.close.shape))
        flat.split[300, 2] = 2.0
        halved = {name: np.where((np.arange(700) >= 300)[:, None] & (np.arange(8) == 2), 0.5, 1.0) * getattr(flat, name) for name in PRICES}
        np.testing.assert_allclose(forecast.neutral_labels(replace(flat, **halved)), forecast.neutral_labels(MARKET), atol=1e-7)

    def test_names_that_move_alike_have_none(self) -> None:
        close = np.tile(50 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, 200)))[:, None], (1, 4))
        same_moves = market_of(open=close, close=close, features=np.zeros((200, 4, 2)))
        with pytest.raises(ForecastError, match="63 returns before and 22 after, those of 2019-01-02 to 2019-10-08 have none"):
            forecast.fit(same_moves)


class TestTrees:
    @hypothesis_settings(max_examples=8, deadline=None)
    @given(seed=st.integers(0, 10_000), rows=st.integers(30, 1500), columns=st.integers(1, 6), decimals=st.integers(0, 9))
    def test_numpy_forecasts_what_the_library_predicts(self, seed: int, rows: int, columns: int, decimals: int) -> None:
        """Rounded values fall on each other, and thresholds between or on them; the thresholds themselves are asked for too."""
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(rows, columns)).round(decimals)
        labels = rng.normal(size=rows) + features[:, 0] * np.abs(features[:, -1])
        leaf = max(rows // 100, 2)
        with threadpool_limits(limits=1, user_api="openmp"):
            model = HistGradientBoostingRegressor(min_samples_leaf=leaf, **HYPERPARAMETERS).fit(features, labels)
        trees = forecast.exported(model)
        asked = np.concatenate([features, 3 * rng.normal(size=(200, columns))])
        nodes = np.unravel_index(rng.integers(0, trees.threshold.size, 200), trees.threshold.shape)
        at = np.clip(trees.threshold[nodes], -1e30, 1e30)
        asked[np.arange(200), trees.feature[nodes]] = np.where(np.arange(200) % 2, at, np.nextafter(at, np.inf))
        with threadpool_limits(limits=1, user_api="openmp"):
            np.testing.assert_allclose(trees.predict(asked), model.predict(asked), rtol=0, atol=1e-9)

    def test_the_number_of_threads_changes_no_bit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The fit takes one; whoever fits by hand, or a library that ignores that, gets the same trees."""
        three = HYPERPARAMETERS | {"max_iter": 3}
        monkeypatch.setattr(forecast, "HYPERPARAMETERS", three)
        rng = np.random.default_rng(0)
        features, labels = rng.normal(size=(8_000, 12)), rng.normal(size=8_000)
        alone = forecast._grown(features, labels)
        model = HistGradientBoostingRegressor(min_samples_leaf=80, **three)
        with threadpool_limits(limits=2, user_api="openmp"):
            model.fit(features, labels)
        assert same(forecast.exported(model), alone)

    def test_the_same_rows_give_the_same_trees(self) -> None:
        assert same(forecast.fit(MARKET), forecast.fit(planted()))
        assert not same(forecast.fit(MARKET), forecast.fit(planted(seed=1)))

    def test_what_another_processor_computes_in_the_last_bits_reaches_no_tree(self) -> None:
        """Seeds are trained on machines of their own, and stack only where their trees are equal."""
        bits = np.random.default_rng(0).integers(-2, 3, MARKET.open.shape) * 2.0**-53
        elsewhere = replace(MARKET, open=MARKET.open * (1 + bits), close=MARKET.close * (1 - bits))
        assert not np.array_equal(forecast.neutral_labels(elsewhere), forecast.neutral_labels(MARKET), equal_nan=True)
        assert same(forecast.fit(elsewhere), forecast.fit(MARKET))

    def test_of_a_larger_universe_every_so_many_th_session_is_fitted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[int] = []
        monkeypatch.setattr(forecast, "_grown", lambda _, labels: seen.append(len(labels)))
        forecast.fit(MARKET)
        monkeypatch.setattr(forecast, "MOST_ROWS", 2000)
        forecast.fit(MARKET)
        whole = 8 * (700 - QUARTER - REACH)
        assert seen[0] == whole
        assert seen[1] == pytest.approx(whole / 3, rel=0.02)


class TestNoFuture:
    def test_nothing_after_the_last_row_changes_the_trees(self) -> None:
        end, later = MARKET.sessions[449], changed(MARKET, slice(450, None), features=True)
        start = MARKET.sessions[0]
        assert same(forecast.fit(MARKET.rows(start, end)), forecast.fit(later.rows(start, end)))
        assert not same(forecast.fit(MARKET), forecast.fit(later))

    def test_the_market_cut_after_a_session_has_the_same_forecasts_up_to_there(self) -> None:
        days = MARKET.sessions
        folds = [Fold(0, days[0], days[400], days[406], days[500]), Fold(1, days[0], days[494], days[501], days[-1])]

        def book(market: Market):
            policy = forecast.row(market, folds, kappa=0.3)
            return backtest(
                market, policy, rules=Rules(costs=Costs(slippage_bps=10.0)), start=days[406], end=market.sessions[-1], initial_cash=1e5
            )

        whole, part = book(MARKET), book(MARKET.rows(days[0], days[560]))
        for name in ("scores", "weights", "equity"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[: len(part.sessions)])
        assert np.ptp(whole.scores[0]) > 1


class TestCrossFit:
    def test_no_return_of_a_block_or_of_the_sessions_around_it_enters_its_forecasts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Five names, whose labels are less their mean alone: beta and volatility behind a block look back into it, as features do."""
        monkeypatch.setattr(forecast, "HYPERPARAMETERS", FEW)
        market, purge = planted(names=5), 5
        for block in np.array_split(np.arange(len(market)), BLOCKS)[1:4]:
            apart = slice(block[0] - purge, block[-1] + REACH + purge)
            scores, other = (forecast.cross_fit(one, purge=purge) for one in (market, changed(market, apart)))
            np.testing.assert_array_equal(other[block], scores[block])
            assert not np.array_equal(other[: block[0]], scores[: block[0]])
            nearer = changed(market, slice(block[0] - purge - 1, block[0] - purge))
            assert not np.array_equal(forecast.cross_fit(nearer, purge=purge)[block], scores[block])

    def test_every_tradable_cell_has_a_score_and_no_other(self) -> None:
        market = walk(sessions=400, assets=5, seed=3)
        np.testing.assert_array_equal(np.isfinite(forecast.cross_fit(market, purge=5)), market.tradable)

    def test_a_planted_edge_is_found_out_of_fold_and_noise_is_not(self) -> None:
        def information(market: Market) -> float:
            scores, labels = forecast.cross_fit(market, purge=5), forecast.neutral_labels(market)
            known = np.isfinite(labels)
            return float(np.corrcoef(scores[known], labels[known])[0, 1])

        assert information(planted(strength=0.15)) > 0.15
        noise = [information(planted(strength=0.0, seed=seed)) for seed in range(2)]
        assert abs(np.mean(noise)) < 0.06

    def test_the_column_is_the_last_feature(self) -> None:
        scores = forecast.cross_fit(MARKET, purge=5)
        wider = forecast.with_column(MARKET, scores)
        np.testing.assert_array_equal(wider.features[..., :-1], MARKET.features)
        np.testing.assert_array_equal(wider.features[..., -1], scores)
