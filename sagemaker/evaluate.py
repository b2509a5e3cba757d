"""SageMaker's processing job: judge the trained seeds (`learning.evaluation`). Ends with status 1 and one line when it cannot judge, with
status 75 when it was asked to stop and the same command goes on."""

from __future__ import annotations

import sys
import tarfile

from learning.evaluation import main
from learning.judged_books import STOPPED, JudgingStopped

if __name__ == "__main__":
    try:
        main()
    except JudgingStopped:
        sys.exit(STOPPED)
    except (ValueError, OSError, tarfile.TarError) as error:
        sys.exit(f"evaluate.py: {error}")
