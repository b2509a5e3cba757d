"""Equal weight that trades slowly has no view: whatever it saves or gains against equal weight daily, luck refuses it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from learning import configuration, judging
from papertape.market_data import bundled
from schema.settings import Settings
from tests import small_run
from tests.markets import market_of
from trading_env.data.market import Market, build_market
from trading_env.evaluation import statistics
from trading_env.evaluation.backtest import BacktestResult
from trading_env.evaluation.checks import GateThresholds
from trading_env.evaluation.trials import TrialLog
from trading_env.simulation.policy import EqualWeight, NumpyPolicy, PolicyCard, array_shapes

NAMES = ("SPY", "QQQ", "IWM", "AAPL", "AIG", "BAC", "GOOG", "IBM")
FIRST, LAST = "2011-01-03", "2019-02-14"  # the 30 sessions of 2019 are the holdout, which is not opened
BAR = GateThresholds(draws=1000)


def settings_of(market: Market, *, kappa: float, test_start: object) -> Settings:
    """The whole market from `test_start` on in eight folds, but for a holdout of the last 30 sessions."""
    return small_run.settings(
        universe={"symbols": list(market.symbols), "benchmark": None},
        portfolio={"kappa": kappa},
        training={
            "start": str(market.sessions[0]),
            "test_start": str(test_start),
            "live_start": str(np.busday_offset(market.sessions[-1], 1)),
            "folds": 8,
        },
    )


def without_a_view(market: Market, settings: Settings) -> judging.Trained:
    """Two seeds of a network whose head is zero: every score is 0."""
    folds = configuration.folds_of(market.sessions, settings)
    inputs = market.features.shape[-1] + 2 + 1 + market.context.shape[-1]
    arrays = {name: np.zeros(shape) for name, shape in array_shapes(seeds=1, inputs=inputs).items()}
    arrays["sigma"] += 1.0

    def model(seed: int, train_end: str) -> NumpyPolicy:
        card = PolicyCard(
            kappa=settings.portfolio.kappa,
            trained_on=market.symbols,
            train_start=str(market.sessions[0]),
            train_end=train_end,
            seeds=(seed,),
            features=tuple(f"f{number}" for number in range(market.features.shape[-1])),
            context=tuple(f"c{number}" for number in range(market.context.shape[-1])),
            feature_hash="f",
            schema_version=0,
            code_version="c",
        )
        return NumpyPolicy(arrays, card)

    return judging.Trained((0, 1), folds, tuple(tuple(model(seed, str(fold.train_end)) for fold in folds) for seed in (0, 1)))


def books_of(market: Market, settings: Settings, trained: judging.Trained, *, daily: BacktestResult) -> judging.Books:
    """What luck asks for of `judging.books_of`: the ensemble and both equal weights at the standard cost, in place of the stressed too."""
    backtester, folds, kappa = judging.Backtester(market, settings), trained.judged, settings.portfolio.kappa
    agent = backtester.walk([trained.ensemble(fold.number) for fold in folds], folds, name="no view", cost_bps=judging.STANDARD)
    slow = backtester.trade(EqualWeight(name=judging.SLOW, kappa=kappa), folds[0], folds[-1], cost_bps=judging.STANDARD, limited=False)
    costs = (judging.STANDARD, judging.STRESSED)
    own = dict.fromkeys(costs, agent)
    return judging.Books(own, {cost: [daily, slow] for cost in costs}, dict.fromkeys(trained.seeds, own))


def daily_of(market: Market, settings: Settings, trained: judging.Trained) -> BacktestResult:
    backtester, folds = judging.Backtester(market, settings), trained.judged
    return backtester.trade(EqualWeight(name=judging.EQUAL), folds[0], folds[-1], cost_bps=judging.STANDARD, limited=False)


def verdict(market: Market, settings: Settings, trained: judging.Trained, books: judging.Books):
    """The verdict's checks by name, and p of the former rule: the Reality Check against equal weight daily alone."""
    found = judging.judge(
        trained,
        books,
        judging.Backtester(market, settings),
        configuration=configuration.Configuration.of(settings),
        log=TrialLog(),
        keep=lambda _: None,
        bar=BAR,
    )
    former = statistics.reality_check(found.log.columns()[1], column=0, draws=BAR.draws).p_value
    return {check.name: check for check in found.verdict.checks}, former


