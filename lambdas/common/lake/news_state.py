"""What the collection of news remembers from one run to the next: which sources are down, and what the month's scoring has cost.

One small object beside the scores. A change is written only over the version that it was made from (S3 refuses any other), so that of
two runs at once none loses what the other has spent. What S3 refuses for another reason raises botocore's `ClientError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lambdas.common.lake.lake import LakeError, document_bytes, put_over
from schema.exchange_time import iso, new_york_date
from schema.lake_layout import COLLECTING

NEWS_STATE = f"{COLLECTING}state.json"
ATTEMPTS = 5


class StateRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SourceDown(StateRecord):
    """A source that has not answered in the last `runs` runs, the first of them at `since`; `reason` is of the last."""

    runs: int = Field(ge=1)
    since: str
    reason: str


class NewsState(StateRecord):
    """`spent_usd` and `stopped` (a text was left out because the budget was spent) are of `month`, New York's, as `2026-11`; `retained`
    is the day on which old texts were last looked for."""

    last_run: str = ""
    retained: str = ""
    month: str = ""
    spent_usd: float = Field(default=0.0, ge=0)
    stopped: bool = False
    down: Mapping[str, SourceDown] = {}

    def of(self, run: datetime) -> NewsState:
        """As it is at `run`: in a new month nothing is spent."""
        month = new_york_date(run).isoformat()[:7]
        return self if month <= self.month else self.model_copy(update={"month": month, "spent_usd": 0.0, "stopped": False})

    def collected(self, run: datetime, *, sources: Sequence[str], down: Mapping[str, str]) -> NewsState:
        """After the collection of `run`, in which the sources `down` did not answer; the same run counts once."""
        if iso(run) <= self.last_run:
            return self
        before = self.down
        runs = {
            name: SourceDown(
                runs=before[name].runs + 1 if name in before else 1,
                since=before[name].since if name in before else iso(run),
                reason=down[name],
            )
            for name in sources
            if name in down
        }
        return self.model_copy(update={"last_run": iso(run), "down": runs})

    def spent(self, run: datetime, *, usd: float, stopped: bool) -> NewsState:
        now = self.of(run)
        return now.model_copy(update={"spent_usd": now.spent_usd + usd, "stopped": now.stopped or stopped})


@dataclass(kw_only=True)
class NewsStateObject:
    """The object in the processed bucket, for one run: what it has written itself it need not read. `s3` is a boto3 client."""

    s3: Any
    bucket: str
    _written: tuple[NewsState, str] | None = field(default=None, repr=False)

    def read(self) -> NewsState:
        """As it was before the first run, where there is none yet. Raises LakeError for one that cannot be read."""
        return self._read()[0]

    def change(self, changed: Callable[[NewsState], NewsState]) -> NewsState:
        """Write what `changed` makes of the state, of a newer one again if another run was faster; return what is written."""
        for _ in range(ATTEMPTS):
            before, etag = self._written or self._read()
            after = changed(before)
            if after == before or self._put(after, over=etag):
                return after
            self._written = None
        raise LakeError(f"s3://{self.bucket}/{NEWS_STATE}: was changed by others {ATTEMPTS} times in a row")

    def _read(self) -> tuple[NewsState, str | None]:
        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=NEWS_STATE)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return NewsState(), None
            raise
        try:
            return NewsState.model_validate_json(answer["Body"].read()), answer["ETag"]
        except ValidationError as error:
            raise LakeError(f"s3://{self.bucket}/{NEWS_STATE}: is no state of the news collection ({error.errors()[0]['msg']})") from error

    def _put(self, state: NewsState, *, over: str | None) -> bool:
        """Whether it was written: not, when the object is another than the version `over`, or is there at all for None."""
        written = put_over(self.s3, bucket=self.bucket, key=NEWS_STATE, body=document_bytes(state.model_dump(mode="json")), etag=over)
        if written is not None:
            self._written = state, written
        return written is not None
