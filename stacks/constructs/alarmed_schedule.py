"""A schedule that cannot fail silently, in New York time.

EventBridge Scheduler invokes a function asynchronously: once the call is accepted, its dead-letter queue never sees what the handler
raises. So a failed delivery goes to the queue from the schedule, and a failed run goes to the same queue from the function, after the
same number of retries: of a function that several schedules run, after those of the first. One alarm watches the queue. The default of
185 retries over a day would trade yesterday's slot. Without a queue something else must watch what the schedule makes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aws_cdk import Duration, Stack, TimeZone
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda_destinations as destinations
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_scheduler_targets as targets
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from schema.settings import Settings
from stacks.constructs.function import PythonFunction
from stacks.constructs.permissions import allow

SCHEDULED_TIME = "<aws.scheduler.scheduled-time>"


@dataclass(frozen=True, kw_only=True)
class Cron:
    """When a schedule fires, in New York. No cron knows holidays: the functions ask the broker's calendar."""

    minute: str
    hour: str
    week_day: str = "MON-FRI"

    def expression(self) -> scheduler.ScheduleExpression:
        return scheduler.ScheduleExpression.cron(
            minute=self.minute, hour=self.hour, week_day=self.week_day, time_zone=TimeZone.AMERICA_NEW_YORK
        )


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often a failed run is tried again, and until when."""

    attempts: int
    within: Duration


@dataclass(frozen=True, kw_only=True)
class Call:
    """An AWS API that a schedule calls itself, without a function: `service:action` with `parameters`, allowed on `resources`."""

    service: str
    action: str
    parameters: Mapping[str, object]
    permission: str
    resources: Sequence[str]


class AlarmedSchedule(Construct):
    """The schedule `<settings.name>-<name>`, which runs a function or an AWS API call; a function's event also holds `with_input`."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        name: str,
        cron: Cron,
        runs: PythonFunction | Call,
        retry: Retry,
        dead_letters: sqs.IQueue | None,
        with_input: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal(
                "scheduler.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": Stack.of(self).account}}
            ),
        )
        if dead_letters is not None:
            allow(role, "sqs:SendMessage", on=[dead_letters.queue_arn])
        if isinstance(runs, PythonFunction):
            allow(role, "lambda:InvokeFunction", on=[runs.function_arn])
            if runs.node.try_find_child("EventInvokeConfig") is None:  # one per function, however many schedules run it
                failed = None if dead_letters is None else destinations.SqsDestination(dead_letters)
                runs.configure_async_invoke(on_failure=failed, retry_attempts=retry.attempts, max_event_age=retry.within)
            target: scheduler.IScheduleTarget = targets.LambdaInvoke(
                runs,
                role=role.without_policy_updates(),  # it would also allow every version of the function
                input=scheduler.ScheduleTargetInput.from_object({"schedule": name, "time": SCHEDULED_TIME, **(with_input or {})}),
                dead_letter_queue=dead_letters,
                retry_attempts=retry.attempts,
                max_event_age=retry.within,
            )
        else:
            target = targets.Universal(
                service=runs.service,
                action=runs.action,
                role=role,
                policy_statements=[iam.PolicyStatement(actions=[runs.permission], resources=list(runs.resources))],
                input=scheduler.ScheduleTargetInput.from_object(dict(runs.parameters)),
                dead_letter_queue=dead_letters,
                retry_attempts=retry.attempts,
                max_event_age=retry.within,
            )
        schedule = scheduler.Schedule(
            self,
            "Schedule",
            schedule=cron.expression(),
            schedule_name=f"{settings.name}-{name}",
            target=target,
            time_window=scheduler.TimeWindow.off(),
        )
        schedule.node.add_dependency(role)
