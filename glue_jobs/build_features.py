"""The Glue job: raw to processed. `--MODE features` builds the feature table, `--MODE quotes` one day's 1-minute bars.

    --raw-bucket B --processed-bucket B --time 2020-01-02T23:30:00Z
    [--mode features|quotes] [--engine spark|pandas] [--date 2013-10-04]

Symbols and dates are of the settings that the job was deployed with; elsewhere PAPERTAPE_SETTINGS_FILE names a file of them.
Promises: the same raw objects give the same processed bytes; time comes from the arguments alone. Any failure exits with a traceback in
the job's log and without a new manifest, so readers keep the last whole build.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from glue_jobs.features_job import build_features
from glue_jobs.files import Bucket
from schema.lake_layout import features_prefix
from schema.settings import deployed


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run the job; returns, and prints as one JSON line, what was built."""
    arguments = _parser().parse_known_args(argv)[0]  # Glue adds arguments of its own
    raw, processed = Bucket(arguments.raw_bucket), Bucket(arguments.processed_bucket)
    if arguments.mode == "features":
        settings = deployed()
        built = build_features(
            raw=raw,
            processed=processed,
            settings=settings,
            built_for=arguments.time,
            engine=arguments.engine,
        )
        if settings.feature_store.enabled:
            from glue_jobs.feature_store import mirror_newest

            built["feature_store"] = mirror_newest(
                raw=raw,
                processed=processed,
                app=settings.name,
                feature_hash=built["feature_hash"],
                prefix=features_prefix(settings.training.timeframe),
            )
    else:
        from glue_jobs.quotes_job import build_minute_bars  # its libraries are installed for such a run alone

        day = arguments.date or arguments.time.date()
        built = build_minute_bars(raw=raw, processed=processed, day=day, built_for=arguments.time)
    print(json.dumps({"built": arguments.mode, **built}))  # noqa: T201 -- a job's log is its standard output
    return built


def _parser() -> argparse.ArgumentParser:
    """Each argument also in the upper case that Glue's own documentation uses."""
    parser = argparse.ArgumentParser(prog="build_features", allow_abbrev=False)
    parser.add_argument("--raw-bucket", "--RAW_BUCKET", required=True)
    parser.add_argument("--processed-bucket", "--PROCESSED_BUCKET", required=True)
    parser.add_argument("--time", "--EVENT_TIME", required=True, type=datetime.fromisoformat)
    parser.add_argument("--mode", "--MODE", choices=("features", "quotes"), default="features")
    parser.add_argument("--engine", "--ENGINE", choices=("spark", "pandas"), default="spark")
    parser.add_argument("--date", "--DATE", type=date.fromisoformat)
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
