"""What a vendor of prices or news must be able to do: small protocols, the records that pass through them, and how a call can fail.

An adapter is one module beside this one; it translates its vendor's words and lets none through. It takes keys and a base URL, never
reads the environment, and asks through `transport.VendorTransport`, which holds its rate budget.

SourceError
├── SourceUnavailable   nothing is known: no answer, a 5xx, half a body; ask again later
├── SourceLimited       the vendor's budget, or ours, is used up; says until when as far as it is known
├── SourceRefused       the key is missing, refused, or not allowed this; one line with the remedy
└── SourceInvalid       the answer is not what the vendor describes; names the field
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, Protocol

from schema.news import NewsItem
from trading_env.errors import PapertapeError


class SourceError(PapertapeError, RuntimeError):
    """Base of what an adapter raises."""


class SourceUnavailable(SourceError):  # noqa: N818 -- the tree names outcomes
    """Nothing is known."""


class SourceLimited(SourceError):  # noqa: N818
    """Asked too often, or more than is paid for."""


class SourceRefused(SourceError):  # noqa: N818
    """The vendor does not let this key do this."""


class SourceInvalid(SourceError):  # noqa: N818
    """The answer cannot be understood."""


@dataclass(frozen=True, kw_only=True)
class SourceBars:
    """Daily bars by symbol and time: rows of symbol, ts (the session's start, UTC), open, high, low, close, volume.

    `prices`: `raw`, as they traded; `split`, adjusted for splits; `adjusted`, for splits and dividends. `actions`: rows of symbol, ex_date,
    kind (split or dividend), value, as far as the vendor tells them, and never one that the prices are adjusted for already. `missing`:
    symbols that the vendor does not know. `remarks`: what a reader must know of these bars, a sentence each.
    """

    rows: Sequence[dict[str, Any]]
    prices: Literal["raw", "split", "adjusted"]
    actions: Sequence[dict[str, Any]] = ()
    missing: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LastPrice:
    """The newest price of a symbol that a source has; bid and ask where it has them. A source that tells the session alone has its
    start as `ts`."""

    symbol: str
    ts: datetime
    price: float
    bid: float | None = None
    ask: float | None = None


class BarSource(Protocol):
    """Daily bars. Each read raises a `SourceError`; a symbol that the vendor does not know is named in `missing`, never made up."""

    @property
    def name(self) -> str: ...

    def daily_bars(self, symbols: Sequence[str], start: date, end: date) -> SourceBars:
        """Return the bars from `start` to `end`, both included."""


class PriceSource(Protocol):
    """Prices now."""

    @property
    def name(self) -> str: ...

    def last_prices(self, symbols: Sequence[str]) -> dict[str, LastPrice]:
        """Return the newest price of each symbol that has one."""


@dataclass(frozen=True, kw_only=True)
class NewsPage:
    """`items`, oldest first, of the symbols asked for; `resume` asks for what is left or newer, next time.

    `resume` is None where `since` alone says as much: then what arrives late is seen too. `invalid`: records that could not be read, each
    with its reason and the vendor's record; they are kept apart, never dropped. `read`: all records that the vendor sent, which some bill.
    """

    items: Sequence[NewsItem]
    resume: str | None
    invalid: Sequence[tuple[str, dict[str, Any]]] = ()
    read: int = 0


class NewsSource(Protocol):
    """Headlines or posts."""

    @property
    def name(self) -> str: ...

    def news(self, symbols: Sequence[str], *, since: datetime, until: datetime, resume: str | None, limit: int) -> NewsPage:
        """Return what was published in [since, until], at most `limit` items, all pages; `received` is `until`.

        With `resume`, what an earlier page returned, only what that one left. When there is more than `limit`, the oldest come first where
        the vendor can sort so, and `resume` continues there: nothing is skipped and nothing comes twice. `published` may lie ahead of
        `until` where the vendor's clock does; `received` rules. Raises a `SourceError`.
        """
