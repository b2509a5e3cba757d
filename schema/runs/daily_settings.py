"""The settings that a run differs from: the deployed ones, for the daily bars that runs have, whatever the app trades on."""

from __future__ import annotations

from schema.settings import MONTH, Settings


def on_daily_bars(settings: Settings) -> Settings:
    """The settings with a row per session, and no holdout shorter than is allowed then; the same object where they have that."""
    training = settings.training
    if training.timeframe == "1Day":
        return settings
    changes = {"timeframe": "1Day", "holdout_sessions": max(MONTH, training.holdout_sessions)}
    return settings.model_copy(update={"training": training.model_copy(update=changes)})
