"""Ask that a headline or a post is removed everywhere: the request is written to the lake, and the next run of collecting carries it out.

Promise: nothing is removed here, and a request may be repeated; what is forgotten is never collected again. Failure: `OperatorError`.
"""

from __future__ import annotations

import json

from rich.console import Console
from rich.markup import escape

from papertape.operate.client import OperatorError
from papertape.operate.cloud import AppCloud, asking
from schema.lake_layout import forget_key, forgotten_key

LONGEST_ID = 200


def forget(cloud: AppCloud, identity: str, *, source: str, console: Console) -> None:
    """Write the request, or say when it was carried out."""
    if not 1 <= len(identity) <= LONGEST_ID or not identity.isprintable() or (source == "x" and not identity.isdecimal()):
        shape = "the number at the end of a post's address" if source == "x" else f"the vendor's own, of at most {LONGEST_ID} characters"
        raise OperatorError(f"nothing was asked: an id of {source} is {shape}, was {identity[:50]!r}")
    bucket = cloud.outputs("lake")["RawBucket"]
    s3 = cloud.client("s3")
    with asking(f"{cloud.name}: whether {identity} of {source} is forgotten cannot be read"):
        found = s3.list_objects_v2(Bucket=bucket, Prefix=forgotten_key(source, identity), MaxKeys=1).get("Contents", ())
    if found:
        console.print(escape(f"{cloud.name}: {identity} of {source} was forgotten on {found[0]['LastModified']:%Y-%m-%d %H:%M} UTC"))
        return
    with asking(f"{cloud.name}: the request for {identity} of {source} cannot be written, so nothing will be removed"):
        body = json.dumps({"source": source, "id": identity}).encode()
        s3.put_object(Bucket=bucket, Key=forget_key(source, identity), Body=body, ContentType="application/json")
    console.print(escape(f"{cloud.name}: the next run of collect_news removes {identity} of {source} everywhere"), soft_wrap=True)
