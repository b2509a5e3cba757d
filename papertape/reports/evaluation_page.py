"""The page of one evaluation: a self-contained HTML file made from evaluation.json alone, first line the answer.

Promise: the same document gives the same bytes; whatever the document says is escaped; nothing is computed that the document holds.
Failure: `EvaluationFileError` when it is no evaluation of this schema, and then nothing is written.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from papertape.reports import page
from schema.evaluation_document import Cost, Evaluation, FoldRecord, Headline, Measures, Row, read

COSTS: tuple[Cost, ...] = ("0", "10", "20")
STANDARD: Cost = "10"
SLOW = ("equal weight at kappa", "random at matched turnover")  # rows that trade as slowly as the agent, without its scores
#: The baselines' colours, equal weight's and the agent's own aside: distinguished, none of them loud.
QUIET = ("#8a94a3", "#4f8a75", "#9b6488", "#6673ae", "#8d7a3e", "#8f5b4a", "#4d8fa0", "#7f7f7f", "#7a9a4a", "#a58bb5")
FAINT, PALE = "#5b6675", "#e2bf8d"  # PALE: equal weight's dashed kinds, as bars
TICKS = np.array([0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10, 15, 20, 30, 50, 100])
#: What the statistics of the file are called; one of another name is shown under its own.
STATISTICS = {
    "psr_excess": "probability that the true excess is above 0 (PSR)",
    "psr_excess_at_kappa": "the same against equal weight at kappa",
    "dsr_excess": "the same, deflated for every trial in the log (DSR)",
    "dsr_excess_at_kappa": "DSR against equal weight at kappa",
    "reality_check_p": "chance that the best trial without an edge does as well (Reality Check p)",
    "reality_check_p_at_kappa": "the same against equal weight at kappa: the larger of the two counts",
    "reality_check_t": "t of the Reality Check",
    "reality_check_critical_t": "t that it needs among all trials",
    "reality_check_t_at_kappa": "t against equal weight at kappa",
    "reality_check_critical_t_at_kappa": "t that this one needs",
    "detectable_ir": "smallest information ratio found with 80 % power by one trial's test",
    "detectable_ir_among_trials": "smallest one found among all trials",
    "detectable_ir_among_trials_at_kappa": "the same against equal weight at kappa",
    "pbo": "probability of backtest overfitting (PBO)",
    "pbo_at_kappa": "PBO against equal weight at kappa",
    "cscv_loss_share": "share of splits in which the best trial in sample loses to equal weight",
    "cscv_loss_share_at_kappa": "the same against equal weight at kappa",
    "cscv_columns": "trials that could be compared for it",
}


def write(document: Mapping[str, Any], path: Path, *, warning: str = "") -> None:
    """Render the page of a parsed evaluation.json to `path`; it begins with `warning`, if there is one."""
    evaluation = read(document)
    claim, _, figures = evaluation.answer.partition(": ")
    text = page.render(
        "evaluation_page.html.j2",
        evaluation=evaluation,
        claim=claim,
        warning=warning,
        figures=figures,
        cards=cards(evaluation),
        yardsticks=yardsticks(evaluation),
        standard=STANDARD,
        columns=[heading for heading, _ in COLUMNS],
        tables=[(cost, _groups(evaluation, cost)) for cost in COSTS],
        years=sorted({year for row in evaluation.rows for year in row.years}),
        checks=sorted(evaluation.gate.checks, key=lambda check: check.passed),
        statistics=[(STATISTICS.get(name, plain(name)), ratio(evaluation.statistics[name])) for name in _ordered(evaluation.statistics)],
        charts={
            "growth": page.chart(_growth(evaluation), name="growth"),
            "excess": page.chart(_excess(evaluation), name="excess"),
            "years": page.chart(_years(evaluation), name="years"),
            "costs": page.chart(_costs(evaluation), name="costs"),
        },
        plain=plain,
        bp=bp,
        ratio=ratio,
        percent=percent,
    )
    path.write_text(text, encoding="utf-8")


def _ordered(names: Iterable[str]) -> list[str]:
    """Those that have words first, in the order of those."""
    named = list(STATISTICS)
    return sorted(names, key=lambda name: named.index(name) if name in named else len(named))


def bp(value: float | None) -> str:
    return _text(value, "+z,.1f")


def ratio(value: float | None) -> str:
    return _text(value, "z.2f")


def percent(value: float | None, digits: int = 1) -> str:
    return _text(value, f"z.{digits}%")


def plain(name: str) -> str:
    """A key of the file as words."""
    return name.replace("_", " ")


def _text(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form).replace("-", "−")


def _with_error(measures: Measures) -> str:
    return ratio(measures.sharpe) + ("" if measures.sharpe_error is None else f" ± {ratio(measures.sharpe_error)}")


#: (heading, what one cell says), the measures against equal weight first.
COLUMNS: tuple[tuple[str, Callable[[Measures], str]], ...] = (
    ("excess, bp per year", lambda m: bp(m.excess_bp_per_year)),
    ("information ratio", lambda m: ratio(m.information_ratio)),
    ("excess at kappa, bp per year", lambda m: bp(m.excess_at_kappa_bp_per_year)),
    ("IR at kappa", lambda m: ratio(m.information_ratio_at_kappa)),
    ("tracking error", lambda m: percent(m.tracking_error)),
    ("turnover per day", lambda m: percent(m.turnover_per_day, 2)),
    ("costs, bp per year", lambda m: _text(m.costs_bp_per_year, ",.1f")),
    ("return a year", lambda m: _text(m.annual_return, "+z.1%")),
    ("volatility", lambda m: percent(m.volatility)),
    ("Sharpe ± error", _with_error),
    ("Sortino", lambda m: ratio(m.sortino)),
    ("Calmar", lambda m: ratio(m.calmar)),
    ("drawdown", lambda m: percent(m.max_drawdown)),
    ("exposure", lambda m: percent(m.exposure)),
    ("effective names", lambda m: _text(m.effective_n, ".1f")),
    ("PSR", lambda m: ratio(m.psr)),
)


def break_even(headline: Headline) -> str:
    """The cost a side at which the excess is gone."""
    return "none" if headline.break_even_bp is None else f"{headline.break_even_bp:.1f} bp"


def cards(evaluation: Evaluation) -> list[tuple[str, str]]:
    """(value, what it is), the first thing after the answer."""
    headline, luck = evaluation.headline, evaluation.statistics
    seeds, cost = headline.seed_spread, headline.break_even_bp
    why = ": no excess even free of cost" if cost == 0 else ": the excess does not fall with cost" if cost is None else ""
    ratios, at_kappa = (
        "\u2002".join(ratio(by_cost.get(cost)) for cost in COSTS)
        for by_cost in (headline.information_ratio, headline.information_ratio_at_kappa)
    )
    return [
        (break_even(headline), f"break-even cost a side{why}"),
        (percent(headline.turnover_per_day, 2), "turnover per day, buys and sells over equity"),
        (ratios, "information ratio against equal weight daily at 0, 10 and 20 bp per side"),
        (at_kappa, "the same against equal weight at the policy's own kappa: slow trading is no skill"),
        (bp(headline.excess_at_kappa_bp_per_year.get(STANDARD)), "bp per year over equal weight at kappa, at 10 bp per side"),
        (
            f"{ratio(seeds.worst)} to {ratio(seeds.best)}",
            f"information ratio of {headline.seeds} seeds alone against equal weight daily at 10 bp; median {ratio(seeds.median)}",
        ),
        (p_values(evaluation), "chance that the best trial without an edge does as well, against either equal weight; the larger counts"),
        (f"{ratio(luck.get('dsr_excess'))}\u2002{ratio(luck.get('pbo'))}", "DSR and PBO: both charge for every trial in the log"),
        (ratio(headline.detectable_ir), "smallest information ratio that this test finds with 80 % power"),
    ]


def p_values(evaluation: Evaluation) -> str:
    """p of the Reality Check against equal weight daily, and at kappa."""
    return " / ".join(_text(evaluation.statistics.get(f"reality_check_p{suffix}"), ".3f") for suffix in ("", "_at_kappa"))


def yardsticks(evaluation: Evaluation) -> list[tuple[str, float | None]]:
    """(row, excess in bp per year at the standard cost) of the agent and of the SLOW rows."""
    slow = [row for row in evaluation.baselines if row.name in SLOW]
    return [(row.name, row.at[STANDARD].excess_bp_per_year) for row in (evaluation.agent, *slow)]


def _groups(evaluation: Evaluation, cost: Cost) -> list[tuple[str, list[tuple[Row, list[str]]]]]:
    """(heading, rows with their cells) at this cost; a group without a row there is left out."""
    mean = f"{evaluation.training.algorithm}, the mean of its seeds' weights"
    named = ((mean, "agent"), ("baselines", "baseline"), ("each seed alone", "agent seed"))
    cells = [(row, [cell(row.at[cost]) for _, cell in COLUMNS]) for row in evaluation.rows if cost in row.at]
    groups = [(heading, [pair for pair in cells if pair[0].kind == kind]) for heading, kind in named]
    return [group for group in groups if group[1]]


def _styles(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """One line per row, the same in every chart: the agent thick, equal weight's kinds distinguished by their dashes."""
    quiet, dashes = cycle(QUIET), cycle(("dash", "dot"))
    styles: dict[str, dict[str, Any]] = {evaluation.agent.name: {"color": page.AGENT, "width": 2.4}}
    for name in (row.name for row in evaluation.baselines):
        if name.startswith("equal weight"):
            styles[name] = {"color": page.EQUAL, "width": 1.3, "dash": "solid" if name == "equal weight daily" else next(dashes)}
        else:
            styles[name] = {"color": next(quiet), "width": 1.3}
    return styles


