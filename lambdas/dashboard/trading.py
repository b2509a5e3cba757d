"""Trading: what is watched, candles with the agent's fills and signals, orders with their lives, and the wheel in a person's hands.

Nothing is traded here: each write goes through the execution API, to the same executor, risk and ledger as the agent's own, and its
refusals keep their status.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from functools import lru_cache
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.params import Body, Path, Query
from pydantic import BaseModel

from lambdas.common.api.responses import answer
from lambdas.common.ledger.ledger import Ledger
from lambdas.dashboard.account import outcomes
from lambdas.dashboard.account.account import AccountNow
from lambdas.dashboard.account.lives import OrderLife, OrdersView, life_of, order_view, orders_view
from lambdas.dashboard.account.months import months_between, months_of
from lambdas.dashboard.account.performance import DAYS, SPANS, Span
from lambdas.dashboard.account.requests import FlattenBody, OrderBody, StateBody, WatchBody, signed
from lambdas.dashboard.market.bars import BarCache, RawBars
from lambdas.dashboard.market.candles import CandlesView, ChartMarker, Sparkline, candles, markers, sparkline
from lambdas.dashboard.market.quotes import LastQuote, last_quotes
from lambdas.dashboard.pages import page
from lambdas.dashboard.request import MONTH_PATTERN, PageRequest
from lambdas.dashboard.routing import PageRouter
from lambdas.dashboard.writes import HEADER, Written, write
from schema.api_requests import State
from schema.path_segment import identity_of, segment_of

router = PageRouter()
MARKED_MONTHS = 13
PAGE = 25
TEN_YEARS = 3652  # days

SpanQuery = Annotated[Span, Query(description="from so long before the last bar, to it")]
MonthQuery = Annotated[str | None, Query(pattern=MONTH_PATTERN, description="2020-01; without it the market's")]
CursorQuery = Annotated[str | None, Query(description="of the page before", max_length=2000)]
LimitQuery = Annotated[int, Query(ge=1, le=500)]
SymbolPath = Annotated[str, Path(pattern=r"^[A-Z][A-Z0-9.]{0,9}$")]
Id = Annotated[str, Path(min_length=1, max_length=300)]


class StateView(BaseModel):
    """`version` counts the changes: a change names the one that it has seen."""

    state: State
    reason: str
    since: str | None
    by: str | None
    version: int
    breakers: dict[str, str]


class WatchedName(BaseModel):
    """`quote` None: the lake's last minute has none of it; `watched`: on the list, beside what is held."""

    symbol: str
    watched: bool
    quote: LastQuote | None
    spark: Sparkline | None


@router.get("/api/trading-state", summary="Who may trade, and why")
def get_state() -> StateView:
    return state_of(router.asked)


@router.get("/api/watchlist", summary="What is held and watched, with last quotes and sparklines")
def get_watchlist() -> list[WatchedName]:
    return watched(AccountNow.of(router.asked))


@router.get("/api/candles/<symbol>", summary="Daily candles with the agent's fills and signals")
def get_candles(symbol: SymbolPath, span: SpanQuery = "3M") -> CandlesView:
    return candles_of(AccountNow.of(router.asked), symbol, span)


@router.get("/api/orders", summary="A month's orders, the newest first, page by page")
def get_orders(month: MonthQuery = None, cursor: CursorQuery = None, limit: LimitQuery = PAGE) -> OrdersView:
    return listed(AccountNow.of(router.asked), month, cursor=cursor, limit=limit)


@router.get("/api/orders/<order_id>", summary="An order with its life and its trace")
def get_order(order_id: Id) -> OrderLife:
    return order_of(router.asked, order_id)


@router.post("/api/orders", summary="A manual order; the idempotency key is the order's own")
def post_order(order: Annotated[OrderBody, Body()]) -> Response[str]:
    key = router.header(HEADER)
    body = order.model_dump(mode="json")

    def act() -> Written:
        return outcomes.ordered(router.asked.execution.call("POST", "/orders", {"key": key, **body}, repeat=True))

    return _trade("order", body, act)


@router.delete("/api/orders/<order_id>", summary="Cancel an order")
def delete_order(order_id: Id) -> Response[str]:
    identity = identity_of(order_id)

    def act() -> Written:
        return outcomes.cancelled(router.asked.execution.call("DELETE", f"/orders/{segment_of(identity)}", repeat=True))

    return _trade("cancel", {"order_id": identity}, act)


@router.put("/api/trading-state", summary="Halt, reduce only, or resume; 409 if it has changed since the version that was seen")
def put_state(change: Annotated[StateBody, Body()]) -> Response[str]:
    body = change.model_dump(mode="json")
    sent = {**body, "reason": signed(change.reason, router.asked.principal.user)}
    return _trade("trading-state", body, lambda: outcomes.state_set(router.asked.execution.call("PUT", "/trading-state", sent)))


@router.post("/api/flatten", summary="Buy nothing any more, and sell every position")
def post_flatten(request: Annotated[FlattenBody, Body()]) -> Response[str]:
    reason = signed(request.reason, router.asked.principal.user)
    return _trade("flatten", request.model_dump(mode="json"), lambda: outcomes.flattened(router.asked.execution.flatten(reason)))


@router.post("/api/watchlist", summary="Watch a name of the universe")
def post_watched(name: Annotated[WatchBody, Body()]) -> Response[str]:
    return _trade("watch", name.model_dump(mode="json"), lambda: _watch(router.asked, name.symbol))


