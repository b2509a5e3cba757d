"""`papertape forget`, which writes a request that the next run of collecting carries out, and `papertape secret --source`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import get_args

import boto3
import pytest
from typer.testing import CliRunner, Result

from lambdas.collect_news.collecting import collect
from lambdas.common.lake.news import NewsStore
from lambdas.common.news_sources import FIELDS
from papertape import command_line
from papertape.deployment_commands import KeyOf
from papertape.operator_commands import NewsOf
from schema.news import NewsItem
from schema.sections.data import CloseSourceName
from schema.sections.news import NewsSettings, NewsSourceName
from schema.settings import Settings
from tests.aws.services import Stacks
from tests.settings_files import settings_file

RUN = datetime(2026, 11, 20, 18, tzinfo=UTC)
POST = "1857923746509234176"


def call(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(command_line.app, list(arguments), input=typed)


@pytest.fixture
def deployed(stacks: Stacks, buckets: SimpleNamespace, settings: Settings) -> str:
    """A lake in the settings' region; their file."""
    stacks.deployed["papertape-lake"] = {"RawBucket": buckets.raw}
    return settings_file(settings)


@pytest.fixture
def store(buckets: SimpleNamespace) -> NewsStore:
    return NewsStore(s3=boto3.client("s3"), raw_bucket=buckets.raw, processed_bucket=buckets.processed)


def item(identity: str) -> NewsItem:
    return NewsItem(
        id=identity,
        source="x",
        published="2026-11-20T17:00:00Z",
        received="2026-11-20T18:00:00Z",
        symbols=("SPY",),
        text=f"post {identity}",
    )


def test_the_next_run_removes_what_was_asked_for_and_the_command_says_when_it_did(deployed: str, store: NewsStore) -> None:
    store.put_items("x", RUN, [item(POST), item("7")])
    forget = ("forget", POST, "--source", "x", "--on", "aws", "--settings", deployed)
    for _ in range(2):
        result = call(*forget)
        assert result.exit_code == 0, result.output
        assert f"the next run of collect_news removes {POST} of x everywhere" in result.stdout
    assert [one.id for one in store.items("x", RUN) or ()] == [POST, "7"]
    collect(sources=[], store=store, symbols=("SPY",), run=RUN, settings=NewsSettings())
    assert [one.id for one in store.items("x", RUN) or ()] == ["7"]
    assert f"{POST} of x was forgotten on 20" in call(*forget).stdout


@pytest.mark.parametrize(
    ("identity", "source", "told"),
    [
        (
            "https://x.com/i/web/status/7",
            "x",
            "an id of x is the number at the end of a post's address, was 'https://x.com/i/web/status/7'",
        ),
        ("", "alpaca", "an id of alpaca is the vendor's own, of at most 200 characters, was ''"),
        ("a\x1b[2J", "finnhub", r"was 'a\x1b[2J'"),
        ("9" * 201, "alpaca", "of at most 200 characters"),
    ],
)
def test_what_is_no_id_is_not_asked_for(deployed: str, store: NewsStore, identity: str, source: str, told: str) -> None:
    result = call("forget", "--source", source, "--on", "aws", "--settings", deployed, "--", identity)
    assert result.exit_code == 1
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert store.requested() == {}


def test_without_a_lake_nothing_is_asked(stacks: Stacks, settings: Settings) -> None:
    result = call("forget", POST, "--source", "x", "--on", "aws", "--settings", settings_file(settings))
    assert (result.exit_code, "papertape-lake" in result.stderr) == (1, True)


def test_the_commands_know_every_source() -> None:
    assert {one.value for one in NewsOf} == set(get_args(NewsSourceName))
    assert {one.value for one in KeyOf} == {field for name, field in FIELDS.items() if name != "alpaca"} | set(get_args(CloseSourceName))


def test_a_sources_key_is_stored_beside_the_brokers_and_not_shown(deployed: str, settings: Settings) -> None:
    secrets = boto3.client("secretsmanager", region_name=settings.region)
    file = deployed
    missing = call("secret", "--source", "x", "--settings", file, typed="token\n")
    assert (missing.exit_code, "there is no secret papertape/alpaca" in missing.stderr) == (1, True)
    secrets.create_secret(Name="papertape/alpaca", SecretString=json.dumps({"key_id": "k", "secret_key": "s", "live": False}))
    for source in ("x", "finnhub"):
        result = call("secret", "--source", source, "--settings", file, typed=f"token-of-{source}\n")
        assert result.exit_code == 0, result.output
        assert f"token-of-{source}" not in result.output
    assert json.loads(secrets.get_secret_value(SecretId="papertape/alpaca")["SecretString"]) == {
        "key_id": "k",
        "secret_key": "s",
        "live": False,
        "x": "token-of-x",
        "finnhub": "token-of-finnhub",
    }
    assert "nothing was stored: the key is needed" in call("secret", "--source", "x", "--settings", file, typed="").stderr
