"""`python -m papertape`, which is `papertape`."""

from __future__ import annotations

from papertape.command_line import app

if __name__ == "__main__":
    app()
