"""The portfolio: what it is worth beside equal weight and the benchmark, what it holds, and what has moved it."""

from __future__ import annotations

from decimal import Decimal

from aws_lambda_powertools.event_handler import Response
from pydantic import BaseModel

from lambdas.common.ledger.records import Snapshot
from lambdas.dashboard.pages import page
from lambdas.dashboard.request import PageRequest
from lambdas.dashboard.routing import PageRouter

router = PageRouter()
EVER = "9999-12-31"


class PositionView(BaseModel):
    symbol: str
    quantity: Decimal
    close: Decimal
    value: Decimal
    weight: float


class PortfolioView(BaseModel):
    """`session` None: nothing has been traded yet."""

    session: str | None
    equity: Decimal | None
    cash: Decimal | None
    positions: tuple[PositionView, ...]


class EquityView(BaseModel):
    """Closing equity in US dollars by session, oldest first."""

    sessions: tuple[str, ...]
    equity: tuple[float, ...]


@router.get("/api/portfolio", summary="The last closing snapshot")
def get_portfolio() -> PortfolioView:
    return portfolio(router.asked)


@router.get("/api/portfolio/equity", summary="Equity by session")
def get_equity() -> EquityView:
    snapshots = router.asked.ledger.snapshots("", EVER)
    return EquityView(sessions=tuple(one.session for one in snapshots), equity=tuple(float(one.equity) for one in snapshots))


@router.get("/pages/portfolio", include_in_schema=False)
def show_portfolio() -> Response[str]:
    return page("portfolio.html.j2", router.asked, view=portfolio(router.asked))


def portfolio(request: PageRequest) -> PortfolioView:
    snapshot = request.ledger.latest_snapshot()
    if snapshot is None:
        return PortfolioView(session=None, equity=None, cash=None, positions=())
    return PortfolioView(session=snapshot.session, equity=snapshot.equity, cash=snapshot.cash, positions=_positions(snapshot))


def _positions(snapshot: Snapshot) -> tuple[PositionView, ...]:
    found = [
        PositionView(
            symbol=symbol,
            quantity=held.quantity,
            close=held.close,
            value=held.quantity * held.close,
            weight=float(held.quantity * held.close / snapshot.equity),
        )
        for symbol, held in snapshot.positions.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.value, one.symbol)))
