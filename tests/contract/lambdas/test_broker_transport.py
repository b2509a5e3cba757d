"""The broker edge at the socket: what is sent, how often, and what each outcome is called."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from lambdas.common.broker.alpaca import AlpacaBroker, BrokerVariables, Credentials
from lambdas.common.broker.port import AlreadyAccepted, BrokerRefused, BrokerUnavailable, QueryRefused, RateLimited, Rejected, Unresolved
from lambdas.common.orders.batch import CLOCK_SECONDS
from lambdas.common.orders.planning import LAST_MINUTE
from trading_env.orders.order_state import OrderStatus
from trading_env.orders.orders import ProposedOrder

ORDER = ProposedOrder(
    symbol="SPY", side="buy", quantity=Decimal("1.123456789"), client_order_id="pt1-abc", price_reference=Decimal("324.5")
)
ACCEPTED = {
    "id": "o-1",
    "client_order_id": "pt1-abc",
    "symbol": "SPY",
    "side": "buy",
    "qty": "1.123456789",
    "filled_qty": "0",
    "filled_avg_price": None,
    "status": "accepted",
    "submitted_at": "2020-01-02T14:35:00Z",
    "filled_at": None,
}

DAY = (datetime(2013, 10, 4, 13, 30, tzinfo=UTC), datetime(2013, 10, 4, 20, tzinfo=UTC))

Behaviour = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Vendor:
    """A server that does with each request what its script says, the last line for ever, and keeps what it got."""

    script: list[Behaviour]
    port: int = 0
    requests: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def answers(status: int, body: Any, headers: dict[str, str] | None = None) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response_only(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return behave


def stalls(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.6)
    handler.close_connection = True


def resets(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    state = Vendor(script=[])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.requests.append((self.command, self.path, json.loads(body) if body else {}))
            state.keys.append(self.headers.get("APCA-API-KEY-ID", ""))
            (state.script.pop(0) if len(state.script) > 1 else state.script[0])(self)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815 -- the names that http.server calls

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                self.close_connection = True

        def finish(self) -> None:
            try:
                super().finish()
            except (OSError, ValueError):
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def broker(vendor: Vendor, pauses: list[float]) -> AlpacaBroker:
    return AlpacaBroker(
        credentials=Credentials(key_id="key", secret_key="secret"),
        trading_url=vendor.url,
        data_url=vendor.url,
        timeouts=(0.3, 0.2),
        sleep=pauses.append,
    )


def test_an_order_is_posted_with_every_digit_and_our_id(broker: AlpacaBroker, vendor: Vendor) -> None:
    vendor.script = [answers(200, ACCEPTED)]
    order = broker.submit(ORDER)
    assert (order.id, order.status, order.quantity) == ("o-1", OrderStatus.NEW, Decimal("1.123456789"))
    assert vendor.requests == [
        (
            "POST",
            "/v2/orders",
            {
                "symbol": "SPY",
                "qty": "1.123456789",
                "side": "buy",
                "type": "market",
                "time_in_force": "day",
                "client_order_id": "pt1-abc",
            },
        )
    ]


@pytest.mark.parametrize(
    "behaviour",
    [
        answers(504, {"message": "gateway timeout"}),
        answers(500, b"oops"),
        answers(408, {}),
        answers(302, b"", {"Location": "https://api.alpaca.markets/v2/orders"}),
        answers(200, b"<html>not JSON</html>"),
        answers(200, b""),
        answers(200, {"id": "o-1"}),
        answers(200, {**ACCEPTED, "client_order_id": "another"}),
        answers(200, {**ACCEPTED, "filled_qty": "NaN"}),
        stalls,
        resets,
    ],
    ids=["504", "500", "408", "redirect", "html", "empty", "fields", "another id", "NaN", "stall", "reset"],
)
def test_an_indefinite_outcome_of_a_post_is_unresolved_and_never_repeated(
    broker: AlpacaBroker, vendor: Vendor, behaviour: Behaviour
) -> None:
    vendor.script = [behaviour]
    with pytest.raises(Unresolved):
        broker.submit(ORDER)
    assert [verb for verb, _, _ in vendor.requests] == ["POST"]


def test_a_refused_connection_is_unresolved(vendor: Vendor) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        broker = AlpacaBroker(credentials=Credentials(key_id="k", secret_key="s"), trading_url=url, data_url=url, timeouts=(0.3, 0.2))
        with pytest.raises(Unresolved):
            broker.submit(ORDER)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_definite_refusal_is_rejected_with_its_code(broker: AlpacaBroker, vendor: Vendor, status: int) -> None:
    vendor.script = [answers(status, {"code": 40310000, "message": "insufficient buying power"})]
    with pytest.raises(Rejected, match="insufficient buying power") as raised:
        broker.submit(ORDER)
    assert raised.value.refusal == "buying_power"
    assert f"{status} (40310000)" in str(raised.value)
    assert len(vendor.requests) == 1


@pytest.fixture
def rotating(vendor: Vendor) -> AlpacaBroker:
    """A broker whose keys have been rotated since it was made."""
    old = Credentials(key_id="old", secret_key="old")
    return AlpacaBroker(credentials=old, trading_url=vendor.url, data_url=vendor.url, timeouts=(0.3, 0.2), renew=lambda: ("new", "new"))


@pytest.mark.parametrize(
    "behaviour",
    [
        answers(401, {"message": "unauthorized."}),
        answers(401, {"code": 40110000, "message": "request is not authorized"}),
        answers(403, {"message": "forbidden."}),
        answers(403, {"code": 0, "message": "forbidden."}),
        answers(403, ["forbidden"]),
        answers(403, b"<html>Forbidden</html>"),
    ],
    ids=["401", "401 with a code", "403", "403 with no vendor's code", "403 with a list", "403 of a gateway"],
)
def test_after_a_refusal_of_the_keys_rotated_ones_are_used_once(rotating: AlpacaBroker, vendor: Vendor, behaviour: Behaviour) -> None:
    vendor.script = [behaviour, answers(200, ACCEPTED)]
    assert rotating.submit(ORDER).id == "o-1"
    assert rotating.submit(ORDER).id == "o-1"
    assert vendor.keys == ["old", "new", "new"]
    assert {body["client_order_id"] for _, _, body in vendor.requests} == {"pt1-abc"}


@pytest.mark.parametrize("code", [40310000, 40310100, "40310000"])
def test_a_403_about_the_order_asks_for_no_keys_and_is_not_sent_again(rotating: AlpacaBroker, vendor: Vendor, code: Any) -> None:
    vendor.script = [answers(403, {"code": code, "message": "insufficient buying power"})]
    with pytest.raises(Rejected, match="insufficient buying power"):
        rotating.submit(ORDER)
    assert vendor.keys == ["old"]


@pytest.mark.parametrize("status", [401, 403])
def test_keys_that_are_still_refused_end_as_a_refusal(rotating: AlpacaBroker, vendor: Vendor, status: int) -> None:
    vendor.script = [answers(status, {"message": "forbidden."})]
    with pytest.raises(Rejected):
        rotating.submit(ORDER)
    with pytest.raises(BrokerUnavailable):
        rotating.positions()
    assert vendor.keys == ["old", "new", "new"]


def test_the_slowest_post_ends_within_the_minute_before_the_close_that_no_window_reaches_into() -> None:
    """Sent twice, as after a rotation of the keys, with the longest timeouts that are allowed, by a clock that is as old as it may be."""
    slowest = {"broker_secret_arn": "arn", "broker_connect_timeout": 10, "broker_read_timeout": 15}
    variables = BrokerVariables.model_validate(slowest)
    assert 2 * (variables.broker_connect_timeout + variables.broker_read_timeout) + CLOCK_SECONDS < LAST_MINUTE.total_seconds()
    for name in ("broker_connect_timeout", "broker_read_timeout"):
        with pytest.raises(ValidationError):
            BrokerVariables.model_validate({**slowest, name: slowest[name] + 1})


def test_the_last_session_s_bars_are_asked_for_without_reaching_into_the_evening(broker: AlpacaBroker, vendor: Vendor) -> None:
    """A free subscription refuses SIP data of the last fifteen minutes, and the nightly run asks at 18:00 New York for its own session."""
    vendor.script = [answers(200, {"bars": {}, "next_page_token": None})]
    broker.daily_bars(["SPY"], date(2020, 1, 2), date(2020, 1, 2))
    ((_, path, _),) = vendor.requests
    query = parse_qs(urlsplit(path).query)
    assert datetime(2020, 1, 2, 5, tzinfo=UTC) < datetime.fromisoformat(query["end"][0]) < datetime(2020, 1, 2, 22, 45, tzinfo=UTC)


def test_a_used_client_order_id_means_that_it_was_accepted(broker: AlpacaBroker, vendor: Vendor) -> None:
    vendor.script = [answers(422, {"code": 40010001, "message": "client_order_id must be unique"})]
    with pytest.raises(AlreadyAccepted):
        broker.submit(ORDER)


def test_only_a_429_is_repeated_and_with_the_same_id(broker: AlpacaBroker, vendor: Vendor, pauses: list[float]) -> None:
    vendor.script = [answers(429, {}, {"Retry-After": "1"}), answers(429, {}), answers(200, ACCEPTED)]
    assert broker.submit(ORDER).id == "o-1"
    assert [body["client_order_id"] for _, _, body in vendor.requests] == ["pt1-abc"] * 3
    assert pauses == [1.0, 0.3]


@pytest.mark.parametrize(
    "headers",
    [{"Retry-After": "3600"}, {"Date": "Thu, 02 Jan 2020 14:35:00 GMT", "X-RateLimit-Reset": "1577979300"}],
    ids=["after", "reset"],
)
def test_nobody_asks_again_before_a_budget_that_is_back_too_late(
    broker: AlpacaBroker, vendor: Vendor, pauses: list[float], headers: dict[str, str]
) -> None:
    vendor.script = [answers(429, {}, headers)]
    with pytest.raises(RateLimited):
        broker.submit(ORDER, retry_timeout=20)
    with pytest.raises(BrokerUnavailable):
        broker.positions()
    assert len(vendor.requests) == 2
    assert pauses == []


def test_a_read_that_has_the_time_waits_for_the_next_minute_s_budget(vendor: Vendor, pauses: list[float]) -> None:
    """Years of minutes are more pages than a minute allows."""
    patient = AlpacaBroker(
        credentials=Credentials(key_id="key", secret_key="secret"),
        trading_url=vendor.url, data_url=vendor.url, reset_timeout=65, sleep=pauses.append,
    )  # fmt: skip
    vendor.script = [answers(429, {}, {"Retry-After": "59"}), answers(200, {"bars": {}, "next_page_token": None})]
    assert patient.minute_bars(["SPY"], *DAY, feed="iex") == []
    assert (len(vendor.requests), pauses) == (2, [59.0])


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "soon"}, {"X-RateLimit-Reset": "nan"}, {"Retry-After": "-5"}])
def test_a_storm_of_429_ends_as_not_accepted(broker: AlpacaBroker, vendor: Vendor, pauses: list[float], headers: dict[str, str]) -> None:
    vendor.script = [answers(429, {}, headers)]
    with pytest.raises(RateLimited):
        broker.submit(ORDER)
    assert len(vendor.requests) == 3
    assert 0 < sum(pauses) <= 1


def test_a_reset_is_waited_for_by_the_broker_s_own_clock(broker: AlpacaBroker, vendor: Vendor, pauses: list[float]) -> None:
    """However wrong this machine's clock is; and within the timeout of the caller, not a moment longer."""
    reset = {"Date": "Thu, 02 Jan 2020 14:35:00 GMT", "X-RateLimit-Reset": "1577975712"}
    vendor.script = [answers(429, {}, reset), answers(200, ACCEPTED)]
    assert broker.submit(ORDER, retry_timeout=12).id == "o-1"
    assert pauses == [12.0]
    vendor.script = [answers(429, {}, reset)]
    with pytest.raises(RateLimited, match=r"back in 12\.0 s"):
        broker.submit(ORDER, retry_timeout=11)
    assert len(vendor.requests) == 3


