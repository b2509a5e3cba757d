"""The reward: log growth over that of equal weight, held under the same rules and costs, times a scale.

Promise: a policy that does what equal weight does earns 0 up to rounding; the sum of an episode's rewards is scale x the log of
(its growth / equal weight's growth). Failure: what `portfolio.step` raises; a market without a tradable name has no baseline,
`PortfolioError`.
"""

from __future__ import annotations

import numpy as np

from trading_env.policy import weights_from_scores
from trading_env.portfolio import Book, FloatArray, PortfolioError, Rules, Tape, step

REWARD_SCALE = 300.0


def excess_log_growth(growth: FloatArray, baseline: FloatArray, *, scale: float = REWARD_SCALE) -> FloatArray:
    """`scale` x (log growth - log growth of the baseline), any shape."""
    return np.asarray(scale * (growth - baseline))


def equal_weight_growth(tape: Tape, *, rules: Rules, initial_value: float) -> FloatArray:
    """(T,) log growth, from the close before to the close of each row, of a book rebalanced to equal weight every session (kappa 1).

    The book starts invested at the first row with a tradable name; up to that row the growth is 0.
    """
    rows = np.flatnonzero(tape.decidable.any(axis=1))
    if not len(rows):
        raise PortfolioError("equal weight needs a tradable name, the market has none")
    first, scores = int(rows[0]), np.zeros((1, tape.closing.shape[1]))
    growth = np.zeros(len(tape))
    start = weights_from_scores(scores, scores, tape.decidable[[first]], kappa=1.0)
    book = Book.invested(initial_value, weights=start, prices=tape.closing[[first]], rules=rules)
    for row in range(first, len(tape) - 1):
        held, _ = book.shares(tape.closing[[row]])
        weights = weights_from_scores(scores, held, tape.decidable[[row]], kappa=1.0)
        taken = step(book, tape=tape, rows=np.array([row]), weights=weights, rules=rules)
        growth[row + 1] = np.log(taken.value[0] / book.value(tape.closing[[row]])[0])
        book = taken.book
    return growth
