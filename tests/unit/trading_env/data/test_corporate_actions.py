"""A rule for each kind of action, and what a break does to a name: its series begins anew, and nothing reads it as a crash."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from papertape.market_data import bundled
from trading_env.data.bars import BarsError, check_actions
from trading_env.data.corporate_actions import ACTION_RULES, BREAK, known_by, markdown, rule_of
from trading_env.data.features import ASSET_FEATURES, LOOKBACK
from trading_env.data.market import FEATURE_NAMES, Market, build_market

ROOT = Path(__file__).resolve().parents[4]
SPEC = ROOT / "tests" / "contract" / "specs" / "alpaca_market-data-api.json"
NAMES = ("SPY", "AAPL", "IBM")
DAY = "2019-03-04"


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    """Two years; from `DAY` on IBM has given a fifth of its worth away."""
    table = bundled.daily_bars()
    table = table[table["symbol"].isin(NAMES) & table["session"].between("2018-01-02", "2020-12-31")].copy()
    after = (table["symbol"] == "IBM") & (table["session"] >= DAY)
    table.loc[after, ["open", "high", "low", "close"]] *= 0.8
    return table


def spun_off(day: str = DAY) -> pd.DataFrame:
    row = pd.DataFrame({"symbol": ["IBM"], "ex_date": pd.to_datetime([day]), "kind": [BREAK], "value": [np.nan]})
    return pd.concat([bundled.corporate_actions(), row], ignore_index=True)


@pytest.fixture(scope="module")
def market(bars: pd.DataFrame) -> Market:
    return build_market(bars, spun_off(), symbols=NAMES)


def test_every_kind_that_the_vendor_lists_has_a_rule() -> None:
    schemas = json.loads(SPEC.read_text(encoding="utf-8"))["components"]["schemas"]
    assert ACTION_RULES.keys() == {listed.removesuffix("s") for listed in schemas["corporate_actions"]["properties"]}
    assert all(rule.advice for rule in ACTION_RULES.values() if rule.effect == BREAK)
    assert rule_of("something_new").effect == BREAK


def test_the_operator_s_page_has_the_table() -> None:
    assert markdown() in (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")


def test_a_break_is_no_crash(market: Market, bars: pd.DataFrame) -> None:
    row, column = market.index_of(DAY), NAMES.index("IBM")
    assert market.tradable[row - 1, column]
    assert not market.tradable[row : row + 252, column].any(), "no decision rests on a series that has just begun"
    assert np.isfinite(market.close[:, column]).all(), "what is held is valued all the same"
    daily = FEATURE_NAMES.index("return_1")
    assert np.isnan(market.features[row, column, daily])
    crashed = build_market(bars, bundled.corporate_actions(), symbols=NAMES)
    assert crashed.features[row, column, daily] < -0.2, "without the break it is one"


def test_from_a_break_on_a_name_is_one_that_was_listed_then(market: Market, bars: pd.DataFrame) -> None:
    listed = bars[(bars["symbol"] != "IBM") | (bars["session"] >= DAY)]
    fresh = build_market(listed, bundled.corporate_actions(), symbols=NAMES)
    row = market.index_of(DAY)
    np.testing.assert_array_equal(market.features[row:], fresh.features[row:])
    np.testing.assert_array_equal(market.context[row + LOOKBACK :], fresh.context[row + LOOKBACK :])
    np.testing.assert_array_equal(market.tradable[row:], fresh.tradable[row:])
    assert market.tradable[-1].all(), "a year later it is a name like the others"


def test_nothing_before_a_break_knows_of_it(market: Market, bars: pd.DataFrame) -> None:
    earlier = build_market(bars[bars["session"] < DAY], spun_off(), symbols=NAMES)
    row = market.index_of(DAY)
    for name in ("features", "context", "tradable", "close"):
        np.testing.assert_array_equal(getattr(market, name)[:row], getattr(earlier, name))


def test_two_breaks_make_three_series(bars: pd.DataFrame) -> None:
    actions = pd.concat([spun_off("2018-06-01"), spun_off("2019-03-04")], ignore_index=True).drop_duplicates()
    column = NAMES.index("IBM")
    market = build_market(bars, actions, symbols=NAMES)
    last = build_market(bars, spun_off(), symbols=NAMES)
    row = market.index_of(DAY)
    np.testing.assert_array_equal(market.features[row:], last.features[row:])
    assert not market.tradable[:row, column].any()


def test_a_row_holds_what_was_known_at_its_close(bars: pd.DataFrame) -> None:
    """IBM's spin-off and a split of AAPL are told twenty sessions late: until then rows are as without, then as if known in time."""
    quiet, at = bundled.corporate_actions(), pd.Timestamp(DAY)
    split = pd.DataFrame({"symbol": ["AAPL"], "ex_date": [at], "kind": ["split"], "value": [2.0]})
    both = pd.concat([spun_off(), split], ignore_index=True)
    never, always = (build_market(bars, actions, symbols=NAMES) for actions in (quiet, both))
    told = never.sessions[never.index_of(DAY) + 20]
    late = both["ex_date"].eq(at) & both["kind"].isin([BREAK, "split"])
    market = build_market(bars, both.assign(known=pd.to_datetime(pd.Series(told, index=both.index)).where(late)), symbols=NAMES)
    row = market.index_of(told)
    asset = slice(0, len(ASSET_FEATURES))
    np.testing.assert_array_equal(market.features[:row], never.features[:row])
    np.testing.assert_array_equal(market.features[row:, :, asset], always.features[row:, :, asset])
    np.testing.assert_array_equal(market.split, always.split, err_msg="what is held splits on the day, whoever knows it")
    cut = build_market(bars[bars["session"] < pd.Timestamp(told)], quiet, symbols=NAMES)
    np.testing.assert_array_equal(market.context[:row], cut.context)


def test_only_a_break_may_lack_a_value() -> None:
    rows = pd.DataFrame({"symbol": ["IBM"], "ex_date": pd.to_datetime([DAY]), "kind": [BREAK], "value": [None]})
    assert check_actions(rows)["kind"].tolist() == [BREAK]
    with pytest.raises(BarsError, match="IBM"):
        check_actions(rows.assign(kind="split"))


def test_a_late_action_is_known_from_its_session_on() -> None:
    on_time, late = {"symbol": "SPY"}, {"symbol": "SPY", "known": "2019-03-05"}
    assert known_by([on_time, late], date(2019, 3, 4)) == [on_time]
    assert known_by([on_time, late], date(2019, 3, 5)) == [on_time, late]
