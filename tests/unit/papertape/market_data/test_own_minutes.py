"""Minute bars of one's own: what is read, what is refused in one line, and the slots that they are gathered between."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from papertape.market_data.own_minutes import read_own_minutes, slots_called
from papertape.market_data.own_tables import OwnBarsError
from tests.minutes import minutes

SLOTS, WEEK = ("open+5", "open+120"), ("2019-03-04", "2019-03-08")


def written(folder: Path, table: pd.DataFrame, name: str = "mine.csv") -> Path:
    path = folder / name
    table.to_csv(path, index=False)
    return path


def test_csv_with_a_zone_and_parquet_are_read_alike_and_say_what_they_hold(tmp_path: Path) -> None:
    table = minutes(*WEEK, symbols=("AAA", "BBB"), missing=0.2)
    table.to_parquet(tmp_path / "mine.parquet")
    local = table.assign(time=table["ts"].dt.tz_convert("America/New_York").map(pd.Timestamp.isoformat)).drop(columns="ts")
    typed, text = (read_own_minutes(path, slots=SLOTS, window=30) for path in (tmp_path / "mine.parquet", written(tmp_path, local)))
    pd.testing.assert_frame_equal(typed.bars, text.bars)
    assert typed.symbols == ("AAA", "BBB")
    assert typed.actions.empty
    assert typed.sentences == (
        f"{len(table):,} minutes of 2 names in 10 slot bars of 5 sessions, 2019-03-04 to 2019-03-08, 2 slots a session",
    )


def test_minutes_after_midnight_in_utc_are_after_hours_and_left_out(tmp_path: Path) -> None:
    table = minutes(*WEEK, symbols=("AAA",))
    after = table.iloc[:3].assign(ts=pd.to_datetime(["2019-03-05T00:00Z", "2019-03-05T00:01Z", "2019-03-04T12:00Z"]))
    found = read_own_minutes(written(tmp_path, pd.concat([table, after])), slots=SLOTS, window=30)
    assert found.sentences[1] == "3 minutes outside of the exchange's hours left out"


def test_a_name_that_trades_late_is_counted_and_has_no_bar_there(tmp_path: Path) -> None:
    table = minutes(*WEEK, symbols=("AAA", "BBB"))
    gap = table["ts"].between(pd.Timestamp("2019-03-05 14:35Z"), pd.Timestamp("2019-03-05 15:10Z")) & table["symbol"].eq("BBB")
    found = read_own_minutes(written(tmp_path, table[~gap]), slots=SLOTS, window=30)
    assert len(found.bars) == 19
    assert found.sentences[1].startswith("1 of 20 bars missing, 1 where the name traded after the slot's window alone")


def test_a_split_is_an_event_of_its_day_and_one_that_the_prices_know_is_refused(tmp_path: Path) -> None:
    table, actions = minutes(*WEEK, symbols=("AAA",)), tmp_path / "actions.csv"
    actions.write_text("symbol,ex_date,kind,value\nAAA,2019-03-06,split,4\n", encoding="utf-8")
    prices = ["open", "high", "low", "close"]
    after = table["ts"] >= pd.Timestamp("2019-03-06", tz="UTC")
    raw = table.assign(**{name: table[name].where(~after, table[name] / 4) for name in prices})
    found = read_own_minutes(written(tmp_path, raw), slots=SLOTS, window=30, actions=actions)
    assert found.actions["value"].tolist() == [4.0]
    assert len(found.sentences) == 1
    unsaid = read_own_minutes(tmp_path / "mine.csv", slots=SLOTS, window=30)
    assert "1 overnight move beyond 1.45 to 1 without a split, the first of AAA on 2019-03-06" in unsaid.sentences[-1]
    with pytest.raises(OwnBarsError, match=r"AAA splits 4 for 1 on 2019-03-06, .* so it is adjusted for it already"):
        read_own_minutes(written(tmp_path, table), slots=SLOTS, window=30, actions=actions)


@pytest.mark.parametrize(
    ("time", "words"),
    [
        ("2019-03-04 14:30:00", "time must be a minute with its zone such as .*, was '2019-03-04 14:30:00'"),
        ("2019-03-04", "time must be a minute with its zone"),
        ("2019-13-04T14:30:00Z", "time must be a minute with its zone"),
    ],
)
def test_a_time_without_a_zone_is_refused_with_its_line(tmp_path: Path, time: str, words: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"symbol,time,open,high,low,close,volume\nAAA,2019-03-04T14:30:00Z,1,1,1,1,1\nAAA,{time},1,1,1,1,1\n", encoding="utf-8")
    with pytest.raises(OwnBarsError, match=f"mine.csv line 3: {words}"):
        read_own_minutes(path, slots=SLOTS, window=30)


def test_daily_bars_given_as_minutes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("symbol,time,open,high,low,close,volume\nAAA,2019-03-02T16:00:00Z,1,1,1,1,1\n", encoding="utf-8")
    with pytest.raises(OwnBarsError, match="no row is a one-minute bar within the hours of a session"):
        read_own_minutes(path, slots=SLOTS, window=30)


@pytest.mark.parametrize("year", ["0019", "2263"])
def test_a_minute_of_another_age_is_refused(tmp_path: Path, year: str) -> None:
    table = minutes(*WEEK, symbols=("AAA",)).assign(ts=lambda own: own["ts"].map(pd.Timestamp.isoformat))
    table.loc[table.index[7], "ts"] = f"{year}-03-04T14:30:00Z"
    with pytest.raises(OwnBarsError, match=r"mine\.csv: times must lie in 1950-01-03 to 2199-12-31, were "):
        read_own_minutes(written(tmp_path, table), slots=SLOTS, window=30)


def test_slots_are_named_or_every_so_many_minutes() -> None:
    assert slots_called("open+5, open+120") == SLOTS
    assert slots_called("every:120") == ("open+120", "open+240", "open+360")
    for text, words in (
        ("noon", "--slots must be open.<minutes>, with commas between, or every:<minutes>, was noon"),
        ("open+60,open+5", "--slots must be in order"),
        ("every:0", "--slots every:N takes 1 to 389 minutes"),
    ):
        with pytest.raises(OwnBarsError, match=words):
            slots_called(text)
