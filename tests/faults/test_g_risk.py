"""G. Risk and the kill switch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from lambdas.common.lake import lake as lakes
from lambdas.common.telemetry import metrics
from lambdas.control.handler import handler as control
from lambdas.health import handler as watching
from schema.exchange_time import iso
from schema.settings import SETTINGS_FILE
from tests.faults.agent import Agent
from tests.faults.desk import CLOSE, SLOT, Floor, decision, house_settings, with_risk
from tests.faults.edges import LEDGER
from tests.settings_files import settings_file

Open = Callable[..., Floor]
LEASE_OVER = timedelta(seconds=61)
NEXT_SLOT = SLOT + timedelta(days=1)
NEXT = {"session": "2020-01-03", "as_of": "2020-01-02"}
SWAP = {"SPY": 0.1, "AAPL": 0.3, "IBM": 0.5}


def halt(floor: Floor, state: str = "halted") -> Callable[[], None]:
    def said() -> None:
        floor.story.append(f"{state} by a person")
        floor.ledger.set_trading_state(state, reason="a person", time=iso(floor.venue.now), by="a person")  # type: ignore[arg-type]

    return said


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, Any], dict[str, Any]]:
    """The control function, called as API Gateway calls it."""
    monkeypatch.setenv("LEDGER_TABLE", "faults")

    def call(method: str, path: str, body: Any) -> dict[str, Any]:
        request = {
            "stage": "v1",
            "requestId": "r",
            "requestTimeEpoch": 1577975700000,
            "identity": {"userArn": "arn:aws:iam::0:user/person"},
        }
        event = {
            "resource": path, "path": path, "httpMethod": method, "headers": {"Content-Type": "application/json"}, "multiValueHeaders": {},
            "queryStringParameters": None, "multiValueQueryStringParameters": None, "pathParameters": None, "stageVariables": None,
            "requestContext": request, "body": None if body is None else json.dumps(body), "isBase64Encoded": False,
        }  # fmt: skip
        answer = control(event, SimpleNamespace(aws_request_id="r", function_name="f", memory_limit_in_mb=1, invoked_function_arn="a"))
        assert answer["statusCode"] == 200, answer
        found: dict[str, Any] = json.loads(answer["body"])
        return found

    return call


@pytest.mark.parametrize(
    ("call", "sent"), [("ledger write order pending", 1), ("POST /v2/orders", 2)], ids=["before the check", "after it"]
)
def test_g1_a_halt_in_the_middle_of_a_batch(floor: Floor, call: str, sent: int) -> None:
    """A person halts trading while the second order of three is on its way, before its own check or after it."""
    floor.interrupt(call, halt(floor), nth=2)
    answer = floor.accept()
    assert answer is not None
    assert (answer.status, answer.body["verdict"]) == (200, "halted")
    assert floor.ours_accepted == sent
    assert [order.risk for order in floor.orders() if order.status == "refused"] == ["trading_state"] * (3 - sent)
    floor.settle()
    floor.agrees()


def test_g2_halted(floor: Floor) -> None:
    """Halted with an open order: decisions, a person's orders and second attempts are denied; the open order can be cancelled."""
    floor.misbehave(partial_fill={"rate": 1, "expires": 1})
    floor.order("before", "SPY", "buy", "10")
    halt(floor)()
    decided, manual = floor.accept(), floor.order("after", "SPY", "sell", "1")
    assert decided is not None
    assert manual is not None
    assert (decided.status, manual.status) == (423, 423)
    (waiting,) = floor.ledger.unsettled_orders()
    cancelled = floor.cancel(waiting.client_order_id)
    assert cancelled is not None
    assert cancelled.body["status"] == "canceled"
    floor.settle()
    assert floor.ours_accepted == 1
    floor.agrees()


def test_g3_reduce_only(floor: Floor) -> None:
    """Only sells pass: of a decision that sells SPY to buy IBM the sell is sent, the buy refused."""
    floor.accept()
    floor.advance(NEXT_SLOT)
    halt(floor, "reduce_only")()
    answer = floor.accept(decision(**NEXT, weights=SWAP))
    assert answer is not None
    assert {order["side"]: order["status"] for order in answer.body["orders"]} == {"sell": "filled", "buy": "refused"}
    assert {post["side"] for post in floor.edges.posts[3:]} == {"sell"}
    floor.settle()
    floor.agrees()


