"""Two sessions of 400 generated names through the deployed functions: the backtest's equity at every session, no order twice.

What moved by less than `LEAST` dollars is left alone, as whoever holds so many names would; the first session still orders each of them.
The broker's 200 requests per minute are not in force here, for a session lasts seconds: tests/aws/lambdas/test_many_names.py has a morning
under them.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from lambdas.common.ledger.records import ServedModel
from local.aws.emulator import ROOT
from local.replay import schedule
from local.replay.driver import replay
from local.replay.local_deployment import LocalDeployment, synthesize
from local.replay.parity import TOLERANCE
from papertape.market_data.sessions import sessions_between
from papertape.research.reference_backtests import ReferenceBacktests
from schema.settings import load
from tests.many_names import MANY, generated
from trading_env.data.market import build_market
from trading_env.data.raw_lines import action_table
from trading_env.simulation.policy import EqualWeight

START, EVE = "2018-10-15", "2019-12-31"
SESSIONS = (date(2020, 1, 2), date(2020, 1, 3))
LEAST = 50.0


@pytest.mark.rehearse
def test_sessions_of_400_names_are_traded_as_they_are_backtested(tmp_path: Path) -> None:
    settings = load(ROOT / "data" / "settings.toml")
    portfolio = settings.portfolio.model_copy(update={"initial_cash": 1e6, "min_notional": LEAST})
    risk = settings.risk.model_copy(update={"max_orders_per_day": len(MANY)})
    universe = settings.universe.model_copy(update={"symbols": MANY, "benchmark": MANY[0]})
    settings = settings.model_copy(update={"universe": universe, "portfolio": portfolio, "risk": risk})
    bars = generated(start=START, end=SESSIONS[1].isoformat())
    bars.to_parquet(tmp_path / "bars.parquet", index=False)
    synthesize(tmp_path / "cdk.out", settings=settings)
    fills: list[int] = []
    with LocalDeployment(tmp_path / "run", settings=settings, now=f"{EVE}T22:00:00Z", data=tmp_path / "bars.parquet") as deployment:
        deployment.deploy(tmp_path / "cdk.out", with_cli=False)
        deployment.backfill(start=START)
        since, name = f"{EVE}T22:00:00Z", "equal-weight"
        deployment.ledger.put_model(
            ServedModel(role="incumbent", policy=name, spec=name, model_version=name, kappa=EqualWeight().kappa, since=since)
        )
        traded = replay(
            cloud=deployment,
            exchange=deployment.exchange,
            ledger=deployment.ledger,
            sessions=sessions_between(*SESSIONS),
            entries=schedule.parity(settings),
            prefix=settings.name,
            on_session=lambda day: fills.append(day.fills),
        )
    market = build_market(bars, action_table([]), symbols=MANY)
    expected = ReferenceBacktests(settings, start=SESSIONS[0], end=SESSIONS[1], market=market).of(EqualWeight())
    gap = np.abs(np.asarray(traded.equity) / expected.equity - 1).max()
    print(f"{len(fills)} sessions, {sum(fills)} fills, largest gap {gap:.1e}")
    assert (fills[0], len(fills), traded.duplicates, traded.rejected, traded.matches) == (len(MANY), 2, 0, 0, True)
    assert gap <= TOLERANCE
