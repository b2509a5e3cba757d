"""Feature Store as an option: nothing of it by default; with it, groups as the table has them, one grant to write and none to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from cdk_nag import AwsSolutionsChecks

import app as application
from schema.features.groups import groups_in_table
from schema.sections.feature_store import FeatureStoreSettings
from schema.settings import Settings
from stacks.features import FeaturesStack
from stacks.lake import LakeStack
from tests.infrastructure.assembly import ROOT
from tests.infrastructure.gates import check_templates

IN_TABLE = groups_in_table(sentiment=False)

Template = dict[str, Any]


def features_template(folder: Path, settings: Settings) -> str:
    """The features stack's template as text, after cdk-nag."""
    app = application.new_app(folder)
    env = cdk.Environment(region=settings.region)
    lake = LakeStack(app, f"{settings.name}-lake", settings=settings, env=env)
    FeaturesStack(app, f"{settings.name}-features", settings=settings, lake=lake, env=env)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks())
    app.synth()
    return (folder / f"{settings.name}-features.template.json").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def switched_on(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> tuple[Path, Template]:
    folder = tmp_path_factory.mktemp("feature-store")
    on = settings.model_copy(update={"feature_store": FeatureStoreSettings(enabled=True)})
    return folder, json.loads(features_template(folder, on))


@pytest.fixture(scope="module")
def switched_off(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> str:
    return features_template(tmp_path_factory.mktemp("no-feature-store"), settings)


def of(template: Template, kind: str) -> list[Template]:
    return [resource["Properties"] for resource in template["Resources"].values() if resource["Type"] == kind]


def test_off_is_the_default_and_leaves_nothing_in_the_template(switched_off: str, settings: Settings) -> None:
    document = settings.model_dump(exclude={"feature_store"})
    without, off = (Settings.model_validate(one) for one in (document, {**document, "feature_store": {"enabled": False}}))
    assert without == off == settings
    assert not [word for word in ("FeatureGroup", "feature-store", "featurestore", "PutRecord") if word in switched_off]


def test_switched_on_it_adds_groups_and_a_role_and_changes_nothing_else(switched_on: Any, switched_off: str) -> None:
    _, template = switched_on
    before = json.loads(switched_off)["Resources"]
    added = {name: resource["Type"] for name, resource in template["Resources"].items() if name not in before}
    assert sorted(added.values()) == ["AWS::IAM::Policy", "AWS::IAM::Role", *["AWS::SageMaker::FeatureGroup"] * len(IN_TABLE)]
    changed = {before[name]["Type"] for name in before if before[name] != template["Resources"][name]}
    assert changed == {"AWS::IAM::Policy", "AWS::Glue::Job"}, "the job's grant, and the settings in its archive"


def test_the_groups_are_the_tables(switched_on: Any) -> None:
    _, template = switched_on
    made = {group["FeatureGroupName"]: group for group in of(template, "AWS::SageMaker::FeatureGroup")}
    assert made.keys() == {f"papertape-{group.name.replace('_', '-')}" for group in IN_TABLE}
    for group in IN_TABLE:
        found = made[f"papertape-{group.name.replace('_', '-')}"]
        types = {one["FeatureName"]: one["FeatureType"] for one in found["FeatureDefinitions"]}
        assert types == {"symbol": "String", "event_time": "String", **dict.fromkeys(group.columns, "Fractional")}
        assert (found["RecordIdentifierFeatureName"], found["EventTimeFeatureName"]) == ("symbol", "event_time")
        assert found["OnlineStoreConfig"] == {"EnableOnlineStore": True}
        assert json.dumps(found["OfflineStoreConfig"]["S3StorageConfig"]["S3Uri"]).endswith('/processed/feature-store"]]}')


def test_the_job_may_put_records_and_nobody_may_read_one(switched_on: Any) -> None:
    _, template = switched_on
    statements = [one for policy in of(template, "AWS::IAM::Policy") for one in policy["PolicyDocument"]["Statement"]]
    (put,) = [one for one in statements if one["Action"] == "sagemaker:PutRecord"]
    assert len(put["Resource"]) == len(IN_TABLE)
    assert all("feature-group/papertape-" in json.dumps(one) and "*" not in json.dumps(one) for one in put["Resource"])
    assert "GetRecord" not in json.dumps(template)
    written = next(one for one in statements if "s3:PutObjectAcl" in one["Action"])
    assert json.dumps(written["Resource"]).count("/processed/feature-store/*") == 1


def test_the_checks_pass_with_it(switched_on: Any) -> None:
    folder, _ = switched_on
    check_templates(folder, "features")


def test_only_the_job_and_its_stack_know_of_it() -> None:
    """What decides, trains, serves or trades has no word of the store: it cannot depend on it."""
    folders = ("lambdas", "learning", "sagemaker", "trading_env", "sources")
    words = ("feature_store", "featurestore", "FeatureGroup", "feature-store", "features.records")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 100
    assert not [path for path in sources if any(word in path.read_text(encoding="utf-8") for word in words)]
    asking = [path for path in (ROOT / "stacks").rglob("*.py") if "settings.feature_store" in path.read_text(encoding="utf-8")]
    assert [path.name for path in asking] == ["features.py"]
