"""One run from its request to its last state: what is written, what is refused in one line, and what another start does."""

from __future__ import annotations

import errno
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from papertape.research.backtest import compare
from papertape.research.study import SETTINGS, StudyOptions, study
from papertape.runs import service
from papertape.runs.__main__ import HELD, main
from papertape.runs.store import LocalRunStore, RunHeldError, write_whole
from papertape.runs.studies import Studies
from papertape.runs.worker import Worker
from schema.runs.events import Inspected, StateChanged
from schema.runs.status import RunStatus, state_of
from schema.settings import load
from tests import small_run
from tests.unit.papertape.research.test_policies import network
from trading_env.simulation.policy import save_policy

NAMES = ("AAA", "BBB", "CCC")
COLUMNS = {"Tag": "session", "Papier": "symbol", "open": "open", "high": "high", "low": "low", "close": "close", "volume": "volume"}
UPLOAD = {"source": "upload", "name": "my-prices-1.csv", "columns": COLUMNS, "adjusted": True}
BUNDLED = {"source": "bundled"}
COSTS = {"costs": {"slippage_bps": 25}, "universe": {"benchmark": "BBB"}}
ASKED = {"policy": "random:3", "start": "2018-06-01", "end": "2018-12-31"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three names from 2017 to 2019, in columns of somebody else's making."""
    folder = tmp_path_factory.mktemp("lake")
    days = pd.bdate_range("2017-01-03", "2019-06-28")
    rng, tables = np.random.default_rng(7), []
    for name in NAMES:
        close = 50 * np.exp(np.cumsum(rng.normal(3e-4, 0.01, len(days))))
        tables.append(
            pd.DataFrame({"Tag": days.strftime("%Y-%m-%d"), "Papier": name, "open": close, "high": close * 1.02, "low": close * 0.98})
            .assign(close=close, volume=1_000_000)
            .round(4)
        )
    (folder / "uploads").mkdir()
    pd.concat(tables).to_csv(folder / "uploads" / "my-prices-1.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    return Studies(settings=None, scratch=tmp_path_factory.mktemp("scratch"))


@pytest.fixture
def worker(root: Path, studies: Studies, tmp_path: Path) -> Worker:
    return Worker(LocalRunStore(root), studies, scratch=tmp_path, workers=1)


def ask(root: Path, run_id: str, kind: str, *, bars: Mapping[str, Any] = UPLOAD, **fields: Any) -> str:
    document = {"id": run_id, "kind": kind, "by": "ann", "requested_at": "2026-11-22T12:00:00Z", "bars": bars, **fields}
    write_whole(root / "runs" / run_id / "request.json", json.dumps(document).encode())
    return run_id


def status(root: Path, run_id: str) -> RunStatus:
    return state_of(LocalRunStore(root).events(run_id), now=datetime.now(UTC))


def result(root: Path, run_id: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "runs" / run_id / "results" / name).read_text())
    return found


def test_an_upload_is_looked_at_and_its_columns_are_asked_for(root: Path, worker: Worker) -> None:
    assert worker.do(ask(root, "inspect-0001", "inspect", bars={**UPLOAD, "columns": {}})) == "finished"
    found = status(root, "inspect-0001").inspected
    assert isinstance(found, Inspected)
    assert found.problem == "my-prices-1.csv: choose what the columns mean; no column is called like symbol, session"
    assert found.unmapped == ("Tag", "Papier")
    assert worker.do(ask(root, "inspect-0002", "inspect")) == "finished"
    mapped = status(root, "inspect-0002").inspected
    assert mapped is not None
    assert (mapped.problem, mapped.symbols, mapped.first) == (None, NAMES, "2017-01-03")
    assert "rows set aside: session is not in the calendar" in mapped.remarks[0], "New York was closed on some of these days"


def test_a_backtest_is_that_of_the_command_line(root: Path, worker: Worker, tmp_path: Path) -> None:
    assert worker.do(ask(root, "backtest-0001", "backtest", settings=COSTS, backtest=ASKED)) == "finished"
    found, drawn = result(root, "backtest-0001", "backtest.json"), result(root, "backtest-0001", "candles.json")
    own = pd.read_csv(root / "uploads" / "my-prices-1.csv").rename(columns={"Tag": "date", "Papier": "symbol"})
    own.to_csv(tmp_path / "own.csv", index=False)
    same = study(StudyOptions(bars=tmp_path / "own.csv", adjusted=True, changes={"costs": COSTS["costs"]}))
    theirs = compare(same, "random:3", start=date(2018, 6, 1), end=date(2018, 12, 31))
    np.testing.assert_array_equal(found["equity"], theirs.policy.equity.round(2))
    np.testing.assert_array_equal(found["equal_weight"], theirs.equal_weight.equity.round(2))
    assert found["sessions"] == [str(day) for day in theirs.policy.sessions] == drawn["sessions"]
    assert found["benchmark"]["name"] == "BBB"
    trades = pd.DataFrame(found["trades"])
    np.testing.assert_allclose(trades["shares"], theirs.trades["quantity"], atol=1e-4)
    np.testing.assert_allclose(trades["price"], theirs.trades["open"], atol=1e-4)
    assert trades["cost"].sum() == pytest.approx(theirs.policy.costs.sum(), abs=0.01 * len(trades))
    assert found["metrics"]["policy"]["costs"] == pytest.approx(theirs.policy.costs.sum())
    assert found["metrics"]["against_equal_weight"]["excess_bp"] == pytest.approx(0, abs=1e5)
    assert len(found["weights"]["held"]) == len(NAMES)
    assert drawn["symbols"]["AAA"]["close"][0] > 0
    made = {one.name: one.bytes for one in status(root, "backtest-0001").results}
    assert made["backtest.json"] == (root / "runs" / "backtest-0001" / "results" / "backtest.json").stat().st_size


def test_raw_prices_without_a_split_or_a_dividend_are_raw_prices(root: Path, worker: Worker) -> None:
    """What nothing stands beside needs no word about it."""
    assert (
        worker.do(ask(root, "raw-prices-1", "backtest", bars={**UPLOAD, "adjusted": False}, settings=COSTS, backtest=ASKED)) == "finished"
    )
    assert worker.do(ask(root, "raw-prices-2", "backtest", settings=COSTS, backtest=ASKED)) == "finished"
    raw, adjusted = result(root, "raw-prices-1", "backtest.json"), result(root, "raw-prices-2", "backtest.json")
    assert raw["equity"] == adjusted["equity"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"settings": {"portfolio": {"kappa": 7}}},
            "settings: portfolio.kappa = 7 is not allowed: Input should be less",
        ),
        ({"settings": {"dance": {"x": 1}}}, "settings: dance = {'x': 1} is not a setting; remove it or check its spelling"),
        ({"settings": {"universe": {"symbols": ["AAA", "ZZZ"]}}}, "bars.parquet: has no bar of ZZZ, it has AAA, BBB, CCC"),
        ({"settings": {"universe": {"symbols": "AAA"}}}, "settings: universe.symbols must be a list of names, was 'AAA'"),
        (
            {"backtest": {**ASKED, "policy": "dance"}},
            "policy: policy must be 'equal-weight' or 'random:<seed>', was 'dance'; or run:",
        ),
        ({"backtest": {**ASKED, "policy": "run:nobody-asked"}}, "there is no run nobody-asked"),
        ({"backtest": {**ASKED, "policy": "run:../../etc"}}, "policy: run:../../etc is no run's id"),
        ({"backtest": {**ASKED, "policy": "package:/nothing.tar.gz"}}, "there is no model.tar.gz of that path on this machine"),
        ({"backtest": {**ASKED, "start": "2019-01-02"}}, "start and end must lie within 2018-"),
        ({"backtest": {**ASKED, "start": "2018-02-31"}}, "start and end must be days of the calendar, were 2018-02-31"),
        ({"bars": {**UPLOAD, "name": "not-there-1.csv"}}, "not-there-1.csv: there is no upload of that name"),
        ({"bars": {**UPLOAD, "columns": {"Tag": "session"}}}, "my-prices-1.csv: no column for symbol, open"),
    ],
)
def test_what_cannot_be_done_is_a_failed_state_of_one_line(root: Path, worker: Worker, fields: dict[str, Any], message: str) -> None:
    run_id = f"refused-{abs(hash(message)) % 10**8:08d}"
    assert worker.do(ask(root, run_id, "backtest", **{"backtest": ASKED, **fields})) == "failed"
    found = status(root, run_id)
    assert found.state == "failed"
    assert message in found.message
    assert "\n" not in found.message


