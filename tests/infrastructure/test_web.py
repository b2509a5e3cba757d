"""The web app as an option: nothing of it by default; with it, a stack, a function and a pool, and what each of them may do."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import app as application  # before aws_cdk: it chooses jsii's Node

# isort: split

import pytest
from aws_cdk import Stack
from rich.console import Console

from local.dashboard import gateway
from papertape.operate import cost
from schema.sections.dashboard import DashboardSettings
from schema.settings import Settings, SettingsError
from stacks.constructs import web_assets
from stacks.constructs.archives import BundleError
from stacks.constructs.web_access import WebAccess
from stacks.constructs.web_function import CALLS, METHODS
from tests.infrastructure.assembly import ROOT, STACKS, Assembly, Resource
from tests.infrastructure.gates import check_templates
from tests.infrastructure.test_templates import GIVEN, required_fields

USER = "owner@example.com"
ON = (*STACKS, "dashboard")
#: Words that only the web app's resources have.
WORDS = ("Cognito", "CloudFront", "amazoncognito", "COGNITO", "runs_pipeline", "dashboard.handler", "publish_web", "action#", "LeadingKeys")


def switched_on(settings: Settings) -> Settings:
    return settings.model_copy(update={"dashboard": DashboardSettings(enabled=True, user=USER)})


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Assembly:
    folder = tmp_path_factory.mktemp("web")
    app = application.new_app(folder)
    application.compose(app, settings=switched_on(settings), target="aws", account=None)
    app.synth()
    return Assembly(folder=folder, templates={name: json.loads((folder / f"papertape-{name}.template.json").read_text()) for name in ON})


def only(assembly: Assembly, kind: str) -> Resource:
    ((_, _, resource),) = assembly.resources(kind)
    return resource["Properties"]


def granted(assembly: Assembly, stack: str, role: str) -> list[Resource]:
    return [
        statement
        for where, name, policy in assembly.resources("AWS::IAM::Policy")
        if where == stack and name.startswith(role)
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
    ]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def of(statements: list[Resource], action: str) -> list[Resource]:
    return [one for one in statements if action in listed(one["Action"])]


def test_off_is_the_default_and_leaves_nothing_in_the_templates(aws: Assembly, settings: Settings) -> None:
    assert not settings.dashboard.enabled
    written = {path.name: path.read_text() for path in aws.folder.glob("*.template.json")}
    assert len(written) == len(STACKS), "no stack of its own"
    assert {(name, word) for name, text in written.items() for word in WORDS if word in text} == set()


def test_switched_on_it_adds_and_changes_what_is_named_here_and_nothing_else(aws: Assembly, web: Assembly) -> None:
    added, changed = set(), set()
    for stack in STACKS:
        before, after = (one.templates[stack]["Resources"] for one in (aws, web))
        assert {before[name]["Type"] for name in before.keys() - after.keys()} <= {"AWS::ApiGateway::Deployment"}
        added |= {(stack, after[name]["Type"]) for name in after.keys() - before.keys()}
        for name in before.keys() & after.keys():
            was, now = before[name]["Properties"], after[name]["Properties"]
            different = {key for key in was.keys() | now.keys() if was.get(key) != now.get(key)}
            changed |= {(stack, after[name]["Type"], key) for key in different}
    carried = {"Code", "PolicyDocument", "DefaultArguments", "PipelineDefinition"}  # archives, whose settings are other ones
    assert {one for one in changed if one[2] not in carried} == {
        ("lake", "AWS::S3::Bucket", "CorsConfiguration"),
        ("lake", "AWS::S3::Bucket", "LifecycleConfiguration"),
        ("trading", "AWS::ApiGateway::RestApi", "MinimumCompressionSize"),
        ("trading", "AWS::ApiGateway::Stage", "DeploymentId"),
        ("trading", "AWS::ApiGateway::Stage", "MethodSettings"),
        ("monitoring", "AWS::CloudWatch::Alarm", "AlarmDescription"),
        ("monitoring", "AWS::CloudWatch::Dashboard", "DashboardBody"),
    }
    assert {kind for stack, kind in added if stack == "model"} == {"AWS::IAM::Role", "AWS::IAM::Policy", "AWS::SageMaker::Pipeline"}
    assert {stack for stack, _ in added} == {"trading", "model"}


def test_the_checks_pass_with_it(web: Assembly) -> None:
    check_templates(web.folder, "trading", "model", "lake", "dashboard")


def test_nobody_registers_and_one_is_invited(web: Assembly) -> None:
    pool = only(web, "AWS::Cognito::UserPool")
    assert pool["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"] is True
    assert pool["Policies"]["PasswordPolicy"]["MinimumLength"] == 14
    assert (pool["MfaConfiguration"], pool["EnabledMfas"], pool["UserPoolTier"]) == ("ON", ["SOFTWARE_TOKEN_MFA"], "ESSENTIALS")
    invited = only(web, "AWS::Cognito::UserPoolUser")
    assert (invited["Username"], invited["DesiredDeliveryMediums"]) == (USER, ["EMAIL"])


def test_a_browser_gets_a_code_for_no_secret_and_tokens_for_an_hour(web: Assembly) -> None:
    client = only(web, "AWS::Cognito::UserPoolClient")
    assert (client["GenerateSecret"], client["AllowedOAuthFlows"]) == (False, ["code"])
    assert (client["AccessTokenValidity"], client["TokenValidityUnits"]["AccessToken"]) == (60, "minutes")
    assert client["RefreshTokenRotation"]["Feature"] == "ENABLED"
    assert client["ExplicitAuthFlows"] == ["ALLOW_USER_SRP_AUTH"], "a refresh token that rotates is refused to the older flow"
    for urls in (client["CallbackURLs"], client["LogoutURLs"]):
        assert json.dumps(urls).count('"DomainName"') == 1 == len(urls), "CloudFront's address alone"
    scopes = [one["ScopeName"] for one in only(web, "AWS::Cognito::UserPoolResourceServer")["Scopes"]]
    assert scopes == ["read", "trade", "approve"]
    assert len(client["AllowedOAuthScopes"]) == 1 + len(scopes)


def test_every_method_of_the_app_asks_for_a_token_that_may_read(web: Assembly) -> None:
    methods = [one["Properties"] for _, name, one in web.resources("AWS::ApiGateway::Method") if "appproxy" in name]
    assert sorted(one["HttpMethod"] for one in methods) == sorted(METHODS)
    for one in methods:
        assert (one["AuthorizationType"], one["AuthorizationScopes"]) == ("COGNITO_USER_POOLS", ["papertape/read"])
    others = [one["Properties"] for _, name, one in web.resources("AWS::ApiGateway::Method") if "appproxy" not in name]
    assert {one["AuthorizationType"] for one in others} == {"AWS_IAM"}
    limits = [one for one in only(web, "AWS::ApiGateway::Stage")["MethodSettings"] if one["ResourcePath"] == "/~1app~1{proxy+}"]
    assert {(one["HttpMethod"], one["ThrottlingRateLimit"]) for one in limits} == {(method, 20) for method in METHODS}


def test_the_function_writes_its_own_items_and_folders_and_decides_nothing(web: Assembly) -> None:
    may = granted(web, "trading", "WebDashboardRole")
    (put,) = of(may, "dynamodb:PutItem")
    assert put["Condition"] == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["action#*"]}}
    assert not [one for one in may if "dynamodb:DeleteItem" in listed(one["Action"])]
    (write,) = of(may, "s3:PutObject")
    assert [json.dumps(one).rpartition('"/')[2].removesuffix('"]]}') for one in write["Resource"]] == ["runs/*", "uploads/*"]
    (calls,) = of(may, "execute-api:Invoke")
    asked = {json.dumps(one).rpartition('"/v1/')[2].removesuffix('"]]}') for one in calls["Resource"]}
    assert asked == {f"{method}{path}" for method, path in CALLS}
    assert "POST/decisions" not in asked
    actions = {action for one in may for action in listed(one["Action"])}
    assert not {one for one in actions if "*" in one or one.startswith(("iam:", "secretsmanager:", "lambda:"))}
    assert {one for one in actions if one.startswith("sagemaker:")} == {
        "sagemaker:DescribeModelPackage", "sagemaker:ListModelPackages", "sagemaker:UpdateModelPackage",
        "sagemaker:StartPipelineExecution", "sagemaker:ListPipelineExecutions", "sagemaker:StopPipelineExecution",
        "sagemaker:DescribePipelineExecution",
    }  # fmt: skip


def test_the_function_has_its_own_bundle_and_its_variables(web: Assembly) -> None:
    function = web.functions()["dashboard"]
    layers = {name: layer["Properties"]["Description"] for _, name, layer in web.resources("AWS::Lambda::LayerVersion")}
    assert layers[function["Layers"][0]["Ref"]] == "lambdas/requirements-dashboard.txt"
    variables = function["Environment"]["Variables"]
    assert {"LEDGER_TABLE", "RAW_BUCKET", "PROCESSED_BUCKET", "AUDIT_BUCKET", "EXECUTION_API_URL"} <= variables.keys()
    assert (variables["PACKAGE_GROUP"], variables["RUNS_PIPELINE"]) == ("papertape", "papertape-runs")
    assert len(json.dumps(variables)) < 4096


def test_the_functions_get_the_variables_that_their_code_requires(web: Assembly) -> None:
    common = required_fields(ROOT / "lambdas" / "common")
    needed = required_fields(ROOT / "lambdas" / "dashboard", inherited=common)["DashboardVariables"] | {"EXECUTION_API_URL"}
    assert needed - GIVEN <= web.functions()["dashboard"]["Environment"]["Variables"].keys()


def test_the_shell_is_private_and_its_policy_strict(web: Assembly) -> None:
    (bucket,) = (one["Properties"] for stack, _, one in web.resources("AWS::S3::Bucket") if stack == "dashboard")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    (policy,) = (
        one["Properties"]["PolicyDocument"]["Statement"] for s, _, one in web.resources("AWS::S3::BucketPolicy") if s == "dashboard"
    )
    reads = [one for one in policy if one["Effect"] == "Allow"]
    assert [(one["Action"], one["Principal"]) for one in reads] == [("s3:GetObject", {"Service": "cloudfront.amazonaws.com"})]
    assert "AWS:SourceArn" in json.dumps(reads[0]["Condition"]), "of this distribution alone"
    headers = only(web, "AWS::CloudFront::ResponseHeadersPolicy")["ResponseHeadersPolicyConfig"]["SecurityHeadersConfig"]
    allowed = json.dumps(headers["ContentSecurityPolicy"])
    assert "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' https://papertape-" in allowed
    assert "; img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" in allowed
    assert "unsafe" not in allowed
    assert headers["StrictTransportSecurity"]["AccessControlMaxAgeSec"] == 31_536_000
    assert (headers["ReferrerPolicy"]["ReferrerPolicy"], headers["FrameOptions"]["FrameOption"]) == ("no-referrer", "DENY")


def test_cloudfront_passes_the_api_and_keeps_nothing_of_it(web: Assembly) -> None:
    front = only(web, "AWS::CloudFront::Distribution")["DistributionConfig"]
    assert only(web, "AWS::CloudFront::OriginAccessControl")["OriginAccessControlConfig"]["Name"] == "papertape-us-east-1"
    assert only(web, "AWS::CloudFront::ResponseHeadersPolicy")["ResponseHeadersPolicyConfig"]["Name"] == "papertape-us-east-1"
    (api,) = front["CacheBehaviors"]
    assert (api["PathPattern"], api["ViewerProtocolPolicy"]) == ("/v1/app/*", "https-only"), "and nothing of the signed API"
    disabled, but_the_host = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad", "b689b0a8-53d0-40ab-baf2-68738e2966ac"  # AWS's own policies
    assert (api["CachePolicyId"], api["OriginRequestPolicyId"]) == (disabled, but_the_host)
    assert {"POST", "PUT", "DELETE"} <= set(api["AllowedMethods"])
    assert (front["DefaultRootObject"], front["PriceClass"]) == ("index.html", "PriceClass_100")
    origin = next(one for one in front["Origins"] if one["Id"] == api["TargetOriginId"])["CustomOriginConfig"]
    assert (origin["OriginProtocolPolicy"], origin["OriginSSLProtocols"]) == ("https-only", ["TLSv1.2"])
    assert front["DefaultCacheBehavior"]["ResponseHeadersPolicyId"] == api["ResponseHeadersPolicyId"]


def test_the_job_of_runs_writes_folders_of_runs_and_registers_nothing(web: Assembly) -> None:
    pipelines = [one["Properties"] for _, _, one in web.resources("AWS::SageMaker::Pipeline")]
    (runs,) = [one for one in pipelines if one["PipelineName"] == "papertape-runs"]
    assert "papertape.runs" in json.dumps(runs["PipelineDefinition"])
    may = granted(web, "model", "RunsRole")
    (write,) = of(may, "s3:PutObject")
    assert [json.dumps(one).rpartition('"/')[2] for one in listed(write["Resource"])] == ['runs/*"]]}']
    read = json.dumps([one["Resource"] for one in of(may, "s3:GetObject")])
    assert all(f'"/{prefix}*"' in read for prefix in ("runs/", "uploads/", "models/", "processed/training/"))
    assert "Audit" not in json.dumps(may)
    actions = {action for one in may for action in listed(one["Action"])}
    assert not {one for one in actions if one.startswith(("sagemaker:CreateModel", "sagemaker:CreateTraining", "sagemaker:Update"))}


def test_its_cost_is_in_the_estimate_when_it_is_on(aws: Assembly, web: Assembly, settings: Settings, tmp_path: Path) -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    off = cost.run(settings, templates=aws.folder, out=tmp_path / "off.json", console=console)
    assert not [word for word in ("Cognito", "CloudFront", "web app") if word in shown.getvalue() + (tmp_path / "off.json").read_text()]
    on = cost.run(switched_on(settings), templates=web.folder, out=tmp_path / "on.json", console=console)
    assert on.by_service.keys() - off.by_service.keys() == {"Cognito", "CloudFront", "Runs of the web app"}
    assert (on.by_service["Cognito"], on.after_free_tiers["Cognito"]) == (0.01, 0.0), "0.015, rounded to even"
    assert on.after_free_tiers["CloudFront"] == 0.0
    runs = cost.WEB_RUNS * cost.WEB_RUN_HOURS
    assert on.by_service["Runs of the web app"] == pytest.approx(runs * 0.115, rel=0.1)
    assert off.monthly + 0.5 < on.monthly < off.monthly + 3
    assert on.monthly_after_free_tiers <= settings.budget.monthly_budget_usd
    assert "the web app's one user makes 50,000 calls" in " ".join(shown.getvalue().split())
    assert cost.deployed(settings, list(web.templates.values())).memory.keys() == cost.SECONDS.keys() - {"consume_stream"}


def test_an_estimate_above_the_budget_says_so(web: Assembly, settings: Settings, tmp_path: Path) -> None:
    shown = io.StringIO()
    tight = switched_on(settings).model_copy(update={"budget": settings.budget.model_copy(update={"monthly_budget_usd": 1.0})})
    cost.run(tight, templates=web.folder, out=tmp_path / "cost.json", console=Console(file=shown, width=200))
    assert "That is more than [budget] monthly_budget_usd = 1: the budget will mail" in " ".join(shown.getvalue().split())


def test_the_shell_is_what_is_written_here_and_what_npm_installed() -> None:
    files = web_assets.web_files()
    assert {"index.html", "assets/app.js", "assets/app.css", "assets/htmx.min.js", "assets/uPlot.min.css"} <= files.keys()
    assert all(name == "index.html" or name.startswith("assets/") for name in files)
    named = {part for part in files["index.html"].decode().split('"') if part.startswith("/assets/")}
    assert named
    assert {name.removeprefix("/") for name in named} <= files.keys()


def test_the_laptop_serves_the_same_files_under_the_same_policy() -> None:
    assert {name.removeprefix("assets/"): content for name, content in web_assets.web_files().items()} == {
        name: asset.body for name, asset in gateway.assets().items()
    }
    assert web_assets.security_policy() == gateway.POLICY


def test_a_shell_that_is_not_whole_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "index.html").write_text("<!doctype html>")
    with pytest.raises(BundleError, match=r"^node_modules/htmx.org/dist/htmx.min.js is not there: run `make setup`$"):
        web_assets.web_files(tmp_path)


def test_a_name_that_cognito_refuses_is_named(tmp_path: Path, settings: Settings) -> None:
    stack = Stack(application.new_app(tmp_path), "stack")
    with pytest.raises(
        SettingsError, match=r"^name = 'my-aws-tape' is not allowed with \[dashboard\] enabled: Cognito refuses 'aws' in it$"
    ):
        WebAccess(stack, "Access", settings=switched_on(settings).model_copy(update={"name": "my-aws-tape"}))
