"""The year 2020 traded on the exchange in process, decision by decision, against the backtest: the same equity at every close.

What decides here sees only the exchange: its positions, its cash and its last trades, through the functions that the deployed decide and
execute_orders call. The exchange counts in Decimal, the simulator in float64, so they agree to rounding and not to the bit.
"""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from lambdas.decide.decision import AccountAtClose, observe_state, target
from local.exchange.costs import TradingCosts
from local.exchange.orders import Side, Status, Ticket
from local.exchange.recorded_market import RecordedMarket
from local.exchange.sessions import ExchangeCalendar, ExchangeSession
from local.exchange.venue import Venue
from papertape.market_data import bundled
from papertape.research.reference_backtests import ReferenceBacktests
from schema import settings as settings_module
from schema.slot import minutes_of
from trading_env.data.features import CONTEXT, FEATURE_HASH, FEATURES, SCHEMA_VERSION
from trading_env.data.market import Market
from trading_env.orders.orders import propose, to_decimal, to_float
from trading_env.simulation.policy import EqualWeight, NumpyPolicy, Policy, PolicyCard, SeededRandom, array_shapes
from trading_env.simulation.portfolio import Rules, plan_orders, scale_buys
from trading_env.simulation.trees import Trees

SETTINGS = settings_module.load(Path(__file__).parents[4] / "data" / "settings.toml")
SYMBOLS = SETTINGS.universe.symbols
FIRST, LAST = date(2020, 1, 2), date(2020, 12, 31)
CASH = SETTINGS.portfolio.initial_cash


def network(*, forecast: str = "none") -> NumpyPolicy:
    """A network of the trained one's shape, with weights and trees drawn at random: its scores follow the observation."""
    card = PolicyCard(
        features=tuple(feature.name for feature in FEATURES),
        context=tuple(feature.name for feature in CONTEXT),
        feature_hash=FEATURE_HASH,
        schema_version=SCHEMA_VERSION,
        kappa=SETTINGS.portfolio.kappa,
        trained_on=SYMBOLS,
        train_start="2006-01-03",
        train_end="2015-12-31",
        seeds=(0, 1),
        code_version="test",
        forecast=forecast,
    )
    draw = np.random.default_rng(2)  # of a few none may fall within a weight's last bit of a share's ninth decimal, where floors differ
    shapes = array_shapes(seeds=2, inputs=card.inputs)
    arrays = {name: draw.normal(0, 0.3, shape) for name, shape in shapes.items()}
    nodes = (40, 7)
    trees = Trees(draw.integers(0, len(card.features), nodes), draw.normal(0, 0.1, nodes), draw.normal(size=(40, 8)))
    grown = trees.arrays if forecast == "trees" else {}
    return NumpyPolicy({**arrays, **grown, "sigma": np.ones(card.inputs), "mu": np.zeros(card.inputs)}, card)


POLICIES: tuple[Policy, ...] = (EqualWeight(), network(), network(forecast="trees"), SeededRandom(seed=7))


@pytest.fixture(scope="module")
def references() -> ReferenceBacktests:
    return ReferenceBacktests(SETTINGS, start=FIRST, end=LAST)


@pytest.fixture(scope="module")
def recorded_market() -> RecordedMarket:
    calendar = ExchangeCalendar.xnys(start=date(2004, 1, 2), end=date(2021, 12, 31))
    return RecordedMarket(calendar=calendar, bars=bundled.daily_bars(), actions=bundled.corporate_actions())


