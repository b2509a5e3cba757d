"""How the messages of a stream travel: as JSON in text frames, as JSON in binary frames, or as msgpack.

A message holds its times as datetimes. JSON prints them as the REST answers do, msgpack carries them as its Timestamp type, as the
vendor's does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgpack

from local.exchange.http.wire import utc


@dataclass(frozen=True, slots=True)
class StreamCodec:
    """`decode` raises `ValueError` for what it cannot read."""

    encode: Callable[[object], str | bytes]
    decode: Callable[[str | bytes], Any]


def codec_for(content_type: str, *, binary: bool) -> StreamCodec:
    """What a handshake asks for; `binary` is whether the stream sends its JSON in binary frames."""
    if content_type == "application/msgpack":
        return StreamCodec(_packed, _unpacked)
    return StreamCodec(_binary if binary else _text, _parsed)


def _text(message: object) -> str:
    return json.dumps(message, separators=(",", ":"), allow_nan=False, default=_time)


def _binary(message: object) -> bytes:
    return _text(message).encode()


def _packed(message: object) -> bytes:
    packed: bytes = msgpack.packb(message, datetime=True)
    return packed


def _parsed(frame: str | bytes) -> Any:
    try:
        return json.loads(frame)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _unpacked(frame: str | bytes) -> Any:
    return msgpack.unpackb(frame.encode() if isinstance(frame, str) else frame)


def _time(value: object) -> str:
    if isinstance(value, datetime):
        return utc(value)
    raise TypeError(f"a message holds texts, numbers and times, was {value!r}")
