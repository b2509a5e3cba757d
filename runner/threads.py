"""A blocking call beside the event loop, in a daemon thread: one that hangs never keeps the process from ending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T]) -> T:
    """Return or raise what `call` does. Cancelled, it leaves the call to itself."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        result: T | None = None
        problem: Exception | None = None
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 -- it is raised where the call was made
            problem = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_settle, future, result, problem)

    Thread(target=run, daemon=True).start()
    return await future


def _settle(future: asyncio.Future[T], result: T | None, problem: Exception | None) -> None:
    if future.done():
        return
    if problem is not None:
        future.set_exception(problem)
    else:
        future.set_result(result)  # type: ignore[arg-type]
