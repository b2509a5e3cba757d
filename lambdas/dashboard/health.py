"""Health: the loop with the freshness of each step, the runner and the stream where they are on, what is wrong and what to do about it, the
alarms, and what the month may cost.

The rules are those that `health` mails of (lambdas/common/health/), asked now. On a laptop whose clock is a replay's they are asked as of
that clock, and the page says so. What cannot be read is said to be unknown.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

import boto3
from aws_lambda_powertools.event_handler import Response
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel

from lambdas.common.health.facts import gather
from lambdas.common.health.remedies import AppAddress, command_for
from lambdas.common.health.rules import STOPPING, Finding, evaluate, names
from lambdas.common.lake.lake import LakeError
from lambdas.common.lake.news import NewsStore
from lambdas.common.lake.news_state import NewsStateObject
from lambdas.common.ledger.roles import roles_now
from lambdas.dashboard.pages import page
from lambdas.dashboard.request import PageRequest
from lambdas.dashboard.routing import PageRouter
from lambdas.dashboard.views.loop import StepView, other_facts, steps
from lambdas.dashboard.views.realtime import RunnerView, StreamView, runner_view, stream_view
from schema.exchange_time import iso, parse_utc

router = PageRouter()
#: Longer than the exchange is ever closed: a laptop's clock that is older is a replay's.
REPLAY = timedelta(days=10)


class ConditionView(BaseModel):
    """A rule that is broken: what was found, why that matters, and what to do. `stops`: no decision, or no buying, until it is over."""

    rule: str
    subject: str
    detail: str
    reason: str
    remedy: str
    command: str
    stops: bool


class NoticeView(BaseModel):
    """What a person should hear of and is no fault; the next mail has it."""

    time: str
    subject: str
    detail: str


class AlarmView(BaseModel):
    """`state`: OK, ALARM or INSUFFICIENT_DATA, since `since` (ISO 8601 UTC)."""

    name: str
    state: Literal["OK", "ALARM", "INSUFFICIENT_DATA"]
    reason: str
    description: str
    since: str


class CostView(BaseModel):
    """US dollars. `budget`: what the month's bill may come to before AWS mails; what is billed is not read here. `scoring`: what paid
    scorers were estimated to cost this month, of `scoring_budget`; `posts` were read of `posts_limit`. None: nothing of that kind."""

    budget: float
    scorer: str
    scoring: float | None
    scoring_budget: float
    posts: int | None
    posts_limit: int


class HealthView(BaseModel):
    """`as_of`: the moment that is judged; `replay`: it is another than now. `problem`: why the steps and conditions are not known.
    `runner` and `stream`: None where they are off, or not known. `decided_by`: the code that the newest decision was ordered by."""

    as_of: str
    replay: bool
    trading_state: str | None
    state_reason: str | None
    warning: str | None
    steps: tuple[StepView, ...]
    runner: RunnerView | None
    stream: StreamView | None
    conditions: tuple[ConditionView, ...]
    notices: tuple[NoticeView, ...]
    problem: str | None
    alarms: tuple[AlarmView, ...]
    alarms_problem: str | None
    cost: CostView | None
    cost_problem: str | None
    code_version: str
    decided_by: str | None


@router.get("/api/health", summary="The loop's freshness, open conditions with their remedies, alarms, and cost")
def get_health() -> HealthView:
    return health(router.asked)


@router.get("/pages/health", include_in_schema=False)
@router.get("/pages/health/live", include_in_schema=False)
def show_health() -> Response[str]:
    return page("health.html.j2", router.asked, view=health(router.asked))


def health(request: PageRequest) -> HealthView:
    now = _as_of(request)
    alarms, alarms_problem = _alarms(request)
    cost, cost_problem = _cost(request, now)
    fixed = {
        "as_of": iso(now),
        "replay": iso(now)[:16] != request.now[:16],
        "notices": tuple(NoticeView(time=one.time, subject=one.subject, detail=one.detail) for one in request.ledger.waiting_notices()),
        "warning": roles_now(request.ledger, request.settings).warning,
        "alarms": alarms,
        "alarms_problem": alarms_problem,
        "cost": cost,
        "cost_problem": cost_problem,
        "code_version": request.variables.code_version,
    }
    try:
        facts = gather(now=now, ledger=request.ledger, lake=request.lake, settings=request.settings, asked_at=datetime.now(UTC))
        other = other_facts(request, now=now)
        stream = stream_view(request, newest=other.quotes)
    except (ClientError, BotoCoreError, LakeError) as error:
        nothing = {
            "trading_state": None,
            "state_reason": None,
            "steps": (),
            "conditions": (),
            "decided_by": None,
            "runner": None,
            "stream": None,
        }
        return HealthView(problem=f"{type(error).__name__}: {error}", **nothing, **fixed)
    findings = evaluate(facts, request.settings)
    return HealthView(
        trading_state=facts.state,
        state_reason=facts.state_reason,
        steps=steps(facts, other, request.settings, broken=names(findings)),
        runner=runner_view(facts.runner),
        stream=stream,
        conditions=tuple(_condition(one, request) for one in findings),
        problem=None,
        decided_by=facts.recent[-1].code_version if facts.recent else None,
        **fixed,
    )


def _as_of(request: PageRequest) -> datetime:
    """Now, but on a laptop that replays: its broker's clock."""
    now, broker = parse_utc(request.now), request.ledger.broker_state()
    if not _on_laptop(request) or broker is None or now - parse_utc(broker.now) <= REPLAY:
        return now
    return parse_utc(broker.now)


