"""A call to a vendor at the socket: what is sent, how often, and what each outcome is called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.port import SourceInvalid, SourceLimited, SourceRefused, SourceUnavailable
from sources.transport import VendorTransport
from tests.price_vendors import KEY, VendorServer, serving


class Echo:
    """Answers with the query."""

    name, limited = "echo", 429

    def respond(self, path: str, query: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        return 200, {"path": path, **query}, {}


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, [0.0][:0]

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with serving(Echo()) as running:
        yield running


def transport(server: VendorServer, clock: Clock, **options: Any) -> VendorTransport:
    usual: dict[str, Any] = {"source": "echo", "per_minute": 100, "params": {"token": KEY}}
    return VendorTransport(**{**usual, **options}, url=server.url, sleep=clock.sleep, clock=clock)


def test_a_minute_holds_no_more_than_its_budget_and_a_day_neither(server: VendorServer) -> None:
    clock = Clock()
    calls = transport(server, clock, per_minute=2, per_day=5)
    for left in (4, 3, 2, 1, 0):
        calls.get("/a")
        assert calls.left_today == left
    assert clock.slept == [60.0, 60.0]
    with pytest.raises(SourceLimited, match="echo: the 5 calls of a day are used up; go on tomorrow"):
        calls.get("/a")
    assert len(server.requests) == 5
    clock.now += 86_400
    assert calls.get("/a")["path"] == "/a"


def test_calls_keep_their_distance(server: VendorServer) -> None:
    clock = Clock()
    calls = transport(server, clock, spacing=1.1)
    for _ in range(3):
        calls.get("/a")
    assert clock.slept == [1.1, 1.1]


@pytest.mark.parametrize(
    ("status", "outcome", "tries"),
    [
        (302, SourceInvalid, 1),
        (400, SourceInvalid, 1),
        (401, SourceRefused, 1),
        (403, SourceRefused, 1),
        (404, SourceInvalid, 1),
        (422, SourceInvalid, 1),
        (429, SourceLimited, 3),
        (500, SourceUnavailable, 3),
        (503, SourceUnavailable, 3),
    ],
)
def test_every_status_has_its_outcome(server: VendorServer, status: int, outcome: type[Exception], tries: int) -> None:
    clock = Clock()
    server.mend = lambda _reply: (status, {"error": f"no, {KEY}"}, {})
    with pytest.raises(outcome, match="echo") as raised:
        transport(server, clock).get("/a")
    assert (len(server.requests), KEY in str(raised.value)) == (tries, False)
    assert clock.slept == [0.5, 1.5][: tries - 1]


def test_a_redirect_is_not_followed_and_carries_no_key_anywhere(server: VendorServer) -> None:
    server.mend = lambda reply: (302, {}, {"Location": f"{server.url}/elsewhere"}) if len(server.requests) == 1 else reply
    with pytest.raises(SourceInvalid, match="echo does not take /a"):
        transport(server, Clock(), params={}, headers={"X-Key": KEY}).get("/a")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("headers", "slept", "tries"),
    [
        ({}, [0.5, 1.5], 3),
        ({"Retry-After": "2"}, [2.0, 2.0], 3),
        ({"Retry-After": "5.5"}, [], 1),
        ({"Retry-After": "86400"}, [], 1),
        ({"Retry-After": "-3"}, [0.0, 0.0], 3),
        ({"Retry-After": "nan"}, [0.5, 1.5], 3),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, [0.5, 1.5], 3),
        ({"x-rate-limit-reset": "1"}, [0.0, 0.0], 3),  # long ago: the clocks differ
        ({"x-ratelimit-reset": "99999999999"}, [], 1),
    ],
)
def test_a_rate_limit_is_waited_out_where_that_is_short_and_else_said_at_once(
    server: VendorServer, headers: dict[str, str], slept: list[float], tries: int
) -> None:
    clock = Clock()
    server.mend = lambda _reply: (429, {}, headers)
    with pytest.raises(SourceLimited, match="echo: the rate limit is used up"):
        transport(server, clock).get("/a")
    assert (clock.slept, len(server.requests)) == (slept, tries)


def test_a_second_try_may_answer(server: VendorServer) -> None:
    broken = iter([(503, {}, {}), (200, b'{"half', {})])
    server.mend = lambda reply: next(broken, reply)
    assert transport(server, Clock()).get("/a")["path"] == "/a"


def test_a_key_that_is_cut_or_written_as_an_address_does_is_hidden_too(server: VendorServer) -> None:
    """Hidden before the text is cut, each word of a header by itself, and percent-encoded."""
    clock = Clock()
    bearer = transport(server, clock, params={}, headers={"Authorization": f"Bearer {KEY}"})
    server.mend = lambda _reply: (400, ("x" * 190 + KEY).encode(), {})
    for calls in (transport(server, clock), bearer):
        with pytest.raises(SourceInvalid) as raised:
            calls.get("/a")
        assert KEY[:8] not in str(raised.value)
    server.mend = lambda _reply: (400, b"key-7f3a%2B91%2Fbd", {})
    with pytest.raises(SourceInvalid) as raised:
        bearer.get("/a")
    assert "7f3a" not in str(raised.value)


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}", f"{KEY[:8]}\r\nX-Evil: 1", "ключ-ключ"])
def test_a_key_that_no_header_takes_is_refused_at_once_and_not_shown(server: VendorServer, key: str) -> None:
    """As it is stored with the end of its line. To the vendor it would be a call that fails, and here an outage."""
    with pytest.raises(SourceRefused, match=r"^echo: its key has a blank, a line break or another character") as raised:
        transport(server, Clock(), params={}, headers={"X-Key": key})
    assert KEY[4:8] not in str(raised.value)
    assert "ключ" not in str(raised.value)


@settings(max_examples=30)
@given(text=st.text(max_size=300), key=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40))
def test_whatever_a_vendor_says_the_key_does_not_stand_in_it(text: str, key: str) -> None:
    calls = VendorTransport(source="s", url="https://vendor.example", per_minute=1, params={"key": key})
    shown = calls.redacted(text[:150] + key + text[150:])
    assert key not in shown or key in "*" * len(shown)
    assert len(shown) <= 200
    assert "\n" not in shown


def test_keys_travel_by_https_or_stay_on_this_machine() -> None:
    with pytest.raises(
        SourceRefused, match=r"must begin with https://, or be this machine's, was http://vendor.example; keys are not sent"
    ):
        VendorTransport(source="s", url="http://vendor.example", per_minute=1)


def test_no_proxy_of_the_environment_is_asked(server: VendorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    assert transport(server, Clock()).get("/a", {"b": 1}) == {"path": "/a", "b": "1", "token": KEY}
