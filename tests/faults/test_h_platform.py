"""H. The platform under the functions."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from lambdas.common.broker.alpaca import DATA, LIVE_SWITCH, LIVE_TRADING, PAPER_TRADING, AlpacaBroker, Credentials
from lambdas.common.broker.port import BrokerRefused, BrokerUnavailable
from lambdas.common.telemetry import logger
from lambdas.execute_orders import service
from schema.api_requests import DecisionRequest, parse
from schema.settings import load
from tests.faults.agent import Agent
from tests.faults.simulation import CLOSE, ROOT, SLOT, Simulation, decision

Open = Callable[..., Simulation]
LEASE_OVER = timedelta(seconds=61)
NEXT_SLOT = SLOT + timedelta(days=1)
NEXT = {"session": "2020-01-03", "as_of": "2020-01-02"}
OLD, NEW = ("local-key", "local-secret"), ("another-key", "another-secret")


@pytest.mark.parametrize("status", [401, 403])
def test_h1_keys_that_are_rotated_during_a_batch(simulation: Simulation, status: int) -> None:
    """The keys are changed at the broker and in the secret before the second order: the new ones are fetched, and nothing is lost."""

    def rotate() -> None:
        simulation.story.append("keys rotated")
        simulation.open_doors(key_id=NEW[0], secret_key=NEW[1])
        simulation.renew = lambda: NEW
        if status == 401:
            simulation.edges.instead.append(("", lambda request: None if request.headers["APCA-API-KEY-ID"] == NEW[0] else (401, b"{}")))

    simulation.renew = lambda: NEW if any(word == "keys rotated" for word in simulation.story) else OLD
    simulation.interrupt("POST /v2/orders", rotate, nth=2)
    answer = simulation.accept()
    assert answer is not None
    assert (answer.status, answer.statuses) == (200, ["filled"] * 3)
    simulation.credentials = Credentials(key_id=NEW[0], secret_key=NEW[1])
    simulation.end_orders()
    assert simulation.ours_accepted == 3
    simulation.agrees()


def test_h1_keys_that_are_revoked(simulation: Simulation) -> None:
    """The broker refuses the keys from the second order on, and there are no others: no further order is accepted, every pass fails."""

    def revoke() -> None:
        simulation.story.append("keys revoked")
        simulation.instead("", 401, {"message": "request is not authorized"})

    simulation.interrupt("POST /v2/orders", revoke, nth=2)
    simulation.accept()
    simulation.advance(LEASE_OVER)
    assert simulation.reconcile() is None
    assert isinstance(simulation.failures[-1], BrokerUnavailable)
    assert simulation.ours_accepted == 1
    simulation.calm()
    simulation.end_orders()
    simulation.agrees()


def test_h2_a_paper_account_that_is_reset(simulation: Simulation) -> None:
    """The paper account is reset within the session, with other keys, which the secret has: another account is not traded."""
    simulation.accept(decision(weights={"SPY": 0.3}))
    simulation.misbehave(account_reset={"at": "2020-01-02T15:00:00Z"})
    simulation.advance(SLOT + timedelta(hours=1))
    answer = simulation.order("k", "SPY", "buy", "1")
    assert answer is not None
    assert [order["risk"] for order in answer.body["orders"]] == ["account_pin"]
    assert simulation.ours_accepted == 1


ADDRESSES = [LIVE_TRADING, "https://example.org", "http://paper-api.alpaca.markets", f"{PAPER_TRADING}.example.org", "http://10.0.0.1"]


def test_h3_the_live_endpoint_guard(monkeypatch: pytest.MonkeyPatch, verdict: Callable[[str], None]) -> None:
    """Every address but paper and this machine, with each combination of the two switches short of both; looked at where sockets
    connect."""
    reached: list[Any] = []

    def connect(_socket: socket.socket, address: Any) -> None:
        reached.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, *_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))])
    for url in ADDRESSES:
        for switch, live in (("", False), (LIVE_SWITCH, False), ("", True), ("yes", True)):
            with pytest.raises(BrokerRefused):
                AlpacaBroker(
                    credentials=Credentials(key_id="k", secret_key="s", live=live), trading_url=url, data_url=DATA, live_switch=switch
                )
    assert reached == []
    paper = AlpacaBroker(credentials=Credentials(key_id="k", secret_key="s"), sleep=lambda _seconds: None)
    with pytest.raises(BrokerUnavailable):
        paper.clock()
    assert {address[0] for address in reached} == {"paper-api.alpaca.markets"}
    verdict("refused before a socket is opened")


@pytest.mark.parametrize("operation", ["TransactWriteItems", "BatchGetItem", "UpdateItem"])
def test_h4_a_ledger_that_is_throttled(simulation: Simulation, operation: str) -> None:
    """One kind of call to the ledger is throttled, longer than it is tried again, from the first order on; then it is not."""

    def throttle() -> None:
        simulation.story.append("throttled")
        simulation.edges.throttled = operation

    simulation.interrupt("ledger write order pending", throttle, after=True)
    answer = simulation.accept()
    assert answer is not None
    assert answer.status in {200, 503}
    simulation.edges.throttled = ""
    assert simulation.edges.refused
    simulation.advance(LEASE_OVER)
    simulation.accept()
    simulation.end_orders()
    assert simulation.ours_accepted == 3
    simulation.agrees()


def test_h4_two_writers_of_one_order(simulation: Simulation) -> None:
    """While a fill is on its way to the ledger, a cancellation records the same fill: the version refuses the second, which reads again."""
    simulation.misbehave(partial_fill={"rate": 1, "expires": 0})
    simulation.accept(decision(weights={"SPY": 0.5}))
    (order,) = simulation.orders()
    simulation.advance(timedelta(minutes=1))
    simulation.interrupt("ledger write order", lambda: simulation.cancel(order.client_order_id))
    simulation.end_orders()
    fills = simulation.ledger.fills_of(order.client_order_id)
    assert [fill.cumulative for fill in fills] == sorted({fill.cumulative for fill in fills})
    simulation.agrees()


def test_h5_a_lake_that_answers_5xx(simulation: Simulation) -> None:
    """S3 answers 503 to decide: the function fails, nothing is ordered; the schedule's retry decides."""
    agent = Agent(simulation)
    simulation.edges.failing = "s3.amazonaws"
    assert agent.decide() is None
    assert simulation.ours_accepted == 0
    simulation.edges.failing = ""
    done = agent.decide()
    assert done is not None
    assert done["verdict"] == "accepted"
    assert simulation.ours_accepted == 3


