"""The runner's benchmark at a tiny size, so that it cannot rot."""

from __future__ import annotations

import asyncio

from benchmarks.runner_speed import measured


def test_what_is_pushed_arrives_and_is_counted() -> None:
    found = asyncio.run(measured(rate=500, seconds=1))
    assert (found["sent"], found["arrived"], found["lost"], found["repeated"], found["lost by its own count"]) == (500, 500, 0, 0, 0)
