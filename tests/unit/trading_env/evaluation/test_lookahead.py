"""What is honest passes; in features, market, observation, environment and policy each way of cheating is found and named."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from gymnasium.vector import VectorEnv
from typer.testing import CliRunner

from papertape import command_line
from papertape.research.lookahead_check import SOURCES, invented_posts
from tests.markets import walk
from trading_env.data.bars import BAR_COLUMNS
from trading_env.data.market import Market, build_market
from trading_env.data.observation import Observation
from trading_env.data.sentiment import SENTIMENT_NAMES
from trading_env.evaluation.lookahead import (
    FILLED,
    History,
    Leak,
    LookaheadError,
    PostHistory,
    find_changes,
    find_leaks,
    history_futures,
    market_futures,
    market_record,
    open_futures,
    play,
    post_futures,
    post_record,
    trade,
)
from trading_env.simulation.env import BatchedTradingEnv, EnvConfig
from trading_env.simulation.policy import EqualWeight, Policy, SeededRandom
from trading_env.simulation.portfolio import Costs, Rules
from trading_env.simulation.rewards import Reward

DAYS = 60
WALK = 100 * np.exp(np.cumsum(np.random.default_rng(5).normal(0, 0.02, DAYS)))
BARS = pd.DataFrame(
    {"open": WALK, "high": WALK * 1.01, "low": WALK * 0.99, "close": WALK * 1.002, "volume": 1e6},
    index=pd.bdate_range("2020-01-01", periods=DAYS),
)
CUTS = (2, 20, 40, 58)


def honest(bars: pd.DataFrame) -> pd.DataFrame:
    close = bars["close"]
    return pd.DataFrame({"ret": np.log(close).diff(), "mean": close / close.rolling(5).mean()})


def test_honest_features_have_no_leak() -> None:
    assert find_leaks(honest, BARS, cuts=CUTS) == []


@pytest.mark.parametrize(
    ("name", "cheat"),
    [
        ("tomorrow", lambda bars: bars["close"].shift(-1)),
        ("filled backwards", lambda bars: bars["close"].rolling(5).mean().bfill()),
        ("centred window", lambda bars: bars["close"].rolling(5, center=True).mean()),
        ("scaled by the whole", lambda bars: (bars["close"] - bars["close"].mean()) / bars["close"].std()),
        ("adjusted backwards", lambda bars: bars["close"] / bars["close"].iloc[-1]),
        ("rank in all of history", lambda bars: bars["close"].rank()),
    ],
)
def test_each_way_of_cheating_is_named(name: str, cheat: object) -> None:
    leaks = find_leaks(lambda bars: honest(bars).assign(**{name: cheat(bars)}), BARS, cuts=CUTS)  # type: ignore[operator]
    assert [leak.column for leak in leaks] == [name]
    assert all(leak.changed <= leak.cut for leak in leaks)


def test_a_leak_says_which_value_changed() -> None:
    leaks = find_leaks(lambda bars: pd.DataFrame({"next": bars["close"].shift(-1)}), BARS, cuts=(20,))
    assert leaks == [Leak(column="next", cut=20, changed=20, how="poisoned")]


def test_each_of_the_two_ways_finds_what_the_other_does_not() -> None:
    def by_value(bars: pd.DataFrame) -> pd.DataFrame:
        later = bars["close"].iloc[25] if len(bars) > 25 else WALK[25] * 1.002
        return pd.DataFrame({"peek": np.full(len(bars), later)})

    def by_length(bars: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"peek": np.arange(len(bars)) / len(bars)})

    assert [leak.how for leak in find_leaks(by_value, BARS, cuts=(20,))] == ["poisoned"]
    assert [leak.how for leak in find_leaks(by_length, BARS, cuts=(20,))] == ["truncated"]


def test_what_is_no_feature_function_is_refused() -> None:
    ticks = itertools.count()
    with pytest.raises(LookaheadError, match="one row per bar, 60, was 59 rows"):
        find_leaks(lambda bars: honest(bars).iloc[1:], BARS, cuts=CUTS)
    with pytest.raises(LookaheadError, match="was Series"):
        find_leaks(lambda bars: bars["close"], BARS, cuts=CUTS)  # type: ignore[arg-type,return-value]
    with pytest.raises(LookaheadError, match="ret differed between two runs"):
        find_leaks(lambda bars: honest(bars) + next(ticks), BARS, cuts=CUTS)
    with pytest.raises(LookaheadError, match=r"cuts must lie in \[0, 58\] for 60 rows, was 59"):
        find_leaks(honest, BARS, cuts=(59,))
    with pytest.raises(LookaheadError, match="columns must not depend on the bars"):
        find_leaks(lambda bars: pd.DataFrame({f"{len(bars)}": bars["close"]}), BARS, cuts=(20,))
    with pytest.raises(LookaheadError, match="after row 20 truncated: raised IndexError"):
        find_leaks(lambda bars: pd.DataFrame({"x": np.zeros(len(bars)) + 0 * bars["close"].iloc[30]}), BARS, cuts=(20,))


TABLE = pd.concat(
    [BARS.mul(scale).rename_axis("session").reset_index().assign(symbol=name) for name, scale in (("A", 1.0), ("B", 3.0))]
).sort_values(["session", "symbol"], ignore_index=True)
SESSION_ENDS = [2 * cut + 1 for cut in CUTS]


def test_a_function_of_many_names_is_checked_by_session() -> None:
    def ranks(table: pd.DataFrame) -> pd.DataFrame:
        returns = table.groupby("symbol")["close"].pct_change()
        return pd.DataFrame({"rank": returns.groupby(table["session"]).rank()})

    def by_name(table: pd.DataFrame) -> pd.DataFrame:
        parts = [own.assign(mean=own["close"].rolling(5).mean()) for _, own in table.groupby("symbol")]
        return pd.concat(parts)[["mean"]]

    def cheat(table: pd.DataFrame) -> pd.DataFrame:
        return by_name(table).assign(next=table.groupby("symbol")["close"].shift(-1))

    assert find_leaks(ranks, TABLE, cuts=SESSION_ENDS) == []
    assert find_leaks(by_name, TABLE, cuts=SESSION_ENDS) == []
    assert [leak.column for leak in find_leaks(cheat, TABLE, cuts=SESSION_ENDS)] == ["next"]


RAW = walk(sessions=330, assets=3, seed=4, eventful=False)
HISTORY = History(
    bars=pd.DataFrame(
        {
            "symbol": np.tile(RAW.symbols, len(RAW)),
            "session": np.repeat(RAW.sessions.astype("datetime64[us]"), 3),
            **{name: getattr(RAW, name).ravel() for name in ("open", "high", "low", "close", "volume")},
        }
    )[list(BAR_COLUMNS)].drop(index=[3 * 329 + 2]),
    actions=pd.DataFrame(
        {
            "symbol": ["S0", "S1", "S0"],
            "ex_date": RAW.sessions[[100, 280, 310]].astype("datetime64[us]"),
            "kind": ["split", "dividend", "split"],
            "value": [2.0, 0.5, 0.25],
        }
    ),
)
LATE = (260, 290, 327)


def built(history: History) -> Market:
    return build_market(history.bars, history.actions, symbols=RAW.symbols)


def adjusted_backwards(history: History) -> Market:
    market = built(history)
    close = market.close * np.cumprod(market.split, axis=0) / np.prod(market.split, axis=0)
    return replace(market, features=np.concatenate([np.log(close)[..., None], market.features[..., 1:]], axis=-1))


def standardised_by_all(history: History) -> Market:
    market = built(history)
    return replace(market, context=(market.context - np.nanmean(market.context, axis=0)) / np.nanstd(market.context, axis=0))


def survivors_only(history: History) -> Market:
    market = built(history)
    return replace(market, tradable=market.tradable & np.isfinite(market.close[-1]))


def test_the_market_of_bars_and_events_has_no_leak() -> None:
    assert find_changes(lambda known: market_record(built(known)), HISTORY, cuts=(2, 99, *LATE), futures=history_futures) == []


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (adjusted_backwards, ["return_1"]),
        (standardised_by_all, ["market_breadth", "market_return_21", "market_volatility_21", "market_dispersion_21"]),
        (survivors_only, ["tradable"]),
    ],
)
def test_a_market_that_is_built_with_hindsight_is_named(build: Callable[[History], Market], named: list[str]) -> None:
    leaks = find_changes(lambda known: market_record(build(known)), HISTORY, cuts=LATE, futures=history_futures)
    assert [leak.column for leak in leaks] == named


RULES = Rules(costs=Costs(fee_bps=2.0, slippage_bps=10.0, impact=1.0, max_volume_share=0.01))
MARKET = walk(sessions=80, assets=4, seed=1)
START = MARKET.sessions[30]


def environment(market: Market, sessions: int, **options: Any) -> BatchedTradingEnv:
    return BatchedTradingEnv(market, num_envs=3, config=EnvConfig(rules=RULES, episode_sessions=sessions, **options))


class Peeking(BatchedTradingEnv):
    """The observation holds the next session's features."""

    def __init__(self, market: Market, sessions: int) -> None:
        super().__init__(
            replace(market, features=np.concatenate([market.features[1:], market.features[-1:]])),
            num_envs=3,
            config=EnvConfig(rules=RULES, episode_sessions=sessions),
        )


