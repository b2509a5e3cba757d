"""What keeps the house readable: small rooms, short modules, one definition of a public name."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("trading_env", "schema", "sources", "learning", "sagemaker", "lambdas", "glue_jobs", "stacks", "runner", "papertape", "local")
MODULES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
#: Longer than 400 lines, and why.
LONG = {
    "trading_env/simulation/kernel.py": "the step of N books in one compiled text, which numba inlines; a seam would cost speed",
}


def test_no_room_holds_more_than_about_fifteen_modules() -> None:
    rooms = Counter(path.parent for path in MODULES if path.name != "__init__.py")
    assert {str(room.relative_to(ROOT)): count for room, count in rooms.items() if count > 15} == {}


def test_modules_stay_below_four_hundred_lines() -> None:
    long = {path.relative_to(ROOT).as_posix() for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > 400}
    assert long == LONG.keys()


def test_a_public_class_is_defined_once() -> None:
    defined = defaultdict(list)
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                defined[node.name].append(path.relative_to(ROOT).as_posix())
    assert {name: places for name, places in defined.items() if len(places) > 1} == {}
