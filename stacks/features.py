"""The nightly Glue job that turns the raw lake into features, its schedule, and the table that Athena reads them through.

`COLUMNS` states the table's columns, because infrastructure imports no runtime code; a test holds them against the feature table.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from aws_cdk import ArnFormat, CfnOutput, Duration, Environment, RemovalPolicy, Stack
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from schema.features.groups import FeatureGroup, groups_in_table
from schema.lake_layout import PROCESSED, RAW, features_prefix
from schema.settings import Settings
from stacks.constructs import archives
from stacks.constructs.alarmed_schedule import SCHEDULED_TIME, AlarmedSchedule, Call, Cron, Retry
from stacks.constructs.as_of_views import add_as_of_views
from stacks.constructs.feature_store import add_feature_store
from stacks.constructs.permissions import acknowledge, allow
from stacks.lake import OBJECTS, LakeStack, let_read_objects, let_write_objects

SCRIPT = archives.ROOT / "glue_jobs" / "build_features.py"
LIBRARIES = {"numpy", "pandas", "pyarrow", "pydantic", "ta-lib"}  # beside Spark and boto3, which the service has
QUOTES_LIBRARIES = LIBRARIES | {"awswrangler"}  # of a run in quotes mode, which nothing schedules
FIRST_YEAR, LAST_YEAR = 1990, 2100

FEATURE_COLUMNS = (
    "return_1", "return_5", "return_21", "return_63", "return_126", "gap", "overnight_21", "intraday_21", "range", "location",
    "rsi_14", "macd", "macd_histogram", "bollinger_position", "volatility_21", "volatility_ratio", "volume_z", "distance_50",
    "distance_200", "momentum_12_1", "drawdown_252", "rank_return_5", "rank_return_21", "rank_volatility_21", "rank_momentum_12_1",
    "rank_residual_1", "rank_residual_5", "rank_residual_12_1", "market_breadth", "market_return_21", "market_volatility_21",
    "market_dispersion_21",
)  # fmt: skip
COLUMNS = (
    ("session", "timestamp"),
    ("symbol", "string"),
    *((name, "double") for name in ("open", "high", "low", "close", "volume", "split", "dividend")),
    ("tradable", "boolean"),
    *((name, "double") for name in FEATURE_COLUMNS),
)


class FeaturesStack(Stack):
    def __init__(self, scope: Construct, construct_id: str, *, settings: Settings, lake: LakeStack, env: Environment) -> None:
        super().__init__(scope, construct_id, env=env, description="Papertape: features, nightly")
        script = assets.Asset(self, "Script", path=str(SCRIPT))
        modules = archives.modules("glue_jobs", "schema", "trading_env", settings=settings)
        library = assets.Asset(self, "Modules", path=str(modules.path), asset_hash=modules.key)
        log_prefix = f"/{settings.name}/build_features"
        self.log_name = f"{log_prefix}/error"  # the driver's log, whatever became of the run
        log_groups = [
            logs.LogGroup(
                self,
                f"JobLogs{kind.capitalize()}",
                log_group_name=f"{log_prefix}/{kind}",
                retention=logs.RetentionDays.THREE_MONTHS,
                removal_policy=RemovalPolicy.DESTROY,
            )
            for kind in ("error", "output")
        ]
        role = self._role(lake, log_groups, [script, library])
        self.job = glue.CfnJob(
            self,
            "BuildFeatures",
            role=role.role_arn,
            description="Raw bars to features: validate, adjust, compute, write, manifest last",
            glue_version="5.1",
            command=glue.CfnJob.JobCommandProperty(name="glueetl", python_version="3", script_location=script.s3_object_url),
            worker_type="G.1X",
            number_of_workers=2,
            timeout=60,  # minutes; the service's default is two days
            max_retries=1,
            execution_property=glue.CfnJob.ExecutionPropertyProperty(max_concurrent_runs=1),
            default_arguments={
                "--job-language": "python",
                "--extra-py-files": library.s3_object_url,
                "--additional-python-modules": _pins(LIBRARIES),
                "--custom-logGroup-prefix": log_prefix,  # from 5.0 on; --continuous-log-logGroup is for earlier versions
                "--RAW_BUCKET": lake.raw.bucket_name,
                "--PROCESSED_BUCKET": lake.processed.bucket_name,
            },
        )
        self.job.node.add_dependency(role)
        for rule in ("AwsSolutions-GL1", "AwsSolutions-GL3"):
            acknowledge(
                self.job, rule, "a security configuration needs a KMS key at a dollar a month; log groups are encrypted by the service"
            )
        groups = groups_in_table(sentiment=settings.features.sentiment == "daily")
        self._table(lake, groups, settings)
        if settings.feature_store.enabled:
            add_feature_store(self, app=settings.name, groups=groups, bucket=lake.processed, bucket_arn=lake.processed_arn, job=role)
        by_slot = bool(settings.row_slots)
        add_as_of_views(self, groups=groups, raw_bucket=lake.raw.bucket_name, database_name=lake.database_name, by_slot=by_slot)
        AlarmedSchedule(
            self,
            "BuildSchedule",
            settings=settings,
            name="build_features",
            cron=Cron(minute="30", hour="18"),
            runs=Call(
                service="glue",
                action="startJobRun",
                parameters={"JobName": self.job.ref, "Arguments": {"--EVENT_TIME": SCHEDULED_TIME}},
                permission="glue:StartJobRun",
                resources=[self.format_arn(service="glue", resource="job", resource_name=self.job.ref)],
            ),
            retry=Retry(attempts=2, within=Duration.hours(1)),
            dead_letters=lake.dead_letters,
        )
        CfnOutput(self, "GlueJobName", value=self.job.ref)
        quotes = {"--MODE": "quotes", "--additional-python-modules": _pins(QUOTES_LIBRARIES)}
        CfnOutput(self, "MinuteBarsArguments", value=json.dumps(quotes), description="Arguments of a run that makes a day's minute bars")

    def _role(self, lake: LakeStack, log_groups: list[logs.LogGroup], files: list[assets.Asset]) -> iam.Role:
        role = iam.Role(self, "JobRole", assumed_by=iam.ServicePrincipal("glue.amazonaws.com"))
        allow(role, "s3:GetObject", on=[file.bucket.arn_for_objects(file.s3_object_key) for file in files])
        let_read_objects(role, lake.raw_arn, RAW)
        let_read_objects(role, lake.processed_arn, PROCESSED)
        let_write_objects(role, lake.processed_arn, PROCESSED)
        # Files that the manifest, once written, no longer lists, and the minute bars of a day that is built again
        built = [f"{lake.processed_arn}/processed/{table}/*" for table in ("features", "training", "bars")]
        allow(role, "s3:DeleteObject", on=built, because=OBJECTS)
        # Glue writes to its own groups before ours is in use
        groups = self.format_arn(
            service="logs", resource="log-group", resource_name="/aws-glue/*", arn_format=ArnFormat.COLON_RESOURCE_NAME
        )
        write = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")
        own = [group.log_group_arn for group in log_groups]
        allow(role, *write, on=[*own, groups], because="the groups of the service, whose names are its own")
        allow(
            role,
            "cloudwatch:PutMetricData",
            on=["*"],
            because="this action has no resource; the condition holds it to the service's own metrics",
            conditions={"StringEquals": {"cloudwatch:namespace": "Glue"}},
        )
        return role

    def _table(self, lake: LakeStack, groups: Sequence[FeatureGroup], settings: Settings) -> None:
        """`COLUMNS`, and behind them those of optional groups; Athena finds columns of Parquet by their names."""
        further = ((name, "double") for group in groups if group.optional for name in group.columns)
        location = f"s3://{lake.processed.bucket_name}/{features_prefix(settings.training.timeframe)}"
        column = glue.CfnTable.ColumnProperty
        table = glue.CfnTable(
            self,
            "FeaturesTable",
            catalog_id=self.account,
            database_name=lake.database_name,
            table_input=glue.CfnTable.TableInputProperty(
                name="features",
                description="Features of every slot and name" if settings.row_slots else "Daily features of every session and name",
                table_type="EXTERNAL_TABLE",
                partition_keys=[column(name="year", type="int")],
                parameters={
                    "classification": "parquet",
                    "projection.enabled": "true",
                    "projection.year.type": "integer",
                    "projection.year.range": f"{FIRST_YEAR},{LAST_YEAR}",
                    "storage.location.template": f"{location}year=${{year}}/",
                },
                storage_descriptor=glue.CfnTable.StorageDescriptorProperty(
                    location=location,
                    columns=[column(name=name, type=kind) for name, kind in (*COLUMNS, *further)],
                    input_format="org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
                    output_format="org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
                    serde_info=glue.CfnTable.SerdeInfoProperty(
                        serialization_library="org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
                    ),
                ),
            ),
        )
        table.add_resource_dependency(lake.database)


def _pins(libraries: set[str]) -> str:
    """The locked versions of `libraries`: the job computes with the same ones as everything else."""
    lock = (archives.ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return ",".join(sorted(line for line in lock if line.partition("==")[0].lower() in libraries))