def test_g4_flatten_twice(floor: Floor) -> None:
    """Everything is sold; a second flatten finds nothing; and a decision cannot buy any more."""
    floor.accept()
    first, second = floor.flatten(), floor.flatten()
    assert first is not None
    assert second is not None
    assert floor.held == {}
    assert (first.body["verdict"], second.body["reason"]) == ("accepted", "nothing is held")
    floor.advance(NEXT_SLOT)
    floor.accept(decision(**NEXT))
    assert floor.held == {}
    assert floor.ours_accepted == 6
    floor.agrees()


def test_g4_flatten_twice_at_once(open_floor: Open) -> None:
    """Two flattens at the same time, in six orders of their calls: each holding is sold once."""
    for seed in range(6):
        floor = open_floor()
        floor.accept()
        answers = floor.together(floor.flatten, floor.flatten, seed=seed)
        assert {answer.status for answer in answers} <= {200, 202}
        floor.settle()
        assert floor.held == {}
        assert floor.ours_accepted == 6
        floor.agrees()


def test_g4_flatten_while_orders_are_open(floor: Floor) -> None:
    """Half of each buy is still open: cancelled, waited for, and what was bought is sold."""
    floor.misbehave(partial_fill={"rate": 1, "expires": 1})
    floor.accept()
    floor.calm()
    answer = floor.flatten()
    assert answer is not None
    assert floor.held == {}
    assert floor.book.open_orders == []
    floor.settle()
    assert sorted(floor.statuses()) == ["canceled"] * 3 + ["filled"] * 3
    floor.agrees()


def test_g4_flatten_in_parts(floor: Floor) -> None:
    """Each sell of the flatten fills in part, and the rest minutes later: it is continued, never doubled."""
    floor.accept()
    floor.misbehave(partial_fill={"rate": 1, "expires": 0})
    first = floor.flatten()
    assert first is not None
    assert first.status == 202
    floor.flatten()
    floor.settle()
    assert floor.held == {}
    assert floor.ours_accepted == 6
    floor.agrees()


def buys_of(floor: Floor) -> list[dict[str, Any]]:
    return [post for post in floor.edges.posts if post["side"] == "buy"]


def test_g4_flatten_when_the_market_is_closed(floor: Floor) -> None:
    """In the evening nothing can be sold: it says so, and waits; asked again it is the same; nothing is bought over night, and reconcile
    sells in the morning, a minute after the open, once."""
    floor.accept(decision(weights={"SPY": 0.4, "IBM": 0.4}))
    floor.advance(CLOSE + timedelta(hours=1))
    answers = [floor.flatten(), floor.flatten("again")]
    for answer in answers:
        assert answer is not None
        assert (answer.status, answer.body["decision_id"]) == (202, "flatten:2020-01-03#1")
        assert (answer.body["verdict"], answer.body["state"]) == ("accepted", "working")
        assert "the market is closed" in answer.body["reason"]
        assert "sells from 2020-01-03T14:31:00Z on" in answer.body["reason"]
    assert floor.ledger.trading_state().state == "reduce_only"
    for early in ("2020-01-02T23:00:00+00:00", "2020-01-03T14:29:00+00:00", "2020-01-03T14:30:05+00:00"):
        floor.advance(early)
        floor.reconcile()
        assert len(floor.edges.posts) == 2, f"nothing is sent at {early}"
    floor.advance("2020-01-03T14:35:00+00:00")
    floor.settle()
    assert floor.held == {}
    bought = floor.accept(decision(**NEXT))
    assert bought is not None
    assert bought.body["verdict"] == "halted"
    again = floor.flatten()
    assert again is not None
    assert again.body["reason"] == "nothing is held"
    assert len(buys_of(floor)) == 2
    assert floor.ours_accepted == 4
    assert "not-flattened" not in floor.alerts()
    floor.agrees()


def test_g4_flatten_in_the_last_minute(open_floor: Open) -> None:
    """Half a minute before the close a sell might arrive after it: it waits for the next session; a split of the night is sold whole."""
    floor = open_floor(now=datetime(2020, 8, 28, 13, 35, tzinfo=UTC))
    floor.accept(decision(session="2020-08-28", as_of="2020-08-27", weights={"AAPL": 0.5}))
    (held,) = floor.held.values()
    floor.advance("2020-08-28T19:59:30+00:00")
    answer = floor.flatten()
    assert answer is not None
    assert (answer.status, answer.body["decision_id"]) == (202, "flatten:2020-08-31#1")
    floor.advance("2020-08-28T20:05:00+00:00")
    floor.reconcile()
    floor.advance("2020-08-31T13:35:00+00:00")
    floor.settle()
    assert [order.quantity for order in floor.orders() if order.side == "sell"] == [4 * held]
    assert floor.held == {}


