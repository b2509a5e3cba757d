"""What a session earns: a term that says how well the book did, less penalties, times a scale.

Promise: `session_rewards` is the definition that `kernel.py` compiles, bit for bit. By default a policy that does what equal weight
does earns 0 up to rounding, and an episode's sum is scale x the log of (its growth / equal weight's growth). Failure: `PortfolioError`
on a kind, a penalty or a scale that is none; what `portfolio.step` raises; and, for the baseline, a market without a tradable name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from trading_env.simulation.policy import weights_from_scores
from trading_env.simulation.portfolio import Book, ExecutionPrices, FloatArray, PortfolioError, Rules, step

REWARD_SCALE = 300.0
RewardKind = Literal["excess_log_growth", "log_growth", "differential_sharpe"]
ADAPTATION = 0.01  # as Moody and Saffell: a memory of 100 sessions
PRIOR_VOLATILITY = 0.01
# A share of the mean square under which a variance is the rounding of none
NO_VARIANCE = 1e-9


@dataclass(frozen=True)
class Reward:
    """`scale` x (term - `drawdown_penalty` x drawdown - `turnover_penalty` x turnover + `sentiment_weight` x tone), every part in log
    growth a session.

    The term: `excess_log_growth`, of the book less that of equal weight rebalanced daily under the same rules and costs; `log_growth`, of
    the book; `differential_sharpe`, what the session adds to the Sharpe ratio of the episode so far, see the function, which is as large as
    a log growth where sessions move by 1 %. The drawdown is the share by which the session closes below the episode's highest close, its
    start included: with a penalty of 0.01 a session that closes 10 % down pays 10 bp of log growth. The turnover is what is bought and
    sold over equity, and its penalty comes on top of the costs paid: 0.001 is 10 bp per side. The tone is `book_tone`, sum_i w_i x s_i,
    from -1 to 1: a weight of 0.001 pays 5 bp of log growth to a book that is all in names of sentiment 0.5. The market must have
    sentiment for that.
    """

    kind: RewardKind = "excess_log_growth"
    drawdown_penalty: float = 0.0
    turnover_penalty: float = 0.0
    scale: float = REWARD_SCALE
    sentiment_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(RewardKind):
            raise PortfolioError(f"kind of reward must be one of {', '.join(get_args(RewardKind))}, was {self.kind!r}")
        if not (0 <= self.drawdown_penalty < np.inf and 0 <= self.turnover_penalty < np.inf and 0 < self.scale < np.inf):
            raise PortfolioError(
                f"penalties must be at least 0 and the scale above 0, was {self.drawdown_penalty}, {self.turnover_penalty} and {self.scale}"
            )
        if not 0 <= self.sentiment_weight < np.inf:
            raise PortfolioError(f"sentiment_weight must be at least 0, was {self.sentiment_weight}")


def session_rewards(
    reward: Reward,
    *,
    growth: FloatArray,
    baseline: FloatArray,
    value: FloatArray,
    turnover: FloatArray,
    tone: FloatArray | None = None,
) -> FloatArray:
    """(..., T) rewards of an episode: its log growth, equal weight's, its turnover and, for a sentiment weight, `book_tone`'s (..., T);
    `value` (..., T + 1) dollars, the start's and then each close's."""
    terms = {"excess_log_growth": growth - baseline, "log_growth": growth}
    term = terms[reward.kind] if reward.kind in terms else differential_sharpe(growth)
    drawdown = 1 - value[..., 1:] / np.maximum.accumulate(value, axis=-1)[..., 1:]
    earned = term - reward.drawdown_penalty * drawdown - reward.turnover_penalty * turnover
    if reward.sentiment_weight > 0:
        if tone is None:
            raise PortfolioError(f"sentiment_weight = {reward.sentiment_weight} needs the tone of the sessions, there is none")
        earned = earned + reward.sentiment_weight * tone
    return np.asarray(reward.scale * earned)


def book_tone(held: FloatArray, sentiment: FloatArray) -> FloatArray:
    """(...) sum_i w_i x s_i of sessions: `held` (..., A) shares of equity at the close that ends one, `sentiment` (..., A) the feature of
    that name, weighted by confidence and shrunk, as observed at the close before, when the book was decided. An observation holds 0 for
    a name that was not tradable then."""
    return np.asarray(np.add.reduce(held * sentiment, axis=-1))


def differential_sharpe(growth: FloatArray) -> FloatArray:
    """eta x D_t of an episode's log growths R (..., T): the first-order change of its exponentially weighted Sharpe ratio.

    Moody and Saffell (Journal of Forecasting 17, 1998; IEEE Transactions on Neural Networks 12, 2001):
    D_t = (B dA - A dB / 2) / (B - A^2)^1.5 with dA = R_t - A, dB = R_t^2 - B, A and B the running mean and mean square before t, which then
    move by eta dA and eta dB; the adaptation rate eta is `ADAPTATION`. An episode begins at A = 0 and B = `PRIOR_VOLATILITY`^2, for from
    A = B = 0 its second reward would divide by the first return. While there is no variance (the returns are all the same, and the prior is
    forgotten) the term is 0.
    """
    gained = np.zeros(growth.shape)
    mean, square = np.zeros(growth.shape[:-1]), np.full(growth.shape[:-1], PRIOR_VOLATILITY**2)
    for t in range(growth.shape[-1]):
        variance = square - mean * mean
        slope, curve = growth[..., t] - mean, growth[..., t] * growth[..., t] - square
        varies = variance > NO_VARIANCE * square
        rise = ADAPTATION * (square * slope - mean * curve / 2)
        gained[..., t] = np.divide(rise, variance * np.sqrt(np.abs(variance)), out=np.zeros(rise.shape), where=varies)
        mean, square = mean + ADAPTATION * slope, square + ADAPTATION * curve
    return gained


def equal_weight_growth(prices: ExecutionPrices, *, rules: Rules, initial_value: float) -> FloatArray:
    """(T,) log growth, from the close before to the close of each row, of a book rebalanced to equal weight every session (kappa 1).

    The book starts invested at the first row with a tradable name; up to that row the growth is 0.
    """
    rows = np.flatnonzero(prices.decidable.any(axis=1))
    if not len(rows):
        raise PortfolioError("equal weight needs a tradable name, the market has none")
    first, scores = int(rows[0]), np.zeros((1, prices.closing.shape[1]))
    growth = np.zeros(len(prices))
    start = weights_from_scores(scores, scores, prices.decidable[[first]], kappa=1.0)
    book = Book.invested(initial_value, weights=start, prices=prices.closing[[first]], rules=rules)
    for row in range(first, len(prices) - 1):
        held, _ = book.shares(prices.closing[[row]])
        weights = weights_from_scores(scores, held, prices.decidable[[row]], kappa=1.0, leaving=prices.leaving[[row]])
        taken = step(book, prices=prices, rows=np.array([row]), weights=weights, rules=rules)
        growth[row + 1] = np.log(taken.value[0] / book.value(prices.closing[[row]])[0])
        book = taken.book
    return growth
