"""Traded through the deployed functions: at every session the equity that the backtest has.

Always: equal weight through the crash of 2020 (`test_split_week` holds all three policies to their backtests over the week of the split).
In the rehearsal: the wildest trader through the crash, the trained policy over the split; all three over all of 2020 is `make parity`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Literal

import pytest
from rich.console import Console

from local.aws.emulator import ROOT
from local.replay import parity
from local.replay.parity import POLICIES, TOLERANCE, Agreement
from papertape.market_data.sessions import sessions_between
from schema.sections.learning import FeatureSettings
from schema.settings import load

CRASH = (date(2020, 2, 18), date(2020, 4, 9))
FORTNIGHT = (date(2020, 1, 2), date(2020, 1, 15))


def traded(
    folder: Path, *, policies: Sequence[str], period: tuple[date, date], sentiment: Literal["none", "daily"] = "none"
) -> dict[str, Agreement]:
    """The artifact is trained for seconds only, since parity asks who decides, not how well; and by PPO, which has a view by then."""
    settings = load(ROOT / "data" / "settings.toml").model_copy(update={"features": FeatureSettings(sentiment=sentiment)})
    brief = settings.training.model_copy(update={"algorithm": "ppo", "timesteps": 8192, "test_start": date(2018, 1, 2)})
    sessions = sessions_between(*period)
    agreements = parity.run(
        settings.model_copy(update={"training": brief}),
        console=Console(quiet=True),
        sessions=sessions,
        policies=policies,
        folder=folder,
    )
    assert {one.sessions for one in agreements.values()} == {len(sessions)}
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary == {policy: asdict(one) for policy, one in agreements.items()}
    return agreements


def agrees(found: Agreement) -> None:
    assert found.largest_gap <= TOLERANCE, found
    assert found.ledger_matches_broker
    assert found.duplicates == 0
    assert found.orders > found.sessions


def test_equal_weight_trades_the_crash_as_it_is_backtested(tmp_path: Path) -> None:
    found = traded(tmp_path / "run", policies=POLICIES[:1], period=CRASH)
    assert found.keys() == {"equal-weight"}
    agrees(found["equal-weight"])


@pytest.mark.rehearse
def test_a_policy_that_reads_sentiment_trades_a_fortnight_as_it_is_backtested(tmp_path: Path) -> None:
    """Collected, scored and read back by `decide` session by session; in the backtest all at once. No score at all is another book."""
    found = traded(tmp_path / "run", policies=["trained"], period=FORTNIGHT, sentiment="daily")["trained"]
    agrees(found)
    assert found.moved_by_sentiment > TOLERANCE, found


#: Who trades most goes through the crash, and the trained policy over the split of AAPL.
MONTHS = {"random:7": (date(2020, 2, 18), date(2020, 4, 30)), "trained": (date(2020, 7, 1), date(2020, 9, 4))}


@pytest.mark.rehearse
@pytest.mark.parametrize("policy", MONTHS)
def test_months_are_traded_as_they_are_backtested(policy: str, tmp_path: Path) -> None:
    agrees(traded(tmp_path / "run", policies=[policy], period=MONTHS[policy])[policy])
