"""Which adapter this process trades and reads through: the one place outside of it that names it.

Another broker or vendor is a module beside `alpaca` that fulfils a port, and its line here.
"""

from __future__ import annotations

from lambdas.common.broker import alpaca
from lambdas.common.broker.port import Broker, BrokerRefused, MarketData
from schema.settings import deployed


def broker_from_environment() -> Broker:
    """Return this process's broker; raise `BrokerRefused` where its address, its secret or its switches forbid it.

    A model that the gate refused may trade on paper only: with `[gate] refused = "trade"` no switch for real money may be on.
    """
    broker = alpaca.broker_from_environment()
    if broker.real_money and (refused := deployed().gate.refused) != "shadow":
        raise BrokerRefused(f'gate.refused must be "shadow" where a switch for real money is on, was "{refused}"; deploy again')
    return broker


def market_data_from_environment() -> MarketData:
    """Return this process's market data; raise as `broker_from_environment` does."""
    return alpaca.broker_from_environment()


def paper_account(*, key_id: str, secret_key: str, url: str = "") -> Broker:
    """The paper account of a pair of keys, or an exchange on this machine at `url`; raise `BrokerRefused` for any other address."""
    keys = alpaca.Credentials(key_id=key_id, secret_key=secret_key)
    return alpaca.AlpacaBroker(credentials=keys, trading_url=url or alpaca.PAPER_TRADING, data_url=url or alpaca.DATA)