class Standardised(BatchedTradingEnv):
    """The features are scaled by all of history, later sessions included."""

    def __init__(self, market: Market, sessions: int) -> None:
        super().__init__(
            replace(market, features=market.features / np.nanstd(market.features, axis=(0, 1))),
            num_envs=3,
            config=EnvConfig(rules=RULES, episode_sessions=sessions),
        )


class Rewarding(BatchedTradingEnv):
    """The reward pays for the session after the one that was traded."""

    def __init__(self, market: Market, sessions: int) -> None:
        super().__init__(market, num_envs=3, config=EnvConfig(rules=RULES, episode_sessions=sessions))
        self.later = np.append(np.nanmean(np.log(market.close[1:] / market.open[1:]), axis=1), 0.0)
        self.row = market.index_of(START)

    def step(self, actions: Any) -> Any:
        observation, reward, *rest = super().step(actions)
        self.row += 1
        return observation, reward + self.later[self.row], *rest


def leaks_of(make: Callable[[Market, int], VectorEnv[Any, Any, Any]]) -> list[str]:
    leaks = find_changes(lambda known: play(make, known, start=START), MARKET, cuts=(31, 50, 77), futures=market_futures)
    return [leak.column for leak in leaks]


@pytest.mark.parametrize(
    "options",
    [
        {"start": "random"},
        {"reward": Reward(kind="log_growth", drawdown_penalty=1.0, turnover_penalty=1.0)},
        {"reward": Reward(kind="differential_sharpe")},
        {"names": 3, "start": "random"},
        {"actions": "trades", "start": "cash"},
    ],
)
def test_observations_rewards_and_books_of_the_environment_have_no_leak(options: dict[str, Any]) -> None:
    make = partial(environment, **options)
    assert leaks_of(make) == []
    record = play(make, MARKET, start=START)
    assert record.keys() == {"observation", "reward", "value", "log_growth", "baseline_log_growth", "turnover", "costs"}
    assert np.isfinite(record["observation"][30:]).all()
    assert np.isfinite(record["reward"][31:]).all()
    assert np.isnan(record["observation"][:30]).all()
    assert record["turnover"][31:].mean() > 0.01, "books that do not trade prove nothing"