def test_g4_a_flatten_that_waits_and_a_person_who_resumes(floor: Floor) -> None:
    """Asked for in the evening and taken back before the open, by resuming: nothing is sold, and that is told."""
    floor.accept(decision(weights={"SPY": 0.4}))
    held = floor.held
    floor.advance(CLOSE + timedelta(hours=1))
    floor.flatten()
    halt(floor, "active")()
    floor.advance(NEXT_SLOT)
    floor.settle()
    assert floor.held == held
    assert "not-flattened" in floor.alerts()
    floor.agrees()


@pytest.mark.rehearse
def test_g4_a_flatten_that_waits_dies_at_each_of_its_calls(open_floor: Open) -> None:
    """Asked for in the evening; in the morning reconcile is killed at its first call, its second, and so on, and goes on: sold once."""

    def asked() -> Floor:
        floor = open_floor()
        floor.accept(decision(weights={"SPY": 0.4, "IBM": 0.4}))
        floor.advance(CLOSE + timedelta(minutes=5))
        floor.reconcile()
        floor.flatten()
        floor.advance(NEXT_SLOT)
        return floor

    floor = asked()
    floor.reconcile()
    for number in range(0, len(floor.lives[-1].calls), 2):
        floor = asked()
        floor.kill("", nth=number + 1, after=bool(number % 4))
        floor.reconcile()
        floor.advance(LEASE_OVER)
        floor.settle()
        assert floor.held == {}, f"killed at call {number + 1}"
        assert floor.ours_accepted == 4
        floor.agrees()


def test_g4_flatten_when_trading_stops_for_everybody(floor: Floor) -> None:
    """The exchange is closed in the middle of the session, unscheduled: the flatten waits, and sells when it is open again."""
    floor.accept(decision(weights={"SPY": 0.4}))
    floor.retell("GET /v2/clock", lambda told: {**told, "is_open": False})
    answer = floor.flatten()
    assert answer is not None
    assert (answer.status, answer.body["decision_id"]) == (202, "flatten:2020-01-02#1")
    floor.reconcile()
    assert len(floor.edges.posts) == 1
    floor.calm()
    floor.advance(timedelta(minutes=20))
    floor.settle()
    assert floor.held == {}
    floor.agrees()


def test_g4_flatten_of_what_the_broker_does_not_take(floor: Floor) -> None:
    """The broker has halted IBM and refuses to sell it: the other name is sold, and what is left is told."""
    floor.accept(decision(weights={"SPY": 0.4, "IBM": 0.4}))
    floor.misbehave(halted_asset={"symbols": ["IBM"]})
    answer = floor.flatten()
    assert answer is not None
    assert answer.body["verdict"] == "partial"
    assert list(floor.held) == ["IBM"]
    assert floor.alerts() == ["not-flattened"]
    floor.agrees()


@pytest.mark.rehearse
def test_g4_flatten_dies_at_each_of_its_calls(open_floor: Open) -> None:
    """The flatten is killed at its first call, its second, and so on to its last; the person repeats it, reconcile goes on."""
    calls = _calls_of(open_floor, "flatten")
    for number in range(0, calls, 2):
        floor = open_floor()
        floor.accept(decision(weights={"SPY": 0.4, "IBM": 0.4}))
        floor.kill("", nth=number + 1, after=bool(number % 4))
        floor.flatten()
        floor.flatten()
        floor.advance(LEASE_OVER)
        floor.flatten()
        floor.settle()
        assert floor.held == {}, f"killed at call {number + 1}"
        assert floor.ours_accepted == 4
        floor.agrees()


def _calls_of(open_floor: Open, name: str) -> int:
    floor = open_floor()
    floor.accept(decision(weights={"SPY": 0.4, "IBM": 0.4}))
    floor.flatten()
    return len(floor.lives[-1].calls)


def test_g5_a_ledger_that_cannot_be_reached(open_floor: Open) -> None:
    """From its first call to the ledger on, its second, and so on, none is answered: no further order goes out; back again, all is
    finished."""
    floor = open_floor()
    floor.accept()
    calls = sum(call.startswith(LEDGER) for call in floor.lives[-1].calls)
    for number in range(1, calls + 1):
        floor = open_floor()
        sent: list[int] = []

        def gone(floor: Floor = floor, sent: list[int] = sent) -> None:
            floor.story.append("the ledger is gone")
            floor.edges.unreachable = True
            sent.append(len(floor.edges.posts))

        floor.interrupt(LEDGER, gone, nth=number)
        floor.accept()
        assert sent == [len(floor.edges.posts)], f"nothing is sent after call {number}"
        floor.edges.unreachable = False
        floor.advance(LEASE_OVER)
        floor.accept()
        floor.settle()
        assert floor.ours_accepted == 3
        floor.agrees()


