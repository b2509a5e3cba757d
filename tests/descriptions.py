"""The vendor's own OpenAPI descriptions of its two APIs, from tests/contract/specs."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

SPECS = Path(__file__).parent / "contract" / "specs"
TRADING, DATA = "alpaca_trading-api.json", "alpaca_market-data-api.json"
VERBS = ("get", "post", "put", "patch", "delete")


@cache
def description(name: str) -> dict[str, Any]:
    """The document, with one slip of the vendor's mended: where activities of one type are asked for, each must match exactly one of two
    schemas, and a fill matches both, for nothing in either is required. Without a type the same two are alternatives, as they are here."""
    document: dict[str, Any] = json.loads((SPECS / name).read_text(encoding="utf-8"))
    if name == TRADING:
        answer = document["paths"]["/v2/account/activities/{activity_type}"]["get"]["responses"]["200"]
        items = answer["content"]["application/json"]["schema"]["items"]
        items["anyOf"] = items.pop("oneOf")
    return document


def operations() -> list[tuple[str, str]]:
    """Every operation of the two: (method, path)."""
    paths = [(path, item) for name in (TRADING, DATA) for path, item in description(name)["paths"].items()]
    return [(verb.upper(), path) for path, item in paths for verb in item if verb in VERBS]


def nameless(path: str) -> str:
    """The path without the names of its parameters."""
    return re.sub(r"\{[^}]*\}", "{}", path)
