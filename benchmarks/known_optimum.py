"""How much of a known optimum does training earn? One name with a signal that reverts, beside a flat one, under two kinds of cost.

    python -m benchmarks.known_optimum --algorithm direct ppo

The world is that of Chaouki, Hardiman, Schmidt, Serie and de Lataillade ("Deep Deterministic Portfolio Optimization", arXiv 2003.11497): an
autoregressive signal x predicts the next session's return, and trading costs something: a share of the notional, or more the more is
traded (the step's square-root impact, whose cost grows with the power 3/2; it has no quadratic one). Long only, at the settings' kappa.
The optimum is had by dynamic programming through `portfolio.step` on a grid of signal and weight; both policies then trade the same long
path through the compiled step. The share is that of the optimum's growth over equal weight, rebalanced daily.
Failure: what training raises.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.trained import trained
from schema.settings import Settings, load
from schema.trading_rules import rules_of
from trading_env.data.market import Market
from trading_env.evaluation.metrics import SESSIONS_PER_YEAR
from trading_env.simulation.env import BatchedTradingEnv, EnvConfig
from trading_env.simulation.policy import NumpyPolicy
from trading_env.simulation.portfolio import Book, ExecutionPrices, Rules, step

FloatArray = NDArray[np.float64]
ROOT = Path(__file__).resolve().parents[1]
PRICE, CASH, VOLUME = 50.0, 1e5, 2e5
SIGNALS, WEIGHTS, TARGETS, SHOCKS = 25, 61, 41, 7
DISCOUNT, ROUNDS = 0.998, 4000
TRAINED, JUDGED = 10 * SESSIONS_PER_YEAR, 80 * SESSIONS_PER_YEAR
COSTS: dict[str, dict[str, float]] = {
    "proportional": {"slippage_bps": 10.0, "impact": 0.0, "max_volume_share": 0.0},
    "impact": {"slippage_bps": 0.0, "impact": 1.0, "max_volume_share": 1.0},
}


@dataclass(frozen=True)
class Process:
    """x' = `persistence` x + noise of variance 1 - persistence^2; the next session's log return is `edge` x + `volatility` e."""

    persistence: float = 0.9
    edge: float = 0.0015
    volatility: float = 0.01


def market_of(process: Process, *, sessions: int, seed: int) -> Market:
    """The name with the signal and the flat one; the only feature is the signal, 0 for the flat one."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(2, sessions))
    signal = np.zeros(sessions)
    for row in range(1, sessions):
        signal[row] = process.persistence * signal[row - 1] + np.sqrt(1 - process.persistence**2) * noise[0, row]
    moves = np.concatenate([[0.0], process.edge * signal[:-1] + process.volatility * noise[1, 1:]])
    close = np.stack([PRICE * np.exp(np.cumsum(moves)), np.full(sessions, PRICE)], axis=1)
    opened = np.concatenate([close[:1], close[:-1]])
    shape = close.shape
    return Market(
        symbols=("SIGNAL", "FLAT"),
        sessions=np.busday_offset(np.datetime64("1950-01-02", "D"), np.arange(sessions), roll="forward"),
        open=opened,
        high=np.maximum(opened, close),
        low=np.minimum(opened, close),
        close=close,
        volume=VOLUME * PRICE / close,
        split=np.ones(shape),
        dividend=np.zeros(shape),
        tradable=np.ones(shape, dtype=bool),
        features=np.stack([signal, np.zeros(sessions)], axis=1)[..., None],
        context=np.zeros((sessions, 1)),
    )


@dataclass(frozen=True, eq=False)
class Optimum:
    """Targets (SIGNALS, WEIGHTS) of the name with the signal, over the grids of the signal and of its share of what is invested."""

    signals: FloatArray
    weights: FloatArray
    targets: FloatArray

    def score(self, signal: float, held: float) -> FloatArray:
        """(2,) scores whose softmax is the target, between the grids' points."""
        column = np.array([np.interp(signal, self.signals, self.targets[:, place]) for place in range(len(self.weights))])
        target = float(np.clip(np.interp(held, self.weights, column), 1e-4, 1 - 1e-4))
        return np.array([np.log(target / (1 - target)), 0.0])


