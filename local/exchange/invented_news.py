"""Headlines that this project wrote itself, so that a replay has something to collect and to score: none of it ever happened.

Each name has 0 to 3 a week of 2020, drawn by name and week from the sentences below: no price is read, so nothing here can foretell one.
Author, source and summary say that they are invented; the headline itself does not, because it is what is scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from random import Random

from local.exchange.sessions import NEW_YORK

YEAR = 2020
SEED = "papertape-news-1"
AUTHOR = "papertape (invented)"
SUMMARY = "Written for a replay of recorded prices; it never happened."
COUNTS = (0, 1, 1, 1, 2, 2, 2, 3)  # of a name and week
WEEKDAYS = (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 6)  # Monday is 0; a few at the weekend
FIRST_MINUTE, LAST_MINUTE = 5 * 60, 20 * 60 - 1  # of the day, New York

COMPANIES = {
    "AAPL": "Apple", "AIG": "AIG", "BAC": "Bank of America", "FB": "Facebook", "GOOG": "Alphabet", "GOOGL": "Alphabet", "IBM": "IBM",
}  # fmt: skip
FUNDS = {"IWM": "Small caps", "QQQ": "Nasdaq 100 shares", "SPY": "Large caps"}
#: What is said of a company, and after it why.
COMPANY_NEWS = (
    "{name} beats estimates by {n}%", "{name} misses estimates by {n}%", "{name} raises its outlook for the year",
    "{name} cuts its outlook for the year", "{name} shares rise {n}%", "{name} shares plunge {n}%", "{name} upgraded to overweight",
    "{name} downgraded to sell", "{name} wins a contract of {n} million dollars", "{name} loses a customer of {n} years",
    "{name} to present at a conference in week {n}", "{name} files its quarterly report", "{name} names a new head of operations",
    "{name} settles a lawsuit for {n} million dollars", "{name} doubles its buyback", "{name} delays a product by {n} weeks",
)  # fmt: skip
COMPANY_REASONS = (
    "as demand grows", "as demand weakens", "after strong orders", "amid fears of a slowdown", "as analysts said", "in a quiet session",
    "on record margins", "as costs rise", "in its home market", "after a review",
)  # fmt: skip
FUND_NEWS = (
    "{name} gain {n}% for the week", "{name} slide {n}% for the week", "{name} little changed", "{name} rally to a high",
    "{name} tumble from a high", "Inflows into {name} reach {n} billion dollars", "Outflows from {name} reach {n} billion dollars",
    "Strategists are optimistic about {name}", "Strategists warn about {name}",
)  # fmt: skip
FUND_REASONS = (
    "as rates fall", "as rates rise", "on hopes for growth", "on fears of recession", "before the holiday", "in thin trading",
    "after mixed data", "as volatility returns",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class InventedHeadline:
    """`at` is UTC; `id` follows from name and time."""

    id: int
    at: datetime
    symbol: str
    headline: str


def invented(symbols: Iterable[str]) -> tuple[InventedHeadline, ...]:
    """The year's headlines about those of `symbols` that there are words for, by time; always the same ones."""
    known = sorted(set(symbols) & (COMPANIES.keys() | FUNDS.keys()))
    return tuple(sorted((one for symbol in known for one in _of(symbol)), key=lambda one: (one.at, one.id)))


def _of(symbol: str) -> Iterator[InventedHeadline]:
    monday = date.fromisocalendar(YEAR, 1, 1)
    while monday.year <= YEAR:
        random = Random(f"{SEED} {symbol} {monday}")
        for at in sorted({_moment(random, monday) for _ in range(random.choice(COUNTS))}):
            headline = _sentence(random, symbol)
            if at.astimezone(NEW_YORK).year == YEAR:
                yield InventedHeadline(id=_id(symbol, at), at=at, symbol=symbol, headline=headline)
        monday += timedelta(weeks=1)


def _moment(random: Random, monday: date) -> datetime:
    day = monday + timedelta(days=random.choice(WEEKDAYS))
    hour, minute = divmod(random.randint(FIRST_MINUTE, LAST_MINUTE), 60)
    return datetime.combine(day, time(hour, minute), tzinfo=NEW_YORK).astimezone(UTC)


def _sentence(random: Random, symbol: str) -> str:
    fund = symbol in FUNDS
    said, why = _pair(random, (FUND_NEWS, FUND_REASONS) if fund else (COMPANY_NEWS, COMPANY_REASONS))
    return f"{said.format(name=(FUNDS if fund else COMPANIES)[symbol], n=random.randint(2, 12))} {why}"


def _pair(random: Random, sentences: tuple[Sequence[str], Sequence[str]]) -> tuple[str, str]:
    return random.choice(sentences[0]), random.choice(sentences[1])


def _id(symbol: str, at: datetime) -> int:
    return int.from_bytes(hashlib.sha256(f"{symbol} {at.isoformat()}".encode()).digest()[:6])
