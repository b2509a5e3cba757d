"""The portfolio: what it is worth beside equal weight and the benchmark, what it holds, and what has moved it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import BaseModel

from lambdas.common.orders.contribution import by_name
from lambdas.dashboard.account.account import AccountNow
from lambdas.dashboard.account.book import HeldBook, HeldName, book, book_of
from lambdas.dashboard.account.performance import SPANS, Span, SpanMeasures, drawdowns, gain_of, gains, measures, opened, turnover
from lambdas.dashboard.account.yardsticks import Path
from lambdas.dashboard.market.quotes import last_quotes
from lambdas.dashboard.pages import page
from lambdas.dashboard.routing import PageRouter

router = PageRouter()
SpanQuery = Annotated[Span, Query(description="from so long before the last close, to it")]


class PositionView(BaseModel):
    """Dollars and shares. `day`: won or lost in the last closed session, its fills included; `since_opened` in dollars, from the close of
    the session `opened`, on which it was held first."""

    symbol: str
    quantity: Decimal
    price: Decimal
    priced: str
    value: Decimal
    weight: float | None
    day: float | None
    opened: str | None
    since_opened: float | None


class PortfolioView(BaseModel):
    """As of now. `session`: the last closing snapshot's, None: there is none yet."""

    session: str | None
    equity: Decimal | None
    cash: Decimal | None
    cash_weight: float | None
    fills_since: int
    positions: tuple[PositionView, ...]


class LiveView(BaseModel):
    """What reconcile read of the broker last, at `as_of` (ISO 8601 UTC; None: never). `day`: against the close of `since`."""

    as_of: str | None
    is_open: bool
    next_open: str | None
    equity: Decimal | None
    since: str | None
    day: Decimal | None
    day_change: float | None
    trading_state: str
    open_orders: int


class EquityView(BaseModel):
    """Dollars at the closes, oldest first, each beginning with the account's equity; drawdowns are shares at or below 0.

    `equal`: today's universe in equal parts, rebalanced at each close; `benchmark`: bought and kept; both before costs. null: the lake
    has no closes of that session yet.
    """

    sessions: tuple[str, ...]
    equity: tuple[float | None, ...]
    equal: tuple[float | None, ...]
    benchmark: tuple[float | None, ...]
    drawdown: tuple[float | None, ...]
    equal_drawdown: tuple[float | None, ...]
    benchmark_drawdown: tuple[float | None, ...]


class PerformanceView(BaseModel):
    """`names`: dollars won or lost by name from close to close; `rest`: of the account's change what no name explains, which is trades
    against the close of their own day, dividends and fees. `turnover`: share of equity bought and sold per session."""

    span: Span
    first: str
    last: str
    sessions: int
    agent: SpanMeasures
    equal_weight: SpanMeasures
    benchmark: SpanMeasures
    benchmark_name: str
    turnover: float | None
    dollars: float
    names: dict[str, float]
    rest: float


@router.get("/api/portfolio", summary="What is held now")
def get_portfolio() -> PortfolioView:
    return portfolio(AccountNow.of(router.asked))


@router.get("/api/portfolio/live", summary="Equity and the day, as the broker was seen last")
def get_live() -> LiveView:
    return live(AccountNow.of(router.asked))


@router.get(
    "/api/portfolio/equity",
    summary="Equity and drawdown by session, beside equal weight and the benchmark",
    responses={200: {"description": "Columns by session", "content": {"application/json": {"model": EquityView}}}},
)
def get_equity(span: SpanQuery = "1Y") -> Response[str]:
    account = AccountNow.of(router.asked)
    body = account.once(f"equity {span}", lambda: equity(account, span).model_dump_json())
    return Response(status_code=200, content_type="application/json", body=body)


@router.get("/api/portfolio/performance", summary="A span in numbers; null before the first close")
def get_performance(span: SpanQuery = "1Y") -> PerformanceView | None:
    return performance(AccountNow.of(router.asked), span)


@router.get("/pages/portfolio", include_in_schema=False)
def show_portfolio(span: SpanQuery = "1Y") -> Response[str]:
    account = AccountNow.of(router.asked)
    values = {"view": portfolio(account), "live": live(account), "performance": performance(account, span)}
    return page("portfolio.html.j2", router.asked, spans=SPANS, span=span, **values)


@router.get("/pages/portfolio/live", include_in_schema=False)
def show_live() -> Response[str]:
    return page("portfolio_live.html.j2", router.asked, live=live(AccountNow.of(router.asked)))


