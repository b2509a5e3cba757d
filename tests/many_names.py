"""Generated names, as many as a universe may have: random walks, no market's."""

from __future__ import annotations

import numpy as np
import pandas as pd

from schema.universes import MOST
from tests.lakes import calendar_objects

NAMES = tuple(f"N{number:03d}" for number in range(MOST))
MANY = NAMES[:400]


def generated(*, start: str, end: str) -> pd.DataFrame:
    """Daily bars of `MANY` for the sessions from `start` to `end`."""
    days = [row["session"] for rows in calendar_objects().values() for row in rows if start <= row["session"] <= end]
    rng = np.random.default_rng(400)
    close = rng.uniform(20, 200, len(MANY)) * np.exp(np.cumsum(rng.normal(0, 0.015, (len(days), len(MANY))), axis=0))
    opens = close * np.exp(rng.normal(0, 0.003, close.shape))
    table = {
        "symbol": np.tile(MANY, len(days)),
        "session": np.repeat(pd.to_datetime(days), len(MANY)),
        "open": opens.ravel(),
        "high": (np.maximum(opens, close) * 1.005).ravel(),
        "low": (np.minimum(opens, close) * 0.995).ravel(),
        "close": close.ravel(),
        "volume": np.full(close.size, 2e6),
    }
    return pd.DataFrame(table).round(dict.fromkeys(("open", "high", "low", "close"), 4))
