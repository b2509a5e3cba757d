"""A person's write is made once per key, only with its scope, and is kept with who asked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lambdas.common.ledger.actions import actions_of
from lambdas.dashboard.principal import Principal, ScopeError
from lambdas.dashboard.request import DashboardVariables, PageRequest
from lambdas.dashboard.writes import KeyReusedError, WriteError, Written, write
from schema.settings import Settings
from tests.aws.conftest import TABLE
from tests.aws.dashboard.conftest import NOW, Web


def request_of(settings: Settings, *, user: str = "anna", scopes: tuple[str, ...] = ("read", "trade")) -> PageRequest:
    variables = DashboardVariables(
        ledger_table=TABLE,
        raw_bucket="papertape-raw",
        processed_bucket="papertape-processed",
        audit_bucket="papertape-audit",
        package_group="p",
    )
    return PageRequest(principal=Principal(user, frozenset(scopes)), now=NOW, variables=variables, settings=settings)


def test_the_same_key_is_the_same_write(web: Web, settings: Settings) -> None:
    asked, made = request_of(settings), []

    def act() -> Written:
        made.append(1)
        return Written(200, {"message": f"done {len(made)}"})

    for _ in range(2):
        assert write(asked, name="order", key="k-12345678", scope="trade", body={"a": 1}, act=act) == (200, {"message": "done 1"})
    with pytest.raises(KeyReusedError, match="k-12345678 was used for another request"):
        write(asked, name="order", key="k-12345678", scope="trade", body={"a": 2}, act=act)
    with pytest.raises(KeyReusedError):
        write(request_of(settings, user="eve"), name="order", key="k-12345678", scope="trade", body={"a": 1}, act=act)
    (kept,) = actions_of(TABLE).actions("2020-01")
    assert (kept.user, kept.name, json.loads(kept.body), kept.status) == ("anna", "order", {"a": 1}, 200)
    assert len(made) == 1


def test_a_write_that_died_before_its_answer_is_made_again(web: Web, settings: Settings) -> None:
    def dies() -> Written:
        raise ConnectionError("the function was killed")

    asked = request_of(settings)
    with pytest.raises(ConnectionError):
        write(asked, name="halt", key="k-12345678", scope="trade", body={}, act=dies)
    assert write(asked, name="halt", key="k-12345678", scope="trade", body={}, act=lambda: Written(200, {})).status == 200


@pytest.mark.parametrize("status", [429, 500])
def test_an_answer_that_says_to_ask_again_is_not_the_answer_from_then_on(web: Web, settings: Settings, status: int) -> None:
    """The page keeps its key after a 5xx: with the failure stored, no click could ever do better."""
    asked, answers = request_of(settings), [Written(status, {"message": "not now"}), Written(200, {"message": "done"})]
    for said in (status, 200, 200):
        assert write(asked, name="order", key="k-12345678", scope="trade", body={}, act=lambda: answers.pop(0)).status == said


def test_who_lacks_the_scope_writes_nothing(web: Web, settings: Settings) -> None:
    with pytest.raises(ScopeError, match="anna needs the scope papertape/approve, has read, trade"):
        write(request_of(settings), name="approve", key="k-12345678", scope="approve", body={}, act=lambda: Written(200, {}))
    assert actions_of(TABLE).actions("2020-01") == []


@pytest.mark.parametrize(
    "scope", ["trade approve", "openid aws.cognito.signin.user.admin", "other/trade", "PAPERTAPE/trade", "papertape/trades", ""]
)
def test_a_scope_is_this_apps_own_or_none(web: Web, settings: Settings, scope: str) -> None:
    """A user pool may know other apps, whose scopes have the same words."""
    principal = Principal.of({"authorizer": {"claims": {"username": "anna", "scope": scope}}})
    with pytest.raises(ScopeError, match="anna needs the scope papertape/trade"):
        write(
            replace(request_of(settings), principal=principal),
            name="halt",
            key="k-12345678",
            scope="trade",
            body={},
            act=lambda: Written(200, {}),
        )


@pytest.mark.parametrize(
    "context", [{}, {"authorizer": None}, {"authorizer": {"claims": {}}}, {"authorizer": {"claims": {"scope": "papertape/trade"}}}]
)
def test_who_was_checked_by_nobody_is_nobody(context: dict[str, Any]) -> None:
    with pytest.raises(ScopeError, match="nobody is signed in"):
        Principal.of(context)


@pytest.mark.parametrize("key", ["", "short", "with space in it", "x" * 65, "<script>alert(1)</script>"])
def test_a_write_needs_a_key_that_is_one(web: Web, settings: Settings, key: str) -> None:
    with pytest.raises(WriteError, match="Idempotency-Key must be 8 to 64"):
        write(request_of(settings), name="order", key=key, scope="trade", body={}, act=lambda: Written(200, {}))
