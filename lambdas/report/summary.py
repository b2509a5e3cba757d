"""The period in numbers: pure, from the ledger's records.

Promises: returns are of closing equity, over sessions that have a snapshot; a number that cannot be computed is None and is shown as "n/a",
never as zero. What trading cost is measured order by order (trading_env/orders/execution_cost.py), and session by session against the
ideal execution of the same decisions (trading_env/evaluation/attribution.py): a session is explained when the next one has decided, so
those from the day before the period to the day before its end are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

from lambdas.common.ledger.records import AlertRecord, Attribution, Decision, Fill, OrderRecord, ServedModel, ShadowDecision, Snapshot
from lambdas.common.ledger.roles import Roles
from lambdas.common.orders.comparison import SideBySide, price_change, side_by_side
from lambdas.common.orders.contribution import by_name
from lambdas.common.orders.execution_cost import closes_of, executions
from trading_env.orders.execution_cost import Tally, tally

HEALTH, OVER, AGAIN = "health:", "health:over:", "~"  # as health writes what it has mailed


@dataclass(frozen=True, kw_only=True)
class Period:
    """Inclusive session dates."""

    start: date
    end: date

    @property
    def months(self) -> tuple[str, ...]:
        months = ((self.start.replace(day=1) + timedelta(days=31 * step)).isoformat()[:7] for step in range(14))
        return tuple(month for month in months if month <= self.end.isoformat()[:7])

    def holds(self, day: str) -> bool:
        return self.start.isoformat() <= day[:10] <= self.end.isoformat()

    @property
    def explained(self) -> Period:
        """What has become explained in this period: each session by the decision after it."""
        return Period(start=self.start - timedelta(days=1), end=self.end - timedelta(days=1))


@dataclass(frozen=True, kw_only=True)
class Records:
    """What the ledger has: all snapshots up to the period's end, and the rest at least of the period's months."""

    snapshots: Sequence[Snapshot]
    decisions: Sequence[Decision]
    orders: Sequence[OrderRecord]
    fills: Sequence[Fill]
    alerts: Sequence[AlertRecord]
    attributions: Sequence[Attribution]
    shadow_decisions: Sequence[ShadowDecision]
    incumbent: ServedModel | None
    shadow: ServedModel | None
    roles: Roles
    benchmark: str
    account: str | None
    state: str


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What trading cost against the prices at which it was decided, in dollars; `unknown` counts orders of which a price is not known."""

    orders: int
    traded: float
    slippage_bp: float | None
    delay: float
    slippage: float
    missed: float
    unknown: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Live against ideal in dollars over `sessions`, and its parts, which sum to it; `undecided` of them had no decision to execute."""

    sessions: int
    undecided: int
    live: float
    ideal: float
    parts: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Money in US dollars, returns and drawdown as shares, `positions` as shares of equity at the last close.

    `warning` is there while a model trades that the gate refused. `names`: dollars that each has won or lost.
    """

    warning: str | None
    account: str | None
    start: str
    end: str
    sessions: int
    equity: float | None
    cash: float | None
    dollars: float | None
    change: float | None
    benchmark: str
    benchmark_change: float | None
    names: dict[str, float]
    side_by_side: SideBySide | None
    change_before: float | None
    change_since_start: float | None
    drawdown: float | None
    positions: dict[str, float]
    decisions: int
    orders: dict[str, int]
    fills: int
    traded: float
    cost: Cost
    difference: Difference | None
    alerts: dict[str, int]
    incumbent: str
    shadow: str
    trades: str
    watches: str
    shadow_decisions: int
    state: str

    def document(self) -> dict[str, Any]:
        return {"schema": 2, **asdict(self)}


