"""Features against a second computation of their formulas, and at the edges that formulas name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from papertape.market_data import bundled
from trading_env.data import features as table
from trading_env.data.bars import Array, adjust_forward
from trading_env.data.features import (
    ASSET_FEATURES,
    CONTEXT,
    FEATURE_HASH,
    FEATURES,
    RANK_FEATURES,
    FeaturesError,
    asset_features,
    context_features,
    cross_section,
    features,
)
from trading_env.data.market import FEATURE_NAMES, Market, build_market

UNIVERSE = ("SPY", "QQQ", "IWM", "AAPL", "AIG", "BAC", "GOOG", "IBM")
ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def market() -> Market:
    return build_market(bundled.daily_bars(), bundled.corporate_actions(), symbols=UNIVERSE)


@pytest.fixture(scope="module")
def adjusted(market: Market) -> dict[str, Array]:
    result = adjust_forward(
        open=market.open,
        high=market.high,
        low=market.low,
        close=market.close,
        volume=market.volume,
        split=market.split,
        dividend=market.dividend,
    )
    return {name: getattr(result, name) for name in ("open", "high", "low", "close", "volume")}


def by_name(values: Array) -> dict[str, Array]:
    return {feature.name: values[..., column] for column, feature in enumerate(ASSET_FEATURES)}


def second_computation(bars: pd.DataFrame) -> dict[str, pd.Series]:
    """The formulas again, in pandas, without TA-Lib and without any of our code."""
    opened, high, low, close, volume = (bars[name] for name in ("open", "high", "low", "close", "volume"))
    daily = np.log(close / close.shift(1))
    change = close.diff()
    wilder = {"alpha": 1 / 14, "adjust": False}
    gain, loss = change.clip(lower=0).iloc[1:].ewm(**wilder).mean(), (-change).clip(lower=0).iloc[1:].ewm(**wilder).mean()
    line = close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean()
    mean, sd = close.rolling(20).mean(), close.rolling(20).std(ddof=0)
    sigma = {window: daily.rolling(window).std(ddof=0) for window in (21, 63)}
    score = (volume - volume.rolling(63).mean()) / volume.rolling(63).std(ddof=0)
    return {
        **{f"return_{k}": np.log(close / close.shift(k)) for k in (1, 5, 21, 63, 126)},
        "gap": np.log(opened / close.shift(1)),
        "overnight_21": np.log(opened / close.shift(1)).rolling(21).sum(),
        "intraday_21": np.log(close / opened).rolling(21).sum(),
        "range": np.log(high / low).clip(upper=0.5),
        "location": (close - low) / (high - low) - 0.5,
        "rsi_14": (gain / (gain + loss) - 0.5).reindex(bars.index),
        "macd": line / close,
        "macd_histogram": (line - line.ewm(span=9, adjust=False).mean()) / close,
        "bollinger_position": (close - mean) / (2 * sd),
        "volatility_21": sigma[21],
        "volatility_ratio": np.log(sigma[21] / sigma[63]),
        "volume_z": score.clip(-5, 5),
        **{f"distance_{k}": close / close.rolling(k).mean() - 1 for k in (50, 200)},
        "momentum_12_1": np.log(close.shift(21) / close.shift(252)),
        "drawdown_252": close / close.rolling(252).max() - 1,
    }


def betas_again(returns: pd.DataFrame) -> pd.DataFrame:
    """Least squares on the mean of the names, in pandas: covariance and variance over a name's own pairs."""
    market = returns.mean(axis=1)
    return pd.DataFrame({name: own.rolling(252, min_periods=126).cov(market) / market.where(own.notna()).rolling(252, min_periods=126).var()
        for name, own in returns.items()})  # fmt: skip


def residuals_again(values: pd.DataFrame, exposures: list[pd.DataFrame]) -> pd.DataFrame:
    """Least squares of every seventh session, one after the other."""
    left = pd.DataFrame(np.nan, index=values.index, columns=values.columns)
    for row in range(252, len(values), 7):
        design = np.column_stack([np.ones(values.shape[1]), *(exposure.iloc[row] for exposure in exposures)])
        known = np.isfinite(design).all(axis=1) & values.iloc[row].notna().to_numpy()
        if known.any():
            own = values.iloc[row].to_numpy()[known]
            left.loc[row, known] = own - design[known] @ np.linalg.lstsq(design[known], own, rcond=None)[0]
    return left


