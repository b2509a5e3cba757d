"""Does training find an edge that is there, at its right size, and none where there is none?

    python -m benchmarks.planted_edge --nothing --ways forecast ridge direct ppo
    python -m benchmarks.planted_edge --bars FILE --adjusted

Worlds: real sessions in blocks, drawn anew for each seed, the cross-section kept and what each name did beyond the mean of names turned
around by a coin per session, so that nothing real predicts; then one feature is replaced by a noisy forecast whose rank correlation with
the coming sessions' relative return is known (IC). Training on the first `TRAINED` sessions, judged on the `JUDGED` after them, at 10 bp a
side, against equal weight at the same kappa: IRk.

Yardsticks in the same table: the forecast itself through kappa, and ridge on the same training years, its penalty chosen inside them, both
of the size that grew most in those years. "best size": the tracking error at which the trained scores, scaled, would have grown most
less half the variance out of sample. Failure: `OwnBarsError` for bars that cannot be read; what training raises.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.trained import trained
from papertape.market_data import bundled
from papertape.market_data.own_bars import read_own_bars
from schema import universes
from schema.settings import Settings, load
from schema.trading_rules import rules_of
from trading_env.data.bars import adjust_forward
from trading_env.data.features import FEATURES, features
from trading_env.data.market import Market, build_market
from trading_env.evaluation.metrics import SESSIONS_PER_YEAR
from trading_env.simulation.env import BatchedTradingEnv, EnvConfig

FloatArray = NDArray[np.float64]
ROOT = Path(__file__).resolve().parents[1]
WARM, TRAINED, JUDGED, PURGE = 260, 8 * SESSIONS_PER_YEAR, 10 * SESSIONS_PER_YEAR, 30
BLOCK = 21  # sessions
RUIN = -0.9  # the least return: what rose by more than 90 % beyond the mean cannot fall by as much
PLACE = [feature.name for feature in FEATURES].index("volume_z")  # the column that becomes the forecast
SCALES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
TILTS = tuple(0.01 * 2.0**power for power in range(9))  # of a score per deviation: the sizes that a yardstick chooses from
CASH = 1e6
MEANS = ("excess_bp", "ratio", "tracking_error", "best_size", "seconds")
YARDSTICKS = ("forecast", "ridge")
SHARE_OF_FEW, SHARE_OF_MANY, MANY = 0.6, 0.8, 300  # of the forecast's own IRk that training is to reach, by the number of names
TRAIN, JUDGE = slice(WARM, WARM + TRAINED - PURGE), slice(WARM + TRAINED, WARM + TRAINED + JUDGED)  # rows of decisions
Decide = Callable[[int, NDArray[np.float32]], FloatArray]


@dataclass(frozen=True)
class World:
    """`ic`: rank correlation of the forecast with the return of the next `horizon` sessions, from the next open on; 0: no edge at all.

    `names`: None, those of the bars; more than they are, the others move with the market's sessions and beyond it as one of theirs did in
    blocks of its own.
    """

    ic: float
    horizon: int
    seed: int
    names: int | None = None


@dataclass(frozen=True, eq=False)
class Moves:
    """Moves of real sessions, (T, A), none missing: overnight and intraday as simple returns, for a coin that turns logarithms around would
    pay wild names half their variance; in logarithms how far the extremes lie beyond open and close."""

    overnight: FloatArray
    intraday: FloatArray
    above: FloatArray
    below: FloatArray
    volume: FloatArray

    @classmethod
    def of(cls, market: Market) -> Moves:
        """Of the names and sessions that have every bar, adjusted."""
        raw = {name: getattr(market, name) for name in ("open", "high", "low", "close", "volume")}
        names = np.isfinite(raw["close"]).mean(axis=0) > 0.98
        bars = adjust_forward(
            **{name: values[:, names] for name, values in raw.items()}, split=market.split[:, names], dividend=market.dividend[:, names]
        )
        body = np.maximum(bars.open, bars.close), np.minimum(bars.open, bars.close)
        found = np.stack(
            [
                bars.open[1:] / bars.close[:-1] - 1,
                (bars.close / bars.open)[1:] - 1,
                np.maximum(np.log(bars.high / body[0])[1:], 0.0),
                np.maximum(np.log(body[1] / bars.low)[1:], 0.0),
                np.maximum(bars.volume[1:], 1.0),
            ]
        )
        return cls(*found[:, np.isfinite(found).all(axis=(0, 2))])


def world_of(moves: Moves, world: World) -> Market:
    """The market of a world; its forecast replaces `PLACE`."""
    rng, length = np.random.default_rng([world.seed, 1]), WARM + TRAINED + JUDGED + PURGE
    sessions, known = moves.overnight.shape
    count = world.names or known
    blocks = rng.integers(0, sessions - BLOCK, (-(-length // BLOCK), 1 + max(count - known, 0)))
    drawn = (blocks[:, None] + np.arange(BLOCK)[:, None]).reshape(-1, blocks.shape[1])[:length]
    names = np.arange(count) % known
    rows = np.concatenate([np.repeat(drawn[:, :1], min(count, known), axis=1), drawn[:, 1:]], axis=1)
    coin = rng.choice([-1.0, 1.0], size=(length, 1))
    overnight, intraday = (
        np.log1p(np.maximum(mean[drawn[:, :1]] + coin * (part[rows, names] - mean[rows]), RUIN))
        for part, mean in ((part, part.mean(axis=1)) for part in (moves.overnight, moves.intraday))
    )
    close = np.log(100.0) + np.cumsum(overnight + intraday, axis=0)
    opened = close - intraday
    high, low = np.maximum(opened, close) + moves.above[rows, names], np.minimum(opened, close) - moves.below[rows, names]
    bars = {name: np.exp(values) for name, values in (("open", opened), ("high", high), ("low", low), ("close", close))}
    bars["volume"] = moves.volume[rows, names]
    asset, context = features(**bars)
    asset[:, :, PLACE] = _forecast(opened, world)
    shape = close.shape
    return Market(
        symbols=tuple(f"N{number:03d}" for number in range(shape[1])),
        sessions=np.busday_offset(np.datetime64("1990-01-01", "D"), np.arange(length), roll="forward"),
        **bars,
        split=np.ones(shape),
        dividend=np.zeros(shape),
        tradable=np.isfinite(asset).all(axis=-1) & np.isfinite(context).all(axis=-1)[:, None],
        features=asset,
        context=context,
    )


def _forecast(opened: FloatArray, world: World) -> FloatArray:
    """(T, A): ic z + sqrt(1 - ic^2) e, z the ranks within the session of what comes, of variance 1, e normal and new each session."""
    noise = np.random.default_rng([world.seed, 2]).standard_normal(opened.shape)
    ranks = np.argsort(np.argsort(opened[1 + world.horizon :] - opened[1 : -world.horizon], axis=1), axis=1)
    known = ((ranks + 0.5) / opened.shape[1] - 0.5) * np.sqrt(12)
    noise[: len(known)] = world.ic * known + np.sqrt(1 - world.ic**2) * noise[: len(known)]
    return noise


@dataclass(frozen=True)
class Found:
    """A year's: growth over equal weight at kappa in basis points, its ratio to the tracking error, that error as a share, and the tracking
    error at which the same scores would have grown most less half the variance."""

    excess_bp: float
    ratio: float
    tracking_error: float
    best_size: float
    seconds: float


def deviation(d: FloatArray) -> float:
    """A year's tracking error, a share."""
    return float(d.std()) * SESSIONS_PER_YEAR**0.5


