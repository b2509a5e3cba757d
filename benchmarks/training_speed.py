"""PPO steps a second from end to end, ours and FinRL's environment under Stable-Baselines3, and where the time goes.

A round is one `learn` of a rollout: the environment's steps, the policy's, the buffer, and all epochs of the update. `rate` counts
transitions; `env_share` is the environment's part of the time, SB3's adapter included; `fold` is the seconds of `FOLD` transitions. Early
stopping by KL is off but in `our_fold`, so that every epoch is paid for. What SB3 raises ends the worker.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.env_speed import BOOKS, config_of, finrl
from benchmarks.harness import ROOT, Contender, Field, Measure, Row, Stopwatch
from benchmarks.synthetic import NAMES, market

ROLLOUT = 8_192
FOLD = 150_000  # transitions of a fold
# SB3's defaults but for the batch, which is 64: 256 is better for either side
MLP: dict[str, Any] = {
    "policy": "MlpPolicy",
    "policy_kwargs": {"net_arch": [64, 64]},
    "n_epochs": 10,
    "batch_size": 256,
    "learning_rate": 3e-4,
}


def learner(environments: Any, *, rollout: int, **arguments: Any) -> Measure:
    """SB3's PPO on a vector environment; every measure is one rollout more."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

    torch.set_num_threads(1)

    class Timed(VecEnvWrapper):
        seconds = 0.0

        def reset(self) -> Any:
            return self.venv.reset()

        def step_async(self, actions: np.ndarray) -> None:
            self.venv.step_async(actions)

        def step_wait(self) -> Any:
            watch = Stopwatch()
            result = self.venv.step_wait()
            self.seconds += watch.lap()
            return result

    timed = Timed(environments)
    model = PPO(env=timed, n_steps=rollout // timed.num_envs, seed=0, device="cpu", **arguments)

    def measure() -> dict[str, float]:
        timed.seconds = 0.0
        watch = Stopwatch()
        model.learn(rollout, reset_num_timesteps=False)
        spent = watch.lap()
        return {
            "rate": rollout / spent,
            "env_share": timed.seconds / spent,
            "fold": FOLD * spent / rollout,
            "width": float(timed.observation_space.shape[0]),
        }

    return measure


def ours(books: int, *, rollout: int = ROLLOUT) -> Measure:
    """A 64 x 64 network on our environment."""
    from learning.algorithms.ppo import Sb3Environments
    from trading_env.simulation.env import BatchedTradingEnv

    environments = BatchedTradingEnv(market(NAMES), num_envs=books, config=config_of(realistic=False), copy=False)
    return learner(Sb3Environments(environments), rollout=rollout, **MLP)


def our_default(*, rollout: int | None = None, **changed: Any) -> Measure:
    """What `train.py` trains, its network, hyperparameters and environments, on `NAMES` names with all our features."""
    from learning.algorithms import ppo
    from schema.settings import load
    from schema.trading_rules import limits_of, rules_of
    from trading_env.data.features import CONTEXT, FEATURES
    from trading_env.simulation.env import BatchedTradingEnv, EnvConfig

    settings = load(ROOT / "data" / "settings.toml")
    data = market(NAMES, columns=len(FEATURES), context=len(CONTEXT))
    config = EnvConfig(
        rules=rules_of(settings),
        kappa=settings.portfolio.kappa,
        episode_sessions=settings.training.episode_sessions,
        start="random",
        limits=limits_of(settings),
    )
    environments = BatchedTradingEnv(data, num_envs=settings.training.environments, config=config, copy=False)
    mu, sigma = ppo.standardisation(data)
    network = {"features": len(FEATURES), "context": len(CONTEXT), "mu": mu, "sigma": sigma}
    arguments = {
        "policy": ppo.TiedGaussianPolicy,
        "policy_kwargs": {"network": network, "log_std_init": ppo.LOG_STD_INIT},
        "batch_size": ppo.BATCH,
        "rollout_buffer_class": ppo.Rollouts,
        **ppo.HYPERPARAMETERS,
        **changed,
        "target_kl": None,
    }
    return learner(ppo.Sb3Environments(environments), rollout=rollout or ppo.ROLLOUT, **arguments)


def our_fold(*, timesteps: int = FOLD) -> Measure:
    """Seconds of a fold of one seed as `train.py` trains it, from the market of `NAMES` names to the network, early stopping included."""
    from learning.algorithms import ppo
    from schema.settings import load
    from trading_env.data.features import CONTEXT, FEATURES

    settings = load(ROOT / "data" / "settings.toml")
    data = market(NAMES, columns=len(FEATURES), context=len(CONTEXT))

    def measure() -> dict[str, float]:
        watch = Stopwatch()
        fitted = ppo.fit(data, settings=settings, seed=0, timesteps=timesteps)
        return {"fold": watch.lap() * timesteps / fitted.timesteps}

    return measure


CONTENDERS = {
    "ours 64x64, 8 envs": Contender("ours", lambda: ours(BOOKS)),
    "FinRL 64x64, 8 envs": Contender("peers", lambda: learner(finrl(NAMES, BOOKS), rollout=ROLLOUT, **MLP)),
    "ours 64x64, 64 envs": Contender("ours", lambda: ours(64)),
    "ours default": Contender("ours", our_default),
    "ours, a fold": Contender("ours", our_fold, once=True),
    "ours default, 10 x 256": Contender("ours", lambda: our_default(n_epochs=10, batch_size=256)),
}
FINRL = "FinRL + SB3, 64x64, 8 envs, 301 wide"
ROWS = [
    *(
        row
        for books, goal in ((8, 12), (64, 14))
        for row in (
            Row(
                f"SB3 PPO, 64x64, 30 assets, 10 epochs, batch 256, {books} envs, 303 wide: {FINRL}",
                f"ours 64x64, {books} envs",
                "FinRL 64x64, 8 envs",
                "rate",
                "steps/s",
                goal=goal,
            ),
            Row(
                f"the environment's share of that time, {books} envs: FinRL's",
                f"ours 64x64, {books} envs",
                "FinRL 64x64, 8 envs",
                "env_share",
                "of the time",
                at_most=0.03,
            ),
        )
    ),
    Row(
        f"default training, shared encoder, 30 assets, 4 epochs, batch 1,024, 64 envs, 905 wide: {FINRL}, 10 epochs, batch 256",
        "ours default",
        "FinRL 64x64, 8 envs",
        "rate",
        "steps/s",
        goal=10,
    ),
    Row(
        f"the same with 10 epochs, batch 256: {FINRL}",
        "ours default, 10 x 256",
        "FinRL 64x64, 8 envs",
        "rate",
        "steps/s",
        goal=6,
    ),
    Row(
        f"a fold of the default recipe, {FOLD:,} transitions, 30 assets, market to network: {FINRL}, 10 epochs, batch 256",
        "ours, a fold",
        "FinRL 64x64, 8 envs",
        "fold",
        "s",
    ),
]
FIELD = Field(contenders=CONTENDERS, rows=ROWS, rounds=4)
