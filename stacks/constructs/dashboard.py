"""The dashboard: first whether it trades and what is wrong, then the book, then the functions; with the commands that stop it.

What is shown of trading, `health` measures (lambdas/health/measures.py); the rest are the services' own metrics, which cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aws_cdk import Duration
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_cloudwatch as cloudwatch

from schema.settings import Settings
from stacks.constructs.function import PythonFunction

HOUR = Duration.hours(1)
HALF = 12  # of the 24 columns


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What the dashboard shows of `alarms`, of what `health` measures, of `functions`, the API, and other logs by name."""

    settings: Settings
    alarms: Sequence[cloudwatch.Alarm]
    functions: Mapping[str, PythonFunction]
    api: apigateway.RestApi
    logs: Mapping[str, str]

    def widgets(self) -> list[list[cloudwatch.IWidget]]:
        """Row by row."""
        return [[self._guide(), self._now()], *self._trading(), *self._operation()]

    def _guide(self) -> cloudwatch.TextWidget:
        groups = {**{name: function.log_name for name, function in self.functions.items()}, **self.logs}
        listed = "\n".join(f"| {name} | `{group}` |" for name, group in groups.items())
        lines = (
            f"# {self.settings.name}\n"
            "In the project's folder, with credentials of this account:\n"
            "```\n"
            "make status on=aws\n"
            'make halt on=aws reason="..."      # sends nothing more, at once\n'
            'make flatten on=aws reason="..."   # sells all, buys nothing more\n'
            'make resume on=aws reason="..."    # shows what stopped it, and asks\n'
            "```\n"
            f"Each says first which app it reached: here `stack {self.settings.name}-trading`. If it is another, add `environment=...`.\n\n"
            "Trading state: 2 active, 1 reduce only, 0 halted. What each rule and alert means, and what to do: `docs/alarms.md`.\n\n"
            f"| log of | log group |\n|--|--|\n{listed}"
        )
        return cloudwatch.TextWidget(markdown=lines, width=HALF, height=11)

    def _now(self) -> cloudwatch.Column:
        now = [
            self._measure("TradingState", label="trading state"),
            self._measure("BreakersTripped", label="breakers tripped"),
            self._measure("OrdersInDoubt", label="orders in doubt"),
            self._measure("UnhealthyRules", label="rules broken"),
        ]
        return cloudwatch.Column(
            cloudwatch.AlarmStatusWidget(title="Alarms", alarms=list(self.alarms), width=HALF, height=5),
            cloudwatch.SingleValueWidget(title="Now", metrics=now, width=HALF, height=6),
        )

    def _trading(self) -> list[list[cloudwatch.IWidget]]:
        return [
            [
                self._graph("Equity at the close, US dollars", [self._measure("Equity")]),
                self._graph("Drawdown from the high, %", [self._measure("Drawdown")], limit=100 * self.settings.risk.max_drawdown),
            ],
            [
                self._graph("Orders of the day", [self._measure("Orders"), self._measure("OrdersInDoubt")]),
                self._graph(
                    "Trading state, breakers and rules", [self._measure(n) for n in ("TradingState", "BreakersTripped", "UnhealthyRules")]
                ),
            ],
            [
                self._graph(
                    "Sessions since the newest bar",
                    [self._measure("DataAgeSessions")],
                    limit=self.settings.risk.max_bar_age_sessions,
                ),
                self._graph("Model's age, days", [self._measure("ModelAgeDays")], limit=self.settings.risk.max_model_age_days),
            ],
        ]

    def _operation(self) -> list[list[cloudwatch.IWidget]]:
        def counted(metric: str) -> list[cloudwatch.IMetric]:
            return [function.metric(metric, label=name, statistic="Sum", period=HOUR) for name, function in self.functions.items()]

        slow = [self.functions[name].metric_duration(label=name, statistic="p99", period=HOUR) for name in ("decide", "execute_orders")]
        api = self.api
        requests = [api.metric_count(period=HOUR), api.metric_client_error(period=HOUR), api.metric_server_error(period=HOUR)]
        return [
            [self._graph("Errors of functions", counted("Errors")), self._graph("Runs of functions", counted("Invocations"))],
            [self._graph("Duration, p99", slow), self._graph("Execution API", requests)],
        ]

    def _measure(self, name: str, *, label: str | None = None) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=self.settings.name,
            metric_name=name,
            dimensions_map={"service": "health"},
            statistic="Maximum",
            period=HOUR,
            label=label or name,
        )

    def _graph(self, title: str, metrics: Sequence[cloudwatch.IMetric], *, limit: float | None = None) -> cloudwatch.GraphWidget:
        lines = [] if limit is None else [cloudwatch.HorizontalAnnotation(value=limit, label="limit")]
        return cloudwatch.GraphWidget(title=title, left=list(metrics), width=HALF, left_annotations=lines)
