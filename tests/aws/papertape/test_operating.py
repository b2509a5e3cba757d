"""halt, resume, flatten, status: the commands through a gateway that wants a signature, the real handlers, the ledger and the exchange."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials
from typer.testing import CliRunner, Result

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import AlertRecord, Breakers, OrderRecord
from local.exchange.server import RunningExchange
from papertape import command_line
from papertape.operate import client
from papertape.operate.client import RUNNING, announced
from schema.loopback import LOCAL_ACCOUNT, LOCAL_SECRET
from tests.aws.gateway import Gateway, serving

API = "https://abcdefgh.execute-api.us-east-1.amazonaws.com/v1"


@pytest.fixture
def gateway(control: Any) -> Iterator[Gateway]:
    """The reads and the state; it takes the signature of the laptop's account."""
    with serving(None, control, Credentials(LOCAL_ACCOUNT, LOCAL_SECRET)) as running:
        yield running


def call(*arguments: str, answer: str | None = None, **environment: str) -> Result:
    return CliRunner(env={"COLUMNS": "200", **environment}).invoke(command_line.app, list(arguments), input=answer)


def refused(result: Result) -> str:
    """The one line of a command that failed."""
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.output
    return result.stderr


def stop(ledger: Ledger) -> None:
    """Halted by a person, with a breaker that has tripped."""
    ledger.set_trading_state("halted", reason="odd fills", time="2020-01-02T15:00:00Z", by="someone")
    ledger.change_breakers(lambda _: Breakers(tripped={"drawdown": "equity is 21.0% below its peak"}))


def test_halt_is_signed_and_kept_with_its_reason(gateway: Gateway, ledger_table: Ledger) -> None:
    result = call("halt", "--url", gateway.api, "--reason", ' it\'s "odd" ')
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == gateway.api
    assert 'trading state: halted (it\'s "odd", since 2020-01-02T14:35:00Z by arn:aws:iam::' in result.stdout
    assert (ledger_table.trading_state().state, ledger_table.trading_state().reason) == ("halted", 'it\'s "odd"')
    assert gateway.calls == [("PUT", "/trading-state", 200)]


@pytest.mark.parametrize("command", ["halt", "resume", "flatten"])
@pytest.mark.parametrize("reason", [[], ["--reason", "  "], ["--reason", "x" * 301]])
def test_a_reason_is_needed_before_anything_is_asked(gateway: Gateway, command: str, reason: list[str]) -> None:
    told = refused(call(command, "--url", gateway.api, *reason))
    assert told == f'papertape: a reason is needed, of at most 300 characters: {command} --reason "..." (make {command} reason="...")\n'
    assert gateway.calls == []


def test_resume_shows_what_it_rearms_and_asks(gateway: Gateway, ledger_table: Ledger) -> None:
    stop(ledger_table)
    result = call("resume", "--url", gateway.api, "--reason", "understood", answer="n\n")
    assert "nothing was changed" in refused(result)
    assert "drawdown: equity is 21.0% below its peak" in result.stdout
    assert "Resuming sets it active and re-arms drawdown." in result.stdout
    assert "nothing was changed" in refused(call("resume", "--url", gateway.api, "--reason", "understood")), "nobody is there to answer"
    assert ledger_table.trading_state().state == "halted"
    assert ledger_table.breakers().tripped

    result = call("resume", "--url", gateway.api, "--reason", "understood", answer="y\n")
    assert result.exit_code == 0, result.output
    assert (ledger_table.trading_state().state, ledger_table.trading_state().reason) == ("active", "understood")
    assert ledger_table.breakers().tripped == {}
    again = call("resume", "--url", gateway.api, "--reason", "understood")
    assert (again.exit_code, again.stdout.splitlines()[-1]) == (0, "It trades already: nothing was changed.")
    assert ledger_table.trading_state().version == 2


def test_resume_goes_on_with_another_account_when_told_to(gateway: Gateway, ledger_table: Ledger) -> None:
    ledger_table.change_breakers(lambda _: Breakers(account_id="before the reset"))
    result = call("resume", "--yes", "--account", "the new one", "--url", gateway.api, "--reason", "reset at the broker")
    assert result.exit_code == 0, result.output
    assert "Resuming sets it active with account the new one; no breaker has tripped." in result.stdout
    assert ledger_table.breakers().account_id == "the new one"


