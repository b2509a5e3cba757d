"""Does sentiment help? Prices alone, with sentiment columns, with a reward for them, and with the same columns shuffled.

    python -m benchmarks.sentiment_ablation --bars FILE --tweets FILE [--algorithm direct|ppo] [--seeds 5] [--timesteps N]

`--tweets`: a row per name and session with what was posted up to its open: symbol, session_next_open, n_unique, vader_mean. Each of the
distinct posts counts with its session's mean score at full confidence, received at 09:30 New York time: the columns are those of
`trading_env.data.sentiment`, as everywhere. `--bars`: adjusted daily bars of the names, a year before the first post and more.

The arms share bars, folds, seeds, costs, timesteps and algorithm. The placebo has the same posts with the sessions of each name permuted in
blocks of `BLOCK`, seeded: as much data, as clustered, about the wrong days. The reward is PPO's, so `direct` has no such arm. Judged out of
sample at 10 bp per side against equal weight at the same kappa: one book per arm, the seeds' mean weights, fold by fold.
Failure: `OwnBarsError` for bars that cannot be read; a column that is missing, as a KeyError; what training raises.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from learning import training
from learning.configuration import folds_of
from learning.dataset import Dataset
from learning.judging import SLOW, STANDARD, Backtester, Trained
from papertape.market_data.own_bars import read_own_bars
from papertape.market_data.sessions import sessions_between
from schema.settings import Settings, checked, load
from trading_env.data.market import Market, build_market, table_within, with_sentiment
from trading_env.data.sentiment import SENTIMENT_NAMES, TABLES, CollectionRun, ScoredPost, closes_of, sentiment_features
from trading_env.evaluation.metrics import SESSIONS_PER_YEAR
from trading_env.evaluation.statistics import detectable_ir, information_ratio, long_run_deviation, mean_interval
from trading_env.evaluation.walk_forward import Fold
from trading_env.simulation.policy import EqualWeight, load_policy

FloatArray = NDArray[np.float64]
ROOT = Path(__file__).resolve().parents[1]
NEW_YORK, OPEN = ZoneInfo("America/New_York"), time(9, 30)
SOURCE, BLOCK = "tweets", 21
START, TEST_START, LIVE_START = date(2014, 1, 2), date(2015, 1, 15), date(2015, 7, 1)
HISTORY = "2012-06-01"
FOLDS, HOLDOUT, PLACEBOS = 4, 21, 3
WEIGHT = 0.01  # of the reward's tone: 1 bp of log growth for a book of mean sentiment 0.01


@dataclass(frozen=True)
class Arm:
    """`placebo`: the seed of the permutation; None, the posts of the right days."""

    name: str
    sentiment: bool
    weight: float = 0.0
    placebo: int | None = None


def arms(algorithm: str) -> list[Arm]:
    paid = [Arm("sentiment and its reward", sentiment=True, weight=WEIGHT)] if algorithm != "direct" else []
    placebos = [Arm(f"shuffled sentiment, {seed}", sentiment=True, placebo=seed) for seed in range(1, PLACEBOS + 1)]
    return [Arm("prices", sentiment=False), Arm("sentiment", sentiment=True), *paid, *placebos]


def shuffled(tweets: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """The rows of each name with its sessions permuted in blocks; a name's own draw, the same for the same seed."""
    parts = []
    for number, (_, own) in enumerate(tweets.groupby("symbol", sort=True)):
        days = own["session_next_open"].to_numpy()
        blocks = np.split(np.arange(len(days)), range(BLOCK, len(days), BLOCK))
        order = np.random.default_rng([seed, number]).permutation(len(blocks))
        parts.append(own.iloc[np.concatenate([blocks[place] for place in order])].assign(session_next_open=days))
    return pd.concat(parts)


def runs_of(tweets: pd.DataFrame, closes: dict[date, datetime]) -> list[CollectionRun]:
    """An answer before every close from the first day with a post on, and the posts."""
    first, last = (getattr(tweets["session_next_open"], end)().date() for end in ("min", "max"))
    runs = [CollectionRun(SOURCE, close) for day, close in closes.items() if first <= day <= last]
    for row in tweets.itertuples():
        received = datetime.combine(row.session_next_open.date(), OPEN, tzinfo=NEW_YORK).astimezone(UTC)
        names = [f"{row.symbol} {row.session_next_open:%Y-%m-%d} {number}" for number in range(row.n_unique)]
        posts = tuple(ScoredPost((row.symbol,), received, float(row.vader_mean), 1.0, name) for name in names)
        runs.append(CollectionRun(SOURCE, received, posts))
    return runs


def market_of(arm: Arm, prices: Market, tweets: pd.DataFrame) -> Market:
    if not arm.sentiment:
        return prices
    first, last = prices.sessions[[0, -1]].astype(object)
    closes = {date.fromisoformat(session.date): session.closes for session in sessions_between(first, last)}
    posts = tweets if arm.placebo is None else shuffled(tweets, seed=arm.placebo)
    values = sentiment_features(
        runs_of(posts, closes), closes=closes_of(prices.sessions, closes), symbols=prices.symbols, sources=(SOURCE,)
    )
    return with_sentiment(prices, values)


def settings_of(arm: Arm, market: Market, options: argparse.Namespace) -> Settings:
    document = load(ROOT / "data" / "settings.toml").model_dump(mode="json")
    document["universe"] = {"symbols": market.symbols, "benchmark": None}
    document["risk"]["max_orders_per_day"] = max(60, len(market.symbols))
    document["news"]["sources"] = ["x"]
    document["features"]["sentiment"] = "daily" if arm.sentiment else "none"
    document["reward"]["sentiment_weight"] = arm.weight
    document["training"] |= {
        "start": START, "test_start": TEST_START, "live_start": LIVE_START, "folds": FOLDS, "holdout_sessions": HOLDOUT,
        "seeds": tuple(range(options.seeds)), "algorithm": options.algorithm, "timesteps": options.timesteps, "episode_sessions": 126,
    }  # fmt: skip
    return checked(document, source="ablation")


