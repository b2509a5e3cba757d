"""The section `[schedule]` of `settings.toml`: when the agent decides, and how often what serves it runs. Times are New York's."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from schema import slot
from schema.sections.section import Section
from schema.slot import Slot


class Schedule(Section):
    """Times of a session; a slot's window ends before the next one's begins."""

    slots: Annotated[tuple[Annotated[str, StringConstraints(pattern=f"^{slot.NAME}$")], ...], Field(min_length=1)]
    slot_window_minutes: Annotated[int, Field(ge=1, le=180)]
    quotes_every_minutes: Annotated[int, Field(ge=1, le=30)]
    reconcile_every_minutes: Annotated[int, Field(ge=1, le=30)]
    health_every_minutes: Annotated[int, Field(ge=1, le=30)]

    @model_validator(mode="after")
    def _slots_are_ordered_and_apart(self) -> Self:
        for earlier, later in pairwise(self.slots):
            if (gap := slot.minutes_of(later) - slot.minutes_of(earlier)) < self.slot_window_minutes:
                raise ValueError(
                    f"slots must be in order and slot_window_minutes = {self.slot_window_minutes} apart, {later} follows {earlier} by {gap}"
                )
        return self

    def slots_of(self, session: date) -> tuple[Slot, ...]:
        """The slots of a session, in order."""
        return tuple(Slot(session, name) for name in self.slots)

    def slot_of(self, session: date, name: str | None) -> Slot:
        """The slot of a session called `name`, None where there is only one; raise ValueError for one that is not scheduled."""
        chosen = self.slots[0] if name is None and len(self.slots) == 1 else name
        if chosen not in self.slots:
            raise ValueError(f"the slot must be one of {', '.join(self.slots)}, was {name}")
        return Slot(session, chosen)

    @property
    def deciding(self) -> dict[str, str]:
        """The deployed schedules of the slots, in order: `decide` for the first, `decide-open-60` for a later open+60; name -> slot."""
        first, *others = self.slots
        return {"decide": first, **{f"decide-{name.replace('+', '-')}": name for name in others}}