def test_what_halted_it_meanwhile_is_not_resumed_unseen(gateway: Gateway, ledger_table: Ledger) -> None:
    ledger_table.set_trading_state("reduce_only", reason="flatten: away", time="2020-01-02T15:00:00Z", by="flatten")

    def overfill(method: str, path: str) -> None:
        if (method, path) == ("GET", "/status"):
            ledger_table.set_trading_state("halted", reason="overfill", time="2020-01-02T15:01:00Z", by="recording", automatic=True)

    gateway.after = overfill
    told = refused(call("resume", "--yes", "--url", gateway.api, "--reason", "back"))
    assert "was refused with 409: the trading state is halted by recording" in told
    assert ledger_table.trading_state().state == "halted"


def test_flatten_sells_everything_and_leaves_reduce_only(
    execution: Any, control: Any, ledger_table: Ledger, exchange: RunningExchange, decide: Any
) -> None:
    execution("POST", "/decisions", decide(weights={"SPY": 0.5, "IBM": 0.25}))
    assert set(exchange.books()["positions"]) == {"SPY", "IBM"}
    with serving(execution, control, Credentials(LOCAL_ACCOUNT, LOCAL_SECRET)) as gateway:
        result = call("flatten", "--url", gateway.api, "--reason", "going away")
        assert result.exit_code == 0, result.output
        assert "flatten: accepted, done" in result.stdout
        assert exchange.books()["positions"] == {}
        assert ledger_table.trading_state().state == "reduce_only"
        again = call("flatten", "--url", gateway.api, "--reason", "going away")
        assert (again.exit_code, again.stdout.splitlines()[-1]) == (0, "flatten: refused, done; nothing is held")
        shown = call("status", "--url", gateway.api)
        assert "trading state  reduce_only (flatten: going away" in shown.stdout
        assert "last decision  flatten:2020-01-02#1: accepted, done, 2 orders planned" in shown.stdout


def test_flatten_on_a_closed_market_says_that_it_waits(
    execution: Any, control: Any, ledger_table: Ledger, exchange: RunningExchange, reconcile: Any, decide: Any
) -> None:
    execution("POST", "/decisions", decide(weights={"SPY": 0.5, "IBM": 0.25}))
    exchange.advance("2020-01-02T22:00:00Z")
    with serving(execution, control, Credentials(LOCAL_ACCOUNT, LOCAL_SECRET)) as gateway:
        for _ in range(2):
            result = call("flatten", "--url", gateway.api, "--reason", "going away")
            assert result.exit_code == 0, result.output
            assert "flatten: accepted, working; the market is closed at 2020-01-02T22:00:00" in result.stdout
            assert "it sells from 2020-01-03T14:31:00Z on, unless trading is resumed before" in result.stdout
        assert "flatten:2020-01-03#1: accepted, working" in call("status", "--url", gateway.api).stdout
    exchange.advance("2020-01-03T14:35:00Z")
    assert reconcile()["finished"] == 1
    assert exchange.books()["positions"] == {}


def test_status_tells_all_and_is_no_failure_when_halted(gateway: Gateway, ledger_table: Ledger) -> None:
    stop(ledger_table)
    order = {"slot": "2020-01-02/open+5", "symbol": "AAPL", "side": "buy", "price": 300.0}
    fence = ledger_table.acquire_lease("test", now=0, seconds=1)
    assert fence is not None
    ledger_table.open_order(
        OrderRecord(client_order_id="pt1-lost", decision_id="agent:2020-01-02/open+5", quantity=2, created_at="2020-01-02T14:35:00Z",
                    status="unknown", risk="allowed", **order),
        fence=fence,
    )  # fmt: skip
    for session, detail in (("2020-01-01", "of another day"), ("2020-01-02", "AAPL: our fills say 1, the broker holds 2 [sic]")):
        alert = AlertRecord(rule="drift:AAPL", session=session, subject="drift", detail=detail, time=f"{session}T20:05:00Z")
        ledger_table.put_alert(alert)
    result = call("status", "--url", gateway.api)
    assert result.exit_code == 0, result.output
    for told in (
        "trading state  halted (odd fills, since 2020-01-02T15:00:00Z by someone)",
        "breakers       drawdown: equity is 21.0% below its peak",
        "last snapshot  none yet",
        "last decision  none yet",
        "incumbent      equal weight, until a model passes",
        "open orders    1, of them 1 in doubt",
        "alerts         1 of session 2020-01-02",
        "alert drift:AAPL: AAPL: our fills say 1, the broker holds 2 [sic]",
        "pt1-lost",
    ):
        assert told in result.stdout
    assert "of another day" not in result.stdout
    document = json.loads(call("status", "--json", "--url", gateway.api).stdout)
    assert (document["trading_state"]["state"], document["unsettled"][0]["status"]) == ("halted", "unknown")


