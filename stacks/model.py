"""Weekly training, the registry, and the deployment of what it approves or refuses.

The pipeline's definition and the archive of its code come from `sagemaker/`, pure functions that are loaded by path: the folder must
never be a package (it shares its name with the SDK). There is no endpoint here: `deploy_model` makes and moves endpoints. The group of
model packages outlives the app; to deploy again under the same name, delete it first. A first deployment that rolls back removes it.
"""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from aws_cdk import ArnFormat, CfnOutput, Duration, Environment, RemovalPolicy, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda_destinations as destinations
from aws_cdk import aws_s3_assets as assets
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from schema.lake_layout import MODELS, RUNS, TRAINING_VIEWS, UPLOADS
from schema.settings import Settings, SettingsError
from stacks.constructs import archives
from stacks.constructs.alarmed_schedule import SCHEDULED_TIME, AlarmedSchedule, Call, Cron, Retry
from stacks.constructs.function import PythonFunction, Runtime
from stacks.constructs.permissions import allow
from stacks.constructs.web_function import runs_pipeline
from stacks.lake import LakeStack, let_read_objects, let_write_objects

SERVICE = "sagemaker.amazonaws.com"
VERSIONS = "packages of the group are numbered as they are registered"
EXECUTIONS = "the pipeline names the folder of its results after the execution"
RUN_SECONDS = 6 * 3600


