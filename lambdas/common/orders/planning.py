"""What a batch may know and do: the broker's truth at one instant, the slot's window, sizing, and the situation that risk judges.

Promises: orders are sized by `trading_env.simulation.portfolio` from the broker's own positions and cash, at the quote mid of this
session; a name without a valid quote, or with one that is wide or beyond the price collar, is not traded and says why, and is valued at its
last trade; a held name without any price refuses the whole plan. A flatten sells every exact holding, whatever its quote. Nothing here
writes. `PlanRefused` is a definite no, with its reason; a failed read stays `BrokerUnavailable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

import numpy as np

from lambdas.common.broker.port import Account, Broker, BrokerUnavailable, Clock, MarketData, Order, Position, Quote, Session, Trade
from lambdas.common.ledger.item import plain
from lambdas.common.ledger.records import Breakers, Decision, OrderRecord, PlannedOrder, ServedModel
from schema.api_requests import State
from schema.exchange_time import new_york_date, parse_utc
from schema.settings import Settings
from schema.slot import FLATTEN, PERSONAL, Slot
from schema.trading_rules import rules_of
from trading_env.errors import PapertapeError
from trading_env.orders import risk
from trading_env.orders.order_state import OrderStatus, Side
from trading_env.orders.orders import Intent, OrderError, ProposedOrder, client_order_id, propose, to_decimal, to_float
from trading_env.simulation.portfolio import PortfolioError, plan_orders, scale_buys

MINUTE = timedelta(minutes=1)
#: No window reaches nearer to the close: what reaches the broker after it would be filled at the next open. Longer than the broker's time
#: may be old, and a POST may take twice (`BrokerVariables`), because one whose keys were refused is sent again.
LAST_MINUTE = MINUTE
#: A flatten that was asked for while the market was closed sells from here on: the first seconds have quotes and trades of the day before.
FIRST_MINUTE = MINUTE

#: A wider quote, as a share of its mid, sizes no order: between its sides lies no price. One exchange's quotes five minutes after the open
#: were at most 0.2 % wide in the recorded sessions.
WIDEST_SPREAD = 0.02


class PlanRefused(PapertapeError):  # noqa: N818 -- an outcome, not an error
    """The decision must not trade; the message says why."""


@dataclass(frozen=True, kw_only=True)
class SlotWindow:
    """When orders of a decision may be sent: from `begins` to before `ends`, within the session `opens` to `closes`. UTC."""

    session: date
    opens: datetime
    closes: datetime
    begins: datetime
    ends: datetime
    bar_age_sessions: int

    def problem(self, clock: Clock) -> str | None:
        """Say why nothing may be sent now; None if it may."""
        if not clock.is_open:
            return f"the market is closed at {clock.now.isoformat()}"
        if not self.begins <= clock.now < self.ends:
            return f"the window is from {self.begins.isoformat()} to {self.ends.isoformat()}, was {clock.now.isoformat()}"
        return None

    def seconds_left(self, now: datetime) -> float:
        return (self.ends - now).total_seconds()


@dataclass(frozen=True, kw_only=True)
class View:
    """The broker's truth at one instant, read once per batch."""

    now: datetime
    window: SlotWindow
    account: Account
    positions: Mapping[str, Position]
    open_orders: Sequence[Order]
    quotes: Mapping[str, Quote]
    trades: Mapping[str, Trade]
    oldest_quote: timedelta

    def mid(self, symbol: str) -> float:
        """Return the quote mid in dollars; raise `PlanRefused` unless the quote is of this session, recent, and makes sense."""
        quote = self.quotes.get(symbol)
        if quote is None:
            raise PlanRefused(f"{symbol} has no quote")
        if not (0 < quote.bid <= quote.ask < float("inf")):
            raise PlanRefused(f"{symbol}: 0 < bid <= ask must hold, was {quote.bid} and {quote.ask}")
        if parse_utc(quote.ts) < self.window.opens:
            raise PlanRefused(f"{symbol}: its quote must be of the session that opened at {self.window.opens.isoformat()}, was {quote.ts}")
        if not abs(age := self.age(quote)) <= self.oldest_quote:
            raise PlanRefused(f"{symbol}: its quote is {age} old, at most {self.oldest_quote}")
        return (quote.bid + quote.ask) / 2

    def mid_or_none(self, symbol: str) -> float | None:
        """Return the mid of whatever quote there is, to measure by; None of one that makes no sense."""
        quote = self.quotes.get(symbol)
        return (quote.bid + quote.ask) / 2 if quote is not None and 0 < quote.bid <= quote.ask < float("inf") else None

    def age(self, quote: Quote) -> timedelta:
        return self.now - parse_utc(quote.ts)


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    orders: tuple[PlannedOrder, ...]
    refused: dict[str, str]
    equity: float | None = None