def test_the_laptop_is_found_by_its_folder_while_it_is_up(gateway: Gateway, tmp_path: Path) -> None:
    nothing = f"papertape: nothing runs in {tmp_path}: start it with `make local`, or add --on aws (make: on=aws) for the account of your"
    assert refused(call("status", "--folder", str(tmp_path))).startswith(nothing)
    with announced(tmp_path, api_url=API, cloud_url=gateway.url, region="us-east-1"):
        result = call("status", "--folder", str(tmp_path))
        assert (result.exit_code, result.stdout.splitlines()[0]) == (0, f"the laptop's run in {tmp_path}")
        killed = (tmp_path / RUNNING).read_text(encoding="utf-8")
    assert gateway.calls == [("GET", "/status", 200)]
    assert refused(call("status", "--folder", str(tmp_path))).startswith(nothing)

    with socket.create_server(("127.0.0.1", 0)) as ended:
        port = ended.getsockname()[1]
    (tmp_path / RUNNING).write_text(killed.replace(gateway.url, f"http://127.0.0.1:{port}"), encoding="utf-8")
    assert refused(call("status", "--folder", str(tmp_path))).startswith(nothing), "a run that was killed leaves its file behind"


def test_the_paper_run_is_found_without_a_folder_and_two_runs_must_be_told_apart(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper, demo = tmp_path / "paper", tmp_path / "demo"
    for name, folder in (("PAPER", paper), ("DEMO", demo)):
        folder.mkdir()
        monkeypatch.setattr(client, name, folder)
    nothing = f"papertape: nothing runs in {paper} nor in {demo}: start it with `make paper` or `make local`, or add --on aws"
    assert refused(call("status")).startswith(nothing)
    here = {"api_url": API, "cloud_url": gateway.url, "region": "us-east-1"}
    with announced(paper, **here):
        assert call("halt", "--reason", "x").stdout.splitlines()[0] == f"the laptop's run in {paper}"
        with announced(demo, **here):
            assert "both `make paper` and `make local` are up: add --on paper" in refused(call("status"))
            assert call("status", "--on", "paper").stdout.splitlines()[0] == f"the laptop's run in {paper}"
            assert call("status", "--folder", str(demo)).stdout.splitlines()[0] == f"the laptop's run in {demo}"
    assert "start it with `make paper`, or" in refused(call("status", "--on", "paper"))


def test_who_signs_with_another_key_is_told_so(control: Any, ledger_table: Ledger) -> None:
    with serving(None, control, Credentials(LOCAL_ACCOUNT, "another's")) as gateway:
        told = refused(call("halt", "--url", gateway.api, "--reason", "x"))
    assert "the halt was refused with 403" in told
    assert "credentials of the account that owns it are needed" in told
    assert ledger_table.trading_state().state == "active"


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["--url", "https://example.org/v1"], {}, "--url must be https://<id>.execute-api.<region>.amazonaws.com/<stage>, or the address"),
        (["--url", "http://10.0.0.1/restapis/a/v1/_user_request_"], {}, "--url must be"),
        (["--url", API], {"AWS_ENDPOINT_URL": "http://10.0.0.1"}, "AWS_ENDPOINT_URL may only point to this machine"),
        (["--on", "aws"], {"AWS_ENDPOINT_URL": "http://10.0.0.1"}, "AWS_ENDPOINT_URL may only point to this machine"),
    ],
)
def test_no_other_address_is_spoken_to(
    aws: None, arguments: list[str], environment: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert told in refused(call("halt", "--reason", "x", *arguments))


def test_a_call_without_an_answer_says_that_nobody_knows(gateway: Gateway, ledger_table: Ledger) -> None:
    gateway.down = True
    told = refused(call("halt", "--url", gateway.api, "--reason", "x"))
    assert "the halt has no answer, so whether it was done is unknown" in told
    assert [path for _, path, _ in gateway.calls] == ["/trading-state", "/trading-state"], "a halt may be sent again, and was"
