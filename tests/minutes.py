"""Made-up one-minute bars of real sessions, from a seed: each name a walk that goes on over the nights."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import pandas as pd

from papertape.market_data.sessions import hours_between
from trading_env.data.bars import ACTION_COLUMNS
from trading_env.data.slot_bars import SessionHours

NO_ACTIONS = pd.DataFrame(
    {name: pd.Series(dtype=kind) for name, kind in zip(ACTION_COLUMNS, ("str", "datetime64[us]", "str", "float64"), strict=True)}
)


def hours(start: str, end: str) -> SessionHours:
    return hours_between(date.fromisoformat(start), date.fromisoformat(end))


def minutes(start: str, end: str, *, symbols: Sequence[str] = ("AAA", "BBB", "CCC"), seed: int = 0, missing: float = 0.0) -> pd.DataFrame:
    """`MINUTE_COLUMNS` of every minute of the sessions, but for a share that is `missing`."""
    rng, stamps = np.random.default_rng(seed), hours(start, end).minutes
    tables = []
    for symbol in symbols:
        close = 50 * np.exp(np.cumsum(rng.normal(0, 0.0008, len(stamps))))
        opened = np.append(50.0, close[:-1]) * np.exp(rng.normal(0, 0.0001, len(stamps)))
        high = np.maximum(opened, close) * np.exp(np.abs(rng.normal(0, 0.0003, len(stamps))))
        low = np.minimum(opened, close) * np.exp(-np.abs(rng.normal(0, 0.0003, len(stamps))))
        volume = rng.integers(100, 10_000, len(stamps)).astype(np.float64)
        columns = {"open": opened, "high": high, "low": low, "close": close, "volume": volume}
        table = pd.DataFrame({"symbol": symbol, "ts": pd.DatetimeIndex(stamps.astype("datetime64[us]"), tz="UTC"), **columns})
        tables.append(table[rng.random(len(stamps)) >= missing])
    return pd.concat(tables, ignore_index=True)
