"""Deciding, ordering, halting, reconciling; and the execution API between those who decide and the one who orders.

State and reads (`control`) are another function than execution, so that a halt is never refused because a batch runs.
"""

from __future__ import annotations

from aws_cdk import CfnOutput, Duration, Environment, RemovalPolicy, Size, Stack
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_logs as logs
from constructs import Construct

from schema.lake_layout import MODELS, RAW, SENTIMENT, audit_prefix, training_manifest
from schema.settings import Settings, SettingsError
from schema.slot import minutes_of
from stacks.constructs.alarmed_schedule import AlarmedSchedule, Cron, Retry
from stacks.constructs.api_models import api_model
from stacks.constructs.audit_tables import ARCHIVED
from stacks.constructs.broker_secret import broker_secret, let_read_secret
from stacks.constructs.function import PythonFunction, Runtime
from stacks.constructs.permissions import acknowledge
from stacks.constructs.web_function import WebFunction, throttled
from stacks.lake import LakeStack, let_read_objects, let_write_objects

STAGE = "v1"
EVALUATION, MODEL = f"{MODELS}*/evaluation/evaluation.json", f"{MODELS}*/model/model.tar.gz"
EXECUTIONS = "the pipeline names the folder of its results after the execution"
OPEN_MINUTE, CLOSE_MINUTE = 9 * 60 + 30, 16 * 60  # New York
GATEWAY_TIMEOUT = Duration.seconds(29)  # of a regional API; the executor answers 202 after 17


