"""Requests that nobody means well with: an answer in the vendor's JSON each time, one line in the log at most, and nothing changed."""

from __future__ import annotations

import json
import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from local.exchange.server import ExchangeConfig, RunningExchange
from local.exchange.venue import Venue
from tests.exchanges import URL, ExchangeClient, refusal


@pytest.fixture
def client() -> ExchangeClient:
    return ExchangeClient()


@pytest.mark.parametrize("name", ["start", "end", "date_end"])
def test_a_time_without_a_date_in_new_york_is_refused(client: ExchangeClient, name: str) -> None:
    status, _, message = refusal(client.get("/v2/account/portfolio/history", **{name: "0001-01-01T00:00:00Z"}))
    assert (status, message.endswith("was '0001-01-01T00:00:00Z'")) == (400, True)


@pytest.mark.parametrize(
    ("body", "status"), [(b"[" * 100_000, 400), (b'{"client_order_id":"\\ud800"}', 422), (b'{"symbol":"\\ud800"}', 422)]
)
def test_a_plan_of_faults_bears_what_no_plan_bears(client: ExchangeClient, body: bytes, status: int) -> None:
    assert client.http.post(f"{URL}/admin/faults", json={"profile": "realistic"}).status_code == 200
    for _ in range(3):
        answer = client.http.post(f"{URL}/v2/orders", data=body)
        assert answer.status_code in (status, 429)


def test_a_defect_of_ours_is_the_vendor_s_500(
    client: ExchangeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_venue: Venue) -> Any:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(Venue, "equity", property(broken))
    with caplog.at_level(logging.ERROR):
        answer = client.get("/v2/account")
    assert (answer.status_code, answer.json()) == (500, {"code": 50010000, "message": "internal server error occurred"})
    assert "ZeroDivisionError: on purpose" in caplog.text


def test_a_megabyte_is_not_repeated(client: ExchangeClient) -> None:
    answer = client.send(qty="x" * 1_000_000)
    assert (answer.status_code, len(answer.content) < 1000, "characters)" in answer.json()["message"]) == (422, True, True)


@pytest.mark.parametrize("header", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}])
def test_a_page_of_another_site_cannot_move_the_clock(client: ExchangeClient, header: dict[str, str]) -> None:
    client.send()
    body = json.dumps({"now": "2020-01-03T15:00:00Z"})
    for path in ("/admin/reset", "/admin/clock", "/admin/faults"):
        answer = client.http.post(URL + path, data=body, headers={"Content-Type": "text/plain", **header})
        assert answer.status_code == 403
    assert client.http.get(f"{URL}/admin/books", headers=header).status_code == 403
    assert len(client.venue.book.orders) == 1
    own = {"Origin": "http://127.0.0.1:8090"}
    assert client.http.get(f"{URL}/admin/books", headers=own).status_code == 200


def test_a_client_that_hangs_up_leaves_nothing_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with RunningExchange(ExchangeConfig(), log=log) as running:
        port = int(running.url.rsplit(":", 1)[1])
        for plan in ({}, {"profile": "realistic"}):
            running.use_faults(plan)
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", port)) as client:
                    client.sendall(b'POST /v2/orders HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n{"symbol"')
        assert running.books()["orders"] == []
    assert log.read_text(encoding="utf-8") == ""
