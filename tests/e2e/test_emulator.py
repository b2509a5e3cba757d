"""The local cloud, driven from outside by boto3 and HTTP over a small app of its own: what is patched works, and nothing outlives it."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.aws.deploy import CloudError, Deployment, deploy_templates, deployed
from local.aws.emulator import ROOT, Emulator, EmulatorError
from schema.loopback import LOCAL_ACCOUNT, LOCAL_SECRET

REGION = "us-east-1"
BUCKET = "toy-lake"
ROLE = f"arn:aws:iam::{LOCAL_ACCOUNT}:role/toy"

FUNCTION = """
import json, os, time
import shared_library

def handler(event, context):
    print(json.dumps({"message": "called", "event": event}))
    if isinstance(event, dict) and "httpMethod" in event:
        return {"statusCode": 200, "body": event["body"]}
    if isinstance(event, dict) and event.get("fail"):
        raise ValueError("as asked")
    print(json.dumps({"_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [{"Namespace": "Toy", "Dimensions": [["service"]],
        "Metrics": [{"Name": "Severity", "Unit": "Count"}]}]}, "service": "toy", "Severity": 3}))
    return {"event": event, "files": [__file__, shared_library.__file__], "broker": os.environ["ALPACA_TRADING_URL"],
            "gateway": os.environ["AWS_ENDPOINT_URL_EXECUTE_API"]}
"""

TRAIN = """
import argparse, os, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int)
parser.add_argument("--live-start")
options = parser.parse_args()
rows = (pathlib.Path(os.environ["SM_CHANNEL_FEATURES"]) / "year=2019" / "part.txt").read_text()
(pathlib.Path(os.environ["SM_MODEL_DIR"]) / "policy.txt").write_text(f"{options.seed} {options.live_start} {rows}")
if options.seed == 13:
    raise SystemExit("seed 13 is unlucky")
"""

EVALUATE = """
import boto3, json, os, pathlib, sys, tarfile
from botocore.exceptions import ClientError
root = pathlib.Path(sys.argv[1])
assert os.environ["PROCESSING_ROOT"] == str(root)
with tarfile.open(root / "input/model/model.tar.gz") as tar:
    policy = tar.extractfile("policy.txt").read().decode()
answers = []
for _ in range(2):
    try:
        boto3.client("s3").put_object(Bucket="toy-lake", Key="trials/000001.json", Body=policy.encode(), IfNoneMatch="*")
        answers.append("written")
    except ClientError as refused:
        answers.append(refused.response["Error"]["Code"])
listed = boto3.client("sagemaker").list_model_packages(ModelPackageGroupName="toy-models", ModelApprovalStatus="Approved")
verdict = {"gate": {"passed": True}, "hash": policy, "log": " ".join(answers), "approved": str(len(listed["ModelPackageSummaryList"]))}
(root / "output/evaluation/evaluation.json").write_text(json.dumps(verdict))
with tarfile.open(root / "output/model/model.tar.gz", "w:gz") as tar:
    tar.add(root / "input/code/serve.py", "code/inference.py")
"""

SERVE = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, b"")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(422, b"observation holds NaN") if b"NaN" in body else self.answer(200, b'{"scores": [0]}')
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--serve") + 1])), Handler).serve_forever()
"""

JOB = """
import sys, boto3
assert sys.argv[sys.argv.index("--ENGINE") + 1] == "pandas"
boto3.client("s3").put_object(Bucket="toy-lake", Key="job.txt", Body=sys.argv[sys.argv.index("--time") + 1].encode())
if "--fail" in sys.argv:
    sys.exit("no bars")
"""


