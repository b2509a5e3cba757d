"""A vendor's answer, read with its type: its pages, the port's rows, and one line that names the field of what cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from datetime import UTC, date, datetime, time
from functools import cache
from typing import Annotated, Any, TypeVar, cast

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schema.exchange_time import NEW_YORK, iso
from sources.port import SourceInvalid

Answer = TypeVar("Answer")
#: A number of JSON, not a text that looks like one; not NaN, not infinite.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
#: Between 1900 and 2100, where every zone has its date.
EpochSeconds = Annotated[int, Field(strict=True, ge=-2_208_988_800, le=4_102_444_800)]
EpochMilliseconds = Annotated[int, Field(strict=True, ge=-2_208_988_800_000, le=4_102_444_800_000)]
Moment = Annotated[AwareDatetime, Field(ge=datetime(1900, 1, 1, tzinfo=UTC), le=datetime(2100, 1, 1, tzinfo=UTC))]
Text = Annotated[str, Field(strict=True)]
MOST_PAGES = 1_000


class VendorRecord(BaseModel):
    """What we read of a vendor's object; what else is in it may come and go."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, populate_by_name=True)


def parsed(shape: type[Answer], body: Any, *, source: str, what: str) -> Answer:
    """`body` as `shape`; `SourceInvalid` names the first field that is not."""
    try:
        answer: Answer = _adapter(cast(Hashable, shape)).validate_python(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "(the answer)"
        held = "" if first["type"] == "missing" else f", was {str(first['input'])[:40]!r}"
        raise SourceInvalid(f"{source}: {what}: {field}: {first['msg']}{held}") from None
    return answer


@cache
def _adapter(shape: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, shape))


def pages(page: Callable[[str | None], tuple[Sequence[Any], Any]], *, source: str) -> Iterator[Any]:
    """Yield the records of each page; `page` gets the token that the one before it gave, and returns its records and the next token.

    Raises `SourceInvalid` where a token is no text, where one comes back, and after `MOST_PAGES`: paging must end.
    """
    token: str | None = None
    seen = set[str]()
    while True:
        records, following = page(token)
        yield from records
        if not following:
            return
        if not isinstance(following, str):
            raise SourceInvalid(f"{source}: next_page_token must be text or null, was {type(following).__name__}")
        if following in seen:
            raise SourceInvalid(f"{source}: a page leads back to itself, {following[:50]!r}")
        seen.add(following)
        if len(seen) >= MOST_PAGES:
            raise SourceInvalid(f"{source}: {MOST_PAGES:,} pages were read, and another is announced")
        token = following


def session_start(day: date) -> datetime:
    """Midnight in New York, in UTC, which is how a daily bar is stamped."""
    return datetime.combine(day, time(), tzinfo=NEW_YORK).astimezone(UTC)


def bar_row(symbol: str, day: date, *, prices: tuple[float, float, float, float], volume: float) -> dict[str, Any]:
    """A row of `SourceBars.rows`; `prices` are open, high, low, close."""
    opened, high, low, close = prices
    return {"symbol": symbol, "ts": iso(session_start(day)), "open": opened, "high": high, "low": low, "close": close, "volume": volume}


def action_row(symbol: str, ex_date: date, kind: str, value: float) -> dict[str, Any]:
    """A row of `SourceBars.actions`: shares after per share before of a split, dollars per share of a dividend."""
    return {"symbol": symbol, "ex_date": ex_date.isoformat(), "kind": kind, "value": value}
