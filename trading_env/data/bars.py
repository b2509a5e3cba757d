"""Bars, corporate actions and quotes: what may enter, and how raw prices become one continuous series.

The promise: no row is dropped, filled or repaired in silence. A row that breaks a rule is set aside with its reason, a missing session
is reported as a gap, and raw prices stay raw: splits and dividends are dated events that are applied forward only, so that an event
of tomorrow cannot change a number of today. A table that lacks a column or has one of the wrong type raises `BarsError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from trading_env.data.corporate_actions import BREAK
from trading_env.errors import PapertapeError

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Sessions = npt.NDArray[np.datetime64]

PRICE_COLUMNS = ("open", "high", "low", "close")
BAR_COLUMNS = ("symbol", "session", *PRICE_COLUMNS, "volume")
ACTION_COLUMNS = ("symbol", "ex_date", "kind", "value")
FACTOR_COLUMNS = ("symbol", "date", "price_factor", "split_factor", "ref_price")
QUOTE_COLUMNS = ("symbol", "ts", "bid", "bid_size", "ask", "ask_size")
QUOTE_BAR_COLUMNS = ("symbol", "ts", *PRICE_COLUMNS, "spread", "quotes")

KINDS = ("split", "dividend")


class BarsError(PapertapeError, ValueError):
    """A table cannot be read as bars, actions or quotes; the message names the column or row and what is allowed."""


@dataclass(frozen=True)
class Validated:
    """What `validate` returns.

    Attributes:
        bars: the rows that hold, `BAR_COLUMNS`, sorted by symbol and session.
        quarantined: the rows set aside, `BAR_COLUMNS` and `reason`, in the order of the input.
        gaps: `symbol, session` of every calendar session between a symbol's first and last good bar that has none.
    """

    bars: pd.DataFrame
    quarantined: pd.DataFrame
    gaps: pd.DataFrame


@dataclass(frozen=True)
class Quoted:
    """What `quotes_to_bars` returns: `bars` of `QUOTE_BAR_COLUMNS`, and the `quarantined` quotes with their `reason`."""

    bars: pd.DataFrame
    quarantined: pd.DataFrame


@dataclass(frozen=True)
class Adjusted:
    """Prices and volume of (T, A), continuous across splits and dividends, in units of each name's first bar."""

    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array


def validate(bars: pd.DataFrame, *, sessions: pd.DatetimeIndex | Sessions) -> Validated:
    """Part raw bars into good rows and rows set aside, each with the first rule that it breaks.

    The rules, in order: a symbol; a session that is in `sessions`; finite prices; positive prices; low <= open, close <= high; a finite
    volume >= 0; and, among rows that pass all these, one row per symbol and session. Of identical duplicates the first stays; of
    conflicting ones none does, for nothing says which is true.

    Args:
        bars: raw, unadjusted rows with at least `BAR_COLUMNS`; `session` is a tz-naive midnight, or the minute (UTC) of a bar in a session.
        sessions: the exchange's calendar over the range; as datetime64[m], its minutes.

    Raises:
        BarsError: a column is missing or not of its type.
    """
    table = _conform(bars, BAR_COLUMNS, numeric=(*PRICE_COLUMNS, "volume"), dates=("session",))
    calendar = as_rows(sessions)
    prices = table[list(PRICE_COLUMNS)].to_numpy(dtype=np.float64)
    opened, high, low, close = prices.T
    volume = table["volume"].to_numpy(dtype=np.float64)
    with np.errstate(invalid="ignore"):
        rules: list[tuple[str, Mask]] = [
            ("symbol is missing", table["symbol"].isna().to_numpy()),
            ("session is not in the calendar", ~_is_one_of(table["session"], calendar)),
            ("price is missing or not finite", ~np.isfinite(prices).all(axis=1)),
            ("price is not positive", prices.min(axis=1) <= 0),
            ("high is below open, low or close", high < np.maximum(np.maximum(opened, close), low)),
            ("low is above open or close", low > np.minimum(opened, close)),
            ("volume is missing, negative or not finite", ~(np.isfinite(volume) & (volume >= 0))),
        ]
    reason = _first_reason(rules, len(table))

    good = table[reason == ""]
    repeated = good.duplicated(subset=["symbol", "session"], keep=False)
    identical = good.duplicated(subset=list(BAR_COLUMNS), keep="first")
    versions = good[~identical].groupby(["symbol", "session"])["close"].transform("size").reindex(good.index)
    conflicting = good[~identical & (versions > 1)][["symbol", "session"]].drop_duplicates()
    in_conflict = pd.MultiIndex.from_frame(good[["symbol", "session"]]).isin(pd.MultiIndex.from_frame(conflicting))
    reason[good.index[repeated & in_conflict]] = "conflicts with another bar of its session"
    reason[good.index[identical & ~in_conflict]] = "repeats an identical bar"

    kept = table[reason == ""].sort_values(["symbol", "session"], kind="stable", ignore_index=True)
    return Validated(bars=kept, quarantined=_set_aside(table, reason), gaps=_gaps(kept, calendar))


