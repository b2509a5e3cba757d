"""The web app's front on the local cloud: its templates deploy, Cognito's tokens open the API and nothing else does, and CloudFront alone
reads the shell. CloudFront before the API is for an account to show: the emulator has no such origin."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import app as application  # before aws_cdk: it chooses jsii's Node

# isort: split

import boto3
import pytest
import requests
from aws_cdk import Environment

from local.aws.deploy import Deployment, deploy_templates
from local.aws.emulator import ROOT, Emulator
from schema.lake_layout import run_key
from schema.loopback import LOCAL_ACCOUNT
from schema.runs.request import BacktestOf, BundledBars, RunRequest
from schema.sections.dashboard import DashboardSettings
from schema.settings import load
from stacks.constructs import archives
from stacks.constructs.function import Runtime
from stacks.dashboard import DashboardStack
from stacks.lake import LakeStack
from stacks.model import ModelStack
from stacks.trading import TradingStack

pytestmark = pytest.mark.rehearse  # a deployment of its own takes half a minute

USER, FIRST, OWN = "owner@example.com", "Invited-by-mail-1", "Chosen-by-myself-2"
SCOPES = ("read", "trade", "approve")
VERIFIER = "v" * 64
SECONDS = 30
RUN_SECONDS = 300


@dataclass(frozen=True)
class Front:
    """The deployed web app, as a browser meets it."""

    cloud: Emulator
    deployment: Deployment

    @property
    def redirect(self) -> str:
        return f"{self.deployment.output('DashboardUrl')}/"

    def api(self, path: str, token: str | None = None, *, kind: str = "Bearer ") -> requests.Response:
        """GET of the API behind the gateway, with or without a token."""
        url = f"{self.cloud.url}/restapis/{self.deployment.output('ExecutionApiId')}/v1/_user_request_/app{path}"
        return requests.get(url, headers={} if token is None else {"Authorization": kind + token}, timeout=SECONDS)

    def shell(self, path: str) -> requests.Response:
        """GET of CloudFront."""
        host = urlsplit(self.redirect).hostname
        return requests.get(
            f"{self.cloud.url}{path}", headers={"Host": str(host), "X-Forwarded-Proto": "https"}, allow_redirects=False, timeout=SECONDS
        )

    def sign_in(self, password: str, *, new: str = "", scopes: tuple[str, ...] = SCOPES) -> str:
        """As the shell does it: a code from Cognito's page, with PKCE, for an access token."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
        client = self.deployment.output("DashboardClientId")
        asked = {
            "response_type": "code", "client_id": client, "redirect_uri": self.redirect, "state": "s", "code_challenge": challenge,
            "scope": " ".join(("openid", *(f"papertape/{scope}" for scope in scopes))), "code_challenge_method": "S256",
        }  # fmt: skip
        page = requests.get(f"{self.cloud.url}/oauth2/authorize", params=asked, timeout=SECONDS)
        assert page.status_code == 200, page.text
        answer = self._submit(page.text, username=USER, password=password)
        if new:
            answer = self._submit(answer.text, new_password=new, confirm_password=new)
        assert answer.status_code == 302, answer.text
        given = parse_qs(urlsplit(answer.headers["Location"]).query)
        assert given["state"] == ["s"]
        form = {
            "grant_type": "authorization_code",
            "client_id": client,
            "redirect_uri": self.redirect,
            "code": given["code"][0],
            "code_verifier": VERIFIER,
        }
        stolen = requests.post(f"{self.cloud.url}/oauth2/token", data={**form, "code_verifier": "w" * 64}, timeout=SECONDS)
        assert stolen.status_code == 400, "a code without its verifier is worth nothing"
        tokens = requests.post(f"{self.cloud.url}/oauth2/token", data=form, timeout=SECONDS)
        assert tokens.status_code == 200, tokens.text
        token: str = tokens.json()["access_token"]
        return token

    def _submit(self, page: str, **fields: str) -> requests.Response:
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))
        return requests.post(f"{self.cloud.url}/login", data={**hidden, **fields}, allow_redirects=False, timeout=SECONDS)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder, shipped = tmp_path_factory.mktemp("web-access"), load(ROOT / "data" / "settings.toml")
    settings = shipped.model_copy(update={"dashboard": DashboardSettings(enabled=True, user=USER)})
    with pytest.MonkeyPatch.context() as patch, Emulator.start(folder) as cloud:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in cloud.env().items():
            patch.setenv(name, value)
        cdk, env = application.new_app(folder / "cdk.out", validated=False), Environment(account=LOCAL_ACCOUNT, region=settings.region)
        code = archives.modules("lambdas", "schema", "sources", "trading_env", settings=settings, name="code")
        runtime = Runtime(app=settings.name, target="laptop", code=code)
        lake = LakeStack(cdk, f"{settings.name}-lake", settings=settings, env=env)
        ModelStack(cdk, f"{settings.name}-model", settings=settings, runtime=runtime, lake=lake, env=env)
        trading = TradingStack(cdk, f"{settings.name}-trading", settings=settings, runtime=runtime, lake=lake, env=env)
        assert trading.web is not None
        DashboardStack(
            cdk, f"{settings.name}-dashboard", settings=settings, runtime=runtime, lake=lake, trading=trading, web=trading.web, env=env
        )
        cdk.synth()
        deployment = deploy_templates(cloud, cdk_out=folder / "cdk.out")
        # The emulator only records the invitation, so the user is made as the pool's owner would
        boto3.client("cognito-idp").admin_create_user(
            UserPoolId=deployment.output("UserPoolId"), Username=USER, TemporaryPassword=FIRST, MessageAction="SUPPRESS"
        )
        yield Front(cloud=cloud, deployment=deployment)