@pytest.mark.parametrize(("cheat", "named"), [(Peeking, "observation"), (Standardised, "observation"), (Rewarding, "reward")])
def test_an_environment_that_knows_the_future_is_named(cheat: type[VectorEnv[Any, Any, Any]], named: str) -> None:
    assert leaks_of(cheat) == [named]


@dataclass(frozen=True)
class Clairvoyant:
    """Scores by the return from the next open, at which it trades; on the last day it knows by its own."""

    market: Market
    name: str = "clairvoyant"
    kappa: float = 0.1

    def scores(self, observation: Observation) -> np.ndarray:
        row = min(self.market.index_of(observation.as_of) + 1, len(self.market) - 1)
        return np.nan_to_num(np.log(self.market.close[row] / self.market.open[row]))


@dataclass(frozen=True)
class Fitted:
    """Scores by what rose over all of the market that it was made with: trained on what it is tested on."""

    market: Market
    name: str = "fitted"
    kappa: float = 0.1

    def scores(self, observation: Observation) -> np.ndarray:  # noqa: ARG002
        return np.nan_to_num(np.nanmean(np.log(self.market.close / self.market.open), axis=0))


@dataclass(frozen=True)
class Momentum(Fitted):
    """The same, of what had risen by then."""

    def scores(self, observation: Observation) -> np.ndarray:
        known = slice(0, self.market.index_of(observation.as_of) + 1)
        return 100 * np.nan_to_num(np.nanmean(np.log(self.market.close[known] / self.market.open[known]), axis=0))


def traded(make: Callable[[Market], Policy]) -> Callable[[Market], dict[str, np.ndarray]]:
    return lambda known: trade(make, known, rules=RULES, start=START, initial_cash=1e5)


@pytest.mark.parametrize("make", [lambda _: EqualWeight(), lambda _: SeededRandom(3, kappa=0.1), Momentum])
def test_decisions_and_books_of_an_honest_policy_have_no_leak(make: Callable[[Market], Policy]) -> None:
    assert find_changes(traded(make), MARKET, cuts=(31, 50, 78), futures=market_futures) == []


@pytest.mark.parametrize("make", [Clairvoyant, Fitted])
@pytest.mark.parametrize("cut", [31, 50, 78])
def test_a_policy_that_reads_the_markets_future_is_named(make: Callable[[Market], Policy], cut: int) -> None:
    leaks = find_changes(traded(make), MARKET, cuts=(cut,), futures=market_futures)
    assert {"scores", "weights"} <= {leak.column for leak in leaks}
    first = {leak.column: leak.changed for leak in leaks}
    assert first["scores"] == (cut if make is Clairvoyant else 29)


