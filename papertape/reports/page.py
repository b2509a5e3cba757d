"""What the project's pages share: one template engine that escapes everything, charts as markup, plotly's script inline.

A page is one file that asks no network for anything. A value that a template names and nobody gave raises jinja2's UndefinedError.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

AGENT, EQUAL, BENCHMARK, SHADOW = "#0b5fa5", "#c7801d", "#8a94a3", "#7a3fa0"


def render(template: str, **values: Any) -> str:
    """The page from a template of this folder; `plotly_js` is there for it to include once."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(plotly_js=_safe(get_plotlyjs()), **values)


def chart(figure: go.Figure, *, name: str) -> Markup:
    """The figure as an element of id `name`, in the style of the pages. Plotly itself escapes what could end the script."""
    figure.update_layout(
        template="plotly_white",
        margin={"l": 56, "r": 16, "t": 24, "b": 32},
        legend={"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"},
        hovermode="x unified",
        font={"family": "system-ui, -apple-system, Segoe UI, sans-serif", "color": "#1c2430"},
    )
    return _safe(figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config={"displayModeBar": False, "responsive": True}))


def _safe(text: str) -> Markup:
    """Mark our own charts and plotly's script as markup; everything else on a page is escaped."""
    return Markup(text)  # noqa: S704
