"""A policy as the settings' algorithm trains it on a market of any features, ready to score: for worlds that are not the product's."""

from __future__ import annotations

from learning import training
from schema.settings import Settings
from trading_env.data.market import Market
from trading_env.simulation.policy import NumpyPolicy, PolicyCard


def trained(market: Market, *, settings: Settings, seed: int, timesteps: int | None = None) -> NumpyPolicy:
    """Trained on all sessions of the market, by default with the settings' timesteps. Raises what the algorithm raises."""
    fitted = training.TRAINERS[settings.training.algorithm](
        market, settings=settings, seed=seed, timesteps=settings.training.timesteps if timesteps is None else timesteps
    )
    card = PolicyCard(
        features=tuple(f"feature {number}" for number in range(market.features.shape[2])),
        context=tuple(f"context {number}" for number in range(market.context.shape[1])),
        feature_hash="of another world",
        schema_version=0,
        kappa=settings.portfolio.kappa,
        trained_on=market.symbols,
        train_start=str(market.sessions[0]),
        train_end=str(market.sessions[-1]),
        seeds=(seed,),
        code_version="of another world",
        architecture=fitted.architecture,
    )
    return NumpyPolicy(fitted.arrays, card)
