"""The alerts that functions write into the ledger: what each means, and what a person does about it.

An alert's rule may name its subject after a colon ("drift:AAPL"); its entry is by what stands before it. A test holds this table against
the rules that the functions raise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class AlertRunbook(NamedTuple):
    raised_by: str
    means: str
    runbook: str


RUNBOOKS: Mapping[str, AlertRunbook] = {
    # decide: no decision, or not all of it
    "stale-data": AlertRunbook(
        "decide",
        "the lake does not reach the last close, or with slot bars the vendor's minutes not the slot; no decision",
        "Invoke backfill_bars; before the slot ends decide may be invoked again. Of today's minutes the detail is the vendor's answer.",
    ),
    "missing-bar": AlertRunbook(
        "decide",
        "a name had no bar at the last close; it was left out and its position carried",
        "A halt ends by itself. Delisted or renamed: take it out of settings.toml, deploy, and sell or keep what is held by hand.",
    ),
    "series-broken": AlertRunbook(
        "decide",
        "a spin-off, a merger or their like cannot be applied; the name is not bought, what is held is carried",
        "The detail names the action and what to do. What is held may be sold by hand: POST /orders, or flatten.",
    ),
    "action-late": AlertRunbook(
        "decide",
        "the vendor told an action after its ex-date: decisions in between observed a fall or a jump that was none",
        "Nothing; what is observed is right from here on. For which days, see GET /decisions/{id} and decision page 19.",
    ),
    "book-unknown": AlertRunbook(
        "decide",
        "the book of the last close is not known, or in a later slot positions are not what fills and splits explain; no decision",
        "Read reconcile's log of that evening, or of now. The next close is a snapshot again; nothing else is needed.",
    ),
    "orders-open": AlertRunbook(
        "decide",
        "orders or a batch of an earlier slot had not ended when a later slot of slot bars came; no decision",
        "Nothing, if they end by themselves: the next slot decides. An external order that rests at the broker must be cancelled there.",
    ),
    "no-observation": AlertRunbook(
        "decide", "bars or book cannot be observed; no decision", "The detail names the value. Look at that symbol's raw bars and position."
    ),
    "split-pending": AlertRunbook(
        "decide, reconcile",
        "a split is announced and not in the position yet: no decision, and no breaker for what only looks like a loss",
        "Wait for the broker; compare its page with the snapshot. If it never comes, the broker must be asked.",
    ),
    "stale-model": AlertRunbook(
        "decide", "the model is past max_model_age_days; no decision", "Train with later dates; or let equal weight decide."
    ),
    "model-unavailable": AlertRunbook(
        "decide",
        "neither the endpoint nor the package that it serves gave scores that may be traded on; no decision",
        "Read the endpoint's log. To go on without it, approve another package; the first incumbent is equal weight.",
    ),
    "endpoint-fallback": AlertRunbook(
        "decide",
        "the endpoint did not answer within the time for it, or not what its pointer promises (shape, range, version, features); "
        "decide computed the same scores itself, from the package whose hash the pointer names, and traded",
        "Nothing for this day. Read the endpoint's log before the next; if it is gone, approve the package again to have it made anew.",
    ),
    "out-of-envelope": AlertRunbook(
        "decide",
        "too many inputs lie outside of what the model was trained on; no decision",
        "Look at the audit record's observation: broken data, or a market unlike any in training. Then retrain, or wait.",
    ),
    "shadow-unavailable": AlertRunbook(
        "decide", "the shadow did not decide; the incumbent did", "As for model-unavailable; nothing was traded by it."
    ),
    "model-not-served": AlertRunbook(
        "deploy_model",
        "a package was approved or rejected and its endpoint failed, or did not answer as that very model; the pointers stay",
        "The detail says what the endpoint did; its log is under /aws/sagemaker/Endpoints. Approve the package again to try anew.",
    ),
    "not-explained": AlertRunbook(
        "decide", "the last session could not be compared with its ideal execution", "The detail names the price or book that is missing."
    ),
    # orders
    "overfill": AlertRunbook(
        "execute_orders, reconcile",
        "more was filled than ordered; trading is halted",
        "Ask the broker about the order, then set the state to active.",
    ),
    "contradiction": AlertRunbook(
        "execute_orders, reconcile",
        "another symbol or side stands under our id; trading is halted and the order in doubt",
        "Compare the order's page at the broker with the ledger. Two installations on one account look like this.",
    ),
    "replaced": AlertRunbook(
        "execute_orders, reconcile",
        "a person replaced an order of ours; its replacement is in the ledger",
        "Nothing, if it was you. The name is yours today.",
    ),
    "cancelled": AlertRunbook(
        "execute_orders, reconcile",
        "an external open order stood against ours and was cancelled",
        "Place it again if it is still wanted.",
    ),
    "vanished": AlertRunbook(
        "reconcile", "the broker does not have an order of an earlier session any more; it is ended", "Expected after an account reset."
    ),
    "not-flattened": AlertRunbook(
        "execute_orders, reconcile",
        "a flatten has not sold all that was held, or was dropped because trading was resumed before the market opened",
        "The detail names what is left and why. Flatten again if it is still to be sold.",
    ),
    # the account
    "external-order": AlertRunbook(
        "reconcile", "an external order was filled; it is counted and never traded back", "Nothing, if it was you. Else change the keys."
    ),
    "drift": AlertRunbook(
        "reconcile",
        "the broker holds what no fill or split explains; it is taken as it is",
        "Compare GET /portfolio with the broker's page: a transfer, a merger, a spin-off, or a fill that nobody heard of.",
    ),
    "book-adopted": AlertRunbook(
        "reconcile",
        "a book without an earlier snapshot was taken as it is",
        "Expected once, on an account that was used before or after a loss.",
    ),
    "ledger-lost": AlertRunbook(
        "reconcile",
        "orders of ours at the broker were not in the ledger; they are recovered and trading is halted",
        "Find out who emptied the table; restore it from its backups if more than today is missing. Then set the state to active.",
    ),
    "account-changed": AlertRunbook(
        "reconcile",
        "the keys lead to another account than this app's; trading is halted",
        "After a reset: PUT /trading-state with `active`, a reason, and `account`, the new account's id. Else correct the secret.",
    ),
    "max_drawdown": AlertRunbook("reconcile, execute_orders", "the breaker has tripped", "As for breaker-tripped, above."),
    "max_daily_loss": AlertRunbook("reconcile, execute_orders", "the breaker has tripped", "As for breaker-tripped, above."),
    # the session
    "slot-missed": AlertRunbook("reconcile", "no decision was received in the slot's window", "As for the rule slot-missed, above."),
    "snapshot-missing": AlertRunbook(
        "reconcile",
        "a session could not be closed: the next decision will be refused",
        "The detail names the price or the split that is in the way.",
    ),
    "stale-price": AlertRunbook(
        "reconcile",
        "a held name has not traded today and has an earlier session's price",
        "As for missing-bar: a halt, or the end of the name.",
    ),
    "halted": AlertRunbook(
        "reconcile",
        "the exchange has halted a name that is held: it cannot be sold until it resumes",
        "Nothing: its position is carried, and a decision leaves it out. The code is the tape's; most halts end within the hour.",
    ),
    "feed-silent": AlertRunbook(
        "health",
        "a socket of the runner said nothing in an open market, and was opened anew",
        "Once is the vendor's. If it repeats, read the runner's log: keys, plan, or another client on the one connection that a plan has.",
    ),
    "archive-late": AlertRunbook(
        "reconcile", "records could not be copied to the audit bucket", "The next pass tries again; after a day read reconcile's log."
    ),
}


def runbook_for(rule: str) -> AlertRunbook | None:
    """The entry of an alert's rule, whatever its subject; None for one that this table does not know."""
    return RUNBOOKS.get(rule.partition(":")[0])
