"""The sections `[runner]` and `[stream]` of `settings.toml`: what follows the market while it is open, and where its quotes go.

A file without them has neither, as files from before they existed.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schema.sections.section import Section


class RunnerSettings(Section):
    """One process that follows the broker's streams in market hours, and raises events; it decides and orders nothing.

    `move_threshold`: share of the price of `move_minutes` ago beyond which a name has moved. A socket that says nothing for
    `silence_seconds` of an open market is opened anew.
    """

    enabled: bool = False
    move_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.03
    move_minutes: Annotated[int, Field(ge=1, le=60)] = 5
    silence_seconds: Annotated[float, Field(ge=5, le=600)] = 60.0


class StreamSettings(Section):
    """`kind`: a delivery stream to the lake, or one Kinesis shard for several consumers."""

    kind: Literal["none", "firehose", "kinesis"] = "none"
