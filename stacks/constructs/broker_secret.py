"""The broker's keys: a secret that the user makes, found by its name, read only by the functions that call the broker."""

from __future__ import annotations

from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from schema.settings import Settings
from stacks.constructs.function import PythonFunction


def broker_secret(scope: Construct, settings: Settings) -> secretsmanager.ISecret:
    """Return the secret `<settings.name>/alpaca`; templates hold its name, never its value."""
    return secretsmanager.Secret.from_secret_name_v2(scope, "BrokerSecret", f"{settings.name}/alpaca")


def let_read_secret(function: PythonFunction, secret: secretsmanager.ISecret) -> None:
    function.may("secretsmanager:GetSecretValue", on=[f"{secret.secret_arn}-??????"])  # the six characters that the service adds to a name
