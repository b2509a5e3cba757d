"""What one client of the market-data stream says, and what it is answered: authentication and its subscription. Pure.

The words and codes are the vendor's. A subscription is answered with the whole of it; a client of which trades are asked is subscribed to
their corrections as well, of which none is recorded.
"""

from __future__ import annotations

from typing import Any

from local.exchange.http.wire import Json
from local.exchange.streams.market_events import CHANNELS

#: In the order in which an answer lists them.
LISTED = ("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds")
ERRORS = {
    400: "invalid syntax",
    401: "not authenticated",
    402: "auth failed",
    403: "already authenticated",
    404: "auth timeout",
    405: "symbol limit exceeded",
    406: "connection limit exceeded",
    407: "slow client",
}
CONNECTED: Json = {"T": "success", "msg": "connected"}
AUTHENTICATED: Json = {"T": "success", "msg": "authenticated"}


def error(code: int) -> Json:
    return {"T": "error", "code": code, "msg": ERRORS[code]}


class MarketSession:
    """`keys` is the accepted pair, None when there is none; `most_symbols` of trades and of quotes each, None for any number."""

    def __init__(self, *, keys: tuple[str, str] | None, most_symbols: int | None = None) -> None:
        self._keys, self._most_symbols = keys, most_symbols
        self.authorized = False
        self._subscribed: dict[str, list[str]] = {channel: [] for channel in CHANNELS}

    def wants(self, channel: str, symbol: str) -> bool:
        names = self._subscribed[channel]
        return symbol in names or "*" in names

    def authorize(self, key: object, secret: object) -> Json:
        if self.authorized:
            return error(403)
        self.authorized = self._keys is not None and (key, secret) == self._keys
        return AUTHENTICATED if self.authorized else error(402)

    def receive(self, message: Any) -> Json:
        """The answer to a message of the client."""
        if not isinstance(message, dict):
            return error(400)
        action = message.get("action")
        if action == "auth":
            return self.authorize(message.get("key"), message.get("secret"))
        if action not in ("subscribe", "unsubscribe"):
            return error(400)
        return self._change(message, adds=action == "subscribe") if self.authorized else error(401)

    def _change(self, message: Json, *, adds: bool) -> Json:
        asked = {channel: names for channel, names in message.items() if channel != "action"}
        if not asked or not all(_is_channel(channel) and _are_names(names) for channel, names in asked.items()):
            return error(400)
        changed = {channel: list(names) for channel, names in self._subscribed.items()}
        for channel in CHANNELS:
            before, names = changed[channel], asked.get(channel, [])
            if adds:
                changed[channel] = before + [name for name in dict.fromkeys(names) if name not in before]
            else:
                changed[channel] = [name for name in before if name not in names]
        if self._most_symbols is not None and any(len(changed[name]) > self._most_symbols for name in ("trades", "quotes")):
            return error(405)
        self._subscribed = changed
        return self.subscription

    @property
    def subscription(self) -> Json:
        listed = {channel: self._subscribed[channel] for channel in LISTED}
        return {"T": "subscription", **listed, "corrections": listed["trades"], "cancelErrors": listed["trades"]}


def _is_channel(name: str) -> bool:
    return name in CHANNELS or name in ("corrections", "cancelErrors")


def _are_names(names: object) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)
