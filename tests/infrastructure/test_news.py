"""News in the templates: nothing of it without a source; with one, a function that may write what it collects, and tables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import app as application  # before aws_cdk: it chooses jsii's Node

# isort: split

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from schema.news import NewsItem, ScoredItem, Sentiment
from schema.sections.news import RETENTION_DAYS, NewsSettings, ScorerName, SentimentSettings
from schema.settings import Settings, load
from stacks.constructs import archives
from stacks.constructs.function import Runtime
from stacks.constructs.news_tables import NEWS_COLUMNS, SENTIMENT_BY_DAY, SENTIMENT_COLUMNS
from stacks.ingest import BEDROCK_MODEL, IngestStack
from stacks.lake import LakeStack
from tests.aws.hive import problems
from tests.infrastructure.assembly import ROOT, STACKS, Assembly, Resource, synthesize

ITEM = NewsItem(
    id="1", source="alpaca", published="2020-01-02T14:00:00Z", received="2020-01-02T14:30:00Z", symbols=("SPY",), text="Large caps gain",
    raw={"id": 1},
)  # fmt: skip
SCORED = ScoredItem(
    **ITEM.model_dump(include={"id", "source", "published", "received", "symbols"}), fingerprint="f",
    sentiment=Sentiment(
        label="positive", positive=0.5, negative=0.0, neutral=0.5, mixed=0.0, confidence=0.9, model="m", version="1", flag=None
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Assembly:
    quiet = settings.model_copy(update={"news": NewsSettings(), "sentiment": SentimentSettings()})
    return synthesize(tmp_path_factory.mktemp("without"), settings=quiet)


def granted(assembly: Assembly, role: str) -> dict[str, list[str]]:
    """Action -> what it is allowed on, as text, by the policies of the roles whose ids begin so."""
    found: dict[str, list[str]] = {}
    for _, name, policy in assembly.resources("AWS::IAM::Policy"):
        if name.startswith(role):
            for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
                for action in _listed(statement["Action"]):
                    found.setdefault(action, []).extend(json.dumps(one) for one in _listed(statement["Resource"]))
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def paths(resources: list[str]) -> list[str]:
    return sorted(match[1] for one in resources if (match := re.search(r'"/([^"]*)"', one)))


def test_without_a_source_nothing_of_it_is_deployed(without: Assembly, settings: Settings, tmp_path: Path) -> None:
    assert "collect_news" not in without.functions().keys() | without.schedules().keys()
    templates = json.dumps(without.templates)
    assert not re.search(r"news|sentiment|comprehend|bedrock", templates, re.IGNORECASE)

    text = (ROOT / "settings.toml").read_text(encoding="utf-8")
    before = re.sub(r"^\[news\].*?(?=^\[training\])", "", text, flags=re.DOTALL | re.MULTILINE)  # a file from before the sections existed
    assert "\n[sentiment]" not in before
    (tmp_path / "settings.toml").write_text(before, encoding="utf-8")
    quiet = settings.model_copy(update={"news": NewsSettings(), "sentiment": SentimentSettings()})
    assert load(tmp_path / "settings.toml") == quiet  # so that one synth stands for both


def test_a_source_adds_and_changes_only_what_is_about_news(aws: Assembly, without: Assembly) -> None:
    added, changed = set(), set()
    for stack in STACKS:
        ours, theirs = aws.templates[stack]["Resources"], without.templates[stack]["Resources"]
        assert theirs.keys() <= ours.keys()
        added |= {ours[name]["Type"] for name in ours.keys() - theirs.keys()}
        changed |= {
            ours[name]["Type"]
            for name in theirs
            if ours[name]["Properties"] != theirs[name]["Properties"] and ours[name]["Type"] not in CARRIES_THE_CODE
        }
    assert added == {
        "AWS::Athena::NamedQuery", "AWS::Glue::Table", "AWS::IAM::Policy", "AWS::IAM::Role", "AWS::Lambda::EventInvokeConfig",
        "AWS::Lambda::Function", "AWS::Logs::LogGroup", "AWS::Scheduler::Schedule",
    }  # fmt: skip
    assert changed == {"AWS::CloudWatch::Dashboard", "AWS::IAM::Policy"}  # it is listed there, and who may read scores


#: Their code, and its address, holds the settings.
CARRIES_THE_CODE = {"AWS::Lambda::Function", "AWS::Glue::Job", "AWS::SageMaker::Pipeline"}


def test_the_function_writes_what_it_collects_and_reads_nothing_else(aws: Assembly) -> None:
    allowed = granted(aws, "CollectNewsRole")
    assert paths(allowed["s3:PutObject"]) == ["processed/quarantine/news/*", "processed/sentiment/*", "raw/news/*"]
    assert paths(allowed["s3:GetObject"]) == ["processed/quarantine/news/*", "processed/sentiment/*", "raw/news/*"]
    assert {action for action in allowed if not action.startswith(("logs:", "sqs:"))} == {
        "s3:GetObject", "s3:ListBucket", "s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:ListBucketVersions",
        "secretsmanager:GetSecretValue",
    }  # fmt: skip
    assert {paths(allowed[action]) == paths(allowed["s3:PutObject"]) for action in ("s3:DeleteObject", "s3:DeleteObjectVersion")} == {True}
    function = aws.functions()["collect_news"]
    assert (function["Timeout"], function["MemorySize"]) == (300, 1024)


def ingest_of(settings: Settings) -> Assembly:
    """The ingest stack alone, without the other four."""
    app, env = application.new_app(), cdk.Environment(region=settings.region)
    code = archives.modules("lambdas", "schema", "sources", "trading_env", settings=settings, name="code")
    lake = LakeStack(app, "papertape-lake", settings=settings, env=env)
    runtime = Runtime(app=settings.name, target="aws", code=code)
    ingest = IngestStack(app, "papertape-ingest", settings=settings, runtime=runtime, lake=lake, env=env)
    return Assembly(folder=Path(), templates={"ingest": Template.from_stack(ingest).to_json()})


@pytest.mark.parametrize(
    ("scorer", "action", "on"),
    [
        ("comprehend", "comprehend:BatchDetectSentiment", r"^\"\*\"$"),
        ("bedrock", "bedrock:InvokeModel", r":bedrock:us-east-1::foundation-model/amazon\.nova-micro-v1:0\"$"),
    ],
)
def test_a_paid_scorer_may_be_asked_and_only_if_it_is_set(
    aws: Assembly, settings: Settings, scorer: ScorerName, action: str, on: str
) -> None:
    paid = settings.model_copy(update={"sentiment": settings.sentiment.model_copy(update={"scorer": scorer})})
    allowed = granted(ingest_of(paid), "CollectNewsRole")
    assert set(allowed) - set(granted(aws, "CollectNewsRole")) == {action}
    (resource,) = allowed[action]
    assert re.search(on, resource), resource


def test_who_reads_the_scores(aws: Assembly) -> None:
    readers = {
        name.partition("Role")[0] for _, name, policy in aws.resources("AWS::IAM::Policy") if "/processed/sentiment/*" in json.dumps(policy)
    }
    assert readers == {"CollectNews", "Decide", "Health"}  # and the Glue job, which reads all that is processed
    assert "processed/*" in paths(granted(aws, "JobRole")["s3:GetObject"])


def test_the_language_model_that_may_be_asked_is_the_one_that_is() -> None:
    scorers = (ROOT / "lambdas" / "common" / "sentiment").glob("*.py")
    asked = {found for path in scorers for found in re.findall(r'^MODEL = "(amazon\.\S+)"', path.read_text(encoding="utf-8"), re.MULTILINE)}
    assert asked <= {BEDROCK_MODEL}


def tables(aws: Assembly) -> dict[str, Resource]:
    found = (resource["Properties"]["TableInput"] for stack, _, resource in aws.resources("AWS::Glue::Table") if stack == "ingest")
    return {table["Name"]: table for table in found}


def test_what_is_collected_and_scored_are_tables_whose_partitions_need_no_crawler(aws: Assembly) -> None:
    assert tables(aws).keys() == {"news", "sentiment"}
    for name, columns, place in (("news", NEWS_COLUMNS, "/raw/news/"), ("sentiment", SENTIMENT_COLUMNS, "/processed/sentiment/")):
        table = tables(aws)[name]
        storage, parameters = table["StorageDescriptor"], table["Parameters"]
        assert [(column["Name"], column["Type"]) for column in storage["Columns"]] == list(columns)
        assert [column["Name"] for column in table["PartitionKeys"]] == ["source", "day"]
        assert parameters["projection.source.values"].split(",") == list(RETENTION_DAYS)
        assert parameters["projection.day.format"] == "yyyy-MM-dd"
        assert json.dumps(parameters["storage.location.template"]).endswith(f'{place}source=${{source}}/date=${{day}}/"]]}}')


def test_the_columns_are_those_of_the_records_but_for_what_the_partition_says() -> None:
    for record, columns, apart in ((ITEM, NEWS_COLUMNS, {"source", "raw"}), (SCORED, SENTIMENT_COLUMNS, {"source"})):
        line = record.model_dump(mode="json")
        assert line.keys() - dict(columns).keys() == apart
        assert dict(columns).keys() <= line.keys()
        assert [told for name, kind in columns for told in problems(line[name], kind, name)] == []


def test_the_view_names_only_columns_that_exist(aws: Assembly) -> None:
    (resource,) = (one for stack, _, one in aws.resources("AWS::Athena::NamedQuery") if stack == "ingest")
    assert resource["Properties"]["QueryString"] == SENTIMENT_BY_DAY
    columns = dict(SENTIMENT_COLUMNS)
    own = set(re.findall(r"\bs\.(\w+)", SENTIMENT_BY_DAY))
    assert own <= {*columns, "source", "day"}
    inside = set(re.findall(r"\bm\.sentiment\.(\w+)", SENTIMENT_BY_DAY))
    assert len(inside) >= 4
    assert all(f"{name}:" in columns["sentiment"] for name in inside)
