"""A task of ECS on this machine: its command runs with its variables, secrets and log; a stop is SIGTERM, a crash starts another."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from local.aws.emulator import Emulator
from schema.loopback import LOCAL_ACCOUNT, LOCAL_SECRET

PROGRAM = """
import os, signal, sys, time, urllib.request
def told(*_):
    print("told to stop", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/_papertape/fired", timeout=5).read()
print("pid", os.getpid(), os.environ["GIVEN"], os.environ["KEY"], os.environ["AWS_REGION"], flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator.start(tmp_path_factory.mktemp("containers")) as running:
        yield running


@pytest.fixture(scope="module")
def client(emulator: Emulator) -> Callable[[str], Any]:
    keys = {"aws_access_key_id": LOCAL_ACCOUNT, "aws_secret_access_key": LOCAL_SECRET}
    return lambda service: boto3.Session().client(service, endpoint_url=emulator.url, region_name=emulator.region, **keys)


def until(look: Callable[[], Any], *, seconds: float = 15.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


def test_a_service_runs_its_command_restarts_it_and_stops_it(client: Callable[[str], Any]) -> None:
    ecs, logs = client("ecs"), client("logs")
    secret = client("secretsmanager").create_secret(Name="keys", SecretString='{"key": "from-the-secret"}')["ARN"]
    logs.create_log_group(logGroupName="/app/runner")
    ecs.create_cluster(clusterName="market")
    ecs.register_task_definition(
        family="runner",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="256",
        memory="512",
        runtimePlatform={"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"},
        containerDefinitions=[
            {
                "name": "runner",
                "image": "papertape-runner",
                "command": ["python", "-c", PROGRAM],
                "environment": [{"name": "GIVEN", "value": "by-the-task"}],
                "secrets": [{"name": "KEY", "valueFrom": f"{secret}:key::"}],
                "logConfiguration": {
                    "logDriver": "awslogs",
                    "options": {"awslogs-group": "/app/runner", "awslogs-stream-prefix": "runner"},
                },
            }
        ],
    )
    network = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "ENABLED"}}
    ecs.create_service(
        cluster="market", serviceName="runner", taskDefinition="runner", desiredCount=0, launchType="FARGATE", networkConfiguration=network
    )

    def said() -> list[str]:
        return [event["message"] for event in logs.filter_log_events(logGroupName="/app/runner")["events"]]

    def pids() -> list[int]:
        return [int(line.split()[1]) for line in said() if line.startswith("pid")]

    time.sleep(0.3)
    assert said() == [], "of a service of none, none runs"
    ecs.update_service(cluster="market", service="runner", desiredCount=1)
    (first,) = until(pids)
    assert said() == [f"pid {first} by-the-task from-the-secret us-east-1"]
    until(lambda: len(ecs.list_tasks(cluster="market", serviceName="runner")["taskArns"]) == 1)

    os.kill(first, signal.SIGKILL)
    second = until(lambda: pids()[1:])[0]
    assert until(lambda: not _alive(first))
    (stopped,) = ecs.describe_tasks(
        cluster="market", tasks=ecs.list_tasks(cluster="market", serviceName="runner", desiredStatus="STOPPED")["taskArns"]
    )["tasks"]
    assert stopped["containers"][0]["exitCode"] == 128 + signal.SIGKILL

    ecs.update_service(cluster="market", service="runner", desiredCount=0)
    until(lambda: not _alive(second))
    assert until(lambda: said()[-1] == "told to stop"), "SIGTERM first"
    time.sleep(0.5)
    assert len(pids()) == 2


def test_no_task_outlives_the_emulator(tmp_path: Path) -> None:
    """Killed, it can end nothing; the pipe that its death closes does."""
    with Emulator.start(tmp_path) as emulator:
        keys = {"aws_access_key_id": LOCAL_ACCOUNT, "aws_secret_access_key": LOCAL_SECRET}
        ecs = boto3.Session().client("ecs", endpoint_url=emulator.url, region_name=emulator.region, **keys)
        ecs.register_task_definition(
            family="f", containerDefinitions=[{"name": "c", "image": "i", "command": ["sleep", "61.25"], "memory": 64}]
        )
        ecs.create_cluster(clusterName="k")
        ecs.run_task(cluster="k", taskDefinition="f")
        until(lambda: _sleeping())
        emulator.process.kill()
        until(lambda: not _sleeping())


def _sleeping() -> bool:
    """Whether the task's command runs; a process that has ended and was not waited for does not."""
    listed = subprocess.run(["ps", "-eo", "stat,args"], capture_output=True, text=True, check=True).stdout
    return any(line.split()[1:] == ["sleep", "61.25"] and line[0] != "Z" for line in listed.splitlines())


def _alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
