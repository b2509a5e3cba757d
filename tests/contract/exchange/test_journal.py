"""The journal at its edges: one process has it, what cannot be written did not happen, and what cannot be read is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from local.exchange.journal import Journal, JournalError
from local.exchange.server import ROOT
from tests.exchanges import URL, ExchangeClient

TERMS = {"now": "2020-01-02T14:35:00Z", "cash": "100000"}

#: A process whose files may not grow beyond a page: what its exchange answers to 40 orders, some reads and a move of the clock.
LIMITED = """
import json, resource, sys
from pathlib import Path
from local.exchange.journal import Journal
from tests.exchanges import URL, ExchangeClient
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
client = ExchangeClient()
Journal(Path(sys.argv[1])).attach(client.venue, terms=json.loads(sys.argv[2]))
answers = [client.send(qty="1") for _ in range(40)]
answers += [client.get(path) for path in ("/v2/orders", "/admin/books")]
answers += [client.http.post(URL + "/admin/clock", json={"now": "2020-01-02T15:00:00Z"})]
print(json.dumps([[answer.status_code, answer.json()] for answer in answers]))
"""


def reopened(path: Path) -> ExchangeClient:
    client = ExchangeClient()
    journal = Journal(path, wait_seconds=0)
    journal.attach(client.venue, terms=TERMS)
    journal.close()
    return client


def test_a_journal_is_one_process_s_at_a_time_and_a_dead_one_s_is_free(tmp_path: Path) -> None:
    """The lock is the kernel's, on the open file: a second opening is refused within one process as from another."""
    path = tmp_path / "account.jsonl"
    client, first = ExchangeClient(), Journal(path)
    first.attach(client.venue, terms=TERMS)
    with pytest.raises(JournalError) as error:
        reopened(path)
    assert str(error.value) == f"{path}: is the journal of process {os.getpid()}, which runs; end that one, or use another file"
    client.advance("2020-01-02T14:36:00Z")
    first.close()
    assert reopened(path).venue.now == client.venue.now


def test_what_cannot_be_written_is_not_answered_and_never_was(tmp_path: Path) -> None:
    path = tmp_path / "account.jsonl"
    command = [sys.executable, "-c", LIMITED, str(path), json.dumps(TERMS)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    answers = json.loads(run.stdout)
    accepted = [body["id"] for status, body in answers if status == 200]
    refused = answers[len(accepted) :]
    message = f"service unavailable: {path}: cannot be written (File too large); make room and start the exchange again"
    assert 0 < len(accepted) < 40
    assert refused == [[503, {"code": 50310000, "message": message}]] * len(refused), "what is not recorded is shown to nobody"
    assert run.stderr == f"exchange: {message.removeprefix('service unavailable: ')}\n"
    books = reopened(path).get("/admin/books").json()
    assert [order["id"] for order in books["orders"]] == accepted
    assert (len(books["fills"]), books["positions"]) == (len(accepted), {"AAPL": str(len(accepted))})


def test_counts_configurations_and_watchlists_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "account.jsonl"
    client, journal = ExchangeClient(), Journal(path)
    journal.attach(client.venue, terms=TERMS)
    for tag in ("once", "once", "twice"):
        client.send(client_order_id=tag)
    client.send(qty="0")
    client.http.patch(f"{URL}/v2/account/configurations", json={"trade_confirm_email": "all"})
    made = client.http.post(f"{URL}/v2/watchlists", json={"name": "mine", "symbols": ["SPY", "IBM"]}).json()
    journal.close()
    again = reopened(path)
    books = again.get("/admin/books").json()
    assert books == client.get("/admin/books").json()
    assert books["counts"] == {"orders": 2, "fills": 2, "refused": 2, "duplicates": 1}
    assert again.get("/v2/account/configurations").json()["trade_confirm_email"] == "all"
    assert again.get(f"/v2/watchlists/{made['id']}").json() == made


def test_a_folder_is_no_journal_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="is a folder; name a file in it for the journal"):
        Journal(tmp_path).attach(ExchangeClient().venue, terms=TERMS)
    assert not tmp_path.with_name(f"{tmp_path.name}.lock").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"submit":{"symbol":"AAPL"}}', "line 3 cannot be carried out ('quantity'); remove the file to begin anew"),
        ('{"advance":"2019-01-01T00:00:00+00:00"}', "line 3 cannot be carried out (the clock only goes forward: it is 2020-01-02T"),
        ("}", "line 3 cannot be carried out (Expecting value"),
        ("[" * 100_000, "line 3 cannot be carried out (maximum recursion depth"),
        (b"\xff", "line 3 is not text; remove the file to begin anew"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: str | bytes, message: str) -> None:
    path = tmp_path / "account.jsonl"
    client, journal = ExchangeClient(), Journal(path)
    journal.attach(client.venue, terms=TERMS)
    client.advance(datetime.fromisoformat("2020-01-02T14:36:00Z"))
    journal.close()
    with path.open("ab") as file:
        file.write((line.encode() if isinstance(line, str) else line) + b"\n")
    with pytest.raises(JournalError) as error:
        reopened(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)
