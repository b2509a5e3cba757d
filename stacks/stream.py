"""The stream of quotes and minute bars into the raw bucket, where `[stream] kind` asks for one.

"firehose": a delivery stream, whose one function reads each record and says where it belongs; nothing runs while nothing comes. "kinesis":
one provisioned shard, which others may read as well, and the same function at its end. Both write below `lake_layout.QUOTES` and
`STREAMED_BARS`, and set aside below `STREAM_QUARANTINE` what cannot be read; a dead letter says so.
"""

from __future__ import annotations

from aws_cdk import CfnOutput, Duration, Environment, RemovalPolicy, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kinesis as kinesis
from aws_cdk import aws_kinesisfirehose as firehose
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_logs as logs
from constructs import Construct

from schema.lake_layout import QUOTES, STREAM_QUARANTINE, STREAM_UNDELIVERED, STREAMED_BARS, firehose_prefix
from schema.settings import Settings
from stacks.constructs.function import PythonFunction, Runtime
from stacks.constructs.permissions import allow
from stacks.lake import LakeStack, let_write_objects

Delivery = firehose.CfnDeliveryStream
FIVE_MINUTES = Duration.minutes(5)
#: Of the delivery stream: an object is written at the first of the two.
BUFFER_MB, BUFFER_SECONDS = 128, 300
#: Of the shard: how long a batch is gathered, and when the function gives one up; the records stay for a day.
WINDOW, RETRIES, OLDEST = Duration.minutes(1), 5, Duration.hours(12)
#: What is this late has a cause that somebody must look at.
LATE = Duration.minutes(15)


