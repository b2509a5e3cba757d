"""A headline read as the market reads it, before VADER weighs its words: the project's own words and phrases of `finance_words.toml`.

Three things VADER cannot do are done here, without touching its module. A phrase becomes one word with one valence. A direction ("rises",
"cuts") is joined with the nearest thing in its clause that rises or falls: less loss is good, less profit is not. What misleads in the
market ("shares", "interest") has no valence. Pure and deterministic; nothing is kept between two texts.
"""

from __future__ import annotations

import hashlib
import re
import string
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

#: A headline has some 100 characters, a post at most 512; what is beyond is not read.
READ_CHARACTERS = 1_000
#: How far from its direction a thing may stand, in words.
REACH = 4
WELL, BADLY = 1.7, -1.7  # valence of a direction and its thing
MIXED = "goes_well goes_badly"
ALONE = 0.75  # of that, where only a direction is told: what is reported is the share's own price

_LINK = re.compile(r"(?:https?://|www\.)\S+")
_NAME = re.compile(r"[$@#]\w+")
_SPACED = re.compile(r"([,;:/()\[\]–—])")  # each ends a clause
_BREAKS = frozenset(",;:/()[]–—")
_CLAUSE_ENDS = _BREAKS | {
    *("after", "although", "amid", "and", "as", "before", "but", "despite", "even", "offset", "offsets", "on", "overshadowed"),
    *("though", "while", "with", "yet"),
}
_EDGES = string.punctuation.replace("$", "").replace("%", "") + "“”‘’…"


@dataclass(frozen=True)
class FinanceWords:
    """`valences` by word or joined phrase, as VADER's lexicon has them; `neutral`: words that VADER must not weigh."""

    valences: Mapping[str, float]
    phrases: Mapping[str, tuple[tuple[str, ...], ...]]  # by first word, longest first
    neutral: frozenset[str]
    directions: Mapping[str, int]
    ends: frozenset[str]  # directions that say nothing alone
    things: Mapping[str, int]
    version: str

    @property
    def count(self) -> int:
        """Words and phrases that the project wrote."""
        return len(self.valences) + len(self.neutral) + len(self.directions) + len(self.things)

    def read(self, text: str) -> str:
        """Return the words that VADER shall weigh, in the order of the text."""
        words = self._joined(words_of(text))
        return " ".join(self._directed(words))

    def _joined(self, words: Sequence[str]) -> list[str]:
        joined: list[str] = []
        at = 0
        while at < len(words):
            found = next((each for each in self.phrases.get(words[at], ()) if tuple(words[at : at + len(each)]) == each), None)
            joined.append("_".join(found) if found else words[at])
            at += len(found) if found else 1
        return joined

    def _directed(self, words: list[str]) -> list[str]:
        """The words with each direction and its thing as one weighed word, and without what would turn or stress it wrongly."""
        heard = list(words)
        taken: set[int] = set()
        for at, word in enumerate(words):
            direction = self.directions.get(word)
            if direction is None:
                continue
            thing = self._thing(words, at, taken)
            if thing is None and word in self.ends:
                continue
            if thing is None:
                heard[at] = "goes_up" if direction > 0 else "goes_down"
            else:
                taken.add(thing)
                heard[at] = "goes_well" if direction * self.things[words[thing]] > 0 else "goes_badly"
        for thing in taken:
            heard[thing] = "thing"
        return [MIXED if word == "mixed" else word for word in heard if word not in {"but", "despite"}]

    def _thing(self, words: Sequence[str], at: int, taken: set[int]) -> int | None:
        """Where the nearest thing of this clause stands that no other direction has; of two, the one before."""
        found: list[tuple[int, int]] = []
        for step in (-1, 1):
            for distance in range(1, REACH + 1):
                place = at + step * distance
                if not 0 <= place < len(words) or words[place] in _CLAUSE_ENDS:
                    break
                if words[place] in self.things and place not in taken:
                    found.append((distance, place))
                    break
        return min(found)[1] if found else None


def words_of(text: str) -> list[str]:
    """Lower-case words of the beginning of a text, without links and names; what ends a clause stands alone."""
    plain = unicodedata.normalize("NFKC", text[:READ_CHARACTERS]).replace("’", "'").lower()
    spaced = _SPACED.sub(r" \1 ", _NAME.sub(" ", _LINK.sub(" ", plain)))
    words = (word if word in _BREAKS else word.strip(_EDGES).removesuffix("'s") for word in spaced.split())
    return [word for word in words if word]


def asks(text: str) -> bool:
    """Whether the headline is a question."""
    return len(text) <= READ_CHARACTERS and text.rstrip().endswith("?")


@cache
def finance_words() -> FinanceWords:
    """The project's own, read once."""
    content = files(__package__).joinpath("finance_words.toml").read_bytes()
    tables = tomllib.loads(content.decode())
    phrases: dict[str, list[tuple[str, ...]]] = {}
    for phrase in tables["phrases"]:
        words = tuple(phrase.split())
        phrases.setdefault(words[0], []).append(words)
    return FinanceWords(
        valences={
            **tables["words"],
            **{"_".join(phrase.split()): valence for phrase, valence in tables["phrases"].items()},
            "goes_well": WELL,
            "goes_badly": BADLY,
            "goes_up": WELL * ALONE,
            "goes_down": BADLY * ALONE,
        },
        phrases={first: tuple(sorted(several, key=len, reverse=True)) for first, several in phrases.items()},
        neutral=frozenset(tables["neutral"].split()),
        directions={**dict.fromkeys(tables["up"].split(), 1), **dict.fromkeys(f"{tables['down']} {tables['ends']}".split(), -1)},
        ends=frozenset(tables["ends"].split()),
        things={**dict.fromkeys(tables["good"].split(), 1), **dict.fromkeys(tables["bad"].split(), -1)},
        version=hashlib.sha256(content).hexdigest()[:8],
    )
