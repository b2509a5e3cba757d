"""What became of the account: its activities (fills, splits, dividends where they are credited) and its equity at each close.

An activity's id begins with its time in New York and is the token of the page after it. A day's equity is in the history from eight in the
evening on, which is its time stamp, as the vendor's is. The vendor's profit of a day is the change since the day before (`pnl_reset`
per_day), with no_reset it is that since the base value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal, localcontext
from re import fullmatch

import pandas as pd
from starlette.requests import Request

from local.exchange.http import query
from local.exchange.http.parsing import parse_moment
from local.exchange.http.wire import Answer, Json
from local.exchange.http.wire_account import activity_id, activity_json
from local.exchange.money import CENT, HALF_UP, RATIOS
from local.exchange.orders import Booking, ExchangeFill, Refused, Side
from local.exchange.sessions import NEW_YORK, new_york_date
from local.exchange.venue import Venue

PAGE = 100
EVENING = time(20)
WORDS = (
    "FILL TRANS MISC ACATC ACATS CFEE CGD CSD CSW DIV DIVCGL DIVCGS DIVFEE DIVFT DIVNRA DIVROC DIVTW DIVTXEX FEE INT INTNRA INTTW JNL JNLC "
    "JNLS MA NC OPASN OPCA OPCSH OPEXC OPEXP OPTRD PTC PTR REORG SPIN SPLIT FOPT"
)
TYPES = frozenset(WORDS.split())
INTRADAY = {"1Min": timedelta(minutes=1), "5Min": timedelta(minutes=5), "15Min": timedelta(minutes=15), "1H": timedelta(hours=1)}
INTRADAY_WITHIN = timedelta(days=31)
SIX_DECIMALS = Decimal("1e-6")

Activity = ExchangeFill | Booking
Close = tuple[date, Decimal]


# Activities


def activities(venue: Venue, request: Request, _body: bytes) -> Answer:
    asked = query.words(request, "activity_types")
    category = request.query_params.get("category")
    if asked and category:
        raise Refused(422, 40010001, "only one of activity_types or category is accepted")
    if category:
        fills = query.choice(request, "category", ("trade_activity", "non_trade_activity")) == "trade_activity"
        return 200, _page(venue, request, {"FILL"} if fills else TYPES - {"FILL"})
    return 200, _page(venue, request, set(asked) or TYPES)


def activities_of_type(venue: Venue, request: Request, _body: bytes) -> Answer:
    return 200, _page(venue, request, {request.path_params["activity_type"]})


def _page(venue: Venue, request: Request, types: frozenset[str] | set[str]) -> list[Json]:
    unknown = sorted(types - TYPES)
    if unknown:
        raise Refused(422, 40010001, f"activity type must be one of {', '.join(sorted(TYPES))}, was {unknown[0]!r}")
    descending = query.choice(request, "direction", ("desc", "asc")) == "desc"
    size = query.limit(request, "page_size", default=PAGE, most=PAGE)
    found = [activity for activity in _activities(venue) if _type(activity) in types]
    for wanted in _filters(request):
        found = [activity for activity in found if wanted(activity)]
    if descending:
        found.reverse()
    begin = _after(found, request.query_params.get("page_token"))
    return [activity_json(activity, venue.book.orders) for activity in found[begin : begin + size]]


def _activities(venue: Venue) -> list[Activity]:
    """In the order of time; what an ex-date did came before that day's trades."""
    return sorted([*venue.book.bookings, *venue.book.fills], key=lambda activity: activity.at)


def _type(activity: Activity) -> str:
    return "FILL" if isinstance(activity, ExchangeFill) else activity.kind


def _filters(request: Request) -> Iterator[Callable[[Activity], bool]]:
    asked = request.query_params
    day = query.day(request, "date")
    if day is not None:
        yield lambda activity: new_york_date(activity.at) == day
    if asked.get("after"):
        after = parse_moment(asked["after"], "after")
        yield lambda activity: activity.at > after
    if asked.get("until"):
        until = parse_moment(asked["until"], "until")
        yield lambda activity: activity.at < until


