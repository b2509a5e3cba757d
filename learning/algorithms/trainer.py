"""What every training algorithm is given and gives back; `learning.training.TRAINERS` names those that there are.

Promise: the same arguments give the same weights on one machine, stopped and gone on or unbroken, and nothing but the market's own rows
enters, the standardisation included. Failure: `DatasetError` for a market without a tradable row, `CheckpointError` for a checkpoint of
another training, `Stopped` when asked to, and what the algorithm's library raises.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from learning.dataset import DatasetError
from trading_env.simulation.policy import ARCHITECTURE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from learning.algorithms.checkpoints import Checkpoints
    from schema.settings import Settings
    from trading_env.data.market import Market

OnRollout = Callable[[dict[str, Any]], None]
Stop = Callable[[], bool]


@dataclass(frozen=True, eq=False)
class Fitted:
    """What was trained: the arrays of a `NumpyPolicy` of this `architecture`, the timesteps that it took, and a line per rollout.

    A line has `phase`, `timesteps` of `of`, `rollout_reward` (in the algorithm's own unit), `excess` (log growth per session over equal
    weight), `steps_per_second`, `seconds_left`, and what else the algorithm measures; None is what it did not measure yet. `phase` says
    what the timesteps count. `seconds`: what was spent before the training was last resumed.
    """

    arrays: Mapping[str, NDArray[Any]]
    timesteps: int
    curve: list[dict[str, Any]]
    architecture: str = ARCHITECTURE
    seconds: float = 0.0


class Trainer(Protocol):
    """Fit a policy on `market`, all of whose rows are training rows.

    Any market will do that has room for the settings' `episode_sessions`; the policy takes its inputs from it. `timesteps` is met but
    for what does not fill a rollout. `on_rollout` gets each line of the curve; `tensorboard`: the folder for its files.
    `checkpoint`: where the training goes on from if there is one, and is kept after each rollout; `stop` is asked then whether to end.
    """

    def __call__(
        self,
        market: Market,
        *,
        settings: Settings,
        seed: int,
        timesteps: int,
        on_rollout: OnRollout | None = None,
        tensorboard: Path | None = None,
        checkpoint: Checkpoints | None = None,
        stop: Stop | None = None,
    ) -> Fitted: ...


class Pace:
    """How fast one phase of a training goes: timesteps per second of this process, and the seconds that the rest will take at that."""

    def __init__(self, *, begun_at: int = 0) -> None:
        self._begun_at, self._began = begun_at, time.monotonic()

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self._began, 1e-9)

    def line(self, taken: int, *, of: int) -> dict[str, Any]:
        speed = (taken - self._begun_at) / self.seconds
        return {"steps_per_second": round(speed), "seconds_left": round((of - taken) / speed, 1) if speed > 0 else None}


def rounded(value: float | None, digits: int) -> float | None:
    """For a line: None for what is not measured or not finite."""
    return round(float(value), digits) if value is not None and math.isfinite(value) else None


def standardisation(market: Market) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """mu and sigma (F + 2 + 1 + G,) over the market's tradable rows; 0 and 1 for held weight, mask and cash, which are shares already."""
    own, shared = market.features[market.tradable], market.context[market.tradable.any(axis=1)]
    if not len(own):
        raise DatasetError("the training rows must hold at least one tradable asset, was none")
    mu = np.concatenate([own.mean(axis=0), np.zeros(3), shared.mean(axis=0)])
    sigma = np.concatenate([own.std(axis=0), np.ones(3), shared.std(axis=0)])
    return mu, np.where(sigma > 1e-8, sigma, 1.0)
