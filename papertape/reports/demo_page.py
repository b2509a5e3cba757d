"""The demo's page: one self-contained HTML file of the traded year, written from what the run measured.

`write()` takes plain values and computes nothing that it does not show; a series of another length than `sessions` raises ValueError, a
verdict that is not of this schema EvaluationFileError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from papertape.reports import evaluation_page, page
from papertape.reports.sentiment_beside_price import SentimentBesidePrice
from schema import evaluation_document
from trading_env.evaluation import metrics


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Incumbent or challenger over the year: `part` says whether it traded, `through` where its `equity` comes from."""

    role: str
    name: str
    verdict: str
    part: str
    through: str
    equity: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class YearInPictures:
    """What the page shows. Series are one value per session; weights are shares of equity at the close.

    `apart`: the mean share of equity by which the contenders' targets of a session differ.
    """

    summary: Mapping[str, Any]
    sessions: Sequence[str]
    initial_cash: float
    equity: Mapping[str, Sequence[float]]  # "agent", "equal weight", benchmark name, "challenger in shadow"
    weights: Mapping[str, Sequence[float]]
    months: Sequence[Mapping[str, Any]]
    last_orders: Sequence[Mapping[str, Any]]
    alerts: Sequence[Mapping[str, str]]
    replay: Sequence[Mapping[str, Any]]
    facts: Sequence[tuple[str, str]]
    evaluation: Mapping[str, Any]  # evaluation.json
    quick_note: str = ""
    evaluation_page: str = ""  # where its own page is, relative to this one
    parity: float | None = None
    shadow_note: str = ""
    shadow_weights: Mapping[str, Sequence[float]] = field(default_factory=dict)
    warning: str = ""  # while a refused model trades: the first thing that is said
    contenders: Sequence[Contender] = ()
    apart: float | None = None
    news: SentimentBesidePrice | None = None


def write(year: YearInPictures, path: Path) -> None:
    """Render the page to `path`."""
    contenders = {one.role: one.equity for one in year.contenders}
    for name, series in {**year.equity, **year.weights, **year.shadow_weights, **contenders}.items():
        if len(series) != len(year.sessions):
            raise ValueError(f"series {name!r} must have {len(year.sessions)} values, one per session, was {len(series)}")
    evaluation, trading = evaluation_document.read(year.evaluation), year.summary["trading"]
    text = page.render(
        "demo_page.html.j2",
        summary=year.summary,
        sessions=year.sessions,
        headline=_headline(year),
        warning=year.warning,
        contenders=[{**vars(one), **_row(one.name, one.equity, year.initial_cash)} for one in year.contenders],
        apart=None if year.apart is None else f"{year.apart:.1%}",
        traded_kind=year.summary["model"]["kind"],
        evaluation=evaluation,
        verdict_cards=evaluation_page.cards(evaluation),
        checks=sorted(evaluation.gate.checks, key=lambda check: check.passed),
        quick_note=year.quick_note,
        evaluation_page=year.evaluation_page,
        cards=[
            {"label": "final equity", "value": f"${trading['final_equity']:,.0f}"},
            {"label": "orders", "value": f"{trading['orders']:,}"},
            {"label": "fills", "value": f"{trading['fills']:,}"},
            {"label": "duplicate orders", "value": trading["duplicates"]},
            {"label": "ledger = broker", "value": "always" if trading["ledger_matches_broker"] else "NO"},
            {"label": "seconds in all", "value": f"{year.summary['seconds']:.0f}"},
        ],
        table=[_row(name, series, year.initial_cash) for name, series in year.equity.items()],
        plots={
            "equity": page.chart(_equity(year), name="equity"),
            "weights": page.chart(_areas(year.sessions, year.weights), name="weights"),
            "news": page.chart(year.news.figure(), name="news") if year.news else "",
            "shadow": page.chart(_tilts(year.sessions, year.shadow_weights), name="shadow") if year.shadow_weights else "",
        },
        shadow_note=year.shadow_note,
        news=year.news,
        months=year.months,
        orders=year.last_orders,
        parity=None if year.parity is None else f"{year.parity:.1e}",
        alerts=year.alerts,
        replay=year.replay,
        facts=year.facts,
    )
    path.write_text(text, encoding="utf-8")


