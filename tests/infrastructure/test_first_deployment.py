"""What a first deployment and the first weeks in an account would show, read from the templates; one test per finding."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from typing import Any

import pytest

from lambdas.common.environment import TimeBudget
from schema.settings import Settings
from tests.infrastructure.assembly import ROOT, Assembly, Resource

#: A cold start may take so long before the function's first line; it is the platform's limit.
INIT_SECONDS = 10
RULE = "arn:aws:events:us-east-1:123456789012:rule/papertape-model-OnVerdict"
KEPT = ("AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::SQS::Queue", "AWS::SageMaker::ModelPackageGroup")


def alarms(aws: Assembly) -> dict[str, Resource]:
    return {alarm["Properties"]["AlarmName"]: alarm["Properties"] for _, _, alarm in aws.resources("AWS::CloudWatch::Alarm")}


def plain(value: Any) -> str:
    """A template's value as text; what is only known after the deployment is the account of this test, or empty."""
    match value:
        case str():
            return value
        case {"Fn::Join": [str(separator), [*parts]]}:
            return separator.join(plain(part) for part in parts)
        case {"Ref": "AWS::AccountId"}:
            return "123456789012"
        case {"Ref": "AWS::Partition"}:
            return "aws"
    return ""


def test_a_first_deployment_that_rolls_back_leaves_nothing_that_blocks_the_second(aws: Assembly) -> None:
    """Retain would keep the model group, which has a fixed name, when its own creation is rolled back: "already exists"."""
    for kind in KEPT:
        for _, name, resource in aws.resources(kind):
            protected = resource["Properties"].get("DeletionProtectionEnabled", False)
            assert resource["DeletionPolicy"] == ("Retain" if protected else "RetainExceptOnCreate"), name
            assert not protected or "TableName" not in resource["Properties"], "what cannot be deleted must not have a fixed name"
            assert resource["UpdateReplacePolicy"] == "Retain", name


def test_every_dead_letter_is_a_change_of_the_alarm(aws: Assembly) -> None:
    """A depth stays above zero until somebody empties the queue, and a second message would change nothing."""
    alarm = alarms(aws)["papertape-dead-letter"]
    assert (alarm["Namespace"], alarm["MetricName"], alarm["Statistic"], alarm["Period"]) == ("AWS/SQS", "NumberOfMessagesSent", "Sum", 300)
    assert (alarm["Threshold"], alarm["EvaluationPeriods"], alarm["TreatMissingData"]) == (1, 1, "notBreaching")


def test_a_lost_minute_of_quotes_masks_no_other_failure(aws: Assembly) -> None:
    """They are never tried again, and health watches their age: nothing of them is in the queue."""
    target = aws.schedules()["ingest_quotes"]["Target"]
    assert "DeadLetterConfig" not in target
    assert target["RetryPolicy"]["MaximumRetryAttempts"] == 0
    name = target["Arn"]["Fn::GetAtt"][0]
    (handled,) = (
        r["Properties"] for _, _, r in aws.resources("AWS::Lambda::EventInvokeConfig") if r["Properties"]["FunctionName"] == {"Ref": name}
    )
    assert "DestinationConfig" not in handled
    assert handled["MaximumRetryAttempts"] == 0
    granted = [policy for _, name, policy in aws.resources("AWS::IAM::Policy") if name.startswith(("IngestQuotes", "QuotesSchedule"))]
    assert len(granted) == 2
    assert "sqs:SendMessage" not in json.dumps(granted)


def test_logs_of_the_glue_job_are_where_this_version_puts_them_and_end(aws: Assembly) -> None:
    """From 5.0 on the service ignores --continuous-log-logGroup."""
    ((_, _, job),) = aws.resources("AWS::Glue::Job")
    arguments, version = job["Properties"]["DefaultArguments"], float(job["Properties"]["GlueVersion"])
    assert version >= 5.0
    assert not [name for name in arguments if "continuous" in name]
    prefix = arguments["--custom-logGroup-prefix"]
    assert re.fullmatch(r"[^:*]+", prefix)
    ended = {
        group["Properties"].get("LogGroupName"): group["Properties"]["RetentionInDays"]
        for _, _, group in aws.resources("AWS::Logs::LogGroup")
    }
    assert {name: days for name, days in ended.items() if name and name.startswith(prefix)} == {
        f"{prefix}/error": 90,
        f"{prefix}/output": 90,
    }


@pytest.mark.parametrize(
    ("context", "allowed"),
    [
        ({"aws:SourceArn": RULE, "aws:SourceAccount": "123456789012"}, True),
        ({"aws:SourceArn": RULE}, True),
        ({"aws:SourceAccount": "123456789012"}, True),
        ({}, False),
        ({"aws:SourceAccount": "999999999999"}, False),
        ({"aws:SourceArn": RULE.replace("123456789012", "999999999999")}, False),
        ({"aws:SourceArn": RULE.replace("papertape-model", "another")}, False),
    ],
    ids=["both", "the rule", "the account", "neither", "another account", "another account's rule", "another rule"],
)
def test_events_reach_the_dead_letters_whichever_key_the_service_sends(aws: Assembly, context: dict[str, str], allowed: bool) -> None:
    ((_, _, policy),) = aws.resources("AWS::SQS::QueuePolicy")
    statements = policy["Properties"]["PolicyDocument"]["Statement"]
    sent = [one for one in statements if one["Effect"] == "Allow" and one["Principal"] == {"Service": "events.amazonaws.com"}]
    assert all(one["Action"] == "sqs:SendMessage" and one["Condition"] for one in sent)
    assert any(holds(one["Condition"], context) for one in sent) == allowed


