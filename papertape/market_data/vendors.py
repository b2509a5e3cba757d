"""Bars that a vendor has, as a file that `evaluate --bars` reads.

Promise: the file is written whole, after the reader of your own bars has read it, or not at all. Prices are as the vendor has them; where
they are not adjusted, the dividends and splits that it tells stand beside them, on their ex-date or the name's next bar.
Failure: a `SourceError`, or `VendorBarsError`, one line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from papertape.market_data.own_bars import OwnBars, read_own_bars
from papertape.market_data.own_tables import SYMBOL, OwnBarsError, shown
from papertape.market_data.sessions import sessions_between
from schema.exchange_time import NEW_YORK, new_york_date, parse_utc
from schema.loopback import is_loopback
from sources import alpaca_bars, alpha_vantage, finnhub_quotes, interactive_brokers, yahoo
from sources.port import BarSource, SourceBars, SourceRefused
from trading_env.data.bars import PRICE_COLUMNS
from trading_env.errors import PapertapeError

Vendor = Literal["alpaca", "alphavantage", "finnhub", "ibkr", "yahoo"]
VENDORS: tuple[Vendor, ...] = get_args(Vendor)
SUFFIXES = (".parquet", ".csv")
IN_A_FUNCTION = "AWS_LAMBDA_FUNCTION_NAME"  # which AWS sets


class VendorBarsError(PapertapeError, ValueError):
    """What was asked for cannot be given; the message names the value and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class WrittenBars:
    """`held` is what the file's reader finds in it; `raw` whether it must be told so; `remarks` are the vendor's."""

    file: Path
    held: OwnBars
    raw: bool
    remarks: tuple[str, ...]


def bar_source(name: str, *, environ: Mapping[str, str], now: datetime) -> BarSource:
    """The vendor's adapter with its keys from `environ`; `SourceRefused` names the variable that is missing."""
    builders: Mapping[str, Callable[[], BarSource]] = {
        "alpaca": lambda: alpaca_bars.AlpacaBars(
            key_id=_key(environ, "ALPACA_KEY_ID", source=name),
            secret_key=_key(environ, "ALPACA_SECRET_KEY", source=name),
            url=_address(environ, "ALPACA_DATA_URL", alpaca_bars.URL),
        ),
        "alphavantage": lambda: alpha_vantage.AlphaVantage(
            key=_key(environ, "ALPHAVANTAGE_KEY", source=name),
            today=new_york_date(now),
            paid_per_minute=_per_minute(environ),
            url=_address(environ, "ALPHAVANTAGE_URL", alpha_vantage.URL),
        ),
        "finnhub": lambda: finnhub_quotes.Finnhub(
            key=_key(environ, "FINNHUB_KEY", source=name), url=_address(environ, "FINNHUB_URL", finnhub_quotes.URL)
        ),
        "ibkr": lambda: interactive_brokers.InteractiveBrokers(
            url=environ.get("IBKR_URL") or interactive_brokers.GATEWAY, token=environ.get("IBKR_TOKEN", "")
        ),
        "yahoo": lambda: yahoo.Yahoo(deployed=IN_A_FUNCTION in environ, today=new_york_date(now)),
    }
    if name not in builders:
        raise VendorBarsError(f"--from must be {', '.join(VENDORS)}, was {name}")
    return builders[name]()


def write_bars(source: BarSource, symbols: Sequence[str], *, start: date, end: date | None, out: Path, now: datetime) -> WrittenBars:
    """Ask for the bars from `start` to `end`, by default the last session that has closed by `now`, and write them to `out`."""
    names = _names(symbols)
    if out.suffix not in SUFFIXES:
        raise VendorBarsError(f"--out must end in {' or '.join(SUFFIXES)}, was {out}")
    if out.exists():
        raise VendorBarsError(f"--out {out}: is there already; remove it or choose another name")
    if not out.parent.is_dir():
        raise VendorBarsError(f"--out {out}: there is no folder {out.parent}")
    last = _last_session(now)
    end = last if end is None else min(end, last)
    if start > end:
        raise VendorBarsError(f"--start must not be after {end}, the last session asked for, was {start}")
    found = source.daily_bars(names, start, end)
    held = {row["symbol"] for row in found.rows}
    absent = [name for name in names if name not in held]
    if absent:
        raise VendorBarsError(f"{source.name} has no bar of {shown(absent)} from {start} to {end}; check the spelling or leave it out")
    table = as_table(found)
    raw = {"dividend", "split"} & set(table.columns) != set()
    return WrittenBars(file=out, held=_written(table, out=out, raw=raw, vendor=source.name), raw=raw, remarks=found.remarks)


