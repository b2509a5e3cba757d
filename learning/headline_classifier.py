"""Train the classifier of headlines on the ones that the project wrote: `python -m learning.headline_classifier`.

Promise: the arrays of `trading_env.data.headline_model`, which answer as the library does to 1e-9; the same headlines give the same bytes
(the solver runs to its end, and what it finds is rounded to `DECIMALS`). `held_out.tsv` is read to judge and never to train.
Failure: `HeadlineDataError` for a file that is no table of labels and texts; it names the line.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from trading_env.data.headline_model import LABELS, WORD, dumped, loaded
from trading_env.errors import PapertapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
DEVELOPMENT = ROOT / "data" / "headlines" / "development.tsv"
TEMPLATED = ROOT / "data" / "headlines" / "templated.tsv"
HELD_OUT = ROOT / "data" / "headlines" / "held_out.tsv"
ARRAYS = ROOT / "lambdas" / "common" / "sentiment" / "headlines.npz"
HEADER = "label\ttext"
INVERSE_PENALTY = 10.0
FEWEST = 2  # headlines that a term must stand in
DECIMALS = 6  # of what is stored: beyond, a number is the processor's


class HeadlineDataError(PapertapeError, ValueError):
    """The file holds no labelled headlines."""


@dataclass(frozen=True, kw_only=True)
class LabelledHeadline:
    label: str
    text: str


def read(path: Path) -> list[LabelledHeadline]:
    """The lines `label<TAB>text` of a file with a header."""
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    if header != HEADER:
        raise HeadlineDataError(f"{path.name}: the header must be {HEADER!r}, was {header!r}")
    rows = []
    for number, line in enumerate(lines, start=2):
        label, tab, text = line.partition("\t")
        if label not in LABELS or not tab or not text.strip():
            raise HeadlineDataError(f"{path.name}:{number}: must be one of {', '.join(LABELS)}, a tab and a text, was {line!r}")
        rows.append(LabelledHeadline(label=label, text=text))
    return rows


def pipeline() -> Pipeline:
    """The library's, not yet fitted."""
    return make_pipeline(
        TfidfVectorizer(lowercase=True, token_pattern=WORD, ngram_range=(1, 2), binary=True, min_df=FEWEST, dtype=np.float64),
        LogisticRegression(C=INVERSE_PENALTY, class_weight="balanced", tol=1e-10, max_iter=10_000),
    )


def trained(rows: Sequence[LabelledHeadline]) -> Pipeline:
    """The library's pipeline on these rows, its numbers rounded as they are stored."""
    fitted = pipeline().fit([row.text for row in rows], [row.label for row in rows])
    vectorizer, model = fitted.steps[0][1], fitted.steps[1][1]
    vectorizer.idf_ = np.round(vectorizer.idf_, DECIMALS)
    model.coef_, model.intercept_ = np.round(model.coef_, DECIMALS), np.round(model.intercept_, DECIMALS)
    return fitted


def arrays_of(fitted: Pipeline) -> bytes:
    """The .npz that serves what `fitted` answers."""
    vectorizer, model = fitted.steps[0][1], fitted.steps[1][1]
    order = [list(model.classes_).index(label) for label in LABELS]
    return dumped(
        terms=list(vectorizer.get_feature_names_out()),
        idf=vectorizer.idf_,
        weights=np.ascontiguousarray(model.coef_[order]),
        intercept=model.intercept_[order],
    )


def accuracy(content: bytes, rows: Sequence[LabelledHeadline]) -> float:
    """Of the served arrays."""
    best = loaded(content).shares([row.text for row in rows]).argmax(axis=1)
    return float(np.mean([LABELS[column] == row.label for column, row in zip(best, rows, strict=True)]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the classifier of headlines, and say how often it is right.")
    parser.add_argument("--out", type=Path, default=ARRAYS)
    options = parser.parse_args(arguments)
    rows, judges = [*read(DEVELOPMENT), *read(TEMPLATED)], read(HELD_OUT)
    content = arrays_of(trained(rows))
    options.out.write_bytes(content)
    print(f"{len(rows)} headlines, {len(loaded(content).columns)} terms, {len(content)} bytes: {options.out}")
    print(f"right: {accuracy(content, rows):.1%} of its own, {accuracy(content, judges):.1%} of {len(judges)} held out")


if __name__ == "__main__":
    main()
