"""The job's last act where Feature Store is on: a record per group and symbol at the service's own paths, and what a refusal leaves."""

# ruff: noqa: F401, F811  (fixtures of another module are used by their names)
from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from glue_jobs.feature_store import FeatureStoreError, mirror_newest
from glue_jobs.files import Bucket, read_features
from lambdas.common.lake.lake import Lake
from schema.features.groups import groups_in_table
from schema.features.records import values_of
from schema.lake_layout import CALENDAR, calendar_key, features_prefix
from schema.sections.feature_store import FeatureStoreSettings
from schema.settings import Settings
from tests.aws.glue_jobs.test_build_features import build, lake
from trading_env.data.features import FEATURE_HASH

IN_TABLE = groups_in_table(sentiment=False)

Put = tuple[str, list[dict[str, str]]]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The runtime's address over loopback: what was put, by path; `answers` are statuses to give first, then 200."""
    state = SimpleNamespace(puts=[], answers=[])

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.puts.append((self.path, body["Record"]))
            status = state.answers.pop(0) if state.answers else 200
            answer = b"{}" if status == 200 else b'{"Message": "as asked"}'
            self.send_response(status)
            if status == 400:
                self.send_header("x-amzn-errortype", "ValidationError")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_FEATURESTORE_RUNTIME", f"http://127.0.0.1:{server.server_port}")
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def on(settings: Settings) -> Settings:
    return settings.model_copy(update={"feature_store": FeatureStoreSettings(enabled=True)})


def test_the_newest_session_is_put_once_per_group_and_symbol_and_a_busy_service_is_asked_again(
    lake: Lake, build: Any, service: SimpleNamespace, on: Settings
) -> None:
    service.answers = [503, 503]
    built = build(under=on)
    assert service.puts[0] == service.puts[1] == service.puts[2] != service.puts[3]
    del service.puts[:2]
    assert built["feature_store"] == len(service.puts) == len(IN_TABLE) * len(on.universe.symbols)
    table = read_features(Bucket(lake.processed_bucket))
    newest = table[table["session"] == table["session"].max()].set_index("symbol")
    put: list[Put] = service.puts
    for group in IN_TABLE:
        records = [record for path, record in put if path == f"/FeatureGroup/papertape-{group.name.replace('_', '-')}"]
        assert sorted(record[0]["ValueAsString"] for record in records) == sorted(on.universe.symbols)
        for record in records:
            assert record[1]["ValueAsString"] == "2014-12-31T21:00:00Z"
            row = newest.loc[record[0]["ValueAsString"]]
            assert values_of(record, group) == {column: row[column] for column in group.columns}


def test_a_refusal_fails_the_run_by_name_and_the_table_is_whole(lake: Lake, build: Any, service: SimpleNamespace, on: Settings) -> None:
    service.answers = [200, 400]
    with pytest.raises(FeatureStoreError, match=r"of papertape-price-trends: .*as asked; the feature table itself is written"):
        build(under=on)
    assert len(read_features(Bucket(lake.processed_bucket)))


def test_off_puts_nothing_and_a_session_without_a_close_is_put_nowhere(lake: Lake, build: Any, service: SimpleNamespace) -> None:
    assert "feature_store" not in build()
    key = calendar_key(2014)
    lake.write({key: [line for line in lake.read([key], prefix=CALENDAR)[key] if line["session"] != "2014-12-31"]})
    with pytest.raises(FeatureStoreError, match="has no close of 2014-12-31; run backfill_bars"):
        mirror_newest(
            raw=Bucket(lake.raw_bucket),
            processed=Bucket(lake.processed_bucket),
            app="papertape",
            feature_hash=FEATURE_HASH,
            prefix=features_prefix(),
        )
    assert service.puts == []
