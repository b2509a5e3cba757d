"""What a model package's model, configuration and endpoint in SageMaker are called: made outside of the stacks, found by name."""

from __future__ import annotations

import re

HASH_DIGITS = 12


def served_name(app: str, *, version: int, model_hash: str) -> str:
    """The one name of the three: another model never has it."""
    return f"{app}-{version}-{model_hash[:HASH_DIGITS]}"


def served_version(app: str, name: str) -> int | None:
    """The package version that `name` was made for, 0 where it does not say; None for a name that the app called `app` never made.

    The forms of earlier versions count: `<app>-<version>`, `<app>-<version>-<role>` and `<app>-<role>`.
    """
    form = rf"{re.escape(app)}-(?:(\d+)(?:-[0-9a-f]{{{HASH_DIGITS}}}|-(?:incumbent|shadow))?|incumbent|shadow)"
    found = re.fullmatch(form, name)
    return None if found is None else int(found[1] or 0)
