"""The paper account's keys: asked for once at the terminal, without an echo, and tried before they are kept.

They are kept in one place, the local cloud's secret store, where the functions read them: `out/paper/cloud/state`, whose files only their
owner may read (mode 600). So they go with the run that they belong to, are in no second file, and git ignores the folder. They are in no
message and no log.
"""

from __future__ import annotations

import getpass
import sys

from lambdas.common.broker.connection import paper_account
from lambdas.common.broker.port import Account, Broker, BrokerError
from trading_env.errors import PapertapeError

WHERE = "https://app.alpaca.markets (Paper account, API Keys: free, no money in it)"


class KeysError(PapertapeError, RuntimeError):
    """There are no usable keys; the message says where to get some."""


def ask() -> tuple[str, str]:
    """Key id and secret key from the terminal; raises KeysError where there is none, after a line on standard error."""
    if not sys.stdin.isatty():
        print("papertape: paper trades through an Alpaca paper account, and no keys of one are stored here yet", file=sys.stderr)
        raise KeysError(f"make a pair at {WHERE}, then run `make paper` once in a terminal, which asks for them")
    print(f"Keys of an Alpaca paper account are needed once: {WHERE}")
    key_id, secret_key = getpass.getpass("Key id: ").strip(), getpass.getpass("Secret key: ").strip()
    if not key_id or not secret_key:
        raise KeysError(f"both the key id and the secret key are needed: {WHERE}")
    return key_id, secret_key


def opened(keys: tuple[str, str], *, url: str = "") -> tuple[Broker, Account]:
    """The account that `keys` open; raises KeysError when they open none."""
    try:
        broker = paper_account(key_id=keys[0], secret_key=keys[1], url=url)
        return broker, broker.account()
    except BrokerError as error:
        remedy = "see the network, or give other keys with `papertape paper --new-keys`"
        raise KeysError(f"the paper account does not open with these keys ({error}): {remedy}") from error
