"""Grants as explicit statements, and the rules of cdk-nag that do not apply, each where it is so and with its reason.

`allow` refuses a wildcard without a reason; with one, it acknowledges exactly that wildcard, as cdk-nag names it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import Acknowledgment, Stack, Validations
from aws_cdk import aws_iam as iam
from constructs import IConstruct


def acknowledge(construct: IConstruct, rule: str, reason: str) -> None:
    """Accept the finding `rule` (such as "AwsSolutions-S1") on `construct` and on what it contains."""
    Validations.of(construct).acknowledge(Acknowledgment(id=f"AwsSolutions::{rule}", reason=reason))


def allow(role: iam.Role, *actions: str, on: Sequence[str], because: str = "", conditions: Mapping[str, Any] | None = None) -> None:
    """Grant `actions` on the ARNs `on` to `role`; `because` says why an ARN ends with a wildcard."""
    role.add_to_policy(iam.PolicyStatement(actions=list(actions), resources=list(on), conditions=conditions))
    for arn in (_flat(Stack.of(role).resolve(arn)) for arn in on):
        if "*" not in arn:
            continue
        if not because:
            raise ValueError(f"{', '.join(actions)} on {arn} needs a reason for its wildcard")
        acknowledge(role, f"AwsSolutions-IAM5[Resource::{arn}]", because)


def _flat(value: Any) -> str:
    """A resolved ARN as the text by which cdk-nag names it."""
    match value:
        case str():
            return value
        case {"Fn::Join": [str(separator), [*parts]]}:
            return separator.join(_flat(part) for part in parts)
        case {"Fn::GetAtt": [str(resource), str(attribute)]}:
            return f"<{resource}.{attribute}>"
        case {"Fn::ImportValue": name}:
            return _flat(name)
        case {"Ref": str(name)}:
            return f"<{name}>"
    return json.dumps(value, separators=(",", ":"))
