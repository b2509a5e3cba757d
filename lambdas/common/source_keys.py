"""The keys of sources of data: fields of the broker's secret, `{"key_id": "...", "secret_key": "...", "finnhub": "...", ...}`.

Promise: no key is shown, and none goes to an address but its vendor's own or this machine's. Failure: `SourceRefused`, one line with the
remedy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import boto3
from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schema.loopback import is_loopback
from sources.port import SourceRefused


class SourceKeys(BaseModel):
    """The secret's value, a field per source, Alpaca's two; empty where it has none. Neither its representation nor an error shows one."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, extra="ignore")
    key_id: str = Field(default="", repr=False)
    secret_key: str = Field(default="", repr=False)
    finnhub: str = Field(default="", repr=False)
    x: str = Field(default="", repr=False)
    alphavantage: str = Field(default="", repr=False)


def source_keys(arn: str, *, needed: Sequence[str], asked_by: str) -> SourceKeys:
    """Read the secret, in which the fields `needed` must stand; `asked_by`: the setting that names their sources."""
    name = arn.rsplit(":", 1)[-1]
    try:
        value = boto3.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]
        keys = SourceKeys.model_validate(json.loads(value))
    except (ClientError, KeyError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else "no text in it"
        raise SourceRefused(f"the broker's secret {name} cannot be read ({code}); store it: make secret") from None
    except (ValueError, ValidationError):
        shape = '{"key_id": "...", "secret_key": "...", "finnhub": "...", "x": "...", "alphavantage": "..."}'
        raise SourceRefused(f"the broker's secret {name} is not {shape}; store the keys again") from None
    if missing := [field for field in needed if not getattr(keys, field)]:
        raise SourceRefused(
            f"the secret {name} has no {' and no '.join(missing)}: store it with `papertape secret`, for a source of its own with "
            f"`--source`, or leave it out of {asked_by}"
        )
    return keys


def checked_url(variable: str, url: str, *, own: str) -> str:
    """`url`, which the environment's `variable` may set: the vendor's own address, or one of this machine."""
    if url != own and not (url.startswith("http://") and is_loopback(url)):
        raise SourceRefused(f"{variable} may be {own} or http://127.0.0.1:<port>, was {url}")
    return url
