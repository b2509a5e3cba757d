"""The market that a replay of slot bars is compared with: of the exchange's minutes, which put together are the day; and who replays it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from local.replay import demo, soak
from local.replay.parity import history_starts
from local.replay.replayed_minutes import minutes_start, slot_market
from local.replay.schedule import PlanError
from papertape.market_data import bundled
from papertape.market_data.sessions import sessions_between
from schema.settings import Settings, load
from schema.slot import SlotRows
from trading_env.data.features import HISTORY_SESSIONS
from trading_env.data.market import build_market

DAILY = load(Path(__file__).parents[4] / "data" / "settings.toml")
SYMBOLS = ("AAPL", "SPY")


@pytest.fixture(scope="module")
def minutes() -> Settings:
    document = DAILY.model_dump()
    document["universe"]["symbols"] = SYMBOLS
    document["training"]["timeframe"] = "1Min"
    return Settings.model_validate(document)


def test_a_slot_at_the_open_has_the_daily_bars_to_the_bit_through_a_split(minutes: Settings) -> None:
    start, end = date(2020, 8, 27), date(2020, 9, 2)
    gathered = slot_market(minutes, SlotRows((0,), 30), start=start, end=end)
    bars = bundled.daily_bars()
    daily = build_market(bars[bars["session"].between(str(start), str(end))], bundled.corporate_actions(), symbols=SYMBOLS)
    assert (gathered.by_slot, daily.by_slot) == (True, False)
    np.testing.assert_array_equal(gathered.days, daily.sessions)
    for name in ("open", "high", "low", "close", "volume", "split", "dividend"):
        np.testing.assert_array_equal(getattr(gathered, name), getattr(daily, name), err_msg=name)


@pytest.mark.parametrize("slots", [(5, 120), tuple(range(30, 390, 30))])
def test_minutes_begin_where_the_row_before_a_session_has_its_whole_history(slots: tuple[int, ...]) -> None:
    first = date(2020, 1, 2)
    start = minutes_start(SlotRows(slots, 5), first=first)
    sessions = sessions_between(start, first)[:-1]
    assert (len(sessions) - 1) * len(slots) >= HISTORY_SESSIONS
    assert (len(sessions) - 2) * len(slots) < HISTORY_SESSIONS


def test_parity_needs_minutes_before_what_a_policy_is_trained_on_and_else_before_what_it_trades(minutes: Settings) -> None:
    assert history_starts(DAILY, policy="trained", first="2020-01-02") == "2005-01-03"
    assert history_starts(minutes, policy="equal-weight", first="2020-01-02") == "2017-08-11"
    assert history_starts(minutes, policy="equal-weight", first="2020-09-01") == "2017-08-11", (
        "before the eve there is nothing else to know"
    )
    dated = minutes.model_copy(update={"training": minutes.training.model_copy(update={"start": date(2019, 1, 2)})})
    assert history_starts(dated, policy="trained", first="2020-01-02") == "2016-08-11"


def test_what_replays_years_of_daily_bars_refuses_slot_bars_before_it_starts_anything(minutes: Settings, tmp_path: Path) -> None:
    with pytest.raises(
        PlanError, match=r'papertape demo replays daily bars: training.timeframe must be "1Day", was "1Min"; papertape parity'
    ):
        demo.run(minutes, console=Console(quiet=True))
    with pytest.raises(PlanError, match="papertape soak replays daily bars"):
        soak.run(minutes, console=Console(quiet=True), specs=(), folder=tmp_path / "soak")
    assert not (tmp_path / "soak").exists()
