"""The ablation at a tiny size: its arms differ in what they say they do, and the placebo keeps every post."""

from __future__ import annotations

from argparse import Namespace
from datetime import date

import numpy as np
import pandas as pd

from benchmarks.sentiment_ablation import Arm, arms, market_of, settings_of, shuffled
from papertape.market_data import bundled
from trading_env.data.market import build_market
from trading_env.data.sentiment import SENTIMENT_NAMES, TABLES

NAMES = ("AAPL", "IBM", "SPY")
BARS = bundled.daily_bars()
PRICES = build_market(BARS[BARS["session"].between("2014-06-02", "2016-12-30")], bundled.corporate_actions(), symbols=NAMES)
DAYS = pd.DatetimeIndex(PRICES.sessions[PRICES.sessions >= np.datetime64("2016-01-04")].astype("datetime64[us]"))
COUNTS = np.random.default_rng(0).integers(0, 9, (3, len(DAYS)))


def tweets() -> pd.DataFrame:
    table = pd.DataFrame({"symbol": np.repeat(NAMES, len(DAYS)), "session_next_open": np.tile(DAYS, 3)})
    return table.assign(n_unique=COUNTS.ravel(), vader_mean=np.random.default_rng(1).uniform(-1, 1, len(table)))


def test_the_placebo_is_the_same_posts_about_other_days() -> None:
    true, placebo = tweets(), shuffled(tweets(), seed=1)
    for name in NAMES:
        ours, theirs = true[true["symbol"] == name], placebo[placebo["symbol"] == name]
        assert ours["session_next_open"].tolist() == theirs["session_next_open"].tolist()
        assert sorted(ours["vader_mean"]) == sorted(theirs["vader_mean"])
        moved = np.mean(ours["vader_mean"].to_numpy() != theirs["vader_mean"].to_numpy())
        assert moved > 0.5
    assert placebo.equals(shuffled(tweets(), seed=1))
    assert not placebo.equals(shuffled(tweets(), seed=2))


def test_a_session_s_posts_enter_the_row_of_its_close_and_no_earlier_one() -> None:
    day = pd.Timestamp("2016-06-01")
    told = market_of(Arm("sentiment", sentiment=True), PRICES, tweets())
    later = tweets().assign(vader_mean=lambda t: np.where(t["session_next_open"] >= day, -t["vader_mean"], t["vader_mean"]))
    other = market_of(Arm("sentiment", sentiment=True), PRICES, later)
    row, column = PRICES.index_of(date(2016, 6, 1)), TABLES["daily"].features.index(SENTIMENT_NAMES[0])
    assert told.features[:row].tobytes() == other.features[:row].tobytes()
    assert (told.features[row, :, column] != other.features[row, :, column]).any()
    assert market_of(Arm("prices", sentiment=False), PRICES, tweets()) is PRICES


def test_arms_differ_in_sentiment_and_its_reward_alone() -> None:
    options = Namespace(seeds=2, timesteps=1000, algorithm="ppo")
    documents = [settings_of(arm, PRICES, options).model_dump() for arm in arms("ppo")]
    for arm, document in zip(arms("ppo"), documents, strict=True):
        assert document["features"].pop("sentiment") == ("daily" if arm.sentiment else "none")
        assert document["reward"].pop("sentiment_weight") == arm.weight
    assert all(document == documents[0] for document in documents)
    assert [arm.name for arm in arms("ppo")] == [
        "prices",
        "sentiment",
        "sentiment and its reward",
        *(f"shuffled sentiment, {n}" for n in (1, 2, 3)),
    ]
    assert not any(arm.weight for arm in arms("direct"))
