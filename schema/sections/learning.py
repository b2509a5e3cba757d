"""The sections `[features]`, `[reward]`, `[model]` and `[gate]` of `settings.toml`: what a policy reads, what it is paid in training, and
what becomes of it.

What is off by default may be left out: files from before it existed stay valid, and mean what they meant.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schema.sections.section import Section


class FeatureSettings(Section):
    """What a policy reads beside the features of prices. `forecast`: `trees`, of each name, fitted inside every fold. `sentiment`: `daily`,
    the columns of `trading_env.data.sentiment`, from what `[news]` collects and `[sentiment]` scores."""

    forecast: Literal["none", "trees"] = "none"
    sentiment: Literal["none", "daily"] = "none"


class RewardSettings(Section):
    """What a session earns in training; judging never uses it. Penalties and the weight of sentiment are off at 0."""

    kind: Literal["excess_log_growth", "log_growth", "differential_sharpe"] = "excess_log_growth"
    drawdown_penalty: Annotated[float, Field(ge=0, le=10)] = 0.0
    turnover_penalty: Annotated[float, Field(ge=0, le=10)] = 0.0
    sentiment_weight: Annotated[float, Field(ge=0, le=10)] = 0.0


#: What an algorithm that is not paid `[reward]` follows instead.
UNPAID = {"direct": "climbs growth itself", "q-learning": "is paid growth itself"}


class ModelSettings(Section):
    approval: Literal["automatic", "manual"]


class GateSettings(Section):
    """What a model does that the gate refused: `shadow`, it only watches; `trade`, it trades where no model has passed, never with real
    money (docs/decisions/0024-a-refused-model-on-paper.md).
    """

    refused: Literal["shadow", "trade"] = "shadow"


def check_read(algorithm: str, *, reward: RewardSettings, features: FeatureSettings) -> None:
    """Raise ValueError for what the algorithm would not read."""
    if algorithm in UNPAID and reward != RewardSettings():
        was = f"{reward.kind}, {reward.drawdown_penalty:g} and {reward.turnover_penalty:g}"
        was += f" with sentiment_weight {reward.sentiment_weight:g}" if reward.sentiment_weight else ""
        raise ValueError(
            f'reward is what PPO is paid: with training.algorithm = "{algorithm}", which {UNPAID[algorithm]}, it must be excess_log_growth '
            f"without penalties, was {was}"
        )
    if algorithm == "q-learning" and features.forecast != "none":
        raise ValueError(
            f'training.algorithm = "q-learning" reads no forecast: features.forecast must be "none", was "{features.forecast}"'
        )
