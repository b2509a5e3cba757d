"""Research on minute bars: what `--slots` settles, what it refuses, and one run through training, gate and backtest."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from learning.configuration import Configuration
from learning.dataset import DatasetError, read_channel
from papertape.research import evaluate
from papertape.research.backtest import compare
from papertape.research.policies import ChosenPolicyError
from papertape.research.study import ResearchError, Study, StudyOptions, study
from papertape.research.train import next_command
from schema.settings import SettingsError, load
from schema.slot import SlotRows
from tests.minutes import minutes
from trading_env.data.market import build_market
from trading_env.evaluation.lookahead import History, find_changes, history_futures, market_record

ROOT = Path(__file__).resolve().parents[4]
SETTINGS = ROOT / "data" / "settings.toml"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("own") / "minutes.parquet"
    minutes("2019-03-04", "2019-05-03").to_parquet(found)
    return found


@pytest.fixture(scope="module")
def half_hours(path: Path) -> Study:
    """44 sessions of 12 slots: 253 rows are the features', 252 and the purge the first training's."""
    return study(StudyOptions(bars=path, slots="every:30"))


def test_slots_settle_timeframe_window_dates_and_orders(half_hours: Study) -> None:
    settings, market = half_hours.settings, half_hours.market
    assert (settings.training.timeframe, settings.schedule.slot_window_minutes) == ("1Min", 30)
    assert settings.row_slots == tuple(f"open+{minute}" for minute in range(30, 390, 30))
    assert (market.by_slot, len(market), len(np.unique(market.days))) == (True, 44 * 12, 44)
    assert settings.risk.max_orders_per_day == 60  # 3 names in 12 slots are 36
    training_ = settings.training
    # The 253rd row is the first of the 22nd session
    assert training_.start == date(2019, 4, 2)
    assert (training_.purge_sessions, training_.live_start) == (1, date(2019, 5, 4))
    assert half_hours.notes[0] == (
        "51,480 minutes of 3 names in 528 slot bars of 44 sessions, 2019-03-04 to 2019-05-03, 12 slots a session"
    )
    assert " --slots every:30" in half_hours.arguments


def test_bars_without_room_for_training_and_two_judged_sessions_are_refused_before_anything_is_trained(half_hours: Study) -> None:
    with pytest.raises(ResearchError, match=r"23 sessions from 2019-04-02 .* are needed.*; bring more sessions, or decide in more slots"):
        half_hours.folds()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"slots": "open+5"}, "decide on one-minute bars of your own: give them with --bars FILE"),
        ({"slots": "open+5", "bars": "it", "adjusted": True, "actions": Path("a.csv")}, "--actions a.csv is for raw prices"),
        ({"slots": "open+5,open+120", "bars": "it"}, "88 slot bars are too few: features need 253 of a name before it can be traded"),
        ({"bars": "it"}, "AAA has another bar within 2019-03-04, at .*; daily bars are needed, one per name and session"),
    ],
)
def test_what_does_not_fit_minute_bars_is_said_in_one_line(path: Path, options: dict[str, object], words: str) -> None:
    given = {**options, **({"bars": path} if "bars" in options else {})}
    with pytest.raises((ResearchError, ValueError), match=words):
        study(StudyOptions(**given))  # type: ignore[arg-type]


def test_a_window_in_which_no_order_can_be_followed_is_refused_where_it_would_be_deployed(tmp_path: Path) -> None:
    text = SETTINGS.read_text(encoding="utf-8").replace("[training] ", '[training]\ntimeframe = "1Min" ', 1)
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    assert load(tmp_path / "mine.toml").slot_rows == SlotRows((5,), 30)
    (tmp_path / "mine.toml").write_text(text.replace("slot_window_minutes = 30", "slot_window_minutes = 4", 1), encoding="utf-8")
    assert load(tmp_path / "mine.toml", research=True).slot_rows == SlotRows((5,), 4)
    with pytest.raises(SettingsError, match=r"mine\.toml: schedule.slot_window_minutes must be 5 or more where it is deployed, was 4"):
        load(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("slot_window_minutes = 30", "slot_window_minutes = 4", "schedule.slot_window_minutes must be 5 or more, was 4"),
        (
            "holdout_sessions = 252",
            "holdout_sessions = 20",
            "training.holdout_sessions = 20 is not allowed: .* greater than or equal to 21",
        ),
        ("[training] ", '[training]\ntimeframe = "5Min" ', "training.timeframe = '5Min' is not allowed: .*'1Day' or '1Min'"),
        ('sentiment = "none"', 'sentiment = "daily"', 'training.timeframe = "1Min" needs features.sentiment = "none", was "daily"'),
    ],
)
def test_a_setting_that_does_not_fit_the_timeframe_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = SETTINGS.read_text(encoding="utf-8").replace(old, new, 1)
    if "sentiment" in new:
        text = text.replace("[training] ", '[training]\ntimeframe = "1Min" ', 1)
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=words):
        load(tmp_path / "mine.toml", research=True)


def test_a_configuration_of_daily_bars_is_what_it_was_and_one_of_minutes_names_its_slots_and_feed(half_hours: Study) -> None:
    daily = Configuration.of(load(SETTINGS, research=True)).settings
    assert ("timeframe" in daily["training"], "data" in daily) == (False, False)
    of_minutes = Configuration.of(half_hours.settings).settings
    assert of_minutes["training"]["timeframe"] == "1Min"
    assert of_minutes["schedule"] == {"slots": list(half_hours.settings.row_slots), "slot_window_minutes": 30}
    assert of_minutes["data"] == {"minutes_feed": "iex"}


def test_a_backtest_trades_every_slot_and_is_told_by_session(half_hours: Study) -> None:
    found = compare(half_hours, "random:3", start=date(2019, 4, 26))
    assert len(found.policy.sessions) == 12 * len(found.policy.by_session().sessions) == len(found.curve)
    assert found.curve["session"].is_monotonic_increasing
    assert len(set(found.trades["session"])) > len(found.policy.by_session().sessions)
    assert set(found.trades["session"].to_numpy().astype("datetime64[m]")) <= set(found.policy.sessions)
    assert sorted(found.skill) == [0, 10, 20]
    first = found.policy.sessions[0]
    assert first == half_hours.market.sessions[half_hours.market.index_of(str(first)[:10])]


def test_one_model_is_trained_on_all_slots_up_to_a_day(path: Path) -> None:
    until = study(StudyOptions(bars=path, slots="every:30", until=date(2019, 5, 2)))
    (fold,) = until.folds()
    assert (str(fold.train_start), str(fold.train_end), str(fold.test_start)) == ("2019-04-02", "2019-05-02", "2019-05-03")
    assert next_command(until, fold, folder=Path("mine")).endswith(" --slots every:30 --policy mine --from 2019-05-03")
    with pytest.raises(
        ResearchError, match="--until 2019-04-26 leaves 216 slot bars to train on from 2019-04-02 on, 253 are needed, so 2019-05-02"
    ):
        study(StudyOptions(bars=path, slots="every:30", until=date(2019, 4, 26)))


def test_the_look_ahead_check_covers_slot_bars(half_hours: Study) -> None:
    world = half_hours.history
    market = build_market(world.bars, world.actions, symbols=("AAA", "BBB", "CCC"))
    cuts = [5, 11, 12, 300, 515, 525]  # within a session, at its end, at its begin; in the last session, after which no split can come

    def built(one: History) -> dict[str, np.ndarray]:
        return market_record(build_market(one.bars, one.actions, symbols=market.symbols))

    assert find_changes(built, world, cuts=cuts, futures=history_futures) == []
    ahead = find_changes(lambda one: {"next": _next_close(built(one)["close"])}, world, cuts=cuts, futures=history_futures)
    assert [leak.column for leak in ahead] == ["next"]


def _next_close(close: np.ndarray) -> np.ndarray:
    return np.vstack([close[1:], close[-1:]])


def _daily(path: Path) -> pd.DataFrame:
    table = pd.read_parquet(path)
    keyed = table.assign(session=table["ts"].dt.tz_localize(None).dt.normalize())
    whole = keyed.groupby(["symbol", "session"], as_index=False)
    return whole.agg(open=("open", "first"), high=("high", "max"), low=("low", "min"), close=("close", "last"), volume=("volume", "sum"))


@pytest.mark.rehearse
def test_minutes_go_through_training_gate_page_and_backtest_and_no_other_slots_take_their_model(path: Path, tmp_path: Path) -> None:
    short = {"algorithm": "ppo", "holdout_sessions": 2, "environments": 8, "episode_sessions": 60}
    until = date(2019, 4, 13)
    asked = StudyOptions(bars=path, slots="every:15", seeds=1, timesteps=1000, folds=1, live_start=until, changes={"training": short})
    found, console, folder = study(asked), Console(quiet=True), tmp_path / "run"
    made = evaluate.run(found, folder=folder, trials=tmp_path / "trials", command="papertape evaluate", console=console)
    fold = found.folds()[0]
    judged = int(found.market.rows(fold.test_start, fold.test_end).ends_session.sum())
    assert len(made["curves"]["sessions"]) == judged
    assert not made["gate"]["passed"]
    evidence = next(check for check in made["gate"]["checks"] if check["name"] == "evidence")
    assert evidence["sentence"].startswith(f"1 folds, {judged} sessions out of sample and 1 seeds")
    assert (folder / "page.html").is_file()

    dates, symbols = found.settings.training.dates, found.market.symbols
    with pytest.raises(DatasetError, match="the files must hold a row per session, as the settings have it, were slot bars"):
        read_channel(folder / "input" / "features", symbols=symbols, live_start=dates.live_start)
    card = json.loads((folder / "seeds" / "0" / "fold-0" / "policy.json").read_text(encoding="utf-8"))
    assert card["slots"] == list(found.settings.row_slots)
    assert (card["train_start"], card["train_end"]) == (str(fold.train_start), str(fold.train_end))
    # The gate's book and the backtest's are one
    again = compare(found, str(folder), start=fold.test_start.astype(object), end=fold.test_end.astype(object))
    np.testing.assert_allclose(again.policy.by_session().equity, made["curves"]["growth"]["agent"], rtol=1e-5)
    other = replace(found, settings=study(StudyOptions(bars=path, slots="every:30")).settings)
    with pytest.raises(ChosenPolicyError, match=r"slots must be open\+30, .*, was open\+15, "):
        compare(other, str(folder))
    daily = replace(found, market=build_market(_daily(path), found.history.actions, symbols=symbols), settings=load(SETTINGS))
    with pytest.raises(ChosenPolicyError, match=r"slots must be none \(daily bars\), was open\+15, "):
        compare(daily, str(folder))
