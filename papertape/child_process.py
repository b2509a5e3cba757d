"""Run a script or a command so that it ends when the process that started it ends.

`python child_process.py SCRIPT ARG...` behaves like `python SCRIPT ARG...`, and `python child_process.py -- COMMAND ARG...` like the
command, except that standard input must be a pipe held open by the parent: when the parent stops, however it stops, the pipe closes
and everything started here is killed with it. No orphan outlives the emulator.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
from pathlib import Path


def end_group(*_: object) -> None:
    os.killpg(0, signal.SIGKILL)


def end_with_parent() -> None:
    """Lead a process group of our own, and kill it when standard input closes or on SIGTERM."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        end_group()

    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, end_group)
    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def main() -> None:
    script, *arguments = sys.argv[1:]
    end_with_parent()
    if script == "--":
        sys.exit(subprocess.run(arguments, stdin=subprocess.DEVNULL, check=False).returncode)
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
