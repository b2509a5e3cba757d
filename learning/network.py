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
    from collections.abc import Iterator, Sequence

    from gymnasium import spaces
    from numpy.typing import NDArray
    from stable_baselines3.common.type_aliases import Schedule

HIDDEN = 64
SCORE_LIMIT = 10.0
ROWS = 4_096  # rows of a piece: a float32 state of 64 of it is 1 MB, and two or three are at work at a time
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
        self.spare: dict[tuple[int, torch.dtype], tuple[torch.Tensor, ...]] = {}  # of `Passes`
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

    def fast(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `forward` gives, by `Passes`: for training, in about half of the time. No gradient reaches the observations."""
        result: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = Passes.apply(self, observations, *self.parameters())  # type: ignore[no-untyped-call]
        return result


class Passes(torch.autograd.Function):
    """`ScoreNetwork.forward` and its gradient by hand: one node for autograd instead of forty, and a piece of the batch at a time, so that
    its hidden states are still in the processor's cache when the next layer, or the layer before, wants them."""

    @staticmethod
    def forward(
        ctx: Any, network: ScoreNetwork, observations: torch.Tensor, *parameters: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        w1, b1, w2, b2, w3, b3, w4, _, wc, bc, wv, bv = parameters
        block, books = network.block, len(observations)
        split = observations.shape[1] - network.shared
        names = split // block
        weight = w1 / network.sigma
        rest, mask = observations[:, split:], observations[:, block - 1 : split : block].clone(memory_format=torch.contiguous_format)
        share = mask / mask.sum(1, keepdim=True).clamp(min=1.0)
        common = torch.addmm(b1 - weight @ network.mu, rest, weight[:, block:].T)

        states = _States(network, books * names, w1)
        rows, one, two, joint = states.arrays
        raw, pooled = torch.empty_like(mask), torch.empty_like(common)
        for of, at in _pieces(books, names):
            rows[at].view(-1, split).copy_(observations[of, :split])
            torch.mm(rows[at], weight[:, :block].T, out=one[at])
            one[at].view(-1, names, HIDDEN).add_(common[of].unsqueeze(1))
            torch.addmm(b2, _tanh_(one[at]), w2.T, out=two[at])
            hidden = _tanh_(two[at]).view(-1, names, HIDDEN)
            pooled[of] = torch.bmm(share[of].unsqueeze(1), hidden).squeeze(1)
            torch.mm(two[at], w3[:, :HIDDEN].T, out=joint[at])
            joint[at].view(-1, names, HIDDEN).add_(torch.addmm(b3, pooled[of], w3[:, HIDDEN:].T).unsqueeze(1))
            raw[of] = torch.mv(_tanh_(joint[at]), w4[0]).view(-1, names)
        centred = (raw - (raw * share).sum(1, keepdim=True)) * mask  # the head's bias cancels
        seen = torch.cat([pooled, (rest - network.mu[block:]) / network.sigma[block:]], dim=1)
        critic = _tanh_(torch.addmm(bc, seen, wc.T))

        ctx.save_for_backward(*parameters)
        ctx.network, ctx.states, ctx.others = network, states, (rest, mask, share, pooled, centred, seen, critic)
        ctx.mark_non_differentiable(mask)
        return centred.clamp(-SCORE_LIMIT, SCORE_LIMIT), mask, torch.addmm(bv, critic, wv.T)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        d_scores, _, d_values = gradients
        w1, _, w2, _, w3, _, w4, b4, wc, _, wv, _ = ctx.saved_tensors
        network, (rows, one, two, joint), (rest, mask, share, pooled, centred, seen, critic) = ctx.network, ctx.states.arrays, ctx.others
        block, (books, names), head = network.block, mask.shape, w4.T

        d_centred = d_scores * mask * (centred.abs() <= SCORE_LIMIT)
        d_raw = d_centred - d_centred.sum(1, keepdim=True) * share
        d_critic = d_values @ wv
        _through_tanh(d_critic, critic, out=d_critic)
        d_pooled = d_critic @ wc[:, :HIDDEN]
        # The head's weights are factored out of the gradient of the joint state, into the matrices that it meets
        d_joint, d_common = torch.empty_like(pooled), torch.empty_like(pooled)
        d_w3, d_w2, d_w1 = w3.new_zeros(HIDDEN, HIDDEN), torch.zeros_like(w2), w1.new_zeros(HIDDEN, block)
        d_b2, into_two, into_pooled = w2.new_zeros(HIDDEN), head * w3[:, :HIDDEN], head * w3[:, HIDDEN:]
        scratch = [one.new_empty(min(books, _few(names)) * names, HIDDEN) for _ in range(2)]
        for of, at in _pieces(books, names):
            d, other = (space[: at.stop - at.start] for space in scratch)
            _through_tanh(d_raw[of].reshape(-1, 1).expand(-1, HIDDEN), joint[at], out=d)
            torch.sum(d.view(-1, names, HIDDEN), 1, out=d_joint[of])
            d_w3.addmm_(d.T, two[at])
            torch.mm(d, into_two, out=other)
            mean = torch.addmm(d_pooled[of], d_joint[of], into_pooled).unsqueeze(1)
            other.view(-1, names, HIDDEN).addcmul_(share[of].unsqueeze(2), mean)
            _through_tanh(other, two[at], out=other)
            d_w2.addmm_(other.T, one[at])
            d_b2 += other.sum(0)
            torch.mm(other, w2, out=d)
            _through_tanh(d, one[at], out=d)
            d_w1.addmm_(d.T, rows[at])
            torch.sum(d.view(-1, names, HIDDEN), 1, out=d_common[of])
        d_bias = d_common.sum(0)
        d_weight = torch.cat([d_w1, d_common.T @ rest], dim=1) - torch.outer(d_bias, network.mu)
        return (
            None,
            None,
            d_weight / network.sigma,
            d_bias,
            d_w2,
            d_b2,
            head * torch.cat([d_w3, d_joint.T @ pooled], dim=1),
            head[:, 0] * d_joint.sum(0),
            d_raw.view(1, -1) @ joint,
            torch.zeros_like(b4),
            d_critic.T @ seen,
            d_critic.sum(0),
            d_values.T @ critic,
            d_values.sum(0),
        )


class _States:
    """One batch's rows (R, F + 2) and three hidden states (R, 64), lent by the network until autograd drops the pass: to ask the system
    for so much memory, and give it back, costs as much as a layer."""

    def __init__(self, network: ScoreNetwork, rows: int, like: torch.Tensor) -> None:
        self._spare, self._key = network.spare, (rows, like.dtype)
        found = self._spare.pop(self._key, None)
        self.arrays = found or tuple(like.new_empty(rows, width) for width in (network.block, HIDDEN, HIDDEN, HIDDEN))

    def __del__(self) -> None:
        self._spare[self._key] = self.arrays


def _few(names: int) -> int:
    """Books of a piece."""
    return max(1, ROWS // names)


def _pieces(books: int, names: int) -> Iterator[tuple[slice, slice]]:
    """The books of a batch a few at a time, and their rows among those of all books' names."""
    for start in range(0, books, _few(names)):
        stop = min(start + _few(names), books)
        yield slice(start, stop), slice(start * names, stop * names)


def _tanh_(values: torch.Tensor) -> torch.Tensor:
    """In place, by NumPy as `Tanh`."""
    array = values.numpy()
    np.tanh(array, out=array)
    return values


def _through_tanh(gradient: torch.Tensor, result: torch.Tensor, *, out: torch.Tensor) -> None:
    torch.ops.aten.tanh_backward.grad_input(gradient, result, grad_input=out)


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
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr_schedule(1), fused=True, **self.optimizer_kwargs)

    def forward(self, obs: torch.Tensor, deterministic: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        scores, mask, values = self.network(obs) if deterministic else self.network.fast(obs)
        actions = scores if deterministic else scores + torch.randn_like(scores) * self.log_std.exp()
        return actions, values, self._log_likelihood(actions, scores, mask)

    def evaluate_actions(self, obs: Any, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        scores, mask, values = self.network.fast(obs)
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
