"""The stream on the deployed local cloud, of each kind: what is acknowledged reaches the lake, poison apart, over a kill."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from local.aws.emulator import ROOT
from schema.lake_layout import QUOTES, STREAM_QUARANTINE, STREAM_UNDELIVERED, STREAMED_BARS
from schema.settings import load
from tests.streamed_cloud import Kind, StreamedCloud, quotes, streamed_cloud, synthesize_stream

BAR: dict[str, Any] = {
    "symbol": "SPY", "ts": "2026-11-20T14:30:00Z", "received_at": "2026-11-20T14:31:00Z", "feed": "iex", "kind": "bar", "open": 600.0,
    "high": 601.0, "low": 599.0, "close": 600.5, "volume": 1000.0, "trades": 12, "vwap": None, "bid": None, "ask": None, "quotes": 5,
    "source": "trades", "flaws": [],
}  # fmt: skip
POISON = b'{"kind": "quote", "symbol": "SPY"'
BURST = 5_000


def packed(records: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(one).encode() for one in records]


def counted(records: list[dict[str, Any]]) -> Counter[str]:
    return Counter(json.dumps(one, sort_keys=True) for one in records)


@pytest.mark.rehearse
@pytest.mark.parametrize("kind", ["firehose", "kinesis"])
def test_a_burst_reaches_the_lake_without_loss_poison_apart_over_a_kill(kind: Kind, tmp_path: Path) -> None:
    synthesize_stream(tmp_path / "cdk.out", settings=load(ROOT / "settings.toml"), kind=kind)
    first, second = quotes(BURST)[: BURST // 2], quotes(BURST)[BURST // 2 :]
    with streamed_cloud(tmp_path, kind=kind, templates=tmp_path / "cdk.out") as cloud:
        cloud.put([*packed(first), POISON, *packed([BAR])])
        cloud.emulator.deliver()
        assert counted(cloud.lines(QUOTES)) == counted(first)
        (bars,) = cloud.objects(STREAMED_BARS).items()
        assert bars[0].startswith("raw/minutes/date=2026-11-20/1430-")
        assert bars[1] == [BAR]
        assert len(cloud.objects(QUOTES)) <= 2, "objects are gathered, not one per record"
        ((key, (row,)),) = cloud.objects(STREAM_QUARANTINE).items()
        assert base64.b64decode(row["data_base64"]) == POISON
        assert [(one["function"], one["object"]) for one in cloud.dead_letters()] == [("consume_stream", key)]
        bars_of_six = [{**BAR, "symbol": f"B{number}"} for number in range(6)]
        with _without_its_queue(cloud):
            cloud.put([*packed(bars_of_six[:3]), POISON, *packed(bars_of_six[3:])])
            cloud.emulator.deliver()
        if kind == "kinesis":
            _the_rest_arrived_and_the_mapping_told_of_the_poison(cloud, bars_of_six)
        else:
            _the_batch_was_kept_as_it_came(cloud, bars_of_six)
        before = counted(cloud.lines(QUOTES))
        cloud.put(packed(second))
        cloud.kill()
    with streamed_cloud(tmp_path, kind=kind) as cloud:
        cloud.emulator.deliver()
        assert counted(cloud.lines(QUOTES)) - before == counted(second)


@contextmanager
def _without_its_queue(cloud: StreamedCloud) -> Iterator[None]:
    """Nobody would hear of what is set aside: the function fails there, and a mapping tries twice."""
    functions, name = cloud.client("lambda"), cloud.deployment.output("ConsumeStreamFunction")
    variables = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    for mapping in functions.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]:
        functions.update_event_source_mapping(UUID=mapping["UUID"], MaximumRetryAttempts=1)
    broken = {**variables, "DEAD_LETTERS_URL": f"{variables['DEAD_LETTERS_URL']}-gone"}
    functions.update_function_configuration(FunctionName=name, Environment={"Variables": broken})
    yield
    functions.update_function_configuration(FunctionName=name, Environment={"Variables": variables})


def _the_rest_arrived_and_the_mapping_told_of_the_poison(cloud: StreamedCloud, bars: list[dict[str, Any]]) -> None:
    assert counted(cloud.lines(STREAMED_BARS)).keys() == counted([BAR, *bars]).keys()
    (letter,) = cloud.dead_letters()
    assert letter["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert letter["KinesisBatchInfo"]["batchSize"] == 1


def _the_batch_was_kept_as_it_came(cloud: StreamedCloud, bars: list[dict[str, Any]]) -> None:
    """Where the transformation fails, Firehose keeps each record below the prefix of errors; nothing of it is among the bars."""
    kept = [json.loads(line) for body in cloud.bodies(f"{STREAM_UNDELIVERED}processing-failed/").values() for line in body.splitlines()]
    came = Counter(base64.b64decode(one["rawData"]) for one in kept)
    assert came == Counter([*packed(bars), POISON])
    assert cloud.lines(STREAMED_BARS) == [BAR]
