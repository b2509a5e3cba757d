"""Who is a member when: from a list with dates, and by dollars traded; and what a market makes of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.markets import walk
from trading_env.data.bars import ACTION_COLUMNS, as_sessions
from trading_env.data.market import Market, build_market, from_table, to_table
from trading_env.data.membership import MembershipError, MostTraded, Spell, Spells
from trading_env.evaluation.backtest import backtest
from trading_env.evaluation.lookahead import History, find_changes, history_futures, market_record, trade
from trading_env.simulation.env import BatchedTradingEnv, EnvConfig
from trading_env.simulation.policy import EqualWeight, SeededRandom
from trading_env.simulation.portfolio import Costs, Rules

NO_ACTIONS = pd.DataFrame(columns=list(ACTION_COLUMNS))
FREE = Rules(cash_buffer=0.0, min_notional=0.0, costs=Costs(slippage_bps=0.0))


def bars_of(close: dict[str, np.ndarray], *, volume: float = 1e6, start: str = "2019-01-02") -> pd.DataFrame:
    """Generated bars of names by their closes; NaN is no bar."""
    days = pd.bdate_range(start, periods=len(next(iter(close.values())))).astype("datetime64[us]")
    tables = [
        pd.DataFrame({"symbol": name, "session": days, "open": c, "high": c * 1.01, "low": c * 0.99, "close": c, "volume": volume})
        for name, c in close.items()
    ]
    return pd.concat(tables, ignore_index=True).dropna(subset=["close"], ignore_index=True)


def random_bars(seed: int, *, names: int = 7, sessions: int = 130) -> pd.DataFrame:
    """Generated: walks of very different sizes that list late, end early and rest for weeks."""
    rng = np.random.default_rng(seed)
    close = {}
    for name in range(names):
        path = rng.uniform(5, 50) * np.exp(np.cumsum(rng.normal(0, 0.04, sessions)))
        begin, end = np.sort(rng.integers(0, sessions, 2)) if rng.random() < 0.5 else (0, sessions)
        rests = rng.integers(0, sessions)
        path[:begin] = path[end:] = np.nan
        path[rests : rests + 30] = np.nan if rng.random() < 0.3 else path[rests : rests + 30]
        close[f"N{name}"] = path
    close["N0"] = np.full(sessions, 10.0)
    return bars_of(close)


def test_the_most_traded_of_a_month_are_those_of_the_months_before() -> None:
    january, february, march = (np.arange(60) < 22), (np.arange(60) >= 22) & (np.arange(60) < 42), np.arange(60) >= 42
    bars = bars_of({"A": np.where(january, 100.0, 1.0), "B": np.where(february, 500.0, 1.0), "C": np.full(60, 10.0), "D": np.full(60, 9.0)})
    assert set(bars["session"].dt.month[bars["symbol"] == "A"]) == {1, 2, 3}
    members = MostTraded(2).spells(bars)
    assert members.on(date(2019, 1, 31)) == ()
    assert members.on(date(2019, 2, 1)) == ("A", "C")  # by January alone: B has not been much traded yet
    assert members.on(date(2019, 3, 1)) == ("A", "B")
    assert members.on(date(2019, 4, 1)) == ()  # the bars end: nobody knows
    assert march.any()


def test_equals_are_ranked_by_symbol_and_few_names_are_all_members() -> None:
    bars = bars_of({name: np.full(45, 10.0) for name in ("C", "A", "B")})
    assert MostTraded(2).spells(bars).on(date(2019, 2, 4)) == ("A", "B")
    assert MostTraded(9).spells(bars).on(date(2019, 2, 4)) == ("A", "B", "C")
    with pytest.raises(MembershipError, match="must be 2 names or more, was 1"):
        MostTraded(1)
    with pytest.raises(MembershipError, match="known from bars, there is none"):
        MostTraded(2).spells(bars.iloc[:0])


def test_a_name_that_ended_was_a_member_and_gives_its_place_up() -> None:
    big, small = np.full(110, 100.0), np.full(110, 1.0)
    bars = bars_of({"GONE": np.where(np.arange(110) < 50, big, np.nan), "SMALL": small, "TINY": small / 2})  # ends on 2019-03-12
    members = MostTraded(2).spells(bars)
    assert members.symbols == ("GONE", "SMALL", "TINY")
    assert members.on(date(2019, 4, 15)) == ("GONE", "SMALL")  # it was traded in March
    assert members.on(date(2019, 5, 2)) == ("SMALL", "TINY")


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), cut=st.integers(25, 128), names=st.integers(2, 5))
def test_membership_and_what_follows_from_it_depend_on_earlier_bars_alone(seed: int, cut: int, names: int) -> None:
    bars = random_bars(seed)
    rule = MostTraded(names)
    whole = rule.spells(bars)
    days = np.unique(as_sessions(bars["session"]))
    for other in (bars[bars["session"] <= days[cut]], bars.assign(volume=bars["volume"].where(bars["session"] <= days[cut], 7e9))):
        symbols = tuple(sorted(set(bars["symbol"])))
        np.testing.assert_array_equal(rule.spells(other).mask(days[: cut + 1], symbols), whole.mask(days[: cut + 1], symbols))
    ahead = np.datetime64(days[cut]).astype("datetime64[M]") + 1  # not even the members of the whole month know it
    month = bars["session"] < np.datetime64(days[cut]).astype("datetime64[M]").astype("datetime64[D]")
    if month.any():
        begun = days[(days.astype("datetime64[M]") < ahead)]
        recent = pd.concat([bars[month], bars[~month & (bars["session"] < ahead.astype("datetime64[D]"))].assign(volume=1.0)])
        np.testing.assert_array_equal(rule.spells(recent).mask(begun, symbols), whole.mask(begun, symbols))


def test_a_market_by_rule_knows_no_future_from_bars_to_features() -> None:
    rng = np.random.default_rng(3)
    close = {f"N{n}": 20 * np.exp(np.cumsum(rng.normal(0, 0.03, 420))) * (n + 1) for n in range(6)}
    close["N5"][350:] = np.nan
    history = History(bars_of(close), NO_ACTIONS.astype({"ex_date": "datetime64[us]", "value": "float64"}))

    def record(world: History) -> dict[str, np.ndarray]:
        return market_record(build_market(world.bars, world.actions, symbols=tuple(sorted(close)), members=MostTraded(4)))

    assert record(history)["leaving"].any()
    cuts = (300, 344, 349, 380)
    assert not find_changes(record, history, futures=history_futures, cuts=cuts)

    def traded(world: History) -> dict[str, np.ndarray]:
        market = build_market(world.bars, world.actions, symbols=tuple(sorted(close)), members=MostTraded(4))
        return trade(lambda _: SeededRandom(seed=1, kappa=0.3), market, rules=FREE, start=market.sessions[280], initial_cash=1e5)

    assert not find_changes(traded, history, futures=history_futures, cuts=cuts)


def test_members_rank_among_themselves_and_history_stays() -> None:
    """A name that is no member changes no rank and no context; its own features go on, so that it can join with a history."""
    rng = np.random.default_rng(5)
    close = {f"N{n}": 20 * np.exp(np.cumsum(rng.normal(0, 0.02, 330))) for n in range(5)}
    bars, names = bars_of(close), tuple(sorted(close))
    members = Spells((*(Spell(name, date(2019, 1, 1)) for name in names[:4]), Spell("N4", date(2020, 3, 20))))
    market = build_market(bars, NO_ACTIONS, symbols=names, members=members)
    without = build_market(bars[bars["symbol"] != "N4"], NO_ACTIONS, symbols=names[:4])
    joined = int(np.searchsorted(market.sessions, np.datetime64("2020-03-20")))
    np.testing.assert_array_equal(market.features[:joined, :4], without.features[:joined])
    np.testing.assert_array_equal(market.context[:joined], without.context[:joined])
    assert not market.tradable[:joined, 4].any()
    assert market.leaving[:joined, 4].all()
    assert market.tradable[joined:].all()
    assert not market.leaving[joined:].any()
    everyone = build_market(bars, NO_ACTIONS, symbols=names)
    np.testing.assert_array_equal(market.features[joined:], everyone.features[joined:])


def test_with_everyone_a_member_a_market_is_the_same_to_the_bit() -> None:
    rng = np.random.default_rng(6)
    close = {f"N{n}": 20 * np.exp(np.cumsum(rng.normal(0, 0.02, 330))) for n in range(4)}
    close["N3"][100:140] = np.nan
    bars, names = bars_of(close), tuple(sorted(close))
    ours, theirs = (
        build_market(bars, NO_ACTIONS, symbols=names, members=members)
        for members in (None, Spells(tuple(Spell(name, date(2000, 1, 1)) for name in names)))
    )
    for name, values in market_record(ours).items():
        np.testing.assert_array_equal(values, market_record(theirs)[name], err_msg=name)
    assert list(to_table(ours).columns) == list(to_table(theirs).columns)


def members_of(market: Market, member: np.ndarray) -> Market:
    return replace(market, tradable=market.tradable & member, leaving=np.isfinite(market.close) & ~member)


def test_a_table_keeps_who_leaves() -> None:
    rng = np.random.default_rng(7)
    close = {f"N{n}": 20 * np.exp(np.cumsum(rng.normal(0, 0.02, 330))) for n in range(3)}
    members = Spells((Spell("N0", date(2019, 1, 1)), Spell("N1", date(2019, 1, 1)), Spell("N2", date(2019, 1, 1), date(2020, 3, 20))))
    market = build_market(bars_of(close), NO_ACTIONS, symbols=("N0", "N1", "N2"), members=members)
    back = from_table(to_table(market))
    np.testing.assert_array_equal(back.leaving, market.leaving)
    np.testing.assert_array_equal(back.tradable, market.tradable)
    np.testing.assert_array_equal(back.only(["N2", "N0"]).leaving, market.leaving[:, [2, 0]])
    np.testing.assert_array_equal(back.rows("2020-03-16", "2020-03-25").leaving[:, 2], [False] * 4 + [True] * 4)


def leaver(*, ends: bool) -> tuple[Market, int]:
    """A walk of four names, of which S1 leaves at row 60, or ends there; and that row."""
    market = walk(sessions=100, assets=4, seed=11, eventful=False)
    member = np.ones(market.close.shape, dtype=bool)
    member[60:, 1] = False
    if ends:
        gone = np.where(member, 1.0, np.nan)
        columns = {name: getattr(market, name) * gone for name in ("open", "high", "low", "close", "volume")}
        market = replace(market, **columns, features=market.features * gone[..., None], tradable=market.tradable & member)
    return members_of(market, member), 60


@pytest.mark.parametrize("kappa", [0.05, 1.0])
def test_what_leaves_is_sold_whole_at_the_next_open_and_the_book_stays_invested(kappa: float) -> None:
    market, left = leaver(ends=False)
    start, end = market.sessions[40], market.sessions[80]
    book = backtest(market, EqualWeight(kappa=kappa), rules=FREE, start=start, end=end, initial_cash=1e5, limits=None)
    row = left - 40  # the session whose close first knows it; the next one sells
    assert book.quantities[row, 1] > 0
    assert (book.quantities[row + 1 :, 1] == 0).all()
    assert book.deltas[row + 1, 1] == -book.quantities[row, 1]
    np.testing.assert_allclose(book.weights.sum(axis=1), 1.0, atol=1e-12)
    assert (book.cash < 1e-6 * book.equity).all()
    stayed = [0, 2, 3]
    before, after = book.held[row, stayed], book.weights[row + 1, stayed]
    moved = (1 - kappa) * before / before.sum() + kappa / 3  # by kappa from what stays, as if the rest had never been held
    np.testing.assert_allclose(after, moved, rtol=1e-9)


def test_what_ended_is_carried_at_its_last_mark_member_or_not() -> None:
    market, left = leaver(ends=True)
    start, end = market.sessions[40], market.sessions[80]
    book = backtest(market, EqualWeight(), rules=FREE, start=start, end=end, initial_cash=1e5, limits=None)
    row = left - 40
    assert book.quantities[row - 1, 1] > 0
    assert (book.quantities[row:, 1] == book.quantities[row - 1, 1]).all()
    assert not market.leaving[left:, 1].any()


@pytest.mark.parametrize("actions", ["scores", "trades"])
def test_the_environment_sells_what_leaves(actions: str) -> None:
    market, left = leaver(ends=False)
    config = EnvConfig(rules=Rules(costs=Costs(slippage_bps=10)), kappa=0.1, episode_sessions=30, actions=actions, trade_share=0.01)  # type: ignore[arg-type]
    env = BatchedTradingEnv(market, num_envs=2, config=config)
    env.reset(seed=0, options={"session": market.sessions[left - 10]})
    hold = np.ones((2, 4)) if actions == "trades" else np.zeros((2, 4))
    held = [env.step(hold)[0][:, market.features.shape[-1] :: market.features.shape[-1] + 2][:, 1] for _ in range(20)]
    assert (np.array(held)[:10] > 0).all()
    assert (np.array(held)[10:] == 0).all()


def test_holding_a_benchmark_asks_no_membership() -> None:
    market, _ = leaver(ends=False)
    alone = market.alone("S1")
    assert alone.tradable.all()
    assert not alone.leaving.any()
    np.testing.assert_array_equal(market.alone("S0").tradable, market.only(["S0"]).tradable)
