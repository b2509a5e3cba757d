"""The verdict on planted models: an edge passes, the log and the holdout are touched no more than they must be, a refit is compared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from learning import configuration, forecast, judging
from tests import small_run
from tests.markets import market_of
from trading_env.data.market import Market
from trading_env.evaluation.backtest import backtest
from trading_env.evaluation.gate import GateThresholds
from trading_env.evaluation.trials import TrialLog
from trading_env.simulation.policy import EqualWeight, NumpyPolicy, PolicyCard, array_shapes
from trading_env.simulation.portfolio import Costs, Rules

SESSIONS, NAMES, FEATURES, CONTEXT = 380, 4, 2, 1
BAR = GateThresholds(
    min_folds=4,
    min_sessions=80,
    min_seeds=2,
    max_detectable_ir=99.0,
    mean_block=5,
    draws=400,
    min_holdout_sessions=30,
    max_turnover=0.5,
    refit_sessions=20,
    min_incumbent_sessions=20,
)


def leaky_market(*, turns: bool = False) -> Market:
    """Gapless opens; the first feature is the return from the next open to the one after, which no honest feature knows.

    When it `turns`, the feature praises one name over the holdout, the last 30 sessions, and that name falls by 1 % a day.
    """
    rng = np.random.default_rng(3)
    moves = rng.normal(3e-4, 0.01, (SESSIONS + 2, NAMES))
    noise = rng.normal(0, 0.01, (SESSIONS, NAMES))
    if turns:
        moves[-31:] = [-0.01, 0, 0, 0]
    opens = 50 * np.exp(np.cumsum(moves, axis=0))
    known = np.log(opens[2:] / opens[1:-1]) + noise
    if turns:
        known[-31:] = [0.05, 0, 0, 0]
    features = np.stack([known, rng.normal(size=known.shape)], axis=-1)
    return market_of(open=opens[:-2], close=opens[:-2] * np.exp(rng.normal(0, 0.002, known.shape)), features=features, start="2015-01-05")


MARKET, TURNS = leaky_market(), leaky_market(turns=True)


def settings(**training: Any):
    return small_run.settings(
        universe={"symbols": ["S0", "S1", "S2", "S3"], "benchmark": None},
        training={
            "start": str(MARKET.sessions[0]),
            "test_start": str(MARKET.sessions[270]),
            "live_start": str(np.busday_offset(MARKET.sessions[-1], 1)),
            "folds": 4,
            **training,
        },
    )


SETTINGS = settings()
FOLDS = configuration.folds_of(MARKET.sessions, SETTINGS)


def planted(*, seed: int, fold: int, column: int = 0, strength: float = 40.0) -> NumpyPolicy:
    """A network whose score is `strength` times a feature: the weights lead it through, small enough for tanh to be straight."""
    inputs = FEATURES + 2 + 1 + CONTEXT
    arrays = {name: np.zeros(shape) for name, shape in array_shapes(seeds=1, inputs=inputs).items()}
    arrays["sigma"] += 1.0
    arrays["w1"][0, column, 0] = arrays["w2"][0, 0, 0] = arrays["w3"][0, 0, 0] = 0.1
    arrays["w4"][0, 0] = strength * 1e3
    names = {"features": tuple("ab"), "context": ("c",), "feature_hash": "f", "schema_version": 0, "code_version": "c"}
    card = PolicyCard(kappa=0.1, trained_on=("S0",), train_start="2015-01-05", train_end=str(FOLDS[fold].train_end), seeds=(seed,), **names)
    return NumpyPolicy(arrays, card)


def models(**how: Any):
    """Two seeds, the second a little weaker."""
    policies = [[planted(seed=seed, fold=fold.number, **how) for fold in FOLDS] for seed in (0, 1)]
    return judging.Trained((0, 1), FOLDS, tuple(tuple(own) for own in policies))


GOOD = models()
BOOKS = judging.books_of(GOOD, judging.Backtester(MARKET, SETTINGS))


def books(trained: Any, *, market: Market = MARKET):
    """With the baselines of BOOKS, which know nothing of the models."""
    agent, seeds = judging.walks_of(trained, judging.Backtester(market, SETTINGS))
    return judging.Books(agent, BOOKS.baselines, seeds)


@dataclass
class Notebook:
    """Keeps what is written, as the registry does."""

    log: TrialLog = field(default_factory=TrialLog)
    written: list[TrialLog] = field(default_factory=list)

    def keep(self, longer: TrialLog) -> None:
        self.written.append(longer)
        self.log = longer


def judge(notebook: Notebook, *, market: Market = MARKET, traded: Any = BOOKS, bar: GateThresholds = BAR, **options: Any):
    chosen = options.pop("chosen", SETTINGS)
    return judging.judge(
        GOOD,
        traded,
        judging.Backtester(market, SETTINGS),
        configuration=configuration.Configuration.of(chosen),
        log=notebook.log,
        keep=notebook.keep,
        bar=bar,
        **options,
    )


def refused(found: Any) -> list[str]:
    return [check.name for check in found.verdict.checks if not check.passed]


class TestBooks:
    def test_one_book_trades_every_judged_session_and_no_holdout_one(self):
        agent, judged = BOOKS.agent[10], MARKET.sessions[270:-30]
        np.testing.assert_array_equal(agent.sessions, judged)
        assert {cost: book.sessions[-1] for cost, book in BOOKS.agent.items()} == dict.fromkeys((0, 10, 20), judged[-1])
        assert {seed: sorted(own) for seed, own in BOOKS.seeds.items()} == {0: [10, 20], 1: [10, 20]}
        assert [row.policy for row in BOOKS.baselines[0]] == [row.policy for row in BOOKS.baselines[20]]

    def test_costs_are_flat_and_equal_weight_pays_them_too(self):
        """The settings' own slippage must not add to it."""
        for cost in (0, 10, 20):
            rules = Rules(costs=Costs(slippage_bps=float(cost)))
            start, end = MARKET.sessions[270], MARKET.sessions[-31]
            held = backtest(
                MARKET, EqualWeight(), rules=rules, start=start, end=end, initial_cash=SETTINGS.portfolio.initial_cash, limits=None
            )
            np.testing.assert_array_equal(BOOKS.equal_weight(cost).equity, held.equity)

    def test_the_ensemble_holds_the_mean_of_the_seeds_weights(self):
        mixed = judging.Trained((0, 1), FOLDS, tuple(tuple(planted(seed=s, fold=f.number, column=s) for f in FOLDS) for s in (0, 1)))
        traded = books(mixed)
        first = [np.exp(own[10].scores[0]) / np.exp(own[10].scores[0]).sum() for own in traded.seeds.values()]
        np.testing.assert_allclose(traded.agent[10].weights[0], np.mean(first, axis=0), atol=1e-12)

    def test_each_session_is_traded_by_its_own_fold(self):
        odd = tuple(tuple(planted(seed=s, fold=f.number, column=f.number % 2) for f in FOLDS) for s in (0, 1))
        scores = books(judging.Trained((0, 1), FOLDS, odd)).agent[10].scores
        same = np.isclose(scores, BOOKS.agent[10].scores).all(axis=1)
        assert same.tolist() == np.repeat([True, False, True, False], 20).tolist()