def test_g6_a_withdrawal(floor: Floor) -> None:
    """Three fifths of the cash leave the account: both breakers trip on the broker's equity, nothing is bought until a person has
    looked."""
    floor.accept(decision(weights={"SPY": 0.2}))
    floor.advance(CLOSE + timedelta(minutes=5))
    floor.settle()
    floor.reconcile()
    floor.book.cash -= 60_000
    floor.venue.initial_cash -= 60_000
    floor.advance(NEXT_SLOT)
    answer = floor.accept(decision(**NEXT, weights={"SPY": 0.6, "IBM": 0.3}))
    assert answer is not None
    assert {order["risk"] for order in answer.body["orders"] if order["side"] == "buy"} == {"breaker"}
    assert set(floor.ledger.breakers().tripped) == {"max_drawdown", "max_daily_loss"}
    assert set(floor.alerts()) == {"max_drawdown", "max_daily_loss"}
    floor.agrees()


def test_g6_a_deposit(floor: Floor) -> None:
    """Half as much again comes into the account over night: no breaker trips, and the next decision invests it."""
    floor.accept()
    floor.advance(CLOSE + timedelta(minutes=5))
    floor.reconcile()
    floor.book.cash += 50_000
    floor.venue.initial_cash += 50_000
    floor.advance(NEXT_SLOT)
    answer = floor.accept(decision(**NEXT))
    assert answer is not None
    assert answer.body["verdict"] == "accepted"
    floor.advance("2020-01-03T21:05:00+00:00")
    floor.reconcile()
    assert floor.ledger.breakers().tripped == {}
    assert floor.ledger.breakers().peak_equity > 145_000
    assert floor.alerts() == []
    floor.agrees()


def test_g6_a_reset_of_the_paper_account(floor: Floor) -> None:
    """The account is reset over night to its first cash under another id: its equity is not the old one's, and nothing is sent."""
    floor.misbehave(account_reset={"at": "2020-01-02T23:00:00Z"})
    floor.accept()
    floor.advance(CLOSE + timedelta(minutes=5))
    floor.reconcile()
    floor.advance(NEXT_SLOT)
    answer = floor.accept(decision(**NEXT))
    assert answer is not None
    assert {order["risk"] for order in answer.body["orders"]} == {"account_pin"}
    assert floor.ours_accepted == 3


