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
from tests.faults.edges import LEDGER
from tests.faults.simulation import CLOSE, SLOT, Simulation, decision, three_name_settings, with_risk
from tests.settings_files import settings_file

Open = Callable[..., Simulation]
LEASE_OVER = timedelta(seconds=61)
NEXT_SLOT = SLOT + timedelta(days=1)
NEXT = {"session": "2020-01-03", "as_of": "2020-01-02"}
SWAP = {"SPY": 0.1, "AAPL": 0.3, "IBM": 0.5}


def halt(simulation: Simulation, state: str = "halted") -> Callable[[], None]:
    def said() -> None:
        simulation.story.append(f"{state} by a person")
        simulation.ledger.set_trading_state(state, reason="a person", time=iso(simulation.venue.now), by="a person")  # type: ignore[arg-type]

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
def test_g1_a_halt_in_the_middle_of_a_batch(simulation: Simulation, call: str, sent: int) -> None:
    """A person halts trading while the second order of three is on its way, before its own check or after it."""
    simulation.interrupt(call, halt(simulation), nth=2)
    answer = simulation.accept()
    assert answer is not None
    assert (answer.status, answer.body["verdict"]) == (200, "halted")
    assert simulation.ours_accepted == sent
    assert [order.risk for order in simulation.orders() if order.status == "refused"] == ["trading_state"] * (3 - sent)
    simulation.end_orders()
    simulation.agrees()


def test_g2_halted(simulation: Simulation) -> None:
    """Halted with an open order: decisions, a person's orders and second attempts are denied; the open order can be cancelled."""
    simulation.misbehave(partial_fill={"rate": 1, "expires": 1})
    simulation.order("before", "SPY", "buy", "10")
    halt(simulation)()
    decided, manual = simulation.accept(), simulation.order("after", "SPY", "sell", "1")
    assert decided is not None
    assert manual is not None
    assert (decided.status, manual.status) == (423, 423)
    (waiting,) = simulation.ledger.unsettled_orders()
    cancelled = simulation.cancel(waiting.client_order_id)
    assert cancelled is not None
    assert cancelled.body["status"] == "canceled"
    simulation.end_orders()
    assert simulation.ours_accepted == 1
    simulation.agrees()


def test_g3_reduce_only(simulation: Simulation) -> None:
    """Only sells pass: of a decision that sells SPY to buy IBM the sell is sent, the buy refused."""
    simulation.accept()
    simulation.advance(NEXT_SLOT)
    halt(simulation, "reduce_only")()
    answer = simulation.accept(decision(**NEXT, weights=SWAP))
    assert answer is not None
    assert {order["side"]: order["status"] for order in answer.body["orders"]} == {"sell": "filled", "buy": "refused"}
    assert {post["side"] for post in simulation.edges.posts[3:]} == {"sell"}
    simulation.end_orders()
    simulation.agrees()


def test_g4_flatten_twice(simulation: Simulation) -> None:
    """Everything is sold; a second flatten finds nothing; and a decision cannot buy any more."""
    simulation.accept()
    first, second = simulation.flatten(), simulation.flatten()
    assert first is not None
    assert second is not None
    assert simulation.held == {}
    assert (first.body["verdict"], second.body["reason"]) == ("accepted", "nothing is held")
    simulation.advance(NEXT_SLOT)
    simulation.accept(decision(**NEXT))
    assert simulation.held == {}
    assert simulation.ours_accepted == 6
    simulation.agrees()


def test_g4_flatten_twice_at_once(opened: Open) -> None:
    """Two flattens at the same time, in six orders of their calls: each holding is sold once."""
    for seed in range(6):
        simulation = opened()
        simulation.accept()
        answers = simulation.together(simulation.flatten, simulation.flatten, seed=seed)
        assert {answer.status for answer in answers} <= {200, 202}
        simulation.end_orders()
        assert simulation.held == {}
        assert simulation.ours_accepted == 6
        simulation.agrees()


