"""What a month costs, before anything is deployed: usage read from the synthesized templates, times list prices.

How often things run, how large they are and how many there are is read from the templates; how long a run takes and how much it reads and
writes is assumed, and what weighs is printed. An estimate from list prices of one region, not a bill. Failure: `CostError`, one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from papertape.operate.costs import minutes_cost, stream_cost
from papertape.operate.costs.runner_cost import RUNNER_ASSUMPTION, RunnerTask
from papertape.operate.prices import FIREHOSE_MEMORY, MEMORY, PRICES, READ_IN, REGION
from schema.settings import Settings
from trading_env.errors import PapertapeError

Template = Mapping[str, Any]

DAYS = 365.25 / 12
WEEKS = DAYS / 7
HOURS = 730.0
REFERENCE = 19.74  # dollars a month, of the design that this one is measured against: a stream of quotes is more than half of it

#: Seconds of one run by function, cold starts spread over them; and what a run reads and writes of the table.
SECONDS = {
    "ingest_quotes": 1.0, "backfill_bars": 60.0, "decide": 30.0, "execute_orders": 10.0, "control": 0.5, "reconcile": 3.0,
    "deploy_model": 240.0, "health": 3.0, "report": 10.0, "collect_news": 5.0, "dashboard": 0.15, "publish_web": 10.0,
    "consume_stream": stream_cost.SECONDS,
}  # fmt: skip
TABLE_READS, TABLE_WRITES = 30, 5  # of a run
GLUE_MINUTES = 3.0
JOB_START_MINUTES = 4.0  # of a training job, until it trains
FIT_MINUTES = 0.45  # of one fit of 150,000 steps with eight names
JUDGING_MINUTES = 15.0
ENDPOINT_GB, ENDPOINT_SECONDS = 3.0, 30.0  # of one question to each of the two endpoints, cold
STORED_GB, TABLE_GB, LOGGED_GB, SENT_GB = 5.0, 0.1, 0.5, 0.5
MAILS, REQUESTS = 60, 200  # beside the decisions'
READS_PER_WRITE = 20  # of objects in S3
STORE_UNITS = 2  # of a record in Feature Store: about twenty numbers with their names, 1 to 2 KB
#: Of the web app, one user's month: requests to the API and to CloudFront, what both send, and runs (training, mostly) with their hours.
WEB_CALLS, WEB_REQUESTS, WEB_GB, WEB_RUNS, WEB_RUN_HOURS = 50_000, 60_000, 2.0, 8, 0.5
WEB_READS = 10  # of the table, by one call
PAID_FOR = ("comprehend", "bedrock")  # scorers of news

ASSUMPTIONS = (
    f"a run takes {SECONDS['ingest_quotes']:g} s for quotes, {SECONDS['decide']:g} s to decide, {SECONDS['reconcile']:g} s to reconcile, "
    f"{SECONDS['health']:g} s for health, {SECONDS['backfill_bars']:g} s for bars",
    f"a Glue run {GLUE_MINUTES:g} minutes; a training job {JOB_START_MINUTES:g} minutes to start, and {FIT_MINUTES:g} for a fit of 150,000 "
    f"steps with eight names, others in proportion; a judgement {JUDGING_MINUTES:g}",
    f"{ENDPOINT_SECONDS:g} s of {ENDPOINT_GB:g} GB for each question to an endpoint, two endpoints",
    "a paid scorer of news, where one is set, its whole monthly_budget_usd; what X bills is not in it",
    f"{STORED_GB:g} GB in S3, {LOGGED_GB:g} GB of logs, {SENT_GB:g} GB to the broker, {MAILS} mails",
)

WEB_ASSUMPTION = (
    f"the web app's one user makes {WEB_CALLS:,} calls of {SECONDS['dashboard']:g} s, {WEB_GB:g} GB, and {WEB_RUNS} runs of "
    f"{WEB_RUN_HOURS:g} hours on ml.m5.large"
)


class CostError(PapertapeError, RuntimeError):
    """The month cannot be estimated; the message is one line with a remedy."""


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What the templates hold. `runs`: schedule -> runs per month; `memory`: function -> GB; `jobs`: machine -> hours per training;
    `store_records`: put into Feature Store per run of the features' job, 0 where it is off; `scoring_usd`: what a paid scorer may cost;
    `web_users`: invited to the web app, 0 where it is off; `stream`: its kind, "none" where there is none; `runner`: None where it is
    off; `minutes`: None where a row is a session."""

    runs: Mapping[str, float]
    memory: Mapping[str, float]
    alarms: int
    dashboards: int
    metrics: int
    glue_dpus: float
    jobs: Mapping[str, float]
    job_gb_hours: float
    news_sources: int
    scoring_usd: float
    store_records: int = 0
    web_users: int = 0
    runner: RunnerTask | None = None
    stream: stream_cost.StreamKind = "none"
    minutes: minutes_cost.MinuteBars | None = None