def window_of(decision: Decision, *, broker: Broker, clock: Clock, settings: Settings) -> SlotWindow:
    """Return the window of `decision`; raise `PlanRefused` if it is of another session than today's or its data are not past.

    Only a flatten's may lie ahead.
    """
    today = clock.session_date
    if decision.strategy in PERSONAL:
        return _personal_window(decision, broker=broker, today=today)
    as_of = date.fromisoformat(decision.data_as_of)
    if problem := _not_observed(decision, as_of, today=today, settings=settings):
        raise PlanRefused(problem)
    sessions = broker.sessions(as_of, today)
    session = next((one for one in sessions if one.date == today), None)
    if session is None:
        raise PlanRefused(f"{today} is not a session")
    age = sum(as_of < one.date < today for one in sessions)
    slot = Slot.parse(decision.slot)
    if slot.session != today:
        raise PlanRefused(f"the slot {decision.slot} is not of today's session, {today}")
    begins, ends = slot.window(session.open, minutes=settings.schedule.slot_window_minutes)
    return _window(session, begins=begins, ends=ends, age=age)


def _not_observed(decision: Decision, as_of: date, *, today: date, settings: Settings) -> str:
    """Why nothing that a decision on slot `decision.slot` may rest on reaches to `as_of` and no further."""
    if Slot.parse(decision.slot).name in settings.row_slots[1:]:
        return "" if as_of == today else f"data_as_of of a later slot must be its session, {today}, was {as_of}"
    return "" if as_of < today else f"data_as_of must be a session before {today}, was {as_of}"


def _personal_window(decision: Decision, *, broker: Broker, today: date) -> SlotWindow:
    leaving = decision.strategy == FLATTEN
    day = date.fromisoformat(decision.slot[:10]) if leaving else new_york_date(parse_utc(decision.received_at))
    if day < today:
        raise PlanRefused(f"it is of {day} and is not sent on {today}")
    session = next(iter(broker.sessions(day, day)), None)
    if session is None:
        raise PlanRefused(f"{day} is not a session")
    return _window_to_leave(session) if leaving else _window(session, begins=session.open, ends=session.close, age=0)


def window_to_leave(broker: Broker, clock: Clock) -> SlotWindow:
    """Return where a flatten sells that is asked for now: in this session, or, when its window is over, in the next one."""
    sessions = broker.sessions(clock.session_date, new_york_date(clock.next_open))
    window = next((one for one in map(_window_to_leave, sessions) if clock.now < one.ends), None)
    if window is None:
        raise BrokerUnavailable(f"the broker's calendar has no session at its next open, {clock.next_open.isoformat()}")
    return window


def _window_to_leave(session: Session) -> SlotWindow:
    return _window(session, begins=session.open + FIRST_MINUTE, ends=session.close, age=0)


def waits(decision: Decision, window: SlotWindow, clock: Clock) -> bool:
    """Whether this is a flatten that a closed market keeps from being planned: a later run will."""
    return decision.strategy == FLATTEN and decision.plan is None and clock.now < window.ends and window.problem(clock) is not None


def _window(session: Session, *, begins: datetime, ends: datetime, age: int) -> SlotWindow:
    return SlotWindow(
        session=session.date,
        opens=session.open,
        closes=session.close,
        begins=begins,
        ends=min(ends, session.close - LAST_MINUTE),
        bar_age_sessions=age,
    )


def look(broker: Broker, market_data: MarketData, *, clock: Clock, window: SlotWindow, symbols: Sequence[str], settings: Settings) -> View:
    """Read account, positions, open orders, quotes and trades once; of `symbols`, and of all that is held or worked."""
    positions, open_orders = broker.positions(), broker.open_orders()
    wanted = sorted({*symbols, *positions, *(order.symbol for order in open_orders)})
    return View(
        now=clock.now,
        window=window,
        account=broker.account(),
        positions=positions,
        open_orders=open_orders,
        quotes=market_data.latest_quotes(wanted) if wanted else {},
        trades=market_data.latest_trades(wanted) if wanted else {},
        oldest_quote=timedelta(minutes=settings.risk.max_quote_age_minutes),
    )


