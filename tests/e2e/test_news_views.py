"""News and their scores as tables of the local cloud, and the saved query run on DuckDB: a row per symbol and day, each text once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import app as application  # before aws_cdk: it chooses jsii's Node

# isort: split

import boto3
import pytest
from aws_cdk import Environment, Stack

from lambdas.common.lake.lake import pack
from local.aws.deploy import deploy_templates
from local.aws.emulator import ROOT, Emulator
from schema.lake_layout import news_key, sentiment_key
from schema.loopback import LOCAL_ACCOUNT
from schema.news import Flag, NewsItem, ScoredItem, Sentiment, flagged
from schema.settings import load
from stacks.constructs.news_tables import SENTIMENT_BY_DAY, add_news_tables
from stacks.lake import LakeStack

FIRST, SECOND = datetime.fromisoformat("2020-01-02T14:30:00Z"), datetime.fromisoformat("2020-01-02T21:00:00Z")
Query = Callable[[str], list[tuple[str | None, ...]]]


def scored(
    identity: str, *symbols: str, positive: float = 0.0, negative: float = 0.0, text: str = "", flag: Flag | None = None
) -> ScoredItem:
    sentiment = Sentiment(
        label="neutral",
        positive=positive,
        negative=negative,
        neutral=1 - positive - negative,
        mixed=0.0,
        confidence=0.5,
        model="m",
        version="1",
    )
    times = {"published": "2020-01-02T14:00:00Z", "received": "2020-01-02T14:30:00Z"}
    return ScoredItem(
        id=identity, source="alpaca", symbols=symbols, fingerprint=text or identity, **times,
        sentiment=sentiment if flag is None else flagged(flag, model="m", version="1"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def query(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Query]:
    folder, settings = tmp_path_factory.mktemp("news-views"), load(ROOT / "data" / "settings.toml")
    with pytest.MonkeyPatch.context() as patch, Emulator.start(folder) as emulator:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in emulator.env().items():
            patch.setenv(name, value)
        cdk = application.new_app(folder / "cdk.out", validated=False)
        env = Environment(account=LOCAL_ACCOUNT, region=settings.region)
        lake = LakeStack(cdk, f"{settings.name}-lake", settings=settings, env=env)
        tables = Stack(cdk, f"{settings.name}-tables", env=env)
        add_news_tables(tables, raw=lake.raw, processed=lake.processed, database=lake.database, database_name=lake.database_name)
        cdk.synth()
        deployment = deploy_templates(emulator, cdk_out=Path(folder / "cdk.out"))
        boto3.client("s3").create_bucket(Bucket="results")
        fill(raw=deployment.output("RawBucket"), processed=deployment.output("ProcessedBucket"))

        def asked(text: str) -> list[tuple[str | None, ...]]:
            """The rows, every cell as the text that Athena sends; None is NULL."""
            athena, location = boto3.client("athena"), {"OutputLocation": "s3://results/"}
            started = athena.start_query_execution(
                QueryString=text, QueryExecutionContext={"Database": lake.database_name}, ResultConfiguration=location
            )
            identity = started["QueryExecutionId"]
            while (status := athena.get_query_execution(QueryExecutionId=identity)["QueryExecution"]["Status"])["State"] in (
                "QUEUED",
                "RUNNING",
            ):
                time.sleep(0.02)
            assert status["State"] == "SUCCEEDED", f"{status['StateChangeReason']}: {text}"
            rows = athena.get_query_results(QueryExecutionId=identity)["ResultSet"]["Rows"]
            return [tuple(cell.get("VarCharValue") for cell in row["Data"]) for row in rows[1:]]

        yield asked


def fill(*, raw: str, processed: str) -> None:
    item = NewsItem(
        id="1", source="alpaca", published="2020-01-02T14:00:00Z", received="2020-01-02T14:30:00Z", symbols=("SPY",), text="It rises",
        raw={"id": 1, "headline": "It rises"},
    )  # fmt: skip
    first = [
        scored("1", "SPY", "IBM", positive=0.8),
        scored("2", "SPY", positive=0.8, text="1"),  # a repost of the first
        scored("3", "SPY", negative=0.2),
        scored("4", "SPY", flag="low_confidence"),
    ]
    later = [scored("5", "IBM", flag="budget_spent"), scored("6", "AAPL", flag="scorer_down")]
    s3 = boto3.client("s3")
    s3.put_object(Bucket=raw, Key=news_key("alpaca", FIRST), Body=pack([item.model_dump(mode="json")]))
    for run, items in ((FIRST, first), (SECOND, later)):
        s3.put_object(Bucket=processed, Key=sentiment_key("alpaca", run), Body=pack([one.model_dump(mode="json") for one in items]))


def test_what_was_collected_can_be_asked_for(query: Query) -> None:
    assert query("SELECT source, day, id, text, symbols[1] FROM news") == [("alpaca", "2020-01-02", "1", "It rises", "SPY")]


def test_a_text_counts_once_and_what_is_flagged_has_no_say(query: Query) -> None:
    query(SENTIMENT_BY_DAY)
    rows = query(
        "SELECT symbol, texts, flagged, round(score, 6), round(lowest, 6), round(highest, 6) FROM sentiment_by_day ORDER BY symbol"
    )
    assert rows == [
        ("AAPL", "1", "1", None, None, None),  # not a zero
        ("IBM", "2", "1", "0.8", "0.8", "0.8"),
        ("SPY", "3", "1", "0.3", "-0.2", "0.8"),
    ]
