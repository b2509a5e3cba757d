"""The guard of every endpoint override: an address other than AWS's own must be this machine's.

So a stray variable can never send orders, data or credentials elsewhere. The broker's addresses have a stricter guard of their own, in
`lambdas.common.broker.alpaca`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from trading_env.errors import PapertapeError

OVERRIDE_PREFIX = "AWS_ENDPOINT_URL"
# What signs calls to the local cloud; it checks signatures, not who one is
LOCAL_ACCOUNT, LOCAL_SECRET = "000000000000", "test"


class ForeignEndpointError(PapertapeError, ValueError):
    """An endpoint override does not point to this machine; the message names the variable and its value."""


def is_loopback(url: str) -> bool:
    """Tell whether `url` is http(s) to this machine, with no user information that could disguise another host."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in {"http", "https"} or parts.username is not None:
            return False
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_foreign_endpoints(environ: Mapping[str, str]) -> None:
    """Raise `ForeignEndpointError` if an AWS endpoint override does not point to this machine."""
    for name, value in environ.items():
        if name.startswith(OVERRIDE_PREFIX) and value and not is_loopback(value):
            raise ForeignEndpointError(f"{name} may only point to this machine (http://127.0.0.1:<port>), was {value}; unset it")
