"""What the research commands settle before they work: bars, universe, dates, and which trainings go to which process."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from papertape.market_data import bundled
from papertape.research.evaluate import as_typed
from papertape.research.study import ResearchError, StudyOptions, study
from papertape.research.training_run import Task, tasks
from schema.settings import SettingsError

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def daily() -> pd.DataFrame:
    bars = bundled.daily_bars()
    return bars[bars["session"].between("2010-01-01", "2014-12-31")]


@pytest.fixture(scope="module")
def own(daily: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "mine.parquet"
    daily[daily["symbol"].isin(["AAPL", "IBM", "BAC"])].to_parquet(path)
    return path


def test_without_bars_it_is_the_bundled_universe_under_the_settings() -> None:
    found = study(StudyOptions())
    assert found.bundled
    assert found.notes == ()
    assert found.settings.universe.symbols == found.market.symbols
    assert (found.settings.universe.benchmark, found.settings.training.folds) == ("SPY", 8)


def test_what_depends_on_own_bars_follows_from_them(own: Path) -> None:
    found = study(StudyOptions(bars=own))
    assert found.settings.universe.symbols == found.market.symbols == ("AAPL", "BAC", "IBM")
    assert found.settings.universe.benchmark is None
    with pytest.raises(SettingsError, match=r"universe\.benchmark must be one of symbols, AAPL, BAC, IBM; it is missing"):
        _ = found.settings.universe.required_benchmark
    training = found.settings.training
    first = found.market.sessions[found.market.tradable.any(axis=1)][0]
    assert training.start == first.astype(object) == date(2011, 1, 3)
    assert training.live_start == date(2015, 1, 1)
    assert training.test_start == date(2012, 5, 2)  # a third of 1,006 sessions
    assert found.notes[0] == "3,774 daily bars of 3 names, 2010-01-04 to 2014-12-31"
    assert found.dates[-1] == "dates from the bars: training from 2011-01-03, tests from 2012-05-02, nothing from 2015-01-01 on"


def test_short_bars_leave_what_training_needs_before_the_first_test(own: Path) -> None:
    training = study(StudyOptions(bars=own, live_start=date(2013, 1, 2))).settings.training
    assert training.live_start == date(2013, 1, 2)
    assert training.test_start == date(2012, 1, 11)  # after 258 sessions, more than a third of 502


@pytest.fixture(scope="module")
def three_years(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """753 sessions of three names."""
    bars = bundled.daily_bars()
    own = bars[bars["symbol"].isin(["AAPL", "IBM", "BAC"]) & bars["session"].between("2013-01-02", "2015-12-28")]
    assert own["session"].nunique() == 753
    path = tmp_path_factory.mktemp("short") / "mine.parquet"
    own.to_parquet(path)
    return path


@pytest.mark.parametrize(("quick", "folds", "judged"), [(True, 3, 162), (False, 7, 162)])
def test_three_years_of_own_bars_have_room_for_folds_and_a_holdout(three_years: Path, quick: bool, folds: int, judged: int) -> None:
    found = study(StudyOptions(bars=three_years, quick=quick))
    *tests, holdout = found.folds()
    assert len(tests) == found.settings.training.folds == folds
    assert holdout.test_end == found.market.sessions[-1]
    assert found.dates[-1].startswith(f"short bars: a holdout of {found.settings.training.holdout_sessions} sessions instead of 252")
    assert ("folds instead of 8" in found.dates[-1]) is not quick
    assert found.dates[-1].endswith("can never pass the gate, which asks for 1,500 judged sessions and a holdout of 252")


def test_bars_that_are_too_short_to_train_say_how_many_would_do(three_years: Path, tmp_path: Path) -> None:
    daily = pd.read_parquet(three_years)
    path = tmp_path / "two.parquet"
    daily[daily["session"] < "2015-01-01"].to_parquet(path)
    found = study(StudyOptions(bars=path))  # enough for a backtest
    with pytest.raises(
        ResearchError, match="504 sessions are too few to train and judge on: bring 552 or more, 252 for the features, 258 to"
    ):
        found.folds()
    days = sorted(daily["session"].unique())
    daily[daily["session"] <= days[551]].to_parquet(path)
    assert len(study(StudyOptions(bars=path)).folds()) == 2


def test_a_training_until_a_day_is_of_every_session_up_to_it(own: Path) -> None:
    for options, first in (
        (StudyOptions(until=date(2013, 6, 30)), date(2006, 1, 3)),
        (StudyOptions(bars=own, until=date(2013, 6, 30)), date(2011, 1, 3)),
    ):
        found = study(options)
        (fold,) = found.folds()
        assert (fold.train_start, fold.train_end) == (np.datetime64(first), np.datetime64("2013-06-28"))
        assert found.settings.training.dates.live_start == date(2013, 7, 1)
        assert found.dates == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            StudyOptions(until=date(2006, 12, 29)),
            "--until 2006-12-29 leaves 251 sessions to train on from 2006-01-03 on, 253 are needed, so 2007-01-0",
        ),
        (StudyOptions(until=date(1999, 1, 4)), "leaves 0 sessions to train on"),
        (StudyOptions(until=date(2013, 6, 28), start=date(2021, 1, 4)), "253 are needed, the bars end 2021-03-31"),
        (StudyOptions(until=date(2013, 6, 28), folds=2, test_start=date(2012, 1, 3)), "leave --test-start, --folds out"),
    ],
)
def test_a_training_until_a_day_that_cannot_be_is_refused_with_what_could(options: StudyOptions, words: str) -> None:
    with pytest.raises(ResearchError) as caught:
        study(options)
    assert words in str(caught.value)


def test_options_are_above_the_bars(own: Path) -> None:
    options = StudyOptions(bars=own, symbols=("IBM", "AAPL"), test_start=date(2013, 1, 2), folds=3, seeds=2, timesteps=5000)
    found = study(options)
    training = found.settings.training
    assert found.market.symbols == ("IBM", "AAPL")
    assert (training.test_start, training.folds, training.seeds, training.timesteps) == (date(2013, 1, 2), 3, (0, 1), 5000)
    assert found.arguments == f" --bars {own} --symbols IBM,AAPL"


def test_a_settings_file_of_ones_own_is_taken_at_its_word(own: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    text = (ROOT / "data" / "settings.toml").read_text(encoding="utf-8")
    mine.write_text(text.replace("test_start = 2011-01-03", "test_start = 2012-06-01"), encoding="utf-8")
    training = study(StudyOptions(bars=own, settings=mine)).settings.training
    assert (training.start, training.test_start, training.live_start) == (date(2006, 1, 3), date(2012, 6, 1), date(2020, 1, 2))
    mine.write_text(text.replace("max_orders_per_day = 60", "max_orders_per_day = 2"), encoding="utf-8")
    with pytest.raises(
        ResearchError, match=r"max_orders_per_day must be 3 or more, one rebalancing of 3 names, was 2; set it in .*mine.toml"
    ):
        study(StudyOptions(bars=own, settings=mine))


def test_automatic_dates_are_as_of_the_newest_bar(own: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    text = (ROOT / "data" / "settings.toml").read_text(encoding="utf-8")
    for pinned in ("start = 2006-01-03", "test_start = 2011-01-03", "live_start = 2020-01-02"):
        text = text.replace(f"\n{pinned}", f'\n{pinned.split(" ")[0]} = "auto"')
    mine.write_text(text, encoding="utf-8")
    dates = study(StudyOptions(settings=mine)).settings.training.dates
    assert [str(day) for day in dates] == ["2017-01-01", "2019-01-01", "2021-04-01"]
    given = StudyOptions(bars=own, settings=mine, start=date(2011, 1, 3))
    assert [str(day) for day in study(given).settings.training.dates] == ["2011-01-03", "2013-01-03", "2015-01-01"]
    with pytest.raises(SettingsError, match=r"^settings as of 2014-12-31: training: start < test_start < live_start must hold"):
        study(StudyOptions(bars=own, settings=mine))


def test_quick_is_three_folds_of_two_seeds_unless_more_is_asked() -> None:
    training = study(StudyOptions(quick=True)).settings.training
    assert (training.folds, training.seeds) == (3, (0, 1))
    assert study(StudyOptions(quick=True, seeds=3)).settings.training.seeds == (0, 1, 2)


def test_more_names_than_orders_a_day_raise_the_limit(daily: pd.DataFrame, tmp_path: Path) -> None:
    one = daily[daily["symbol"].eq("IBM") & daily["session"].lt("2011-06-01")]
    many = pd.concat([one.assign(symbol=f"X{number}") for number in range(61)])
    path = tmp_path / "many.parquet"
    many.to_parquet(path)
    assert study(StudyOptions(bars=path)).settings.risk.max_orders_per_day == 61


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (StudyOptions(adjusted=True), "--adjusted, --raw and --actions are for bars of your own: give them with --bars FILE"),
        (StudyOptions(symbols=("AAPL", "TLT")), "GOOG, GOOGL, IBM, IWM, QQQ, SPY, TLT is none of them; bring bars with --bars FILE"),
    ],
)
def test_what_does_not_fit_the_bundled_bars_is_refused(options: StudyOptions, words: str) -> None:
    with pytest.raises(ResearchError) as caught:
        study(options)
    assert words in str(caught.value)


def test_one_name_is_no_universe() -> None:
    with pytest.raises(SettingsError, match=r"^settings and options: universe.symbols = .* at least 2 items"):
        study(StudyOptions(symbols=("AAPL",)))


def test_too_few_sessions_for_features_are_refused(daily: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "short.parquet"
    daily[daily["session"] < "2010-06-01"].to_parquet(path)
    with pytest.raises(ResearchError, match="102 sessions are too few: features need a year of bars"):
        study(StudyOptions(bars=path))


@pytest.mark.parametrize(
    ("missing", "workers", "dealt"),
    [
        ({0: [0, 1, 2], 1: [0, 1, 2]}, 2, [Task(0, (0, 1, 2)), Task(1, (0, 1, 2))]),
        ({0: [0, 1, 2]}, 2, [Task(0, (0, 2)), Task(0, (1,))]),
        ({0: [0, 1], 1: [], 2: [0, 1], 3: [1]}, 2, [Task(0, (0,)), Task(0, (1,)), Task(2, (0,)), Task(2, (1,)), Task(3, (1,))]),
        ({0: [8]}, 16, [Task(0, (8,))]),
        ({0: []}, 4, []),
    ],
)
def test_trainings_are_dealt_out_so_that_no_core_waits(missing: dict[int, list[int]], workers: int, dealt: list[Task]) -> None:
    assert tasks(missing, workers=workers) == dealt


def test_a_command_is_shown_without_this_machines_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    typed = [str(ROOT / "papertape.py"), "evaluate", "--bars", str(tmp_path / "a b" / "mine.csv"), f"--out={ROOT / 'out'}", "--quick"]
    assert as_typed(typed) == "papertape evaluate --bars 'a b/mine.csv' --out=out --quick"
