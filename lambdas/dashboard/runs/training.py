"""The pages of the training room: the list, the form, an upload with its columns, a run, and runs beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Annotated, Any, get_args

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import BaseModel

from lambdas.dashboard.pages import page
from lambdas.dashboard.request import PageRequest
from lambdas.dashboard.routing import PageRouter
from lambdas.dashboard.runs.api import COMPARED
from lambdas.dashboard.runs.uploads import KINDS, MOST_BYTES
from lambdas.dashboard.runs.views import RESUMABLE, RunDetail, detail, folder, listed, refuse
from schema.runs.events import Inspected
from schema.runs.request import RUN_ID, NumberForm, Role, RunRequest, UploadedBars
from schema.sections.learning import RewardSettings
from schema.settings import ALGORITHM_NAMES

router = PageRouter()
#: What a laptop does in a few minutes; the gate needs 8 folds and 10 seeds.
QUICK = {"timesteps": 50_000, "folds": 3, "seeds": 2}
ROLES: tuple[str, ...] = get_args(Role)
FORMS: tuple[str, ...] = get_args(NumberForm)
REWARDS: tuple[str, ...] = get_args(RewardSettings.model_fields["kind"].annotation)
#: A metric of a verdict, its name, and how it is shown.
METRICS = (
    ("information_ratio", "Information ratio", "number"),
    ("excess_bp_per_year", "Excess over equal weight, bp per year", "number"),
    ("annual_return", "Return per year", "percent"),
    ("volatility", "Volatility per year", "percent"),
    ("sharpe", "Sharpe ratio", "number"),
    ("max_drawdown", "Maximum drawdown", "percent"),
    ("turnover_per_day", "Turnover per day", "percent"),
)
STOP_POLLING = 286  # htmx: the content is taken, and not asked for again


class ColumnView(BaseModel):
    """A column of an uploaded file: `role` as proposed, "" for none; `cells`: its first rows."""

    name: str
    role: str
    cells: tuple[str, ...]


class DifferenceView(BaseModel):
    """A setting that is not the same in all compared runs; a value per run, None: as deployed."""

    name: str
    values: tuple[str | None, ...]


@router.get("/pages/training", include_in_schema=False)
def show_training() -> Response[str]:
    cursor = router.current_event.get_query_string_value("cursor", "") or ""
    return page("training.html.j2", router.asked, view=listed(router.asked, before=cursor if RUN_ID.fullmatch(cursor) else ""))


@router.get("/pages/training/new", include_in_schema=False)
def show_new() -> Response[str]:
    asked = router.asked
    inspection = inspected(asked, router.current_event.get_query_string_value("bars", "") or "")
    return page(
        "training_new.html.j2", asked,
        inspection=inspection, deployed=asked.settings, algorithms=ALGORITHM_NAMES, rewards=REWARDS, quick=QUICK,
    )  # fmt: skip


@router.get("/pages/training/upload", include_in_schema=False)
def show_upload() -> Response[str]:
    return page("training_upload.html.j2", router.asked, most=MOST_BYTES, kinds=",".join(KINDS))


@router.get("/pages/training/compare", include_in_schema=False)
def show_compare(runs: Annotated[str, Query(max_length=300)] = "") -> Response[str]:
    asked = router.asked
    ids = list(dict.fromkeys(one for one in runs.split(",") if one))
    if not 2 <= len(ids) <= COMPARED:
        raise refuse("runs", runs, f"two to {COMPARED} runs, separated by commas")
    details = [detail(asked, one) for one in ids]
    return page("training_compare.html.j2", asked, runs=details, differences=differences([one.request for one in details]), metrics=METRICS)


@router.get("/pages/training/<run_id>", include_in_schema=False)
def show_run(run_id: str) -> Response[str]:
    view = detail(router.asked, run_id)
    return page("training_run.html.j2", router.asked, **_of_run(view))


@router.get("/pages/training/<run_id>/live", include_in_schema=False)
def show_live(run_id: str) -> Response[str]:
    values = _of_run(detail(router.asked, run_id))
    shown = page("training_live.html.j2", router.asked, **values)
    if not values["going"]:
        shown.status_code = STOP_POLLING
    return shown


def _of_run(view: RunDetail) -> dict[str, Any]:
    results = {one.name: one.bytes for one in view.status.results}
    return {
        "view": view,
        "results": results,
        "metrics": METRICS,
        "resumable": view.run.state in RESUMABLE,
        "going": view.run.state in ("queued", "running", "stopping"),
        "algorithm": ALGORITHM_NAMES.get(view.run.algorithm, view.run.algorithm),  # type: ignore[call-overload]
        "columns": () if view.status.inspected is None else columns(view.status.inspected),
        "roles": ROLES,
        "forms": FORMS,
    }


def inspected(request: PageRequest, run_id: str) -> RunDetail | None:
    """The inspection that a form starts from, when it is one whose bars can be used."""
    if not RUN_ID.fullmatch(run_id) or folder(request).request(run_id) is None:
        return None
    view = detail(request, run_id)
    seen = view.status.inspected
    usable = isinstance(view.request.bars, UploadedBars) and seen is not None and seen.problem is None
    return view if usable else None


def columns(seen: Inspected) -> tuple[ColumnView, ...]:
    """The file's columns in its order, each with its first rows; the preview's first row holds the names."""
    names = list(seen.preview[0]) if seen.preview else [*seen.columns, *seen.unmapped]
    rows = seen.preview[1:]
    cells = list(zip_longest(*rows, fillvalue="")) if rows else []
    return tuple(
        ColumnView(name=name, role=seen.columns.get(name, ""), cells=tuple(cells[place]) if place < len(cells) else ())
        for place, name in enumerate(names)
    )


def differences(requests: list[RunRequest]) -> tuple[DifferenceView, ...]:
    """The settings that are not the same in all of them, as "section.key", and the bars where they differ."""
    flat = [_flat(one.settings) | {"bars": getattr(one.bars, "name", "bundled")} for one in requests]
    keys = sorted({key for one in flat for key in one})
    return tuple(
        DifferenceView(name=key, values=tuple(one.get(key) for one in flat)) for key in keys if len({one.get(key) for one in flat}) > 1
    )


def _flat(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {f"{section}.{key}": str(value) for section, values in settings.items() for key, value in values.items()}
