"""An account for the commands that set up and take down: CloudFormation and Service Quotas at loopback, the rest in process."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import botocore.loaders
import botocore.session
import pytest

from tests.aws.services import Stacks, answering

loader = cache(botocore.loaders.create_loader)


@pytest.fixture(autouse=True)
def service_models_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command makes a session of its own, and reading the models of ten services takes most of its second."""
    monkeypatch.setattr(botocore.session, "create_loader", loader)


@pytest.fixture
def stacks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stacks]:
    """CloudFormation with nothing deployed."""
    known = Stacks()
    with answering(known.answer) as service:
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDFORMATION", service.url)
        yield known