class StreamStack(Stack):
    """`kind` and `name` are what a producer needs, and `let_write` its permission.
    `lateness` is how far the lake is behind, and `late_at` where that is too far."""

    def __init__(
        self, scope: Construct, construct_id: str, *, settings: Settings, runtime: Runtime, lake: LakeStack, env: Environment
    ) -> None:
        super().__init__(scope, construct_id, env=env, description="Papertape: the stream of quotes and minute bars")
        self.kind = settings.stream.kind
        self.consumer = PythonFunction(
            self,
            "ConsumeStream",
            folder="consume_stream",
            bundle="edge",
            runtime=runtime,
            environment={"RAW_BUCKET": lake.raw.bucket_name, "DEAD_LETTERS_URL": lake.dead_letters.queue_url},
            timeout=Duration.minutes(2),
            memory=512,
            description="What the stream brings, into the lake; what cannot be read, aside",
        )
        let_write_objects(self.consumer.own_role, lake.raw_arn, STREAM_QUARANTINE)
        self.consumer.may("sqs:SendMessage", on=[lake.dead_letters.queue_arn])
        self.functions = {"consume_stream": self.consumer}
        match self.kind:
            case "firehose":
                self.name = f"{settings.name}-stream"
                self.log_name = f"/{settings.name}/stream"
                self._arn = self._delivery_stream(lake)
                self._writing = ("firehose:PutRecord", "firehose:PutRecordBatch")
                dimensions = {"DeliveryStreamName": self.name}
                self.lateness = self._metric("AWS/Firehose", "DeliveryToS3.DataFreshness", dimensions)
                self.late_at = LATE.to_seconds()
            case "kinesis":
                shard = self._shard(settings, lake)
                self.name, self._arn = shard.stream_name, shard.stream_arn
                self.log_name = self.consumer.log_name
                self._writing = ("kinesis:PutRecord", "kinesis:PutRecords")
                dimensions = {"FunctionName": self.consumer.function_name}
                self.lateness = self._metric("AWS/Lambda", "IteratorAge", dimensions)
                self.late_at = LATE.to_milliseconds()
            case "none":
                raise ValueError("a stack of the stream is composed only where [stream] kind is set")
        CfnOutput(self, "StreamName", value=self.name)
        CfnOutput(self, "ConsumeStreamFunction", value=self.consumer.function_name)

    def let_write(self, role: iam.Role) -> None:
        """Allow putting records, and nothing else."""
        allow(role, *self._writing, on=[self._arn])

    def _metric(self, namespace: str, name: str, dimensions: dict[str, str]) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=namespace, metric_name=name, dimensions_map=dimensions, statistic="Maximum", period=FIVE_MINUTES, label=name
        )

    def _shard(self, settings: Settings, lake: LakeStack) -> kinesis.Stream:
        shard = kinesis.Stream(
            self,
            "Shard",
            stream_name=f"{settings.name}-stream",
            stream_mode=kinesis.StreamMode.PROVISIONED,
            shard_count=1,
            retention_period=Duration.hours(24),
            encryption=kinesis.StreamEncryption.MANAGED,
            removal_policy=RemovalPolicy.DESTROY,  # what it holds is a day old at most, and in the lake
        )
        let_write_objects(self.consumer.own_role, lake.raw_arn, QUOTES, STREAMED_BARS)
        reading = ("DescribeStream", "DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards")
        self.consumer.may(*(f"kinesis:{one}" for one in reading), on=[shard.stream_arn])
        mapping = lambda_.EventSourceMapping(
            self,
            "Mapping",
            target=self.consumer,
            event_source_arn=shard.stream_arn,
            starting_position=lambda_.StartingPosition.TRIM_HORIZON,
            batch_size=10_000,
            max_batching_window=WINDOW,
            report_batch_item_failures=True,
            bisect_batch_on_error=True,
            retry_attempts=RETRIES,
            max_record_age=OLDEST,
            on_failure=sources.SqsDlq(lake.dead_letters),
        )
        mapping.node.add_dependency(self.consumer.own_role)
        return shard

    def _delivery_stream(self, lake: LakeStack) -> str:
        """Make the delivery stream, and return its ARN."""
        account = {"StringEquals": {"aws:SourceAccount": self.account}}
        role = iam.Role(self, "DeliveryRole", assumed_by=iam.ServicePrincipal("firehose.amazonaws.com", conditions=account))
        let_write_objects(role, lake.raw_arn, QUOTES, STREAMED_BARS, STREAM_UNDELIVERED)
        allow(role, "s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads", on=[lake.raw_arn])
        folders = [f"{lake.raw_arn}/{prefix}*" for prefix in (QUOTES, STREAMED_BARS, STREAM_UNDELIVERED)]
        allow(role, "s3:AbortMultipartUpload", on=folders, because="object keys hold dates and ids, which only their prefix can name")
        function = self.consumer.function_arn
        allow(role, "lambda:InvokeFunction", "lambda:GetFunctionConfiguration", on=[function, f"{function}:$LATEST"])
        log = logs.LogGroup(
            self,
            "DeliveryLog",
            log_group_name=self.log_name,
            retention=logs.RetentionDays.THREE_MONTHS,
            removal_policy=RemovalPolicy.DESTROY,
        )
        line = logs.LogStream(self, "DeliveryLogStream", log_group=log, removal_policy=RemovalPolicy.DESTROY)
        allow(role, "logs:PutLogEvents", on=[f"{log.log_group_arn}:log-stream:{line.log_stream_name}"])
        parameters = {"LambdaArn": self.consumer.function_arn, "BufferSizeInMBs": "1", "BufferIntervalInSeconds": "60"}
        stream = firehose.CfnDeliveryStream(
            self,
            "DeliveryStream",
            delivery_stream_name=self.name,
            delivery_stream_type="DirectPut",
            delivery_stream_encryption_configuration_input=Delivery.DeliveryStreamEncryptionConfigurationInputProperty(
                key_type="AWS_OWNED_CMK"
            ),
            extended_s3_destination_configuration=Delivery.ExtendedS3DestinationConfigurationProperty(
                bucket_arn=lake.raw_arn,
                role_arn=role.role_arn,
                prefix=firehose_prefix(),
                error_output_prefix=f"{STREAM_UNDELIVERED}!{{firehose:error-output-type}}/date=!{{timestamp:yyyy-MM-dd}}/",
                buffering_hints=Delivery.BufferingHintsProperty(size_in_m_bs=BUFFER_MB, interval_in_seconds=BUFFER_SECONDS),
                compression_format="GZIP",
                file_extension=".jsonl.gz",
                dynamic_partitioning_configuration=Delivery.DynamicPartitioningConfigurationProperty(
                    enabled=True, retry_options=Delivery.RetryOptionsProperty(duration_in_seconds=300)
                ),
                processing_configuration=Delivery.ProcessingConfigurationProperty(
                    enabled=True,
                    processors=[
                        Delivery.ProcessorProperty(
                            type="Lambda",
                            parameters=[
                                Delivery.ProcessorParameterProperty(parameter_name=name, parameter_value=value)
                                for name, value in parameters.items()
                            ],
                        )
                    ],
                ),
                cloud_watch_logging_options=Delivery.CloudWatchLoggingOptionsProperty(
                    enabled=True, log_group_name=log.log_group_name, log_stream_name=line.log_stream_name
                ),
            ),
        )
        stream.node.add_dependency(role)
        return stream.attr_arn
