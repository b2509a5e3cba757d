"""Stop a training between rollouts and go on later, in another process, to the same weights bit for bit.

Promise: a checkpoint holds all that decides what follows (weights, optimiser, books, generators, what was said so far) as arrays and JSON,
never a pickle. It is written whole or not at all, after every rollout, so that a killed training loses one rollout at most.
Failure: `CheckpointError`, one line, for a checkpoint that cannot be read or is of another training; `Stopped` when asked to stop, once
the checkpoint is written.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch

from learning.configuration import Configuration
from trading_env.errors import PapertapeError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from schema.settings import Settings
    from trading_env.data.market import Market

_DOCUMENT, _OPTIMISER = "document.json", "optimiser/"


class CheckpointError(PapertapeError, ValueError):
    """A checkpoint cannot be used: it is damaged, or of other data, settings, code or seed."""


class Stopped(PapertapeError, RuntimeError):  # noqa: N818  it is no error
    """The training was asked to stop and did; its checkpoint is where it goes on from."""


class Checkpoints(Protocol):
    """Where one training keeps its checkpoint: `save` replaces it whole or not at all, `load` gives the last one, None if there is none."""

    def save(self, content: bytes) -> None: ...

    def load(self) -> bytes | None: ...


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint as one file; what is half written lies beside it under another name. Raises OSError."""

    path: Path

    def save(self, content: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        finally:
            partial.unlink(missing_ok=True)

    def load(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def clear(self) -> None:
        """What was trained to its end needs none."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, eq=False)
class TrainingState:
    """What decides the rest of a training: arrays by name, and what is JSON."""

    arrays: Mapping[str, NDArray[Any]]
    document: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        text = json.dumps(self.document, allow_nan=False).encode()
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **self.arrays, **{_DOCUMENT: np.frombuffer(text, dtype=np.uint8)})
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Raises CheckpointError."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            return cls(arrays, json.loads(arrays.pop(_DOCUMENT).tobytes()))
        except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"the checkpoint cannot be read ({error}); remove it to train from the beginning") from error


class Pauses:
    """Of one training: what it goes on from, and the moments between its rollouts at which it may end. Without a checkpoint, none."""

    def __init__(
        self,
        checkpoint: Checkpoints | None,
        stop: Callable[[], bool] | None,
        *,
        market: Market,
        settings: Settings,
        seed: int,
        timesteps: int,
    ) -> None:
        if stop is not None and checkpoint is None:
            raise CheckpointError("what may be stopped needs a checkpoint to go on from, there is none")
        self._checkpoint, self._stop = checkpoint, stop
        self._identity = {} if checkpoint is None else _identity(market, settings=settings, seed=seed, timesteps=timesteps)

    def resumed(self) -> TrainingState | None:
        """The state that was kept last; raises CheckpointError when it is of another training."""
        content = None if self._checkpoint is None else self._checkpoint.load()
        if content is None:
            return None
        state = TrainingState.from_bytes(content)
        found = state.document.get("identity", {})
        if others := [name for name, value in self._identity.items() if found.get(name) != value]:
            raise CheckpointError(
                f"the checkpoint is of other {', '.join(others)}; remove it to train from the beginning, or train as it was begun"
            )
        return state

    def between_rollouts(self, state: Callable[[], TrainingState]) -> None:
        """Keep the state, if it is kept at all; raises Stopped when the training is to end here."""
        if self._checkpoint is None:
            return
        now = state()
        self._checkpoint.save(TrainingState(now.arrays, {**now.document, "identity": self._identity}).to_bytes())
        if self._stop is not None and self._stop():
            raise Stopped("stopped between two rollouts, the checkpoint is written; train again to go on from it")


def optimiser_arrays(optimiser: torch.optim.Optimizer) -> dict[str, NDArray[Any]]:
    """Adam's moments and steps by number and name of the parameter."""
    kept = optimiser.state_dict()["state"]
    return {f"{_OPTIMISER}{number}/{name}": value.numpy() for number, values in kept.items() for name, value in values.items()}


def load_optimiser(optimiser: torch.optim.Optimizer, arrays: Mapping[str, NDArray[Any]]) -> None:
    """What `optimiser_arrays` gave, into an optimiser of the same parameters."""
    kept: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors(arrays, _OPTIMISER).items():
        number, _, key = name.partition("/")
        kept.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": kept})


def tensors(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, torch.Tensor]:
    """The arrays whose names begin so, by the rest of the name."""
    return {name.removeprefix(prefix): torch.from_numpy(value.copy()) for name, value in arrays.items() if name.startswith(prefix)}


def _identity(market: Market, *, settings: Settings, seed: int, timesteps: int) -> dict[str, str]:
    """What must be the same for the rest of a training to be the rest of this one; each name can stand in a sentence."""
    configuration = Configuration.of(settings)
    training = {key: value for key, value in configuration.settings["training"].items() if key not in ("seeds", "timesteps")}
    asked = json.dumps({**configuration.settings, "training": training}, sort_keys=True)
    return {
        "data": _data_hash(market),
        "settings": hashlib.sha256(asked.encode()).hexdigest(),
        "code": configuration.code_hash,
        "libraries": f"torch {torch.__version__}, numpy {np.__version__}",
        "seed": str(seed),
        "timesteps": str(timesteps),
    }


def _data_hash(market: Market) -> str:
    digest = hashlib.sha256(json.dumps(market.symbols).encode())
    for field in fields(market):
        if isinstance(values := getattr(market, field.name), np.ndarray):
            digest.update(f"{field.name} {values.dtype} {values.shape}".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