def optimum(process: Process, *, rules: Rules, kappa: float) -> Optimum:
    """By value iteration; the step prices what every move costs."""
    signals, moves = _chain(process.persistence)
    weights, targets = np.linspace(0, 1, WEIGHTS), np.linspace(0, 1, TARGETS)
    nodes, chances = np.polynomial.hermite_e.hermegauss(SHOCKS)
    chances = chances / chances.sum()
    returns = process.edge * signals[:, None] + process.volatility * nodes
    prices = _prices(returns.ravel(), process)
    grid = np.stack(np.meshgrid(np.arange(returns.size), weights, targets, indexing="ij"), axis=-1).reshape(-1, 3)
    rows, held, target = 2 * grid[:, 0].astype(np.int64), grid[:, 1], grid[:, 2]
    wanted = held + kappa * (target - held)
    book = Book.invested(CASH, weights=np.stack([held, 1 - held], axis=1), prices=np.full((len(grid), 2), PRICE), rules=rules)
    before = book.value(np.full((len(grid), 2), PRICE))
    taken = step(book, prices=prices, rows=rows, weights=np.stack([wanted, 1 - wanted], axis=1), rules=rules)
    shares, _ = taken.book.shares(prices.closing[rows + 1])
    shape = (SIGNALS, SHOCKS, WEIGHTS, TARGETS)
    gained, later = np.log(taken.value / before).reshape(shape), (shares[:, 0] / shares.sum(axis=1)).reshape(shape)
    expected = np.einsum("s,xshw->xhw", chances, gained)
    place = np.clip(later * (WEIGHTS - 1), 0, WEIGHTS - 1 - 1e-9)
    low, share = place.astype(np.int64), place - place.astype(np.int64)
    value = np.zeros((SIGNALS, WEIGHTS))
    for _ in range(ROUNDS):
        ahead = moves @ value  # of the signals, by what is held
        later_value = np.empty(expected.shape)
        for x in range(SIGNALS):
            own = ahead[x]
            later_value[x] = np.einsum("s,shw->hw", chances, own[low[x]] * (1 - share[x]) + own[low[x] + 1] * share[x])
        found = expected + DISCOUNT * later_value
        fresh = found.max(axis=-1)
        settled = np.abs((fresh - fresh.mean()) - (value - value.mean())).max() < 1e-9
        value = fresh - fresh.mean()
        if settled:
            break
    return Optimum(signals, weights, targets[found.argmax(axis=-1)])


def _chain(persistence: float) -> tuple[FloatArray, FloatArray]:
    """Grid and transitions of a first-order autoregression of variance 1 (Tauchen, Economics Letters 20, 1986)."""
    grid = np.linspace(-3, 3, SIGNALS)
    width, deviation = grid[1] - grid[0], np.sqrt(1 - persistence**2)
    distance = (grid[None] - persistence * grid[:, None]) / deviation
    chances = np.exp(-(distance**2) / 2) * width / deviation
    return grid, chances / chances.sum(axis=1, keepdims=True)


def _prices(returns: FloatArray, process: Process) -> ExecutionPrices:
    """Rows in pairs: the close that is decided at, and the session of one return."""
    closing = np.full((2 * len(returns), 2), PRICE)
    closing[1::2, 0] = PRICE * np.exp(returns)
    opening, whole = np.full(closing.shape, PRICE), np.ones(closing.shape)
    volatility = np.tile([process.volatility, 0.0], (len(closing), 1))
    yes = np.ones(closing.shape, dtype=bool)
    return ExecutionPrices(opening, closing, yes, yes, whole, 0 * whole, VOLUME * whole, volatility, ~yes)


def growth(market: Market, policy: NumpyPolicy, best: Optimum, *, settings: Settings) -> tuple[float, float, float]:
    """A year's log growth of the policy, of the optimum and of equal weight, over the market's sessions."""
    config = EnvConfig(
        rules=rules_of(settings),
        kappa=settings.portfolio.kappa,
        episode_sessions=len(market) - 1,
        random_start=False,
        start="equal",
        initial_value=CASH,
        limits=None,
    )
    environments = BatchedTradingEnv(market, num_envs=2, config=config)
    observations, _ = environments.reset(seed=0)
    totals = np.zeros(3)
    for row in range(len(market) - 1):
        held = observations[1, [1, 4]].astype(np.float64)  # of each name's block: its feature, held weight, mask
        known = best.score(float(market.features[row, 0, 0]), float(held[0] / held.sum()))
        observations, *_, infos = environments.step(np.stack([policy.scores(observations[0]), known]).astype(np.float32))
        totals += *infos["log_growth"], infos["baseline_log_growth"][0]
    ours, optimal, equal = (float(total) for total in totals * SESSIONS_PER_YEAR / (len(market) - 1))
    return ours, optimal, equal


def settings_of(cost: str, algorithm: str) -> Settings:
    """The project's, with these costs and this algorithm, and no limit on what one name may weigh."""
    document: dict[str, Any] = load(ROOT / "data" / "settings.toml").model_dump(mode="json")
    document["costs"] |= COSTS[cost]
    document["training"] |= {"algorithm": algorithm}
    document["risk"] |= {"max_weight": 1.0}
    document["portfolio"] |= {"initial_cash": CASH}
    return Settings.model_validate(document)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", nargs="+", default=["direct"])
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    process = Process()
    for cost in COSTS:
        settings = settings_of(cost, chosen.algorithm[0])
        best = optimum(process, rules=rules_of(settings), kappa=settings.portfolio.kappa)
        for algorithm in chosen.algorithm:
            settings, began, shares = settings_of(cost, algorithm), time.process_time(), []
            for seed in range(chosen.seeds):
                policy = trained(market_of(process, sessions=TRAINED, seed=seed), settings=settings, seed=seed)
                path = market_of(process, sessions=JUDGED, seed=1000 + seed)
                ours, optimal, equal = growth(path, policy, best, settings=settings)
                shares.append((ours - equal) / (optimal - equal))
            sys.stdout.write(
                f"{cost:<12} {algorithm:<10} {np.mean(shares):.0%} of the optimum's growth over equal weight, "
                f"by seed {', '.join(f'{share:.0%}' for share in shares)}; {time.process_time() - began:.0f} s\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
