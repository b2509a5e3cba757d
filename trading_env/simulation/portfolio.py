"""The step of a book: size orders, fill them, keep cash and shares; one code for simulator, backtest and executor.

Promise: `plan_orders` and `scale_buys` are the only sizing there is, for one book (A,) and for N books (N, A), bit for bit alike
(`kernel.py` is their compiled twin, held to them by tests). After every `step`, `value(t+1) - value(t) = sum(shares * price change) -
costs + dividends` to 1e-9 relative, cash is never negative, and every quantity is a whole number of 1e-9 shares (exact up to two
million shares a name, by float64's 53 bits). Fills are at the next open; there is no fill at the close that was observed.
A halted or delisted name does not trade and its position is carried at its last mark, for a delisted one until the book ends. A name that
left its universe is sold whole at the next open that it has, whatever the weights.
Failure: a position without a price, a weight outside [0, 1] or negative cash raises `PortfolioError`; nothing is filled in.
Prices are raw, in dollars; quantities in shares; arrays are float64 with the names on the last axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from trading_env.errors import PapertapeError

if TYPE_CHECKING:
    from trading_env.data.market import Market

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

QUANTUM = 1e-9
_QUANTA_PER_SHARE = 1e9
VOLATILITY_SESSIONS = 20
# Buys may use cash up to this relative distance, so that a broker who adds the same bill in exact decimals never finds it short
_CASH_HEADROOM = 1e-12


class PortfolioError(PapertapeError, ValueError):
    """A book cannot be valued or traded: a position has no price, a weight is no weight, or cash would be negative."""


@dataclass(frozen=True)
class Costs:
    """Of one side, in basis points of the notional: `fee_bps` leaves in cash, `slippage_bps` and `half_spread_bps` worsen the price.

    `impact` Y worsens it further by the square-root law, Y x volatility x sqrt(shares / volume) with the daily volatility and the
    volume of the bar that fills (Grinold and Kahn, Active Portfolio Management, 2nd ed., 1999, ch. 16; Tóth et al., Phys. Rev. X 1,
    021006, 2011, who find Y of order one). `max_volume_share` is how much of that volume an order may take; what is left is not filled
    that day. 0 turns either off. The law holds for a share of the volume, so impact needs the cap: `PortfolioError` otherwise.

    `Costs()` is the standard cost, that of the bundled bars' settings; who wants to trade for free says `Costs(slippage_bps=0.0)`.
    """

    fee_bps: float = 0.0
    slippage_bps: float = 10.0
    half_spread_bps: float = 0.0
    impact: float = 0.0
    max_volume_share: float = 0.0

    def __post_init__(self) -> None:
        if not (self.impact >= 0 and 0 <= self.max_volume_share <= 1) or (self.impact > 0 and self.max_volume_share == 0):
            raise PortfolioError(
                f"impact must be at least 0, max_volume_share in [0, 1], and above 0 with an impact; "
                f"was {self.impact} and {self.max_volume_share}"
            )

    @property
    def fee(self) -> float:
        return self.fee_bps / 1e4

    @property
    def slippage(self) -> float:
        return self.slippage_bps / 1e4

    @property
    def adverse(self) -> float:
        """By what share of the price every fill is worse than the sizing price, whatever its size."""
        return (self.slippage_bps + self.half_spread_bps) / 1e4


@dataclass(frozen=True)
class Rules:
    """`cash_buffer` and `band` are shares of equity, `min_notional` dollars. By default those of the bundled bars' settings, costs too.

    `whole_shares`: orders are whole shares, but an exit sells the exact holding. A fraction that a split leaves stays until then.
    """

    cash_buffer: float = 0.005
    band: float = 0.0
    min_notional: float = 1.0
    credit_dividends: bool = True
    costs: Costs = field(default_factory=Costs)
    whole_shares: bool = False


@dataclass(frozen=True)
class Liquidity:
    """What the bar that fills can take, (A,) or (N, A): its `volume` in shares, and the `volatility` of a session's log return as known
    at the close before. A name whose volume or volatility is NaN fills nothing where the costs depend on it."""

    volume: FloatArray
    volatility: FloatArray


def floor_quantity(shares: FloatArray) -> FloatArray:
    """Floor to 9 decimals: the largest double of the form k / 1e9 that is not above `shares`.

    Compares instead of trusting `shares * 1e9`, whose rounding can land on either side of a whole number; so a quantity that
    already has 9 decimals comes back as itself.
    """
    nearest = np.rint(shares * _QUANTA_PER_SHARE)
    return np.asarray((nearest - (nearest / _QUANTA_PER_SHARE > shares)) / _QUANTA_PER_SHARE)


def nearest_quantity(shares: FloatArray) -> FloatArray:
    """Remove the dust that adding and subtracting 9-decimal quantities leaves in binary."""
    return np.asarray(np.rint(shares * _QUANTA_PER_SHARE) / _QUANTA_PER_SHARE)


def _floor(shares: FloatArray, rules: Rules) -> FloatArray:
    return np.asarray(np.floor(shares)) if rules.whole_shares else floor_quantity(shares)


def split_quantity(quantities: FloatArray, ratio: FloatArray) -> FloatArray:
    """Quantity x ratio, floored to 9 decimals; no cash is paid for the lost fraction, and `step` books it as a cost.

    The floor keeps holdings sellable to the last digit. The four ulps make 1:20 of a multiple of 20 quanta come out whole, as it
    does in decimals.
    """
    quanta = np.rint(quantities * _QUANTA_PER_SHARE) * ratio
    after = np.floor(quanta * (1 + 4 * np.finfo(np.float64).eps)) / _QUANTA_PER_SHARE
    return np.where(ratio == 1, quantities, after)


def worth(quantities: FloatArray, prices: FloatArray) -> FloatArray:
    """Sum of quantity x price over the last axis; a price matters only where the quantity is not zero.

    Raises PortfolioError when a name with a quantity has no finite price.
    """
    total = np.asarray(np.add.reduce(np.where(quantities == 0, 0.0, quantities * prices), axis=-1))
    if not np.logical_and.reduce(np.isfinite(total), axis=None):
        names = np.argwhere((quantities != 0) & ~np.isfinite(quantities * prices))
        raise PortfolioError(f"every position needs a finite price, column {int(names[0][-1])} has none")
    return total


def plan_orders(
    *, cash: FloatArray | float, quantities: FloatArray, prices: FloatArray, weights: FloatArray, tradable: BoolArray, rules: Rules
) -> FloatArray:
    """Signed share quantities, (A,) or (N, A), that move the book to `weights`; 0 where nothing is to be done.

    `prices`: sizing prices; a name that cannot trade now carries its last mark (for the equity) and tradable=False. NaN is allowed
    where nothing is held, and is never traded. `cash` is a number for (A,), (N,) for (N, A). Raises PortfolioError.
    """
    if not ((weights >= 0) & (weights <= 1 + 1e-9)).all():
        raise PortfolioError(f"weights must lie in [0, 1], was {weights[~((weights >= 0) & (weights <= 1 + 1e-9))][0]}")
    equity = np.asarray(cash + worth(quantities, prices))[..., None]
    exits = weights == 0
    target = _floor((1 - rules.cash_buffer) * weights * equity / prices, rules)
    wanted = nearest_quantity(target - quantities)
    deltas = np.where(exits, 0.0 - quantities, np.trunc(wanted) if rules.whole_shares else wanted)
    large = np.abs(deltas) * prices >= np.maximum(rules.min_notional, rules.band * equity)
    return np.where(tradable & (prices > 0) & (exits | large), deltas, 0.0)


@dataclass(frozen=True)
class Trades:
    """Decisions by name instead of weights: `signs` (N, A), -1 sell, 0 hold, 1 buy; `share` of equity that each one moves."""

    signs: FloatArray
    share: float


def plan_trades(
    *, cash: FloatArray | float, quantities: FloatArray, prices: FloatArray, trades: Trades, tradable: BoolArray, rules: Rules
) -> FloatArray:
    """Signed share quantities, as `plan_orders` gives them: a buy or a sell of `share` of the equity at the sizing price, floored, and 0
    for what is held, which keeps its quantity to the last digit. A sell takes no more than the holding, and may take the last of it
    however small. The cash buffer binds weights alone: buys take what cash there is. Raises PortfolioError.
    """
    if not np.isin(trades.signs, (-1, 0, 1)).all():
        raise PortfolioError(f"signs must be -1, 0 or 1, was {trades.signs[~np.isin(trades.signs, (-1, 0, 1))][0]}")
    equity = np.asarray(cash + worth(quantities, prices))[..., None]
    lot = _floor(trades.share * equity / prices, rules)
    exits = (trades.signs < 0) & (lot >= quantities)
    deltas = np.where(trades.signs > 0, lot, np.where(trades.signs < 0, 0.0 - np.minimum(lot, quantities), 0.0))
    large = np.abs(deltas) * prices >= np.maximum(rules.min_notional, rules.band * equity)
    return np.where(tradable & (prices > 0) & (exits | large), deltas, 0.0)


def fillable(deltas: FloatArray, *, liquidity: Liquidity, rules: Rules) -> FloatArray:
    """The deltas, none beyond the share of the bar's volume that an order may take; 0 where the bar's volume is not known."""
    costs = rules.costs
    measured = liquidity.volume > 0
    if costs.impact:
        measured = measured & np.isfinite(liquidity.volatility)
    most = np.where(measured, _floor(costs.max_volume_share * liquidity.volume, rules), 0.0)
    return np.minimum(np.maximum(deltas, -most), most)


def _impact(quantities: FloatArray, *, liquidity: Liquidity, rules: Rules) -> FloatArray:
    """Share of the price by which trading `quantities` moves it: Y x volatility x sqrt(shares / volume)."""
    share = np.divide(quantities, liquidity.volume, out=np.zeros_like(quantities), where=quantities > 0)
    return np.asarray(rules.costs.impact * liquidity.volatility * np.sqrt(share))


def bill(buys: FloatArray, prices: FloatArray, rules: Rules, liquidity: Liquidity | None = None) -> FloatArray:
    """Dollars that the buys take from cash: at p(1 + adverse + impact), fee on that notional. Without `liquidity` there is no impact."""
    costs = rules.costs
    if liquidity is None or not costs.impact:
        return worth(buys, prices) * ((1 + costs.adverse) * (1 + costs.fee))
    return worth(buys, prices * (1 + costs.adverse + _impact(buys, liquidity=liquidity, rules=rules))) * (1 + costs.fee)


def proceeds(sells: FloatArray, prices: FloatArray, rules: Rules, liquidity: Liquidity | None = None) -> FloatArray:
    """Dollars that the sells (positive quantities) bring: at p(1 - adverse - impact), never below 0, less the fee on that notional."""
    costs = rules.costs
    if liquidity is None or not costs.impact:
        return worth(sells, prices) * ((1 - costs.adverse) * (1 - costs.fee))
    left = np.maximum(1 - costs.adverse - _impact(sells, liquidity=liquidity, rules=rules), 0.0)
    return worth(sells, prices * left) * (1 - costs.fee)


def scale_buys(
    *, buys: FloatArray, prices: FloatArray, cash: FloatArray | float, rules: Rules, liquidity: Liquidity | None = None
) -> FloatArray:
    """The buys, or all of them scaled by one factor cash / bill and floored to 9 decimals (to whole shares where rules say so) when the
    bill exceeds the cash.

    `buys` (A,) or (N, A) positive quantities, `cash` a number or (N,). Without cash every buy becomes 0. With `liquidity` the bill is
    that of the unscaled orders, whose impact is the larger; without it the market's impact is not foreseen.
    """
    need, available = bill(buys, prices, rules, liquidity), np.maximum(cash, 0.0)
    short = need > available * (1 - _CASH_HEADROOM)
    if not short.any():
        return buys
    # To twice the headroom, so that scaling what was scaled changes nothing
    factor = np.divide(available * (1 - 2 * _CASH_HEADROOM), need, out=np.ones_like(need), where=short)
    return np.where(short[..., None], _floor(buys * factor[..., None], rules), buys)


@dataclass(frozen=True)
class Book:
    """N independent books: `cash` (N,) dollars, `quantities` (N, A) shares."""

    cash: FloatArray
    quantities: FloatArray

    @classmethod
    def of_cash(cls, cash: float, *, assets: int, books: int = 1) -> Self:
        return cls(cash=np.full(books, float(cash)), quantities=np.zeros((books, assets)))

    @classmethod
    def invested(cls, value: float, *, weights: FloatArray, prices: FloatArray, rules: Rules) -> Self:
        """Books of `value` dollars that already hold `weights` (N, A) at `prices` (N, A), less the cash buffer; no cost was paid."""
        wanted = np.where(weights > 0, (1 - rules.cash_buffer) * weights * value / prices, 0.0)
        quantities = _floor(wanted, rules)
        return cls(cash=value - worth(quantities, prices), quantities=quantities)

    def value(self, prices: FloatArray) -> FloatArray:
        """(N,) dollars at `prices` (A,) or (N, A)."""
        return np.asarray(self.cash + worth(self.quantities, prices))

    def shares(self, prices: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Held weight of each name (N, A) and of cash (N,), as shares of the value at `prices`."""
        value = self.value(prices)
        held = np.where(self.quantities == 0, 0.0, self.quantities * prices)
        return held / value[:, None], self.cash / value