def trained(settings: Settings, market: Market, folds: Sequence[Fold], folder: Path) -> Trained:
    """The holdout's models are not trained: nothing here opens it."""
    dataset = Dataset(market, {"feature_hash": table_within(market).hash}, "", "")
    policies = []
    for seed in settings.training.seeds:
        for fold in folds[:-1]:
            with redirect_stdout(io.StringIO()):  # a line per rollout
                training.train_fold(training.Job(seed, settings), fold, dataset=dataset, folder=folder / f"{seed}-{fold.number}")
        policies.append(tuple(load_policy(folder / f"{seed}-{fold.number}") for fold in folds[:-1]))
    return Trained(settings.training.seeds, tuple(folds), tuple(policies))


def excess(arm: Arm, prices: Market, tweets: pd.DataFrame, options: argparse.Namespace) -> tuple[FloatArray, float]:
    """(T,) daily log growth less that of equal weight at the same kappa, and the mean daily turnover."""
    market = market_of(arm, prices, tweets)
    settings = settings_of(arm, market, options)
    folds = folds_of(market.sessions, settings)
    backtester, judged = Backtester(market, settings), folds[:-1]
    with tempfile.TemporaryDirectory() as scratch:
        models = trained(settings, market, folds, Path(scratch))
        book = backtester.walk([models.ensemble(fold.number) for fold in judged], judged, name=arm.name, cost_bps=STANDARD)
    even = EqualWeight(name=SLOW, kappa=settings.portfolio.kappa)
    equal = backtester.trade(even, judged[0], judged[-1], cost_bps=STANDARD, limited=False)
    return book.growth - equal.growth, float(book.turnover.mean())


def read(options: argparse.Namespace) -> tuple[Market, pd.DataFrame]:
    """The market of the names that have posts, up to the last session before `LIVE_START`."""
    tweets = pd.read_parquet(options.tweets)
    names = tuple(sorted(tweets["symbol"].unique()))
    own = read_own_bars(options.bars, adjusted=True, symbols=names)
    bars = own.bars[(own.bars["session"] >= HISTORY) & (own.bars["session"] < pd.Timestamp(LIVE_START))]
    return build_market(bars, own.actions, symbols=names), tweets


def correlations(market: Market) -> dict[str, tuple[float, float, int]]:
    """Of each column, over the sessions from `START` on: the mean of the daily rank correlation across names with the log return from the
    next open to the one after, its t by the long-run deviation, and the sessions in which it can be told."""
    ahead = np.full(market.close.shape, np.nan)
    ahead[:-2] = np.log(market.open[2:] / market.open[1:-1])
    found = {}
    for column, name in enumerate(SENTIMENT_NAMES[:5], start=len(TABLES["none"].features)):
        daily = []
        for row in np.flatnonzero(market.sessions >= np.datetime64(START)):
            values, moves = pd.Series(market.features[row, :, column]), pd.Series(ahead[row])
            if values.nunique() > 1 and moves.notna().all():
                daily.append(values.rank().corr(moves.rank()))
        series = np.array(daily)
        found[name] = (series.mean(), series.mean() / (long_run_deviation(series) / np.sqrt(len(series))), len(series))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bars", type=Path, required=True)
    parser.add_argument("--tweets", type=Path, required=True)
    parser.add_argument("--algorithm", choices=("direct", "ppo"), default="direct")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--timesteps", type=int, default=30_000)
    parser.add_argument("--correlations", action="store_true", help="train nothing")
    options = parser.parse_args(arguments)
    prices, tweets = read(options)
    base: FloatArray | None = None
    say = sys.stdout.write
    say("| rank correlation with the next session, t | " + " | ".join(SENTIMENT_NAMES[:5]) + " |\n" + "|---" * 6 + "|\n")
    for arm in [arm for arm in arms("direct") if arm.sentiment]:
        cells = [f"{mean:+.3f}, {t:+.1f}" for mean, t, _ in correlations(market_of(arm, prices, tweets)).values()]
        say(f"| {arm.name} | {' | '.join(cells)} |\n")
    say("\n")
    if options.correlations:
        return
    say("| arm | excess a year | 90 % interval | information ratio | turnover a day | against prices alone, 90 % interval |\n")
    say("|---|---|---|---|---|---|\n")
    for arm in arms(options.algorithm):
        found, turnover = excess(arm, prices, tweets, options)
        base = found if base is None else base
        say(f"| {arm.name} | {_percent(found)} | {information_ratio(found):.2f} | {turnover:.4f} | {_against(found, base)} |\n")
        sys.stdout.flush()
    assert base is not None
    least = detectable_ir(np.random.default_rng(0).normal(size=len(base)), mean_block=1)
    say(f"{len(base)} judged sessions; an information ratio below {least:.1f} cannot be told from none\n")


def _against(found: FloatArray, base: FloatArray) -> str:
    return "" if found is base else _percent(found - base).replace(" | ", ", ")


def _percent(daily: FloatArray) -> str:
    low, high = mean_interval(daily, level=0.90)
    return f"{daily.mean() * SESSIONS_PER_YEAR:+.2%} | {low * SESSIONS_PER_YEAR:+.2%} to {high * SESSIONS_PER_YEAR:+.2%}"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