def _calls(opened: Open) -> int:
    simulation = opened()
    _swap(simulation, lambda: None)
    return len(simulation.lives[-1].calls)


def _swap(simulation: Simulation, before: Callable[[], None]) -> None:
    """A book of two names, and on the next day a decision that sells one to buy another."""
    simulation.accept(decision(weights={"SPY": 0.5, "AAPL": 0.4}))
    simulation.advance(NEXT_SLOT)
    before()
    simulation.accept(decision(**NEXT, weights={"SPY": 0.2, "AAPL": 0.4, "IBM": 0.3}))


def test_h6_killed_at_every_call(opened: Open) -> None:
    """A batch that sells and buys is killed at its first call, its second, and so on to its last; the event is retried, reconcile goes
    on."""
    for number in range(1, _calls(opened) + 1):
        simulation = opened()
        _swap(simulation, lambda simulation=simulation, number=number: simulation.kill("", nth=number, after=number > 1))  # type: ignore[misc]
        simulation.advance(LEASE_OVER)
        if number % 2:
            simulation.accept(decision(**NEXT, weights={"SPY": 0.2, "AAPL": 0.4, "IBM": 0.3}))
        simulation.end_orders()
        ours = [order for order in simulation.orders() if order.slot.startswith("2020-01-03")]
        decided = simulation.ledger.decision("agent:2020-01-03/open+5")
        assert (len(ours), simulation.ours_accepted) == ((3, 5) if decided is not None else (0, 2)), f"killed at call {number}"
        simulation.agrees()


