"""The CDK app: read the settings, compose six stacks (more with the web app, a stream, the runner), hand each what it needs.

`python app.py` (`make synth`) writes `cdk.out`, needs no account, and gives the same bytes for the same sources. A wrong setting ends it
with one line and status 1. Context: `settings` names another settings file, `environment` (or the variable PAPERTAPE_ENVIRONMENT) one of
its environments, and `target=laptop` prepares the functions for this machine's Python and pins the account of the local cloud; nothing
else in the templates differs. `dates_as_of` is the day that the training dates are checked for, or `unchecked`: today for an account, and
none for the laptop, whose clock is its exchange's.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import date
from pathlib import Path

import stacks  # noqa: F401 -- before aws_cdk: it chooses jsii's Node
from schema.loopback import LOCAL_ACCOUNT

# isort: split

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from schema.capacity import refuse_too_many_names
from schema.settings import ENVIRONMENT, Settings, SettingsError, load
from schema.training_dates import refuse_impossible_dates
from schema.universes import stale
from stacks.constructs import archives
from stacks.constructs.archives import BundleError, Target
from stacks.constructs.function import Runtime
from stacks.dashboard import DashboardStack
from stacks.features import FeaturesStack
from stacks.ingest import IngestStack
from stacks.lake import LakeStack
from stacks.model import ModelStack
from stacks.monitoring import MonitoringStack
from stacks.realtime import RealtimeStack
from stacks.stream import StreamStack
from stacks.trading import TradingStack

ROOT = Path(__file__).resolve().parent


def compose(app: cdk.App, *, settings: Settings, target: Target, account: str | None) -> None:
    """Add the stacks, and the AwsSolutions rules that they must satisfy. `account` None: whichever the CLI deploys to."""
    env = cdk.Environment(account=account, region=settings.region)
    code = archives.modules("lambdas", "schema", "sources", "trading_env", settings=settings, name="code")
    name = settings.name
    runtime = Runtime(app=name, target=target, code=code)
    lake = LakeStack(app, f"{name}-lake", settings=settings, env=env)
    ingest = IngestStack(app, f"{name}-ingest", settings=settings, runtime=runtime, lake=lake, env=env)
    features = FeaturesStack(app, f"{name}-features", settings=settings, lake=lake, env=env)
    model = ModelStack(app, f"{name}-model", settings=settings, runtime=runtime, lake=lake, env=env)
    trading = TradingStack(app, f"{name}-trading", settings=settings, runtime=runtime, lake=lake, env=env)
    streaming = settings.stream.kind != "none"
    stream = StreamStack(app, f"{name}-stream", settings=settings, runtime=runtime, lake=lake, env=env) if streaming else None
    if trading.web is not None:
        DashboardStack(app, f"{name}-dashboard", settings=settings, runtime=runtime, lake=lake, trading=trading, web=trading.web, env=env)
    monitoring = MonitoringStack(
        app,
        f"{name}-monitoring",
        settings=settings,
        runtime=runtime,
        lake=lake,
        ingest=ingest,
        features=features,
        model=model,
        trading=trading,
        stream=stream,
        env=env,
    )
    if settings.runner.enabled:
        RealtimeStack(
            app,
            f"{name}-realtime",
            settings=settings,
            runtime=runtime,
            lake=lake,
            reconcile=trading.functions["reconcile"],
            health=monitoring.functions["health"],
            stream=stream,
            env=env,
        )
    cdk.Tags.of(app).add("project", name)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks())


def new_app(outdir: str | Path | None = None, *, validated: bool = True) -> cdk.App:
    """An app with the context of `cdk.json`, which the CLI passes but `python app.py` would not see; CloudFormation's own rules, slow
    to load, are asked about its templates unless not `validated`."""
    context = json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))["context"]
    return cdk.App(context=context, outdir=str(outdir) if outdir else None, builtin_cloud_formation_validation=validated)


def _target(context: object) -> Target:
    match context:
        case None | "aws":
            return "aws"
        case "laptop":
            return "laptop"
    raise SettingsError(f"context target = {context!r} is not allowed: aws or laptop")


def _checked_as_of(context: object, *, target: Target) -> date | None:
    """The day to check the training dates for; None: they are not checked. The one place that reads the wall clock."""
    match context:
        case None:
            return None if target == "laptop" else date.today()  # noqa: DTZ011 -- the deployer's own day
        case "unchecked":
            return None
    try:
        return date.fromisoformat(str(context))
    except ValueError as error:
        raise SettingsError(f"context dates_as_of = {context!r} is not allowed: a date such as 2026-11-21, or unchecked") from error


def main() -> None:
    app = new_app(os.environ.get("CDK_OUTDIR", str(ROOT / "cdk.out")))
    target = _target(app.node.try_get_context("target"))
    environment = app.node.try_get_context("environment") or os.environ.get(ENVIRONMENT, "")
    settings = load(Path(app.node.try_get_context("settings") or ROOT / "settings.toml"), environment=environment)
    refuse_too_many_names(settings)
    account = LOCAL_ACCOUNT if target == "laptop" else os.environ.get("CDK_DEFAULT_ACCOUNT")
    compose(app, settings=settings, target=target, account=account)
    today = _checked_as_of(app.node.try_get_context("dates_as_of"), target=target)
    if today is not None:
        refuse_impossible_dates(settings, today=today)
        if warning := stale(settings.universe.chosen_by, today):
            print(f"papertape: {warning}", file=sys.stderr)
    app.synth()


if __name__ == "__main__":
    try:
        main()
    except (SettingsError, BundleError) as error:
        sys.exit(f"papertape: {error}")
