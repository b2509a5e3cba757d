"""A Python function of ours: shared code, one of two dependency layers, an own role, and its log group `/<app>/<folder>`, which ends.

The role may do nothing but write its log until `may()` says more. Layers belong to the stack that uses them: a layer exported by another
stack could never be replaced, because its export would be in use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.constructs import archives
from stacks.constructs.archives import Bundle, Code, Target
from stacks.constructs.permissions import allow

RUNTIME = lambda_.Runtime.PYTHON_3_14
ARCHITECTURE = lambda_.Architecture.X86_64


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What all functions run with: the app's name, their code, which carries the settings, and the Python that the dependencies are for."""

    app: str
    target: Target
    code: Code

    @property
    def variables(self) -> dict[str, str]:
        """The variables of every function."""
        return {
            "CODE_VERSION": self.code.version[:12],
            "POWERTOOLS_METRICS_NAMESPACE": self.app,  # two of them in one account do not mix
            "LOG_LEVEL": "INFO",
        }

    def layer(self, scope: Construct, bundle: Bundle) -> lambda_.LayerVersion:
        """Return the layer of `bundle` in the stack of `scope`, which holds it once."""
        stack = Stack.of(scope)
        name = f"{bundle.capitalize()}Dependencies"
        present = stack.node.try_find_child(name)
        if isinstance(present, lambda_.LayerVersion):
            return present
        archive = archives.dependencies(bundle, target=self.target)
        return lambda_.LayerVersion(
            stack,
            name,
            code=lambda_.Code.from_asset(str(archive.path), asset_hash=archive.key),
            compatible_runtimes=[RUNTIME],
            compatible_architectures=[ARCHITECTURE],
            description=f"lambdas/requirements-{bundle}.txt",
        )


class PythonFunction(lambda_.Function):
    """`lambdas/<folder>/handler.py` as a function; `environment` is what it needs beyond the variables of every function.

    `log_name` is its log group's, as a person types it.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        folder: str,
        bundle: Bundle,
        runtime: Runtime,
        environment: Mapping[str, str],
        timeout: Duration,
        memory: int,
        description: str,
    ) -> None:
        self.log_name = f"/{runtime.app}/{folder}"
        log_group = logs.LogGroup(
            scope,
            f"{construct_id}Logs",
            log_group_name=self.log_name,
            retention=logs.RetentionDays.THREE_MONTHS,
            removal_policy=RemovalPolicy.DESTROY,
        )
        role = iam.Role(scope, f"{construct_id}Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        super().__init__(
            scope,
            construct_id,
            runtime=RUNTIME,
            architecture=ARCHITECTURE,
            handler=f"lambdas.{folder}.handler.handler",
            code=lambda_.Code.from_asset(str(runtime.code.path), asset_hash=runtime.code.key),
            layers=[runtime.layer(scope, bundle)],
            role=role,
            log_group=log_group,
            timeout=timeout,
            memory_size=memory,
            description=description,
            environment={
                **runtime.variables,
                "POWERTOOLS_SERVICE_NAME": folder,
                **environment,
            },
        )
        self.own_role = role
        self.may("logs:CreateLogStream", "logs:PutLogEvents", on=[log_group.log_group_arn])

    def may(self, *actions: str, on: Sequence[str], because: str = "", conditions: Mapping[str, Any] | None = None) -> None:
        """Grant `actions` on the ARNs `on`; `because` says why an ARN ends with a wildcard."""
        allow(self.own_role, *actions, on=on, because=because, conditions=conditions)
