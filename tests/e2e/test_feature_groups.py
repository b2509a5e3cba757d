"""The lake's stacks on the local cloud: what was known when, by its saved queries on DuckDB, against pandas and the calendar; and the
option, Feature Store, whose records are the table's newest session, bit for bit.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import exchange_calendars
import numpy as np
import pandas as pd
import pytest
from aws_cdk import Environment
from botocore.exceptions import ClientError

import app as application
from glue_jobs.feature_store import mirror_newest
from glue_jobs.files import Bucket, read_features
from lambdas.common.lake.audit import AuditBucket
from lambdas.common.lake.lake import Lake
from local.aws.deploy import Deployment, deploy_templates
from local.aws.emulator import ROOT, Emulator
from schema.features.groups import FeatureGroup, groups_in_table
from schema.features.records import record_of, store_name, values_of
from schema.lake_layout import audit_key, features_prefix
from schema.loopback import LOCAL_ACCOUNT
from schema.sections.feature_store import FeatureStoreSettings
from schema.settings import Settings, load
from stacks.constructs.as_of_views import views
from stacks.features import FeaturesStack
from stacks.lake import LakeStack
from tests.lakes import fill_raw
from trading_env.data.features import FEATURE_HASH

IN_TABLE = groups_in_table(sentiment=False)

NIGHT = "2014-12-31T23:30:00Z"
RESULTS = "s3://results/"
COLUMNS = [column for group in IN_TABLE for column in group.columns]
#: Slot, the newest close that it could know, when the executor received it.
DECISIONS = (
    ("2014-12-26/open+5", "2014-12-24", "2014-12-26T14:35:07.250000Z"),
    ("2014-12-29/open+5", "2014-12-26", "2014-12-29T14:35:03Z"),
    ("2014-12-30/open+5", "2014-12-29", "2014-12-30T14:35:04Z"),
)
ORDER = "pt1-aapl"


@dataclass(frozen=True)
class Cloud:
    """The deployed lake with the features of two years, and Athena over it."""

    deployment: Deployment
    settings: Settings

    def query(self, text: str) -> pd.DataFrame:
        """The answer, every cell as the text that Athena sends; None is NULL."""
        athena = boto3.client("athena")
        asked = athena.start_query_execution(
            QueryString=text,
            QueryExecutionContext={"Database": self.settings.name},
            ResultConfiguration={"OutputLocation": RESULTS},
        )["QueryExecutionId"]
        while (status := athena.get_query_execution(QueryExecutionId=asked)["QueryExecution"]["Status"])["State"] in ("QUEUED", "RUNNING"):
            time.sleep(0.02)
        assert status["State"] == "SUCCEEDED", f"{status['StateChangeReason']}: {text}"
        pages = athena.get_paginator("get_query_results").paginate(QueryExecutionId=asked)
        rows = [[cell.get("VarCharValue") for cell in row["Data"]] for page in pages for row in page["ResultSet"]["Rows"]]
        return pd.DataFrame(rows[1:], columns=rows[0]) if rows else pd.DataFrame()

    def table(self) -> pd.DataFrame:
        return read_features(Bucket(self.deployment.output("ProcessedBucket")))


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    settings = load(ROOT / "data" / "settings.toml").model_copy(update={"feature_store": FeatureStoreSettings(enabled=True)})
    folder = tmp_path_factory.mktemp("as-of")
    with pytest.MonkeyPatch.context() as patch, Emulator.start(folder) as emulator:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in emulator.env().items():
            patch.setenv(name, value)
        deployment = deploy_templates(emulator, cdk_out=synthesized(folder / "cdk.out", settings=settings))
        boto3.client("s3").create_bucket(Bucket="results")
        fill(deployment, settings=settings)
        build(deployment)
        cloud = Cloud(deployment, settings)
        for query in saved():
            cloud.query(query)
        yield cloud


def synthesized(folder: Path, *, settings: Settings) -> Path:
    """The two stacks that hold the lake and its tables."""
    app = application.new_app(folder, validated=False)
    env = Environment(account=LOCAL_ACCOUNT, region=settings.region)
    lake = LakeStack(app, f"{settings.name}-lake", settings=settings, env=env)
    FeaturesStack(app, f"{settings.name}-features", settings=settings, lake=lake, env=env)
    app.synth()
    return folder


def fill(deployment: Deployment, *, settings: Settings) -> None:
    """Raw bars and calendar, and the audit records of three decisions, a model, a state and an order."""
    lake = Lake(s3=boto3.client("s3"), raw_bucket=deployment.output("RawBucket"), processed_bucket=deployment.output("ProcessedBucket"))
    fill_raw(lake, symbols=settings.universe.symbols, start="2013-01-02", end="2014-12-31")
    records: dict[str, dict[str, Any]] = {}
    for slot, data_as_of, received in DECISIONS:
        day, identifier = slot[:10], f"agent:{slot}"
        asked = {"decision_id": identifier, "slot": slot, "strategy": "agent", "data_as_of": data_as_of, "model_version": "m1"}
        served = {"role": "incumbent", "model_version": "m1", "since": "2014-12-27T09:00:00Z"}
        records[audit_key("decisions", day, identifier)] = {
            "decision": {**asked, "weights": {"AAPL": 0.25, "IBM": 0.125}, "observation_hash": "0b5"},
            "model": served,
            "scores": {"AAPL": 0.1, "IBM": -0.3},
            "symbols": ["AAPL", "IBM"],
            "inputs_sha256": "1a2b",
        }
        records[audit_key("batches", day, identifier)] = {**asked, "received_at": received, "verdict": "accepted"}
    records[audit_key("models", "2014-12-27", "incumbent-m1")] = {**served, "policy": "ppo", "gate_passed": True, "trial": "t1"}
    for version, moment, state, was in ((1, "2014-12-29T15:00:00Z", "halted", "active"), (2, "2014-12-30T14:00:00Z", "active", "halted")):
        change = {"state": state, "was": was, "reason": "as asked", "time": moment, "by": "owner", "automatic": False, "version": version}
        records[audit_key("state_changes", moment[:10], f"{version:06d}")] = change
    order = {"symbol": "AAPL", "side": "buy", "quantity": "12.000000001", "client_order_id": ORDER, "decision_id": f"agent:{slot}"}
    fills = [{"client_order_id": ORDER, "quantity": "12.000000001", "price": "113.5"}]
    for version, status in ((1, "partially_filled"), (2, "filled")):
        done = {"status": status, "filled_quantity": "12.000000001", "filled_average_price": "113.5", "version": version, "fills": fills}
        records[audit_key("orders", slot[:10], f"{ORDER}-{version:06d}")] = {**order, **done}
    AuditBucket(s3=boto3.client("s3"), name=deployment.output("AuditBucket")).add(records)


def build(deployment: Deployment) -> None:
    """A run of the deployed job, to its end."""
    glue = boto3.client("glue")
    job = deployment.output("GlueJobName")
    run = glue.start_job_run(JobName=job, Arguments={"--EVENT_TIME": NIGHT})["JobRunId"]
    while (found := glue.get_job_run(JobName=job, RunId=run)["JobRun"])["JobRunState"] in ("STARTING", "RUNNING"):
        time.sleep(0.05)
    assert found["JobRunState"] == "SUCCEEDED", found.get("ErrorMessage")


def saved() -> list[str]:
    """The saved queries in the order that the page gives: the view that others stand on first."""
    athena = boto3.client("athena")
    queries = [athena.get_named_query(NamedQueryId=one)["NamedQuery"] for one in athena.list_named_queries()["NamedQueryIds"]]
    assert {query["Name"] for query in queries} >= {*views(IN_TABLE), "order_trace"}
    return [query["QueryString"] for query in sorted(queries, key=lambda query: query["Name"] != "features_as_of")]


def known(table: pd.DataFrame, moment: str) -> pd.DataFrame:
    """The rows of the last session that had closed by `moment`, by the exchange's calendar."""
    closes = exchange_calendars.get_calendar("XNYS", start="2012-01-03", end="2015-12-31").closes
    sessions = closes.index[closes <= pd.Timestamp(moment, tz="UTC")]
    rows = table[table["session"] == min(sessions[-1], table["session"].max())]
    return rows.sort_values("symbol").reset_index(drop=True)


