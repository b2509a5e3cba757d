"""How long an order is good, and when one may be sent: the vendor's rules for `time_in_force`.

| | may be sent | is good |
|--|--|--|
| day | always | until the next close |
| gtc | always | until it is canceled, at most until the last close within 90 days |
| opg | but from 9:28 to 19:00 of a session | at the next open, and not after it |
| cls | but from ten minutes before the close to 19:00 of a session | at the next close |
| ioc, fok | while the market is open | at once; fok only whole |

Times are New York's. The vendor moves the last moment for cls with half days, and so does this.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta

from local.exchange.orders import Refused, TimeInForce
from local.exchange.sessions import NEW_YORK, ExchangeCalendar

AT_ONCE = frozenset({TimeInForce.IOC, TimeInForce.FOK})
BEFORE_THE_OPEN, BEFORE_THE_CLOSE = timedelta(minutes=2), timedelta(minutes=10)
EVENING = time(19)
LONGEST = timedelta(days=90)


def require_timely(word: TimeInForce, *, now: datetime, calendar: ExchangeCalendar) -> None:
    """Raise `Refused` if an order may not be sent now."""
    if word in AT_ONCE and not calendar.is_open(now):
        raise Refused(422, 42210000, f"{word} orders are accepted while the market is open, it is closed")
    if word not in (TimeInForce.OPG, TimeInForce.CLS):
        return
    local = now.astimezone(NEW_YORK)
    for session in calendar.between(local.date(), local.date()):
        last = session.open - BEFORE_THE_OPEN if word is TimeInForce.OPG else session.close - BEFORE_THE_CLOSE
        if last <= now and local.time() < EVENING:
            raise Refused(403, 40310000, f"{word} orders must be submitted after 7:00pm and before {_clock(last)}")


def expiry(word: TimeInForce, *, now: datetime, calendar: ExchangeCalendar) -> datetime:
    """The moment at which an order that is sent now ends, if nothing has ended it before."""
    if word is TimeInForce.OPG:
        return calendar.next_open(now)
    if word is TimeInForce.GTC:
        return max(calendar.next_close(now), calendar.last_close(now + LONGEST))
    return calendar.next_close(now)


def _clock(moment: datetime) -> str:
    return moment.astimezone(NEW_YORK).strftime("%I:%M%p").lstrip("0").lower()
