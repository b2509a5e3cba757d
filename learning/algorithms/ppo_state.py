"""PPO that can be left between two rollouts: all that decides the rest, out of Stable-Baselines3's objects and into fresh ones.

Promise: a fresh model of the same market, settings and seed that is given the state learns what the one that it was taken from would have
learned, bit for bit. Learning rate and clipping are constants, so that no schedule belongs to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3 import PPO

from learning.algorithms.checkpoints import TrainingState, load_optimiser, optimiser_arrays, tensors

if TYPE_CHECKING:
    from trading_env.simulation.env import BatchedTradingEnv

_WEIGHTS, _ENVIRONMENTS = "weights/", "environments/"


class ResumablePpo(PPO):
    """SB3's, with its state between two rollouts: after the update, before the next action is drawn."""

    def snapshot(self, environments: BatchedTradingEnv) -> TrainingState:
        """Weights, moments, books, the last observations and all three generators."""
        books, generator = environments.snapshot()
        legacy: Any = np.random.get_state(legacy=False)
        arrays = {
            **{f"{_WEIGHTS}{name}": value.numpy() for name, value in self.policy.state_dict().items()},
            **optimiser_arrays(self.policy.optimizer),
            **{f"{_ENVIRONMENTS}{name}": value for name, value in books.items()},
            "observations": np.asarray(self._last_obs),
            "episode_starts": np.asarray(self._last_episode_starts),
            "numpy": legacy["state"]["key"],
            "torch": torch.get_rng_state().numpy(),
        }
        document = {
            "timesteps": self.num_timesteps,
            "updates": self._n_updates,
            "generator": generator,
            "numpy": [legacy["state"]["pos"], legacy["has_gauss"], legacy["gauss"]],
        }
        return TrainingState(arrays, document)

    def restore(self, environments: BatchedTradingEnv, state: TrainingState) -> None:
        """Into a model that has not learned yet."""
        arrays, document = state.arrays, state.document
        self.policy.load_state_dict(tensors(arrays, _WEIGHTS))
        load_optimiser(self.policy.optimizer, arrays)
        books = {name.removeprefix(_ENVIRONMENTS): value for name, value in arrays.items() if name.startswith(_ENVIRONMENTS)}
        environments.restore(books, document["generator"])
        self._last_obs, self._last_episode_starts = arrays["observations"].copy(), arrays["episode_starts"].copy()
        self.num_timesteps, self._n_updates = document["timesteps"], document["updates"]
        position, has_gauss, gauss = document["numpy"]
        np.random.set_state(("MT19937", arrays["numpy"], position, has_gauss, gauss))
        torch.set_rng_state(torch.from_numpy(arrays["torch"].copy()))
