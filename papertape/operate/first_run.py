"""From a deployment to an armed account: bars, features, a judged model, a first decision without orders, and what happens next.

Promise: each step is made only where its result does not stand, so a first run may be repeated, and after an interruption it continues
where it was; nothing is ordered here. Failure: `OperatorError`, one line with cause and remedy; what stood before still stands.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from lambdas.common.broker.paper import paper_account
from lambdas.common.broker.port import AccountReads
from papertape.operate import jobs, preflight
from papertape.operate.client import OperatorError
from papertape.operate.cloud import AppCloud
from papertape.operate.jobs import DeployedApp
from papertape.operate.secret import stored_text
from schema.exchange_time import NEW_YORK, new_york_date
from schema.settings import Settings
from schema.slot import Slot

CALENDAR_DAYS = 14
PAUSE = 5.0  # seconds between two looks at a job
STARTED_HALTED = "first run: started halted"


def run(cloud: AppCloud, *, halted: bool, console: Console) -> None:
    """Carry out every step that does not stand, and say what happens next; with `halted`, nothing trades until it is resumed."""
    if not preflight.run(cloud, console=console):
        raise OperatorError("preflight found what must be mended first; nothing was started")
    outputs = cloud.outputs()
    if halted:
        cloud.execution_api().halt(STARTED_HALTED)
    running = DeployedApp(cloud=cloud, outputs=outputs, broker=_broker(cloud), pause=PAUSE)
    with _step("backfill", console) as step:
        step.done(jobs.backfill(running, step.note))
    with _step("features", console) as step:
        step.done(jobs.features(running, step.note))
    with _step("training", console) as step:
        step.done(*jobs.training(running, step.note).words())
    with _step("decision", console) as step:
        decision = dry_run(running)
        step.done(f"{decision['slot']} by {decision['strategy']}; nothing was ordered", *_targets(decision))
    console.print("\n".join(["", *ahead(running, strategy=decision["strategy"])]), soft_wrap=True, highlight=False, markup=False)


def dry_run(running: DeployedApp) -> dict[str, Any]:
    """What `decide` would decide now; the event has no time, without which no version of it trades."""
    decision = running.invoke("DecideFunction", {"dry_run": True})
    if decision.get("dry_run") is not True:
        raise OperatorError(f"the deployed decide does not know dry_run, it answered {decision}: deploy this version with `make deploy`")
    if not decision["targets"]:
        raise OperatorError(f"slot {decision['slot']} would pass without an order: {decision['reason']}; mend that and repeat this")
    return decision


def ahead(running: DeployedApp, *, strategy: str) -> list[str]:
    """What happens next, and when: in New York's time and in this machine's; `strategy` is the one that decides as of now."""
    settings, on = running.settings, running.cloud.make_option
    state = running.cloud.execution_api().status()["trading_state"]
    begins, slot = next_slot(running.broker, settings)
    when = f"{slot} at {told(begins, NEW_YORK)} New York ({told(begins, None)} here)"
    equity, names = running.broker.account().equity, len(settings.universe.symbols)
    at_once = f"equal weight decides, and puts the whole account, ${equity:,.2f}, into {names} names at once"
    resume = f'`make resume{on} reason="..."`'
    armed = f"Armed. Next decision: {when}: {at_once if strategy == 'equal-weight' else f'{strategy} decides'}."
    trades = {
        "active": f'{armed} Not yet? `make halt{on} reason="..."`.',
        "halted": f"Halted ({state['reason']}): no order until {resume}. Next slot: {when}.",
        "reduce_only": f"It only sells ({state['reason']}) until {resume}. Next slot: {when}.",
    }
    gate = "by itself" if settings.model.approval == "automatic" else "once you approve it in the model registry"
    return [
        trades[state["state"]],
        f"Every night: bars, then features. Every week: training; a model that passes the gate trades from then on, {gate}.",
        f"Mails go to {settings.alert_email or 'nobody: alert_email is empty'}. Look at it with `make status{on}`.",
    ]


def next_slot(broker: AccountReads, settings: Settings) -> tuple[datetime, Slot]:
    """When the next decision slot begins (UTC), by the broker's clock and calendar, and which it is."""
    now = broker.clock().now
    today = new_york_date(now)
    for session in broker.sessions(today, today + timedelta(days=CALENDAR_DAYS)):
        for slot in settings.schedule.slots_of(session.date):
            begins, _ = slot.window(session.open, minutes=settings.schedule.slot_window_minutes)
            if begins > now:
                return begins, slot
    raise OperatorError(f"the broker's calendar has no session from {today} on within {CALENDAR_DAYS} days")


def told(moment: datetime, zone: tzinfo | None) -> str:
    """A moment in `zone`, None for this machine's, as in Mon 2026-11-23 09:35."""
    return f"{moment.astimezone(zone):%a %Y-%m-%d %H:%M}"


def _broker(cloud: AppCloud) -> AccountReads:
    text = stored_text(cloud)
    if text is None:
        raise OperatorError("the broker's secret is not there: run `make secret`")
    return paper_account(text, environ=cloud.broker)


def _targets(decision: Mapping[str, Any]) -> Sequence[str]:
    held = sorted(decision["targets"].items(), key=lambda item: (-item[1], item[0]))
    return [", ".join(f"{symbol} {weight:.1%}" for symbol, weight in held), str(decision["reason"])]


@dataclass
class FirstRunStep:
    """A step under way: what it does now, and what it came to."""

    name: str
    status: Status
    result: tuple[str, ...] = ()

    def note(self, text: str) -> None:
        self.status.update(escape(f"{self.name:<9} {text}"))

    def done(self, *lines: str) -> None:
        self.result = lines


@contextmanager
def _step(name: str, console: Console) -> Iterator[FirstRunStep]:
    started = time.monotonic()
    with console.status(name) as status:
        step = FirstRunStep(name, status)
        yield step
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    first, *others = step.result
    console.print("\n".join([f"{name:<9} {first} ({minutes}:{seconds:02})", *(f"          {line}" for line in others)]), soft_wrap=True,
                  highlight=False, markup=False)  # fmt: skip
