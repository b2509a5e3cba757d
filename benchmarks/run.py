"""Every row of the speeds that the project promises, ours and the peers' in one run: a table, and `out/bench.json`.

    make bench                                                # installs the peers first; about ten minutes
    .venv/bin/python -m benchmarks.run --only features        # env, training, features, decision; repeatable

`out/bench.json` holds `{work, ours, peer, ratio, goal}` and beside them `unit` and `met`; `out/bench_machine.json` what it was measured on.
With `--only`, rows of other fields stay as they were. Fails when a worker does, or when two sides that should have computed the same have
not; a missed goal is a fact in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import decision_speed, env_speed, feature_speed, training_speed
from benchmarks.harness import PYTHON, ROOT, Field, Rounds, line, serve, take_turns

OUT = ROOT / "out" / "bench.json"
FIELDS: dict[str, Field] = {
    "env": env_speed.FIELD,
    "training": training_speed.FIELD,
    "features": feature_speed.FIELD,
    "decision": decision_speed.FIELD,
}
# What computes the same, to how much
SAME = (
    ("ours minutes", "Polars minutes", 1e-6),
    ("ours minutes", "pandas minutes", 1e-6),
    ("ours 1 seed", "SB3 1 seed", 1e-6),
    ("ours 10 seeds", "SB3 10 seeds", 1e-6),
)
PACKAGES = {
    "ours": ("numpy", "numba", "pandas", "TA-Lib", "torch", "stable_baselines3"),
    "peers": (
        *("numpy", "pandas", "pyarrow", "polars", "stockstats", "torch", "stable_baselines3"),
        *("FinRL", "gym-anytrading", "gym-trading-env", "tensortrade"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=FIELDS, action="append", help="a field, repeatable; default: all")
    parser.add_argument("--rounds", type=int, help="instead of each field's own")
    parser.add_argument("--worker", choices=FIELDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(FIELDS[options.worker])
        return
    began, facts = time.monotonic(), machine()
    say(f"machine: {facts['machine']}")
    rows: list[dict[str, Any]] = []
    for name in options.only or FIELDS:
        measured = take_turns(name, FIELDS[name], rounds=options.rounds)
        check_same(measured)
        rows += [line(row, measured) for row in FIELDS[name].rows]
        for contender, rounds in measured.items():
            say(f"  {contender:26} " + "   ".join(spread(rounds, number) for number in rounds[0] if number != "same"))
    for text in table(rows):
        say(text)
    facts["seconds"] = round(time.monotonic() - began)
    say(f"{facts['machine']}; {facts['seconds']} s")
    write(rows, facts)


def check_same(measured: Rounds) -> None:
    for ours, peer, tolerance in SAME:
        if ours in measured:
            mine, theirs = (np.array(measured[name][0]["same"]) for name in (ours, peer))
            np.testing.assert_allclose(theirs, mine, rtol=0, atol=tolerance, err_msg=f"{peer} does not compute what {ours} does")


def spread(rounds: list[dict[str, Any]], number: str) -> str:
    values = sorted(numbers[number] for numbers in rounds)
    return f"{number} {values[len(values) // 2]:,.4g} ({values[0]:,.4g} to {values[-1]:,.4g})"


def table(rows: list[dict[str, Any]]) -> list[str]:
    width = max(len(row["work"]) for row in rows)
    verdicts = {True: "met", False: "missed", None: ""}
    cells = [("work", "ours", "peer", "ratio", "goal", "")]
    for row in rows:
        numbers = (f"{row[key]:,.4g}" if isinstance(row[key], int | float) else row[key] or "" for key in ("ours", "peer", "ratio", "goal"))
        cells.append((row["work"], *numbers, verdicts[row["met"]]))
    return [f"{work:{width}} {ours:>10} {peer:>10} {ratio:>10} {goal:>20} {met}" for work, ours, peer, ratio, goal, met in cells]


def machine() -> dict[str, Any]:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor, load = names[0] if names else platform.machine(), os.getloadavg()[0]
    return {
        "machine": f"{processor}, {os.cpu_count()} CPUs, Python {platform.python_version()}, load {load:.1f}",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {side: versions(side) for side in PYTHON},
    }


def versions(side: str) -> dict[str, str]:
    code = "import json, sys; from importlib.metadata import version; print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    if not PYTHON[side].exists():
        raise SystemExit(f"bench: {PYTHON[side].relative_to(ROOT)} is missing; `make bench` makes it")
    found = subprocess.run([str(PYTHON[side]), "-c", code, *PACKAGES[side]], capture_output=True, text=True, check=True)
    facts: dict[str, str] = json.loads(found.stdout)
    return facts


def write(rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Replace rows of the same work in `out/bench.json`, keep the others."""
    recorded = json.loads(OUT.read_text()) if OUT.exists() else []
    fresh = {row["work"] for row in rows}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps([row for row in recorded if row["work"] not in fresh] + rows, indent=1) + "\n")
    OUT.with_name("bench_machine.json").write_text(json.dumps(facts, indent=1) + "\n")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
