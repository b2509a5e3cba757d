"""The web app in a real browser, over a week that the deployed functions have traded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
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
from local.replay.local_deployment import SERVED_SECONDS, TrainingResult
from papertape.market_data.bundled import daily_bars
from papertape.market_data.sessions import sessions_between
from papertape.operate.client import announced
from tests.e2e.browser import Tab, launched
from tests.e2e.conftest import EVE, App

pytestmark = pytest.mark.rehearse
WEEK = (date(2020, 8, 26), date(2020, 9, 1))
RUN_SECONDS = 240
HIDE = """hidden => { Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true});
    document.dispatchEvent(new Event('visibilitychange')) }"""
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
            assert os.getpriority(os.PRIO_PROCESS, server.pid) > os.getpriority(os.PRIO_PROCESS, 0), "what trades goes first"
            yield line[line.index("http://") :].strip()
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as one:
        yield one


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
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


def confirm(tab: Tab, *, reason: str = "") -> None:
    """Say yes in the dialog, with a reason where it asks for one."""
    dialog = tab.page.locator("dialog[open]")
    if reason:
        dialog.get_by_label("Reason").fill(reason)
    dialog.get_by_role("button", name="Do it").click()


def told(tab: Tab, words: str) -> None:
    tab.page.locator("#notices p").filter(has_text=words).wait_for()


def test_an_order_by_hand_is_filled_once_and_a_halt_stops_the_next(site: Site, browser: Browser) -> None:
    """From the click to the fill in the ledger; a second click of the same form is the same order."""
    app, ledger = site.app, site.app.deployment.ledger
    app.exchange.advance("2020-09-02T14:00:00Z")
    tab = Tab.open(browser, site.address)
    tab.show("trading?symbol=IBM")
    form = tab.page.locator("form[data-write='orders']")
    form.get_by_label("Shares").fill("2")
    form.get_by_role("button", name="Order").click()
    confirm(tab)
    tab.page.locator("#notices p").first.wait_for()
    app.succeed("reconcile", "2020-09-02T14:05:00Z")
    by_hand = [order for order in ledger.orders("2020-09") if order.decision_id.startswith("manual:")]
    assert [(order.symbol, order.side, str(order.filled_quantity), order.status) for order in by_hand] == [("IBM", "buy", "2", "filled")]

    tab.show("trading?symbol=IBM")
    tab.page.get_by_role("button", name="Halt").click()
    confirm(tab, reason="to see <b>that</b> it stops")
    tab.page.locator(".tag", has_text="halted").wait_for()
    state = ledger.trading_state()
    assert (state.state, state.reason) == ("halted", "to see <b>that</b> it stops (laptop, web app)")
    form = tab.page.locator("form[data-write='orders']")
    form.get_by_label("Shares").fill("3")
    form.get_by_role("button", name="Order").click()
    confirm(tab)
    tab.page.locator("#notices p.failed").wait_for()
    assert len([order for order in ledger.orders("2020-09") if order.decision_id.startswith("manual:")]) == 1

    tab.show("trading")
    tab.page.get_by_role("button", name="Resume").click()
    confirm(tab, reason="seen")
    tab.page.locator(".tag", has_text="active").wait_for()
    tab.context.close()
    assert tab.complaints == ["Failed to load resource: the server responded with a status of 423 (Locked)"]


def test_a_file_becomes_a_trained_table_that_can_be_looked_at(site: Site, browser: Browser, tmp_path: Path) -> None:
    """Columns of other names and numbers with commas, confirmed, then Q-learning to its verdict, its curve and its table."""
    bars = daily_bars()
    own = bars[bars["symbol"].isin(["AAPL", "IBM", "SPY"]) & (bars["session"] >= "2013-01-01")]
    named = own.rename(
        columns={"symbol": "Ticker", "session": "Day", "open": "Open", "high": "High", "low": "Low", "close": "Last", "volume": "Vol"}
    )
    file = tmp_path / "mine.csv"
    named[["Ticker", "Day", "Open", "High", "Low", "Last", "Vol"]].to_csv(file, index=False, sep=";", decimal=",")
    tab = Tab.open(browser, site.address)
    tab.show("training/upload")
    tab.page.get_by_label("File").set_input_files(file)
    tab.page.get_by_role("button", name="Upload and look at it").click()
    tab.page.locator("select[data-column='Last']").wait_for(timeout=RUN_SECONDS * 1000)
    tab.page.locator("select[data-column='Last']").select_option("close")
    tab.page.get_by_role("button", name="Check these columns").click()
    tab.page.get_by_label("How numbers of Last are written").wait_for(timeout=RUN_SECONDS * 1000)
    assert tab.page.get_by_label("How numbers of Last are written").input_value() == "1.234,56"
    tab.page.get_by_role("button", name="Check these columns").click()
    tab.page.get_by_role("link", name="Train on these bars").click(timeout=RUN_SECONDS * 1000)
    tab.page.get_by_label("Algorithm").select_option("q-learning")
    tab.page.get_by_label("Timesteps, per seed and fold").fill("4000")
    tab.page.get_by_label("Folds").fill("1")
    tab.page.get_by_label("Seeds").fill("1")
    tab.page.get_by_role("button", name="Start the training").click()
    tab.page.get_by_role("heading", name="Verdict").wait_for(timeout=RUN_SECONDS * 1000)
    tab.page.locator("[data-chart='q-table'] table").wait_for()
    tab.page.locator("[data-chart='run-curves'] canvas").first.wait_for()
    tab.photograph("training-q-learning")
    assert tab.serious() == []
    assert tab.complaints == []
    tab.context.close()


def asks_only_when_it_is_seen(tab: Tab) -> None:
    """A live page in a hidden tab asks for nothing, and asks at once when it is looked at again."""
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    tab.page.evaluate(HIDE, arg=True)
    tab.page.wait_for_timeout(500)  # for what was asked before
    asked.clear()
    tab.page.wait_for_timeout(3000)  # longer than it waits between two questions
    assert asked == []
    with tab.page.expect_request(lambda request: request.url.endswith("/live"), timeout=1500):
        tab.page.evaluate(HIDE, arg=False)


def downloaded(tab: Tab, folder: Path) -> None:
    """Model and report of the run that is shown, by clicks."""
    for button, name in (("Download the model", "model.tar.gz"), ("Download the report", "page.html")):
        with tab.page.expect_download() as download:
            tab.page.get_by_role("button", name=button).click()
        download.value.save_as(folder / name)
    with tarfile.open(folder / "model.tar.gz") as archive:
        assert {"policy.npz", "policy.json"} <= set(archive.getnames())
    assert (folder / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def compared(tab: Tab) -> None:
    """The two newest trainings beside each other."""
    tab.show("training")
    boxes = tab.page.locator("input[name=run]")
    for place in range(2):
        boxes.nth(place).check()
    tab.page.get_by_role("button", name="Compare the chosen trainings").click()
    tab.page.get_by_role("heading", name="Runs beside each other").wait_for()
    tab.page.get_by_role("rowheader", name="training.algorithm").wait_for()
    tab.page.locator("[data-chart='run-comparison'] canvas").first.wait_for()
    tab.photograph("training-compared")
    assert tab.serious() == []


def test_a_ppo_run_is_watched_stopped_gone_on_with_downloaded_and_compared(site: Site, browser: Browser, tmp_path: Path) -> None:
    tab = Tab.open(browser, site.address)
    tab.show("training/new")
    tab.page.get_by_label("Title").fill("<i>watched</i>")
    tab.page.get_by_label("Algorithm").select_option("ppo")
    tab.page.get_by_label("Timesteps, per seed and fold").fill("60000")
    tab.page.get_by_label("Folds").fill("1")
    tab.page.get_by_label("Seeds").fill("1")
    tab.page.get_by_role("button", name="Start the training").click()
    tab.page.locator("table", has_text="The newest rollout").wait_for(timeout=RUN_SECONDS * 1000)
    asks_only_when_it_is_seen(tab)
    tab.page.locator("#run-stop").click()
    tab.page.locator("#run-resume").wait_for(timeout=RUN_SECONDS * 1000)
    tab.page.locator("#run-resume").click()
    tab.page.get_by_role("heading", name="Verdict").wait_for(timeout=RUN_SECONDS * 1000)
    assert tab.page.locator("h1").inner_text() == "<i>watched</i>"
    tab.photograph("training-ppo")
    downloaded(tab, tmp_path)
    compared(tab)
    assert tab.complaints == []
    tab.context.close()


def test_a_model_that_the_gate_refused_cannot_be_let_trade_by_a_click_and_one_is_rejected_with_a_reason(
    site: Site, browser: Browser, trained: TrainingResult
) -> None:
    tab = Tab.open(browser, site.address)
    tab.show("models")
    tab.page.get_by_role("link", name="Version 1", exact=True).click()
    tab.page.get_by_text("Approve: not now").wait_for()
    registry = site.app.deployment.client("sagemaker")
    registry.update_model_package(ModelPackageArn=trained.package_arn, ModelApprovalStatus="Approved")
    tab.page.reload()
    tab.page.get_by_role("button", name="Reject").click()
    confirm(tab, reason="not in my name")
    told(tab, "")
    package = registry.describe_model_package(ModelPackageName=trained.package_arn)
    assert package["ModelApprovalStatus"] == "Rejected"
    tab.page.get_by_text("not in my name").wait_for()
    tab.context.close()


def passing(site: Site, trained: TrainingResult, *, name: str) -> str:
    """A further version as the pipeline's last step registers it, of the trained model with an evaluation by which the gate passed it."""
    deployment, registry = site.app.deployment, site.app.deployment.client("sagemaker")
    bucket, key = deployment.output("ProcessedBucket"), f"models/{name}/evaluation/evaluation.json"
    gate = trained.evaluation["gate"]
    checks = [{**check, "passed": True} for check in gate["checks"]]
    evaluation = {**trained.evaluation, "gate": {**gate, "passed": True, "checks": checks, "reasons": []}}
    deployment.client("s3").put_object(Bucket=bucket, Key=key, Body=json.dumps(evaluation).encode())
    as_registered = registry.describe_model_package(ModelPackageName=trained.package_arn)
    kept = ("ModelPackageGroupName", "InferenceSpecification")
    made = registry.create_model_package(
        **{argument: as_registered[argument] for argument in kept},
        CustomerMetadataProperties={**evaluation["metadata"]},
        ModelApprovalStatus="PendingManualApproval",
        ModelMetrics={"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": f"s3://{bucket}/{key}"}}},
    )
    return str(made["ModelPackageArn"])


