"""`papertape run`: with what the deployed runner has, and a line per minute."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import boto3
import pytest
from rich.console import Console

from papertape.operate.client import OperatorError
from papertape.operate.cloud import AppCloud
from papertape.operate.foreground import MinuteLines, variables
from schema.settings import SETTINGS_FILE, Settings

MINUTE = {"minute": "2020-01-02T14:31:00+00:00", "bars": 7, "flawed": 0, "missing": ("AIG",), "quotes": 120, "trades": 9, "orders": 0}
COUNTS = {"reconnects": 0, "unreadable": 0, "differing": 0, "queued": 0, "lost": 0}


def cloud_of(settings: Settings, **more: object) -> AppCloud:
    return AppCloud(name="papertape here", settings=settings, session=boto3.Session(region_name="us-east-1"), **more)  # type: ignore[arg-type]


def test_it_starts_with_the_variables_of_the_deployed_task(aws: None, settings: Settings, tmp_path: Path) -> None:
    given = {"EVENT_BUS_NAME": "market", "LEDGER_TABLE": "ledger", "STREAM_KIND": "none"}
    container = {
        "name": "runner",
        "image": "runner",
        "memory": 512,
        "environment": [{"name": name, "value": value} for name, value in given.items()],
    }
    boto3.client("ecs").register_task_definition(family=f"{settings.name}-runner", containerDefinitions=[container])
    broker = {"ALPACA_TRADING_URL": "http://127.0.0.1:9", "ALPACA_DATA_URL": "http://127.0.0.1:9", "HOME": "/elsewhere"}
    found = variables(cloud_of(settings, broker=broker), folder=tmp_path)
    assert given.items() <= found.items()
    assert (found["ALPACA_TRADING_URL"], found["AWS_REGION"]) == ("http://127.0.0.1:9", settings.region)
    assert found["AWS_ACCESS_KEY_ID"] == boto3.Session().get_credentials().access_key
    assert "HOME" not in found
    assert Settings.model_validate(json.loads(Path(found[SETTINGS_FILE]).read_text(encoding="utf-8"))) == settings


def test_where_none_is_deployed_one_line_says_what_to_do(aws: None, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"papertape here has no runner: set \[runner\] enabled = true and deploy"):
        variables(cloud_of(settings), folder=tmp_path)


def test_a_minute_is_a_line_and_trouble_is_one_more() -> None:
    console = Console(record=True, width=200)
    lines = MinuteLines(console)

    def said(message: str, level: int, extra: dict[str, object]) -> None:
        lines.handle(logging.makeLogRecord({"msg": message, "levelno": level, "levelname": logging.getLevelName(level), **extra}))

    said("minute", logging.INFO, {**MINUTE, **COUNTS})
    said("minute", logging.INFO, {**MINUTE, **COUNTS, "minute": "2020-01-02T14:32:00+00:00", "quotes": 150, "missing": (), "lost": 3})
    said("silent", logging.WARNING, {"feed": "orders", "seconds": 61.0})
    said("start", logging.INFO, {})
    assert console.export_text().splitlines() == [
        "14:31 UTC  7 bars · 120 quotes · none of AIG",
        "14:32 UTC  7 bars · 30 quotes · 3 lost",
        "silent: feed orders, seconds 61.0",
    ]
