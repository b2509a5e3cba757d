"""The web app in a real browser, over a week that the deployed functions have traded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser

from local.aws.emulator import ROOT
from local.replay import schedule as replay_schedule
from local.replay.driver import replay
from local.replay.local_deployment import TrainingResult
from papertape.market_data.sessions import sessions_between
from papertape.operate.client import announced
from tests.e2e.browser import SIZES, Tab, launched
from tests.e2e.conftest import EVE, App

pytestmark = pytest.mark.rehearse
WEEK = (date(2020, 8, 26), date(2020, 9, 1))
PAGES = ("decisions", "portfolio", "trading", "news", "health", "training", "models", "simulation")


@dataclass(frozen=True)
class Site:
    """The web app's server: the address that it printed, with its token, and the app that it shows."""

    address: str
    app: App

    @property
    def base(self) -> str:
        return self.address.partition("/#")[0]

    @property
    def token(self) -> str:
        return self.address.partition("token=")[2]


@pytest.fixture(scope="module")
def site(app: App, trained: TrainingResult, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    app.begin(f"{EVE}T22:00:00Z")
    deployment, settings = app.deployment, app.settings
    traded = replay(
        cloud=deployment, exchange=app.exchange, ledger=deployment.ledger, sessions=sessions_between(*WEEK),
        entries=replay_schedule.year(settings), prefix=settings.name, on_session=lambda _: None,
    )  # fmt: skip
    assert traded.matches
    assert traded.duplicates == 0
    folder = tmp_path_factory.mktemp("web")
    api, cloud = deployment.output("ExecutionApiUrl"), deployment.cloud.url
    with announced(folder, api_url=api, cloud_url=cloud, settings=settings), served(folder) as address:
        yield Site(address, app)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """`papertape dashboard` as a process; the address that it prints."""
    command = [sys.executable, "-m", "papertape", "dashboard", "--folder", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        try:
            assert "http://127.0.0.1:" in line, line
            yield line[line.index("http://") :].strip()
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as one:
        yield one


@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_page_shows_what_was_traded_without_a_complaint(site: Site, browser: Browser, width: int, scheme: str) -> None:
    """Nothing is blocked or broken, nothing serious for those who cannot see or click, and nothing reaches over the edge."""
    tab = Tab.open(browser, site.address, width=width, scheme=scheme)
    wrong = {}
    for name in PAGES:
        tab.show(name)
        tab.photograph(f"{name}-{scheme}-{width}")
        wrong[name] = [*tab.complaints, *tab.serious(), *(["it has to be moved sideways"] if tab.wide() else [])]
        tab.complaints.clear()
    tab.context.close()
    assert wrong == {name: [] for name in PAGES}


def test_another_token_is_refused_and_says_so(site: Site, browser: Browser) -> None:
    for given in ("", "x", site.token[:-1], site.token + "x"):
        refused = requests.get(f"{site.base}/v1/app/api/portfolio", headers={"Authorization": f"Bearer {given}"}, timeout=10)
        assert (refused.status_code, refused.json()) == (401, {"message": "Unauthorized"})
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{site.base}/#token=not-the-one")
    page.get_by_text("You are signed out: the token was refused.").wait_for()
    context.close()


def test_a_page_of_elsewhere_cannot_ask_in_this_name(site: Site) -> None:
    signed = {"Authorization": f"Bearer {site.token}"}
    for header in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        refused = requests.post(f"{site.base}/v1/app/api/orders", headers={**signed, **header}, json={}, timeout=10)
        assert refused.status_code == 421
