"""The step of a book in torch, so that growth can be differentiated by the scores: prices are exogenous, whatever a book trades.

Promise: `growth` is what `portfolio.step` gives for the weights that `policy.weights_from_scores` makes of the scores, to 1e-9 where the
step floors nothing: quantities here are not rounded to 9 decimals, whole shares are not whole, and no risk limit is applied. Costs, impact,
the cap on volume, band, least notional, cash that runs short, splits, dividends, halts and late listings are the same.
Failure: `DatasetError` when a span has no room in the market; torch's own errors on shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from learning.dataset import DatasetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trading_env.simulation.portfolio import ExecutionPrices, Rules

SMALLEST = 1e-18  # of a bar's volume: the square root has a slope there


@dataclass(frozen=True)
class Sessions:
    """What steps from the closes of T rows to the next need, of B books' names, (B, T, A), in float64.

    `overnight`: value at the next open of a dollar held at the close, split included; `payout`: its dividend; `intraday`: value at the next
    close of a dollar held at that open; `price` of the open in dollars; `volume` of its bar in shares; `volatility` known at the close.
    A name without a price has 1, 0 and 1, and is held by nobody. What is `sold` left the universe, and trades at that open.
    """

    overnight: Tensor
    payout: Tensor
    intraday: Tensor
    price: Tensor
    volume: Tensor
    volatility: Tensor
    decidable: Tensor
    tradable: Tensor
    leaving: Tensor
    sold: Tensor

    @classmethod
    def of(cls, prices: ExecutionPrices, *, rows: NDArray[np.int64], names: NDArray[np.int64]) -> Self:
        """The steps from `rows` (B, T) of the columns `names` (B, A). Raises DatasetError when a row has no next one."""
        if rows.size and not 0 <= rows.min() <= rows.max() < len(prices) - 1:
            raise DatasetError(f"rows must lie in 0 to {len(prices) - 2}, was {rows.min()} to {rows.max()}")
        before = rows[:, :, None], names[:, None, :]
        after = before[0] + 1, before[1]
        opening, close = prices.opening[after], prices.closing[before]
        decidable = prices.decidable[before]
        return cls(
            overnight=_known(opening * prices.split[after] / close, 1.0),
            payout=_known(prices.dividend[after] / close, 0.0),
            intraday=_known(prices.closing[after] / opening, 1.0),
            price=_known(opening, 1.0),
            volume=_known(prices.volume[after], 0.0),
            volatility=torch.from_numpy(prices.volatility[before]),
            decidable=torch.from_numpy(decidable),
            tradable=torch.from_numpy(decidable & prices.opens[after]),
            leaving=torch.from_numpy(prices.leaving[before]),
            sold=torch.from_numpy(prices.leaving[before] & prices.opens[after]),
        )

    def at(self, step: int) -> Self:
        """One of the T steps, (B, A)."""
        return type(self)(*(getattr(self, name)[:, step] for name in self.__dataclass_fields__))


def _known(values: NDArray[np.float64], otherwise: float) -> Tensor:
    return torch.from_numpy(np.where(np.isfinite(values), values, otherwise))


@dataclass(frozen=True)
class DollarBook:
    """B books at a close, in dollars: `cash` (B,) and `positions` (B, A)."""

    cash: Tensor
    positions: Tensor

    @classmethod
    def equal(cls, sessions: Sessions, *, value: float, rules: Rules) -> Self:
        """Equal weight over the decidable names of the first step, less the cash buffer; no cost was paid."""
        first = sessions.decidable[:, 0].double()
        weights = first / first.sum(-1, keepdim=True).clamp(min=1.0)
        positions = (1 - rules.cash_buffer) * value * weights
        return cls(value - positions.sum(-1), positions)

    def value(self) -> Tensor:
        return self.cash + self.positions.sum(-1)


def weights_of(scores: Tensor, book: DollarBook, day: Sessions, *, kappa: float) -> Tensor:
    """`policy.weights_from_scores`: w = h + kappa (softmax(scores) - h), (B, A)."""
    staying = torch.where(day.leaving, 0.0, book.positions)
    total = staying.sum(-1, keepdim=True)
    invested = total > 0
    held = staying / torch.where(invested, total, 1.0)
    locked = torch.where(day.decidable, 0.0, held)
    # Not -inf for the others: the softmax of a row without any has no gradient
    share = torch.softmax(torch.where(day.decidable, scores, -1e30), dim=-1)
    target = torch.where(day.decidable, share, 0.0) * (1 - locked.sum(-1, keepdim=True))
    pace = torch.where(invested, torch.full_like(total, kappa), 1.0)  # of two numbers it would be a float32
    return torch.where(day.decidable, (1 - pace) * held + pace * target, locked)


def step(book: DollarBook, weights: Tensor, day: Sessions, *, rules: Rules) -> tuple[DollarBook, Tensor]:
    """From one close to the next, as `portfolio.step`: the book after, and turnover (B,), buys and sells over the equity at the open."""
    costs = rules.costs
    paid = (book.positions * day.payout).sum(-1) if rules.credit_dividends else torch.zeros_like(book.cash)
    cash, held = book.cash + paid, book.positions * day.overnight
    equity = (cash + held.sum(-1)).unsqueeze(-1)
    leaves = weights == 0
    delta = torch.where(leaves, -held, (1 - rules.cash_buffer) * weights * equity - held)
    large = delta.abs() >= torch.clamp(rules.band * equity, min=rules.min_notional)
    delta = torch.where(day.tradable & (leaves | large), delta, 0.0)
    delta = torch.where(day.sold, -held, delta)
    if costs.max_volume_share:
        measured = (day.volume > 0) & (torch.isfinite(day.volatility) | (costs.impact == 0))
        most = torch.where(measured, costs.max_volume_share * day.volume * day.price, 0.0)
        delta = torch.minimum(torch.maximum(delta, -most), most)
    sells, buys = (-delta).clamp(min=0), delta.clamp(min=0)
    cash = cash + (sells * (1 - costs.adverse - _impact(sells, day, rules=rules)).clamp(min=0)).sum(-1) * (1 - costs.fee)
    need, available = _bill(buys, day, rules=rules), cash.clamp(min=0)
    short = need > available
    buys = buys * torch.where(short, available / torch.where(short, need, 1.0), 1.0).unsqueeze(-1)
    cash = cash - _bill(buys, day, rules=rules)
    after = DollarBook(cash, (held - sells + buys) * day.intraday)
    return after, (sells + buys).sum(-1) / equity.squeeze(-1)


def _bill(buys: Tensor, day: Sessions, *, rules: Rules) -> Tensor:
    return (buys * (1 + rules.costs.adverse + _impact(buys, day, rules=rules))).sum(-1) * (1 + rules.costs.fee)


def _impact(dollars: Tensor, day: Sessions, *, rules: Rules) -> Tensor:
    """Share of the price by which trading so many dollars moves it; `portfolio.Costs` has the law."""
    if not rules.costs.impact:
        return torch.zeros((), dtype=dollars.dtype)
    share = dollars / (day.price * torch.where(day.volume > 0, day.volume, 1.0))
    moved = rules.costs.impact * torch.nan_to_num(day.volatility) * share.clamp(min=SMALLEST).sqrt()
    return torch.where(dollars > 0, moved, 0.0)


def growth(scores: Tensor, sessions: Sessions, *, kappa: float, rules: Rules, value: float) -> tuple[Tensor, Tensor]:
    """(B, T) log growth and turnover of books that begin at equal weight with `value` dollars and follow `scores` (B, T, A), float64."""
    book = DollarBook.equal(sessions, value=value, rules=rules)
    worth, grown, traded = book.value(), [], []
    for number in range(scores.shape[1]):
        day = sessions.at(number)
        book, turnover = step(book, weights_of(scores[:, number], book, day, kappa=kappa), day, rules=rules)
        later = book.value()
        grown.append(torch.log(later / worth))
        traded.append(turnover)
        worth = later
    return torch.stack(grown, dim=1), torch.stack(traded, dim=1)