@dataclass(frozen=True)
class ExecutionPrices:
    """What books need of a market, row by row, (T, A).

    `opening`: sizing price, the raw open, else the last mark through the split; `closing`: the mark, the raw close, else the last one
    through the splits since; both NaN before a name's first bar. `opens`: the name trades at that row's open. `decidable`: a decision
    at that row's close may use the name. `leaving`: what is held of it at that row's close is sold at the next open. `volume`: raw shares
    of the row's bar. `volatility`: root mean square of the log returns of the marks in the last `VOLATILITY_SESSIONS` rows, this one
    included, that have a bar, splits taken out; NaN where there is none.
    """

    opening: FloatArray
    closing: FloatArray
    opens: BoolArray
    decidable: BoolArray
    split: FloatArray
    dividend: FloatArray
    volume: FloatArray
    volatility: FloatArray
    leaving: BoolArray

    @classmethod
    def of(cls, market: Market) -> Self:
        opening, closing = market.open.copy(), market.close.copy()
        opens = np.isfinite(market.open)
        for t in range(len(closing)):
            carried = closing[t - 1] / market.split[t] if t else np.full(closing.shape[1], np.nan)
            opening[t] = np.where(opens[t], opening[t], carried)
            closing[t] = np.where(np.isfinite(closing[t]), closing[t], carried)
        volatility = _volatility(closing, split=market.split, bars=np.isfinite(market.close))
        return cls(opening, closing, opens, market.tradable, market.split, market.dividend, market.volume, volatility, market.leaving)

    def __len__(self) -> int:
        return len(self.closing)


