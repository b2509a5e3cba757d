"""How a call travels to Alpaca, and which of the port's outcomes it has. No broker library here, only `requests`.

An account has 200 requests per minute, whoever sends them. So a 429 is never answered with more requests than it must: the broker says
when its budget is back, and a caller that cannot wait that long stops at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

import requests

from lambdas.common.broker.alpaca_wire import rejection
from lambdas.common.broker.port import BrokerUnavailable, NotFound, QueryRefused, RateLimited, Unresolved

#: The codes of a 403 that is about an order, as 40310000; a 403 without one is the gateway's, and about the keys.
ORDER_CODE = re.compile(r"403\d{5}")
DEFINITE_REFUSALS = frozenset({400, 401, 403, 404, 422})
READ_ATTEMPTS = 3
RATE_LIMIT_ATTEMPTS = 3
#: Seconds before a read is tried again, three times as long before the third try; and before a 429 without a reset is.
PAUSE = 0.3
#: Seconds that a write waits in all for the broker's budget to be back, unless its caller says otherwise.
RETRY_TIMEOUT = 4.0
#: Seconds that a read waits for it, unless its caller has more time.
RESET_TIMEOUT = 2.0
SHORTEST_PAUSE = 0.05


class Transport:
    """Replaces alpaca-py's transport, which has no timeout and repeats a POST after a 504, with which an order may have been accepted."""

    _timeouts: tuple[float, float]
    _pause: float
    _reset_timeout: float
    _sleep: Callable[[float], None]
    _renew: Callable[[], tuple[str, str] | None]
    _api_key: str | None
    _secret_key: str | None
    _session: requests.Session
    _base_url: Any
    _api_version: str

    def use(
        self,
        *,
        timeouts: tuple[float, float],
        sleep: Callable[[float], None],
        pause: float = PAUSE,
        reset_timeout: float = RESET_TIMEOUT,
        renew: Callable[[], tuple[str, str] | None] = lambda: None,
    ) -> None:
        """`renew` gives the keys as they are now (None: they cannot be read); it is asked after a refusal of the keys."""
        self._timeouts = timeouts
        self._pause = pause
        self._reset_timeout = reset_timeout
        self._sleep = sleep
        self._renew = renew
        self._session.trust_env = False  # no proxy, netrc or certificate file of the environment between us and the broker

    def _request(self, method: str, path: str, data: Any = None, base_url: Any = None, api_version: str | None = None) -> Any:
        """Answer parsed JSON (None for an empty body); the errors are the module's. Called by every method of the clients."""
        verb = method.upper()
        if verb == "GET":
            return self._read(self._url(path, base_url, api_version), data)
        return self.write(verb, path, data, base_url=base_url, api_version=api_version)

    def _url(self, path: str, base_url: Any, api_version: str | None) -> str:
        base = str(getattr(self._base_url if base_url is None else base_url, "value", base_url or self._base_url))
        return f"{base}/{api_version or self._api_version}{path}"

    def _send(self, verb: str, url: str, data: Any) -> requests.Response:
        """One request; after a refusal of its keys, with which nothing was done, once more if the keys have been rotated since."""
        response = self._send_once(verb, url, data)
        if _about_the_keys(response) and (keys := self._renew()) and keys != (self._api_key, self._secret_key):
            self._api_key, self._secret_key = keys
            response = self._send_once(verb, url, data)
        return response

    def _send_once(self, verb: str, url: str, data: Any) -> requests.Response:
        body = {"params": data} if verb in {"GET", "DELETE"} else {"json": data}
        headers = self._get_default_headers()  # type: ignore[attr-defined]
        return self._session.request(verb, url, headers=headers, timeout=self._timeouts, allow_redirects=False, **body)

    def _read(self, url: str, data: Any) -> Any:
        problem = ""
        for attempt in range(READ_ATTEMPTS):
            pause = self._pause * 3**attempt
            try:
                response = self._send("GET", url, data)
                if response.status_code == 200:
                    return response.json()
                if response.status_code == 404:
                    raise NotFound(_message(response)[1])
                if response.status_code in {400, 422} or _beyond_the_plan(response):
                    raise QueryRefused(f"GET {url} was refused ({response.status_code}: {_message(response)[1]})")
                problem = f"{response.status_code}: {_message(response)[1]}"
                if response.status_code == 429:
                    pause = self._until_reset(response.headers)
                if response.status_code in {401, 403} or pause > self._reset_timeout:
                    break
            except requests.RequestException as error:
                problem = type(error).__name__
            if attempt + 1 < READ_ATTEMPTS:
                self._sleep(pause)
        raise BrokerUnavailable(f"GET {url} failed ({problem})")

    def write(
        self, verb: str, path: str, data: Any, *, retry_timeout: float = RETRY_TIMEOUT, base_url: Any = None, api_version: str | None = None
    ) -> Any:
        """Send once; after a 429, which says that nothing was done, again if the budget is back within `retry_timeout` seconds in all."""
        url, waited, attempts = self._url(path, base_url, api_version), 0.0, 0
        while True:
            attempts += 1
            try:
                response = self._send(verb, url, data)
            except requests.RequestException as error:
                raise Unresolved(f"{verb} {url}: {type(error).__name__}") from error
            if response.status_code != 429:
                return _outcome(verb, url, response)
            pause = self._until_reset(response.headers)
            waited += pause
            if attempts == RATE_LIMIT_ATTEMPTS or waited > retry_timeout:
                raise RateLimited(f"{verb} {url}: 429 at each of {attempts}, the budget is back in {pause:.1f} s")
            self._sleep(pause)

    def _until_reset(self, headers: Mapping[str, str]) -> float:
        """Seconds until the broker's budget is back, by its own clock: `Retry-After`, or `X-RateLimit-Reset` (epoch) less `Date`."""
        try:
            if "Retry-After" in headers:
                seconds = float(headers["Retry-After"])
            else:
                seconds = float(headers["X-RateLimit-Reset"]) - parsedate_to_datetime(headers["Date"]).timestamp()
        except (KeyError, ValueError):
            return self._pause
        return max(seconds, SHORTEST_PAUSE) if isfinite(seconds) else self._pause


def _outcome(verb: str, url: str, response: requests.Response) -> Any:
    status = response.status_code
    if 200 <= status < 300:
        if not response.content:
            return None
        try:
            return response.json()
        except requests.JSONDecodeError as error:
            raise Unresolved(f"{verb} {url}: {status} with a body that is not JSON") from error
    if status in DEFINITE_REFUSALS:
        raise rejection(status, *_message(response))
    raise Unresolved(f"{verb} {url}: {status}")


def _about_the_keys(response: requests.Response) -> bool:
    if response.status_code != 403:
        return response.status_code == 401
    return ORDER_CODE.fullmatch(str(_message(response)[0])) is None


def _beyond_the_plan(response: requests.Response) -> bool:
    """`subscription does not permit querying recent SIP data`, by Alpaca's FAQ: the keys are good, and the question is not."""
    return response.status_code == 403 and "subscription" in _message(response)[1].lower()


def _message(response: requests.Response) -> tuple[int | None, str]:
    try:
        body = response.json()
        return body.get("code"), str(body.get("message", ""))[:300]
    except (requests.JSONDecodeError, AttributeError):
        return None, response.text[:300]
