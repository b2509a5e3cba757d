"""What the adapters of news share: strangers' words made harmless, a vendor's records made items, and what could not be read kept apart.

A text loses control characters, halves of surrogate pairs, and the marks that reorder what a person reads after them; tabs and line
breaks become spaces. It is cut at 10,000 characters, never within one. Emoji, scripts from right to left with their marks, and HTML stay: a
text is data, and escaped where it is shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from schema.exchange_time import iso, parse_utc
from schema.news import NewsItem
from sources.port import SourceInvalid
from sources.transport import VendorTransport

LONGEST_TEXT = 10_000  # characters
LONGEST_NAME = 200
LONGEST_URL = 2_000
#: Embeddings, overrides and isolates (Unicode TR 9); the plain marks U+200E, U+200F and U+061C stay.
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SPACES = re.compile(r"[ \t\r\n\u2028\u2029]+")


def cleaned(text: str, *, longest: int = LONGEST_TEXT) -> str:
    """Return `text` as the module's docstring promises."""
    return _HARMFUL.sub("", _SPACES.sub(" ", text)).strip()[:longest]


def web_address(text: str | None) -> str:
    """Return an address of http or https, empty for anything else or anything longer than 2,000 characters."""
    address = cleaned(text or "", longest=LONGEST_URL + 1)
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return address if parts.scheme in {"http", "https"} and parts.netloc and len(address) <= LONGEST_URL else ""


def _cleaned(value: Any) -> Any:
    return cleaned(value) if isinstance(value, str) else value


def _name(value: Any) -> Any:
    return cleaned(value, longest=LONGEST_NAME) if isinstance(value, str) else value


def _moment(value: Any) -> Any:
    """RFC 3339 with its zone, as our records keep times."""
    return iso(parse_utc(value)) if isinstance(value, str) else value


Words = Annotated[str, BeforeValidator(_cleaned)]
Name = Annotated[str, BeforeValidator(_name)]
Moment = Annotated[str, BeforeValidator(_moment)]


class VendorNews(BaseModel):
    """A record of news as a vendor describes it; strict, and what it has beyond that is left in `NewsItem.raw`."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


Read = TypeVar("Read", bound=VendorNews)


@dataclass(kw_only=True)
class Gathered:
    """What has been read of a vendor in one call: items by id, the first of each, and what could not be read, with its reason."""

    source: str
    symbols: Collection[str]
    received: datetime
    items: dict[str, NewsItem] = field(default_factory=dict)
    invalid: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    read: int = 0

    def record(self, model: type[Read], value: Any) -> Read | None:
        """Return `value` as `model`; None where it is none, and then it is kept apart."""
        self.read += 1
        try:
            json.dumps(value, allow_nan=False)
            return model.model_validate(value)
        except ValidationError as error:
            problem = error.errors()[0]
            self.refuse(f"{'.'.join(str(part) for part in problem['loc']) or 'record'}: {problem['msg']}", value)
        except (ValueError, OverflowError) as error:
            self.refuse(str(error), value)
        return None

    def refuse(self, reason: str, value: Any) -> None:
        self.invalid.append((" ".join(reason.split())[:LONGEST_NAME], value if isinstance(value, dict) else {"value": value}))

    def add(self, raw: dict[str, Any], *, symbols: Iterable[str], **fields: Any) -> NewsItem | None:
        """Keep an item of the names asked for; None where it is about none of them. What comes twice stays as it came first."""
        ours = tuple(sorted({symbol for symbol in symbols if symbol in self.symbols}))
        if not ours:
            return None
        item = NewsItem(source=self.source, received=iso(self.received), symbols=ours, raw=raw, **fields)
        return self.items.setdefault(item.id, item)


def field_of(answer: Any, name: str, kind: type[Any], *, transport: VendorTransport) -> Any:
    """Return a field of the answer that `transport` got; raise `SourceInvalid` where it is missing or of another kind."""
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, kind):
        was = value if isinstance(answer, dict) and name in answer else answer
        raise SourceInvalid(f"{transport.source}: {name} must be {kind.__name__}, was {transport.shown(was)}")
    return value
