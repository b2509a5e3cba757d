"""A page's own routes, and the request that they answer."""

from __future__ import annotations

from aws_lambda_powertools.event_handler.router import APIGatewayRouter

from lambdas.dashboard.request import PageRequest


class PageRouter(APIGatewayRouter):
    """Powertools' router; `asked` is who asks now, and for what."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def asked(self) -> PageRequest:
        made: PageRequest = self.context["request"]
        return made

    def header(self, name: str) -> str:
        """A header of the request, "" where it has none."""
        headers = {key.lower(): value for key, value in (self.current_event.headers or {}).items()}
        return headers.get(name.lower(), "")
