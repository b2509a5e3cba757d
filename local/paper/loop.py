"""Fires the deployed schedules by a clock, for as long as it runs, and accounts for the time in which it did not.

Promises: a slot is decided within its window or not at all; after an absence (a stop, a crash, a laptop asleep) reconcile runs before
anything else, the missed slots are named with their times on the terminal and by mail, and what the next slot needs is caught up. A failed
firing is tried again as AWS would, then it is a dead letter. After each pass the state is saved and the mails are written. What is
started (jobs, training) is not waited for, so that no slot waits for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from local.paper.clock import RunClock
from local.paper.mailbox import Mailbox
from local.paper.schedules import CAUGHT_UP, RECONCILE, SWITCHES, DeployedSchedule
from schema.exchange_time import NEW_YORK, iso, new_york_date, parse_utc

HEARTBEAT = timedelta(seconds=30)
#: Later than this after the moment that it slept for, the machine was away, not busy.
AWAY = timedelta(minutes=2)
SAVED_EVERY = timedelta(minutes=5)
#: An absence that the nightly window of bars may not reach across.
LONG = timedelta(days=2)
OVERLAP = timedelta(days=7)


class PaperCloud(Protocol):
    """What the loop needs of the deployed app."""

    def fire(self, schedule: str, time: str, *, final: bool) -> Mapping[str, Any]: ...

    def backfill(self, *, start: str) -> Mapping[str, Any]: ...

    def training_interrupted(self) -> bool: ...

    def undecided(self, moment: datetime, slot: str) -> bool: ...

    def publish(self, *, subject: str, message: str) -> None: ...

    def published(self) -> Sequence[Mapping[str, Any]]: ...

    def save(self) -> None: ...


@dataclass(frozen=True, order=True)
class Firing:
    """`attempt` counts from 1; `at` is when it is to happen, `scheduled` what the event says."""

    at: datetime
    name: str
    scheduled: datetime
    attempt: int = 1


class LastAlive:
    """Until when every firing was accounted for, and what is still owed of them by schedule, on the disk."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> tuple[datetime, dict[str, datetime]] | None:
        try:
            document = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return parse_utc(document["accounted_until"]), {name: parse_utc(time) for name, time in document["owed"].items()}

    def write(self, moment: datetime, *, owed: Mapping[str, datetime]) -> None:
        document = {"accounted_until": iso(moment), "owed": {name: iso(time) for name, time in owed.items()}, "pid": os.getpid()}
        partial = self._file.with_suffix(".part")
        with partial.open("w", encoding="utf-8") as file:
            file.write(json.dumps(document) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._file)


