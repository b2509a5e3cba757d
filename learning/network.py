"""The policy network in torch, and its place in Stable-Baselines3.

One encoder serves every asset, so the same weights trade any universe. Per asset: tanh(64), tanh(64); the mean over tradable assets joins
it; tanh(64) and a linear head give its score, centred over tradable assets and limited to `SCORE_LIMIT`. The critic reads that mean and the
global block. One trunk for actor and critic, because encoding dominates the time. The head is zero after SB3's orthogonal initialisation:
training starts at equal weight exactly. One scalar log standard deviation is tied over assets, and untradable assets take part neither in
the likelihood nor in the entropy.

`export()` gives the arrays that `trading_env.simulation.policy` computes with; the two agree to 1e-6. Wrong shapes raise torch's errors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gymnasium import spaces
    from numpy.typing import NDArray
    from stable_baselines3.common.type_aliases import Schedule

HIDDEN = 64
SCORE_LIMIT = 10.0
LOG_2PI = math.log(2 * math.pi)


class Tanh(torch.autograd.Function):
    """tanh by NumPy: torch asks MKL, which is ten times slower on processors that are not Intel's. CPU only, as the training is."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        result = torch.from_numpy(np.tanh(values.detach().numpy()))
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (result,) = ctx.saved_tensors
        slope: torch.Tensor = torch.ops.aten.tanh_backward(gradient, result)
        return slope


