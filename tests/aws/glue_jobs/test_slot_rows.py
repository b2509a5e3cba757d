"""Rows by slot from the lake to a model: the features job, its training view, training and judging by SageMaker's entry points."""

# ruff: noqa: F401, F811  (a fixture of another module is used by its name)
from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest

from glue_jobs.build_features import main
from glue_jobs.features_job import NothingToBuildError
from glue_jobs.files import Bucket, read_features
from lambdas.common.lake.lake import Lake
from learning import due, serving
from learning.configuration import Configuration, purge_rows
from learning.dataset import DatasetError, newest_session, read_channel
from schema.feature_table import ROWS_SAID, parquet, rows_said
from schema.features.records import values_of
from schema.lake_layout import (
    actions_key,
    bars_key,
    bars_prefix,
    features_manifest,
    features_prefix,
    training_manifest,
    training_prefix,
)
from schema.sections.feature_store import FeatureStoreSettings
from schema.settings import SETTINGS_FILE, Settings
from schema.training_dates import as_of
from tests import small_run
from tests.aws.glue_jobs.test_feature_store import IN_TABLE, service
from tests.lakes import calendar_objects, slot_objects
from tests.minutes import hours, minutes
from tests.settings_files import settings_file
from trading_env.data.bars import ACTION_COLUMNS
from trading_env.data.market import CONTEXT_NAMES, FEATURE_NAMES, Market, build_market, from_table, to_table
from trading_env.data.observation import observe
from trading_env.data.slot_bars import slot_bars
from trading_env.simulation.policy import PolicyError, load_policy

FIRST, LAST = "2019-11-01", "2020-01-29"  # 60 sessions, two of them half days, over a year's end
NAMES = ("BBB", "AAA", "CCC")
DIVIDEND = {"symbol": "AAA", "ex_date": "2019-12-12", "kind": "dividend", "value": 0.25}
EVERY_HALF_HOUR = tuple(f"open+{minute}" for minute in range(30, 390, 30))
TABLE, VIEW = features_prefix("1Min"), training_prefix("1Min")


def sections(**training: Any) -> dict[str, dict[str, Any]]:
    return {
        "universe": {"symbols": NAMES, "benchmark": "AAA"},
        "schedule": {"slots": EVERY_HALF_HOUR, "slot_window_minutes": 30},
        "training": {
            "timeframe": "1Min",
            "start": "2019-12-04",
            "test_start": "2020-01-08",
            "live_start": "auto",
            "folds": 1,
            "seeds": [0],
            "purge_sessions": 1,
            "holdout_sessions": 5,
            **training,
        },
    }


def chosen(**training: Any) -> Settings:
    return small_run.settings(**sections(**training))


@dataclass(frozen=True)
class World:
    """A lake of slot rows, and the market that research makes of the same minutes."""

    raw: str
    processed: Bucket
    lake: Lake
    market: Market
    monkeypatch: pytest.MonkeyPatch

    def build(self, under: Settings, *more: str) -> dict[str, Any]:
        self.monkeypatch.setenv(SETTINGS_FILE, settings_file(under))
        where = ["--RAW_BUCKET", self.raw, "--PROCESSED_BUCKET", self.processed.name]
        return main([*where, "--EVENT_TIME", "2020-01-29T23:30:00Z", "--ENGINE", "pandas", *more])

    def channel(self, folder: Path) -> Path:
        """The training view as a job finds it."""
        for key in self.processed.index(VIEW):
            path = folder / key.removeprefix(VIEW)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.processed.get(key) or b"")
        return folder


def due_of(root: Path, trials: Path, settings: Settings) -> dict[str, Any]:
    """What the pipeline's first step answers."""
    due.main(["--root", str(root), "--trials", str(trials), "--package-group", "papertape", "--settings", settings.model_dump_json()])
    answer: dict[str, Any] = json.loads((root / "output" / "due" / "due.json").read_text(encoding="utf-8"))
    return answer


