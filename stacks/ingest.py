"""What writes the raw lake: a minute's quotes, and the nightly bars and corporate actions."""

from __future__ import annotations

from aws_cdk import CfnOutput, Duration, Environment, Stack
from constructs import Construct

from schema.lake_layout import QUOTES, RAW
from schema.settings import Settings
from stacks.constructs.alarmed_schedule import AlarmedSchedule, Cron, Retry
from stacks.constructs.broker_secret import broker_secret, let_read_secret
from stacks.constructs.function import PythonFunction, Runtime
from stacks.lake import LakeStack, let_read_objects, let_write_objects


class IngestStack(Stack):
    def __init__(
        self, scope: Construct, construct_id: str, *, settings: Settings, runtime: Runtime, lake: LakeStack, env: Environment
    ) -> None:
        super().__init__(scope, construct_id, env=env, description="Papertape: quotes and bars into the lake")
        secret = broker_secret(self, settings)
        environment = {"RAW_BUCKET": lake.raw.bucket_name, "BROKER_SECRET_ARN": secret.secret_arn}
        quotes = PythonFunction(
            self,
            "IngestQuotes",
            folder="ingest_quotes",
            bundle="trade",
            runtime=runtime,
            environment=environment,
            timeout=Duration.seconds(50),
            memory=512,
            description="The latest quotes of the scheduled minute",
        )
        let_write_objects(quotes.own_role, lake.raw_arn, QUOTES)
        bars = PythonFunction(
            self,
            "BackfillBars",
            folder="backfill_bars",
            bundle="trade",
            runtime=runtime,
            environment=environment,
            timeout=Duration.minutes(15),
            memory=1024,
            description="Daily bars and corporate actions, of the last sessions or of all history",
        )
        let_read_objects(bars.own_role, lake.raw_arn, RAW)
        let_write_objects(bars.own_role, lake.raw_arn, RAW)
        for function in (quotes, bars):
            let_read_secret(function, secret)
        AlarmedSchedule(
            self,
            "QuotesSchedule",
            settings=settings,
            name="ingest_quotes",
            # From 09:00: the function asks the broker's clock and does nothing before the open, after an early close and on holidays
            cron=Cron(minute=f"0/{settings.schedule.quotes_every_minutes}", hour="9-15"),
            runs=quotes,
            # The next run's quotes are worth more than the last one's; health watches their age, and one that is lost rings no alarm
            retry=Retry(attempts=0, within=Duration.minutes(1)),
            dead_letters=None,
        )
        AlarmedSchedule(
            self,
            "BarsSchedule",
            settings=settings,
            name="backfill_bars",
            cron=Cron(minute="0", hour="18"),
            runs=bars,
            retry=Retry(attempts=2, within=Duration.hours(1)),
            dead_letters=lake.dead_letters,
        )
        CfnOutput(self, "IngestQuotesFunction", value=quotes.function_name)
        CfnOutput(self, "BackfillBarsFunction", value=bars.function_name)
        self.functions = {"ingest_quotes": quotes, "backfill_bars": bars}
