"""Runs through the web app's API: what may be asked for, what is shown of it, and that the state shown is what the run said."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from lambdas.common.ledger import actions
from lambdas.dashboard.runs import api
from schema.lake_layout import run_events_key, run_key
from schema.runs.events import (
    Alive,
    Inspected,
    ResultMade,
)
from schema.settings import SETTINGS_FILE, Settings
from tests.aws.dashboard.conftest import Web
from tests.aws.dashboard.runs.conftest import AT, KEY, TRAIN, Lab, progress, started, state
from tests.settings_files import settings_file


def test_the_same_key_is_the_same_run(web: Web, lab: Lab) -> None:
    run = started(web)
    assert started(web) == run
    asked = lab.request(run)
    assert (asked.kind, asked.title, asked.by, asked.requested_at) == ("train", "First try", "anna", "2020-01-02T15:00:00Z")
    assert asked.settings == {"training": {"folds": 2, "timesteps": 5000, "seeds": [0, 1]}}
    assert web.post("api/runs", {**TRAIN, "title": "Another"}, key=KEY).status == 409
    assert [one["id"] for one in web.get("api/runs").body["runs"]] == [run]


def test_a_run_whose_answer_was_lost_is_the_same_run_when_it_is_asked_for_again(web: Web, lab: Lab) -> None:
    run = started(web)
    table = actions.actions_of("papertape-ledger")._table
    table.update_item(
        Key={"pk": f"action#{KEY}", "sk": "action"}, UpdateExpression="REMOVE #s, answer", ExpressionAttributeNames={"#s": "status"}
    )
    later = web.as_user(now="2020-01-02T15:09:00Z")
    assert started(later) == run
    assert len(web.get("api/runs").body["runs"]) == 1


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"settings": {"training": {"folds": 99}}}, "settings.training.folds"),
    ({"settings": {"training": {"fold": 2}}}, "settings.training.fold"),
    ({"settings": {"costs": {"slippage_bps": -1}}}, "settings.costs.slippage_bps"),
    ({"settings": {"training": {"algorithm": "direct"}, "reward": {"kind": "log_growth"}}}, "settings"),
    ({"settings": {"training": {"timeframe": "1Min"}}}, "settings.training.timeframe"),
    ({"settings": {"gate": {"refused": "trade"}}}, "settings.gate"),
    ({"settings": {"universe": {"symbols": ["SPY"]}}}, "settings.universe"),
    ({"settings": {"training": {"timesteps": float("inf")}}}, "settings.training.timesteps"),
    ({"settings": {"training": {"algorithm": "x" * 200_000}}}, "body"),
    ({"kind": "dream"}, "body.kind"),
    ({"title": "x" * 121}, "body.title"),
    ({"seeds": 0}, "body.seeds"),
    ({"symbols": ["<b>"]}, "body.symbols.0"),
    ({"bars": {"source": "upload", "name": "../../etc/passwd"}}, "body.bars.upload.name"),
    ({"bars": {"source": "upload", "name": "20200102t150000-ab.csv"}}, "bars.name"),
    ({"bars": {"source": "inspection", "run": "20200102t150000-ab"}}, "bars.run"),
    ({"kind": "inspect", "settings": {}, "seeds": None}, "bars.source"),
    ({"id": "mine-12345678"}, "body.id"),
    ({"kind": "backtest", "settings": {}, "seeds": None}, "body"),
    ({"kind": "backtest", "backtest": {"policy": "run:../../x", "start": "2020-01-02", "end": "2020-02-03"}}, "backtest.policy"),
    ({"kind": "backtest", "backtest": {"policy": "/etc/passwd", "start": "2020-01-02", "end": "2020-02-03"}}, "backtest.policy"),
    (
        {"kind": "backtest", "backtest": {"policy": "package:/etc/passwd", "start": "2020-01-02", "end": "2020-02-03"}},
        "backtest.policy",
    ),
    (
        {
            "kind": "backtest",
            "backtest": {
                "policy": "package:arn:aws:sagemaker:us-east-1:123456789012:model-package/papertape/7",
                "start": "2020-01-02",
                "end": "2020-02-03",
            },
        },
        "backtest.policy",
    ),
    ({"kind": "backtest", "backtest": {"policy": "equal-weight", "start": "2020-02-02", "end": "2020-01-03"}}, "backtest.start"),
    ({"kind": "backtest", "backtest": {"policy": "equal-weight", "start": "0000-00-00", "end": "2020-01-03"}}, "backtest.start"),
    ({"kind": "backtest", "backtest": {"policy": "equal-weight", "start": "2020-01-02", "end": "2020-02-31"}}, "backtest.end"),
]


def test_what_cannot_be_asked_for_names_its_field_and_leaves_nothing(web: Web, lab: Lab) -> None:
    for place, (change, field) in enumerate(REFUSED):
        refused = web.post("api/runs", {**TRAIN, **change}, key=f"refused-{place}")
        assert refused.status == 422
        assert field in [one["field"] for one in refused.body["errors"]], refused.text
    assert web.get("api/runs").body == {"runs": [], "cursor": None}


def test_an_app_on_minute_bars_takes_the_same_requests_and_says_what_they_are_of(
    web: Web, lab: Lab, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = settings.training.model_copy(update={"timeframe": "1Min", "holdout_sessions": 5})
    monkeypatch.setenv(SETTINGS_FILE, settings_file(settings.model_copy(update={"training": short})))
    assert lab.request(started(web)).settings["training"]["timesteps"] == 5000
    for place in ("training/new", "simulation"):
        assert "This app trades on minute bars." in web.get(f"pages/{place}").text
    refused = web.post("api/runs", {**TRAIN, "settings": {"training": {"timeframe": "1Min"}}}, key="refused-minute")
    assert refused.body["errors"] == [
        {"field": "settings.training.timeframe", "value": "'1Min'", "allowed": '"1Day": the bars of a run are daily'}
    ]


def test_only_who_may_trade_starts_stops_and_resumes(web: Web, lab: Lab) -> None:
    reader = web.as_user(scopes=("read",))
    run = started(web)
    assert reader.post("api/runs", TRAIN, key="key-of-reader").status == 403
    assert reader.post(f"api/runs/{run}/stop", {}, key="key-of-reader").status == 403
    assert reader.post(f"api/runs/{run}/resume", {}, key="key-of-reader").status == 403
    assert reader.post("api/uploads", {"file": "a.csv", "size": 9}, key="key-of-reader").status == 403
    assert not lab.has(run, "stop")
    assert reader.get(f"api/runs/{run}").status == 200


def test_the_state_is_what_the_run_said_last(web: Web, lab: Lab) -> None:
    run = started(web)

    def shown() -> tuple[str, str]:
        one = web.get(f"api/runs/{run}").body["run"]
        (line,) = web.get("api/runs").body["runs"]
        assert (line["state"], line["message"]) == (one["state"], one["message"])
        return one["state"], one["message"]

    assert shown() == ("queued", "")
    lab.say(run, state(0, "queued"), state(1, "running"), progress(2, timesteps=2500))
    assert shown() == ("running", "")
    assert web.get("api/runs").body["runs"][0]["share"] == pytest.approx(0.125)  # half of one of two folds of two seeds
    lab.say(run, Alive(sequence=3, at="2020-01-02T14:58:59Z"))
    assert shown()[0] == "lost"  # silent for more than a minute
    lab.say(run, Alive(sequence=4, at=AT))
    assert shown()[0] == "running"
    assert web.post(f"api/runs/{run}/stop", {}, key="stop-12345678").status == 200
    assert shown()[0] == "stopping"
    lab.say(run, state(5, "stopped"))
    assert shown()[0] == "stopped"
    lab.say(run, state(6, "failed", "fold 2: no space left on the disk; make room and resume"))
    assert shown() == ("failed", "fold 2: no space left on the disk; make room and resume")
    lab.say(run, state(7, "finished"))
    assert shown()[0] == "finished"


def test_a_stopped_run_goes_on_and_a_finished_one_does_not(web: Web, lab: Lab) -> None:
    run = started(web)
    assert web.post(f"api/runs/{run}/resume", {}, key="resume-1234567").status == 409
    lab.say(run, state(0, "running"), state(1, "stopped"))
    assert web.post(f"api/runs/{run}/stop", {}, key="stop-12345678").status == 409
    assert web.post(f"api/runs/{run}/resume", {}, key="resume-7654321").status == 200
    assert web.get(f"api/runs/{run}").body["run"]["state"] == "queued"
    lab.say(run, state(2, "running"), state(3, "stopped"))
    assert web.get(f"api/runs/{run}").body["run"]["state"] == "stopped"
    lab.say(run, state(4, "finished"))
    refused = web.post(f"api/runs/{run}/resume", {}, key="resume-1111111")
    assert (refused.status, refused.body["message"]) == (409, "The run is finished: there is nothing to resume.")


def test_a_lost_run_that_was_asked_to_stop_is_not_stopped_when_it_goes_on(web: Web, lab: Lab) -> None:
    run = started(web)
    lab.say(run, state(0, "running"))
    web.post(f"api/runs/{run}/stop", {}, key="stop-12345678")
    lost = web.as_user(now="2020-01-02T16:00:00Z")
    assert lost.get(f"api/runs/{run}").body["run"]["state"] == "lost"
    assert lost.post(f"api/runs/{run}/resume", {}, key="resume-7654321").status == 200
    assert not lab.has(run, "stop")


def test_a_run_that_cannot_be_read_is_missing_from_the_list_and_says_why_itself(web: Web, lab: Lab) -> None:
    broken, torn, sound = (started(web, key=f"key-1234567{number}") for number in range(3))
    lab.s3.put_object(Bucket=lab.bucket, Key=run_key(broken, "request.json"), Body=b'{"half')
    lab.s3.put_object(Bucket=lab.bucket, Key=run_events_key(torn, 0), Body=b'{"kind": "none"}\n')
    assert [one["id"] for one in web.get("api/runs").body["runs"]] == [sound]
    assert web.get("pages/training").status == 200
    for run, said in ((broken, "request.json: is no request of a run"), (torn, torn)):
        opened = web.get(f"api/runs/{run}")
        assert opened.status == 503
        assert said in opened.body["message"]


def test_events_are_given_from_where_the_reader_is(web: Web, lab: Lab) -> None:
    run = started(web)
    lab.say(run, state(0, "running"), progress(1), Alive(sequence=2, at=AT), progress(3, timesteps=2000, reward=0.5))
    first = web.get(f"api/runs/{run}/events").body
    assert ([one["sequence"] for one in first["events"]], first["last"], first["state"], first["ended"]) == ([0, 1, 3], 3, "running", False)
    assert web.get(f"api/runs/{run}/events", {"after": "1"}).body["events"][0]["reward"] == 0.5
    assert web.get(f"api/runs/{run}/events", {"after": "3"}).body["events"] == []
    assert web.get(f"api/runs/{run}/events", {"after": "x"}).status == 422
    assert web.get("api/runs/20200102t150000-none/events").status == 404


def test_a_list_goes_on_where_its_page_ended(web: Web, lab: Lab) -> None:
    ids = [started(web.as_user(now=f"2020-01-02T15:{minute:02}:00Z"), key=f"key-{minute:08}") for minute in range(23)]
    first = web.get("api/runs").body
    second = web.get("api/runs", {"cursor": first["cursor"]}).body
    assert [one["id"] for one in first["runs"] + second["runs"]] == ids[::-1]
    assert second["cursor"] is None
    assert web.get("api/runs", {"cursor": "<script>"}).status == 422


def test_results_are_json_or_a_link_that_downloads(web: Web, lab: Lab) -> None:
    run = started(web)
    lab.say(run, state(0, "running"), ResultMade(sequence=1, at=AT, name="evaluation.json", bytes=9), state(2, "finished"))
    lab.result(run, "evaluation.json", b'{"a": 1}')
    lab.result(run, "page.html", b"<script>inline()</script>")
    assert web.get(f"api/runs/{run}/results/evaluation.json").body == {"a": 1}
    page = web.get(f"api/runs/{run}/results/page.html")
    assert (page.headers["Content-Type"], "inline()" in page.text) == ("application/json", False)
    assert "attachment" in page.body["link"]
    for name in ("q-table.json", "..%2Frequest.json", "request.json"):
        assert web.get(f"api/runs/{run}/results/{name}").status == 404


def test_an_upload_is_named_and_signed_for_one_file(web: Web, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    made = web.post("api/uploads", {"file": "My bars.CSV", "size": 12}, key=KEY).body
    assert made["put"] == f"/uploads/{made['name']}"
    assert made["name"].startswith("20200102t150000-")
    assert made["name"].endswith(".csv")
    for body, field in (
        ({"file": "x.exe", "size": 9}, "file"),
        ({"file": "x.csv", "size": 200_000_001}, "size"),
        ({"file": "x.csv", "size": 0}, "body.size"),
    ):
        refused = web.post("api/uploads", body, key="key-" + field.replace(".", "-") + "-of-test")
        assert (refused.status, refused.body["errors"][0]["field"]) == (422, field)
    monkeypatch.setenv("UPLOADS", "presigned")
    signed = web.post("api/uploads", {"file": "b.parquet", "size": 12}, key="key-presigned").body
    assert signed["put"].startswith("https://")
    assert "content-length" in signed["put"].lower()  # the size is part of what is signed


def test_an_inspections_columns_are_the_bars_of_a_training(web: Web, lab: Lab) -> None:
    name = "20200102t150000-abcdef.csv"
    lab.upload(name)
    look = started(web, {"kind": "inspect", "bars": {"source": "upload", "name": name}}, key="key-inspect")
    body = {**TRAIN, "bars": {"source": "inspection", "run": look, "adjusted": True}}
    assert web.post("api/runs", body, key="key-too-early").status == 422
    seen = {"columns": {"<b>Date</b>": "session", "Adj. Close": "close"}, "preview": (("<b>Date</b>",), ("<i>1</i>",))}
    lab.say(look, state(0, "running"), Inspected(sequence=1, at=AT, problem="row 7: no date", **seen), state(2, "finished"))
    refused = web.post("api/runs", body, key="key-problem").body["errors"][0]
    assert (refused["field"], refused["allowed"]) == ("bars.run", "bars that can be used: row 7: no date")
    lab.say(look, state(3, "running"), Inspected(sequence=4, at=AT, **seen), state(5, "finished"))
    bars = lab.request(started(web, body, key="key-usable")).bars
    assert bars.model_dump() == {"source": "upload", "name": name, "columns": seen["columns"], "numbers": {}, "adjusted": True}


def test_on_aws_a_run_is_an_execution_of_the_pipeline(web: Web, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNS_PIPELINE", "papertape-runs")
    sagemaker = boto3.client("sagemaker", region_name="us-east-1")
    monkeypatch.setattr(api, "_sagemaker", lambda: sagemaker)
    with Stubber(sagemaker) as stub:
        sent: list[dict[str, Any]] = []
        sagemaker.meta.events.register(
            "before-parameter-build.sagemaker.StartPipelineExecution", lambda params, **_: sent.append(dict(params))
        )
        stub.add_response(
            "start_pipeline_execution",
            {"PipelineExecutionArn": "arn:aws:sagemaker:us-east-1:123456789012:pipeline/x/execution/abcdefghijkl"},
        )
        run = started(web)
        stub.assert_no_pending_responses()
    assert sent[0]["PipelineParameters"] == [{"Name": "Run", "Value": run}]
    assert len(sent[0]["ClientRequestToken"]) >= 32
