"""The demo's page: one self-contained HTML file of the traded year, written from what the run measured.

`write()` takes plain values and computes nothing that it does not show; a series of another length than `sessions` raises ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from trading_env import metrics

AGENT, EQUAL, BENCHMARK, SHADOW = "#0b5fa5", "#c7801d", "#8a94a3", "#7a3fa0"


@dataclass(frozen=True, kw_only=True)
class YearInPictures:
    """What the page shows. Series are one value a session; weights are shares of equity at the close."""

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
    gate_window: str
    cost_bps: float
    parity: float | None = None
    shadow_note: str = ""
    shadow_weights: Mapping[str, Sequence[float]] = field(default_factory=dict)


def write(year: YearInPictures, path: Path) -> None:
    """Render the page to `path`."""
    for name, series in {**year.equity, **year.weights, **year.shadow_weights}.items():
        if len(series) != len(year.sessions):
            raise ValueError(f"series {name!r} must have {len(year.sessions)} values, one a session, was {len(series)}")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    trading = year.summary["trading"]
    page = environment.get_template("report.html.j2").render(
        summary=year.summary,
        sessions=year.sessions,
        headline=_headline(year),
        traded_kind=year.summary["model"]["kind"],
        gate_window=year.gate_window,
        cost_bps=year.cost_bps,
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
            "equity": _html(_equity(year)),
            "weights": _html(_areas(year.sessions, year.weights)),
            "shadow": _html(_tilts(year.sessions, year.shadow_weights)) if year.shadow_weights else "",
        },
        reasons=[tuple(reason.split(": ", 1)) for reason in year.summary["gate"]["reasons"]],
        shadow_note=year.shadow_note,
        months=year.months,
        orders=year.last_orders,
        parity=None if year.parity is None else f"{year.parity:.1e}",
        alerts=year.alerts,
        replay=year.replay,
        facts=year.facts,
        plotly_js=_safe(get_plotlyjs()),
    )
    path.write_text(page, encoding="utf-8")


def _headline(year: YearInPictures) -> str:
    agent, equal = year.equity["agent"][-1], year.equity["equal weight"][-1]
    if year.summary["model"]["kind"] == "equal-weight":
        return f"Equal weight traded 2020: ${year.initial_cash:,.0f} became ${agent:,.0f}"
    word = "more" if agent > equal else "less"
    return f"The agent traded 2020: ${year.initial_cash:,.0f} became ${agent:,.0f}, ${abs(agent - equal):,.0f} {word} than equal weight"


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
    colours = {"agent": AGENT, "equal weight": EQUAL, "challenger in shadow": SHADOW}
    for name, series in year.equity.items():
        colour = colours.get(name, BENCHMARK)
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


def _html(figure: go.Figure) -> Any:
    figure.update_layout(
        template="plotly_white", margin={"l": 60, "r": 20, "t": 20, "b": 30}, legend={"orientation": "h"}, hovermode="x unified"
    )
    return _safe(figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True}))


def _safe(text: str) -> Any:
    """Mark our own charts and plotly's script as markup; everything else on the page is escaped."""
    return markupsafe.Markup(text)  # noqa: S704