@pytest.mark.parametrize(
    ("moment", "session"),
    [
        ("2014-12-30 20:59:59", "2014-12-29"),
        ("2014-12-30 21:00:00", "2014-12-30"),
        ("2014-12-24 17:59:59", "2014-12-23"),  # it closed at one in New York
        ("2014-12-24 18:00:00", "2014-12-24"),
        ("2014-07-02 20:00:00", "2014-07-02"),  # an hour earlier in UTC than in winter
        ("2014-12-28 12:00:00", "2014-12-26"),  # a Sunday
        ("2019-01-01 00:00:00", "2014-12-31"),  # the newest row is known until there is another
    ],
)
def test_what_was_known_at_an_instant_is_the_last_closed_session_bit_for_bit(cloud: Cloud, moment: str, session: str) -> None:
    at = f"known_at <= TIMESTAMP '{moment}' AND TIMESTAMP '{moment}' < known_until"
    found = cloud.query(f"SELECT * FROM features_as_of WHERE {at} ORDER BY symbol")
    expected = known(cloud.table(), moment)
    assert list(found["symbol"]) == list(expected["symbol"]) == sorted(cloud.settings.universe.symbols)
    assert {text[:10] for text in found["session"]} == {f"{day:%Y-%m-%d}" for day in expected["session"]} == {session}
    assert found[COLUMNS].astype("float64").to_numpy().tobytes() == expected[COLUMNS].to_numpy().tobytes()


