"""No text breaks the embedded scorers: whatever is posted has a record whose shares sum to 1, the same each time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.common.sentiment.classifier import ClassifierScorer
from lambdas.common.sentiment.comprehend import TEXT_BYTES, cut
from lambdas.common.sentiment.port import Scorable
from lambdas.common.sentiment.scoring import fingerprint, plain
from lambdas.common.sentiment.vader import VaderScorer

VADER, CLASSIFIER = VaderScorer(), ClassifierScorer()
WORDS = [
    "not",
    "never",
    "no",
    "without",
    "least",
    "so",
    "this",
    "doubt",
    "but",
    "despite",
    "only",
    "cuts",
    "raises",
    "profit",
    "loss",
    "shares",
    "?",
    ",",
    ";",
    "9%",
    "$AAPL",
    "<b>",
    "&lt;",
    "mixed",
    "beats",
]
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=200),  # half surrogate pairs too
    st.lists(st.sampled_from([*WORDS, *VADER._analyzer.lexicon]), max_size=12).map(" ".join),
)


@given(text=TEXTS)
@settings(max_examples=150, deadline=None)
def test_every_text_has_a_record(text: str) -> None:
    for scorer in (VADER, CLASSIFIER):
        for said in (text, plain(text)):
            (found,) = scorer.score([Scorable(text=said)])
            assert found.positive + found.negative + found.neutral + found.mixed == pytest.approx(1)
            assert found == scorer.score([Scorable(text=said)])[0]


@given(text=TEXTS, times=st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_what_is_sent_fits_and_is_a_beginning(text: str, times: int) -> None:
    whole = (text * times).encode("utf-8", "replace")
    sent = cut(text * times).encode()
    assert len(sent) <= TEXT_BYTES
    assert whole.startswith(sent)
    assert len(whole) - len(sent) < 4 or len(sent) > TEXT_BYTES - 4


@given(text=TEXTS)
@settings(max_examples=150, deadline=None)
def test_a_repost_has_the_fingerprint_of_the_post(text: str) -> None:
    words = plain(text)
    assert fingerprint(f"RT @somebody: {words}  https://t.co/x") == fingerprint(f"RT @other: {words}")
