"""What a Hive type says of a JSON value: enough of it to hold a table's columns against the records that it must read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

SCALARS: dict[str, type | tuple[type, ...]] = {"string": str, "int": int, "double": (int, float), "boolean": bool}


def problems(value: Any, kind: str, where: str = "record") -> list[str]:
    """What of `value` the type cannot hold, and which fields only one of them knows; null fits every type."""
    if value is None:
        return []
    if (scalar := SCALARS.get(kind)) is not None:
        fits = isinstance(value, scalar) and (kind == "boolean" or not isinstance(value, bool))
        return [] if fits else [f"{where} must be {kind}, was {value!r}"]
    outer, inner = re.fullmatch(r"(struct|map|array)<(.*)>", kind).groups()  # type: ignore[union-attr]
    if outer == "array":
        return [told for n, item in enumerate(value) for told in problems(item, inner, f"{where}[{n}]")]
    parts = list(_split(inner))
    if outer == "map":
        return [told for name, item in value.items() for told in problems(item, parts[1], f"{where}.{name}")]
    fields = dict(part.split(":", 1) for part in parts)
    unknown = [f"{where}.{name} is in one of record and table only" for name in sorted(fields.keys() ^ value.keys())]
    return unknown + [told for name in fields.keys() & value.keys() for told in problems(value[name], fields[name], f"{where}.{name}")]


def _split(text: str) -> Iterator[str]:
    """Split at the commas that are not inside of <>."""
    depth, start = 0, 0
    for n, letter in enumerate(text):
        depth += (letter == "<") - (letter == ">")
        if letter == "," and depth == 0:
            yield text[start:n]
            start = n + 1
    yield text[start:]
