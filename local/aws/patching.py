"""How a patch of the emulator takes hold of ministack, and of which version of it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

from trading_env.errors import PapertapeError

VERSION = "1.5.33"


class PatchError(PapertapeError):
    """A patch does not fit the installed ministack; the message names both."""


def replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    """Put `wrap(original)` in the place of `owner.name`; raise PatchError when there is no such symbol."""
    original = getattr(owner, name, None)
    if original is None:
        installed = importlib.metadata.version("ministack")
        raise PatchError(f"{owner.__name__}.{name} is not there; ministack {VERSION} is needed, was {installed}")
    setattr(owner, name, wrap(original))
