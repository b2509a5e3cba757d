"""Training with sentiment is another table, which the other refuses; without it everything is what it was before there was any."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from learning.configuration import Configuration
from learning.dataset import DatasetError, read_channel
from tests import small_run
from trading_env.data.features import FEATURE_HASH
from trading_env.data.market import Market, MarketError, from_table, table_within, to_table, with_sentiment
from trading_env.data.sentiment import SENTIMENT, TABLES
from trading_env.simulation.policy import PolicyError, load_policy

ONE = {"seeds": [0], "folds": 1, "algorithm": "ppo"}
DAILY: dict[str, dict[str, Any]] = {"features": {"sentiment": "daily"}, "news": {"sources": ["x", "alpaca"]}}


PLAIN = small_run.market()


def told() -> Market:
    market = PLAIN
    return with_sentiment(market, np.random.default_rng(0).uniform(-1, 1, (*market.close.shape, len(SENTIMENT))))


def daily_channel(folder: Path) -> Path:
    with patch.object(small_run, "market", told), patch.object(small_run, "FEATURE_HASH", TABLES["daily"].hash):
        return small_run.write_channel(folder)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_without_sentiment_a_configuration_is_the_one_that_it_was() -> None:
    """The literals are of the last code that knew no sentiment."""
    for algorithm, was in (("direct", "a7b8fd15a3021449"), ("ppo", "b02e731057a09e2f")):
        found = Configuration.of(small_run.settings(training={**ONE, "algorithm": algorithm}))
        assert sha256(json.dumps(found.settings, sort_keys=True)) == was
        assert found.feature_hash == FEATURE_HASH
    collected = small_run.settings(training=ONE, news={"sources": ["alpaca"]}, sentiment={"scorer": "bedrock"})
    assert Configuration.of(collected).settings == Configuration.of(small_run.settings(training=ONE)).settings


def test_with_it_who_wrote_and_who_scored_are_part_of_a_configuration() -> None:
    daily, base = (Configuration.of(small_run.settings(training=ONE, **more)) for more in (DAILY, {}))
    assert daily.feature_hash == TABLES["daily"].hash
    assert daily.settings["scores"] == {"sources": ["alpaca", "x"], "scorer": "vader", "min_confidence": 0.2}
    other = Configuration.of(small_run.settings(training=ONE, **DAILY, sentiment={"scorer": "bedrock"}))
    budget = Configuration.of(small_run.settings(training=ONE, **DAILY, sentiment={"monthly_budget_usd": 9.0}))
    paid = Configuration.of(small_run.settings(training=ONE, **DAILY, reward={"sentiment_weight": 0.001}))
    assert len({one.trial for one in (base, daily, other, paid)}) == 4
    assert budget.trial == daily.trial


def test_a_model_of_one_table_refuses_the_other(tmp_path: Path) -> None:
    with_it = small_run.settings(training=ONE, **DAILY, reward={"sentiment_weight": 0.01})
    without = small_run.settings(training=ONE)
    daily, plain = daily_channel(tmp_path / "daily"), small_run.write_channel(tmp_path / "plain")
    small_run.train(daily, tmp_path / "a", "--seed", "0", "--fold", "0", chosen=with_it)
    small_run.train(plain, tmp_path / "b", "--seed", "0", "--fold", "0", chosen=without)
    told_it, knows_none = load_policy(tmp_path / "a" / "fold-0"), load_policy(tmp_path / "b" / "fold-0")
    assert (told_it.card.features, told_it.card.feature_hash) == (TABLES["daily"].features, TABLES["daily"].hash)
    assert (knows_none.card.features, knows_none.card.feature_hash) == (TABLES["none"].features, FEATURE_HASH)
    with pytest.raises(PolicyError, match=f"feature_hash must be {FEATURE_HASH}, was {TABLES['daily'].hash}"):
        load_policy(tmp_path / "a" / "fold-0", expected_feature_hash=FEATURE_HASH)
    # Without sentiment the card has the bytes of the last code that knew none, but for the hash of the code
    card = (tmp_path / "b" / "fold-0" / "policy.json").read_text(encoding="utf-8")
    assert sha256(card.replace(knows_none.card.code_version, "")) == "9a74a9c21dc4001e"

    with pytest.raises(DatasetError, match=f'must be this code\'s {FEATURE_HASH}, was .*, the table of features.sentiment = "daily"$'):
        small_run.train(daily, tmp_path / "c", "--seed", "0", "--fold", "0", chosen=without)
    with pytest.raises(
        DatasetError, match=rf'must be this code\'s {TABLES["daily"].hash}, was .*, the table of features.sentiment = "none"$'
    ):
        small_run.train(plain, tmp_path / "c", "--seed", "0", "--fold", "0", chosen=with_it)


def test_files_without_the_columns_that_their_manifest_states_are_refused(tmp_path: Path) -> None:
    with patch.object(small_run, "FEATURE_HASH", TABLES["daily"].hash):
        channel = small_run.write_channel(tmp_path / "channel")
    settings = small_run.settings()
    with pytest.raises(DatasetError, match="must hold the 34 features of the manifest's table, were 28"):
        read_channel(channel, symbols=small_run.SYMBOLS, live_start=settings.training.dates.live_start, table=TABLES["daily"])


def test_the_table_is_the_market_with_sentiment_too() -> None:
    market = told()
    table = to_table(market)
    again = from_table(table)
    assert again.features.tobytes() == np.ascontiguousarray(market.features).tobytes()
    assert (table_within(market), table_within(PLAIN)) == (TABLES["daily"], TABLES["none"])
    np.testing.assert_array_equal(market.tradable, PLAIN.tradable)
    with pytest.raises(MarketError, match="sentiment_slow missing"):
        from_table(table.drop(columns="sentiment_slow"))
    with pytest.raises(MarketError, match="sentiment must be of shape"):
        with_sentiment(market, market.features[:, :, -len(SENTIMENT) :])
    with pytest.raises(MarketError, match=r"was \(640, 3, 2\) behind 28 features"):
        with_sentiment(replace(market, features=market.features[:, :, :28]), market.features[:, :, :2])
