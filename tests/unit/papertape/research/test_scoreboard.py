"""The scoreboard: made from recorded runs alone, its first line by the gate's verdicts; the committed page is what the files make."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from papertape.reports import evaluation_page
from papertape.research import scoreboard
from papertape.research.scoreboard import FOLDER, ScoreboardError
from schema.evaluation_document import read
from tests.evaluations import CHECKS, TRIAL, before_kappa, evaluation_of

SMALL: dict[str, Any] = {"folds": 2, "seeds": 2, "sessions": 60}


def run(*, trial: str, drift: float = -2e-5, passed: bool = False) -> dict[str, Any]:
    return evaluation_of(**SMALL, drift=drift, passed=passed) | {"trial": trial}


def board(folder: Path, **runs: dict[str, Any]) -> list[str]:
    for name, document in runs.items():
        scoreboard.record(document, name=name, folder=folder)
    return scoreboard.write(folder=folder).read_text(encoding="utf-8").splitlines()


def test_the_committed_page_is_what_the_recorded_runs_make() -> None:
    page = FOLDER.with_suffix(".md")
    if any(FOLDER.glob("*.json")):
        assert page.read_text(encoding="utf-8") == scoreboard.text()
    else:
        assert not page.exists()


def test_every_committed_run_is_small_and_makes_its_tearsheet(tmp_path: Path) -> None:
    for path in FOLDER.glob("*.json"):
        assert path.stat().st_size <= 150_000
        evaluation_page.write(json.loads(path.read_text(encoding="utf-8")), tmp_path / "tearsheet.html")


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        ({"a": (-2e-5, False)}, "# PPO does not beat equal weight: the gate refused the only recorded run. "),
        ({"a": (-2e-5, False), "b": (-1e-5, False)}, "# PPO does not beat equal weight: the gate refused all 2 recorded runs. "),
        ({"a": (-2e-5, False), "b": (2e-4, False)}, "# PPO is not shown to beat equal weight: the gate refused all 2 recorded runs. "),
        ({"a": (2e-4, True), "b": (-2e-5, False)}, "# PPO beats equal weight in 1 of 2 recorded runs, a; elsewhere it is not shown. "),
        ({"a": (2e-4, True)}, "# PPO beats equal weight in the only recorded run, by a gate that counts every trial. "),
    ],
)
def test_the_first_line_is_the_gates_verdict_over_all_runs(runs: dict[str, tuple[float, bool]], told: str, tmp_path: Path) -> None:
    documents = {name: run(trial=name, drift=drift, passed=passed) for name, (drift, passed) in runs.items()}
    first = board(tmp_path / "board", **documents)[0]
    assert first.startswith(told)
    assert all(f"({name})" in first for name in runs)


def test_excess_and_information_ratio_at_kappa_stand_in_the_first_line_and_the_overview(tmp_path: Path) -> None:
    lines = board(tmp_path / "board", bundled=run(trial=TRIAL))
    assert "equal weight daily / at the agent's own kappa" in lines[0]
    assert lines[0].endswith("−75.4 / −81.9, information ratio −0.58 / −0.68 (bundled)")
    heads, cells = ([cell.strip() for cell in line.split("|")] for line in lines if line.startswith(("| universe", "| [bundled]")))
    shown = dict(zip(heads, cells, strict=True))
    assert shown["IR at kappa at 0 / 10 / 20 bp"] == "−0.47 / −0.68 / −0.89"
    assert shown["excess at kappa"] == "−81.9"
    assert (shown["p: daily / at kappa"], shown["DSR"], shown["PBO"]) == ("0.710 / 0.765", "0.13", "–")
    rows = next(line for line in lines if line.startswith("| row | IR at 0 / 10 / 20 bp | IR at kappa |"))
    assert "excess at kappa, bp per year" in rows
    agent = next(line for line in lines if line.startswith("| PPO |"))
    assert "| −0.39 / −0.58 / −0.77 | −0.47 / −0.68 / −0.89 |" in agent


def test_a_run_recorded_before_anything_was_at_kappa_has_dashes_there_and_claims_no_pass(tmp_path: Path) -> None:
    lines = board(tmp_path / "board", old=before_kappa(run(trial="a")))
    assert lines[0].endswith("−75.4 / –, information ratio −0.58 / – (old)")
    overview = next(line for line in lines if line.startswith("| [old](#old)"))
    assert "| −0.39 / −0.58 / −0.77 | – / – / – | −75.4 | – |" in overview
    assert "0.710 / –" in overview
    passed = board(tmp_path / "other", old=before_kappa(run(trial="a", drift=2e-4, passed=True)))
    assert passed[0].startswith("# PPO is not shown to beat equal weight")
    assert any("to be judged anew" in line for line in passed)


def test_every_row_refusal_and_hash_is_told(tmp_path: Path) -> None:
    document = run(trial=TRIAL)
    lines = board(tmp_path / "board", bundled=document)
    page = "\n".join(lines)
    overview = next(line for line in lines if line.startswith("| [bundled](#bundled)"))
    for told in (
        " 3 ",
        "2 × 2",
        " 60 ",
        "−0.39 / −0.58 / −0.77",
        " −75.4 ",
        "0.0 bp",
        "1.23%",
        "−0.81, −0.37, 0.15",
        "2 of 10 checks",
    ):
        assert told in overview, told
    for row in document["rows"]:
        assert sum(line.startswith(f"| {row['name']} |") for line in lines) == (0 if row["kind"] == "agent seed" else 2)
    assert [line for line in lines if line.startswith("- **") and "found" in line] == [
        f"- **{name}**: what {name} found, with its threshold" for name in CHECKS if name in ("luck", "stressed costs")
    ]
    for told in (document["trial"], document["command"], *document["hashes"].values(), "Survivorship", document["answer"]):
        assert told in page


def test_the_page_is_made_from_the_files_alone_and_is_the_same_again(tmp_path: Path) -> None:
    folder = tmp_path / "board"
    first = board(folder, b=run(trial="b"), a=run(trial="a"))
    page = folder.with_suffix(".md")
    page.write_text("PPO beats everything", encoding="utf-8")
    assert scoreboard.write(folder=folder).read_text(encoding="utf-8").splitlines() == first
    assert [line for line in first if line.startswith("## ")][:2] == ["## a", "## b"]


def test_a_recorded_run_is_small_and_is_an_evaluation_still(tmp_path: Path) -> None:
    document = evaluation_of()
    path = scoreboard.record(document, name="full-size", folder=tmp_path)
    assert path.stat().st_size < 150_000
    kept = json.loads(path.read_text(encoding="utf-8"))
    known = read(kept)
    assert known.curves.sessions[-1] == document["curves"]["sessions"][-1]
    assert known.curves.excess[-1] == document["curves"]["excess"][-1]
    assert known.curves.every == 4
    assert {key: kept[key] for key in ("rows", "headline", "gate", "trials")} == {
        key: document[key] for key in ("rows", "headline", "gate", "trials")
    }
    again = scoreboard.record(kept, name="again", folder=tmp_path)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("/home/me/.venv/bin/papertape evaluate", "papertape evaluate"),
        (
            "papertape.py evaluate --bars /data/dow.parquet --settings=/tmp/a/s.toml",
            "papertape.py evaluate --bars dow.parquet --settings=s.toml",
        ),
        (
            "papertape.py evaluate --bars ~/data/dow.csv --trials s3://bucket/log/",
            "papertape.py evaluate --bars dow.csv --trials s3://bucket/log/",
        ),
        ("papertape.py evaluate --bars ../own/dow.csv out/x.json", "papertape.py evaluate --bars ../own/dow.csv out/x.json"),
    ],
)
def test_a_recorded_command_names_no_folder_of_somebodys_machine(command: str, kept: str, tmp_path: Path) -> None:
    path = scoreboard.record(run(trial="a") | {"command": command}, name="a", folder=tmp_path)
    assert json.loads(path.read_text(encoding="utf-8"))["command"] == kept


def test_words_of_a_run_cannot_break_the_page(tmp_path: Path) -> None:
    hostile = "| ` </table> ## [x](http://example.com)\n\n# PPO beats equal weight"
    document = run(trial="a") | {"title": hostile, "answer": hostile, "command": hostile, "configuration": hostile}
    document["rows"][2]["name"] = hostile
    document["gate"]["checks"][2]["sentence"] = hostile
    plain, broken = (board(tmp_path / name, a=document) for name, document in (("plain", run(trial="a")), ("hostile", document)))

    def shape(line: str) -> tuple[bool, int]:
        return line.startswith("#"), len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0

    assert [shape(line) for line in plain] == [shape(line) for line in broken]
    shown = [line for line in broken if not line.startswith("    ")]  # an indented block is code
    assert not any(re.search(r"(?<!\\)(</|\[x\])", line) for line in shown)


def test_what_cannot_be_recorded_is_refused_in_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "board"
    with pytest.raises(ScoreboardError, match="quick evaluation is no evidence"):
        scoreboard.record(run(trial="a") | {"quick": True}, name="a", folder=folder)
    for name in ("", "Dow", "../dow", "dow_30", "-dow"):
        with pytest.raises(ScoreboardError, match="must be lower-case letters"):
            scoreboard.record(run(trial="a"), name=name, folder=folder)
    with pytest.raises(ScoreboardError, match="no run is recorded in board/"):
        scoreboard.write(folder=folder)
    assert not folder.exists()


def test_a_file_that_is_no_run_or_a_trial_twice_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "board"
    board(folder, a=run(trial="a"))
    page = folder.with_suffix(".md").read_bytes()
    scoreboard.record(run(trial="a"), name="b", folder=folder)
    with pytest.raises(ScoreboardError, match="two of a, b hold the same one"):
        scoreboard.write(folder=folder)
    (folder / "b.json").write_text('{"schema": 1}', encoding="utf-8")
    with pytest.raises(ScoreboardError, match=r"b\.json: evaluation\.json: schema must be 3, was 1"):
        scoreboard.write(folder=folder)
    (folder / "b.json").write_text("{", encoding="utf-8")
    with pytest.raises(ScoreboardError, match=r"b\.json: is not JSON"):
        scoreboard.write(folder=folder)
    assert folder.with_suffix(".md").read_bytes() == page
