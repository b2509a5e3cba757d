"""The command line: the simulator's command, what it refuses in one line, and the status of a run that does not agree."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from local.replay import parity
from local.replay.parity import Agreement
from papertape import command_line, operator_commands
from papertape.market_data import bundled
from tests.unit.local.replay.test_replay_in_process import network
from trading_env.orders.orders import Intent, client_order_id
from trading_env.simulation.policy import save_policy

ROOT = Path(__file__).resolve().parents[3]


def call(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(command_line.app, list(arguments))


def test_backtest_shows_the_policy_beside_equal_weight_and_the_benchmark() -> None:
    result = call("backtest", "--policy", "random:7", "--dividends", "ignore")
    assert result.exit_code == 0, result.output
    assert "2020-01-02 to 2020-12-31, dividends ignore" in result.stdout
    assert "$117,049.09" in result.stdout
    for word in ("random:7", "equal weight", "SPY", "Sharpe ratio", "deepest drawdown", "turnover"):
        assert word in result.stdout


def test_backtest_says_what_is_skill_at_three_costs_and_writes_what_was_traded(tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "mine.csv"
    save_policy(model, network().arrays, network().card)
    result = call("backtest", "--policy", str(model), "--start", "2020-01-02", "--end", "2020-03-31", "--out", str(out))
    assert result.exit_code == 0, result.output
    for words in ("equal weight daily", "equal weight at kappa 0.1", "0 bp", "10 bp", "20 bp", "IR, ", "IRk, ", "tracking error"):
        assert words in result.stdout
    assert f"written: {out}, {tmp_path}/mine-weights.csv, {tmp_path}/mine-trades.csv" in result.stdout
    before = out.read_bytes()
    again = call("backtest", "--policy", str(model), "--from", "2020-01-02", "--out", str(out))
    assert (again.exit_code, again.stderr) == (1, f"papertape: --out {out}: {out} is there already; remove it or choose another name\n")
    assert out.read_bytes() == before


def test_equal_weight_stands_beside_the_benchmark_once() -> None:
    shown = call("backtest", "--to", "2020-03-31", "--from", "2020-01-02").stdout
    assert shown.count("equal-weight") == 1
    assert "equal weight daily" not in shown


def test_an_artifact_trades_the_same_from_its_archive_and_from_its_folder(tmp_path: Path) -> None:
    policy, folder, archive = network(), tmp_path / "model", tmp_path / "model.tar.gz"
    save_policy(folder, policy.arrays, policy.card)
    with tarfile.open(archive, "w:gz") as tar:
        for file in folder.iterdir():
            tar.add(file, file.name)
    period = ("--from", "2020-02-18", "--to", "2020-03-31")
    packed, loose = (call("backtest", "--policy", str(path), *period) for path in (archive, folder))
    assert (packed.exit_code, loose.exit_code) == (0, 0)
    lines = [[line.split("│")[2].strip() for line in result.stdout.splitlines() if line.startswith("│")] for result in (packed, loose)]
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--from", "2020-13-01"], "--from must be a date like 2020-01-02, was 2020-13-01"),
        (["--from", "2020-02-01", "--to", "2020-01-01"], "--from must not be after --to, were 2020-02-01 and 2020-01-01"),
        (["--from", "2031-01-02", "--to", "2031-02-01"], "up to 2021-03-31, were 2031-01-02 and 2031-02-01"),
        (["--from", "2020-01-04", "--to", "2020-01-05"], "must hold a session after 2005-01-03"),
        (["--from", "2005-02-01"], "--from must be 2006-01-04 or later, for before it no name has all its features, was 2005-02-01"),
        (["--out", "settings.toml"], "--out must be a folder, or end in .csv or .parquet, was settings.toml"),
        (["--out", "docs/scoreboard.md"], "--out must be a folder, or end in .csv or .parquet"),
        (["--policy", "clever"], "--policy must be equal-weight, random:<seed>, a model.tar.gz"),
        (["--policy", "settings.toml"], "--policy settings.toml: the artifact is not a model.tar.gz"),
        (["--policy", "data"], "--policy data: policy.json cannot be read"),
        (["--dividends", "twice"], "twice is not one of credit, ignore"),
        (["--settings", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["--bars", "nowhere.csv"], "nowhere.csv: must be a .csv, .csv.gz or .parquet file, or a folder of them; there is nothing"),
        (["--symbols", "AAPL,XYZ"], "XYZ is none of them; bring bars with --bars FILE"),
    ],
)
def test_what_is_asked_wrongly_is_refused_in_one_line(arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(command_line.ROOT)
    result = call("backtest", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("papertape: ")
    assert result.stderr.count("\n") == 1
    assert told in result.stderr


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    daily = bundled.daily_bars()
    path = tmp_path_factory.mktemp("own") / "mine.csv"
    daily[daily["symbol"].isin(["AAPL", "IBM"]) & daily["session"].between("2018-01-01", "2019-12-31")].to_csv(path, index=False)
    return path


def test_backtest_trades_ones_own_bars_from_the_first_session_that_features_allow(own: Path) -> None:
    result = call("backtest", "--bars", str(own), "--policy", "random:7")
    assert result.exit_code == 0, result.output
    assert "1,006 daily bars of 2 names, 2018-01-02 to 2019-12-31" in result.stdout
    assert "2019-01-04 to 2019-12-31, dividends credit" in result.stdout
    assert "equal weight" in result.stdout
    assert "SPY" not in result.stdout


def test_a_path_with_brackets_is_printed_as_it_is(own: Path, tmp_path: Path) -> None:
    out = tmp_path / "all[of]it :smile:"
    result = call("backtest", "--bars", str(own), "--from", "2019-12-02", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert f"written: {out}/curve.csv, " in result.stdout
    assert '[features] sentiment = "daily"' in " ".join(call("backtest", "--help").stdout.replace("│", " ").split())


def test_lookahead_names_the_column_that_knows_the_future_on_ones_own_bars(own: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def features(bars):\n    return bars[['close']].pct_change().assign(peek=bars['close'].shift(-1))\n", encoding="utf-8")
    result = call("lookahead", f"{file}:features", "--bars", str(own), "--symbol", "IBM")
    assert result.exit_code == 1
    assert "peek" in result.stdout
    assert call("lookahead", f"{file}:features", "--bars", str(own), "--symbol", "SPY").stderr.startswith("papertape: --symbol must be")


def test_help_lists_every_command_in_the_order_of_use() -> None:
    names = [line.split()[1] for line in call("--help").stdout.splitlines() if line.startswith("│ ") and line[2].isalpha()]
    assert names == list(command_line.IN_ORDER_OF_USE)


@pytest.mark.parametrize("command", ["preflight", "secret", "first-run", "destroy"])
def test_commands_of_a_module_of_their_own_show_examples_too(command: str) -> None:
    assert f"papertape {command}" in call(command, "--help").stdout.partition("Examples:")[2]


@pytest.mark.parametrize(
    ("commands", "file"),
    [
        (("demo", "local", "parity", "soak", "train", "evaluate", "backtest"), "data/settings.toml"),
        (("halt", "resume", "flatten", "status", "explain"), "settings.toml"),
    ],
)
def test_what_trades_the_bundled_bars_has_their_settings_and_what_is_deployed_its_own(commands: tuple[str, ...], file: str) -> None:
    for command in commands:
        words = " ".join(call(command, "--help").stdout.replace("│", " ").split()).partition(" --settings ")[2]
        assert words.partition("[default: ")[2].partition("]")[0].strip("()") == file, command


@pytest.mark.parametrize(
    "command",
    ["train", "evaluate", "backtest", "lookahead", "scoreboard", "halt", "resume", "flatten", "status", "explain", "repair", "mails"],
)
def test_help_shows_examples_that_the_command_understands(command: str) -> None:
    shown = call(command, "--help").stdout
    examples = [line.split() for line in shown.splitlines() if line.strip().startswith("papertape")]
    assert examples
    for words in examples:
        assert words[1] == command
        assert all(option in shown.split("Examples:")[0] for option in words if option.startswith("--"))


def test_the_order_that_explain_s_help_shows_is_of_the_decision_beside_it() -> None:
    strategy, _, slot = operator_commands.A_DECISION.partition(":")
    assert client_order_id(Intent(strategy=strategy, slot=slot, symbol="SPY", attempt=0)) == operator_commands.AN_ORDER


@pytest.mark.parametrize("typed", ["costs $5, see $HOME", 'it\'s "odd"', "$(shell touch made-by-make)", "a `b` \\ $$ #c"])
def test_make_passes_a_reason_on_as_it_was_typed(tmp_path: Path, typed: str) -> None:
    """Only the command is another: what it is given is shown, NUL-separated."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    command = tmp_path / ".venv" / "bin" / "papertape"
    command.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    command.chmod(0o755)
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / ".venv" / ".installed").touch()
    for arguments, expected in (
        (["halt", f"reason={typed}"], ["halt", "--reason", typed]),
        (["explain", f"id={typed}", "day=2020-12-31"], ["explain", typed, "--day", "2020-12-31"]),
    ):
        made = ["make", "--silent", "--old-file=.venv/.installed", "-C", str(tmp_path), "--no-print-directory", *arguments]
        done = subprocess.run(made, capture_output=True, text=True, check=True)
        assert done.stdout.split("\0")[:-1] == expected
    assert not (tmp_path / "made-by-make").exists()


def test_a_run_that_would_be_no_evidence_is_not_recorded(tmp_path: Path) -> None:
    result = call("evaluate", "--quick", "--record", "mine", "--out", str(tmp_path))
    told = "papertape: --record is for evidence, which takes 8 folds or more, was 3; leave --record or --quick out\n"
    assert (result.exit_code, result.stderr) == (1, told)
    result = call("evaluate", "--record", "My Run", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "was 'My Run'" in result.stderr
    assert not list(tmp_path.iterdir())


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