def test_a_stop_is_honoured_once_and_a_finished_run_is_left_as_it_is(root: Path, worker: Worker) -> None:
    run_id = ask(root, "backtest-0002", "backtest", backtest=ASKED)
    write_whole(root / "runs" / run_id / "stop", b"ann")
    assert worker.do(run_id) == "stopped"
    assert worker.do(run_id) == "finished"
    events = LocalRunStore(root).events(run_id)
    states = [event.state for event in events if isinstance(event, StateChanged)]
    assert states == ["running", "stopped", "running", "finished"]
    assert worker.do(run_id) == "finished"
    assert LocalRunStore(root).events(run_id) == events


def test_an_app_on_minute_bars_backtests_on_daily_ones_and_refuses_models_of_slots(root: Path, tmp_path: Path) -> None:
    minute = load(SETTINGS, research=True).model_dump(mode="json")
    minute["training"] |= {"timeframe": "1Min", "holdout_sessions": 5}
    minute["schedule"]["slots"] = ["open+5", "open+120"]
    (tmp_path / "settings.json").write_text(json.dumps(minute), encoding="utf-8")
    worker = Worker(LocalRunStore(root), Studies(settings=tmp_path / "settings.json", scratch=tmp_path), scratch=tmp_path, workers=1)
    daily = ask(root, "minute-app-1", "backtest", backtest=ASKED)
    assert worker.do(daily) == "finished"
    sessions = result(root, daily, "backtest.json")["sessions"]
    assert (len(sessions), sessions[0], sessions[-1]) == (147, ASKED["start"], ASKED["end"])
    daily_model = network(seed=0, fold=0, train_end="2018-05-31")
    save_policy(tmp_path / "model", daily_model.arrays, replace(daily_model.card, slots=("open+5", "open+120")))
    small_run.pack(tmp_path / "model", tmp_path)
    policy = f"package:{tmp_path / 'model.tar.gz'}"
    for place, (fields, words) in enumerate(
        (
            ({"backtest": {**ASKED, "policy": policy}}, "slots must be none (daily bars), was open+5, open+120"),
            ({"backtest": ASKED, "settings": {"training": {"timeframe": "1Min"}}}, "training.timeframe must be \"1Day\", was '1Min'"),
        )
    ):
        asked = ask(root, f"minute-app-refused-{place}", "backtest", **fields)
        assert worker.do(asked) == "failed"
        assert words in status(root, asked).message