def _volatility(marks: FloatArray, *, split: FloatArray, bars: BoolArray) -> FloatArray:
    squares = np.zeros(marks.shape)
    squares[1:] = np.log(marks[1:] * split[1:] / marks[:-1]) ** 2
    moves = bars & np.isfinite(squares)
    moves[:1] = False
    squares = np.where(moves, squares, 0.0)
    total, count = np.zeros(marks.shape), np.zeros(marks.shape)
    # Window by window, not by a running sum: a row must not carry the rounding of all the rows before it
    for back in range(min(VOLATILITY_SESSIONS, len(marks))):
        total[back:] += squares[: len(marks) - back]
        count[back:] += moves[: len(marks) - back]
    return np.asarray(np.sqrt(np.divide(total, count, out=np.full(marks.shape, np.nan), where=count > 0)))


@dataclass(frozen=True)
class TradePlan:
    """What a review of the orders is given: the book before them, sizing prices (N, A), the deltas (N, A) that its cash and the bar's
    volume afford, the rows."""

    book: Book
    prices: FloatArray
    deltas: FloatArray
    rows: IntArray


Review = Callable[[TradePlan], FloatArray]


@dataclass(frozen=True)
class Step:
    """The book after a step and what happened: (N,) dollars, `turnover` = buys and sells over the equity at the open, `deltas` (N, A).

    `costs`: slippage, spread, impact, fees, and the fraction under 1e-9 share that a split may leave.
    """

    book: Book
    value: FloatArray
    costs: FloatArray
    dividends: FloatArray
    turnover: FloatArray
    deltas: FloatArray


