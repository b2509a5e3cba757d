"""A research command loads no cloud, no broker, no ledger and no plug-in: seen from the outside, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from papertape.market_data import bundled
from papertape.options import ROOT

FOREIGN = {"boto3", "botocore", "alpaca", "ministack", "lambdas", "local"}
RUN = """
import json, sys
from papertape.command_line import app
try:
    app(sys.argv[1:])
finally:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_backtest_of_a_csv_loads_nothing_of_cloud_broker_ledger_and_plug_ins(tmp_path: Path) -> None:
    daily, bars = bundled.daily_bars(), tmp_path / "mine.csv"
    daily[daily["symbol"].isin(["AAPL", "IBM", "SPY"]) & daily["session"].between("2018-01-01", "2019-12-31")].to_csv(bars, index=False)
    command = [sys.executable, "-c", RUN, "backtest", "--bars", str(bars), "--adjusted"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1,509 daily bars of 3 names" in done.stdout
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert {"papertape", "trading_env", "pandas"} <= loaded
    assert not loaded & FOREIGN
