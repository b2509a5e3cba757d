"""The questions behind health's rules: pure functions of `Facts` and the settings.

Each answers a sentence with the numbers where its rule is broken, else an empty text; one that several things can break at once answers a
sentence for each, by name. A fact that is unknown breaks the rule that needs it, or is declared to be no concern, never silently passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal

from lambdas.common.health import closes as closing
from lambdas.common.lake.news_state import SourceDown
from lambdas.common.ledger.records import AlertRecord, Attribution, Decision, OrderRecord, ServedModel, Snapshot
from lambdas.common.ledger.roles import rests
from lambdas.common.ledger.runner_state import RunnerState
from schema.exchange_time import NEW_YORK
from schema.settings import Settings
from schema.slot import Slot

QUOTES_GRACE = timedelta(minutes=10)
#: With a stream an object is named after its five minutes, and written up to five minutes after these; twice that, and it stands still.
STREAM_GRACE = timedelta(minutes=20)
UNKNOWN_LIMIT = timedelta(minutes=15)
BATCH_GRACE = timedelta(minutes=15)
SNAPSHOT_GRACE = timedelta(minutes=10)
FEATURES_LIMIT = 21
MODEL_WARNING_DAYS = 14
ORDER_GRACE = timedelta(minutes=15)
CONSTANT_DECISIONS = 10
CONSTANT_RANGE = 1e-9
DIFFERENCE_LIMIT = 0.005
NEWS_RUNS = 6
SCORES_LIMIT = timedelta(hours=2)
RUNNER_LIMIT = timedelta(seconds=60)


@dataclass(frozen=True, kw_only=True)
class NewsFacts:
    """Of the configured sources: those that did not answer last time, and the oldest run of each whose items have no scores.

    `stopped`: this month's budget for scoring is spent, with what it was.
    """

    down: Mapping[str, SourceDown]
    unscored: Mapping[str, datetime]
    stopped: str = ""


@dataclass(frozen=True, kw_only=True)
class SlotRowFacts:
    """The session of the newest slot row, which is what decisions are made on where a row is a slot bar."""

    newest: date | None


@dataclass(frozen=True, kw_only=True)
class RunnerFacts:
    """The runner's last beat, None where none ever ran, and the machines' time `asked_at` which it was read: a beat is of their clocks,
    as a lease is, and not of the schedule's."""

    beat: RunnerState | None
    asked_at: datetime


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The state of the agent at `now` (UTC). `opens`/`closes` are None on a day without a session; `earlier` are the sessions before it.

    `decisions`: the agent's in today's slots, in order; `recent`: its last ones, oldest first; `attribution`: the last that was written;
    `orders`: how many the ledger has of today; `peak_equity`: what losses count from, 0 before the first; `news`: None where none is
    collected; `runner`: None where none is to run; `slot_rows`: None where a row is a session.
    """

    now: datetime
    day: date
    calendar_reaches: date | None
    opens: datetime | None
    closes: datetime | None
    earlier: tuple[date, ...]
    last_quotes: datetime | None
    decisions: tuple[Decision, ...]
    working: tuple[Decision, ...]
    unsettled: tuple[OrderRecord, ...]
    alerts: tuple[AlertRecord, ...]
    tripped: Mapping[str, str]
    state: str
    state_reason: str
    trader: ServedModel | None
    features_end: date | None
    newest_bar: date | None
    slot_rows: SlotRowFacts | None = None
    #: By source of `[data] check_closes`, the closes of the last of `earlier`.
    compared: Mapping[str, closing.ComparedCloses] = field(default_factory=dict)
    last_snapshot: Snapshot | None
    recent: tuple[Decision, ...] = ()
    attribution: Attribution | None = None
    orders: int = 0
    peak_equity: Decimal = Decimal(0)
    news: NewsFacts | None = None
    runner: RunnerFacts | None = None

    @property
    def closed(self) -> date | None:
        """The last session that has a snapshot."""
        return None if self.last_snapshot is None else date.fromisoformat(self.last_snapshot.session)

    @property
    def newest_observed(self) -> date | None:
        """The last session of which the lake has what decisions are made on."""
        return self.newest_bar if self.slot_rows is None else self.slot_rows.newest

    @property
    def model_age_days(self) -> int | None:
        """Days since the last data of the trained model that decides; None when none does."""
        if self.trader is None or self.trader.policy != "endpoint":
            return None
        return (self.day - self.trader.known_until).days


def calendar(facts: Facts, _settings: Settings) -> str:
    if facts.calendar_reaches is not None and facts.calendar_reaches >= facts.day:
        return ""
    return f"the lake's calendar ends at {facts.calendar_reaches or 'nothing'}, today is {facts.day}"


def quotes(facts: Facts, settings: Settings) -> str:
    if facts.opens is None or facts.closes is None:
        return ""
    polled = max(QUOTES_GRACE, timedelta(minutes=5 * settings.schedule.quotes_every_minutes))
    limit = polled if settings.stream.kind == "none" else STREAM_GRACE
    if not facts.opens + limit <= facts.now <= facts.closes or facts.now - (facts.last_quotes or facts.opens) <= limit:
        return ""
    return f"the newest raw quotes are of {_time(facts.last_quotes)}, now is {_time(facts.now)}"


def slot(facts: Facts, settings: Settings) -> Mapping[str, str]:
    if facts.opens is None:
        return {}
    decided = {decision.slot for decision in facts.decisions}
    missing = [one for one in settings.schedule.slots_of(facts.day) if str(one) not in decided and not _decides_not(facts, one, settings)]
    ends = {one: one.window(facts.opens, minutes=settings.schedule.slot_window_minutes)[1] for one in missing}
    return {one.name: f"no decision in slot {one}, its window ended at {_time(end)}" for one, end in ends.items() if facts.now > end}


def _decides_not(facts: Facts, one: Slot, settings: Settings) -> bool:
    """With slot bars: what trades rests in this slot, or the session is over before it."""
    if not settings.row_slots or facts.opens is None or facts.closes is None:
        return False
    over = one.window(facts.opens, minutes=0)[0] >= facts.closes
    return over or (facts.trader is not None and rests(facts.trader, one, settings))


def unknown(facts: Facts, _settings: Settings) -> Mapping[str, str]:
    """`unknown_since` stays on an order that was found, as the record of the doubt."""
    late = [
        o for o in facts.unsettled if o.in_doubt and o.unknown_since and facts.now - datetime.fromisoformat(o.unknown_since) > UNKNOWN_LIMIT
    ]
    return {order.client_order_id: f"{order.symbol} {order.client_order_id} since {order.unknown_since}" for order in late}


def order(facts: Facts, _settings: Settings) -> Mapping[str, str]:
    """Every order is for its session: one that has not ended well after it is one that nobody asks for, or that nobody has."""
    over = facts.closes is not None and facts.now > facts.closes + ORDER_GRACE
    late = [
        o for o in facts.unsettled if o.created_at[:10] < facts.day.isoformat() or (over and o.created_at[:10] == facts.day.isoformat())
    ]
    return {o.client_order_id: f"{o.side} {o.symbol} {o.client_order_id} of {o.created_at[:10]} is still {o.status}" for o in late}


def refused(facts: Facts, _settings: Settings) -> Mapping[str, str]:
    return {symbol: detail for decision in facts.decisions for symbol, detail in decision.refused.items()}


def drift(facts: Facts, _settings: Settings) -> Mapping[str, str]:
    """On the day itself the alert speaks; after it, as long as no later snapshot explains its book."""
    snapshot = facts.last_snapshot
    if snapshot is None or snapshot.session >= facts.day.isoformat():
        return {}
    return {symbol: f"at the close of {snapshot.session}, {detail}" for symbol, detail in snapshot.drift.items()}


def constant(facts: Facts, _settings: Settings) -> str:
    model = facts.trader
    if model is None or model.policy != "endpoint":
        return ""
    scores = [decision.scores for decision in facts.recent if decision.model_version == model.model_version and decision.scores]
    last = scores[-CONSTANT_DECISIONS:]
    if len(last) < CONSTANT_DECISIONS:
        return ""
    ranges = [
        max(values) - min(values) for symbol in last[-1] if len(values := [scores[symbol] for scores in last if symbol in scores]) > 1
    ]
    if not ranges or max(ranges) > CONSTANT_RANGE:
        return ""
    return f"model {model.model_version[:12]} gave the same scores in its last {len(last)} decisions"


def difference(facts: Facts, _settings: Settings) -> str:
    found, book = facts.attribution, facts.last_snapshot
    if found is None or book is None or found.session < max((day.isoformat() for day in facts.earlier), default=""):
        return ""
    gap, limit = found.live - found.ideal, DIFFERENCE_LIMIT * float(book.equity)
    if abs(gap) <= limit:
        return ""
    parts = ", ".join(f"{name} {value:+,.2f}" for name, value in found.parts.items() if abs(value) >= 0.01)
    return f"in {found.session} the book and its ideal execution differ by {gap:+,.2f} dollars ({parts}), at most {limit:,.2f}"


def batch(facts: Facts, _settings: Settings) -> Mapping[str, str]:
    late = [d for d in facts.working if d.window_ends and facts.now - datetime.fromisoformat(d.window_ends) > BATCH_GRACE]
    return {d.decision_id: f"{d.decision_id} still works, its window ended at {d.window_ends}" for d in late}


def alerts(facts: Facts, _settings: Settings) -> Mapping[str, str]:
    return {alert.rule: f"{alert.rule}: {alert.subject}. {alert.detail}" for alert in facts.alerts}


def breaker(facts: Facts, _settings: Settings) -> Mapping[str, str]:
    return {name: f"{name}: {detail}" for name, detail in facts.tripped.items()}


def state(facts: Facts, _settings: Settings) -> Mapping[str, str]:
    return {} if facts.state == "active" else {facts.state: f"trading is {facts.state}: {facts.state_reason}"}


def model(facts: Facts, settings: Settings) -> str:
    model, age = facts.trader, facts.model_age_days
    if model is None or age is None:
        return ""
    limit = settings.risk.max_model_age_days
    return f"model {model.model_version[:12]} is {age} days old, at {limit} it stops trading" if age > limit - MODEL_WARNING_DAYS else ""


def features(facts: Facts, _settings: Settings) -> str:
    behind = [day for day in facts.earlier if facts.features_end is None or day > facts.features_end]
    return f"features end at {facts.features_end or 'nothing'}, {len(behind)} sessions ago" if len(behind) > FEATURES_LIMIT else ""


def bars(facts: Facts, settings: Settings) -> str:
    if not facts.earlier or (facts.newest_bar is not None and facts.newest_bar >= facts.earlier[-1]):
        return ""
    name = settings.universe.required_benchmark
    return f"the newest daily bar of {name} is of {facts.newest_bar or 'never'}, the last session was {facts.earlier[-1]}"


def minutes(facts: Facts, settings: Settings) -> str:
    """Where the daily bars are late as well, their rule says so."""
    if facts.slot_rows is None or not facts.earlier or facts.newest_bar is None or facts.newest_bar < facts.earlier[-1]:
        return ""
    newest, name = facts.slot_rows.newest, settings.universe.required_benchmark
    if newest is not None and newest >= facts.earlier[-1]:
        return ""
    feed = settings.data.minutes_feed
    return f"the newest slot row of {name}, of feed {feed!r}, is of {newest or 'never'}, its newest daily bar of {facts.newest_bar}"


def closes(facts: Facts, _settings: Settings) -> Mapping[str, str]:
    return closing.sentences(facts.compared)


def snapshot(facts: Facts, _settings: Settings) -> str:
    if facts.closed is None and not facts.decisions:
        return ""
    ended = facts.closes is not None and facts.now >= facts.closes + SNAPSHOT_GRACE
    due = facts.day if ended else max(facts.earlier, default=None)
    if due is None or (facts.closed is None and not ended) or (facts.closed is not None and facts.closed >= due):
        return ""
    return f"the newest closing snapshot is of {facts.closed or 'never'}, one of {due} is due"


def news(facts: Facts, _settings: Settings) -> Mapping[str, str]:
    if facts.news is None:
        return {}
    late = {name: down for name, down in facts.news.down.items() if down.runs >= NEWS_RUNS}
    return {
        name: f"{name} has not answered in its last {down.runs} runs, since {_time(datetime.fromisoformat(down.since))}: {down.reason}"
        for name, down in late.items()
    }


def scores(facts: Facts, _settings: Settings) -> Mapping[str, str]:
    if facts.news is None:
        return {}
    late = {name: run for name, run in facts.news.unscored.items() if facts.now - run > SCORES_LIMIT}
    return {name: f"what {name} brought at {_time(run)} has no scores" for name, run in late.items()}


def scoring_budget(facts: Facts, _settings: Settings) -> str:
    return "" if facts.news is None else facts.news.stopped


def runner(facts: Facts, _settings: Settings) -> str:
    return "" if facts.runner is None else runner_silent(facts.runner, now=facts.now, opens=facts.opens, closes=facts.closes)


def runner_silent(runner: RunnerFacts, *, now: datetime, opens: datetime | None, closes: datetime | None) -> str:
    """What is wrong with the runner's last beat at `now`, of a session that opens and closes so; nothing while the market is closed."""
    if opens is None or closes is None or not opens <= now <= closes:
        return ""
    beat = runner.beat
    if beat is None:
        return "the market is open, and the runner has never been alive"
    silent = runner.asked_at - datetime.fromisoformat(beat.beat_at)
    if beat.state == "stopped":
        return f"the market is open, and the runner stopped {silent.total_seconds():.0f} s ago: {beat.reason or 'it did not say why'}"
    return f"the runner's last beat is {silent.total_seconds():.0f} s old, it began at {beat.since}" if silent > RUNNER_LIMIT else ""


def _time(moment: datetime | None) -> str:
    return "never" if moment is None else both_times(moment)


def both_times(moment: datetime) -> str:
    """As `2020-01-02 16:00 UTC (11:00 New York)`, with New York's date where it is another."""
    there = moment.astimezone(NEW_YORK)
    day = "" if there.date() == moment.date() else f"{there:%Y-%m-%d} "
    return f"{moment:%Y-%m-%d %H:%M} UTC ({day}{there:%H:%M} New York)"