class TestForecastRow:
    def test_it_stands_last_and_is_the_trees_of_each_folds_training_through_kappa(self):
        policy = forecast.row(MARKET, FOLDS[:-1], kappa=SETTINGS.portfolio.kappa)
        start, end = FOLDS[0].test_start, FOLDS[-2].test_end
        for cost in (0, 10, 20):
            rules = Rules(costs=Costs(slippage_bps=float(cost)))
            cash = SETTINGS.portfolio.initial_cash
            traded = backtest(MARKET, policy, rules=rules, start=start, end=end, initial_cash=cash, limits=None)
            assert [row.policy for row in BOOKS.baselines[cost]][-2:] == ["ridge", "trees"]
            np.testing.assert_array_equal(BOOKS.baselines[cost][-1].equity, traded.equity)
            assert np.ptp(traded.scores, axis=1).min() > 1

    def test_its_trees_are_fitted_once_for_all_costs(self, monkeypatch: pytest.MonkeyPatch):
        fitted: list[int] = []
        fit = forecast.fit
        monkeypatch.setattr(forecast, "fit", lambda market: fitted.append(len(market)) or fit(market))
        backtester = judging.Backtester(MARKET, SETTINGS)
        for cost in (10, 20):
            backtester.baselines(FOLDS[:-1], cost_bps=cost, turnover=9.0)
        assert fitted == [len(MARKET.rows(fold.train_start, fold.train_end)) for fold in FOLDS[:-1]]


