"""From a vendor's bars to the file of own bars: where events stand, what is refused, and that nothing is left behind."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest

from papertape.market_data.vendors import VendorBarsError, as_table, write_bars
from sources.answers import action_row, bar_row
from sources.port import SourceBars, SourceUnavailable

NOW = datetime(2020, 1, 15, 22, tzinfo=UTC)
DAYS = (date(2020, 1, 2), date(2020, 1, 3), date(2020, 1, 7), date(2020, 1, 8))  # the 6th is missing


def found(
    *actions: dict[str, Any], prices: Literal["raw", "split", "adjusted"] = "raw", closes: Sequence[float] = (10, 10, 5, 5)
) -> SourceBars:
    rows = [bar_row("A", day, prices=(close, close + 1, close - 1, close), volume=100.0) for day, close in zip(DAYS, closes, strict=True)]
    return SourceBars(rows=rows, prices=prices, actions=actions)


class Listed:
    """A source that has these bars, and keeps what it was asked."""

    name = "listed"

    def __init__(self, bars: SourceBars) -> None:
        self.bars = bars
        self.asked: list[tuple[list[str], date, date]] = []

    def daily_bars(self, symbols: Sequence[str], start: date, end: date) -> SourceBars:
        self.asked.append((list(symbols), start, end))
        return self.bars


def test_an_event_counts_from_its_ex_date_so_it_stands_at_the_next_bar() -> None:
    table = as_table(found(action_row("A", date(2020, 1, 6), "split", 2.0), action_row("A", date(2020, 1, 3), "dividend", 0.5)))
    assert table["split"].tolist() == [1.0, 1.0, 2.0, 1.0]
    assert table["dividend"].tolist() == [0.0, 0.5, 0.0, 0.0]


def test_events_of_one_day_count_together_and_those_outside_of_the_bars_do_not() -> None:
    day = date(2020, 1, 7)
    events = [action_row("A", day, "dividend", 0.5), action_row("A", day, "dividend", 1.0), action_row("B", day, "split", 9.0)]
    outside = [action_row("A", date(2020, 1, 1), "split", 3.0), action_row("A", date(2020, 1, 9), "split", 3.0)]
    table = as_table(found(*events, *outside, action_row("A", day, "split", 2.0), action_row("A", day, "split", 1.5)))
    assert table["dividend"].tolist() == [0.0, 0.0, 1.5, 0.0]
    assert table["split"].tolist() == [1.0, 1.0, 3.0, 1.0]


def test_without_events_there_are_no_columns_for_them() -> None:
    assert list(as_table(found()).columns) == ["symbol", "session", "open", "high", "low", "close", "volume"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_bars_are_asked_for_until_the_last_session_that_has_closed_and_written_whole(suffix: str, tmp_path: Path) -> None:
    source, out = Listed(found(action_row("A", date(2020, 1, 7), "split", 2.0))), tmp_path / f"mine{suffix}"
    written = write_bars(source, ["a", "A"], start=date(2020, 1, 2), end=None, out=out, now=NOW.replace(hour=20))
    assert source.asked == [(["A"], date(2020, 1, 2), date(2020, 1, 14))]
    assert (written.raw, written.held.gaps) == (True, {"A": 1})
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    table = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
    assert table["close"].tolist() == [10, 10, 5, 5]


@pytest.mark.parametrize(
    ("bars", "told"),
    [
        (
            found(action_row("A", date(2020, 1, 7), "split", 2.0), closes=(5, 5, 5, 5)),
            "what listed sent cannot be used: mine.csv: A splits 2 for 1",
        ),
        (SourceBars(rows=(), prices="raw", missing=("A",)), "listed has no bar of A from 2020-01-02 to 2020-01-15"),
        (SourceBars(rows=(), prices="raw"), "listed has no bar of A from 2020-01-02 to 2020-01-15"),
        (found(closes=(-1, -1, -1, -1)), "no row is a daily bar of a session"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_no_file(bars: SourceBars, told: str, tmp_path: Path) -> None:
    with pytest.raises(VendorBarsError, match=told) as raised:
        write_bars(Listed(bars), ["A"], start=date(2020, 1, 2), end=None, out=tmp_path / "mine.csv", now=NOW)
    assert "partial" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_start_after_the_last_session_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VendorBarsError, match="--start must not be after 2020-01-15, the last session asked for, was 2020-01-16"):
        write_bars(Listed(found()), ["A"], start=date(2020, 1, 16), end=None, out=tmp_path / "mine.csv", now=NOW)


def test_a_vendor_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    class Down(Listed):
        def daily_bars(self, symbols: Sequence[str], start: date, end: date) -> SourceBars:
            raise SourceUnavailable(f"listed did not answer {symbols} {start} {end}")

    with pytest.raises(SourceUnavailable):
        write_bars(Down(found()), ["A"], start=date(2020, 1, 2), end=None, out=tmp_path / "mine.csv", now=NOW)
    assert list(tmp_path.iterdir()) == []
