"""botocore and moto without what they do anew each time: a test asks AWS in process a hundred times, and most of its second was this."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import botocore.hooks
import botocore.loaders
import botocore.regions
import botocore.session
import pytest
from botocore.endpoint_provider import EndpointProvider
from botocore.hooks import EventAliaser, NodeList, _PrefixTrie
from botocore.signers import RequestSigner
from botocore.useragent import UserAgentString
from moto.core import DEFAULT_ACCOUNT_ID, responses
from moto.core.base_backend import BaseBackend
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.exceptions import ServiceException
from moto.core.utils import camelcase_to_underscores
from moto.dynamodb import models
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType, Item, LimitedSizeDict
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler
from werkzeug.exceptions import HTTPException

#: Calls to DynamoDB whose requests and answers hold nothing but attribute values and names.
HOT = frozenset({"GetItem", "BatchGetItem", "Query", "PutItem", "UpdateItem", "DeleteItem", "Scan", "TransactWriteItems"})
DYNAMODB = re.compile(r"https://dynamodb\.(?P<region>[a-z0-9-]+)\.amazonaws\.com/")

_loader = cache(botocore.loaders.create_loader)
_method_names = cache(responses.method_names_from_class)


def hurry(patch: pytest.MonkeyPatch) -> None:
    """Read each service's model and rules once per process, look through moto's classes and its table of a service's URLs once, spell
    an event's name once, ask DynamoDB without the detour over HTTP, and take back of a transaction what it touched.

    moto gives each test a new session, and a session reads the models of its services anew: a third of a second per test.
    """
    patch.setattr(botocore.session, "create_loader", _loader)
    patch.setattr(botocore.regions, "EndpointProvider", _ruled_once())
    patch.setattr(botocore.hooks, "accepts_kwargs", lambda _: True)  # asked of the same handlers by each session and client
    patch.setattr(_PrefixTrie, "_recursive_copy", _copied)
    patch.setattr(responses, "method_names_from_class", _method_names)
    patch.setattr(EventAliaser, "_alias_event_name", _spelled_once(EventAliaser._alias_event_name))
    patch.setattr(BaseBackend, "urls", _listed_once(BaseBackend.urls))
    patch.setattr(BotocoreStubber, "process_request", _straight(BotocoreStubber.process_request))
    patch.setattr(RequestSigner, "handler", _unsigned(RequestSigner.handler))
    patch.setattr(UserAgentString, "to_string", lambda _: "tests")
    patch.setattr(Table, "all_items", _sorted_by_value)
    patch.setattr(models, "copy", SimpleNamespace(deepcopy=lambda one: one if isinstance(one, Table) else copy.deepcopy(one)))
    patch.setattr(DynamoDBBackend, "transact_write_items", _undone(DynamoDBBackend.transact_write_items))
    patch.setattr(Item, "__init__", _measured_once)


def _ruled_once() -> Callable[..., EndpointProvider]:
    """One for each service: its rules are read from data that the one loader keeps."""
    known: dict[int, EndpointProvider] = {}

    def ruled(ruleset_data: dict[str, Any], **more: Any) -> EndpointProvider:
        if id(ruleset_data) not in known:
            known[id(ruleset_data)] = EndpointProvider(ruleset_data, **more)
        return known[id(ruleset_data)]

    return ruled


def _copied(trie: _PrefixTrie, node: dict[str, Any]) -> dict[str, Any]:
    """botocore's own, of a session's handlers for each client, without asking `copy` how a list is copied."""
    return {
        name: NodeList(*map(list, value)) if isinstance(value, NodeList) else _copied(trie, value) if isinstance(value, dict) else value
        for name, value in node.items()
    }


def _spelled_once(alias: Callable[[EventAliaser, str], str]) -> Callable[[EventAliaser, str], str]:
    """The aliases are botocore's constants, and each session of a test would look the same thousand names up in them."""
    spelled = cache(lambda name: alias(EventAliaser(None), name))
    return lambda _, name: spelled(name)


