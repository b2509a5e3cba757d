"""Decisions: what it holds and why, down to model and data; beside it what the model that watches would have done.

GET /api/decisions[?month=YYYY-MM][&cursor=][&limit=] and GET /api/decisions/{id}, an id as one segment (schema/path_segment.py).
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import BaseModel, ConfigDict

from lambdas.common.ledger.records import Decision
from lambdas.dashboard.pages import page
from lambdas.dashboard.request import MONTH_PATTERN, PageRequest
from lambdas.dashboard.routing import PageRouter
from lambdas.dashboard.views import words
from lambdas.dashboard.views.decision import DecisionView, decision_view
from schema.path_segment import identity_of, segment_of
from schema.slot import AGENT

router = PageRouter()
LIMIT = 50

Month = Annotated[str | None, Query(pattern=MONTH_PATTERN, description="of which month; by default the newest that has a decision")]
Cursor = Annotated[str | None, Query(description="that an earlier page gave")]


class DecisionLine(BaseModel):
    model_config = ConfigDict(protected_namespaces=())
    decision_id: str
    segment: str
    strategy: str
    slot: str
    received_at: str
    says: str
    verdict: str
    state: str
    model_version: str
    orders: int
    refused: int


class DecisionsView(BaseModel):
    """The newest first. `month` None: nothing was ever decided. `cursor`: of the rest of the month; `later` is None in the newest month."""

    month: str | None
    earlier: str | None
    later: str | None
    decisions: tuple[DecisionLine, ...]
    cursor: str | None


@router.get("/api/decisions", summary="Decisions of a month, the newest first")
def get_decisions(month: Month = None, cursor: Cursor = None, limit: Annotated[int, Query(ge=1, le=200)] = LIMIT) -> DecisionsView:
    return decisions(router.asked, month=month, cursor=cursor, limit=limit)


@router.get("/api/decisions/<segment>", summary="One decision: why, what became of it, and the chain down to model and data")
def get_decision(segment: str) -> DecisionView:
    return _decision(router.asked, segment)


@router.get("/pages/decisions", include_in_schema=False)
def show_decisions(month: Month = None, cursor: Cursor = None) -> Response[str]:
    newest = _newest(router.asked) if month is None and cursor is None else None
    view = decisions(router.asked, month=month or (None if newest is None else newest.received_at[:7]), cursor=cursor)
    shown = None if newest is None else decision_view(router.asked, newest, chain=False)
    return page("decisions.html.j2", router.asked, view=view, newest=shown)


@router.get("/pages/decisions/<segment>", include_in_schema=False)
def show_decision(segment: str) -> Response[str]:
    return page("decision.html.j2", router.asked, view=_decision(router.asked, segment))


def decisions(request: PageRequest, *, month: str | None, cursor: str | None = None, limit: int = LIMIT) -> DecisionsView:
    last = _last_month(request)
    if month is None:
        month = last
    if month is None:
        return DecisionsView(month=None, earlier=None, later=None, decisions=(), cursor=None)
    found = request.ledger.page_of_decisions(month, limit=limit, cursor=cursor)
    first = date.fromisoformat(f"{month}-01")
    return DecisionsView(
        month=month,
        earlier=(first - timedelta(days=1)).isoformat()[:7],
        later=None if last is None or month >= last else _month_after(month),
        decisions=tuple(_line(one) for one in found.decisions),
        cursor=found.cursor,
    )


def _decision(request: PageRequest, segment: str) -> DecisionView:
    found = request.ledger.decision(identity_of(segment))
    if found is None:
        raise NotFoundError(f"no decision {identity_of(segment)}")
    return decision_view(request, found, chain=True)


def _line(decision: Decision) -> DecisionLine:
    agents = decision.strategy == AGENT
    return DecisionLine(
        decision_id=decision.decision_id,
        segment=segment_of(decision.decision_id),
        strategy=decision.strategy,
        slot=decision.slot,
        received_at=decision.received_at,
        says=words.holding(decision.weights) if agents else words.headline(decision, model=None, watching=None, refused=None),
        verdict=decision.verdict,
        state=decision.state,
        model_version=decision.model_version,
        orders=len(decision.plan or ()),
        refused=len(decision.refused),
    )


def _months(request: PageRequest) -> list[str]:
    """Where the newest decision may be: this month, or about the last closing snapshot. The newest first."""
    snapshot = request.ledger.latest_snapshot()
    last = [] if snapshot is None else [snapshot.session[:7], _month_after(snapshot.session[:7])]
    return sorted({request.now[:7], *last}, reverse=True)


def _last_month(request: PageRequest) -> str | None:
    return next((month for month in _months(request) if request.ledger.page_of_decisions(month, limit=1).decisions), None)


def _newest(request: PageRequest) -> Decision | None:
    """The agent's newest decision."""
    for month in _months(request):
        agents = [one for one in request.ledger.decisions(month) if one.strategy == AGENT]
        if agents:
            return agents[-1]
    return None


def _month_after(month: str) -> str:
    return (date.fromisoformat(f"{month}-01") + timedelta(days=31)).isoformat()[:7]
