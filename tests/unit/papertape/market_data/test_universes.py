"""What a study is of when a list or a rule chooses its names: ended names are in it, and what is missing is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from papertape.market_data.universes import universe_of
from papertape.research.study import ResearchError, StudyOptions, study
from papertape.research.training_run import write_channel
from schema.universes import UniverseError
from tests.unit.trading_env.data.test_membership import bars_of
from trading_env.data.market import from_table
from trading_env.evaluation.backtest import backtest
from trading_env.simulation.policy import EqualWeight
from trading_env.simulation.portfolio import Costs, Rules


@pytest.fixture(scope="module")
def failing() -> pd.DataFrame:
    """Generated bars, three years: twelve names that drift alike, of which the half that does badly ends, one after the other."""
    rng = np.random.default_rng(42)
    close = {f"N{n:02d}": 40 * np.exp(np.cumsum(rng.normal(0.0002, 0.02, 780))) for n in range(12)}
    for place, name in enumerate(sorted(close, key=lambda one: close[one][-1])[:6]):
        end = 780 - 60 * (place + 1)
        close[name][end - 40 : end] *= np.linspace(1, 0.3, 40)
        close[name][end:] = np.nan
    return bars_of(close)


@pytest.fixture(scope="module")
def file(failing: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bars") / "failing.csv"
    failing.to_csv(path, index=False)
    return path


def test_a_study_by_rule_holds_the_names_that_ended_and_survivors_would_have_grown_more(file: Path, failing: pd.DataFrame) -> None:
    survivors = tuple(sorted(failing[failing["session"] == failing["session"].max()]["symbol"]))
    assert len(survivors) == 6
    honest, biased = study(StudyOptions(bars=file, universe="most-traded:8")), study(StudyOptions(bars=file, symbols=survivors))
    assert set(honest.market.symbols) - set(survivors)
    assert "most-traded:8 made 12 of 12 names members, 6 of which ended before the last session" in honest.notes
    start, rules = (
        np.flatnonzero(honest.market.tradable.any(axis=1))[0] + 1,
        Rules(cash_buffer=0.0, min_notional=0.0, costs=Costs(slippage_bps=0.0)),
    )
    span = {"start": honest.market.sessions[start], "end": honest.market.sessions[-1]}
    ours, theirs = (backtest(one.market, EqualWeight(), rules=rules, initial_cash=1e5, limits=None, **span) for one in (honest, biased))
    ended = [name not in survivors for name in honest.market.symbols]
    assert (ours.held[:, ended].sum(axis=1) > 0.1).mean() > 0.5
    assert (honest.market.tradable.sum(axis=1) <= 8).all()
    assert np.log(theirs.equity[-1] / ours.equity[-1]) > 0.1, "more than ten per cent of growth that nobody could have had"


def test_the_study_keeps_who_was_a_member_for_training_and_for_the_log(file: Path, tmp_path: Path) -> None:
    found = study(StudyOptions(bars=file, universe="most-traded:8"))
    assert found.settings.universe.chosen_by == "most-traded:8"
    assert found.arguments.endswith(" --universe most-traded:8")
    write_channel(found, tmp_path)
    back = from_table(pd.read_parquet(tmp_path / "features.parquet"))
    np.testing.assert_array_equal(back.leaving, found.market.leaving[: len(back)])
    assert back.leaving.any()


def test_orders_of_a_day_are_counted_by_members_not_by_everyone(file: Path) -> None:
    found = study(StudyOptions(bars=file, universe="most-traded:5"))
    assert len(found.market.symbols) > 8
    assert (found.market.tradable[1:] | found.market.tradable[:-1]).sum(axis=1).max() <= 10


def test_a_settings_file_may_hold_the_rule(file: Path, tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[4] / "data" / "settings.toml").read_text(encoding="utf-8")
    mine = tmp_path / "mine.toml"
    head, _, rest = text.partition("symbols = [")
    dates = rest.partition("]")[2].replace('start = "2006', 'start = "auto" #').replace("holdout_sessions = 252", "holdout_sessions = 21")
    mine.write_text(f'{head}symbols = "most-traded:8"{dates}', encoding="utf-8")
    assert study(StudyOptions(bars=file, settings=mine)).settings.universe.chosen_by == "most-traded:8"
    both = StudyOptions(bars=file, symbols=("N00", "N01"), universe="dow-30")
    with pytest.raises(ResearchError, match="--universe must be dow-30, nasdaq-100 or most-traded:N, was AAPL,IBM; --symbols takes"):
        study(StudyOptions(universe="AAPL,IBM"))
    with pytest.raises(ResearchError, match="--symbols and --universe dow-30 both choose the names: give one of them"):
        study(both)


def test_a_list_says_what_the_bars_lack_and_what_it_does_not_know() -> None:
    bars = bars_of({"AAPL": np.full(60, 50.0), "VZ": np.full(60, 50.0), "WBA": np.full(60, 9.0)}, start="2017-05-01")
    early = universe_of("dow-30", bars)
    assert early.symbols == ("AAPL", "VZ")  # WBA is no member until 2018
    assert early.notes[0] == "dow-30 has bars of 2 of its 30 members from 2017-05-01 to 2017-07-21"
    assert early.notes[1].startswith("dow-30 lacks bars of AXP, BA, CAT, CSCO, CVX, DD, DIS, GE and 20 more; of members that ended,")
    assert early.notes[2] == "dow-30 has its members before 2018-06-26 from one source, not confirmed by a second one"
    late = universe_of("dow-30", bars_of({"AAPL": np.full(60, 50.0), "GOOGL": np.full(60, 50.0)}, start="2026-08-03"))
    assert late.notes[-1] == "dow-30 is as of 2026-06-29 and knows no later change"
    with pytest.raises(UniverseError, match="the bars must hold 2 members of nasdaq-100 or more, have AAPL"):
        universe_of("nasdaq-100", bars[bars["symbol"] != "WBA"])


def test_a_rule_says_what_bias_it_cannot_remove() -> None:
    bars = bars_of({"A": np.full(60, 10.0), "B": np.full(60, 20.0), "C": np.full(60, 5.0)})
    found = universe_of("most-traded:2", bars, adjusted=True)
    assert found.symbols == ("A", "B")
    assert found.notes == (
        "most-traded:2 made 2 of 3 names members, 0 of which ended before the last session",
        "most-traded:2 found no name that ended, as in a file of today's names: survivors' bias is left",
        "most-traded:2 ranks by adjusted prices, which make past dollars of dividend payers smaller; raw prices rank exactly",
    )
    with pytest.raises(UniverseError, match="the bars must hold a second month for most-traded:2"):
        universe_of("most-traded:2", bars[bars["session"] < "2019-02-01"])