def pipeline(seed: int) -> dict[str, Any]:
    code = f"s3://{BUCKET}/code"
    hyperparameters = {
        "seed": seed,
        "live-start": "2020-01-02",
        "sagemaker_program": "train.py",
        "sagemaker_submit_directory": f"{code}/src.tar.gz",
    }
    local = "/opt/ml/processing"
    inputs = {"code": f"{code}/evaluate/", "model": {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"}}
    result = {"Std:Join": {"On": "/", "Values": [f"s3://{BUCKET}/models", {"Get": "Execution.PipelineExecutionId"}, "model"]}}
    evaluation = {"PropertyFile": {"Get": "Steps.Evaluate.PropertyFiles.Evaluation"}}
    model = {"Get": "Steps.Evaluate.ProcessingOutputConfig.Outputs['model'].S3Output.S3Uri"}

    def register(name: str, status: str) -> dict[str, Any]:
        container = {"Image": "i", "ModelDataUrl": {"Std:Join": {"On": "/", "Values": [model, "model.tar.gz"]}}}
        arguments = {
            "ModelPackageGroupName": "toy-models",
            "ModelApprovalStatus": status,
            "CustomerMetadataProperties": {key: {"Std:JsonGet": {**evaluation, "Path": key}} for key in ("hash", "log", "approved")},
            "InferenceSpecification": {"Containers": [container]},
        }
        return {"Name": name, "Type": "RegisterModel", "Arguments": arguments}

    return {
        "Version": "2020-12-01",
        "Parameters": [],
        "Steps": [
            {
                "Name": "Gate",
                "Type": "Condition",
                "Arguments": {
                    "Conditions": [
                        {"Type": "Equals", "LeftValue": {"Std:JsonGet": {**evaluation, "Path": "gate.passed"}}, "RightValue": True}
                    ],
                    "IfSteps": [register("Accept", "PendingManualApproval")],
                    "ElseSteps": [register("Refuse", "Rejected")],
                },
            },
            {
                "Name": "Train",
                "Type": "Training",
                "Arguments": {
                    "HyperParameters": {k: json.dumps(v) for k, v in hyperparameters.items()},
                    "InputDataConfig": [{"ChannelName": "features", "DataSource": {"S3DataSource": {"S3Uri": f"s3://{BUCKET}/features/"}}}],
                    "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/train"},
                },
            },
            {
                "Name": "Evaluate",
                "Type": "Processing",
                "Arguments": {
                    "AppSpecification": {
                        "ContainerEntrypoint": ["bash", "-c", f'python {local}/input/code/evaluate.py "$@"', "evaluate"],
                        "ContainerArguments": [local],
                    },
                    "ProcessingInputs": [
                        {"InputName": n, "S3Input": {"S3Uri": u, "LocalPath": f"{local}/input/{n}"}} for n, u in inputs.items()
                    ],
                    "ProcessingOutputConfig": {
                        "Outputs": [
                            {"OutputName": name, "S3Output": {"S3Uri": uri, "LocalPath": f"{local}/output/{name}"}}
                            for name, uri in (("evaluation", f"s3://{BUCKET}/evaluation"), ("model", result))
                        ]
                    },
                },
                "PropertyFiles": [{"PropertyFileName": "Evaluation", "OutputName": "evaluation", "FilePath": "evaluation.json"}],
            },
        ],
    }


def template() -> dict[str, Any]:
    def get(name: str, attribute: str = "Arn") -> dict[str, Any]:
        return {"Fn::GetAtt": [name, attribute]}

    asset_bucket = f"cdk-hnb659fds-assets-{LOCAL_ACCOUNT}-{REGION}"

    def function() -> dict[str, Any]:
        return {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Runtime": "python3.11",
                "Handler": "handler.handler",
                "Role": ROLE,
                "Timeout": 20,
                "Code": {"S3Bucket": asset_bucket, "S3Key": "code.zip"},
                "Layers": [{"Ref": "Layer"}],
            },
        }

    def schedule(name: str, arn: Any, text: dict[str, Any]) -> dict[str, Any]:
        target = {"Arn": arn, "RoleArn": ROLE, "Input": json.dumps(text), "DeadLetterConfig": {"Arn": get("Dead")}}
        return {
            "Type": "AWS::Scheduler::Schedule",
            "Properties": {
                "Name": name,
                "ScheduleExpression": "rate(1 minute)",
                "ScheduleExpressionTimezone": "America/New_York",
                "FlexibleTimeWindow": {"Mode": "OFF"},
                "Target": target,
            },
        }

    def alarm(namespace: str, metric: str, dimensions: dict[str, Any], threshold: int) -> dict[str, Any]:
        return {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "Namespace": namespace,
                "MetricName": metric,
                "Dimensions": [{"Name": k, "Value": v} for k, v in dimensions.items()],
                "Statistic": "Sum",
                "Period": 300,
                "EvaluationPeriods": 1,
                "Threshold": threshold,
                "ComparisonOperator": "GreaterThanOrEqualToThreshold",
                "AlarmActions": [{"Ref": "Topic"}],
            },
        }

    def errors_of_either() -> dict[str, Any]:
        either = alarm("AWS/Lambda", "Errors", {}, 1)
        for key in ("Namespace", "MetricName", "Dimensions", "Statistic", "Period"):
            del either["Properties"][key]

        def errors(name: str) -> dict[str, Any]:
            return {"Namespace": "AWS/Lambda", "MetricName": "Errors", "Dimensions": [{"Name": "FunctionName", "Value": {"Ref": name}}]}

        parts = [
            {"Id": i, "MetricStat": {"Metric": errors(n), "Period": 300, "Stat": "Sum"}, "ReturnData": False}
            for i, n in (("work", "Work"), ("other", "Other"))
        ]
        either["Properties"]["Metrics"] = [{"Id": "all", "Expression": "work + other"}, *parts]
        return either

    time_ = "<aws.scheduler.scheduled-time>"
    universal = "arn:aws:scheduler:::aws-sdk"
    return {
        "Resources": {
            "Lake": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": BUCKET}},
            "Dead": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "toy-dead"}},
            "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"Subscription": [{"Protocol": "email", "Endpoint": "me@example.com"}]}},
            "Table": {
                "Type": "AWS::DynamoDB::Table",
                "Properties": {
                    "TableName": "toy",
                    "BillingMode": "PAY_PER_REQUEST",
                    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
                    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
                },
            },
            "Layer": {"Type": "AWS::Lambda::LayerVersion", "Properties": {"Content": {"S3Bucket": asset_bucket, "S3Key": "layer.zip"}}},
            "Work": function(),
            "Other": function(),
            "OnFailure": {
                "Type": "AWS::Lambda::EventInvokeConfig",
                "Properties": {
                    "FunctionName": {"Ref": "Work"},
                    "Qualifier": "$LATEST",
                    "MaximumRetryAttempts": 0,
                    "DestinationConfig": {"OnFailure": {"Destination": get("Dead")}},
                },
            },
            "WorkSchedule": schedule("toy-work", get("Work"), {"schedule": "work", "time": time_}),
            "FailSchedule": schedule("toy-fail", get("Work"), {"fail": True, "time": time_}),
            "JobSchedule": schedule("toy-job", f"{universal}:glue:startJobRun", {"JobName": "toy", "Arguments": {"--time": time_}}),
            "GoneSchedule": schedule("toy-gone", f"{universal}:glue:startJobRun", {"JobName": "gone"}),
            "TrainSchedule": schedule("toy-train", f"{universal}:sagemaker:startPipelineExecution", {"PipelineName": "toy"}),
            "Job": {
                "Type": "AWS::Glue::Job",
                "Properties": {"Name": "toy", "Role": ROLE, "Command": {"Name": "glueetl", "ScriptLocation": f"s3://{BUCKET}/code/job.py"}},
            },
            "Group": {"Type": "AWS::SageMaker::ModelPackageGroup", "Properties": {"ModelPackageGroupName": "toy-models"}},
            "Pipeline": {
                "Type": "AWS::SageMaker::Pipeline",
                "Properties": {
                    "PipelineName": "toy",
                    "RoleArn": ROLE,
                    "PipelineDefinition": {"PipelineDefinitionBody": json.dumps(pipeline(7))},
                },
            },
            "Unlucky": {
                "Type": "AWS::SageMaker::Pipeline",
                "Properties": {
                    "PipelineName": "unlucky",
                    "RoleArn": ROLE,
                    "PipelineDefinition": {"PipelineDefinitionBody": json.dumps(pipeline(13))},
                },
            },
            "Approved": {
                "Type": "AWS::Events::Rule",
                "Properties": {
                    "EventPattern": {"source": ["aws.sagemaker"], "detail": {"ModelApprovalStatus": ["Approved"]}},
                    "Targets": [{"Id": "1", "Arn": get("Other")}],
                },
            },
            "EveryMinute": {
                "Type": "AWS::Events::Rule",
                "Properties": {"ScheduleExpression": "rate(1 minute)", "Targets": [{"Id": "1", "Arn": get("Other")}]},
            },
            "Severe": alarm("Toy", "Severity", {"service": "toy"}, 3),
            "Errors": alarm("AWS/Lambda", "Errors", {"FunctionName": {"Ref": "Work"}}, 1),
            "OtherErrors": alarm("AWS/Lambda", "Errors", {"FunctionName": {"Ref": "Other"}}, 1),
            "AnyErrors": errors_of_either(),
            "DeadLetters": alarm("AWS/SQS", "ApproximateNumberOfMessagesVisible", {"QueueName": get("Dead", "QueueName")}, 1),
            "Budget": {"Type": "AWS::Budgets::Budget", "Properties": {"Budget": {"BudgetType": "COST", "TimeUnit": "MONTHLY"}}},
            "Api": {"Type": "AWS::ApiGateway::RestApi", "Properties": {"Name": "toy"}},
            "Orders": {
                "Type": "AWS::ApiGateway::Resource",
                "Properties": {"RestApiId": {"Ref": "Api"}, "ParentId": get("Api", "RootResourceId"), "PathPart": "orders"},
            },
            "Post": {
                "Type": "AWS::ApiGateway::Method",
                "Properties": {
                    "RestApiId": {"Ref": "Api"},
                    "ResourceId": {"Ref": "Orders"},
                    "HttpMethod": "POST",
                    "AuthorizationType": "AWS_IAM",
                    "Integration": {
                        "Type": "AWS_PROXY",
                        "IntegrationHttpMethod": "POST",
                        "Uri": {"Fn::Sub": "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/${Other.Arn}/invocations"},
                    },
                },
            },
            "Release": {"Type": "AWS::ApiGateway::Deployment", "DependsOn": ["Post"], "Properties": {"RestApiId": {"Ref": "Api"}}},
            "Stage": {
                "Type": "AWS::ApiGateway::Stage",
                "Properties": {"RestApiId": {"Ref": "Api"}, "DeploymentId": {"Ref": "Release"}, "StageName": "v1"},
            },
        },
        "Outputs": {name: {"Value": {"Ref": name}} for name in ("Work", "Other", "Api", "Topic", "Dead", "Budget")},
    }


