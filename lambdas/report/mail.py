"""The summary as a mail: plain text, a phone's width, the most important line first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lambdas.report.summary import Cost, Difference, Summary

CENT = 0.005


def compose(summary: Summary, *, name: str) -> tuple[str, str]:
    """Subject (ASCII, short) and body."""
    equity = "no snapshot" if summary.equity is None else f"${summary.equity:,.2f}"
    return f"{name}: {summary.end} {equity} ({_percent(summary.change)})", "\n".join(_lines(summary, name=name, equity=equity))


def _lines(summary: Summary, *, name: str, equity: str) -> Iterator[str]:
    cash = "n/a" if summary.cash is None else f"${summary.cash:,.2f}"
    if summary.warning is not None:
        yield f"{summary.warning}."
        yield ""
    yield f"{summary.start} to {summary.end}, {_sessions(summary.sessions)}, trading {summary.state}"
    yield f"{name}, paper account {summary.account or 'not known yet'}"
    yield ""
    dollars = "n/a" if summary.dollars is None else _dollars(summary.dollars)
    yield f"Equity          {equity}  (cash {cash})"
    yield f"This period     {dollars} ({_percent(summary.change)}); {summary.benchmark} {_percent(summary.benchmark_change)}"
    yield f"The one before  {_percent(summary.change_before)}"
    yield f"Since 1st close {_percent(summary.change_since_start)}"
    yield f"Below the high  {_percent(summary.drawdown)}"
    yield ""
    yield f"Decisions       {summary.decisions}"
    yield f"Orders          {_counts(summary.orders)}"
    yield f"Fills           {summary.fills}, ${summary.traded:,.0f} traded"
    yield f"Slippage        {_slippage(summary.cost)}"
    yield f"Execution       {_difference(summary.difference)}"
    yield f"Alerts          {_counts(summary.alerts)}"
    yield ""
    yield f"Trades          {summary.trades}"
    yield f"Watches         {summary.watches} ({summary.shadow_decisions} decisions recorded)"
    if summary.side_by_side is not None:
        both = summary.side_by_side
        yield f"Side by side    traded {_percent(both.traded)}, watched {_percent(both.watched)}"
        yield f"                (targets from close to close, {_sessions(both.sessions)}, before cost)"
    if summary.names:
        yield ""
        yield "By name: won or lost, and held at the last close"
        for symbol, won in summary.names.items():
            yield f"  {symbol:<6} {_dollars(won):>12} {summary.positions.get(symbol, 0.0):7.1%}"
    yield ""
    yield "Paper money. Not financial advice."


def _slippage(cost: Cost) -> str:
    """Against the prices at which orders arrived; delay is what they moved before that, missed what did not fill."""
    if cost.slippage_bp is None:
        return "n/a"
    unknown = f"; {cost.unknown} orders not known yet" if cost.unknown else ""
    fills = f"{_lost(cost.slippage)} ({abs(cost.slippage_bp):.1f} bp) against the quotes at which orders arrived"
    return f"{fills}; by delay {_lost(cost.delay)}, by what did not fill {_lost(cost.missed)}{unknown}"


def _difference(difference: Difference | None) -> str:
    """Against the ideal execution of the same decisions; parts below a cent are left out."""
    if difference is None:
        return "n/a"
    total = difference.live - difference.ideal
    parts = ", ".join(f"{name} {_dollars(value)}" for name, value in difference.parts.items() if abs(value) >= CENT)
    undecided = f", {difference.undecided} without a decision" if difference.undecided else ""
    than = "as" if abs(total) < CENT else f"${abs(total):,.2f} {'worse' if total < 0 else 'better'} than"
    return f"{than} the backtest of the same decisions, {_sessions(difference.sessions)}{undecided}{': ' if parts else ''}{parts}"


def _lost(cost: float) -> str:
    """A cost in words: what is paid is lost, a negative one was won."""
    if abs(cost) < CENT:
        return "nothing"
    return f"{'lost' if cost > 0 else 'won'} ${abs(cost):,.2f}"


def _sessions(count: int) -> str:
    return f"{count} session{'' if count == 1 else 's'}"


def _dollars(amount: float) -> str:
    return f"{'-' if round(amount, 2) < 0 else '+'}${abs(amount):,.2f}"


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{share:+.2%}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