def test_g4_flatten_while_orders_are_open(simulation: Simulation) -> None:
    """Half of each buy is still open: cancelled, waited for, and what was bought is sold."""
    simulation.misbehave(partial_fill={"rate": 1, "expires": 1})
    simulation.accept()
    simulation.calm()
    answer = simulation.flatten()
    assert answer is not None
    assert simulation.held == {}
    assert simulation.book.open_orders == []
    simulation.end_orders()
    assert sorted(simulation.statuses()) == ["canceled"] * 3 + ["filled"] * 3
    simulation.agrees()


def test_g4_flatten_in_parts(simulation: Simulation) -> None:
    """Each sell of the flatten fills in part, and the rest minutes later: it is continued, never doubled."""
    simulation.accept()
    simulation.misbehave(partial_fill={"rate": 1, "expires": 0})
    first = simulation.flatten()
    assert first is not None
    assert first.status == 202
    simulation.flatten()
    simulation.end_orders()
    assert simulation.held == {}
    assert simulation.ours_accepted == 6
    simulation.agrees()


def buys_of(simulation: Simulation) -> list[dict[str, Any]]:
    return [post for post in simulation.edges.posts if post["side"] == "buy"]


def test_g4_flatten_when_the_market_is_closed(simulation: Simulation) -> None:
    """In the evening nothing can be sold: it says so, and waits; asked again it is the same; nothing is bought over night, and reconcile
    sells in the morning, a minute after the open, once."""
    simulation.accept(decision(weights={"SPY": 0.4, "IBM": 0.4}))
    simulation.advance(CLOSE + timedelta(hours=1))
    answers = [simulation.flatten(), simulation.flatten("again")]
    for answer in answers:
        assert answer is not None
        assert (answer.status, answer.body["decision_id"]) == (202, "flatten:2020-01-03#1")
        assert (answer.body["verdict"], answer.body["state"]) == ("accepted", "working")
        assert "the market is closed" in answer.body["reason"]
        assert "sells from 2020-01-03T14:31:00Z on" in answer.body["reason"]
    assert simulation.ledger.trading_state().state == "reduce_only"
    for early in ("2020-01-02T23:00:00+00:00", "2020-01-03T14:29:00+00:00", "2020-01-03T14:30:05+00:00"):
        simulation.advance(early)
        simulation.reconcile()
        assert len(simulation.edges.posts) == 2, f"nothing is sent at {early}"
    simulation.advance("2020-01-03T14:35:00+00:00")
    simulation.end_orders()
    assert simulation.held == {}
    bought = simulation.accept(decision(**NEXT))
    assert bought is not None
    assert bought.body["verdict"] == "halted"
    again = simulation.flatten()
    assert again is not None
    assert again.body["reason"] == "nothing is held"
    assert len(buys_of(simulation)) == 2
    assert simulation.ours_accepted == 4
    assert "not-flattened" not in simulation.alerts()
    simulation.agrees()


def test_g4_flatten_in_the_last_minute(opened: Open) -> None:
    """Half a minute before the close a sell might arrive after it: it waits for the next session; a split of the night is sold whole."""
    simulation = opened(now=datetime(2020, 8, 28, 13, 35, tzinfo=UTC))
    simulation.accept(decision(session="2020-08-28", as_of="2020-08-27", weights={"AAPL": 0.5}))
    (held,) = simulation.held.values()
    simulation.advance("2020-08-28T19:59:30+00:00")
    answer = simulation.flatten()
    assert answer is not None
    assert (answer.status, answer.body["decision_id"]) == (202, "flatten:2020-08-31#1")
    simulation.advance("2020-08-28T20:05:00+00:00")
    simulation.reconcile()
    simulation.advance("2020-08-31T13:35:00+00:00")
    simulation.end_orders()
    assert [order.quantity for order in simulation.orders() if order.side == "sell"] == [4 * held]
    assert simulation.held == {}


def test_g4_a_flatten_that_waits_and_a_person_who_resumes(simulation: Simulation) -> None:
    """Asked for in the evening and taken back before the open, by resuming: nothing is sold, and that is told."""
    simulation.accept(decision(weights={"SPY": 0.4}))
    held = simulation.held
    simulation.advance(CLOSE + timedelta(hours=1))
    simulation.flatten()
    halt(simulation, "active")()
    simulation.advance(NEXT_SLOT)
    simulation.end_orders()
    assert simulation.held == held
    assert "not-flattened" in simulation.alerts()
    simulation.agrees()


