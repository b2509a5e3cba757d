"""What the domain does without being told: the settings of the bundled bars, so that nobody trades for free by leaving something out."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np

from schema.settings import CostSettings, Risk, load
from schema.trading_rules import limits_of, rules_of
from tests.markets import walk
from trading_env.evaluation.backtest import backtest
from trading_env.orders.risk import Limits
from trading_env.simulation.env import EnvConfig, TradingEnv
from trading_env.simulation.policy import SeededRandom
from trading_env.simulation.portfolio import Costs, Rules

SETTINGS = load(Path(__file__).resolve().parents[3] / "data" / "settings.toml")
MARKET = walk(sessions=60, assets=4, seed=3, eventful=False)
STANDARD = 0.001  # 10 bp per side


def test_the_defaults_are_the_settings_of_the_bundled_bars() -> None:
    assert Rules() == rules_of(SETTINGS)
    assert Limits() == limits_of(SETTINGS)
    config = EnvConfig()
    assert (config.rules, config.limits, config.kappa) == (rules_of(SETTINGS), limits_of(SETTINGS), SETTINGS.portfolio.kappa)
    assert (config.episode_sessions, config.initial_value) == (SETTINGS.training.episode_sessions, SETTINGS.portfolio.initial_cash)


def test_no_default_stands_in_for_a_setting() -> None:
    """A field that the settings do not have would be silently the default of whoever deploys."""
    assert {field.name for field in fields(Limits)} == set(Risk.model_fields)
    assert {field.name for field in fields(Costs)} == set(CostSettings.model_fields)


def test_a_backtest_pays_and_is_limited_unless_it_asks_not_to() -> None:
    def traded(**options):
        return backtest(MARKET, SeededRandom(1), start=MARKET.sessions[5], end=MARKET.sessions[40], **options)

    plain, free = traded(), traded(rules=Rules(costs=Costs(slippage_bps=0.0)), limits=None)
    assert any("max_weight" in line for line in plain.denied)
    assert plain.costs[0] > 0.9 * STANDARD * plain.initial_cash * plain.turnover[0]
    assert (free.denied, free.costs.sum()) == ((), 0.0)


def test_an_environment_pays_and_is_limited_unless_it_asks_not_to() -> None:
    def first(**options) -> dict[str, float]:
        env = TradingEnv(MARKET, config=EnvConfig(kappa=1.0, episode_sessions=20, random_start=False, **options))
        env.reset(seed=0)
        return env.step(np.array([10, -10, -10, -10], dtype=np.float32))[4]

    plain, unlimited = first(), first(limits=None)
    assert plain["turnover"] < unlimited["turnover"]  # the one name would be above 60 %
    assert unlimited["costs"] > 0.9 * STANDARD * unlimited["turnover"] * unlimited["value"]
    assert first(rules=Rules(costs=Costs(slippage_bps=0.0)))["costs"] == 0.0
