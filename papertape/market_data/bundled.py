"""The market data that comes with the project, read from `data/`.

The promise: what is returned is what was committed. Each file is checked against `SHA256SUMS` before it is read; one that is missing
or altered raises `BundledDataError`, a single line with the cause and the remedy.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pandas as pd

from trading_env.data.bars import ACTION_COLUMNS, BAR_COLUMNS, QUOTE_COLUMNS, actions_from_factors
from trading_env.errors import PapertapeError

DATA = Path(__file__).resolve().parents[2] / "data"
TRADE_COLUMNS = ("symbol", "ts", "open", "high", "low", "close", "volume")


class BundledDataError(PapertapeError, RuntimeError):
    """A file of `data/` is missing or is not the one that was committed."""


def daily_bars(*, folder: Path = DATA) -> pd.DataFrame:
    """Raw daily bars of ten symbols, 2005-01-03 to 2021-03-31, in `BAR_COLUMNS`."""
    return _read(folder, "daily_bars.parquet")[list(BAR_COLUMNS)]


def sessions(*, folder: Path = DATA) -> pd.DatetimeIndex:
    """The exchange's sessions that the daily bars cover: every one from the first to the last has a bar of some symbol."""
    return pd.DatetimeIndex(daily_bars(folder=folder)["session"].drop_duplicates().sort_values(), name="session")


def factors(*, folder: Path = DATA) -> pd.DataFrame:
    """LEAN's factor rows as they came: what `corporate_actions` is derived from."""
    return _read(folder, "factors.parquet")


def corporate_actions(*, folder: Path = DATA) -> pd.DataFrame:
    """Splits and dividends with ex-dates within `sessions`, in `ACTION_COLUMNS`: the factor rows' and the corrections'."""
    derived = actions_from_factors(factors(folder=folder), sessions(folder=folder))
    corrections = pd.read_csv(io.BytesIO(_verified(folder, "corrections.csv")), parse_dates=["ex_date"])
    actions = pd.concat([derived, corrections[list(ACTION_COLUMNS)].astype({"ex_date": "datetime64[us]"})])
    return actions.sort_values(["ex_date", "symbol", "kind"], ignore_index=True)


def minute_quotes(*, folder: Path = DATA) -> pd.DataFrame:
    """The last bid and ask of each recorded minute, in `QUOTE_COLUMNS`; extended hours and rows with NaN included.

    `ts` is the minute's last millisecond, UTC: that is when this quote was the latest, so a reader at any earlier time doesn't see it.
    """
    bars = _read(folder, "minute_quotes.parquet")
    last = bars["ts"] + pd.Timedelta(minutes=1) - pd.Timedelta(milliseconds=1)
    quotes = bars.assign(ts=last).rename(columns={"bid_close": "bid", "ask_close": "ask"})
    return quotes[list(QUOTE_COLUMNS)].astype({"bid_size": "float64", "ask_size": "float64"})


def minute_trades(*, folder: Path = DATA) -> pd.DataFrame:
    """One-minute trade bars of the same symbols and days, in `TRADE_COLUMNS`; `ts` is the minute's start, UTC."""
    return _read(folder, "minute_trades.parquet")[list(TRADE_COLUMNS)]


def _read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(_verified(folder, name)))


def _verified(folder: Path, name: str) -> bytes:
    remedy = f"restore it with `git checkout -- {folder.name}`"
    try:
        lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
        sums = {file: digest for digest, file in (line.split() for line in lines)}
        content = (folder / name).read_bytes()
    except OSError as error:
        raise BundledDataError(f"{error.filename}: cannot be read ({error.strerror}); {remedy}") from error
    except ValueError as error:
        raise BundledDataError(f"{folder / 'SHA256SUMS'}: is not a list of sums and names; {remedy}") from error
    found = hashlib.sha256(content).hexdigest()
    if sums.get(name) != found:
        raise BundledDataError(f"{folder / name}: sha256 must be {sums.get(name, 'listed in SHA256SUMS')}, was {found}; {remedy}")
    return content
