"""The app, synthesized once a session for AWS and once for the laptop."""

from __future__ import annotations

import pytest

from schema.settings import Settings, load
from tests.infrastructure.assembly import ACCOUNT, ROOT, Assembly, for_aws, synthesize


@pytest.fixture(scope="session")
def settings() -> Settings:
    return load(ROOT / "settings.toml")


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    return for_aws(tmp_path_factory)


@pytest.fixture(scope="session")
def laptop(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Assembly:
    return synthesize(tmp_path_factory.mktemp("laptop"), settings=settings, target="laptop", account=ACCOUNT)


@pytest.fixture(scope="session")
def changed_settings(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Assembly:
    """An app with a subscriber, deciding three times a session on minute bars, as late as it allows."""
    schedule = settings.schedule.model_copy(update={"slots": ("open+5", "open+120", "open+360")})
    training = settings.training.model_copy(update={"timeframe": "1Min"})
    changes = {"alert_email": "owner@example.com", "schedule": schedule, "training": training}
    return synthesize(tmp_path_factory.mktemp("changed"), settings=settings.model_copy(update=changes))
