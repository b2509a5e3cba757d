"""The section `[dashboard]` of `settings.toml`: whether the web app is deployed, and who is invited to it.

A file without it has none, as files from before it existed (docs/decisions/0036-the-web-app.md).
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import StringConstraints, model_validator

from schema.sections.section import Section


class DashboardSettings(Section):
    """`user`: the mail address that the deployment invites; one user, who may read, trade and approve."""

    enabled: bool = False
    user: Annotated[str, StringConstraints(pattern=r"^$|^[^@\s]+@[^@\s]+\.[^@\s]+$")] = ""

    @model_validator(mode="after")
    def _somebody_is_invited(self) -> Self:
        if self.enabled and not self.user:
            raise ValueError("enabled needs user, the mail address that is invited; it is empty")
        return self
