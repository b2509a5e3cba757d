"""The market-data stream: the vendor's protocol, and what a move of the clock tells, in order and never before it could be known."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
import requests
from alpaca.data.live import StockDataStream
from alpaca.data.models import Bar, Quote, Trade

from local.exchange.server import RunningExchange
from tests.listeners import KEYS, StreamListener, market_of

EMPTY = {name: [] for name in ("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "corrections", "cancelErrors")}
#: A session whose minutes are recorded for four names, and one without.
MORNING, OPEN, EVENING = "2013-10-04T13:00:00Z", "2013-10-04T13:30:00Z", "2013-10-04T20:00:00Z"
LAST_MINUTE = datetime(2013, 10, 4, 19, 59, tzinfo=UTC)
QUIET_DAY = ("2020-01-02T14:00:00Z", "2020-01-02T21:00:00Z")


@pytest.fixture
def morning(exchange: RunningExchange) -> Iterator[RunningExchange]:
    exchange.reset(now=MORNING)
    yield exchange
    exchange.use_faults({})
    exchange._admin("POST", "/admin/clock", body={"speed": 0})


def code(answer: list[dict[str, Any]]) -> int:
    (error,) = answer
    assert error["T"] == "error"
    return int(error["code"])


def test_a_client_is_greeted_authenticated_and_told_the_whole_of_its_subscription(morning: RunningExchange) -> None:
    with StreamListener(morning.url, "/v2/iex") as listener:
        assert listener.next() == [{"T": "success", "msg": "connected"}]
        assert listener.ask({"action": "auth", **KEYS}) == [{"T": "success", "msg": "authenticated"}]
        first = listener.ask({"action": "subscribe", "trades": ["SPY"], "bars": ["*"]})
        assert first == [{"T": "subscription", **EMPTY, "trades": ["SPY"], "bars": ["*"], "corrections": ["SPY"], "cancelErrors": ["SPY"]}]
        listener.ask({"action": "subscribe", "trades": ["IBM", "SPY"], "statuses": ["*"]})
        left = listener.ask({"action": "unsubscribe", "trades": ["SPY"], "bars": ["*"]})
        assert left == [
            {"T": "subscription", **EMPTY, "trades": ["IBM"], "statuses": ["*"], "corrections": ["IBM"], "cancelErrors": ["IBM"]}
        ]


def test_keys_in_the_handshake_are_enough(morning: RunningExchange) -> None:
    keys = {"APCA-API-KEY-ID": "local-key", "APCA-API-SECRET-KEY": "local-secret"}
    with StreamListener(morning.url, "/v2/sip", headers=keys) as listener:
        assert [said["msg"] for said in listener.everything(count=2)] == ["connected", "authenticated"]


def test_errors_have_the_vendors_codes(morning: RunningExchange) -> None:
    with StreamListener(morning.url, "/v2/iex") as listener:
        listener.next()
        assert code(listener.ask({"action": "subscribe", "trades": ["SPY"]})) == 401
        assert code(listener.ask({"action": "auth", "key": "local-key", "secret": "guess"})) == 402
        assert listener.ask({"action": "auth", **KEYS})[0]["msg"] == "authenticated"
        assert code(listener.ask({"action": "auth", **KEYS})) == 403
        for wrong in ({"action": "dance"}, {"action": "subscribe"}, {"action": "subscribe", "trade": ["SPY"]}, [], "x", 7):
            assert code(listener.ask(wrong)) == 400
        assert code(listener.ask({"action": "subscribe", "trades": "SPY"})) == 400
        listener.say_text("{")
        assert listener.next() == [{"T": "error", "code": 400, "msg": "invalid syntax"}]


def test_the_free_plans_limits(morning: RunningExchange) -> None:
    morning.use_faults({"faults": {"stream_limits": {"symbols": 2}}})
    with market_of(morning.url, trades=["SPY"]) as listener:
        assert code(listener.ask({"action": "subscribe", "trades": ["IBM", "AIG"]})) == 405
        assert listener.ask({"action": "subscribe", "trades": ["IBM"], "bars": ["AIG", "BAC", "FB"]})[0]["trades"] == ["SPY", "IBM"]
        with StreamListener(morning.url, "/v2/iex") as second:
            assert [said.get("code") for said in second.everything(count=2)] == [None, 406]
            assert second.close_code == 1008
    assert morning.books()["faults"] == {"stream_limits": 1}


def test_minutes_are_told_in_order_and_are_those_of_the_history(morning: RunningExchange, http: requests.Session) -> None:
    with market_of(morning.url, trades=["SPY"], quotes=["SPY"], bars=["SPY"], dailyBars=["SPY"]) as listener:
        morning.advance("2013-10-04T13:32:30Z")
        told = [said for said in listener.everything() if said["T"] == "d" or said["t"] >= OPEN]
    minutes = [said for said in told if said["T"] != "d"]
    assert [said["T"] for said in minutes] == ["t", "q", "t", "b", "q", "t", "b"]  # the open's trade, and two minutes
    query = {"timeframe": "1Min", "start": OPEN, "end": "2013-10-04T13:32:30Z"}
    history = http.get(f"{morning.url}/v2/stocks/SPY/bars", params=query).json()["bars"]
    assert [said for said in told if said["T"] == "b"] == [{"T": "b", "S": "SPY", **bar} for bar in history]
    quotes = http.get(f"{morning.url}/v2/stocks/SPY/quotes", params={"start": OPEN}).json()["quotes"]
    assert [said for said in told if said["T"] == "q"] == [{"T": "q", "S": "SPY", **quote} for quote in quotes]
    running = [said for said in told if said["T"] == "d"]
    assert [said["v"] for said in running] == [history[0]["v"], history[0]["v"] + history[1]["v"]]
    assert {said["t"] for said in running} == {"2013-10-04T04:00:00Z"}


def test_the_days_bar_so_far_is_the_historys_and_the_close_tells_the_last(morning: RunningExchange, http: requests.Session) -> None:
    with market_of(morning.url, dailyBars=["IBM"]) as listener:
        morning.advance("2013-10-04T17:00:00Z")
        noon = listener.everything()
        shown = http.get(f"{morning.url}/v2/stocks/IBM/snapshot").json()["dailyBar"]
        assert noon[-1] == {"T": "d", "S": "IBM", **shown}
        morning.advance(EVENING)
        rest = listener.everything()
    assert [said["v"] for said in noon + rest[:-1]] == sorted(said["v"] for said in noon + rest[:-1])
    daily = http.get(f"{morning.url}/v2/stocks/IBM/bars", params={"timeframe": "1Day", "start": "2013-10-04"}).json()["bars"]
    assert rest[-1] == {"T": "d", "S": "IBM", **daily[0]}


def test_a_jump_over_a_day_tells_every_minute_of_every_name_in_order(morning: RunningExchange, http: requests.Session) -> None:
    with market_of(morning.url, bars=["*"], trades=["IBM"]) as listener:
        morning.advance(EVENING)
        told = listener.everything()
    bars = [said for said in told if said["T"] == "b" and said["t"] >= OPEN]
    assert [said["t"] for said in bars] == sorted(said["t"] for said in bars)
    query = {"symbols": "AIG,BAC,IBM,SPY", "timeframe": "1Min", "start": OPEN, "limit": 10_000}
    history = http.get(f"{morning.url}/v2/stocks/bars", params=query).json()["bars"]
    counts = {name: sum(said["S"] == name for said in bars) for name in history}
    assert counts == {name: len(minutes) for name, minutes in history.items()}
    assert counts["SPY"] == 390
    assert {said["S"] for said in told if said["T"] == "t"} == {"IBM"}


def test_a_day_without_minutes_has_its_opens_and_its_closes_trade(exchange: RunningExchange, http: requests.Session) -> None:
    exchange.reset(now=QUIET_DAY[0])
    with market_of(exchange.url, trades=["SPY"], quotes=["SPY"], bars=["SPY"], dailyBars=["SPY"]) as listener:
        exchange.advance("2020-01-02T20:59:59Z")
        opened = listener.everything()
        exchange.advance(QUIET_DAY[1])
        closed = listener.everything()
    assert [(said["T"], said["t"]) for said in opened] == [("q", "2020-01-02T14:30:00Z"), ("t", "2020-01-02T14:30:00Z")]
    assert [said["T"] for said in closed] == ["q", "t", "d"]
    daily = http.get(f"{exchange.url}/v2/stocks/SPY/bars", params={"timeframe": "1Day", "start": "2020-01-02"}).json()["bars"]
    assert closed[-1] == {"T": "d", "S": "SPY", **daily[0]}


def test_a_new_account_at_another_time_tells_nothing_of_the_time_between(morning: RunningExchange) -> None:
    with market_of(morning.url, trades=["*"], bars=["*"]) as listener:
        morning.reset(now="2013-10-08T13:00:00Z")
        assert listener.nothing()
        morning.advance("2013-10-08T13:31:00Z")
        assert {said["t"][:10] for said in listener.everything()} == {"2013-10-08"}


def test_msgpack_carries_times_as_timestamps(morning: RunningExchange) -> None:
    with market_of(morning.url, packed=True, bars=["SPY"]) as listener:
        morning.advance("2013-10-04T13:31:00Z")
        bar = listener.everything()[-1]
    assert isinstance(bar["t"], msgpack.Timestamp)
    assert bar["t"].to_datetime() == datetime(2013, 10, 4, 13, 30, tzinfo=UTC)


def test_a_halt_of_the_plan_is_a_status_at_the_open_and_so_is_its_end(exchange: RunningExchange) -> None:
    exchange.reset(now=QUIET_DAY[0])
    exchange.use_faults({"faults": {"halted_asset": {"symbols": ["IBM", "AAPL"]}}})
    with market_of(exchange.url, statuses=["*"]) as listener:
        exchange.advance(QUIET_DAY[1])
        exchange.use_faults({})
        exchange.advance("2020-01-03T21:00:00Z")
        told = listener.everything()
    assert [(said["T"], said["S"], said["sc"], said["z"], said["t"]) for said in told] == [
        ("s", "AAPL", "H", "C", "2020-01-02T14:30:00Z"),
        ("s", "IBM", "2", "A", "2020-01-02T14:30:00Z"),
        ("s", "AAPL", "T", "C", "2020-01-03T14:30:00Z"),
        ("s", "IBM", "3", "A", "2020-01-03T14:30:00Z"),
    ]


def test_a_running_clock_tells_by_itself_and_stops_when_told_to(morning: RunningExchange) -> None:
    with market_of(morning.url, bars=["SPY"]) as listener:
        morning.advance(OPEN)
        listener.everything(first=0.4)
        begun = time.monotonic()
        answer = morning._admin("POST", "/admin/clock", body={"speed": 600})
        assert answer == {"now": OPEN, "is_open": True, "speed": 600.0}
        bars = listener.everything(count=5)
        assert time.monotonic() - begun >= 0.5  # ten minutes a second
        morning._admin("POST", "/admin/clock", body={"speed": 0})
        listener.everything(first=0.4)
        assert listener.nothing()
    assert [bar["t"][11:16] for bar in bars[:5]] == ["13:30", "13:31", "13:32", "13:33", "13:34"]


@pytest.mark.parametrize(("speed", "said"), [(-1, "-1"), ("1", "1"), (None, "None"), (True, "True"), (1e9, "1000000000.0")])
def test_a_speed_that_is_none_is_refused(exchange: RunningExchange, http: requests.Session, speed: object, said: str) -> None:
    answer = http.post(f"{exchange.url}/admin/clock", json={"speed": speed})
    assert (answer.status_code, answer.json()["message"]) == (400, f"speed must be a number from 0 to 100000, was {said}")


def test_invented_quotes_come_at_the_pace_that_was_asked_for(morning: RunningExchange) -> None:
    with market_of(morning.url, "/v2/test", quotes=["FAKEPACA", "SPY"]) as listener:
        body = {"symbols": ["FAKEPACA", "SPY"], "per_second": 1000, "seconds": 0.5}
        assert morning._admin("POST", "/admin/quotes", body=body) == {"quotes": 500}
        told = listener.everything(count=500)
    assert [said["bs"] for said in told] == list(range(1, 501))
    assert {said["S"] for said in told} == {"FAKEPACA", "SPY"}
    assert told[0]["t"] == MORNING
    assert told[-1]["t"] == "2013-10-04T13:00:00.499000Z"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"per_second": 0, "seconds": 1},
        {"per_second": True, "seconds": 1},
        {"per_second": 10, "seconds": -1},
        {"symbols": ["NONE"], "per_second": 1, "seconds": 1},
        {"symbols": "SPY", "per_second": 1, "seconds": 1},
    ],
)
def test_invented_quotes_of_nothing_are_refused(exchange: RunningExchange, http: requests.Session, body: dict[str, Any]) -> None:
    assert http.post(f"{exchange.url}/admin/quotes", json=body).status_code == 400


def test_the_vendors_client_follows_the_market(morning: RunningExchange) -> None:
    stream = StockDataStream("local-key", "local-secret", url_override=morning.url.replace("http", "ws", 1) + "/v2/iex")
    told: list[Any] = []

    async def on_data(data: Any) -> None:
        told.append(data)
        if isinstance(data, Bar) and data.symbol == "SPY" and data.timestamp == LAST_MINUTE:
            await stream.stop_ws()

    stream.subscribe_trades(on_data, "SPY")
    stream.subscribe_quotes(on_data, "SPY")
    stream.subscribe_bars(on_data, "*")
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not stream._running and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    morning.advance(EVENING)
    thread.join(10)
    assert {type(data) for data in told} == {Bar, Quote, Trade}
    bars = [data for data in told if isinstance(data, Bar) and data.symbol == "SPY" and data.timestamp >= datetime.fromisoformat(OPEN)]
    assert len(bars) == 390
    assert json.loads(bars[0].model_dump_json())["open"] > 0
