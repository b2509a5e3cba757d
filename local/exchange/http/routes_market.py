"""Market data as it could be known at the exchange's clock: bars, quotes, trades, snapshots, corporate actions, news.

Minute bars are those of minutes that have ended, and longer ones are put together of them; from a day on, bars are put together of daily
ones, and that of the running session is as far as it is known: its open and the minutes since. There is one quote and one trade per minute,
its last. No news was recorded: what is served with the bundled bars is invented, and says so (`local.exchange.invented_news`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Generic, TypeVar

from starlette.requests import Request

from local.exchange.http import query, wire_market
from local.exchange.http.parsing import page_token, parse_moment, parse_page_token
from local.exchange.http.wire import Answer, Json, utc
from local.exchange.market.adjusting import KINDS, AdjustmentError, kinds_of
from local.exchange.market.timeframes import ALLOWED, Timeframe, Unit, timeframe_of, together
from local.exchange.orders import Refused
from local.exchange.recorded_market import RecordedBar, RecordedQuote, RecordedTrade
from local.exchange.sessions import new_york_midnight
from local.exchange.venue import Venue

PAGE = 10_000
ACTIONS_PAGE = 1_000
NEWS_PAGE = 50
TICK = timedelta(microseconds=1)
EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
#: How far a bar's parts may lie behind its beginning.
LONGEST: dict[Unit, timedelta] = {
    "minute": timedelta(hours=24),
    "day": timedelta(0),
    "week": timedelta(days=7),
    "month": timedelta(days=366),
}
ONE_MINUTE = Timeframe(1, "minute")
ORDERS_OF_TIME = ("asc", "desc")

Row = TypeVar("Row", RecordedBar, RecordedQuote, RecordedTrade)


# Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Series(Generic[Row]):
    """Rows from `start` to `end`, when each was, how it is printed; `of` gives those of a symbol and span, the last first if asked so."""

    name: str
    of: Callable[[str, datetime, datetime, bool], Iterable[Row]]
    start: datetime
    end: datetime
    at: Callable[[Row], datetime]
    shown: Callable[[str, Row], Json]


def bars(venue: Venue, request: Request, _body: bytes) -> Answer:
    return _of_many(request, _bars(venue, request))


def symbol_bars(venue: Venue, request: Request, _body: bytes) -> Answer:
    return _of_one(request, _bars(venue, request))


def quotes(venue: Venue, request: Request, _body: bytes) -> Answer:
    return _of_many(request, _quotes(venue, request))


def symbol_quotes(venue: Venue, request: Request, _body: bytes) -> Answer:
    return _of_one(request, _quotes(venue, request))


def trades(venue: Venue, request: Request, _body: bytes) -> Answer:
    return _of_many(request, _trades(venue, request))


def symbol_trades(venue: Venue, request: Request, _body: bytes) -> Answer:
    return _of_one(request, _trades(venue, request))


def _bars(venue: Venue, request: Request) -> Series[RecordedBar]:
    asked = request.query_params
    frame = timeframe_of(asked.get("timeframe", ""))
    if frame is None:
        raise Refused(400, 40010000, f"timeframe must be {ALLOWED}, was {asked.get('timeframe')!r}")
    kinds = kinds_of(asked.get("adjustment") or "raw")
    if kinds is None:
        raise Refused(400, 40010000, f"adjustment must be all, or some of {', '.join(KINDS)} with commas, was {asked['adjustment']!r}")
    start, end = _span(venue, request)
    return Series(
        name="bars",
        of=lambda symbol, first, last, descending: _of_frame(venue, symbol, (first, last), frame, kinds, descending=descending),
        start=start,
        end=end,
        at=lambda bar: bar.start,
        shown=lambda _, bar: wire_market.bar_json(bar),
    )


def _of_frame(
    venue: Venue, symbol: str, span: tuple[datetime, datetime], frame: Timeframe, kinds: frozenset[str], *, descending: bool
) -> Iterator[RecordedBar]:
    """Bars that begin in `span`, whole: what they are put together of may lie after its end."""
    market, (start, end) = venue.market, span
    last = end if end >= venue.now else end + LONGEST[frame.unit]
    try:
        adjusted = market.adjustment(symbol, kinds, venue.now)
    except AdjustmentError as error:
        raise Refused(422, 42210000, str(error)) from error
    if frame == ONE_MINUTE:
        return map(adjusted, market.minutes_in(symbol, start=start, end=end, now=venue.now, descending=descending))
    if frame.of_minutes:
        parts = market.minutes_in(symbol, start=start, end=last, now=venue.now, descending=descending)
    else:
        days = market.daily_bars(symbol, start=start, end=last, now=venue.now)
        parts = reversed(days) if descending else iter(days)
    bars = together(map(adjusted, parts), frame.begins, descending=descending)
    return (bar for bar in bars if start <= bar.start <= end)


def _quotes(venue: Venue, request: Request) -> Series[RecordedQuote]:
    recorded = venue.market.minute_quotes
    start, end = _span(venue, request)
    return Series(
        name="quotes",
        of=lambda symbol, first, last, descending: recorded(symbol, start=first, end=last, now=venue.now, descending=descending),
        start=start,
        end=end,
        at=lambda quote: quote.at,
        shown=wire_market.quote_json,
    )


def _trades(venue: Venue, request: Request) -> Series[RecordedTrade]:
    recorded = venue.market.minute_trades
    start, end = _span(venue, request)
    return Series(
        name="trades",
        of=lambda symbol, first, last, descending: recorded(symbol, start=first, end=last, now=venue.now, descending=descending),
        start=start,
        end=end,
        at=lambda trade: trade.at,
        shown=wire_market.trade_json,
    )


def _span(venue: Venue, request: Request) -> tuple[datetime, datetime]:
    """From `start` to `end`; without them today until now."""
    start, end = (request.query_params.get(name) for name in ("start", "end"))
    return (
        parse_moment(start, "start") if start else new_york_midnight(venue.today),
        parse_moment(end, "end", end_of_day=True) if end else venue.now,
    )


def _of_many(request: Request, series: Series[Row]) -> Answer:
    page, token = _page(request, series, query.symbols(request))
    return 200, {series.name: page, "next_page_token": token}


def _of_one(request: Request, series: Series[Row]) -> Answer:
    symbol = request.path_params["symbol"]
    page, token = _page(request, series, [symbol])
    return 200, {series.name: page.get(symbol, []), "symbol": symbol, "next_page_token": token}


def _page(request: Request, series: Series[Row], symbols: Iterable[str]) -> tuple[dict[str, list[Json]], str | None]:
    """At most `limit` rows by symbol, then time; `page_token` and the token that is returned name the last row of a page."""
    query.require_recorded(request)
    descending = query.choice(request, "sort", ORDERS_OF_TIME) == "desc"
    limit = query.limit(request, default=1000, most=PAGE)
    last_symbol, last_at = _position(request.query_params.get("page_token"))
    page: dict[str, list[Json]] = {}
    last: tuple[str, Row] | None = None
    for symbol in sorted(set(symbols)):
        if symbol < last_symbol:
            continue
        start, end = series.start, series.end
        if symbol == last_symbol:
            start, end = (start, min(end, last_at - TICK)) if descending else (max(start, last_at + TICK), end)
        rows = list(islice(series.of(symbol, start, end, descending), limit + 1))
        if rows and limit == 0 and last is not None:
            return page, _token(series, *last)
        taken = rows[:limit]
        if taken:
            page[symbol] = [series.shown(symbol, row) for row in taken]
            last = symbol, taken[-1]
            limit -= len(taken)
        if len(taken) < len(rows) and last is not None:
            return page, _token(series, *last)
    return page, None


def _token(series: Series[Row], symbol: str, row: Row) -> str:
    return page_token(f"{symbol}|{utc(series.at(row))}")


def _position(token: str | None) -> tuple[str, datetime]:
    if not token:
        return "", EARLIEST
    symbol, separator, moment = parse_page_token(token).partition("|")
    if not separator:
        raise Refused(400, 40010000, f"page_token is invalid, was {token!r}")
    at = parse_moment(moment, "page_token")
    if not EARLIEST < at < LATEST:
        raise Refused(400, 40010000, f"page_token is invalid, was {token!r}")
    return symbol, at


# The latest


def latest_bars(venue: Venue, request: Request, _body: bytes) -> Answer:
    return 200, {"bars": _each(venue, request, _latest_bar)}


def latest_bar(venue: Venue, request: Request, _body: bytes) -> Answer:
    return _one(venue, request, "bar", _latest_bar)


def latest_quotes(venue: Venue, request: Request, _body: bytes) -> Answer:
    return 200, {"quotes": _each(venue, request, _latest_quote)}


def latest_quote(venue: Venue, request: Request, _body: bytes) -> Answer:
    return _one(venue, request, "quote", _latest_quote)


def latest_trades(venue: Venue, request: Request, _body: bytes) -> Answer:
    return 200, {"trades": _each(venue, request, _latest_trade)}


def latest_trade(venue: Venue, request: Request, _body: bytes) -> Answer:
    return _one(venue, request, "trade", _latest_trade)


def snapshots(venue: Venue, request: Request, _body: bytes) -> Answer:
    return 200, _each(venue, request, _snapshot)


def snapshot(venue: Venue, request: Request, _body: bytes) -> Answer:
    symbol = request.path_params["symbol"]
    return 200, {"symbol": symbol, **_found(venue, request, "snapshot", _snapshot)}


def _each(venue: Venue, request: Request, latest: Callable[[Venue, str], Json | None]) -> dict[str, Json]:
    """By symbol; what is not known of a symbol is left out, as the vendor does."""
    asked = query.symbols(request)
    query.require_recorded(request)
    found = {symbol: latest(venue, symbol) for symbol in asked if symbol in venue.market.symbols}
    return {symbol: content for symbol, content in found.items() if content is not None}


def _one(venue: Venue, request: Request, name: str, latest: Callable[[Venue, str], Json | None]) -> Answer:
    return 200, {"symbol": request.path_params["symbol"], name: _found(venue, request, name, latest)}


def _found(venue: Venue, request: Request, name: str, latest: Callable[[Venue, str], Json | None]) -> Json:
    symbol = request.path_params["symbol"]
    query.require_recorded(request)
    content = latest(venue, symbol) if symbol in venue.market.symbols else None
    if content is None:
        raise Refused(404, 40410000, f"no {name} found for {symbol}")
    return content


def _latest_bar(venue: Venue, symbol: str) -> Json | None:
    minute = venue.market.latest_minute(symbol, venue.now)
    return wire_market.bar_json(minute) if minute is not None else None


def _latest_quote(venue: Venue, symbol: str) -> Json | None:
    quote = venue.market.quote(symbol, venue.now)
    return wire_market.quote_json(symbol, quote) if quote is not None else None


def _latest_trade(venue: Venue, symbol: str) -> Json | None:
    trade = venue.last_trade(symbol)
    return wire_market.trade_json(symbol, trade) if trade is not None else None


def _snapshot(venue: Venue, symbol: str) -> Json | None:
    day, before = venue.market.session_bars(symbol, venue.now)
    parts = {
        "latestTrade": _latest_trade(venue, symbol),
        "latestQuote": _latest_quote(venue, symbol),
        "minuteBar": _latest_bar(venue, symbol),
        "dailyBar": wire_market.bar_json(day) if day is not None else None,
        "prevDailyBar": wire_market.bar_json(before) if before is not None else None,
    }
    return {name: part for name, part in parts.items() if part is not None} or None


# Corporate actions and news


def corporate_actions(venue: Venue, request: Request, _body: bytes) -> Answer:
    asked = request.query_params
    start, end = (query.day(request, name) or venue.today for name in ("start", "end"))
    symbols = query.symbols(request) if asked.get("symbols") else venue.market.symbols
    types = set(query.words(request, "types"))
    ids = set(query.words(request, "ids"))
    recorded = query.choice(request, "region", ("us", "non_us", "all")) != "non_us" and not asked.get("cusips")
    actions = venue.market.actions_between(start=start, end=end, now=venue.now) if recorded else []
    listed = [wire_market.action_json(action) for action in actions if action.symbol in symbols]
    if query.choice(request, "sort", ORDERS_OF_TIME) == "desc":
        listed.reverse()
    wanted = [(k, a) for k, a in listed if (not types or k.removesuffix("s") in types) and (not ids or a["id"] in ids)]
    offset, limit = query.offset(asked.get("page_token")), query.limit(request, default=100, most=ACTIONS_PAGE)
    page: dict[str, list[Any]] = {}
    for kind, action in wanted[offset : offset + limit]:
        page.setdefault(kind, []).append(action)
    more = offset + limit < len(wanted)
    return 200, {"corporate_actions": page, "next_page_token": page_token(str(offset + limit)) if more else None}


def news(venue: Venue, request: Request, _body: bytes) -> Answer:
    """By time, the newest first; `page_token` names the last article of a page. Every article has its content, asked for or not."""
    asked = request.query_params
    limit = query.limit(request, default=10, most=NEWS_PAGE)
    descending = query.choice(request, "sort", ("desc", "asc")) == "desc"
    for name in ("include_content", "exclude_contentless"):
        query.flag(request, name)
    start, end = _span(venue, request)
    symbols = set(query.words(request, "symbols"))
    found = [one for one in venue.news if start <= one.at <= min(end, venue.now) and (not symbols or one.symbol in symbols)]
    if descending:
        found.reverse()
    if last := _article(asked.get("page_token")):
        found = [one for one in found if ((one.at, one.id) < last if descending else (one.at, one.id) > last)]
    page = found[:limit]
    more = len(found) > limit
    token = page_token(f"{page[-1].id}|{utc(page[-1].at)}") if more else None
    return 200, {"news": [wire_market.news_json(one) for one in page], "next_page_token": token}


def _article(token: str | None) -> tuple[datetime, int] | None:
    if not token:
        return None
    number, _, moment = parse_page_token(token).partition("|")
    if not number.isdecimal():
        raise Refused(400, 40010000, f"page_token is invalid, was {token!r}")
    return parse_moment(moment, "page_token"), int(number)
