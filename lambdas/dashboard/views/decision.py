"""One decision from every side: what was held and what is wanted, why, what became of it, and what the model that watched would have done.

Promise: what was not recorded, or cannot be read now, is None with the reason beside it; only the ledger's own failure leaves as an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ConfigDict, ValidationError

from lambdas.common.api.client import ExecutionApiError
from lambdas.common.api.responses import shown_decision
from lambdas.common.lake.explanation import NOT_RECORDED, ExplainedDecision, explained, watched
from lambdas.common.lake.lake import LakeError
from lambdas.common.ledger.explanation import Cause
from lambdas.common.ledger.records import Decision, OrderRecord, ServedModel, ShadowDecision, Snapshot
from lambdas.common.orders.comparison import growth, side_by_side
from lambdas.common.orders.execution_cost import closes_of, executions, session_of
from lambdas.dashboard.request import PageRequest
from lambdas.dashboard.views import words
from lambdas.dashboard.views.gate import VerdictView, verdict_of
from schema.lake_layout import decision_key
from schema.path_segment import segment_of
from schema.slot import PERSONAL
from trading_env.orders.execution_cost import tally

NOT_KEPT = "recorded before explanations were kept"
#: Longer than the exchange is ever closed: so far the next closing snapshot is looked for.
NEXT_CLOSE = timedelta(days=10)
MONTH = timedelta(days=31)


class DecidedName(BaseModel):
    """Shares of the invested part of equity: `held` before, `target`, `change`, and what the model that watched wanted, `watched`.
    `words` say why, and `causes` and `watched_causes` what moved each model's score, the largest first."""

    symbol: str
    held: float | None = None
    target: float | None = None
    change: float | None = None
    score: float | None = None
    causes: tuple[Cause, ...] = ()
    words: str = ""
    watched: float | None
    watched_causes: tuple[Cause, ...]
    watched_words: str
    refused: str | None


class DecidedOrder(BaseModel):
    """`missed`: dollars that the unfilled part has lost (positive) by the close; costs in basis points of what was traded."""

    model_config = ConfigDict(extra="ignore")
    client_order_id: str
    symbol: str
    side: str
    status: str
    quantity: Decimal
    price: float
    filled_quantity: Decimal = Decimal(0)
    filled_average_price: Decimal | None = None
    risk: str | None = None
    reason: str | None = None
    delay_bp: float | None = None
    slippage_bp: float | None = None
    missed: Decimal | None = None

    @property
    def judged(self) -> str:
        return words.rule(self.risk)


class DecisionCost(BaseModel):
    """Dollars; `unknown` counts the orders of which a price is not known."""

    traded: Decimal
    delay: Decimal
    slippage: Decimal
    slippage_bp: float | None
    missed: Decimal
    unknown: int


class ShadowCompared(BaseModel):
    """The model that watched. Growth as shares from close to close, before cost: of this decision up to the next close, and of the month
    over `sessions`; None where a price is not known yet."""

    model_config = ConfigDict(protected_namespaces=())
    name: str
    model_version: str
    explained: str
    day: float | None
    day_traded: float | None
    sessions: int
    month: float | None
    month_traded: float | None


class ChainLink(BaseModel):
    model_config = ConfigDict(extra="ignore")
    link: str
    says: str
    status: str
    hash: str | None = None
    where: str | None = None
    detail: str | None = None


class DecisionView(BaseModel):
    """`chain` None: it cannot be read now; `chain_problem` says why. `gate`: the verdict on the trained model that traded or watched."""

    model_config = ConfigDict(protected_namespaces=())
    decision_id: str
    segment: str
    slot: str
    strategy: str
    received_at: str
    state: str
    verdict: str
    headline: str
    judged: str
    model_version: str
    model: str
    data_as_of: str
    cash: float | None
    names: tuple[DecidedName, ...]
    explained: str
    orders: tuple[DecidedOrder, ...]
    cost: DecisionCost
    shadow: ShadowCompared | None
    gate: VerdictView | None
    chain: tuple[ChainLink, ...] | None = None
    chain_problem: str | None = None


@dataclass(frozen=True)
class _Told:
    """What the audit bucket and the execution API say of it."""

    record: Mapping[str, Any] | None
    problem: str
    model: ServedModel | None


def decision_view(request: PageRequest, decision: Decision, *, chain: bool) -> DecisionView:
    """`chain`: with the way down to model and data, which the execution API walks."""
    told, shadow = _recorded(request, decision), _watched(request, decision)
    pointers = [one for one in (request.ledger.shadow(), request.ledger.incumbent()) if one is not None]
    watching = next((one for one in pointers if shadow is not None and one.model_version == shadow.model_version), None)
    gate = _gate(request, told.model, watching)
    snapshots = _snapshots(request, decision)
    orders = request.ledger.orders_by_id([planned.client_order_id for planned in decision.plan or ()])
    closes = closes_of(next((one for one in snapshots if one.session == session_of(decision)), None))
    shown = shown_decision(decision, orders, closes=closes)
    links, problem = _chain(request, decision) if chain else (None, None)
    found = explained(decision, told.record, problem=told.problem)
    beside = None if shadow is None else watched(shadow, told.record)
    return DecisionView(
        decision_id=decision.decision_id,
        segment=segment_of(decision.decision_id),
        slot=decision.slot,
        strategy=decision.strategy,
        received_at=decision.received_at,
        state=decision.state,
        verdict=decision.verdict,
        headline=words.headline(decision, model=told.model, watching=watching, refused=gate.short if gate else None),
        judged=words.verdict(decision),
        model_version=decision.model_version,
        model=words.model_name(told.model, version=decision.model_version),
        data_as_of=decision.data_as_of,
        cash=(told.record or {}).get("cash_weight"),
        names=_names(decision, found, beside),
        explained=_said(found),
        orders=tuple(DecidedOrder.model_validate(order) for order in shown["orders"]),
        cost=_cost(orders, closes),
        shadow=None if shadow is None or beside is None else _compared(request, decision, shadow, watching, snapshots, says=_said(beside)),
        gate=gate,
        chain=links,
        chain_problem=problem,
    )


