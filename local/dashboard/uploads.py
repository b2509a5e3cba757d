"""PUT /uploads/<name>: a file from the browser to the lake, part by part; S3 does this on AWS, by a signed address.

Promise: never more than a part of the file is in memory, a file is there whole or not at all, and none is written over. Refused: who may
not trade (403), a name that the API did not make (404), more than `MOST_BYTES` (413), a name that is taken (409), a broken transfer (400),
what the lake does not take (507).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, get_args

from botocore.exceptions import BotoCoreError, ClientError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from lambdas.common.lake.runs import RunFolder
from schema.lake_layout import upload_key
from schema.runs.request import UploadName

MOST_BYTES = 200_000_000
PART_BYTES = 8 * 2**20  # S3 takes no smaller part but the last
NAME = re.compile(next(one.pattern for one in get_args(UploadName) if hasattr(one, "pattern")))

Claims = Callable[[str], Mapping[str, str] | None]


class UploadTooLargeError(ValueError):
    """More came than a file may have."""


def upload_route(runs: RunFolder, *, claims: Claims) -> Callable[[Request], Any]:
    """The route's function; `claims` are those of an Authorization header, None for nobody."""

    async def upload(request: Request) -> Response:
        refused = await _refused(request, runs, claims=claims)
        if refused is not None:
            return refused
        name = request.path_params["name"]
        try:
            size = await _stored(runs, name, request.stream())
        except UploadTooLargeError:
            return _no(413, f"a file may have {MOST_BYTES:,} bytes")
        except ClientDisconnect:
            return _no(400, "the transfer broke off; send the file again")
        except (ClientError, BotoCoreError) as error:
            return _no(507, f"the file could not be stored, nothing of it was kept: {error}; make room on the disk and send it again")
        return JSONResponse({"name": name, "bytes": size})

    return upload


async def _refused(request: Request, runs: RunFolder, *, claims: Claims) -> Response | None:
    who = claims(request.headers.get("Authorization", ""))
    if who is None:
        return _no(401, "Unauthorized")
    if "papertape/trade" not in who["scope"].split():
        return _no(403, "an upload needs the scope papertape/trade")
    name = request.path_params["name"]
    if not NAME.fullmatch(name):
        return _no(404, "there is no such place for a file; ask POST /v1/app/api/uploads for one")
    said = request.headers.get("Content-Length", "0")
    if not said.isdigit() or int(said) > MOST_BYTES:
        return _no(413, f"a file may have {MOST_BYTES:,} bytes, has {said[:20]}")
    if await run_in_threadpool(runs.upload_bytes, name) is not None:
        return _no(409, f"{name} is there already")
    return None


async def _stored(runs: RunFolder, name: str, chunks: AsyncIterator[bytes]) -> int:
    """The file's bytes; what was begun and not finished is taken back."""
    where = {"Bucket": runs.bucket, "Key": upload_key(name)}
    begun = await run_in_threadpool(lambda: runs.s3.create_multipart_upload(**where))
    where["UploadId"] = begun["UploadId"]
    parts: list[dict[str, Any]] = []
    size, held = 0, bytearray()

    async def send() -> None:
        number, body = len(parts) + 1, bytes(held)
        sent = await run_in_threadpool(lambda: runs.s3.upload_part(**where, PartNumber=number, Body=body))
        parts.append({"PartNumber": number, "ETag": sent["ETag"]})
        held.clear()

    try:
        async for chunk in chunks:
            size = _within(size + len(chunk))
            held += chunk
            if len(held) >= PART_BYTES:
                await send()
        if held or not parts:
            await send()
        await run_in_threadpool(lambda: runs.s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}))
    except BaseException:
        with suppress(ClientError, BotoCoreError):  # a store that takes nothing may not forget either: what was begun is no file
            await run_in_threadpool(lambda: runs.s3.abort_multipart_upload(**where))
        raise
    return size


def _within(size: int) -> int:
    if size > MOST_BYTES:
        raise UploadTooLargeError
    return size


def _no(status: int, message: str) -> Response:
    return JSONResponse({"message": message}, status_code=status)
