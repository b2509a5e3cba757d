"""Sentiment columns from a user's file: joined to the bars, neutral and not known where there is no row, refused by what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from papertape.market_data.own_sentiment import RANGES, read_own_sentiment
from papertape.market_data.own_tables import OwnBarsError
from papertape.research.study import ResearchError, StudyOptions, study
from papertape.research.training_run import write_channel
from schema.settings import load
from tests import small_run
from trading_env.data.sentiment import SENTIMENT_NAMES, TABLES

MARKET = small_run.market()
DATA = Path(__file__).resolve().parents[4] / "data" / "settings.toml"


def rows(count: int = 5) -> pd.DataFrame:
    days = MARKET.sessions[-count:].astype("datetime64[us]")
    table = pd.DataFrame({"symbol": np.repeat(["AAA", "CCC"], count), "session": np.tile(days, 2)})
    values = np.random.default_rng(0).uniform(0, 1, (2 * count, len(SENTIMENT_NAMES)))
    return table.assign(**dict(zip(SENTIMENT_NAMES, values.T, strict=True)))


def written(folder: Path, table: pd.DataFrame, name: str = "mine.parquet") -> Path:
    file = folder / name
    if file.suffix == ".csv":
        table.to_csv(file, index=False)
    else:
        table.to_parquet(file, index=False)
    return file


@pytest.mark.parametrize("name", ["mine.parquet", "mine.csv"])
def test_rows_are_joined_by_name_and_session_and_what_has_none_is_not_known(tmp_path: Path, name: str) -> None:
    table = rows()
    elsewhere = table.head(1).assign(symbol="ZZZ")
    found = read_own_sentiment(written(tmp_path, pd.concat([table[::-1], elsewhere]), name), MARKET)
    assert found.shape == (640, 3, len(SENTIMENT_NAMES))
    expected = table[list(SENTIMENT_NAMES)].to_numpy().reshape(2, 5, -1)
    np.testing.assert_allclose(found[-5:, [0, 2]], expected.transpose(1, 0, 2), rtol=1e-15)
    assert (found[:-5] == 0).all()
    assert (found[:, 1] == 0).all()
    assert tuple(RANGES) == SENTIMENT_NAMES


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.drop(columns="sentiment_known"), r"needs columns symbol, session, .*; sentiment_known missing"),
        (lambda t: t.assign(sentiment=[*[0.0] * 9, 1.5]), r"mine.parquet row 9: sentiment must lie in \[-1, 1\], was 1.5"),
        (lambda t: t.assign(sentiment_slow=[*[0.0] * 9, None]), r"row 9: sentiment_slow must lie in \[-1, 1\], was nan"),
        (lambda t: pd.concat([t, t.tail(1)], ignore_index=True), r"row 10: there must be one row per name and session, CCC has two on"),
        (
            lambda t: t.assign(symbol="ZZZ", session=pd.date_range("2015-01-01", periods=10)),
            r"has no row of a name and a session of the bars",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_what_is_wrong(tmp_path: Path, spoil: object, message: str) -> None:
    with pytest.raises(OwnBarsError, match=message):
        read_own_sentiment(written(tmp_path, spoil(rows())), MARKET)  # type: ignore[operator]


def test_a_study_has_sentiment_exactly_where_its_settings_read_it(tmp_path: Path) -> None:
    table = rows(1).head(1).assign(symbol="SPY", session=pd.Timestamp("2019-12-31"))
    file, daily = written(tmp_path, table), tmp_path / "daily.json"
    document = load(DATA).model_dump(mode="json")
    document |= {"features": {"sentiment": "daily"}, "news": {"sources": ["x"]}}
    daily.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ResearchError, match=r'daily.json has features.sentiment = "daily": give --sentiment FILE'):
        study(StudyOptions(settings=daily))
    with pytest.raises(ResearchError, match=r'--sentiment .*mine.parquet: settings.toml has features.sentiment = "none", not "daily"'):
        study(StudyOptions(sentiment=file))
    found = study(StudyOptions(settings=daily, sentiment=file))
    told = found.market.features[found.market.index_of("2019-12-31"), found.market.symbols.index("SPY"), -len(SENTIMENT_NAMES) :]
    np.testing.assert_array_equal(told, table[list(SENTIMENT_NAMES)].to_numpy()[0])
    assert found.arguments == f" --settings {daily} --sentiment {file}"  # without the settings the file would be refused
    write_channel(found, tmp_path / "channel")
    manifest = json.loads((tmp_path / "channel" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["feature_hash"] == TABLES["daily"].hash
