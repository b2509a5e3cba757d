"""The loop of a paper run over the deployed app: a slot by the exchange's clock, its orders and fills, and a slot slept through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from lambdas.common.broker.connection import paper_account
from local.paper.app import PaperApp
from local.paper.loop import LastAlive, PaperLoop
from local.paper.mailbox import Mailbox
from local.replay.driver import duplicates
from tests.e2e.conftest import FIRST, App

SECOND = "2020-08-27"


@dataclass
class MovedClock:
    """The exchange's, which waiting moves."""

    app: App
    time: datetime

    def now(self) -> datetime:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        self.app.exchange.advance(self.time)


def test_a_slot_is_traded_when_it_comes_and_not_when_it_was_slept_through(market: Callable[[str], App], tmp_path: Path) -> None:
    begins = datetime.fromisoformat(f"{FIRST}T13:34:00Z")
    app = market(begins.isoformat())
    clock = MovedClock(app, begins)
    paper = PaperApp(app.deployment, broker=paper_account(key_id="local-key", secret_key="local-secret", url=app.exchange.url))
    said: list[str] = []
    mailbox = Mailbox(tmp_path / "mail")
    mailbox.keep(paper.published(), time="")  # of the tests before
    before = len(list((tmp_path / "mail").iterdir()))

    def started(name: str) -> PaperLoop:
        alive = LastAlive(tmp_path / name)
        loop = PaperLoop(cloud=paper, clock=clock, schedules=paper.schedules(), alive=alive, mailbox=mailbox, say=said.append)
        loop.start()
        return loop

    loop = started("first.json")
    while clock.time < begins + timedelta(minutes=2):
        loop.step()
    assert f"Wed {FIRST} 09:35 New York decide: decided, accepted, 8 orders" in said
    books = app.exchange.books()
    assert ([order["status"] for order in books["orders"]], duplicates(books)) == (["filled"] * 8, 0)
    assert {fill["at"][:16] for fill in books["fills"]} == {f"{FIRST}T13:35"}
    recorded = {order.client_order_id: order.filled_quantity for order in app.deployment.ledger.orders(FIRST[:7])}
    assert {order["client_order_id"]: float(order["filled_qty"]) for order in books["orders"]} == {k: float(v) for k, v in recorded.items()}

    clock.time = datetime.fromisoformat(f"{FIRST}T20:04:45Z")
    loop.step()
    while clock.time < datetime.fromisoformat(f"{FIRST}T20:06:00Z"):
        loop.step()
    snapshot = app.deployment.ledger.snapshot(FIRST)
    assert snapshot is not None
    assert f"{snapshot.cash:f}" == books["cash"]

    clock.time = datetime.fromisoformat(f"{SECOND}T13:30:00Z")
    app.exchange.advance(clock.time)
    loop = started("second.json")
    clock.time = datetime.fromisoformat(f"{SECOND}T14:05:30Z")  # the lid was closed
    loop.step()
    assert f"slot {SECOND}/open+5 at Thu {SECOND} 09:35 New York was missed and is not traded late" in said
    assert len(app.exchange.books()["orders"]) == 8
    mails = sorted((tmp_path / "mail").iterdir())[before:]
    assert any(file.name.endswith("-papertape-slot-2020-08-27-open-5-missed.txt") for file in mails), mails
