"""What a policy sees: one flat float32 vector, the same in training, backtest, serving and live trading.

| columns                | content                                              |
|------------------------|------------------------------------------------------|
| A blocks of F + 2      | the asset's F features, its held weight, its mask    |
| 1                      | cash weight                                          |
| G                      | market-wide features                                 |

Held weight = quantity x raw close / equity at the close of the observed session. An untradable asset's features are 0 and its mask
is 0: padding that the mask declares. Anything else that is not finite raises `ObservationError` naming what it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trading_env.errors import PapertapeError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Vector = NDArray[np.float32]


class ObservationError(PapertapeError, ValueError):
    """An observation cannot be made or read; the message names the part and its value."""


@dataclass(frozen=True)
class Layout:
    """Counts of assets (A), features an asset (F) and market-wide features (G)."""

    assets: int
    features: int
    context: int

    @property
    def width(self) -> int:
        return self.assets * (self.features + 2) + 1 + self.context

    @classmethod
    def of_width(cls, width: int, *, features: int, context: int) -> Layout:
        """The layout of a vector whose number of assets is not known; raises ObservationError when none fits."""
        assets, rest = divmod(width - 1 - context, features + 2)
        if rest or assets < 1:
            raise ObservationError(f"an observation must be A * {features + 2} + {1 + context} wide for some A, was {width}")
        return cls(assets=assets, features=features, context=context)


@dataclass(frozen=True)
class Observation:
    """One observed state: the session whose close it is, the names in the order of the blocks, and the vector (width,)."""

    as_of: np.datetime64
    symbols: tuple[str, ...]
    vector: Vector


@dataclass(frozen=True)
class ObservationParts:
    """Views into observations: assets (..., A, F + 2), rest (..., 1 + G), and the mask (..., A) as bool."""

    assets: Vector
    rest: Vector
    tradable: BoolArray


def observe(features: FloatArray, context: FloatArray, tradable: BoolArray, held: FloatArray, cash_weight: FloatArray | float) -> Vector:
    """The vector (width,) or, with a leading axis N on every argument, (N, width).

    `features` (A, F), `context` (G,), `tradable` (A,), `held` (A,) shares of equity, `cash_weight` a share of equity.
    Raises ObservationError on a non-finite context, weight, or feature of a tradable asset.
    """
    return with_book(market_block(features, context, tradable), layout=_layout(features, context), held=held, cash_weight=cash_weight)


def market_block(features: FloatArray, context: FloatArray, tradable: BoolArray) -> Vector:
    """The vector with the book's columns at 0: what depends on the market alone, computed once per row by the simulator."""
    layout = _layout(features, context)
    batch = features.shape[:-2]
    assets = np.zeros((*batch, layout.assets, layout.features + 2), dtype=np.float32)
    vector = np.zeros((*batch, layout.width), dtype=np.float32)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused below
        assets[..., :-2] = np.where(tradable[..., None], features, 0.0)
        vector[..., layout.width - layout.context :] = context
    assets[..., -1] = tradable
    vector[..., : -1 - layout.context] = assets.reshape(*batch, -1)
    if not np.isfinite(vector).all():
        column = int(np.argwhere(~np.isfinite(vector))[0][-1])
        raise ObservationError(f"{_describe(column, layout)} must be finite in float32, was {vector[~np.isfinite(vector)][0]}")
    return vector


def with_book(block: Vector, *, layout: Layout, held: FloatArray, cash_weight: FloatArray | float) -> Vector:
    """A copy of `block` (..., width) with the held weights (..., A) and the cash weight (...) filled in."""
    if not (np.isfinite(held).all() and np.isfinite(cash_weight).all()):
        raise ObservationError(f"held and cash weights must be finite, was {held} and {cash_weight}")
    vector = block.copy()
    pitch = layout.features + 2
    vector[..., layout.features : layout.assets * pitch : pitch] = held
    vector[..., layout.assets * pitch] = cash_weight
    return vector


def unpack(vector: Vector, *, layout: Layout) -> ObservationParts:
    """The parts of observations (..., width), without a copy where memory allows; raises ObservationError on another width."""
    if vector.shape[-1] != layout.width:
        raise ObservationError(f"observation must be {layout.width} wide for {layout.assets} assets, was {vector.shape[-1]}")
    split = layout.assets * (layout.features + 2)
    assets = vector[..., :split].reshape(*vector.shape[:-1], layout.assets, layout.features + 2)
    return ObservationParts(assets=assets, rest=vector[..., split:], tradable=assets[..., -1] > 0.5)


def _layout(features: FloatArray, context: FloatArray) -> Layout:
    return Layout(assets=features.shape[-2], features=features.shape[-1], context=context.shape[-1])


def _describe(column: int, layout: Layout) -> str:
    asset, place = divmod(column, layout.features + 2)
    if asset < layout.assets:
        return f"feature {place} of asset {asset}"
    return f"context feature {column - layout.assets * (layout.features + 2) - 1}"
