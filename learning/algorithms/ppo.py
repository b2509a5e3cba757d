"""PPO over `trading_env`, by Stable-Baselines3: hyperparameters, the environments and progress as SB3 wants them, and the fit.

Promise: `learning.algorithms.trainer`'s. Costs, rules, reward, kappa, episode length and environments come from the settings. One thread:
small matrices lose by more, and seeds run side by side. Failure: SB3's own errors.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from learning.algorithms import direct
from learning.algorithms.checkpoints import Pauses, TrainingState
from learning.algorithms.ppo_state import ResumablePpo
from learning.algorithms.trainer import Fitted, Pace, rounded, standardisation
from learning.network import TiedGaussianPolicy, export
from schema.trading_rules import limits_of, rules_of
from trading_env.simulation.env import BatchedTradingEnv, EnvConfig
from trading_env.simulation.rewards import Reward

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from learning.algorithms.checkpoints import Checkpoints
    from learning.algorithms.trainer import OnRollout, Stop
    from learning.network import ScoreNetwork
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
PHASE = "ppo"
MEASURED = {  # what a line says, and what SB3 calls it; its entropy loss is the entropy, negated
    "kl": "train/approx_kl",
    "value_loss": "train/value_loss",
    "entropy": "train/entropy_loss",
    "explained_variance": "train/explained_variance",
}

Before = dict[str, Any] | None  # what the phase before PPO took and said: timesteps, curve, seconds


class Sb3Environments(VecEnv):
    """The batched environment as SB3 reads one: a dict per copy, the last observation of an episode, and truncation apart from an end."""

    def __init__(self, environments: BatchedTradingEnv) -> None:
        self.environments = environments
        super().__init__(environments.num_envs, environments.single_observation_space, environments.single_action_space)
        self.returns = np.zeros(self.num_envs)
        self.excess = 0.0  # log growth over equal weight since it was last taken, the sum over copies and sessions
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
        self.excess += float((info["log_growth"] - info["baseline_log_growth"]).sum())
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
    """What a rollout showed, kept in `curve` and given to `on_rollout`, and the pause before the next one.

    kl, losses, entropy and explained variance are those of the update before it.
    """

    def __init__(self, environments: Sb3Environments, *, total: int, on_rollout: OnRollout | None, pauses: Pauses, before: Before) -> None:
        super().__init__()
        self.environments, self.total, self.on_rollout, self.pauses, self.before = environments, total, on_rollout, pauses, before
        self.curve: list[dict[str, Any]] = []
        self.measured: dict[str, float] = {}
        self.seconds, self.begun_at = 0.0, 0
        self.pace = Pace()

    def resume(self, state: TrainingState) -> None:
        """Go on where `state` was kept."""
        document = state.document
        self.curve, self.measured, self.seconds = document["curve"], document["measured"], document["seconds"]
        self.environments.returns[:] = state.arrays["returns"]
        self.environments.finished.extend(state.arrays["finished"].tolist())
        self.begun_at = document["timesteps"]
        self.pace = Pace(begun_at=self.begun_at)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps > self.begun_at:
            found = self.logger.name_to_value
            self.measured = {name: float(found[name]) for name in MEASURED.values() if name in found and math.isfinite(found[name])}
            self.pauses.between_rollouts(self._state)

    def _state(self) -> TrainingState:
        assert isinstance(self.model, ResumablePpo)
        kept, environments = self.model.snapshot(self.environments.environments), self.environments
        said = {"curve": self.curve, "measured": self.measured, "seconds": self.seconds + self.pace.seconds}
        books = {"returns": environments.returns, "finished": np.array(environments.finished, dtype=np.float64)}
        return TrainingState({**kept.arrays, **books}, {**kept.document, **said, "phase": PHASE, "before": self.before})

    def _on_rollout_end(self) -> None:
        finished, policy = self.environments.finished, self.model.policy
        assert isinstance(policy, TiedGaussianPolicy)
        buffer: RolloutBuffer = self.model.rollout_buffer  # type: ignore[attr-defined]
        measured = {name: self.measured.get(key) for name, key in MEASURED.items()}
        entropy = measured["entropy"]
        line = {
            "phase": PHASE,
            "timesteps": self.num_timesteps,
            "of": self.total,
            "episode_reward": round(float(np.mean(finished)), 4) if finished else None,
            "rollout_reward": round(float(buffer.rewards.mean()), 6),
            "excess": round(self.environments.excess / buffer.rewards.size, 8),
            "kl": rounded(measured["kl"], 5),
            "value_loss": rounded(measured["value_loss"], 6),
            "entropy": rounded(None if entropy is None else -entropy, 5),
            "explained_variance": rounded(measured["explained_variance"], 5),
            "log_std": policy.log_std.item(),
            **self.pace.line(self.num_timesteps, of=self.total),
        }
        self.environments.excess = 0.0
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
    checkpoint: Checkpoints | None = None,
    stop: Stop | None = None,
) -> Fitted:
    """The `Trainer` of PPO, from a random network with zero scores."""
    pauses = Pauses(checkpoint, stop, market=market, settings=settings, seed=seed, timesteps=timesteps)
    return _fit(
        market,
        settings=settings,
        seed=seed,
        timesteps=timesteps,
        on_rollout=on_rollout,
        tensorboard=tensorboard,
        pauses=pauses,
        resumed=pauses.resumed(),
    )


def _fit(
    market: Market,
    *,
    settings: Settings,
    seed: int,
    timesteps: int,
    on_rollout: OnRollout | None,
    tensorboard: Path | None,
    pauses: Pauses,
    resumed: TrainingState | None,
    start: ScoreNetwork | None = None,
    before: Before = None,
) -> Fitted:
    """From a random network, from `start`, or from where `resumed` was kept. A rollout is a whole number of batches; of a market of more
    than `names_per_episode` names, each episode draws so many. Episodes begin at equal weight: a drawn book's return is noise to the
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
    model = ResumablePpo(
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
    progress = Progress(environments, total=taken, on_rollout=on_rollout, pauses=pauses, before=before)
    if resumed is not None:
        model.restore(environments.environments, resumed)
        progress.resume(resumed)
    model.learn(taken - model.num_timesteps, callback=progress, reset_num_timesteps=resumed is None)
    model.logger.close()
    return Fitted(export([policy.network]), taken, progress.curve, seconds=progress.seconds)


def fit_after_direct(
    market: Market,
    *,
    settings: Settings,
    seed: int,
    timesteps: int,
    on_rollout: OnRollout | None = None,
    tensorboard: Path | None = None,
    checkpoint: Checkpoints | None = None,
    stop: Stop | None = None,
) -> Fitted:
    """The `Trainer` of direct reinforcement and then PPO, `timesteps` each; PPO sees what is held, too."""
    pauses = Pauses(checkpoint, stop, market=market, settings=settings, seed=seed, timesteps=timesteps)
    resumed, start, timer = pauses.resumed(), None, Pace()
    if resumed is not None and resumed.document["phase"] == PHASE:
        before = resumed.document["before"]
        earlier = before["seconds"]
    else:
        first = direct.climbed(
            market, settings=settings, seed=seed, timesteps=timesteps, on_rollout=on_rollout, pauses=pauses, resumed=resumed
        )
        earlier, start, resumed = first.seconds, first.network, None
        before = {"timesteps": first.timesteps, "curve": first.curve, "seconds": earlier + timer.seconds}
    second = _fit(
        market,
        settings=settings,
        seed=seed,
        timesteps=timesteps,
        on_rollout=on_rollout,
        tensorboard=tensorboard,
        pauses=pauses,
        resumed=resumed,
        start=start,
        before=before,
    )
    curve = [*before["curve"], *second.curve]
    return Fitted(second.arrays, before["timesteps"] + second.timesteps, curve, seconds=earlier + second.seconds)


def _tensorboard(folder: Path) -> Any:
    from stable_baselines3.common.logger import configure

    return configure(str(folder), ["tensorboard"])
