"""What writes the raw lake: a minute's quotes, the nightly bars and corporate actions, and news with their scores where a source is set."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import CfnOutput, Duration, Environment, Stack
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from schema.lake_layout import NEWS, NEWS_QUARANTINE, QUOTES, RAW, SENTIMENT
from schema.sections.news import ScorerName
from schema.settings import Settings
from stacks.constructs.alarmed_schedule import AlarmedSchedule, Cron, Retry
from stacks.constructs.broker_secret import broker_secret, let_read_secret
from stacks.constructs.function import PythonFunction, Runtime
from stacks.constructs.news_tables import add_news_tables
from stacks.lake import LakeStack, let_read_objects, let_remove_versions, let_write_objects

#: The one that `lambdas.common.sentiment` asks: infrastructure imports no runtime code, and a test compares them.
BEDROCK_MODEL = "amazon.nova-micro-v1:0"


class IngestStack(Stack):
    def __init__(
        self, scope: Construct, construct_id: str, *, settings: Settings, runtime: Runtime, lake: LakeStack, env: Environment
    ) -> None:
        super().__init__(scope, construct_id, env=env, description="Papertape: quotes and bars into the lake")
        secret = broker_secret(self, settings)
        environment = {"RAW_BUCKET": lake.raw.bucket_name, "BROKER_SECRET_ARN": secret.secret_arn}
        quotes = self._quotes(settings, runtime=runtime, lake=lake, environment=environment)
        bars = PythonFunction(
            self,
            "BackfillBars",
            folder="backfill_bars",
            bundle="trade",
            runtime=runtime,
            environment={**environment, **_for_minutes(settings)},
            timeout=Duration.minutes(15),
            memory=1024,
            description="Daily bars and corporate actions, of the last sessions or of all history",
        )
        let_read_objects(bars.own_role, lake.raw_arn, RAW)
        let_write_objects(bars.own_role, lake.raw_arn, RAW)
        for function in (quotes, bars):
            if function is not None:
                let_read_secret(function, secret)
        if quotes is not None:
            self._quotes_schedule(settings, quotes)
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
        CfnOutput(self, "BackfillBarsFunction", value=bars.function_name)
        self.functions = {**({} if quotes is None else {"ingest_quotes": quotes}), "backfill_bars": bars}
        if settings.news.sources:
            self.functions["collect_news"] = self._news(settings, runtime=runtime, lake=lake, secret=secret, environment=environment)

    def _quotes(self, settings: Settings, *, runtime: Runtime, lake: LakeStack, environment: Mapping[str, str]) -> PythonFunction | None:
        """The function of each minute's quotes; None with a stream, which brings every quote as it comes."""
        if settings.stream.kind != "none":
            return None
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
        return quotes

    def _quotes_schedule(self, settings: Settings, quotes: PythonFunction) -> None:
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
        CfnOutput(self, "IngestQuotesFunction", value=quotes.function_name)

    def _news(
        self,
        settings: Settings,
        *,
        runtime: Runtime,
        lake: LakeStack,
        secret: secretsmanager.ISecret,
        environment: Mapping[str, str],
    ) -> PythonFunction:
        """Add the collection and scoring of news, its schedule and its tables."""
        news = PythonFunction(
            self,
            "CollectNews",
            folder="collect_news",
            bundle="trade",
            runtime=runtime,
            environment={**environment, "PROCESSED_BUCKET": lake.processed.bucket_name},
            timeout=Duration.minutes(5),
            memory=1024,
            description="News of the configured sources, and their scores",
        )
        let_read_objects(news.own_role, lake.raw_arn, NEWS)
        let_write_objects(news.own_role, lake.raw_arn, NEWS)
        let_read_objects(news.own_role, lake.processed_arn, SENTIMENT, NEWS_QUARANTINE)
        let_write_objects(news.own_role, lake.processed_arn, SENTIMENT, NEWS_QUARANTINE)
        # Texts end with their days of retention, and a post with the request to forget it, in every version
        let_remove_versions(news.own_role, lake.raw_arn, NEWS)
        let_remove_versions(news.own_role, lake.processed_arn, SENTIMENT, NEWS_QUARANTINE)
        let_read_secret(news, secret)
        self._let_score(news, settings.sentiment.scorer)
        AlarmedSchedule(
            self,
            "NewsSchedule",
            settings=settings,
            name="collect_news",
            # Weekends too: a request to forget a post is carried out within a day
            cron=Cron(minute=f"0/{settings.news.every_minutes}", hour="4-19", week_day="*"),
            runs=news,
            # What a run does not do the next one does; two that fail are a dead letter
            retry=Retry(attempts=1, within=Duration.minutes(10)),
            dead_letters=lake.dead_letters,
        )
        add_news_tables(self, raw=lake.raw, processed=lake.processed, database=lake.database, database_name=lake.database_name)
        CfnOutput(self, "CollectNewsFunction", value=news.function_name)
        return news

    def _let_score(self, news: PythonFunction, scorer: ScorerName) -> None:
        match scorer:
            case "comprehend":
                news.may("comprehend:BatchDetectSentiment", on=["*"], because="the service's models have no names")
            case "bedrock":
                model = self.format_arn(service="bedrock", account="", resource="foundation-model", resource_name=BEDROCK_MODEL)
                news.may("bedrock:InvokeModel", on=[model])
            case "vader" | "classifier":
                pass  # part of the function


def _for_minutes(settings: Settings) -> dict[str, str]:
    """Years of minutes are hundreds of pages: they wait for the next minute's budget of requests."""
    return {"BROKER_RESET_TIMEOUT": "65"} if settings.slot_rows else {}