def plan(decision: Decision, view: View, settings: Settings) -> BatchPlan:
    """Size the orders that move the account to the decision's weights. A symbol without a weight is carried; weight 0 is sold whole.

    Raises `PlanRefused` when the account is blocked or cannot be valued.
    """
    if decision.strategy == FLATTEN:
        return _leave(decision, view)
    if view.account.blocked:
        raise PlanRefused(f"the broker has blocked the account, its status is {view.account.status}")
    symbols = _in_order({*decision.weights, *view.positions}, settings)
    busy = {order.symbol for order in view.open_orders}
    prices, refused = [], {}
    for symbol in symbols:
        try:
            prices.append(_believable(view.mid(symbol), symbol, view, collar=settings.risk.price_collar))
        except PlanRefused as reason:
            prices.append(_mark(view, symbol))
            refused[symbol] = str(reason)
        if symbol in busy:
            refused[symbol] = f"{symbol} has an open order"
    tradable = [symbol in decision.weights and symbol not in refused for symbol in symbols]
    try:
        quantities = np.array([_held(view, symbol) for symbol in symbols])
        deltas = plan_orders(
            cash=float(view.account.cash),
            quantities=quantities,
            prices=np.array(prices),
            weights=np.array([decision.weights.get(symbol, 0.0) for symbol in symbols]),
            tradable=np.array(tradable, dtype=bool),
            rules=rules_of(settings),
        )
        orders = propose(strategy=decision.strategy, slot=decision.slot, symbols=symbols, deltas=deltas, prices=np.array(prices))
    except (PortfolioError, OrderError) as error:
        raise PlanRefused(f"no plan: {error} (columns are {', '.join(symbols)})") from error
    named = {symbol: reason for symbol, reason in refused.items() if symbol in decision.weights}
    equity = equity_of(view, dict(zip(symbols, prices, strict=True)))
    return BatchPlan(orders=tuple(_planned(order) for order in orders), refused=named, equity=equity)


def _leave(decision: Decision, view: View) -> BatchPlan:
    """Sell every exact holding; a name without a last trade keeps no other from being sold."""
    orders, refused = [], {}
    for symbol, held in sorted(view.positions.items()):
        if (trade := view.trades.get(symbol)) is None:
            refused[symbol] = f"{symbol} has no last trade"
        else:
            orders.append(planned_order(decision, symbol, "sell", held.quantity, trade.price))
    return BatchPlan(orders=tuple(orders), refused=refused)


def unsold(orders: Sequence[OrderRecord]) -> list[str]:
    """Say of a flatten's ended orders what they have left."""
    return [
        f"{order.symbol}: {plain(order.quantity - order.filled_quantity)} of {plain(order.quantity)} {order.status}"
        for order in orders
        if order.filled_quantity < order.quantity
    ]


def equity_of(view: View, prices: Mapping[str, float]) -> float:
    return float(view.account.cash) + sum(_held(view, symbol) * prices[symbol] for symbol in view.positions)


def scaled(buys: Sequence[PlannedOrder], *, cash: float, settings: Settings) -> tuple[PlannedOrder, ...]:
    """Return the buys that `cash` pays for, all scaled by one factor if it must; a buy scaled to nothing is left out."""
    if not buys:
        return ()
    ordered = sorted(buys, key=lambda buy: _rank(buy.symbol, settings))
    quantities = scale_buys(
        buys=np.array([to_float(buy.quantity) for buy in ordered]),
        prices=np.array([buy.price for buy in ordered]),
        cash=cash,
        rules=rules_of(settings),
    )
    final = {buy.symbol: to_decimal(float(quantity)) for buy, quantity in zip(ordered, quantities, strict=True)}
    return tuple(buy.model_copy(update={"quantity": final[buy.symbol]}) for buy in buys if final[buy.symbol])


