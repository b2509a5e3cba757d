"""What every route of the web app keeps to: who may, ETags, wrong bodies, and an OpenAPI document of what is there."""

from __future__ import annotations

import pytest

from tests.aws.dashboard.conftest import Web


def test_an_answer_has_an_etag_and_is_not_sent_again_to_who_has_it(web: Web) -> None:
    first = web.get("api/portfolio")
    assert (first.status, first.body["session"]) == (200, None)
    again = web.get("api/portfolio", **{"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.text) == (304, "")
    assert web.get("api/portfolio", **{"If-None-Match": '"another"'}).status == 200
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert "ETag" not in web.get("api/nothing").headers
    assert "ETag" not in web.post("api/watchlist", {"symbol": "SPY"}, key="watch-spy-1").headers


def test_a_page_of_nothing_says_so(web: Web) -> None:
    shown = web.get("pages/portfolio")
    assert (shown.status, shown.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "Nothing has been traded yet" in shown.text


@pytest.mark.parametrize("body", ["[1, 2]", "not JSON", '"a text"', "{", "[" * 100_000, '{"a":' * 100_000])
def test_a_body_that_is_no_object_is_a_422(web: Web, body: str) -> None:
    refused = web.call("POST", "api/portfolio", body=body)
    assert refused.status == 422
    assert refused.body["message"].startswith("the body must be a JSON object")


def test_what_is_not_there_is_a_404_that_names_it(web: Web) -> None:
    assert web.get("api/nothing").body == {"message": "there is no GET /app/api/nothing"}


def test_the_document_names_every_route_below_api(web: Web) -> None:
    document = web.get("api/openapi.json").body
    assert document["openapi"].startswith("3.1")
    assert {"/app/api/portfolio", "/app/api/portfolio/equity"} <= set(document["paths"])
    assert all(path.startswith("/app/api/") for path in document["paths"])
