"""From what is known at the end of a row to target weights: observe, ask a policy, mix with what is held.

Promises: the same market, book and scores give the same decision to the last bit; an untradable name is left out of the weights, so the
executor leaves its position alone. Pure: no AWS, no clock. Raises `ObservationError` for a state that cannot be observed and
`PolicyError` or `ValueError` from the policy for scores that cannot be used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trading_env.data.market import Market, table_within
from trading_env.data.observation import Observation, observe
from trading_env.simulation.policy import weights_from_scores
from trading_env.simulation.portfolio import ExecutionPrices

Array = NDArray[np.float64]


@dataclass(frozen=True)
class AccountAtClose:
    """Cash in dollars and shares by symbol after the row observed; `closes` values what the market has no bar of."""

    cash: float
    quantities: Mapping[str, float]
    closes: Mapping[str, float]


@dataclass(frozen=True)
class ObservedState:
    """One observed state: held weights (A,) and cash weight as shares of equity, who may trade (A,), the policy's vector, the hash of
    the table that its features are of, and the slots that its rows are cut at; none where a row is a session.
    """

    observation: Observation
    held: Array
    cash_weight: float
    tradable: NDArray[np.bool_]
    feature_hash: str
    slots: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of the observation's float32 bytes, little-endian."""
        return hashlib.sha256(self.observation.vector.astype("<f4").tobytes()).hexdigest()


def observe_state(*, market: Market, account: AccountAtClose, slots: tuple[str, ...] = ()) -> ObservedState:
    """Observe the last row of `market`, whose rows are cut at `slots`, with the account after that close.

    Equity is cash and every position at its raw close, not the broker's own figure, which moves after hours.
    """
    closes = ExecutionPrices.of(market).closing[-1]  # of a name without a bar now: its last close, through the splits since
    elsewhere = np.array([account.closes.get(symbol, np.nan) for symbol in market.symbols])
    closes = np.where(np.isfinite(closes), closes, elsewhere)
    quantities = np.array([account.quantities.get(symbol, 0.0) for symbol in market.symbols])
    worth = np.where(quantities == 0, 0.0, quantities * closes)
    others = sum(shares * account.closes[name] for name, shares in account.quantities.items() if name not in market.symbols)
    equity = account.cash + worth.sum() + others
    if not (np.isfinite(equity) and equity > 0):
        raise ValueError(f"equity at the close of {market.sessions[-1]} must be positive and finite, was {equity}")
    held, cash_weight, tradable = worth / equity, account.cash / equity, market.tradable[-1]
    vector = observe(market.features[-1], market.context[-1], tradable, held, cash_weight)
    return ObservedState(
        observation=Observation(as_of=market.sessions[-1], symbols=market.symbols, vector=vector),
        held=held,
        cash_weight=float(cash_weight),
        tradable=tradable,
        feature_hash=table_within(market).hash,
        slots=slots,
    )


def target(*, observed: ObservedState, scores: Array, kappa: float) -> dict[str, float]:
    """Target weights by symbol, shares of the invested part of equity, of tradable names only."""
    weights = weights_from_scores(scores, observed.held, observed.tradable, kappa=kappa)
    names = zip(observed.observation.symbols, weights, observed.tradable, strict=True)
    return {symbol: float(weight) for symbol, weight, tradable in names if tradable}
