"""What follows the market while it is open: one small task that a schedule starts and stops, its event bus, and what the events reach.

Only with `[runner] enabled`. The task raises events and decides nothing; it may put events on this bus and records into the stream, read
the broker's secret, and keep one item of the ledger. Its network has a way out and none in, and no gateway that costs by the hour. Whoever
misses an event has the schedules: a rule's target that fails is a dead letter as any other.
"""

from __future__ import annotations

from typing import Any, Protocol

from aws_cdk import Annotations, CfnOutput, Duration, Environment, Fn, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from schema.realtime.events import SOURCE, FeedResumed, FeedSilent, OrderUpdated, PriceBandReached, PriceMoved, TradingStatusChanged
from schema.settings import SETTINGS_DOCUMENT, Settings
from stacks.constructs import archives
from stacks.constructs.alarmed_schedule import AlarmedSchedule, Call, Cron, Retry
from stacks.constructs.broker_secret import broker_secret
from stacks.constructs.function import PythonFunction, Runtime
from stacks.constructs.permissions import acknowledge, allow
from stacks.lake import LakeStack

#: Of an order: what neither fills nor ends it asks nothing of reconcile.
ON_THE_WAY = ("new", "pending_new", "accepted", "pending_cancel", "pending_replace", "order_cancel_rejected", "order_replace_rejected")
#: The partition of the ledger that holds the runner's beat, and nothing else.
LEDGER_PARTITION = "runner"
#: What the task's command is where nothing builds an image.
COMMAND = ("python", "-m", "runner")
HTTPS = 443


class Writable(Protocol):
    """A stream that the runner's records go to: `firehose` or `kinesis`, its name, and the grant to write to it."""

    kind: str
    name: str

    def let_write(self, role: iam.Role) -> None: ...


