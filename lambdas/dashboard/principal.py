"""Who asks, and what they may do: the claims that the gateway has checked.

On AWS they are of a Cognito access token, on the laptop of the token that the server printed. Failure: `ScopeError`, which becomes a 403.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trading_env.errors import PapertapeError

Scope = Literal["read", "trade", "approve"]
PREFIX = "papertape/"


class ScopeError(PapertapeError, PermissionError):
    """The token does not allow this; the message names the scope."""


@dataclass(frozen=True)
class Principal:
    """A person by the name that they signed in with, and their scopes."""

    user: str
    scopes: frozenset[str]

    @classmethod
    def of(cls, context: Mapping[str, Any]) -> Principal:
        """From an event's `requestContext`; raises `ScopeError` where the gateway has checked nobody."""
        claims = (context.get("authorizer") or {}).get("claims") or {}
        user = claims.get("username") or claims.get("sub")
        if not user:
            raise ScopeError("nobody is signed in: the request has no claims")
        scopes = str(claims.get("scope", "")).split()
        return cls(user=str(user), scopes=frozenset(one.removeprefix(PREFIX) for one in scopes if one.startswith(PREFIX)))

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes

    def require(self, scope: Scope) -> None:
        if not self.may(scope):
            raise ScopeError(f"{self.user} needs the scope {PREFIX}{scope}, has {', '.join(sorted(self.scopes)) or 'none'}")
