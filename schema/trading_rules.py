"""From settings to the domain's own terms, once for training, judging and live trading: what trains is what trades."""

from __future__ import annotations

from schema.settings import Settings
from trading_env.orders.risk import Limits
from trading_env.simulation.portfolio import Costs, Rules


def rules_of(settings: Settings) -> Rules:
    """How orders are sized, filled and paid for."""
    portfolio = settings.portfolio
    return Rules(
        cash_buffer=portfolio.cash_buffer,
        band=portfolio.band,
        min_notional=portfolio.min_notional,
        credit_dividends=portfolio.dividends == "credit",
        costs=Costs(**settings.costs.model_dump()),
        whole_shares=portfolio.whole_shares,
    )


def limits_of(settings: Settings) -> Limits:
    """The risk limits: what live trading refuses, training and judging refuse too."""
    return Limits(**settings.risk.model_dump())
