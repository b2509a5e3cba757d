"""PPO over `trading_env`, by Stable-Baselines3: hyperparameters, the environments and progress as SB3 wants them, and the fit.

Promise: `learning.algorithms.trainer`'s. Costs, rules, reward, kappa, episode length and environments come from the settings. One thread:
small matrices lose by more, and seeds run side by side. Failure: SB3's own errors.
"""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from learning.algorithms import direct
from learning.algorithms.trainer import Fitted, standardisation
from learning.network import ScoreNetwork, TiedGaussianPolicy
from schema.trading_rules import limits_of, rules_of
from trading_env.simulation.env import BatchedTradingEnv, EnvConfig
from trading_env.simulation.rewards import Reward

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from learning.algorithms.trainer import OnRollout
    from schema.settings import Settings
    from trading_env.data.market import Market

ROLLOUT = 16_384
HYPERPARAMETERS: dict[str, Any] = {
    "learning_rate": 3e-4,
    "n_epochs": 4,
    "gamma": 0.95,
    "gae_lambda": 0.9,
    "ent_coef": 0.0,  # entropy only buys turnover
    "target_kl": 0.02,
}
BATCH = 1_024
LOG_STD_INIT = -0.7


class Sb3Environments(VecEnv):
    """The batched environment as SB3 reads one: a dict per copy, the last observation of an episode, and truncation apart from an end."""

    def __init__(self, environments: BatchedTradingEnv) -> None:
        self.environments = environments
        super().__init__(environments.num_envs, environments.single_observation_space, environments.single_action_space)
        self.returns = np.zeros(self.num_envs)
        self.finished: deque[float] = deque(maxlen=self.num_envs)
        self._idle: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]

    def reset(self) -> Any:
        observations, _ = self.environments.reset(seed=self._seeds[0])
        self._reset_seeds()
        self.returns[:] = 0.0
        return observations

    def step_async(self, actions: np.ndarray[Any, Any]) -> None:
        self.actions = actions

    def step_wait(self) -> Any:
        observations, rewards, terminated, truncated, info = self.environments.step(self.actions)
        self.returns += rewards
        done = terminated | truncated
        infos = self._idle
        if done.any():
            infos = [{} for _ in range(self.num_envs)]
            for index in np.flatnonzero(done):
                infos[index] = {
                    "terminal_observation": info["final_obs"][index],
                    "TimeLimit.truncated": bool(truncated[index] and not terminated[index]),
                }
                self.finished.append(float(self.returns[index]))
            self.returns[done] = 0.0
        return observations, rewards, done, infos

    def close(self) -> None:
        self.environments.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.environments, attr_name, None) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("the environments of a batch share their attributes")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        raise NotImplementedError("the environments of a batch are stepped together")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:  # noqa: ARG002
        return [False for _ in self._get_indices(indices)]


class Rollouts(RolloutBuffer):
    """SB3's buffer. Its minibatches are the same to the bit, gathered once from where the rollout lies: SB3 reorders the whole of it first,
    and copies what it has gathered."""

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        count = self.buffer_size * self.n_envs
        environment, step = np.divmod(np.random.permutation(count), self.buffer_size)
        places = torch.from_numpy(step * self.n_envs + environment)
        wide = [torch.from_numpy(part).view(count, -1) for part in (self.observations, self.actions)]
        parts = [torch.from_numpy(part).view(count) for part in (self.values, self.log_probs, self.advantages, self.returns)]
        size = batch_size or count
        for start in range(0, count, size):
            chosen = places[start : start + size]
            yield RolloutBufferSamples(*(part.index_select(0, chosen) for part in (*wide, *parts)))


