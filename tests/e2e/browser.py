"""A real browser for the web app: Debian's Chromium, an installed Chrome, or the one that Playwright brought."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from local.aws.emulator import ROOT

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# As root it has no sandbox; what it would ask of its maker's servers is off
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
SCREENS = ROOT / "out" / "screens"
SIZES = {1280: 900, 390: 844}
# To where it is already the browser would not go
GO = """hash => { document.querySelector('main').replaceChildren();
    if (location.hash === hash) dispatchEvent(new HashChangeEvent('hashchange')); else location.hash = hash }"""
# A page may move on when a screenshot or a check has waited for what it shows
TIMEOUT = 60_000  # milliseconds


@contextmanager
def launched() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = next((path for path in map(shutil.which, NAMES) if path), None)
        own = playwright.chromium.executable_path
        if found is None and not Path(own).exists():
            pytest.fail("the web app's tests need a browser: install Debian's chromium or Chrome (README, Operate)", pytrace=False)
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Tab:
    """One tab of the web app; `complaints` are what the page wrote to the console as errors, a blocked script among them."""

    page: Page
    context: BrowserContext
    complaints: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, browser: Browser, address: str, *, width: int = 1280, scheme: str = "light") -> Tab:
        context = browser.new_context(viewport={"width": width, "height": SIZES[width]}, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        page = context.new_page()
        page.set_default_timeout(TIMEOUT)
        tab = cls(page, context)
        page.on("console", lambda message: tab.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: tab.complaints.append(str(error)))
        page.goto(address)
        page.wait_for_selector("main h1")
        return tab

    def show(self, path: str) -> None:
        """Go to a page and wait until it is there and its charts are drawn."""
        self.page.evaluate(GO, f"#/{path}")
        self.page.wait_for_selector("main h1")
        self.page.wait_for_function("() => [...document.querySelectorAll('main [data-chart]')].every((one) => one.childElementCount)")

    def serious(self) -> list[str]:
        """What axe finds that is serious or worse."""
        self.page.evaluate(AXE.read_text(encoding="utf-8") + "; undefined")
        found: dict[str, Any] = self.page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
        bad = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
        return [f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}" for one in bad]

    def photograph(self, name: str) -> None:
        SCREENS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENS / f"{name}.png", full_page=True)

    def wide(self) -> bool:
        """Whether the page has to be moved sideways."""
        return bool(self.page.evaluate("() => document.documentElement.scrollWidth > document.documentElement.clientWidth"))