class TestGate:
    def test_the_holdout_is_opened_when_it_is_all_that_refuses_and_only_once(self):
        notebook = Notebook()
        found = judge(notebook)
        assert found.verdict.passed, found.verdict.reasons
        assert [len(log.entries) for log in notebook.written] == [1, 2]
        np.testing.assert_array_equal(notebook.log.openings[0].sessions, MARKET.sessions[-30:])
        assert found.new
        stressed = 252e4 * (BOOKS.agent[20].growth - BOOKS.equal_weight(20).growth).mean()
        assert found.verdict.numbers["excess_stressed_bp_per_year"] == pytest.approx(stressed)
        again = judge(notebook)
        assert len(notebook.written) == 2
        assert not again.new
        assert (again.verdict, again.trial) == (found.verdict, found.trial)

    @pytest.mark.parametrize(
        ("bar", "names"),
        [
            (replace(BAR, min_seeds=10), {"evidence", "holdout"}),
            (replace(BAR, max_turnover=0.001), {"turnover", "holdout"}),
            (replace(BAR, min_holdout_sessions=31), {"holdout"}),
        ],
    )
    def test_it_stays_closed_while_anything_else_refuses_or_it_is_too_short(self, bar, names):
        notebook = Notebook()
        found = judge(notebook, bar=bar)
        assert set(refused(found)) == names
        assert len(notebook.log.trials) == 1
        assert not notebook.log.openings

    def test_a_holdout_that_refuses_is_final_for_the_configuration_while_any_session_of_it_is_left(self):
        """Later data are another holdout, but not for a configuration that has seen some of it."""
        notebook, bar = Notebook(), replace(BAR, min_columns=2, cscv_blocks=4)
        assert refused(judge(notebook, bar=bar, market=TURNS, traded=books(GOOD, market=TURNS))) == ["holdout"]
        assert len(notebook.log.openings) == 1
        assert refused(judge(notebook, bar=bar, chosen=settings(live_start="2016-12-01"))) == ["holdout"]
        assert (len(notebook.log.trials), len(notebook.log.openings)) == (2, 1)
        assert judge(notebook, bar=bar, chosen=settings(timesteps=2000)).verdict.passed

    def test_a_holdout_of_which_nothing_was_seen_opens_again(self):
        earlier = configuration.Configuration.of(settings(live_start=str(MARKET.sessions[340])))
        noise = np.random.default_rng(0).normal(scale=1e-4, size=40)
        hashes = {"feature_hash": earlier.feature_hash, "code_hash": earlier.code_hash}
        log = TrialLog().append(settings=earlier.settings, **hashes, sessions=MARKET.sessions[280:320], excess=noise, excess_at_kappa=noise)
        for last, openings in ((-30, 2), (-29, 1)):
            notebook = Notebook(
                log.open_holdout(
                    trial=earlier.trial, sessions=MARKET.sessions[last - 20 : last], excess=noise[:20], excess_at_kappa=noise[:20]
                )
            )
            found = judge(notebook)
            assert len(notebook.log.openings) == openings, found.verdict.reasons

    def test_a_repeat_with_another_result_is_refused_and_changes_nothing(self):
        notebook = Notebook()
        judge(notebook, bar=replace(BAR, min_seeds=10))
        found = judge(notebook, traded=books(models(strength=39.0)))
        assert "logged" in refused(found)
        assert len(notebook.written) == 1

    def test_the_incumbent_is_met_on_the_sessions_of_both(self):
        notebook = Notebook()
        judge(notebook, bar=replace(BAR, min_seeds=10))
        first = notebook.log.trials[0].trial_id
        weaker = books(models(strength=2.0))
        found = judge(notebook, chosen=settings(timesteps=2000), traded=weaker, incumbent_trial=first)
        assert "incumbent" in refused(found)
        check = next(check for check in found.verdict.checks if check.name == "incumbent")
        assert "over 80 sessions" in check.sentence
        unknown = judge(notebook, chosen=settings(timesteps=2000), traded=weaker, incumbent_trial="another")
        assert next(check for check in unknown.verdict.checks if check.name == "incumbent").sentence.startswith("0 sessions follow")

    def test_scores_that_only_change_with_the_fold_are_constant(self):
        book, folds = BOOKS.agent[10], GOOD.judged
        moving = judging.behaviour_of(book, folds, market=MARKET)
        assert moving.score_range > 0.1
        by_fold = np.repeat(np.arange(4.0), 20)[:, None] * np.arange(4.0)
        assert judging.behaviour_of(replace(book, scores=by_fold), folds, market=MARKET) == replace(moving, score_range=0.0)
        assert (moving.names, round(moving.turnover, 6)) == (4, round(float(book.turnover.mean()), 6))

    def test_scores_that_only_change_with_who_is_tradable_are_constant(self):
        halted = MARKET.tradable.copy()
        halted[300, 0] = halted[310:330, 2] = False
        market = replace(MARKET, tradable=halted)
        book = backtest(market, planted(seed=0, fold=0, strength=0.0), start=FOLDS[0].test_start, end=FOLDS[3].test_end)
        assert np.ptp(book.scores) > 1.0  # what cannot be traded scores 0, the others log(1 / 4)
        assert judging.behaviour_of(book, GOOD.judged, market=market).score_range < 1e-12