def _growth(evaluation: Evaluation) -> go.Figure:
    """Equity on a log scale above, drawdown below."""
    figure, curves, styles = go.Figure(), evaluation.curves, _styles(evaluation)
    days, cash = list(curves.sessions), curves.initial_cash
    for curve, series in reversed(curves.growth.items()):
        row = evaluation.row_of(curve)
        name, path = html.escape(row.name), np.asarray(series)
        drawdown = path / np.maximum.accumulate(np.maximum(path, cash)) - 1
        shared = {"x": days, "name": name, "line": styles[row.name], "legendgroup": name}
        figure.add_scatter(y=path.round(2).tolist(), hovertemplate="$%{y:,.0f}", **shared)
        figure.add_scatter(y=drawdown.round(5).tolist(), hovertemplate="%{y:.1%}", showlegend=False, yaxis="y2", **shared)
    _folds(figure, evaluation.tests)
    figure.update_layout(
        yaxis={
            "domain": [0.32, 1],
            "type": "log",
            "tickvals": (TICKS * cash).tolist(),
            "ticktext": [f"${tick * cash:,.0f}" for tick in TICKS],
        },
        yaxis2={"domain": [0, 0.25], "tickformat": ".2~%", "title": {"text": "drawdown"}},
        legend={"traceorder": "reversed"},
        height=540,
    )
    return figure


