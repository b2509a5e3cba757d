"""A training that was stopped between rollouts goes on, in another process, to the bytes of an unbroken one."""

from __future__ import annotations

import io
import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from learning import training
from learning.algorithms.checkpoints import CheckpointError, CheckpointFile, Stopped, TrainingState
from learning.algorithms.trainer import Fitted
from schema.settings import Algorithm, Settings
from tests import small_run
from trading_env.data.market import Market

ROOT = Path(__file__).resolve().parents[2]
TIMESTEPS: dict[Algorithm, int] = {"ppo": 1000, "direct": 1512 * 3, "direct+ppo": 1512 * 3, "q-learning": 1000}
STAGES: dict[Algorithm, list[tuple[str, str | None]]] = {
    "ppo": [("ppo", None)],
    "direct": [("direct", "search"), ("direct", "whole")],
    "direct+ppo": [("direct", "search"), ("direct", "whole"), ("ppo", None)],
    "q-learning": [("q-learning", None)],
}
LEFT_OUT = {("direct+ppo", "search"), ("direct", "whole")}  # of what is gone on with: the other of the two has it


def chosen(algorithm: Algorithm) -> Settings:
    """Free and fast trading, so that the ascent finds something to climb."""
    training = {"algorithm": algorithm, "timesteps": TIMESTEPS[algorithm]}
    return small_run.settings(training=training, costs={"slippage_bps": 0.0}, portfolio={"kappa": 1.0})


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.write_channel(tmp_path_factory.mktemp("channel"))


@pytest.fixture(scope="module")
def market() -> Market:
    return small_run.market().rows(small_run.DAYS[252], small_run.DAYS[560])


def test_stopped_and_gone_on_with_in_a_new_process_is_the_bytes_of_an_unbroken_run(
    channel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    algorithms: tuple[Algorithm, ...] = ("ppo", "q-learning")
    commands = []
    for algorithm in algorithms:
        settings, folder = chosen(algorithm), tmp_path / algorithm
        stop, checkpoints = folder / "stop", folder / "checkpoints"
        small_run.train(channel, folder / "unbroken", "--seed", "3", "--fold", "1", chosen=settings)
        resumable = ["--fold", "1", "--checkpoint", str(checkpoints), "--stop-file", str(stop)]
        monkeypatch.setattr(sys, "stdout", StopsAt(3, stop))
        with pytest.raises(Stopped, match="the checkpoint is written"):
            small_run.train(channel, folder / "broken", "--seed", "3", *resumable, chosen=settings)
        monkeypatch.undo()
        assert [path.name for path in (checkpoints / "seed-3").iterdir()] == ["fold-1.npz"]
        assert not (folder / "broken").exists()
        stop.unlink()
        commands.append([str(folder / "broken"), "--seed", "3", *resumable, "--settings", settings.model_dump_json()])

    done = in_a_new_process(channel, commands)
    for algorithm in algorithms:
        broken, unbroken = (tmp_path / algorithm / name / "fold-1" for name in ("broken", "unbroken"))
        assert artifact(broken) == artifact(unbroken)
        assert measured(broken) == measured(unbroken)
        shown = [line["timesteps"] for line in map(json.loads, done.splitlines()) if line["phase"] == algorithm]
        assert shown == [line["timesteps"] for line in curve(unbroken)[3:]]
        assert list((tmp_path / algorithm / "checkpoints" / "seed-3").iterdir()) == []


def in_a_new_process(channel: Path, commands: list[list[str]]) -> str:
    """What the training job prints, run for each command's folder and arguments."""
    code = "import json, os, sys; from learning import training\nfor folder, *arguments in json.loads(sys.argv[1]):\n"
    code += "    os.environ['SM_MODEL_DIR'] = folder; training.main(arguments)"
    return subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SM_CHANNEL_FEATURES": str(channel)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def test_a_fold_that_is_trained_is_kept_and_one_that_is_not_to_be_begun_is_not(channel: Path, tmp_path: Path):
    settings, stop, model = chosen("q-learning"), tmp_path / "stop", tmp_path / "model"
    resumable = ["--seed", "3", "--fold", "1", "--checkpoint", str(tmp_path / "checkpoints"), "--stop-file", str(stop)]
    small_run.train(channel, model, *resumable, chosen=settings)
    trained = (model / "fold-1" / "policy.npz").stat().st_mtime_ns
    small_run.train(channel, model, *resumable, chosen=settings)
    assert (model / "fold-1" / "policy.npz").stat().st_mtime_ns == trained
    stop.touch()
    small_run.train(channel, model, *resumable, chosen=settings)
    with pytest.raises(Stopped, match="stopped before fold 2; train again to go on with it"):
        small_run.train(channel, model, *resumable, "--fold", "2", chosen=settings)


def test_the_script_ends_with_a_status_of_its_own_when_it_is_stopped(
    channel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    stop = tmp_path / "stop"
    stop.touch()
    arguments = ["--fold", "1", "--checkpoint", str(tmp_path / "checkpoints"), "--stop-file", str(stop)]
    command = ["train.py", "--seed", "3", *arguments, "--settings", chosen("ppo").model_dump_json()]
    monkeypatch.setenv("SM_CHANNEL_FEATURES", str(channel))
    monkeypatch.setenv("SM_MODEL_DIR", str(tmp_path / "model"))
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "sagemaker" / "train.py"), run_name="__main__")
    assert ended.value.code == training.STOPPED
    assert capsys.readouterr().err == "train.py: stopped before fold 1; train again to go on with it\n"


