"""docs/architecture.md says what is: its paths exist, its rules are the linter's, its ten changes are all there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CHANGES = {
    "news source", "reward term", "risk rule", "health rule", "feature column",
    "another broker", "baseline", "RL algorithm", "endpoint", "second decision slot",
}  # fmt: skip


def is_of_the_repository(text: str) -> bool:
    """Whether `text` names a place of the repository: what begins with a folder or a file of its root, runs' output apart."""
    first = text.partition("/")[0]
    return re.fullmatch(r"[\w./<>-]+", text) is not None and first != "out" and (ROOT / first).exists()


def paths() -> list[str]:
    """What stands in backticks and names a place; of a new file, `<its name>` in angle brackets, the folder that it goes into."""
    quoted = re.findall(r"`([^`\n]+)`", PAGE)
    return sorted({text.partition("<")[0] for text in quoted if ("/" in text or "." in text) and is_of_the_repository(text)})


@pytest.mark.parametrize("path", paths())
def test_every_path_exists(path: str) -> None:
    made = {"schema/settings.json"}  # at synth, into the code bundle
    assert path in made or (ROOT / path).exists()


def test_paths_are_found_and_object_keys_are_none() -> None:
    assert {"settings.toml", "lambdas/", "schema/lake_layout.py", "trading_env/orders/risk.py"} <= set(paths())
    assert not [path for path in paths() if path.startswith(("raw", "processed", "models", "audit"))]


def test_the_rules_are_those_of_the_linter() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    told = {line.split("|")[1].strip() for line in PAGE.splitlines() if line.startswith("|")}
    assert not {contract["name"] for contract in contracts} - told


def test_every_change_says_where_it_goes() -> None:
    rows = dict(re.findall(r"^\| \*\*([^*]+)\*\*[^|]*\| (.+) \|$", PAGE, flags=re.MULTILINE))
    assert rows.keys() == CHANGES
    assert all("`" in files for files in rows.values())