def as_table(found: SourceBars) -> pd.DataFrame:
    """symbol, session, prices, volume; and dividend (dollars per share) and split (shares after per share before) where there are any."""
    columns = ["symbol", "session", *PRICE_COLUMNS, "volume"]
    held = [{**row, "session": np.datetime64(parse_utc(row["ts"]).astimezone(NEW_YORK).date(), "us")} for row in found.rows]
    table = pd.DataFrame(held)[columns].sort_values(["symbol", "session"], ignore_index=True)
    own = {str(symbol): (rows.index, rows.to_numpy()) for symbol, rows in table.groupby("symbol")["session"]}
    for kind, nothing, together in (("dividend", 0.0, np.add), ("split", 1.0, np.multiply)):
        values = np.full(len(table), nothing)
        for action in found.actions:
            rows, sessions = own.get(action["symbol"], (table.index[:0], table["session"].to_numpy()[:0]))
            at = _next_bar(sessions, date.fromisoformat(action["ex_date"])) if action["kind"] == kind else None
            if at is not None:
                values[rows[at]] = together(values[rows[at]], float(action["value"]))
        if (values != nothing).any():
            table[kind] = values
    return table


def _next_bar(sessions: np.ndarray, ex_date: date) -> int | None:
    """The number of the first session on or after `ex_date`; None where that is before the first or after the last."""
    day = np.datetime64(ex_date, "us")
    return int(np.searchsorted(sessions, day)) if len(sessions) and sessions[0] <= day <= sessions[-1] else None


def _written(table: pd.DataFrame, *, out: Path, raw: bool, vendor: str) -> OwnBars:
    partial = out.with_name(f".{out.stem}.partial{out.suffix}")
    try:
        if out.suffix == ".csv":
            table.to_csv(partial, index=False)
        else:
            table.to_parquet(partial, index=False)
        held = read_own_bars(partial, adjusted=False if raw else None)
        partial.replace(out)
    except OwnBarsError as error:
        raise VendorBarsError(f"what {vendor} sent cannot be used: {str(error).replace(str(partial), out.name)}") from None
    except OSError as error:
        raise VendorBarsError(f"--out {out}: cannot be written, {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return held


def _names(symbols: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(part.strip().upper().replace("-", ".") for symbol in symbols for part in symbol.split(",") if part.strip()))
    wrong = [name for name in names if SYMBOL.fullmatch(name) is None]
    if wrong or not names:
        raise VendorBarsError(
            f"symbols must be up to ten capitals, digits or dots such as AAPL BRK.B, was {shown(wrong) if wrong else 'none'}"
        )
    return names


def _last_session(now: datetime) -> date:
    today = new_york_date(now)
    return new_york_date(max(session.closes for session in sessions_between(today - timedelta(days=14), today) if session.closes <= now))


def _key(environ: Mapping[str, str], variable: str, *, source: str) -> str:
    value = environ.get(variable, "").strip()
    if not value:
        raise SourceRefused(f"{source}: {variable} is not set; export {variable}=... with your own key")
    return value


def _address(environ: Mapping[str, str], variable: str, default: str) -> str:
    """Keys go to the vendor's own address, or to this machine."""
    url = environ.get(variable) or default
    if url != default and not is_loopback(url):
        raise SourceRefused(f"{variable} may be {default} or http://127.0.0.1:<port>, was {url}")
    return url


def _per_minute(environ: Mapping[str, str]) -> int | None:
    text = environ.get("ALPHAVANTAGE_PER_MINUTE", "")
    if text and (not text.isdecimal() or not 0 < int(text) <= 10_000):
        raise SourceRefused(f"alphavantage: ALPHAVANTAGE_PER_MINUTE must be the calls a minute of your paid plan, such as 75, was {text!r}")
    return int(text) if text else None
