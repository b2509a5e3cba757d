"""Files of strangers: mapped with the user's word, or refused with place and reason, within limits that the file does not set."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from papertape.market_data.limited_tables import ReadingLimits, parts
from papertape.market_data.own_bars import read_own_bars
from papertape.market_data.own_tables import OwnBarsError
from papertape.market_data.own_uploads import ColumnMapping, batches
from papertape.runs import reader
from papertape.runs.bars import UploadError, UploadReader, cleaned

HEADER = "Date,Ticker,Open,High,Low,Close,Volume\n"
ROWS = (
    "2020-01-02,AAPL,296.24,300.6,295.19,300.35,33911864\n2020-01-03,AAPL,297.15,300.58,296.5,297.43,36633878\n"
    "2020-01-02,IBM,135,135.92,134.77,135.42,3148623\n2020-01-03,IBM,133.57,134.86,133.56,134.34,2373724\n"
)
SMALL = ReadingLimits(most_bytes=100_000, most_rows=1000, most_columns=12, most_line=5000)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader changes to the file's folder; the test changes back."""
    monkeypatch.chdir(tmp_path)


def look(file: Path, **job: Any) -> dict[str, Any]:
    return reader.answer({"file": str(file), "columns": {}, "adjusted": False, "out": None, **job})


def csv(tmp_path: Path, text: str, *, name: str = "my-prices-1.csv", encoding: str = "utf-8") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def test_a_plain_file_is_proposed_shown_and_summed_up(tmp_path: Path) -> None:
    found = look(csv(tmp_path, HEADER + ROWS))
    assert found["problem"] is None
    assert found["columns"]["Ticker"] == "symbol"
    assert found["columns"]["Date"] == "session"
    assert (found["symbols"], found["rows"], found["first"], found["last"]) == (["AAPL", "IBM"], 4, "2020-01-02", "2020-01-03")
    assert found["preview"][0] == ["Date", "Ticker", "Open", "High", "Low", "Close", "Volume"]
    assert found["preview"][1][1] == "AAPL"


def test_other_names_are_mapped_once_the_user_has_said_what_they_mean(tmp_path: Path) -> None:
    file = csv(tmp_path, HEADER.replace("Ticker", "Papier").replace("Close", "Schluss") + ROWS)
    found = look(file)
    assert found["problem"] == "my-prices-1.csv: choose what the columns mean; no column is called like symbol, close"
    assert found["unmapped"] == ["Papier", "Schluss"]
    said = found["columns"] | {"Papier": "symbol", "Schluss": "close"}
    assert look(file, columns=said)["problem"] is None
    pd.testing.assert_frame_equal(
        read_own_bars(file, adjusted=False, columns=said).bars,
        read_own_bars(csv(tmp_path, HEADER + ROWS, name="b.csv"), adjusted=False).bars,
    )