def _on_laptop(request: PageRequest) -> bool:
    return not request.variables.runs_pipeline


def _condition(finding: Finding, request: PageRequest) -> ConditionView:
    name, subject = finding.about
    settings = request.settings
    address = AppAddress(settings.name, settings.region, local=_on_laptop(request), streamed=settings.stream.kind != "none")
    return ConditionView(
        rule=name,
        subject=subject,
        detail=finding.detail,
        reason=finding.rule.reason,
        remedy=finding.runbook,
        command=command_for(name, subject or "<id>", address),
        stops=finding.rule.name in STOPPING,
    )


def _alarms(request: PageRequest) -> tuple[tuple[AlarmView, ...], str | None]:
    """Those of this app, what rings first."""
    try:
        pages = _cloudwatch().get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{request.settings.name}-")
        found = [alarm for shown in pages for alarm in shown["MetricAlarms"]]
    except (ClientError, BotoCoreError) as error:
        return (), f"cannot be read now: {error}"
    shown = [
        AlarmView(
            name=alarm["AlarmName"],
            state=alarm["StateValue"],
            reason=alarm.get("StateReason", ""),
            description=alarm.get("AlarmDescription", ""),
            since=iso(alarm["StateUpdatedTimestamp"]),
        )
        for alarm in found
    ]
    return tuple(sorted(shown, key=lambda one: (one.state != "ALARM", one.state != "INSUFFICIENT_DATA", one.name))), None


def _cost(request: PageRequest, now: datetime) -> tuple[CostView | None, str | None]:
    settings, names = request.settings, request.variables
    try:
        state = NewsStateObject(s3=request.lake.s3, bucket=names.processed_bucket).read().of(now) if settings.news.sources else None
        store = NewsStore(s3=request.lake.s3, raw_bucket=names.raw_bucket, processed_bucket=names.processed_bucket)
        posts = store.posts_read("x", now) if "x" in settings.news.sources else None
    except (ClientError, BotoCoreError, LakeError) as error:
        return None, f"cannot be read now: {error}"
    return CostView(
        budget=settings.budget.monthly_budget_usd,
        scorer=settings.sentiment.scorer,
        scoring=None if state is None else state.spent_usd,
        scoring_budget=settings.sentiment.monthly_budget_usd,
        posts=posts,
        posts_limit=settings.news.x_posts_per_month,
    ), None


@lru_cache(maxsize=1)
def _cloudwatch() -> Any:
    return boto3.client("cloudwatch", config=Config(connect_timeout=2, read_timeout=4, retries={"total_max_attempts": 2}))
