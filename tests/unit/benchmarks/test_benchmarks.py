"""The benchmarks' own side at a tiny size, so that it cannot rot, and the arithmetic of the table."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import decision_speed, env_speed, feature_speed, synthetic, training_speed
from benchmarks.harness import Contender, Row, line
from benchmarks.run import FIELDS, SAME
from trading_env.data.features import ASSET_FEATURES, CONTEXT, FEATURES


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "SESSIONS", 300)
    monkeypatch.setattr(env_speed, "EPISODE", 40)


def test_our_environments_step_and_count():
    assert env_speed.our_batch(3, 2).rate(0.001)["rate"] > 0
    assert env_speed.our_batch(3, 2, realistic=True).rate(0.001)["rate"] > 0
    assert env_speed.our_single().rate(0.001)["rate"] > 0
    assert env_speed.our_batch(3, 2).growth(warm=2, steps=4)["bytes"] >= 0


def test_our_training_runs_through_the_adapter_of_train():
    measured = training_speed.ours(8, rollout=256)()
    assert measured["rate"] > 0
    assert measured["width"] == 303
    assert 0 < measured["env_share"] < 1


def test_default_training_is_what_train_trains():
    measured = training_speed.our_default(rollout=128, batch_size=128, n_epochs=1)()
    assert measured["width"] == 30 * (len(FEATURES) + 2) + 1 + len(CONTEXT)
    assert training_speed.our_fold(timesteps=1_024)()["fold"] > 0


def test_our_features_are_the_columns_that_pandas_computes():
    size = {"names": 3, "rows": 900, "move": 0.01}
    ours = feature_speed.ours(together=2, **size)()
    assert len(ours["same"]) == len(ASSET_FEATURES)
    np.testing.assert_allclose(feature_speed.pandas(**size)()["same"], ours["same"], rtol=0, atol=1e-6)
    assert feature_speed.our_table(**size)()["seconds"] > 0


def test_both_sides_decide_the_same():
    assert (len(FEATURES), len(CONTEXT)) == (decision_speed.FEATURES, decision_speed.CONTEXT)
    ours, theirs = (decision_speed.timed(side(seeds=2), calls=3)() for side in (decision_speed.ours, decision_speed.sb3))
    assert 0 < ours["p50"] <= ours["p99"]
    np.testing.assert_allclose(theirs["same"], ours["same"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("row", "ratio", "goal", "met"),
    [
        (Row("w", "a", "b", "rate", "steps/s", goal=3), 4.0, 3, True),
        (Row("w", "a", "b", "rate", "steps/s", goal=5), 4.0, 5, False),
        (Row("w", "a", "b", "seconds", "s", goal=5), 10.0, 5, True),
        (Row("w", "a", "b", "seconds", "s", at_most=0.1), 10.0, "<= 0.1 s", False),
        (Row("w", "a", "b", "seconds", "s"), 10.0, None, None),
        (Row("w", "a", "b", "bytes", "bytes", at_most=1), None, "<= 1 bytes", True),
    ],
)
def test_a_ratio_says_how_many_times_better_the_median_round_was(row, ratio, goal, met):
    ours = [
        {"rate": 40.0, "seconds": 0.1, "bytes": 0.0},
        {"rate": 80.0, "seconds": 0.2, "bytes": 0.0},
        {"rate": 9.0, "seconds": 0.3, "bytes": 0.0},
    ]
    peer = [
        {"rate": 10.0, "seconds": 1.0, "bytes": 9.0},
        {"rate": 20.0, "seconds": 2.0, "bytes": 9.0},
        {"rate": 9.0, "seconds": 4.0, "bytes": 9.0},
    ]
    said = line(row, {"a": ours, "b": peer})
    assert (said["ratio"], said["goal"], said["met"]) == (ratio, goal, met)
    assert said["ours"] == sorted(numbers[row.number] for numbers in ours)[1]


def test_every_row_compares_ours_with_a_peer():
    for field in FIELDS.values():
        for row in field.rows:
            assert (field.contenders[row.ours].side, field.contenders[row.peer].side) == ("ours", "peers"), row.work
            assert row.goal is None or row.at_most is None
    known: dict[str, Contender] = {name: contender for field in FIELDS.values() for name, contender in field.contenders.items()}
    assert len(known) == sum(len(field.contenders) for field in FIELDS.values())
    assert all(ours in known and peer in known for ours, peer, _ in SAME)
