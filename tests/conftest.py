"""For every test: no property fails because the machine was slow; tests that share an expensive fixture share a worker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

#: Tests that stand on one synthesis, one training, or one deployed app; those of a file of tests/e2e often stand on one emulator.
TOGETHER = (
    r"tests/infrastructure/",
    r"tests/learning/test_evaluate\.py",
    r"tests/aws/learning/test_registry\.py",
    r"tests/contract/sagemaker/test_pipeline_against_sdk\.py",
    r"tests/e2e/test_(deployed_api|kill|minute_quotes|operate|paper_slot|split_week|triggers|unserved)\.py",
    r"tests/e2e/\w+\.py",
)


#: The longest of those that go where there is room: they begin first, or all others wait for them.
LONGEST = ("test_i1_i2_i3_i4_every_interleaving", "test_h6_killed_at_every_call", "test_journal_brings_the_books_back")


class SharedFixtures(LoadScopeScheduling):
    """Each test goes where there is room, those of `TOGETHER` to one worker; xdist's own marks for it do nothing under pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        place = next((place for place in TOGETHER if re.match(place, nodeid)), "")
        return nodeid.partition("::")[0] if place == TOGETHER[-1] else place or nodeid


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    return SharedFixtures(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.name not in LONGEST)


@pytest.fixture(scope="session")
def exchange_process() -> Iterator[Any]:
    """One exchange process per worker, on the last evening of 2019; whoever uses it begins with a new account, by `reset`."""
    from local.exchange.server import ExchangeConfig, RunningExchange  # most tests need none

    with RunningExchange(ExchangeConfig(now="2019-12-31T22:00:00Z", slippage_bps="10")) as running:
        yield running
