"""`papertape.py prove`: whether a feature function knows the future, on recorded bars; by default our own features.

A user's function lives in a file of their own, named `path/to/file.py:function`; it takes one name's bars (index: sessions; columns open,
high, low, close, volume, adjusted) and gives a DataFrame with one row a bar. What cannot be loaded or run is a `ProofError` of one line.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from local import bundled
from trading_env.bars import adjust_forward
from trading_env.features import ASSET_FEATURES, asset_features
from trading_env.lookahead import FeatureFunction, Leak, LookaheadError, find_leaks
from trading_env.market import build_market

COLUMNS = ("open", "high", "low", "close", "volume")
#: Row numbers: early ones, where warm-ups are filled, then spread over the history.
EARLY, SPREAD = (2, 20, 60, 150), 12


class ProofError(ValueError):
    """The function cannot be judged; the message says why."""


def run(function: str, *, symbol: str, console: Console) -> bool:
    """Print a table of the leaks; return whether there is none."""
    compute = our_features if not function else load(function)
    bars = bars_of(symbol)
    cuts = [*EARLY, *np.linspace(300, len(bars) - 2, SPREAD).astype(int).tolist()]
    try:
        leaks = find_leaks(compute, bars, cuts=cuts)
    except LookaheadError as error:
        raise ProofError(f"{function or 'our features'}: {error}") from error
    except Exception as error:
        if not function:
            raise
        raise ProofError(f"{function}: raised {type(error).__name__}: {error}") from error
    console.print(
        _table(leaks, bars) if leaks else f"no look-ahead in {function or 'our own features'}: {len(cuts)} cuts of {len(bars):,} bars"
    )
    return not leaks


def our_features(bars: pd.DataFrame) -> pd.DataFrame:
    columns = [np.ascontiguousarray(bars[name], dtype=np.float64) for name in COLUMNS]
    return pd.DataFrame(asset_features(*columns), columns=[feature.name for feature in ASSET_FEATURES], index=bars.index)


def bars_of(symbol: str) -> pd.DataFrame:
    """The bundled bars of one name, adjusted forward, as a feature function gets them."""
    daily = bundled.daily_bars()
    known = sorted(daily["symbol"].unique())
    if symbol not in known:
        raise ProofError(f"--symbol must be one of {', '.join(known)}, was {symbol}")
    market = build_market(daily, bundled.corporate_actions(), symbols=(symbol,))
    raw = {name: getattr(market, name) for name in COLUMNS}
    adjusted = adjust_forward(**raw, split=market.split, dividend=market.dividend)
    bars = pd.DataFrame({name: getattr(adjusted, name)[:, 0] for name in COLUMNS}, index=pd.DatetimeIndex(market.sessions))
    return bars.dropna()


def load(name: str) -> FeatureFunction:
    """The function in `path/to/file.py:function`."""
    path, _, function = name.rpartition(":")
    if not path.endswith(".py") or not Path(path).is_file():
        raise ProofError(f"the function must be named path/to/file.py:function, was {name}")
    spec = importlib.util.spec_from_file_location("features_to_prove", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ProofError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise ProofError(f"{path} has no function {function}")
    compute: FeatureFunction = found
    return compute


def _table(leaks: list[Leak], bars: pd.DataFrame) -> Table:
    table = Table(title="These columns know the future", title_justify="left")
    for heading in ("column", "value of", "changes when the bars after", "are"):
        table.add_column(heading)
    for leak in leaks:
        done = "taken away" if leak.how == "truncated" else "replaced"
        table.add_row(leak.column, f"{bars.index[leak.changed]:%Y-%m-%d}", f"{bars.index[leak.cut]:%Y-%m-%d}", done)
    return table
