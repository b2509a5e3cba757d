"""What scorers that are paid for share: the month's money, and a call that is tried a few times and then given up.

Money is reserved before each try, and given back when the service refused it or was not reached, which costs nothing. A try whose
outcome is not known counts as paid for: the cap holds whatever the network does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError

from trading_env.errors import PapertapeError

PAUSES = (0.5, 1.5, 4.5)  # seconds before the second, third and fourth try
#: Answers that another try may turn into a good one.
PASSING = frozenset(
    {
        "ThrottlingException",
        "Throttling",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "ServiceUnavailableException",
        "InternalServerException",
        "ModelTimeoutException",
        "ModelNotReadyException",
    }
)
#: Answers for which the text is to blame.
OF_THE_TEXT = frozenset(
    {
        "ValidationException",
        "InvalidRequestException",
        "TextSizeLimitExceededException",
        "UnsupportedLanguageException",
        "BatchSizeLimitExceededException",
        "ModelErrorException",
    }
)


class ScorerDown(PapertapeError, RuntimeError):  # noqa: N818 -- these name outcomes
    """The scorer gives no answer to anybody."""


class TextRefused(PapertapeError, ValueError):  # noqa: N818
    """The service does not take this text."""


class BudgetSpent(PapertapeError, RuntimeError):  # noqa: N818
    """The month's money does not pay for this call."""


class MonthlyBudget:
    """What may be spent this month, in USD; threads may share it. `before`: what earlier runs of the month have spent."""

    def __init__(self, *, monthly_usd: float, before: float) -> None:
        self._monthly, self._before = monthly_usd, before
        self._spent = 0.0
        self._lock = threading.Lock()

    @property
    def spent_usd(self) -> float:
        """By this object."""
        return self._spent

    def reserve(self, usd: float) -> None:
        """Count `usd` as spent; raises `BudgetSpent` when that is more than the month's money."""
        with self._lock:
            if self._before + self._spent + usd > self._monthly:
                raise BudgetSpent(f"{self._before + self._spent:.4f} of {self._monthly:.2f} USD are spent, {usd:.4f} more do not fit")
            self._spent += usd

    def give_back(self, usd: float) -> None:
        """Count `usd` of what was reserved as not spent."""
        with self._lock:
            self._spent = max(self._spent - usd, 0.0)


def ask(
    call: Callable[[], Mapping[str, Any]], *, budget: MonthlyBudget, usd: float, sleep: Callable[[float], None] = time.sleep
) -> Mapping[str, Any]:
    """Return the answer of `call`, for which `usd` are spent at most per try.

    Raises `BudgetSpent` before a try, `TextRefused`, or `ScorerDown` after four tries or an answer that no try would change.
    """
    for pause in (*PAUSES, None):
        budget.reserve(usd)
        try:
            return call()
        except ClientError as error:
            budget.give_back(usd)
            problem = str(error.response.get("Error", {}).get("Code", "no code"))
            if problem in OF_THE_TEXT:
                raise TextRefused(problem) from error
            if problem not in PASSING:
                raise ScorerDown(f"refused: {error}") from error
        except BotoCoreError as error:
            problem = type(error).__name__
            if isinstance(error, EndpointConnectionError | ConnectTimeoutError):
                budget.give_back(usd)
        if pause is not None:
            sleep(pause)
    raise ScorerDown(f"gave no answer in {len(PAUSES) + 1} tries ({problem})")
