"""From keys to an armed account on the local cloud, with the commands that a person types: preflight, secret, first-run, destroy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from local.replay.local_deployment import LocalDeployment
from papertape import command_line
from papertape.operate.client import announced
from schema.settings import Settings
from tests.e2e.conftest import EVE, FIRST
from tests.settings_files import settings_file

pytestmark = pytest.mark.rehearse


class Terminal:
    """A shell whose credentials are the local cloud's, and whose own region is another."""

    def __init__(self, deployment: LocalDeployment, settings: Settings) -> None:
        exchange = {"ALPACA_TRADING_URL": deployment.exchange.url, "ALPACA_DATA_URL": deployment.exchange.url}
        elsewhere = {"AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-central-1", "PAPERTAPE_ON": "aws"}
        self._settings = settings_file(settings)
        self._environment = {"COLUMNS": "300", **deployment.cloud.env(), **exchange, **elsewhere}

    def __call__(self, *arguments: str) -> Result:
        return CliRunner(env=self._environment).invoke(command_line.app, [*arguments, "--settings", self._settings])


@pytest.fixture(scope="module")
def deployment(small: Settings, synthesized: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalDeployment]:
    """Deployed, on the eve; nothing has run yet."""
    with LocalDeployment(tmp_path_factory.mktemp("first-run"), settings=small, now=f"{EVE}T22:00:00Z") as deployment:
        deployment.deploy(synthesized, with_cli=False)
        yield deployment


def test_a_first_run_arms_the_account_and_a_second_finds_everything_standing(deployment: LocalDeployment, small: Settings) -> None:
    terminal = Terminal(deployment, small)
    first = terminal("first-run")
    assert first.exit_code == 0, first.output + repr(first.exception)
    steps = {line.split()[0]: line for line in first.stdout.splitlines() if line and not line.startswith(" ")}
    assert f"daily bars to {EVE}" in steps["backfill"]
    assert f"rows to {EVE}" in steps["features"]
    assert "trained and judged" in steps["training"]
    assert "refused by the gate" in first.stdout
    assert f"{FIRST}/open+5 by equal-weight; nothing was ordered" in steps["decision"]
    assert f"Armed. Next decision: {FIRST}/open+5 at Wed {FIRST} 09:35 New York" in first.stdout
    assert deployment.exchange.books()["orders"] == []

    api, cloud = deployment.output("ExecutionApiUrl"), deployment.cloud.url
    with announced(deployment.run_dir, api_url=api, cloud_url=cloud, settings=small, broker_url=deployment.exchange.url):
        arguments = ["first-run", "--halted", "--on", "laptop", "--folder", str(deployment.run_dir), "--settings", settings_file(small)]
        second = CliRunner(env={"COLUMNS": "300"}).invoke(command_line.app, arguments)
    assert second.exit_code == 0, second.output
    for line in ("backfill  stands", "features  stands", "training  stands"):
        assert line in second.stdout
    assert "Halted (first run: started halted): no order until `make resume reason=" in second.stdout
    assert "8 of 8 active and tradable" in second.stdout
    assert "not available here" in second.stdout, "the local cloud has no quotas, and preflight says so"

    gone = terminal("destroy", "--yes")
    assert gone.exit_code == 0, gone.output
    sagemaker = deployment.client("sagemaker")
    assert sagemaker.list_endpoints()["Endpoints"] == sagemaker.list_models()["Models"] == []
    assert f"stack {small.name}-lake; its buckets, table and queue stay even then" in gone.stdout
    assert terminal("destroy", "--yes").exit_code == 0
    left = {stack["StackName"] for stack in deployment.client("cloudformation").describe_stacks()["Stacks"]}
    assert left == {f"{small.name}-lake"}
