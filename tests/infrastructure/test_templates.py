"""What the templates promise about data, time, failure and authority, read from what a synth wrote."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lambdas.decide.handler import RESERVE_SECONDS, EndpointVariables
from local.replay.schedule import check, year
from schema.lake_layout import TRIALS
from schema.settings import Settings
from stacks.features import COLUMNS
from tests.infrastructure.assembly import ACCOUNT, ROOT, STACKS, Assembly, Resource, synthesize
from trading_env.data.market import TABLE_COLUMNS

DRIVER_OUTPUTS = {
    "RawBucket", "ProcessedBucket", "AuditBucket", "LedgerTable", "AlertTopicArn", "ExecutionApiId", "ExecutionApiUrl", "ModelPackageGroup",
    "PipelineName", "GlueJobName", "IngestQuotesFunction", "BackfillBarsFunction", "DecideFunction", "ExecuteOrdersFunction",
    "ControlFunction", "ReconcileFunction", "DeployModelFunction", "HealthFunction", "ReportFunction", "CollectNewsFunction",
}  # fmt: skip
FUNCTIONS = {
    "ingest_quotes", "backfill_bars", "decide", "execute_orders", "control", "reconcile", "deploy_model", "health", "report",
    "collect_news",
}  # fmt: skip
# What the app's own process gives: Lambda itself, or a laptop's overrides
GIVEN = {"AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_EXECUTE_API", "ALPACA_TRADING_URL", "ALPACA_DATA_URL"}


def statements(aws: Assembly, stack: str, role: str) -> list[Resource]:
    """The statements of the policies attached to the role whose logical id begins with `role`."""
    found = []
    for name, resource in aws.templates[stack]["Resources"].items():
        if resource["Type"] == "AWS::IAM::Policy" and name.startswith(role):
            found += resource["Properties"]["PolicyDocument"]["Statement"]
    assert found, f"{role} has no policy in {stack}"
    return found


def actions(statement: Resource) -> list[str]:
    return statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def text(value: Any) -> str:
    return json.dumps(value)


def test_a_second_synth_of_another_process_gives_the_same_bytes_and_no_warning(aws: Assembly, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_", "JSII_"))}
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=ROOT, env={**environment, "CDK_OUTDIR": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for stack in STACKS:
        for kind in ("template", "assets"):
            name = f"papertape-{stack}.{kind}.json"
            assert (tmp_path / name).read_bytes() == (aws.folder / name).read_bytes(), name
    assets = {path.name: path.read_bytes() for path in aws.folder.glob("asset.*")}
    assert assets
    assert {path.name: path.read_bytes() for path in tmp_path.glob("asset.*")} == assets


def test_laptop_templates_differ_in_the_dependencies_only(laptop: Assembly, tmp_path: Path, settings: Settings) -> None:
    aws = synthesize(tmp_path, settings=settings, account=ACCOUNT)
    different = set()
    for stack in STACKS:
        ours, theirs = aws.templates[stack], laptop.templates[stack]
        assert ours["Resources"].keys() == theirs["Resources"].keys()
        assert ours.get("Outputs") == theirs.get("Outputs")
        for name, resource in ours["Resources"].items():
            other = theirs["Resources"][name]
            if resource != other:
                assert resource["Type"] == "AWS::Lambda::LayerVersion"
                assert {key for key in resource["Properties"] if resource["Properties"][key] != other["Properties"][key]} == {"Content"}
                different.add((stack, resource["Properties"]["Description"]))
    manifest = json.loads((laptop.folder / "manifest.json").read_text())
    assert manifest["artifacts"]["papertape-lake"]["environment"] == f"aws://{ACCOUNT}/us-east-1"
    edge, trade = "lambdas/requirements-edge.txt", "lambdas/requirements-trade.txt"
    assert different == {("ingest", trade), ("model", edge), ("trading", edge), ("trading", trade), ("monitoring", edge)}


def test_stateful_resources_survive_the_app(aws: Assembly) -> None:
    manifest = json.loads((aws.folder / "manifest.json").read_text())
    assert manifest["artifacts"]["papertape-lake"]["properties"]["terminationProtection"] is True
    stateful = {"AWS::S3::Bucket": 4, "AWS::DynamoDB::Table": 1, "AWS::SQS::Queue": 1, "AWS::SageMaker::ModelPackageGroup": 1}
    for kind, count in stateful.items():
        found = list(aws.resources(kind))
        assert len(found) == count, kind
        for _, name, resource in found:
            assert resource["DeletionPolicy"] in {"Retain", "RetainExceptOnCreate"}, name
            assert resource["UpdateReplacePolicy"] == "Retain", name


def test_buckets_are_encrypted_private_and_versioned(aws: Assembly) -> None:
    for _, name, bucket in aws.resources("AWS::S3::Bucket"):
        properties = bucket["Properties"]
        assert properties["BucketEncryption"], name
        assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}, name
        assert properties["VersioningConfiguration"] == {"Status": "Enabled"}, name
        assert properties["LifecycleConfiguration"]["Rules"], name
    denied = [text(policy) for _, _, policy in aws.resources("AWS::S3::BucketPolicy")]
    assert len(denied) == 4
    assert all('"aws:SecureTransport": "false"' in policy for policy in denied)
    locked = [name for _, name, bucket in aws.resources("AWS::S3::Bucket") if bucket["Properties"].get("ObjectLockEnabled")]
    assert [name[:5] for name in locked] == ["Audit"]


def test_ledger_has_the_keys_of_its_access_patterns(aws: Assembly) -> None:
    ((_, _, table),) = aws.resources("AWS::DynamoDB::Table")
    properties = table["Properties"]

    def keys(schema: list[Resource]) -> list[tuple[str, str]]:
        return [(key["AttributeName"], key["KeyType"]) for key in schema]

    assert keys(properties["KeySchema"]) == [("pk", "HASH"), ("sk", "RANGE")]
    assert {index["IndexName"]: keys(index["KeySchema"]) for index in properties["GlobalSecondaryIndexes"]} == {
        "by_month": [("month", "HASH"), ("month_sk", "RANGE")],
        "unsettled": [("unsettled", "HASH"), ("unsettled_sk", "RANGE")],
    }
    assert properties["BillingMode"] == "PAY_PER_REQUEST"
    assert properties["DeletionProtectionEnabled"] is True
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def test_every_log_ends(aws: Assembly) -> None:
    groups = list(aws.resources("AWS::Logs::LogGroup"))
    assert all(group["Properties"]["RetentionInDays"] == 90 for _, _, group in groups)
    named = {name for _, name, _ in groups}
    for folder, function in aws.functions().items():
        assert function["LoggingConfig"]["LogGroup"]["Ref"] in named, folder


def test_functions_run_on_one_platform_with_their_bundle(aws: Assembly) -> None:
    functions = aws.functions()
    assert functions.keys() == FUNCTIONS
    assert {(function["Runtime"], tuple(function["Architectures"])) for function in functions.values()} == {("python3.14", ("x86_64",))}
    layers = {name: layer["Properties"]["Description"] for _, name, layer in aws.resources("AWS::Lambda::LayerVersion")}
    bundles = {folder: layers[function["Layers"][0]["Ref"]] for folder, function in functions.items()}
    edge = {folder for folder, bundle in bundles.items() if bundle.endswith("requirements-edge.txt")}
    assert edge == {"control", "deploy_model", "health", "report"}


def test_functions_get_the_variables_that_their_code_requires(aws: Assembly) -> None:
    """Every required field of every `Variables` model in a function's folder, and the broker's where it is used."""
    common = required_fields(ROOT / "lambdas" / "common")
    for folder, function in aws.functions().items():
        given = set(function["Environment"]["Variables"])
        assert {"POWERTOOLS_SERVICE_NAME", "POWERTOOLS_METRICS_NAMESPACE", "CODE_VERSION", "LOG_LEVEL"} <= given
        assert function["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] == folder
        source = "\n".join(path.read_text() for path in (ROOT / "lambdas" / folder).glob("*.py"))
        needed = set().union(*required_fields(ROOT / "lambdas" / folder, inherited=common).values())
        for call, model in {
            "broker_from_environment": "BrokerVariables",
            "ledger_from_environment": "LedgerVariables",
            "execution_api_from_environment": "ExecutionApiVariables",
        }.items():
            needed |= common.get(model, set()) if f"{call}(" in source else set()
        assert needed - GIVEN <= given, f"{folder} needs {sorted(needed - GIVEN - given)}"


def required_fields(folder: Path, *, inherited: dict[str, set[str]] | None = None) -> dict[str, set[str]]:
    """Model name -> variables without a default, of the classes whose name or base ends with `Variables`."""
    found = dict(inherited or {})
    own = {}
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            bases = [ast.unparse(base).rpartition(".")[2] for base in getattr(node, "bases", ())]
            if isinstance(node, ast.ClassDef) and any(base.endswith("Variables") for base in bases):
                fields = {
                    field.target.id.upper()
                    for field in node.body
                    if isinstance(field, ast.AnnAssign) and field.value is None and isinstance(field.target, ast.Name)
                }
                own[node.name] = found[node.name] = fields.union(*(found.get(base, set()) for base in bases))
    return own


def test_function_variables_fit_and_hold_no_secret(aws: Assembly) -> None:
    for folder, function in aws.functions().items():
        variables = function["Environment"]["Variables"]
        assert len(text(variables)) < 4096, folder
        assert not {name for name in variables if "KEY" in name or "PASSWORD" in name or "TOKEN" in name}, folder
    secret = aws.functions()["decide"]["Environment"]["Variables"]["BROKER_SECRET_ARN"]
    assert text(secret).endswith(':secret:papertape/alpaca"]]}')


def test_the_schedules_are_those_that_the_replay_plans(aws: Assembly, settings: Settings) -> None:
    check(year(settings), aws.schedules())


def test_a_second_slot_is_a_second_schedule_of_the_same_function(aws: Assembly, settings: Settings, tmp_path: Path) -> None:
    schedule = settings.schedule.model_copy(update={"slots": ("open+5", "open+60")})
    twice = settings.model_copy(update={"schedule": schedule})
    two = synthesize(tmp_path, settings=twice)
    check(year(twice), two.schedules())
    first, second = two.schedules()["decide"], two.schedules()["decide-open-60"]
    assert first == aws.schedules()["decide"]
    assert second["ScheduleExpression"] == "cron(30 10 ? * MON-FRI *)"
    assert json.loads(second["Target"]["Input"]) == {
        "schedule": "decide-open-60", "time": "<aws.scheduler.scheduled-time>", "slot": "open+60"
    }  # fmt: skip
    same = ("Arn", "DeadLetterConfig", "RetryPolicy")
    assert [second["Target"][key] for key in same] == [first["Target"][key] for key in same]
    new = two.templates["trading"]["Resources"].keys() - aws.templates["trading"]["Resources"].keys()
    assert {name.startswith("DecideOpen60Schedule") for name in new} == {True}


@pytest.mark.parametrize(
    ("name", "cron"),
    [
        ("ingest_quotes", "cron(0/1 9-15 ? * MON-FRI *)"),
        ("collect_news", "cron(0/30 4-19 ? * * *)"),
        ("backfill_bars", "cron(0 18 ? * MON-FRI *)"),
        ("build_features", "cron(30 18 ? * MON-FRI *)"),
        ("decide", "cron(35 9 ? * MON-FRI *)"),
        ("reconcile", "cron(0/5 9-16 ? * MON-FRI *)"),
        ("health", "cron(0/15 8-18 ? * * *)"),
        ("report", "cron(30 17 ? * FRI *)"),
        ("train", "cron(0 6 ? * SAT *)"),
    ],
)
def test_schedules_fire_in_new_york(aws: Assembly, name: str, cron: str) -> None:
    schedule = aws.schedules()[name]
    assert schedule["ScheduleExpression"] == cron
    assert schedule["ScheduleExpressionTimezone"] == "America/New_York"
    assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}


def test_no_scheduled_failure_is_silent(aws: Assembly) -> None:
    """The queue of the schedule and of its function are one, and both give up at the same time; health watches the age of quotes."""
    after = {"ingest_quotes": (0, 60), "decide": (2, 900), "reconcile": (2, 300), "backfill_bars": (2, 3600), "health": (2, 600)}
    after |= {"report": (2, 600), "build_features": (2, 3600), "train": (2, 3600), "collect_news": (1, 600)}
    handled = {
        resource["Properties"]["FunctionName"]["Ref"]: resource["Properties"]
        for _, _, resource in aws.resources("AWS::Lambda::EventInvokeConfig")
    }
    for name, schedule in aws.schedules().items():
        target = schedule["Target"]
        retry = target["RetryPolicy"]
        assert (retry["MaximumRetryAttempts"], retry["MaximumEventAgeInSeconds"]) == after[name], name
        assert name == "ingest_quotes" or "DeadLetters" in text(target["DeadLetterConfig"]), name
        if name in FUNCTIONS:
            slot = {"slot": "open+5"} if name == "decide" else {}
            assert json.loads(target["Input"]) == {"schedule": name, "time": "<aws.scheduler.scheduled-time>", **slot}
            own = handled[target["Arn"]["Fn::GetAtt"][0]]
            assert (own["MaximumRetryAttempts"], own["MaximumEventAgeInSeconds"]) == after[name], name
            destination = own.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
            assert destination == target.get("DeadLetterConfig", {}).get("Arn"), name


def test_api_is_signed_throttled_and_bounded(aws: Assembly) -> None:
    methods = [resource["Properties"] for _, _, resource in aws.resources("AWS::ApiGateway::Method")]
    assert {method["AuthorizationType"] for method in methods} == {"AWS_IAM"}
    assert {method["Integration"]["TimeoutInMillis"] for method in methods} == {29_000}
    paths = {name: r["Properties"] for _, name, r in aws.resources("AWS::ApiGateway::Resource")}

    def path(reference: Resource) -> str:
        own = paths.get(reference.get("Ref", ""))
        return "" if own is None else f"{path(own['ParentId'])}/{own['PathPart']}"

    served = {(m["HttpMethod"], path(m["ResourceId"])): text(m["Integration"]["Uri"]) for m in methods}
    execute = {("POST", "/decisions"), ("POST", "/orders"), ("DELETE", "/orders/{id}"), ("POST", "/flatten")}
    reads = ("/decisions/{id+}", "/orders", "/orders/{id}", "/portfolio", "/status", "/trading-state")
    control = {("PUT", "/trading-state"), *(("GET", path) for path in reads)}
    assert {route for route, uri in served.items() if '"ExecuteOrders' in uri} == execute
    assert {route for route, uri in served.items() if '"Control' in uri} == control
    ((_, _, stage),) = aws.resources("AWS::ApiGateway::Stage")
    (limits,) = stage["Properties"]["MethodSettings"]
    assert (limits["ThrottlingRateLimit"], limits["ThrottlingBurstLimit"], limits["DataTraceEnabled"]) == (5, 10, False)
    assert stage["Properties"]["AccessLogSetting"]["DestinationArn"]
    assert aws.functions()["execute_orders"]["Timeout"] == 29


def test_decide_may_only_post_decisions_and_ask_our_endpoints(aws: Assembly) -> None:
    granted = statements(aws, "trading", "DecideRole")
    (call,) = (one for one in granted if "execute-api:Invoke" in actions(one))
    assert text(call["Resource"]).endswith('"/v1/POST/decisions"]]}')
    (ask,) = (one for one in granted if "sagemaker:InvokeEndpoint" in actions(one))
    assert text(ask["Resource"]).endswith(':endpoint/papertape-*"]]}')
    assert actions(ask) == ["sagemaker:InvokeEndpoint"]
    (read,) = (one for one in granted if "s3:GetObject" in actions(one))
    assert actions(read) == ["s3:GetObject"]
    assert [path for path in ('"/raw/*"', '"/models/*/model/model.tar.gz"') if path in text(read["Resource"])] == [
        '"/raw/*"', '"/models/*/model/model.tar.gz"'
    ]  # fmt: skip
    (scores,) = (one for one in granted if "/processed/sentiment/*" in text(one["Resource"]))
    assert actions(scores) == ["s3:GetObject"]


def test_deploy_model_touches_what_carries_the_app_s_name_and_reads_packages_and_verdicts_alone(aws: Assembly) -> None:
    granted = statements(aws, "model", "DeployModelRole")
    (write,) = (one for one in granted if "sagemaker:CreateEndpoint" in actions(one))
    kinds = ("Model", "EndpointConfig", "Endpoint")
    verbs = {f"sagemaker:{verb}{kind}" for verb in ("Create", "Describe", "Delete") for kind in kinds}
    assert set(actions(write)) == {*verbs, "sagemaker:InvokeEndpoint"}
    assert [f':{kind}/papertape-*"' in text(write["Resource"]) for kind in ("model", "endpoint-config", "endpoint")] == [True] * 3
    (listing,) = (one for one in granted if one["Resource"] == "*")
    assert set(actions(listing)) == {f"sagemaker:List{kind}s" for kind in kinds}
    (read,) = (one["Resource"] for one in granted if "s3:GetObject" in actions(one))
    assert [text(one).partition("/models/")[2] for one in read] == ['*/evaluation/evaluation.json"]]}', '*/model/model.tar.gz"]]}']


def test_decide_lives_longer_than_it_asks_an_endpoint_again(aws: Assembly) -> None:
    times = EndpointVariables()
    assert aws.functions()["decide"]["Timeout"] >= times.endpoint_retry_seconds + RESERVE_SECONDS + times.endpoint_read_timeout


def test_only_those_who_trade_read_the_broker_secret(aws: Assembly) -> None:
    readers = {
        name
        for _, name, policy in aws.resources("AWS::IAM::Policy")
        if "secretsmanager:GetSecretValue" in text(policy["Properties"]["PolicyDocument"])
    }
    expected = {"IngestQuotesRole", "BackfillBarsRole", "CollectNewsRole", "DecideRole", "ExecuteOrdersRole", "ReconcileRole"}
    assert {name.partition("DefaultPolicy")[0] for name in readers} == expected


def test_nobody_deletes_from_the_ledger_or_the_raw_lake(aws: Assembly) -> None:
    for _, name, policy in aws.resources("AWS::IAM::Policy"):
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            assert "dynamodb:DeleteItem" not in actions(statement), name
            assert not any(action.endswith(":*") for action in actions(statement)), name
            if "s3:DeleteObject" in actions(statement) and name.startswith("CollectNewsRole"):
                removed = {text(one).partition('"/')[2].partition('"')[0] for one in listed(statement["Resource"])}
                assert removed <= {"raw/news/*", "processed/sentiment/*", "processed/quarantine/news/*"}, "texts have an end"
            elif "s3:DeleteObject" in actions(statement):
                assert name.startswith("JobRole")
                resources = text(statement["Resource"])
                assert "/processed/features/*" in resources
                assert "/processed/training/*" in resources
                assert "/processed/bars/*" in resources
                assert resources.count("/*") == 3


def test_both_verdicts_reach_deploy_model(aws: Assembly) -> None:
    (rule,) = (r["Properties"] for stack, _, r in aws.resources("AWS::Events::Rule") if stack == "model")
    assert rule["EventPattern"] == {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Package State Change"],
        "detail": {"ModelPackageGroupName": ["papertape"], "ModelApprovalStatus": ["Approved", "Rejected", "PendingManualApproval"]},
    }
    (target,) = rule["Targets"]
    assert target["Arn"]["Fn::GetAtt"][0].startswith("DeployModel")
    assert "DeadLetters" in text(target["DeadLetterConfig"])


def test_pipeline_definition_is_json_with_the_seeds_of_the_settings(aws: Assembly, settings: Settings) -> None:
    ((_, _, pipeline),) = aws.resources("AWS::SageMaker::Pipeline")
    body = pipeline["Properties"]["PipelineDefinition"]["PipelineDefinitionBody"]
    separator, parts = body["Fn::Join"]
    definition = json.loads(separator.join(part if isinstance(part, str) else "token" for part in parts))
    assert definition["Version"] == "2020-12-01"
    steps = definition["Steps"][-1]["Arguments"]["IfSteps"]
    trained = [step["Name"] for step in steps if step["Type"] == "Training"]
    assert trained == [f"Train-{seed}" for seed in settings.training.seeds]
    (judged,) = (step["Arguments"] for step in steps if step["Name"] == "Evaluate")
    arguments = judged["AppSpecification"]["ContainerArguments"]
    assert arguments[arguments.index("--trials") + 1].endswith(f"/{TRIALS}")
    assert arguments[arguments.index("--package-group") + 1] == settings.name


def test_the_log_of_trials_only_grows(aws: Assembly) -> None:
    """The bucket refuses a write that would replace an entry, and the jobs may list, read and write the log, never delete from it."""
    (refusal,) = (
        statement
        for stack, name, policy in aws.resources("AWS::S3::BucketPolicy")
        if stack == "lake" and name.startswith("Processed")
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement["Action"] == "s3:PutObject"
    )
    assert (refusal["Effect"], refusal["Principal"]) == ("Deny", {"AWS": "*"})
    assert refusal["Condition"] == {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}
    assert text(refusal["Resource"]).endswith('"/models/trials/*"]]}')
    granted = statements(aws, "model", "JobRole")
    may = {action for one in granted if "/models/*" in text(one["Resource"]) for action in actions(one)}
    assert may == {"s3:GetObject", "s3:PutObject"}
    assert any("s3:ListBucket" in actions(one) for one in granted)
    assert not [one for one in granted if any(action.startswith("s3:Delete") for action in actions(one))]


def test_the_judge_may_ask_the_registry_for_the_incumbent(aws: Assembly) -> None:
    (registry,) = (one for one in statements(aws, "model", "JobRole") if "sagemaker:ListModelPackages" in actions(one))
    assert "sagemaker:DescribeModelPackage" in actions(registry)
    assert not [action for action in actions(registry) if "Update" in action or "Delete" in action], "it approves nothing by hand"
    assert ":model-package-group/papertape" in text(registry["Resource"])
    assert ":model-package/papertape/*" in text(registry["Resource"])


def test_features_table_has_the_columns_that_the_job_writes() -> None:
    assert tuple(name for name, _ in COLUMNS) == TABLE_COLUMNS


def test_glue_job_gets_code_and_locked_libraries(aws: Assembly) -> None:
    ((_, _, job),) = aws.resources("AWS::Glue::Job")
    arguments = job["Properties"]["DefaultArguments"]
    assert job["Properties"]["GlueVersion"] == "5.1"
    libraries = arguments["--additional-python-modules"].split(",")
    assert sorted(line.partition("==")[0].lower() for line in libraries) == [
        "numpy",
        "pandas",
        "pyarrow",
        "pydantic",
        "ta-lib",
    ]
    assert set(libraries) <= set((ROOT / "requirements.txt").read_text().splitlines())
    assert text(arguments["--extra-py-files"]).endswith('.zip"}')
    run = json.loads(
        "".join(p if isinstance(p, str) else "job" for p in aws.schedules()["build_features"]["Target"]["Input"]["Fn::Join"][1])
    )
    assert run["Arguments"] == {"--EVENT_TIME": "<aws.scheduler.scheduled-time>"}


def test_a_scheduled_training_has_the_token_that_the_api_requires(aws: Assembly) -> None:
    """32 characters at least, and the same for a repeated delivery of one scheduled time."""
    asked = json.loads(aws.schedules()["train"]["Target"]["Input"])
    assert asked["PipelineName"] == "papertape-training"
    token = asked["ClientRequestToken"].replace("<aws.scheduler.scheduled-time>", "2020-01-04T11:00:00Z")
    assert 32 <= len(token) <= 128
    assert "2020-01-04" in token


def test_alarms_reach_a_topic_that_lets_them(aws: Assembly) -> None:
    alarms = [alarm["Properties"] for _, _, alarm in aws.resources("AWS::CloudWatch::Alarm")]
    assert 6 <= len(alarms) <= 8
    ((_, topic, _),) = aws.resources("AWS::SNS::Topic")
    assert {text(alarm["AlarmActions"]) for alarm in alarms} == {text([{"Ref": topic}])}
    assert all(alarm["AlarmDescription"] for alarm in alarms)
    ((_, _, policy),) = aws.resources("AWS::SNS::TopicPolicy")
    allowed = [s for s in policy["Properties"]["PolicyDocument"]["Statement"] if s["Effect"] == "Allow"]
    assert all(service in text(allowed) for service in ("cloudwatch.amazonaws.com", "budgets.amazonaws.com", "events.amazonaws.com"))


def test_a_mail_address_subscribes_and_none_does_not(aws: Assembly, changed_settings: Assembly) -> None:
    assert not list(aws.resources("AWS::SNS::Subscription"))
    ((_, _, subscription),) = changed_settings.resources("AWS::SNS::Subscription")
    assert (subscription["Properties"]["Protocol"], subscription["Properties"]["Endpoint"]) == ("email", "owner@example.com")


def test_budget_is_that_of_the_settings(aws: Assembly, settings: Settings) -> None:
    ((_, _, budget),) = aws.resources("AWS::Budgets::Budget")
    assert budget["Properties"]["Budget"]["BudgetLimit"] == {"Amount": settings.budget.monthly_budget_usd, "Unit": "USD"}


def test_outputs_that_a_driver_needs_exist_once(aws: Assembly) -> None:
    outputs = [name for template in aws.templates.values() for name in template.get("Outputs", {})]
    assert {name for name in DRIVER_OUTPUTS if outputs.count(name) == 1} == DRIVER_OUTPUTS


def test_no_account_or_key_is_in_the_templates(aws: Assembly) -> None:
    for stack in STACKS:
        written = (aws.folder / f"papertape-{stack}.template.json").read_text()
        assert ACCOUNT not in written
        assert "AKIA" not in written


def test_no_job_of_the_pipeline_can_read_a_bar_of_the_live_period(aws: Assembly) -> None:
    """Training and evaluation run under the model stack's job role: of the processed bucket it reads the training view and its models."""
    statements = [
        statement
        for stack, name, policy in aws.resources("AWS::IAM::Policy")
        if stack == "model" and name.startswith("JobRole")
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if "s3:GetObject" in actions(statement)
    ]
    read = text([statement["Resource"] for statement in statements])
    assert "/processed/training/*" in read
    assert "/models/*" in read
    assert "raw" not in read.lower()
    assert "processed/features" not in read
