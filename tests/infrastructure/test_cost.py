"""The month's estimate: from what the templates hold, at list prices, small."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lambdas.backfill_bars.backfill import NIGHTLY_SESSIONS
from papertape import command_line
from papertape.operate import cost
from papertape.operate.costs import minutes_cost
from papertape.operate.costs.minutes_cost import MinuteBars
from papertape.operate.prices import PRICES
from schema.settings import Settings
from tests.infrastructure.assembly import STACKS, Assembly

WEEKDAYS = 365.25 / 7 * 5 / 12


@pytest.fixture(scope="module")
def found(aws: Assembly, settings: Settings) -> cost.Deployed:
    return cost.deployed(settings, [aws.templates[stack] for stack in STACKS])


def test_the_default_stays_small(aws: Assembly, settings: Settings, tmp_path: Path) -> None:
    bill = cost.run(settings, templates=aws.folder, out=tmp_path / "out" / "cost.json", console=Console(quiet=True))
    assert 1 < bill.monthly_after_free_tiers <= 6
    assert 5 < bill.monthly <= 13
    written = json.loads((tmp_path / "out" / "cost.json").read_text())
    assert (written["monthly"], written["monthly_after_free_tiers"]) == (bill.monthly, bill.monthly_after_free_tiers)
    assert sum(written["by_service"].values()) == pytest.approx(written["monthly"], abs=0.005)
    assert set(written["by_service"]) == {PRICES[key].service for key in cost.usage(cost.deployed(settings, list(aws.templates.values())))}


def test_what_is_counted_is_what_is_deployed(aws: Assembly, found: cost.Deployed, settings: Settings) -> None:
    assert found.runs.keys() == aws.schedules().keys()
    assert found.memory.keys() == aws.functions().keys() == cost.SECONDS.keys() - {"dashboard", "publish_web", "consume_stream"}
    assert (found.alarms, found.dashboards, found.metrics) == (len(list(aws.resources("AWS::CloudWatch::Alarm"))), 1, 10)
    assert found.runs["decide"] == pytest.approx(WEEKDAYS)
    assert found.runs["ingest_quotes"] == pytest.approx(WEEKDAYS * 7 * 60 / settings.schedule.quotes_every_minutes)
    training = len(settings.training.seeds)
    assert found.jobs["ml.m5.large"] > training * cost.JOB_START_MINUTES / 60


def test_more_of_anything_costs_more(found: cost.Deployed) -> None:
    bill = cost.bill_of(cost.usage(found))
    for more in (
        replace(found, alarms=found.alarms + 10),
        replace(found, metrics=found.metrics + 1),
        replace(found, glue_dpus=2 * found.glue_dpus),
        replace(found, runs={name: 2 * count for name, count in found.runs.items()}),
    ):
        other = cost.bill_of(cost.usage(more))
        assert other.monthly > bill.monthly
        assert other.monthly_after_free_tiers > bill.monthly_after_free_tiers
    stream = dict(cost.options(found))["a stream of quotes (one Kinesis shard)"]
    assert stream.monthly - bill.monthly == pytest.approx(10.95)


def test_a_paid_scorer_counts_with_its_whole_budget_and_only_where_news_are_collected(aws: Assembly, settings: Settings) -> None:
    def bill(**changed: Any) -> cost.Bill:
        return cost.bill_of(cost.usage(cost.deployed(settings.model_copy(update=changed), [aws.templates[stack] for stack in STACKS])))

    paid = settings.sentiment.model_copy(update={"scorer": "comprehend", "monthly_budget_usd": 2.5})
    assert bill(sentiment=paid).monthly - bill().monthly == pytest.approx(2.5)
    quiet = settings.news.model_copy(update={"sources": ()})
    assert "Scoring of news" not in bill(sentiment=paid, news=quiet).by_service


def test_templates_of_another_name_are_not_counted(aws: Assembly, tmp_path: Path) -> None:
    """Neither those of an earlier synth in the same folder, nor those of an environment whose name begins alike."""
    shutil.copytree(aws.folder, tmp_path / "cdk.out", ignore=shutil.ignore_patterns("asset.*"))
    for file in aws.folder.glob("papertape-*.template.json"):
        shutil.copy(file, tmp_path / "cdk.out" / file.name.replace("papertape-", "papertape-dev-"))
    assert len(cost.read(tmp_path / "cdk.out", name="papertape")) == len(STACKS)
    manifest = tmp_path / "cdk.out" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"papertape-', '"papertape-dev-'))
    assert len(cost.read(tmp_path / "cdk.out", name="papertape-dev")) == len(STACKS)
    with pytest.raises(cost.CostError, match="holds no template of papertape: run `make synth` first"):
        cost.read(tmp_path / "cdk.out", name="papertape")


def test_feature_store_has_a_row_when_it_is_on_and_its_prices_are_said_to_be_unchecked(
    aws: Assembly, settings: Settings, tmp_path: Path, found: cost.Deployed
) -> None:
    folder, shown = tmp_path / "cdk.out", io.StringIO()
    shutil.copytree(aws.folder, folder, ignore=shutil.ignore_patterns("asset.*"))
    file = folder / "papertape-features.template.json"
    template = json.loads(file.read_text())
    template["Resources"] |= {f"Group{n}": {"Type": "AWS::SageMaker::FeatureGroup", "Properties": {}} for n in range(3)}
    file.write_text(json.dumps(template))
    bill = cost.run(settings, templates=folder, out=tmp_path / "cost.json", console=Console(file=shown, width=200))
    assert "SageMaker Feature Store" in bill.by_service
    assert " ".join(shown.getvalue().split()).count("Feature Store's prices are from memory, 2026-11: no source was found, check it") == 1
    records = 3 * len(settings.universe.symbols)
    used = cost.usage(replace(found, store_records=1000 * records))
    assert used["store write"] == pytest.approx(2 * 1000 * records * found.runs["build_features"])
    priced = used["store write"] * 1.25e-6 + used["store storage"] * 0.45
    assert cost.bill_of(used).by_service["SageMaker Feature Store"] == pytest.approx(priced, abs=0.005)
    assert "SageMaker Feature Store" not in cost.bill_of(cost.usage(found)).by_service


@pytest.mark.parametrize(
    ("expression", "runs"),
    [("cron(0/15 8-18 ? * * *)", 4 * 11 * 365.25 / 12), ("cron(0 6 ? * SAT *)", 365.25 / 84), ("cron(0/7 9 ? * MON-FRI *)", 9 * WEEKDAYS)],
)
def test_runs_of_a_cron(expression: str, runs: float) -> None:
    assert cost.runs_a_month(expression) == pytest.approx(runs)


def test_another_expression_is_refused() -> None:
    with pytest.raises(cost.CostError, match=r"rate\(5 minutes\) is no cron of this app"):
        cost.runs_a_month("rate(5 minutes)")


def test_a_machine_without_a_price_is_refused(aws: Assembly, settings: Settings) -> None:
    model = json.loads(json.dumps(aws.templates["model"]).replace("ml.m5.large", "ml.x9.huge"))
    with pytest.raises(cost.CostError, match=r"ml\.x9\.huge has no price: add it"):
        cost.deployed(settings, [model if stack == "model" else aws.templates[stack] for stack in STACKS])


def test_a_function_that_nobody_has_timed_is_refused(found: cost.Deployed) -> None:
    with pytest.raises(cost.CostError, match="how long a run of surprise takes is not known"):
        cost.usage(replace(found, memory={**found.memory, "surprise": 1.0}))


def test_jobs_behind_a_condition_are_counted(aws: Assembly, settings: Settings, found: cost.Deployed) -> None:
    templates = {stack: json.loads(json.dumps(template)) for stack, template in aws.templates.items()}
    (pipeline,) = (r["Properties"] for r in templates["model"]["Resources"].values() if r["Type"] == "AWS::SageMaker::Pipeline")
    body = pipeline["PipelineDefinition"]["PipelineDefinitionBody"]
    definition = json.loads("".join(part if isinstance(part, str) else "token" for part in body["Fn::Join"][1]))
    held = {"Name": "Changed", "Type": "Condition", "Arguments": {"IfSteps": definition["Steps"], "ElseSteps": []}}
    pipeline["PipelineDefinition"]["PipelineDefinitionBody"] = json.dumps({**definition, "Steps": [held]})
    assert cost.deployed(settings, list(templates.values())) == found


def test_the_command_says_prices_assumptions_and_options(aws: Assembly, tmp_path: Path) -> None:
    arguments = ["cost", "--templates", str(aws.folder), "--out", str(tmp_path / "cost.json")]
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(command_line.app, arguments)
    assert shown.exit_code == 0, shown.output
    for words in ("us-east-1, 2026-11", "Assumed: ", "total", "19.74", "training once a month", "Not a bill"):
        assert words in shown.stdout
    nothing = CliRunner().invoke(command_line.app, ["cost", "--templates", str(tmp_path), "--out", str(tmp_path / "cost.json")])
    assert (nothing.exit_code, nothing.stderr.count("\n")) == (1, 1)
    assert "run `make synth` first" in nothing.stderr


def test_the_runner_costs_its_task_its_address_and_its_events_and_nothing_where_it_is_off(
    aws: Assembly, found: cost.Deployed, settings: Settings
) -> None:
    assert found.runner is None
    off = cost.bill_of(cost.usage(found))
    assert not {"Runner on Fargate", "Public IPv4 address", "EventBridge"} & off.by_service.keys()
    task = {"Type": "AWS::ECS::TaskDefinition", "Properties": {"Cpu": "256", "Memory": "512"}}
    crons = {"start_runner": "20 9", "stop_runner": "10 16", "health-runner": "0/1 9-16"}
    hours = {name: {"Name": f"papertape-{name}", "ScheduleExpression": f"cron({at} ? * MON-FRI *)"} for name, at in crons.items()}
    schedules = {name: {"Type": "AWS::Scheduler::Schedule", "Properties": properties} for name, properties in hours.items()}
    templates = [*(aws.templates[stack] for stack in STACKS), {"Resources": {"Task": task, **schedules}}]
    deployed = cost.deployed(settings, templates)
    assert deployed.runner is not None
    assert deployed.runner.hours == pytest.approx(WEEKDAYS * (6 + 50 / 60))
    on = cost.bill_of(cost.usage(deployed))
    assert 2.2 < on.by_service["Runner on Fargate"] + on.by_service["Public IPv4 address"] + on.by_service["EventBridge"] < 2.6
    assert 2.2 < on.monthly - off.monthly < 3.2
    assert any("the runner lives as its schedules say" in one for one in on.assumptions)
    with pytest.raises(ValueError, match="stop_runner must be a cron of one time on weekdays, was None"):
        cost.deployed(settings, [*templates[:-1], {"Resources": {"Task": task, "Start": schedules["start_runner"]}}])


def test_minute_bars_cost_their_minutes_and_nothing_where_a_row_is_a_session(
    aws: Assembly, changed_settings: Assembly, found: cost.Deployed, settings: Settings, tmp_path: Path
) -> None:
    assert found.minutes is None
    schedule = settings.schedule.model_copy(update={"slots": ("open+5", "open+120", "open+360")})
    by_slot = settings.model_copy(update={"schedule": schedule, "training": settings.training.model_copy(update={"timeframe": "1Min"})})
    templates = [changed_settings.templates[stack] for stack in STACKS]
    deployed, daily = cost.deployed(by_slot, templates), cost.deployed(settings, templates)
    assert (deployed.minutes, daily) == (MinuteBars(names=30, slots=(5, 120, 360)), replace(deployed, minutes=None))
    used, without = cost.usage(deployed), cost.usage(daily)
    added = {key: used[key] - without[key] for key in used if used[key] != without[key]}
    fetched = WEEKDAYS * 30 * (7 * 960 * deployed.memory["backfill_bars"] + (120 + 360) * deployed.memory["decide"])
    assert added == {
        "lambda time": pytest.approx(fetched / 10_000),
        "s3 write": pytest.approx(30 * WEEKDAYS),
        "s3 read": pytest.approx(31 * 4 * WEEKDAYS),
    }
    assert 0.005 < sum(amount * PRICES[key].usd for key, amount in added.items()) < 0.02
    bill = cost.run(by_slot, templates=changed_settings.folder, out=tmp_path / "cost.json", console=Console(quiet=True))
    assert "every night asks for those of 7 sessions" in bill.assumptions[-1]


def test_a_night_s_sessions_are_those_of_the_backfill() -> None:
    assert minutes_cost.NIGHTLY_SESSIONS == NIGHTLY_SESSIONS