def test_after_a_429_a_504_is_still_unresolved(broker: AlpacaBroker, vendor: Vendor) -> None:
    vendor.script = [answers(429, {}), answers(504, {})]
    with pytest.raises(Unresolved):
        broker.submit(ORDER)
    assert len(vendor.requests) == 2


@pytest.mark.parametrize("behaviour", [answers(503, {}), answers(200, b"nonsense"), stalls, resets], ids=["503", "body", "stall", "reset"])
def test_a_read_is_tried_three_times_and_then_nothing_is_known(broker: AlpacaBroker, vendor: Vendor, behaviour: Behaviour) -> None:
    vendor.script = [behaviour]
    with pytest.raises(BrokerUnavailable):
        broker.positions()
    assert len(vendor.requests) == 3


def test_a_read_survives_one_failure(broker: AlpacaBroker, vendor: Vendor) -> None:
    vendor.script = [answers(500, {}), answers(200, [])]
    assert broker.positions() == {}


@pytest.mark.parametrize("body", [{}, None, [{"symbol": "SPY"}], [{"symbol": "SPY", "qty": "NaN"}], ["SPY"]])
def test_positions_that_cannot_be_read_are_never_an_empty_book(broker: AlpacaBroker, vendor: Vendor, body: Any) -> None:
    vendor.script = [answers(200, body)]
    with pytest.raises(BrokerUnavailable):
        broker.positions()


