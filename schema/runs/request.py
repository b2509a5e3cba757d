"""What a person asks a run for: to train, to backtest, or to look at a file of bars before it is used. One file of the run's folder.

A run reads nothing but its request, the bars that it names, and its own checkpoint; the same request on the same bars gives the same
artifact. Raises Pydantic's `ValidationError` for a request that is not one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from schema.news import Moment

RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{7,39}")
RunId = Annotated[str, StringConstraints(pattern=rf"^{RUN_ID.pattern}$")]
UploadName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{7,39}\.(csv|csv\.gz|parquet)$")]
RunKind = Literal["train", "backtest", "inspect"]
Day = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$")]
#: What a column of a user's file means.
Role = Literal["symbol", "session", "open", "high", "low", "close", "volume", "adjusted_close", "dividend", "split"]

#: How the numbers of a column are written.
NumberForm = Literal["1234.56", "1,234.56", "1.234,56", "1 234.56", "1 234,56"]


def new_run_id(at: datetime, *, token: str) -> str:
    """An id that sorts by time, as lists of runs expect: `at` is aware, `token` a few characters of a-z and 0-9 that nobody else has."""
    return f"{at.astimezone(UTC):%Y%m%dt%H%M%S}-{token}"


class RunDocument(BaseModel):
    """What every document of a run's folder is."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BundledBars(RunDocument):
    """The project's own eight names, 2005 to 2020."""

    source: Literal["bundled"] = "bundled"


class UploadedBars(RunDocument):
    """A file that was uploaded, with the columns as the user has confirmed them (`inspect` proposes them), how those are written whose
    `numbers` are not plain, and whether its prices are adjusted."""

    source: Literal["upload"] = "upload"
    name: UploadName
    columns: Mapping[str, Role] = Field(default_factory=dict)
    numbers: Mapping[str, NumberForm] = Field(default_factory=dict)
    adjusted: bool = False


BarsOf = Annotated[BundledBars | UploadedBars, Field(discriminator="source")]


class BacktestOf(RunDocument):
    """`policy`: a baseline by its name ("equal-weight"), a finished training run ("run:<id>"), or a package of the registry ("package:<its
    ARN>"). `start` and `end`: sessions, both included."""

    policy: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    start: Day
    end: Day


class RunRequest(RunDocument):
    """`settings`: what differs from the deployed settings, section by section, as in `[environments.<name>]` of settings.toml. `by`: who
    asked, at `requested_at`."""

    id: RunId
    kind: RunKind
    title: Annotated[str, StringConstraints(max_length=120)] = ""
    by: str
    requested_at: Moment
    bars: BarsOf
    settings: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    backtest: BacktestOf | None = None

    @model_validator(mode="after")
    def _a_backtest_says_what_and_when(self) -> Self:
        if (self.kind == "backtest") != (self.backtest is not None):
            raise ValueError(f"backtest belongs to a run of kind backtest and to no other, the kind was {self.kind}")
        return self
