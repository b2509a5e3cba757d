"""For every test: no property fails because the machine was slow; tests that share an expensive fixture share a worker."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

#: Folders and files whose tests stand on one synthesis or one training.
TOGETHER = ("tests/infrastructure/", "tests/learning/test_evaluate.py", "tests/aws/learning/test_registry.py")


class SharedFixtures(LoadScopeScheduling):
    """Each test goes where there is room, those of `TOGETHER` to one worker; xdist's own marks for it do nothing under pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        return next((place for place in TOGETHER if nodeid.startswith(place)), nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    return SharedFixtures(config, log) if config.getvalue("dist") == "loadgroup" else None