@router.delete("/api/watchlist/<symbol>", summary="Watch a name no longer")
def delete_watched(symbol: SymbolPath) -> Response[str]:
    return _trade("unwatch", {"symbol": symbol}, lambda: _unwatch(router.asked, symbol))


@router.get("/pages/trading", include_in_schema=False)
def show_trading(symbol: Annotated[str | None, Query()] = None, span: SpanQuery = "3M") -> Response[str]:
    asked, account = router.asked, AccountNow.of(router.asked)
    names = asked.settings.universe.symbols
    chosen = symbol if symbol in names else names[0]
    return page(
        "trading.html.j2",
        asked,
        state=state_of(asked),
        watched=watched(account),
        names=names,
        symbol=chosen,
        span=span,
        spans=SPANS,
        marks=_marks(account, chosen, _first_day(account, span)),
        open_orders=[order_view(one) for one in asked.ledger.unsettled_orders()],
        orders=listed(account, None, cursor=None, limit=PAGE),
        months=_months(account),
    )


@router.get("/pages/trading/orders", include_in_schema=False)
def show_orders(month: MonthQuery = None, cursor: CursorQuery = None) -> Response[str]:
    account = AccountNow.of(router.asked)
    orders = listed(account, month, cursor=cursor, limit=PAGE)
    return page("orders.html.j2", router.asked, orders=orders, months=_months(account))


@router.get("/pages/trading/orders/<order_id>", include_in_schema=False)
def show_order(order_id: Id) -> Response[str]:
    return page("order.html.j2", router.asked, order=order_of(router.asked, order_id))


def state_of(request: PageRequest) -> StateView:
    state, breakers = request.ledger.switches()
    told = state.model_dump(include={"state", "reason", "since", "by", "version"})
    return StateView(**told, breakers=breakers.tripped)


def watched(account: AccountNow) -> list[WatchedName]:
    """What the last close held, then the list, each in order."""
    last, listed_names = account.history.last, account.request.actions.watchlist()
    held = [] if last is None else sorted(last.positions)
    names = list(dict.fromkeys([*held, *listed_names]))
    if not names:
        return []
    quotes = last_quotes(account.request.lake, now=account.now)
    prices = _bars(account, back=1)
    return [
        WatchedName(symbol=one, watched=one in listed_names, quote=quotes.get(one), spark=sparkline(one, prices.prices)) for one in names
    ]


def candles_of(account: AccountNow, symbol: str, span: Span) -> CandlesView:
    """Raises NotFoundError for what is no name of the universe."""
    if symbol not in account.request.settings.universe.symbols:
        raise NotFoundError
    first = _first_day(account, span)
    bars = _bars(account, back=int(account.today[:4]) - int(first[:4]))
    return candles(symbol, bars.rows, prices=bars.prices, first=first, markers=_marks(account, symbol, first))


def listed(account: AccountNow, month: str | None, *, cursor: str | None, limit: int) -> OrdersView:
    month = month or account.now[:7]
    return orders_view(month, account.request.ledger.page_of_orders(month, limit=limit, cursor=cursor, newest_first=True))


def order_of(request: PageRequest, order_id: str) -> OrderLife:
    """Raises NotFoundError for an order that is not there."""
    found = request.execution.order(identity_of(order_id))
    if found.status == 404:
        raise NotFoundError
    return life_of(found.body)


def _trade(name: str, body: dict[str, Any], act: Callable[[], Written]) -> Response[str]:
    return answer(*write(router.asked, name=name, key=router.header(HEADER), scope="trade", body=body, act=act))


def _watch(request: PageRequest, symbol: str) -> Written:
    names = request.settings.universe.symbols
    if symbol not in names:
        return Written(422, {"message": f"{symbol} is not watched: quotes and bars are of the universe only, {', '.join(names)}"})
    listed_names = request.actions.watchlist()
    request.actions.put_watchlist(tuple(dict.fromkeys([*listed_names, symbol])))
    return Written(200, {"message": f"{symbol} is watched."})


def _unwatch(request: PageRequest, symbol: str) -> Written:
    request.actions.put_watchlist(tuple(one for one in request.actions.watchlist() if one != symbol))
    return Written(200, {"message": f"{symbol} is not watched any more."})


def _first_day(account: AccountNow, span: Span) -> str:
    today = date.fromisoformat(account.today)
    start = date(today.year, 1, 1) if span == "YTD" else today - timedelta(days=DAYS.get(span, TEN_YEARS))
    return start.isoformat()


def _marks(account: AccountNow, symbol: str, first: str) -> list[ChartMarker]:
    kept, when = months_of(account.request.ledger), {"today": account.today, "now": account.request.now}
    chosen = months_between(first, account.today)[-MARKED_MONTHS:]
    fills = [one for month in chosen for one in kept.fills.of(month, **when)]
    targets = [one for month in chosen for one in kept.targets.of(month, **when)]
    return [one for one in markers(symbol, fills=fills, targets=targets) if one.session >= first]


def _bars(account: AccountNow, *, back: int) -> RawBars:
    """Of the universe, of this year and so many before."""
    request, year = account.request, int(account.today[:4])
    years = range(year - back, year + 1)
    return _cache_of(request.ledger).of(request.lake, symbols=request.settings.universe.symbols, years=years, hour=request.now[:13])


@lru_cache(maxsize=4)
def _cache_of(ledger: Ledger) -> BarCache:  # noqa: ARG001 -- whose lake it is
    return BarCache()


def _months(account: AccountNow) -> list[str]:
    """Those that can have orders, the newest first."""
    closings = account.history.closings
    return months_between(closings[0].session if closings else account.now, account.now)[::-1]
