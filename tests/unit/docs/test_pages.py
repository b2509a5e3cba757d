"""The pages that people read first: short enough, no link that leads nowhere, no decision that the index forgets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
DECISIONS = DOCS / "decisions"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", read(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_readme_is_read_in_minutes() -> None:
    assert len(read(ROOT / "README.md").split()) <= 1000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", read(page), flags=re.DOTALL)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or target.suffix != ".md" or anchor in anchors(target), link


def test_the_index_has_every_decision_in_order_with_its_title() -> None:
    rows = re.findall(
        r"^\| \[(\d+)\]\((\S+)\) \| \d{4}-\d{2}-\d{2} \| ([^|]+) \| [^|]+ \|$", read(DECISIONS / "README.md"), flags=re.MULTILINE
    )
    assert [name for _, name, _ in rows] == sorted(path.name for path in DECISIONS.glob("0*.md"))
    for number, name, title in rows:
        heading = read(DECISIONS / name).splitlines()[0]
        assert name.startswith(f"{int(number):04}-")
        assert heading.startswith(f"# {number}. {title.strip()}")


def test_what_decisions_quote_of_the_design_stands_there() -> None:
    design = " ".join(read(DOCS / "design.md").split())
    quoted = {
        page.name: " ".join(quote.removeprefix(">").strip() for quote in match.splitlines())
        for page in DECISIONS.glob("0*.md")
        for match in re.findall(r"The design says:\n\n((?:>.*\n)+)", read(page))
    }
    assert quoted
    assert not {name for name, quote in quoted.items() if quote not in design}
