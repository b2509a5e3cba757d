"""The summary as a mail: plain text, a phone's width, the most important line first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lambdas.report.summary import Summary


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


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{share:+.2%}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
