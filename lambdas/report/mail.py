"""The summary as a mail: plain text, a phone's width, the most important line first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lambdas.report.summary import Cost, Difference, Summary

CENT = 0.005


def compose(summary: Summary, *, name: str) -> tuple[str, str]:
    """Subject (ASCII, short) and body."""
    equity = "no snapshot" if summary.equity is None else f"${summary.equity:,.2f}"
    return f"{name}: {summary.end} {equity} ({_percent(summary.change)})", "\n".join(_lines(summary, equity=equity))


def _lines(summary: Summary, *, equity: str) -> Iterator[str]:
    cash = "n/a" if summary.cash is None else f"${summary.cash:,.2f}"
    yield f"{summary.start} to {summary.end}, {summary.sessions} sessions, trading {summary.state}"
    yield ""
    yield f"Equity          {equity}  (cash {cash})"
    yield f"This period     {_percent(summary.change)}"
    yield f"The one before  {_percent(summary.change_before)}"
    yield f"Since the start {_percent(summary.change_since_start)}"
    yield f"Below the high  {_percent(summary.drawdown)}"
    yield ""
    yield f"Decisions       {summary.decisions}"
    yield f"Orders          {_counts(summary.orders)}"
    yield f"Fills           {summary.fills}, ${summary.traded:,.0f} traded"
    yield f"Slippage        {_slippage(summary.cost)}"
    yield f"Live - ideal    {_difference(summary.difference)}"
    yield f"Alerts          {_counts(summary.alerts)}"
    yield ""
    yield f"Decides         {summary.incumbent}"
    yield f"Watches         {summary.shadow} ({summary.shadow_decisions} decisions recorded)"
    if summary.positions:
        yield ""
        yield "Holdings at the last close"
        for symbol, weight in summary.positions.items():
            yield f"  {symbol:<6} {weight:6.1%}"
    yield ""
    yield "Paper money. Not financial advice."


def _slippage(cost: Cost) -> str:
    """Against the prices at which orders arrived; delay is what they moved before that, missed what did not fill."""
    if cost.slippage_bp is None:
        return "n/a"
    unknown = f", {cost.unknown} orders not known yet" if cost.unknown else ""
    return f"{cost.slippage_bp:+.1f} bp, {_dollars(cost.slippage)}; delay {_dollars(cost.delay)}, missed {_dollars(cost.missed)}{unknown}"


def _difference(difference: Difference | None) -> str:
    """Against the ideal execution of the same decisions; parts below a cent are left out."""
    if difference is None:
        return "n/a"
    parts = ", ".join(f"{name} {_dollars(value)}" for name, value in difference.parts.items() if abs(value) >= CENT)
    undecided = f", {difference.undecided} without a decision" if difference.undecided else ""
    total = _dollars(difference.live - difference.ideal)
    return f"{total} in {difference.sessions} sessions{undecided}{': ' if parts else ''}{parts}"


def _dollars(amount: float) -> str:
    return f"{'-' if round(amount, 2) < 0 else '+'}${abs(amount):,.2f}"


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{share:+.2%}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
