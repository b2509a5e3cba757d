"""What the stream takes on this machine: quotes put at an even rate on the local cloud, and how many of them lie in the lake, once.

`python -m benchmarks.stream_speed [--kind firehose|kinesis|both] [--per-second 5000] [--seconds 60]` prints for each kind the rate that was
kept while putting, how long after the last put everything was written, and the count of lines that were lost or are there twice. A
producer that falls behind its rate says by how much; a line that is lost ends it with status 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from local.aws.emulator import ROOT
from schema.lake_layout import QUOTES, STREAM_QUARANTINE
from schema.settings import load
from tests.streamed_cloud import BATCH, Kind, quotes, streamed_cloud, synthesize_stream


def measure(kind: Kind, *, per_second: int, seconds: int) -> bool:
    """Print one row; whether every line arrived."""
    records = quotes(per_second * seconds, per_second=per_second)
    with tempfile.TemporaryDirectory() as folder:
        synthesize_stream(Path(folder) / "cdk.out", settings=load(ROOT / "settings.toml"), kind=kind)
        with streamed_cloud(Path(folder), kind=kind, templates=Path(folder) / "cdk.out") as cloud:
            put = cloud.putter()
            started, own = time.monotonic(), time.process_time()
            for first in range(0, len(records), BATCH):
                time.sleep(max(0.0, started + first / per_second - time.monotonic()))
                put([json.dumps(one).encode() for one in records[first : first + BATCH]])
            took, own = time.monotonic() - started, time.process_time() - own
            cloud.emulator.deliver()
            after = time.monotonic() - started - took
            objects = cloud.objects(QUOTES)
            arrived = Counter(json.dumps(line) for lines in objects.values() for line in lines)
            aside = len(cloud.lines(STREAM_QUARANTINE))
    lost = len(records) - sum((arrived & Counter(json.dumps(one) for one in records)).values())
    twice = sum(arrived.values()) - len(arrived)
    sys.stdout.write(
        f"{kind}: {len(records):,} put in {took:.1f} s ({len(records) / took:,.0f}/s of {per_second:,}/s; the producer used {own:.1f} s), "
        f"all written {after:.1f} s later in {len(objects)} objects; lost {lost}, twice {twice}, set aside {aside}\n"
    )
    sys.stdout.flush()
    return lost == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("firehose", "kinesis", "both"), default="both")
    parser.add_argument("--per-second", type=int, default=5000)
    parser.add_argument("--seconds", type=int, default=60)
    asked = parser.parse_args()
    kinds: tuple[Kind, ...] = ("firehose", "kinesis") if asked.kind == "both" else (asked.kind,)
    whole = [measure(kind, per_second=asked.per_second, seconds=asked.seconds) for kind in kinds]
    sys.exit(0 if all(whole) else 1)


if __name__ == "__main__":
    main()