@pytest.mark.parametrize("symbol", ["SPY", "QQQ", "AAPL", "IBM"])
def test_each_feature_is_its_formula(market: Market, adjusted: dict[str, Array], symbol: str) -> None:
    name = UNIVERSE.index(symbol)
    own = np.isfinite(market.close[:, name])
    bars = pd.DataFrame({column: values[own, name] for column, values in adjusted.items()})
    ours = by_name(market.features[own, name, : len(ASSET_FEATURES)])
    theirs = second_computation(bars)
    assert set(ours) == set(theirs)
    for feature, expected in theirs.items():
        np.testing.assert_allclose(ours[feature][800:], expected.to_numpy()[800:], rtol=0, atol=1e-8, err_msg=feature)


def test_ranks_and_context_are_their_formulas(market: Market) -> None:
    columns = {feature.name: pd.DataFrame(market.features[:, :, k]) for k, feature in enumerate(FEATURES)}
    ranked = {f"rank_{name}": columns[name] for name in ("return_5", "return_21", "volatility_21", "momentum_12_1")}
    exposures = [betas_again(columns["return_1"]).where(columns["momentum_12_1"].notna()), columns["volatility_21"]]
    ranked |= {
        f"rank_residual_{name.removeprefix('return_').removeprefix('momentum_')}": residuals_again(columns[name], exposures)
        for name in ("return_1", "return_5", "momentum_12_1")
    }
    for rank in RANK_FEATURES:
        values = ranked[rank.name].round(9).iloc[252::7]
        expected = (values.rank(axis=1) - 1) / (values.notna().sum(axis=1).to_numpy()[:, None] - 1) - 0.5
        pd.testing.assert_frame_equal(columns[rank.name].iloc[252::7], expected, check_exact=False, atol=1e-12, rtol=0)
    distance, month = columns["distance_50"].iloc[300:], columns["return_21"].iloc[300:]
    expected = {
        "market_breadth": (distance > 0).sum(axis=1) / distance.notna().sum(axis=1) - 0.5,
        "market_return_21": month.mean(axis=1),
        "market_volatility_21": columns["return_1"].mean(axis=1).rolling(21).std(ddof=0).iloc[300:],
        "market_dispersion_21": month.std(axis=1, ddof=0),
    }
    assert list(expected) == [feature.name for feature in CONTEXT]
    for column, (name, values) in enumerate(expected.items()):
        np.testing.assert_allclose(market.context[300:, column], values, rtol=0, atol=1e-12, err_msg=name)


def test_the_first_value_comes_where_the_window_says(market: Market) -> None:
    spy = market.features[:, 0]
    assert [int(np.isfinite(spy[:, k]).argmax()) + 1 for k in range(len(FEATURES))] == [feature.window for feature in FEATURES]
    assert [int(np.isfinite(market.context[:, k]).argmax()) + 1 for k in range(len(CONTEXT))] == [feature.window for feature in CONTEXT]


def test_after_its_first_value_a_feature_is_never_missing(market: Market) -> None:
    for name in range(len(UNIVERSE)):
        own = np.isfinite(market.close[:, name])
        values = market.features[own, name]
        assert np.isfinite(values[252:]).all()


def test_the_scale_of_prices_and_volumes_does_not_matter(adjusted: dict[str, Array]) -> None:
    here = features(**adjusted)
    scale = np.array([1e-3, 1e3, 7, 0.01, 1e4, 3, 1 / 3, 11])
    there = features(**{name: adjusted[name] * scale for name in ("open", "high", "low", "close")}, volume=adjusted["volume"] * scale[::-1])
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


def test_a_constant_price_has_the_values_that_the_formulas_state() -> None:
    flat, idle = np.full(300, 17.3), np.zeros(300)
    last = by_name(asset_features(flat, flat, flat, flat, idle)[-1])
    assert {name: value for name, value in last.items() if abs(value) > 1e-9} == {}
    assert np.isfinite(list(last.values())).all()