def _listed_once(urls: Any) -> property:
    """moto lists the URLs of a service at each request, and for S3 loads the module that holds them again."""
    known: dict[type[BaseBackend], Any] = {}

    def listed(backend: BaseBackend) -> Any:
        if type(backend) not in known:
            known[type(backend)] = urls.fget(backend)
        return known[type(backend)]

    return property(listed)


def _straight(process: Callable[[BotocoreStubber, Any], Any]) -> Callable[[BotocoreStubber, Any], Any]:
    """From the request to moto's own method and back: moto makes a WSGI environment of each, reads it as a form, parses it by the model.

    A call that is refused has changed nothing, and is made again the long way for its error.
    """

    def processed(stubber: BotocoreStubber, request: Any) -> Any:
        asked, name = DYNAMODB.fullmatch(request.url), request.headers.get("X-Amz-Target", b"").rpartition(b".")[2].decode()
        if asked is None or name not in HOT:
            return process(stubber, request)
        handler = DynamoHandler()
        handler.body, handler.region, handler.current_account = json.loads(request.body), asked["region"], DEFAULT_ACCOUNT_ID
        try:
            answer = getattr(handler, camelcase_to_underscores(name))()
        except (ServiceException, HTTPException):
            return process(stubber, request)
        return 200, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(answer.result)

    return processed


def _unsigned(sign: Callable[..., Any]) -> Callable[..., Any]:
    """moto in this process reads no signature; a client without credentials is refused as ever. Its server, and other services, find the
    region in it."""

    def handled(signer: RequestSigner, operation_name: str | None = None, request: Any = None, **more: Any) -> Any:
        if request is not None and DYNAMODB.fullmatch(request.url) and signer._credentials is not None:
            return None
        return sign(signer, operation_name, request, **more)

    return handled


def _sorted_by_value(table: Table) -> list[Item]:
    """moto's own order, each key taken once: moto compares objects, each a dictionary of its type."""
    if not table.range_key_attr:
        return sorted(table.items.values(), key=lambda item: item.hash_key.cast_value)
    rows = [item for under in table.items.values() for item in under.values()]
    return sorted(rows, key=lambda item: (item.hash_key.cast_value, item.range_key.cast_value))


def _undone(transact: Callable[[DynamoDBBackend, list[dict[str, Any]]], None]) -> Callable[[DynamoDBBackend, list[dict[str, Any]]], None]:
    """A transaction that fails leaves each table as it was; moto copies the whole table for it, once per item of the transaction."""

    def undone(backend: DynamoDBBackend, items: list[dict[str, Any]]) -> None:
        before = [(table, _kept(table, items)) for table in backend.tables.values()]
        try:
            transact(backend, items)
        except Exception:
            for table, kept in before:
                table.items = kept
            raise

    return undone


def _kept(table: Table, items: Sequence[dict[str, Any]]) -> Any:
    """The rows of `table`, those under the hash keys that `items` name copied: moto updates a row where it is."""
    asked = [op for each in items for op in each.values() if op.get("TableName") == table.name]
    keys = [key for op in asked if (key := op.get("Item", op.get("Key", {})).get(table.hash_key_attr)) is not None]
    kept = copy.copy(table.items)
    for key in map(DynamoType, keys):
        if key in kept:
            kept[key] = copy.deepcopy(table.items[key])
    return kept


def _measured_once(item: Item, hash_key: DynamoType, range_key: DynamoType | None, attrs: dict[str, Any]) -> None:
    """moto's own, but the size that DynamoDB allows is compared once, with the last attribute: moto sums all of them up at each."""
    item.hash_key, item.range_key, item.attrs = hash_key, range_key, LimitedSizeDict()
    for number, (name, value) in enumerate(attrs.items(), start=1):
        store = LimitedSizeDict if number == len(attrs) else dict
        store.__setitem__(item.attrs, name, DynamoType(value))
