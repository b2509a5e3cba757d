"""The topic that mails the owner, the functions that say what is wrong, and the alarms on what they cannot see.

Composed last, because it watches the others: they write what they find to the ledger, and only `health` and `report` mail it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import CfnOutput, Duration, Environment, Stack
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from schema.lake_layout import FEATURE_TABLES, RAW, REPORTS, SENTIMENT, STREAM_UNDELIVERED
from schema.settings import Settings
from stacks.constructs.alarmed_schedule import AlarmedSchedule, Cron, Retry
from stacks.constructs.dashboard import Overview
from stacks.constructs.function import PythonFunction, Runtime
from stacks.constructs.permissions import acknowledge
from stacks.features import FeaturesStack
from stacks.ingest import IngestStack
from stacks.lake import LakeStack, let_read_objects, let_write_objects
from stacks.model import ModelStack
from stacks.stream import StreamStack
from stacks.trading import TradingStack

HOUR = Duration.hours(1)
FIVE_MINUTES = Duration.minutes(5)
# Health runs from 08:00 to 18:59 every day: thirteen hours without a run are a night, fourteen the night on which clocks go back
SILENT_HOURS = 15
#: The functions behind the API, those that are deployed.
ANSWERING = ("execute_orders", "control", "dashboard")
AT_LEAST = cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD


class MonitoringStack(Stack):
    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        runtime: Runtime,
        lake: LakeStack,
        ingest: IngestStack,
        features: FeaturesStack,
        model: ModelStack,
        trading: TradingStack,
        env: Environment,
        stream: StreamStack | None = None,
    ) -> None:
        super().__init__(scope, construct_id, env=env, description="Papertape: health, alarms, reports, budget")
        self.topic = self._topic(settings)
        self._settings, self._runtime, self._lake = settings, runtime, lake
        health = self._function("health", "Pure rules over the ledger and the lake: one metric, one mail", timeout=Duration.minutes(2))
        report = self._function("report", "The week in one mail", timeout=Duration.minutes(5))
        lake.let_write_ledger(health)
        let_read_objects(health.own_role, lake.raw_arn, RAW)
        news = [SENTIMENT] if settings.news.sources else []
        let_read_objects(health.own_role, lake.processed_arn, FEATURE_TABLES, *news)
        lake.let_read_ledger(report)
        let_write_objects(report.own_role, lake.processed_arn, REPORTS)
        retry = Retry(attempts=2, within=Duration.minutes(10))
        every = settings.schedule.health_every_minutes
        for name, function, cron in (
            ("health", health, Cron(minute=f"0/{every}", hour="8-18", week_day="*")),
            ("report", report, Cron(minute="30", hour="17", week_day="FRI")),
        ):
            AlarmedSchedule(
                self, f"{name.capitalize()}Schedule", settings=settings, name=name, cron=cron,
                runs=function, retry=retry, dead_letters=lake.dead_letters,
            )  # fmt: skip
        self.functions = {"health": health, "report": report}
        alarms = self._alarms(health=health, trading=trading)
        streaming: dict[str, PythonFunction] = {}
        if stream is not None:
            alarms += self._alarms_of_stream(stream)
            streaming = stream.functions
        self._job_failures(features, model)
        self._budget(settings)
        overview = Overview(
            settings=settings,
            alarms=alarms,
            functions={**ingest.functions, **trading.functions, **model.functions, **streaming, **self.functions},
            api=trading.api,
            logs={"build_features": features.log_name, "execution API": trading.access_log_name},
        )
        month = Duration.days(30)
        cloudwatch.Dashboard(self, "Dashboard", dashboard_name=settings.name, default_interval=month, widgets=overview.widgets())
        CfnOutput(self, "AlertTopicArn", value=self.topic.topic_arn)
        CfnOutput(self, "HealthFunction", value=health.function_name)
        CfnOutput(self, "ReportFunction", value=report.function_name)

    def _topic(self, settings: Settings) -> sns.Topic:
        topic = sns.Topic(self, "Alerts", display_name=settings.name, enforce_ssl=True)
        acknowledge(
            topic,
            "AwsSolutions-SNS2",
            "CloudWatch cannot publish to a topic under the service's own key; messages end as plain mail anyway",
        )
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                actions=["sns:Publish"],
                principals=[iam.ServicePrincipal(f"{name}.amazonaws.com") for name in ("cloudwatch", "budgets")],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": self.account}},
            )
        )
        if settings.alert_email:
            topic.add_subscription(subscriptions.EmailSubscription(settings.alert_email))
        return topic

    def _function(self, folder: str, description: str, *, timeout: Duration) -> PythonFunction:
        lake = self._lake
        function = PythonFunction(
            self,
            folder.capitalize(),
            folder=folder,
            bundle="edge",
            runtime=self._runtime,
            environment={
                "LEDGER_TABLE": lake.ledger.table_name,
                "RAW_BUCKET": lake.raw.bucket_name,
                "PROCESSED_BUCKET": lake.processed.bucket_name,
                "ALERT_TOPIC_ARN": self.topic.topic_arn,
            },
            timeout=timeout,
            memory=256,
            description=description,
        )
        function.may("sns:Publish", on=[self.topic.topic_arn])
        return function

    def _alarms(self, *, health: PythonFunction, trading: TradingStack) -> list[cloudwatch.Alarm]:
        """What nobody writes into the ledger. An alarm's name is the subject of its mail; its text says what to read and to do."""
        log = {name: function.log_name for name, function in {**trading.functions, "health": health}.items()}
        errors = {
            name: (
                f"{name} raised. Orders are safe: ids are unique, and what is in doubt is UNKNOWN until the broker tells. "
                f"To do: read {log[name]}; a scheduled run is tried again by itself.",
                trading.functions[name].metric_errors(period=FIVE_MINUTES),
            )
            for name in ("decide", "execute_orders", "reconcile")
        }
        return [
            self._silence(
                "health-silent",
                f"Health has not run since yesterday, so nothing watches the agent. To do: read {log['health']}, look at its schedule, "
                "invoke it once by hand.",
                health.metric_invocations(period=HOUR, statistic="Sum"),
            ),
            *(self._alarm(f"{name.replace('_', '-')}-failed", *told) for name, told in errors.items()),
            self._alarm(
                "dead-letter",
                "A scheduled run or an event failed for good. To do: read the queue, whose address is an output of the lake stack; each "
                "message names its function and its event. A run that is still wanted is invoked with that event.",
                # Each arrival is a change: the queue's depth would stay above zero, and a second failure change nothing
                self._lake.dead_letters.metric_number_of_messages_sent(period=FIVE_MINUTES, statistic="Sum"),
            ),
            self._alarm(
                "api-fault",
                "The execution API answered 5xx: a function failed or passed 29 seconds. Nothing is sent twice. "
                f"To do: read {trading.access_log_name}, then {' or '.join(log[one] for one in ANSWERING if one in log)}.",
                trading.api.metric_server_error(period=FIVE_MINUTES),
            ),
            self._alarm(
                "throttled",
                "Functions were refused for lack of concurrency. A new account allows ten at once. To do: ask for more in Service Quotas, "
                f"and read {log['decide']} for what was missed.",
                cloudwatch.Metric(namespace="AWS/Lambda", metric_name="Throttles", statistic="Sum", period=FIVE_MINUTES),
            ),
        ]

    def _alarms_of_stream(self, stream: StreamStack) -> list[cloudwatch.Alarm]:
        """What came and did not reach the lake; that nothing comes at all is health's to say."""
        log = stream.consumer.log_name
        return [
            self._mailing(
                "stream-late",
                "What the stream brought is not in the lake after 15 minutes; it is kept for a day and then lost. "
                f"Trading does not need it. To do: read {log}{'' if stream.log_name == log else f' and {stream.log_name}'}.",
                stream.lateness,
                threshold=stream.late_at,
                comparison=AT_LEAST,
                missing=cloudwatch.TreatMissingData.NOT_BREACHING,
            ),
            self._alarm(
                "consume-stream-failed",
                f"consume_stream raised; a batch is tried again by itself, and what is given up is a dead letter or lies below "
                f"{STREAM_UNDELIVERED} in the raw bucket. To do: read {log}.",
                stream.consumer.metric_errors(period=FIVE_MINUTES),
            ),
        ]

    def _alarm(self, name: str, description: str, metric: cloudwatch.IMetric) -> cloudwatch.Alarm:
        """An alarm that mails at the first of what it counts; without data all is well."""
        return self._mailing(name, description, metric, threshold=1, comparison=AT_LEAST, missing=cloudwatch.TreatMissingData.NOT_BREACHING)

    def _silence(self, name: str, description: str, metric: cloudwatch.IMetric) -> cloudwatch.Alarm:
        """An alarm that mails when hours pass without data, of what had data before: after a deployment at night all is well.

        What never ran at all does not ring it; a run that cannot be started, or fails, is a dead letter.
        """
        alarm = self._mailing(
            name,
            description,
            metric,
            threshold=1,
            comparison=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            missing=cloudwatch.TreatMissingData.MISSING,
            periods=SILENT_HOURS,
        )
        alarm.add_insufficient_data_action(actions.SnsAction(self.topic))
        return alarm

    def _mailing(
        self,
        name: str,
        description: str,
        metric: cloudwatch.IMetric,
        *,
        threshold: float,
        comparison: cloudwatch.ComparisonOperator,
        missing: cloudwatch.TreatMissingData,
        periods: int = 1,
    ) -> cloudwatch.Alarm:
        alarm = cloudwatch.Alarm(
            self,
            "".join(word.capitalize() for word in name.split("-")),
            alarm_name=f"{self._settings.name}-{name}",
            metric=metric,
            threshold=threshold,
            comparison_operator=comparison,
            evaluation_periods=periods,
            treat_missing_data=missing,
            alarm_description=description,
        )
        alarm.add_alarm_action(actions.SnsAction(self.topic))
        return alarm

    def _job_failures(self, features: FeaturesStack, model: ModelStack) -> None:
        self._on_failure(
            "FeaturesFailed",
            source="aws.glue",
            detail_type="Glue Job State Change",
            detail={"jobName": [features.job.ref], "state": ["FAILED", "TIMEOUT", "ERROR"]},
            message=f"{self._settings.name}: features were not built, the job ended as {events.EventField.from_path('$.detail.state')}: "
            f"{events.EventField.from_path('$.detail.message')}. Trading does not need them, training on Saturday does. "
            f"To do: read {features.log_name}, then start {features.job.ref} once by hand.",
        )
        self._on_failure(
            "TrainingFailed",
            source="aws.sagemaker",
            detail_type="SageMaker Model Building Pipeline Execution Status Change",
            detail={"pipelineArn": [model.pipeline_arn], "currentPipelineExecutionStatus": ["Failed"]},
            message=f"{self._settings.name}: training failed, and the incumbent trades on. To do: read the failed step of "
            f"{events.EventField.from_path('$.detail.pipelineExecutionArn')} in /aws/sagemaker/TrainingJobs or ProcessingJobs, "
            f"then start {model.pipeline_name} once by hand.",
        )

    def _on_failure(self, construct_id: str, *, source: str, detail_type: str, detail: Mapping[str, Sequence[str]], message: str) -> None:
        pattern = events.EventPattern(source=[source], detail_type=[detail_type], detail=dict(detail))
        target = targets.SnsTopic(self.topic, message=events.RuleTargetInput.from_text(message))
        events.Rule(self, construct_id, event_pattern=pattern, targets=[target])

    def _budget(self, settings: Settings) -> None:
        def notify(kind: str, percent: int) -> budgets.CfnBudget.NotificationWithSubscribersProperty:
            return budgets.CfnBudget.NotificationWithSubscribersProperty(
                notification=budgets.CfnBudget.NotificationProperty(
                    notification_type=kind, comparison_operator="GREATER_THAN", threshold=percent, threshold_type="PERCENTAGE"
                ),
                subscribers=[budgets.CfnBudget.SubscriberProperty(subscription_type="SNS", address=self.topic.topic_arn)],
            )

        budgets.CfnBudget(
            self,
            "Budget",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=settings.budget.monthly_budget_usd, unit="USD"),
            ),
            notifications_with_subscribers=[notify("FORECASTED", 100), notify("ACTUAL", 80)],
        )