def test_a_price_that_grows_by_the_same_rate_has_no_volatility() -> None:
    close = 20 * np.exp(0.01 * np.arange(300))
    last = by_name(asset_features(close, close, close, close, np.full(300, 1e6))[-1])
    assert last["volatility_21"] < 1e-9
    assert last["volatility_ratio"] == 0
    assert last["volume_z"] == pytest.approx(0, abs=1e-9)


def test_night_and_day_are_the_two_parts_of_a_month(market: Market) -> None:
    own = by_name(market.features[..., : len(ASSET_FEATURES)])
    np.testing.assert_allclose(own["overnight_21"] + own["intraday_21"], own["return_21"], rtol=0, atol=1e-15)


def test_volume_after_silence_is_bounded() -> None:
    flat, volume = np.full(300, 17.3), np.zeros(300)
    volume[-1] = 1e9
    assert by_name(asset_features(flat, flat, flat, flat, volume))["volume_z"][-2:].tolist() == [0.0, 5.0]


def test_windows_leave_no_trace_of_what_was_before_them(adjusted: dict[str, Array]) -> None:
    """AIG fell from 74 to 0.36; started after that fall, windowed deviations are the same to the last digits."""
    aig = {name: values[:, UNIVERSE.index("AIG")] for name, values in adjusted.items()}
    assert aig["close"].max() / aig["close"].min() > 200
    whole, late = by_name(asset_features(**aig)), by_name(asset_features(**{name: values[1200:] for name, values in aig.items()}))
    for name in ("overnight_21", "intraday_21", "bollinger_position", "volatility_21", "volatility_ratio", "volume_z"):
        np.testing.assert_allclose(late[name][100:], whole[name][1300:], rtol=0, atol=1e-13, err_msg=name)


def test_an_erroneous_print_is_bounded(market: Market) -> None:
    """GOOG's low of 0.01 on 2008-09-30: a log range of 10.8."""
    row, name = market.index_of("2008-09-30"), UNIVERSE.index("GOOG")
    assert market.low[row, name] == 0.01
    assert by_name(market.features[row, name, : len(ASSET_FEATURES)])["range"] == 0.5


def test_ranks_average_ties_skip_the_absent_and_centre_the_lonely() -> None:
    asset = np.full((3, 4, len(ASSET_FEATURES)), np.nan)
    asset[0, :, 1] = [0.1, 0.1 + 1e-12, -0.2, np.nan]
    asset[1, :, 1] = [np.nan, np.nan, 0.3, np.nan]
    ranks = cross_section(asset)[:, :, 0]
    np.testing.assert_array_equal(ranks[0], [0.25, 0.25, -0.5, np.nan])
    np.testing.assert_array_equal(ranks[1], [np.nan, np.nan, 0.0, np.nan])
    assert np.isnan(ranks[2]).all()


def test_context_is_missing_only_when_no_name_has_a_value() -> None:
    asset = np.full((2, 3, len(ASSET_FEATURES)), np.nan)
    asset[1, 1] = 0.02
    context = context_features(asset)
    assert np.isnan(context[0]).all()
    assert context[1].tolist() == pytest.approx([0.5, 0.02, np.nan, 0.0], nan_ok=True)


def test_a_halt_is_skipped_not_filled(adjusted: dict[str, Array]) -> None:
    """With 20 sessions of AAPL removed, its own features are those of the series without them, and the halted rows have none."""
    name, halt = UNIVERSE.index("AAPL"), slice(1000, 1020)
    panel = {column: values.copy() for column, values in adjusted.items()}
    for values in panel.values():
        values[halt, name] = np.nan
    halted = features(**panel)[0][:, name, : len(ASSET_FEATURES)]
    spliced = asset_features(**{column: np.delete(values[:, name], np.r_[halt]) for column, values in adjusted.items()})
    assert np.isnan(halted[halt]).all()
    np.testing.assert_array_equal(np.delete(halted, np.r_[halt], axis=0), spliced)


