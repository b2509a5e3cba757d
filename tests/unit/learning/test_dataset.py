"""The features channel: what the manifest lists is read, and nothing of the live period ever is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from learning import dataset
from trading_env.data.bars import ACTION_COLUMNS
from trading_env.data.features import FEATURE_HASH
from trading_env.data.market import build_market, to_table

LIVE = date(2020, 1, 2)
SYMBOLS = ("B", "A")


def table(*, days: int = 40, end: str = "2019-12-31") -> pd.DataFrame:
    rng = np.random.default_rng(0)
    sessions = pd.bdate_range(end=end, periods=days)
    rows = []
    for symbol in ("A", "B"):
        close = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, days)))
        bars = pd.DataFrame({"symbol": symbol, "session": sessions, "open": close, "high": close * 1.01, "low": close * 0.99})
        rows.append(bars.assign(close=close, volume=1e6))
    return to_table(build_market(pd.concat(rows), pd.DataFrame(columns=list(ACTION_COLUMNS)), symbols=("A", "B")))


def write(folder: Path, frame: pd.DataFrame, **changes: Any) -> Path:
    """The channel as the features job leaves it, one file a year."""
    files = []
    for year, part in frame.groupby(frame["session"].dt.year):
        path = folder / f"year={year}" / "part-0.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        part.to_parquet(path, index=False)
        key = path.relative_to(folder).as_posix()
        files.append({"key": key, "rows": len(part), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    manifest = {"feature_hash": FEATURE_HASH, "rows": len(frame), "end": str(frame["session"].max())[:10], "files": files, **changes}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def test_the_channel_is_read_in_the_order_of_the_wanted_symbols(tmp_path: Path) -> None:
    frame = table()
    read = dataset.read_channel(write(tmp_path, frame), symbols=SYMBOLS, live_start=LIVE)
    assert read.market.symbols == SYMBOLS
    assert len(read.market) == 40
    expected = frame.loc[frame["symbol"] == "B", "close"].to_numpy()
    np.testing.assert_array_equal(read.market.close[:, 0], expected)
    assert read.manifest_sha256 == hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()


def test_a_file_that_the_manifest_does_not_list_is_never_opened(tmp_path: Path) -> None:
    write(tmp_path, table())
    (tmp_path / "year=2020").mkdir()
    (tmp_path / "year=2020" / "part-1.parquet").write_bytes(b"not parquet, and not to be read")
    dataset.read_channel(tmp_path, symbols=SYMBOLS, live_start=LIVE)


def _row_too_late(folder: Path) -> None:
    write(folder, table(end="2020-01-02"), end="2019-12-31")


def _manifest_too_late(folder: Path) -> None:
    write(folder, table(end="2020-01-02"))


def _other_features(folder: Path) -> None:
    write(folder, table(), feature_hash="0" * 64)


def _altered_file(folder: Path) -> None:
    write(folder, table())
    path = folder / "year=2019" / "part-0.parquet"
    path.write_bytes(path.read_bytes() + b"\0")


def _missing_file(folder: Path) -> None:
    write(folder, table())
    (folder / "year=2019" / "part-0.parquet").unlink()


def _row_count(folder: Path) -> None:
    write(folder, table(), rows=7)


def _outside(folder: Path) -> None:
    write(folder, table(), files=[{"key": "../other.parquet", "rows": 1, "sha256": "0"}])


def _no_manifest(folder: Path) -> None:
    write(folder, table())
    (folder / "manifest.json").unlink()


def _half_a_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"rows": 1}', encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_row_too_late, "every session must be before live_start 2020-01-02, was 2020-01-02"),
        (_manifest_too_late, "end must be before live_start 2020-01-02, was 2020-01-02"),
        (_other_features, f"feature_hash must be this code's {FEATURE_HASH}, was 000"),
        (_altered_file, "year=2019/part-0.parquet: sha256 must be"),
        (_missing_file, "year=2019/part-0.parquet: is listed in manifest.json and not there"),
        (_row_count, "states 7 rows, its files hold 80"),
        (_outside, "leads out of the channel"),
        (_no_manifest, "manifest.json: cannot be read"),
        (_half_a_manifest, "manifest.json: must name end, feature_hash, files"),
    ],
)
def test_a_channel_that_may_not_be_used_is_refused_by_what_is_wrong(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(tmp_path)
    with pytest.raises(dataset.DatasetError, match=message):
        dataset.read_channel(tmp_path, symbols=SYMBOLS, live_start=LIVE)