def apart(traded: Mapping[str, Mapping[str, float]], watched: Mapping[str, Mapping[str, float]]) -> float | None:
    """Half the mean distance between two targets, weights by session and name, of the same session; None where not one session has both."""
    both = sorted(traded.keys() & watched.keys())
    halves = [
        sum(abs(traded[day].get(name, 0.0) - watched[day].get(name, 0.0)) for name in {*traded[day], *watched[day]}) / 2 for day in both
    ]
    return sum(halves) / len(halves) if halves else None


def _headline(year: YearInPictures) -> str:
    agent, equal = year.equity["agent"][-1], year.equity["equal weight"][-1]
    if year.summary["model"]["kind"] == "equal-weight":
        return f"Equal weight traded 2020: ${year.initial_cash:,.0f} became ${agent:,.0f}"
    word = "more" if agent > equal else "less"
    who = "A model that the gate refused" if year.warning else "The agent"
    return f"{who} traded 2020: ${year.initial_cash:,.0f} became ${agent:,.0f}, ${abs(agent - equal):,.0f} {word} than equal weight"


def _row(name: str, equity: Sequence[float], initial: float) -> dict[str, str]:
    curve = np.asarray(equity, dtype=np.float64)
    growth = metrics.log_growth(curve, initial=initial)
    return {
        "name": name,
        "final": f"${curve[-1]:,.2f}",
        "total_return": f"{curve[-1] / initial - 1:+.2%}",
        "volatility": f"{metrics.volatility(growth):.1%}",
        "sharpe": f"{metrics.sharpe(growth):.2f}",
        "drawdown": f"{metrics.max_drawdown(curve, initial=initial):.1%}",
    }


def _equity(year: YearInPictures) -> go.Figure:
    figure = go.Figure()
    colours = {"agent": page.AGENT, "equal weight": page.EQUAL, "challenger in shadow": page.SHADOW}
    for name, series in year.equity.items():
        colour = colours.get(name, page.BENCHMARK)
        curve = np.asarray(series, dtype=np.float64)
        drawdown = curve / np.maximum.accumulate(np.maximum(curve, year.initial_cash)) - 1
        style = {"color": colour, "width": 2 if name == "agent" else 1.4, "dash": "dot" if name == "challenger in shadow" else "solid"}
        figure.add_scatter(x=list(year.sessions), y=curve.round(2).tolist(), name=name, line=style, legendgroup=name)
        figure.add_scatter(
            x=list(year.sessions), y=drawdown.round(5).tolist(), name=name, line=style, legendgroup=name, showlegend=False, yaxis="y2"
        )
    figure.update_layout(
        yaxis={"domain": [0.34, 1], "tickprefix": "$", "tickformat": ",.0f"},
        yaxis2={"domain": [0, 0.26], "tickformat": ".0%", "title": {"text": "drawdown"}},
        height=560,
    )
    return figure


def _areas(sessions: Sequence[str], weights: Mapping[str, Sequence[float]]) -> go.Figure:
    figure = go.Figure()
    for symbol, series in weights.items():
        figure.add_scatter(x=list(sessions), y=[round(w, 5) for w in series], name=symbol, stackgroup="one", line={"width": 0.5})
    figure.update_layout(yaxis={"tickformat": ".0%", "range": [0, 1]}, height=360)
    return figure


def _tilts(sessions: Sequence[str], weights: Mapping[str, Sequence[float]]) -> go.Figure:
    """How far each target weight lies from equal weight, in percentage points."""
    figure = go.Figure()
    for symbol, series in weights.items():
        tilt = [round(100 * (w - 1 / len(weights)), 3) for w in series]
        figure.add_scatter(x=list(sessions), y=tilt, name=symbol, line={"width": 1.4})
    figure.update_layout(yaxis={"ticksuffix": " pp", "zeroline": True}, height=360)
    return figure
