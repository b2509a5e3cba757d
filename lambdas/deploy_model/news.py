"""What is mailed about a model: that it passed and trades, that the gate refused it and why, that it waits for a person. Pure."""

from __future__ import annotations

from lambdas.common.ledger.notices import Notice
from lambdas.common.ledger.records import ServedModel
from lambdas.common.ledger.roles import Roles, why


def of_a_verdict(model: ServedModel, *, roles: Roles, time: str) -> Notice:
    """`roles` as they are with the model in place."""
    name = f"model {model.model_version[:12]} ({model.spec})"
    traded = "Equal weight" if roles.trades.policy != "endpoint" else f"Model {roles.trades.model_version[:12]}"
    if model.role == "incumbent" and model.refused:
        subject = "a refused model was approved and trades"
        detail = f"The gate refused the {name}, and a person approved it: {why(model.refused)}. It trades from the next decision on."
    elif model.role == "incumbent":
        subject, detail = "a model passed and trades", f"The {name} passed the gate and trades from the next decision on."
    elif not model.refused:
        subject = "a model was rejected"
        detail = f"The {name} was rejected, and no refusal by the gate is known of it: it only watches. {traded} trades."
    elif roles.trades.spec == model.spec:
        subject = "a refused model trades on paper"
        detail = f"The gate refused the {name}: {why(model.refused)}. It trades all the same from the next decision on, on paper only."
    else:
        subject = "a model was refused"
        detail = f"The gate refused the {name}: {why(model.refused)}. It only watches. {traded} trades."
    return Notice(key=f"model:{model.role}:{model.spec}", time=time, subject=subject, detail=detail)


def of_a_wait(arn: str, *, region: str, time: str) -> Notice:
    command = f"aws sagemaker update-model-package --region {region} --model-package-arn {arn} --model-approval-status"
    detail = (
        f"{arn} passed the gate and waits for a person.\n  To let it trade:   {command} Approved\n  To let it watch:   {command} Rejected"
    )
    return Notice(key=f"model:waits:{arn}", time=time, subject="a model waits for approval", detail=detail)