@dataclass(frozen=True, kw_only=True)
class Bill:
    """Dollars a month by service, without and with what every account gets for nothing."""

    by_service: Mapping[str, float]
    after_free_tiers: Mapping[str, float]
    assumptions: Sequence[str] = ASSUMPTIONS

    @property
    def monthly(self) -> float:
        return round(sum(self.by_service.values()), 2)

    @property
    def monthly_after_free_tiers(self) -> float:
        return round(sum(self.after_free_tiers.values()), 2)

    def document(self) -> dict[str, Any]:
        return {
            "monthly": self.monthly,
            "monthly_after_free_tiers": self.monthly_after_free_tiers,
            "by_service": dict(self.by_service),
            "by_service_after_free_tiers": dict(self.after_free_tiers),
            "prices": f"{REGION}, {READ_IN}",
            "assumptions": list(self.assumptions),
        }


def run(settings: Settings, *, templates: Path, out: Path, console: Console) -> Bill:
    """Print the estimate for the templates in `templates`, and write it to `out`."""
    found = deployed(settings, read(templates, name=settings.name))
    bill = bill_of(usage(found))
    if found.minutes is not None:
        bill = replace(bill, assumptions=(*bill.assumptions, minutes_cost.ASSUMPTION))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(bill.document(), indent=1) + "\n", encoding="utf-8")
    _show(bill, found, settings, console=console)
    console.print(f"[dim]written to {out}[/dim]")
    return bill


def read(folder: Path, *, name: str) -> list[Template]:
    """The synthesized templates of the app `name`."""
    manifest = folder / "manifest.json"  # the folder may hold templates of an earlier name as well
    artifacts = json.loads(manifest.read_text(encoding="utf-8"))["artifacts"] if manifest.exists() else {}
    stacks = [one["properties"]["templateFile"] for one in artifacts.values() if one["type"] == "aws:cloudformation:stack"]
    files = [folder / file for file in sorted(stacks) if re.fullmatch(rf"{re.escape(name)}-[a-z]+\.template\.json", file)]
    if not files:
        raise CostError(f"{folder} holds no template of {name}: run `make synth` first")
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def deployed(settings: Settings, templates: list[Template]) -> Deployed:
    resources = [resource for template in templates for resource in template["Resources"].values()]

    def of(kind: str) -> list[dict[str, Any]]:
        return [resource["Properties"] for resource in resources if resource["Type"] == kind]

    stream = stream_cost.kind_in({resource["Type"]: resource for resource in resources})
    bodies = [_joined(one["DashboardBody"]) for one in of("AWS::CloudWatch::Dashboard")]
    written = {found for body in bodies for found in re.findall(rf'\["{re.escape(settings.name)}","(\w+)"', body)}
    (job,) = of("AWS::Glue::Job")
    (pipeline,) = [one for one in of("AWS::SageMaker::Pipeline") if _own(one["PipelineName"], settings) == "training"]
    crons = {_own(one["Name"], settings): one["ScheduleExpression"] for one in of("AWS::Scheduler::Schedule")}
    jobs, disk = _training(settings, json.loads(_joined(pipeline["PipelineDefinition"]["PipelineDefinitionBody"])))
    return Deployed(
        runs={name: runs_a_month(cron) for name, cron in crons.items()},
        memory={one["Handler"].split(".")[1]: one["MemorySize"] / 1024 for one in of("AWS::Lambda::Function")},
        alarms=len(of("AWS::CloudWatch::Alarm")),
        dashboards=len(bodies),
        metrics=len(written) + (1 if stream == "none" else 0),  # one that ingest_quotes writes when a quote is missing
        glue_dpus=job["NumberOfWorkers"] * {"G.1X": 1, "G.2X": 2}[job["WorkerType"]],
        jobs=jobs,
        job_gb_hours=disk,
        store_records=len(of("AWS::SageMaker::FeatureGroup")) * len(settings.universe.symbols) * max(1, len(settings.row_slots)),
        web_users=len(of("AWS::Cognito::UserPoolUser")),
        runner=next((RunnerTask.of(task, crons, weeks=WEEKS) for task in of("AWS::ECS::TaskDefinition")), None),
        stream=stream,
        minutes=minutes_cost.MinuteBars.of(settings),
        news_sources=len(settings.news.sources),
        scoring_usd=settings.sentiment.monthly_budget_usd if settings.news.sources and settings.sentiment.scorer in PAID_FOR else 0.0,
    )


