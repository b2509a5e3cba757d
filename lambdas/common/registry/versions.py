"""The versions of the group's model as a person judges them, ready to be shown: verdict and reasons, numbers, lineage, who decided and why.

Promise: a version is shown whatever it lacks, and what it lacks is None or said in words; a verdict is told only where the evaluation is
about that very model. Pure: from what the registry and the evaluation say.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from schema.exchange_time import iso

Status = Literal["approved", "rejected", "waiting"]
Verdict = Literal["passed", "refused", "not judged"]
STATUS: dict[str, Status] = {"Approved": "approved", "Rejected": "rejected", "PendingManualApproval": "waiting"}
#: What a person's decision leaves in the package's metadata; the reason is its approval description.
DECIDED_BY, DECIDED_AT = "decided_by", "decided_at"
STANDARD_COST = "10"  # basis points per side: what the gate judges at
COMPLETED = "Completed"
NEEDED = ("model_hash", "feature_hash", "kappa")  # without which no endpoint can be made


class ModelView(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class ModelCheck(ModelView):
    """One check of the gate, in its own words."""

    name: str
    passed: bool
    sentence: str


class ModelMetrics(ModelView):
    """Against equal weight, at 10 bp per side; `_at_kappa`: against equal weight at the model's own trading rate. `p`: of the reality
    check; `dsr`: deflated Sharpe ratio of the excess; `pbo`: probability of backtest overfitting. None: the evaluation has no such number.
    """

    information_ratio: float | None = None
    information_ratio_at_kappa: float | None = None
    excess_bp_per_year: float | None = None
    excess_at_kappa_bp_per_year: float | None = None
    p: float | None = None
    p_at_kappa: float | None = None
    dsr: float | None = None
    pbo: float | None = None


class ModelLineage(ModelView):
    """Where a version comes from. `manifest_sha256` and `data_sha256`: of the training data's manifest, and of the data it lists."""

    model_hash: str | None = None
    feature_hash: str | None = None
    kappa: float | None = None
    algorithm: str | None = None
    seeds: int | None = None
    trial: str | None = None
    configuration: str | None = None
    code_version: str | None = None
    settings_sha256: str | None = None
    manifest_sha256: str | None = None
    data_sha256: str | None = None
    symbols: tuple[str, ...] = ()
    trained_until: str | None = None
    evaluated_until: str | None = None
    model_uri: str | None = None
    evaluation_uri: str | None = None


class ModelVersion(ModelView):
    """A package of the group. `role` is what the ledger points to it as, and `trades` whether it is the one that trades now.

    `reasons`: the gate's sentences about the checks that failed; `blocked`: why an action (approve, reject, return) would be refused now.
    """

    arn: str
    version: int
    created: str
    registration: str
    status: Status
    decided_by: str | None
    decided_at: str | None
    reason: str | None
    verdict: Verdict
    says: str
    reasons: tuple[str, ...]
    checks: tuple[ModelCheck, ...]
    metrics: ModelMetrics
    lineage: ModelLineage
    missing: tuple[str, ...] = ()
    role: Literal["incumbent", "shadow"] | None = None
    trades: bool = False
    blocked: dict[str, str] = {}

    @property
    def known_until(self) -> date:
        """The last session that it was trained or judged on, else its registration: its age counts from here."""
        return date.fromisoformat((self.lineage.evaluated_until or self.lineage.trained_until or self.created)[:10])


class ModelPage(ModelView):
    """Versions, the newest first; `cursor` asks for the next page, None after the last."""

    versions: tuple[ModelVersion, ...]
    cursor: str | None


class ModelHistoryEntry(ModelView):
    """A model in a role `since` then; `until` another took it, None while it has it; `version` is None for a rule. `words` says it all."""

    role: Literal["incumbent", "shadow"]
    spec: str
    version: int | None
    model_version: str
    since: str
    until: str | None
    gate_passed: bool | None
    trial: str | None
    words: str


class _Gate(ModelView):
    passed: bool
    checks: tuple[ModelCheck, ...] = ()


class _Headline(ModelView):
    information_ratio: dict[str, float | None] = {}
    excess_bp_per_year: dict[str, float | None] = {}
    information_ratio_at_kappa: dict[str, float | None] = {}
    excess_at_kappa_bp_per_year: dict[str, float | None] = {}


class _Training(ModelView):
    algorithm: str | None = None
    seeds: tuple[int, ...] = ()


