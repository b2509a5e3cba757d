"""What goes into the stream, one JSON line a record: quotes as they came, and the bar of each minute.

A quote's line is what `ingest_quotes` writes (`raw/quotes/`), so that whoever reads those reads these. `kind` says which of the two a
line is, and its first key below `raw/` follows from it (`schema.lake_layout`). Times are UTC.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9.]{0,9}$")]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]

#: Why a bar is less than the whole minute: the runner came or left within it, a socket was away in it, or a trade of it came after its end.
Flaw = Literal["partial", "gap", "late"]


class StreamRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: Symbol
    ts: AwareDatetime
    received_at: AwareDatetime
    feed: Annotated[str, StringConstraints(min_length=1, max_length=20)]


class StreamedQuote(StreamRecord):
    """What the feed said, zero, crossed or old included: judging is the reader's work."""

    kind: Literal["quote"] = "quote"
    bid: Price
    bid_size: Size
    ask: Price
    ask_size: Size


class StreamedBar(StreamRecord):
    """The minute that begins at `ts`, from its trades; `bid` and `ask` are the last before its end, None where there was no quote.

    `source`: "trades" for a bar that the runner built, "vendor" for the vendor's own, which stands where ours differs. A minute without a
    trade has no bar. A bar may come again, by a late trade or a correction: the last received of a name and minute stands. `quotes` are
    those of the minute, a repeated one once.
    """

    kind: Literal["bar"] = "bar"
    open: Price
    high: Price
    low: Price
    close: Price
    volume: Size
    trades: Annotated[int, Field(ge=0)]
    vwap: Price | None
    bid: Price | None
    ask: Price | None
    quotes: Annotated[int, Field(ge=0)]
    source: Literal["trades", "vendor"]
    flaws: tuple[Flaw, ...] = ()
