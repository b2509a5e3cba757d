"""The pages of runs: every state in words, what a stranger wrote as text, and who may not act sees no button."""

from __future__ import annotations

import json
from typing import Any

import boto3

from schema.runs.events import FoldTrained, Inspected, Judged, ResultMade, StateChanged
from tests.aws.dashboard.conftest import Web
from tests.aws.dashboard.runs.conftest import AT, TRAIN, Lab, progress, started, state

HOSTILE = "<script>alert(1)</script>"


def test_an_empty_room_says_so_and_offers_a_start_to_who_may(web: Web, lab: Lab) -> None:
    shown = web.get("pages/training")
    assert "Nothing was run yet" in shown.text
    assert "#/training/new" in shown.text
    assert "#/training/new" not in web.as_user(scopes=("read",)).get("pages/training").text
    assert "data-write" not in web.as_user(scopes=("read",)).get("pages/training/new").text
    assert "data-upload" not in web.as_user(scopes=("read",)).get("pages/training/upload").text


def test_a_title_is_text_wherever_it_is_shown(web: Web, lab: Lab) -> None:
    first = started(web, {**TRAIN, "title": HOSTILE})
    second = started(web, {**TRAIN, "title": HOSTILE}, key="key-another")
    lab.say(first, state(0, "running"), state(1, "failed", HOSTILE))
    for path in ("pages/training", f"pages/training/{first}", f"pages/training/{first}/live"):
        assert HOSTILE not in web.get(path).text
        assert "&lt;script&gt;" in web.get(path).text
    assert HOSTILE not in web.get("pages/training/compare", {"runs": f"{first},{second}"}).text


def test_every_state_is_told_in_words_with_what_can_be_done(web: Web, lab: Lab) -> None:
    run = started(web)

    def live() -> str:
        return web.get(f"pages/training/{run}/live").text

    assert "It waits to be started" in live()
    assert f"runs/{run}/stop" in live()
    lab.say(run, state(0, "running"), progress(1, seconds_left=240.0, reward=0.25, excess=0.0002))
    assert "about 4.0 minutes left" in live()
    assert "<td>2.00</td>" in live()  # basis points
    assert "every 2s" in web.get(f"pages/training/{run}").text
    assert f"runs/{run}/stop" not in web.as_user(scopes=("read",)).get(f"pages/training/{run}/live").text
    lab.say(run, state(2, "failed", "the disk is full: make room and start the run again"))
    assert "the disk is full: make room" in live()
    assert f"runs/{run}/resume" in live()
    assert web.get(f"pages/training/{run}/live").status == 286  # and is asked for no more
    assert "every 2s" not in web.get(f"pages/training/{run}").text


def test_the_verdict_is_told_in_plain_words_with_its_reasons(web: Web, lab: Lab) -> None:
    run = started(web)
    verdict = Judged(sequence=3, at=AT, passed=False, reasons=("seeds: 1 of 2",), metrics={"information_ratio": 0.14, "sharpe": None})
    results = [ResultMade(sequence=4 + place, at=AT, name=name, bytes=2000) for place, name in enumerate(("page.html", "q-table.json"))]
    trained = FoldTrained(sequence=2, at=AT, seed=0, fold=0, folds=2)
    lab.say(run, state(0, "running"), progress(1), trained, verdict, *results, state(6, "finished"))
    shown = web.get(f"pages/training/{run}").text
    assert "The gate does not let this model trade, for 1 reason" in shown
    assert "<li>seeds: 1 of 2</li>" in shown
    assert "<dd>0.14</dd>" in shown
    assert "<dd>–</dd>" in shown  # not 0
    assert f'data-download="runs/{run}/results/page.html"' in shown
    assert f'data-source="runs/{run}/results/q-table.json"' in shown


