"""Train one seed: PPO over `trading_env`, under SageMaker's training contract (`SM_CHANNEL_FEATURES`, `SM_MODEL_DIR`).

Promise: the same seed, data, settings and code give the same bytes of `policy.npz` and `policy.json` on one machine; no row of
`live_start` or later is read; the input standardisation sees training rows only. `training.json` holds what may differ between runs
(seconds, steps a second, the learning curve), so it stands apart from the artifact. Costs, rules, kappa, episode length and environments
come from the settings. One thread: small matrices lose by more, and seeds run side by side. Failure: a `DatasetError`, a validation error
or SB3's own ends the job with its message and leaves no model.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections import deque
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from dataset import Dataset, DatasetError, read_channel
from job import code_version, limits_of, read_settings, rules_of
from network import TiedGaussianPolicy, export
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from trading_env.env import BatchedTradingEnv, EnvConfig
from trading_env.features import CONTEXT, FEATURES, SCHEMA_VERSION
from trading_env.policy import PolicyCard, save_policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from settings import Settings
    from trading_env.market import Market

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
REWARD_SCALE = 300.0


@dataclass(frozen=True)
class Job:
    """What one training run is asked for."""

    seed: int
    timesteps: int
    start: date
    end: date
    live_start: date
    settings: Settings

    def __post_init__(self) -> None:
        if not self.start < self.end < self.live_start:
            raise ValueError(f"train-start < train-end < live-start must hold, was {self.start}, {self.end}, {self.live_start}")


class Sb3Environments(VecEnv):
    """The batched environment as SB3 reads one: a dict a copy, the last observation of an episode, and truncation told from an end."""

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


class Progress(BaseCallback):
    """One JSON line a rollout; `curve` keeps them for training.json."""

    def __init__(self, environments: Sb3Environments, *, seed: int) -> None:
        super().__init__()
        self.environments, self.seed = environments, seed
        self.curve: list[dict[str, Any]] = []
        self.began = time.monotonic()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        finished, measured, policy = self.environments.finished, self.logger.name_to_value, self.model.policy
        assert isinstance(policy, TiedGaussianPolicy)
        seconds = time.monotonic() - self.began
        line = {
            "seed": self.seed,
            "timesteps": self.num_timesteps,
            "episode_reward": round(float(np.mean(finished)), 4) if finished else None,
            "rollout_reward": round(float(self.model.rollout_buffer.rewards.mean()), 6),  # type: ignore[attr-defined]
            "kl": round(float(measured["train/approx_kl"]), 5) if "train/approx_kl" in measured else None,
            "log_std": policy.log_std.item(),
            "steps_per_second": round(self.num_timesteps / seconds),
        }
        self.curve.append(line)
        print(json.dumps(line), flush=True)


def standardisation(market: Market) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """mu and sigma (F + 2 + 1 + G,) over the market's tradable rows; 0 and 1 for held weight, mask and cash, which are shares already."""
    own, shared = market.features[market.tradable], market.context[market.tradable.any(axis=1)]
    if not len(own):
        raise DatasetError("the training rows must hold at least one tradable asset, was none")
    mu = np.concatenate([own.mean(axis=0), np.zeros(3), shared.mean(axis=0)])
    sigma = np.concatenate([own.std(axis=0), np.ones(3), shared.std(axis=0)])
    return mu, np.where(sigma > 1e-8, sigma, 1.0)


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


def train(job: Job, market: Market) -> tuple[PPO, Progress, int]:
    """Fit the policy on `market`, already cut to the training rows; return the model, its progress and the timesteps taken."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    training = job.settings.training
    config = EnvConfig(
        rules=rules_of(job.settings),
        kappa=job.settings.portfolio.kappa,
        episode_sessions=training.episode_sessions,
        reward_scale=REWARD_SCALE,
        random_start=True,
        start="random",
        limits=limits_of(job.settings),
    )
    environments = Sb3Environments(BatchedTradingEnv(market, num_envs=training.environments, config=config, copy=False))
    rollouts, steps, batch = rollout_size(timesteps=job.timesteps, environments=training.environments)
    mu, sigma = standardisation(market)
    model = PPO(
        TiedGaussianPolicy,
        environments,
        n_steps=steps,
        batch_size=batch,
        seed=job.seed,
        device="cpu",
        policy_kwargs={
            "network": {"features": len(FEATURES), "context": len(CONTEXT), "mu": mu, "sigma": sigma},
            "log_std_init": LOG_STD_INIT,
        },
        **HYPERPARAMETERS,
    )
    progress = Progress(environments, seed=job.seed)
    taken = rollouts * steps * training.environments
    model.learn(taken, callback=progress)
    return model, progress, taken


def main(arguments: Sequence[str] | None = None) -> None:
    job = _job(arguments)
    settings = job.settings
    dataset: Dataset = read_channel(
        Path(os.environ["SM_CHANNEL_FEATURES"]),
        symbols=settings.universe.symbols,
        live_start=min(job.live_start, settings.training.live_start),
    )
    market = dataset.market.rows(job.start, job.end)
    began = time.monotonic()
    model, progress, taken = train(job, market)
    seconds = time.monotonic() - began
    card = PolicyCard(
        features=tuple(feature.name for feature in FEATURES),
        context=tuple(feature.name for feature in CONTEXT),
        feature_hash=dataset.manifest["feature_hash"],
        schema_version=SCHEMA_VERSION,
        kappa=settings.portfolio.kappa,
        trained_on=market.symbols,
        train_start=str(market.sessions[0]),
        train_end=str(market.sessions[-1]),
        seeds=(job.seed,),
        code_version=code_version(),
        metrics={"timesteps": taken},
    )
    policy = model.policy
    assert isinstance(policy, TiedGaussianPolicy)
    folder = Path(os.environ["SM_MODEL_DIR"])
    save_policy(folder, export([policy.network]), card)
    record = {
        "algorithm": "PPO",
        "seed": job.seed,
        "timesteps": taken,
        "seconds": round(seconds, 3),
        "steps_per_second": round(taken / seconds, 1),
        "log_std": progress.curve[-1]["log_std"],
        "manifest_sha256": dataset.manifest_sha256,
        "sessions": len(market),
        "curve": progress.curve,
    }
    (folder / "training.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _job(arguments: Sequence[str] | None) -> Job:
    parser = argparse.ArgumentParser(description="Train one seed. Dates and timesteps default to the settings.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--settings", default="settings.json", help="JSON, or a file beside this script")
    parser.add_argument("--timesteps", type=int)
    parser.add_argument("--train-start", type=date.fromisoformat)
    parser.add_argument("--train-end", type=date.fromisoformat)
    parser.add_argument("--live-start", type=date.fromisoformat)
    options = parser.parse_args(arguments)
    settings = read_settings(options.settings)
    training = settings.training
    return Job(
        seed=options.seed,
        timesteps=training.timesteps if options.timesteps is None else options.timesteps,
        start=options.train_start or training.start,
        end=options.train_end or training.end,
        live_start=options.live_start or training.live_start,
        settings=settings,
    )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"train.py: {error}")
