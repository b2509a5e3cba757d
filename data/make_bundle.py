"""Make the files of this folder from the LEAN extracts: `python data/make_bundle.py SOURCE [TARGET]`.

`SOURCE` holds four Parquet files, extracted from the sample data of QuantConnect LEAN (PROVENANCE.md):

- `lean_daily_raw_unadjusted.parquet`: symbol, date, open, high, low, close (float32), volume; unadjusted
- `lean_factor_files.parquet`: symbol, date, price_factor, split_factor, ref_price
- `lean_minute_quotes.parquet`: symbol, ts, bid_{open,high,low,close}, bid_size, ask_{...}, ask_size
- `lean_minute_trades.parquet`: symbol, ts, open, high, low, close, volume

Three things change. Daily prices become float64 rounded to the vendor's four decimals (63.32, not 63.31999969482422), `date` is
called `session`, rows are sorted. No row is added, dropped or corrected; corrections.csv is written by hand and lists, with its
source, what the factor rows lack. Last, SHA256SUMS is written over the data files.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pandas as pd

PRICES = ["open", "high", "low", "close"]
SUMMED = ("corrections.csv", "daily_bars.parquet", "factors.parquet", "minute_quotes.parquet", "minute_trades.parquet")


def main(source: Path, target: Path) -> None:
    daily = pd.read_parquet(source / "lean_daily_raw_unadjusted.parquet").rename(columns={"date": "session"})
    daily[PRICES] = daily[PRICES].astype("float64").round(4)
    daily["volume"] = daily["volume"].astype("float64")
    _write(daily, ["symbol", "session"], target / "daily_bars.parquet")
    _write(pd.read_parquet(source / "lean_factor_files.parquet"), ["symbol", "date"], target / "factors.parquet")
    _write(pd.read_parquet(source / "lean_minute_quotes.parquet"), ["symbol", "ts"], target / "minute_quotes.parquet")
    _write(pd.read_parquet(source / "lean_minute_trades.parquet"), ["symbol", "ts"], target / "minute_trades.parquet")
    sums = "".join(f"{hashlib.sha256((target / name).read_bytes()).hexdigest()}  {name}\n" for name in SUMMED)
    (target / "SHA256SUMS").write_text(sums, encoding="utf-8")


def _write(table: pd.DataFrame, key: list[str], path: Path) -> None:
    table.sort_values(key, kind="stable", ignore_index=True).to_parquet(path, index=False, compression="zstd")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: python data/make_bundle.py SOURCE [TARGET]")
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).resolve().parent)