@pytest.mark.parametrize(
    ("limits", "weights", "rule"),
    [
        ({"max_weight": 0.3}, {"SPY": 0.31}, "max_weight"),
        ({"max_gross": 0.5}, {"SPY": 0.6}, "max_gross"),
        ({"max_order_notional": 9_000.0}, {"SPY": 0.1}, "order_notional"),
        ({"max_turnover_per_day": 0.1}, {"SPY": 0.2}, "turnover_per_day"),
        ({"restricted": ("SPY",)}, {"SPY": 0.2}, "restricted"),
        ({"max_bar_age_sessions": 1}, {"SPY": 0.2}, "stale_data"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_g7_each_limit(open_floor: Open, limits: dict[str, Any], weights: dict[str, float], rule: str) -> None:
    """One order beyond one limit: refused by that rule and by no other."""
    floor = open_floor(settings=with_risk(house_settings(), **limits))
    answer = floor.accept(decision(weights=weights, as_of="2019-12-26" if rule == "stale_data" else "2019-12-31"))
    assert answer is not None
    assert [order["risk"] for order in answer.body["orders"]] == [rule]
    assert floor.ours_accepted == 0


def test_g7_orders_a_day(open_floor: Open) -> None:
    """Two orders per day are allowed, three are planned."""
    floor = open_floor(settings=with_risk(house_settings(), max_orders_per_day=2))
    answer = floor.accept()
    assert answer is not None
    assert (answer.body["verdict"], floor.ours_accepted) == ("partial", 2)
    assert [order.risk for order in floor.orders() if order.status == "refused"] == ["orders_per_day"]


@pytest.mark.parametrize("what", ["account", "trades", "quotes", "positions"])
def test_g7_nan_passes_nowhere(floor: Floor, what: str) -> None:
    """The broker says NaN: for its cash, its last trades, its quotes, or what is held."""
    nan = float("nan")
    change: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "account": ("GET /v2/account", lambda told: {**told, "cash": "NaN", "equity": "NaN"}),
        "trades": ("GET /v2/stocks/trades", lambda told: {"trades": {name: {**row, "p": nan} for name, row in told["trades"].items()}}),
        "quotes": ("GET /v2/stocks/quotes", lambda told: {"quotes": {name: {**row, "bp": nan} for name, row in told["quotes"].items()}}),
        "positions": ("GET /v2/positions", lambda told: [{**row, "qty": "NaN"} for row in told]),
    }
    floor.accept(decision(weights={"SPY": 0.3}))
    floor.advance(NEXT_SLOT)
    floor.retell(*change[what])
    answer = floor.accept(decision(**NEXT, weights={"SPY": 0.5, "IBM": 0.2}))
    assert answer is not None
    assert len(floor.edges.posts) == 1
    floor.calm()
    floor.settle()
    floor.agrees()


def test_g7_the_price_collar(floor: Floor) -> None:
    """SPY's quote lies eleven percent above its last trade: no order is sized by it."""

    def stubbed(told: Any) -> Any:
        spy = told["quotes"]["SPY"]
        return {"quotes": {**told["quotes"], "SPY": {**spy, "bp": spy["bp"] * 1.11, "ap": spy["ap"] * 1.11}}}

    floor.retell("GET /v2/stocks/quotes", stubbed)
    answer = floor.accept()
    assert answer is not None
    assert "within 0.1 of the last trade" in answer.body["refused"]["SPY"]
    assert floor.ours_accepted == 2


def test_g8_a_breaker_latches_until_a_person_rearms_it(floor: Floor, gateway: Callable[[str, str, Any], dict[str, Any]]) -> None:
    """A loss trips a breaker; the equity comes back, the breaker stays; a person sets the state to active, with a reason that is kept."""
    floor.accept(decision(weights={"SPY": 0.2}))
    floor.advance(CLOSE + timedelta(minutes=5))
    floor.reconcile()
    for change in (-60_000, 60_000):
        floor.book.cash += change
        floor.venue.initial_cash += change
        floor.advance(max(floor.venue.now, NEXT_SLOT))
        floor.reconcile()
    assert "max_drawdown" in floor.ledger.breakers().tripped
    refused = floor.order("k1", "IBM", "buy", "1")
    assert refused is not None
    assert refused.body["orders"][0]["risk"] == "breaker"
    gateway("PUT", "/trading-state", {"state": "active", "reason": "a withdrawal, put back"})
    assert floor.ledger.breakers().tripped == {}
    (audited,) = floor.ledger.state_changes("2020-01")
    assert (audited.reason, audited.by) == ("a withdrawal, put back", "arn:aws:iam::0:user/person")
    again = floor.order("k2", "IBM", "buy", "1")
    assert again is not None
    assert again.statuses == ["filled"]
    floor.agrees()


@pytest.fixture
def mails(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """The alert topic with a queue on it: the mails so far."""
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    topic, queue = sns.create_topic(Name="alerts")["TopicArn"], sqs.create_queue(QueueName="mails")["QueueUrl"]
    address = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=address)
    variables = {"RAW_BUCKET": agent.raw, "PROCESSED_BUCKET": agent.audit, "ALERT_TOPIC_ARN": topic, "LEDGER_TABLE": "faults"}
    variables |= {SETTINGS_FILE: settings_file(house_settings())}
    monkeypatch.setattr(metrics.provider, "namespace", "Papertape")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    lakes.lake.cache_clear()
    yield lambda: int(sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]["ApproximateNumberOfMessages"])
    lakes.lake.cache_clear()


@pytest.fixture
def agent(floor: Floor) -> Agent:
    return Agent(floor)


def test_g9_the_alarm_path_itself(floor: Floor, mails: Callable[[], int]) -> None:
    """The topic refuses health's mail: the function fails, for its own alarm and queue; nothing is marked as told, and the next run
    tells it."""
    halt(floor)()
    event = {"schedule": "health", "time": "2020-01-02T16:00:00Z"}
    floor.edges.failing = "sns."
    with pytest.raises(Exception, match="Publish"):
        floor.live("health", lambda _desk: watching.handler(event, None), None, seconds=120)
    assert mails() == 0
    floor.edges.failing = ""
    told = watching.handler(event, None)
    assert "not-active" in told["mailed"]
    assert mails() == 1
    assert watching.handler(event, None)["mailed"] == []
    assert mails() == 1
