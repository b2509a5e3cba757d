"""The bundled data are what was committed, are sound, and become the corporate actions that history knows."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import exchange_calendars
import numpy as np
import pandas as pd
import pytest

from papertape.market_data import bundled
from papertape.market_data.bundled import DATA, BundledDataError
from trading_env.data.bars import ACTION_COLUMNS, BAR_COLUMNS, QUOTE_COLUMNS, validate
from trading_env.data.market import build_market


@pytest.fixture(scope="module")
def actions() -> pd.DataFrame:
    return bundled.corporate_actions()


def splits_of(actions: pd.DataFrame, symbol: str) -> dict[str, float]:
    own = actions[(actions["symbol"] == symbol) & (actions["kind"] == "split")]
    return {f"{row.ex_date:%Y-%m-%d}": row.value for row in own.itertuples()}


def test_every_session_of_the_exchange_is_there_and_no_other() -> None:
    expected = exchange_calendars.get_calendar("XNYS", start="2005-01-01").sessions_in_range("2005-01-03", "2021-03-31")
    assert bundled.sessions().equals(pd.DatetimeIndex(expected.tz_localize(None), name="session").astype("datetime64[us]"))
    assert len(bundled.sessions()) == 4089


def test_daily_bars_pass_every_rule_and_have_no_gap() -> None:
    bars = bundled.daily_bars()
    checked = validate(bars, sessions=bundled.sessions())
    assert tuple(bars.columns) == BAR_COLUMNS
    assert (len(checked.bars), len(checked.quarantined), len(checked.gaps)) == (35_138, 0, 0)
    first = checked.bars.groupby("symbol")["session"].min().dt.strftime("%Y-%m-%d")
    assert first[["QQQ", "FB", "GOOGL", "SPY"]].tolist() == ["2011-03-23", "2012-05-18", "2014-04-03", "2005-01-03"]
    assert (checked.bars["session"] >= "2020-01-01").groupby(checked.bars["symbol"]).sum()["SPY"] == 253 + 61


def test_prices_are_the_vendors_decimals_not_float32() -> None:
    first = bundled.daily_bars().query("symbol == 'AAPL'").iloc[0]
    assert first[["open", "high", "low", "close"]].tolist() == [64.78, 66.75, 62.60, 63.32]


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("AAPL", {"2005-02-28": 2.0, "2014-06-09": 7.0, "2020-08-31": 4.0}),
        ("AIG", {"2009-07-01": 0.05}),
        ("IWM", {"2005-06-09": 2.0}),
        ("GOOG", {"2014-04-03": 2.0, "2015-04-27": 1.0027}),
        ("SPY", {}),
    ],
)
def test_splits_are_those_of_history(actions: pd.DataFrame, symbol: str, expected: dict[str, float]) -> None:
    assert splits_of(actions, symbol) == pytest.approx(expected, abs=1e-12)


def test_dividends_are_the_dollars_that_were_declared(actions: pd.DataFrame) -> None:
    paid = actions[actions["kind"] == "dividend"].set_index(["symbol", "ex_date"])["value"]
    declared = {
        ("AAPL", "2012-08-09"): 2.65,
        ("AAPL", "2014-08-07"): 0.47,
        ("AAPL", "2020-02-07"): 0.77,
        ("AAPL", "2020-08-07"): 0.82,  # a share of before the 4:1 split
        ("AAPL", "2020-11-06"): 0.205,
        ("BAC", "2020-03-05"): 0.18,
        ("IBM", "2020-05-07"): 1.63,
    }
    for (symbol, day), cash in declared.items():
        assert paid[symbol, pd.Timestamp(day)] == pytest.approx(cash, abs=1e-3), (symbol, day)


def test_ex_dates_are_sessions_in_the_range(actions: pd.DataFrame) -> None:
    assert tuple(actions.columns) == ACTION_COLUMNS
    assert actions["ex_date"].isin(bundled.sessions()).all()
    assert not actions.duplicated(["symbol", "ex_date", "kind"]).any()


def test_without_the_correction_goog_would_halve_over_night(actions: pd.DataFrame) -> None:
    def log_return(table: pd.DataFrame) -> float:
        market = build_market(bundled.daily_bars(), table, symbols=["GOOG"])
        row = market.index_of("2014-04-03")
        return float(market.features[row, 0, 0])

    from_factors_alone = actions[~((actions["symbol"] == "GOOG") & (actions["ex_date"] == "2014-04-03"))]
    assert log_return(from_factors_alone) == pytest.approx(np.log(569.74 / 1135.10), abs=1e-9)
    assert log_return(actions) == pytest.approx(np.log(569.74 * 2 / 1135.10), abs=1e-9)


def test_after_adjustment_only_days_that_happened_are_large(actions: pd.DataFrame) -> None:
    bars = bundled.daily_bars()
    market = build_market(bars, actions, symbols=sorted(set(bars["symbol"])))
    returns = np.abs(market.features[:, :, 0])
    large = {(market.symbols[name], str(market.sessions[row])) for row, name in zip(*np.nonzero(returns > 0.25), strict=True)}
    aig_in_its_crisis = {day for symbol, day in large if symbol == "AIG"}
    assert np.nanmax(returns) < 1
    assert (min(aig_in_its_crisis), max(aig_in_its_crisis)) == ("2008-09-12", "2009-08-05")
    assert {(symbol, day) for symbol, day in large if symbol != "AIG"} == {
        ("BAC", "2008-10-07"),
        ("BAC", "2009-01-20"),
        ("BAC", "2009-01-21"),
        ("BAC", "2009-02-27"),
        ("BAC", "2009-04-09"),
        ("BAC", "2009-04-20"),
        ("FB", "2013-07-25"),  # its second quarter's earnings
        ("GOOG", "2008-09-30"),  # an erroneous close, and the way back
        ("GOOG", "2008-10-01"),
    }


def test_minute_quotes_are_known_only_when_their_minute_ends() -> None:
    quotes, trades = bundled.minute_quotes(), bundled.minute_trades()
    assert tuple(quotes.columns) == QUOTE_COLUMNS
    assert (len(quotes), len(trades)) == (24_142, 21_258)
    assert set(quotes["ts"].dt.second) == {59}
    assert set(trades["ts"].dt.second) == {0}


@pytest.mark.parametrize("name", ["daily_bars.parquet", "corrections.csv"])
def test_one_altered_byte_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data"
    shutil.copytree(DATA, folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundledDataError, match=rf"{name}: sha256 must be [0-9a-f]{{64}}, was [0-9a-f]{{64}}; restore it") as caught:
        bundled.corporate_actions(folder=folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["factors.parquet", "SHA256SUMS"])
def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data"
    shutil.copytree(DATA, folder)
    (folder / name).unlink()
    with pytest.raises(BundledDataError, match=rf"{name}: cannot be read .*; restore it with `git checkout -- data`"):
        bundled.factors(folder=folder)


def test_every_data_file_is_summed() -> None:
    listed = {line.split()[1] for line in (DATA / "SHA256SUMS").read_text().splitlines()}
    assert listed == {path.name for path in DATA.iterdir() if path.suffix in {".parquet", ".csv"}}


def test_the_bundle_script_is_idempotent(tmp_path: Path) -> None:
    """Fed with its own output under the source's names, the script makes the same tables again."""
    spec = importlib.util.spec_from_file_location("make_bundle", DATA / "make_bundle.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    names = {
        "daily_bars": "lean_daily_raw_unadjusted",
        "factors": "lean_factor_files",
        "minute_quotes": "lean_minute_quotes",
        "minute_trades": "lean_minute_trades",
    }
    for ours, theirs in names.items():
        table = pd.read_parquet(DATA / f"{ours}.parquet").rename(columns={"session": "date"})
        if ours == "daily_bars":
            table[["open", "high", "low", "close"]] = table[["open", "high", "low", "close"]].astype("float32")
        table.sample(frac=1, random_state=0).to_parquet(source / f"{theirs}.parquet")
    shutil.copy(DATA / "corrections.csv", target)
    script.main(source, target)
    for ours in names:
        pd.testing.assert_frame_equal(pd.read_parquet(target / f"{ours}.parquet"), pd.read_parquet(DATA / f"{ours}.parquet"))
    assert len((target / "SHA256SUMS").read_text().splitlines()) == 5