def actions_from_factors(factors: pd.DataFrame, sessions: pd.DatetimeIndex | Sessions) -> pd.DataFrame:
    """Turn LEAN's cumulative factor rows into dated corporate actions.

    A row's factors hold up to and including its `date`, so what changes between two rows happened at the open of the session after the
    earlier `date`. Split = the ratio of the split factors, to four decimals (of its reciprocal when shares are merged). Dividend =
    `ref_price`, the close of `date`, times the fall in the price factor, to four decimals.

    Args:
        factors: `FACTOR_COLUMNS`, any order.
        sessions: the calendar; an event whose `date` or ex-date it doesn't cover (older rows, the last row of 2050) yields nothing.

    Returns:
        `ACTION_COLUMNS`, sorted by ex-date, symbol and kind.
    """
    table = _conform(factors, FACTOR_COLUMNS, numeric=FACTOR_COLUMNS[2:], dates=("date",)).sort_values(["symbol", "date"])
    calendar = as_sessions(sessions)
    following = table.groupby("symbol")[["price_factor", "split_factor"]].shift(-1)
    at = np.searchsorted(calendar, as_sessions(table["date"]), side="right")
    covered = (at > 0) & (at < len(calendar)) & following["split_factor"].notna().to_numpy()
    table, following, at = table[covered], following[covered], at[covered]

    ratio = (following["split_factor"] / table["split_factor"]).to_numpy(dtype=np.float64)
    ratio = np.where(ratio >= 1, np.round(ratio, 4), 1 / np.round(1 / ratio, 4))
    cash = (table["ref_price"] * (1 - table["price_factor"] / following["price_factor"])).to_numpy(dtype=np.float64).round(4)
    if (cash < 0).any():
        bad = table[cash < 0].iloc[0]
        raise BarsError(f"price_factor must not fall with time, was {bad['price_factor']} for {bad['symbol']} on {bad['date']:%Y-%m-%d}")
    dated = pd.DataFrame({"symbol": table["symbol"].to_numpy(), "ex_date": calendar[at].astype("datetime64[us]")})
    splits = dated.assign(kind="split", value=ratio)[ratio != 1]
    dividends = dated.assign(kind="dividend", value=cash)[cash > 0]
    actions: pd.DataFrame = pd.concat([splits, dividends]).sort_values(["ex_date", "symbol", "kind"], ignore_index=True)
    return actions


def check_actions(actions: pd.DataFrame) -> pd.DataFrame:
    """Return `actions` in `ACTION_COLUMNS`; raise `BarsError` naming the first one of unknown kind, without date or positive value.

    A break needs no value.
    """
    table = _conform(actions, ACTION_COLUMNS, numeric=("value",), dates=("ex_date",))
    value = table["value"].to_numpy(dtype=np.float64)
    applied, broken = (table["kind"].isin(kinds).to_numpy() for kinds in (KINDS, (BREAK,)))
    bad = ~(applied & np.isfinite(value) & (value > 0) | broken) | table["ex_date"].isna().to_numpy()
    if bad.any():
        row = table[bad].iloc[0]
        raise BarsError(
            f"a corporate action needs an ex-date, a kind of {' or '.join(KINDS)} and a finite value > 0, "
            f"was {row['symbol']} {row['ex_date']} {row['kind']} {row['value']}"
        )
    return table


