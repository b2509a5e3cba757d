"""A write of a person: once per idempotency key, kept with who asked and what came of it.

Promise: the same key with the same body is the same write, and gets the stored answer; with another body it is a `KeyReusedError` (409).
A write that is open is made again: its answer nobody knows, because the function died meanwhile, or it was a 429 or a 5xx, which say to
ask again. What it calls is idempotent under the same key.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lambdas.common.ledger.actions import ActionRecord
from lambdas.common.ledger.table import AlreadyThere
from lambdas.dashboard.principal import Scope
from lambdas.dashboard.request import PageRequest
from trading_env.errors import PapertapeError

KEY = re.compile(r"^[A-Za-z0-9-]{8,64}$")
HEADER = "Idempotency-Key"
TOO_MANY, SERVER_ERROR = 429, 500


class WriteError(PapertapeError, ValueError):
    """The write names no key, or one that is none."""


class KeyReusedError(PapertapeError, RuntimeError):
    """The key was used for something else."""


class Written(NamedTuple):
    status: int
    body: dict[str, Any]


def write(request: PageRequest, *, name: str, key: str, scope: Scope, body: Mapping[str, Any], act: Callable[[], Written]) -> Written:
    """Do `act` once under `key`. Raises `ScopeError`, `WriteError`, `KeyReusedError`, or what `act` raises, which stores no answer."""
    request.principal.require(scope)
    if not KEY.fullmatch(key):
        raise WriteError(f"{HEADER} must be 8 to 64 letters, digits and dashes, was {key[:80]!r}")
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    digest = hashlib.sha256(f"{name}\n{text}".encode()).hexdigest()
    action = ActionRecord(key=key, user=request.principal.user, name=name, body=text, body_sha256=digest, at=request.now)
    try:
        request.actions.begin(action)
    except AlreadyThere as there:
        stored = there.stored
        if not isinstance(stored, ActionRecord) or (stored.body_sha256, stored.user) != (digest, action.user):
            raise KeyReusedError(f"{HEADER} {key} was used for another request") from None
        if stored.status is not None and stored.answer is not None:
            return Written(stored.status, json.loads(stored.answer))
        action = stored
    done = act()
    if done.status == TOO_MANY or done.status >= SERVER_ERROR:
        return done
    request.actions.answered(action.model_copy(update={"status": done.status, "answer": json.dumps(done.body, allow_nan=False)}))
    return done