@pytest.mark.rehearse
def test_g4_a_flatten_that_waits_dies_at_each_of_its_calls(opened: Open) -> None:
    """Asked for in the evening; in the morning reconcile is killed at its first call, its second, and so on, and goes on: sold once."""

    def asked() -> Simulation:
        simulation = opened()
        simulation.accept(decision(weights={"SPY": 0.4, "IBM": 0.4}))
        simulation.advance(CLOSE + timedelta(minutes=5))
        simulation.reconcile()
        simulation.flatten()
        simulation.advance(NEXT_SLOT)
        return simulation

    simulation = asked()
    simulation.reconcile()
    for number in range(0, len(simulation.lives[-1].calls), 2):
        simulation = asked()
        simulation.kill("", nth=number + 1, after=bool(number % 4))
        simulation.reconcile()
        simulation.advance(LEASE_OVER)
        simulation.end_orders()
        assert simulation.held == {}, f"killed at call {number + 1}"
        assert simulation.ours_accepted == 4
        simulation.agrees()


def test_g4_flatten_when_trading_stops_for_everybody(simulation: Simulation) -> None:
    """The exchange is closed in the middle of the session, unscheduled: the flatten waits, and sells when it is open again."""
    simulation.accept(decision(weights={"SPY": 0.4}))
    simulation.retell("GET /v2/clock", lambda told: {**told, "is_open": False})
    answer = simulation.flatten()
    assert answer is not None
    assert (answer.status, answer.body["decision_id"]) == (202, "flatten:2020-01-02#1")
    simulation.reconcile()
    assert len(simulation.edges.posts) == 1
    simulation.calm()
    simulation.advance(timedelta(minutes=20))
    simulation.end_orders()
    assert simulation.held == {}
    simulation.agrees()


def test_g4_flatten_of_what_the_broker_does_not_take(simulation: Simulation) -> None:
    """The broker has halted IBM and refuses to sell it: the other name is sold, and what is left is told."""
    simulation.accept(decision(weights={"SPY": 0.4, "IBM": 0.4}))
    simulation.misbehave(halted_asset={"symbols": ["IBM"]})
    answer = simulation.flatten()
    assert answer is not None
    assert answer.body["verdict"] == "partial"
    assert list(simulation.held) == ["IBM"]
    assert simulation.alerts() == ["not-flattened"]
    simulation.agrees()


@pytest.mark.rehearse
def test_g4_flatten_dies_at_each_of_its_calls(opened: Open) -> None:
    """The flatten is killed at its first call, its second, and so on to its last; the person repeats it, reconcile goes on."""
    calls = _calls_of(opened, "flatten")
    for number in range(0, calls, 2):
        simulation = opened()
        simulation.accept(decision(weights={"SPY": 0.4, "IBM": 0.4}))
        simulation.kill("", nth=number + 1, after=bool(number % 4))
        simulation.flatten()
        simulation.flatten()
        simulation.advance(LEASE_OVER)
        simulation.flatten()
        simulation.end_orders()
        assert simulation.held == {}, f"killed at call {number + 1}"
        assert simulation.ours_accepted == 4
        simulation.agrees()


def _calls_of(opened: Open, name: str) -> int:
    simulation = opened()
    simulation.accept(decision(weights={"SPY": 0.4, "IBM": 0.4}))
    simulation.flatten()
    return len(simulation.lives[-1].calls)


def test_g5_a_ledger_that_cannot_be_reached(opened: Open) -> None:
    """From its first call to the ledger on, its second, and so on, none is answered: no further order goes out; back again, all is
    finished."""
    simulation = opened()
    simulation.accept()
    calls = sum(call.startswith(LEDGER) for call in simulation.lives[-1].calls)
    for number in range(1, calls + 1):
        simulation = opened()
        sent: list[int] = []

        def gone(simulation: Simulation = simulation, sent: list[int] = sent) -> None:
            simulation.story.append("the ledger is gone")
            simulation.edges.unreachable = True
            sent.append(len(simulation.edges.posts))

        simulation.interrupt(LEDGER, gone, nth=number)
        simulation.accept()
        assert sent == [len(simulation.edges.posts)], f"nothing is sent after call {number}"
        simulation.edges.unreachable = False
        simulation.advance(LEASE_OVER)
        simulation.accept()
        simulation.end_orders()
        assert simulation.ours_accepted == 3
        simulation.agrees()


