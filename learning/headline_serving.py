"""Serve the classifier of headlines: `{"schema", "texts"}` -> `{"labels", "shares", "model_version"}`, one row of shares per text.

The same contract as `learning.serving` and the same refusals: `model_fn`, `input_fn`, `predict_fn` and `output_fn` of Amazon's serving
container, NumPy alone, a `RequestError` that names the field. `model_archive` packs what an endpoint needs; nothing here deploys one, for a
function serves the same arrays at no cost.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learning.packaging import ROOT, SERVING, archive, modules
from learning.serving import JSON, RequestError, output_fn
from trading_env.data.headline_model import LABELS, HeadlineModel, loaded

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["input_fn", "model_archive", "model_fn", "output_fn", "predict_fn"]

SCHEMA = 1
ARRAYS = "headlines.npz"
MOST_TEXTS, MOST_CHARACTERS = 1_000, 1_000
SCRIPT = f'''"""The endpoint's script: the four functions of Amazon's serving container (`{__name__}`)."""

from {__name__} import input_fn, model_fn, output_fn, predict_fn

__all__ = ["input_fn", "model_fn", "output_fn", "predict_fn"]
'''


@dataclass(frozen=True, kw_only=True)
class HeadlineRequest:
    texts: tuple[str, ...]


def model_fn(model_dir: str) -> HeadlineModel:
    """Load headlines.npz from `model_dir`."""
    return loaded((Path(model_dir) / ARRAYS).read_bytes())


def input_fn(body: bytes | str, content_type: str) -> HeadlineRequest:
    """Read one request."""
    if content_type.partition(";")[0].strip().lower() != JSON:
        raise RequestError(field="content-type", error=f"must be {JSON}, was {content_type!r}", status=415)
    try:
        document = json.loads(body)
    except (ValueError, UnicodeDecodeError) as error:
        raise RequestError(field="body", error=f"is not JSON: {error}") from error
    if not isinstance(document, dict) or document.keys() != {"schema", "texts"}:
        raise RequestError(field="body", error="must be an object of schema and texts")
    if type(document["schema"]) is not int or document["schema"] != SCHEMA:
        raise RequestError(field="schema", error=f"must be {SCHEMA}, was {document['schema']!r}")
    return HeadlineRequest(texts=_texts(document))


def _texts(document: Mapping[str, Any]) -> tuple[str, ...]:
    texts = document["texts"]
    if not isinstance(texts, list) or not 0 < len(texts) <= MOST_TEXTS:
        raise RequestError(field="texts", error=f"must be a list of 1 to {MOST_TEXTS} texts")
    for index, text in enumerate(texts):
        if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
            raise RequestError(field=f"texts[{index}]", error=f"must be a text of at most {MOST_CHARACTERS} characters")
    return tuple(texts)


def predict_fn(request: HeadlineRequest, model: HeadlineModel) -> dict[str, Any]:
    """Shares in the order of `labels`."""
    return {"labels": list(LABELS), "shares": model.shares(request.texts).tolist(), "model_version": model.version}


def model_archive(content: bytes, *, requirements: str, root: Path = ROOT) -> bytes:
    """The model as SageMaker takes it, tar.gz: the arrays `content`, and under `code/` what answers with them."""
    loaded(content)
    own = Path(__file__).relative_to(ROOT).as_posix()
    code = {name: (root / name).read_bytes() for name in (*SERVING, own, "learning/packaging.py")} | modules("trading_env", root=root)
    files = {f"code/{name}": part for name, part in code.items()}
    return archive({ARRAYS: content, "code/inference.py": SCRIPT.encode(), "code/requirements.txt": requirements.encode(), **files})
