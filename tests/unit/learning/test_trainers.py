"""The settings allow the algorithms that there are, and a file from before there was a choice means the one of then."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from learning.training import TRAINERS
from schema.settings import Algorithm, Settings, load

SETTINGS = load(Path(__file__).resolve().parents[3] / "data" / "settings.toml")


def test_every_algorithm_that_the_settings_allow_has_a_trainer() -> None:
    assert set(TRAINERS) == set(get_args(Algorithm))


def test_settings_from_before_the_choice_are_still_valid() -> None:
    document = SETTINGS.model_dump()
    del document["training"]["algorithm"]
    assert Settings.model_validate(document) == SETTINGS
