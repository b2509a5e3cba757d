"""SageMaker's first processing job: is a training due (`learning.due`)? Ends with status 1 and one line when it cannot say."""

from __future__ import annotations

import sys

from learning.due import main

if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"due.py: {error}")
