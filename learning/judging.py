"""The trained seeds out of sample: every book that the verdict and the table rest on, and the verdict.

Promise: one continuous book trades all judged sessions, each by the models of the fold that holds it: the seeds' mean weights, then each
seed alone, then every baseline, in one engine at the same flat costs. d is daily log growth less that of equal weight: rebalanced daily,
and at the policy's own kappa in every row, the pace at which its models trade. Books are traded row by row
and judged by session: evidence is counted, and its dependence measured, in sessions, whatever the slots.
A new configuration meets the gate with its d written to the log first; the holdout is traded only when it is all that still refuses, and
that is written down too before it is judged. A configuration that passed before meets the refit check.
Failure: `GateError`, `BaselineError`, `ForecastError`, `RegistryError` or what trading raises; a refusal is a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from learning import forecast
from learning.configuration import Configuration, rules_at
from learning.judged_books import BookKeeper
from schema.trading_rules import limits_of
from trading_env.evaluation import metrics
from trading_env.evaluation.backtest import BacktestResult, backtest
from trading_env.evaluation.baselines import all_baselines
from trading_env.evaluation.gate import Behaviour, GateError, GateThresholds, GateVerdict, TrialResult, gate_verdict
from trading_env.evaluation.refit import RefitResult, refit_check
from trading_env.evaluation.walk_forward import Fold, WalkForward
from trading_env.simulation.policy import EqualWeight, NumpyPolicy, Policy, stack_policies

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from schema.settings import Settings
    from trading_env.data.market import Market
    from trading_env.evaluation.trials import TrialEntry, TrialLog

FREE, STANDARD, STRESSED = COSTS = (0, 10, 20)  # basis points per side
EQUAL, SLOW = "equal weight daily", "equal weight at kappa"

Keep = Callable[["TrialLog"], None]


@dataclass(frozen=True, eq=False)
class Trained:
    """The models: `policies[i][k]` is seed `seeds[i]` on `folds[k]`, the last fold being the holdout's; `records` likewise."""

    seeds: tuple[int, ...]
    folds: tuple[Fold, ...]
    policies: tuple[tuple[NumpyPolicy, ...], ...]
    records: tuple[tuple[Mapping[str, Any], ...], ...] = ()

    def ensemble(self, fold: int) -> NumpyPolicy:
        """The mean of the seeds' weights on one fold."""
        return stack_policies([models[fold] for models in self.policies])

    @property
    def judged(self) -> tuple[Fold, ...]:
        return self.folds[:-1]

    @property
    def holdout(self) -> Fold:
        return self.folds[-1]


class Backtester:
    """Every backtest of the judgement: one market, the settings' rules, limits and cash, a flat cost per side."""

    def __init__(self, market: Market, settings: Settings, *, keeper: BookKeeper | None = None) -> None:
        self.market, self.settings = market, settings
        self._keeper = keeper or BookKeeper(None)
        self._forecast = cache(lambda folds: forecast.row(market, folds, kappa=settings.portfolio.kappa))

    def trade(
        self, policy: Policy, fold: Fold, last: Fold, *, cost_bps: int, limited: bool = True, market: Market | None = None
    ) -> BacktestResult:
        """From the first test session of `fold` to the last of `last`, under the risk limits unless the row is a baseline; by session."""
        return backtest(
            self.market if market is None else market,
            policy,
            rules=rules_at(self.settings, cost_bps=cost_bps),
            start=fold.test_start,
            end=last.test_end,
            initial_cash=self.settings.portfolio.initial_cash,
            limits=limits_of(self.settings) if limited else None,
        ).by_session()

    def walk(self, policies: Sequence[NumpyPolicy], folds: Sequence[Fold], *, name: str, cost_bps: int) -> BacktestResult:
        """One book over all test sessions of `folds`, each traded by the policy of its fold."""
        walker = WalkForward(policies, folds=folds, sessions=self.market.sessions, name=name)
        (book,) = self._keeper.books(f"{name} at {cost_bps}", lambda: [self.trade(walker, folds[0], folds[-1], cost_bps=cost_bps)])
        return book

    def baselines(self, folds: Sequence[Fold], *, cost_bps: int, turnover: float) -> list[BacktestResult]:
        """The rows of `all_baselines`, and the forecast's."""
        return self._keeper.books(f"baselines at {cost_bps}", lambda: self._baselines(folds, cost_bps=cost_bps, turnover=turnover))

    def _baselines(self, folds: Sequence[Fold], *, cost_bps: int, turnover: float) -> list[BacktestResult]:
        rows = all_baselines(
            self.market,
            rules=rules_at(self.settings, cost_bps=cost_bps),
            kappa=self.settings.portfolio.kappa,
            benchmark=self.settings.universe.benchmark,
            folds=folds,
            initial_cash=self.settings.portfolio.initial_cash,
            start=folds[0].test_start,
            end=folds[-1].test_end,
            matched_turnover=turnover,
        )
        return [
            *(row.by_session() for row in rows),
            self.trade(self._forecast(tuple(folds)), folds[0], folds[-1], cost_bps=cost_bps, limited=False),
        ]

    def holdout(self, policy: Policy, fold: Fold) -> Books:
        """The holdout's books at the standard cost: the policy's and both equal weights'."""
        daily, slow = EqualWeight(name=EQUAL), EqualWeight(name=SLOW, kappa=policy.kappa)
        even: list[tuple[Policy, Market]] = [(daily, self.market.decided_daily()), (slow, self.market)]
        return Books(
            agent={STANDARD: self.trade(policy, fold, fold, cost_bps=STANDARD)},
            baselines={STANDARD: [self.trade(one, fold, fold, cost_bps=STANDARD, limited=False, market=market) for one, market in even]},
            seeds={},
        )


