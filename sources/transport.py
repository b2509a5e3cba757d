"""How a call travels to a vendor of data: one GET with timeouts, a rate budget, and the port's outcomes. Only `requests`.

Promises: a key never stands in an error, a log or a URL that is shown; no proxy or netrc of the environment is used; a redirect is not
followed. A 429 is waited out where the vendor says for how long and that is short; otherwise `SourceLimited`. A 401 or 403 is
`SourceRefused`, as is what else the vendor says so with; a redirect or another 4xx `SourceInvalid`, a 5xx, a broken body or a timeout
`SourceUnavailable` after two more tries.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any
from urllib.parse import quote, quote_plus

import requests

from schema.loopback import is_loopback
from sources.port import SourceInvalid, SourceLimited, SourceRefused, SourceUnavailable

TIMEOUTS = (3.0, 10.0)  # seconds to connect, and between bytes
ATTEMPTS = 3
PAUSE = 0.5  # seconds before the second try, three times as long before the third
LONGEST_PAUSE = 5.0
DAY = 86_400.0
SHORTEST_KEY = 4  # shorter than this it is a word that may stand in any text


class VendorTransport:
    """One vendor's address and budget: at most `per_minute` calls in any 60 seconds of this process, `per_day` in any 24 hours of it."""

    def __init__(
        self,
        *,
        source: str,
        url: str,
        per_minute: int,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        per_day: int | None = None,
        spacing: float = 0.0,
        refused: Callable[[int, str], bool] = lambda status, _text: status in {401, 403},
        remedy: str = "check the key and what its plan allows",
        timeouts: tuple[float, float] = TIMEOUTS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`headers` and `params` go with every call; a key may stand in either.

        Raises `SourceRefused` for an address that is not https, and for a header that cannot be sent, such as a key with a line break.

        Args:
            spacing: seconds between two calls, for vendors that count by the second.
            refused: whether a status other than 200 and its body say that the key or the session is refused.
            remedy: what to do then, the end of that sentence.
        """
        if not url.startswith("https://") and not is_loopback(url):
            raise SourceRefused(
                f"{source}: its address must begin with https://, or be this machine's, was {url}; keys are not sent in clear"
            )
        if any(value != value.strip() or not (value.isascii() and value.isprintable()) for value in (headers or {}).values()):
            raise SourceRefused(f"{source}: its key has a blank, a line break or another character that no key has; {remedy}")
        self.source = source
        self._url, self._per_minute, self._per_day, self._spacing = url.rstrip("/"), per_minute, per_day, spacing
        self._params = dict(params or {})
        self._refused, self._remedy, self._timeouts = refused, remedy, timeouts
        self._sleep, self._clock = sleep, clock
        self._asked: deque[float] = deque()
        self._today: deque[float] = deque()
        self._secrets = _secrets(headers or {}, self._params)
        _LOGGED.secrets |= set(self._secrets)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.update(headers or {})

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """Parsed JSON of a 200; raises the port's errors. Whether the vendor calls it an error inside is the adapter's to see."""
        problem = ""
        for attempt in range(ATTEMPTS):
            pause = PAUSE * 3**attempt
            self._spend()
            try:
                response = self._session.get(
                    f"{self._url}{path}", params={**(params or {}), **self._params}, timeout=self._timeouts, allow_redirects=False
                )
                if response.status_code == 200:
                    return response.json()
            except (requests.RequestException, ValueError, RecursionError) as error:  # the last two: of a body that is no usable JSON
                problem = type(error).__name__
            else:
                problem = f"{response.status_code}: {self.redacted(response.text)}"
                pause = self._pause_or_raise(response, path, problem, otherwise=pause)
            if attempt + 1 < ATTEMPTS:
                self._sleep(pause)
        if problem.startswith("429"):
            raise SourceLimited(f"{self.source}: the rate limit is used up ({path})")
        raise SourceUnavailable(f"{self.source} did not answer {path} ({problem})")

    def _pause_or_raise(self, response: requests.Response, path: str, problem: str, *, otherwise: float) -> float:
        """Seconds until another try, for what may pass; the port's error for what does not."""
        status = response.status_code
        if self._refused(status, response.text):
            raise SourceRefused(f"{self.source} refused {path} ({problem}); {self._remedy}")
        if status == 429:
            pause = _until_reset(response.headers, otherwise=otherwise)
            if pause > LONGEST_PAUSE:
                raise SourceLimited(f"{self.source}: the rate limit is used up for {pause:.0f} s ({path})")
            return pause
        if status < 500:
            raise SourceInvalid(f"{self.source} does not take {path} ({problem})")
        return otherwise

    @property
    def left_today(self) -> int | None:
        """How many calls the day's budget still holds; None without one."""
        while self._today and self._clock() - self._today[0] >= DAY:
            self._today.popleft()
        return None if self._per_day is None else self._per_day - len(self._today)

    def _spend(self) -> None:
        """Wait until one more call is within the minute's budget; `SourceLimited` when it is not within the day's."""
        if self.left_today is not None and self.left_today <= 0:
            raise SourceLimited(f"{self.source}: the {self._per_day} calls of a day are used up; go on tomorrow")
        if self._asked and self._clock() - self._asked[-1] < self._spacing:
            self._sleep(self._spacing - (self._clock() - self._asked[-1]))
        while self._asked and self._clock() - self._asked[0] >= 60:
            self._asked.popleft()
        if len(self._asked) >= self._per_minute:
            self._sleep(max(0.0, 60 - (self._clock() - self._asked.popleft())))
        self._asked.append(self._clock())
        self._today.append(self._clock())

    def shown(self, value: Any) -> str:
        """What the vendor sent in place of something else: its type and how it begins, without a key."""
        return f"{type(value).__name__} {self.redacted(str(value))[:60]!r}"

    def redacted(self, text: str) -> str:
        """The beginning of what the vendor said, on one line, without anything that was sent as a key."""
        return " ".join(_hidden(text, self._secrets).split())[:200]


class _WithoutKeys(logging.Filter):
    """Takes the keys of every transport out of the addresses that urllib3 logs."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        hidden = _hidden(message, sorted(self.secrets, key=len, reverse=True))
        if hidden != message:
            record.msg, record.args = hidden, ()
        return True


_LOGGED = _WithoutKeys()
logging.getLogger("urllib3.connectionpool").addFilter(_LOGGED)


def _hidden(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _secrets(headers: Mapping[str, str], params: Mapping[str, str]) -> tuple[str, ...]:
    """What may not be shown, the longest first: each value, each word of it (`Bearer ...`), and as an address writes it."""
    words = {word for value in (*headers.values(), *params.values()) for word in (value, *value.split())}
    written = {form for word in words if len(word) >= SHORTEST_KEY for form in (word, quote(word, safe=""), quote_plus(word))}
    return tuple(sorted(written - {"Bearer"}, key=len, reverse=True))


def _until_reset(headers: Mapping[str, str], *, otherwise: float) -> float:
    """Seconds, by `Retry-After`, or by the epoch of `x-rate-limit-reset` (X) or `x-ratelimit-reset` (Alpaca, Finnhub)."""
    try:
        waits = headers.get("Retry-After")
        reset = headers.get("x-rate-limit-reset") or headers.get("x-ratelimit-reset")
        seconds = float(waits) if waits is not None else float(reset or "nan") - time.time()
    except ValueError:
        return otherwise
    return max(seconds, 0.0) if isfinite(seconds) else otherwise
