"""The web app's front door on this machine: what CloudFront, the gateway and its authorizer do on AWS, over the same function.

Promise: only this machine is served, under this machine's name (a page of elsewhere that resolves its name to here is refused), and only
who carries the token; the function gets the event that the gateway would send. Assets are read once, at the start.
"""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local.aws.emulator import ROOT
from trading_env.errors import PapertapeError

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; font-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
WEB = ROOT / "web"
MODULES = ROOT / "node_modules"
PACKAGED = (
    MODULES / "htmx.org" / "dist" / "htmx.min.js",
    MODULES / "uplot" / "dist" / "uPlot.iife.min.js",
    MODULES / "uplot" / "dist" / "uPlot.min.css",
    MODULES / "lightweight-charts" / "dist" / "lightweight-charts.standalone.production.js",
)
STAGE = "v1"
BODY_LIMIT = 6 * 2**20  # bytes, as a function's event
METHODS = ["GET", "POST", "PUT", "DELETE"]

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]


class AssetsMissingError(PapertapeError, RuntimeError):
    """A file of the shell is not there; the message names it and the remedy."""


@dataclass(frozen=True)
class Tokens:
    """What the one user of this machine signs in with: a token per set of scopes."""

    by_token: Mapping[str, tuple[str, ...]]
    user: str = "laptop"

    def claims(self, header: str) -> dict[str, str] | None:
        """The claims of an Authorization header; None for one that is not ours."""
        kind, _, given = header.partition(" ")
        for token, scopes in self.by_token.items():
            if kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
                return {"sub": self.user, "username": self.user, "scope": " ".join(f"papertape/{scope}" for scope in scopes)}
        return None


@dataclass(frozen=True)
class WebAsset:
    body: bytes
    type: str


def assets() -> dict[str, WebAsset]:
    """Every file of the shell by its name. Raises `AssetsMissingError`."""
    files = [*sorted(path for path in WEB.iterdir() if path.is_file()), *PACKAGED]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise AssetsMissingError(f"{missing[0].relative_to(ROOT)} is not there: run `make setup`")
    return {path.name: WebAsset(path.read_bytes(), TYPES[path.suffix]) for path in files}


def create_app(
    *,
    handler: Handler,
    tokens: Tokens,
    port: int,
    after_write: Callable[[str], Awaitable[None]] | None = None,
    upload: Callable[[Request], Awaitable[Response]] | None = None,
) -> Starlette:
    """The server's application. `after_write` is told the path of each write that the function has answered; `upload` takes files."""
    shell = assets()
    turn = Lock()

    def invoked(event: dict[str, Any]) -> dict[str, Any]:
        """One request at a time, as in a function's sandbox: Powertools keeps the event of the request in its class."""
        with turn:
            return handler(event, None)

    async def index(request: Request) -> Response:  # noqa: ARG001
        return _asset(shell["index.html"])

    async def asset(request: Request) -> Response:
        found = shell.get(request.path_params["name"])
        return Response(status_code=404) if found is None else _asset(found)

    async def config(request: Request) -> Response:  # noqa: ARG001
        return JSONResponse({"auth": "token"})

    async def function(request: Request) -> Response:
        claims = tokens.claims(request.headers.get("Authorization", ""))
        if claims is None:
            return JSONResponse({"message": "Unauthorized"}, status_code=401)
        body = await request.body()
        if len(body) > BODY_LIMIT:
            return JSONResponse({"message": f"a request may have {BODY_LIMIT:,} bytes, had {len(body):,}"}, status_code=413)
        event = gateway_event(request, body=body, claims=claims)
        answer = await run_in_threadpool(invoked, event)
        if request.method != "GET" and after_write is not None:
            await after_write(request.url.path)
        return _response(answer)

    routes = [
        Route("/", index),
        Route("/config.json", config),
        Route("/assets/{name}", asset),
        Route(f"/{STAGE}/app/{{path:path}}", function, methods=METHODS),
    ]
    if upload is not None:
        routes.append(Route("/uploads/{name}", upload, methods=["PUT"]))
    middleware = [Middleware(OwnHost, port=port), Middleware(GZipMiddleware, minimum_size=1024)]
    return Starlette(routes=routes, middleware=middleware)


class OwnHost:
    """Refuses what was sent to another name than this machine's, or by another site's page."""

    def __init__(self, app: Any, *, port: int) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get("origin")
        if headers.get("host") not in self._hosts or (origin is not None and origin not in {f"http://{host}" for host in self._hosts}):
            await JSONResponse({"message": "this server answers pages of its own address only"}, status_code=421)(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._app(scope, receive, with_headers)


def gateway_event(request: Request, *, body: bytes, claims: Mapping[str, str]) -> dict[str, Any]:
    """The event of API Gateway's proxy integration, with the claims of its authorizer."""
    path = request.url.path.removeprefix(f"/{STAGE}")
    query = {name: request.query_params.getlist(name) for name in request.query_params}
    headers = {name: value for name, value in request.headers.items() if name != "authorization"}
    return {
        "resource": "/app/{proxy+}",
        "path": path,
        "httpMethod": request.method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": {"proxy": path.removeprefix("/app/")},
        "stageVariables": None,
        "requestContext": {
            "stage": STAGE,
            "path": request.url.path,
            "httpMethod": request.method,
            "requestTimeEpoch": int(time.time() * 1000),
            "authorizer": {"claims": dict(claims)},
            "identity": {},
        },
        "body": body.decode("utf-8", errors="replace") or None,
        "isBase64Encoded": False,
    }


def _response(answer: Mapping[str, Any]) -> Response:
    body = answer.get("body") or ""
    content = base64.b64decode(body) if answer.get("isBase64Encoded") else body.encode()
    headers = {name: ", ".join(values) for name, values in (answer.get("multiValueHeaders") or {}).items()}
    return Response(content, status_code=int(answer["statusCode"]), headers={**headers, **(answer.get("headers") or {})})


def _asset(found: WebAsset) -> Response:
    return Response(found.body, media_type=found.type, headers={"Cache-Control": "no-cache"})