def test_columns_of_a_file_are_text_and_come_as_they_were_proposed(web: Web, lab: Lab) -> None:
    name = "20200102t150000-abcdef.csv"
    lab.upload(name)
    run = started(web, {"kind": "inspect", "title": "mine.csv", "bars": {"source": "upload", "name": name}})
    assert "in a process of its own" in web.get(f"pages/training/{run}").text
    seen = Inspected(
        sequence=1, at=AT, columns={"Adj. Close": "close"}, unmapped=(HOSTILE,), symbols=("AAA",), rows=1234, first="2010-01-04",
        last="2019-12-30", preview=(("Adj. Close", HOSTILE), ("1,234.5", "=cmd|calc")), remarks=("3 rows set aside: <b>",),
    )  # fmt: skip
    lab.say(run, state(0, "running"), seen, state(2, "finished"))
    shown = web.get(f"pages/training/{run}").text
    assert HOSTILE not in shown
    assert 'data-column="Adj. Close"' in shown
    assert '<option value="close" selected>' in shown
    assert "=cmd|calc" in shown
    assert f"#/training/new?bars={run}" in shown
    assert "1 names, 2010-01-04 to 2019-12-30, 1,234 rows" in web.get("pages/training/new", {"bars": run}).text
    lab.say(
        run, StateChanged(sequence=3, at=AT, state="running"), seen.model_copy(update={"sequence": 4, "problem": "row 7: <i>no date</i>"})
    )
    assert "row 7: &lt;i&gt;no date" in web.get(f"pages/training/{run}").text
    assert f"#/training/new?bars={run}" not in web.get(f"pages/training/{run}").text


def test_how_numbers_are_written_is_shown_to_be_confirmed_and_goes_with_the_bars(web: Web, lab: Lab) -> None:
    name = "20200102t150000-abcdef.csv"
    lab.upload(name)
    run = started(web, {"kind": "inspect", "bars": {"source": "upload", "name": name}})
    seen = Inspected(
        sequence=1, at=AT, columns={"Last": "close", "Vol": "volume"}, forms={"Last": "1.234,56"}, doubtful=("Vol",),
        preview=(("Last", "Vol"), ("1.234,5", "1,234")), problem="confirm how numbers are written", symbols=("AAA",),
    )  # fmt: skip
    lab.say(run, state(0, "running"), seen, state(2, "finished"))
    shown = web.get(f"pages/training/{run}").text
    assert 'data-form="Last"' in shown
    assert "<option selected>1.234,56</option>" in shown
    assert 'data-form="Vol"' in shown
    assert '<option value="">choose</option>' in shown
    lab.say(
        run, StateChanged(sequence=3, at=AT, state="running"),
        seen.model_copy(update={"sequence": 4, "problem": None, "doubtful": (), "forms": {"Last": "1.234,56", "Vol": "1,234.56"}}),
    )  # fmt: skip
    trained = started(web, {**TRAIN, "bars": {"source": "inspection", "run": run}}, key="key-with-forms")
    asked = web.get(f"api/runs/{trained}").body["request"]["bars"]
    assert asked["numbers"] == {"Last": "1.234,56", "Vol": "1,234.56"}


def test_runs_are_compared_by_what_differs(web: Web, lab: Lab) -> None:
    first = started(web, key="key-first-run")
    second = started(web, {**TRAIN, "settings": {"training": {"folds": 4, "timesteps": 5000}}}, key="key-second-run")
    shown = web.get("pages/training/compare", {"runs": f"{first},{second}"}).text
    assert "training.folds" in shown
    assert "training.timesteps" not in shown
    assert f'data-others="{second}"' in shown
    assert web.get("pages/training/compare", {"runs": first}).status == 422
    assert web.get("pages/training/compare", {"runs": f"{first},20200102t150000-none"}).status == 404