class _Data(ModelView):
    symbols: tuple[str, ...] = ()


class _Judgement(ModelView):
    """What of evaluation.json is shown here, of any age; only the gate and the hashes must be there."""

    gate: _Gate
    hashes: dict[str, str]
    headline: _Headline = _Headline()
    statistics: dict[str, float | None] = {}
    training: _Training = _Training()
    data: _Data = _Data()
    trial: str | None = None
    configuration: str | None = None


def version_of(described: Mapping[str, Any], evaluation: Mapping[str, Any] | None, *, problem: str = "") -> ModelVersion:
    """A version from SageMaker's description and its evaluation; without one, `problem` says why."""
    metadata: Mapping[str, str] = described.get("CustomerMetadataProperties", {})
    judged, says = _judged(evaluation, metadata.get("model_hash"), problem=problem)
    failed = tuple(check.sentence for check in judged.gate.checks if not check.passed) if judged else ()
    return ModelVersion(
        arn=described["ModelPackageArn"],
        version=int(described["ModelPackageVersion"]),
        created=iso(described["CreationTime"]),
        registration=described.get("ModelPackageStatus", COMPLETED),
        status=STATUS[described["ModelApprovalStatus"]],
        decided_by=metadata.get(DECIDED_BY),
        decided_at=metadata.get(DECIDED_AT),
        reason=described.get("ApprovalDescription"),
        verdict="not judged" if judged is None else "passed" if judged.gate.passed else "refused",
        says=says,
        reasons=failed,
        checks=judged.gate.checks if judged else (),
        metrics=_metrics(judged),
        lineage=_lineage(described, judged, metadata),
        missing=tuple(name for name in NEEDED if not metadata.get(name)),
    )


def evaluation_uri(described: Mapping[str, Any]) -> str | None:
    quality = described.get("ModelMetrics", {}).get("ModelQuality", {})
    uri: str | None = quality.get("Statistics", {}).get("S3Uri")
    return uri


def _judged(evaluation: Mapping[str, Any] | None, model_hash: str | None, *, problem: str) -> tuple[_Judgement | None, str]:
    """The judgement of this very model, and the verdict in plain words."""
    if evaluation is None:
        return None, f"nobody judged it: {problem}"
    try:
        judged = _Judgement.model_validate(evaluation)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        return None, f"nobody judged it: its evaluation cannot be read ({where}: {error.errors()[0]['msg']})"
    if judged.hashes.get("model_hash") != model_hash:
        return None, "nobody judged it: its evaluation is about another model"
    total, failed = len(judged.gate.checks), sum(not check.passed for check in judged.gate.checks)
    if judged.gate.passed:
        return judged, f"the gate passed it: all of its {total} checks hold"
    return judged, f"the gate refused it: {failed} of its {total} checks failed"


def _metrics(judged: _Judgement | None) -> ModelMetrics:
    if judged is None:
        return ModelMetrics()
    at_standard = {name: values.get(STANDARD_COST) for name, values in judged.headline.model_dump().items()}
    named = {"p": "reality_check_p", "p_at_kappa": "reality_check_p_at_kappa", "dsr": "dsr_excess", "pbo": "pbo"}
    return ModelMetrics(**at_standard, **{name: judged.statistics.get(key) for name, key in named.items()})


def _lineage(described: Mapping[str, Any], judged: _Judgement | None, metadata: Mapping[str, str]) -> ModelLineage:
    """The metadata is what is served; the evaluation adds what it was judged with."""
    hashes = judged.hashes if judged else {}
    return ModelLineage(
        model_hash=metadata.get("model_hash"),
        feature_hash=metadata.get("feature_hash"),
        kappa=_number(metadata.get("kappa")),
        algorithm=judged.training.algorithm if judged else None,
        seeds=len(judged.training.seeds) or None if judged else None,
        trial=metadata.get("trial") or (judged.trial if judged else None),
        configuration=metadata.get("configuration") or (judged.configuration if judged else None),
        code_version=hashes.get("code_version"),
        settings_sha256=hashes.get("settings"),
        manifest_sha256=hashes.get("manifest_sha256"),
        data_sha256=metadata.get("data_sha256"),
        symbols=judged.data.symbols if judged else (),
        trained_until=metadata.get("trained_until"),
        evaluated_until=metadata.get("evaluated_until"),
        model_uri=described["InferenceSpecification"]["Containers"][0].get("ModelDataUrl"),
        evaluation_uri=evaluation_uri(described),
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