class TestRefit:
    def refit(self, *, trades_now: NumpyPolicy, market: Market = MARKET):
        notebook = Notebook()
        judge(notebook)
        judged = configuration.Configuration.of(settings(live_start="2016-12-01"))
        proof = judging.proof_of(judged, notebook.log)
        return judging.judge_refit(
            GOOD, judging.Backtester(market, SETTINGS), configuration=judged, log=notebook.log, proof=proof, trades_now=trades_now, bar=BAR
        ), notebook

    def test_what_stays_near_the_incumbent_passes_without_a_trial(self):
        found, notebook = self.refit(trades_now=models(strength=39.0).ensemble(4))
        assert found.verdict.passed, found.verdict.reasons
        assert found.verdict.title == "refit check"
        assert (found.trial, found.log.head, found.new) == (notebook.log.trials[0].trial_id, notebook.log.head, False)
        assert 0 < found.verdict.numbers["incumbent_distance_l1"] < 0.25

    def test_what_turned_the_book_over_or_fails_lately_is_refused(self):
        assert refused(self.refit(trades_now=models(column=1).ensemble(4))[0]) == ["distance"]
        assert "recent" in refused(self.refit(trades_now=GOOD.ensemble(4), market=TURNS)[0])

    def test_another_configuration_has_no_proof(self):
        notebook = Notebook()
        judge(notebook)
        assert judging.proof_of(configuration.Configuration.of(settings(timesteps=2000)), notebook.log) is None
        assert judging.proof_of(configuration.Configuration.of(settings(live_start="2016-12-01")), notebook.log) is not None