def found(d: FloatArray, *, best_size: float, seconds: float) -> Found:
    mean, error = float(d.mean()) * SESSIONS_PER_YEAR, deviation(d)
    return Found(mean * 1e4, mean / error if error > 1e-9 else 0.0, error, best_size, seconds)


def against_kappa(market: Market, decide: Decide, *, books: int, settings: Settings, rows: slice) -> FloatArray:
    """(B, T) daily log growth less equal weight's at the same kappa, of books that decide at the closes of `rows`, from equal weight on."""
    span = market.rows(market.sessions[rows.start], market.sessions[rows.stop])
    config = EnvConfig(
        rules=rules_of(settings),
        kappa=settings.portfolio.kappa,
        episode_sessions=len(span) - 1,
        random_start=False,
        start="equal",
        initial_value=CASH,
        limits=None,
    )
    environments = BatchedTradingEnv(span, num_envs=books + 1, config=config)
    observations, _ = environments.reset(seed=0)
    grown = np.empty((books + 1, len(span) - 1))
    nothing = np.zeros((1, len(market.symbols)), dtype=np.float32)
    for step in range(len(span) - 1):
        scores = decide(rows.start + step, observations[:books]).astype(np.float32)
        observations, *_, infos = environments.step(np.concatenate([scores, nothing]))
        grown[:, step] = infos["log_growth"]
    return np.asarray(grown[:-1] - grown[-1])