def test_g6_a_withdrawal(simulation: Simulation) -> None:
    """Three fifths of the cash leave the account: both breakers trip on the broker's equity, nothing is bought until a person has
    looked."""
    simulation.accept(decision(weights={"SPY": 0.2}))
    simulation.advance(CLOSE + timedelta(minutes=5))
    simulation.end_orders()
    simulation.reconcile()
    simulation.book.cash -= 60_000
    simulation.venue.initial_cash -= 60_000
    simulation.advance(NEXT_SLOT)
    answer = simulation.accept(decision(**NEXT, weights={"SPY": 0.6, "IBM": 0.3}))
    assert answer is not None
    assert {order["risk"] for order in answer.body["orders"] if order["side"] == "buy"} == {"breaker"}
    assert set(simulation.ledger.breakers().tripped) == {"max_drawdown", "max_daily_loss"}
    assert set(simulation.alerts()) == {"max_drawdown", "max_daily_loss"}
    simulation.agrees()


def test_g6_a_deposit(simulation: Simulation) -> None:
    """Half as much again comes into the account over night: no breaker trips, and the next decision invests it."""
    simulation.accept()
    simulation.advance(CLOSE + timedelta(minutes=5))
    simulation.reconcile()
    simulation.book.cash += 50_000
    simulation.venue.initial_cash += 50_000
    simulation.advance(NEXT_SLOT)
    answer = simulation.accept(decision(**NEXT))
    assert answer is not None
    assert answer.body["verdict"] == "accepted"
    simulation.advance("2020-01-03T21:05:00+00:00")
    simulation.reconcile()
    assert simulation.ledger.breakers().tripped == {}
    assert simulation.ledger.breakers().peak_equity > 145_000
    assert simulation.alerts() == []
    simulation.agrees()


def test_g6_a_reset_of_the_paper_account(simulation: Simulation) -> None:
    """The account is reset over night to its first cash under another id: its equity is not the old one's, and nothing is sent."""
    simulation.misbehave(account_reset={"at": "2020-01-02T23:00:00Z"})
    simulation.accept()
    simulation.advance(CLOSE + timedelta(minutes=5))
    simulation.reconcile()
    simulation.advance(NEXT_SLOT)
    answer = simulation.accept(decision(**NEXT))
    assert answer is not None
    assert {order["risk"] for order in answer.body["orders"]} == {"account_pin"}
    assert simulation.ours_accepted == 3


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
def test_g7_each_limit(opened: Open, limits: dict[str, Any], weights: dict[str, float], rule: str) -> None:
    """One order beyond one limit: refused by that rule and by no other."""
    simulation = opened(settings=with_risk(three_name_settings(), **limits))
    answer = simulation.accept(decision(weights=weights, as_of="2019-12-26" if rule == "stale_data" else "2019-12-31"))
    assert answer is not None
    assert [order["risk"] for order in answer.body["orders"]] == [rule]
    assert simulation.ours_accepted == 0


def test_g7_orders_a_day(opened: Open) -> None:
    """Two orders per day are allowed, three are planned."""
    simulation = opened(settings=with_risk(three_name_settings(), max_orders_per_day=2))
    answer = simulation.accept()
    assert answer is not None
    assert (answer.body["verdict"], simulation.ours_accepted) == ("partial", 2)
    assert [order.risk for order in simulation.orders() if order.status == "refused"] == ["orders_per_day"]


@pytest.mark.parametrize("what", ["account", "trades", "quotes", "positions"])
def test_g7_nan_passes_nowhere(simulation: Simulation, what: str) -> None:
    """The broker says NaN: for its cash, its last trades, its quotes, or what is held."""
    nan = float("nan")
    change: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "account": ("GET /v2/account", lambda told: {**told, "cash": "NaN", "equity": "NaN"}),
        "trades": ("GET /v2/stocks/trades", lambda told: {"trades": {name: {**row, "p": nan} for name, row in told["trades"].items()}}),
        "quotes": ("GET /v2/stocks/quotes", lambda told: {"quotes": {name: {**row, "bp": nan} for name, row in told["quotes"].items()}}),
        "positions": ("GET /v2/positions", lambda told: [{**row, "qty": "NaN"} for row in told]),
    }
    simulation.accept(decision(weights={"SPY": 0.3}))
    simulation.advance(NEXT_SLOT)
    simulation.retell(*change[what])
    answer = simulation.accept(decision(**NEXT, weights={"SPY": 0.5, "IBM": 0.2}))
    assert answer is not None
    assert len(simulation.edges.posts) == 1
    simulation.calm()
    simulation.end_orders()
    simulation.agrees()