def test_nothing_is_known_before_the_first_close(cloud: Cloud) -> None:
    assert cloud.query("SELECT * FROM features_as_of WHERE known_at <= TIMESTAMP '2013-01-02 20:59:59'").empty


def test_each_instant_has_one_row_per_symbol(cloud: Cloud) -> None:
    (count,) = cloud.query("SELECT count(*) AS n, count(DISTINCT session) AS sessions FROM features_as_of").astype(int).to_dict("records")
    assert (count["n"], count["sessions"]) == (len(cloud.table()), cloud.table()["session"].nunique())
    overlaps = """
        SELECT a.symbol FROM features_as_of a JOIN features_as_of b ON a.symbol = b.symbol AND a.session < b.session
        WHERE a.known_until > b.known_at OR a.known_at >= a.known_until
    """
    assert cloud.query(overlaps).empty


@pytest.mark.parametrize("group", IN_TABLE, ids=lambda group: group.name)
def test_a_groups_view_has_its_columns_and_no_others(cloud: Cloud, group: Any) -> None:
    found = cloud.query(f"SELECT * FROM {group.name}_as_of WHERE session = TIMESTAMP '2014-12-30' ORDER BY symbol")
    assert list(found.columns) == ["session", "symbol", "known_at", "known_until", *group.columns]
    expected = known(cloud.table(), "2014-12-30 21:00:00")
    columns = list(group.columns)
    assert found[columns].astype("float64").to_numpy().tobytes() == expected[columns].to_numpy().tobytes()


def test_what_each_decision_could_know_ends_where_it_says(cloud: Cloud) -> None:
    found = cloud.query(
        "SELECT d.decision_id, d.data_as_of, max(f.session) AS newest, count(*) AS names FROM decisions_as_of d "
        "JOIN features_as_of f ON f.known_at <= d.known_at AND d.known_at < f.known_until GROUP BY 1, 2 ORDER BY 1"
    )
    assert list(found["data_as_of"]) == [day for _, day, _ in DECISIONS]
    assert [text[:10] for text in found["newest"]] == list(found["data_as_of"])
    assert set(found["names"]) == {str(len(cloud.settings.universe.symbols))}


def test_a_decision_is_in_force_from_its_receipt_to_the_next(cloud: Cloud) -> None:
    ask = "SELECT decision_id, weights['IBM'] AS weight, verdict FROM decisions_as_of WHERE known_at <= {0} AND {0} < known_until"
    for moment, decision in (
        ("2014-12-26 14:35:07.300", 0),
        ("2014-12-29 14:35:02", 0),
        ("2014-12-29 14:35:03", 1),
        ("2015-06-01 00:00:00", 2),
    ):
        found = cloud.query(ask.format(f"TIMESTAMP '{moment}'"))
        assert found.to_dict("records") == [{"decision_id": f"agent:{DECISIONS[decision][0]}", "weight": "0.125", "verdict": "accepted"}]
    assert cloud.query(ask.format("TIMESTAMP '2014-12-26 14:35:07'")).empty


