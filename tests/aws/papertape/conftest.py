"""An account for the commands that set up and take down: CloudFormation and Service Quotas at loopback, the rest in process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.aws.services import Stacks, answering


@pytest.fixture
def stacks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stacks]:
    """CloudFormation with nothing deployed."""
    known = Stacks()
    with answering(known.answer) as service:
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDFORMATION", service.url)
        yield known
