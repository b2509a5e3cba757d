"""`[features]` and `[reward]`: what is off by default, and what needs what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schema.settings import SettingsError, checked, load

DATA = Path(__file__).resolve().parents[3] / "data" / "settings.toml"
DOCUMENT = load(DATA).model_dump(mode="json")


def changed(**sections: dict[str, Any]) -> dict[str, Any]:
    return {**DOCUMENT, **{name: {**DOCUMENT[name], **values} for name, values in sections.items()}}


def test_sentiment_is_off_unless_a_file_says_otherwise() -> None:
    settings = checked({**DOCUMENT, "features": {}, "reward": {}}, source="file")
    assert (settings.features.sentiment, settings.reward.sentiment_weight) == ("none", 0.0)


def test_sentiment_needs_a_source() -> None:
    with pytest.raises(SettingsError, match=r'features.sentiment = "daily" needs a source in \[news\] sources, there is none$'):
        checked(changed(features={"sentiment": "daily"}, news={"sources": []}), source="file")
    daily = checked(changed(features={"sentiment": "daily"}, news={"sources": ["alpaca"]}), source="file")
    assert daily.features.sentiment == "daily"


def test_a_reward_for_sentiment_needs_sentiment_and_an_algorithm_that_is_paid() -> None:
    paid: dict[str, Any] = {"reward": {"sentiment_weight": 0.001}, "training": {"algorithm": "ppo"}, "news": {"sources": ["alpaca"]}}
    with pytest.raises(SettingsError, match=r'reward.sentiment_weight = 0.001 needs features.sentiment = "daily", was "none"$'):
        checked(changed(**paid), source="file")
    assert checked(changed(**paid, features={"sentiment": "daily"}), source="file").reward.sentiment_weight == 0.001
    paid["training"] = {"algorithm": "direct"}
    with pytest.raises(SettingsError, match=r"without penalties, was excess_log_growth, 0 and 0 with sentiment_weight 0.001$"):
        checked(changed(**paid, features={"sentiment": "daily"}), source="file")
    with pytest.raises(SettingsError, match=r"reward.sentiment_weight = -1"):
        checked(changed(reward={"sentiment_weight": -1}), source="file")


def test_q_learning_is_paid_growth_itself_and_reads_no_forecast() -> None:
    chosen: dict[str, Any] = {"training": {"algorithm": "q-learning"}}
    assert checked(changed(**chosen), source="file").training.algorithm_name == "Q-learning"
    with pytest.raises(SettingsError, match=r'algorithm = "q-learning", which is paid growth itself, it must be excess_log_growth without'):
        checked(changed(**chosen, reward={"turnover_penalty": 0.1}), source="file")
    with pytest.raises(SettingsError, match=r'"q-learning" reads no forecast: features.forecast must be "none", was "trees"$'):
        checked(changed(**chosen, features={"forecast": "trees"}), source="file")
