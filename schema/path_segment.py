"""An id as one segment of a URL's path, in unreserved characters only.

Ids hold slashes, colons and plus signs. Percent-encoded, they are signed in one of several ways, according to who decodes a path before the
signature is checked; what `segment_of` makes is the same whoever encodes, decodes or normalizes it. `identity_of` takes it back, and takes
percent-encoded and plain ids as well, as a person may send them.
"""

from __future__ import annotations

import re
import string
from urllib.parse import unquote

#: No dot: segments of dots are removed when a path is normalized. No tilde: it escapes.
PLAIN = frozenset(string.ascii_letters + string.digits + "_-")


def segment_of(identity: str) -> str:
    """Return `identity` with each byte outside of `PLAIN` as a tilde and two capital hexadecimal digits."""
    return "".join(char if char in PLAIN else "".join(f"~{byte:02X}" for byte in char.encode()) for char in identity)


def identity_of(segment: str) -> str:
    """Return the id that `segment` stands for; bytes that are no UTF-8 become the replacement character, which no id holds."""
    escaped = unquote(segment).encode()
    return re.sub(rb"~([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), escaped).decode(errors="replace")