def test_no_feature_jumps_at_the_split_of_aapl(market: Market) -> None:
    """The 4:1 split of 2020-08-31: every feature of the day lies within what AAPL's features were in the year around it."""
    row, name = market.index_of("2020-08-31"), UNIVERSE.index("AAPL")
    assert market.close[row, name] / market.close[row - 1, name] < 0.3
    around = np.r_[row - 126 : row, row + 1 : row + 126]
    values = market.features[:, name]
    assert (values[row] >= values[around].min(axis=0)).all()
    assert (values[row] <= values[around].max(axis=0)).all()
    assert values[row, 0] == pytest.approx(np.log(market.close[row, name] * 4 / market.close[row - 1, name]), abs=1e-12)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("close", np.nan, "close must be finite and > 0, was nan in row 7"),
        ("low", 0.0, "low must be finite and > 0, was 0.0 in row 7"),
        ("volume", -1.0, "volume must be finite and >= 0, was -1.0 in row 7"),
    ],
)
def test_bars_that_are_not_finite_are_refused(column: str, value: float, message: str) -> None:
    bars = {name: np.full(300, 10.0) for name in ("open", "high", "low", "close", "volume")}
    bars[column][7] = value
    with pytest.raises(FeaturesError, match=message):
        asset_features(**bars)


@pytest.mark.parametrize("length", [0, 1, 2, 19, 40])
def test_a_short_history_gives_missing_values_not_errors(length: int) -> None:
    bars = np.linspace(10, 11, length)
    values = asset_features(bars, bars, bars, bars, bars)
    assert values.shape == (length, len(ASSET_FEATURES))
    assert np.isnan(values[:, [feature.window > length for feature in ASSET_FEATURES]]).all()


@pytest.mark.parametrize("block", [64, 700, 16_384])
def test_names_together_have_the_bits_that_each_has_alone(monkeypatch: pytest.MonkeyPatch, adjusted: dict[str, Array], block: int) -> None:
    """Whatever goes through the formulas at once: a piece of a name, one name, or several."""
    panel = {column: values[:600, [0, 3, 5, 7]] for column, values in adjusted.items()}
    alone = [asset_features(**{column: values[:, name] for column, values in panel.items()}) for name in range(4)]
    monkeypatch.setattr(table, "BLOCK", block)
    together = asset_features(**panel)
    assert together.shape == (600, 4, len(ASSET_FEATURES))
    for name in range(4):
        assert together[:, name].tobytes() == alone[name].tobytes()


def test_the_table_is_unambiguous() -> None:
    names = [feature.name for feature in (*FEATURES, *CONTEXT)]
    assert len(set(names)) == len(names)
    assert {feature.unit for feature in (*FEATURES, *CONTEXT)} == {"log", "ratio", "share", "z", "rank"}


def test_the_hash_names_the_table_and_nothing_of_the_process() -> None:
    """A change of the table changes this literal; that is when SCHEMA_VERSION is considered and models are trained anew."""
    other = subprocess.run(
        [sys.executable, "-c", "from trading_env.data.features import FEATURE_HASH; print(FEATURE_HASH)"],
        cwd=ROOT,
        env={"PYTHONHASHSEED": "12345", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == FEATURE_HASH == "7984a19c81b88b77021ec8657db836bf03df5d7dd16ef9a4e1ca06b23f6b4b73"


@pytest.mark.parametrize("change", [("FEATURES", FEATURES[::-1]), ("CONTEXT", CONTEXT[1:]), ("SCHEMA_VERSION", 2)])
def test_the_hash_changes_with_the_table(monkeypatch: pytest.MonkeyPatch, change: tuple[str, object]) -> None:
    monkeypatch.setattr(table, *change)
    assert table._hash() != FEATURE_HASH


def test_a_volume_that_is_restated_the_next_night_changes_one_feature_of_its_session() -> None:
    """The evening's bar lacks the volume of the hours after the close: what a decision observes differs by `volume_z` and nothing else."""
    year = bundled.daily_bars()
    year = year[year["symbol"].isin(UNIVERSE) & year["session"].between("2018-01-02", "2019-12-31")]
    evening = year.assign(volume=np.where(year["session"] == "2019-12-31", np.floor(year["volume"] * 0.95), year["volume"]))
    final, early = (build_market(bars, bundled.corporate_actions(), symbols=UNIVERSE) for bars in (year, evening))
    changed = np.argwhere((final.features != early.features) & ~(np.isnan(final.features) & np.isnan(early.features)))
    assert {(int(row), FEATURE_NAMES[feature]) for row, _, feature in changed} == {(len(final) - 1, "volume_z")}
    np.testing.assert_array_equal(final.context, early.context)