def holds(condition: Resource, context: dict[str, str]) -> bool:
    """As IAM evaluates: every operator and key must match, and a key that is absent matches nothing."""
    return all(
        operator in {"StringEquals", "ArnLike"} and key in context and fnmatchcase(context[key], plain(value))
        for operator, keys in condition.items()
        for key, value in keys.items()
    )


def test_a_silent_health_is_mailed_and_a_deployment_at_night_is_not(aws: Assembly) -> None:
    """A new alarm begins without data. With missing data as breaching it would ring before the first run; so silence is a change to
    "no data" of what had data before, and that change mails."""
    alarm = alarms(aws)["papertape-health-silent"]
    ((_, topic, _),) = aws.resources("AWS::SNS::Topic")
    assert alarm["TreatMissingData"] == "missing"
    assert alarm["InsufficientDataActions"] == [{"Ref": topic}]
    assert (alarm["MetricName"], alarm["Period"] * alarm["EvaluationPeriods"]) == ("Invocations", 15 * 3600)
    assert not [name for name, one in alarms(aws).items() if one["TreatMissingData"] == "breaching"]


def test_an_executor_that_starts_cold_answers_before_the_gateway_gives_up(aws: Assembly) -> None:
    assert "BATCH_BUDGET_SECONDS" not in aws.functions()["execute_orders"]["Environment"]["Variables"]
    budget = TimeBudget().batch_budget_seconds
    gateway = {m["Properties"]["Integration"]["TimeoutInMillis"] for _, _, m in aws.resources("AWS::ApiGateway::Method")}
    assert gateway == {29_000}
    assert INIT_SECONDS + budget <= 29 - 2, "two seconds to answer in"
    assert budget >= 15, "a batch of eight names needs a few seconds; the rest is reconcile's"


def test_an_alarm_s_name_is_a_subject_that_one_understands(aws: Assembly, settings: Settings) -> None:
    assert alarms(aws).keys() == {
        f"{settings.name}-{what}"
        for what in (
            "health-silent", "decide-failed", "execute-orders-failed", "reconcile-failed", "dead-letter", "api-fault", "throttled"
        )
    }  # fmt: skip


def test_an_alarm_says_which_log_to_read_and_what_to_do(aws: Assembly) -> None:
    groups = {group["Properties"].get("LogGroupName") for _, _, group in aws.resources("AWS::Logs::LogGroup")}
    for name, alarm in alarms(aws).items():
        description = alarm["AlarmDescription"]
        assert isinstance(description, str), f"{name}: nothing to be resolved, for a mail shows it as it is"
        assert len(description) <= 1024
        assert "To do: " in description, name
        named = set(re.findall(r"/papertape/[a-z_-]+", description))
        assert named <= groups, name
        assert named or "queue" in description, name


def test_each_function_s_log_has_a_name_that_one_can_type(aws: Assembly) -> None:
    groups = {name: group["Properties"].get("LogGroupName") for _, name, group in aws.resources("AWS::Logs::LogGroup")}
    for folder, function in aws.functions().items():
        assert groups[function["LoggingConfig"]["LogGroup"]["Ref"]] == f"/papertape/{folder}"


def test_a_nightly_run_installs_nothing_that_it_does_not_import(aws: Assembly) -> None:
    """Only a run in quotes mode, which nothing schedules, writes with awswrangler; its arguments are an output."""
    ((_, _, job),) = aws.resources("AWS::Glue::Job")
    nightly = job["Properties"]["DefaultArguments"]["--additional-python-modules"].split(",")
    arguments = json.loads(aws.templates["features"]["Outputs"]["MinuteBarsArguments"]["Value"])
    assert arguments["--MODE"] == "quotes"
    more = set(arguments["--additional-python-modules"].split(",")) - set(nightly)
    assert [one.partition("==")[0] for one in more] == ["awswrangler"]
    program = "import sys, glue_jobs.build_features; print('awswrangler' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_destroying_one_app_leaves_the_gateway_s_role_to_the_others_of_the_account(aws: Assembly) -> None:
    ((_, _, account),) = aws.resources("AWS::ApiGateway::Account")
    role = aws.templates["trading"]["Resources"][account["Properties"]["CloudWatchRoleArn"]["Fn::GetAtt"][0]]
    assert account["DeletionPolicy"] == role["DeletionPolicy"] == "RetainExceptOnCreate"


def test_the_mail_of_a_failed_job_says_of_which_app_and_what_to_do(aws: Assembly) -> None:
    rules = [rule["Properties"] for stack, _, rule in aws.resources("AWS::Events::Rule") if stack == "monitoring"]
    mails = [json.dumps(target["InputTransformer"]["InputTemplate"]) for rule in rules for target in rule["Targets"]]
    assert len(mails) == 2
    assert all("papertape: " in mail and "To do: read " in mail for mail in mails)
    assert any("/papertape/build_features/error" in mail for mail in mails)
