"""Why settings are refused: one line for the author of the file, from what Pydantic found.

Promise: each sentence names the key, its value and what is allowed; a key of an earlier version is refused with its new name.
"""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import ErrorDetails

#: Keys of earlier versions, and what to write instead of the given value.
RENAMED = {
    "schedule.slot": 'schedule.slot is now schedule.slots = ["{value}"]',
    "cost": "[cost] is now [budget]",
}


def sentence(error: ValidationError, *, source: str) -> str:
    """Every problem of a document, in one line that begins with where it is from."""
    problems = error.errors()
    # Whoever renames the key also answers that the new one is missing
    renamed = [problem for problem in problems if problem["type"] == "extra_forbidden" and _key(problem) in RENAMED]
    return "; ".join(_sentence(source, problem) for problem in renamed or problems)


def _key(problem: ErrorDetails) -> str:
    return ".".join(str(part) for part in problem["loc"]) or "(file)"


def _sentence(file: str, problem: ErrorDetails) -> str:
    key = _key(problem)
    match problem["type"]:
        case "extra_forbidden" if key in RENAMED:
            return f"{file}: {RENAMED[key].format(value=problem['input'])}"
        case "missing":
            return f"{file}: {key} is missing"
        case "extra_forbidden":
            return f"{file}: {key} = {problem['input']!r} is not a setting; remove it or check its spelling"
        case "value_error":
            return f"{file}: {key}: {problem['ctx']['error']}"
        case "json_invalid":
            return f"{file}: is not valid JSON, {problem['ctx']['error']}"
        case _:
            return f"{file}: {key} = {problem['input']!r} is not allowed: {problem['msg']}"
