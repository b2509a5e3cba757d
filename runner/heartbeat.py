"""That the runner is alive, said to the ledger: at its start, every `EVERY` seconds, and at its end with the reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.common.broker.streams import Feed
from lambdas.common.ledger.runner_state import RunnerState
from lambdas.common.telemetry import logger
from runner.listener import MarketListener
from runner.threads import in_thread

EVERY = 20.0


class Beats(Protocol):
    """Where a beat is kept; False where a runner that began later has spoken."""

    def put_runner_state(self, state: RunnerState) -> bool: ...


class Heartbeat:
    def __init__(self, beats: Beats, *, runner: str, symbols: tuple[str, ...], since: datetime) -> None:
        self._beats, self._runner, self._symbols, self._since = beats, runner, symbols, since
        self._overtaken = False

    async def beat(
        self,
        listener: MarketListener,
        *,
        elapsed: float,
        is_open: bool,
        state: Literal["following", "stopped"] = "following",
        reason: str = "",
    ) -> None:
        """Say it; one that cannot be written is logged, for the next one comes, and its absence is what health looks for."""
        now, counts = datetime.now(UTC), listener.counts

        def heard(feed: Feed) -> str | None:
            at = counts.heard.get(feed)
            return None if at is None else (now - timedelta(seconds=elapsed - at)).isoformat()

        said = RunnerState(
            runner=self._runner,
            state=state,
            reason=reason,
            since=self._since.isoformat(),
            beat_at=now.isoformat(),
            market_open=is_open,
            symbols=self._symbols,
            heard_orders=heard("orders"),
            heard_data=heard("market data"),
            minutes=counts.minutes,
            reconnects=counts.reconnects,
            differing=listener.minutes.differing,
            refused=counts.unreadable + listener.minutes.dropped,
            lost=listener.lost_entries,
            queued=listener.queued,
        )
        try:
            kept = await in_thread(lambda: self._beats.put_runner_state(said))
        except (BotoCoreError, ClientError) as error:
            logger.error("the beat was not written", extra={"error": str(error)})
            return
        if not kept and not self._overtaken:
            self._overtaken = True
            logger.error("another runner, which began later, follows this account; end one of the two")