def situation(
    view: View,
    *,
    decision: Decision,
    state: State,
    breakers: Breakers,
    today: Sequence[OrderRecord],
    model: ServedModel | None,
) -> risk.Situation:
    """Return what risk judges by. `today`: the session's orders in the ledger, those of this batch included.

    An order that may have reached the broker counts as one that it works.
    """
    working = {order.client_order_id: order for order in view.open_orders}
    doubtful = [order for order in today if order.in_doubt and order.client_order_id not in working]
    open_orders = (
        *(risk.OpenOrder(o.symbol, o.side, float(o.quantity - o.filled_quantity), o.client_order_id) for o in working.values()),
        *(risk.OpenOrder(o.symbol, o.side, float(o.quantity), o.client_order_id) for o in doubtful),
    )
    sent = [order for order in today if order.status not in {OrderStatus.REFUSED, OrderStatus.REJECTED}]
    # The broker's own figure: its cash and its positions may disagree for seconds, which would look like a loss
    equity = float(view.account.equity)
    return risk.Situation(
        equity=equity,
        positions={symbol: float(position.quantity) for symbol, position in view.positions.items()},
        prices={symbol: trade.price for symbol, trade in view.trades.items()},
        peak_equity=float(breakers.peak_equity) or equity,
        last_close_equity=float(breakers.last_close_equity) or equity,
        state=state,
        bar_age_sessions=view.window.bar_age_sessions,
        open_orders=open_orders,
        traded_today=sum(float(order.traded) for order in sent),
        orders_today=len(sent),
        model_age_days=_age_days(model, decision, view.window.session),
        quote_ages=None if decision.strategy == FLATTEN else {name: view.age(quote) / MINUTE for name, quote in view.quotes.items()},
        latched=frozenset(breakers.tripped),
        leaving=decision.strategy == FLATTEN,
        account=view.account.id,
        pinned_account=breakers.account_id,
    )


def _age_days(model: ServedModel | None, decision: Decision, session: date) -> float | None:
    """Days since the last data that the serving model was trained or judged on; None when the decision rests on no trained model."""
    if model is None or model.policy != "endpoint" or model.model_version != decision.model_version:
        return None
    return float((session - model.known_until).days)


def proposed(planned: PlannedOrder) -> ProposedOrder:
    return ProposedOrder(
        symbol=planned.symbol,
        side=planned.side,
        quantity=planned.quantity,
        client_order_id=planned.client_order_id,
        price_reference=planned.price_reference,
    )


def planned_order(decision: Decision, symbol: str, side: Side, quantity: Decimal, price: float) -> PlannedOrder:
    """The first attempt at one order of `decision`."""
    intent = Intent(strategy=decision.strategy, slot=decision.slot, symbol=symbol)
    return PlannedOrder(symbol=symbol, side=side, quantity=quantity, price=price, client_order_id=client_order_id(intent))


def _planned(order: ProposedOrder) -> PlannedOrder:
    return PlannedOrder(
        symbol=order.symbol,
        side=order.side,
        quantity=order.quantity,
        price=float(order.price_reference),
        client_order_id=order.client_order_id,
    )


def _held(view: View, symbol: str) -> float:
    position = view.positions.get(symbol)
    return 0.0 if position is None else to_float(position.quantity)


def _mark(view: View, symbol: str) -> float:
    """The last trade, to value what cannot be traded; NaN where there is none, which `plan_orders` refuses for a held name."""
    trade = view.trades.get(symbol)
    return float("nan") if trade is None else trade.price


def _believable(mid: float, symbol: str, view: View, *, collar: float) -> float:
    """The mid, unless risk would refuse an order at it: a stub quote would size every other order by an equity that is not there."""
    last = _mark(view, symbol)
    if not (last > 0 and abs(mid / last - 1) <= collar):
        raise PlanRefused(f"{symbol}: its quote mid {mid} must be within {collar} of the last trade {last}")
    quote = view.quotes[symbol]
    if not quote.ask - quote.bid <= WIDEST_SPREAD * mid:
        raise PlanRefused(f"{symbol}: its quote of {quote.bid} to {quote.ask} is wider than {WIDEST_SPREAD:.0%}")
    return mid


def _rank(symbol: str, settings: Settings) -> tuple[int, str]:
    universe = settings.universe.symbols
    return (universe.index(symbol) if symbol in universe else len(universe), symbol)


def _in_order(symbols: set[str], settings: Settings) -> list[str]:
    """Sort as the simulator's columns are, so that sums round alike; what is not of the universe comes after."""
    return sorted(symbols, key=lambda symbol: _rank(symbol, settings))
