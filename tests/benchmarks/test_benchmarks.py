"""The benchmarks' own side at a tiny size, so that it cannot rot, and the arithmetic of the table."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import decision_speed, env_speed, feature_speed, known_optimum, planted_edge, synthetic, training_speed
from benchmarks.harness import Contender, Row, line
from benchmarks.run import FIELDS, SAME
from benchmarks.trained import trained
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


@pytest.fixture(scope="module")
def moves() -> planted_edge.Moves:
    return planted_edge.Moves.of(planted_edge.market_of(None, adjusted=False))


def test_a_world_keeps_the_markets_sessions_and_nothing_real_predicts(moves: planted_edge.Moves):
    """A coin turns around what names do beyond the mean: no drift, no reversal is left, and the forecast is as good as asked."""
    market = planted_edge.world_of(moves, planted_edge.World(ic=0.1, horizon=5, seed=3))
    returns = market.close / market.open - 1
    beyond = returns - returns.mean(axis=1, keepdims=True)
    length, error = len(beyond), beyond.std(axis=0) / np.sqrt(len(beyond))
    assert (np.abs(beyond.mean(axis=0)) < 4 * error).all()
    assert abs((beyond[1:] * beyond[:-1]).mean() / beyond.var()) < 4 / np.sqrt(length)
    opened, forecast = np.log(market.open), market.features[:, :, planted_edge.PLACE]
    coming = opened[6:] - opened[1:-5]
    ranks = [np.argsort(np.argsort(row)) for row in coming]
    found = np.mean([np.corrcoef(rank, own)[0, 1] for rank, own in zip(ranks, forecast, strict=False)])
    assert found == pytest.approx(0.1, abs=0.02)
    again = planted_edge.world_of(moves, planted_edge.World(ic=0.1, horizon=5, seed=3))
    assert again.close.tobytes() == market.close.tobytes()


def test_a_world_may_have_more_names_than_the_bars(moves: planted_edge.Moves):
    market = planted_edge.world_of(moves, planted_edge.World(ic=0.0, horizon=5, seed=0, names=30))
    assert len(market.symbols) == 30
    assert market.tradable[planted_edge.WARM :].all()
    moved = np.corrcoef(np.diff(np.log(market.close), axis=0).T)
    assert 0.1 < np.median(moved) < 0.9


def test_the_verdicts_say_what_was_met_and_what_was_missed():
    rows = {
        way: [{"ratio": ratio, "excess_bp": 10.0, "tracking_error": size, "best_size": 0.02, "seconds": 1.0, "names": 30}]
        for way, ratio, size in (("forecast", 1.0, 0.02), ("ridge", 0.5, 0.02), ("direct", 0.55, 0.009))
    }
    assert planted_edge.verdicts(rows) == [
        "    direct: size within half and double of the best: MISSED",
        "    direct: IRk not below ridge's: met",
        "    direct: 60% of the forecast's own IRk (55%): MISSED",
    ]


def test_the_optimum_holds_back_where_trading_is_dear_and_earns_more_than_equal_weight():
    settings = known_optimum.settings_of("proportional", "direct")
    process = known_optimum.Process()
    best = known_optimum.optimum(process, rules=known_optimum.rules_of(settings), kappa=settings.portfolio.kappa)
    middle = known_optimum.SIGNALS // 2
    assert best.targets[0].max() < 0.2
    assert best.targets[-1].min() > 0.8
    held = best.weights[(np.abs(best.targets[middle] - best.weights) < 0.03)]
    assert np.ptp(held) > 0.2, "without a signal nothing within the band is traded"


def test_a_signal_that_reverts_is_traded_nearly_as_well_as_can_be():
    """The figures of the long run are in benchmarks/README.md; here a tenth of the years, so with room."""
    settings, process = known_optimum.settings_of("proportional", "direct"), known_optimum.Process()
    best = known_optimum.optimum(process, rules=known_optimum.rules_of(settings), kappa=settings.portfolio.kappa)
    small = settings.model_copy(update={"training": settings.training.model_copy(update={"timesteps": 3_000})})
    policy = trained(known_optimum.market_of(process, sessions=known_optimum.TRAINED, seed=0), settings=small, seed=0)
    path = known_optimum.market_of(process, sessions=2_520, seed=1)
    ours, optimal, equal = known_optimum.growth(path, policy, best, settings=small)
    assert (ours - equal) / (optimal - equal) > 0.8
