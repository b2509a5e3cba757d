"""Decisions on minute bars in the templates: who reads the tables of slot rows, and nothing that is left of the daily ones'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schema.sections.dashboard import DashboardSettings
from schema.sections.feature_store import FeatureStoreSettings
from schema.sections.realtime import RunnerSettings, StreamSettings
from schema.settings import Settings
from tests.infrastructure.assembly import STACKS, Assembly, synthesize
from tests.infrastructure.gates import check_templates


def test_the_checks_pass_with_them(changed_settings: Assembly) -> None:
    check_templates(changed_settings.folder, "features", "model")


def test_each_reader_and_writer_has_the_prefix_of_slot_rows_and_none_that_of_daily_ones(aws: Assembly, changed_settings: Assembly) -> None:
    def places(assembly: Assembly) -> set[tuple[str, str]]:
        texts = {stack: json.dumps(template) for stack, template in assembly.templates.items()}
        tables = ("processed/features/", "processed/training/")
        return {(stack, table) for stack, text in texts.items() for table in tables if f"{table}timeframe=1Day/" in text}

    assert places(changed_settings) == set()
    swapped = {
        stack: json.loads(json.dumps(template).replace("/timeframe=1Min/", "/timeframe=1Day/"))
        for stack, template in changed_settings.templates.items()
    }
    assert (
        places(Assembly(changed_settings.folder, swapped))
        == places(aws)
        == {
            ("features", "processed/features/"),
            ("model", "processed/training/"),
            ("trading", "processed/training/"),
        }
    )


def test_a_slot_row_is_known_when_the_next_slot_begins_and_a_daily_one_at_the_close(aws: Assembly, changed_settings: Assembly) -> None:
    def view(assembly: Assembly) -> str:
        queries = [one["Properties"] for _, _, one in assembly.resources("AWS::Athena::NamedQuery")]
        return next(one["QueryString"] for one in queries if one["Name"] == "features_as_of")

    close = """CAST(replace(replace(s."close", 'T', ' '), 'Z', '') AS timestamp)"""
    assert f"SELECT f.*, {close} AS known_at" in view(aws)
    next_slot = "lead(f.session) OVER (PARTITION BY f.symbol, CAST(f.session AS date) ORDER BY f.session)"
    assert f"SELECT f.*, COALESCE({next_slot}, {close}) AS known_at" in view(changed_settings)


def test_what_waits_for_the_vendor_s_budget_is_the_backfill_with_minutes(aws: Assembly, changed_settings: Assembly) -> None:
    def waits(assembly: Assembly) -> dict[str, str]:
        variables = {name: function["Environment"]["Variables"] for name, function in assembly.functions().items()}
        return {name: own["BROKER_RESET_TIMEOUT"] for name, own in variables.items() if "BROKER_RESET_TIMEOUT" in own}

    assert (waits(aws), waits(changed_settings)) == ({}, {"backfill_bars": "65"})


@pytest.mark.rehearse
def test_with_all_that_is_optional_the_checks_pass_too(tmp_path: Path, settings: Settings) -> None:
    everything = Settings.model_validate(
        {
            **settings.model_dump(),
            "training": {**settings.training.model_dump(), "timeframe": "1Min"},
            "schedule": {**settings.schedule.model_dump(), "slots": ("open+5", "open+120", "open+240")},
            "dashboard": DashboardSettings(enabled=True, user="owner@example.com"),
            "feature_store": FeatureStoreSettings(enabled=True),
            "runner": RunnerSettings(enabled=True),
            "stream": StreamSettings(kind="firehose"),
        }
    )
    found = synthesize(tmp_path, settings=everything)
    check_templates(found.folder, *STACKS, "dashboard", "stream", "realtime")
    assert "timeframe=1Day/manifest.json" not in (tmp_path / "papertape-trading.template.json").read_text()
