"""The year 2020 through the deployed functions: at every session the equity that the backtest has, for three policies."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date
from pathlib import Path

import pytest
from rich.console import Console

from local.aws.emulator import ROOT
from local.replay import parity
from local.replay.parity import POLICIES, TOLERANCE, Agreement
from papertape.market_data.sessions import sessions_between
from schema.settings import load


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parity") / "run"


@pytest.fixture(scope="module")
def agreements(run_folder: Path) -> dict[str, Agreement]:
    """All of 2020, crash and split included; the artifact is trained for seconds only, since parity asks who decides, not how well."""
    settings = load(ROOT / "settings.toml")
    brief = settings.training.model_copy(update={"timesteps": 8192, "test_start": date(2018, 1, 2)})
    return parity.run(
        settings.model_copy(update={"training": brief}),
        console=Console(quiet=True),
        sessions=sessions_between(date(2020, 1, 2), date(2020, 12, 31)),
        folder=run_folder,
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_traded_equity_is_the_backtests_at_every_session(agreements: dict[str, Agreement], policy: str) -> None:
    found = agreements[policy]
    assert found.sessions == 253
    assert found.largest_gap <= TOLERANCE, found
    assert found.ledger_matches_broker
    assert found.duplicates == 0
    assert found.orders > 253


def test_the_policies_are_three(agreements: dict[str, Agreement]) -> None:
    assert len({one.final_equity for one in agreements.values()}) == len(POLICIES)


def test_the_summary_holds_what_was_found(agreements: dict[str, Agreement], run_folder: Path) -> None:
    summary = json.loads((run_folder / "summary.json").read_text(encoding="utf-8"))
    assert summary == {policy: asdict(one) for policy, one in agreements.items()}