def _own(name: str, settings: Settings) -> str:
    return name.removeprefix(f"{settings.name}-")


def _joined(value: Any) -> str:
    """Text of a template; what is only known after the deployment is left out."""
    match value:
        case str():
            return value
        case {"Fn::Join": [str(separator), [*parts]]}:
            return separator.join(_joined(part) for part in parts)
    return ""


def _training(settings: Settings, definition: Mapping[str, Any]) -> tuple[dict[str, float], float]:
    """Hours by instance type, and GB-hours of disk, of one run of the pipeline."""
    training = settings.training
    names = min(len(settings.universe.symbols), training.names_per_episode)
    fits = (training.folds + 1) * (training.timesteps / 150_000) * (names / 8)
    hours = {"Training": (JOB_START_MINUTES + FIT_MINUTES * fits) / 60, "Processing": JUDGING_MINUTES / 60}
    jobs: dict[str, float] = {}
    disk = 0.0
    for step in _steps(definition["Steps"]):
        arguments = step.get("Arguments", {})
        cluster = arguments.get("ResourceConfig") or arguments.get("ProcessingResources", {}).get("ClusterConfig")
        if cluster is None:
            continue
        kind = cluster["InstanceType"]
        if kind not in PRICES:
            raise CostError(f"{kind} has no price: add it to papertape/operate/prices.py")
        spent = hours[step["Type"]] * cluster["InstanceCount"]
        jobs[kind] = jobs.get(kind, 0.0) + spent
        disk += spent * cluster["VolumeSizeInGB"]
    return jobs, disk


