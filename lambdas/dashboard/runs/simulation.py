"""The simulation: a model over bars, dates and costs, and what the backtest came to. Its numbers are those of `results/backtest.json`."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import BaseModel

from lambdas.dashboard.market.candles import ChartMarker, MarkedCandles
from lambdas.dashboard.pages import page
from lambdas.dashboard.request import PageRequest
from lambdas.dashboard.routing import PageRouter
from lambdas.dashboard.runs.training import STOP_POLLING, inspected
from lambdas.dashboard.runs.views import RESUMABLE, detail, folder, listed, request_of

router = PageRouter()
#: The year that the bundled bars keep for judging.
BUNDLED_DATES = ("2020-01-02", "2020-12-31")
TRADES = 100  # of one page
BASELINES = {"equal-weight": "Equal weight", "random:0": "Random weights, seed 0"}
MEASURES = (
    ("return", "Return", "percent"),
    ("annual_return", "Return per year", "percent"),
    ("volatility", "Volatility per year", "percent"),
    ("sharpe", "Sharpe ratio", "number"),
    ("max_drawdown", "Maximum drawdown", "percent"),
    ("turnover_per_day", "Turnover per day", "percent"),
    ("costs", "Costs", "money"),
)
SKILL = (
    ("excess_bp", "Excess over equal weight, bp per year"),
    ("information_ratio", "Information ratio"),
    ("excess_kappa_bp", "Excess over equal weight at the same pace, bp per year"),
    ("information_ratio_kappa", "Information ratio at the same pace"),
)


class CurveView(BaseModel):
    """By session: equity at the close in US dollars, the drawdown as a share, at or below 0. `benchmark` is null without one."""

    sessions: tuple[str, ...]
    equity: tuple[float, ...]
    equal_weight: tuple[float, ...]
    benchmark: tuple[float, ...] | None
    benchmark_name: str
    drawdown: tuple[float, ...]


class FilledView(BaseModel):
    """A trade of the backtest: shares signed, price in US dollars before costs, `cost` in US dollars."""

    session: str
    symbol: str
    side: Literal["buy", "sell"]
    shares: float
    price: float
    cost: float


@router.get("/api/runs/<run_id>/curve", summary="A backtest's equity and drawdown by session")
def get_curve(run_id: str) -> CurveView:
    document = _document(router.asked, run_id)
    other = document["benchmark"]
    return CurveView(
        **{name: document[name] for name in ("sessions", "equity", "equal_weight")},
        drawdown=tuple(-abs(one) for one in document["drawdown"]),
        benchmark=None if other is None else other["equity"],
        benchmark_name="" if other is None else other["name"],
    )


@router.get("/api/runs/<run_id>/candles", summary="A name's candles over a backtest, with its trades")
def get_candles(run_id: str, symbol: Annotated[str, Query(max_length=40)]) -> MarkedCandles:
    """On the sessions on which the name has a bar."""
    asked = router.asked
    drawn = _json(asked, run_id, "candles.json")
    if symbol not in drawn["symbols"]:
        raise NotFoundError(f"the backtest holds no {symbol}")
    bars, trades = drawn["symbols"][symbol], [one for one in _trades(_document(asked, run_id)) if one.symbol == symbol]
    rows = [row for row, close in enumerate(bars["close"]) if close is not None]
    return MarkedCandles(
        symbol=symbol,
        sessions=tuple(drawn["sessions"][row] for row in rows),
        **{name: tuple(bars[name][row] for row in rows) for name in ("open", "high", "low", "close")},
        markers=tuple(ChartMarker(session=one.session, kind=one.side, text=f"{one.shares:+g} at {one.price:.2f}") for one in trades),
    )


@router.get("/pages/simulation", include_in_schema=False)
def show_simulation() -> Response[str]:
    asked, query = router.asked, router.current_event.get_query_string_value
    bars = inspected(asked, query("bars", "") or "")
    seen = None if bars is None else bars.status.inspected
    return page(
        "simulation.html.j2", asked,
        models=models(asked), chosen=query("model", "") or "", inspection=bars, deployed=asked.settings,
        dates=BUNDLED_DATES if seen is None else (seen.first, seen.last), runs=listed(asked, kinds=("backtest",), limit=10).runs,
    )  # fmt: skip


@router.get("/pages/simulation/<run_id>", include_in_schema=False)
def show_backtest(run_id: str) -> Response[str]:
    return page("simulation_run.html.j2", router.asked, **_of_backtest(run_id))


@router.get("/pages/simulation/<run_id>/live", include_in_schema=False)
def show_live(run_id: str) -> Response[str]:
    values = _of_backtest(run_id)
    shown = page("simulation_live.html.j2", router.asked, **values)
    if not values["going"]:
        shown.status_code = STOP_POLLING
    return shown


def _of_backtest(run_id: str) -> dict[str, Any]:
    asked = router.asked
    view = detail(asked, run_id)
    if view.request.backtest is None:
        raise NotFoundError(f"run {run_id} is no backtest")
    document = _document(asked, run_id) if view.run.state == "finished" else None
    start = router.current_event.get_query_string_value("trades", "0") or "0"
    first = min(int(start), 10_000_000) if start.isascii() and start.isdigit() else 0
    trades = () if document is None else tuple(_trades(document))
    return {
        "view": view,
        "going": view.run.state in ("queued", "running", "stopping"),
        "resumable": view.run.state in RESUMABLE,
        "document": document,
        "measures": MEASURES,
        "skill": SKILL,
        "trades": trades[first : first + TRADES],
        "first": first,
        "count": len(trades),
        "more": first + TRADES if first + TRADES < len(trades) else None,
        "traded": sorted({one.symbol for one in trades}),
        "drawn": "candles.json" in {one.name for one in view.status.results},
    }


def models(request: PageRequest) -> dict[str, str]:
    """What can be backtested, as a request calls it, and its name: baselines, finished trainings, packages; the newest first of each."""
    trained = [one for one in listed(request, kinds=("train",), limit=20).runs if one.state == "finished"]
    group = request.variables.package_group
    sagemaker = request.registry.sagemaker
    found = sagemaker.list_model_packages(ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending", MaxResults=10)
    packages = found["ModelPackageSummaryList"]
    return (
        BASELINES
        | {f"run:{one.id}": f"Run {one.title}" for one in trained}
        | {
            f"package:{one['ModelPackageArn']}": f"Package {one['ModelPackageVersion']}, {one.get('ModelApprovalStatus', '')}"
            for one in packages
        }
    )


def _trades(document: dict[str, Any]) -> list[FilledView]:
    own, sessions, symbols = document["trades"], document["sessions"], document["symbols"]
    columns = zip(own["session"], own["name"], own["shares"], own["price"], own["cost"], strict=True)
    return [
        FilledView(
            session=sessions[session], symbol=symbols[name], side="buy" if shares > 0 else "sell", shares=shares, price=price, cost=cost
        )
        for session, name, shares, price, cost in columns
    ]


def _document(request: PageRequest, run_id: str) -> dict[str, Any]:
    return _json(request, run_id, "backtest.json")


def _json(request: PageRequest, run_id: str, name: str) -> dict[str, Any]:
    runs = folder(request)
    request_of(runs, run_id)
    body = runs.result(run_id, name)
    if body is None:
        raise NotFoundError(f"run {run_id} has no {name}")
    found: dict[str, Any] = json.loads(body)
    return found