def test_two_columns_of_one_meaning_are_the_users_choice(tmp_path: Path) -> None:
    file = csv(tmp_path, HEADER.replace("Volume", "Volume,Vol") + ROWS.replace("\n", ",7\n"))
    found = look(file)
    assert found["problem"] == "my-prices-1.csv: choose what the columns mean; Volume and Vol may both be the volume: choose one; " + (
        "no column is called like volume"
    )
    assert look(file, columns=found["columns"] | {"Vol": "volume"})["problem"] is None
    twice = look(file, columns=found["columns"] | {"Vol": "volume", "Volume": "volume"})
    assert twice["problem"] == "my-prices-1.csv: columns Vol and Volume may both be the volume; choose one of them"


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"Kurs": "close"}, "has no column 'Kurs', there are Date, Ticker"),
        ({"Close": "dance"}, "column 'Close' must be one of symbol, session"),
        ({"Close": "close"}, "no column for symbol, session"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(tmp_path: Path, columns: dict[str, str], problem: str) -> None:
    assert problem in look(csv(tmp_path, HEADER + ROWS), columns=columns)["problem"]


def test_proposals_follow_the_names_alone() -> None:
    proposed = ColumnMapping.proposed(["t", "sym", "o", "h", "l", "c", "v", "Adj Close", "note"])
    assert proposed.columns["Adj Close"] == "adjusted_close"
    assert (proposed.unmapped, proposed.doubts, proposed.missing) == (("note",), (), ())


def test_bom_semicolons_zones_repeats_and_gaps_are_read_and_said(tmp_path: Path) -> None:
    rows = ROWS.replace("2020-01-03,IBM", "2020-01-06,IBM") + ROWS.splitlines()[0] + "\n"
    text = (HEADER + rows).replace(",", ";").replace("2020-01-0", "2020-01-0").replace("2020-01-02;", "2020-01-02T16:00:00-05:00;")
    text = text.replace("2020-01-03;", "2020-01-03T21:00:00Z;").replace("2020-01-06;", "2020-01-06T22:00:00+01:00;")
    found = look(csv(tmp_path, "\ufeff" + text))
    assert found["problem"] is None
    assert found["last"] == "2020-01-06"
    assert found["remarks"] == [
        "1 rows left out that repeat an identical bar",
        "1 sessions missing in 1 names, most of IBM (1); nothing is filled in",
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("300.35", '"12,34.50"', "my-prices-1.csv line 2: close must be a number such as 1234.5, was '12,34.50'"),
        ("300.35", '"1.234,50"', "my-prices-1.csv line 2: close must be a number such as 1234.5, was '1.234,50'"),
        ("300.35", "=1+1", "my-prices-1.csv line 2: close must be a number such as 1234.5, was '=1+1'"),
        ("300.35", "@SUM(A1)", "my-prices-1.csv line 2: close must be a number such as 1234.5, was '@SUM(A1)'"),
        ("02,AAPL", "02,=cmd|' /C calc'!A0", "symbol must be up to ten capitals, digits or dots such as BRK.B, was"),
        ("02,AAPL", "02,+AAPL", "line 2: symbol must be up to ten capitals"),
        ("02,AAPL", "02,-AAPL", "line 2: symbol must be up to ten capitals"),
        ("02,AAPL", "02,@AAPL", "line 2: symbol must be up to ten capitals"),
        ("02,AAPL", "02,<b>A</b>", "line 2: symbol must be up to ten capitals"),
        ("2020-01-02,AAPL", "02/01/2020,AAPL", "line 2: date must be written like 2020-01-02"),
        ("2020-01-03,AAPL,297.15", "2020-01-02,AAPL,297.15", "AAPL has bars of 2020-01-02 that differ"),
    ],
)
def test_what_could_be_read_in_two_ways_or_computed_is_refused_by_its_line(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert problem in look(csv(tmp_path, HEADER + ROWS.replace(old, new)))["problem"]


GERMAN = (
    "Date;Ticker;Open;High;Low;Close;Volume\n"
    "2020-01-02;AAPL;1.296,24;1.300,6;1.295,19;1.300,35;33.911.864\n2020-01-03;AAPL;297,15;300,58;296,5;297,43;366\n"
)


def test_numbers_with_separators_are_offered_for_confirmation_and_read_once_confirmed(tmp_path: Path) -> None:
    file = csv(tmp_path, GERMAN)
    found = look(file)
    names = ("Open", "High", "Low", "Close", "Volume")
    assert (found["forms"], found["doubtful"]) == (dict.fromkeys(names, "1.234,56"), ())
    assert found["problem"] == "my-prices-1.csv: confirm how numbers are written: " + ", ".join(f"{name} like 1.234,56" for name in names)
    read = look(file, columns=found["columns"], forms=found["forms"])
    assert read["problem"] is None
    assert "Close: numbers are read as written like 1.234,56" in read["remarks"]
    answer = cleaned(file, columns=found["columns"], forms=found["forms"], adjusted=False, out=tmp_path / "out")
    bars = pd.read_parquet(tmp_path / "out" / "bars.parquet").set_index("session")
    assert (bars["close"].tolist(), bars["volume"].tolist(), answer["bars"]) == ([1300.35, 297.43], [33911864.0, 366.0], 2)


@pytest.mark.parametrize(
    ("text", "form"), [("1,300.35", "1,234.56"), ("1 300.35", "1 234.56"), ("1\u202f300,35", "1 234,56"), ("1300,35", "1.234,56")]
)
def test_a_cell_that_fits_one_form_alone_decides_its_column(tmp_path: Path, text: str, form: str) -> None:
    rows = GERMAN.replace("1.300,35", text).replace("297,43", "297")
    found = look(csv(tmp_path, rows))
    assert found["forms"]["Close"] == form


def test_a_column_that_can_be_read_in_two_ways_asks(tmp_path: Path) -> None:
    """1,234 is a thousand and more, or one and a little more: only who has written it knows."""
    rows = '2020-01-02,AAPL,1.5,2.5,1.2,"1,234",100\n2020-01-03,AAPL,1.5,2.5,1.2,"2,345",100\n'
    file = csv(tmp_path, HEADER + rows)
    found = look(file)
    asked = "my-prices-1.csv: choose how the numbers of Close are written, they can be read in two ways"
    assert (found["forms"], tuple(found["doubtful"]), found["problem"]) == ({}, ("Close",), asked)
    found = look(file, columns=found["columns"], forms={"Close": "1.234,56"}, out=str(tmp_path / "out"))
    assert found["problem"] is None
    assert pd.read_parquet(tmp_path / "out" / "bars.parquet")["close"].tolist() == [1.234, 2.345]


def test_a_plain_number_that_the_files_other_columns_would_read_otherwise_asks(tmp_path: Path) -> None:
    """Where closes are written like 1.234,56, a volume of 1.234 is hardly one and a quarter share."""
    file = csv(tmp_path, GERMAN.replace("33.911.864", "1.234").replace(";366\n", ";2.366\n"))
    found = look(file)
    assert tuple(found["doubtful"]) == ("Volume",)
    partly = look(file, columns=found["columns"], forms=found["forms"])
    assert tuple(partly["doubtful"]) == ("Volume",), "what is confirmed for other columns answers nothing"
    assert look(file, columns=found["columns"], forms=found["forms"] | {"Volume": "1.234,56"})["problem"] is None


@pytest.mark.parametrize(
    ("odd", "form", "line"), [("12.34,5", "1.234,56", 3), ("=1+1", "1.234,56", 3), ("297.43", "1.234,56", 3), ("1,234,567", "1.234,56", 3)]
)
def test_a_cell_that_no_form_of_its_column_fits_is_refused_by_its_line(tmp_path: Path, odd: str, form: str, line: int) -> None:
    file = csv(tmp_path, GERMAN.replace("297,43", odd).replace("33.911.864", "3") + "2020-01-06;AAPL;1,5;1,5;1,5;1,5;3\n")
    refusal = f"my-prices-1.csv line {line}: close must be a number such as {form}, was {odd!r}"
    found = look(file)
    assert found["problem"] == refusal
    said = dict.fromkeys(("Open", "High", "Low", "Close"), form)
    assert look(file, columns=found["columns"], forms=said)["problem"] == refusal


def test_a_header_that_is_a_formula_is_a_text(tmp_path: Path) -> None:
    found = look(csv(tmp_path, HEADER.strip() + ",=HYPERLINK(1)\n" + ROWS.replace("\n", ",=2+3\n")))
    assert (found["problem"], found["unmapped"]) == (None, ["=HYPERLINK(1)"])
    assert found["preview"][1][-1] == "=2+3"


def test_a_zip_bomb_is_read_to_the_limit_and_no_further(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb-file-1.csv.gz"
    packed = zlib.compressobj(9, zlib.DEFLATED, 31)
    row = (ROWS.splitlines()[0] + "\n").encode() * 20_000
    bomb.write_bytes(packed.compress(HEADER.encode()) + b"".join(packed.compress(row) for _ in range(60)) + packed.flush())
    assert bomb.stat().st_size < 400_000
    with pytest.raises(OwnBarsError, match=r"bomb-file-1.csv.gz: holds more than 0 MB when unpacked; reading stopped there"):
        list(parts(bomb, limits=SMALL))
    with pytest.raises(OwnBarsError, match=r"has more than 1,000 rows, the most that are read"):
        list(parts(bomb, limits=ReadingLimits(most_rows=1000, most_bytes=1 << 25)))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (HEADER + "x" * 6000, "has a line of more than 4 kB"),
        ("x" * 6000, "has a line of more than 4 kB"),
        ("a" + ",a" * 20 + "\n", "line 1: has 21 columns, 12 are the most"),
        (HEADER + ROWS.replace("300.35", '"300.35'), "cannot be read"),
        (HEADER, "has no row"),
        ("", "cannot be read"),
        (HEADER + ROWS + "1,2,3,4,5,6,7,8,9\n", "cannot be read, Error tokenizing data"),
        (HEADER + ROWS.replace("\n", ",9\n"), "line 2: has more fields than the header"),
    ],
    ids=["long row", "no newline", "wide", "quote", "header alone", "empty", "ragged", "shifted"],
)
def test_a_csv_that_is_no_table_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    with pytest.raises(OwnBarsError, match=problem):
        list(parts(csv(tmp_path, content), limits=SMALL))


