"""Why the gate refused a package, from the evaluation that it was registered with.

Promise: sentences only of the gate that judged this very model, and no doubt counts as a refusal by the gate: a package without an
evaluation, with another model's, or that the gate passed and a person rejected, has none. Failure: botocore's errors and `LakeError` for an
evaluation that cannot be read now; the retry asks again.
"""

from __future__ import annotations

from lambdas.common.lake.lake import document_of
from lambdas.common.lake.provenance import Registry
from lambdas.deploy_model.packages import ModelPackage

REFUSED = "refused: "


def refusals(registry: Registry, package: ModelPackage) -> tuple[str, ...]:
    """The gate's sentences about the checks that failed, in its order."""
    uri = registry.package(package.arn).evaluation_uri
    body = registry.content(uri) if uri else None
    if uri is None or body is None:
        return ()
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    said = document_of(body, bucket=bucket, key=key)
    gate, judged = said.get("gate", {}), said.get("hashes", {}).get("model_hash")
    if gate.get("passed") is not False or judged != package.metadata.model_hash:
        return ()
    return tuple(reason.removeprefix(REFUSED) for reason in gate.get("reasons") or () if reason.startswith(REFUSED))
