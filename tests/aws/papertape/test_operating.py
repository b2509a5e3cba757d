"""halt, resume, flatten, status: the commands through a gateway that wants a signature, the real handlers, the ledger and the exchange."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials
from typer.testing import CliRunner, Result

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import AlertRecord, Breakers, OrderRecord, ServedModel
from local.exchange.server import RunningExchange
from papertape import command_line
from papertape.operate import client
from papertape.operate.client import RUNNING, announced
from papertape.options import ROOT
from schema.loopback import LOCAL_ACCOUNT, LOCAL_SECRET
from schema.sections.learning import GateSettings
from schema.settings import SETTINGS_FILE, Settings, load
from tests.aws.gateway import Gateway, serving
from tests.settings_files import settings_file

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
    was = ", was 301" if "x" * 301 in reason else ""
    assert (
        told == f'papertape: a reason is needed, of at most 300 characters{was}: {command} --reason "..." (make {command} reason="...")\n'
    )
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
        assert (again.exit_code, again.stdout.splitlines()[-2]) == (0, "flatten: refused, done; nothing is held")
        shown = call("status", "--url", gateway.api)
        who = "since 2020-01-02T14:35:00Z by arn:aws:iam::000000000000:user/person"
        assert f"trading state  reduce_only (flatten: going away, {who})" in shown.stdout, "the request's own time, as a halt has"
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


def test_a_flatten_while_halted_says_that_it_is_not_halted_any_more(
    execution: Any, control: Any, ledger_table: Ledger, exchange: RunningExchange
) -> None:
    stop(ledger_table)
    with serving(execution, control, Credentials(LOCAL_ACCOUNT, LOCAL_SECRET)) as gateway:
        told = call("flatten", "--url", gateway.api, "--reason", "away").stdout.splitlines()[-1]
    assert told.startswith("trading state: reduce_only (flatten: away, since 2020-01-02T14:35:00Z by arn:")
    assert told.endswith("; it was halted")


def test_status_says_what_will_become_of_a_flatten_that_waits(
    execution: Any, control: Any, ledger_table: Ledger, exchange: RunningExchange, reconcile: Any, decide: Any
) -> None:
    execution("POST", "/decisions", decide(weights={"SPY": 0.5}))
    exchange.advance("2020-01-02T22:00:00Z")
    with serving(execution, control, Credentials(LOCAL_ACCOUNT, LOCAL_SECRET)) as gateway:
        call("flatten", "--url", gateway.api, "--reason", "going away")
        assert "it sells from 2020-01-03T14:31:00Z on" in call("status", "--url", gateway.api).stdout
        asked = call("resume", "--yes", "--url", gateway.api, "--reason", "stays")
        assert "flatten:2020-01-03#1 has not sold yet and will be dropped: nothing is sold." in asked.stdout
        shown = call("status", "--url", gateway.api).stdout
        dropped = "trading has been resumed since: it will be dropped when the market opens, and nothing is sold"
        assert f"last decision  flatten:2020-01-03#1: accepted, working, 0 orders planned ({dropped})" in shown
        assert f"waiting        flatten:2020-01-03#1: {dropped}" in shown
        assert "it sells from" not in shown
        call("halt", "--url", gateway.api, "--reason", "wait")
        refused_then = "trading is halted: its sells will be refused when the market opens"
        assert refused_then in call("status", "--url", gateway.api).stdout
        call("resume", "--yes", "--url", gateway.api, "--reason", "stays")
        exchange.advance("2020-01-03T14:35:00Z")
        reconcile()
        assert set(exchange.books()["positions"]) == {"SPY"}, "as it was said"
        assert "waiting" not in call("status", "--url", gateway.api).stdout


def test_the_first_cause_of_a_halt_stays_visible(gateway: Gateway, ledger_table: Ledger) -> None:
    for minute, reason in enumerate(("odd fills", "still odd")):
        ledger_table.set_trading_state("halted", reason=reason, time=f"2020-01-02T15:0{minute}:00Z", by="someone")
    shown = call("status", "--url", gateway.api).stdout
    assert "trading state  halted (still odd, since 2020-01-02T15:01:00Z by someone)" in shown
    assert "before         halted (odd fills, 2020-01-02T15:00:00Z by someone)" in shown


def test_status_shows_account_market_day_positions_and_the_next_decision(
    execution: Any, control: Any, exchange: RunningExchange, reconcile: Any, decide: Any
) -> None:
    execution("POST", "/decisions", decide(weights={"SPY": 0.5, "IBM": 0.25}))
    exchange.advance("2020-01-02T21:05:00Z")
    reconcile()
    exchange.advance("2020-01-03T15:00:00Z")
    reconcile()
    with serving(execution, control, Credentials(LOCAL_ACCOUNT, LOCAL_SECRET)) as gateway:
        shown = call("status", "--url", gateway.api).stdout
    assert re.search(r"account        \S+", shown)
    assert "not known" not in shown
    assert (
        "market         open until Fri 2020-01-03 16:00 New York (21:00 UTC), when reconcile looked last at Fri 2020-01-03 10:00" in shown
    )
    assert re.search(r"this day       [+-]\$[\d,.]+ \([+-]\d\.\d\d%\) since the close of 2020-01-02", shown)
    assert re.search(r"positions      SPY \$[\d,]+ \(\d\d\.\d%\), IBM \$[\d,]+ \(\d\d\.\d%\)", shown)
    assert "next decision  2020-01-06/open+5, Mon 2020-01-06 09:35 New York (14:35 UTC)" in shown


def test_status_begins_with_the_gates_refusal_while_a_refused_model_trades(
    gateway: Gateway, ledger_table: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = ("the mean excess is -3.1 bp per year, above 0 is asked", "2 seeds, 10 are needed", "1 fold, 8 are needed")
    ledger_table.put_model(
        ServedModel(role="shadow", policy="endpoint", spec="arn:aws:sagemaker:package/1", endpoint="e", model_version="m" * 64, kappa=0.1,
                    since="2020-01-01T00:00:00Z", trained_until="2018-12-21", evaluated_until="2019-12-31", refused=reasons)
    )  # fmt: skip
    watching = call("status", "--url", gateway.api).stdout
    assert "refused the model that trades" not in watching
    assert "equal weight, until a model passes; trades" in watching
    assert "trained to 2018-12-21, judged to 2019-12-31; watches; the gate refused it: the mean excess is -3.1 bp" in " ".join(
        watching.split()
    )
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings.model_copy(update={"gate": GateSettings(refused="trade")})))
    trading = call("status", "--url", gateway.api).stdout.splitlines()
    assert trading[1] == (
        "The gate refused the model that trades here, on paper only: the mean excess is -3.1 bp per year, above 0 is asked; "
        "2 seeds, 10 are needed; and 1 more"
    )
    assert json.loads(call("status", "--json", "--url", gateway.api).stdout)["warning"] == trading[1]


@pytest.mark.parametrize("identity", ["agent:2020-12-25/open+5", "pt1-x/y", "AAPL"])
def test_what_is_not_there_is_said_to_be_not_there(gateway: Gateway, identity: str) -> None:
    told = refused(call("explain", identity, "--url", gateway.api))
    assert f"has no order and no decision {identity}; a decision is called like agent:2020-12-31/open+5, an order like pt1-..." in told
    assert not [path for _, path, _ in gateway.calls if path.startswith("/orders/") and "%2F" in path]


def test_the_orders_of_a_symbol_and_day_are_explained_without_their_ids(
    execution: Any, control: Any, exchange: RunningExchange, decide: Any
) -> None:
    made = execution("POST", "/decisions", decide(weights={"SPY": 0.5, "IBM": 0.25})).body
    order = next(one["client_order_id"] for one in made["orders"] if one["symbol"] == "IBM")
    with serving(execution, control, Credentials(LOCAL_ACCOUNT, LOCAL_SECRET)) as gateway:
        shown = json.loads(call("explain", "ibm", "--day", "2020-01-02", "--json", "--url", gateway.api).stdout)
        assert [one["client_order_id"] for one in shown] == [order]
        assert "has no order of IBM on 2020-01-03" in refused(call("explain", "IBM", "--day", "2020-01-03", "--url", gateway.api))
        assert "--day must be a date like 2020-12-31, was soon" in refused(call("explain", "IBM", "--day", "soon", "--url", gateway.api))


def test_without_credentials_the_remedy_is_credentials(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    for command in (["status"], ["halt", "--reason", "x"]):
        told = refused(call(*command, "--url", API))
        assert "credentials of the account that owns it are needed in this shell; nothing was asked" in told
        assert "unknown" not in told


def test_a_read_without_an_answer_is_no_doubt(gateway: Gateway) -> None:
    gateway.down = True
    told = refused(call("status", "--url", gateway.api))
    assert "GET /status has no answer: " in told
    assert "unknown" not in told


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
    with announced(tmp_path, api_url=API, cloud_url=gateway.url, settings=load(ROOT / "settings.toml")):
        result = call("status", "--folder", str(tmp_path))
        assert (result.exit_code, result.stdout.splitlines()[0]) == (0, f"the laptop's run in {tmp_path}")
        killed = (tmp_path / RUNNING).read_text(encoding="utf-8")
    assert gateway.calls == [("GET", "/status", 200)]
    assert refused(call("status", "--folder", str(tmp_path))).startswith(nothing)

    with socket.create_server(("127.0.0.1", 0)) as ended:
        port = ended.getsockname()[1]
    (tmp_path / RUNNING).write_text(killed.replace(gateway.url, f"http://127.0.0.1:{port}"), encoding="utf-8")
    assert refused(call("status", "--folder", str(tmp_path))).startswith(nothing), "a run that was killed leaves its file behind"


def test_the_mails_of_a_run_on_this_laptop_are_shown(tmp_path: Path) -> None:
    mails = [{"subject": f"papertape: {day}", "message": f"the {day} [mail]", "topic": "arn"} for day in ("first", "second", "third")]

    class Cloud(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/_papertape/published"
            content = json.dumps(mails).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Cloud)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with announced(
            tmp_path, api_url=API, cloud_url=f"http://127.0.0.1:{server.server_address[1]}", settings=load(ROOT / "settings.toml")
        ):
            shown = call("mails", "--last", "2", "--folder", str(tmp_path)).stdout
            assert "papertape: second\nthe second [mail]" in shown
            assert "first" not in shown
            assert shown.endswith("2 of 3 mails\n")
            assert "the first [mail]" in call("mails", "--last", "0", "--folder", str(tmp_path)).stdout
        with announced(tmp_path, api_url=API, cloud_url="http://10.0.0.1:1", settings=load(ROOT / "settings.toml")):
            assert "must name a cloud of this machine, was http://10.0.0.1:1" in refused(call("mails", "--folder", str(tmp_path)))
        assert "start it with `make local`" in refused(call("mails", "--folder", str(tmp_path)))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_paper_run_is_found_without_a_folder_and_two_runs_must_be_told_apart(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper, demo = tmp_path / "paper", tmp_path / "demo"
    for name, folder in (("PAPER", paper), ("DEMO", demo)):
        folder.mkdir()
        monkeypatch.setattr(client, name, folder)
    nothing = f"papertape: nothing runs in {paper} nor in {demo}: start it with `make paper` or `make local`, or add --on aws"
    assert refused(call("status")).startswith(nothing)
    here = {"api_url": API, "cloud_url": gateway.url, "settings": load(ROOT / "settings.toml")}
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