def test_bytes_that_are_no_text_and_archives_that_are_none_are_refused(tmp_path: Path) -> None:
    assert "cannot be read" in look(csv(tmp_path, HEADER + ROWS.replace("AAPL", "Ä"), encoding="latin-1"))["problem"]
    (tmp_path / "no-archive.csv.gz").write_bytes(b"PK\x03\x04 this is no gzip")
    assert "cannot be read, Not a gzipped file" in look(tmp_path / "no-archive.csv.gz")["problem"]
    (tmp_path / "cut-off-1.csv.gz").write_bytes(gzip.compress((HEADER + ROWS).encode())[:-9])
    assert "cannot be read" in look(tmp_path / "cut-off-1.csv.gz")["problem"]
    (tmp_path / "no-parquet.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    assert "no-parquet.parquet: cannot be read" in look(tmp_path / "no-parquet.parquet")["problem"]


def frame() -> pd.DataFrame:
    text = [line.split(",") for line in ROWS.splitlines()]
    table = pd.DataFrame(text, columns=HEADER.strip().split(","))
    return table.astype(dict.fromkeys(table.columns[2:], float)).assign(Date=pd.to_datetime(table["Date"]))


def test_a_parquet_file_is_read_as_a_csv_file_is(tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "a-table-1.parquet", index=False)
    frame().set_index("Date").rename_axis(None).to_parquet(tmp_path / "b-table-1.parquet")
    ours, indexed = look(tmp_path / "a-table-1.parquet"), look(tmp_path / "b-table-1.parquet")
    assert (ours["problem"], indexed["problem"]) == (None, None)
    assert (ours["rows"], indexed["rows"], ours["first"]) == (4, 4, "2020-01-02")
    wrong = frame().astype({"Close": str})
    wrong.loc[2, "Close"] = "many"
    wrong.to_parquet(tmp_path / "c-table-1.parquet", index=False)
    assert look(tmp_path / "c-table-1.parquet")["problem"] == "c-table-1.parquet row 2: close must be a number such as 1234.5, was 'many'"


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (pa.array([[1.0], [2.0], [3.0], [4.0]]), "column 'Close' is list"),
        (pa.array([{"a": 1}] * 4), "column 'Close' is struct"),
        (pa.array([b"=1"] * 4), "column 'Close' is binary; numbers, texts and times are read"),
        (pa.array([[("a", 1)]] * 4, pa.map_(pa.string(), pa.int64())), "column 'Close' is map"),
    ],
    ids=["list", "struct", "binary", "map"],
)
def test_a_parquet_schema_of_another_kind_is_refused(tmp_path: Path, column: pa.Array, problem: str) -> None:
    table = pa.Table.from_pandas(frame(), preserve_index=False)
    pq.write_table(table.set_column(table.schema.names.index("Close"), "Close", column), tmp_path / "schema-file.parquet")
    assert problem in look(tmp_path / "schema-file.parquet")["problem"]


