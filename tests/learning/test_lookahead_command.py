"""`papertape lookahead` on our own features, observation, environment, policy and fills, over the bundled bars."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from papertape import command_line


@pytest.mark.rehearse
def test_the_command_checks_features_observation_environment_policy_and_fills() -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(command_line.app, ["lookahead"])
    assert result.exit_code == 0
    for what in ("features", "observation", "environment", "policy", "fills"):
        assert any(what in line and "same, bit for bit" in line for line in result.output.splitlines()), result.output
