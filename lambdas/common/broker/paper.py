"""Reads of a paper account by keys that somebody holds: what is asked before anything is deployed. Nothing here can order."""

from __future__ import annotations

import json
from collections.abc import Mapping

from lambdas.common.broker import alpaca
from lambdas.common.broker.port import AccountReads


def paper_account(secret: str, *, environ: Mapping[str, str]) -> AccountReads:
    """Return reads of the paper account whose keys are in `secret`, the broker secret's text; addresses come from `environ`.

    Raises `BrokerRefused` where the text is no secret or an address is neither the paper account's nor this machine's; never real money.
    """
    return alpaca.paper_account(secret, environ=environ)


def secret_text(*, key_id: str, secret_key: str) -> str:
    """Return what the secret holds for a paper account's two keys."""
    return json.dumps({"key_id": key_id, "secret_key": secret_key})
