"""What a person may do to a version of the model, and what follows: the rules alone, pure.

Promise: an action that must not be is refused in one line that says why and what to do instead. A model that the gate refused trades by a
person's hand only where the settings let refused models trade (on paper, docs/decisions/0024-a-refused-model-on-paper.md) and the person
repeats the setting's own words.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Literal

from lambdas.common.ledger.records import ServedModel
from lambdas.common.ledger.roles import why
from lambdas.common.registry.versions import COMPLETED, ModelVersion
from schema.settings import Settings

Action = Literal["approve", "reject", "return"]
ACTIONS: tuple[Action, ...] = ("approve", "reject", "return")
#: What a person repeats to let a model trade that the gate refused: the setting that allows it.
WORDS = 'refused = "trade"'
ONCE = "once its endpoint answers; until then nothing changes"


def objection(
    action: Action, version: ModelVersion, *, approved: Sequence[int], incumbent: ServedModel | None, settings: Settings, today: date
) -> str | None:
    """Why `action` must not be taken now; None when it may. `approved`: the numbers of all approved versions."""
    name = f"version {version.version}"
    if action == "reject":
        return f"{name} is rejected already" if version.status == "rejected" else None
    newer = [number for number in approved if number > version.version]
    if action == "approve" and version.status == "approved":
        return f"{name} is approved already; to go back to it, return to it"
    if action == "approve" and newer:
        return f"version {max(newer)} is approved and newer, so {name} would never trade: return to it instead"
    if action == "return" and incumbent is not None and incumbent.spec == version.arn:
        return f"{name} is the incumbent already"
    return _unfit(version, settings=settings, today=today)


def _unfit(version: ModelVersion, *, settings: Settings, today: date) -> str | None:
    """Why this version must not trade, whoever wants it."""
    name = f"version {version.version}"
    if version.registration != COMPLETED:
        return f"{name} is not registered yet: {version.registration}"
    if version.missing:
        return f"{name} was registered without {', '.join(version.missing)}: register it again"
    if version.verdict == "not judged":
        return f"{name} cannot be approved: {version.says}"
    age, limit = (today - version.known_until).days, settings.risk.max_model_age_days
    if age > limit:
        return f"{name} may be {limit} days old, was {age}: it knows data to {version.known_until}; train again"
    if version.verdict == "refused" and settings.gate.refused != "trade":
        return f'the gate refused {name} ({why(version.reasons)}), and [gate] refused = "{settings.gate.refused}" lets it only watch'
    return None


def words_missing(action: Action, version: ModelVersion, words: str) -> str | None:
    """What a person must repeat, and has not, to let a refused version trade."""
    if action == "reject" or version.verdict != "refused" or words.strip() == WORDS:
        return None
    return f"the gate refused version {version.version} ({why(version.reasons)}); to let it trade all the same repeat {WORDS}"


def outcome(action: Action, version: ModelVersion, *, withdrawn: Sequence[int], incumbent: ServedModel | None, settings: Settings) -> str:
    """What happens now, in words. `withdrawn`: the newer versions that were rejected on the way back."""
    name = f"version {version.version}"
    if action == "reject":
        if version.verdict == "refused" and settings.gate.refused == "trade":
            return f"{name} is rejected; as a refused model it may still trade, on paper, where no model has passed"
        if incumbent is not None and incumbent.spec == version.arn:
            return f"{name} is rejected and only watches; equal weight trades from the next decision on"
        return f"{name} is rejected and only watches"
    if action == "approve":
        return f"{name} is approved and trades from the next decision on, {ONCE}"
    gone = f"{', '.join(f'version {number}' for number in withdrawn)} rejected; " if withdrawn else ""
    return f"{gone}{name} is approved again and trades from the next decision on, once its endpoint answers; until then equal weight does"