def test_the_last_decision_is_compared_without_a_session_that_could_fill_it() -> None:
    whole, cut = traded(Momentum)(MARKET), traded(Momentum)(MARKET.rows(MARKET.sessions[0], MARKET.sessions[50]))
    for name in ("scores", "weights"):
        assert len(cut[name]) == 51
        assert cut[name][29:].tobytes() == whole[name][29:51].tobytes()
    assert np.isnan(whole["equity"][:30]).all()
    assert np.isfinite(whole["equity"][30:]).all()


def fills_of(record: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values for name, values in record.items() if name in FILLED}


@pytest.mark.parametrize("record", [traded(Momentum), lambda known: play(environment, known, start=START)], ids=["policy", "environment"])
def test_a_fill_knows_the_open_and_nothing_after_it(record: Callable[[Market], dict[str, np.ndarray]]) -> None:
    assert find_changes(lambda known: fills_of(record(known)), MARKET, cuts=(31, 50, 78), futures=open_futures) == []


def test_a_fill_at_the_close_is_named() -> None:
    def at_the_close(known: Market) -> dict[str, np.ndarray]:
        return fills_of(traded(Momentum)(replace(known, open=known.close)))

    leaks = find_changes(at_the_close, MARKET, cuts=(50,), futures=open_futures)
    assert {"cash", "deltas", "quantities"} <= {leak.column for leak in leaks}
    assert all(leak.changed == 50 for leak in leaks)
    assert find_changes(at_the_close, MARKET, cuts=(50,), futures=market_futures) == [], "only the finer cut can tell"


def run_command(*arguments: str) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(command_line.app, ["lookahead", *arguments])
    return result.exit_code, result.output


def test_the_command_names_a_user_s_column_that_cheats(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import pandas as pd\n"
        "def features(bars):\n"
        "    close = bars['close']\n"
        "    return pd.DataFrame({'ret': close.pct_change(), 'z': close / close.mean()})\n"
        "def good(bars):\n"
        "    return features(bars)[['ret']]\n"
        "def ranks(table):\n"
        "    returns = table.groupby('symbol')['close'].pct_change()\n"
        "    later = table.groupby('symbol')['close'].shift(-1)\n"
        "    return pd.DataFrame({'rank': returns.groupby(table['session']).rank(), 'later': later})\n"
        "def broken(bars):\n"
        "    return bars['nothing']\n"
    )
    status, said = run_command(f"{tmp_path}/mine.py:features")
    assert status == 1
    assert "z " in said
    assert "ret" not in said
    assert run_command(f"{tmp_path}/mine.py:good", "--symbol", "AIG")[0] == 0
    status, said = run_command(f"{tmp_path}/mine.py:ranks", "--symbol", "all")
    assert status == 1
    assert "later" in said
    assert "│ rank" not in said
    for name, told in {"broken": "raised KeyError: 'nothing'", "absent": "has no function absent"}.items():
        status, said = run_command(f"{tmp_path}/mine.py:{name}")
        assert status == 1
        assert told in said
    assert "must be named path/to/file.py:function, was nowhere" in run_command("nowhere")[1]
    assert "--symbol must be all or one of AAPL, AIG" in run_command(f"{tmp_path}/mine.py:good", "--symbol", "TSLA")[1]


POSTS = invented_posts(BARS.index.to_numpy().astype("datetime64[D]"), symbols=("AAA", "BBB"))
sentiment_record = partial(post_record, symbols=("AAA", "BBB"), sources=SOURCES)


def test_sentiment_columns_have_no_leak() -> None:
    whole = sentiment_record(POSTS)
    assert list(whole) == list(SENTIMENT_NAMES)
    assert all(values.std() > 0 for values in whole.values())
    assert find_changes(sentiment_record, POSTS, cuts=CUTS, futures=post_futures) == []


def an_hour_late(world: PostHistory) -> PostHistory:
    """What is received an hour after the close passes for known at it."""
    return replace(world, closes=world.closes + np.timedelta64(2, "h"))


def counted_against_the_whole_history(world: PostHistory) -> PostHistory:
    """Only runs with more posts than the mean of all runs, past and future, are believed."""
    mean = np.mean([len(run.posts) for run in world.runs])
    return replace(world, runs=tuple(run for run in world.runs if len(run.posts) >= mean))


@pytest.mark.parametrize("cheat", [an_hour_late, counted_against_the_whole_history])
def test_a_post_from_the_future_is_found(cheat: Callable[[PostHistory], PostHistory]) -> None:
    leaks = find_changes(lambda world: sentiment_record(cheat(world)), POSTS, cuts=CUTS, futures=post_futures)
    assert "sentiment" in {leak.column for leak in leaks}
