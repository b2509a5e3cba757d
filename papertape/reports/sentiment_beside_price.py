"""What was scored about each name beside what its price did, week by week: plain values in, rows and one chart out.

A week's sentiment is the mean score, from -1 to 1, of the texts that were received in its sessions and not flagged; a week without one has
none. Its return is the close's from the last session of the week before to its own last session, splits undone, dividends left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import ceil, isfinite, prod
from statistics import StatisticsError, correlation, fmean

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from papertape.reports import page

PANELS = 8
COLUMNS = 2
LEAST_WEEKS = 8  # of a correlation that is shown


@dataclass(frozen=True, kw_only=True)
class ScoredText:
    """A text about `symbol`, received in `session` (or after the one before it). `score` None: it was flagged."""

    symbol: str
    session: str
    score: float | None


@dataclass(frozen=True, kw_only=True)
class NameWeeks:
    """A name's year: `sentiment` and `returns` have an entry per week, None where there is nothing."""

    symbol: str
    texts: int
    flagged: int
    weeks: Sequence[str]
    sentiment: Sequence[float | None]
    returns: Sequence[float | None]

    @property
    def mean(self) -> float | None:
        known = [score for score in self.sentiment if score is not None]
        return fmean(known) if known else None

    @property
    def together(self) -> float | None:
        """Correlation of a week's sentiment with the same week's return; None of fewer than `LEAST_WEEKS` weeks, or of a constant."""
        both = [(s, r) for s, r in zip(self.sentiment, self.returns, strict=True) if s is not None and r is not None]
        if len(both) < LEAST_WEEKS:
            return None
        try:
            return correlation(*zip(*both, strict=True))
        except StatisticsError:
            return None


@dataclass(frozen=True, kw_only=True)
class SentimentBesidePrice:
    """`scorer` says what scored; `invented`: nothing of what was scored ever happened."""

    names: Sequence[NameWeeks]
    scorer: str
    invented: bool

    def rows(self) -> list[dict[str, str]]:
        return [
            {
                "symbol": one.symbol,
                "texts": f"{one.texts:,}",
                "flagged": f"{one.flagged:,}",
                "mean": _shown(one.mean),
                "return": f"{prod(1 + r for r in one.returns if r is not None) - 1:+.1%}",
                "together": _shown(one.together),
            }
            for one in self.names
        ]

    def largest(self) -> str:
        """The correlation that lies farthest from 0, and whose it is; empty where no name has one."""
        found = {one.symbol: one.together for one in self.names if one.together is not None}
        symbol = max(found, key=lambda name: abs(found[name]), default="")
        return f"{_shown(found[symbol])} ({symbol}, the largest of {len(found)})" if symbol else ""

    def figure(self) -> go.Figure:
        """Bars of sentiment and a line of returns for each of the first names."""
        shown = self.names[:PANELS]
        rows = ceil(len(shown) / COLUMNS)
        figure = make_subplots(
            rows=rows,
            cols=COLUMNS,
            specs=[[{"secondary_y": True}] * COLUMNS for _ in range(rows)],
            subplot_titles=[one.symbol for one in shown],
            vertical_spacing=0.3 / rows,
            horizontal_spacing=0.1,
        )
        for number, one in enumerate(shown):
            row, column = divmod(number, COLUMNS)
            place, first = {"row": row + 1, "col": column + 1}, number == 0
            bars = go.Bar(
                x=list(one.weeks), y=_rounded(one.sentiment), name="sentiment", marker={"color": page.SHADOW}, opacity=0.55,
                legendgroup="s", showlegend=first,
            )  # fmt: skip
            line = go.Scatter(
                x=list(one.weeks), y=_rounded(one.returns), name="return of the week", line={"color": page.AGENT, "width": 1.4},
                legendgroup="r", showlegend=first,
            )  # fmt: skip
            figure.add_trace(bars, secondary_y=False, **place)
            figure.add_trace(line, secondary_y=True, **place)
            most = max((abs(move) for move in one.returns if move is not None), default=0.01) or 0.01
            figure.update_yaxes(range=[-most, most], tickvals=[-most, 0, most], secondary_y=True, **place)  # both zeros on one line
        figure.update_yaxes(range=[-1, 1], secondary_y=False, tickvals=[-1, 0, 1])
        figure.update_yaxes(tickformat=".0%", secondary_y=True, showgrid=False)
        figure.update_layout(height=60 + 190 * rows, bargap=0.1)
        return figure


def beside_price(
    texts: Sequence[ScoredText], *, sessions: Sequence[str], growth: Mapping[str, Sequence[float]], scorer: str, invented: bool
) -> SentimentBesidePrice:
    """Gather `texts` by name and week; `growth`: name -> the close's growth in each of `sessions`, 0.01 for a hundredth, NaN for none.

    A text of another session or name raises ValueError: it would be left out without a word.
    """
    known = set(sessions)
    if strange := sorted({f"{one.symbol} in {one.session}" for one in texts if one.session not in known or one.symbol not in growth}):
        raise ValueError(f"scores must be of the year's sessions and names, {strange[0]} is not")
    weeks = [_monday(session) for session in sessions]
    order = list(dict.fromkeys(weeks))
    return SentimentBesidePrice(
        names=[
            _of_name(symbol, [one for one in texts if one.symbol == symbol], weeks=order, growth=list(zip(weeks, moves, strict=True)))
            for symbol, moves in growth.items()
        ],
        scorer=scorer,
        invented=invented,
    )


def _of_name(symbol: str, texts: Sequence[ScoredText], *, weeks: Sequence[str], growth: Sequence[tuple[str, float]]) -> NameWeeks:
    scores, moves = defaultdict(list), defaultdict(list)
    for one in texts:
        if one.score is not None:
            scores[_monday(one.session)].append(one.score)
    for week, move in growth:
        if isfinite(move):
            moves[week].append(move)
    return NameWeeks(
        symbol=symbol,
        texts=len(texts),
        flagged=sum(one.score is None for one in texts),
        weeks=weeks,
        sentiment=[fmean(scores[week]) if scores[week] else None for week in weeks],
        returns=[prod(1 + move for move in moves[week]) - 1 if moves[week] else None for week in weeks],
    )


def _monday(session: str) -> str:
    year, week, _ = date.fromisoformat(session).isocalendar()
    return date.fromisocalendar(year, week, 1).isoformat()


def _rounded(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 4) for value in values]


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
