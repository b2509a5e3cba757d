"""What the kernel reads, made ready: the parameters of rules, limits and reward, and the market as days.

Promise: pure; a `Program` does not change from step to step, and is the only place that knows which number lies where beside the kernel.
Failure: none of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trading_env.data.sentiment import SENTIMENT_NAMES, TABLES
from trading_env.orders.risk import Limits
from trading_env.simulation import kernel
from trading_env.simulation.portfolio import ExecutionPrices, FloatArray, IntArray, Rules
from trading_env.simulation.rewards import ADAPTATION, NO_VARIANCE, Reward

SENTIMENT_PLACE = TABLES["daily"].features.index(SENTIMENT_NAMES[0])


@dataclass(frozen=True)
class Program:
    """Few arrays, since each one that is passed costs a single environment a thirtieth of its step.

    `parameters` (2, P) of the books and of their baselines. `days`: row t holds what the step from t - 1 into t reads, (T, 10, A); where
    each book draws its names, (A, T, 8), so that what a book reads next lies beside what it has read.
    """

    parameters: FloatArray
    days: FloatArray

    @classmethod
    def of(
        cls,
        prices: ExecutionPrices,
        *,
        rules: Rules,
        kappa: float,
        pitch: int,
        baseline: FloatArray | None,
        reward: Reward,
        limits: Limits | None = None,
        trade_share: float = 0.0,
    ) -> Program:
        """`pitch` columns an asset has in an observation; `baseline` (T,) log growth of each row, None where the books draw their names and
        have a baseline each, which goes all the way to equal weight and knows no limits. Without `limits` every plan is traded. With a
        `trade_share` above 0 the actions are trades, not scores."""
        days = np.zeros((len(prices), kernel.DAY, prices.closing.shape[1]))
        days[:, kernel.OPENING], days[:, kernel.CLOSING] = prices.opening, prices.closing
        # Below 0: what is held leaves
        decidable = np.where(prices.leaving[:-1], -1.0, prices.decidable[:-1])
        days[1:, kernel.DECIDABLE], days[1:, kernel.TRADABLE] = decidable, decidable * prices.opens[1:]
        days[:, kernel.SPLIT], days[:, kernel.DIVIDEND], days[:, kernel.VOLUME] = prices.split, prices.dividend, prices.volume
        days[1:, kernel.VOLATILITY] = prices.volatility[:-1]
        if baseline is None:
            days = np.ascontiguousarray(days[:, : kernel.OF_NAME].transpose(2, 0, 1))
        else:
            days[:, kernel.EVENTFUL] = ((prices.split != 1) | (prices.dividend != 0)).any(axis=1, keepdims=True)
            days[:, kernel.EQUAL_GROWTH] = baseline[:, None]
        parameters = np.stack([_numbers(rules, reward, limits), _numbers(rules, reward, None)])
        parameters[:, kernel.KAPPA], parameters[:, kernel.PITCH] = (kappa, 1.0), pitch
        parameters[0, kernel.TRADE_SHARE] = trade_share
        return cls(parameters, days)


def ranks(symbols: Sequence[str]) -> IntArray:
    """(A,) each symbol's place in their order."""
    return np.argsort(np.argsort(np.array(symbols), kind="stable"), kind="stable")


def scratch(names: int) -> FloatArray:
    """What `kernel.advance` works in."""
    return np.zeros((kernel.SCRATCH + kernel.DAY, names))


def _numbers(rules: Rules, reward: Reward, limits: Limits | None) -> FloatArray:
    values, costs = np.zeros(kernel.PARAMETERS), rules.costs
    values[kernel.KEEP], values[kernel.BAND], values[kernel.MIN_NOTIONAL] = 1 - rules.cash_buffer, rules.band, rules.min_notional
    values[kernel.CREDIT], values[kernel.WHOLE] = rules.credit_dividends, rules.whole_shares
    values[kernel.FEE], values[kernel.ADVERSE] = costs.fee, costs.adverse
    values[kernel.IMPACT], values[kernel.SHARE] = costs.impact, costs.max_volume_share
    values[kernel.REWARD_KIND] = kernel.REWARDS.index(reward.kind)
    values[kernel.DRAWDOWN], values[kernel.TRADING], values[kernel.SCALE] = reward.drawdown_penalty, reward.turnover_penalty, reward.scale
    values[kernel.SENTIMENT_WEIGHT], values[kernel.SENTIMENT_PLACE] = reward.sentiment_weight, SENTIMENT_PLACE
    values[kernel.ADAPTATION], values[kernel.NO_VARIANCE] = ADAPTATION, NO_VARIANCE
    if limits is not None:
        # A simulated order is sized at the last trade from a bar one session old: the price collar always holds, the age is checked here
        fresh = limits.max_bar_age_sessions >= 1
        values[kernel.LIMITED], values[kernel.MAX_WEIGHT], values[kernel.MAX_GROSS] = 1, limits.max_weight, limits.max_gross
        values[kernel.MAX_ORDER], values[kernel.MAX_TURNOVER] = limits.max_order_notional, limits.max_turnover_per_day
        values[kernel.MAX_ORDERS] = limits.max_orders_per_day if fresh else 0
        values[kernel.MAX_DRAWDOWN], values[kernel.MAX_LOSS] = limits.max_drawdown, limits.max_daily_loss
    return values