def test_h6_killed_by_its_time_limit(simulation: Simulation) -> None:
    """Each call takes three seconds, and the function is killed after twenty-nine; reconcile, with more time, finishes the batch."""
    simulation.edges.latency = lambda: simulation.sleep(3)
    for _ in range(2):
        simulation.accept()
        simulation.advance(LEASE_OVER)
    assert any(life.dead for life in simulation.lives)
    simulation.end_orders()
    assert simulation.ours_accepted == 3
    simulation.agrees()


@pytest.mark.rehearse
def test_h6_reconcile_is_killed_at_every_call(opened: Open) -> None:
    """Reconcile takes up a batch of which the second order is unknown, and is killed at each of its calls; the next pass finishes it."""

    def half(simulation: Simulation) -> None:
        simulation.misbehave(post_reset_unaccepted={"rate": 1, "first": 1, "symbols": ["IBM"]})
        simulation.accept()
        simulation.reconcile()
        simulation.advance(timedelta(minutes=5))

    simulation = opened()
    half(simulation)
    simulation.reconcile()
    for number in range(1, len(simulation.lives[-1].calls) + 1):
        simulation = opened()
        half(simulation)
        simulation.kill("", nth=number, after=bool(number % 2))
        simulation.reconcile()
        simulation.advance(timedelta(minutes=5))
        simulation.end_orders()
        assert simulation.ours_accepted == 3, f"killed at call {number}"
        simulation.agrees()


def _granted(assembly: Any, role: str) -> set[str]:
    found: set[str] = set()
    for _, name, policy in assembly.resources("AWS::IAM::Policy"):
        if name.startswith(role):
            for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
                actions = statement["Action"]
                found |= {actions} if isinstance(actions, str) else set(actions)
    return found


def test_h7_h8_h11_the_synthesized_app(tmp_path_factory: pytest.TempPathFactory, verdict: Callable[[str], None]) -> None:
    """What the templates say: the executor may do nothing of SageMaker's or S3's, decide send no order, nobody delete from the ledger; each
    scheduled event that fails ends in a queue, but for a minute's quotes; the month has a budget, and somebody who hears of it."""
    from tests.infrastructure.assembly import for_aws  # brings jsii, which takes seconds

    settings = load(ROOT / "data" / "settings.toml")
    assembly = for_aws(tmp_path_factory)
    executor, decider, model = (_granted(assembly, role) for role in ("ExecuteOrdersRole", "DecideRole", "DeployModelRole"))
    assert executor
    assert not {action for action in executor if action.startswith(("sagemaker:", "s3:", "iam:"))}
    assert {action for action in decider if action.startswith("sagemaker:")} == {"sagemaker:InvokeEndpoint"}
    assert model
    assert "secretsmanager:GetSecretValue" not in model
    for role in (executor, decider, model):
        assert not {action for action in role if action.endswith("*") or action in {"dynamodb:DeleteItem", "dynamodb:DeleteTable"}}
    for name, schedule in assembly.schedules().items():
        assert name == "ingest_quotes" or "DeadLetters" in json.dumps(schedule["Target"].get("DeadLetterConfig")), name
    ((_, _, budget),) = assembly.resources("AWS::Budgets::Budget")
    assert budget["Properties"]["Budget"]["BudgetLimit"] == {"Amount": settings.budget.monthly_budget_usd, "Unit": "USD"}
    assert budget["Properties"]["NotificationsWithSubscribers"]
    verdict("holds")


@pytest.mark.parametrize("poison", ["not json", "{}", '{"decision_id": 1}'])
def test_h8_a_poison_message(simulation: Simulation, poison: str) -> None:
    """A body that nobody can read is refused by name; the good event is redriven, and again, and trades once."""
    refused = simulation.execute(
        lambda context: service.accept_decision(parse(DecisionRequest, poison, settings=simulation.settings), context)
    )
    assert refused is not None
    assert refused.status == 422
    for _ in range(2):
        simulation.accept()
    assert simulation.ours_accepted == 3
    simulation.agrees()