class AgentLoop:
    """Decides on the last close and trades at the open, with nothing but the exchange before it."""

    def __init__(self, venue: Venue, market: Market, policy: Policy, rules: Rules) -> None:
        self.venue, self.market, self.policy, self.rules = venue, market, policy, rules

    def decide(self, session: ExchangeSession) -> dict[str, float]:
        row = self.market.index_of(np.datetime64(session.date)) - 1
        known = self.market.rows(date(2019, 1, 2), self.market.sessions[row].astype(object))
        quantities = {symbol: float(held.quantity) for symbol, held in self.venue.book.positions.items()}
        observed = observe_state(market=known, account=AccountAtClose(cash=float(self.venue.book.cash), quantities=quantities, closes={}))
        return target(observed=observed, scores=self.policy.scores(observed.observation), kappa=self.policy.kappa)

    def trade(self, session: ExchangeSession, weights: dict[str, float]) -> None:
        prices = np.array([float(self.venue.price(symbol)) for symbol in SYMBOLS])
        held = [self.venue.book.positions.get(symbol) for symbol in SYMBOLS]
        deltas = plan_orders(
            cash=float(self.venue.book.cash),
            quantities=np.array([0.0 if position is None else to_float(position.quantity) for position in held]),
            prices=prices,
            weights=np.array([weights.get(symbol, 0.0) for symbol in SYMBOLS]),
            tradable=np.array([symbol in weights for symbol in SYMBOLS]),
            rules=self.rules,
        )
        self.send(session, np.minimum(deltas, 0.0), prices)
        buys = scale_buys(buys=np.maximum(deltas, 0.0), prices=prices, cash=float(self.venue.book.cash), rules=self.rules)
        self.send(session, buys, prices)

    def send(self, session: ExchangeSession, deltas: np.ndarray, prices: np.ndarray) -> None:
        for order in propose(strategy="agent", slot=str(session.date), symbols=SYMBOLS, deltas=deltas, prices=prices):
            ticket = Ticket(symbol=order.symbol, side=Side(order.side), quantity=order.quantity, client_order_id=order.client_order_id)
            assert self.venue.submit(ticket).status is Status.FILLED


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_the_exchange_and_the_backtest_agree_at_every_close_of_2020(
    policy: Policy, references: ReferenceBacktests, recorded_market: RecordedMarket
) -> None:
    bps = {name: Decimal(str(value)) for name, value in SETTINGS.costs.model_dump().items()}
    sessions = recorded_market.calendar.between(FIRST, LAST)
    venue = Venue(market=recorded_market, now=sessions[0].midnight, cash=Decimal(str(CASH)), costs=TradingCosts.from_basis_points(**bps))
    loop, equity, cash, shares = AgentLoop(venue, references.market, policy, references.rules), [], [], []
    for session in sessions:
        weights = loop.decide(session)
        venue.advance(session.open + timedelta(minutes=minutes_of(SETTINGS.schedule.slots[0])))
        loop.trade(session, weights)
        venue.advance(session.close)
        equity.append(float(venue.equity))
        cash.append(float(venue.book.cash))
        shares.append([to_float(venue.book.positions[s].quantity) if s in venue.book.positions else 0.0 for s in SYMBOLS])

    expected = references.of(policy, limited=False)
    assert len(sessions) == len(expected.sessions) == 253
    assert np.abs(np.array(equity) / expected.equity - 1).max() < 1e-12
    assert np.array_equal(np.array(shares), expected.quantities)  # to the last of nine decimals
    assert np.abs(np.array(cash) - expected.cash).max() < 1e-12 * CASH
    assert [to_decimal(quantity) for quantity in expected.quantities[-1]] == [venue.book.positions[s].quantity for s in SYMBOLS]


def test_the_year_holds_what_parity_must_survive(references: ReferenceBacktests) -> None:
    """The crash of March and Apple's split of 2020-08-31 lie within it, and equal weight trades through both."""
    market, traded = references.market, references.of(EqualWeight())
    apple, split = SYMBOLS.index("AAPL"), np.datetime64("2020-08-31")
    row = int(np.flatnonzero(traded.sessions == split)[0])
    assert market.split[market.index_of(split), apple] == 4.0
    assert 3.5 < traded.quantities[row, apple] / traded.quantities[row - 1, apple] < 4.5
    assert abs(traded.equity[row] / traded.equity[row - 1] - 1) < 0.03
    assert traded.equity.min() < 0.65 * traded.equity[:40].max()
