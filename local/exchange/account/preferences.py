"""What an account has set: its configurations, of which two refuse orders, and its watchlists. Pure: plain values, one kept for another.

Promise: what cannot be had here (margin, short sales, options, trading at night) cannot be set; what is set and refuses orders does so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import uuid5

from local.exchange.orders import NAMESPACE, Refused, Ticket

Document = dict[str, Any]

#: What holds for this account: cash, no short sales, no options.
FIXED: Mapping[str, Any] = {
    "disable_overnight_trading": True,
    "max_margin_multiplier": "1",
    "max_options_trading_level": 0,
    "no_shorting": True,
}
FREE: Mapping[str, tuple[Any, ...]] = {
    "fractional_trading": (True, False),
    "ptp_no_exception_entry": (False, True),
    "suspend_trade": (False, True),
    "trade_confirm_email": ("none", "all"),
}
#: The vendor's pattern day trader checks ended with the rule; they may be sent, and are nowhere.
ENDED = ("dtbp_check", "pdt_check")
NAME_LENGTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedSymbols:
    """A watchlist: symbols in the order in which they were put on it, each once."""

    id: str
    name: str
    symbols: tuple[str, ...]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """`set_to` has what differs from the beginning; `made` counts watchlists, those included that are gone."""

    set_to: Mapping[str, Any] = field(default_factory=dict)
    watchlists: tuple[WatchedSymbols, ...] = ()
    made: int = 0

    @property
    def configurations(self) -> Document:
        return dict(sorted({**FIXED, **{name: values[0] for name, values in FREE.items()}, **self.set_to}.items()))

    def refuse(self, ticket: Ticket) -> None:
        """Raise `Refused` for an order that the configurations do not allow."""
        if self.configurations["suspend_trade"]:
            raise Refused(403, 40310000, "new orders are rejected by user request")
        whole = ticket.quantity is not None and ticket.quantity == ticket.quantity.to_integral_value()
        if not self.configurations["fractional_trading"] and not whole:
            raise Refused(403, 40310000, "fractional trading is disabled by the account's configurations")

    def configured(self, changes: Document) -> Preferences:
        """With `changes`, of which absent ones are null. Raises `Refused`."""
        wanted = {name: value for name, value in changes.items() if value is not None and name not in ENDED}
        for name, value in wanted.items():
            allowed = (FIXED[name],) if name in FIXED else FREE.get(name)
            if allowed is None:
                raise Refused(422, 40010001, f"{name}: not a configuration of an account")
            if not any(value == one and type(value) is type(one) for one in allowed):
                readable = " or ".join(repr(one) for one in allowed)
                raise Refused(422, 40010001, f"{name} must be {readable}, this is a cash account, was {value!r}")
        return replace(self, set_to={**self.set_to, **wanted})

    def watchlist(self, *, list_id: str | None = None, name: str | None = None) -> WatchedSymbols:
        """By id or name. Raises `Refused` (404)."""
        for one in self.watchlists:
            if one.id == list_id or one.name == name:
                return one
        raise Refused(404, 40410000, f"watchlist not found for {list_id or name}")

    def with_new(self, name: str, symbols: tuple[str, ...], *, account: str, at: datetime) -> Preferences:
        """With another watchlist, the last one. Raises `Refused` for a name that is taken."""
        self._require_free(name)
        list_id = str(uuid5(NAMESPACE, f"{account} watchlist {self.made + 1}"))
        one = WatchedSymbols(id=list_id, name=name, symbols=symbols, created_at=at, updated_at=at)
        return replace(self, watchlists=(*self.watchlists, one), made=self.made + 1)

    def with_changed(self, one: WatchedSymbols, *, at: datetime, name: str, symbols: tuple[str, ...]) -> Preferences:
        """With another name and other symbols for `one`. Raises `Refused` for a name that is another's."""
        if name != one.name:
            self._require_free(name)
        changed = replace(one, name=name, symbols=symbols, updated_at=at)
        return replace(self, watchlists=tuple(changed if kept.id == one.id else kept for kept in self.watchlists))

    def without(self, one: WatchedSymbols) -> Preferences:
        return replace(self, watchlists=tuple(kept for kept in self.watchlists if kept.id != one.id))

    def document(self) -> Document:
        lists = [
            asdict(one) | {"created_at": one.created_at.isoformat(), "updated_at": one.updated_at.isoformat()} for one in self.watchlists
        ]
        return {"set_to": dict(self.set_to), "made": self.made, "watchlists": lists}

    @classmethod
    def from_document(cls, document: Document) -> Preferences:
        lists = tuple(
            WatchedSymbols(
                id=one["id"],
                name=one["name"],
                symbols=tuple(one["symbols"]),
                created_at=datetime.fromisoformat(one["created_at"]),
                updated_at=datetime.fromisoformat(one["updated_at"]),
            )
            for one in document["watchlists"]
        )
        return cls(set_to=document["set_to"], watchlists=lists, made=document["made"])

    def _require_free(self, name: str) -> None:
        if any(one.name == name for one in self.watchlists):
            raise Refused(422, 40010001, f"watchlist name must be unique, was {name!r}")
