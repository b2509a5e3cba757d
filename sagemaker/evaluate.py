"""SageMaker's processing job: judge the trained seeds (`learning.evaluation`). Ends with status 1 and one line when it cannot judge."""

from __future__ import annotations

import sys
import tarfile

from learning.evaluation import main

if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, tarfile.TarError) as error:
        sys.exit(f"evaluate.py: {error}")
