"""A short soak at brutal rates, and the broker's keys in nothing that it wrote, whatever went wrong in it."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from local.replay.local_deployment import LocalDeployment
from local.replay.soak import BROKERS_CLIENTS, SoakResult, soak, summarized
from papertape.market_data.sessions import TradingSession, sessions_between
from schema.exchange_time import iso
from schema.settings import Settings
from schema.slot import AGENT
from tests.e2e.conftest import App

SESSIONS = 3
KEY, KEEP = "PKQZ7V3XJ4W9TEST0KEY", "sJx8QvZr2LmN5tYbWc7HdKfPgU3eRa9TestSecret"
EVE, HISTORY = "2020-01-01T22:00:00Z", "2017-06-01"
#: Schedules whose functions read the secret; the API's own does too.
AT_OPEN, AT_CLOSE = ("decide", "ingest_quotes"), ("reconcile", "backfill_bars")
#: How often the search must have come across what.
LOOKED_AT = {
    "*/cdk.out/*.template.json": 6,
    "*/cdk.out/asset.*": 100,
    "*/audit/decisions/*": SESSIONS,
    "*/audit/batches/*": SESSIONS,
    "*/raw/bars/*": 8,
    "*/cloud/state/*/*.json": 20,
    "*/cloud/state/*/lambda.json": 1,
    "*/cloud/emulator.log": 1,
    "*/exchange.journal": 1,
    "*/exchange.log": 1,
    "*/collected.json": 1,
    "*/summary.json": 1,
}


@dataclass(frozen=True)
class Soaked:
    """A finished run, the folder with all that is left of it, what the APIs show of it, and what failed on purpose after it."""

    run: SoakResult
    folder: Path
    collected: dict[str, Any]
    failures: list[str]


@pytest.fixture(scope="module")
def soaked(small: Settings, synthesized: Path, tmp_path_factory: pytest.TempPathFactory) -> Soaked:
    folder = tmp_path_factory.mktemp("soak")
    with LocalDeployment(folder, settings=small, now=EVE, keys=(KEY, KEEP)) as deployment:
        run = soak(deployment, ("brutal", 7, SESSIONS), settings=small, cdk_out=synthesized, history=HISTORY)
        app = App(deployment, small)
        failures, found = provoked(app), collected(app)
    (folder / "summary.json").write_text(json.dumps(summarized([run], seconds=run.seconds)), encoding="utf-8")
    (folder / "collected.json").write_text(json.dumps(found, default=str), encoding="utf-8")
    return Soaked(run, folder, found, failures)


def test_nothing_is_lost_and_nothing_is_done_twice(soaked: Soaked) -> None:
    run = soaked.run
    assert run.sessions == SESSIONS
    assert len(run.faults_injected) >= 10, "brutal rates reach most kinds in days"
    assert run.accepted <= run.intents
    assert (run.duplicates, run.limit_breaches, run.differences, run.unknown_over_grace) == (0, (), (), 0)
    assert run.holds, "the distance to the backtest is explained to the cent"


def test_the_keys_are_in_nothing_that_the_run_wrote(soaked: Soaked, synthesized: Path) -> None:
    """Logs, ledger, lake, mails, dead letters, configurations, templates, the exchange's journal, and the state of the whole cloud."""
    looked, holding = Counter[str](), set()
    for path, content in (one for root in (soaked.folder, synthesized) for one in contents(root)):
        looked.update(pattern for pattern in LOOKED_AT if fnmatch(str(path), pattern))
        if holds_a_key(content):
            holding.add(path)
    assert {pattern: looked[pattern] for pattern, least in LOOKED_AT.items() if looked[pattern] < least} == {}
    secret = {path for path in soaked.folder.rglob("secretsmanager*") if path.is_file()}
    assert secret, "the store that must hold them"
    assert holding == secret


def test_that_is_logs_of_every_function_and_faults_with_their_traces(soaked: Soaked) -> None:
    logs, found = soaked.collected["logs"], soaked.collected
    spoke = {group.rsplit("/", 1)[1] for group, events in logs.items() if events}
    assert spoke >= {"backfill_bars", "control", "decide", "execute_orders", "health", "ingest_quotes", "reconcile", "report"}
    told = json.dumps(logs)
    assert [word for word in ("BrokerRefused", "BrokerUnavailable", "Traceback") if word not in told] == []
    assert len(found["ledger"]) > 20 * SESSIONS
    assert len(found["templates"]) == 6
    assert {answer.status for answer in found["answers"]} == {200}


def test_the_keys_are_in_no_error_that_was_provoked(soaked: Soaked) -> None:
    told = soaked.failures
    assert sum("failed (401: request is not authorized)" in failure for failure in told) == 5
    assert sum("the broker's secret papertape/alpaca is not" in failure for failure in told) == 5 + 2 * 3
    assert not any(holds_a_key(failure.encode()) for failure in told)


