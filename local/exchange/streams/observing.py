"""How the streams come to know what happens: an observer of a venue, and an account that tells it of its orders. Nothing is changed."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from local.exchange.book import AccountBook
from local.exchange.orders import ExchangeOrder


class VenueObserver(Protocol):
    """Is told what happens, as it happens."""

    def order_changed(self, order: ExchangeOrder) -> None: ...

    def clock_moved(self, now: datetime) -> None: ...


class ObservedBook(AccountBook):
    """An account whose observer is told each state of an order, once its fill is in the book."""

    observer: VenueObserver | None = None

    def _keep(self, order: ExchangeOrder) -> ExchangeOrder:
        kept = super()._keep(order)
        if self.observer is not None:
            self.observer.order_changed(kept)
        return kept
