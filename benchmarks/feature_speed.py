"""Features of many names: ours beside FinRL's FeatureEngineer, Polars and pandas.

`seconds` is what it takes to compute the columns from bars in memory, as each side keeps them: ours as arrays, the others as frames, of one
name each for Polars and pandas, which is their best (measured); nothing is read from a file. Of the 10 M rows a name's columns are let go
before the next name's, or most of the time would be the kernel's, which clears 2 GB. Polars and pandas compute the formulas of a
name's own columns; `same` are those of the last row, by which `benchmarks.run` sees it. FinRL computes what of stockstats comes closest.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import types
from typing import Any

import numpy as np

from benchmarks.env_speed import bare
from benchmarks.harness import Contender, Field, Measure, Row, Stopwatch
from benchmarks.synthetic import NAMES, SESSIONS, bars

DAILY = {"names": NAMES, "rows": SESSIONS, "move": 0.015}
MINUTES = {"names": 100, "rows": 100_000, "move": 0.001}
# Of FinRL, in the order of ours: no gap, overnight and intraday parts, range, location and drawdown
STOCKSTATS = [
    *("log-ret", "close_-5_r", "close_-21_r", "close_-63_r", "close_-126_r", "rsi_14", "macd", "macdh"),
    *("boll_ub", "boll_lb", "close_21_mstd", "close_63_mstd", "volume_63_z"),
    *("close_50_sma", "close_200_sma", "close_-252_r"),
]


def ours(*, together: int, calls: int = 1, **size: Any) -> Measure:
    """The names' own columns, so many names a call; the median of so many times all of them."""
    from trading_env.data.features import asset_features

    data = bars(**size)
    groups = [{name: values[at : at + together].T for name, values in data.items()} for at in range(0, size["names"], together)]

    def measure() -> dict[str, Any]:
        watch, laps = Stopwatch(), []
        for _ in range(calls):
            for group in groups:
                values = asset_features(**group)
            laps.append(watch.lap())
        return {"seconds": statistics.median(laps), "same": values[-1, -1].tolist()}

    return measure


def our_table(*, calls: int = 1, **size: Any) -> Measure:
    """The whole table, with ranks and context."""
    from trading_env.data.features import features

    data = {name: np.ascontiguousarray(values.T) for name, values in bars(**size).items()}

    def measure() -> dict[str, Any]:
        watch, laps = Stopwatch(), []
        for _ in range(calls):
            features(**data)
            laps.append(watch.lap())
        return {"seconds": statistics.median(laps)}

    return measure


def finrl(**size: Any) -> Measure:
    import pandas as pd

    bare("finrl")
    downloader = types.ModuleType("finrl.meta.preprocessor.yahoodownloader")
    downloader.YahooDownloader = None  # type: ignore[attr-defined]  # imported, and not called here
    sys.modules[downloader.__name__] = downloader
    module = importlib.import_module("finrl.meta.preprocessor.preprocessors")
    data, names, rows = bars(**size), size["names"], size["rows"]
    table = pd.DataFrame({name: values.T.ravel() for name, values in data.items()})
    table.insert(0, "tic", np.tile([f"S{index:02d}" for index in range(names)], rows))
    table.insert(0, "date", np.repeat(pd.bdate_range("2010-01-04", periods=rows).strftime("%Y-%m-%d"), names))
    engineer = module.FeatureEngineer(use_technical_indicator=True, tech_indicator_list=STOCKSTATS, use_turbulence=False)

    def measure() -> dict[str, Any]:
        watch = Stopwatch()
        columns = engineer.preprocess_data(table).columns
        seconds = watch.lap()
        if missing := set(STOCKSTATS) - set(columns):  # what it cannot compute it prints and leaves out
            raise ValueError(f"FinRL must compute {', '.join(STOCKSTATS)}, was without {', '.join(sorted(missing))}")
        return {"seconds": seconds}

    return measure


