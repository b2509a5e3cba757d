"""The broker's keys: asked without echo, tried at the broker, then stored in the settings' region.

Promise: keys that the broker refuses are not stored; nothing that was typed is shown, logged, or passed as an argument. Failure:
`OperatorError`, or `BrokerError` when the broker refuses the keys or cannot be asked.
"""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.console import Console

from lambdas.common.broker.paper import paper_account, secret_text
from lambdas.common.broker.port import Account, BrokerUnavailable
from papertape.operate.client import OperatorError
from papertape.operate.cloud import AppCloud, asking

KEYS = "app.alpaca.markets, switch to Paper, API Keys"


def secret_name(cloud: AppCloud) -> str:
    return f"{cloud.settings.name}/alpaca"


def store(cloud: AppCloud, *, console: Console) -> None:
    """Ask for the paper account's two keys and store them."""
    name = secret_name(cloud)
    console.print(f"{cloud.name}: the paper account's keys for the secret {name} ({KEYS}); what you type is not shown")
    key_id, secret_key = (_asked(what) for what in ("Key ID", "Secret key"))
    text = secret_text(key_id=key_id, secret_key=secret_key)
    account = reached(cloud, text)
    with asking(f"the secret {name} in {cloud.settings.region} cannot be stored"):
        client = cloud.client("secretsmanager")
        kept = {field: value for field, value in _fields(client, name).items() if field != "live"}
        _put(client, name, json.dumps(kept | json.loads(text)))
    console.print(f"stored {name} in {cloud.settings.region}: paper account {account.id}, {account.status}, ${account.equity:,.2f}")


def store_source(cloud: AppCloud, source: str, *, console: Console) -> None:
    """Ask for the key of a source of data, and store it beside the broker's; the next run that needs it tries it."""
    name, client = secret_name(cloud), cloud.client("secretsmanager")
    with asking(f"the secret {name} in {cloud.settings.region} cannot be read"):
        fields = _fields(client, name)
    if not fields:
        raise OperatorError(f"there is no secret {name} in {cloud.settings.region} yet: store the broker's keys first, with make secret")
    console.print(f"{cloud.name}: the key of {source} for the secret {name}; what you type is not shown")
    key = _asked("Key", needed="the key is needed")
    with asking(f"the secret {name} in {cloud.settings.region} cannot be stored"):
        _put(client, name, json.dumps({**fields, source: key}))
    console.print(f"stored {source} in {name} in {cloud.settings.region}")


def reached(cloud: AppCloud, text: str) -> Account:
    """The paper account that the keys in `text`, a secret's, belong to."""
    try:
        return paper_account(text, environ=cloud.broker).account()
    except BrokerUnavailable as error:
        raise OperatorError(f"the broker does not let these keys in: {error}; paper keys are needed, from {KEYS}") from error


def stored_text(cloud: AppCloud) -> str | None:
    """The secret's text, None where there is no secret."""
    name, client = secret_name(cloud), cloud.client("secretsmanager")
    with asking(f"the secret {name} in {cloud.settings.region} cannot be read"):
        try:
            return str(client.get_secret_value(SecretId=name)["SecretString"])
        except client.exceptions.ResourceNotFoundException:
            return None


def _fields(client: Any, name: str) -> dict[str, Any]:
    """What the secret holds; nothing where there is none, where it waits for its deletion, or where it is no JSON object."""
    try:
        fields = json.loads(client.get_secret_value(SecretId=name)["SecretString"])
    except (client.exceptions.ResourceNotFoundException, client.exceptions.InvalidRequestException, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _put(client: Any, name: str, text: str) -> None:
    described = "The keys of the broker's paper account; read by the functions that call the broker."
    try:
        client.create_secret(Name=name, SecretString=text, Description=described)
    except (client.exceptions.ResourceExistsException, client.exceptions.InvalidRequestException):
        if "DeletedDate" in client.describe_secret(SecretId=name):  # it waits for the end of its recovery window
            client.restore_secret(SecretId=name)
        client.put_secret_value(SecretId=name, SecretString=text)


def _asked(what: str, *, needed: str = "both keys are needed") -> str:
    try:
        typed = str(typer.prompt(what, hide_input=True)).strip()
    except typer.Abort as error:
        raise OperatorError(f"nothing was stored: {needed}") from error
    if not typed:
        raise OperatorError(f"nothing was stored: the {what.lower()} was empty")
    return typed