def adjust_forward(
    *,
    open: Array,  # noqa: A002  the column's name
    high: Array,
    low: Array,
    close: Array,
    volume: Array,
    split: Array,
    dividend: Array,
) -> Adjusted:
    """Make raw prices continuous by applying each event from its ex-date on, never before it.

        adjusted[t] = raw[t] × Π split[s] / (1 − dividend[s] / close before s)   over the name's own events s <= t

    so the close is a total-return index in units of the first bar, and appending data changes no earlier value. Volume is divided by
    the splits alone. An event at or before a name's first bar has nothing to be continuous with and is without effect.

    Args:
        open, high, low, close, volume: (T, A) raw, NaN where a name has no bar.
        split: (T, A) new shares per old share, effective before the open of row t; 1 where none.
        dividend: (T, A) cash per share held at the close before row t; 0 where none.

    Raises:
        BarsError: a dividend is not below the close before it.
    """
    before = _last_close_before(close)
    split = np.where(np.isfinite(before), split, 1.0)
    with np.errstate(invalid="ignore"):
        kept = np.where(np.isfinite(before), 1 - dividend / before, 1.0)
    if (kept <= 0).any():
        row, name = np.argwhere(kept <= 0)[0]
        raise BarsError(
            f"a dividend must be below the close before it, was {dividend[row, name]} against {before[row, name]} (row {row}, name {name})"
        )
    shares = np.cumprod(split, axis=0)
    factor = np.cumprod(split / kept, axis=0)
    return Adjusted(open=open * factor, high=high * factor, low=low * factor, close=close * factor, volume=volume / shares)


def quotes_to_bars(quotes: pd.DataFrame, *, minutes: int = 1) -> Quoted:
    """Gather quotes into bars of the mid price, `(bid + ask) / 2`.

    Set aside, in this order: no symbol or time; a bid or ask that is missing, not finite or not positive; a crossed quote (bid above
    ask; bid equal to ask is a market); a negative or missing size; an identical repeat, as when a feed shows its latest quote again.

    Args:
        quotes: `QUOTE_COLUMNS`; `ts` is tz-aware.
        minutes: the length of a bar; bars start at multiples of it from midnight UTC.

    Returns:
        bars with `ts` the bar's start (UTC), mid prices, `spread` the mean of ask − bid in dollars, `quotes` their number. A minute
        without a good quote has no bar.

    Raises:
        BarsError: a column is missing, `ts` is not tz-aware, or `minutes` doesn't divide a day.
    """
    if minutes < 1 or 1440 % minutes:
        raise BarsError(f"minutes must be a positive divisor of 1440, was {minutes}")
    table = _conform(quotes, QUOTE_COLUMNS, numeric=("bid", "bid_size", "ask", "ask_size"))
    if not isinstance(table["ts"].dtype, pd.DatetimeTZDtype):
        raise BarsError(f"ts must be a tz-aware time, was {table['ts'].dtype}")
    table["ts"] = table["ts"].dt.tz_convert("UTC")
    bid, ask = table["bid"].to_numpy(dtype=np.float64), table["ask"].to_numpy(dtype=np.float64)
    sizes = table[["bid_size", "ask_size"]].to_numpy(dtype=np.float64)
    with np.errstate(invalid="ignore"):
        rules: list[tuple[str, Mask]] = [
            ("symbol or ts is missing", (table["symbol"].isna() | table["ts"].isna()).to_numpy()),
            ("bid or ask is missing or not finite", ~(np.isfinite(bid) & np.isfinite(ask))),
            ("bid or ask is not positive", (bid <= 0) | (ask <= 0)),
            ("bid is above ask", bid > ask),
            ("size is missing or negative", ~(sizes.min(axis=1) >= 0)),
            ("repeats an identical quote", table.duplicated(keep="first").to_numpy()),
        ]
    reason = _first_reason(rules, len(table))

    good = table[reason == ""].sort_values(["symbol", "ts"], kind="stable")
    good = good.assign(mid=(good["bid"] + good["ask"]) / 2, spread=good["ask"] - good["bid"], ts=good["ts"].dt.floor(f"{minutes}min"))
    bars = (
        good.groupby(["symbol", "ts"], sort=True)
        .agg(
            open=("mid", "first"),
            high=("mid", "max"),
            low=("mid", "min"),
            close=("mid", "last"),
            spread=("spread", "mean"),
            quotes=("mid", "size"),
        )
        .reset_index()
    )
    return Quoted(bars=bars[list(QUOTE_BAR_COLUMNS)], quarantined=_set_aside(table, reason))


