"""`python -m runner`: follow the market until SIGTERM. What the container runs.

Status 0 after SIGTERM, 1 with one line on standard error where it may not or cannot follow.
"""

from __future__ import annotations

import sys

from runner.process import follow
from trading_env.errors import PapertapeError


def main() -> int:
    try:
        follow()
    except PapertapeError as error:
        sys.stderr.write(f"runner: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
