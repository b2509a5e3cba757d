"""The traded year beside the simulator: what equal weight, the benchmark and the challenger would have reached under the same rules.

Everything here is computed from the bundled bars, not from the lake, so that agreement with the deployed functions is agreement of two
independent paths: recorded bars → simulator, and recorded bars → exchange → lake → functions → orders → books.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np

from learning.configuration import rules_at
from papertape.market_data import bundled
from schema.settings import Settings
from schema.trading_rules import limits_of, rules_of
from trading_env.data.features import FEATURE_HASH
from trading_env.data.market import Market, build_market
from trading_env.evaluation.backtest import BacktestResult, backtest, buy_and_hold
from trading_env.simulation.policy import EqualWeight, NumpyPolicy, Policy, PolicyError, load_policy

Dividends = Literal["credit", "ignore"]


def market_of(settings: Settings) -> Market:
    """The universe over all bundled sessions."""
    return build_market(bundled.daily_bars(), bundled.corporate_actions(), symbols=settings.universe.symbols)


class ReferenceBacktests:
    """Backtests over the replayed sessions."""

    def __init__(
        self, settings: Settings, *, start: date, end: date, dividends: Dividends = "ignore", market: Market | None = None
    ) -> None:
        self._settings, self._start, self._end = settings, start, end
        self.market = market if market is not None else market_of(settings)
        # Dividends apart, the executor's own rules: the paper account pays none, and neither does the exchange
        self.rules = replace(rules_of(settings), credit_dividends=dividends == "credit")

    def of(self, policy: Policy, *, limited: bool = True, cost_bps: int | None = None) -> BacktestResult:
        """`policy` under the executor's risk limits, or every plan as it is; at the settings' costs, or a flat one per side."""
        rules = self.rules
        if cost_bps is not None:
            rules = replace(rules_at(self._settings, cost_bps=cost_bps), credit_dividends=rules.credit_dividends)
        # With slot bars equal weight daily is not asked in a session's later slots
        daily = isinstance(policy, EqualWeight) and policy.kappa == 1
        return backtest(
            self.market.decided_daily() if daily else self.market,
            policy,
            rules=rules,
            start=self._start,
            end=self._end,
            initial_cash=self._settings.portfolio.initial_cash,
            limits=limits_of(self._settings) if limited else None,
        )

    def benchmark(self) -> BacktestResult:
        return buy_and_hold(
            self.market,
            self._settings.universe.required_benchmark,
            rules=self.rules,
            start=self._start,
            end=self._end,
            initial_cash=self._settings.portfolio.initial_cash,
        )


def policy_of(artifact: bytes, *, feature_hash: str = FEATURE_HASH, slots: Sequence[str] = ()) -> NumpyPolicy:
    """The policy in a model.tar.gz; raises PolicyError when it is not one of this table of features."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(fileobj=io.BytesIO(artifact), mode="r:gz") as archive:
                archive.extractall(folder, filter="data")
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise PolicyError(f"the artifact is not a model.tar.gz ({error})") from error
        return load_policy(Path(folder), expected_feature_hash=feature_hash, slots=slots)


def largest_gap(equity: list[float], backtested: BacktestResult) -> float:
    """Largest relative difference of two equity curves at any session; raises ValueError when they are not of the same length."""
    ours = np.asarray(equity)
    if ours.shape != backtested.equity.shape:
        raise ValueError(f"{len(ours)} sessions were traded and {len(backtested.equity)} backtested")
    return float(np.abs(ours / backtested.equity - 1).max())
