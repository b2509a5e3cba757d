"""What an account has set and watches, what was announced, and the day's movers: small routes that bots ask before they trade."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

from starlette.requests import Request

from local.exchange.account.preferences import NAME_LENGTH, Preferences, WatchedSymbols
from local.exchange.http import query
from local.exchange.http.parsing import parse_json
from local.exchange.http.routes_account import asset_of
from local.exchange.http.wire import Answer, Json, utc
from local.exchange.http.wire_market import action_json
from local.exchange.money import HALF_UP, RATIOS, plain
from local.exchange.orders import Refused
from local.exchange.recorded_market import Action
from local.exchange.venue import Venue

ANNOUNCED_WITHIN = timedelta(days=90)
ANNOUNCEMENTS = ("dividend", "merger", "spinoff", "split")
MOST_MOVERS, MOST_ACTIVE = 50, 100


# Configurations


def configurations(venue: Venue, _request: Request, _body: bytes) -> Answer:
    return 200, venue.preferences.configurations


def configure(venue: Venue, request: Request, body: bytes) -> Answer:
    venue.prefer(venue.preferences.configured(parse_json(body)))
    return configurations(venue, request, body)


# Watchlists


def watchlists(venue: Venue, _request: Request, _body: bytes) -> Answer:
    return 200, [_list_json(venue, one) for one in venue.preferences.watchlists]


def new_watchlist(venue: Venue, _request: Request, body: bytes) -> Answer:
    document = parse_json(body)
    preferences = venue.preferences.with_new(_name(document), _symbols(venue, document) or (), account=venue.account_id, at=venue.now)
    return _preferred(venue, preferences, preferences.watchlists[-1].id)


def watchlist(venue: Venue, request: Request, _body: bytes) -> Answer:
    return 200, _whole_json(venue, _asked(venue, request))


def change_watchlist(venue: Venue, request: Request, body: bytes) -> Answer:
    """Another name, and other symbols if there are any; without them they stay."""
    one, document = _asked(venue, request), parse_json(body)
    symbols = _symbols(venue, document)
    changed = venue.preferences.with_changed(one, at=venue.now, name=_name(document), symbols=one.symbols if symbols is None else symbols)
    return _preferred(venue, changed, one.id)


def watch_symbol(venue: Venue, request: Request, body: bytes) -> Answer:
    one, symbol = _asked(venue, request), parse_json(body).get("symbol")
    (known,) = _known(venue, [symbol])
    if known in one.symbols:
        raise Refused(422, 40010001, f"{known} is on the watchlist already")
    return _preferred(venue, venue.preferences.with_changed(one, at=venue.now, name=one.name, symbols=(*one.symbols, known)), one.id)


def unwatch_symbol(venue: Venue, request: Request, _body: bytes) -> Answer:
    one, symbol = _asked(venue, request), request.path_params["symbol"]
    if symbol not in one.symbols:
        raise Refused(404, 40410000, f"{symbol} is not on the watchlist")
    left = tuple(kept for kept in one.symbols if kept != symbol)
    return _preferred(venue, venue.preferences.with_changed(one, at=venue.now, name=one.name, symbols=left), one.id)


def remove_watchlist(venue: Venue, request: Request, _body: bytes) -> Answer:
    venue.prefer(venue.preferences.without(_asked(venue, request)))
    return 204, None


def _asked(venue: Venue, request: Request) -> WatchedSymbols:
    list_id = request.path_params.get("watchlist_id")
    if list_id is not None:
        return venue.preferences.watchlist(list_id=list_id.lower())
    return venue.preferences.watchlist(name=request.query_params.get("name", ""))


def _preferred(venue: Venue, preferences: Preferences, list_id: str) -> Answer:
    venue.prefer(preferences)
    return 200, _whole_json(venue, preferences.watchlist(list_id=list_id))


def _name(document: Json) -> str:
    name = document.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH or not name.isprintable():
        raise Refused(422, 40010001, f"name must be printable text of 1 to {NAME_LENGTH} characters, was {name!r}")
    return name


def _symbols(venue: Venue, document: Json) -> tuple[str, ...] | None:
    symbols = document.get("symbols")
    if symbols is None:
        return None
    if not isinstance(symbols, list):
        raise Refused(422, 40010001, f"symbols must be a list, was {symbols!r}")
    return _known(venue, [symbol for symbol in symbols if symbol is not None])


def _known(venue: Venue, symbols: list[object]) -> tuple[str, ...]:
    for symbol in symbols:
        if not isinstance(symbol, str) or symbol not in venue.market.symbols:
            raise Refused(422, 40010001, f"asset not found for {symbol!r}")
    return tuple(dict.fromkeys(str(symbol) for symbol in symbols))


def _list_json(venue: Venue, one: WatchedSymbols) -> Json:
    times = {"created_at": utc(one.created_at), "updated_at": utc(one.updated_at)}
    return {"id": one.id, "account_id": venue.account_id, "name": one.name, **times}


def _whole_json(venue: Venue, one: WatchedSymbols) -> Json:
    return {**_list_json(venue, one), "assets": [asset_of(venue, symbol) for symbol in one.symbols]}


# Announcements


def announcements(venue: Venue, request: Request, _body: bytes) -> Answer:
    """Listed from the ex-date on: there is no earlier record of them. By ex-date, or by the day on which they are paid."""
    types = {word.lower() for word in query.words(request, "ca_types")}
    if not types or not types <= set(ANNOUNCEMENTS):
        raise Refused(422, 40010001, f"ca_types must be some of {', '.join(ANNOUNCEMENTS)}, was {','.join(sorted(types))!r}")
    since, until = _required_day(request, "since"), _required_day(request, "until")
    if not since <= until <= since + ANNOUNCED_WITHIN if since < date.max - ANNOUNCED_WITHIN else True:
        raise Refused(422, 40010001, f"until must lie within {ANNOUNCED_WITHIN.days} days after since, {since}, was {until}")
    by_ex_date = query.choice(request, "date_type", ("ex_date", "payable_date")) == "ex_date"
    symbol, cusip = (request.query_params.get(name) for name in ("symbol", "cusip"))
    found = [
        _announcement_json(action)
        for action in _announced(venue)
        if action.kind in types and since <= (action.ex_date if by_ex_date else action.process_date) <= until
        if (not symbol or action.symbol == symbol) and not cusip
    ]
    return 200, found


def announcement(venue: Venue, request: Request, _body: bytes) -> Answer:
    for action in _announced(venue):
        if (found := _announcement_json(action))["id"] == request.path_params["id"]:
            return 200, found
    raise Refused(404, 40410000, f"announcement not found for {request.path_params['id']}")


def _announced(venue: Venue) -> list[Action]:
    return [action for action in venue.market.actions if action.ex_date <= venue.today]


def _required_day(request: Request, name: str) -> date:
    day = query.day(request, name)
    if day is None:
        raise Refused(422, 40010001, f"{name} is required")
    return day


def _announcement_json(action: Action) -> Json:
    kind, listed = action_json(action)
    split = action.kind == "split"
    sub_type = "cash" if not split else "stock_split" if kind == "forward_splits" else "reverse_split"
    old_rate = Decimal(1) if not split or action.value > 1 else RATIOS.divide(Decimal(1), action.value)
    new_rate = action.value if split and action.value > 1 else Decimal(1)
    return {
        "id": listed["id"],
        "corporate_action_id": listed["id"],
        "ca_type": action.kind,
        "ca_sub_type": sub_type,
        "initiating_symbol": action.symbol,
        "initiating_original_cusip": "",
        "target_symbol": action.symbol,
        "target_original_cusip": "",
        "ex_date": action.ex_date.isoformat(),
        "payable_date": action.process_date.isoformat(),
        "cash": "0" if split else plain(action.value),
        "old_rate": plain(old_rate.quantize(Decimal("1e-6"), context=HALF_UP)),
        "new_rate": plain(new_rate.quantize(Decimal("1e-6"), context=HALF_UP)),
    }


# The screener


def movers(venue: Venue, request: Request, _body: bytes) -> Answer:
    """The last trade against the close of the session before, in today's shares."""
    if request.path_params["market_type"] != "stocks":
        raise Refused(400, 40010000, f"market_type must be stocks, was {request.path_params['market_type']!r}")
    top = query.limit(request, "top", default=10, most=MOST_MOVERS)
    moved = sorted((row for symbol in venue.market.symbols if (row := _mover(venue, symbol))), key=lambda row: row["percent_change"])
    losers = [row for row in moved if row["percent_change"] < 0][:top]
    gainers = [row for row in reversed(moved) if row["percent_change"] > 0][:top]
    return 200, {"gainers": gainers, "losers": losers, "market_type": "stocks", "last_updated": utc(venue.now)}


