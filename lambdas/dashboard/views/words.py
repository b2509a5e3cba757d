"""Decisions in plain words: what it holds, by whom it was decided and why by that one, and what the risk rules said."""

from __future__ import annotations

from collections.abc import Mapping

from lambdas.common.ledger.records import Decision, ServedModel
from schema.slot import FLATTEN, MANUAL

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
ALIKE = 0.005  # weights no further apart are told as one
HELD = 0.0005  # a weight below it is none
FEW = 3

#: What became of a decision, by its verdict.
VERDICTS: Mapping[str, str] = {
    "pending": "It has not been judged yet.",
    "accepted": "Every order was within the limits.",
    "partial": "Some orders were refused; the others were sent.",
    "refused": "Nothing was sent.",
    "halted": "Nothing more was sent: trading is halted or reduced.",
}
#: What a risk rule asks, by its name (trading_env/orders/risk.py).
RULES: Mapping[str, str] = {
    "none": "within every limit",
    "allowed": "within every limit",
    "trading_state": "trading was halted, or only sells were let through",
    "account_pin": "the account is not the one that this app may trade",
    "breaker": "a loss breaker had tripped, so nothing may be bought",
    "stale_data": "its prices were too old",
    "stale_model": "its model was too old",
    "stale_quote": "its quote was too old",
    "restricted": "the name may not be bought",
    "price_collar": "the price was too far from the last trade",
    "order_notional": "the order was too large",
    "long_only": "there was not as much to sell",
    "orders_per_day": "the day's number of orders was reached",
    "turnover_per_day": "the day's turnover was reached",
    "max_weight": "the name would have become too large",
    "max_gross": "more than all of equity would have been invested",
}


def count(number: int) -> str:
    """ "eight", "27"."""
    return NUMBERS[number] if number < len(NUMBERS) else str(number)


def holding(weights: Mapping[str, float]) -> str:
    """ "eight names at about 12.5 % each", or the largest by name."""
    held = {symbol: weight for symbol, weight in weights.items() if weight >= HELD}
    if not held:
        return "nothing"
    if len(held) == 1:
        ((symbol, weight),) = held.items()
        return f"{symbol} alone at {100 * weight:.1f} %"
    names = f"{count(len(held))} names"
    if max(held.values()) - min(held.values()) <= ALIKE:
        return f"{names} at about {100 * sum(held.values()) / len(held):.1f} % each"
    largest = sorted(held.items(), key=lambda one: (-one[1], one[0]))[:FEW]
    return f"{names}, most of it in {', '.join(f'{symbol} ({100 * weight:.1f} %)' for symbol, weight in largest)}"


def model_name(model: ServedModel | None, *, version: str) -> str:
    """ "equal weight", "the trained model 256b150c4442"; of a model that nobody recorded, its version."""
    if model is None:
        return f"model {version[:12]}" if version else "a model that was not recorded"
    return f"the trained model {version[:12]}" if model.policy == "endpoint" else model.policy.replace("-", " ")


def because(model: ServedModel | None, *, watching: ServedModel | None, refused: str | None) -> str:
    """Why that model decides. `refused`: the gate's most telling reason against the trained one, where there is one."""
    if model is None:
        return ""
    if model.policy != "endpoint":
        if watching is None:
            return ", because no trained model has passed the gate"
        if not watching.refused:
            return ", while a trained model only watches: a person has not approved it"
        return f", because the gate refused the trained model: {refused or watching.refused[0]}"
    if not model.refused:
        return ", which passed the gate"
    who = "on paper only" if model.role == "shadow" else "approved by a person"
    return f", {who}, although the gate refused it: {refused or model.refused[0]}"


def headline(decision: Decision, *, model: ServedModel | None, watching: ServedModel | None, refused: str | None) -> str:
    """A decision in one sentence."""
    if decision.strategy == FLATTEN:
        return "A person sold all that was held." if decision.state == "done" else "A person is selling all that is held."
    if decision.strategy == MANUAL:
        return f"A person ordered: {', '.join(f'{one.side} {one.symbol}' for one in decision.plan or ()) or 'nothing was planned'}."
    verb = "It holds" if (decision.state, decision.verdict) == ("done", "accepted") else "It wanted to hold"
    name = model_name(model, version=decision.model_version)
    sentence = f"{verb} {holding(decision.weights)} by {name}{because(model, watching=watching, refused=refused)}"
    return f"{sentence}." if verb == "It holds" else f"{sentence}. {verdict(decision)}"


def verdict(decision: Decision) -> str:
    """What the risk rules and the broker made of it."""
    told = VERDICTS.get(decision.verdict, decision.verdict)
    if decision.state == "working":
        told = "It is still being traded." if decision.verdict == "accepted" else told
    return f"{told} {decision.reason.rstrip('.')}." if decision.reason else told


def rule(name: str | None) -> str:
    """A risk rule's verdict on one order."""
    return "not judged yet" if name is None else RULES.get(name, name.replace("_", " "))
