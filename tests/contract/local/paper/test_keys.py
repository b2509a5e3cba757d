"""Who has no terminal is told where keys come from, and who has one is asked for them without an echo: a process each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[4]
COMMAND = "from local.commands import app; app()"
SECRET = "never-to-be-seen"


def test_without_keys_and_without_a_terminal_two_lines_say_where_to_get_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "paper", "--folder", str(tmp_path / "run")],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "papertape: paper trades through an Alpaca paper account, and no keys of one are stored here yet",
        "papertape: make a pair at https://app.alpaca.markets (Paper account, API Keys: free, no money in it), then run `make paper` once "
        "in a terminal, which asks for them",
    ]
    assert not (tmp_path / "run").exists(), "nothing is started"


def test_the_keys_are_read_from_the_terminal_without_an_echo() -> None:
    ours, theirs = os.openpty()
    script = f"from local.paper.keys import ask; assert ask() == ('PK1', {SECRET!r}); print('understood')"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = ""
    for prompt, answer in (("Key id:", "PK1\n"), ("Secret key:", f" {SECRET} \n"), ("understood", "")):
        deadline = time.monotonic() + 30
        while prompt not in shown:
            assert time.monotonic() < deadline, shown
            shown += os.read(ours, 4096).decode()
        os.write(ours, answer.encode())
    assert process.wait(30) == 0
    os.close(ours)
    assert SECRET not in shown
    assert "PK1" not in shown