def as_sessions(dates: pd.Series | pd.DatetimeIndex | Sessions) -> Sessions:
    """The same dates as datetime64[D]."""
    return np.asarray(dates, dtype="datetime64[D]")


def as_rows(stamps: pd.Series | pd.DatetimeIndex | Sessions) -> Sessions:
    """The keys of rows: datetime64[D] where all are midnights, a row per session, else datetime64[m], a row per slot.

    Slots are in UTC, where none of New York's is at midnight.
    """
    instants = np.asarray(stamps, dtype="datetime64[us]")
    days = as_sessions(instants)
    return days if (days == instants).all() else np.asarray(instants, dtype="datetime64[m]")


def _conform(table: pd.DataFrame, columns: Sequence[str], *, numeric: Sequence[str], dates: Sequence[str] = ()) -> pd.DataFrame:
    """A copy with exactly `columns`, numbers as float64, dates as datetime64[us], index 0..n-1."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise BarsError(f"columns {', '.join(columns)} are needed, {', '.join(missing)} missing")
    table = table[list(columns)].reset_index(drop=True)
    for column in (*numeric, *dates):
        try:
            table[column] = table[column].astype("float64" if column in numeric else "datetime64[us]")
        except (TypeError, ValueError) as error:
            allowed = "numbers" if column in numeric else "tz-naive dates"
            raise BarsError(f"column {column} must hold {allowed}, was {table[column].dtype}: {error}") from error
    return table


def _first_reason(rules: Sequence[tuple[str, Mask]], rows: int) -> npt.NDArray[np.object_]:
    reason = np.full(rows, "", dtype=object)
    for name, broken in reversed(rules):
        reason[broken] = name
    return reason


def _set_aside(table: pd.DataFrame, reason: npt.NDArray[np.object_]) -> pd.DataFrame:
    broken: Mask = reason != ""
    aside: pd.DataFrame = table[broken].reset_index(drop=True)
    return aside.assign(reason=pd.Series(reason[broken], dtype="str"))


def _is_one_of(sessions: pd.Series, calendar: Sessions) -> Mask:
    instants = sessions.to_numpy()
    keys = instants.astype(calendar.dtype)
    return np.asarray(np.isin(keys, calendar) & (instants == keys))


def _gaps(bars: pd.DataFrame, calendar: Sessions) -> pd.DataFrame:
    calendar = np.unique(calendar)
    symbols: list[str] = []
    missing: list[Sessions] = [np.empty(0, dtype="datetime64[D]")]
    for symbol, own in bars.groupby("symbol"):
        present = own["session"].to_numpy().astype(calendar.dtype)
        expected = calendar[(calendar >= present[0]) & (calendar <= present[-1])]
        absent = expected[~np.isin(expected, present)]
        symbols += [str(symbol)] * len(absent)
        missing.append(absent)
    return pd.DataFrame({"symbol": pd.Series(symbols, dtype="str"), "session": np.concatenate(missing).astype("datetime64[us]")})


def _last_close_before(close: Array) -> Array:
    """(T, A): each name's last close before row t, NaN before its first."""
    last = np.where(np.isfinite(close), np.arange(len(close))[:, None], -1)
    last = np.vstack([np.full((1, close.shape[1]), -1), np.maximum.accumulate(last, axis=0)[:-1]])[: len(close)]
    before = np.take_along_axis(close, np.maximum(last, 0), axis=0)
    return np.where(last >= 0, before, np.nan)
