"""The classifier of headlines: what is served is what the library trained, and what is shipped is what the data give."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from learning import headline_classifier as training
from trading_env.data.headline_model import LABELS, HeadlineModelError, dumped, loaded

SHIPPED = training.ARRAYS.read_bytes()
HELD_OUT = training.read(training.HELD_OUT)
FLOOR = 0.54  # of the held-out headlines; .575 was measured
TEXTS = [row.text for row in HELD_OUT] + [
    "",
    "?",
    "a",
    "🚀",
    "ß",
    "Beats BEATS beats",
    "İstanbul beats",
    "x" * 10_000,
    "\n\tmisses\u00a0estimates",
]


def rows() -> list[training.LabelledHeadline]:
    return [*training.read(training.DEVELOPMENT), *training.read(training.TEMPLATED)]


def test_training_again_gives_the_bytes_that_are_shipped_and_the_answers_of_the_library() -> None:
    fitted = training.trained(rows())
    assert training.arrays_of(fitted) == SHIPPED
    order = [list(fitted.classes_).index(label) for label in LABELS]
    np.testing.assert_allclose(loaded(SHIPPED).shares(TEXTS), fitted.predict_proba(TEXTS)[:, order], rtol=0, atol=1e-9)


def test_shares_sum_to_one_and_no_text_moves_another() -> None:
    model = loaded(SHIPPED)
    together = model.shares(TEXTS)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(together, np.vstack([model.shares([text]) for text in TEXTS]))
    assert model.shares([]).shape == (0, 4)


def test_it_is_right_more_often_than_the_commonest_label() -> None:
    assert training.accuracy(SHIPPED, HELD_OUT) >= FLOOR


def test_no_headline_that_judges_was_trained_on() -> None:
    assert not {row.text for row in rows()} & {row.text for row in HELD_OUT}


@pytest.mark.parametrize(
    ("line", "problem"),
    [("good\ttext", "must be one of positive, negative"), ("positive text", "a tab and a text"), ("positive\t ", "a tab and a text")],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "lines.tsv"
    path.write_text(f"label\ttext\nneutral\tfine\n{line}\n", encoding="utf-8")
    with pytest.raises(training.HeadlineDataError, match=rf"lines.tsv:3: .*{problem}"):
        training.read(path)


def test_arrays_that_are_no_classifier_are_refused() -> None:
    sound = {"terms": ["up"], "idf": np.ones(1), "weights": np.ones((4, 1)), "intercept": np.zeros(4)}
    assert loaded(dumped(**sound)).shares(["up"]).shape == (1, 4)  # type: ignore[arg-type]
    for change in (
        {"weights": np.ones((3, 1))},
        {"idf": np.full(1, np.nan)},
        {"idf": np.zeros(1)},
        {"intercept": np.zeros(4, dtype=np.float32)},
        {"terms": ["up", "up"], "idf": np.ones(2), "weights": np.ones((4, 2))},
    ):
        with pytest.raises(HeadlineModelError):
            loaded(dumped(**{**sound, **change}))  # type: ignore[arg-type]
    pickled = io.BytesIO()
    np.savez(pickled, **{**sound, "terms": np.array([{}], dtype=object)})  # type: ignore[arg-type]
    for content in (b"", b"no archive", SHIPPED[:-50], pickled.getvalue()):
        with pytest.raises(HeadlineModelError, match="cannot be read"):
            loaded(content)


def test_what_serves_loads_no_library_that_learns() -> None:
    code = (
        "import sys, lambdas.common.sentiment.choice as c; from schema.sections.news import SentimentSettings as S;"
        "[c.scorer_from_settings(S(scorer=n), spent_usd=0) for n in ('vader', 'classifier')];"
        "print(sorted({'sklearn', 'torch', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=training.ROOT)
    assert done.stdout.strip() == "[]"