@cache
def bundled_bars() -> Market:
    market = build_market(bundled.daily_bars(), bundled.corporate_actions(), symbols=NAMES)
    return market.rows(market.sessions[market.sessions < np.datetime64(FIRST)][-300], LAST)


@cache
def bundled_daily() -> BacktestResult:
    settings = settings_of(bundled_bars(), kappa=1.0, test_start=FIRST)
    return daily_of(bundled_bars(), settings, without_a_view(bundled_bars(), settings))


@cache
def traded(kappa: float):
    """Eight years of the bundled bars, as one book each."""
    market = bundled_bars()
    settings = settings_of(market, kappa=kappa, test_start=FIRST)
    trained = without_a_view(market, settings)
    return settings, trained, books_of(market, settings, trained, daily=bundled_daily())


def between(result: BacktestResult, first: np.datetime64, last: np.datetime64) -> BacktestResult:
    """The part of a book, which goes on trading what it holds."""
    rows = (result.sessions >= first) & (result.sessions <= last)
    series = {name: value[rows] for name, value in vars(result).items() if isinstance(value, np.ndarray)}
    before = result.equity[: int(np.flatnonzero(rows)[0])]
    return replace(result, **series, initial_cash=float(before[-1]) if len(before) else result.initial_cash)


@pytest.mark.parametrize("kappa", [0.1, 0.3])
@pytest.mark.parametrize(
    ("first", "last"),
    [(2011, 2018), *((year, year + 2) for year in range(2011, 2017))],
)
def test_on_the_bundled_bars_luck_refuses_it(first: int, last: int, kappa: float) -> None:
    settings, trained, books = traded(kappa)
    span = np.datetime64(f"{first}-01-01"), np.datetime64(f"{last}-12-31")
    folds = tuple(fold for fold in trained.judged if fold.test_end >= span[0] and fold.test_start <= span[1])
    part = judging.Books(
        agent={cost: between(book, *span) for cost, book in books.agent.items()},
        baselines={cost: [between(row, *span) for row in rows] for cost, rows in books.baselines.items()},
        seeds={seed: {cost: between(book, *span) for cost, book in own.items()} for seed, own in books.seeds.items()},
    )
    asked = replace(trained, folds=(*folds, trained.holdout))
    checks, former = verdict(bundled_bars(), settings, asked, part)
    assert not checks["luck"].passed
    assert not checks["power"].passed  # what never varies cannot be told from luck either
    assert checks["luck"].numbers["reality_check_p"] == former
    assert checks["luck"].numbers["reality_check_p_at_kappa"] == 1.0


def drifting(seed: int) -> Market:
    """Names that go on as they went: who rebalances slowly holds more of what rises."""
    rng = np.random.default_rng(seed)
    sessions, names = 700, 4
    trend = np.zeros((sessions, names))
    for row in range(1, sessions):
        trend[row] = 0.98 * trend[row - 1] + rng.normal(0, 6e-4, names)
    close = 50 * np.exp(np.cumsum(trend + rng.normal(0, 0.008, trend.shape), axis=0))
    return market_of(open=np.vstack([close[:1], close[:-1]]), close=close, start="2015-01-05")


@pytest.mark.parametrize("kappa", [0.1, 0.3])
@pytest.mark.parametrize("seed", range(2))
def test_where_slow_trading_pays_the_former_rule_passes_it_and_this_one_does_not(seed: int, kappa: float) -> None:
    market = drifting(seed)
    settings = settings_of(market, kappa=kappa, test_start=market.sessions[270])
    trained = without_a_view(market, settings)
    checks, former = verdict(market, settings, trained, books_of(market, settings, trained, daily=daily_of(market, settings, trained)))
    assert former <= BAR.significance
    assert checks["stressed costs"].passed
    assert not checks["luck"].passed
    for name in ("slow equal weight", "folds", "seeds"):  # each by itself knows that it is ahead by its pace alone
        assert not checks[name].passed
