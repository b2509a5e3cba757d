"""How often the gate passes policies without an edge that really trade: untrained networks, noise and no view at all, at any pace.

    python benchmarks/gate_worlds.py --worlds 200

Promise: a world is the bundled bars with its sessions drawn anew in blocks of 20 (the cross-section kept, each name's mean return made
the same), so nothing predicts and no name is better; with `--drift` names go on as they went for a while, and slow trading pays. In it a
policy trades 8 folds of 252 sessions and a holdout through costs and kappa; a network is drawn anew for each seed and fold. d comes from
these books, and `gate_verdict` judges it as the only trial, the hardest case for the size. "former" is the same gate with luck, folds,
seeds and holdout against equal weight daily alone, and at any pace. The same seed gives the same table.
Failure: none of its own; what the gate raises passes through. One process; minutes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from papertape.market_data import bundled
from trading_env.data.bars import ACTION_COLUMNS, adjust_forward
from trading_env.data.market import Market, build_market
from trading_env.evaluation.backtest import backtest
from trading_env.evaluation.gate import Behaviour, GateThresholds, GateVerdict, TrialResult, gate_verdict
from trading_env.evaluation.statistics import FloatArray, stationary_indices
from trading_env.evaluation.trials import TrialLog
from trading_env.simulation.policy import EqualWeight
from trading_env.simulation.portfolio import Costs, Rules

LASTING = 0.98
SYMBOLS = ("SPY", "QQQ", "IWM", "AAPL", "AIG", "BAC", "GOOG", "IBM")
YEAR, FOLDS, SEEDS, HIDDEN, WARM, BLOCK = 252, 8, 10, 32, 300, 20
JUDGED, TRADED = YEAR * FOLDS, YEAR * (FOLDS + 1)
DAYS = np.busday_offset(np.datetime64("2000-01-03", "D"), np.arange(WARM + TRADED))
STANDARD, STRESSED, BUFFER = 10e-4, 20e-4, 0.005
CHUNK = 40  # worlds that trade side by side


@dataclass(frozen=True)
class Recipe:
    """`kappa`: the pace that it is judged at. `scale`: deviation of the scores. `kind`: "network" of the features, "noise" drawn anew each
    session, "none", or "leaning": kappa 1, but it scores what it holds and so goes `scale` of the way, as a policy could learn to."""

    name: str
    kappa: float
    kind: str
    scale: float


RECIPES = (
    *(Recipe(f"no view, kappa {kappa:g}", kappa, "none", 0.0) for kappa in (0.1, 0.3)),
    *(Recipe(f"network {scale:g}, kappa {kappa:g}", kappa, "network", scale) for scale in (0.025, 0.3) for kappa in (0.1, 0.3, 1.0)),
    *(Recipe(f"noise of .3, kappa {kappa:g}", kappa, "noise", 0.3) for kappa in (0.1, 1.0)),
    Recipe("leaning on what it holds: .3 of the way at kappa 1", 1.0, "leaning", 0.3),
)


@dataclass(frozen=True, eq=False)
class Moves:
    """(T, A) of the real sessions: open over the close before, close over open, high and low over open; volumes."""

    gap: FloatArray
    day: FloatArray
    high: FloatArray
    low: FloatArray
    volume: FloatArray


def real_moves() -> Moves:
    market = build_market(bundled.daily_bars(), bundled.corporate_actions(), symbols=SYMBOLS)
    bars = adjust_forward(**{name: getattr(market, name) for name in ("open", "high", "low", "close", "volume", "split", "dividend")})
    gap, day = bars.open[1:] / bars.close[:-1], (bars.close / bars.open)[1:]
    whole = np.isfinite(gap * day).all(axis=1) & market.tradable[1:].all(axis=1)
    gap, day = gap[whole], day[whole]
    mean = (gap * day).mean(axis=0)
    ratios = ((bars.high / bars.open)[1:][whole], (bars.low / bars.open)[1:][whole])
    return Moves(gap * mean.mean() / mean, day, *ratios, bars.volume[1:][whole])


def shuffled(moves: Moves, rng: np.random.Generator, *, drift: float) -> Moves:
    """The moves of a world; `drift` is the deviation of a name's own growth of a session, of which LASTING is left in the next."""
    rows = stationary_indices(len(moves.gap), draws=2, mean_block=BLOCK, rng=rng).ravel()[: WARM + TRADED]
    found = Moves(*(getattr(moves, name)[rows] for name in ("gap", "day", "high", "low", "volume")))
    shocks = rng.normal(size=found.gap.shape) * drift * np.sqrt(1 - LASTING**2)
    # From open to close: what a name moves overnight is traded away at the open, at any pace, as the weights were fixed before
    return replace(found, day=found.day * np.exp(lfilter([1.0], [1.0, -LASTING], shocks, axis=0)))


