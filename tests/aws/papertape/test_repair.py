"""`papertape repair`: a lake that was filled before actions had ids, shown and put right through the deployed function."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner, Result

from lambdas.backfill_bars.handler import handler
from lambdas.common.lake import lake as lakes
from lambdas.common.lake.lake import Lake
from local.exchange.server import RunningExchange
from papertape import command_line
from papertape.operate.client import announced
from papertape.options import ROOT
from schema.lake_layout import actions_key
from schema.settings import load
from trading_env.errors import PapertapeError

FUNCTION = "papertape-ingest-BackfillBars"
STACKS = f"""<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><DescribeStacksResult><Stacks><member>
<StackName>papertape-ingest</StackName><CreationTime>2026-01-01T00:00:00Z</CreationTime><StackStatus>CREATE_COMPLETE</StackStatus><Outputs>
<member><OutputKey>BackfillBarsFunction</OutputKey><OutputValue>{FUNCTION}</OutputValue></member>
</Outputs></member></Stacks></DescribeStacksResult></DescribeStacksResponse>"""


@contextmanager
def serving(stacks: str = STACKS) -> Iterator[str]:
    """CloudFormation and Lambda on this machine: what is invoked is the real handler."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body, headers = self.rfile.read(int(self.headers.get("Content-Length", 0))), {}
            content, kind = stacks.encode(), "text/xml"
            if re.search(rf"/functions/{FUNCTION}/invocations$", self.path):
                kind = "application/json"
                try:
                    content = json.dumps(handler(json.loads(body), None)).encode()
                except (PapertapeError, ValueError) as error:
                    content, headers = json.dumps({"errorMessage": str(error)}).encode(), {"X-Amz-Function-Error": "Unhandled"}
            self.send_response(200)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def call(*arguments: str, answer: str | None = None, **environment: str) -> Result:
    return CliRunner(env={"COLUMNS": "200", **environment}).invoke(command_line.app, ["repair", *arguments], input=answer)


@pytest.fixture
def lake(exchange: RunningExchange, buckets: SimpleNamespace) -> Iterator[Lake]:
    """What the nights before left: SPY's dividend of September eighteen times, that of IBM of November not at all, none with an id."""
    lakes.lake.cache_clear()
    lake = Lake(s3=boto3.client("s3"), raw_bucket=buckets.raw)
    handler({"start": "2019-06-03"}, None)
    for symbol in ("SPY", "IBM"):
        rows = [{name: row[name] for name in ("symbol", "ex_date", "kind", "value")} for row in lake.actions(symbols=[symbol])]
        extra = [row for row in rows if row["ex_date"] == "2019-09-20"] * 17
        lake.write({actions_key(symbol): [row for row in [*rows, *extra] if (symbol, row["ex_date"]) != ("IBM", "2019-11-07")]})
    yield lake
    lakes.lake.cache_clear()


def days(lake: Lake, symbol: str) -> list[str]:
    fresh = Lake(s3=lake.s3, raw_bucket=lake.raw_bucket)
    return [row["ex_date"] for row in fresh.actions(symbols=[symbol])]


def test_a_wrongly_filled_lake_is_shown_and_put_right_after_a_yes(lake: Lake, tmp_path: Path) -> None:
    wrong = days(lake, "SPY")
    assert wrong.count("2019-09-20") == 18
    with (
        serving() as cloud,
        announced(
            tmp_path,
            api_url="https://abcdefgh.execute-api.us-east-1.amazonaws.com/v1",
            cloud_url=cloud,
            settings=load(ROOT / "settings.toml"),
        ),
    ):
        refused = call("--folder", str(tmp_path), answer="n\n")
        assert (refused.exit_code, refused.stderr) == (1, "papertape: nothing was changed; to go on answer y, or add --yes\n"), (
            refused.output
        )
        shown = refused.stdout.splitlines()
        assert [one for one in shown if one.startswith("remove")] == ["remove SPY 2019-09-20 dividend 1.3836 (17 times)"]
        assert [one.split()[:4] for one in shown if one.startswith("add")] == [["add", "IBM", "2019-11-07", "dividend"]]
        assert days(lake, "SPY") == wrong

        done = call("--folder", str(tmp_path), answer="y\n")
        assert done.exit_code == 0, done.output
        assert "Repaired: 2 objects were written." in done.stdout
        assert days(lake, "SPY") == ["2019-06-21", "2019-09-20", "2019-12-20"]
        assert "2019-11-07" in days(lake, "IBM")

        again = call("--folder", str(tmp_path))
        assert (again.exit_code, again.stdout.splitlines()[1:]) == (0, ["Every corporate action is there once: nothing is to be repaired."])
        assert handler({"schedule": "backfill_bars"}, None)["objects_written"] == 0, "a night has nothing to change either"


def test_the_same_on_an_account_without_asking(lake: Lake) -> None:
    with serving() as cloud:
        done = call("--on", "aws", "--yes", AWS_ENDPOINT_URL_CLOUDFORMATION=cloud, AWS_ENDPOINT_URL_LAMBDA=cloud)
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "stack papertape-ingest in us-east-1"), done.output
    assert days(lake, "SPY") == ["2019-06-21", "2019-09-20", "2019-12-20"]


def test_what_the_function_refuses_is_one_line(lake: Lake, exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as cloud, serving(STACKS.replace("BackfillBarsFunction", "Another")) as other:
        elsewhere = call("--on", "aws", AWS_ENDPOINT_URL_CLOUDFORMATION=other, AWS_ENDPOINT_URL_LAMBDA=other)
        assert elsewhere.stderr == "papertape: stack papertape-ingest in us-east-1 has no output BackfillBarsFunction: deploy it first\n"
        exchange.use_faults({"faults": {"get_5xx": {"rate": 1, "requests": ["GET /v1/corporate-actions"]}}})
        failed = call("--on", "aws", "--yes", AWS_ENDPOINT_URL_CLOUDFORMATION=cloud, AWS_ENDPOINT_URL_LAMBDA=cloud)
        exchange.use_faults({})
    assert (failed.exit_code, failed.stderr.count("\n")) == (1, 1)
    assert "corporate-actions failed (50" in failed.stderr
    with pytest.raises(ValueError, match="repair must be show or apply, was 'all'"):
        handler({"repair": "all"}, None)
