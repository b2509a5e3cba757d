"""SageMaker's training job: one seed, its folds (`learning.training`). Ends with status 1 and one line when it cannot train, with
status 75 and one line when it was asked to stop: the same command goes on."""

from __future__ import annotations

import sys

from learning.algorithms.checkpoints import Stopped
from learning.training import STOPPED, main

if __name__ == "__main__":
    try:
        main()
    except Stopped as stopped:
        sys.stderr.write(f"train.py: {stopped}\n")
        sys.exit(STOPPED)
    except (ValueError, OSError) as error:
        sys.exit(f"train.py: {error}")