def _after(found: list[Activity], token: str | None) -> int:
    if not token:
        return 0
    for index, activity in enumerate(found):
        if activity_id(activity) == token:
            return index + 1
    raise Refused(422, 40010001, f"page_token must be the id of an activity of the list, was {token!r}")


# Portfolio history


def portfolio_history(venue: Venue, request: Request, _body: bytes) -> Answer:
    frame = query.choice(request, "timeframe", ("1D", *INTRADAY))
    per_day = query.choice(request, "pnl_reset", ("per_day", "no_reset")) == "per_day"
    if frame != "1D":
        return 200, _intraday(venue, request, frame, per_day=per_day)
    closes = [close for close in venue.closes if _evening(close[0]) <= venue.now]
    shown = _chosen(request, closes, today=venue.today)
    days, equities = [day for day, _ in shown], [equity for _, equity in shown]
    before = [close for close in closes if days and close[0] < days[0]][-1:]
    base = (before or shown or [(venue.today, venue.initial_cash)])[0][1]
    since = [base, *equities][: len(shown)] if per_day else [base] * len(shown)
    history = {
        "timestamp": [int(_evening(day).timestamp()) for day in days],
        "equity": [_cents(equity) for equity in equities],
        "profit_loss": [_cents(RATIOS.subtract(equity, basis)) for equity, basis in zip(equities, since, strict=True)],
        "profit_loss_pct": [_growth(equity, basis) for equity, basis in zip(equities, since, strict=True)],
        "base_value": _cents(base),
        "timeframe": "1D",
    }
    if before:
        history["base_value_asof"] = before[0][0].isoformat()
    if not {"ALL", "DIV"}.isdisjoint(query.words(request, "cashflow_types")):
        history["cashflow"] = _cashflow(venue, days)
    return 200, history


def _intraday(venue: Venue, request: Request, frame: str, *, per_day: bool) -> Json:
    """The equity at each step of the sessions asked for, up to now: what the fills and bookings until then left, at the last trade."""
    query.choice(request, "intraday_reporting", ("market_hours",))
    days: list[Close] = [(session.date, Decimal(0)) for session in venue.calendar.between(new_york_date(venue.created_at), venue.today)]
    chosen = [day for day, _ in _chosen(request, days, today=venue.today)]
    if chosen and chosen[-1] - chosen[0] > INTRADAY_WITHIN:
        raise Refused(422, 40010001, f"timeframe {frame} is for {INTRADAY_WITHIN.days} days at most, from {chosen[0]} to {chosen[-1]}")
    sessions = venue.calendar.between(chosen[0], chosen[-1]) if chosen else ()
    steps = (stamp for one in sessions for stamp in _steps(one.open, min(one.close, venue.now), INTRADAY[frame]))
    stamps = [stamp for stamp in steps if stamp >= venue.created_at]
    closed = dict(venue.closes)

    def basis(day: date) -> Decimal:
        return next((closed[before] for before in sorted(closed, reverse=True) if before < day), venue.initial_cash)

    equities = list(_equities(venue, stamps))
    base = basis(chosen[0]) if chosen else venue.initial_cash
    since = [basis(new_york_date(stamp)) if per_day else base for stamp in stamps]
    return {
        "timestamp": [int(stamp.timestamp()) for stamp in stamps],
        "equity": [_cents(equity) for equity in equities],
        "profit_loss": [_cents(RATIOS.subtract(equity, before)) for equity, before in zip(equities, since, strict=True)],
        "profit_loss_pct": [_growth(equity, before) for equity, before in zip(equities, since, strict=True)],
        "base_value": _cents(base),
        "timeframe": frame,
    }


def _steps(start: datetime, end: datetime, step: timedelta) -> Iterator[datetime]:
    while start <= end:
        yield start
        start += step


