"""The scripts of `sagemaker/` as a test imports them: flat, the way they run in a container, for the folder is no package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[1] / "sagemaker"


def script(name: str) -> ModuleType:
    """The module of `sagemaker/<name>.py`, one instance in a process; the folder is on the path only while it is imported."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