class TradingStack(Stack):
    def __init__(
        self, scope: Construct, construct_id: str, *, settings: Settings, runtime: Runtime, lake: LakeStack, env: Environment
    ) -> None:
        super().__init__(scope, construct_id, env=env, description="Papertape: decisions, orders, execution API")
        crons = [_cron(slot, settings) for slot in settings.schedule.slots]
        self._settings, self._runtime, self._lake, self._secret = settings, runtime, lake, broker_secret(self, settings)
        execute = self._function(
            "execute_orders",
            timeout=GATEWAY_TIMEOUT,
            memory=1024,
            description="Decisions and orders to the broker, once each",
            BROKER_CONNECT_TIMEOUT="2",  # seconds; a read that is tried three times must end before the gateway gives up
            BROKER_READ_TIMEOUT="4",
        )
        control = self._function(
            "control",
            timeout=Duration.seconds(10),
            memory=256,
            description="Trading state, and reads of the ledger",
            AUDIT_BUCKET=lake.audit.bucket_name,
        )
        self.api = self._api(settings, execute, control)
        url = f"https://{self.api.rest_api_id}.execute-api.{self.region}.{self.url_suffix}/{STAGE}"
        decide = self._function(
            "decide",
            timeout=Duration.minutes(7),  # an endpoint is asked again for four of them
            memory=1769,  # from here a function has a whole processor
            description="Bars, features, observation, scores, weights",
            EXECUTION_API_URL=url,
            RAW_BUCKET=lake.raw.bucket_name,
            AUDIT_BUCKET=lake.audit.bucket_name,
            **({"PROCESSED_BUCKET": lake.processed.bucket_name} if settings.news.sources else {}),
        )
        reconcile = self._function(
            "reconcile",
            timeout=Duration.minutes(2),
            memory=1024,
            description="The broker is the truth: settle and record",
            AUDIT_BUCKET=lake.audit.bucket_name,
            PROCESSED_BUCKET=lake.processed.bucket_name,
        )
        for function in (execute, control, decide, reconcile):
            lake.let_write_ledger(function)
        let_read_objects(decide.own_role, lake.raw_arn, RAW)
        let_write_objects(decide.own_role, lake.audit_arn, audit_prefix("decisions"))
        self._let_archive(reconcile, lake)
        self._let_trace(control, lake)
        decide.may("execute-api:Invoke", on=[self.api.arn_for_execute_api("POST", "/decisions", STAGE)])
        decide.may(
            "sagemaker:InvokeEndpoint",
            on=[self.format_arn(service="sagemaker", resource="endpoint", resource_name=f"{settings.name}-*")],
            because="the ledger says which of this app's endpoints decides",
        )
        # Where an endpoint gives no scores, the package that it serves does
        decide.may("s3:GetObject", on=[f"{lake.processed_arn}/{MODEL}"], because=EXECUTIONS)
        if settings.news.sources:
            let_read_objects(decide.own_role, lake.processed_arn, SENTIMENT)
        twice = Retry(attempts=2, within=Duration.minutes(5))
        retry = Retry(attempts=2, within=Duration.minutes(15))  # an attempt may take seven; the executor holds the slot's window
        for (name, slot), cron in zip(settings.schedule.deciding.items(), crons, strict=True):
            AlarmedSchedule(
                self, "".join(word.capitalize() for word in f"{name}-schedule".split("-")), settings=settings, name=name, cron=cron,
                runs=decide, with_input={"slot": slot}, retry=retry, dead_letters=lake.dead_letters,
            )  # fmt: skip
        AlarmedSchedule(
            self, "ReconcileSchedule", settings=settings, name="reconcile",
            cron=Cron(minute=f"0/{settings.schedule.reconcile_every_minutes}", hour="9-16"),
            runs=reconcile, retry=twice, dead_letters=lake.dead_letters,
        )  # fmt: skip
        self.functions = {"decide": decide, "execute_orders": execute, "control": control, "reconcile": reconcile}
        self.web: WebFunction | None = None
        if settings.dashboard.enabled:
            self.web = WebFunction(
                self, "Web", settings=settings, runtime=runtime, lake=lake, api=self.api, stage=STAGE, url=url, timeout=GATEWAY_TIMEOUT
            )
            self.functions["dashboard"] = self.web.function
        for name, value in {
            "ExecutionApiId": self.api.rest_api_id,
            "ExecutionApiUrl": url,
            "DecideFunction": decide.function_name,
            "ExecuteOrdersFunction": execute.function_name,
            "ControlFunction": control.function_name,
            "ReconcileFunction": reconcile.function_name,
        }.items():
            CfnOutput(self, name, value=value)

    def _function(self, folder: str, *, timeout: Duration, memory: int, description: str, **environment: str) -> PythonFunction:
        trades = folder != "control"
        broker = {"BROKER_SECRET_ARN": self._secret.secret_arn} if trades else {}
        function = PythonFunction(
            self,
            "".join(word.capitalize() for word in folder.split("_")),
            folder=folder,
            bundle="trade" if trades else "edge",
            runtime=self._runtime,
            environment={"LEDGER_TABLE": self._lake.ledger.table_name, **broker, **environment},
            timeout=timeout,
            memory=memory,
            description=description,
        )
        if trades:
            let_read_secret(function, self._secret)
        return function

    def _let_archive(self, reconcile: PythonFunction, lake: LakeStack) -> None:
        """Add to the archive, which it never reads, and read what a model was trained and judged on."""
        let_write_objects(reconcile.own_role, lake.audit_arn, *(audit_prefix(table) for table in ARCHIVED))
        reconcile.may("s3:ListBucket", on=[lake.audit_arn, lake.processed_arn])
        reconcile.may("s3:GetObject", on=[f"{lake.processed_arn}/{EVALUATION}"], because=EXECUTIONS)
        reconcile.may(
            "s3:GetObject", "s3:GetObjectVersion", on=[f"{lake.processed_arn}/{training_manifest(self._settings.training.timeframe)}"]
        )
        reconcile.may("s3:ListBucketVersions", on=[lake.processed_arn])
        self._let_ask_the_registry(reconcile)

    def _let_trace(self, control: PythonFunction, lake: LakeStack) -> None:
        let_read_objects(control.own_role, lake.audit_arn, audit_prefix("decisions"), audit_prefix("models"))
        control.may("s3:ListBucket", on=[lake.processed_arn])
        control.may("s3:GetObject", on=[f"{lake.processed_arn}/{path}" for path in (EVALUATION, MODEL)], because=EXECUTIONS)
        self._let_ask_the_registry(control)

    def _let_ask_the_registry(self, function: PythonFunction) -> None:
        packages = self.format_arn(service="sagemaker", resource="model-package", resource_name=f"{self._settings.name}/*")
        function.may("sagemaker:DescribeModelPackage", on=[packages], because="packages of the group are numbered as they are registered")

    def _api(self, settings: Settings, execute: PythonFunction, control: PythonFunction) -> apigateway.RestApi:
        self.access_log_name = f"/{settings.name}/access_log"
        access_log = logs.LogGroup(
            self,
            "AccessLog",
            log_group_name=self.access_log_name,
            retention=logs.RetentionDays.THREE_MONTHS,
            removal_policy=RemovalPolicy.DESTROY,
        )
        web = settings.dashboard.enabled
        api = apigateway.RestApi(
            self,
            "ExecutionApi",
            rest_api_name=f"{settings.name}-execution",
            description="Decisions and orders; every request is signed (IAM)",
            min_compression_size=Size.kibibytes(1) if web else None,
            endpoint_types=[apigateway.EndpointType.REGIONAL],
            cloud_watch_role=True,
            # The gateway's logs need a role that the whole account and region share: another app's must not lose it with this one
            cloud_watch_role_removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
            default_method_options=apigateway.MethodOptions(authorization_type=apigateway.AuthorizationType.IAM),
            deploy_options=apigateway.StageOptions(
                stage_name=STAGE,
                throttling_rate_limit=5,
                throttling_burst_limit=10,
                logging_level=apigateway.MethodLoggingLevel.ERROR,
                data_trace_enabled=False,
                method_options=throttled() if web else None,
                access_log_destination=apigateway.LogGroupLogDestination(access_log),
                access_log_format=apigateway.AccessLogFormat.json_with_standard_fields(
                    caller=True, http_method=True, ip=True, protocol=True, request_time=True, resource_path=True,
                    response_length=True, status=True, user=True,
                ),
            ),
        )  # fmt: skip
        pushes = "arn:<AWS::Partition>:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs"
        acknowledge(
            api, f"AwsSolutions-IAM4[Policy::{pushes}]", "the account-wide role by which the gateway writes logs, as AWS defines it"
        )
        acknowledge(
            api,
            "AwsSolutions-APIG2",
            "the functions validate: they answer 422 naming the field, and refuse NaN, which the gateway lets through",
        )
        acknowledge(
            api, "AwsSolutions-APIG3", "a firewall costs more than all else here; requests are signed by this account and throttled"
        )
        acknowledge(
            api, "AwsSolutions-COG4", "callers are functions and the owner's own credentials, so IAM signs; there are no users to log in"
        )
        executed = apigateway.LambdaIntegration(execute, allow_test_invoke=False, timeout=GATEWAY_TIMEOUT)
        controlled = apigateway.LambdaIntegration(control, allow_test_invoke=False, timeout=GATEWAY_TIMEOUT)

        decisions, orders = api.root.add_resource("decisions"), api.root.add_resource("orders")
        decisions.add_method("POST", executed, request_models={"application/json": api_model(api, "Decision")})
        # Greedy: an id holds a slash, and whether an encoded one is decoded before the route is chosen should not matter
        decisions.add_resource("{id+}").add_method("GET", controlled)
        orders.add_method("POST", executed, request_models={"application/json": api_model(api, "ManualOrder")})
        orders.add_method("GET", controlled)
        order = orders.add_resource("{id}")
        order.add_method("GET", controlled)
        order.add_method("DELETE", executed)
        for read in ("portfolio", "status"):
            api.root.add_resource(read).add_method("GET", controlled)
        state = api.root.add_resource("trading-state")
        state.add_method("GET", controlled)
        state.add_method("PUT", controlled, request_models={"application/json": api_model(api, "TradingState")})
        api.root.add_resource("flatten").add_method("POST", executed, request_models={"application/json": api_model(api, "Flatten")})
        return api


def _cron(slot: str, settings: Settings) -> Cron:
    """When the agent decides in `slot`; the whole window must lie in a regular session."""
    minutes, window = minutes_of(slot), settings.schedule.slot_window_minutes
    latest = CLOSE_MINUTE - OPEN_MINUTE - window
    if minutes > latest:
        raise SettingsError(
            f"schedule.slots: {slot!r} is not allowed: with slot_window_minutes = {window} the session ends before the window; "
            f"use open+{latest} or earlier"
        )
    hour, minute = divmod(OPEN_MINUTE + minutes, 60)
    return Cron(minute=str(minute), hour=str(hour))