def test_the_pages_queries_run_as_they_are_printed(cloud: Cloud) -> None:
    page = (ROOT / "docs" / "feature-groups.md").read_text(encoding="utf-8")
    features, by_decision, around = (cloud.query(text) for text in re.findall(r"```sql\n(.+?)```", page, flags=re.DOTALL))
    expected = known(cloud.table(), "2014-12-30 21:30:00")
    np.testing.assert_array_equal(features["return_21"].astype("float64"), expected["return_21"])
    assert len(by_decision) == len(DECISIONS) * len(cloud.settings.universe.symbols)
    shown = around.astype(object).where(around.notna(), None)[["role", "gate_passed", "state"]].to_numpy().tolist()
    assert shown == [[None, None, None], ["incumbent", "true", None], ["incumbent", "true", "active"]]


def test_an_orders_trace_leads_back_to_its_model(cloud: Cloud) -> None:
    """The audit tables' own view, of its last version alone, with every digit and the address of each record."""
    (row,) = cloud.query("SELECT * FROM order_trace").to_dict("records")
    told = {name: row[name] for name in ("client_order_id", "status", "quantity", "fill_count", "decision_verdict", "gate_passed", "day")}
    assert told == {
        "client_order_id": ORDER, "status": "filled", "quantity": "12.000000001", "fill_count": "1", "decision_verdict": "accepted",
        "gate_passed": "true", "day": "2014-12-30",
    }  # fmt: skip
    bucket, _, key = row["decision_record"].removeprefix("s3://").partition("/")
    document = json.loads(boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    assert document["decision"]["decision_id"] == row["decision_id"]


def test_a_table_without_objects_has_its_columns(cloud: Cloud) -> None:
    """Lists and records too, so that a view over what is not collected yet is empty and no error."""
    columns = [{"Name": "symbols", "Type": "array<string>"}, {"Name": "score", "Type": "struct<label:string,positive:double>"}]
    storage = {"Columns": columns, "Location": RESULTS + "nothing/"}
    table = {"Name": "nothing", "Parameters": {"classification": "json"}, "StorageDescriptor": storage}
    boto3.client("glue").create_table(DatabaseName=cloud.settings.name, TableInput=table)
    text = "SELECT t.symbol, max(n.score.positive) AS best FROM nothing n CROSS JOIN UNNEST(n.symbols) AS t (symbol) GROUP BY t.symbol"
    assert cloud.query(text).empty


def test_a_view_that_names_a_column_that_is_not_there_is_refused(cloud: Cloud) -> None:
    with pytest.raises(AssertionError, match="opinion"):
        cloud.query("CREATE OR REPLACE VIEW wrong AS SELECT opinion FROM features_as_of")


# Feature Store


def online(cloud: Cloud, group: FeatureGroup, symbol: str, **asked: Any) -> list[dict[str, str]]:
    store = boto3.client("sagemaker-featurestore-runtime")
    name = store_name(cloud.settings.name, group)
    found: list[dict[str, str]] = store.get_record(FeatureGroupName=name, RecordIdentifierValueAsString=symbol, **asked).get("Record", [])
    return found


def numbers(row: Any, group: FeatureGroup) -> bytes:
    return np.array([row[column] for column in group.columns]).tobytes()


@pytest.mark.parametrize("group", IN_TABLE, ids=lambda group: group.name)
def test_the_online_record_of_each_symbol_is_the_tables_newest_row_bit_for_bit(cloud: Cloud, group: FeatureGroup) -> None:
    newest = known(cloud.table(), "2014-12-31 21:00:00")
    assert len(newest) == len(cloud.settings.universe.symbols)
    for row in newest.to_dict("records"):
        record = online(cloud, group, row["symbol"])
        assert record[:2] == [
            {"FeatureName": "symbol", "ValueAsString": row["symbol"]},
            {"FeatureName": "event_time", "ValueAsString": "2014-12-31T21:00:00Z"},
        ]
        assert numbers(values_of(record, group), group) == numbers(row, group)


@pytest.mark.parametrize("group", IN_TABLE, ids=lambda group: group.name)
def test_the_offline_store_has_the_same_rows_where_the_service_writes_them(cloud: Cloud, group: FeatureGroup) -> None:
    described = boto3.client("sagemaker").describe_feature_group(FeatureGroupName=store_name(cloud.settings.name, group))
    assert described["FeatureGroupStatus"] == "Created"
    bucket, _, prefix = described["OfflineStoreConfig"]["S3StorageConfig"]["ResolvedOutputS3Uri"].removeprefix("s3://").partition("/")
    assert (bucket, prefix.split("/")[:2]) == (cloud.deployment.output("ProcessedBucket"), ["processed", "feature-store"])
    s3 = boto3.client("s3")
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
    assert all(key.startswith(f"{prefix}/year=2014/month=12/day=31/hour=21/20141231T210000Z_") for key in keys)
    held = pd.concat([pd.read_parquet(io.BytesIO(s3.get_object(Bucket=bucket, Key=key)["Body"].read())) for key in keys])
    newest = known(cloud.table(), "2014-12-31 21:00:00")
    rows = held.drop_duplicates("symbol").sort_values("symbol").reset_index(drop=True)
    assert list(rows["symbol"]) == list(newest["symbol"])
    assert rows[list(group.columns)].to_numpy().tobytes() == newest[list(group.columns)].to_numpy().tobytes()
    assert list(held.columns[-3:]) == ["write_time", "api_invocation_time", "is_deleted"]


def test_asking_for_some_features_or_many_records_answers_with_those(cloud: Cloud) -> None:
    volume = next(group for group in IN_TABLE if group.name == "volume")
    assert [entry["FeatureName"] for entry in online(cloud, volume, "IBM", FeatureNames=["volume_z"])] == ["volume_z"]
    assert online(cloud, volume, "NOSUCH") == []
    name = store_name(cloud.settings.name, volume)
    asked = {"FeatureGroupName": name, "RecordIdentifiersValueAsString": ["IBM", "NOSUCH", "AAPL"]}
    answer = boto3.client("sagemaker-featurestore-runtime").batch_get_record(Identifiers=[asked])
    assert [one["RecordIdentifierValueAsString"] for one in answer["Records"]] == ["IBM", "AAPL"]


def test_a_second_run_changes_no_record_and_an_older_one_does_not_replace_it(cloud: Cloud) -> None:
    volume = next(group for group in IN_TABLE if group.name == "volume")
    before = online(cloud, volume, "IBM")
    raw, processed = Bucket(cloud.deployment.output("RawBucket")), Bucket(cloud.deployment.output("ProcessedBucket"))
    app, symbols = cloud.settings.name, cloud.settings.universe.symbols
    put = mirror_newest(raw=raw, processed=processed, app=app, feature_hash=FEATURE_HASH, prefix=features_prefix())
    assert put == len(IN_TABLE) * len(symbols)
    assert online(cloud, volume, "IBM") == before
    older = record_of({"symbol": "IBM", "volume_z": 5.0}, volume, known_at=datetime(2014, 12, 30, 21, tzinfo=UTC))
    name = store_name(cloud.settings.name, volume)
    boto3.client("sagemaker-featurestore-runtime").put_record(FeatureGroupName=name, Record=older, TargetStores=["OnlineStore"])
    assert online(cloud, volume, "IBM") == before


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"symbol": "IBM", "event_time": "2015-01-02T21:00:00Z", "opinion": "1.0"}, "opinion is no feature of the group"),
        ({"symbol": "IBM", "event_time": "2015-01-02T21:00:00Z", "volume_z": "many"}, "volume_z must be Fractional, was 'many'"),
        ({"symbol": "IBM", "event_time": "2015-01-02T21:00:00Z", "volume_z": "nan"}, "volume_z must be a finite number"),
        ({"symbol": "IBM", "event_time": "yesterday"}, "an event time must be as"),
        ({"event_time": "2015-01-02T21:00:00Z"}, "a record needs symbol"),
    ],
)
def test_a_record_that_the_group_cannot_hold_is_refused(cloud: Cloud, record: dict[str, str], words: str) -> None:
    entries = [{"FeatureName": name, "ValueAsString": text} for name, text in record.items()]
    with pytest.raises(ClientError, match=words) as refused:
        boto3.client("sagemaker-featurestore-runtime").put_record(FeatureGroupName=f"{cloud.settings.name}-volume", Record=entries)
    assert refused.value.response["Error"]["Code"] == "ValidationError"


def test_a_group_that_is_not_there_is_not_found(cloud: Cloud) -> None:
    store = boto3.client("sagemaker-featurestore-runtime")
    with pytest.raises(store.exceptions.ResourceNotFound):
        store.get_record(FeatureGroupName="papertape-opinion", RecordIdentifierValueAsString="IBM")
