"""`python supervisor.py COMMAND...`: run a command, pass SIGTERM on, and end it when standard input closes. Its exit code is the command's.

Standard input is a pipe from the emulator. A process of its own that reads it outlives neither a stop nor a SIGKILL of the emulator.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import FrameType


def main() -> int:
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)

    def pass_on(number: int, _: FrameType | None) -> None:
        child.send_signal(number)

    def watch() -> None:
        while os.read(0, 4096):
            pass
        child.kill()

    signal.signal(signal.SIGTERM, pass_on)
    threading.Thread(target=watch, daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