class RealtimeStack(Stack):
    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        runtime: Runtime,
        lake: LakeStack,
        reconcile: PythonFunction,
        health: PythonFunction,
        stream: Writable | None,
        env: Environment,
    ) -> None:
        super().__init__(scope, construct_id, env=env, description="Papertape: the runner that follows the market, and its events")
        self._settings, self._lake = settings, lake
        self.bus = events.EventBus(self, "Bus", event_bus_name=f"{settings.name}-market")
        self._rules(reconcile=reconcile, health=health)
        cluster, service = self._service(runtime, stream)
        self._hours(cluster, service)
        AlarmedSchedule(
            self, "HealthRunnerSchedule", settings=settings, name="health-runner",
            cron=Cron(minute="0/1", hour="9-16"), runs=health, with_input={"only": "runner-silent"},
            # The next minute's run sees what this one would have seen; a run that fails is tried again as any of health's
            retry=Retry(attempts=0, within=Duration.minutes(1)), dead_letters=lake.dead_letters,
        )  # fmt: skip
        for name, value in {
            "MarketEventBus": self.bus.event_bus_name,
            "RunnerCluster": cluster.cluster_name,
            "RunnerService": service.service_name,
            "RunnerLog": self.log_name,
        }.items():
            CfnOutput(self, name, value=value)

    @property
    def availability_zones(self) -> list[str]:
        """The region's first two, whichever they are called: names of zones would be looked up in an account."""
        return [Fn.select(number, Fn.get_azs()) for number in range(2)]

    def _rules(self, *, reconcile: PythonFunction, health: PythonFunction) -> None:
        dead_letters = sqs.Queue.from_queue_arn(self, "DeadLetters", self._lake.dead_letters.queue_arn)

        def rule(name: str, description: str, runs: PythonFunction, *kinds: str, detail: dict[str, Any] | None = None) -> None:
            events.Rule(
                self,
                "".join(word.capitalize() for word in name.split("-")),
                rule_name=f"{self._settings.name}-{name}",
                description=description,
                event_bus=self.bus,
                event_pattern=events.EventPattern(source=[SOURCE], detail_type=list(kinds), detail=detail),
                targets=[
                    targets.LambdaFunction(
                        runs, dead_letter_queue=dead_letters, retry_attempts=2, max_event_age=Duration.minutes(5)
                    )
                ],
            )  # fmt: skip

        rule(
            "on-order",
            "An order at the broker was filled or has ended",
            reconcile,
            OrderUpdated.detail_type,
            detail={"event": events.Match.anything_but(*ON_THE_WAY)},
        )
        market = (PriceMoved, TradingStatusChanged, PriceBandReached, FeedResumed)
        told = "A name moved, was halted or resumed, or reached its price band; or nobody was told for a while"
        rule("on-market", told, reconcile, *(one.detail_type for one in market))
        rule("on-silence", "A socket of the runner said nothing in an open market", health, FeedSilent.detail_type)

    def _service(self, runtime: Runtime, stream: Writable | None) -> tuple[ecs.Cluster, ecs.FargateService]:
        name, laptop = self._settings.name, runtime.target == "laptop"
        vpc, way_out = self._network()
        cluster = ecs.Cluster(self, "Cluster", cluster_name=f"{name}-market", vpc=vpc)
        acknowledge(cluster, "AwsSolutions-ECS4", "the runner's beat is in the ledger, and Container Insights bills by the metric")
        self.log_name = f"/{name}/runner"
        log = logs.LogGroup(
            self,
            "RunnerLogs",
            log_group_name=self.log_name,
            retention=logs.RetentionDays.THREE_MONTHS,
            removal_policy=RemovalPolicy.DESTROY,
        )
        secret = broker_secret(self, self._settings)
        role = self._task_role(secret.secret_arn, stream)
        task = ecs.FargateTaskDefinition(
            self,
            "Task",
            family=f"{name}-runner",
            cpu=256,
            memory_limit_mib=512,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=ecs.CpuArchitecture.ARM64, operating_system_family=ecs.OperatingSystemFamily.LINUX
            ),
            task_role=role,
            execution_role=self._execution_role(),
        )
        task.add_container(
            "Runner",
            container_name="runner",
            image=self._image(runtime),
            command=list(COMMAND) if laptop else None,
            environment={
                "LEDGER_TABLE": self._lake.ledger.table_name,
                "BROKER_SECRET_ARN": secret.secret_arn,
                "EVENT_BUS_NAME": self.bus.event_bus_name,
                "STREAM_KIND": "none" if stream is None else stream.kind,
                "STREAM_NAME": "" if stream is None else stream.name,
                **runtime.variables,
                "POWERTOOLS_SERVICE_NAME": "runner",
                **({SETTINGS_DOCUMENT: self._settings.model_dump_json()} if laptop else {}),  # the image has them
            },
            logging=ecs.LogDrivers.aws_logs(stream_prefix="runner", log_group=log),
            stop_timeout=Duration.seconds(30),
        )
        acknowledge(task, "AwsSolutions-ECS2", "its variables are names of resources; the broker's keys are read from their secret")
        service = ecs.FargateService(
            self,
            "Service",
            service_name=f"{name}-runner",
            cluster=cluster,
            task_definition=task,
            desired_count=0,  # the schedules below decide
            assign_public_ip=True,
            security_groups=[way_out],
            # One connection of each kind is what a broker's plan has: the old task ends before the new one begins
            min_healthy_percent=0,
            max_healthy_percent=100,
        )
        Annotations.of(service).acknowledge_warning(
            "@aws-cdk/aws-ecs:shouldUseCircuitBreaker", "a deployment of no task cannot fail; at 09:20 health says that none is alive"
        )
        return cluster, service

    def _network(self) -> tuple[ec2.Vpc, ec2.SecurityGroup]:
        vpc = ec2.Vpc(
            self,
            "Network",
            vpc_name=f"{self._settings.name}-market",
            nat_gateways=0,
            max_azs=2,
            subnet_configuration=[ec2.SubnetConfiguration(name="Public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=28)],
            restrict_default_security_group=False,  # a function of CDK's would do it, and nothing uses that group
        )
        acknowledge(vpc, "AwsSolutions-VPC7", "one task that accepts no connection; what it asked and was told is in its own log")
        way_out = ec2.SecurityGroup(
            self, "WayOut", vpc=vpc, description="The runner: to AWS and the broker over TLS, and nothing in", allow_all_outbound=False
        )
        way_out.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(HTTPS), "AWS and the broker")
        return vpc, way_out

    def _task_role(self, secret_arn: str, stream: Writable | None) -> iam.Role:
        ours = {"StringEquals": {"aws:SourceAccount": self.account}}
        role = iam.Role(self, "RunnerRole", assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com", conditions=ours))
        allow(role, "events:PutEvents", on=[self.bus.event_bus_arn], conditions={"StringEquals": {"events:source": SOURCE}})
        allow(role, "secretsmanager:GetSecretValue", on=[f"{secret_arn}-??????"])  # the six characters that the service adds to a name
        allow(
            role,
            "dynamodb:PutItem",
            on=[self._lake.ledger.table_arn],
            conditions={"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [LEDGER_PARTITION]}},
        )
        if stream is not None:
            stream.let_write(role)
        return role

    def _execution_role(self) -> iam.Role:
        """What starts the task: CDK grants it its image and its log."""
        role = iam.Role(self, "RunnerStartRole", assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"))
        acknowledge(role, "AwsSolutions-IAM5[Resource::*]", "a registry's login token belongs to no resource; the image itself is named")
        return role

    def _image(self, runtime: Runtime) -> ecs.ContainerImage:
        """Built from a folder when it is published, on AWS; the laptop publishes none, and runs the command itself."""
        if runtime.target == "laptop":
            return ecs.ContainerImage.from_registry(f"{self._settings.name}-runner")
        context = archives.image_context(settings=self._settings)
        return ecs.ContainerImage.from_asset(str(context), platform=ecr_assets.Platform.LINUX_ARM64)

    def _hours(self, cluster: ecs.Cluster, service: ecs.FargateService) -> None:
        """The task lives from ten minutes before the open to ten after the close; no cron knows holidays, and it asks the broker. What was
        deployed anew meanwhile, which sets no task, is started again within five minutes; one that lives is not touched."""
        once, again = Retry(attempts=5, within=Duration.minutes(10)), Retry(attempts=0, within=Duration.minutes(1))
        for name, count, cron, retry in (
            ("start_runner", 1, Cron(minute="20", hour="9"), once),
            ("keep_runner-first-hour", 1, Cron(minute="25/5", hour="9"), again),
            ("keep_runner", 1, Cron(minute="0/5", hour="10-15"), again),
            ("stop_runner", 0, Cron(minute="10", hour="16"), once),
        ):
            AlarmedSchedule(
                self,
                "".join(word.capitalize() for word in f"{name.replace('-', '_')}_schedule".split("_")),
                settings=self._settings,
                name=name,
                cron=cron,
                runs=Call(
                    service="ecs",
                    action="updateService",
                    parameters={"Cluster": cluster.cluster_name, "Service": service.service_name, "DesiredCount": count},
                    permission="ecs:UpdateService",
                    resources=[service.service_arn],
                ),
                retry=retry,
                dead_letters=self._lake.dead_letters,
            )
