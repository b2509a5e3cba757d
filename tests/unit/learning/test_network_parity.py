"""What torch trains is what NumPy serves: the two forward passes agree, start at equal weight, and know no universe by number."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from learning import network
from trading_env.data.features import CONTEXT, FEATURE_HASH, FEATURES, SCHEMA_VERSION
from trading_env.data.observation import Layout, observe
from trading_env.simulation.policy import NumpyPolicy, PolicyCard, softmax, weights_from_scores

F, G = len(FEATURES), len(CONTEXT)
INPUTS = F + 2 + 1 + G


def make(seed: int, *, head: float = 1.0) -> Any:
    """A network whose head, bias and standardisation are not the trivial ones."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(99)
    made = network.ScoreNetwork(features=F, context=G, mu=rng.normal(size=INPUTS), sigma=rng.uniform(0.5, 2.0, INPUTS))
    with torch.no_grad():
        made.head.weight.copy_(head * torch.randn_like(made.head.weight) / 4)
        made.head.bias.fill_(0.3)
        for layer in (made.first, made.second, made.third):
            layer.bias.copy_(torch.randn_like(layer.bias) / 4)
    return made


def card(seeds: tuple[int, ...]) -> PolicyCard:
    return PolicyCard(
        features=tuple(feature.name for feature in FEATURES),
        context=tuple(feature.name for feature in CONTEXT),
        feature_hash=FEATURE_HASH,
        schema_version=SCHEMA_VERSION,
        kappa=0.1,
        trained_on=("A", "B"),
        train_start="2006-01-03",
        train_end="2015-12-31",
        seeds=seeds,
        code_version="test",
    )


def observations(count: int, assets: int, *, seed: int = 1) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    tradable = rng.random((count, assets)) < 0.7
    tradable[:, 0] = True
    held = rng.dirichlet(np.ones(assets), count)
    vectors = observe(rng.normal(size=(count, assets, F)), rng.normal(size=(count, G)), tradable, held, np.full(count, 0.005))
    return vectors, tradable


@pytest.mark.parametrize("assets", [1, 2, 8, 100])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_numpy_gives_the_weights_that_torch_gives(assets: int, kind: torch.dtype) -> None:
    trained = make(3)
    vectors, tradable = observations(64, assets)
    served = NumpyPolicy(network.export([trained]), card((3,))).scores(vectors)
    with torch.no_grad():
        scores, mask, _ = trained.to(kind)(torch.as_tensor(vectors, dtype=kind))
    assert np.array_equal(mask.numpy() > 0, tradable)
    if assets > 1:
        assert np.ptp(scores.numpy(), axis=1).max() > 0.1, "the test would pass on a constant policy"
    expected = softmax(scores.numpy().astype(np.float64), tradable)
    np.testing.assert_allclose(softmax(served, tradable), expected, rtol=0, atol=1e-6)
    assert (served[~tradable] == 0).all()


def test_an_ensemble_averages_the_seeds_weights() -> None:
    networks = [make(1), make(2)]
    vectors, tradable = observations(16, 8)
    served = softmax(NumpyPolicy(network.export(networks), card((1, 2))).scores(vectors), tradable)
    with torch.no_grad():
        alone = [softmax(one(torch.as_tensor(vectors))[0].numpy().astype(np.float64), tradable) for one in networks]
    assert np.abs(alone[0] - alone[1]).max() > 0.01
    np.testing.assert_allclose(served, (alone[0] + alone[1]) / 2, rtol=0, atol=1e-6)


def test_scores_are_centred_over_tradable_assets_and_limited() -> None:
    vectors, tradable = observations(256, 8)
    with torch.no_grad():
        calm, _, _ = make(1)(torch.as_tensor(vectors))
        wild, _, _ = make(1, head=1000.0)(torch.as_tensor(vectors))
    np.testing.assert_allclose(calm.sum(1).numpy(), 0.0, atol=1e-5)
    assert wild.abs().max() == network.SCORE_LIMIT
    assert (wild.numpy()[~tradable] == 0).all()


def policy_of(assets: int) -> Any:
    layout = Layout(assets=assets, features=F, context=G)
    return network.TiedGaussianPolicy(
        gym.spaces.Box(-np.inf, np.inf, (layout.width,), np.float32),
        gym.spaces.Box(-10, 10, (assets,), np.float32),
        lambda _: 3e-4,
        network={"features": F, "context": G, "mu": np.zeros(INPUTS), "sigma": np.ones(INPUTS)},
    )


def test_training_starts_at_equal_weight_exactly() -> None:
    torch.manual_seed(5)
    policy = policy_of(8)
    vectors, tradable = observations(32, 8)
    actions, _ = policy.predict(vectors, deterministic=True)
    assert (actions == 0.0).all()
    served = NumpyPolicy(network.export([policy.network]), card((5,))).scores(vectors)
    weights = weights_from_scores(served, np.zeros_like(served), tradable, kappa=0.1)
    np.testing.assert_allclose(weights, tradable / tradable.sum(1, keepdims=True), rtol=0, atol=1e-15)
    assert sum(parameter.abs().sum() for parameter in policy.network.first.parameters()) > 0


