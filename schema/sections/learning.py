"""The sections `[features]` and `[reward]` of `settings.toml`: what a policy reads, and what it is paid in training.

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