@pytest.mark.parametrize("secret", [KEY, KEEP])
@pytest.mark.parametrize("before", ["", "a", "ab"])
def test_a_key_would_be_found(tmp_path: Path, secret: str, before: str) -> None:
    line = f'{before}{{"level": "INFO", "key": "{secret}"}}\n'.encode()
    hidden = {
        "plain.log": line,
        "log.gz": gzip.compress(line),
        "assets.zip": zipped(line),
        "zip.gz": gzip.compress(zipped(line)),
        "zip.zip": zipped(zipped(line)),
        "base64.json": json.dumps({"body": base64.b64encode(line).decode()}).encode(),
        "urlsafe.json": json.dumps({"body": base64.urlsafe_b64encode(line).decode()}).encode(),
        "hex.txt": line.hex().encode(),
    }
    for name, content in {**hidden, "harmless.log": line.replace(secret.encode(), b"***")}.items():
        (tmp_path / name).write_bytes(content)
    assert {path.name for path, content in contents(tmp_path) if holds_a_key(content)} == set(hidden)


def provoked(app: App) -> list[str]:
    """What the functions say in a session as it comes, then when the keys are revoked, and when the secret is not what it must be."""
    deployment, secret = app.deployment, f"{app.settings.name}/alpaca"
    first, *days = sessions_between(date(2020, 1, 2), date(2020, 1, 31))[SESSIONS:]

    def failures(day: TradingSession, *, at_open: Sequence[str] = AT_OPEN, at_close: Sequence[str] = AT_CLOSE) -> Iterator[str]:
        for time, schedules in ((day.opens, at_open), (day.closes, at_close)):
            deployment.exchange.advance(time)
            yield from (json.dumps(deployment.fire(f"{app.settings.name}-{schedule}", iso(time))) for schedule in schedules)
        yield json.dumps(app.api.call("POST", "/flatten", {"reason": "nothing else"}).body)

    found = list(failures(first, at_open=(*AT_OPEN, "health"), at_close=(*AT_CLOSE, "report")))
    deployment.exchange.use_faults({"faults": {"account_reset": {"at": iso(days[0].opens), "revokes_keys": True}}})
    found += failures(days[0])
    wrong = (f"{KEY}:{KEEP}", json.dumps({"key": KEY, "secret": KEEP}), json.dumps({"key_id": [KEY], "secret_key": KEEP}))
    for number, (text, day) in enumerate(zip(wrong, days[1:4], strict=True)):
        deployment.client("secretsmanager").put_secret_value(SecretId=secret, SecretString=text)
        restarted(deployment, number)
        found += failures(day, at_close=AT_CLOSE if number == 0 else ())
    return found


def restarted(deployment: LocalDeployment, number: int) -> None:
    """A process that has read the secret keeps it: change a variable, so that the next call is a new process's."""
    client = deployment.client("lambda")
    for output in (*BROKERS_CLIENTS, "IngestQuotesFunction"):
        name = deployment.output(output)
        variables = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        client.update_function_configuration(FunctionName=name, Environment={"Variables": {**variables, "RESTARTED": str(number)}})


def collected(app: App) -> dict[str, Any]:
    """What the APIs show."""
    deployment = app.deployment
    logs, functions, dynamodb, stacks = (deployment.client(name) for name in ("logs", "lambda", "dynamodb", "cloudformation"))
    groups = [group["logGroupName"] for page in logs.get_paginator("describe_log_groups").paginate() for group in page["logGroups"]]
    names = [stack["StackName"] for stack in stacks.describe_stacks()["Stacks"]]
    decision = f"{AGENT}:2020-01-02/{app.settings.schedule.slots[0]}"
    order = deployment.ledger.orders_of_day("2020-01-02")[0].client_order_id
    paths = ("/status", "/portfolio", f"/decisions/{quote(decision, safe='')}", f"/orders/{order}")
    found = {
        "answers": [app.api.call("GET", path) for path in paths],
        "ledger": [
            item for page in dynamodb.get_paginator("scan").paginate(TableName=deployment.output("LedgerTable")) for item in page["Items"]
        ],
        "logs": {group: logs.filter_log_events(logGroupName=group)["events"] for group in groups},
        "functions": functions.list_functions()["Functions"],
        "templates": {name: stacks.get_template(StackName=name)["TemplateBody"] for name in names},
        "stacks": stacks.describe_stacks()["Stacks"],
        "mails": deployment.cloud.published(),
        "dead letters": app.dead_letters(),
    }
    assert all(found.values()), {name: len(value) for name, value in found.items()}
    return found


def contents(root: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below `root`, and what is packed in it."""
    for path in root.rglob("*"):
        if path.is_file():
            yield from ((path, content) for content in unpacked(path.read_bytes()))


def unpacked(body: bytes) -> Iterator[bytes]:
    yield body
    if body[:2] == b"\x1f\x8b":
        yield from unpacked(gzip.decompress(body))
    elif zipfile.is_zipfile(io.BytesIO(body)):
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            for member in archive.namelist():
                yield from unpacked(archive.read(member))


def zipped(body: bytes) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/function.log", body)
    return raw.getvalue()


def spellings(secret: bytes) -> Iterator[bytes]:
    """As it is, in hexadecimal digits, and what is its own in base64 wherever it begins."""
    yield secret
    yield secret.hex().encode()
    for before in range(3):
        own = slice(4 if before else 0, (before + len(secret)) // 3 * 4)
        yield base64.b64encode(bytes(before) + secret)[own]
        yield base64.urlsafe_b64encode(bytes(before) + secret)[own]


NEEDLES = frozenset(needle for secret in (KEY, KEEP) for needle in spellings(secret.encode()))


def holds_a_key(content: bytes) -> bool:
    return any(needle in content for needle in NEEDLES)