class Progress(BaseCallback):
    """What a rollout showed, kept in `curve` and given to `on_rollout`: `timesteps` of `of`, rewards, kl, log_std, steps_per_second."""

    def __init__(self, environments: Sb3Environments, *, total: int, on_rollout: OnRollout | None) -> None:
        super().__init__()
        self.environments, self.total, self.on_rollout = environments, total, on_rollout
        self.curve: list[dict[str, Any]] = []
        self.began = time.monotonic()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        finished, measured, policy = self.environments.finished, self.logger.name_to_value, self.model.policy
        assert isinstance(policy, TiedGaussianPolicy)
        seconds = time.monotonic() - self.began
        line = {
            "timesteps": self.num_timesteps,
            "of": self.total,
            "episode_reward": round(float(np.mean(finished)), 4) if finished else None,
            "rollout_reward": round(float(self.model.rollout_buffer.rewards.mean()), 6),  # type: ignore[attr-defined]
            "kl": round(float(measured["train/approx_kl"]), 5) if "train/approx_kl" in measured else None,
            "log_std": policy.log_std.item(),
            "steps_per_second": round(self.num_timesteps / seconds),
        }
        self.curve.append(line)
        self.logger.record("rollout/reward", line["rollout_reward"])
        self.logger.record("rollout/log_std", line["log_std"])
        if finished:
            self.logger.record("rollout/episode_reward", line["episode_reward"])
        if self.on_rollout is not None:
            self.on_rollout(line)


def rollout_size(*, timesteps: int, environments: int) -> tuple[int, int, int]:
    """(rollouts, steps of each environment in one, batch): about `ROLLOUT` transitions each, at least four rollouts, never more in all.

    A rollout is a whole number of batches; with a budget too small for four batches of `BATCH`, one rollout is one batch.
    """
    rollouts = max(4, round(timesteps / ROLLOUT))
    steps = max(2, timesteps // (rollouts * environments))
    chunk = BATCH // math.gcd(BATCH, environments)
    if steps < chunk:
        return rollouts, steps, steps * environments
    return rollouts, steps - steps % chunk, BATCH


def fit(
    market: Market,
    *,
    settings: Settings,
    seed: int,
    timesteps: int,
    on_rollout: OnRollout | None = None,
    tensorboard: Path | None = None,
    start: ScoreNetwork | None = None,
) -> Fitted:
    """The `Trainer` of PPO, from a random network with zero scores or from `start`. A rollout is a whole number of batches; of a market of
    more than `names_per_episode` names, each episode draws so many. Episodes begin at equal weight: a drawn book's return is noise to the
    gradient, four fifths of it.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    training, reward = settings.training, settings.reward
    config = EnvConfig(
        rules=rules_of(settings),
        kappa=settings.portfolio.kappa,
        episode_sessions=training.episode_sessions,
        random_start=True,
        start="equal",
        limits=limits_of(settings),
        reward=Reward(**reward.model_dump()),
        names=training.names_per_episode if training.names_per_episode < len(market.symbols) else None,
    )
    environments = Sb3Environments(BatchedTradingEnv(market, num_envs=training.environments, config=config, copy=False))
    rollouts, steps, batch = rollout_size(timesteps=timesteps, environments=training.environments)
    mu, sigma = standardisation(market)
    model = PPO(
        TiedGaussianPolicy,
        environments,
        n_steps=steps,
        batch_size=batch,
        rollout_buffer_class=Rollouts,
        seed=seed,
        device="cpu",
        policy_kwargs={
            "network": {"features": market.features.shape[2], "context": market.context.shape[1], "mu": mu, "sigma": sigma},
            "log_std_init": LOG_STD_INIT,
        },
        **HYPERPARAMETERS,
    )
    policy = model.policy
    assert isinstance(policy, TiedGaussianPolicy)
    if start is not None:
        policy.network.load_state_dict(start.state_dict())
    if tensorboard is not None:
        model.set_logger(_tensorboard(tensorboard))
    taken = rollouts * steps * training.environments
    progress = Progress(environments, total=taken, on_rollout=on_rollout)
    model.learn(taken, callback=progress)
    model.logger.close()
    return Fitted(policy.network, taken, progress.curve)


def fit_after_direct(
    market: Market,
    *,
    settings: Settings,
    seed: int,
    timesteps: int,
    on_rollout: OnRollout | None = None,
    tensorboard: Path | None = None,
) -> Fitted:
    """The `Trainer` of direct reinforcement and then PPO, `timesteps` each; PPO sees what is held, too."""
    options: dict[str, Any] = {"settings": settings, "seed": seed, "timesteps": timesteps, "on_rollout": on_rollout}
    first = direct.fit(market, **options)
    second = fit(market, **options, tensorboard=tensorboard, start=first.network)
    return Fitted(second.network, first.timesteps + second.timesteps, [*first.curve, *second.curve])


def _tensorboard(folder: Path) -> Any:
    from stable_baselines3.common.logger import configure

    return configure(str(folder), ["tensorboard"])