def register(metadata: dict[str, str], *, status: str = "Rejected") -> None:
    """The pipeline's last step."""
    sagemaker, served = boto3.client("sagemaker"), {"Image": "image", "ModelDataUrl": "s3://papertape-processed/models/1/model.tar.gz"}
    sagemaker.create_model_package_group(ModelPackageGroupName="papertape")
    sagemaker.create_model_package(
        ModelPackageGroupName="papertape",
        ModelApprovalStatus=status,
        CustomerMetadataProperties=metadata,
        InferenceSpecification={
            "Containers": [served],
            "SupportedContentTypes": ["application/json"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    )


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    table = minutes(FIRST, LAST, symbols=NAMES, missing=0.3)
    return slot_bars(table, hours=hours(FIRST, LAST), slots=[int(slot[5:]) for slot in EVERY_HALF_HOUR], window=30).bars


@pytest.fixture(scope="module")
def market(bars: pd.DataFrame) -> Market:
    actions = pd.DataFrame([DIVIDEND])[list(ACTION_COLUMNS)].assign(ex_date=lambda table: pd.to_datetime(table["ex_date"]))
    return build_market(bars, actions, symbols=NAMES)


@pytest.fixture
def world(buckets: SimpleNamespace, bars: pd.DataFrame, market: Market, monkeypatch: pytest.MonkeyPatch) -> World:
    lake = Lake(s3=boto3.client("s3"), raw_bucket=buckets.raw, processed_bucket=buckets.processed)
    rows = chosen().slot_rows
    assert rows is not None
    lake.write({actions_key("AAA"): [DIVIDEND], **calendar_objects(), **slot_objects(bars, rows)})
    return World(buckets.raw, Bucket(buckets.processed), lake, market, monkeypatch)


def test_the_table_is_the_market_of_research_to_the_byte(world: World) -> None:
    built = world.build(chosen())
    table = read_features(world.processed, prefix=TABLE)
    assert parquet(table) == parquet(to_table(world.market))
    found = from_table(table)
    assert (found.by_slot, len(found), len(np.unique(found.days))) == (True, 60 * 12 - 2 * 6, 60)
    assert (built["start"], built["end"], built["rows"], built["quarantined"]) == (FIRST, LAST, 3 * len(found), 0)
    stored = json.loads(world.processed.get(features_manifest("1Min")) or b"")
    assert [stored[name] for name in ROWS_SAID] == ["1Min", list(EVERY_HALF_HOUR), 30, "iex"]
    assert [entry["key"][:9] for entry in stored["files"]] == ["year=2019", "year=2020"]
    assert world.processed.index(features_prefix()) == {}, "no daily table is made beside it"
    assert world.processed.index(training_prefix()) == {}


def test_what_training_may_know_ends_with_the_last_slot_before_live_start(world: World) -> None:
    world.build(chosen(live_start="2020-01-15"))
    table, view = read_features(world.processed, prefix=TABLE), read_features(world.processed, prefix=VIEW)
    pd.testing.assert_frame_equal(view, table[table["session"] < "2020-01-15"].reset_index(drop=True))
    assert view["session"].max() == pd.Timestamp("2020-01-14 20:30"), "the last slot, in UTC"
    manifest = json.loads(world.processed.get(training_manifest("1Min")) or b"")
    assert (manifest["end"], manifest["slots"]) == ("2020-01-14", list(EVERY_HALF_HOUR))


def test_a_row_that_no_slot_of_the_calendar_has_is_set_aside(world: World) -> None:
    key = bars_key("CCC", 2019, chosen().slot_rows)
    rows = world.lake.read([key], prefix=bars_prefix(chosen().slot_rows))[key]
    after_an_early_close = {**rows[0], "ts": "2019-11-29T18:30:00Z"}
    world.lake.write({key: [{**rows[0], "ts": "2019-11-01T14:01:00Z"}, *rows[1:], after_an_early_close]})
    assert world.build(chosen())["quarantined"] == 2
    found = read_features(world.processed, prefix=TABLE)
    assert not found["session"].isin(pd.to_datetime(["2019-11-01 14:01", "2019-11-29 18:30"])).any()


def test_each_slot_of_the_newest_session_is_put_into_the_feature_store_as_of_its_end(world: World, service: SimpleNamespace) -> None:
    on = chosen().model_copy(update={"feature_store": FeatureStoreSettings(enabled=True)})
    assert world.build(on)["feature_store"] == len(service.puts) == len(IN_TABLE) * len(NAMES) * 12
    last = world.market
    for group in IN_TABLE:
        mine = [record for path, record in service.puts if path == f"/FeatureGroup/papertape-{group.name.replace('_', '-')}"]
        times = [record[1]["ValueAsString"] for record in mine if record[0]["ValueAsString"] == "AAA"]
        halves = [f"2020-01-29T{hour}:{minute}:00Z" for hour in range(15, 22) for minute in ("00", "30")]
        assert times == halves[1:13], "from the second slot, 10:30 in New York, to the close"
        column = last.symbols.index("AAA")
        seen = values_of(next(record for record in reversed(mine) if record[0]["ValueAsString"] == "AAA"), group)
        assert seen == {name: last.features[-1, column, FEATURE_NAMES.index(name)] for name in seen if name in FEATURE_NAMES} | {
            name: last.context[-1, CONTEXT_NAMES.index(name)] for name in seen if name in CONTEXT_NAMES
        }


def test_rows_of_other_slots_are_not_there(world: World) -> None:
    schedule = chosen().schedule.model_copy(update={"slots": ("open+30", "open+60")})
    with pytest.raises(
        NothingToBuildError, match=r"has no bar of BBB, AAA, CCC below raw/bars/timeframe=1Min/.*/slots=30-60/window=30/; run"
    ):
        world.build(chosen().model_copy(update={"schedule": schedule}))


def test_a_model_of_slots_is_trained_judged_and_served_from_the_view(world: World, tmp_path: Path) -> None:
    settings = chosen()
    world.build(settings)
    root = tmp_path / "job"
    channel = world.channel(root / "input" / "features")
    assert newest_session(channel) == date(2020, 1, 29)
    small_run.train(channel, root / "trained-0", "--seed", "0", chosen=settings)
    small_run.pack(root / "trained-0", root / "input" / "model-0")
    assert due_of(root, tmp_path / "trials", settings) == {"due": True, "reason": "this configuration was never judged"}
    record = json.loads((root / "trained-0" / "fold-1" / "training.json").read_text(encoding="utf-8"))
    assert record["sessions"] == 32, "2019-12-04 to 2020-01-21, the last session before the purge"
    document = small_run.evaluate(root, trials=str(tmp_path / "trials"), chosen=settings)
    assert not document["gate"]["passed"]
    assert (document["data"]["sessions"], document["data"]["rows"]) == (60, 3 * len(world.market))
    assert document["curves"]["sessions"] == [str(day) for day in np.unique(world.market.days) if "2020-01-08" <= str(day) <= "2020-01-22"]
    assert (document["windows"]["live_start"], document["metadata"]["trained_until"]) == ("2020-01-30", "2020-01-21")
    assert document["configuration"] == Configuration.of(as_of(settings, date(2020, 1, 29))).identity
    register(document["metadata"])
    nothing_changed = "nothing changed: papertape/1 was made from the same data, settings and code"
    assert due_of(root, tmp_path / "trials", settings) == {"due": False, "reason": nothing_changed}

    served = tmp_path / "served"
    with tarfile.open(fileobj=io.BytesIO((root / "output" / "model" / "model.tar.gz").read_bytes())) as tar:
        tar.extractall(served, filter="data")
    model = serving.model_fn(str(served))
    assert model.policy.card.slots == EVERY_HALF_HOUR
    last = world.market
    seen = observe(last.features[-1], last.context[-1], last.tradable[-1], np.full(3, 0.3), 0.1)
    body = {"schema": 1, "as_of": LAST, "symbols": list(NAMES), "observation": [float(value) for value in seen]}
    answer = serving.predict_fn(serving.input_fn(json.dumps(body), "application/json"), model)
    assert (len(answer["scores"]), answer["diagnostics"]["tradable"]) == (3, int(last.tradable[-1].sum()))
    assert load_policy(served, expected_feature_hash=model.policy.card.feature_hash, slots=EVERY_HALF_HOUR).card == model.policy.card
    with pytest.raises(PolicyError, match=r"slots must be open\+5, was open\+30, "):
        load_policy(served, expected_feature_hash=model.policy.card.feature_hash, slots=("open+5",))


@pytest.mark.rehearse
def test_what_trades_is_refitted_a_session_later_and_compared_with_what_it_follows(world: World, tmp_path: Path) -> None:
    """The weekly refit: due again, judged by session against the package that trades, no second trial of the configuration."""

    def weekly(root: Path, settings: Settings) -> dict[str, Any]:
        world.build(settings)
        small_run.train(world.channel(root / "input" / "features"), root / "trained-0", "--seed", "0", chosen=settings)
        small_run.pack(root / "trained-0", root / "input" / "model-0")
        return small_run.evaluate(root, trials=str(tmp_path / "trials"), chosen=settings, arguments=["--package-group", "papertape"])

    first = weekly(tmp_path / "first", chosen(live_start="2020-01-28"))
    model = (tmp_path / "first" / "output" / "model" / "model.tar.gz").read_bytes()
    boto3.client("s3").put_object(Bucket=world.processed.name, Key="models/1/model.tar.gz", Body=model)
    register(first["metadata"], status="Approved")
    refit = weekly(tmp_path / "second", chosen(live_start="2020-01-30"))
    words = "papertape/1 trades and is of this configuration: a refit on newer data"
    assert due_of(tmp_path / "second", tmp_path / "trials", chosen(live_start="2020-01-30")) == {"due": True, "reason": words}
    assert refit["gate"]["title"] == "refit check"
    assert (refit["configuration"], len(refit["trials"])) == (first["configuration"], 1)
    recent = next(check for check in refit["gate"]["checks"] if check["name"] == "recent")
    assert recent["sentence"].startswith("over the last 5 sessions (63 are needed)"), "sessions of twelve rows each"


def test_the_purge_between_folds_of_a_forecast_is_of_sessions() -> None:
    assert (purge_rows(chosen()), purge_rows(chosen(purge_sessions=3))) == (12, 36)
    assert purge_rows(small_run.settings()) == small_run.settings().training.purge_sessions


def test_a_view_of_other_rows_than_the_settings_is_never_trained_on(world: World, tmp_path: Path) -> None:
    world.build(chosen())
    channel = world.channel(tmp_path / "features")
    of_all = sections()["schedule"]
    for changed, words in (
        ({"schedule": of_all | {"slots": EVERY_HALF_HOUR[:-1]}}, r"slots .*, open\+330, each 30 minutes long, of feed iex"),
        ({"schedule": of_all | {"slot_window_minutes": 15}}, r"slots .*, open\+360, each 15 minutes long, of feed iex"),
        ({"data": {"minutes_feed": "sip"}}, r"slots .*, open\+360, each 30 minutes long, of feed sip"),
    ):
        other = rows_said(small_run.settings(**sections() | changed))
        with pytest.raises(DatasetError, match=f"^manifest.json: must be of bars of the {words}, as the settings have it, was of .*; b"):
            read_channel(channel, symbols=NAMES, live_start=date(2020, 1, 30), rows=other)
    with pytest.raises(DatasetError, match="the files must hold a row per session, as the settings have it, were slot bars"):
        read_channel(channel, symbols=NAMES, live_start=date(2020, 1, 30))
