"""SageMaker's training job: one seed, its folds (`learning.training`). Ends with status 1 and one line when it cannot train."""

from __future__ import annotations

import sys

from learning.training import main

if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"train.py: {error}")