@dataclass(frozen=True, eq=False)
class Books:
    """The judged sessions, traded: the ensemble and the baselines at each of `COSTS`, each seed at the standard and the stressed one."""

    agent: Mapping[int, BacktestResult]
    baselines: Mapping[int, Sequence[BacktestResult]]
    seeds: Mapping[int, Mapping[int, BacktestResult]]

    def equal_weight(self, cost: int, *, name: str = EQUAL) -> BacktestResult:
        return next(row for row in self.baselines[cost] if row.policy == name)

    def excess(self, book: BacktestResult, *, cost: int, name: str = EQUAL) -> NDArray[np.float64]:
        """d of a book at this cost, against EQUAL or SLOW."""
        return np.asarray(book.growth - self.equal_weight(cost, name=name).growth)


def books_of(trained: Trained, backtester: Backtester) -> Books:
    """Trade everything but the holdout."""
    agent, seeds = walks_of(trained, backtester)
    baselines = {cost: backtester.baselines(trained.judged, cost_bps=cost, turnover=float(agent[cost].turnover.mean())) for cost in COSTS}
    return Books(agent, baselines, seeds)


def walks_of(trained: Trained, backtester: Backtester) -> tuple[dict[int, BacktestResult], dict[int, dict[int, BacktestResult]]]:
    """The ensemble's books by cost, and each seed's by seed and cost."""
    folds, algorithm = trained.judged, backtester.settings.training.algorithm_name
    ensembles = [trained.ensemble(fold.number) for fold in folds]
    return (
        {cost: backtester.walk(ensembles, folds, name=algorithm, cost_bps=cost) for cost in COSTS},
        {
            seed: {
                cost: backtester.walk(models[: len(folds)], folds, name=f"{algorithm} seed {seed}", cost_bps=cost)
                for cost in (STANDARD, STRESSED)
            }
            for seed, models in zip(trained.seeds, trained.policies, strict=True)
        },
    )


def behaviour_of(book: BacktestResult, folds: Sequence[Fold], *, market: Market) -> Behaviour:
    """How a book traded. The range of scores is the widest of a name within one fold, over the sessions on which it could be traded, each
    score less the mean of the names that could: other models on other folds, and a name that halts, are no reaction to the market.
    """
    traded = market.span(book.sessions[0], book.sessions[-1])
    tradable = market.tradable[traded.start - 1 : traded.stop - 1]
    decided = tradable[market.ends_session[traded]]  # by the last decision of each session, as the book's scores are
    mean = np.where(decided, book.scores, 0.0).sum(axis=1, keepdims=True) / np.maximum(decided.sum(axis=1, keepdims=True), 1)
    ranges = [_widest(book.scores[days] - mean[days], decided[days]) for days in (_test(fold, book.sessions) for fold in folds)]
    return Behaviour(
        turnover=float(book.turnover.mean()),
        effective_n=float(metrics.effective_n(book.held).mean()),
        names=round(float(tradable.sum(axis=1).mean())),
        score_range=max(ranges),
    )


def _widest(scores: NDArray[np.float64], decided: NDArray[np.bool_]) -> float:
    """The widest range of a name's scores (T, A) where it was decided on; 0 of a name that never was."""
    highest, lowest = (np.where(decided, scores, limit) for limit in (-np.inf, np.inf))
    return float(np.maximum(highest.max(axis=0) - lowest.min(axis=0), 0.0).max())


def _test(fold: Fold, sessions: NDArray[np.datetime64]) -> NDArray[np.bool_]:
    return (sessions >= fold.test_start) & (sessions <= fold.test_end)


@dataclass(frozen=True, eq=False)
class Judgement:
    """`trial`: the logged one that the verdict rests on. `new`: it was not in the log before."""

    verdict: GateVerdict
    trial: str
    log: TrialLog
    new: bool