def _equities(venue: Venue, stamps: list[datetime]) -> Iterator[Decimal]:
    """The account's worth at each of `stamps`, which are in order."""
    activities, done = _activities(venue), 0
    cash, held = venue.initial_cash, dict[str, Decimal]()
    with localcontext(RATIOS):
        for stamp in stamps:
            while done < len(activities) and activities[done].at <= stamp:
                activity = activities[done]
                quantity, amount = _moved_by(activity)
                cash, held[activity.symbol] = cash + amount, held.get(activity.symbol, Decimal(0)) + quantity
                done += 1
            trades = ((quantity, venue.market.last_trade(symbol, stamp)) for symbol, quantity in held.items() if quantity)
            yield cash + sum((quantity * trade.price for quantity, trade in trades if trade is not None), Decimal(0))


def _moved_by(activity: Activity) -> tuple[Decimal, Decimal]:
    """Shares and cash that an activity brought."""
    if isinstance(activity, ExchangeFill):
        sign = 1 if activity.side is Side.BUY else -1
        return sign * activity.quantity, -sign * activity.quantity * activity.price - activity.fee
    return (activity.quantity if activity.kind == "SPLIT" else Decimal(0)), activity.amount


def _chosen(request: Request, closes: list[Close], *, today: date) -> list[Close]:
    """The closes from `start` or for `period` (1M) until `end`; `date_end` is what `end` was called before. nD is so many sessions."""
    asked = request.query_params
    first, last = _day(asked.get("start"), "start"), _day(asked.get("end") or asked.get("date_end"), "end")
    if first and last and asked.get("period"):
        raise Refused(422, 40010001, "only two of start, end and period are accepted")
    last = last or today
    found = [close for close in closes if (first is None or first <= close[0]) and close[0] <= last]
    if first and not asked.get("period"):
        return found
    number, unit = _period(asked.get("period") or "1M")
    if unit == "D":
        return found[:number] if first else found[-number:]
    if first:
        return [close for close in found if close[0] < _moved(first, number, unit)]
    return [close for close in found if close[0] > _moved(last, -number, unit)]


def _period(text: str) -> tuple[int, str]:
    found = fullmatch(r"([1-9][0-9]{0,3})([DWMA])", text)
    if found is None:
        raise Refused(422, 40010001, f"period must be a number from 1 to 9999 and D, W, M or A, was {text!r}")
    return int(found[1]), found[2]


def _moved(day: date, number: int, unit: str) -> date:
    """So many weeks, months or years from `day`, as far as there are dates."""
    steps = {"W": pd.DateOffset(weeks=number), "M": pd.DateOffset(months=number), "A": pd.DateOffset(years=number)}
    try:
        return (pd.Timestamp(day) + steps[unit]).date()
    except (ValueError, OverflowError):
        return date.min if number < 0 else date.max


def _day(text: str | None, name: str) -> date | None:
    if not text:
        return None
    try:
        return new_york_date(parse_moment(text, name))
    except OverflowError as error:
        raise Refused(400, 40010000, f"{name} must be a time that has a date in New York, was {text!r}") from error


def _evening(day: date) -> datetime:
    return datetime.combine(day, EVENING, tzinfo=NEW_YORK)


def _cashflow(venue: Venue, days: list[date]) -> dict[str, list[float]]:
    paid: dict[date, Decimal] = {}
    for booking in venue.book.bookings:
        if booking.kind == "DIV":
            day = new_york_date(booking.at)
            paid[day] = paid.get(day, Decimal(0)) + booking.amount
    return {"DIV": [_cents(paid.get(day, Decimal(0))) for day in days]}


def _cents(amount: Decimal) -> float:
    return float(amount.quantize(CENT, context=HALF_UP))


def _growth(equity: Decimal, basis: Decimal) -> float:
    """An account that began with nothing has no growth; the vendor's schema wants a number there."""
    return float((RATIOS.divide(equity, basis) - 1).quantize(SIX_DECIMALS, context=HALF_UP)) if basis else 0.0