def _steps(steps: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Every step, those that a condition holds as if it were true and false: the most that a run can cost."""
    for step in steps:
        yield step
        arguments = step.get("Arguments", {})
        for branch in ("IfSteps", "ElseSteps"):
            yield from _steps(arguments.get(branch, ()))


def runs_a_month(expression: str) -> float:
    """How often `cron(minute hour ? * days *)` fires in an average month."""
    found = re.fullmatch(r"cron\((\S+) (\S+) \? \* (\S+) \*\)", expression)
    if found is None:
        raise CostError(f"{expression} is no cron of this app: minutes, hours, ? * days *")
    minute, hour, days = found.groups()
    per_week = {"*": 7, "MON-FRI": 5}.get(days, len(days.split(",")))
    return _times(minute, 60) * _times(hour, 24) * per_week * WEEKS


def _times(field: str, size: int) -> int:
    if "/" in field:
        return len(range(int(field.split("/")[0]), size, int(field.split("/")[1])))
    if "-" in field:
        first, last = field.split("-")
        return int(last) - int(first) + 1
    return size if field == "*" else len(field.split(","))


def usage(found: Deployed) -> dict[str, float]:
    """How much of each thing in `PRICES` a month uses."""
    if unknown := sorted(found.memory.keys() - SECONDS.keys()):
        raise CostError(f"how long a run of {', '.join(unknown)} takes is not known: add it to papertape/operate/cost.py")
    decisions = sum(count for name, count in found.runs.items() if name.partition("-")[0] == "decide")
    calls = dict.fromkeys(found.memory, 0.0)
    for name, count in found.runs.items():
        folder = name if name in calls else name.partition("-")[0]
        if folder in calls:
            calls[folder] += count
    calls["execute_orders"] += decisions
    calls["control"] += REQUESTS
    calls["deploy_model"] += found.runs["train"]
    total = sum(calls.values())
    news = calls.get("collect_news", 0.0) * (2 * found.news_sources + 1)  # news and scores of each source, and the state
    written = news + calls.get("ingest_quotes", 0.0) + 10 * decisions + found.runs["build_features"] * 20 + found.runs["train"] * 50
    used = {
        "alarm": found.alarms,
        "metric": found.metrics,
        "dashboard": found.dashboards,
        "log": LOGGED_GB,
        **{kind: hours * found.runs["train"] for kind, hours in found.jobs.items()},
        "job volume": found.job_gb_hours * found.runs["train"],
        "serverless": 2 * decisions * ENDPOINT_GB * ENDPOINT_SECONDS,
        "dpu": found.runs["build_features"] * found.glue_dpus * GLUE_MINUTES / 60,
        "secret": 1,
        "secret read": total / 20,
        "lambda request": total,
        "lambda time": sum(count * found.memory[name] * SECONDS[name] for name, count in calls.items()),
        "schedule": sum(found.runs.values()),
        "s3 storage": STORED_GB,
        "s3 write": written,
        "s3 read": READS_PER_WRITE * written,
        "table write": TABLE_WRITES * total,
        "table read": TABLE_READS * total,
        "table storage": TABLE_GB,
        "table backup": TABLE_GB,
        "api request": decisions + REQUESTS,
        "mail": MAILS,
        "traffic": SENT_GB,
        **_of_store(found),
        **({"scoring": found.scoring_usd} if found.scoring_usd else {}),
    }
    acted_on = {} if found.runner is None else found.runner.usage(found.runs, pass_gb=found.memory["reconcile"], reads=TABLE_READS)
    stream = stream_cost.used_by(found.stream, gb=found.memory.get("consume_stream", 0.0))
    for key, amount in (*_of_web(found).items(), *stream.items(), *acted_on.items(), *_of_minutes(found, decisions).items()):
        used[key] = used.get(key, 0.0) + amount
    return used


def _of_web(found: Deployed) -> dict[str, float]:
    """What the web app uses, if it is on; a run has the disk that every job has."""
    if not found.web_users:
        return {}
    hours = WEB_RUNS * WEB_RUN_HOURS
    disk = found.job_gb_hours / sum(found.jobs.values())
    return {
        "web user": found.web_users,
        "web request": WEB_REQUESTS,
        "web traffic": WEB_GB,
        "run hour": hours,
        "run volume": hours * disk,
        "api request": WEB_CALLS,
        "lambda request": WEB_CALLS,
        "lambda time": WEB_CALLS * found.memory["dashboard"] * SECONDS["dashboard"],
        "table read": WEB_CALLS * WEB_READS,
        "s3 read": WEB_CALLS,
    }


def _of_minutes(found: Deployed, decisions: float) -> dict[str, float]:
    if found.minutes is None:
        return {}
    backfill, decide = (found.memory[name] for name in ("backfill_bars", "decide"))
    return found.minutes.usage(nights=found.runs["backfill_bars"], decisions=decisions, backfill_gb=backfill, decide_gb=decide)


def _of_store(found: Deployed) -> dict[str, float]:
    """What Feature Store uses, if it is on: each record is written every night, and kept once."""
    if not found.store_records:
        return {}
    units = STORE_UNITS * found.store_records
    return {"store write": units * found.runs["build_features"], "store storage": units / 1e6}


def bill_of(used: Mapping[str, float]) -> Bill:
    full: dict[str, float] = {}
    after: dict[str, float] = {}
    for key, amount in used.items():
        price = PRICES[key]
        full[price.service] = full.get(price.service, 0.0) + amount * price.usd
        after[price.service] = after.get(price.service, 0.0) + max(0.0, amount - price.free) * price.usd
    return Bill(
        by_service={service: round(cost, 2) for service, cost in full.items()},
        after_free_tiers={service: round(cost, 2) for service, cost in after.items()},
        assumptions=(
            *ASSUMPTIONS,
            *((WEB_ASSUMPTION,) if "web user" in used else ()),
            *((RUNNER_ASSUMPTION,) if "task processor" in used else ()),
            *((stream_cost.ASSUMPTION,) if used.keys() & {"firehose", "kinesis put"} else ()),
        ),
    )


def options(found: Deployed) -> Iterator[tuple[str, Bill]]:
    """What else could be had, each with the bill of the whole month."""

    def with_runs(**changed: float) -> Bill:
        return bill_of(usage(replace(found, runs={**found.runs, **changed})))

    used = usage(found)
    if "ingest_quotes" in found.runs:
        yield "quotes every five times as many minutes", with_runs(ingest_quotes=found.runs["ingest_quotes"] / 5)
    yield "features on Fridays alone", with_runs(build_features=found.runs["build_features"] / 5)
    yield "training once a month", with_runs(train=1.0)
    yield "a second decision a session", bill_of(usage(replace(found, runs={**found.runs, "decide-second": found.runs["decide"]})))
    yield "no dashboard", bill_of({**used, "dashboard": 0})
    yield "two endpoints that always run (ml.t2.medium)", bill_of({**used, "serverless": 0, "ml.t2.medium": 2 * HOURS})
    if found.stream == "none":
        yield "a stream of quotes (one Kinesis shard)", bill_of({**used, "kinesis shard": HOURS})


def _show(bill: Bill, found: Deployed, settings: Settings, *, console: Console) -> None:
    table = Table("", "list price", "after always-free", title=f"{settings.name}: US dollars a month", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for service, cost in sorted(bill.by_service.items(), key=lambda one: -one[1]):
        table.add_row(service, f"{cost:,.2f}", f"{bill.after_free_tiers[service]:,.2f}")
    table.add_section()
    table.add_row("[bold]total", f"[bold]{bill.monthly:,.2f}", f"[bold]{bill.monthly_after_free_tiers:,.2f}")
    table.add_row("the reference design", f"{REFERENCE:,.2f}", "")
    table.add_section()
    for name, other in options(found):
        change = (other.monthly - bill.monthly, other.monthly_after_free_tiers - bill.monthly_after_free_tiers)
        table.add_row(f"with {name}" if not name.startswith("no ") else name, *(f"{cost:+,.2f}" for cost in change))
    console.print(table)
    elsewhere = "" if settings.region == REGION else f"; yours is {settings.region}, where some differ"
    console.print(f"List prices of {REGION}, {READ_IN}{elsewhere}: papertape/operate/prices.py says where each was read. Not a bill.")
    if found.store_records:
        console.print(f"SageMaker Feature Store's prices are {MEMORY}.")
    if found.stream == "firehose":
        console.print(f"What Firehose takes for placing records is {FIREHOSE_MEMORY}.")
    console.print("What is free is the whole account's: another app in it uses it up as well.")
    if bill.monthly_after_free_tiers > settings.budget.monthly_budget_usd:
        console.print(
            f"That is more than [budget] monthly_budget_usd = {settings.budget.monthly_budget_usd:g}: the budget will mail, "
            "raise it or switch something off.",
            markup=False,
        )
    console.print("Assumed: " + "; ".join(bill.assumptions) + ".")
