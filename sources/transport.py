"""How a call travels to a vendor of data: one GET with timeouts, a rate budget, and the port's outcomes. Only `requests`.

Promises: a key never stands in an error, a log or a URL that is shown; no proxy or netrc of the environment is used; a redirect is not
followed. A 429 is waited out where the vendor says for how long and that is short; otherwise `SourceLimited`. A 401 or 403 is
`SourceRefused`, another 4xx `SourceInvalid`, a 5xx or a broken body `SourceUnavailable` after two more tries.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

import requests

from sources.port import SourceInvalid, SourceLimited, SourceRefused, SourceUnavailable

TIMEOUTS = (3.0, 10.0)  # seconds to connect, and between bytes
ATTEMPTS = 3
PAUSE = 0.5  # seconds before the second try, three times as long before the third
LONGEST_PAUSE = 5.0


class VendorTransport:
    """One vendor's address and budget: at most `per_minute` calls in any 60 seconds of this process."""

    def __init__(
        self,
        *,
        source: str,
        url: str,
        per_minute: int,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`headers` and `params` go with every call; a key may stand in either."""
        self.source = source
        self._url, self._per_minute = url.rstrip("/"), per_minute
        self._params = dict(params or {})
        self._sleep, self._clock = sleep, clock
        self._asked: deque[float] = deque()
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
                    f"{self._url}{path}", params={**(params or {}), **self._params}, timeout=TIMEOUTS, allow_redirects=False
                )
                if response.status_code == 200:
                    return response.json()
                problem = f"{response.status_code}: {self._shown(response)}"
                if response.status_code in {401, 403}:
                    raise SourceRefused(f"{self.source} refused its key for {path} ({problem}); check the key and what its plan allows")
                if response.status_code == 429:
                    pause = _until_reset(response.headers, otherwise=pause)
                    if pause > LONGEST_PAUSE:
                        raise SourceLimited(f"{self.source}: the rate limit is used up for {pause:.0f} s ({path})")
                elif response.status_code < 500:
                    raise SourceInvalid(f"{self.source} does not take {path} ({problem})")
            # a broken body is requests.JSONDecodeError; one with a number or a nesting beyond Python's limits is one of the others
            except (requests.RequestException, ValueError, RecursionError) as error:
                problem = type(error).__name__
            if attempt + 1 < ATTEMPTS:
                self._sleep(pause)
        if problem.startswith("429"):
            raise SourceLimited(f"{self.source}: the rate limit is used up ({path})")
        raise SourceUnavailable(f"{self.source} did not answer {path} ({problem})")

    def _spend(self) -> None:
        """Wait until one more call is within the budget."""
        while self._asked and self._clock() - self._asked[0] >= 60:
            self._asked.popleft()
        if len(self._asked) >= self._per_minute:
            self._sleep(max(0.0, 60 - (self._clock() - self._asked.popleft())))
        self._asked.append(self._clock())

    def _shown(self, response: requests.Response) -> str:
        """The beginning of what the vendor said, without anything that was sent as a key."""
        text = response.text[:200]
        sent = (*self._params.values(), *(str(value) for value in self._session.headers.values()))
        for secret in (*sent, *(value.partition(" ")[2] for value in sent)):  # "Bearer <key>" is sent, the key may come back
            if len(secret) > 6:
                text = text.replace(secret, "***")
        return " ".join(text.split())


def _until_reset(headers: Mapping[str, str], *, otherwise: float) -> float:
    """Seconds, by `Retry-After`, or by `x-rate-limit-reset` (epoch), as X says it."""
    try:
        waits = headers.get("Retry-After")
        seconds = float(waits) if waits is not None else float(headers["x-rate-limit-reset"]) - time.time()
    except (KeyError, ValueError):
        return otherwise
    return max(seconds, 0.0) if isfinite(seconds) else otherwise
