"""Train one seed, fold by fold: PPO over `trading_env`, under SageMaker's training contract (`SM_CHANNEL_FEATURES`, `SM_MODEL_DIR`).

Promise: the same seed, data, settings and code give the same bytes of each fold's `policy.npz` and `policy.json` on one machine; a fold
reads no row after its own training end, its standardisation included. `training.json` beside them holds what may differ between runs
(seconds, steps a second, the learning curve), so it stands apart from the artifact. Costs, rules, reward, kappa, episode length and
environments come from the settings. One thread: small matrices lose by more, and seeds run side by side. Failure: a `DatasetError`, a
`WalkForwardError`, a validation error or SB3's own ends the job with its message; the fold it met has no files then, those before it do.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from learning.configuration import Recipe, folds_of, read_settings
from learning.dataset import Dataset, DatasetError, read_channel
from learning.network import TiedGaussianPolicy, export
from schema.trading_rules import limits_of, rules_of
from trading_env.data.features import CONTEXT, FEATURES, SCHEMA_VERSION
from trading_env.simulation.env import BatchedTradingEnv, EnvConfig
from trading_env.simulation.policy import PolicyCard, save_policy
from trading_env.simulation.rewards import Reward

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from schema.settings import Settings
    from trading_env.data.market import Market
    from trading_env.evaluation.walk_forward import Fold

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


@dataclass(frozen=True)
class Job:
    """What one training run is asked for: a seed, its folds by number (none: all), and where TensorBoard's files go, if anywhere.

    The settings' timesteps are those asked for.
    """

    seed: int
    settings: Settings
    folds: tuple[int, ...] = ()
    tensorboard: Path | None = None

    def chosen(self, folds: Sequence[Fold]) -> list[Fold]:
        """The folds to train; raises ValueError on a number that is none of them."""
        wrong = [number for number in self.folds if not 0 <= number < len(folds)]
        if wrong:
            raise ValueError(f"--fold must lie in 0 to {len(folds) - 1}, the last being the sealed span's, was {wrong[0]}")
        return [fold for fold in folds if not self.folds or fold.number in self.folds]


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
    """What a rollout showed, kept in `curve` and given to `on_rollout`: `timesteps` of `of`, rewards, kl, log_std, steps_per_second."""

    def __init__(self, environments: Sb3Environments, *, total: int, on_rollout: Callable[[dict[str, Any]], None] | None) -> None:
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


def fit(
    market: Market,
    *,
    settings: Settings,
    seed: int,
    timesteps: int,
    on_rollout: Callable[[dict[str, Any]], None] | None = None,
    tensorboard: Path | None = None,
) -> tuple[PPO, Progress, int]:
    """Fit a policy on `market`, all of whose rows are training rows; return the model, its progress and the timesteps taken.

    Any market will do that has room for the settings' `episode_sessions`; the network takes its inputs from it. `timesteps` is met but
    for what does not fill a rollout of a whole number of batches. Of a market of more than `names_per_episode` names, each episode draws
    so many. `export([model.policy.network])` gives the arrays of a `NumpyPolicy`. The same arguments give the same weights.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    training, reward = settings.training, settings.reward
    config = EnvConfig(
        rules=rules_of(settings),
        kappa=settings.portfolio.kappa,
        episode_sessions=training.episode_sessions,
        random_start=True,
        start="random",
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
        seed=seed,
        device="cpu",
        policy_kwargs={
            "network": {"features": market.features.shape[2], "context": market.context.shape[1], "mu": mu, "sigma": sigma},
            "log_std_init": LOG_STD_INIT,
        },
        **HYPERPARAMETERS,
    )
    if tensorboard is not None:
        model.set_logger(_tensorboard(tensorboard))
    taken = rollouts * steps * training.environments
    progress = Progress(environments, total=taken, on_rollout=on_rollout)
    model.learn(taken, callback=progress)
    model.logger.close()
    return model, progress, taken


def main(arguments: Sequence[str] | None = None) -> None:
    job = _job(arguments)
    settings = job.settings
    dataset = read_channel(
        Path(os.environ["SM_CHANNEL_FEATURES"]), symbols=settings.universe.symbols, live_start=settings.training.live_start
    )
    folds = folds_of(dataset.market.sessions, settings)
    for fold in job.chosen(folds):
        train_fold(job, fold, dataset=dataset, folder=Path(os.environ["SM_MODEL_DIR"]) / f"fold-{fold.number}")


def train_fold(job: Job, fold: Fold, *, dataset: Dataset, folder: Path) -> None:
    """Train the seed on the fold's training rows and write its artifact and training.json into `folder`; a JSON line a rollout."""
    settings, recipe = job.settings, Recipe.of(job.settings)
    market = dataset.market.rows(fold.train_start, fold.train_end)
    which = {"seed": job.seed, "fold": fold.number, "folds": settings.training.folds + 1}
    began = time.monotonic()
    model, progress, taken = fit(
        market,
        settings=settings,
        seed=job.seed,
        timesteps=settings.training.timesteps,
        on_rollout=lambda line: print(json.dumps({**which, **line}), flush=True),
        tensorboard=job.tensorboard / f"seed-{job.seed}" / f"fold-{fold.number}" if job.tensorboard else None,
    )
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
        code_version=recipe.code_hash,
        metrics={"timesteps": taken},
    )
    policy = model.policy
    assert isinstance(policy, TiedGaussianPolicy)
    save_policy(folder, export([policy.network]), card)
    record = {
        "algorithm": "PPO",
        "seed": job.seed,
        "fold": fold.number,
        "recipe_of_one_seed": recipe.of_one_seed,
        "timesteps_asked": settings.training.timesteps,
        "timesteps": taken,
        "seconds": round(seconds, 3),
        "steps_per_second": round(taken / seconds, 1),
        "log_std": progress.curve[-1]["log_std"],
        "manifest_sha256": dataset.manifest_sha256,
        "sessions": len(market),
        "curve": progress.curve,
    }
    (folder / "training.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _tensorboard(folder: Path) -> Any:
    from stable_baselines3.common.logger import configure

    return configure(str(folder), ["tensorboard"])


def _job(arguments: Sequence[str] | None) -> Job:
    parser = argparse.ArgumentParser(description="Train one seed, all its folds or those named.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--fold", type=int, action="append", default=[], help="number of a fold, repeatable; the last is the sealed span's")
    parser.add_argument("--settings", default="settings.json", help="JSON, or a file beside this script")
    parser.add_argument("--timesteps", type=int, help="a fold; default: the settings'")
    parser.add_argument("--tensorboard", type=Path, metavar="FOLDER", help="write TensorBoard's files below it")
    options = parser.parse_args(arguments)
    settings = read_settings(options.settings)
    if options.timesteps is not None:
        settings = type(settings).model_validate(
            {**settings.model_dump(), "training": {**settings.training.model_dump(), "timesteps": options.timesteps}}
        )
    return Job(seed=options.seed, settings=settings, folds=tuple(options.fold), tensorboard=options.tensorboard)
