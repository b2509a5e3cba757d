"""What the web app of a restored run is served with."""

from __future__ import annotations

from pathlib import Path

from local.dashboard.run import settings_of
from local.replay.local_deployment import settings_text
from papertape.options import BUNDLED_SETTINGS
from schema.sections.learning import GateSettings
from schema.settings import load


def test_a_restored_run_is_shown_with_the_settings_that_it_was_deployed_with(tmp_path: Path) -> None:
    """After `make demo agent=trade` a refused model trades: pages that believed the bundled settings would say that it watches."""
    assert settings_of(tmp_path) == load(BUNDLED_SETTINGS)
    traded = load(BUNDLED_SETTINGS).model_copy(update={"gate": GateSettings(refused="trade")})
    (tmp_path / "settings.toml").write_text(settings_text(traded), encoding="utf-8")
    assert settings_of(tmp_path) == traded
