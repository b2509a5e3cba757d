"""A backtest beside what it is compared with: what is skill, what is written, and the same from a notebook with costs and limits on."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import papertape
from learning.configuration import rules_at
from papertape.market_data import bundled
from papertape.research.backtest import BacktestError, ComparedBacktest, compare
from papertape.research.backtest_display import files_of, tables, write
from papertape.research.study import Study
from schema.trading_rules import limits_of, rules_of
from tests import small_run
from trading_env.data.observation import Observation
from trading_env.evaluation import statistics
from trading_env.evaluation.backtest import backtest
from trading_env.evaluation.lookahead import History
from trading_env.simulation.policy import EqualWeight, SeededRandom

FIRST, LAST = small_run.DAYS[300], small_run.DAYS[420]
NOTHING = History(pd.DataFrame(), pd.DataFrame())


@pytest.fixture(scope="module")
def study() -> Study:
    return Study(small_run.settings(), NOTHING, small_run.market(), notes=("a note",), bundled=False, arguments="")


@pytest.fixture(scope="module")
def found(study: Study) -> ComparedBacktest:
    return compare(study, SeededRandom(7, kappa=0.2), start=FIRST.astype(object), end=LAST.astype(object))


def test_skill_is_against_equal_weight_daily_and_at_the_policys_own_kappa_at_each_cost(study: Study, found: ComparedBacktest) -> None:
    def traded(policy, *, cost, limits=None):
        rules = rules_at(study.settings, cost_bps=cost)
        return backtest(study.market, policy, rules=rules, start=FIRST, end=LAST, initial_cash=100_000.0, limits=limits).growth

    assert list(found.skill) == [0, 10, 20]
    for cost, skill in found.skill.items():
        own = traded(SeededRandom(7, kappa=0.2), cost=cost, limits=limits_of(study.settings))
        daily, slow = own - traded(EqualWeight(), cost=cost), own - traded(EqualWeight(kappa=0.2), cost=cost)
        assert skill.excess_bp == pytest.approx(252e4 * daily.mean(), rel=1e-9)
        assert skill.excess_kappa_bp == pytest.approx(252e4 * slow.mean(), rel=1e-9)
        assert skill.information_ratio == pytest.approx(statistics.information_ratio(daily), rel=1e-9)
        assert skill.information_ratio_kappa == pytest.approx(statistics.information_ratio(slow), rel=1e-9)
        assert skill.tracking_error == pytest.approx(daily.std(ddof=1) * 252**0.5, rel=1e-9)
    assert found.skill[0].excess_bp > found.skill[20].excess_bp


def test_equal_weight_at_its_own_kappa_has_no_skill(study: Study) -> None:
    found = compare(study, EqualWeight(kappa=0.3), start=FIRST.astype(object), end=LAST.astype(object))
    for skill in found.skill.values():
        assert skill.excess_kappa_bp == 0
        assert np.isnan(skill.information_ratio_kappa)
        assert skill.excess_bp != 0  # the cost that it saves, or pays later


def test_costs_and_limits_are_on_unless_the_settings_say_otherwise(study: Study) -> None:
    @dataclass
    class AllIn:
        name: str = "all in"
        kappa: float = 1.0

        def scores(self, observation: Observation) -> np.ndarray:
            return np.where(np.arange(len(observation.symbols)) == 0, 10.0, -10.0)

    tight = replace(study, settings=small_run.settings(risk={"max_weight": 0.6}))
    found = papertape.backtest(tight, AllIn(), start=str(FIRST), end=str(LAST))
    assert found.policy.costs.sum() == 0.0  # its one order is denied each session
    assert len(found.policy.denied) == len(found.policy.sessions)
    assert "max_weight" in found.policy.denied[0]
    free = papertape.backtest(study, AllIn(), start=str(FIRST), end=str(LAST))
    assert free.policy.denied == ()
    assert free.policy.costs.sum() > 90.0  # 10 bp of the 100,000 that it buys


def test_tables_hold_the_book_the_weights_and_the_trades(found: ComparedBacktest, study: Study) -> None:
    curve, weights, trades = found.curve, found.weights, found.trades
    assert len(curve) == 121
    np.testing.assert_array_equal(curve["equity"], found.policy.equity)
    np.testing.assert_array_equal(curve["equal_weight_daily_equity"], found.equal_weight.equity)
    assert {"equal_weight_at_kappa_equity", "benchmark_equity", "in_sample"} <= set(curve)
    assert len(weights) == 121 * 3
    assert weights["symbol"].tolist()[:4] == ["AAA", "BBB", "CCC", "AAA"]
    np.testing.assert_array_equal(weights["held"].to_numpy().reshape(121, 3), found.policy.held)
    # what was traded adds up to what is held, for there is no split, and to what was paid
    bought = trades.groupby("symbol")["quantity"].sum()
    np.testing.assert_allclose(bought.to_numpy(), found.policy.quantities[-1], atol=1e-7)
    np.testing.assert_allclose(trades["notional"].abs().sum() * 1e-3, found.policy.costs.sum(), rtol=1e-9)
    assert set(trades.loc[trades["quantity"] < 0, "side"]) == {"sell"}


@pytest.mark.parametrize(
    ("out", "names"),
    [
        ("made", ["made/curve.csv", "made/weights.csv", "made/trades.csv"]),
        ("mine.csv", ["mine.csv", "mine-weights.csv", "mine-trades.csv"]),
        ("new/mine.parquet", ["new/mine.parquet", "new/mine-weights.parquet", "new/mine-trades.parquet"]),
    ],
)
def test_files_hold_the_tables_to_the_last_digit(found: ComparedBacktest, tmp_path: Path, out: str, names: list[str]) -> None:
    files = files_of(tmp_path / out)
    assert [str(path.relative_to(tmp_path)) for path in files.values()] == names
    for name, path in files.items():
        write(getattr(found, name), path)
        read = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, parse_dates=["session"])
        expected = getattr(found, name)
        assert list(read) == list(expected)
        for column in expected.select_dtypes("number"):
            np.testing.assert_array_equal(read[column], expected[column])
        np.testing.assert_array_equal(
            read["session"].to_numpy().astype("datetime64[D]"), expected["session"].to_numpy().astype("datetime64[D]")
        )


def test_a_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("my bars", encoding="utf-8")
    with pytest.raises(BacktestError, match=r"mine\.csv is there already; remove it or choose another name"):
        files_of(tmp_path / "mine.csv")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "trades.csv").touch()
    with pytest.raises(BacktestError, match=r"made/trades\.csv is there already"):
        files_of(tmp_path / "made")
    with pytest.raises(BacktestError, match=r"--out must be a folder, or end in \.csv or \.parquet, was .*mine\.xlsx"):
        files_of(tmp_path / "mine.xlsx")
    with pytest.raises(BacktestError, match=r"mine\.csv is a file, not a folder"):
        files_of(tmp_path / "mine.csv" / "below")


def test_the_numbers_of_a_table_are_whole_on_a_narrow_terminal(found: ComparedBacktest) -> None:
    costly = {cost: replace(skill, excess_bp=-12345.6, excess_kappa_bp=-12345.6) for cost, skill in found.skill.items()}
    printed = io.StringIO()
    Console(file=printed, width=80).print(tables(replace(found, skill=costly), name="one"))
    assert printed.getvalue().count("-12345.6") == 6
    assert "…" not in printed.getvalue()


def test_one_session_has_no_ratio_and_is_shown_all_the_same(study: Study) -> None:
    found = compare(study, EqualWeight(kappa=0.3), start=FIRST.astype(object), end=FIRST.astype(object))
    assert found.skill == {}
    assert len(tables(found, name="one").renderables) == 1


def test_a_notebook_has_a_study_a_backtest_and_an_environment(tmp_path: Path) -> None:
    daily = bundled.daily_bars()
    bars = tmp_path / "mine.csv"
    daily[daily["symbol"].isin(["AAPL", "IBM", "SPY"]) & daily["session"].between("2017-01-01", "2019-12-31")].to_csv(bars, index=False)
    mine = papertape.study(bars, adjusted=True, symbols=["AAPL", "SPY"])
    assert mine.market.symbols == ("AAPL", "SPY")
    found = papertape.backtest(mine, "random:3", start="2019-01-02", end="2019-03-29")
    assert str(found.policy.sessions[0]) == "2019-01-02"
    assert found.policy.costs.sum() > 0
    books = papertape.environment(mine, books=2, end="2019-06-28")
    config = books._simulation.config
    assert (config.rules, config.limits) == (rules_of(mine.settings), limits_of(mine.settings))
    books.reset(seed=0)
    assert (books.step(np.array([[3.0, -3.0], [-3.0, 3.0]]))[4]["costs"] > 0).all()
    with pytest.raises(BacktestError, match="start must be a date like 2020-01-02, was spring"):
        papertape.backtest(mine, start="spring")