def most_actives(venue: Venue, request: Request, _body: bytes) -> Answer:
    """By the volume of the last session as far as it has run; trades were not counted, and `trade_count` is 0."""
    query.choice(request, "by", ("volume",))
    top = query.limit(request, "top", default=10, most=MOST_ACTIVE)
    days = {symbol: venue.market.session_bars(symbol, venue.now)[0] for symbol in venue.market.symbols if venue.tradable(symbol)}
    active = sorted(((day.volume, symbol) for symbol, day in days.items() if day is not None), key=lambda row: (-row[0], row[1]))
    rows = [{"symbol": symbol, "volume": volume, "trade_count": 0} for volume, symbol in active[:top]]
    return 200, {"most_actives": rows, "last_updated": utc(venue.now)}


def _mover(venue: Venue, symbol: str) -> Json | None:
    before, trade = venue.market.previous_close(symbol, venue.now), venue.last_trade(symbol)
    if before is None or trade is None or not venue.tradable(symbol):
        return None
    change = RATIOS.subtract(trade.price, before)
    percent = RATIOS.multiply(RATIOS.divide(change, before), Decimal(100))
    rounded = (float(number.quantize(Decimal("0.01"), context=HALF_UP)) for number in (change, percent))
    return {"symbol": symbol, "price": float(trade.price), **dict(zip(("change", "percent_change"), rounded, strict=True))}
