"""The command line: the simulator's command, what it refuses in one line, and the status of a run that does not agree."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import papertape
from local import parity
from local.parity import Agreement
from tests.unit.test_replay_in_process import network
from trading_env.policy import save_policy


def call(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(papertape.app, list(arguments))


def test_backtest_shows_the_policy_beside_equal_weight_and_the_benchmark() -> None:
    result = call("backtest", "--policy", "random:7", "--dividends", "ignore")
    assert result.exit_code == 0, result.output
    assert "2020-01-02 to 2020-12-31, dividends ignore" in result.stdout
    assert "$117,049.09" in result.stdout
    for word in ("random:7", "equal weight", "SPY", "Sharpe ratio", "deepest drawdown", "turnover"):
        assert word in result.stdout


def test_an_artifact_trades_the_same_from_its_archive_and_from_its_folder(tmp_path: Path) -> None:
    policy, folder, archive = network(), tmp_path / "model", tmp_path / "model.tar.gz"
    save_policy(folder, policy.arrays, policy.card)
    with tarfile.open(archive, "w:gz") as tar:
        for file in folder.iterdir():
            tar.add(file, file.name)
    period = ("--start", "2020-02-18", "--end", "2020-03-31")
    packed, loose = (call("backtest", "--policy", str(path), *period) for path in (archive, folder))
    assert (packed.exit_code, loose.exit_code) == (0, 0)
    lines = [[line.split("│")[2].strip() for line in result.stdout.splitlines() if line.startswith("│")] for result in (packed, loose)]
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--start", "2020-13-01"], "--start must be a date like 2020-01-02, was 2020-13-01"),
        (["--start", "2020-02-01", "--end", "2020-01-01"], "--start must not be after --end, were 2020-02-01 and 2020-01-01"),
        (["--start", "2031-01-02", "--end", "2031-02-01"], "up to 2021-03-31, were 2031-01-02 and 2031-02-01"),
        (["--start", "2020-01-04", "--end", "2020-01-05"], "must hold a session after 2005-01-03"),
        (["--policy", "clever"], "--policy must be equal-weight, random:<seed>, a model.tar.gz"),
        (["--policy", "settings.toml"], "--policy settings.toml: the artifact is not a model.tar.gz"),
        (["--policy", "data"], "--policy data: policy.json cannot be read"),
        (["--dividends", "twice"], "twice is not one of credit, ignore"),
        (["--settings", "nowhere.toml"], "nowhere.toml: cannot be read"),
    ],
)
def test_what_is_asked_wrongly_is_refused_in_one_line(arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(papertape.ROOT)
    result = call("backtest", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("papertape: ")
    assert result.stderr.count("\n") == 1
    assert told in result.stderr


@pytest.mark.parametrize("period", [("2019-12-30", "2020-01-10"), ("2020-12-01", "2021-01-04"), ("2020-01-02", "2020-01-02")])
def test_parity_is_of_two_sessions_of_2020_or_more(period: tuple[str, str]) -> None:
    result = call("parity", "--start", period[0], "--end", period[1])
    assert result.exit_code == 1
    assert result.stderr.startswith("papertape: --start and --end must ")


GOOD = Agreement(
    sessions=253,
    largest_gap=1e-15,
    at="2020-03-16",
    final_equity=1e5,
    orders=9,
    duplicates=0,
    ledger_matches_broker=True,
    seconds=1.0,
)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, 0),
        ({"largest_gap": 1.1e-6}, 1),
        ({"largest_gap": float("nan")}, 1),
        ({"ledger_matches_broker": False}, 1),
        ({"duplicates": 1}, 1),
    ],
)
def test_a_disagreement_is_a_failure(changed: dict[str, float], status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Agreement(**{**GOOD.__dict__, **changed})
    monkeypatch.setattr(parity, "run", lambda *_, **__: {"equal-weight": found})
    assert call("parity").exit_code == status
