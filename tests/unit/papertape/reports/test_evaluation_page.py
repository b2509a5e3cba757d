"""The tearsheet: what the evaluation says is on it, escaped; it asks no network; what is no evaluation is refused in one sentence."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from papertape.reports import evaluation_page
from schema.evaluation_document import EvaluationFileError, read
from tests.evaluations import CHECKS, before_kappa, evaluation_of

HOSTILE = '</script><script>alert("x")</script><img src=http://example.com/a.png onerror=alert(1)>'
SMALL: dict[str, Any] = {"folds": 2, "seeds": 2, "sessions": 60}


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words = self.style = ""
        self.rows: list[str] = []
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = "row" if ("scope", "row") in attrs else tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, _tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside == "style":
            self.style += data
        else:
            self.words += data
        if self._inside == "row":
            self.rows.append(data)


def page_of(document: dict[str, Any], folder: Path) -> Page:
    path = folder / "tearsheet.html"
    evaluation_page.write(document, path)
    return Page(path)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of(evaluation_of(**SMALL), tmp_path_factory.mktemp("page"))


def test_the_first_words_are_the_answer(page: Page) -> None:
    _, _, body = page.words.partition("Papertape")
    assert " ".join(body.split()).startswith("PPO does not beat equal weight: -75.4 bp per year net of 10 bp per side")


def test_every_row_every_check_and_every_trial_is_told(page: Page) -> None:
    document = evaluation_of(**SMALL)
    for row in document["rows"]:
        tables = 2 if row["kind"] == "agent seed" else 4  # each cost it is measured at, and the calendar years
        assert [tag for tag in page.rows if tag == row["name"]] == [row["name"]] * tables
    for name in CHECKS:
        assert f"what {name} found, with its threshold" in page.words
    assert page.words.count("refused") >= 2
    for trial in document["trials"]:
        assert trial["id"][:16] in page.words
    for told in (document["command"], document["trial"], document["log"]["head"], *document["hashes"].values(), "AAA, BBB, CCC"):
        assert told in page.words


def test_the_refusals_come_before_what_held(page: Page) -> None:
    assert max(page.words.index(f"what {name} found") for name in ("luck", "stressed costs")) < page.words.index("what evidence found")


def test_what_slow_trading_earns_without_skill_stands_beside_the_excess(page: Page) -> None:
    rows = {row["name"]: f"{row['at']['10']['excess_bp_per_year']:+.1f}".replace("-", "−") for row in evaluation_of(**SMALL)["rows"]}
    told = ", ".join(f"{name} {rows[name]}" for name in ("PPO", "equal weight at kappa", "random at matched turnover"))
    assert f"In bp per year at 10 bp per side: {told}." in page.words


AT_KAPPA = "the same against equal weight at the policy's own kappa: slow trading is no skill"


def test_what_is_against_equal_weight_at_kappa_stands_beside_what_is_against_it_daily(page: Page) -> None:
    cards = {label: value.replace("\u2002", " ") for value, label in evaluation_page.cards(read(evaluation_of(**SMALL)))}
    assert cards[AT_KAPPA] == "−0.47 −0.68 −0.89"
    assert cards["bp per year over equal weight at kappa, at 10 bp per side"] == "−81.9"
    assert cards["DSR and PBO: both charge for every trial in the log"] == "0.13 –"
    (luck,) = (value for label, value in cards.items() if "without an edge" in label)
    assert luck == "0.710 / 0.765"
    words = " ".join(page.words.split())
    assert all(label in words for label in cards)
    assert words.count("excess at kappa, bp per yearIR at kappa") == 3
    assert "60−71.5−0.55−78.0−0.65" in words


def test_an_evaluation_from_before_anything_was_at_kappa_has_dashes_there(tmp_path: Path) -> None:
    old = before_kappa(evaluation_of(**SMALL))
    cards = {label: value.replace("\u2002", " ") for value, label in evaluation_page.cards(read(old))}
    assert cards[AT_KAPPA] == "– – –"
    assert "0.710 / –" in cards.values()
    words = page_of(old, tmp_path).words
    assert "60−71.5−0.55––" in words
    assert not re.search(r"\b(None|nan|inf|undefined)\b", words)


def test_numbers_that_do_not_exist_are_dashes(page: Page) -> None:
    assert re.search(r"overfitting \(PBO\)\s*–", page.words)
    assert not re.search(r"\b(None|nan|inf|undefined)\b", page.words)


def test_a_table_for_each_cost_is_switched_and_none_is_hidden_without_script(page: Page) -> None:
    assert [attributes["data-cost"] for _, attributes in page.tags if "data-cost" in attributes] == ["0", "10", "20"]
    assert [attributes["data-show"] for _, attributes in page.tags if "data-show" in attributes] == ["0", "10", "20"]
    assert all("hidden" not in attributes for _, attributes in page.tags if "data-cost" in attributes)


def test_the_page_loads_nothing(page: Page) -> None:
    for tag, attributes in page.tags:
        loaded = [value for name, value in attributes.items() if name in ("src", "href", "srcset", "action", "data", "poster")]
        assert loaded == [], f"{tag} loads {loaded}"
        assert tag not in ("link", "iframe", "object", "base")
    assert any(attributes.get("http-equiv") == "Content-Security-Policy" for _, attributes in page.tags)
    assert sum("plotly.js v" in script for script in page.scripts) == 1
    assert "@import" not in page.style
    assert "url(" not in page.style


def test_what_the_document_says_is_escaped(tmp_path: Path) -> None:
    document = copy.deepcopy(evaluation_of(**SMALL))
    for key in ("title", "command", "answer", "trial"):
        document[key] = HOSTILE
    document["data"]["symbols"][0] = HOSTILE
    document["hashes"][HOSTILE] = HOSTILE
    document["statistics"][HOSTILE] = 0.5
    document["gate"]["checks"][0] |= {"name": HOSTILE, "sentence": HOSTILE, "numbers": {HOSTILE: 1.0}}
    document["trials"][0]["id"] = document["log"]["head"] = HOSTILE
    document["rows"][2] |= {"name": HOSTILE, "years": {HOSTILE: 0.1}}
    document["curves"]["growth"][HOSTILE] = document["curves"]["growth"].pop("SPY")
    document["curves"]["seeds"][HOSTILE] = document["curves"]["seeds"].pop("1")
    plain = page_of(evaluation_of(**SMALL), tmp_path)
    page = page_of(document, tmp_path)
    assert not any(tag == "img" for tag, _ in page.tags)
    assert len(page.scripts) == len(plain.scripts)
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert page.words.count(HOSTILE) >= 10
    # Plotly reads markup in a name, so there it is escaped once more, and as JSON again
    drawn = [script for script in page.scripts if "plotly.js v" not in script and "newPlot" in script]
    assert sum("\\u0026lt;img" in script or "&lt;img" in script for script in drawn) == 3
    assert not any(tag in script for script in drawn for tag in ("<img", "\\u003cimg"))


def test_the_same_document_gives_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / "one.html", tmp_path / "two.html"]
    for path in paths:
        evaluation_page.write(evaluation_of(**SMALL), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_pass_and_a_quick_run_say_so(tmp_path: Path, page: Page) -> None:
    document = evaluation_of(**SMALL, drift=2e-4, passed=True) | {"quick": True}
    words = page_of(document, tmp_path).words
    assert "The gate passed this run" in words
    assert "cannot pass the gate" in words
    assert "14.2 bp" in words
    assert "The gate refused this run" in page.words
    assert "no excess even free of cost" in page.words
    assert "quick" not in page.words


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("schema",), 1, "schema must be 3, was 1"),
        (("headline", "turnover_per_day"), None, "headline.turnover_per_day is missing"),
        (("windows", "folds"), None, "windows.folds is missing"),
        (("rows", 1, "at", "10", "sharpe"), None, "rows.1.at.10.sharpe is missing"),
        (("rows", 0, "kind"), "baseline", "rows must hold one of kind agent, was []"),
        (("rows", 3, "at", "20"), None, "each row but a seed's must be measured at 0, 10, 20 bp, 'equal weight daily' is not"),
        (("headline", "detectable_ir"), float("nan"), "headline.detectable_ir: Input should be a finite number, was nan"),
        (("curves", "excess"), [0.0], "excess must have 60 values, one per session, was 1"),
        (("curves", "growth", "QQQ"), [1.0] * 60, "curves.growth.QQQ is of no row"),
        (("curves", "growth", "agent"), [1.0], "growth.agent must have 60 values"),
    ],
)
def test_what_is_no_evaluation_is_refused_in_one_sentence(path: tuple[str | int, ...], value: object, told: str, tmp_path: Path) -> None:
    document: Any = evaluation_of(**SMALL)
    part = document
    for key in path[:-1]:
        part = part[key]
    if value is None:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    target = tmp_path / "tearsheet.html"
    with pytest.raises(EvaluationFileError, match=re.escape(told)) as refused:
        evaluation_page.write(document, target)
    assert "\n" not in str(refused.value)
    assert not target.exists()
