"""The root of our exceptions: a sentence that a person can act on."""

from __future__ import annotations


class PapertapeError(Exception):
    """Something could not be done; the message is one line that names the value, where it came from and what is allowed."""
