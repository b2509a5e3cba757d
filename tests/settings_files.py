"""Settings for functions and jobs that run in this process, where no bundle carries any: a file for PAPERTAPE_SETTINGS_FILE."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from schema.settings import Settings


def settings_file(settings: Settings) -> str:
    """A file of this process that holds `settings`; the same settings, the same file."""
    document = settings.model_dump_json()
    path = _folder() / f"{hashlib.sha256(document.encode()).hexdigest()[:16]}.json"
    path.write_text(document, encoding="utf-8")
    return str(path)


@lru_cache(maxsize=1)
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="papertape-settings-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
