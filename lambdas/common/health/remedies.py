"""The command behind each runbook, to be copied from the mail into a shell at the repository's root.

A command names no generated name: it asks the stack's outputs. On a laptop only the project's own commands exist, so others are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class AppAddress:
    """Which deployment a command is for; `local`: on the laptop that runs it; `streamed`: its quotes come by a stream."""

    name: str
    region: str
    local: bool = False
    streamed: bool = False


def _named(stack: str, output: str) -> str:
    query = f"Stacks[0].Outputs[?OutputKey=='{output}'].OutputValue"
    return f'"$(aws cloudformation describe-stacks --region {{region}} --stack-name {{name}}-{stack} --query "{query}" --output text)"'


def _invoke(stack: str, output: str) -> str:
    return f"aws lambda invoke --region {{region}} --cli-binary-format raw-in-base64-out --payload '{{{{}}}}' --function-name {_named(stack, output)} /dev/stdout"  # noqa: E501


def _log(stack: str, output: str) -> str:
    group = f"aws lambda get-function-configuration --region {{region}} --query LoggingConfig.LogGroup --output text --function-name {_named(stack, output)}"  # noqa: E501
    return f'aws logs tail --region {{region}} --since 1d "$({group})"'


STATUS = "make status{on}"
RESUME = 'make resume reason="..."{on}'
EXPLAIN = "make explain id={subject}{on}"
BACKFILL, RECONCILE = _invoke("ingest", "BackfillBarsFunction"), _invoke("trading", "ReconcileFunction")
START_RUNNER = (
    "aws ecs update-service --region {region} --desired-count 1 --cluster "
    + _named("realtime", "RunnerCluster")
    + " --service "
    + _named("realtime", "RunnerService")
)
NEWS_LOG = _log("ingest", "CollectNewsFunction")

#: By the name of a rule, or of an alert that a function raised (what stands before its colon).
COMMANDS: Mapping[str, str] = {
    "calendar-missing": BACKFILL,
    "bars-late": BACKFILL,
    "minutes-late": _log("ingest", "BackfillBarsFunction"),
    "closes-disagree": _log("ingest", "BackfillBarsFunction"),
    "quotes-stale": _log("ingest", "IngestQuotesFunction"),
    "slot-missed": _log("trading", "DecideFunction"),
    "order-unknown": EXPLAIN,
    "order-open": EXPLAIN,
    "batch-unfinished": _log("trading", "ReconcileFunction"),
    "breaker-tripped": RESUME,
    "not-active": RESUME,
    "model-old": "aws sagemaker start-pipeline-execution --region {region} --pipeline-name " + _named("model", "PipelineName"),
    "features-late": "aws glue get-job-runs --region {region} --max-results 3 --job-name " + _named("features", "GlueJobName"),
    "snapshot-missing": RECONCILE,
    "news-stale": NEWS_LOG,
    "sentiment-behind": NEWS_LOG,
    "sentiment-budget": NEWS_LOG,
    "runner-silent": START_RUNNER,
    "stale-data": BACKFILL,
    "book-unknown": _log("trading", "ReconcileFunction"),
    "orders-open": _log("trading", "ReconcileFunction"),
    "overfill": EXPLAIN,
    "contradiction": EXPLAIN,
    "replaced": EXPLAIN,
    "vanished": EXPLAIN,
    "not-flattened": 'make flatten reason="..."{on}',
    "account-changed": RESUME,
    "max_drawdown": RESUME,
    "max_daily_loss": RESUME,
    "archive-late": _log("trading", "ReconcileFunction"),
}

#: In the place of some of these, where quotes come by a stream.
STREAMED: Mapping[str, str] = {"quotes-stale": _log("stream", "ConsumeStreamFunction")}


def command_for(name: str, subject: str, deployment: AppAddress) -> str:
    """What to type about a rule or an alert, and what it names; empty where a laptop has no such command."""
    commands = {**COMMANDS, **STREAMED} if deployment.streamed else COMMANDS
    command = commands.get(name, STATUS)
    if deployment.local and not command.startswith("make "):
        return ""
    on = "" if deployment.local else " on=aws"
    return command.format(name=deployment.name, region=deployment.region, subject=subject, on=on)
