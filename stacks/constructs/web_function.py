"""The web app's function behind the execution API, and all that it may do.

It reads the ledger and the lake, and writes nothing of trading: orders, halts and flattening go through the signed API as any caller's
do. What it writes itself are its own items of the ledger (`action#...`), the requests of runs, and a model package's approval.
"""

from __future__ import annotations

from aws_cdk import ArnFormat, CfnOutput, Duration, Stack
from aws_cdk import aws_apigateway as apigateway
from constructs import Construct

from schema.lake_layout import RUNS, UPLOADS, training_manifest
from schema.settings import Settings
from stacks.constructs.function import PythonFunction, Runtime
from stacks.constructs.web_access import READ, WebAccess
from stacks.lake import LakeStack, let_write_objects

PATH = "/app/{proxy+}"
METHODS = ("GET", "POST", "PUT", "DELETE")
OWN_ITEMS = "action#*"
#: What it may ask of the execution API. Decisions come from `decide` alone.
CALLS = (
    ("GET", "/portfolio"), ("GET", "/status"), ("GET", "/trading-state"), ("PUT", "/trading-state"), ("GET", "/decisions/*"),
    ("GET", "/orders"), ("POST", "/orders"), ("GET", "/orders/*"), ("DELETE", "/orders/*"), ("POST", "/flatten"),
)  # fmt: skip
#: Requests per second and at once, by method: open pages ask every few seconds, and must leave room to what trades, for an account may
#: run only ten functions at once.
RATE, BURST = 20, 40


def runs_pipeline(settings: Settings) -> str:
    return f"{settings.name}-runs"


def throttled() -> dict[str, apigateway.MethodDeploymentOptions]:
    """The web app's own limits, for the stage's are those of the few calls that trade."""
    limits = apigateway.MethodDeploymentOptions(
        throttling_rate_limit=RATE,
        throttling_burst_limit=BURST,
        logging_level=apigateway.MethodLoggingLevel.ERROR,
        data_trace_enabled=False,
    )
    return {f"{PATH}/{method}": limits for method in METHODS}


class WebFunction(Construct):
    """`lambdas/dashboard` at `/app/...` of `api`, for tokens of its own pool, `access`."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        runtime: Runtime,
        lake: LakeStack,
        api: apigateway.RestApi,
        stage: str,
        url: str,
        timeout: Duration,
    ) -> None:
        super().__init__(scope, construct_id)
        self._settings, self._stack = settings, Stack.of(self)
        self.access = WebAccess(self, "Access", settings=settings)
        self.function = PythonFunction(
            self,
            "Dashboard",
            folder="dashboard",
            bundle="dashboard",
            runtime=runtime,
            environment={
                "LEDGER_TABLE": lake.ledger.table_name,
                "RAW_BUCKET": lake.raw.bucket_name,
                "PROCESSED_BUCKET": lake.processed.bucket_name,
                "AUDIT_BUCKET": lake.audit.bucket_name,
                "EXECUTION_API_URL": url,
                "PACKAGE_GROUP": settings.name,
                "RUNS_PIPELINE": runs_pipeline(settings),
            },
            timeout=timeout,
            memory=1024,
            description="The web app's pages and its API",
        )
        self._let_look(lake)
        self._let_act(lake, api, stage)
        self._behind(api, timeout)
        CfnOutput(self._stack, "DashboardFunction", value=self.function.function_name)
        CfnOutput(self._stack, "UserPoolId", value=self.access.pool.user_pool_id)

    def _let_look(self, lake: LakeStack) -> None:
        function, group = self.function, self._settings.name
        lake.let_read_ledger(function)
        for bucket in (lake.raw_arn, lake.processed_arn, lake.audit_arn):
            function.may("s3:GetObject", on=[f"{bucket}/*"], because="its pages show all that the lake holds")
            function.may("s3:ListBucket", on=[bucket])
        # The table that a model was trained on, by what its manifest said then
        function.may("s3:GetObjectVersion", on=[f"{lake.processed_arn}/{training_manifest(self._settings.training.timeframe)}"])
        function.may("s3:ListBucketVersions", on=[lake.processed_arn])
        packages = [self._arn("model-package-group", group), self._arn("model-package", f"{group}/*")]
        function.may(
            "sagemaker:DescribeModelPackage", "sagemaker:ListModelPackages", on=packages, because="packages are numbered as they are made"
        )
        alarms = self._stack.format_arn(service="cloudwatch", resource="alarm", resource_name="*", arn_format=ArnFormat.COLON_RESOURCE_NAME)
        function.may("cloudwatch:DescribeAlarms", on=[alarms], because="alarms are asked for by the app's prefix, which names no resource")

    def _let_act(self, lake: LakeStack, api: apigateway.RestApi, stage: str) -> None:
        function, settings = self.function, self._settings
        function.may(
            "dynamodb:PutItem",
            "dynamodb:UpdateItem",
            "dynamodb:ConditionCheckItem",
            on=[lake.ledger.table_arn],
            conditions={"ForAllValues:StringLike": {"dynamodb:LeadingKeys": [OWN_ITEMS]}},
        )
        let_write_objects(function.own_role, lake.processed_arn, RUNS, UPLOADS)
        calls = [api.arn_for_execute_api(method, path, stage) for method, path in CALLS]
        function.may("execute-api:Invoke", on=calls, because="an order and a decision are called by their ids")
        function.may(
            "sagemaker:UpdateModelPackage",
            on=[self._arn("model-package", f"{settings.name}/*")],
            because="packages are numbered as they are made",
        )
        pipeline = runs_pipeline(settings)
        function.may("sagemaker:StartPipelineExecution", "sagemaker:ListPipelineExecutions", on=[self._arn("pipeline", pipeline)])
        function.may(
            "sagemaker:StopPipelineExecution",
            "sagemaker:DescribePipelineExecution",
            on=[self._arn("pipeline", f"{pipeline}/execution/*")],
            because="the service names an execution",
        )

    def _behind(self, api: apigateway.RestApi, timeout: Duration) -> None:
        authorizer = apigateway.CognitoUserPoolsAuthorizer(
            self, "SignedIn", cognito_user_pools=[self.access.pool], results_cache_ttl=Duration.minutes(5)
        )
        resource = api.root.add_resource("app").add_resource("{proxy+}")
        integration = apigateway.LambdaIntegration(self.function, allow_test_invoke=False, timeout=timeout)
        for verb in METHODS:  # each by its name: the stage's settings know no ANY
            method = resource.add_method(
                verb,
                integration,
                authorization_type=apigateway.AuthorizationType.COGNITO,
                authorizer=authorizer,
                authorization_scopes=[READ],
            )
            method.node.add_dependency(self.access.server)  # a scope is only text to the gateway

    def _arn(self, resource: str, name: str) -> str:
        return self._stack.format_arn(service="sagemaker", resource=resource, resource_name=name)