def test_a_person_s_order_for_a_notional_does_not_hide_the_open_orders(broker: AlpacaBroker, vendor: Vendor) -> None:
    vendor.script = [answers(200, [ACCEPTED, {**ACCEPTED, "id": "o-2", "symbol": "IBM", "qty": None, "notional": "500"}])]
    assert [(order.symbol, order.quantity) for order in broker.open_orders()] == [("SPY", Decimal("1.123456789")), ("IBM", Decimal(0))]


def test_many_orders_are_asked_for_with_one_question(broker: AlpacaBroker, vendor: Vendor) -> None:
    vendor.script = [answers(200, [ACCEPTED, {**ACCEPTED, "client_order_id": "pt1-b", "status": "replaced", "replaced_by": "o-3"}])]
    first, second = broker.orders_since(datetime(2020, 1, 2, 14, 35, tzinfo=UTC))
    ((_, path, _),) = vendor.requests
    asked = parse_qs(urlsplit(path).query)
    assert (asked["status"], asked["limit"], asked["direction"]) == (["all"], ["500"], ["asc"])
    assert datetime.fromisoformat(asked["after"][0]) == datetime(2020, 1, 2, 14, 35, tzinfo=UTC)
    assert (first.replaced_by, second.replaced_by) == (None, "o-3")