def test_the_same_weights_trade_any_universe_and_do_not_care_for_its_order() -> None:
    trained, (vectors, tradable) = make(4), observations(8, 6)
    split = 6 * (F + 2)
    order = np.array([4, 2, 0, 5, 1, 3])
    blocks = vectors[:, :split].reshape(8, 6, F + 2)
    permuted = np.concatenate([blocks[:, order].reshape(8, -1), vectors[:, split:]], axis=1)
    padding = np.zeros((8, 3, F + 2), dtype=np.float32)
    widened = np.concatenate([np.concatenate([blocks, padding], axis=1).reshape(8, -1), vectors[:, split:]], axis=1)
    with torch.no_grad():
        scores, _, values = trained(torch.as_tensor(vectors))
        permuted_scores, _, _ = trained(torch.as_tensor(permuted))
        wider_scores, _, wider_values = trained(torch.as_tensor(widened))
    np.testing.assert_allclose(permuted_scores, scores[:, order], atol=1e-6)
    np.testing.assert_allclose(wider_scores[:, :6], scores, atol=1e-6)
    np.testing.assert_allclose(wider_values, values, atol=1e-6)
    assert tradable.any(axis=1).all()


def test_one_tied_deviation_and_untradable_assets_count_for_nothing() -> None:
    policy = policy_of(8)
    assert policy.log_std.shape == ()
    vectors, tradable = observations(32, 8)
    observed = torch.as_tensor(vectors)
    actions, _, likelihood = policy(observed)
    moved = actions + torch.as_tensor(~tradable) * 7.0
    _, again, entropy = policy.evaluate_actions(observed, moved)
    torch.testing.assert_close(again, likelihood)
    normal = torch.distributions.Normal(torch.zeros(()), policy.log_std.exp())
    expected = (normal.log_prob(actions) * torch.as_tensor(tradable)).sum(1)
    torch.testing.assert_close(likelihood, expected)
    torch.testing.assert_close(entropy, normal.entropy() * torch.as_tensor(tradable.sum(1)).float())


def test_a_standardisation_of_the_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match=str(INPUTS)):
        network.ScoreNetwork(features=F, context=G, mu=np.zeros(INPUTS - 1), sigma=np.ones(INPUTS - 1))


@pytest.mark.parametrize("assets", [1, 3, 8, 30])
@pytest.mark.parametrize("piece", [1, 64, 100_000])
def test_the_gradient_by_hand_is_autograd_s(assets: int, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the pieces are, with names that cannot be traded, scores at their limit and a session without any tradable name."""
    monkeypatch.setattr(network, "ROWS", piece)
    trained = make(6, head=20.0).to(torch.float64)
    vectors, _ = observations(37, assets)
    vectors[5, F + 1 : assets * (F + 2) : F + 2] = 0.0
    observed = torch.as_tensor(vectors, dtype=torch.float64)
    towards = torch.randn(37, assets, dtype=torch.float64), torch.randn(37, 1, dtype=torch.float64)

    def passes(forward: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        scores, mask, values = forward(observed)
        assert not mask.requires_grad
        trained.zero_grad()
        torch.autograd.backward((scores, values), towards)
        return [scores, mask, values], [parameter.grad for parameter in trained.parameters() if parameter.grad is not None]

    (given, gradients), (expected, slopes) = passes(trained.fast), passes(trained)
    assert assets == 1 or expected[0].abs().max() == network.SCORE_LIMIT
    assert len(gradients) == len(slopes) == 12
    for ours, theirs in zip([*given, *gradients], [*expected, *slopes], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_a_pass_keeps_its_states_until_autograd_lets_go_of_it() -> None:
    trained = make(8)
    batches = [torch.as_tensor(observations(16, 5, seed=seed)[0]) for seed in (1, 2)]

    def gradient(scores: torch.Tensor) -> torch.Tensor:
        trained.zero_grad()
        scores.square().sum().backward()
        assert trained.first.weight.grad is not None
        return trained.first.weight.grad.clone()

    alone = [gradient(trained.fast(batch)[0]) for batch in batches]
    both = [trained.fast(batch)[0] for batch in batches]
    with torch.no_grad():
        trained.fast(batches[1])
    assert all(torch.equal(gradient(scores), expected) for scores, expected in zip(both, alone, strict=True))


def test_the_gradient_by_hand_is_that_of_finite_differences() -> None:
    trained = make(7).to(torch.float64)
    vectors, _ = observations(2, 3)
    observed = torch.as_tensor(vectors, dtype=torch.float64)

    def passes(*parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores, _, values = network.Passes.apply(trained, observed, *parameters)
        return scores, values

    assert torch.autograd.gradcheck(passes, tuple(trained.parameters()), fast_mode=True, atol=1e-6)
