"""Sentiment beside price: by week, with nothing where there is nothing, and labelled as invented on the page."""

from __future__ import annotations

from math import nan
from pathlib import Path

import pytest

from papertape.reports.sentiment_beside_price import LEAST_WEEKS, ScoredText, SentimentBesidePrice, beside_price
from tests.evaluations import evaluation_of
from tests.unit.papertape.reports.test_demo_page import SESSIONS, page

WEEKS = ["2019-12-30", "2020-01-06"]  # of the three sessions


def text(session: str, score: float | None, symbol: str = "SPY") -> ScoredText:
    return ScoredText(symbol=symbol, session=session, score=score)


def of(*texts: ScoredText, growth: dict[str, list[float]] | None = None) -> SentimentBesidePrice:
    moves = growth or {"SPY": [0.1, -0.1, 0.02], "IBM": [nan, nan, nan]}
    return beside_price(texts, sessions=SESSIONS, growth=moves, scorer="vader 1", invented=True)


def test_a_week_has_the_mean_of_its_texts_and_the_return_of_its_sessions() -> None:
    spy, ibm = of(text(SESSIONS[0], 0.5), text(SESSIONS[1], -0.1), text(SESSIONS[1], None)).names
    assert (spy.weeks, spy.sentiment) == (WEEKS, [pytest.approx(0.2), None])
    assert spy.returns == pytest.approx([1.1 * 0.9 - 1, 0.02])
    assert (spy.texts, spy.flagged, spy.mean) == (3, 1, pytest.approx(0.2))
    assert (ibm.texts, ibm.mean, ibm.sentiment, ibm.returns) == (0, None, [None, None], [None, None])


def test_a_flagged_text_is_not_a_zero() -> None:
    (spy, _) = of(text(SESSIONS[2], None)).names
    assert (spy.sentiment, spy.flagged) == ([None, None], 1)


@pytest.mark.parametrize(("weeks", "shown"), [(LEAST_WEEKS, "+1.00"), (LEAST_WEEKS - 1, "")])
def test_a_correlation_needs_some_weeks(weeks: int, shown: str) -> None:
    sessions = [f"2020-{1 + week // 4:02}-{6 + 7 * (week % 4) - (week // 4) * 3:02}" for week in range(weeks)]
    moves = [0.01 * (week % 3) for week in range(weeks)]
    texts = [text(day, move * 10) for day, move in zip(sessions, moves, strict=True)]
    found = beside_price(texts, sessions=sessions, growth={"SPY": moves, "IBM": moves}, scorer="", invented=True)
    assert [row["together"] for row in found.rows()] == [shown, ""]
    assert found.largest() == (f"{shown} (SPY, the largest of 1)" if shown else "")


def test_a_constant_has_no_correlation() -> None:
    sessions = [f"2020-{month:02}-{day:02}" for month in (3, 6) for day in (2, 9, 16, 23)]
    texts = [text(day, 0.5) for day in sessions]
    (row,) = beside_price(texts, sessions=sessions, growth={"SPY": [0.0] * 8}, scorer="", invented=True).rows()
    assert (row["together"], row["mean"], row["return"]) == ("", "+0.50", "+0.0%")


@pytest.mark.parametrize("strange", [text("2020-01-04", 0.1), text(SESSIONS[0], 0.1, symbol="ZZZZ")])
def test_what_is_of_no_session_or_name_is_refused(strange: ScoredText) -> None:
    with pytest.raises(ValueError, match=f"{strange.symbol} in {strange.session} is not"):
        of(strange)


def test_the_page_says_that_the_headlines_are_invented_and_shows_a_panel_and_a_row_per_name(tmp_path: Path) -> None:
    shown = page(tmp_path, evaluation=evaluation_of(folds=3, seeds=2, sessions=60), news=of(text(SESSIONS[0], 0.5)))
    section = shown.partition("Sentiment beside price</h2>")[2].partition("<h2>")[0]
    assert "<b>These headlines are invented.</b>" in section
    assert '<div id="news"' in section
    assert "<td>SPY</td><td>1</td><td>0</td><td>+0.50</td>" in section
    assert "headlines: invented" in shown.partition("Market data:")[2]


def test_without_news_the_page_says_nothing_of_them(tmp_path: Path) -> None:
    shown = page(tmp_path, evaluation=evaluation_of(folds=3, seeds=2, sessions=60))
    assert "Sentiment" not in shown.partition("<main>")[2].partition("<h2>How this came to be")[0]
    assert "invented" not in shown.partition("Market data:")[2]