def judge(
    trained: Trained,
    books: Books,
    backtester: Backtester,
    *,
    configuration: Configuration,
    log: TrialLog,
    keep: Keep,
    incumbent_trial: str | None = None,
    bar: GateThresholds | None = None,
) -> Judgement:
    """The gate. `keep` writes a longer log down before anything rests on it; no `incumbent_trial`: equal weight trades now."""
    rules = bar if bar is not None else GateThresholds()
    _same_pace(trained, backtester)
    agent, stressed, folds = books.agent[STANDARD], books.agent[STRESSED], trained.judged
    excess, at_kappa = (books.excess(agent, cost=STANDARD, name=name) for name in (EQUAL, SLOW))
    seeds = [own[STRESSED] for own in books.seeds.values()]
    longer = log.append(
        settings=configuration.settings,
        feature_hash=configuration.feature_hash,
        code_hash=configuration.code_hash,
        sessions=agent.sessions,
        excess=excess,
        excess_at_kappa=at_kappa,
    )
    if longer is not log:
        keep(longer)
    result = TrialResult(
        trial=configuration.trial,
        sessions=agent.sessions,
        fold=np.array([next(fold.number for fold in folds if fold.test_start <= day <= fold.test_end) for day in agent.sessions]),
        excess=excess,
        excess_at_kappa=at_kappa,
        excess_stressed=books.excess(stressed, cost=STRESSED),
        excess_stressed_at_kappa=books.excess(stressed, cost=STRESSED, name=SLOW),
        seeds_stressed=np.array([books.excess(own, cost=STRESSED) for own in seeds]),
        seeds_stressed_at_kappa=np.array([books.excess(own, cost=STRESSED, name=SLOW) for own in seeds]),
        behaviour=behaviour_of(agent, folds, market=backtester.market),
        turnover_at_kappa=float(books.equal_weight(STANDARD, name=SLOW).turnover.mean()),
        against_incumbent=_difference(longer, configuration.trial, incumbent_trial),
    )
    verdict, opened = gate_verdict(result, log=longer, bar=rules), longer
    refused = [check.name for check in verdict.checks if not check.passed]
    held_out = backtester.market.rows(trained.holdout.test_start, trained.holdout.test_end)
    enough = int(held_out.ends_session.sum()) >= rules.min_holdout_sessions
    if refused == ["holdout"] and enough and not _was_seen(trained.holdout, configuration, log=longer):
        held = backtester.holdout(trained.ensemble(trained.holdout.number), trained.holdout)
        book = held.agent[STANDARD]
        opened = longer.open_holdout(
            trial=configuration.trial,
            sessions=book.sessions,
            excess=held.excess(book, cost=STANDARD),
            excess_at_kappa=held.excess(book, cost=STANDARD, name=SLOW),
        )
        keep(opened)
        verdict = gate_verdict(result, log=opened, bar=rules)
    return Judgement(verdict, configuration.trial, opened, longer is not log)


def _same_pace(trained: Trained, backtester: Backtester) -> None:
    """Equal weight at kappa is of the settings' kappa: it measures no models that trade at another."""
    asked = backtester.settings.portfolio.kappa
    others = sorted({model.kappa for models in trained.policies for model in models} - {asked})
    if others:
        raise GateError(f"every model must trade at the settings' kappa, {asked:g}; one trades at {others[0]:g}")


def _was_seen(holdout: Fold, configuration: Configuration, *, log: TrialLog) -> bool:
    """Whether the configuration was judged on a holdout that reaches into this one: a look is fresh only where none of it was seen."""
    return any(opening.sessions[-1] >= holdout.test_start for opening in configuration.openings_in(log))


def _difference(log: TrialLog, trial: str, incumbent: str | None) -> NDArray[np.float64] | None:
    """d of the trial less d of the incumbent's, as logged, on the sessions of both: each is out of sample to its own fold."""
    if incumbent is None:
        return None
    ours, theirs = log.trial(trial), log.trial(incumbent)
    if ours is None or theirs is None:
        return np.empty(0)
    _, mine, its = np.intersect1d(ours.sessions, theirs.sessions, return_indices=True)
    return np.asarray(ours.excess[mine] - theirs.excess[its])


def proof_of(configuration: Configuration, log: TrialLog) -> TrialEntry | None:
    """The first logged trial of this configuration, whatever its live_start."""
    return next(iter(configuration.trials_in(log)), None)


def judge_refit(
    trained: Trained,
    backtester: Backtester,
    *,
    configuration: Configuration,
    log: TrialLog,
    proof: TrialEntry,
    trades_now: NumpyPolicy,
    bar: GateThresholds | None = None,
) -> Judgement:
    """The refit check of the model to be deployed against the one that trades now, over the sessions after its training."""
    rules, fold = bar if bar is not None else GateThresholds(), trained.holdout
    _same_pace(trained, backtester)
    held = backtester.holdout(trained.ensemble(fold.number), fold)
    book = held.agent[STANDARD]
    latest = slice(-rules.refit_sessions, None)
    result = RefitResult(
        trial=configuration.identity,
        configuration=Configuration.of_entry(proof).identity,
        weights=book.weights[latest],
        incumbent_weights=backtester.trade(trades_now, fold, fold, cost_bps=STANDARD).weights[latest],
        excess=held.excess(book, cost=STANDARD),
        excess_at_kappa=held.excess(book, cost=STANDARD, name=SLOW),
        tracking_error=float(proof.excess.std(ddof=1)),
        tracking_error_at_kappa=math.nan if proof.excess_at_kappa is None else float(proof.excess_at_kappa.std(ddof=1)),
        behaviour=behaviour_of(book, [fold], market=backtester.market),
    )
    return Judgement(refit_check(result, bar=rules), proof.trial_id, log, new=False)
