"""The classifier behind the serving container's four functions, from the archive that an endpoint would unpack."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lambdas.common.sentiment.classifier import ClassifierScorer
from lambdas.common.sentiment.port import Scorable, sentiment_of
from learning import headline_classifier, headline_serving
from learning.serving import RequestError

CONTENT = headline_classifier.ARRAYS.read_bytes()
TEXTS = ["Nordwin beats estimates", "Nordwin cuts dividend", "🚀", ""]
AS_THE_CONTAINER_DOES = """
import sys, inference
model = inference.model_fn(sys.argv[1])
request = inference.input_fn(sys.stdin.buffer.read(), "application/json")
print(inference.output_fn(inference.predict_fn(request, model), "application/json"))
print(sorted({"sklearn", "torch", "boto3", "lambdas"} & set(sys.modules)), file=sys.stderr)
"""


def test_an_endpoint_says_what_the_function_says(tmp_path: Path) -> None:
    packed = headline_serving.model_archive(CONTENT, requirements="")
    assert packed == headline_serving.model_archive(CONTENT, requirements="")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(tmp_path, filter="data")
    done = subprocess.run(
        [sys.executable, "-c", AS_THE_CONTAINER_DOES, str(tmp_path)],
        input=json.dumps({"schema": 1, "texts": TEXTS}).encode(),
        capture_output=True,
        check=True,
        cwd=tmp_path / "code",
    )
    answer = json.loads(done.stdout)
    assert done.stderr.decode().strip() == "[]"
    scorer = ClassifierScorer()
    assert answer["model_version"] == scorer.version
    told = [sentiment_of(shares, model=scorer.model, version=scorer.version) for shares in answer["shares"][:3]]
    assert told == scorer.score([Scorable(text=text) for text in TEXTS])[:3]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("no json", "body"),
        ([], "body"),
        ({"schema": 1}, "body"),
        ({"schema": 1, "texts": ["a"], "more": 1}, "body"),
        ({"schema": 2, "texts": ["a"]}, "schema"),
        ({"schema": True, "texts": ["a"]}, "schema"),
        ({"schema": 1, "texts": "a"}, "texts"),
        ({"schema": 1, "texts": []}, "texts"),
        ({"schema": 1, "texts": ["a"] * 1_001}, "texts"),
        ({"schema": 1, "texts": ["a", 1]}, "texts[1]"),
        ({"schema": 1, "texts": ["a" * 1_001]}, "texts[0]"),
    ],
)
def test_a_request_that_is_none_is_refused_by_its_field(body: Any, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        headline_serving.input_fn(body if isinstance(body, str) else json.dumps(body), "application/json")
    assert caught.value.problem["field"] == field


def test_another_content_type_is_refused() -> None:
    with pytest.raises(RequestError, match="415"):
        headline_serving.input_fn("{}", "text/plain")
