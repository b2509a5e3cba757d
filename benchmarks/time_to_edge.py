"""How long until training has found a planted edge: our default beside PPO of FinRL's kind, by budget.

    python -m benchmarks.time_to_edge

The worlds, the judging and the goal are `planted_edge`'s: 30 names, an IC of .05 over 5 sessions, 60 % of the forecast's own IRk on average
over the seeds. FinRL's kind is what its examples train: SB3's `MlpPolicy`, 64 x 64 over all names' observations at once, 8 environments,
SB3's defaults, paid the growth of its own book. It runs on our environment here; FinRL's own takes some 20 times as long per transition
(`training_speed`). Seconds are of the processor, of one seed's training. A way that does not get there by its last budget is said so.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.planted_edge import (
    JUDGE,
    PLACE,
    SHARE_OF_FEW,
    TRAIN,
    FloatArray,
    Moves,
    World,
    against_kappa,
    found,
    market_of,
    trained_row,
    world_of,
    yardstick,
)
from benchmarks.training_speed import MLP
from schema import universes
from schema.settings import Settings, load
from schema.trading_rules import rules_of
from trading_env.data.market import Market
from trading_env.simulation.env import BatchedTradingEnv, EnvConfig
from trading_env.simulation.rewards import Reward

ROOT = Path(__file__).resolve().parents[1]
NAMES, IC, HORIZON, SEEDS = 30, 0.05, 5, 4
PEER = "PPO of FinRL's kind"
BUDGETS = {"direct": (18_750, 37_500, 75_000, 150_000), "ppo": (150_000,), PEER: (150_000, 300_000)}  # transitions of a seed
PEER_ENVIRONMENTS, PEER_ROLLOUT = 8, 8_192


@dataclass(frozen=True)
class Task:
    moves: Moves
    world: World
    way: str
    timesteps: int
    settings: Settings


def ratio_and_seconds(task: Task) -> tuple[float, float]:
    """IRk out of sample and the seconds of its training."""
    market = world_of(task.moves, task.world)
    if task.way == PEER:
        return _peer(market, settings=task.settings, seed=task.world.seed, timesteps=task.timesteps)
    section = task.settings.training.model_copy(update={"algorithm": task.way, "timesteps": task.timesteps})
    row = trained_row(market, settings=task.settings.model_copy(update={"training": section}), seed=task.world.seed)
    return row.ratio, row.seconds


def forecasts_own(task: Task) -> float:
    market = world_of(task.moves, task.world)
    return yardstick(market, market.features[:, :, PLACE], settings=task.settings).ratio


def _peer(market: Market, *, settings: Settings, seed: int, timesteps: int) -> tuple[float, float]:
    import torch
    from stable_baselines3 import PPO

    from learning.algorithms.ppo import Sb3Environments

    torch.set_num_threads(1)
    span = market.rows(market.sessions[TRAIN.start], market.sessions[TRAIN.stop])
    config = EnvConfig(
        rules=rules_of(settings),
        kappa=settings.portfolio.kappa,
        episode_sessions=settings.training.episode_sessions,
        reward=Reward(kind="log_growth"),
        start="random",
        limits=None,
    )
    began = time.process_time()
    environments = Sb3Environments(BatchedTradingEnv(span, num_envs=PEER_ENVIRONMENTS, config=config, copy=False))
    model = PPO(env=environments, n_steps=PEER_ROLLOUT // PEER_ENVIRONMENTS, seed=seed, device="cpu", **MLP)
    model.learn(timesteps)
    seconds = time.process_time() - began

    def decide(_: int, observations: NDArray[np.float32]) -> FloatArray:
        scores, _ = model.predict(observations, deterministic=True)
        return np.asarray(scores, dtype=np.float64)

    d = against_kappa(market, decide, books=1, settings=settings, rows=JUDGE)
    return found(d[0], best_size=0.0, seconds=seconds).ratio, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    chosen = parser.parse_args()
    settings = load(ROOT / "data" / "settings.toml")
    settings = settings.model_copy(update={"risk": settings.risk.model_copy(update={"max_orders_per_day": universes.MOST})})
    moves = Moves.of(market_of(None, adjusted=False))
    worlds = [World(IC, HORIZON, seed, NAMES) for seed in range(chosen.seeds)]
    with ProcessPoolExecutor(chosen.workers, mp_context=get_context("spawn")) as pool:

        def tasks(way: str, timesteps: int = 0) -> list[Task]:
            return [Task(moves, world, way, timesteps, settings) for world in worlds]

        goal = SHARE_OF_FEW * float(np.mean(list(pool.map(forecasts_own, tasks("forecast")))))
        _say(f"the goal: an IRk of {goal:+.2f} on average over {chosen.seeds} seeds, {SHARE_OF_FEW:.0%} of the forecast's own")
        for way, budgets in BUDGETS.items():
            _say(_reached(way, budgets, goal=goal, run=lambda way, budget: list(pool.map(ratio_and_seconds, tasks(way, budget)))))


def _reached(way: str, budgets: tuple[int, ...], *, goal: float, run: Any) -> str:
    """One line: the first budget that reaches the goal, or how far the last one came."""
    for budget in budgets:
        ratios, seconds = (float(np.mean(values)) for values in zip(*run(way, budget), strict=True))
        if ratios >= goal:
            return f"{way:<20} {seconds:7.1f} s to the goal: {budget:,} transitions, IRk {ratios:+.2f}"
    return f"{way:<20} not reached in {seconds:7.1f} s: {budget:,} transitions, IRk {ratios:+.2f}"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