def test_g7_the_price_collar(simulation: Simulation) -> None:
    """SPY's quote lies eleven percent above its last trade: no order is sized by it."""

    def stubbed(told: Any) -> Any:
        spy = told["quotes"]["SPY"]
        return {"quotes": {**told["quotes"], "SPY": {**spy, "bp": spy["bp"] * 1.11, "ap": spy["ap"] * 1.11}}}

    simulation.retell("GET /v2/stocks/quotes", stubbed)
    answer = simulation.accept()
    assert answer is not None
    assert "within 0.1 of the last trade" in answer.body["refused"]["SPY"]
    assert simulation.ours_accepted == 2


def test_g8_a_breaker_latches_until_a_person_rearms_it(simulation: Simulation, gateway: Callable[[str, str, Any], dict[str, Any]]) -> None:
    """A loss trips a breaker; the equity comes back, the breaker stays; a person sets the state to active, with a reason that is kept."""
    simulation.accept(decision(weights={"SPY": 0.2}))
    simulation.advance(CLOSE + timedelta(minutes=5))
    simulation.reconcile()
    for change in (-60_000, 60_000):
        simulation.book.cash += change
        simulation.venue.initial_cash += change
        simulation.advance(max(simulation.venue.now, NEXT_SLOT))
        simulation.reconcile()
    assert "max_drawdown" in simulation.ledger.breakers().tripped
    refused = simulation.order("k1", "IBM", "buy", "1")
    assert refused is not None
    assert refused.body["orders"][0]["risk"] == "breaker"
    gateway("PUT", "/trading-state", {"state": "active", "reason": "a withdrawal, put back"})
    assert simulation.ledger.breakers().tripped == {}
    (audited,) = simulation.ledger.state_changes("2020-01")
    assert (audited.reason, audited.by) == ("a withdrawal, put back", "arn:aws:iam::0:user/person")
    again = simulation.order("k2", "IBM", "buy", "1")
    assert again is not None
    assert again.statuses == ["filled"]
    simulation.agrees()


@pytest.fixture
def mails(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """The alert topic with a queue on it: the mails so far."""
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    topic, queue = sns.create_topic(Name="alerts")["TopicArn"], sqs.create_queue(QueueName="mails")["QueueUrl"]
    address = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=address)
    variables = {"RAW_BUCKET": agent.raw, "PROCESSED_BUCKET": agent.audit, "ALERT_TOPIC_ARN": topic, "LEDGER_TABLE": "faults"}
    variables |= {SETTINGS_FILE: settings_file(three_name_settings())}
    monkeypatch.setattr(metrics.provider, "namespace", "Papertape")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    lakes.lake.cache_clear()
    yield lambda: int(sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]["ApproximateNumberOfMessages"])
    lakes.lake.cache_clear()


@pytest.fixture
def agent(simulation: Simulation) -> Agent:
    return Agent(simulation)


def test_g9_the_alarm_path_itself(simulation: Simulation, mails: Callable[[], int]) -> None:
    """The topic refuses health's mail: the function fails, for its own alarm and queue; nothing is marked as told, and the next run
    tells it."""
    halt(simulation)()
    event = {"schedule": "health", "time": "2020-01-02T16:00:00Z"}
    simulation.edges.failing = "sns."
    with pytest.raises(Exception, match="Publish"):
        simulation.live("health", lambda _context: watching.handler(event, None), None, seconds=120)
    assert mails() == 0
    simulation.edges.failing = ""
    told = watching.handler(event, None)
    assert "not-active" in told["mailed"]
    assert mails() == 1
    assert watching.handler(event, None)["mailed"] == []
    assert mails() == 1
