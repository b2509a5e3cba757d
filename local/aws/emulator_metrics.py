"""CloudWatch inside the emulator: metrics from log lines and calls, and alarms that look when their own metric changes."""

# ruff: noqa: SLF001  (ministack's stores and helpers have no public names)
# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import json
import operator
import re
import time
from collections.abc import Callable
from typing import Any

from ministack.services import cloudwatch, sqs

Record = dict[str, Any]
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanOrEqualToThreshold": operator.le,
    "LessThanThreshold": operator.lt,
}


def embedded_metrics(line: str) -> set[tuple[str, str]]:
    """Store the metrics of one log line; return their (namespace, name)."""
    try:
        document = json.loads(line)
    except ValueError:
        return set()
    stored = set()
    metadata = document.get("_aws", {}) if isinstance(document, dict) else {}
    for directive in metadata.get("CloudWatchMetrics", []):
        for dimensions in directive.get("Dimensions") or [[]]:
            chosen = {name: str(document[name]) for name in dimensions if name in document}
            for metric in directive["Metrics"]:
                value = document[metric["Name"]]
                values = value if isinstance(value, list) else [value]
                at = metadata["Timestamp"] / 1000
                unit = metric.get("Unit", "None")
                cloudwatch._store_datum(directive["Namespace"], metric["Name"], chosen, at, unit, None, values, None, None)
                stored.add((directive["Namespace"], metric["Name"]))
    return stored


def evaluate(metrics: set[tuple[str, str]]) -> None:
    """Let the alarms on any of `metrics` look at them."""
    for alarm in list(cloudwatch._alarms.values()):
        parts = [part["MetricStat"]["Metric"] for part in alarm.get("Metrics") or [] if "MetricStat" in part] or [alarm]
        if any((part.get("Namespace"), part.get("MetricName")) in metrics for part in parts):
            cloudwatch._evaluate_alarm(alarm)


def measure_call(name: str, **values: float) -> None:
    """Store AWS/Lambda metrics of a function and of all functions together."""
    for metric, value in values.items():
        for dimensions in ({"FunctionName": name}, {}):
            cloudwatch.record_metric("AWS/Lambda", metric, value, "Milliseconds" if metric == "Duration" else "Count", dimensions)
    evaluate({("AWS/Lambda", metric) for metric in values})


def measure_queue(arn: str) -> None:
    """Store that a message reached a queue, and how many wait in it."""
    waiting = sqs._queue_by_arn(arn)
    if waiting is not None:
        dimensions = {"QueueName": arn.rsplit(":", 1)[-1]}
        measured = {"NumberOfMessagesSent": 1, "ApproximateNumberOfMessagesVisible": len(waiting["messages"])}
        for metric, value in measured.items():
            cloudwatch.record_metric("AWS/SQS", metric, value, "Count", dimensions)
        evaluate({("AWS/SQS", metric) for metric in measured})


def evaluate_alarm(alarm: Record) -> None:
    """Compare the alarm's statistic over its periods with its threshold; act on a change. Without data nothing changes."""
    queries = alarm.get("Metrics") or []
    sources = [query["MetricStat"]["Metric"] for query in queries if "MetricStat" in query] or [alarm]
    sums = [query["Expression"] for query in queries if "Expression" in query]
    comparison = COMPARISONS.get(alarm.get("ComparisonOperator", ""))
    if comparison is None or not all(re.fullmatch(r"\w+( \+ \w+)*", expression) for expression in sums):
        return
    since = time.time() - alarm.get("Period", 60) * alarm.get("EvaluationPeriods", 1)
    named = [(s.get("Namespace"), s.get("MetricName"), {d["Name"]: d["Value"] for d in s.get("Dimensions") or []}) for s in sources]
    stored = [cloudwatch._metrics.get((space, name, cloudwatch._dims_key(dimensions))) or [] for space, name, dimensions in named]
    recent = [point for points in stored for point in points if point["Timestamp"] >= since]
    statistic = "Sum" if sums else alarm.get("ExtendedStatistic") or alarm.get("Statistic", "Average")
    value = cloudwatch._stat_value(cloudwatch._calc_stats(recent), statistic, recent) if recent else None
    before = alarm["StateValue"]
    after = before if value is None else "ALARM" if comparison(value, alarm["Threshold"]) else "OK"
    if after == before:
        return
    reason = f"Threshold Crossed: {statistic} {value} {alarm['ComparisonOperator']} {alarm['Threshold']}"
    alarm |= {"StateValue": after, "StateReason": reason, "StateUpdatedTimestamp": int(time.time())}
    cloudwatch._record_history(alarm["AlarmName"], before, after, reason)
    cloudwatch._dispatch_alarm_actions(alarm, before, after, reason)
