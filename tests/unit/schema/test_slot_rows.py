"""Rows that are slot bars: what the settings say of them, whose minutes they are of, and where the lake has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from schema.lake_layout import bars_key, bars_prefix
from schema.settings import SettingsError, load
from schema.slot import SlotRows

TEXT = (Path(__file__).resolve().parents[3] / "data" / "settings.toml").read_text(encoding="utf-8")


def settings_with(tmp_path: Path, *, slots: str = '["open+5"]', timeframe: str = "1Day", data: str = "") -> Path:
    text = TEXT.replace('slots = ["open+5"]', f"slots = {slots}", 1).replace("[training] ", f'[training]\ntimeframe = "{timeframe}" ', 1)
    path = tmp_path / "settings.toml"
    path.write_text(f"{text}\n{data}", encoding="utf-8")
    return path


def test_rows_are_sessions_unless_the_settings_say_otherwise(tmp_path):
    found = load(settings_with(tmp_path, slots='["open+5", "open+120"]'))
    assert (found.slot_rows, found.row_slots, found.data.minutes_feed) == (None, (), "iex")
    by_slot = load(settings_with(tmp_path, slots='["open+5", "open+120"]', timeframe="1Min"))
    assert by_slot.slot_rows == SlotRows((5, 120), 30)


def test_the_feed_of_minutes_is_one_that_the_vendor_has(tmp_path):
    assert load(settings_with(tmp_path, timeframe="1Min", data='[data]\nminutes_feed = "sip"')).data.minutes_feed == "sip"
    with pytest.raises(SettingsError, match=r"settings\.toml: data\.minutes_feed = 'otc' is not allowed: Input should be 'iex' or 'sip'"):
        load(settings_with(tmp_path, data='[data]\nminutes_feed = "otc"'))


def test_rows_of_other_slots_another_window_or_feed_lie_apart():
    assert bars_prefix() == "raw/bars/timeframe=1Day/"
    assert bars_key("SPY", 2013) == "raw/bars/timeframe=1Day/symbol=SPY/2013.jsonl.gz"
    cut = (None, SlotRows((5,), 30), SlotRows((5,), 20), SlotRows((5, 120), 30), SlotRows((5,), 30, "sip"))
    places = {bars_key("SPY", 2013, rows) for rows in cut}
    assert len(places) == len(cut)
    assert all(place.startswith("raw/bars/") for place in places)
