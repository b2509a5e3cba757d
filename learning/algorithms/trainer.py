"""What every training algorithm is given and gives back; `learning.training.TRAINERS` names those that there are.

Promise: the same arguments give the same weights on one machine, and nothing but the market's own rows enters, the standardisation
included. Failure: `DatasetError` for a market without a tradable row, and what the algorithm's library raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from learning.dataset import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from learning.network import ScoreNetwork
    from schema.settings import Settings
    from trading_env.data.market import Market

OnRollout = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained network, the timesteps that it took, and a line per rollout: `timesteps` of `of`, `rollout_reward`, `steps_per_second`,
    and what else the algorithm measures."""

    network: ScoreNetwork
    timesteps: int
    curve: list[dict[str, Any]]


class Trainer(Protocol):
    """Fit a network on `market`, all of whose rows are training rows.

    Any market will do that has room for the settings' `episode_sessions`; the network takes its inputs from it. `timesteps` is met but
    for what does not fill a rollout. `on_rollout` gets each line of the curve; `tensorboard`: the folder for its files.
    `export([fitted.network])` gives the arrays of a `NumpyPolicy`.
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
    ) -> Fitted: ...


def standardisation(market: Market) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """mu and sigma (F + 2 + 1 + G,) over the market's tradable rows; 0 and 1 for held weight, mask and cash, which are shares already."""
    own, shared = market.features[market.tradable], market.context[market.tradable.any(axis=1)]
    if not len(own):
        raise DatasetError("the training rows must hold at least one tradable asset, was none")
    mu = np.concatenate([own.mean(axis=0), np.zeros(3), shared.mean(axis=0)])
    sigma = np.concatenate([own.std(axis=0), np.ones(3), shared.std(axis=0)])
    return mu, np.where(sigma > 1e-8, sigma, 1.0)