def assembly(folder: Path, body: dict[str, Any]) -> Path:
    """A cloud assembly as `cdk synth` writes it, holding one stack."""
    folder.mkdir(parents=True)
    files = {}
    for name, content in (("code", {"handler.py": FUNCTION}), ("layer", {"python/shared_library.py": "VALUE = 1\n"})):
        for path, text in content.items():
            (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / path).write_text(text)
        destination = {"bucketName": "cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}", "objectKey": f"{name}.zip"}
        files[name] = {"source": {"path": name, "packaging": "zip"}, "destinations": {"d": destination}}
    (folder / "toy.assets.json").write_text(json.dumps({"version": "43.0.0", "files": files}))
    (folder / "toy.template.json").write_text(json.dumps(body))
    artifacts = {"toy": {"type": "aws:cloudformation:stack", "properties": {"templateFile": "toy.template.json"}}}
    (folder / "manifest.json").write_text(json.dumps({"version": "43.0.0", "artifacts": artifacts}))
    return folder


def archive(files: dict[str, str]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return raw.getvalue()


class Cloud:
    """A started emulator with the toy app in it."""

    def __init__(self, emulator: Emulator, deployment: Deployment) -> None:
        self.emulator, self.deployment = emulator, deployment

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": LOCAL_ACCOUNT, "aws_secret_access_key": LOCAL_SECRET}
        return boto3.client(service, endpoint_url=self.emulator.url, region_name=REGION, **keys)

    def output(self, key: str) -> str:
        return self.deployment.output(key)

    def calls(self, function: str) -> dict[str, int]:
        counts = self.emulator.fired()["functions"].get(self.output(function), {})
        assert isinstance(counts, dict)
        return counts


def until(what: Callable[[], Any], *, seconds: float = 30) -> Any:
    """Poll until `what` is true and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def cloud(run_dir: Path) -> Iterator[Cloud]:
    assembled = assembly(run_dir / "cdk.out", template())
    with Emulator.start(run_dir, exchange_url="http://127.0.0.1:9") as emulator:
        cloud = Cloud(emulator, deploy_templates(emulator, cdk_out=assembled))
        s3 = cloud.client("s3")
        for key, body in {
            "features/manifest.json": b"{}",
            "features/year=2019/part.txt": b"rows",
            "code/src.tar.gz": archive({"train.py": TRAIN}),
            "code/evaluate/evaluate.py": EVALUATE.encode(),
            "code/evaluate/serve.py": SERVE.encode(),
            "code/job.py": JOB.encode(),
        }.items():
            s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        yield cloud


def test_deployment_counts_what_it_deployed(cloud: Cloud) -> None:
    assert cloud.deployment.stacks == 1
    assert cloud.deployment.resources == len(template()["Resources"])


def test_fire_runs_the_target_with_the_scheduled_time(cloud: Cloud) -> None:
    at = "2020-01-02T14:35:00Z"
    result = cloud.emulator.fire("work", at)
    assert result["status"] == "succeeded", result
    assert result["payload"]["event"] == {"schedule": "work", "time": at}
    assert result["payload"]["broker"] == "http://127.0.0.1:9"
    assert result["payload"]["gateway"] == cloud.emulator.url
    assert cloud.emulator.fired()["schedules"]["toy-work"] == 1


def test_code_and_layers_are_unpacked_once_for_all_functions(cloud: Cloud) -> None:
    paths = set()
    for name in ("Work", "Other"):
        answer = cloud.client("lambda").invoke(FunctionName=cloud.output(name), Payload=b"{}")
        paths.add(tuple(json.load(answer["Payload"])["files"]))
    assert len(paths) == 1
    assert cloud.calls("Other")["direct"] == 1


def test_failed_schedule_reaches_the_dead_letters_and_the_alarms(cloud: Cloud) -> None:
    result = cloud.emulator.fire("toy-fail", "2020-01-02T14:35:00Z")
    assert (result["status"], result["error"]) == ("failed", "as asked")
    assert "ValueError" in result["log"]
    record = json.loads(cloud.client("sqs").receive_message(QueueUrl=cloud.output("Dead"))["Messages"][0]["Body"])
    assert record["requestPayload"]["fail"] is True
    states = {a["AlarmName"].split("-")[1]: a["StateValue"] for a in cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]}
    assert states["Errors"] == states["AnyErrors"] == states["DeadLetters"] == "ALARM"
    assert states["OtherErrors"] != "ALARM"


def test_embedded_metric_rings_the_alarm_and_the_mail_is_kept(cloud: Cloud) -> None:
    cloud.emulator.fire("toy-work", "2020-01-03T14:35:00Z")
    metrics = cloud.client("cloudwatch").list_metrics(Namespace="Toy")["Metrics"]
    assert [(m["MetricName"], m["Dimensions"]) for m in metrics] == [("Severity", [{"Name": "service", "Value": "toy"}])]
    mail = next(m for m in cloud.emulator.published() if "Severe" in m["subject"])
    assert mail["mails"] == ["me@example.com"]
    assert mail["topic"] == cloud.output("Topic")


def test_template_details_survive(cloud: Cloud) -> None:
    assert cloud.client("scheduler").get_schedule(Name="toy-work")["ScheduleExpressionTimezone"] == "America/New_York"
    with urllib.request.urlopen(f"{cloud.emulator.url}/_papertape/recorded") as answer:
        assert list(json.load(answer)) == [cloud.output("Budget")]


def post(cloud: Cloud, body: bytes, *, sign: bool = True, sent: bytes | None = None) -> tuple[int, bytes]:
    url = f"{cloud.emulator.url}/restapis/{cloud.output('Api')}/v1/_user_request_/orders"
    request = AWSRequest("POST", url, data=body, headers={"Content-Type": "application/json"})
    if sign:
        SigV4Auth(Credentials(LOCAL_ACCOUNT, LOCAL_SECRET), "execute-api", REGION).add_auth(request)
    http = urllib.request.Request(url, data=sent or body, headers=dict(request.headers), method="POST")
    try:
        with urllib.request.urlopen(http) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_api_wants_a_true_signature(cloud: Cloud) -> None:
    before = cloud.calls("Other").get("api", 0)
    assert post(cloud, b'{"a": 1}') == (200, b'{"a": 1}')
    assert post(cloud, b'{"a": 1}', sign=False)[0] == 403
    status, message = post(cloud, b'{"a": 1}', sent=b'{"a": 2}')
    assert status == 403
    assert b"signature" in message
    assert cloud.calls("Other")["api"] == before + 1


def test_glue_job_runs_its_script(cloud: Cloud) -> None:
    glue, s3 = cloud.client("glue"), cloud.client("s3")

    def ended(run: str) -> Any:
        record = glue.get_job_run(JobName="toy", RunId=run)["JobRun"]
        return record if record["JobRunState"] in ("SUCCEEDED", "FAILED") else None

    started = cloud.emulator.fire("job", "2020-01-02T23:30:00Z")
    record = until(lambda: ended(started["payload"]["JobRunId"]))
    assert record["JobRunState"] == "SUCCEEDED", record
    assert s3.get_object(Bucket=BUCKET, Key="job.txt")["Body"].read() == b"2020-01-02T23:30:00Z"
    failing = glue.start_job_run(JobName="toy", Arguments={"--time": "now", "--fail": "yes"})["JobRunId"]
    record = until(lambda: ended(failing))
    assert record["JobRunState"] == "FAILED"
    assert "no bars" in record["ErrorMessage"]


def test_call_that_aws_refuses_goes_to_the_schedules_queue(cloud: Cloud) -> None:
    result = cloud.emulator.fire("toy-gone", "2020-01-02T23:30:00Z")
    assert result["status"] == "failed"
    assert "gone" in result["error"]
    bodies = [m["Body"] for m in cloud.client("sqs").receive_message(QueueUrl=cloud.output("Dead"), MaxNumberOfMessages=10)["Messages"]]
    assert any(json.loads(body) == {"JobName": "gone"} for body in bodies)


def log_of(cloud: Cloud, function: str) -> str:
    events = cloud.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{cloud.output(function)}")["events"]
    return "\n".join(event["message"] for event in events)


def run_pipeline(cloud: Cloud, execution: str) -> dict[str, Any]:
    sagemaker = cloud.client("sagemaker")

    def ended() -> Any:
        record = sagemaker.describe_pipeline_execution(PipelineExecutionArn=execution)
        return record if record["PipelineExecutionStatus"] != "Executing" else None

    record = until(ended)
    assert isinstance(record, dict)
    return record


def test_pipeline_trains_judges_registers_and_serves(cloud: Cloud) -> None:
    sagemaker = cloud.client("sagemaker")
    execution = cloud.emulator.fire("toy-train", "2020-01-04T11:00:00Z")["payload"]["PipelineExecutionArn"]
    record = run_pipeline(cloud, execution)
    steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution, SortOrder="Ascending")["PipelineExecutionSteps"]
    assert record["PipelineExecutionStatus"] == "Succeeded", (record, steps)
    assert [s["StepName"] for s in steps] == ["Train", "Evaluate", "Gate", "Accept"]
    (package,) = sagemaker.list_model_packages(ModelPackageGroupName="toy-models")["ModelPackageSummaryList"]
    described = sagemaker.describe_model_package(ModelPackageName=package["ModelPackageArn"])
    assert described["CustomerMetadataProperties"] == {
        "hash": "7 2020-01-02 rows",
        "log": "written PreconditionFailed",  # the judge reaches this cloud's S3, which keeps what is written once
        "approved": "0",
    }
    assert "event" not in cloud.calls("Other")
    sagemaker.update_model_package(ModelPackageArn=package["ModelPackageArn"], ModelApprovalStatus="Approved")
    until(lambda: cloud.calls("Other").get("event") == 1)
    assert '"time": "2020-01-04T11:00:00Z"' in log_of(cloud, "Other")

    sagemaker.create_model(ModelName="m1", PrimaryContainer={"ModelPackageName": package["ModelPackageArn"]}, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "AllTraffic", "ModelName": "m1", "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}
    sagemaker.create_endpoint_config(EndpointConfigName="c1", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="toy-incumbent", EndpointConfigName="c1")
    until(lambda: sagemaker.describe_endpoint(EndpointName="toy-incumbent")["EndpointStatus"] == "InService")
    runtime = cloud.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName="toy-incumbent", Body=b'{"observation": [1]}', ContentType="application/json")
    assert json.load(answer["Body"]) == {"scores": [0]}
    with pytest.raises(runtime.exceptions.ModelError) as refused:
        runtime.invoke_endpoint(EndpointName="toy-incumbent", Body=b'{"observation": [NaN]}', ContentType="application/json")
    assert refused.value.response["OriginalStatusCode"] == 422
    assert "observation holds NaN" in refused.value.response["OriginalMessage"]


def test_the_registry_lists_a_groups_versions_by_approval_and_age_in_pages(cloud: Cloud) -> None:
    sagemaker = cloud.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="aged")
    for status in ("Approved", "Rejected", "Approved", "Approved"):
        sagemaker.create_model_package(ModelPackageGroupName="aged", ModelApprovalStatus=status, CustomerMetadataProperties={"trial": "t"})

    def versions(**asked: Any) -> list[int]:
        pages = sagemaker.get_paginator("list_model_packages").paginate(ModelPackageGroupName="aged", **asked)
        return [package["ModelPackageVersion"] for page in pages for package in page["ModelPackageSummaryList"]]

    assert versions() == [1, 2, 3, 4]
    assert versions(SortOrder="Descending", MaxResults=3) == [4, 3, 2, 1]
    assert versions(ModelApprovalStatus="Approved", SortBy="CreationTime", SortOrder="Descending") == [4, 3, 1]
    with pytest.raises(sagemaker.exceptions.ClientError, match="model-package-group/nobody"):
        sagemaker.list_model_packages(ModelPackageGroupName="nobody")


def test_failed_step_fails_the_execution_with_its_last_lines(cloud: Cloud) -> None:
    execution = cloud.client("sagemaker").start_pipeline_execution(PipelineName="unlucky")["PipelineExecutionArn"]
    record = run_pipeline(cloud, execution)
    assert record["PipelineExecutionStatus"] == "Failed"
    assert "seed 13 is unlucky" in record["FailureReason"]


def test_only_what_was_fired_ran_on_a_schedule(cloud: Cloud) -> None:
    fired = cloud.emulator.fired()
    of_work = fired["schedules"]["toy-work"] + fired["schedules"]["toy-fail"]
    assert cloud.calls("Work") == {"schedule": of_work, "direct": 1}
    assert not any("schedule" in counts for name, counts in fired["functions"].items() if name != cloud.output("Work"))


def test_unknown_schedule_is_an_answer(cloud: Cloud) -> None:
    result = cloud.emulator.fire("nothing", "2020-01-02T14:35:00Z")
    assert result["status"] == "failed"
    assert "toy-work" in result["error"]


def test_refused_template_names_the_type(cloud: Cloud, tmp_path: Path) -> None:
    body = {"Resources": {"Thing": {"Type": "AWS::Nowhere::Thing"}}}
    with pytest.raises(CloudError, match="AWS::Nowhere::Thing"):
        deploy_templates(cloud.emulator, cdk_out=assembly(tmp_path / "cdk.out", body))


def test_unsynthesized_app_is_one_line(cloud: Cloud, tmp_path: Path) -> None:
    with pytest.raises(CloudError, match="run `make synth`"):
        deploy_templates(cloud.emulator, cdk_out=tmp_path)


def test_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EmulatorError, match=rf"^port {port} is in use .*stop what listens there"):
            Emulator.start(tmp_path, port=port)


def test_missing_environment_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EmulatorError, match="run `make setup`"):
        Emulator.start(tmp_path, cloud_python=tmp_path / "gone" / "bin" / "python")


def test_state_comes_back_after_a_clean_stop(cloud: Cloud, run_dir: Path) -> None:
    """Last of those that share the app: it stops it and starts it again."""
    cloud.client("dynamodb").put_item(TableName="toy", Item={"pk": {"S": "kept"}})
    messages = len(cloud.emulator.published())
    cloud.emulator.stop()
    with Emulator.start(run_dir, exchange_url="http://127.0.0.1:9") as emulator:
        again = Cloud(emulator, deployed(emulator))
        assert (again.deployment.outputs, again.deployment.resources) == (cloud.deployment.outputs, cloud.deployment.resources)
        assert again.client("dynamodb").get_item(TableName="toy", Key={"pk": {"S": "kept"}})["Item"]["pk"]["S"] == "kept"
        assert len(emulator.published()) == messages
        assert again.emulator.fire("toy-work", "2020-01-06T14:35:00Z")["status"] == "succeeded"
        sagemaker = again.client("sagemaker")
        assert sagemaker.describe_model_package(ModelPackageName="toy-models/1")["ModelApprovalStatus"] == "Approved"
        until(lambda: sagemaker.describe_endpoint(EndpointName="toy-incumbent")["EndpointStatus"] == "InService")
        runtime = again.client("sagemaker-runtime")
        answer = runtime.invoke_endpoint(EndpointName="toy-incumbent", Body=b"{}", ContentType="application/json")
        assert json.load(answer["Body"]) == {"scores": [0]}


def children(pid: int) -> set[int]:
    """Every descendant of a process, from /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def alive(pids: set[int]) -> set[int]:
    def state(pid: int) -> str:
        try:
            return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "Z"

    return {pid for pid in pids if state(pid) != "Z"}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("killed", ["the app", "the emulator"])
def test_no_orphan_outlives_a_kill(tmp_path: Path, killed: str) -> None:
    script = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from local.aws.deploy import deploy_templates
        from local.aws.emulator import Emulator
        emulator = Emulator.start(Path({str(tmp_path)!r}), exchange_url="http://127.0.0.1:9")
        deploy_templates(emulator, cdk_out=Path({str(tmp_path / "cdk.out")!r}))
        print(emulator.fire("toy-work", "2020-01-02T14:35:00Z")["status"], emulator.process.pid, flush=True)
        time.sleep(600)
        """
    )
    assembly(tmp_path / "cdk.out", template())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as app:
        assert app.stdout is not None
        status, pid = app.stdout.readline().split()
        assert status == "succeeded"
        family = children(app.pid)
        assert int(pid) in family
        assert len(family) >= 2, "the emulator and a function's worker"
        os.kill(app.pid if killed == "the app" else int(pid), signal.SIGKILL)
        until(lambda: not alive(family), seconds=20)
        app.kill()
