"""The collection of news as it is deployed: a real exchange process with its invented news, the lake in S3, and what health says of it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from lambdas.collect_news.handler import PaidScoring, handler
from lambdas.common import telemetry
from lambdas.common.lake import lake as lakes
from lambdas.common.lake.lake import LakeError
from lambdas.common.lake.news_state import NEWS_STATE, NewsState, NewsStateObject
from lambdas.common.sentiment.port import Scorable
from lambdas.health import handler as watching
from local.exchange.server import RunningExchange
from schema.news import NewsItem, ScoredItem, Sentiment, flagged
from schema.settings import SETTINGS_FILE, Settings
from tests.settings_files import settings_file

EVE, DAY, NEXT = "2020-01-02T21:00:00Z", "2020-01-03T21:00:00Z", "2020-01-06T21:00:00Z"
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def lake(exchange: RunningExchange, buckets: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    monkeypatch.setattr(telemetry.metrics.provider, "namespace", "Papertape")
    lakes.lake.cache_clear()
    watching._sns.cache_clear()
    exchange.advance(EVE)
    yield buckets
    lakes.lake.cache_clear()
    watching._sns.cache_clear()


def run(time: str, exchange: RunningExchange | None = None) -> dict[str, Any]:
    if exchange is not None:
        exchange.advance(time)
    return handler({"schedule": "collect_news", "time": time}, None)  # type: ignore[no-any-return]


def objects(bucket: str, prefix: str) -> dict[str, list[dict[str, Any]]]:
    """Key -> lines of each object under `prefix`."""
    s3, found = boto3.client("s3"), {}
    for item in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ()):
        body = gzip.decompress(s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read())
        found[item["Key"]] = [json.loads(line) for line in body.splitlines()]
    return found


def state(lake: SimpleNamespace) -> NewsState:
    return NewsStateObject(s3=boto3.client("s3"), bucket=lake.processed).read()


def test_what_was_published_is_collected_once_and_scored_in_the_same_run(lake: SimpleNamespace, exchange: RunningExchange) -> None:
    first, second = run(EVE), run(DAY, exchange)
    raw = objects(lake.raw, "raw/news/")
    assert list(raw) == ["raw/news/source=alpaca/date=2020-01-02/2100.jsonl.gz", "raw/news/source=alpaca/date=2020-01-03/2100.jsonl.gz"]
    assert [len(lines) for lines in raw.values()] == [first["items"]["alpaca"], second["items"]["alpaca"]]
    items = [NewsItem.model_validate(line) for lines in raw.values() for line in lines]
    assert len({item.id for item in items}) == len(items) > 3
    assert all(item.published <= item.received for item in items)
    assert {item.received for item in items} == {EVE, DAY}
    assert {item.author for item in items} == {"papertape (invented)"}

    scores = objects(lake.processed, "processed/sentiment/source=")
    assert [key.removeprefix("processed/sentiment/") for key in scores] == [key.removeprefix("raw/news/") for key in raw]
    scored = [ScoredItem.model_validate(line) for lines in scores.values() for line in lines]
    assert [one.id for one in scored] == [item.id for item in items]
    assert (first["scored"], second["scored"]) == tuple(len(lines) for lines in raw.values())
    assert (first["down"], first["outcome"]) == ([], "collected")


def test_a_run_that_is_repeated_changes_nothing(lake: SimpleNamespace, exchange: RunningExchange) -> None:
    run(EVE)
    run(DAY, exchange)
    before = {**objects(lake.raw, "raw/"), **objects(lake.processed, "processed/sentiment/source=")}
    known = state(lake)
    run(DAY)
    assert {**objects(lake.raw, "raw/"), **objects(lake.processed, "processed/sentiment/source=")} == before
    assert state(lake) == known


def test_a_source_that_is_down_fails_nothing_leaves_no_object_and_rings_after_six_runs(
    lake: SimpleNamespace, ledger_table: Any, topic: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALPACA_DATA_URL", NOBODY)
    monkeypatch.setattr("sources.transport.PAUSE", 0.0)
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings))

    def unhealthy(time: str) -> set[str]:
        return set(watching.handler({"schedule": "health", "time": time}, None)["unhealthy"])

    for hour in range(13, 18):
        assert run(f"2020-01-02T{hour}:00:00Z")["down"] == ["alpaca"]
    assert objects(lake.raw, "raw/news/") == {}
    assert "news-stale" not in unhealthy("2020-01-02T17:05:00Z")
    run("2020-01-02T17:00:00Z")  # the same run again
    assert "news-stale" not in unhealthy("2020-01-02T17:05:00Z")
    run("2020-01-02T18:00:00Z")
    assert "news-stale" in unhealthy("2020-01-02T18:05:00Z")
    mails = " ".join(json.loads(message["Body"])["Message"] if "Body" in message else message["Message"] for message in topic())
    assert "alpaca has not answered in its last 6 runs, since 2020-01-02 13:00 UTC (08:00 New York)" in mails


def test_it_is_over_with_the_first_answer(lake: SimpleNamespace, exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setenv("ALPACA_DATA_URL", NOBODY)
        broken.setattr("sources.transport.PAUSE", 0.0)
        run("2020-01-02T18:00:00Z")
    assert state(lake).down["alpaca"].runs == 1
    run(DAY, exchange)
    assert state(lake).down == {}


def test_what_has_no_scores_rings_and_the_next_run_scores_it(
    lake: SimpleNamespace, ledger_table: Any, topic: Any, exchange: RunningExchange, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings))
    run(EVE)
    (key,) = objects(lake.processed, "processed/sentiment/source=")
    boto3.client("s3").delete_object(Bucket=lake.processed, Key=key)

    def behind(time: str) -> bool:
        return "sentiment-behind" in watching.handler({"schedule": "health", "time": time}, None)["unhealthy"]

    assert not behind("2020-01-02T22:59:00Z")
    assert behind("2020-01-02T23:01:00Z")
    run(DAY, exchange)
    assert key in objects(lake.processed, "processed/sentiment/source=")
    assert not behind("2020-01-03T23:30:00Z")


def test_old_texts_are_looked_for_on_the_first_run_of_a_new_york_day(lake: SimpleNamespace, exchange: RunningExchange) -> None:
    for time, retained in (("2020-01-03T21:00:00Z", "2020-01-03"), ("2020-01-04T03:00:00Z", "2020-01-03"), (NEXT, "2020-01-06")):
        run(time, exchange)
        assert state(lake).retained == retained


class Dear:
    """A scorer that costs a dollar a text and has three."""

    model, version = "dear", "1"

    def __init__(self) -> None:
        self.spent_usd = 0.0

    def score(self, texts: Sequence[Scorable]) -> list[Sentiment]:
        return [self._one() for _ in texts]

    def _one(self) -> Sentiment:
        if self.spent_usd >= 3.0:
            return flagged("budget_spent", model=self.model, version=self.version)
        self.spent_usd += 1.0
        return Sentiment(
            label="positive", positive=1.0, negative=0.0, neutral=0.0, mixed=0.0, confidence=1.0, model=self.model, version=self.version
        )


def items(*ids: str) -> list[NewsItem]:
    times = {"published": EVE, "received": EVE}
    return [NewsItem(id=one, source="alpaca", symbols=("SPY",), text=f"Large caps gain {one}", **times) for one in ids]


def test_the_budget_stops_scoring_rings_until_the_month_ends_and_leaves_the_texts_neutral_and_flagged(
    lake: SimpleNamespace, ledger_table: Any, topic: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings))
    kept = NewsStateObject(s3=boto3.client("s3"), bucket=lake.processed)
    scoring = PaidScoring(scorer=Dear(), state=kept, run=datetime(2020, 1, 30, 21, tzinfo=UTC), settings=settings)
    assert [one.sentiment.flag for one in scoring(items("1", "2"))] == [None, None]
    assert (kept.read().month, kept.read().spent_usd, kept.read().stopped) == ("2020-01", 2.0, False)
    assert [(one.sentiment.flag, one.sentiment.label) for one in scoring(items("3", "4"))] == [
        (None, "positive"),
        ("budget_spent", "neutral"),
    ]
    assert (kept.read().spent_usd, kept.read().stopped) == (3.0, True)

    def unhealthy(time: str) -> list[str]:
        return watching.handler({"schedule": "health", "time": time}, None)["unhealthy"]  # type: ignore[no-any-return]

    assert "sentiment-budget" in unhealthy("2020-01-30T21:15:00Z")
    assert "sentiment-budget" not in unhealthy("2020-02-01T15:00:00Z")


def test_two_runs_at_once_lose_nothing_that_was_spent(lake: SimpleNamespace) -> None:
    kept = NewsStateObject(s3=boto3.client("s3"), bucket=lake.processed)
    at = datetime(2020, 1, 2, 21, tzinfo=UTC)
    other = iter([0.25, 0.5])

    def slowly(before: NewsState) -> NewsState:
        if (usd := next(other, None)) is not None:  # another run writes between our reading and our writing
            kept.change(lambda found: found.spent(at, usd=usd, stopped=False))
        return before.spent(at, usd=1.0, stopped=False)

    assert kept.change(slowly).spent_usd == kept.read().spent_usd == 1.75


def test_a_state_that_cannot_be_read_is_an_error_and_never_an_empty_budget(lake: SimpleNamespace) -> None:
    kept = NewsStateObject(s3=boto3.client("s3"), bucket=lake.processed)
    for body in (b"", b"{", b'{"spent_usd": -1}', b'{"spent": 1}'):
        boto3.client("s3").put_object(Bucket=lake.processed, Key=NEWS_STATE, Body=body)
        with pytest.raises(LakeError, match=r"s3://papertape-processed/processed/sentiment/collecting/state\.json: is no state"):
            kept.read()
    with pytest.raises(ClientError, match="NoSuchBucket"):
        NewsStateObject(s3=boto3.client("s3"), bucket="absent").read()


def test_months_are_new_york_s_and_a_late_run_never_gets_last_month_s_budget_back() -> None:
    state = NewsState().spent(datetime(2020, 2, 1, 3, tzinfo=UTC), usd=1.0, stopped=True)  # the evening of January 31st
    assert (state.month, state.stopped) == ("2020-01", True)
    february = state.of(datetime(2020, 2, 3, 9, tzinfo=UTC))
    assert (february.month, february.spent_usd, february.stopped) == ("2020-02", 0.0, False)
    assert february.of(datetime(2020, 1, 31, tzinfo=UTC)) == february


@pytest.mark.parametrize("down", [{"x": "gone"}, {}])
def test_only_configured_sources_are_counted(down: Mapping[str, str]) -> None:
    at = datetime(2020, 1, 2, 21, tzinfo=UTC)
    assert NewsState().collected(at, sources=("alpaca",), down=down).down == {}