def market_of(moves: Moves) -> Market:
    close = 50 * np.cumprod(moves.gap * moves.day, axis=0)
    opening = close / moves.day
    high, low = np.maximum(opening * moves.high, np.maximum(opening, close)), np.minimum(opening * moves.low, np.minimum(opening, close))
    columns = {"open": opening, "high": high, "low": low, "close": close, "volume": moves.volume}
    bars = [
        pd.DataFrame({"symbol": name, "session": DAYS.astype("datetime64[us]"), **{key: values[:, i] for key, values in columns.items()}})
        for i, name in enumerate(SYMBOLS)
    ]
    return build_market(pd.concat(bars), pd.DataFrame(columns=list(ACTION_COLUMNS)), symbols=SYMBOLS)


def targets(recipe: Recipe, inputs: FloatArray | None, rng: np.random.Generator) -> FloatArray:
    """(S + 1, T, A) softmax of the scores at the closes before the traded sessions: the seeds' mean first, then each seed's."""
    shape = (SEEDS, TRADED, len(SYMBOLS))
    if recipe.kind == "noise":
        scores = rng.normal(size=shape) * recipe.scale
    elif recipe.kind == "network":
        assert inputs is not None
        scores = np.empty(shape)
        for seed in range(SEEDS):
            for fold in range(FOLDS + 1):
                days = slice(fold * YEAR, (fold + 1) * YEAR)
                scores[seed, days] = network(inputs[days], rng) * recipe.scale
    else:
        scores = np.zeros(shape)
    weights = np.exp(scores)
    weights /= weights.sum(axis=2, keepdims=True)
    return np.concatenate([weights.mean(axis=0, keepdims=True), weights])