def test_h9_a_deploy_during_a_batch(simulation: Simulation) -> None:
    """A new version of the function gets the event while the old one's batch is under way: it waits for the lease and repeats nothing."""
    answers: list[Any] = []
    simulation.interrupt("POST /v2/orders", lambda: answers.append(simulation.accept()), nth=2)
    first = simulation.accept()
    assert first is not None
    assert answers[0].status == 202
    assert (first.status, first.statuses) == (200, ["filled"] * 3)
    assert simulation.ours_accepted == 3
    simulation.agrees()


def test_h10_keys_in_no_log_answer_error_or_item(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session with lost answers, refused keys and errors; then everything that was logged, answered, raised and stored is searched."""
    log = io.StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", log)
    simulation.misbehave(post_504_accepted={"rate": 1}, get_5xx={"rate": 0.2}, too_many_requests={"rate": 0.1})
    answers = [simulation.accept(), simulation.order("k", "SPY", "sell", "1")]
    simulation.reconcile()
    simulation.calm()
    simulation.instead("", 401, {"message": "request is not authorized"})
    answers.append(simulation.accept())
    simulation.reconcile()
    simulation.calm()
    simulation.advance(LEASE_OVER)
    simulation.end_orders()
    items = simulation.ledger._table.scan()["Items"]
    everything = log.getvalue() + repr(answers) + repr(simulation.failures) + repr(items)
    assert len(log.getvalue()) > 100
    for key in OLD:
        assert key not in everything
    simulation.agrees()


def _forget(simulation: Simulation) -> None:
    """The ledger's table is restored empty."""
    table = simulation.ledger._table
    for item in table.scan()["Items"]:
        table.delete_item(Key={"pk": item["pk"], "sk": item["sk"]})
    simulation.story.append("ledger lost")


def test_h12_a_ledger_that_is_lost(simulation: Simulation) -> None:
    """Every item of the ledger is gone after the batch: reconcile sends nothing, takes the book from the broker and halts, because halts
    may be lost as well; a person looks, and tomorrow trades from the book."""
    simulation.accept()
    _forget(simulation)
    simulation.reconcile()
    simulation.advance(CLOSE + timedelta(minutes=5))
    simulation.reconcile()
    snapshot = simulation.ledger.snapshot("2020-01-02")
    assert snapshot is not None
    assert {symbol: held.quantity for symbol, held in snapshot.positions.items()} == simulation.held
    assert len(simulation.edges.posts) == 3
    assert simulation.ledger.trading_state().state == "halted", "a lost ledger has lost its halts"
    assert "ledger-lost" in simulation.alerts()
    simulation.ledger.set_trading_state("active", reason="looked at it", time="2020-01-03T14:00:00Z", by="a person")
    simulation.advance(NEXT_SLOT)
    answer = simulation.accept(decision(**NEXT, weights={"SPY": 0.5, "IBM": 0.3}))
    assert answer is not None
    assert answer.body["verdict"] == "accepted"


def test_h12_a_lost_ledger_and_the_same_event_again(simulation: Simulation) -> None:
    """The ledger is lost in the middle of the batch, and the slot's event is delivered again: the ids are the same, the broker knows
    them."""
    simulation.kill("POST /v2/orders", nth=2, after=True)
    simulation.accept()
    _forget(simulation)
    simulation.accept()
    for _ in range(3):
        simulation.reconcile()
        simulation.advance(timedelta(minutes=5))
    assert simulation.ours_accepted <= 3
    assert simulation.ledger.trading_state().state == "halted", "what it would send contradicts what the broker has"
    assert "contradiction" in {rule.partition(":")[0] for rule in simulation.alerts()}


def test_h12_positions_are_rebuilt_from_the_broker(simulation: Simulation) -> None:
    """Every item of the ledger is gone after the batch: reconcile writes down orders and fills as the broker tells them, and sends
    nothing."""
    simulation.accept()
    _forget(simulation)
    for _ in range(3):
        simulation.reconcile()
        simulation.advance(timedelta(minutes=5))
    assert simulation.recorded == simulation.held
    assert len(simulation.edges.posts) == 3
