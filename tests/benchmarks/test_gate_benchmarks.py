"""The simulations of the gate at a tiny size: they call the gate as it is, and their books are the engine's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks import gate_looks, gate_power, gate_worlds
from trading_env.evaluation.gate import GateThresholds

BAR = replace(GateThresholds(), draws=200)


def test_a_world_s_books_are_the_engine_s_and_both_gates_judge_them():
    world = gate_worlds.shuffled(gate_worlds.real_moves(), np.random.default_rng(1), drift=1e-3)
    assert gate_worlds.same_as_the_engine(world, sessions=300) < 1e-7
    inputs = [gate_worlds.standardised(gate_worlds.market_of(world).features)]
    ((ours, former),) = gate_worlds.verdicts(gate_worlds.RECIPES[0], [world], inputs, seed=1, bar=BAR)
    assert not gate_worlds.held(ours, "luck")
    assert ours.numbers["reality_check_p_at_kappa"] == 1.0
    assert former.numbers["reality_check_p_at_kappa"] == former.numbers["reality_check_p"] == ours.numbers["reality_check_p"]
    assert gate_worlds.line([(ours, former)]).startswith("gate ")


def test_what_slow_trading_pays_is_in_d_against_equal_weight_daily_alone():
    slow = gate_power.World("slow", 1, tracking_error=0.003, pace=200, pace_error=0.0025)
    (found,) = gate_power.run(slow, np.random.default_rng(1), BAR)
    assert found.numbers["information_ratio"] > 2 + found.numbers["information_ratio_at_kappa"]
    assert gate_power.former_luck(found, BAR)
    assert not found.passed
    (edge,) = gate_power.run(gate_power.World("edge", 1, ir=4.0), np.random.default_rng(1), BAR)
    assert edge.passed, edge.reasons


def test_an_edge_passes_at_the_first_look_and_pace_alone_at_none():
    how = {"view": 0.03, "bar": BAR}
    assert gate_looks.passes(500, ir=4.0, pace=0.0, rng=np.random.default_rng(1), **how) == 0
    assert gate_looks.passes(500, ir=-1.0, pace=600.0, rng=np.random.default_rng(1), **how) is None
