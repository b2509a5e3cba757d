"""Everything that must survive: buckets, ledger table, dead letters. Retained, and the stack is protected from deletion.

Deleting the app leaves them behind; a new deployment makes new ones. A first deployment that rolls back takes what it made with it, but
for the ledger. The Glue database and the tables of the audit bucket are here as well: they only describe the lake.
"""

from __future__ import annotations

from aws_cdk import CfnOutput, Duration, Environment, RemovalPolicy, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from schema.lake_layout import QUOTES, TRIALS, UPLOADS
from schema.settings import Settings
from stacks.constructs.audit_tables import add_audit_tables
from stacks.constructs.function import PythonFunction
from stacks.constructs.permissions import acknowledge, allow

BY_MONTH = "by_month"
UNSETTLED = "unsettled"
AUDIT_DAYS = 365
UPLOAD_DAYS = 90
KEPT = RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE
OBJECTS = "object keys hold dates, symbols and ids, which only their prefix can name"


class LakeStack(Stack):
    def __init__(self, scope: Construct, construct_id: str, *, settings: Settings, env: Environment) -> None:
        super().__init__(scope, construct_id, env=env, termination_protection=True, description="Papertape: data, ledger, audit")
        self._access_logs = self._bucket("AccessLogs", expires=Duration.days(90))
        acknowledge(self._access_logs, "AwsSolutions-S1", "it is where the other buckets write their access logs")
        self.raw = self._bucket("Raw", tiered=QUOTES)
        self.processed = self._bucket("Processed")
        # The log of trials only grows: S3 itself refuses to write an entry that does not ask for its key to be free
        self.processed.add_to_resource_policy(
            iam.PolicyStatement(
                effect=iam.Effect.DENY,
                actions=["s3:PutObject"],
                principals=[iam.AnyPrincipal()],
                resources=[self.processed.arn_for_objects(f"{TRIALS}*")],
                conditions={"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}},
            )
        )
        if settings.dashboard.enabled:
            self._let_browsers_upload()
        self.audit = self._bucket("Audit", locked=True)
        # Exported by hand, so that the ARNs already have their final text when a grant acknowledges its wildcard
        self.raw_arn, self.processed_arn, self.audit_arn = (
            self.export_value(bucket.bucket_arn) for bucket in (self.raw, self.processed, self.audit)
        )
        self.ledger = self._ledger()
        self.dead_letters = sqs.Queue(
            self,
            "DeadLetters",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=Duration.days(14),
            removal_policy=KEPT,
        )
        # Two statements, either of which suffices: AWS's own example names the rule, and a condition on a key that the service does not
        # send would lose every event without a word
        rules = self.format_arn(service="events", resource="rule", resource_name=f"{settings.name}-*")
        for conditions in ({"StringEquals": {"aws:SourceAccount": self.account}}, {"ArnLike": {"aws:SourceArn": rules}}):
            self.dead_letters.add_to_resource_policy(
                iam.PolicyStatement(
                    actions=["sqs:SendMessage"],
                    principals=[iam.ServicePrincipal("events.amazonaws.com")],
                    resources=[self.dead_letters.queue_arn],
                    conditions=conditions,
                )
            )
        acknowledge(self.dead_letters, "AwsSolutions-SQS3", "it is the dead-letter queue, of schedules, functions and rules")
        self.database_name = settings.name.replace("-", "_")
        self.database = glue.CfnDatabase(
            self,
            "Catalog",
            catalog_id=self.account,
            database_input=glue.CfnDatabase.DatabaseInputProperty(name=self.database_name, description="Papertape's lake"),
        )
        add_audit_tables(self, bucket=self.audit, database=self.database, database_name=self.database_name)
        for name, value in {
            "RawBucket": self.raw.bucket_name,
            "ProcessedBucket": self.processed.bucket_name,
            "AuditBucket": self.audit.bucket_name,
            "LedgerTable": self.ledger.table_name,
            "DeadLetterQueue": self.dead_letters.queue_url,
        }.items():
            CfnOutput(self, name, value=value)

    def _bucket(self, construct_id: str, *, expires: Duration | None = None, tiered: str | None = None, locked: bool = False) -> s3.Bucket:
        rules = [
            s3.LifecycleRule(
                abort_incomplete_multipart_upload_after=Duration.days(7),
                noncurrent_version_expiration=Duration.days(AUDIT_DAYS if locked else 30),
                expiration=expires,
            )
        ]
        if tiered:
            colder = s3.Transition(storage_class=s3.StorageClass.INFREQUENT_ACCESS, transition_after=Duration.days(90))
            rules.append(s3.LifecycleRule(prefix=tiered, transitions=[colder]))
        return s3.Bucket(
            self,
            construct_id,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            versioned=True,
            object_lock_enabled=True if locked else None,
            object_lock_default_retention=s3.ObjectLockRetention.governance(Duration.days(AUDIT_DAYS)) if locked else None,
            server_access_logs_bucket=None if expires else self._access_logs,
            server_access_logs_prefix=None if expires else f"{construct_id.lower()}/",
            lifecycle_rules=rules,
            removal_policy=KEPT,
        )

    def _let_browsers_upload(self) -> None:
        """A browser may post a file by a form that the web app has signed; what was brought goes after `UPLOAD_DAYS`."""
        self.processed.add_cors_rule(
            allowed_methods=[s3.HttpMethods.POST],
            # The app's own host is not known before the stack that needs this one; the signature decides, not the origin
            allowed_origins=["https://*.cloudfront.net"],
            allowed_headers=["content-type"],
            max_age=3600,
        )
        self.processed.add_lifecycle_rule(prefix=UPLOADS, expiration=Duration.days(UPLOAD_DAYS))

    def _ledger(self) -> dynamodb.Table:
        def text(name: str) -> dynamodb.Attribute:
            return dynamodb.Attribute(name=name, type=dynamodb.AttributeType.STRING)

        table = dynamodb.Table(
            self,
            "Ledger",
            partition_key=text("pk"),
            sort_key=text("sk"),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(point_in_time_recovery_enabled=True),
            deletion_protection=True,
            # Kept also when its creation is rolled back: CloudFormation cannot delete what is protected, and its name is generated
            removal_policy=RemovalPolicy.RETAIN,
        )
        table.add_global_secondary_index(index_name=BY_MONTH, partition_key=text("month"), sort_key=text("month_sk"))
        table.add_global_secondary_index(index_name=UNSETTLED, partition_key=text("unsettled"), sort_key=text("unsettled_sk"))
        return table

    def let_read_ledger(self, function: PythonFunction) -> None:
        indexes = [f"{self.ledger.table_arn}/index/{name}" for name in (BY_MONTH, UNSETTLED)]
        function.may("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query", on=[self.ledger.table_arn, *indexes])

    def let_write_ledger(self, function: PythonFunction) -> None:
        """Allow conditional puts, updates and transactions; nothing in the ledger is ever deleted."""
        self.let_read_ledger(function)
        function.may("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:ConditionCheckItem", on=[self.ledger.table_arn])


def let_read_objects(role: iam.Role, bucket_arn: str, *prefixes: str) -> None:
    """Allow reading what is under `prefixes`, which end with a slash, and listing the bucket.

    Listing has no condition: S3 answers "no such key" only to who may list, and "access denied" to anyone else.
    """
    objects = [f"{bucket_arn}/{prefix}*" for prefix in prefixes]
    allow(role, "s3:GetObject", on=objects, because=OBJECTS)
    allow(role, "s3:ListBucket", on=[bucket_arn])


def let_remove_versions(role: iam.Role, bucket_arn: str, *prefixes: str) -> None:
    """Allow removing what is under `prefixes`, which end with a slash, for good: every version of it."""
    allow(role, "s3:DeleteObject", "s3:DeleteObjectVersion", on=[f"{bucket_arn}/{prefix}*" for prefix in prefixes], because=OBJECTS)
    allow(role, "s3:ListBucketVersions", on=[bucket_arn])


def let_write_objects(role: iam.Role, bucket_arn: str, *prefixes: str) -> None:
    """Allow writing under `prefixes`, which end with a slash."""
    allow(role, "s3:PutObject", on=[f"{bucket_arn}/{prefix}*" for prefix in prefixes], because=OBJECTS)
