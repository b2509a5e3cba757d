"""The dashboard, as CloudWatch gets it: whether it trades, what is wrong, the book; and every metric on it is one that somebody writes."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from lambdas.health import handler, measures
from schema.settings import Settings
from tests.infrastructure.assembly import Assembly

FREE_METRICS = 10
SHOWN = {
    "Equity", "Drawdown", "Orders", "OrdersInDoubt", "TradingState", "BreakersTripped", "ModelAgeDays", "DataAgeSessions", "UnhealthyRules"
}  # fmt: skip


@pytest.fixture(scope="module")
def widgets(aws: Assembly) -> list[dict[str, Any]]:
    ((_, _, dashboard),) = aws.resources("AWS::CloudWatch::Dashboard")
    assert dashboard["Properties"]["DashboardName"] == "papertape"
    _, parts = dashboard["Properties"]["DashboardBody"]["Fn::Join"]
    body = json.loads("".join(part if isinstance(part, str) else "token" for part in parts))
    return list(body["widgets"])


def metrics_of(widgets: list[dict[str, Any]], namespace: str) -> set[str]:
    rows = [row for widget in widgets for row in widget["properties"].get("metrics", [])]
    return {row[1] for row in rows if row[0] == namespace and row[2:4] == ["service", "health"]}


def test_trading_is_on_it(widgets: list[dict[str, Any]]) -> None:
    assert metrics_of(widgets, "papertape") == SHOWN


def test_health_writes_each_metric_of_it_into_its_namespace(aws: Assembly) -> None:
    """tests/aws/lambdas/test_health.py runs it; here only that the names are the same, and no more than CloudWatch gives for nothing."""
    source = inspect.getsource(measures) + inspect.getsource(handler)
    assert not [name for name in SHOWN if f'"{name}"' not in source]
    assert aws.functions()["health"]["Environment"]["Variables"]["POWERTOOLS_METRICS_NAMESPACE"] == "papertape"
    assert len(SHOWN | {"MissingQuotes"}) <= FREE_METRICS


def test_each_alarm_is_on_it(aws: Assembly, widgets: list[dict[str, Any]]) -> None:
    (alarms,) = (widget["properties"]["alarms"] for widget in widgets if widget["type"] == "alarm")
    assert len(alarms) == len(list(aws.resources("AWS::CloudWatch::Alarm")))


def test_it_says_how_to_stop_trading_and_where_the_logs_are(aws: Assembly, widgets: list[dict[str, Any]]) -> None:
    (guide,) = (widget["properties"]["markdown"] for widget in widgets if widget["type"] == "text")
    for command in ("status", "halt", "flatten", "resume"):
        assert f"make {command} on=aws" in guide
    assert "`stack papertape-trading`" in guide, "or one stops another app than the one that is looked at"
    assert "docs/alarms.md" in guide
    groups = {group["Properties"]["LogGroupName"] for _, _, group in aws.resources("AWS::Logs::LogGroup")}
    assert {group for group in groups if f"`{group}`" in guide} == groups - {"/papertape/build_features/output"}


def test_the_limits_of_the_settings_are_lines(widgets: list[dict[str, Any]], settings: Settings) -> None:
    lines = {
        widget["properties"]["title"]: annotation["value"]
        for widget in widgets
        for annotation in widget["properties"].get("annotations", {}).get("horizontal", [])
    }
    assert lines == {
        "Drawdown from the high, %": 100 * settings.risk.max_drawdown,
        "Sessions since the newest bar": settings.risk.max_bar_age_sessions,
        "Model's age, days": settings.risk.max_model_age_days,
    }