def tanh(values: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = Tanh.apply(values)  # type: ignore[no-untyped-call]
    return result


class ScoreNetwork(nn.Module):
    """(N, width) observations -> scores (N, A), tradable mask (N, A), values (N, 1).

    features and context are the numbers of columns F and G; an observation is A blocks of F features, held weight and mask, then the cash
    weight and the context, so A follows from its width. mu and sigma (F + 2 + 1 + G,) standardise one asset's block with the global one.
    """

    mu: torch.Tensor
    sigma: torch.Tensor

    def __init__(self, *, features: int, context: int, mu: NDArray[np.floating[Any]], sigma: NDArray[np.floating[Any]]) -> None:
        super().__init__()
        self.block, self.shared = features + 2, 1 + context
        if mu.shape != (self.block + self.shared,) or sigma.shape != mu.shape:
            raise ValueError(f"mu and sigma must have shape ({self.block + self.shared},), was {mu.shape} and {sigma.shape}")
        self.register_buffer("mu", torch.as_tensor(mu, dtype=torch.float32))
        self.register_buffer("sigma", torch.as_tensor(sigma, dtype=torch.float32))
        self.first = nn.Linear(self.block + self.shared, HIDDEN)
        self.second = nn.Linear(HIDDEN, HIDDEN)
        self.third = nn.Linear(2 * HIDDEN, HIDDEN)
        self.head = nn.Linear(HIDDEN, 1)
        self.critic = nn.Linear(HIDDEN + self.shared, HIDDEN)
        self.value = nn.Linear(HIDDEN, 1)
        for layer in (self.first, self.second, self.third, self.critic):
            nn.init.orthogonal_(layer.weight, gain=math.sqrt(2))
            nn.init.zeros_(layer.bias)
        nn.init.orthogonal_(self.value.weight, gain=1.0)
        nn.init.zeros_(self.value.bias)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def encode(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Hidden state of each asset (N, A, 64), its mean over tradable assets (N, 64), global block (N, 1 + G), mask (N, A)."""
        assets = observations[:, : -self.shared].reshape(len(observations), -1, self.block)
        mask = assets[:, :, -1]
        # The standardisation is folded into the first layer, and the global block passes it once per row instead of once per asset.
        weight = self.first.weight / self.sigma
        own, common = weight[:, : self.block], weight[:, self.block :]
        bias = self.first.bias - weight @ self.mu
        shared = observations[:, -self.shared :]
        rows, count = mask.shape
        # Rows of one matrix, not a batch of small ones: torch multiplies the latter one by one.
        projected = (assets.reshape(rows * count, self.block) @ own.T).view(rows, count, HIDDEN)
        hidden = tanh(projected + (shared @ common.T + bias).unsqueeze(1))
        hidden = tanh(self.second(hidden.view(rows * count, HIDDEN))).view(rows, count, HIDDEN)
        pooled = (hidden * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1.0)
        return hidden, pooled, (shared - self.mu[self.block :]) / self.sigma[self.block :], mask

    def scores(self, hidden: torch.Tensor, pooled: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        own, common = self.third.weight[:, :HIDDEN], self.third.weight[:, HIDDEN:]
        rows, count = mask.shape
        projected = (hidden.view(rows * count, HIDDEN) @ own.T).view(rows, count, HIDDEN)
        joint = tanh(projected + (pooled @ common.T + self.third.bias).unsqueeze(1))
        raw = self.head(joint.view(rows * count, HIDDEN)).view(rows, count)
        mean = (raw * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1.0)
        scores: torch.Tensor = ((raw - mean) * mask).clamp(-SCORE_LIMIT, SCORE_LIMIT)
        return scores

    def values(self, pooled: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.value(tanh(self.critic(torch.cat([pooled, shared], dim=1))))
        return values

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden, pooled, shared, mask = self.encode(observations)
        return self.scores(hidden, pooled, mask), mask, self.values(pooled, shared)


class TiedGaussianPolicy(ActorCriticPolicy):
    """SB3's view of `ScoreNetwork`: a normal distribution around the scores with one tied standard deviation."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        network: dict[str, Any],
        log_std_init: float = -0.7,
        **arguments: Any,
    ) -> None:
        self.network_arguments = network
        super().__init__(observation_space, action_space, lr_schedule, log_std_init=log_std_init, **arguments)

    def _build(self, lr_schedule: Schedule) -> None:
        self.network = ScoreNetwork(**self.network_arguments)
        self.log_std = nn.Parameter(torch.tensor(float(self.log_std_init)))
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def forward(self, obs: torch.Tensor, deterministic: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        scores, mask, values = self.network(obs)
        actions = scores if deterministic else scores + torch.randn_like(scores) * self.log_std.exp()
        return actions, values, self._log_likelihood(actions, scores, mask)

    def evaluate_actions(self, obs: Any, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        scores, mask, values = self.network(obs)
        entropy = mask.sum(1) * (0.5 + 0.5 * LOG_2PI + self.log_std)
        return values, self._log_likelihood(actions, scores, mask), entropy

    def predict_values(self, obs: Any) -> torch.Tensor:
        _, pooled, shared, _ = self.network.encode(obs)
        return self.network.values(pooled, shared)

    def _predict(self, observation: Any, deterministic: bool = False) -> torch.Tensor:
        return self.forward(observation, deterministic=deterministic)[0]

    def _log_likelihood(self, actions: torch.Tensor, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        distance = (actions - scores) / self.log_std.exp()
        return -((0.5 * distance.square() + self.log_std + 0.5 * LOG_2PI) * mask).sum(1)


def export(networks: Sequence[ScoreNetwork]) -> dict[str, NDArray[np.float32]]:
    """The arrays of policy.npz, a leading axis S over the networks (one per seed); the critic stays behind."""
    layers = {"1": "first", "2": "second", "3": "third"}
    arrays: dict[str, NDArray[np.float32]] = {}
    for number, name in layers.items():
        linear = [getattr(network, name) for network in networks]
        arrays[f"w{number}"] = np.stack([_array(layer.weight).T for layer in linear])
        arrays[f"b{number}"] = np.stack([_array(layer.bias) for layer in linear])
    arrays["w4"] = np.stack([_array(network.head.weight)[0] for network in networks])
    arrays["b4"] = np.stack([_array(network.head.bias)[0] for network in networks])
    arrays["mu"], arrays["sigma"] = _array(networks[0].mu), _array(networks[0].sigma)
    return arrays


def _array(tensor: Any) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())
