"""Who trades and who watches: the gate's verdicts are the ledger's pointers, and what follows from a refusal is a setting.

Promise: a model that passed trades whatever the setting; a refused one trades only with `[gate] refused = "trade"`, where none has passed,
and only if the gate's reasons are known: what a person withdrew, or nobody judged, never does. Failure: that of the ledger's reads.
"""

from __future__ import annotations

from dataclasses import dataclass

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import ServedModel
from schema.settings import Settings
from schema.slot import Slot

FIRST_INCUMBENT = ServedModel(
    role="incumbent", policy="equal-weight", spec="equal-weight", model_version="equal-weight", kappa=1.0, since=""
)
RESTS = "equal weight daily trades once a session, in its first slot"
#: So many of the gate's sentences a person reads before the rest; all are in the evaluation.
REASONS_SHOWN = 2


@dataclass(frozen=True, kw_only=True)
class Roles:
    trades: ServedModel
    watches: ServedModel | None

    @property
    def warning(self) -> str | None:
        """What every page, mail and status begins with while a refused model trades."""
        if not self.trades.refused:
            return None
        how = "on paper only" if self.trades.role == "shadow" else "approved by a person"
        return f"The gate refused the model that trades here, {how}: {why(self.trades.refused)}"


def roles(incumbent: ServedModel | None, shadow: ServedModel | None, settings: Settings) -> Roles:
    """Equal weight is the first incumbent, and what watches a refused model trade."""
    passed = incumbent or FIRST_INCUMBENT
    if shadow is None or shadow.spec == passed.spec:
        return Roles(trades=passed, watches=None)
    if settings.gate.refused == "trade" and passed.policy != "endpoint" and shadow.refused:
        return Roles(trades=shadow, watches=passed)
    return Roles(trades=passed, watches=shadow)


def roles_now(ledger: Ledger, settings: Settings) -> Roles:
    return roles(ledger.incumbent(), ledger.shadow(), settings)


def trader_now(ledger: Ledger, settings: Settings) -> ServedModel:
    """The model that trades; the other pointer is read only where it may be that one, so that a shadow cannot stop a decision."""
    incumbent = ledger.incumbent() or FIRST_INCUMBENT
    contested = settings.gate.refused == "trade" and incumbent.policy != "endpoint"
    return roles(incumbent, ledger.shadow() if contested else None, settings).trades


def rests(model: ServedModel, slot: Slot, settings: Settings) -> bool:
    """Whether `model` decides nothing in `slot`: with slot bars, equal weight daily trades once a session, in its first slot."""
    daily = model.policy == "equal-weight" and model.kappa == 1
    return daily and slot.name in settings.row_slots[1:]


def why(reasons: tuple[str, ...]) -> str:
    """The first of the gate's reasons in words."""
    more = len(reasons) - REASONS_SHOWN
    return "; ".join(reasons[:REASONS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