def test_a_parquet_file_is_believed_about_its_size_only_downwards(tmp_path: Path) -> None:
    many = pa.table({name: pa.array(np.zeros(5000)) for name in ("Open", "Close")})
    pq.write_table(many, tmp_path / "rows.parquet")
    with pytest.raises(OwnBarsError, match="has 5,000 rows, 1,000 are the most"):
        list(parts(tmp_path / "rows.parquet", limits=SMALL))
    pq.write_table(many, tmp_path / "bytes.parquet", use_dictionary=False, compression="zstd")
    with pytest.raises(OwnBarsError, match="MB when unpacked"):
        list(parts(tmp_path / "bytes.parquet", limits=ReadingLimits(most_bytes=10_000)))
    pq.write_table(pa.table({f"c{number}": [1.0] for number in range(20)}), tmp_path / "wide.parquet")
    with pytest.raises(OwnBarsError, match="has 20 columns, 12 are the most"):
        list(parts(tmp_path / "wide.parquet", limits=SMALL))
    told = many.replace_schema_metadata({b"pandas": b"[" * 20_000, b"ARROW:extension:name": b"arrow.py_extension_type"})
    pq.write_table(told, tmp_path / "told.parquet")
    with pytest.raises(OwnBarsError, match="cannot be read"):
        list(parts(tmp_path / "told.parquet", limits=SMALL))


