"""An exchange whose clock runs by itself: the same books as one whose clock is moved, for clients that only look."""

from __future__ import annotations

from datetime import datetime, timedelta

import requests

from local.exchange.http.app import Keys, create_app
from local.exchange.in_process import InProcess
from local.exchange.running_clock import RunningClock
from tests.exchanges import KEYS, URL, ExchangeClient


class Wall:
    """Seconds since 1970, moved by a test."""

    seconds = 1_700_000_000.0

    def __call__(self) -> float:
        return self.seconds


def running(client: ExchangeClient, *, speed: float, wall: Wall) -> requests.Session:
    app = RunningClock(create_app(venue=client.venue, keys=Keys()), venue=client.venue, speed=speed, wall=wall)
    http = requests.Session()
    http.headers.update(KEYS)
    http.mount(URL, InProcess(app))
    return http


def told(http: requests.Session) -> datetime:
    return datetime.fromisoformat(http.get(f"{URL}/v2/clock").json()["timestamp"])


def test_at_sixty_times_the_wall_a_session_takes_six_and_a_half_minutes_and_orders_live_through_it() -> None:
    client, wall = ExchangeClient(now=datetime.fromisoformat("2020-01-02T14:30:00Z")), Wall()
    http = running(client, speed=60.0, wall=wall)
    order = {"symbol": "AAPL", "side": "buy", "qty": "1", "type": "limit", "limit_price": "1", "time_in_force": "day"}
    placed = http.post(f"{URL}/v2/orders", json=order).json()
    wall.seconds += 6 * 60
    assert told(http) == datetime.fromisoformat("2020-01-02T20:30:00Z")
    assert http.get(f"{URL}/v2/orders/{placed['id']}").json()["status"] == "new"
    wall.seconds += 30
    assert not http.get(f"{URL}/v2/clock").json()["is_open"]
    assert http.get(f"{URL}/v2/orders/{placed['id']}").json()["status"] == "expired"


def test_a_clock_moved_by_hand_runs_on_from_there_and_never_back() -> None:
    client, wall = ExchangeClient(), Wall()
    http = running(client, speed=1.0, wall=wall)
    begun = told(http)
    http.post(f"{URL}/admin/clock", json={"now": "2020-01-03T15:00:00Z"}).raise_for_status()
    wall.seconds += 10
    assert told(http) == datetime.fromisoformat("2020-01-03T15:00:10Z")
    wall.seconds -= 60
    assert told(http) == datetime.fromisoformat("2020-01-03T15:00:10Z")
    http.post(f"{URL}/admin/reset", json={"now": begun.isoformat()}).raise_for_status()
    wall.seconds += 5
    assert told(http) == begun + timedelta(seconds=5)
