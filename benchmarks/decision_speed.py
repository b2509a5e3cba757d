"""One decision, from an observation to target weights: the NumPy policy that is served beside SB3's `predict` of the same network.

Both sides end in `weights_from_scores`. An ensemble of ten is ten predictions on SB3's side, whose portfolios are averaged. Times are the
thread's own, a call at a time, so that another process's turn is not in them: `p50` and `p99` in microseconds. `same`: the weights for one
observation, by which `benchmarks.run` checks that both sides decide the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import Contender, Field, Measure, Row
from benchmarks.synthetic import NAMES

FEATURES, CONTEXT = 28, 4  # as many as trading_env.data.features has; SB3's side cannot import it
INPUTS = FEATURES + 2 + 1 + CONTEXT
OBSERVATIONS, CALLS = 64, 3_000
KAPPA = 0.1

Decide = Callable[[np.ndarray], np.ndarray]


def arrays(*, seeds: int) -> dict[str, np.ndarray]:
    """Of a `policy.npz`."""
    from trading_env.simulation.policy import array_shapes

    rng = np.random.default_rng(3)
    made = {name: rng.normal(0, 0.2, shape) for name, shape in array_shapes(seeds=seeds, inputs=INPUTS).items()}
    return made | {"sigma": rng.uniform(0.5, 2.0, INPUTS)}


def timed(decide: Decide, *, calls: int = CALLS) -> Measure:
    from trading_env.data.observation import observe

    rng = np.random.default_rng(4)
    held = np.full(NAMES, 1 / NAMES)
    observations = [
        observe(rng.normal(size=(NAMES, FEATURES)), rng.normal(size=CONTEXT), np.ones(NAMES, dtype=bool), held, 0.0)
        for _ in range(OBSERVATIONS)
    ]

    def measure() -> dict[str, Any]:
        spent = np.empty(calls)
        for call in range(calls):
            observation = observations[call % OBSERVATIONS]
            began = time.thread_time_ns()
            decide(observation)
            spent[call] = time.thread_time_ns() - began
        p50, p99 = np.percentile(spent, [50, 99]) / 1e3
        return {"p50": float(p50), "p99": float(p99), "same": decide(observations[0]).tolist()}

    return measure


def towards(scores: np.ndarray) -> np.ndarray:
    """The weights that scores (NAMES,) ask for, from an equally weighted book."""
    from trading_env.simulation.policy import weights_from_scores

    return weights_from_scores(scores, np.full(NAMES, 1 / NAMES), np.ones(NAMES, dtype=bool), kappa=KAPPA)


def ours(*, seeds: int) -> Decide:
    from trading_env.simulation.policy import NumpyPolicy, PolicyCard

    card = PolicyCard(
        features=tuple(f"feature {place}" for place in range(FEATURES)),
        context=tuple(f"context {place}" for place in range(CONTEXT)),
        feature_hash="",
        schema_version=1,
        kappa=KAPPA,
        trained_on=(),
        train_start="",
        train_end="",
        seeds=tuple(range(seeds)),
        code_version="",
    )
    policy = NumpyPolicy(arrays(seeds=seeds), card)
    return lambda observation: towards(policy.scores(observation))


def sb3(*, seeds: int) -> Decide:
    import gymnasium as gym
    import torch

    torch.set_num_threads(1)
    from learning import network

    held, a = arrays(seeds=seeds), torch.as_tensor
    policies = []
    for seed in range(seeds):
        policy = network.TiedGaussianPolicy(
            gym.spaces.Box(-np.inf, np.inf, (NAMES * (FEATURES + 2) + 1 + CONTEXT,), np.float32),
            gym.spaces.Box(-10, 10, (NAMES,), np.float32),
            lambda _: 3e-4,
            network={"features": FEATURES, "context": CONTEXT, "mu": held["mu"], "sigma": held["sigma"]},
        )
        layers = (policy.network.first, policy.network.second, policy.network.third)
        with torch.no_grad():
            for number, layer in enumerate(layers, start=1):
                layer.weight.copy_(a(held[f"w{number}"][seed].T))
                layer.bias.copy_(a(held[f"b{number}"][seed]))
            policy.network.head.weight.copy_(a(held["w4"][seed][None]))
            policy.network.head.bias.copy_(a(held["b4"][seed][None]))
        policy.set_training_mode(False)
        policies.append(policy)

    def one(observation: np.ndarray) -> np.ndarray:
        return towards(policies[0].predict(observation, deterministic=True)[0].astype(np.float64))

    def ensemble(observation: np.ndarray) -> np.ndarray:
        scores = np.stack([policy.predict(observation, deterministic=True)[0] for policy in policies]).astype(np.float64)
        mass = np.exp(scores)
        return towards(np.log((mass / mass.sum(axis=1, keepdims=True)).mean(axis=0)))

    return one if seeds == 1 else ensemble


CONTENDERS = {
    "ours 1 seed": Contender("ours", lambda: timed(ours(seeds=1))),
    "SB3 1 seed": Contender("peers", lambda: timed(sb3(seeds=1))),
    "ours 10 seeds": Contender("ours", lambda: timed(ours(seeds=10))),
    "SB3 10 seeds": Contender("peers", lambda: timed(sb3(seeds=10), calls=CALLS // 5)),
}
ONE = "one decision, 30 assets, shared encoder"
ROWS = [
    Row(f"{ONE}, p99: SB3 predict of the same network", "ours 1 seed", "SB3 1 seed", "p99", "us", goal=10),
    Row(f"{ONE}, p50: SB3 predict of the same network", "ours 1 seed", "SB3 1 seed", "p50", "us"),
    Row(f"{ONE}, ensemble of 10 seeds, p99: SB3 predict of the same ten", "ours 10 seeds", "SB3 10 seeds", "p99", "us", goal=10),
    Row(f"{ONE}, ensemble of 10 seeds, p99: SB3 predict of one of them", "ours 10 seeds", "SB3 1 seed", "p99", "us"),
]
FIELD = Field(contenders=CONTENDERS, rows=ROWS, rounds=5)
