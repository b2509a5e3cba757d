"""What a stream has acknowledged survives whatever ends the process."""

from __future__ import annotations

from pathlib import Path

from local.aws.services.spool import Spool


def numbers(path: Path) -> list[int]:
    """As another process would read it."""
    return [line["n"] for line in Spool(path, flushed=False).read()]


def test_what_was_added_is_there_until_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "streams" / "s.jsonl"
    spool = Spool(path, flushed=True)
    spool.add([{"n": 1}, {"n": 2}])
    assert numbers(path) == [1, 2]
    spool.take()
    spool.add([{"n": 3}])
    assert numbers(path) == [1, 2, 3], "what was taken is not yet done"
    spool.done()
    assert numbers(path) == [3]


def test_what_was_taken_and_not_done_comes_again_before_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    first = Spool(path, flushed=False)
    first.add([{"n": 1}])
    first.take()
    first.add([{"n": 2}])
    second = Spool(path, flushed=False)  # after a kill
    assert [line["n"] for line in second.read()] == [1, 2]
    second.take()
    second.done()
    assert numbers(path) == []


def test_a_line_that_was_cut_off_was_never_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    Spool(path, flushed=False).add([{"n": 1}])
    with path.open("ab") as file:
        file.write(b'{"n": 2')
    assert numbers(path) == [1]


def test_a_rewritten_spool_holds_what_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    spool = Spool(path, flushed=False)
    spool.add([{"n": 1}, {"n": 2}])
    spool.take()
    spool.rewrite([{"n": 2}])
    spool.add([{"n": 3}])
    assert numbers(path) == [2, 3]
