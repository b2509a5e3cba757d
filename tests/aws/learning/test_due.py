"""The pipeline's first step: what is news, and how often a configuration that does not trade is judged again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from moto import mock_aws

from learning import due, registry
from learning.configuration import Configuration
from learning.dataset import data_sha256
from papertape.market_data.sessions import sessions_between
from schema.settings import Settings
from schema.training_dates import as_of
from tests import small_run
from trading_env.data.features import FEATURE_HASH

REGION, GROUP = "us-east-1", "papertape"
CHOSEN = small_run.settings(training={"live_start": "auto", "holdout_sessions": 252})
FIRST = date(2026, 11, 20)
DAYS = np.busday_offset(np.datetime64("2025-01-06", "D"), np.arange(60))


@dataclass
class Weekly:
    """A lake, a log of trials and a registry, and the first step of the pipeline over them."""

    folder: Path
    chosen: Settings = CHOSEN
    built: int = 0

    @property
    def trials(self) -> Path:
        return self.folder / "trials"

    @property
    def channel(self) -> Path:
        return self.folder / "input" / "features"

    def configuration(self, session: date) -> Configuration:
        return Configuration.of(as_of(self.chosen, session))

    def build(self, session: date, *, content: str = "") -> None:
        """A feature build up to the session; `built_for` differs between any two, as every night's does."""
        self.built += 1
        digest = hashlib.sha256((content or str(session)).encode()).hexdigest()
        manifest = {
            "feature_hash": FEATURE_HASH,
            "end": str(session),
            "rows": 1,
            "files": [{"key": "year=2026/part-0.parquet", "rows": 1, "sha256": digest}],
            "built_for": f"run {self.built}",
        }
        self.channel.mkdir(parents=True, exist_ok=True)
        (self.channel / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")

    def judged(self, session: date, status: str, *, opened: bool = False) -> None:
        """Training, judgement and registration as of the session, with a log entry as `evaluate.py` makes it."""
        self.build(session)
        self.log(session, opened=opened)
        self.register(session, status, trial=self.configuration(session).trial)

    def log(self, session: date, *, opened: bool = False) -> None:
        store = registry.trial_store(str(self.trials), region=REGION)
        known, made = registry.read_log(store), self.configuration(session)
        excess = np.random.default_rng(session.toordinal()).normal(size=len(DAYS))
        longer = known.append(
            settings=made.settings,
            feature_hash=made.feature_hash,
            code_hash=made.code_hash,
            sessions=DAYS,
            excess=excess,
            excess_at_kappa=excess,
        )
        if opened:
            longer = longer.open_holdout(
                trial=made.trial, sessions=[session - timedelta(days=1), session], excess=[0.0, 0.0], excess_at_kappa=[0.0, 0.0]
            )
        registry.write_log(store, longer, after=known)

    def register(self, session: date, status: str, *, trial: str) -> None:
        self.build(session)
        boto3.client("sagemaker", region_name=REGION).create_model_package(
            ModelPackageGroupName=GROUP,
            ModelApprovalStatus=status,
            CustomerMetadataProperties={
                "trial": trial,
                "configuration": self.configuration(session).identity,
                "data_sha256": data_sha256(self.channel),
            },
            InferenceSpecification={
                "Containers": [{"Image": "image", "ModelDataUrl": "s3://lake/model.tar.gz"}],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        )

    def ask(self, session: date, **how: Any) -> dict[str, Any]:
        """What `due.py` answers after the build of that session."""
        self.build(session, **how)
        where = ["--root", str(self.folder), "--trials", str(self.trials), "--package-group", GROUP]
        due.main([*where, "--settings", self.chosen.model_dump_json()])
        answer: dict[str, Any] = json.loads((self.folder / "output" / "due" / "due.json").read_text(encoding="utf-8"))
        return answer


@pytest.fixture
def weekly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Weekly]:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        boto3.client("sagemaker", region_name=REGION).create_model_package_group(ModelPackageGroupName=GROUP)
        yield Weekly(tmp_path)


def test_the_first_training_is_due(weekly: Weekly) -> None:
    assert weekly.ask(FIRST) == {"due": True, "reason": "this configuration was never judged"}


@pytest.mark.parametrize("status", ["Approved", "Rejected", "PendingManualApproval"])
def test_the_same_data_and_configuration_end_without_a_new_model(weekly: Weekly, status: str) -> None:
    weekly.judged(FIRST, status)
    answer = weekly.ask(FIRST)
    assert answer == {"due": False, "reason": "nothing changed: papertape/1 was made from the same data, settings and code"}


def test_what_trades_is_refitted_on_each_weeks_data(weekly: Weekly) -> None:
    weekly.judged(FIRST, "Approved")
    for week in range(1, 4):
        session = FIRST + timedelta(weeks=week)
        assert weekly.ask(session) == {
            "due": True,
            "reason": "papertape/1 trades and is of this configuration: a refit on newer data",
        }
        weekly.register(session, "Rejected", trial=weekly.configuration(FIRST).trial)  # a refit that was refused
        assert weekly.ask(session)["reason"].startswith("nothing changed: papertape/")


def test_corrected_bars_of_known_sessions_are_news_for_what_trades(weekly: Weekly) -> None:
    weekly.judged(FIRST, "Approved")
    assert weekly.ask(FIRST, content="a split was found")["due"] is True


@pytest.mark.parametrize("status", ["Rejected", "PendingManualApproval"])
def test_what_was_judged_and_does_not_trade_is_judged_again_after_a_quarter(weekly: Weekly, status: str) -> None:
    weekly.judged(FIRST, status)
    asked = {week: weekly.ask(FIRST + timedelta(weeks=week)) for week in (1, 6, 12, 13, 14)}
    assert [week for week, answer in asked.items() if answer["due"]] == [13, 14]
    words = "this configuration was judged with live_start 2026-11-21 and does not trade; it is judged again from 2027-02-20 on"
    assert {answer["reason"] for answer in asked.values()} == {words}


def test_every_judgement_starts_the_quarter_anew_and_is_charged(weekly: Weekly) -> None:
    for week in (0, 1, 12, 13, 14, 25, 26, 38, 39, 51, 52):
        session = FIRST + timedelta(weeks=week)
        if weekly.ask(session)["due"]:
            weekly.judged(session, "Rejected")
    log = registry.read_log(registry.trial_store(str(weekly.trials), region=REGION))
    assert len(log.trials) == 5, "the first, and one per quarter of the year after it"


def test_after_an_opened_holdout_the_next_look_waits_until_the_holdout_is_all_new(weekly: Weekly) -> None:
    weekly.judged(FIRST, "Rejected", opened=True)
    answer = weekly.ask(FIRST + timedelta(weeks=26))
    assert answer["due"] is False
    assert answer["reason"].endswith("it is judged again from 2027-11-24 on")
    assert len(sessions_between(FIRST + timedelta(days=1), date(2027, 11, 23))) >= 252
    assert weekly.ask(date(2027, 11, 26))["due"] is True


def test_a_judgement_that_was_never_registered_is_finished(weekly: Weekly) -> None:
    """The job ended between the log and the registry: the same trial on the same data is no further look."""
    weekly.log(FIRST)
    assert weekly.ask(FIRST) == {
        "due": True,
        "reason": "this trial is logged and not the newest package: the same judgement again, no further look",
    }
    assert weekly.ask(FIRST + timedelta(weeks=1))["due"] is False


def test_another_configuration_is_due_at_once(weekly: Weekly) -> None:
    weekly.judged(FIRST, "Rejected")
    weekly.chosen = small_run.settings(training={"live_start": "auto", "holdout_sessions": 252, "timesteps": 2000})
    assert weekly.ask(FIRST) == {"due": True, "reason": "this configuration was never judged"}
