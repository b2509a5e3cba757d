"""What `explain` shows: whole ids, hashes and places on any terminal, and everything that is not sound in words."""

from __future__ import annotations

import io

from rich.console import Console

from papertape.operate import display

ORDER = {
    "client_order_id": "pt1-ejfuel4lzekwkugey2plrfjtw5xjyetciqnxbw5z",
    "side": "buy",
    "symbol": "SPY",
    "quantity": "0.132045143",
    "filled_quantity": "0",
    "status": "unknown",
}
PLACE = "s3://papertape-lake-audit3d8ade0a-b6c6ef097bff6/audit/decisions/2020-12-31/agent_2020-12-31_open+5.json"
TRACE = [
    {"link": "decision", "says": "agent:2020-12-31/open+5: accepted", "status": "verified", "hash": "ab" * 32, "where": PLACE},
    {"link": "gate", "says": "[no] evaluation", "status": "missing", "detail": "the package was registered without one"},
]


def test_ids_hashes_and_places_can_be_copied_from_a_narrow_terminal() -> None:
    heard = io.StringIO()
    display.show_trace({"decision_id": "agent:2020-12-31/open+5", "orders": [ORDER], "trace": TRACE}, console=Console(file=heard, width=40))
    lines = [line.strip() for line in heard.getvalue().splitlines()]
    assert any(line.endswith(f"unknown  -     {ORDER['client_order_id']}") for line in lines), lines
    assert f"hash {'ab' * 32}" in lines
    assert f"in {PLACE}" in lines
    assert "gate: missing" in lines
    assert "[no] evaluation" in lines
    assert lines[-1] == "not sound: 1 verified, 1 missing (gate)"


def test_a_sound_trace_says_so_and_counts_what_does_not_apply_apart() -> None:
    heard = io.StringIO()
    found = ["verified"] * 4 + ["recorded"] * 2 + ["none"]
    trace = [{"link": f"link {number}", "says": "it", "status": status} for number, status in enumerate(found)]
    display.show_trace({"trace": trace}, console=Console(file=heard, width=100))
    assert heard.getvalue().splitlines()[-1] == "sound: 4 verified, 2 recorded, 1 does not apply"


def test_a_decision_s_reasons_stand_before_its_trace_each_name_in_a_line() -> None:
    heard = io.StringIO()
    words = "AAA: 37.5% held, target 70.0% (+32.5 points). For it: [momentum] is 1.8 deviations above its mean (+0.360 to the score)"
    reasons = {"says": "the gradient of each score", "names": [{"words": words}]}
    watched = {**reasons, "model_version": "ab" * 32}
    display.show_trace({"explained": reasons, "watched": [watched], "trace": TRACE}, console=Console(file=heard, width=40))
    lines = [line.strip() for line in heard.getvalue().splitlines()]
    at = lines.index("Why the model wants it")
    beside = "What model abababababab, which watches, would have done"
    told = ["the gradient of each score", words, ""]
    assert lines[at + 1 : at + 8] == [*told, beside, *told]
    assert lines[at + 8] == "From the order back to its data"
