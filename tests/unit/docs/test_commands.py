"""The commands that the pages tell people to type exist: make's targets and the command line's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from papertape.command_line import app

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TARGETS = set(re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def typed(page: Path, program: str) -> set[str]:
    """What follows `program` in a line of a block of code, or at the beginning of a code span."""
    text = page.read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^ *```\w*\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE))
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))
    lines = [line.strip().removeprefix("$ ") for line in [*blocks.splitlines(), *spans]]
    return {found[1] for line in lines if (found := re.match(rf"{program} ([a-z][a-z-]*)", line))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_tells_to_make_is_a_target(page: Path) -> None:
    assert typed(page, "make") - {name for names in TARGETS for name in names.split()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_tells_papertape_to_do_is_a_command(page: Path) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    assert typed(page, "papertape") - set(group.list_commands(typer.Context(group))) == set()


def test_the_way_to_an_armed_account_is_three_commands() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    block = page.partition("## Three commands")[2].partition("```\n")[2].partition("```")[0]
    assert [line.split()[:2] for line in block.splitlines()] == [["make", "secret"], ["make", "deploy"], ["make", "first-run"]]
    assert {"deploy", "README"} == {path.stem for path in PAGES if {"secret", "deploy", "first-run"} <= typed(path, "make")}
