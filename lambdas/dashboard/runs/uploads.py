"""Bars that people bring: where a browser sends its file. It goes past this function, to S3 itself or to the laptop's server.

Promise: a name is made here and signed for one file of the size that was said, at most `MOST_BYTES`. What the file holds is looked at by an
inspection alone (`papertape.runs`), in a process of its own.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from pydantic import BaseModel, Field, StringConstraints

from lambdas.common.api.responses import answer
from lambdas.dashboard.request import PageRequest
from lambdas.dashboard.routing import PageRouter
from lambdas.dashboard.runs.views import folder, refuse
from lambdas.dashboard.writes import HEADER, Written, write
from schema.exchange_time import parse_utc
from schema.lake_layout import upload_key
from schema.runs.request import RunDocument, new_run_id

router = PageRouter()
MOST_BYTES = 200_000_000
SECONDS = 900
KINDS = (".csv.gz", ".csv", ".parquet")
PRESIGNED = "presigned"


class UploadOrder(RunDocument):
    """`file`: its name on the user's disk, of which only the ending is kept; `size` in bytes."""

    file: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    size: Annotated[int, Field(ge=1)]


class UploadView(BaseModel):
    """PUT the file to `put` within fifteen minutes; it is called `name` from then on."""

    name: str
    put: str


@router.post(
    "/api/uploads", summary="Where a file of bars is to be sent", responses={200: {"description": "The name, and where to PUT the file"}}
)
def post_upload(order: UploadOrder) -> Response[str]:
    asked, key = router.asked, router.header(HEADER)
    body = order.model_dump(mode="json")
    done = write(asked, name="upload", key=key, scope="trade", body=body, act=lambda: place(asked, order, key=key))
    return answer(done.status, done.body)


def place(request: PageRequest, order: UploadOrder, *, key: str) -> Written:
    ending = next((one for one in KINDS if order.file.lower().endswith(one)), None)
    if ending is None:
        raise refuse("file", order.file, f"a file of bars ends in {', '.join(KINDS)}")
    if order.size > MOST_BYTES:
        raise refuse("size", order.size, f"at most {MOST_BYTES:,} bytes")
    name = new_id(request, key) + ending
    return Written(200, UploadView(name=name, put=_address(request, name, size=order.size)).model_dump())


def new_id(request: PageRequest, key: str) -> str:
    """The id of what the write under `key` makes: the same whenever it is made again."""
    action = request.actions.action(key)
    at = request.now if action is None else action.at
    token = hashlib.sha256(f"{request.principal.user}\n{key}".encode()).hexdigest()[:10]
    return new_run_id(parse_utc(at), token=token)


def _address(request: PageRequest, name: str, *, size: int) -> str:
    if request.variables.uploads != PRESIGNED:
        return f"{request.variables.uploads}{name}"
    runs = folder(request)
    where = {"Bucket": runs.bucket, "Key": upload_key(name), "ContentLength": size}
    link: str = runs.s3.generate_presigned_url("put_object", Params=where, ExpiresIn=SECONDS)
    return link
