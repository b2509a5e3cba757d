"""Minutes that nobody recorded, made from a daily bar: for bots that need minutes to run at all. They must never judge a strategy.

Promise: a symbol's day is a function of its daily bar, the symbol and the date. It starts at the open, ends at the close, touches high and
low and never leaves them, and the minutes' volumes sum to the day's: aggregated, the minutes are the daily bar, to the last digit. Prices
between are in cents.

Failure that cannot be mended: a path that ends at the close knows the close from its first minute. Minute by minute nothing of the day is
told before its time, but what a minute shows was drawn with the end in mind, so a rule that reads the path (momentum after a range was
broken, say) may find in it what this module put there. A Brownian bridge between the four prices is all that there is.

The path: a Brownian motion of four steps per minute, whose highest and lowest points give the times of high and low. It is pinned to the
open, those two and the close by straight lines, scaled to the day's range, and folded back where it would leave the range.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from local.exchange.market.rows import MINUTE, RecordedBar, RecordedMinute, RecordedQuote, RecordedTrade, end_of

STEPS = 4
#: The first and the last minutes trade about five times what those at noon do; each is drawn around that.
EDGE, NOISE = 4.0, 0.35
#: A quote's spread is a basis point of the price on average, and a cent at least (a hundredth of it below a dollar).
SPREAD, LOTS = 1e-4, 12

Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeDay:
    """One symbol's session, minute by minute. Prices are whole numbers of 10^-`decimals` dollars; each array has one entry per minute."""

    opened: datetime
    decimals: int
    opens: Whole
    highs: Whole
    lows: Whole
    closes: Whole
    volumes: Whole
    bids: Whole
    asks: Whole
    bid_lots: Whole
    ask_lots: Whole

    def __len__(self) -> int:
        return len(self.opens)

    def bar(self, minute: int) -> RecordedBar:
        opens, high, low, close = (self._price(prices[minute]) for prices in (self.opens, self.highs, self.lows, self.closes))
        return RecordedBar(self.opened + minute * MINUTE, open=opens, high=high, low=low, close=close, volume=int(self.volumes[minute]))

    def so_far(self, ended: int, *, start: datetime) -> RecordedBar:
        """The day's bar when `ended` minutes have ended, of at least one, named by `start`."""
        prices = (self.opens[0], self.highs[:ended].max(), self.lows[:ended].min(), self.closes[ended - 1])
        opens, high, low, close = map(self._price, prices)
        return RecordedBar(start, open=opens, high=high, low=low, close=close, volume=int(self.volumes[:ended].sum()))

    def quote(self, minute: int) -> RecordedQuote:
        """The quote as the minute ends, around its close."""
        bid, ask = self._price(self.bids[minute]), self._price(self.asks[minute])
        at = end_of(self.opened + minute * MINUTE)
        return RecordedQuote(bid=bid, bid_size=100 * int(self.bid_lots[minute]), ask=ask, ask_size=100 * int(self.ask_lots[minute]), at=at)

    def minute(self, minute: int) -> RecordedMinute:
        bar = self.bar(minute)
        return RecordedMinute(trade=RecordedTrade(bar.close, end_of(bar.start)), quote=self.quote(minute), bar=bar)

    def _price(self, units: np.int64) -> Decimal:
        return Decimal(int(units)).scaleb(-self.decimals)


def made_day(symbol: str, day: RecordedBar, *, on: date, opened: datetime, closed: datetime, spread: bool = True) -> MadeDay:
    """The session's minutes, from `opened` to `closed`: 390 of them, 210 on half days. Without `spread` each quote stands at its close."""
    minutes = int((closed - opened) / MINUTE)
    seed = hashlib.sha256(f"made minutes {symbol} {on.isoformat()}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(seed[:8], "big"))
    four = (day.open, day.high, day.low, day.close)
    decimals = max(2, *(-int(price.normalize().as_tuple().exponent) for price in four))
    opens, high, low, close = (int(price.scaleb(decimals)) for price in four)
    low, high = min(low, opens, close), max(high, opens, close)
    points = _path(random, steps=minutes * STEPS, begin=opens, high=high, low=low, end=close, cent=10 ** (decimals - 2))
    ends = points[STEPS::STEPS]
    within = np.stack([points[step : step + STEPS * (minutes - 1) + 1 : STEPS] for step in range(STEPS + 1)])
    bids, asks = _quotes(random, ends, cent=10 ** (decimals - 2), tick=10 ** max(0, decimals - 4) if close < 10**decimals else None)
    return MadeDay(
        opened=opened,
        decimals=decimals,
        opens=points[:-1:STEPS],
        highs=within.max(axis=0),
        lows=within.min(axis=0),
        closes=ends,
        volumes=_volumes(random, minutes=minutes, total=day.volume),
        bids=bids if spread else ends,
        asks=asks if spread else ends,
        bid_lots=random.integers(1, LOTS, minutes),
        ask_lots=random.integers(1, LOTS, minutes),
    )


def _path(random: np.random.Generator, *, steps: int, begin: int, high: int, low: int, end: int, cent: int) -> Whole:
    """`steps` + 1 prices from `begin` to `end`, which reach `high` and `low`, in whole cents but for those four."""
    motion = np.concatenate([[0.0], np.cumsum(random.standard_normal(steps))])
    top, bottom = (1 + int(found) for found in (motion[1:-1].argmax(), motion[1:-1].argmin()))
    times = np.array([0, *sorted((top, bottom)), steps])
    prices = np.array([begin, *((high, low) if top < bottom else (low, high)), end], dtype=np.float64)
    moment = np.arange(steps + 1)
    noise = (motion - np.interp(moment, times, motion[times])) * (high - low) / (motion.max() - motion.min())
    path = np.interp(moment, times, prices) + noise
    if high > low:  # what leaves the range comes back into it, as light between two mirrors
        path = low + np.abs((path - low + (high - low)) % (2 * (high - low)) - (high - low))
    whole: Whole = np.clip(np.rint(path / cent).astype(np.int64) * cent, low, high)
    whole[times] = (begin, *((high, low) if top < bottom else (low, high)), end)
    return whole


def _volumes(random: np.random.Generator, *, minutes: int, total: int) -> Whole:
    """Shares per minute, more at both ends of the day; their sum is `total`."""
    place = np.linspace(-1.0, 1.0, minutes)
    weights = (1 + EDGE * place**4) * np.exp(NOISE * random.standard_normal(minutes))
    reached = np.floor(np.cumsum(weights) / weights.sum() * total).astype(np.int64)
    reached[-1] = total
    volumes: Whole = np.diff(reached, prepend=0)
    return volumes


def _quotes(random: np.random.Generator, ends: Whole, *, cent: int, tick: int | None) -> tuple[Whole, Whole]:
    """Bid and ask around each close, never crossed, the bid above nothing."""
    step = cent if tick is None else tick
    spread = step * np.maximum(1, np.rint(ends * SPREAD * random.gamma(2.0, 0.5, len(ends)) / step).astype(np.int64))
    below = step * ((spread // step) // 2)
    bids = np.maximum(ends - below, np.minimum(ends, step))
    return bids, np.maximum(bids + spread, ends)
