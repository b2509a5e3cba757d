"""A linear classifier of headlines as arrays: what `learning.headline_classifier` trains, served in NumPy wherever a headline is scored.

It does what scikit-learn's `TfidfVectorizer` and `LogisticRegression` do, and equals them to 1e-9: the terms of a text are its words and
its pairs of neighbouring words, each counted once; each weighs its idf, scaled to length 1; shares are the softmax of linear scores.
Promise: pure, NumPy alone, no pickle. Failure: `HeadlineModelError`, one line that names the array that is not what it should be.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trading_env.errors import PapertapeError

#: The first letters of a word, so that "miss" and "misses" are one, and the sign of a question: no figure says what is good.
WORD = r"\b[a-z]{2,4}|\?"
#: In the order of the columns of `shares`.
LABELS = ("positive", "negative", "neutral", "mixed")
ARRAYS = ("terms", "idf", "weights", "intercept")
_WORD = re.compile(WORD)

FloatArray = NDArray[np.float64]


class HeadlineModelError(PapertapeError, ValueError):
    """The arrays are no classifier of headlines."""


@dataclass(frozen=True, eq=False)
class HeadlineModel:
    """`terms` (V,) sorted; `idf` (V,); `weights` (4, V) and `intercept` (4,) in the order of `LABELS`. `version`: hash of the file."""

    columns: dict[str, int]
    idf: FloatArray
    weights: FloatArray
    intercept: FloatArray
    version: str

    def shares(self, texts: Sequence[str]) -> FloatArray:
        """Return (T, 4), each row summing to 1; a text without a known term gets what is common in training."""
        scores = np.tile(self.intercept, (len(texts), 1))
        for row, text in enumerate(texts):
            known = sorted({self.columns[term] for term in _terms(text) if term in self.columns})
            if known:
                values = self.idf[known]
                scores[row] += self.weights[:, known] @ (values / np.sqrt(values @ values))
        scores -= scores.max(axis=1, keepdims=True, initial=-np.inf)
        powers = np.exp(scores)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _terms(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    return words + [f"{one} {two}" for one, two in pairwise(words)]


def dumped(*, terms: Sequence[str], idf: FloatArray, weights: FloatArray, intercept: FloatArray) -> bytes:
    """The arrays as an .npz whose bytes depend on them alone."""
    buffer = io.BytesIO()
    np.savez(buffer, terms=np.asarray(terms, dtype=np.str_), idf=idf, weights=weights, intercept=intercept)
    return buffer.getvalue()


def loaded(content: bytes) -> HeadlineModel:
    """Read what `dumped` wrote."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays: dict[str, NDArray[Any]] = {name: archive[name] for name in ARRAYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise HeadlineModelError(f"the classifier of headlines cannot be read: {' '.join(str(error).split())}") from error
    size = arrays["terms"].size
    shapes = {"terms": (size,), "idf": (size,), "weights": (len(LABELS), size), "intercept": (len(LABELS),)}
    for name, shape in shapes.items():
        array = arrays[name]
        sound = array.dtype.kind == "U" if name == "terms" else array.dtype == np.float64 and bool(np.isfinite(array).all())
        if array.shape != shape or not sound:
            raise HeadlineModelError(
                f"{name} must be {'names' if name == 'terms' else 'finite float64'} of shape {shape}, was {array.dtype} {array.shape}"
            )
    if len(set(arrays["terms"].tolist())) < size or (arrays["idf"] <= 0).any():
        raise HeadlineModelError("terms must be distinct, and each idf above 0")
    return HeadlineModel(
        columns={str(term): column for column, term in enumerate(arrays["terms"])},
        idf=arrays["idf"],
        weights=arrays["weights"],
        intercept=arrays["intercept"],
        version=hashlib.sha256(content).hexdigest()[:12],
    )
