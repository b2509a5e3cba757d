"""A slot is a value: its text, its window, and the id of the decision that is made in it."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from schema.sections.schedule import Schedule
from schema.slot import Slot, decision_id_of

DAY = date(2019, 3, 4)


def test_a_slot_and_its_text_are_the_same() -> None:
    slot = Slot(DAY, "open+5")
    assert str(slot) == f"{slot}" == "2019-03-04/open+5"
    assert Slot.parse("2019-03-04/open+5") == slot
    assert decision_id_of("agent", slot) == decision_id_of("agent", str(slot)) == "agent:2019-03-04/open+5"


@pytest.mark.parametrize(
    "text", ["", "2019-03-04", "2019-03-04/close-5", "2019-03-04/open+", "2019-02-30/open+5", "2019-03-04/open+5/open+5"]
)
def test_what_is_no_slot_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a slot is called open\+<minutes>|isoformat|day is out of range"):
        Slot.parse(text)


def test_a_window_follows_the_session_s_open() -> None:
    opens = datetime(2019, 3, 4, 14, 30, tzinfo=UTC)
    slot = Slot(DAY, "open+60")
    assert slot.minutes == 60
    assert slot.window(opens, minutes=30) == (datetime(2019, 3, 4, 15, 30, tzinfo=UTC), datetime(2019, 3, 4, 16, 0, tzinfo=UTC))


def schedule(*slots: str) -> Schedule:
    return Schedule(slots=slots, slot_window_minutes=30, quotes_every_minutes=1, reconcile_every_minutes=5, health_every_minutes=15)


def test_a_slot_is_chosen_by_its_name_and_the_only_one_without() -> None:
    one, two = schedule("open+5"), schedule("open+5", "open+60")
    assert one.slot_of(DAY, None) == one.slot_of(DAY, "open+5") == Slot(DAY, "open+5")
    assert two.slot_of(DAY, "open+60") == Slot(DAY, "open+60") == two.slots_of(DAY)[1]
    for known, name in ((one, "open+60"), (two, None)):
        with pytest.raises(ValueError, match=rf"the slot must be one of open\+5.*, was {name}".replace("open+60", r"open\+60")):
            known.slot_of(DAY, name)


def test_each_slot_has_a_schedule_of_its_own() -> None:
    assert schedule("open+5").deciding == {"decide": "open+5"}
    assert schedule("open+5", "open+60").deciding == {"decide": "open+5", "decide-open-60": "open+60"}