def test_an_order_is_found_by_the_broker_s_own_id(broker: AlpacaBroker, vendor: Vendor) -> None:
    vendor.script = [answers(200, {**ACCEPTED, "replaces": "o-0"})]
    order = broker.order("o-1")
    assert order is not None
    assert (order.client_order_id, order.replaces, vendor.requests[0][1]) == ("pt1-abc", "o-0", "/v2/orders/o-1")
    vendor.script = [answers(404, {"message": "order not found"})]
    assert broker.order("o-9") is None


def test_an_order_is_absent_only_if_the_broker_says_so(broker: AlpacaBroker, vendor: Vendor) -> None:
    vendor.script = [answers(404, {"code": 40410000, "message": "order not found"})]
    assert broker.order_by_client_id("pt1-abc") is None
    vendor.script = [answers(500, {})]
    with pytest.raises(BrokerUnavailable):
        broker.order_by_client_id("pt1-abc")


def test_market_data_of_an_unknown_shape_is_a_failed_read(broker: AlpacaBroker, vendor: Vendor) -> None:
    vendor.script = [answers(200, {"surprise": {}})]
    with pytest.raises(BrokerUnavailable):
        broker.latest_quotes(["SPY"])


def test_a_stalled_read_ends_after_its_timeouts(broker: AlpacaBroker, vendor: Vendor) -> None:
    vendor.script = [stalls]
    with pytest.raises(BrokerUnavailable, match="ReadTimeout"):
        broker.clock()


@pytest.mark.parametrize("url", ["https://api.alpaca.markets", "http://192.0.2.1:80", "https://paper-api.alpaca.markets.example.org"])
def test_no_socket_is_opened_to_a_place_that_is_not_paper(vendor: Vendor, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _self, address: dialled.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **_more: dialled.append(arguments))
    with pytest.raises(BrokerRefused):
        AlpacaBroker(credentials=Credentials(key_id="k", secret_key="s", live=True), trading_url=url, data_url=vendor.url).account()
    assert dialled == []


def test_a_plan_without_the_feed_is_told_apart_from_bad_keys(broker: AlpacaBroker, vendor: Vendor) -> None:
    """The words are those of the vendor's FAQ on a 403."""
    vendor.script = [answers(403, {"message": "subscription does not permit querying recent SIP data"})]
    with pytest.raises(QueryRefused) as refused:
        broker.minute_bars(["SPY"], *DAY, feed="sip")
    assert str(refused.value).endswith(
        "was refused (403: subscription does not permit querying recent SIP data); settings.data.minutes_feed is 'sip': "
        "its last fifteen minutes need a paid plan, 'iex' does not"
    )
    assert len(vendor.requests) == 1
    vendor.script = [answers(403, {"message": "forbidden."})]
    with pytest.raises(BrokerUnavailable, match=r"failed \(403: forbidden") as failed:
        broker.minute_bars(["SPY"], *DAY, feed="sip")
    assert not isinstance(failed.value, QueryRefused)


def test_a_page_that_cannot_be_read_is_no_empty_answer(broker: AlpacaBroker, vendor: Vendor) -> None:
    whole = {"t": "2013-10-04T13:30:00Z", "o": 1, "h": 1, "l": 1, "c": 1, "v": 5}
    vendor.script = [
        answers(200, {"bars": {"SPY": [whole]}, "next_page_token": "more"}),
        answers(200, {"bars": {"SPY": [{**whole, "c": None}]}, "next_page_token": None}),
    ]
    with pytest.raises(BrokerUnavailable, match="bar of SPY cannot be read"):
        broker.minute_bars(["SPY"], *DAY, feed="iex")
