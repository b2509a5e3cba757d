"""What goes wrong around a run: one line that names cause and remedy, the right status, and no process left behind.

Real processes in a checkout of their own. Each carries a mark in its environment, which what it starts inherits, so an orphan is found
wherever it hides.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from local.replay.local_deployment import JOURNAL, LocalDeployment, LocalDeploymentError
from schema import settings as settings_module

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")

ROOT = Path(__file__).parents[2]
COPIED = ("data", "glue_jobs", "lambdas", "learning", "local", "papertape", "sagemaker", "schema", "stacks", "trading_env")
LINKED = (".venv", ".venv-cloud", "node_modules", ".cache")
#: What another process is compiling just now.
HALF_WRITTEN = shutil.ignore_patterns("*.pyc.*", "*.tmp.*")
MARK = "PAPERTAPE_TEST_MARK"
TIMEOUT = 600.0
EMULATOR, EXCHANGE = "local.aws.emulator_patches", "local.exchange"


@dataclass
class Run:
    """A command of papertape.py in `folder`, and everything that it started."""

    folder: Path
    mark: str
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, folder: Path, *arguments: str) -> Run:
        mark = uuid.uuid4().hex
        process = subprocess.Popen(
            [sys.executable, "-m", "papertape", *arguments],
            cwd=folder,
            env={**os.environ, MARK: mark, "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=listen_to_ctrl_c,
        )
        return cls(folder=folder, mark=mark, process=process)

    def family(self) -> dict[int, str]:
        """Command lines by pid of what carries the mark and lives, this process's child included."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it ended meanwhile
        return found

    def pid_of(self, words: str) -> int | None:
        return next((pid for pid, line in self.family().items() if words in line), None)

    def until(self, reached: Callable[[], object]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not reached():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"not reached in {TIMEOUT} s: {self.family()}"
            time.sleep(0.05)

    def until_trading(self) -> None:
        journal = self.folder / "out" / "parity" / "equal-weight" / JOURNAL
        self.until(lambda: journal.exists() and journal.read_text(encoding="utf-8").count('"submit"') > 20)

    def last_words(self, *, status: int) -> str:
        """The one line on standard error, once the process has ended with `status` and nothing is left of it."""
        output, error = self.process.communicate(timeout=TIMEOUT)
        assert self.process.returncode == status, (self.process.returncode, output, error)
        assert "Traceback" not in output + error
        lines = error.splitlines()
        assert len(lines) == 1, error
        assert lines[0].startswith("papertape: ")
        deadline = time.monotonic() + 30
        while (left := self.family()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left
        return lines[0].removeprefix("papertape: ")

    def end(self) -> None:
        """Whatever the test did: nothing of this run goes on."""
        for pid in self.family():
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()


def listen_to_ctrl_c() -> None:
    """As in a terminal: a shell makes what it starts in the background deaf to SIGINT, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


Start = Callable[..., Run]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Run a command in a checkout of its own, after `change` has been made to it."""
    runs = []

    def start(*arguments: str, change: Callable[[Path], object] = lambda _: None) -> Run:
        folder = tmp_path_factory.mktemp("checkout")
        for file in ROOT.iterdir():
            if file.is_file():
                shutil.copy(file, folder)
        for name in COPIED:
            shutil.copytree(ROOT / name, folder / name, ignore=HALF_WRITTEN)  # with what Python and numba have compiled
        (ROOT / ".cache").mkdir(exist_ok=True)  # a clone has none before its first synth
        for name in LINKED:
            (folder / name).symlink_to(ROOT / name)
        change(folder)
        runs.append(Run.start(folder, *arguments))
        return runs[-1]

    yield start
    for run in runs:
        run.end()


#: What is disturbed, in the order in which it must be, and the test that does it.
DISTURBED = {
    "cloud": ("test_a_killed_cloud", "parity", "--policy", "equal-weight"),
    "exchange": ("test_a_killed_exchange", "parity", "--policy", "equal-weight"),
    "trading": ("test_ctrl_c_while_trading", "parity", "--policy", "equal-weight"),
    "deploying": ("test_ctrl_c_while_deploying_reaches_the_whole_group_as_in_a_terminal", "demo"),
    "training": ("test_ctrl_c_while_training", "parity", "--policy", "trained"),
}


@pytest.fixture(scope="module")
def running(start: Start, request: pytest.FixtureRequest) -> dict[str, Run]:
    """Runs side by side, one for each selected test; each will be disturbed in another way."""
    selected = {item.name for item in request.session.items}
    return {name: start(*command) for name, (test, *command) in DISTURBED.items() if test in selected}


@pytest.mark.rehearse
def test_ctrl_c_while_deploying_reaches_the_whole_group_as_in_a_terminal(running: dict[str, Run]) -> None:
    run = running["deploying"]
    run.until(lambda: run.pid_of("cdk deploy"))
    os.killpg(run.process.pid, signal.SIGINT)
    assert "interrupted" in run.last_words(status=130)


@pytest.mark.rehearse
def test_ctrl_c_while_training(running: dict[str, Run]) -> None:
    run = running["training"]
    run.until(lambda: run.pid_of("train.py"))
    os.kill(run.process.pid, signal.SIGINT)
    assert "interrupted" in run.last_words(status=130)


def test_a_killed_cloud(running: dict[str, Run]) -> None:
    run = running["cloud"]
    run.until_trading()
    pid = run.pid_of(EMULATOR)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    words = run.last_words(status=1)
    assert "the local cloud has ended (signal SIGKILL)" in words
    assert "emulator.log and start again" in words


def test_a_killed_exchange(running: dict[str, Run]) -> None:
    run = running["exchange"]
    run.until_trading()
    pid = run.pid_of(EXCHANGE)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    words = run.last_words(status=1)
    assert "exchange: it has ended (signal SIGKILL)" in words
    assert "exchange.log and start again" in words


def test_ctrl_c_while_trading(running: dict[str, Run]) -> None:
    run = running["trading"]
    run.until_trading()
    os.kill(run.process.pid, signal.SIGINT)
    assert "interrupted" in run.last_words(status=130)


@pytest.mark.rehearse
def test_sigterm_while_synthesizing(start: Start) -> None:
    run = start("demo")
    run.until(lambda: run.pid_of("app.py"))
    os.kill(run.process.pid, signal.SIGTERM)
    assert "terminated" in run.last_words(status=143)


@pytest.mark.parametrize(
    ("line", "instead", "told"),
    [
        ("kappa = 0.1 ", "kapa = 0.1 ", "portfolio.kapa = 0.1 is not a setting"),
        ("slippage_bps = 10.0", "slippage_bps = -1", "costs.slippage_bps = -1 is not allowed"),
        ('benchmark = "SPY"', 'benchmark = "DIA"', "benchmark must be one of symbols, was DIA"),
    ],
)
def test_wrong_settings(start: Start, line: str, instead: str, told: str) -> None:
    def change(folder: Path) -> None:
        file = folder / "data" / "settings.toml"
        text = file.read_text(encoding="utf-8")
        assert text.count(line) == 1
        file.write_text(text.replace(line, instead), encoding="utf-8")

    words = start("demo", change=change).last_words(status=1)
    assert words.startswith("settings.toml: ")
    assert told in words


def test_a_corrupt_data_file(start: Start) -> None:
    def change(folder: Path) -> None:
        file = folder / "data" / "daily_bars.parquet"
        body = bytearray(file.read_bytes())
        body[len(body) // 2] ^= 1
        file.write_bytes(body)

    words = start("demo", change=change).last_words(status=1)
    assert "data/daily_bars.parquet: sha256 must be " in words
    assert "restore it with `git checkout -- data`" in words


def test_a_port_in_use(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = start("demo", "--port", str(port)).last_words(status=1)
    assert f"port {port} is in use" in words
    assert "choose another with --port" in words


def test_nothing_to_bring_back(start: Start) -> None:
    assert start("local").last_words(status=1) == "there is no traded year in out/demo: run `make demo` first"


# A year that was traded, brought back


@pytest.fixture(scope="module")
def traded(start: Start) -> Path:
    """A checkout in which three sessions were traded."""
    run = start("parity", "--policy", "equal-weight", "--end", "2020-01-06")
    output, error = run.process.communicate(timeout=TIMEOUT)
    assert run.process.returncode == 0, output + error
    return run.folder


@pytest.mark.rehearse
def test_a_traded_year_comes_back_and_stays_as_it_was(traded: Path) -> None:
    folder = traded / "out" / "parity" / "equal-weight"
    before = (folder / JOURNAL).read_bytes()
    shown = []
    for _ in range(2):
        run = Run.start(traded, "local", "--folder", str(folder))
        try:
            assert run.process.stdout is not None
            lines = []
            while "Ctrl-C stops it" not in (line := run.process.stdout.readline()):
                assert line, run.process.communicate()
                lines.append(line)
            signed = next(line for line in lines if "curl" in line).split()
            answer = subprocess.run([*signed, "--silent", "--fail"], capture_output=True, text=True, check=True)
            unsigned = subprocess.run(["curl", "--silent", signed[-1]], capture_output=True, text=True, check=True)
            status = Run.start(traded, "status", "--folder", str(folder))
            told, _ = status.process.communicate(timeout=TIMEOUT)
            os.kill(run.process.pid, signal.SIGINT)
            _, error = run.process.communicate(timeout=TIMEOUT)
            assert (run.process.returncode, error) == (0, "")
            assert not run.family()
        finally:
            run.end()
        shown.append(answer.stdout)
        assert "2020-01-06" in answer.stdout
        assert "last snapshot  2020-01-06" in told
        assert "nothing runs in" in Run.start(traded, "status", "--folder", str(folder)).last_words(status=1)
        assert "Missing Authentication Token" in unsigned.stdout
    assert shown[0] == shown[1]
    assert (folder / JOURNAL).read_bytes() == before


@pytest.mark.rehearse
def test_a_missing_secret(traded: Path, tmp_path: Path) -> None:
    settings = settings_module.load(ROOT / "data" / "settings.toml")
    with LocalDeployment(tmp_path, settings=settings, now="2020-01-01T22:00:00Z") as deployment:
        deployment.deploy(traded / "out" / "parity" / "cdk.out", with_cli=False)
        deployment.client("secretsmanager").delete_secret(SecretId="papertape/alpaca", ForceDeleteWithoutRecovery=True)
        with pytest.raises(
            LocalDeploymentError, match=r"secret papertape/alpaca.* cannot be read \(ResourceNotFoundException\); store it"
        ) as refused:
            deployment.backfill(start="2019-12-02")
        assert "\n" not in str(refused.value)
