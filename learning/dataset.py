"""The features channel of a job: a manifest and the Parquet files that it lists, read as one `Market`.

Training and judging read through here and nowhere else. `read_channel` returns only when the manifest is this code's (`feature_hash`),
every listed file has its sha256, the rows are as many as stated, of the settings' slots where they are slot bars, and none is of
`live_start` or later; otherwise it raises `DatasetError` naming the file or value. Files that the manifest does not list are never opened.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pandas as pd

from schema.feature_table import ROWS_SAID, rows_in_words
from trading_env.data.market import Market, from_table
from trading_env.data.sentiment import TABLES, FeatureTable
from trading_env.errors import PapertapeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class DatasetError(PapertapeError, ValueError):
    """The channel does not hold what a job may use; the message is one line for its log."""


@dataclass(frozen=True)
class Dataset:
    """The market of the wanted symbols, the manifest, the sha256 of the manifest's bytes, and that of its files' content."""

    market: Market
    manifest: dict[str, Any]
    manifest_sha256: str
    data_sha256: str


def newest_session(folder: Path) -> date:
    """The newest session that the channel states: what "auto" dates are as of. Raises DatasetError as `read_channel`."""
    return date.fromisoformat(str(_manifest(folder / "manifest.json")[1]["end"])[:10])


def data_sha256(folder: Path) -> str:
    """The content of the channel's files as the manifest states it, whenever they were built: the manifest also holds when that was."""
    return _data_sha256(_manifest(folder / "manifest.json")[1])


def _data_sha256(manifest: dict[str, Any]) -> str:
    lines = sorted(f"{entry['key']} {entry['sha256']}\n" for entry in manifest["files"])
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_channel(
    folder: Path, *, symbols: Sequence[str], live_start: date, table: FeatureTable = TABLES["none"], rows: Mapping[str, Any] | None = None
) -> Dataset:
    """Read `folder`, the content of `training_prefix`, for `symbols` in their order; `table`: its columns; `rows`: as `rows_said` of the
    settings, not given for daily bars."""
    content, manifest = _manifest(folder / "manifest.json")
    if (known := manifest["feature_hash"]) != table.hash:
        raise DatasetError(f"manifest.json: feature_hash must be this code's {table.hash}, was {known}{_known(known)}")
    last = str(manifest["end"])[:10]
    if last >= live_start.isoformat():
        raise DatasetError(f"manifest.json: end must be before live_start {live_start}, was {last}; such rows are never read here")
    found = pd.concat([_file(folder, entry) for entry in manifest["files"]], ignore_index=True)
    if len(found) != manifest["rows"]:
        raise DatasetError(f"manifest.json: states {manifest['rows']} rows, its files hold {len(found)}")
    newest = pd.Timestamp(found["session"].max())
    if newest >= pd.Timestamp(live_start):
        raise DatasetError(f"every session must be before live_start {live_start}, was {newest:%Y-%m-%d}")
    market, by_slot = from_table(found).only(symbols), bool(rows)
    if market.by_slot != by_slot:
        words = {True: "slot bars", False: "a row per session"}
        raise DatasetError(f"the files must hold {words[by_slot]}, as the settings have it, were {words[market.by_slot]}")
    said = {name: manifest[name] for name in ROWS_SAID if name in manifest}
    if said != (rows or {}):
        wanted, was = rows_in_words(rows or {}), rows_in_words(said)
        raise DatasetError(f"manifest.json: must be of {wanted}, as the settings have it, was of {was}; build the features again")
    if market.features.shape[-1] != table.width:
        raise DatasetError(f"the files must hold the {table.width} features of the manifest's table, were {market.features.shape[-1]}")
    return Dataset(
        market=market, manifest=manifest, manifest_sha256=hashlib.sha256(content).hexdigest(), data_sha256=_data_sha256(manifest)
    )


def _known(feature_hash: str) -> str:
    """Which other table of this code it is, if any."""
    words = [word for word, table in TABLES.items() if table.hash == feature_hash]
    return f', the table of features.sentiment = "{words[0]}"' if words else ""


def _manifest(path: Path) -> tuple[bytes, dict[str, Any]]:
    try:
        content = path.read_bytes()
        manifest = json.loads(content)
    except OSError as error:
        raise DatasetError(f"{path.name}: cannot be read ({error.strerror}); build the features first") from error
    except ValueError as error:
        raise DatasetError(f"{path.name}: is not JSON, {error}") from error
    missing = {"feature_hash", "end", "rows", "files"} - (manifest.keys() if isinstance(manifest, dict) else set())
    if missing or not manifest["files"]:
        raise DatasetError(f"{path.name}: must name {', '.join(sorted(missing)) or 'at least one file'}")
    return content, manifest


def _file(folder: Path, entry: dict[str, Any]) -> pd.DataFrame:
    name = str(entry["key"])
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DatasetError(f"manifest.json: key {entry['key']} leads out of the channel")
    if not path.is_file():
        raise DatasetError(f"{name}: is listed in manifest.json and not there")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != entry["sha256"]:
        raise DatasetError(f"{name}: sha256 must be {entry['sha256']}, was {digest}")
    return pd.read_parquet(path, partitioning=None)