class ModelStack(Stack):
    def __init__(
        self, scope: Construct, construct_id: str, *, settings: Settings, runtime: Runtime, lake: LakeStack, env: Environment
    ) -> None:
        super().__init__(scope, construct_id, env=env, description="Papertape: training, registry, deployment of models")
        pipelines, packing = _module("sagemaker/pipeline.py"), _module("learning/packaging.py")
        if settings.region not in pipelines.REGISTRIES:
            known = ", ".join(sorted(pipelines.REGISTRIES))
            raise SettingsError(f"region = {settings.region!r} is not allowed: AWS keeps the training image in {known}")
        images = pipelines.default_images(settings.region)
        packed = packing.source_archive(settings_json=settings.model_dump_json())
        archive = archives.file_of(packed, name="source", suffix=".tar.gz")
        source = assets.Asset(self, "Source", path=str(archive.path), asset_hash=archive.key)

        self.group = sagemaker.CfnModelPackageGroup(
            self,
            "Models",
            model_package_group_name=settings.name,
            model_package_group_description="Every trained policy, with the gate's verdict",
        )
        self.group.apply_removal_policy(RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)
        job_role = self._job_role(lake, source, images.training)
        definition = pipelines.definition(
            settings=settings,
            role_arn=job_role.role_arn,
            bucket=lake.processed.bucket_name,
            package_group=settings.name,
            source_uri=source.s3_object_url,
            images=images,
        )
        self.pipeline = sagemaker.CfnPipeline(
            self,
            "Training",
            pipeline_name=f"{settings.name}-training",
            pipeline_description="Train each seed on every fold, judge the ensemble, register it as passed or refused",
            pipeline_definition={"PipelineDefinitionBody": self.to_json_string(definition)},
            role_arn=job_role.role_arn,
        )
        self.pipeline.node.add_dependency(job_role)
        self.pipeline_name = self.pipeline.pipeline_name
        self.pipeline_arn = self.format_arn(service="sagemaker", resource="pipeline", resource_name=self.pipeline_name)
        AlarmedSchedule(
            self,
            "TrainingSchedule",
            settings=settings,
            name="train",
            cron=Cron(minute="0", hour="6", week_day="SAT"),
            runs=Call(
                service="sagemaker",
                action="startPipelineExecution",
                # The API requires the token, and SDKs invent one where the scheduler may not; a repeated delivery starts nothing twice
                parameters={"PipelineName": self.pipeline_name, "ClientRequestToken": f"scheduled-training-{SCHEDULED_TIME}"},
                permission="sagemaker:StartPipelineExecution",
                resources=[self.pipeline_arn],
            ),
            retry=Retry(attempts=2, within=Duration.hours(1)),
            dead_letters=lake.dead_letters,
        )
        if settings.dashboard.enabled:
            self._runs(settings, lake, images.training)
        self.functions = {"deploy_model": self._deployment(settings, runtime, lake, images.serving)}
        for name, value in {
            "ModelPackageGroup": self.group.model_package_group_name,
            "PipelineName": self.pipeline_name,
            "DeployModelFunction": self.functions["deploy_model"].function_name,
        }.items():
            CfnOutput(self, name, value=value)

    def _job_role(self, lake: LakeStack, source: assets.Asset, image: str) -> iam.Role:
        """The role of the pipeline and of the jobs that it starts."""
        role = iam.Role(self, "JobRole", assumed_by=iam.ServicePrincipal(SERVICE))
        self._let_unpack(role, source)
        let_read_objects(role, lake.processed_arn, TRAINING_VIEWS, MODELS)
        let_write_objects(role, lake.processed_arn, MODELS)
        self._let_start(role, "TrainingJob", "ProcessingJob")
        group = self.group.model_package_group_name
        packages = [self._arn("model-package-group", group), self._arn("model-package", f"{group}/*")]
        registry = ("CreateModelPackage", "DescribeModelPackage", "DescribeModelPackageGroup", "ListModelPackages", "AddTags")
        allow(role, *(f"sagemaker:{action}" for action in registry), on=packages, because=VERSIONS)
        allow(role, "iam:PassRole", on=[role.role_arn], conditions={"StringEquals": {"iam:PassedToService": SERVICE}})
        self._let_run_container(role, image)
        return role

    def _let_unpack(self, role: iam.Role, source: assets.Asset) -> None:
        allow(role, "s3:GetObject", on=[source.bucket.arn_for_objects(source.s3_object_key)])
        allow(role, "s3:ListBucket", "s3:GetBucketLocation", on=[source.bucket.bucket_arn])

    def _let_start(self, role: iam.Role, *kinds: str) -> None:
        names = {"TrainingJob": "training-job", "ProcessingJob": "processing-job"}
        allow(
            role,
            *(f"sagemaker:{verb}{kind}" for verb in ("Create", "Describe", "Stop") for kind in kinds),
            "sagemaker:AddTags",
            on=[self._arn(names[kind], "pipelines-*") for kind in kinds],
            because="the service names the jobs of a pipeline after the execution",
        )

    def _runs(self, settings: Settings, lake: LakeStack, image: str) -> None:
        """The pipeline that does what people ask the web app for: its job reads and writes folders of runs, and registers nothing."""
        pipelines, packing, runs = (
            _module(path) for path in ("sagemaker/pipeline.py", "learning/packaging.py", "sagemaker/runs_pipeline.py")
        )
        archive = archives.file_of(packing.runs_archive(settings_json=settings.model_dump_json()), name="runs", suffix=".tar.gz")
        source = assets.Asset(self, "RunsSource", path=str(archive.path), asset_hash=archive.key)
        role = iam.Role(self, "RunsRole", assumed_by=iam.ServicePrincipal(SERVICE))
        self._let_unpack(role, source)
        let_read_objects(role, lake.processed_arn, TRAINING_VIEWS, MODELS, RUNS, UPLOADS)
        let_write_objects(role, lake.processed_arn, RUNS)
        allow(role, "s3:DeleteObject", on=[f"{lake.processed_arn}/{RUNS}*"], because="a run drops its lease, its stop and old checkpoints")
        self._let_start(role, "ProcessingJob")
        packages = [self._arn("model-package", f"{settings.name}/*")]
        allow(role, "sagemaker:DescribeModelPackage", on=packages, because=VERSIONS)
        allow(role, "iam:PassRole", on=[role.role_arn], conditions={"StringEquals": {"iam:PassedToService": SERVICE}})
        self._let_run_container(role, image)
        compute = pipelines.Compute()
        definition = runs.runs_definition(
            role_arn=role.role_arn,
            bucket=lake.processed.bucket_name,
            source_uri=source.s3_object_url,
            image=image,
            instance_type=compute.instance_type,
            volume_gb=compute.volume_gb,
            max_seconds=RUN_SECONDS,
            retries=pipelines.RETRIES,
        )
        pipeline = sagemaker.CfnPipeline(
            self,
            "Runs",
            pipeline_name=runs_pipeline(settings),
            pipeline_description="Do one run that was asked for: train, backtest, or look at a file",
            pipeline_definition={"PipelineDefinitionBody": self.to_json_string(definition)},
            role_arn=role.role_arn,
        )
        pipeline.node.add_dependency(role)
        CfnOutput(self, "RunsPipelineName", value=pipeline.pipeline_name)

    def _serving_role(self, lake: LakeStack, image: str) -> iam.Role:
        role = iam.Role(self, "ServingRole", assumed_by=iam.ServicePrincipal(SERVICE))
        let_read_objects(role, lake.processed_arn, MODELS)
        self._let_run_container(role, image)
        return role

    def _let_run_container(self, role: iam.Role, image: str) -> None:
        """Pull Amazon's images, write logs and the service's own metrics."""
        logs = self.format_arn(
            service="logs", resource="log-group", resource_name="/aws/sagemaker/*", arn_format=ArnFormat.COLON_RESOURCE_NAME
        )
        allow(role, "ecr:GetAuthorizationToken", on=["*"], because="this action has no resource")
        pull = ("ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage")
        allow(role, *pull, on=[self._repository(image)])
        write = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents")
        allow(role, *write, on=[logs], because="the service names the groups and streams of its jobs and endpoints")
        allow(
            role,
            "cloudwatch:PutMetricData",
            on=["*"],
            because="this action has no resource; the condition holds it to the service's own metrics",
            conditions={"StringLike": {"cloudwatch:namespace": "/aws/sagemaker/*"}},
        )

    def _deployment(self, settings: Settings, runtime: Runtime, lake: LakeStack, serving_image: str) -> PythonFunction:
        serving_role = self._serving_role(lake, serving_image)
        group = self.group.model_package_group_name
        function = PythonFunction(
            self,
            "DeployModel",
            folder="deploy_model",
            bundle="edge",
            runtime=runtime,
            environment={
                "LEDGER_TABLE": lake.ledger.table_name,
                "MODEL_PACKAGE_GROUP": group,
                "SERVING_ROLE_ARN": serving_role.role_arn,
                "ENDPOINT_NAME": settings.name,
            },
            timeout=Duration.minutes(15),
            memory=256,
            description="Serve an approved model as the incumbent, a refused one as the shadow",
        )
        lake.let_write_ledger(function)
        function.may("sagemaker:DescribeModelPackage", on=[self._arn("model-package", f"{group}/*")], because=VERSIONS)
        function.may("s3:ListBucket", on=[lake.processed_arn])
        function.may(
            "s3:GetObject",
            on=[f"{lake.processed_arn}/{MODELS}*/evaluation/evaluation.json"],
            because="the pipeline names the folder of its results after the execution",
        )
        kinds = {"Model": "model", "EndpointConfig": "endpoint-config", "Endpoint": "endpoint"}
        function.may(
            *(f"sagemaker:{verb}{kind}" for verb in ("Create", "Describe", "Delete") for kind in kinds),
            "sagemaker:InvokeEndpoint",
            on=[self._arn(kind, f"{settings.name}-*") for kind in kinds.values()],
            because="models, configurations and endpoints are named after the version and the hash that they serve",
        )
        function.may(*(f"sagemaker:List{kind}s" for kind in kinds), on=["*"], because="listing has no resource; only our names are touched")
        function.may("s3:GetObject", on=[f"{lake.processed_arn}/{MODELS}*/model/model.tar.gz"], because=EXECUTIONS)
        function.may("iam:PassRole", on=[serving_role.role_arn], conditions={"StringEquals": {"iam:PassedToService": SERVICE}})
        # An endpoint takes minutes: a run that ends before it serves raises, and the next attempt continues
        function.configure_async_invoke(
            on_failure=destinations.SqsDestination(lake.dead_letters), retry_attempts=2, max_event_age=Duration.hours(1)
        )
        events.Rule(
            self,
            "OnVerdict",
            description="A model package was approved or rejected, or waits for it",
            event_pattern=events.EventPattern(
                source=["aws.sagemaker"],
                detail_type=["SageMaker Model Package State Change"],
                detail={"ModelPackageGroupName": [group], "ModelApprovalStatus": ["Approved", "Rejected", "PendingManualApproval"]},
            ),
            targets=[
                targets.LambdaFunction(
                    function,
                    dead_letter_queue=sqs.Queue.from_queue_arn(self, "DeadLetters", lake.dead_letters.queue_arn),
                    retry_attempts=2,
                    max_event_age=Duration.hours(1),
                )
            ],
        )
        return function

    def _repository(self, image: str) -> str:
        """ARN of the repository of `<account>.dkr.ecr.<region>.amazonaws.com/<name>:<tag>`, which is another account's."""
        registry, _, name = image.partition("/")
        return self.format_arn(service="ecr", account=registry.split(".")[0], resource="repository", resource_name=name.split(":")[0])

    def _arn(self, resource: str, name: str) -> str:
        return self.format_arn(service="sagemaker", resource=resource, resource_name=name)


def _module(path: str) -> ModuleType:
    """Load a module by its path, for a folder called `sagemaker` is no package, and what learns is no part of the infrastructure."""
    spec = spec_from_file_location(f"papertape_{Path(path).stem}", archives.ROOT / path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
