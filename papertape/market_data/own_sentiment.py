"""Sentiment columns of your own, from a CSV or Parquet file, joined to the market of your bars.

A row per name and session holds what was known at that session's close: the columns of `trading_env.data.sentiment.SENTIMENT`, each within
its range. Promise: a session or name without a row is neutral and not known, as if every source had been down; rows of other names and of
days without a bar are left out. Failure: `OwnBarsError`, one line that names the file, the place, the value and what is allowed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from papertape.market_data.own_bars import ROLES
from papertape.market_data.own_tables import OwnBarsError, dates, names, numbers, place, read_table, recognised
from trading_env.data.bars import Array, as_sessions
from trading_env.data.market import Market
from trading_env.data.sentiment import SENTIMENT_NAMES

RANGES = {
    "sentiment": (-1.0, 1.0),
    "sentiment_slow": (-1.0, 1.0),
    "sentiment_dispersion": (0.0, 1.0),
    "sentiment_count_z": (-5.0, 5.0),
    "sentiment_recency": (0.0, 1.0),
    "sentiment_known": (0.0, 1.0),
}


def read_own_sentiment(file: Path, market: Market) -> Array:
    """(T, A, len(SENTIMENT)) for the market's sessions and names."""
    roles = {"symbol": ROLES["symbol"], "session": ROLES["session"], **{name: (name,) for name in SENTIMENT_NAMES}}
    table = recognised(read_table(file), roles, source=file)
    if missing := [role for role in roles if role not in table.columns]:
        raise OwnBarsError(f"{file}: needs columns {', '.join(roles)}; {', '.join(missing)} missing")
    _, symbols = names(table["symbol"], source=file)
    _, days = dates(table["session"], called="session", source=file)
    values = np.column_stack([_within(table[name], name, source=file) for name in SENTIMENT_NAMES])
    repeated = pd.DataFrame({"symbol": symbols, "session": days}).duplicated().to_numpy()
    if repeated.any():
        row = table.index[repeated][0]
        raise OwnBarsError(
            f"{place(file, row)}: there must be one row per name and session, {symbols[row]} has two on {days[row]:%Y-%m-%d}"
        )
    rows = pd.Index(market.sessions).get_indexer(pd.Index(as_sessions(days)))
    columns = pd.Index(market.symbols).get_indexer(pd.Index(symbols))
    own = (rows >= 0) & (columns >= 0)
    if not own.any():
        raise OwnBarsError(f"{file}: has no row of a name and a session of the bars")
    found = np.zeros((*market.close.shape, len(SENTIMENT_NAMES)))
    found[rows[own], columns[own]] = values[own]
    return found


def _within(column: pd.Series, name: str, *, source: Path) -> Array:
    least, most = RANGES[name]
    values = numbers(column, called=name, source=source)
    wrong = ~values.between(least, most)
    if wrong.any():
        row = column.index[wrong][0]
        raise OwnBarsError(f"{place(source, row)}: {name} must lie in [{least:g}, {most:g}], was {column[row]}")
    return values.to_numpy()
