"""Models: every version with its verdict and reasons, what trades now and what did before; approve, reject, and return to an earlier one.

GET /api/models, GET /api/models/history, GET /api/models/{arn}, POST /api/models/{arn}/{approve|reject|return} with a reason and scope
`approve`; an ARN is one segment (schema/path_segment.py). The rules are lambdas/common/registry's; a refusal by them is a 422.
"""

from __future__ import annotations

from typing import Annotated, Literal

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.params import Query
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ConfigDict, Field

from lambdas.common.api.responses import answer
from lambdas.common.lake.lake import LakeError
from lambdas.common.ledger.roles import roles_now
from lambdas.common.registry.approval import ModelAction, ModelActionError, ModelGroup
from lambdas.common.registry.rules import ACTIONS, WORDS
from lambdas.common.registry.versions import ModelHistoryEntry, ModelPage, ModelVersion
from lambdas.dashboard.pages import page
from lambdas.dashboard.request import PageRequest
from lambdas.dashboard.routing import PageRouter
from lambdas.dashboard.views import words
from lambdas.dashboard.views.gate import VerdictView, evaluation_at, verdict_of
from lambdas.dashboard.writes import HEADER, Written, write
from schema.evaluation_document import Evaluation, EvaluationFileError
from schema.exchange_time import parse_utc
from schema.path_segment import identity_of, segment_of

router = PageRouter()
LIMIT = 20


class ModelDecision(BaseModel):
    """Why a person acts. `words`: the setting, repeated, that lets a model trade which the gate refused."""

    model_config = ConfigDict(extra="forbid")
    reason: str = Field(min_length=1, max_length=500)
    words: str = Field(default="", max_length=100)


class HistoryView(BaseModel):
    """The newest first. `trades`: what trades now, in words; `warning`: a refused model does."""

    trades: str
    warning: str | None
    history: tuple[ModelHistoryEntry, ...]


class ModelCard(BaseModel):
    """What the model is, what it learned from and was judged on; from its evaluation."""

    answer: str
    algorithm: str
    timesteps: int
    seeds: int
    folds: int
    names: tuple[str, ...]
    trained_from: str
    trained_until: str
    judged_from: str
    judged_until: str
    sessions: int


class ModelDetail(BaseModel):
    version: ModelVersion
    gate: VerdictView
    card: ModelCard | None


@router.get("/api/models", summary="Versions of the model, the newest first")
def get_models(cursor: Annotated[str | None, Query()] = None, limit: Annotated[int, Query(ge=1, le=50)] = LIMIT) -> ModelPage:
    return _group(router.asked).page(now=parse_utc(router.asked.now), limit=limit, cursor=cursor)


@router.get("/api/models/history", summary="What trades now, and which models had a role before")
def get_history() -> HistoryView:
    return _history(router.asked)


@router.get("/api/models/<segment>", summary="One version: verdict, numbers, lineage, model card")
def get_model(segment: str) -> ModelDetail:
    return _detail(router.asked, segment)


@router.post("/api/models/<segment>/<action>", summary="Approve, reject, or return to a version, with a reason")
def post_model(segment: str, action: Literal["approve", "reject", "return"], decision: ModelDecision) -> Response[str]:
    request, arn = router.asked, identity_of(segment)
    group, at, by = _group(request), parse_utc(request.now), request.principal.user

    def act() -> Written:
        if action == "approve":
            done = group.approve(arn, reason=decision.reason, by=by, at=at, words=decision.words)
        elif action == "return":
            done = group.return_to(arn, reason=decision.reason, by=by, at=at, words=decision.words)
        else:
            done = group.reject(arn, reason=decision.reason, by=by, at=at)
        return Written(200, _told(done))

    body = {"arn": arn, **decision.model_dump()}
    made = write(request, name=f"{action} model", key=router.header(HEADER), scope="approve", body=body, act=act)
    return answer(made.status, made.body)


@router.get("/pages/models", include_in_schema=False)
def show_models(cursor: Annotated[str | None, Query()] = None) -> Response[str]:
    request = router.asked
    view = _group(request).page(now=parse_utc(request.now), limit=LIMIT, cursor=cursor)
    return page("models.html.j2", request, view=view, past=_history(request), segment_of=segment_of)


@router.get("/pages/models/<segment>", include_in_schema=False)
def show_model(segment: str) -> Response[str]:
    return page("model.html.j2", router.asked, view=_detail(router.asked, segment), segment=segment, actions=ACTIONS, words=WORDS)


def _group(request: PageRequest) -> ModelGroup:
    return ModelGroup(
        sagemaker=request.registry.sagemaker,
        s3=request.registry.s3,
        ledger=request.ledger,
        settings=request.settings,
        group=request.variables.package_group,
        audit_bucket=request.variables.audit_bucket,
    )


def _history(request: PageRequest) -> HistoryView:
    now = roles_now(request.ledger, request.settings)
    trades = words.model_name(now.trades, version=now.trades.model_version)
    return HistoryView(trades=trades, warning=now.warning, history=_group(request).history())


def _detail(request: PageRequest, segment: str) -> ModelDetail:
    try:
        version = _group(request).version(identity_of(segment), now=parse_utc(request.now))
    except ModelActionError as error:
        raise NotFoundError(str(error)) from error
    try:
        gate = verdict_of(request.registry, version.arn)
        found = None if gate.passed is None or version.lineage.evaluation_uri is None else version.lineage.evaluation_uri
        card = None if found is None else _card(evaluation_at(request.registry, found))
    except (ClientError, BotoCoreError, LakeError, EvaluationFileError) as error:
        gate, card = VerdictView(package=version.arn, passed=None, problem=f"cannot be read now: {error}"), None
    return ModelDetail(version=version, gate=gate, card=card)


def _card(found: Evaluation | None) -> ModelCard | None:
    if found is None:
        return None
    return ModelCard(
        answer=found.answer,
        algorithm=found.training.algorithm,
        timesteps=found.training.timesteps,
        seeds=len(found.training.seeds),
        folds=found.training.folds,
        names=found.data.symbols,
        trained_from=found.windows.train_start,
        trained_until=found.windows.train_end,
        judged_from=found.windows.evaluation_start,
        judged_until=found.windows.evaluation_end,
        sessions=found.gate.sessions,
    )


def _told(done: ModelAction) -> dict[str, object]:
    return {"message": done.words, **done.model_dump(mode="json")}