def trades(site: Site, arn: str) -> None:
    """Wait until `deploy_model` has pointed the incumbent to the package."""
    ledger, deadline = site.app.deployment.ledger, time.monotonic() + SERVED_SECONDS
    while (incumbent := ledger.incumbent()) is None or incumbent.spec != arn:
        assert time.monotonic() < deadline, f"{arn} does not trade, {incumbent} does"
        time.sleep(0.1)


def test_models_that_passed_are_approved_by_clicks_and_the_earlier_one_is_returned_to(
    site: Site, browser: Browser, trained: TrainingResult
) -> None:
    """What a person does at a version's page, and who trades after `deploy_model` has heard of it from the registry."""
    tab = Tab.open(browser, site.address)
    first, second = (passing(site, trained, name=name) for name in ("passing-1", "passing-2"))
    for arn, action, reason in ((first, "Approve", "it is better"), (second, "Approve", "newer"), (first, "Return", "rather that one")):
        number = arn.rpartition("/")[2]
        tab.show("models")
        tab.page.get_by_role("link", name=f"Version {number}", exact=True).click()
        tab.page.get_by_role("button", name=action).click()
        confirm(tab, reason=reason)
        told(tab, f"version {number} is approved")
        trades(site, arn)
        tab.show("models")
        row = tab.page.get_by_role("row").filter(has=tab.page.get_by_role("link", name=f"Version {number}", exact=True))
        assert row.get_by_role("cell", name="trades", exact=True).is_visible()
    tab.page.get_by_role("link", name=f"Version {first.rpartition('/')[2]}", exact=True).click()
    tab.page.get_by_text("Approved by laptop").wait_for()
    tab.page.get_by_text("rather that one").wait_for()
    tab.photograph("model-returned-to")
    assert tab.complaints == []
    tab.context.close()