def summarise(period: Period, records: Records) -> Summary:
    inside = [snapshot for snapshot in records.snapshots if period.holds(snapshot.session)]
    before = [snapshot for snapshot in records.snapshots if snapshot.session < period.start.isoformat()]
    days = (period.end - period.start).days + 1
    earlier = (period.start - timedelta(days=days)).isoformat()
    last = inside[-1] if inside else None
    closes = [*before[-1:], *inside]
    orders = [order for order in records.orders if period.holds(order.created_at)]  # a manual order's slot is no date
    fills = [fill for fill in records.fills if period.holds(fill.time)]
    # Where a function and health alert the same event of a session, or health alerts it again, it is one
    told = [alert for alert in records.alerts if period.holds(alert.session) and not alert.rule.startswith(OVER)]
    alerts = {(alert.session, alert.rule.removeprefix(HEALTH).partition(AGAIN)[0]) for alert in told}
    return Summary(
        warning=records.roles.warning,
        account=records.account,
        start=period.start.isoformat(),
        end=period.end.isoformat(),
        sessions=len(inside),
        equity=None if last is None else float(last.equity),
        cash=None if last is None else float(last.cash),
        dollars=float(closes[-1].equity - closes[0].equity) if inside and len(closes) > 1 else None,
        change=_growth(closes) if inside else None,
        benchmark=records.benchmark,
        benchmark_change=price_change(records.benchmark, closes) if inside else None,
        names={} if last is None or len(closes) < 2 else by_name(closes[0], last, records.fills),
        side_by_side=side_by_side(closes, records.decisions, records.shadow_decisions),
        change_before=_growth([*[s for s in before if s.session < earlier][-1:], *[s for s in before if s.session >= earlier]]),
        change_since_start=_growth([*before, *inside]),
        drawdown=_drawdown([*before, *inside]),
        positions={} if last is None else _weights(last),
        decisions=sum(period.holds(decision.received_at) for decision in records.decisions),
        orders=dict(sorted(Counter(order.status for order in orders).items())),
        fills=len(fills),
        traded=float(sum(fill.quantity * fill.price for fill in fills)),
        cost=_cost(orders, inside),
        difference=_difference([one for one in records.attributions if period.explained.holds(one.session)]),
        alerts=dict(sorted(Counter(rule.partition(":")[0] for _, rule in alerts).items())),
        incumbent=_name(records.incumbent) or "equal-weight",
        shadow=_name(records.shadow) or "none",
        trades=_shown(records.roles.trades),
        watches=_shown(records.roles.watches),
        shadow_decisions=sum(period.holds(decision.slot) for decision in records.shadow_decisions),
        state=records.state,
    )


def _cost(orders: Sequence[OrderRecord], snapshots: Sequence[Snapshot]) -> Cost:
    closes = {snapshot.session: closes_of(snapshot) for snapshot in snapshots}
    days = sorted({order.created_at[:10] for order in orders})
    listed = [one for day in days for one in executions((o for o in orders if o.created_at[:10] == day), closes.get(day, {}))]
    found: Tally = tally(listed)
    return Cost(
        orders=found.orders,
        traded=float(found.traded),
        slippage_bp=found.slippage_bp,
        delay=float(found.delay),
        slippage=float(found.slippage),
        missed=float(found.missed),
        unknown=found.open,
    )


def _difference(attributions: Sequence[Attribution]) -> Difference | None:
    if not attributions:
        return None
    names = attributions[0].parts
    return Difference(
        sessions=len(attributions),
        undecided=sum(one.decision_id is None for one in attributions),
        live=sum(one.live for one in attributions),
        ideal=sum(one.ideal for one in attributions),
        parts={name: sum(one.parts.get(name, 0.0) for one in attributions) for name in names},
    )


def _growth(snapshots: Sequence[Snapshot]) -> float | None:
    if len(snapshots) < 2 or not snapshots[0].equity:
        return None
    return float(snapshots[-1].equity / snapshots[0].equity) - 1


def _drawdown(snapshots: Sequence[Snapshot]) -> float | None:
    """The last equity against the highest so far."""
    peak = max((snapshot.equity for snapshot in snapshots), default=None)
    return float(snapshots[-1].equity / peak) - 1 if peak else None


def _weights(snapshot: Snapshot) -> dict[str, float]:
    held = sorted(snapshot.positions.items())
    return {symbol: float(one.quantity * one.close / snapshot.equity) for symbol, one in held} if snapshot.equity else {}


def _shown(model: ServedModel | None) -> str:
    """A model in a person's words."""
    if model is None:
        return "nobody"
    if model.policy != "endpoint":
        return model.spec.replace("equal-weight", "equal weight")
    return f"model {model.model_version[:12]}{', which the gate refused,' if model.refused else ''} since {model.since[:10]}"


def _name(model: ServedModel | None) -> str:
    return "" if model is None else f"{model.policy} {model.model_version[:12]} since {model.since[:10]}"