@pytest.fixture(scope="module")
def token(front: Front) -> str:
    """Of the invited user, who has chosen a password of their own."""
    return front.sign_in(FIRST, new=OWN)


def forged(token: str, **claims: object) -> str:
    """The token with other claims, and the signature that it had."""
    head, body, signature = token.split(".")
    document = {**json.loads(base64.urlsafe_b64decode(body + "==")), **claims}
    return f"{head}.{base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip('=')}.{signature}"


def test_a_signed_in_user_is_answered(front: Front, token: str) -> None:
    answer = front.api("/api/openapi.json", token)
    assert answer.status_code == 200, answer.text
    assert answer.json()["info"]["title"] == "Papertape"
    page = front.api("/pages/portfolio", token)
    assert (page.status_code, page.headers["Content-Type"].partition(";")[0]) == (200, "text/html"), page.text


def test_without_a_token_of_the_pool_nothing_is_answered(front: Front, token: str) -> None:
    for refused in (None, "garbage", "a.b.c", forged(token, scope="papertape/read papertape/trade"), token[:-8] + "AAAAAAAA"):
        answer = front.api("/api/openapi.json", refused)
        assert (answer.status_code, answer.json()) == (401, {"message": "Unauthorized"}), refused


def test_a_token_that_may_not_read_is_refused_at_the_gateway(front: Front, token: str) -> None:
    assert token
    assert front.api("/api/openapi.json", front.sign_in(OWN, scopes=("trade",))).status_code == 401


def test_cloudfront_serves_the_shell_with_where_to_sign_in(front: Front) -> None:
    for path in ("/", "/assets/app.js", "/config.json"):
        answer = front.shell(path)
        assert answer.status_code == 200, (path, answer.text[:200])
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
    assert front.shell("/config.json").json() == {
        "auth": "cognito",
        "domain": f"papertape-{LOCAL_ACCOUNT}.auth.us-east-1.amazoncognito.com",
        "client": front.deployment.output("DashboardClientId"),
    }
    assert front.shell("/").text == (ROOT / "web" / "index.html").read_text(encoding="utf-8")
    assert front.shell("/nothing").status_code == 403


def test_the_bucket_is_cloudfronts_by_its_policy_alone(front: Front) -> None:
    """Who reads S3 itself is asked for no permission here: that the bucket is not public is all that can be shown."""
    s3, bucket = boto3.client("s3"), front.deployment.output("WebBucket")
    assert set(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values()) == {True}
    policy = s3.get_bucket_policy(Bucket=bucket)["Policy"]
    s3.delete_bucket_policy(Bucket=bucket)
    try:
        assert front.shell("/").status_code == 403
    finally:
        s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    assert front.shell("/").status_code == 200


def executed(front: Front, run: str) -> str:
    """The end of an execution of the runs' pipeline."""
    sagemaker, pipeline = boto3.client("sagemaker"), front.deployment.output("RunsPipelineName")
    arn = sagemaker.start_pipeline_execution(
        PipelineName=pipeline, ClientRequestToken=f"started-by-the-web-app-for-{run}", PipelineParameters=[{"Name": "Run", "Value": run}]
    )["PipelineExecutionArn"]
    until = time.monotonic() + RUN_SECONDS
    while (execution := sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn))["PipelineExecutionStatus"] == "Executing":
        assert time.monotonic() < until, execution
        time.sleep(0.2)
    return str(execution["PipelineExecutionStatus"])


def test_a_run_is_done_by_its_pipeline_and_says_so_in_its_folder(front: Front) -> None:
    s3, bucket = boto3.client("s3"), front.deployment.output("ProcessedBucket")
    backtest = BacktestOf(policy="equal-weight", start="2019-01-02", end="2020-12-31")
    request = RunRequest(
        id="backtest-1", kind="backtest", by=USER, requested_at="2026-11-22T12:00:00Z", bars=BundledBars(), backtest=backtest
    )
    s3.put_object(Bucket=bucket, Key=run_key(request.id, "request.json"), Body=request.model_dump_json().encode())
    assert executed(front, request.id) == "Succeeded"
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket, Prefix=run_key(request.id, ""))["Contents"]]
    assert run_key(request.id, "results/backtest.json") in keys
    events = [s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode() for key in sorted(keys) if "/events/" in key]
    states = [event["state"] for text in events for event in map(json.loads, text.splitlines()) if event["kind"] == "state"]
    assert (states[0], states[-1]) == ("running", "finished")
