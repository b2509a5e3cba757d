"""The web app's shell as an archive: what is written here, in `web/`, and the libraries that package.json pins, as npm has installed them.

`index.html` lies at the root and everything else below `assets/`, as the local server has them. `config.json` is not in it: where to sign
in is known only when it is deployed.
"""

from __future__ import annotations

from pathlib import Path

from stacks.constructs.archives import ROOT, Archive, BundleError, archive_of

INDEX = "index.html"
OTHERS = (
    "htmx.org/dist/htmx.min.js",
    "uplot/dist/uPlot.iife.min.js",
    "uplot/dist/uPlot.min.css",
    "lightweight-charts/dist/lightweight-charts.standalone.production.js",
)  # below node_modules


def web_files(root: Path = ROOT) -> dict[str, bytes]:
    """Name in the bucket -> content. Raises `BundleError` for a file that is not there."""
    own = sorted(path for path in (root / "web").glob("*") if path.is_file())
    paths = [root / "web" / INDEX, *own, *(root / "node_modules" / name for name in OTHERS)]
    if missing := [path for path in paths if not path.is_file()]:
        raise BundleError(f"{missing[0].relative_to(root)} is not there: run `make setup`")
    return {path.name if path.name == INDEX else f"assets/{path.name}": path.read_bytes() for path in paths}


def web_archive() -> Archive:
    return archive_of(web_files(), name="web")


def security_policy(*connects: str) -> str:
    """The content security policy of every answer; `connects`: the origins that a page may ask beside its own."""
    asks = " ".join(("'self'", *connects))
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; connect-src {asks}; img-src 'self' data:; "
        "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