LOST: dict[str, Any] = {
    "return": -0.1, "annual_return": None, "volatility": None, "sharpe": None, "max_drawdown": 0.1, "turnover_per_day": 0.5, "costs": 1.5,
}  # fmt: skip
BACKTEST: dict[str, Any] = {
    "schema": 1, "policy": "equal-weight", "kappa": 1.0, "start": "2020-01-02", "end": "2020-01-03", "initial_cash": 100.0,
    "symbols": ["<b>A</b>", "B"], "sessions": ["2020-01-02", "2020-01-03"], "equity": [100.0, 90.0], "equal_weight": [100.0, 101.0],
    "benchmark": None, "drawdown": [0.0, 0.1], "in_sample": {"sessions": 1, "last": "2020-01-02"},
    "metrics": {"policy": LOST, "equal_weight": LOST | {"return": 0.01}, "benchmark": None, "against_equal_weight": None},
    "weights": {"sessions": [1], "held": [[0.5], [0.5]]},
    "trades": {"session": [0, 1], "name": [0, 1], "shares": [1.5, -2.0], "price": [10.0, 20.0], "cost": [0.01, 0.02]},
    "notes": ["<i>a note</i>"],
}  # fmt: skip
CANDLES = {
    "sessions": ["2020-01-02", "2020-01-03"],
    "symbols": {name: {one: [None, 20.0] for one in ("open", "high", "low", "close")} for name in ("<b>A</b>", "B")},
}


def test_a_backtest_is_shown_with_its_trades_and_what_it_is_compared_with(web: Web, lab: Lab) -> None:
    body = {"kind": "backtest", "backtest": {"policy": "equal-weight", "start": "2020-01-02", "end": "2020-01-03"}, "symbols": "spy, aig"}
    run = started(web, body)
    assert lab.request(run).settings == {"universe": {"symbols": ["SPY", "AIG"]}}
    assert "every 500ms" in web.get(f"pages/simulation/{run}").text
    assert web.get(f"api/runs/{run}/curve").status == 404
    lab.result(run, "backtest.json", json.dumps(BACKTEST).encode())
    lab.result(run, "candles.json", json.dumps(CANDLES).encode())
    made = [ResultMade(sequence=1 + place, at=AT, name=name, bytes=9) for place, name in enumerate(("backtest.json", "candles.json"))]
    lab.say(run, state(0, "running"), *made, state(3, "finished"))
    shown = web.get(f"pages/simulation/{run}/live")
    assert shown.status == 286
    assert "<b>A</b>" not in shown.text
    assert "<i>a note" not in shown.text
    assert "−10.0 %" in shown.text
    assert "In sample: the model was trained on 1 of these sessions" in shown.text
    assert "Trades 1 to 2 of 2" in shown.text
    assert web.get(f"api/runs/{run}/curve").body["drawdown"] == [0.0, -0.1]
    candles = web.get(f"api/runs/{run}/candles", {"symbol": "B"}).body
    assert (candles["sessions"], candles["close"]) == (["2020-01-03"], [20.0])
    assert candles["markers"] == [{"session": "2020-01-03", "kind": "sell", "text": "-2 at 20.00"}]
    assert web.get(f"api/runs/{run}/candles", {"symbol": "C"}).status == 404
    assert web.get(f"pages/simulation/{started(web, key='key-training')}").status == 404


def test_the_form_of_a_backtest_offers_baselines_finished_trainings_and_packages(web: Web, lab: Lab) -> None:
    sagemaker = boto3.client("sagemaker", region_name="us-east-1")
    sagemaker.create_model_package_group(ModelPackageGroupName="papertape", ModelPackageGroupDescription="models")
    run, unfinished = started(web, {**TRAIN, "title": HOSTILE}, key="key-finished"), started(web, key="key-unfinished")
    lab.say(run, state(0, "running"), state(1, "finished"))
    shown = web.get("pages/simulation", {"model": f"run:{run}"})
    assert shown.status == 200
    assert HOSTILE not in shown.text
    assert f'<option value="run:{run}" selected>' in shown.text
    assert f"run:{unfinished}" not in shown.text
    assert '<option value="equal-weight">' in shown.text
    assert "Nothing was backtested yet" in shown.text
    assert "data-write" not in web.as_user(scopes=("read",)).get("pages/simulation").text