class PaperLoop:
    """`run` until the process is told to stop, or `step` by `step`."""

    def __init__(
        self,
        *,
        cloud: PaperCloud,
        clock: RunClock,
        schedules: Sequence[DeployedSchedule],
        alive: LastAlive,
        mailbox: Mailbox,
        say: Callable[[str], None],
    ) -> None:
        self._cloud, self._clock, self._alive, self._mailbox, self._say = cloud, clock, alive, mailbox, say
        self._schedules = {one.name: one for one in schedules}
        self._retries: list[Firing] = []
        self._since = self._saved = clock.now()
        self._upcoming: dict[str, datetime] = {}

    def run(self) -> None:
        self.start()
        while True:
            self.step()

    def start(self) -> None:
        """Account for the time since the loop was last alive; the first time there is none."""
        now, read = self._clock.now(), self._alive.read()
        if read is not None:
            last, owed = read
            self._since = min(last, now)
            self._retries = [Firing(now, name, scheduled) for name, scheduled in owed.items() if name in self._schedules]
            self._return(now, why=f"not running since {_shown(last)}", interrupted=self._cloud.training_interrupted())
        else:
            self._since = now
            self._end(now, saved=True)

    def step(self) -> None:
        """Sleep until something is due, or for a heartbeat, and do it."""
        now = self._clock.now()
        wake = min([now + HEARTBEAT, *(self._next(name) for name in self._schedules), *(retry.at for retry in self._retries)])
        planned = max(wake, now)
        self._clock.sleep((planned - now).total_seconds())
        woke = self._clock.now()
        if woke - planned > AWAY:
            self._return(woke, why=f"asleep since about {_shown(now)}", interrupted=False)
        else:
            self._pass(woke)

    def _return(self, now: datetime, *, why: str, interrupted: bool) -> None:
        """After an absence: reconcile, the bars, slots still within their window, what else is caught up; say what was missed."""
        since, due = self._since, {**{name: [scheduled] for name, scheduled in self._owed().items()}, **self._due(now)}
        self._retries = []
        self._say(f"back at {_shown(now)}, {why}")
        self._fire(Firing(now, RECONCILE, now))
        missed = self._missed(due, now)
        self._catch_up([name for name in CAUGHT_UP[:1] if name in due], due, since=since, now=now)
        bars = next((retry.at for retry in self._retries if retry.name in CAUGHT_UP), None)
        overruled = [name for name in due if name in SWITCHES][:-1]
        for name, moments in due.items():
            one = self._schedules[name]
            if name in overruled or name in {*CAUGHT_UP, RECONCILE} or now - moments[-1] > one.late:
                continue
            if bars is not None and one.deciding:  # without the last close there is nothing to decide on
                self._retries.append(Firing(bars, name, moments[-1]))
            else:
                self._fire(Firing(now, name, moments[-1]))
        self._catch_up([name for name in CAUGHT_UP[1:] if name in due], due, since=since, now=now)
        if interrupted and "train" not in due:
            self._say("the training that was under way begins again")
            self._fire(Firing(now, "train", now))
        self._tell(missed, due, now=now, why=why)
        self._end(now, saved=True)

    def _catch_up(self, names: Sequence[str], due: Mapping[str, Sequence[datetime]], *, since: datetime, now: datetime) -> None:
        for name in names:
            long = name == CAUGHT_UP[0] and now - since > LONG
            self._fire(Firing(now, name, due[name][-1]), start=new_york_date(since - OVERLAP).isoformat() if long else "")

    def _pass(self, now: datetime) -> None:
        due = self._due(now)
        firings = [
            Firing(moments[-1], name, moments[-1]) for name, moments in due.items() if now - moments[-1] <= self._schedules[name].late
        ]
        again = [retry for retry in self._retries if retry.at <= now]
        self._retries = [retry for retry in self._retries if retry.at > now]
        for firing in sorted([*firings, *again]):
            self._fire(firing)
        if missed := self._missed(due, now):  # something before took too long
            self._tell(missed, due, now=now, why="busy")
        self._end(now, saved=bool(firings or again) or now - self._saved >= SAVED_EVERY)

    def _due(self, now: datetime) -> dict[str, list[datetime]]:
        """By schedule, the moments since the last pass at which it was to fire, in the order of the latest."""
        names = [name for name in self._schedules if self._next(name) <= now]
        found = {name: self._schedules[name].cron.between(self._since, now) for name in names}
        return dict(sorted(found.items(), key=lambda item: (item[1][-1], item[0])))

    def _owed(self) -> dict[str, datetime]:
        """What failed and is not given up, by schedule."""
        return {retry.name: retry.scheduled for retry in self._retries if retry.name in CAUGHT_UP}

    def _next(self, name: str) -> datetime:
        """When a schedule fires next, after what is accounted for."""
        if name not in self._upcoming or self._upcoming[name] <= self._since:
            self._upcoming[name] = self._schedules[name].cron.next(self._since)
        return self._upcoming[name]

    def _missed(self, due: Mapping[str, Sequence[datetime]], now: datetime) -> list[tuple[datetime, str]]:
        """Slots whose window is over and that nobody has decided; a day without a session has none."""
        deciding = [(self._schedules[name], moments) for name, moments in due.items() if self._schedules[name].deciding]
        return sorted(
            (moment, one.slot)
            for one, moments in deciding
            for moment in moments
            if (moment != moments[-1] or now - moment > one.late) and self._cloud.undecided(moment, one.slot)
        )

    def _fire(self, firing: Firing, *, start: str = "") -> None:
        """Fire a schedule now, or fill the lake from `start` on instead; a failure is tried again while that makes sense."""
        one, now = self._schedules[firing.name], self._clock.now()
        if one.deciding and now - firing.scheduled > one.late:
            self._tell([(firing.scheduled, one.slot)], {}, now=now, why="busy")
            return
        again = one.retry_at(firing.scheduled, attempt=firing.attempt, failed=now)
        final = one.alarms(attempt=firing.attempt, again=again is not None)
        time = iso(firing.scheduled.replace(microsecond=0))
        outcome = self._cloud.backfill(start=start) if start else self._cloud.fire(firing.name, time, final=final)
        if outcome["status"] == "succeeded":
            if line := _outcome(outcome.get("payload")):
                self._say(f"{_shown(firing.scheduled)} {firing.name}: {line}")
            return
        self._say(f"{_shown(firing.scheduled)} {firing.name} failed: {outcome.get('error', outcome)}")
        if again is not None:
            self._retries.append(Firing(again, firing.name, firing.scheduled, firing.attempt + 1))

    def _tell(self, missed: Sequence[tuple[datetime, str]], due: Mapping[str, Sequence[datetime]], *, now: datetime, why: str) -> None:
        lines = [f"slot {new_york_date(moment)}/{slot} at {_shown(moment)} was missed and is not traded late" for moment, slot in missed]
        for line in lines:
            self._say(line)
        others = [
            f"{name}: {len(moments)} of {_shown(moments[0])} to {_shown(moments[-1])}"
            for name, moments in due.items()
            if not self._schedules[name].deciding
        ]
        if lines:
            first = f"{new_york_date(missed[0][0])}/{missed[0][1]}"
            body = [f"Papertape was {why}, until {_shown(now)}.", "", *lines, "", "Positions were carried, open orders reconciled."]
            body += ["", "Also due meanwhile, of which what the next slot needs was caught up:", *others] if others else []
            more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
            self._cloud.publish(subject=f"slot {first}{more} missed", message="\n".join(body))

    def _end(self, now: datetime, *, saved: bool) -> None:
        for file in self._mailbox.keep(self._cloud.published(), time=iso(now)):
            self._say(f"mail: {file.name}")
        if now < self._since:  # the machine's clock was set back
            self._upcoming = {}
        self._since = now
        if saved:  # else nothing was due since the last time, and nothing is lost
            self._cloud.save()
            self._saved = now
            self._alive.write(now, owed=self._owed())


def _outcome(payload: object) -> str:
    """What a person at the terminal wants to read of a function's answer; nothing of the minutes' routine."""
    if not isinstance(payload, Mapping) or payload.get("outcome") not in {
        "decided",
        "no-trade",
        "halted",
        "skipped",
        "rests",
        "decided before",
    }:
        return ""
    words = [str(payload["outcome"]), *(str(payload[key]) for key in ("verdict", "reason") if payload.get(key))]
    return ", ".join(words) + (f", {payload['orders']} orders" if "orders" in payload else "")


def _shown(moment: datetime) -> str:
    return moment.astimezone(NEW_YORK).strftime("%a %Y-%m-%d %H:%M New York")