def polars(**size: Any) -> Measure:
    import polars as pl

    data = bars(**size)
    frames = [pl.DataFrame({column: values[name] for column, values in data.items()}) for name in range(size["names"])]
    opening, high, low, close, volume = (pl.col(name) for name in data)
    level, change = close.log(), close.diff()
    daily = level.diff()
    wilder: dict[str, Any] = {"alpha": 1 / 14, "adjust": False, "ignore_nulls": True}
    gain, loss = change.clip(lower_bound=0).ewm_mean(**wilder), (-change).clip(lower_bound=0).ewm_mean(**wilder)
    gap = opening.log() - level.shift()
    line = close.ewm_mean(span=12, adjust=False) - close.ewm_mean(span=26, adjust=False)
    mean, spread = close.rolling_mean(20), close.rolling_std(20, ddof=0)
    month = daily.rolling_std(21, ddof=0)
    columns = [
        *(level - level.shift(sessions) for sessions in (1, 5, 21, 63, 126)),
        gap,
        gap.rolling_sum(21),
        level - level.shift(21) - gap.rolling_sum(21),
        (high.log() - low.log()).clip(upper_bound=0.5),
        (close - low) / (high - low) - 0.5,
        gain / (gain + loss) - 0.5,
        line / close,
        (line - line.ewm_mean(span=9, adjust=False)) / close,
        (close - mean) / (2 * spread),
        month,
        (month / daily.rolling_std(63, ddof=0)).log(),
        ((volume - volume.rolling_mean(63)) / volume.rolling_std(63, ddof=0)).clip(-5, 5),
        *(close / close.rolling_mean(window) - 1 for window in (50, 200)),
        level.shift(21) - level.shift(252),
        close / close.rolling_max(252) - 1,
    ]
    named = [column.alias(str(place)) for place, column in enumerate(columns)]

    def measure() -> dict[str, Any]:
        watch = Stopwatch()
        for frame in frames:
            table = frame.select(named)
        return {"seconds": watch.lap(), "same": list(table.row(-1))}

    return measure


def pandas(**size: Any) -> Measure:
    import pandas as pd

    data = bars(**size)
    frames = [pd.DataFrame({column: values[name] for column, values in data.items()}) for name in range(size["names"])]

    def measure() -> dict[str, Any]:
        watch = Stopwatch()
        for frame in frames:
            table = pandas_columns(frame)
        return {"seconds": watch.lap(), "same": [float(column.iloc[-1]) for column in table]}

    return measure


def pandas_columns(frame: Any) -> list[Any]:
    opening, high, low, close, volume = (frame[name] for name in ("open", "high", "low", "close", "volume"))
    level, change = np.log(close), close.diff()
    daily = level.diff()
    wilder: dict[str, Any] = {"alpha": 1 / 14, "adjust": False}
    gain, loss = change.clip(lower=0).ewm(**wilder).mean(), (-change).clip(lower=0).ewm(**wilder).mean()
    gap = np.log(opening) - level.shift()
    line = close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean()
    mean, spread = close.rolling(20).mean(), close.rolling(20).std(ddof=0)
    month = daily.rolling(21).std(ddof=0)
    return [
        *(level - level.shift(sessions) for sessions in (1, 5, 21, 63, 126)),
        gap,
        gap.rolling(21).sum(),
        level - level.shift(21) - gap.rolling(21).sum(),
        (np.log(high) - np.log(low)).clip(upper=0.5),
        (close - low) / (high - low) - 0.5,
        gain / (gain + loss) - 0.5,
        line / close,
        (line - line.ewm(span=9, adjust=False).mean()) / close,
        (close - mean) / (2 * spread),
        month,
        np.log(month / daily.rolling(63).std(ddof=0)),
        ((volume - volume.rolling(63).mean()) / volume.rolling(63).std(ddof=0)).clip(-5, 5),
        *(close / close.rolling(window).mean() - 1 for window in (50, 200)),
        level.shift(21) - level.shift(252),
        close / close.rolling(252).max() - 1,
    ]


CONTENDERS = {
    "ours daily": Contender("ours", lambda: ours(together=NAMES, calls=20, **DAILY)),
    "ours whole table": Contender("ours", lambda: our_table(calls=20, **DAILY)),
    "FinRL daily": Contender("peers", lambda: finrl(**DAILY)),
    "ours minutes": Contender("ours", lambda: ours(together=1, **MINUTES)),
    "Polars minutes": Contender("peers", lambda: polars(**MINUTES)),
    "pandas minutes": Contender("peers", lambda: pandas(**MINUTES), once=True),
}
PANEL, LONG = "features, 30 x 2,500 rows", "features, 10 M one-minute rows, the same columns of a name"
THEIRS = f"FinRL FeatureEngineer, {len(STOCKSTATS)}"
ROWS = [
    Row(f"{PANEL}, a name's own columns: {THEIRS}", "ours daily", "FinRL daily", "seconds", "s", goal=500),
    Row(f"{PANEL}, our whole table with ranks and context: {THEIRS}", "ours whole table", "FinRL daily", "seconds", "s", goal=500),
    Row(f"{LONG}, seconds of compute: Polars", "ours minutes", "Polars minutes", "seconds", "s", at_most=0.6),
    Row(f"{LONG}: Polars", "ours minutes", "Polars minutes", "seconds", "s", goal=3),
    Row(f"{LONG}: pandas", "ours minutes", "pandas minutes", "seconds", "s"),
]
FIELD = Field(contenders=CONTENDERS, rows=ROWS, rounds=4)
