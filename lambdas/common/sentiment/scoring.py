"""From what was collected to its scores: each text once, however often it was posted, and nothing lost.

Texts are made plain first (no markup, no half surrogates, at most `READ_CHARACTERS`), so that a scorer sees what a reader would.
"""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from collections.abc import Sequence

from lambdas.common.sentiment.port import Scorable, Scorer
from schema.news import NewsItem, ScoredItem, Sentiment, flagged

#: What is read of a text: a post has at most 512 characters, a headline some 100; a megabyte of text is none.
READ_CHARACTERS = 20_000
FINGERPRINT_DIGITS = 20

_SCRIPT = re.compile(r"<(script|style)\b[^<]{0,5000}</\1\s*>", re.IGNORECASE)
_MARKUP = re.compile(r"</?[a-zA-Z!][^<>]{0,500}>")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_LINK = re.compile(r"(?:https?://|www\.)\S+")
_REPOSTED = re.compile(r"^(?:\s*rt\b\s*(?:@\w+)?:?)+")
_MENTION = re.compile(r"(?<!\w)@\w+")
_PART = re.compile(r"[-+$]{0,3}\d(?:[\d.,]*\d)?%?|\w+|[^\w\s]")


def scored(items: Sequence[NewsItem], *, scorer: Scorer, min_confidence: float) -> list[ScoredItem]:
    """Return one score per item, in order; texts of one fingerprint and language are scored once.

    A score of less than `min_confidence` is neutral and flagged `low_confidence`; an item without text, or without a word, `empty`.
    """
    prints = [fingerprint(item.text or "") for item in items]
    once: dict[tuple[str, str], Scorable] = {}
    for item, mark in zip(items, prints, strict=True):
        if mark != EMPTY:
            once.setdefault((mark, item.language), Scorable(text=plain(item.text or ""), language=item.language))
    found = dict(zip(once, scorer.score(list(once.values())), strict=True))
    nothing = flagged("empty", model=scorer.model, version=scorer.version)
    return [
        ScoredItem(
            id=item.id,
            source=item.source,
            published=item.published,
            received=item.received,
            symbols=item.symbols,
            fingerprint=mark,
            sentiment=_confident(found.get((mark, item.language), nothing), least=min_confidence),
        )
        for item, mark in zip(items, prints, strict=True)
    ]


def _confident(sentiment: Sentiment, *, least: float) -> Sentiment:
    if sentiment.flag is None and sentiment.confidence < least:
        return flagged("low_confidence", model=sentiment.model, version=sentiment.version)
    return sentiment


def plain(text: str) -> str:
    """The words of a text: without markup, invisible characters and half surrogates, entities resolved, white space folded."""
    whole = text[:READ_CHARACTERS].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    shown = _MARKUP.sub(" ", html.unescape(_MARKUP.sub(" ", _SCRIPT.sub(" ", whole))))
    return " ".join(_INVISIBLE.sub("", shown).split())


def fingerprint(text: str) -> str:
    """Return what reposts of a text have in common: NFKC, case, links, @mentions, "RT", punctuation and white space do not count."""
    folded = unicodedata.normalize("NFKC", plain(text)).casefold()
    bare = _MENTION.sub(" ", _REPOSTED.sub(" ", _LINK.sub(" ", folded)))
    parts = [part for part in _PART.findall(bare) if len(part) > 1 or unicodedata.category(part)[0] not in "PCZ"]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:FINGERPRINT_DIGITS]


EMPTY = fingerprint("")
