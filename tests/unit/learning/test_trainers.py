"""The settings allow the algorithms that there are, and a file from before there was a choice means the one of then."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.buffers import RolloutBuffer

from learning.algorithms.ppo import Rollouts
from learning.training import TRAINERS
from schema.settings import Algorithm, Settings, load

SETTINGS = load(Path(__file__).resolve().parents[3] / "data" / "settings.toml")


def test_every_algorithm_that_the_settings_allow_has_a_trainer() -> None:
    assert set(TRAINERS) == set(get_args(Algorithm))


def test_settings_from_before_the_choice_are_still_valid() -> None:
    document = SETTINGS.model_dump()
    del document["training"]["algorithm"]
    former = Settings.model_validate(document)
    assert former.training.algorithm == "ppo"
    assert former.training == SETTINGS.training.model_copy(update={"algorithm": "ppo"})


@pytest.mark.parametrize("size", [None, 5, 8])
def test_minibatches_are_those_of_sb3_to_the_bit(size: int | None) -> None:
    def minibatches(kind: type[RolloutBuffer]) -> list[Any]:
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        buffer = kind(6, gym.spaces.Box(-1, 1, (7,)), gym.spaces.Box(-1, 1, (3,)), device="cpu", n_envs=4)
        for _ in range(6):
            drawn = rng.normal(size=(4, 7)), rng.normal(size=(4, 3)), rng.normal(size=4)
            buffer.add(*drawn, np.zeros(4), torch.randn(4, 1), torch.randn(4))
        buffer.compute_returns_and_advantage(torch.randn(4, 1), np.zeros(4))
        np.random.seed(1)
        return [*buffer.get(size), *buffer.get(size)]

    ours, theirs = minibatches(Rollouts), minibatches(RolloutBuffer)
    assert len(ours) == len(theirs)
    for mine, its in zip(ours, theirs, strict=True):
        for part, expected in zip(mine, its, strict=True):
            assert part.dtype == expected.dtype
            assert torch.equal(part, expected)
