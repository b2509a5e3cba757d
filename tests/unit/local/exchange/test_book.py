"""The account of the local exchange: exact to the last digit, and impossible to overdraw."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.exchange.book import AccountBook
from local.exchange.costs import TradingCosts
from local.exchange.orders import OrderType, Refused, Side, Status, Ticket
from local.replay.local_deployment import LocalDeployment, LocalDeploymentError
from schema.settings import load

NOON = datetime(2020, 1, 2, 17, tzinfo=UTC)
CLOSE = datetime(2020, 1, 2, 21, tzinfo=UTC)
COSTS = TradingCosts.from_basis_points(fee_bps=Decimal("2.5"), slippage_bps=Decimal(10))


def trade(book: AccountBook, side: str, quantity: str, price: str, **fields: str) -> Status:
    ticket = Ticket(symbol="AAPL", side=Side(side), quantity=Decimal(quantity), **fields)  # type: ignore[arg-type]
    order = book.accept(ticket, price=Decimal(price), at=NOON, expires_at=CLOSE)
    return book.execute(order.id, price=Decimal(price), at=NOON).status


def test_a_round_trip_costs_slippage_and_fees_to_the_last_digit() -> None:
    book = AccountBook(cash=Decimal(1000), costs=COSTS)
    trade(book, "buy", "3.123456789", "100.0101")
    paid = Decimal("3.123456789") * Decimal("100.0101") * Decimal("1.001")
    assert book.cash == 1000 - paid * Decimal("1.00025")
    assert book.positions["AAPL"].average_price == Decimal("100.0101") * Decimal("1.001")
    trade(book, "sell", "3.123456789", "100.0101")
    got = Decimal("3.123456789") * Decimal("100.0101") * Decimal("0.999")
    assert book.cash == 1000 - paid * Decimal("1.00025") + got * Decimal("0.99975")
    assert book.positions == {}
    assert [fill.fee for fill in book.fills] == [paid * Decimal("0.00025"), got * Decimal("0.00025")]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["buy", "sell"]),
            st.decimals("0.000000001", "50", places=9),
            st.decimals("0.0001", "5000", places=4),
        ),
        max_size=30,
    )
)
def test_fills_explain_cash_and_shares_exactly(orders: list[tuple[str, Decimal, Decimal]]) -> None:
    book = AccountBook(cash=Decimal(10_000), costs=COSTS)
    for side, quantity, price in orders:
        before = (book.cash, dict(book.positions), len(book.orders), len(book.fills))
        try:
            trade(book, side, str(quantity), str(price))
        except Refused:
            assert before == (book.cash, dict(book.positions), len(book.orders), len(book.fills))
    cash, shares = Decimal(10_000), Decimal(0)
    for fill in book.fills:
        sign = 1 if fill.side is Side.BUY else -1
        cash -= sign * fill.quantity * fill.price + fill.fee
        shares += sign * fill.quantity
    assert cash == book.cash >= 0
    assert shares == (book.positions["AAPL"].quantity if book.positions else 0) >= 0


def test_the_last_cent_may_be_spent_and_not_one_more() -> None:
    book = AccountBook(cash=Decimal("1001"), costs=TradingCosts(slippage=Decimal("0.001")))
    with pytest.raises(Refused, match="insufficient buying power") as refused:
        trade(book, "buy", "10.000000001", "100")
    assert (refused.value.code, refused.value.details) == (40310000, {"buying_power": "1001", "cost_basis": "1001.0000001001"})
    assert trade(book, "buy", "10", "100") is Status.FILLED
    assert book.cash == 0


def test_what_is_not_held_or_already_promised_cannot_be_sold() -> None:
    book = AccountBook(cash=Decimal(1000), costs=TradingCosts())
    trade(book, "buy", "5", "100")
    book.accept(Ticket(symbol="AAPL", side=Side.SELL, quantity=Decimal(3)), price=Decimal(100), at=NOON, expires_at=CLOSE)
    with pytest.raises(Refused, match=r"requested: 2.5, available: 2") as refused:
        trade(book, "sell", "2.5", "100")
    assert refused.value.details == {"symbol": "AAPL", "available": "2", "existing_qty": "5", "held_for_orders": "3"}


def test_open_buys_keep_their_cash() -> None:
    book = AccountBook(cash=Decimal(1000), costs=TradingCosts())
    waiting = book.accept(Ticket(symbol="AAPL", side=Side.BUY, notional=Decimal(600)), price=Decimal(100), at=NOON, expires_at=CLOSE)
    assert (book.cash, book.buying_power) == (1000, 400)
    with pytest.raises(Refused, match="insufficient buying power"):
        trade(book, "buy", "5", "100")
    book.end(waiting.id, Status.CANCELED, at=NOON)
    assert book.buying_power == 1000


def test_a_buy_that_cash_no_longer_covers_is_rejected_when_its_turn_comes() -> None:
    book = AccountBook(cash=Decimal(1000), costs=TradingCosts())
    waiting = book.accept(Ticket(symbol="AAPL", side=Side.BUY, quantity=Decimal(10)), price=Decimal(100), at=NOON, expires_at=CLOSE)
    assert book.execute(waiting.id, price=Decimal("100.01"), at=NOON).status is Status.REJECTED
    assert (book.cash, book.positions, book.fills, book.buying_power) == (1000, {}, [], 1000)


def test_an_amount_that_comes_to_have_too_many_digits_is_rejected_when_its_turn_comes() -> None:
    book = AccountBook(cash=Decimal("1e20"), costs=TradingCosts(fee=Decimal("0.000123456"), slippage=Decimal("0.000123456")))
    ticket = Ticket(symbol="AAPL", side=Side.BUY, quantity=Decimal("123456789012345.123456789"))
    waiting = book.accept(ticket, price=Decimal("100.01"), at=NOON, expires_at=CLOSE)
    after_a_split = Decimal("66." + "6" * 57 + "7")
    assert book.execute(waiting.id, price=after_a_split, at=NOON).status is Status.REJECTED
    assert (book.cash, book.positions, book.fills) == (Decimal("1e20"), {}, [])
    with pytest.raises(Refused, match="too many digits"):
        book.accept(ticket, price=after_a_split, at=NOON, expires_at=CLOSE)


def test_an_amount_that_buys_nothing_is_rejected() -> None:
    book = AccountBook(cash=Decimal(1000), costs=TradingCosts())
    order = book.accept(Ticket(symbol="AAPL", side=Side.BUY, notional=Decimal(1)), price=Decimal("2e9"), at=NOON, expires_at=CLOSE)
    assert book.execute(order.id, price=Decimal("2e9"), at=NOON).status is Status.REJECTED
    assert (book.cash, book.open_orders) == (1000, [])


def test_a_client_order_id_is_accepted_once() -> None:
    book = AccountBook(cash=Decimal(1000), costs=TradingCosts())
    trade(book, "buy", "1", "100", client_order_id="once")
    for quantity in ("1", "2"):
        with pytest.raises(Refused, match="client_order_id must be unique") as refused:
            trade(book, "buy", quantity, "100", client_order_id="once")
        assert (refused.value.status, refused.value.code) == (422, 40010001)
    assert (len(book.orders), len(book.fills), book.duplicates) == (1, 1, 2)


def test_limits_fill_at_their_price_or_better_after_slippage() -> None:
    book = AccountBook(cash=Decimal(10_000), costs=COSTS)
    for side, limit, expected in [("buy", "100.1", Status.FILLED), ("buy", "100.0999", Status.ACCEPTED), ("sell", "99.9", Status.FILLED)]:
        ticket = Ticket(symbol="AAPL", side=Side(side), kind=OrderType.LIMIT, quantity=Decimal(1), limit_price=Decimal(limit))
        order = book.accept(ticket, price=Decimal(100), at=NOON, expires_at=CLOSE)
        assert book.execute(order.id, price=Decimal(100), at=NOON).status is expected
    assert len(book.open_orders) == 1


def test_split_moves_shares_and_keeps_cost_and_value() -> None:
    book = AccountBook(cash=Decimal(1000), costs=TradingCosts())
    trade(book, "buy", "0.123456789", "500")
    order = book.accept(Ticket(symbol="AAPL", side=Side.SELL, quantity=Decimal("0.1")), price=Decimal(500), at=NOON, expires_at=CLOSE)
    value = book.equity({"AAPL": Decimal(500)})
    book.split("AAPL", ratio=Decimal(4), price=Decimal(125), at=NOON)
    assert book.positions["AAPL"].quantity == Decimal("0.493827156")
    assert book.positions["AAPL"].average_price == 125
    assert book.equity({"AAPL": Decimal(125)}) == value
    assert book.orders[order.id].status is Status.CANCELED


def test_reverse_split_pays_what_the_grid_of_nine_decimals_cannot_hold() -> None:
    book = AccountBook(cash=Decimal(1000), costs=TradingCosts())
    trade(book, "buy", "10.123456789", "1")
    book.split("AAPL", ratio=Decimal("0.05"), price=Decimal(20), at=NOON)
    assert book.positions["AAPL"].quantity == Decimal("0.506172839")  # of 0.50617283945
    assert book.equity({"AAPL": Decimal(20)}) == 1000


def test_dividends_are_paid_on_shares_held() -> None:
    book = AccountBook(cash=Decimal(1000), costs=TradingCosts())
    trade(book, "buy", "2.5", "100")
    book.credit_dividend("AAPL", amount=Decimal("0.82"), at=NOON)
    book.credit_dividend("IBM", amount=Decimal(9), at=NOON)
    assert book.cash == Decimal("752.05")


def test_a_position_without_a_price_has_no_value() -> None:
    book = AccountBook(cash=Decimal(1000), costs=TradingCosts())
    trade(book, "buy", "1", "100")
    with pytest.raises(KeyError):
        book.equity({})


def test_an_order_ends_once() -> None:
    book = AccountBook(cash=Decimal(1000), costs=TradingCosts())
    trade(book, "buy", "1", "100")
    (order_id,) = book.orders
    with pytest.raises(Refused, match='already in "filled" state'):
        book.end(order_id, Status.CANCELED, at=NOON)


def test_the_half_spread_is_filled_as_slippage_and_what_needs_a_volume_is_refused() -> None:
    costs = TradingCosts.from_basis_points(fee_bps=Decimal(0), slippage_bps=Decimal(10), half_spread_bps=Decimal("2.5"))
    assert costs.price(Side.BUY, Decimal(100)) == Decimal("100.125")
    for name in ("impact", "max_volume_share"):
        with pytest.raises(ValueError, match="must be 0, an order fills whole here"):
            TradingCosts.from_basis_points(fee_bps=Decimal(0), slippage_bps=Decimal(0), **{name: Decimal("0.1")})


def test_the_laptop_does_not_start_with_costs_that_its_exchange_cannot_charge(tmp_path: Path) -> None:
    settings = load(Path(__file__).parents[4] / "data" / "settings.toml")
    costs = settings.costs.model_copy(update={"impact": 1.0, "max_volume_share": 0.1})
    with pytest.raises(LocalDeploymentError, match=r"costs\.impact and costs\.max_volume_share must be 0 here"):
        LocalDeployment(tmp_path, settings=settings.model_copy(update={"costs": costs}), now="2019-12-31T22:00:00Z")