class StopsAt(io.StringIO):
    """Somebody who watches the lines, and asks to stop after so many."""

    def __init__(self, line: int, stop: Path) -> None:
        super().__init__()
        self._left, self._stop = line, stop

    def write(self, text: str) -> int:
        self._left -= '"timesteps"' in text
        if not self._left:
            self._stop.touch()
        return super().write(text)


def artifact(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "policy.npz").read_bytes(), (folder / "policy.json").read_bytes()


def curve(folder: Path) -> list[dict[str, object]]:
    return json.loads((folder / "training.json").read_text(encoding="utf-8"))["curve"]  # type: ignore[no-any-return]


def measured(folder: Path) -> list[dict[str, object]]:
    return [{name: value for name, value in line.items() if name not in ("steps_per_second", "seconds_left")} for line in curve(folder)]


class Memory:
    """A checkpoint that remembers each of its states."""

    def __init__(self, content: bytes | None = None) -> None:
        self.saved = [] if content is None else [content]

    def save(self, content: bytes) -> None:
        self.saved.append(content)

    def load(self) -> bytes | None:
        return self.saved[-1] if self.saved else None


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_in_every_phase_the_same_weights_come_out(market: Market, algorithm: Algorithm):
    settings, timesteps, kept = chosen(algorithm), TIMESTEPS[algorithm], Memory()

    def fit(checkpoint: Memory | None) -> Fitted:
        return training.TRAINERS[algorithm](market, settings=settings, seed=1, timesteps=timesteps, checkpoint=checkpoint)

    whole = fit(kept)
    first: dict[tuple[str, str | None], bytes] = {}
    for content in kept.saved:
        document = TrainingState.from_bytes(content).document
        first.setdefault((document["phase"], document.get("stage")), content)
    assert list(first) == STAGES[algorithm]
    begun = [Memory(content) for (_, stage), content in first.items() if (algorithm, stage) not in LEFT_OUT]
    for checkpoint in begun if "direct" in algorithm else [*begun, Memory(kept.saved[-1]), None]:
        other = fit(checkpoint)
        assert other.timesteps == whole.timesteps
        assert other.arrays.keys() == whole.arrays.keys()
        for name, values in whole.arrays.items():
            assert np.asarray(other.arrays[name]).tobytes() == np.asarray(values).tobytes(), name
        assert [line["rollout_reward"] for line in other.curve] == [line["rollout_reward"] for line in whole.curve]


@pytest.fixture(scope="module")
def content(market: Market) -> bytes:
    """A checkpoint of PPO's first rollout."""
    kept = Memory()
    with pytest.raises(Stopped):
        training.TRAINERS["ppo"](market, settings=chosen("ppo"), seed=1, timesteps=1000, checkpoint=kept, stop=lambda: True)
    assert len(kept.saved) == 1
    return kept.saved[0]


class TestRefused:
    def go_on(self, content: bytes, market: Market, **changes: object) -> None:
        asked = {"settings": chosen("ppo"), "seed": 1, "timesteps": 1000, **changes}
        training.TRAINERS["ppo"](market, **asked, checkpoint=Memory(content))  # type: ignore[arg-type]

    def test_another_seed_data_settings_or_budget(self, content: bytes, market: Market):
        with pytest.raises(CheckpointError, match="the checkpoint is of other seed; remove it"):
            self.go_on(content, market, seed=2)
        with pytest.raises(CheckpointError, match="is of other timesteps;"):
            self.go_on(content, market, timesteps=2000)
        with pytest.raises(CheckpointError, match="is of other settings;"):
            self.go_on(content, market, settings=small_run.settings(training={"algorithm": "ppo"}))
        with pytest.raises(CheckpointError, match="is of other data;"):
            self.go_on(content, replace(market, volume=market.volume * 2))

    def test_other_code(self, content: bytes, market: Market):
        state = TrainingState.from_bytes(content)
        changed = {**state.document, "identity": {**state.document["identity"], "code": "another"}}
        with pytest.raises(CheckpointError, match="is of other code;"):
            self.go_on(TrainingState(state.arrays, changed).to_bytes(), market)

    def test_half_of_one_or_a_pickle(self, content: bytes, market: Market):
        with pytest.raises(CheckpointError, match="cannot be read"):
            self.go_on(content[: len(content) // 2], market)
        buffer = io.BytesIO()
        np.savez(buffer, document=np.array([{"phase": "ppo"}], dtype=object))
        with pytest.raises(CheckpointError, match="cannot be read"):
            self.go_on(buffer.getvalue(), market)

    def test_a_stop_without_a_checkpoint(self, market: Market):
        with pytest.raises(CheckpointError, match="needs a checkpoint"):
            training.TRAINERS["ppo"](market, settings=chosen("ppo"), seed=1, timesteps=1000, stop=lambda: True)


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path):
    kept = CheckpointFile(tmp_path / "seed-0" / "fold-0.npz")
    assert kept.load() is None
    kept.save(b"first")
    kept.save(b"second")
    assert kept.load() == b"second"
    kept.path.with_name(f"fold-0.npz.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        kept.save(b"third")
    assert kept.load() == b"second"
    assert [path.name for path in kept.path.parent.iterdir()] == ["fold-0.npz"]
