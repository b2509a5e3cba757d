"""The lake's lines of actions: merged night after night and repaired, each action is there once, whatever was stored before."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lambdas.backfill_bars.actions import Span, merge, repair

FIRST = date(2019, 1, 2)
Row = dict[str, Any]


def row(day: int, *, number: int, kind: str = "dividend", value: float | None = 0.5) -> Row:
    ex_date = (FIRST + timedelta(days=day)).isoformat()
    return {"id": f"id-{number}", "symbol": "SPY", "ex_date": ex_date, "kind": kind, "value": value, "action": "cash_dividend"}


def bare(line: Row, **changes: Any) -> Row:
    """The line as it was stored before there were ids."""
    return {name: value for name, value in line.items() if name not in ("id", "action", "known")} | changes


@st.composite
def listings(draw: st.DrawFn) -> list[Row]:
    """What a vendor lists in the end: up to eight actions of one name over three hundred days."""
    days = draw(st.lists(st.integers(0, 300), max_size=8, unique=True))
    kinds = st.sampled_from([("dividend", 0.5), ("dividend", 0.25), ("split", 2.0), ("break", None)])
    return [
        row(day, number=number, kind=kind, value=value) for number, (day, (kind, value)) in enumerate((day, draw(kinds)) for day in days)
    ]


def nights(stored: list[Row], listed: list[Row], lags: list[int], *, until: int = 460, every: int = 7) -> list[Row]:
    """A merge each week, with what is listed by then of the last 120 days."""
    for now in range(0, until, every):
        today = FIRST + timedelta(days=now)
        first, told = today - timedelta(days=120), []
        for line, lag in zip(listed, lags, strict=True):
            ex_date = date.fromisoformat(line["ex_date"])
            if first <= ex_date <= today and ex_date + timedelta(days=lag) <= today:
                told.append(line)
        bars = Span(FIRST, today - timedelta(days=every)) if now else None
        stored = merge(stored, told, first=first, last=today, bars=bars, known=today).rows
        again = merge(stored, told, first=first, last=today, bars=Span(FIRST, today), known=today)
        assert (again.rows, again.late) == (stored, []), "backfilling twice is backfilling once"
    return stored


@given(listings(), st.data())
def test_whatever_the_lags_each_action_is_stored_once(listed: list[Row], data: st.DataObject) -> None:
    lags = data.draw(st.lists(st.integers(0, 90), min_size=len(listed), max_size=len(listed)))
    stored = nights([], listed, lags)
    assert sorted(line["id"] for line in stored) == sorted(line["id"] for line in listed)
    for line, lag in zip(listed, lags, strict=True):
        (kept,) = [one for one in stored if one["id"] == line["id"]]
        assert ("known" in kept) == (kept.get("known", "") > line["ex_date"])
        assert lag < 7 or "known" in kept


@given(listings(), st.data())
def test_repairing_leaves_each_action_once_and_twice_is_once(listed: list[Row], data: st.DataObject) -> None:
    copies = data.draw(st.lists(st.integers(0, 4), min_size=len(listed), max_size=len(listed)))
    own = {"symbol": "SPY", "ex_date": "2018-06-01", "kind": "dividend", "value": 1.25}
    stored = [own, own, *(bare(line) for line, count in zip(listed, copies, strict=True) for _ in range(count))]
    last = FIRST + timedelta(days=400)
    rows, corrections = repair(stored, listed, known=last)
    assert sorted(line.get("id", "") for line in rows) == sorted(["", *(line["id"] for line in listed)]), "what is not listed is kept, once"
    assert sum(one.change == "remove" for one in corrections) == 1 + sum(max(0, count - 1) for count in copies)
    assert sum(one.change == "add" for one in corrections) == copies.count(0)
    assert repair(rows, listed, known=last) == (rows, [])


def test_inside_the_window_the_vendor_is_right() -> None:
    listed = row(10, number=1)
    wrong, old = bare(row(12, number=2), value=9.0), bare(row(-200, number=3))
    last = FIRST + timedelta(days=30)
    assert merge([old, wrong, bare(listed)], [listed], first=FIRST, last=last, bars=None, known=last).rows == [old, listed]
    corrected = {**listed, "value": 0.55}
    found = merge([old, listed], [corrected], first=FIRST, last=last, bars=Span(FIRST, last), known=last)
    assert found.rows == [old, {**corrected, "known": "2019-02-01"}], "another amount is news, and says since when"
    assert found.late == [corrected]
    moved = {**listed, "ex_date": FIRST.isoformat()}
    assert merge([{**listed, "ex_date": "2018-12-20"}], [moved], first=FIRST, last=last, bars=None, known=last).rows == [moved], (
        "the same action"
    )


def test_what_lies_before_the_first_bar_is_neither_stored_nor_late() -> None:
    early, own = row(-30, number=1), row(10, number=2)
    begins = FIRST + timedelta(days=5)
    found = merge([], [early, own], first=FIRST, last=FIRST + timedelta(days=30), bars=Span(begins, begins), known=begins)
    assert (found.rows, found.late) == ([own], [])


def test_a_changed_amount_is_replaced() -> None:
    listed = row(10, number=1)
    rows, (correction,) = repair([{**listed, "value": 0.4}], [listed], known=FIRST)
    assert (rows, correction.change) == ([listed], "replace")


def test_what_an_old_lake_lacked_is_history_and_not_late_news() -> None:
    """A spin-off of years ago that is stored only now must not read as a crash in training; a recent one was lived without."""
    old, recent = row(0, number=1, kind="break", value=None), row(300, number=2)
    known = FIRST + timedelta(days=330)
    paid = bare(row(-5, number=3))
    rows, corrections = repair([paid], [old, recent], known=known)
    assert [one.change for one in corrections] == ["add", "add"]
    assert [line.get("known") for line in rows] == [None, None, known.isoformat()]
    found = merge([paid], [old, recent], first=FIRST, last=known, bars=Span(FIRST, known), known=known)
    assert (found.rows, found.late) == (rows, [recent])