def utility(d: FloatArray) -> FloatArray:
    """(B,) a year's growth less half its variance."""
    return np.asarray((d.mean(axis=1) - d.var(axis=1) / 2) * SESSIONS_PER_YEAR)


def yardstick(market: Market, signal: FloatArray, *, settings: Settings) -> Found:
    """A score (T, A) that is known or fitted, of the size that grew most in the training years; none if none grew."""
    began = time.process_time()
    sizes = np.array(TILTS)[:, None, None]

    def decide(row: int, _: Any) -> FloatArray:
        return np.asarray(sizes[:, 0] * signal[row])

    inside, out = (against_kappa(market, decide, books=len(TILTS), settings=settings, rows=rows) for rows in (TRAIN, JUDGE))
    chosen, best = int(utility(inside).argmax()), int(utility(out).argmax())
    d = out[chosen] if utility(inside)[chosen] > 0 else np.zeros(out.shape[1])
    return found(d, best_size=deviation(out[best]), seconds=time.process_time() - began)


def ridge_scores(market: Market, *, horizon: int) -> FloatArray:
    """(T, A) ridge on the return that the forecast is of, within sessions; its penalty does best on left-out quarters of the training."""
    train = np.arange(WARM, WARM + TRAINED - PURGE)
    opened = np.log(market.open)
    label = opened[train + 1 + horizon] - opened[train + 1]
    own = market.features[train]
    scale = own.std(axis=(0, 1))
    own = (own - own.mean(axis=1, keepdims=True)) / scale
    label = label - label.mean(axis=1, keepdims=True)
    gram, cross = np.einsum("taf,tag->tfg", own, own), np.einsum("taf,ta->tf", own, label)
    quarters, penalties = np.array_split(np.arange(len(train)), 4), np.geomspace(1e-3, 1e3, 13) * np.trace(gram.sum(axis=0)) / own.shape[-1]
    losses = np.zeros(len(penalties))
    for quarter in quarters:
        rest = np.ones(len(train), dtype=bool)
        rest[max(0, quarter[0] - PURGE) : quarter[-1] + PURGE + 1] = False
        for number, penalty in enumerate(penalties):
            fitted = np.linalg.solve(gram[rest].sum(axis=0) + penalty * np.eye(own.shape[-1]), cross[rest].sum(axis=0))
            losses[number] += fitted @ gram[quarter].sum(axis=0) @ fitted - 2 * fitted @ cross[quarter].sum(axis=0)
    chosen = penalties[int(losses.argmin())]
    fitted = np.linalg.solve(gram.sum(axis=0) + chosen * np.eye(own.shape[-1]), cross.sum(axis=0))
    scores = np.where(market.tradable[..., None], market.features, 0.0) @ (fitted / scale)
    return np.asarray((scores - scores.mean(axis=1, keepdims=True)) / scores[train].std())


def trained_row(market: Market, *, settings: Settings, seed: int) -> Found:
    """The settings' algorithm on the training years, judged as it would be served, at each of `SCALES`."""
    began = time.process_time()
    policy = trained(market.rows(market.sessions[TRAIN.start], market.sessions[TRAIN.stop]), settings=settings, seed=seed)
    seconds, scales = time.process_time() - began, np.array(SCALES)[:, None]

    def decide(_: int, observations: NDArray[np.float32]) -> FloatArray:
        return np.asarray(policy.scores(observations) * scales)

    d = against_kappa(market, decide, books=len(SCALES), settings=settings, rows=JUDGE)
    return found(d[SCALES.index(1.0)], best_size=deviation(d[int(utility(d).argmax())]), seconds=seconds)


def row_of(task: tuple[Moves, World, str, Settings]) -> dict[str, Any]:
    """One world by one way of deciding."""
    moves, world, way, settings = task
    market = world_of(moves, world)
    if way == "forecast":
        result = yardstick(market, market.features[:, :, PLACE], settings=settings)
    elif way == "ridge":
        result = yardstick(market, ridge_scores(market, horizon=world.horizon), settings=settings)
    else:
        section = settings.training.model_copy(update={"algorithm": way})
        result = trained_row(market, settings=settings.model_copy(update={"training": section}), seed=world.seed)
    return {**asdict(world), "way": way, "names": len(market.symbols), **asdict(result)}


