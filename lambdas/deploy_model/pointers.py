"""Which model decides and which one watches: the rules by which a served package becomes a pointer in the ledger.

Promises: a pointer moves only forward (a late event of an older version changes nothing) and only after the endpoint serves, unless the
registry has taken the newer version's verdict back since: then a person has returned to the older one. A package that is rejected while it
decides is replaced by equal weight first. A pointer that already names the package is left as it is, and its endpoint is made anew if it
is gone.
"""

from __future__ import annotations

from collections.abc import Callable

from lambdas.common.ledger.ledger import Ledger
from lambdas.common.ledger.records import ServedModel
from lambdas.deploy_model.packages import ModelPackage


def point(
    *,
    ledger: Ledger,
    package: ModelPackage,
    endpoint: str,
    since: str,
    deploy: Callable[[], None],
    refused: Callable[[], tuple[str, ...]],
    still: Callable[[ServedModel], bool],
) -> str:
    """Deploy the package and point its role to it; returns "deployed", "unchanged" or "superseded".

    `refused` gives the gate's reasons against a package that it refused; a person may have approved it all the same. `still`: whether the
    registry's verdict on a model is the one that gave it its role.
    """
    incumbent = ledger.incumbent()
    if package.role == "shadow" and incumbent is not None and incumbent.spec == package.arn:
        ledger.put_model(equal_weight(since=since))
    if _superseded(ledger, package, still=still):
        return "superseded"
    reasons = refused()
    deploy()
    current = _current(ledger, package)
    if current is not None and current.spec == package.arn:
        return "unchanged"
    if _superseded(ledger, package, still=still):  # by another run, in the minutes that this endpoint took
        return "superseded"
    ledger.put_model(served(package=package, endpoint=endpoint, since=since, refused=reasons))
    return "deployed"


def _current(ledger: Ledger, package: ModelPackage) -> ServedModel | None:
    return ledger.incumbent() if package.role == "incumbent" else ledger.shadow()


def _superseded(ledger: Ledger, package: ModelPackage, *, still: Callable[[ServedModel], bool]) -> bool:
    current = _current(ledger, package)
    return current is not None and current.policy == "endpoint" and _version(current.spec) > package.version and still(current)


def served(*, package: ModelPackage, endpoint: str, since: str, refused: tuple[str, ...] = ()) -> ServedModel:
    metadata = package.metadata
    return ServedModel(
        role=package.role,
        policy="endpoint",
        spec=package.arn,
        endpoint=endpoint,
        model_version=metadata.model_hash,
        kappa=metadata.kappa,
        feature_hash=metadata.feature_hash,
        since=since,
        trained_until=metadata.trained_until,
        evaluated_until=metadata.evaluated_until,
        model_hash=metadata.model_hash,
        refused=refused,
        model_uri=package.model_data,
    )


def equal_weight(*, since: str) -> ServedModel:
    """The first incumbent, and the one that takes over when a model is withdrawn."""
    return ServedModel(role="incumbent", policy="equal-weight", spec="equal-weight", model_version="equal-weight", kappa=1.0, since=since)


def _version(arn: str) -> int:
    return int(arn.rsplit("/", 1)[1])