def _excess(evaluation: Evaluation) -> go.Figure:
    """Cumulative d, the seeds thin behind their ensemble."""
    figure, days, style = go.Figure(), list(evaluation.curves.sessions), {"color": page.AGENT, "width": 0.8}
    for number, series in enumerate(evaluation.curves.seeds.values()):
        shared = {"name": "each seed alone", "legendgroup": "seeds", "showlegend": number == 0}
        figure.add_scatter(x=days, y=list(series), line=style, opacity=0.3, hoverinfo="skip", **shared)
    thick = style | {"width": 2.4}
    figure.add_scatter(
        x=days, y=list(evaluation.curves.excess), name=html.escape(evaluation.agent.name), line=thick, hovertemplate="%{y:+.2%}"
    )
    _folds(figure, evaluation.tests, named=True)
    figure.update_layout(yaxis={"tickformat": "+.2~%", "zeroline": True, "zerolinecolor": page.EQUAL, "zerolinewidth": 2}, height=420)
    return figure


def _folds(figure: go.Figure, folds: tuple[FoldRecord, ...], *, named: bool = False) -> None:
    for fold in folds:
        figure.add_shape(
            type="line", x0=fold.test_start, x1=fold.test_start, y0=0, y1=1, yref="paper", layer="below",
            line={"color": "#b9c1cb", "width": 1, "dash": "dot"},
        )  # fmt: skip
        if named:
            figure.add_annotation(
                x=fold.test_start, y=1, yref="paper", text=str(fold.number + 1), showarrow=False, xanchor="left", yanchor="bottom",
                font={"size": 11, "color": FAINT},
            )  # fmt: skip


def _years(evaluation: Evaluation) -> go.Figure:
    """Calendar years of the agent and of the rows whose growth is drawn."""
    figure, styles = go.Figure(), _styles(evaluation)
    for row in map(evaluation.row_of, evaluation.curves.growth):
        years, values = zip(*((html.escape(year), value) for year, value in row.years.items()), strict=True)
        dashed = styles[row.name].get("dash", "solid") != "solid"
        fill = {"color": PALE if dashed else styles[row.name]["color"]}
        figure.add_bar(x=years, y=values, name=html.escape(row.name), marker=fill, hovertemplate="%{y:+.1%}")
    figure.update_layout(yaxis={"tickformat": "+.2~%", "zeroline": True}, xaxis={"type": "category"}, bargap=0.25, height=340)
    return figure


def _costs(evaluation: Evaluation) -> go.Figure:
    """Information ratio against equal weight by cost of trading."""
    figure, styles = go.Figure(), _styles(evaluation)
    alone = [
        (cost, row.at[cost].information_ratio) for row in evaluation.rows if row.kind == "agent seed" for cost in COSTS if cost in row.at
    ]
    figure.add_scatter(
        x=[int(cost) for cost, _ in alone], y=[value for _, value in alone], name="each seed alone", mode="markers", opacity=0.35,
        marker={"color": page.AGENT, "size": 6}, hoverinfo="skip",
    )  # fmt: skip
    for row in (*evaluation.baselines, evaluation.agent):
        points = {int(cost): row.at[cost].information_ratio for cost in COSTS if cost in row.at}
        if any(value is not None for value in points.values()):
            figure.add_scatter(
                x=list(points), y=list(points.values()), name=html.escape(row.name), line=styles[row.name], mode="lines+markers",
                marker={"size": 8 if row is evaluation.agent else 4}, hovertemplate="%{y:+.2f}",
            )  # fmt: skip
    if evaluation.headline.detectable_ir is not None:
        line, font = {"dash": "dot", "color": FAINT, "width": 1}, {"size": 11, "color": FAINT}
        figure.add_hline(y=evaluation.headline.detectable_ir, line=line, annotation_text="detectable with 80 % power", annotation_font=font)
    figure.update_layout(
        yaxis={"zeroline": True, "zerolinecolor": page.EQUAL, "zerolinewidth": 2, "tickformat": "+.2~f"},
        xaxis={"tickvals": [0, 10, 20], "ticktext": [f"{cost} bp" for cost in COSTS], "showgrid": False, "zeroline": False},
        height=420,
    )
    return figure
