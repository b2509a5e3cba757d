"""The risk rules: pure functions of what is known about the account and of one proposed order.

Promise: `check_order` names the first rule that an order breaks, with its numbers, or allows it; `check_batch` does so for orders in
the sequence in which they are sent, each seen after the ones allowed before it. `latch` says which breakers the account has tripped;
a latched breaker stays until a person clears it, and like `reduce_only` lets only sells pass.
Failure: doubt denies. Every comparison is written so that NaN fails it, and a missing price or unknown state allows nothing.
Amounts are dollars, quantities shares, ratios shares of equity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from trading_env.orders.order_state import Side
from trading_env.orders.orders import ProposedOrder

TradingState = Literal["active", "reduce_only", "halted"]
# Weights and gross are ratios of sums in binary; a target of exactly the limit must not fail by its last bits
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Limits:
    """The section `[risk]` of the settings, field by field. `Limits()` is that of the bundled bars' settings; where more than 60 names are
    to be rebalanced at once, `max_orders_per_day` must be raised.
    """

    max_weight: float = 0.60
    max_gross: float = 1.0
    max_order_notional: float = 100_000.0
    max_turnover_per_day: float = 2.0
    max_orders_per_day: int = 60
    price_collar: float = 0.10
    max_drawdown: float = 0.50
    max_daily_loss: float = 0.25
    max_bar_age_sessions: int = 1
    max_model_age_days: int = 500
    restricted: tuple[str, ...] = ()
    max_quote_age_minutes: float = 10.0


@dataclass(frozen=True)
class OpenOrder:
    """An order the broker still works, or one that may have reached it: `quantity` is what is left of it."""

    symbol: str
    side: Side
    quantity: float
    client_order_id: str = ""


@dataclass(frozen=True)
class Situation:
    """What is known when an order is judged.

    `prices`: last trade of every name held, worked or proposed. `peak_equity`: the highest equity on record; `last_close_equity`: at
    the last close. `traded_today` and `orders_today` count this session's orders so far, worked or filled. `bar_age_sessions`: closed
    sessions since the newest bar that the decision saw, 0 when the order rests on no bar (a manual one); `model_age_days`: None when it
    rests on no model. `quote_ages`: minutes since the quote of each name, None when orders rest on none (a flatten's, a simulated one).
    `leaving`: the orders are a flatten's; its sells get out whatever their size, number and turnover.
    `account` and `pinned_account`: the broker's account number and the one this app may trade; None pins nothing.
    """

    equity: float
    positions: Mapping[str, float]
    prices: Mapping[str, float]
    peak_equity: float
    last_close_equity: float
    state: TradingState
    bar_age_sessions: float
    open_orders: Sequence[OpenOrder] = ()
    traded_today: float = 0.0
    orders_today: int = 0
    model_age_days: float | None = None
    quote_ages: Mapping[str, float] | None = None
    latched: frozenset[str] = frozenset()
    leaving: bool = False
    account: str | None = None
    pinned_account: str | None = None

    def price(self, symbol: str) -> float:
        return self.prices.get(symbol, float("nan"))

    def exposure(self, symbol: str) -> float:
        """Dollars of a name if every open buy fills and no open sell does: the worst case of a long-only book."""
        working = sum(o.quantity for o in self.open_orders if o.symbol == symbol and o.side == "buy")
        shares = self.positions.get(symbol, 0.0) + working
        return shares * self.price(symbol) if shares else 0.0

    def gross(self) -> float:
        return sum(self.exposure(symbol) for symbol in {*self.positions, *(o.symbol for o in self.open_orders)})

    def sellable(self, symbol: str) -> float:
        """Shares held that no open sell has claimed."""
        working = sum(o.quantity for o in self.open_orders if o.symbol == symbol and o.side == "sell")
        return self.positions.get(symbol, 0.0) - working


@dataclass(frozen=True)
class RiskVerdict:
    """`rule` is the name of the rule that denied, or `none`; `detail` is one line with the numbers."""

    allowed: bool
    rule: str
    detail: str


def breakers(situation: Situation, limits: Limits) -> dict[str, str]:
    """The breakers that this equity trips now, by name, with their one line. Latching, and clearing, is the caller's ledger's."""
    tripped = {}
    drawdown = 1 - _ratio(situation.equity, situation.peak_equity)
    if not drawdown <= limits.max_drawdown:
        tripped["max_drawdown"] = f"drawdown {drawdown:.4f} from {situation.peak_equity:.2f}, at most {limits.max_drawdown}"
    loss = 1 - _ratio(situation.equity, situation.last_close_equity)
    if not loss <= limits.max_daily_loss:
        tripped["max_daily_loss"] = f"loss {loss:.4f} since the close at {situation.last_close_equity:.2f}, at most {limits.max_daily_loss}"
    return tripped


def latch(situation: Situation, limits: Limits) -> frozenset[str]:
    """The breakers in force: those latched before and those tripped now. There is no way back in here."""
    return situation.latched | breakers(situation, limits).keys()


def check_order(order: ProposedOrder, situation: Situation, limits: Limits) -> RiskVerdict:
    """The first rule that denies the order, in the order of `RULES`, or an allowing verdict."""
    for name, rule in RULES.items():
        detail = rule(_Case(order, situation, limits))
        if detail is not None:
            return RiskVerdict(allowed=False, rule=name, detail=f"{order.side} {order.quantity} {order.symbol}: {detail}")
    return RiskVerdict(allowed=True, rule="none", detail=f"{order.side} {order.quantity} {order.symbol}: within every limit")


def check_batch(orders: Sequence[ProposedOrder], situation: Situation, limits: Limits) -> tuple[RiskVerdict, ...]:
    """One verdict an order. Each is judged as if the allowed ones before it were filled: sells come first and make room."""
    verdicts = []
    for order in orders:
        verdict = check_order(order, situation, limits)
        verdicts.append(verdict)
        if verdict.allowed:
            situation = after(order, situation)
    return tuple(verdicts)


def after(order: ProposedOrder, situation: Situation) -> Situation:
    """The situation once the order is filled at its reference price; costs are left to the next snapshot."""
    signed = float(order.quantity) * (1 if order.side == "buy" else -1)
    return replace(
        situation,
        positions={**situation.positions, order.symbol: situation.positions.get(order.symbol, 0.0) + signed},
        traded_today=situation.traded_today + float(order.notional),
        orders_today=situation.orders_today + 1,
    )


def working(order: ProposedOrder, situation: Situation) -> Situation:
    """The situation once the order may be at the broker: it counts whole, and a sale makes no room before it has filled."""
    open_order = OpenOrder(order.symbol, order.side, float(order.quantity), order.client_order_id)
    return replace(
        situation,
        open_orders=(*situation.open_orders, open_order),
        traded_today=situation.traded_today + float(order.notional),
        orders_today=situation.orders_today + 1,
    )


def ended(client_order_id: str, symbol: str, side: Side, situation: Situation, *, filled: float) -> Situation:
    """The situation once an order has ended, with `filled` shares that the positions do not hold yet. What it counted it still counts."""
    held = situation.positions.get(symbol, 0.0) + (filled if side == "buy" else -filled)
    return replace(
        situation,
        positions={**situation.positions, symbol: held} if filled else situation.positions,
        open_orders=tuple(order for order in situation.open_orders if order.client_order_id != client_order_id),
    )


def without(order: ProposedOrder, situation: Situation) -> Situation:
    """The situation in which an order is judged that counts already, because it may be at the broker: it does not stand in its own way."""
    return replace(
        situation,
        open_orders=tuple(one for one in situation.open_orders if one.client_order_id != order.client_order_id),
        traded_today=max(0.0, situation.traded_today - float(order.notional)),
        orders_today=max(0, situation.orders_today - 1),
    )


@dataclass(frozen=True)
class _Case:
    order: ProposedOrder
    situation: Situation
    limits: Limits
    notional: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "notional", float(self.order.notional))

    @property
    def buys(self) -> bool:
        return self.order.side == "buy"

    @property
    def leaves(self) -> bool:
        """A flatten's sell: limits that hold trading back may not hold back the way out of it."""
        return self.situation.leaving and not self.buys


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


def _trading_state(case: _Case) -> str | None:
    state = case.situation.state
    if state == "active" or (state == "reduce_only" and not case.buys):
        return None
    return f"trading state is {state}"


def _account_pin(case: _Case) -> str | None:
    pinned, account = case.situation.pinned_account, case.situation.account
    return None if pinned is None or pinned == account else f"account must be {pinned}, was {account}"


def _breaker(case: _Case) -> str | None:
    tripped = breakers(case.situation, case.limits)
    if not case.buys or not (case.situation.latched or tripped):
        return None
    return "; ".join([*(f"{name} is latched" for name in sorted(case.situation.latched - tripped.keys())), *tripped.values()])


def _stale_data(case: _Case) -> str | None:
    age, limit = case.situation.bar_age_sessions, case.limits.max_bar_age_sessions
    return None if age <= limit else f"newest bar is {age} sessions old, at most {limit}"


def _stale_quote(case: _Case) -> str | None:
    ages, limit = case.situation.quote_ages, case.limits.max_quote_age_minutes
    # As far in the future as in the past: then one of the two clocks is wrong
    age = 0.0 if ages is None else abs(ages.get(case.order.symbol, math.nan))
    return None if age <= limit else f"the quote of {case.order.symbol} is {age:.1f} minutes old, at most {limit}"


def _stale_model(case: _Case) -> str | None:
    age, limit = case.situation.model_age_days, case.limits.max_model_age_days
    return None if age is None or age <= limit else f"model is {age} days old, at most {limit}"


def _restricted(case: _Case) -> str | None:
    return f"{case.order.symbol} is restricted" if case.buys and case.order.symbol in case.limits.restricted else None


def _price_collar(case: _Case) -> str | None:
    sized, last = float(case.order.price_reference), case.situation.price(case.order.symbol)
    gap, limit = abs(_ratio(sized, last) - 1), math.inf if case.leaves else case.limits.price_collar
    return None if gap <= limit else f"sized at {sized}, {gap:.4f} from the last trade {last}, at most {limit}"


def _order_notional(case: _Case) -> str | None:
    limit = math.inf if case.leaves else case.limits.max_order_notional
    return None if 0 < case.notional <= limit else f"notional must be above 0 and at most {limit:.2f}, was {case.notional:.2f}"


def _long_only(case: _Case) -> str | None:
    held = case.situation.sellable(case.order.symbol)
    return None if case.buys or float(case.order.quantity) <= held else f"{held} shares are free to sell"


def _orders_per_day(case: _Case) -> str | None:
    count, limit = case.situation.orders_today + 1, case.limits.max_orders_per_day
    return None if case.leaves or count <= limit else f"order {count} of the day, at most {limit}"


def _turnover_per_day(case: _Case) -> str | None:
    turnover, limit = _ratio(case.situation.traded_today + case.notional, case.situation.equity), case.limits.max_turnover_per_day
    return None if case.leaves or turnover <= limit else f"turnover of the day would be {turnover:.4f} of equity, at most {limit}"


def _max_weight(case: _Case) -> str | None:
    weight = _ratio(case.situation.exposure(case.order.symbol) + case.notional, case.situation.equity)
    limit = case.limits.max_weight
    return None if not case.buys or weight <= limit + _ROUNDING else f"weight would be {weight:.4f} of equity, at most {limit}"


def _max_gross(case: _Case) -> str | None:
    gross = _ratio(case.situation.gross() + case.notional, case.situation.equity)
    limit = case.limits.max_gross
    return None if not case.buys or gross <= limit + _ROUNDING else f"gross would be {gross:.4f} of equity, at most {limit}"


RULES: Mapping[str, Callable[[_Case], str | None]] = {
    "trading_state": _trading_state,
    "account_pin": _account_pin,
    "breaker": _breaker,
    "stale_data": _stale_data,
    "stale_model": _stale_model,
    "stale_quote": _stale_quote,
    "restricted": _restricted,
    "price_collar": _price_collar,
    "order_notional": _order_notional,
    "long_only": _long_only,
    "orders_per_day": _orders_per_day,
    "turnover_per_day": _turnover_per_day,
    "max_weight": _max_weight,
    "max_gross": _max_gross,
}
