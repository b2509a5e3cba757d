"""However a shard's records are delivered, crashed over and delivered again, readers read each line that was accepted, once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.consume_stream.reading import Received, objects
from local.aws.services.shard_delivery import MappingRules, Record, deliver
from trading_env.data.bars import quotes_to_bars
from trading_env.data.raw_lines import quote_table

OPEN = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)
POISON = b'{"kind": "quote"'


def sent(number: int, *, poison: bool) -> bytes:
    if poison:
        return POISON
    ts = (OPEN + timedelta(seconds=20 * number)).isoformat()
    prices = {"bid": 100.0 + number % 7, "bid_size": 1.0, "ask": 101.0 + number % 7, "ask_size": 1.0}
    return json.dumps({"kind": "quote", "symbol": "AB"[number % 2], "ts": ts, "received_at": ts, "feed": "iex", **prices}).encode()


def received(record: Record) -> Received:
    return Received(identity=record["SequenceNumber"], data=record["Data"], arrived=OPEN)


class Function:
    """The consumer over a dictionary; `ends` says of each call whether it ends before its answer, and after how many objects."""

    def __init__(self, ends: Sequence[int | None]) -> None:
        self.lake: dict[str, Sequence[dict[str, Any]]] = {}
        self._ends = iter(ends)

    def __call__(self, batch: Sequence[Record]) -> dict[str, Any] | None:
        end = next(self._ends, None)
        for place, (first, new) in enumerate(objects([received(one) for one in batch], source="shard").items()):
            if end is not None and place == abs(end):
                return None if end < 0 else {"batchItemFailures": [{"itemIdentifier": first}]}
            assert len(new.rows) >= len(self.lake.get(new.key, ())), "who reads meanwhile must not find less"
            self.lake[new.key] = new.rows
        return None if end is not None and end < 0 else {}

    def lines(self) -> list[dict[str, Any]]:
        return [row for key in sorted(self.lake) if key.startswith("raw/quotes/") for row in self.lake[key]]

    def set_aside(self) -> set[str]:
        return {row["identity"] for key, rows in self.lake.items() if key.startswith("raw/quarantine/") for row in rows}


@settings(max_examples=30, deadline=None)
@given(
    poison=st.lists(st.booleans(), min_size=1, max_size=40),
    ends=st.lists(st.one_of(st.none(), st.integers(-3, 3)), max_size=12),
    sizes=st.lists(st.integers(1, 15), min_size=1, max_size=6),
    back=st.lists(st.integers(0, 20), max_size=3),
    bisects=st.booleans(),
)
def test_no_line_is_lost_and_none_is_read_twice(
    poison: list[bool], ends: list[int | None], sizes: list[int], back: list[int], bisects: bool
) -> None:
    """`back`: how far a lost checkpoint sends the delivery back, after which batches are cut elsewhere than before."""
    stream: list[Record] = [
        {"SequenceNumber": f"{n:05d}", "ApproximateArrivalTimestamp": 0.0, "Data": sent(n, poison=bad)} for n, bad in enumerate(poison)
    ]
    function, given_up, position, turn, lost = Function(ends), list[Record](), 0, 0, list(back)
    while position < len(stream):
        batch = stream[position : position + sizes[turn % len(sizes)]]
        deliver(
            batch,
            rules=MappingRules(reports_failures=True, bisects=bisects, retries=20),
            invoke=function,
            give_up=lambda records, _why, _tried: given_up.extend(records),
            done=lambda _sequence: None,
            now=lambda: 0.0,
            pause=lambda _failures: None,
        )
        position += len(batch)
        turn += 1
        if lost:
            position = max(0, position - lost.pop())
    assert not given_up
    accepted = [json.loads(one["Data"]) for one in stream if one["Data"] != POISON]
    lines = function.lines()
    assert {json.dumps(line) for line in lines} == {json.dumps(line) for line in accepted}
    assert function.set_aside() == {one["SequenceNumber"] for one in stream if one["Data"] == POISON}
    if accepted:
        read, meant = (quotes_to_bars(quote_table(rows)).bars for rows in (sorted(lines, key=lambda row: row["received_at"]), accepted))
        assert read.to_dict("records") == meant.to_dict("records")
    if not back and not ends:
        assert len(lines) == len(accepted)