def _recorded(request: PageRequest, decision: Decision) -> _Told:
    if decision.strategy in PERSONAL:
        return _Told(None, "", None)
    key = decision_key(date.fromisoformat(decision.slot[:10]), decision.decision_id)
    try:
        record = request.audit.record(key)
    except (ClientError, BotoCoreError, LakeError) as error:
        return _Told(None, f"{request.audit.where(key)} cannot be read now: {error}", None)
    if record is None:
        return _Told(None, f"{request.audit.where(key)} is not there", None)
    try:
        return _Told(record, "", ServedModel.model_validate(record.get("model")))
    except ValidationError:
        return _Told(record, "", None)


def _watched(request: PageRequest, decision: Decision) -> ShadowDecision | None:
    if decision.strategy in PERSONAL:
        return None
    return max(request.ledger.shadow_decisions_in(decision.slot), key=lambda one: one.time, default=None)


def _gate(request: PageRequest, traded: ServedModel | None, watching: ServedModel | None) -> VerdictView | None:
    judged = next((one for one in (traded, watching) if one is not None and one.policy == "endpoint"), None)
    if judged is None:
        return None
    try:
        return verdict_of(request.registry, judged.spec)
    except (ClientError, BotoCoreError) as error:
        return VerdictView(package=judged.spec, passed=None, problem=f"cannot be read now: {error}")


def _snapshots(request: PageRequest, decision: Decision) -> list[Snapshot]:
    """The closes of the decision's month, and of the session after it."""
    first = date.fromisoformat(session_of(decision)).replace(day=1)
    return request.ledger.snapshots(first.isoformat(), (first + MONTH + NEXT_CLOSE).isoformat())


def _chain(request: PageRequest, decision: Decision) -> tuple[tuple[ChainLink, ...] | None, str | None]:
    try:
        answer = request.execution.decision(decision.decision_id)
    except ExecutionApiError as error:
        return None, str(error)
    if answer.status != 200:
        return None, f"the execution API answered {answer.status}: {answer.body.get('message', '')}"
    return tuple(ChainLink.model_validate(link) for link in answer.body["trace"]), None


def _names(decision: Decision, found: ExplainedDecision, theirs: ExplainedDecision | None) -> tuple[DecidedName, ...]:
    """The largest change first; what only the model that watched would hold comes last."""
    watching = {one.symbol: one for one in (() if theirs is None else theirs.names)}

    def beside(symbol: str) -> dict[str, Any]:
        other = watching.get(symbol)
        return {
            "watched": None if other is None else other.target,
            "watched_causes": () if other is None else other.causes,
            "watched_words": "" if other is None else other.words,
            "refused": decision.refused.get(symbol),
        }

    ours = [DecidedName(**one.model_dump(), **beside(one.symbol)) for one in found.names]
    others = sorted(watching.keys() - {one.symbol for one in ours})
    return (*ours, *(DecidedName(symbol=symbol, **beside(symbol)) for symbol in others))


def _said(found: ExplainedDecision) -> str:
    return NOT_KEPT if found.says == NOT_RECORDED else found.says


def _cost(orders: Mapping[str, OrderRecord], closes: Mapping[str, Decimal]) -> DecisionCost:
    found = tally(executions(orders.values(), closes))
    return DecisionCost(
        traded=found.traded,
        delay=found.delay,
        slippage=found.slippage,
        slippage_bp=found.slippage_bp,
        missed=found.missed,
        unknown=found.open,
    )


def _compared(
    request: PageRequest,
    decision: Decision,
    shadow: ShadowDecision,
    watching: ServedModel | None,
    snapshots: list[Snapshot],
    *,
    says: str,
) -> ShadowCompared:
    month = decision.slot[:7]
    both = side_by_side(snapshots, request.ledger.decisions(month), request.ledger.shadow_decisions(month))
    place = next((index for index, one in enumerate(snapshots) if one.session == session_of(decision)), None)
    pair = None if place is None or place + 1 == len(snapshots) else (snapshots[place], snapshots[place + 1])
    return ShadowCompared(
        name=words.model_name(watching, version=shadow.model_version),
        model_version=shadow.model_version,
        explained=says,
        day=None if pair is None else growth(shadow.weights, *pair),
        day_traded=None if pair is None else growth(decision.weights, *pair),
        sessions=0 if both is None else both.sessions,
        month=None if both is None else both.watched,
        month_traded=None if both is None else both.traded,
    )