def step(
    book: Book, *, prices: ExecutionPrices, rows: IntArray, weights: FloatArray | Trades, rules: Rules, review: Review | None = None
) -> Step:
    """From the close of `rows` (N,) to the close of the next: corporate actions, plan at the open, sells, buys, mark.

    `weights` (N, A), or trades, were decided at the close of `rows`. `review` may take orders out of the plan (risk), never add.
    """
    after = rows + 1
    dividends = worth(book.quantities, prices.dividend[after]) if rules.credit_dividends else np.zeros_like(book.cash)
    before = Book(cash=book.cash + dividends, quantities=split_quantity(book.quantities, prices.split[after]))
    opening = prices.opening[after]
    lost = worth(book.quantities * prices.split[after] - before.quantities, opening)
    tradable = prices.decidable[rows] & prices.opens[after]
    if isinstance(weights, Trades):
        deltas = plan_trades(cash=before.cash, quantities=before.quantities, prices=opening, trades=weights, tradable=tradable, rules=rules)
    else:
        deltas = plan_orders(
            cash=before.cash, quantities=before.quantities, prices=opening, weights=weights, tradable=tradable, rules=rules
        )
    deltas = np.where(prices.leaving[rows] & prices.opens[after], 0.0 - before.quantities, deltas)
    liquidity = Liquidity(prices.volume[after], prices.volatility[rows]) if rules.costs.max_volume_share else None
    filled, executed, costs = fill(before, deltas=deltas, prices=opening, rules=rules, liquidity=liquidity)
    if review is not None:
        passed = review(TradePlan(before, opening, executed, rows))
        # Scaling what was scaled changes nothing, so the second fill is needed only where an order was taken out
        if not np.array_equal(passed, executed):
            filled, executed, costs = fill(before, deltas=passed, prices=opening, rules=rules, liquidity=liquidity)
    turnover = worth(np.abs(executed), opening) / before.value(opening)
    return Step(filled, filled.value(prices.closing[after]), costs + lost, dividends, turnover, executed)


def fill(
    book: Book, *, deltas: FloatArray, prices: FloatArray, rules: Rules, liquidity: Liquidity | None = None
) -> tuple[Book, FloatArray, FloatArray]:
    """All sells, then as many buys as the cash allows, of each what the bar's volume allows; without `liquidity` it allows everything.

    The book, the executed deltas (N, A) and the costs (N,) in dollars.
    """
    if liquidity is not None:
        deltas = fillable(deltas, liquidity=liquidity, rules=rules)
    sells, buys = np.maximum(-deltas, 0.0), np.maximum(deltas, 0.0)
    income = proceeds(sells, prices, rules, liquidity)
    cash = book.cash + income
    buys = scale_buys(buys=buys, prices=prices, cash=cash, rules=rules, liquidity=liquidity)
    spent = bill(buys, prices, rules, liquidity)
    cash = cash - spent
    quantities = nearest_quantity(book.quantities + (buys - sells))
    if not ((cash >= 0).all() and (quantities >= 0).all()):
        raise PortfolioError(f"cash and quantities must stay at or above 0, was {cash.min()} and {quantities.min()}")
    costs = (worth(sells, prices) - income) + (spent - worth(buys, prices))
    return Book(cash=cash, quantities=quantities), buys - sells, costs