def portfolio(account: AccountNow) -> PortfolioView:
    ledger, snapshot = account.request.ledger, account.history.last
    if snapshot is not None and account.is_closed_since(snapshot):
        held = book(snapshot, (), now=account.now, prices=account.prices, quotes={})
    else:
        quotes = last_quotes(account.request.lake, now=account.now)
        held = book_of(ledger, snapshot, now=account.now, prices=account.prices, quotes=quotes)
    total = held.equity
    day = account.once("last session", lambda: _last_session(account))
    opened_at = account.once("opened", lambda: _opened(account))
    return PortfolioView(
        session=None if snapshot is None else snapshot.session,
        equity=total,
        cash=held.cash,
        cash_weight=float(held.cash / total) if held.cash is not None and total else None,
        fills_since=len(held.fills),
        positions=tuple(_position(one, held, day, opened_at) for one in held.holdings),
    )


def live(account: AccountNow) -> LiveView:
    seen, ledger = account.seen, account.request.ledger
    before = None if seen is None else account.history.close_before(account.today)
    day = None if seen is None or before is None else seen.equity - before.equity
    return LiveView(
        as_of=None if seen is None else seen.now,
        is_open=seen is not None and seen.is_open,
        next_open=None if seen is None else seen.next_open,
        equity=None if seen is None else seen.equity,
        since=None if before is None else before.session,
        day=day,
        day_change=float(day / before.equity) if day is not None and before is not None and before.equity else None,
        trading_state=ledger.trading_state().state,
        open_orders=len(ledger.unsettled_ids()),
    )


def equity(account: AccountNow, span: Span) -> EquityView:
    yardsticks, chosen = account.yardsticks, account.since(span)
    if yardsticks is None:
        return EquityView(sessions=(), equity=(), equal=(), benchmark=(), drawdown=(), equal_drawdown=(), benchmark_drawdown=())
    path = [one.equity for one in chosen]
    equal, benchmark = (_in_dollars(index[-len(chosen) :], path[0]) for index in (yardsticks.equal_weight, yardsticks.benchmark))
    return EquityView(
        sessions=tuple(one.session for one in chosen),
        equity=_rounded(path, 2),
        equal=_rounded(equal, 2),
        benchmark=_rounded(benchmark, 2),
        drawdown=_rounded(drawdowns(path), 6),
        equal_drawdown=_rounded(drawdowns(equal), 6),
        benchmark_drawdown=_rounded(drawdowns(benchmark), 6),
    )


def performance(account: AccountNow, span: Span) -> PerformanceView | None:
    return account.once(f"performance {span}", lambda: _performance(account, span))


def _performance(account: AccountNow, span: Span) -> PerformanceView | None:
    yardsticks, chosen = account.yardsticks, account.since(span)
    if yardsticks is None:
        return None
    names = gains(chosen, yardsticks.prices)
    dollars = chosen[-1].equity - chosen[0].equity
    return PerformanceView(
        span=span,
        first=chosen[0].session,
        last=chosen[-1].session,
        sessions=len(chosen),
        agent=measures([one.equity for one in chosen]),
        equal_weight=measures(yardsticks.equal_weight[-len(chosen) :]),
        benchmark=measures(yardsticks.benchmark[-len(chosen) :]),
        benchmark_name=account.request.settings.universe.required_benchmark,
        turnover=turnover(chosen, yardsticks.prices),
        dollars=dollars,
        names=names,
        rest=dollars - sum(names.values()),
    )


def _in_dollars(index: Path, start: float) -> list[float | None]:
    """The index as if `start` dollars had been put in at its first known value."""
    base = next((one for one in index if one is not None), None)
    return [None if one is None or base is None else start * one / base for one in index]


def _rounded(path: Sequence[float | None], digits: int) -> tuple[float | None, ...]:
    return tuple(None if one is None else round(one, digits) for one in path)


def _last_session(account: AccountNow) -> dict[str, float]:
    """Dollars by name in the last closed session, exact by its fills."""
    last, before = account.history.last, account.history.before
    if last is None or before is None:
        return {}
    months = sorted({before.taken_at[:7], last.taken_at[:7]})
    return by_name(before, last, account.request.ledger.fills_since(before.taken_at, months=months))


def _opened(account: AccountNow) -> dict[str, tuple[str, float]]:
    """Of what the last close held: since which session, and what it has won since its close, in dollars."""
    closings = account.history.closings
    starts = {symbol: opened(symbol, closings) for symbol in (closings[-1].held if closings else ())}
    return {symbol: (closings[start].session, gain_of(symbol, closings[start:], account.prices)) for symbol, start in starts.items()}


def _position(one: HeldName, held: HeldBook, day: dict[str, float], opened_at: dict[str, tuple[str, float]]) -> PositionView:
    session, won = opened_at.get(one.symbol, (None, None))
    return PositionView(
        symbol=one.symbol,
        quantity=one.quantity,
        price=one.price,
        priced=one.priced,
        value=one.value,
        weight=float(one.value / held.equity) if held.equity else None,
        day=day.get(one.symbol),
        opened=session,
        since_opened=won,
    )