def test_names_are_dealt_out_in_batches_with_the_same_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = csv(tmp_path, HEADER + ROWS)
    monkeypatch.setattr("papertape.market_data.own_uploads.BATCH", 2)
    found = list(batches(file, columns=None, adjusted=False))
    assert [own.symbols for own in found] == [("AAPL",), ("IBM",)]
    whole = read_own_bars(file, adjusted=False).bars
    pd.testing.assert_frame_equal(pd.concat([own.bars for own in found], ignore_index=True), whole)


def test_the_reader_is_a_process_with_a_limit_that_writes_what_it_cleaned(tmp_path: Path) -> None:
    file = csv(tmp_path, HEADER + ROWS)
    answer = cleaned(file, columns={}, adjusted=False, out=tmp_path / "out")
    assert answer["bars"] == 4
    assert sorted(pd.read_parquet(tmp_path / "out" / "bars.parquet")["symbol"].unique()) == ["AAPL", "IBM"]
    with pytest.raises(UploadError, match=r"my-prices-2.csv line 2: close must be a number"):
        cleaned(
            csv(tmp_path, HEADER + ROWS.replace("300.35", "=1"), name="my-prices-2.csv"), columns={}, adjusted=False, out=tmp_path / "x"
        )
    assert not (tmp_path / "x" / "bars.parquet").exists()


def test_a_small_file_that_grows_beyond_the_limit_of_the_process_is_refused(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, dtype=np.int32)), pa.array(["A" * 60_000]))
    columns = {name: pa.array(np.ones(100_000)) for name in ("Open", "High", "Low", "Close", "Volume")}
    pq.write_table(pa.table({"Date": texts, "Ticker": texts, **columns}), tmp_path / "growing-file.parquet")
    assert (tmp_path / "growing-file.parquet").stat().st_size < 2_000_000
    answer = UploadReader().read(tmp_path / "growing-file.parquet", columns={}, adjusted=False, out=tmp_path / "out")
    assert answer["problem"] is not None
    assert "takes more than 1,000 MB to read" in answer["problem"] or "cannot be read" in answer["problem"]


def test_a_file_that_breaks_the_reader_breaks_nothing_else(tmp_path: Path) -> None:
    made = UploadReader()
    made._process.kill()
    with pytest.raises(UploadError, match="it ended the process that read it"):
        made.read(csv(tmp_path, HEADER + ROWS), columns={}, adjusted=False, out=None)


def test_the_readers_answer_is_json(tmp_path: Path) -> None:
    rows = ROWS.replace("33911864", "").replace("AAPL", "BRK-B")
    found = look(csv(tmp_path, HEADER + rows))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert "1 rows set aside: volume is missing, negative or not finite" in found["remarks"]
    assert "BRK-B: read with a dot for the dash, as exchanges write share classes" in found["remarks"]


@pytest.mark.rehearse
def test_two_hundred_megabytes_are_read_in_less_than_a_gigabyte(tmp_path: Path) -> None:
    """The process that reads has no more: beyond it, an allocation fails, as the test of the file that grows shows."""
    assert reader.MEMORY_BYTES == 1_000_000_000
    days = pd.bdate_range("2000-01-03", "2020-12-31").strftime("%Y-%m-%d")
    file = tmp_path / "many-prices.csv"
    with file.open("w") as out:
        out.write(HEADER)
        for name in range(770):
            price = 20 + name / 10
            out.write(
                "".join(f"{day},S{name:03},{price:.2f},{price + 1:.2f},{price - 1:.2f},{price:.2f},{1_000_000 + name}\n" for day in days)
            )
    assert file.stat().st_size > 200e6
    answer = cleaned(file, columns={}, adjusted=True, out=tmp_path / "out")
    assert answer["rows"] == 770 * len(days)
    assert len(answer["symbols"]) == 770