def test_a_second_worker_refuses_and_changes_nothing(root: Path, worker: Worker) -> None:
    run_id = ask(root, "backtest-0003", "backtest", backtest=ASKED)
    with LocalRunStore(root).hold(run_id):
        with pytest.raises(RunHeldError, match="is done by another worker now"):
            worker.do(run_id)
        assert main(["--run", run_id, "--folder", str(root)]) == HELD
    assert LocalRunStore(root).events(run_id) == []


def test_a_full_disk_is_a_failed_run_that_can_be_started_again(root: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = ask(root, "backtest-0004", "backtest", backtest=ASKED)

    def full(*_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("shutil.copyfile", full)
        assert worker.do(run_id) == "failed"
    found = status(root, run_id)
    assert found.message == "the disk is full: make room and start the run again, what is trained is kept"
    assert found.results == ()
    assert worker.do(run_id) == "finished"
    assert status(root, run_id).state == "finished"


def test_the_service_does_what_is_waited_for_and_no_training(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for run_id, kind in (("service-0001", "backtest"), ("service-0002", "train"), ("service-0003", "inspect")):
        fields = {"backtest": {**ASKED, "start": "2019-01-02", "end": "2019-03-29"}} if kind == "backtest" else {}
        ask(root, run_id, kind, bars=BUNDLED, **fields)
    monkeypatch.setattr(sys, "stdin", io.StringIO("service-0001\nservice-0002\n\nservice-0003\nservice-0004\n"))
    service.main(["--folder", str(root)])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == {"ready": True}
    assert [(line["run"], line["state"]) for line in lines[1:]] == [
        ("service-0001", "finished"), ("service-0002", None), ("service-0003", "failed"), ("service-0004", None),
    ]  # fmt: skip
    assert "is a training: start it on its own" in lines[2]["message"]
    assert result(root, "service-0001", "backtest.json")["sessions"][-1] == "2019-03-29"