def verdicts(rows: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """The goals of one kind of world for every algorithm in it, `rows` by way, each met or by how much it is missed."""
    mean = {way: {name: float(np.mean([row[name] for row in own])) for name in MEANS} for way, own in rows.items()}
    said = []
    for way, ours in mean.items():
        if way in YARDSTICKS:
            continue
        goals = {"size within half and double of the best": 0.5 <= ours["tracking_error"] / max(ours["best_size"], 1e-9) <= 2.0}
        if "ridge" in mean:
            goals["IRk not below ridge's"] = ours["ratio"] >= mean["ridge"]["ratio"]
        if "forecast" in mean:
            share = SHARE_OF_MANY if rows[way][0]["names"] >= MANY else SHARE_OF_FEW
            own = mean["forecast"]["ratio"]
            goals[f"{share:.0%} of the forecast's own IRk ({ours['ratio'] / own:.0%})"] = own <= 0 or ours["ratio"] >= share * own
        said += [f"    {way}: {goal}: {'met' if met else 'MISSED'}" for goal, met in goals.items()]
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=Path, help="bars of your own; default: the bundled ones")
    parser.add_argument("--adjusted", action="store_true", help="they are adjusted for splits and dividends")
    parser.add_argument("--ways", nargs="+", default=["forecast", "ridge", "direct"], help="forecast, ridge and algorithms of the settings")
    parser.add_argument("--ic", type=float, nargs="+", default=[0.05, 0.03])
    parser.add_argument("--horizon", type=int, nargs="+", default=[1, 5, 21])
    parser.add_argument("--nothing", action="store_true", help="with a world where nothing is planted")
    parser.add_argument("--names", type=int, help="more names than the bars have; default with the bundled eight: 30")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--timesteps", type=int, help="a training; default: the settings'")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("out/planted_edge.json"))
    chosen = parser.parse_args()
    settings = load(ROOT / "data" / "settings.toml")
    # No limit of the app's eight names may hold back a rebalancing of all of them
    settings = settings.model_copy(update={"risk": settings.risk.model_copy(update={"max_orders_per_day": universes.MOST})})
    if chosen.bars is None and chosen.names is None:
        chosen.names = 30
    if chosen.timesteps:
        settings = settings.model_copy(update={"training": settings.training.model_copy(update={"timesteps": chosen.timesteps})})
    moves = Moves.of(market_of(chosen.bars, adjusted=chosen.adjusted))
    kinds = [*product(chosen.ic, chosen.horizon), *([(0.0, 5)] if chosen.nothing else [])]
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(chosen.workers, mp_context=get_context("spawn")) as pool:
        for ic, horizon in kinds:
            kind: dict[str, list[dict[str, Any]]] = {}
            for way in chosen.ways:
                if way in YARDSTICKS and not ic:
                    continue
                worlds = [World(ic, horizon, seed, chosen.names) for seed in range(chosen.seeds)]
                own = list(pool.map(row_of, [(moves, world, way, settings) for world in worlds]))
                rows += own
                kind[way] = own
                sys.stdout.write(line(own) + "\n")
                sys.stdout.flush()
            sys.stdout.writelines(f"{sentence}\n" for sentence in (verdicts(kind) if ic else []))
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps({"settings": settings.model_dump(mode="json"), "rows": rows}, indent=1) + "\n")


def line(rows: list[dict[str, Any]]) -> str:
    """The mean over seeds, and the standard error of the mean IRk."""
    mean = {name: float(np.mean([row[name] for row in rows])) for name in MEANS}
    error = float(np.std([row["ratio"] for row in rows], ddof=1) / len(rows) ** 0.5) if len(rows) > 1 else float("nan")
    first = rows[0]
    return (
        f"{first['names']:>3} names, IC {first['ic']:.2f}, horizon {first['horizon']:>2}, {first['way']:<10} "
        f"IRk {mean['ratio']:+.2f} ± {error:.2f}, excess {mean['excess_bp']:+7.1f} bp, tracking error {mean['tracking_error']:6.2%}, "
        f"best size {mean['best_size']:6.2%}, {mean['seconds']:5.1f} s"
    )


def market_of(bars: Path | None, *, adjusted: bool) -> Market:
    """The market whose sessions are dealt out."""
    if bars is None:
        return build_market(
            bundled.daily_bars(), bundled.corporate_actions(), symbols=load(ROOT / "data" / "settings.toml").universe.symbols
        )
    own = read_own_bars(bars, adjusted=adjusted, actions=None, symbols=())
    return build_market(own.bars, own.actions, symbols=own.symbols)


if __name__ == "__main__":
    main()
