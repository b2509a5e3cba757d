"""The commands that operate Papertape, and the way back from an order, on the deployed app as on an account."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner, Result

from local.replay.local_deployment import TrainingResult
from papertape import command_line
from papertape.operate.client import announced
from schema.settings import Settings
from tests.e2e.conftest import EVE, FIRST, App

pytestmark = pytest.mark.rehearse

DECISION = f"agent:{FIRST}/open+5"


def call(*arguments: str, **environment: str) -> Result:
    return CliRunner(env={"COLUMNS": "220", **environment}).invoke(command_line.app, list(arguments))


@pytest.fixture
def traded(market: Callable[[str], App], trained: TrainingResult) -> App:
    """The first session, decided by the trained model and closed."""
    app = market(f"{EVE}T22:00:00Z")
    app.deployment.ledger.put_model(trained.served.model_copy(update={"role": "incumbent"}))
    app.succeed("decide", f"{FIRST}T13:35:00Z")
    closed = app.succeed("reconcile", f"{FIRST}T20:05:00Z")
    assert closed["archived"].endswith(" records"), closed
    return app


@contextmanager
def up(app: App) -> Iterator[str]:
    """The folder of the run, as `make local` leaves it while it is up."""
    deployment = app.deployment
    with announced(
        deployment.run_dir, api_url=deployment.output("ExecutionApiUrl"), cloud_url=deployment.cloud.url, settings=deployment.settings
    ):
        yield str(deployment.run_dir)


def test_an_order_is_explained_back_to_its_data_and_the_commands_reach_laptop_and_account_alike(
    traded: App, trained: TrainingResult, small: Settings
) -> None:
    order = next(one for one in traded.deployment.ledger.orders(FIRST[:7]) if one.status == "filled")
    with up(traded) as folder:
        shown = call("explain", order.client_order_id, "--folder", folder)
        assert shown.exit_code == 0, shown.output
        said = json.loads(call("explain", order.client_order_id, "--folder", folder, "--json").stdout)
        halted = call("halt", "--reason", "an exercise", "--folder", folder)
        assert (halted.exit_code, traded.deployment.ledger.trading_state().state) == (0, "halted"), halted.output
        looked = call("repair", "--folder", folder)
        assert (looked.exit_code, "nothing is to be repaired" in looked.stdout) == (0, True), looked.output
    found = {link["link"]: link["status"] for link in said["trace"]}
    recorded = {"risk verdict", "input data"}
    assert found == {name: "recorded" if name in recorded else "verified" for name in found}
    assert list(found) == [
        "order", "risk verdict", "decision", "observation", "input data", "model package", "gate", "training data", "code"
    ]  # fmt: skip
    links = {link["link"]: link for link in said["trace"]}
    assert links["model package"]["hash"] == trained.evaluation["model_hash"]
    assert links["training data"]["hash"] == trained.evaluation["hashes"]["manifest_sha256"]
    assert trained.evaluation["trial"] in links["gate"]["says"]

    environment = traded.deployment.cloud.env()
    status = call("status", "--json", PAPERTAPE_ON="aws", **environment)
    assert status.exit_code == 0, status.output
    told = json.loads(status.stdout)
    assert (told["trading_state"]["reason"], told["session"], told["snapshot"]["session"]) == ("an exercise", FIRST, FIRST)
    assert (told["last_decision"]["decision_id"], told["incumbent"]["spec"]) == (DECISION, trained.package_arn)
    resumed = call("resume", "--on", "aws", "--yes", "--reason", "it was one", **environment)
    assert (resumed.exit_code, resumed.stdout.splitlines()[0]) == (0, f"stack {small.name}-trading in {small.region}"), resumed.output
    assert traded.deployment.ledger.trading_state().state == "active"
    explained = call("explain", DECISION, "--on", "aws", **environment)
    assert explained.exit_code == 0, explained.output
    assert "sound: 6 verified, 1 recorded" in explained.stdout, "what can only be recorded is not called verified"