def network(inputs: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(T, A) scores of deviation 1 from a network of two tanh layers that nobody trained."""
    values = inputs.astype(np.float32)
    for width in (HIDDEN, HIDDEN):
        first = rng.normal(size=(values.shape[-1], width)).astype(np.float32) / np.sqrt(values.shape[-1])
        values = np.tanh(values @ first)
    scores = values @ rng.normal(size=HIDDEN).astype(np.float32)
    return np.asarray((scores - scores.mean(axis=1, keepdims=True)) / scores.std())


def trade(
    gap: FloatArray, day: FloatArray, target: FloatArray, *, kappa: float, cost: FloatArray, leaning: float = 1.0
) -> tuple[FloatArray, FloatArray]:
    """Log growth and turnover (B, T) of B books: `gap`, `day` (B or 1, T, A) moves, `target` (B, T, A), `cost` (B,) per side.

    The project's step without flooring, a smallest order or a cash shortage; `leaning`: the share of the way that a policy of kappa 1
    goes by scoring what it holds.
    """
    books, sessions, names = target.shape
    held, cash = np.zeros((books, names)), np.ones(books)
    equity_before = np.ones(books)
    growth, turnover = np.empty((books, sessions)), np.empty((books, sessions))
    for t in range(sessions):
        invested = held.sum(axis=1, keepdims=True)
        now = np.divide(held, invested, out=target[:, t].copy(), where=invested > 0)
        wanted = now + (kappa * leaning if t else 1.0) * (target[:, t] - now)
        held = held * gap[:, t]
        equity = cash + held.sum(axis=1)
        aim = (1 - BUFFER) * wanted * equity[:, None]
        traded = np.abs(aim - held).sum(axis=1)
        cash = equity - aim.sum(axis=1) - cost * traded
        held = aim * day[:, t]
        after = cash + held.sum(axis=1)
        growth[:, t], turnover[:, t], equity_before = np.log(after / equity_before), traded / equity, after
    return growth, turnover


def side_by_side(
    gap: FloatArray, day: FloatArray, target: FloatArray, costs: FloatArray, *, kappa: float, leaning: float = 1.0
) -> tuple[FloatArray, FloatArray]:
    """`trade` in W worlds of moves (W, T, A), in each a book for each of `costs` (K,): growth and turnover (W, K, T)."""
    moves = (np.repeat(values, len(costs), axis=0) for values in (gap, day))
    found = trade(*moves, target, kappa=kappa, cost=np.tile(costs, len(gap)), leaning=leaning)
    growth, turnover = (values.reshape(len(gap), len(costs), TRADED) for values in found)
    return growth, turnover


def same_as_the_engine(moves: Moves, *, sessions: int = TRADED) -> float:
    """Largest difference of a session's log growth from `backtest`, for equal weight at kappa .3 over the first `sessions` of a world."""
    market = market_of(moves)
    first = market.sessions[WARM]
    rules = Rules(costs=Costs(slippage_bps=10.0))
    book = backtest(
        market, EqualWeight(kappa=0.3), rules=rules, start=first, end=market.sessions[WARM + sessions - 1], initial_cash=1e7, limits=None
    )
    even = np.full((1, sessions, len(SYMBOLS)), 1 / len(SYMBOLS))
    own, _ = trade(moves.gap[None, WARM:], moves.day[None, WARM:], even, kappa=0.3, cost=np.array([STANDARD]))
    return float(np.abs(own[0] - book.growth).max())


def verdicts(
    recipe: Recipe, worlds: list[Moves], inputs: list[FloatArray], *, seed: int, bar: GateThresholds
) -> Iterator[tuple[GateVerdict, GateVerdict]]:
    """(this gate's, the former's) verdict in each world."""
    even = np.full((2, TRADED, len(SYMBOLS)), 1 / len(SYMBOLS))
    own_costs, both = np.array([STANDARD] + [STRESSED] * (SEEDS + 1)), np.array([STANDARD, STRESSED])
    leaning = recipe.scale if recipe.kind == "leaning" else 1.0
    for first in range(0, len(worlds), CHUNK):
        part = range(first, min(first + CHUNK, len(worlds)))
        gap, day = (np.stack([getattr(worlds[number], name)[WARM:] for number in part]) for name in ("gap", "day"))
        own = [targets(recipe, inputs[number], np.random.default_rng([seed, 1, number])) for number in part]
        books = np.concatenate([np.concatenate([one[:1], one]) for one in own])

        growth, turnover = side_by_side(gap, day, books, own_costs, kappa=recipe.kappa, leaning=leaning)
        pair = np.tile(even, (len(part), 1, 1))
        daily, _ = side_by_side(gap, day, pair, both, kappa=1.0)
        slow, paces = side_by_side(gap, day, pair, both, kappa=recipe.kappa)
        for one in zip(growth, daily, slow, turnover, paces, strict=True):
            yield judged(*one, bar=bar), judged(*one, bar=bar, former=True)


def judged(
    growth: FloatArray,
    daily: FloatArray,
    slow: FloatArray,
    turnover: FloatArray,
    paces: FloatArray,
    *,
    bar: GateThresholds,
    former: bool = False,
) -> GateVerdict:
    """The gate on the only trial of a log, its holdout opened. `former`: at kappa only where the former gate asked for it."""
    base = daily if former else slow
    d, at_kappa = growth[0] - daily[0], growth[0] - base[0]
    log = TrialLog().append(
        settings={}, feature_hash="f", code_hash="c", sessions=DAYS[:JUDGED], excess=d[:JUDGED], excess_at_kappa=at_kappa[:JUDGED]
    )
    identity = log.trials[0].trial_id
    log = log.open_holdout(trial=identity, sessions=DAYS[JUDGED:TRADED], excess=d[JUDGED:], excess_at_kappa=at_kappa[JUDGED:])
    result = TrialResult(
        trial=identity,
        sessions=DAYS[:JUDGED],
        fold=np.repeat(np.arange(FOLDS), YEAR),
        excess=d[:JUDGED],
        excess_at_kappa=at_kappa[:JUDGED],
        excess_stressed=(growth[1] - daily[1])[:JUDGED],
        excess_stressed_at_kappa=(growth[1] - slow[1])[:JUDGED],
        seeds_stressed=(growth[2:] - daily[1])[:, :JUDGED],
        seeds_stressed_at_kappa=(growth[2:] - base[1])[:, :JUDGED],
        behaviour=Behaviour(turnover=float(turnover[0].mean()), effective_n=7.0, names=len(SYMBOLS), score_range=1.0),
        turnover_at_kappa=0.0 if former else float(paces[0].mean()),
    )
    return gate_verdict(result, log=log, bar=bar)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--drift", type=float, default=0.0, help="deviation of a name's lasting growth of a session: slow trading pays")
    parser.add_argument("--only", default="", help="recipes whose name contains this")
    chosen = parser.parse_args()
    bar = replace(GateThresholds(), draws=chosen.draws)
    began, real = time.monotonic(), real_moves()
    worlds = [shuffled(real, np.random.default_rng([chosen.seed, 0, number]), drift=chosen.drift) for number in range(chosen.worlds)]
    inputs = [standardised(market_of(moves).features) for moves in worlds]
    say(f"{chosen.worlds} worlds of {len(real.gap)} sessions in {time.monotonic() - began:.0f} s; "
        f"largest difference from the engine, log growth of a session: {same_as_the_engine(worlds[0]):.1e}")  # fmt: skip
    for recipe in RECIPES:
        if chosen.only in recipe.name:
            began = time.monotonic()
            pairs = list(verdicts(recipe, worlds, inputs, seed=chosen.seed, bar=bar))
            say(f"{recipe.name:52s} {line(pairs)}  {time.monotonic() - began:.0f} s")


def standardised(features: FloatArray) -> FloatArray:
    """(T, A, F) at the closes before the traded sessions, of mean 0 and deviation 1."""
    part = features[WARM - 1 : WARM - 1 + TRADED]
    return np.asarray((part - part.mean(axis=(0, 1))) / np.maximum(part.std(axis=(0, 1)), 1e-12))


def line(pairs: list[tuple[GateVerdict, GateVerdict]]) -> str:
    """Shares that pass, this gate and the former; of luck alone too, and which rules of this gate decide."""
    shares = []
    for side in (0, 1):
        found = [pair[side] for pair in pairs]
        for passed in ([verdict.passed for verdict in found], [held(verdict, "luck") for verdict in found]):
            share = float(np.mean(passed))
            shares.append(f"{share:6.1%} ± {np.sqrt(share * (1 - share) / len(passed)):.1%}")
    rules = Counter(check.name for verdict, _ in pairs for check in verdict.checks if check.passed)
    binding = sorted((count / len(pairs), name) for name, count in rules.items() if count < 0.95 * len(pairs))
    numbers = [verdict.numbers for verdict, _ in pairs]
    ratios = [np.mean([own[f"information_ratio{suffix}"] for own in numbers]) for suffix in ("", "_at_kappa")]
    mean = f"mean IR {ratios[0]:+.2f}, at kappa {'none' if np.isnan(ratios[1]) else f'{ratios[1]:+.2f}'}"
    first = f"gate {shares[0]} (luck {shares[1]}), former {shares[2]} (luck {shares[3]}); {mean}; "
    return first + ", ".join(f"{name} {share:.0%}" for share, name in binding)


def held(verdict: GateVerdict, name: str) -> bool:
    return next(check.passed for check in verdict.checks if check.name == name)


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
