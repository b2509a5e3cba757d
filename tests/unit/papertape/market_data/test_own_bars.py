"""A user's files: every trouble that they come with has a count or one line that names file, place, value and what is allowed."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from papertape.market_data import bundled
from papertape.market_data.own_bars import OwnBars, read_own_bars
from papertape.market_data.own_tables import OwnBarsError
from trading_env.data.market import build_market

HEADER = "symbol,date,open,high,low,close,volume\n"
PLAIN = (
    "AAPL,2020-01-02,74.06,75.15,73.80,75.09,135480400\n"
    "AAPL,2020-01-03,74.29,75.14,74.13,74.36,146322800\n"
    "AAPL,2020-01-06,73.45,74.99,73.19,74.95,118387200\n"
    "IBM,2020-01-02,129.46,130.24,128.82,129.87,3293436\n"
    "IBM,2020-01-03,128.13,129.18,127.71,128.83,2482890\n"
    "IBM,2020-01-06,127.98,128.98,127.26,128.60,2537073\n"
)


def csv(folder: Path, text: str, *, name: str = "mine.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def same_bars(one: OwnBars, other: OwnBars) -> None:
    pd.testing.assert_frame_equal(one.bars, other.bars)


def refused(path: Path, **options: object) -> str:
    with pytest.raises(OwnBarsError) as caught:
        read_own_bars(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def plain(tmp_path: Path) -> OwnBars:
    return read_own_bars(csv(tmp_path, HEADER + PLAIN, name="plain.csv"))


def test_a_plain_file_is_what_it_says(plain: OwnBars) -> None:
    assert plain.symbols == ("AAPL", "IBM")
    assert (plain.rows, plain.repeats, plain.set_aside, plain.gaps, len(plain.actions)) == (6, 0, {}, {}, 0)
    row = plain.bars.iloc[4]
    assert (row["symbol"], str(row["session"].date()), row["open"], row["volume"]) == ("IBM", "2020-01-03", 128.13, 2482890.0)
    assert plain.sentences == ["6 daily bars of 2 names, 2020-01-02 to 2020-01-06"]


@pytest.mark.parametrize(
    "header",
    [
        "Ticker,Date,Open,High,Low,Close,Volume",
        "tic,TIMESTAMP,o,h,l,c,v",
        "<TICKER>,<DATE>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>",
        "Symbol,session,1. open,2. high,3. low,4. close,5. volume",
        " sym , ts ,open_price,high_price,low_price,close_price, vol ",
    ],
)
def test_usual_column_names_are_recognised(header: str, plain: OwnBars, tmp_path: Path) -> None:
    same_bars(read_own_bars(csv(tmp_path, f"{header}\n{PLAIN}")), plain)


def test_order_separators_spaces_compression_and_a_byte_order_mark_do_not_matter(plain: OwnBars, tmp_path: Path) -> None:
    lines = PLAIN.splitlines(keepends=True)
    same_bars(read_own_bars(csv(tmp_path, HEADER + "".join(reversed(lines)))), plain)
    same_bars(read_own_bars(csv(tmp_path, (HEADER + PLAIN).replace(",", ";"))), plain)
    same_bars(read_own_bars(csv(tmp_path, "\ufeff" + HEADER + PLAIN.replace("AAPL,", " aapl ,") + "\n\n")), plain)
    packed = tmp_path / "mine.csv.gz"
    packed.write_bytes(gzip.compress((HEADER + PLAIN).encode()))
    same_bars(read_own_bars(packed), plain)


def test_more_columns_are_left_alone(plain: OwnBars, tmp_path: Path) -> None:
    text = "".join(f"{number},{line},Technology\n" for number, line in enumerate(PLAIN.splitlines()))
    same_bars(read_own_bars(csv(tmp_path, f",{HEADER.strip()},sector\n{text}")), plain)


@pytest.mark.parametrize(
    "written",
    [
        "20200102",
        "2020-01-02 00:00:00",
        "2020-01-02 00:00:00-05:00",
        "2020-01-02T05:00:00Z",
        "2020-01-02T16:00:00-0500",
        "2020-01-02 21:00:00 UTC",
        "2020-01-02T22:00:00.123+01:00",
    ],
)
def test_a_date_or_a_time_with_its_zone_is_a_session(written: str, tmp_path: Path) -> None:
    text = "".join(line.replace("2020-01-02", written) for line in PLAIN.splitlines(keepends=True) if "2020-01-02" in line)
    assert read_own_bars(csv(tmp_path, HEADER + text)).bars["session"].unique().tolist() == [pd.Timestamp("2020-01-02")]


def test_times_follow_new_york_across_the_change_of_its_clocks(tmp_path: Path) -> None:
    text = "AAPL,2020-03-06T05:00:00Z,1,1,1,1,1\nAAPL,2020-03-09T04:00:00Z,1,1,1,1,1\n"
    sessions = read_own_bars(csv(tmp_path, HEADER + text)).bars["session"]
    assert [str(day.date()) for day in sessions] == ["2020-03-06", "2020-03-09"]


def test_parquet_with_typed_times_or_an_index_is_the_same(plain: OwnBars, tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    table = plain.bars.rename(columns={"session": "timestamp"})
    for written in (
        table,
        table.astype({"open": "object", "volume": "int64"}),
        table.assign(timestamp=table["timestamp"].dt.tz_localize("America/New_York").dt.tz_convert("UTC")),
        table.assign(timestamp=table["timestamp"].dt.date),
        table.set_index(["symbol", "timestamp"]),
        table.set_index("timestamp"),
    ):
        written.to_parquet(path)
        same_bars(read_own_bars(path), plain)


def test_a_folder_holds_one_file_a_name(plain: OwnBars, tmp_path: Path) -> None:
    folder = tmp_path / "bars"
    folder.mkdir()
    for symbol in ("AAPL", "ibm"):
        own = [line.partition(",")[2] for line in PLAIN.splitlines() if line.startswith(symbol.upper())]
        csv(folder, "date,open,high,low,close,volume\n" + "\n".join(own), name=f"{symbol}.csv")
    csv(folder, "not a table", name="README.txt")
    same_bars(read_own_bars(folder), plain)


def test_symbols_chooses_names(tmp_path: Path) -> None:
    path = csv(tmp_path, HEADER + PLAIN)
    assert read_own_bars(path, symbols=["IBM"]).symbols == ("IBM",)
    assert refused(path, symbols=["IBM", "GE"]) == f"{path}: has no bar of GE, it has AAPL, IBM"


def test_share_classes_are_read_with_a_dot_and_a_ticker_may_look_like_nothing(tmp_path: Path) -> None:
    text = "".join(f"{symbol},2020-01-02,1,1,1,1,1\n" for symbol in ("BRK-B", "TRUE", "NA.X"))
    own = read_own_bars(csv(tmp_path, HEADER + text))
    assert own.symbols == ("BRK.B", "NA.X", "TRUE")
    assert own.sentences[-1] == "BRK-B: read with a dot for the dash, as exchanges write share classes"


# What is wrong with a row is counted


def test_identical_repeats_are_left_out_and_counted(plain: OwnBars, tmp_path: Path) -> None:
    own = read_own_bars(csv(tmp_path, HEADER + PLAIN + PLAIN[: PLAIN.index("\n") + 1] * 2))
    same_bars(own, plain)
    assert own.repeats == 2
    assert "2 rows left out that repeat an identical bar" in own.sentences


def test_rows_that_are_not_bars_are_set_aside_with_their_reason(plain: OwnBars, tmp_path: Path) -> None:
    broken = (
        "AAPL,2020-01-04,1,1,1,1,1\n"  # a Saturday
        "AAPL,2020-01-20,1,1,1,1,1\n"  # Martin Luther King Day
        "AAPL,2020-01-07,,75,74,74.5,1\n"
        "AAPL,2020-01-08,nan,75,74,74.5,1\n"
        "AAPL,2020-01-09,0,75,0,74.5,1\n"
        "AAPL,2020-01-10,-74,75,-74,74.5,1\n"
        "AAPL,2020-01-13,74,73,72,74.5,1\n"
        "AAPL,2020-01-14,74,75,74.2,74.5,1\n"
        "AAPL,2020-01-15,74,75,73,74.5,-1\n"
        "AAPL,2020-01-16,74,75,73,74.5,null\n"
        ",2020-01-17,74,75,73,74.5,1\n"
    )
    own = read_own_bars(csv(tmp_path, HEADER + PLAIN + broken))
    same_bars(own, plain)
    assert own.set_aside == {
        "session is not in the calendar": 2,
        "price is missing or not finite": 2,
        "price is not positive": 2,
        "high is below open, low or close": 1,
        "low is above open or close": 1,
        "volume is missing, negative or not finite": 2,
        "symbol is missing": 1,
    }
    assert "2 rows set aside: price is not positive" in own.sentences


def test_a_broken_repeat_of_a_good_bar_is_no_contradiction(plain: OwnBars, tmp_path: Path) -> None:
    own = read_own_bars(csv(tmp_path, HEADER + PLAIN + "IBM,2020-01-03,,,,,\n"))
    same_bars(own, plain)
    assert own.set_aside == {"price is missing or not finite": 1}


def test_missing_sessions_are_counted_and_do_not_trade(tmp_path: Path) -> None:
    text = "".join(line for line in PLAIN.splitlines(keepends=True) if not line.startswith("IBM,2020-01-03"))
    own = read_own_bars(csv(tmp_path, HEADER + text + "IBM,2020-01-09,127,128,126,127,1\n"))
    assert own.gaps == {"IBM": 3}
    assert "3 sessions missing in 1 name, most of IBM (3); a name does not trade on a session without a bar" in own.sentences
    market = build_market(own.bars, own.actions, symbols=own.symbols)
    row = market.index_of("2020-01-03")
    assert np.isnan(market.close[row, 1])
    assert not market.tradable[row, 1]


# What could be read in two ways, or in none, is refused


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (PLAIN + "IBM,2020-01-03,128.13,129.18,127.71,128.90,2482890\n", "IBM has bars of 2020-01-03 that differ: close is 128.83 ({0} line 6) and 128.9 ({0} line 8); keep the true one"),  # noqa: E501
        (PLAIN + "AAPL,2020-01-02,74.06,75.15,73.80,75.09,135480401\n", "AAPL has bars of 2020-01-02 that differ: volume is 135480400 ({0} line 2) and 135480401 ({0} line 8); keep the true one"),  # noqa: E501
        (PLAIN.replace("128.83", "128,83"), "{0}: cannot be read, "),
        (PLAIN.replace("128.83", "$128.83"), "{0} line 6: close must be a number such as 1234.5, was '$128.83'"),
        (PLAIN.replace("2020-01-03", "01/03/2020"), "{0} line 3: date must be written like 2020-01-02, 20200102 or 2020-01-02T16:00:00-05:00, one way in all rows, was '01/03/2020'"),  # noqa: E501
        (PLAIN.replace("2020-01-03", "20200103"), "{0} line 3: date must be written like 2020-01-02, 20200102 or"),
        (PLAIN.replace("2020-01-03", "2020-02-30"), "{0} line 3: date must be a day of the calendar, was '2020-02-30'"),
        (PLAIN.replace("2020-01-03", "0000-01-03"), "{0} line 3: dates must lie in 1950-01-03 to 2199-12-31, was 0000-01-03"),
        (PLAIN.replace("2020-01-03", "1920-01-03"), "{0} line 3: dates must lie in 1950-01-03 to 2199-12-31, was 1920-01-03"),
        (PLAIN.replace("2020-01-03", "2263-01-09"), "{0} line 3: dates must lie in 1950-01-03 to 2199-12-31, was 2263-01-09"),
        (PLAIN.replace("IBM", "^GSPC"), "{0} line 5: symbol must be up to ten capitals, digits or dots such as BRK.B, was '^GSPC'"),
        (PLAIN.replace("IBM,", "IBM,2020-01-02,"), "{0}: cannot be read, "),
        ("", "{0}: has no row"),
        ("AAPL,2020-01-04,1,1,1,1,1\n", "{0}: no row is a daily bar of a session of the New York Stock Exchange (1 rows: session is not in the calendar)"),  # noqa: E501
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_its_line(text: str, told: str, tmp_path: Path) -> None:
    path = csv(tmp_path, HEADER + text)
    assert refused(path).startswith(told.format(path))


def test_a_time_needs_a_zone_and_a_midnight_must_be_new_yorks(tmp_path: Path) -> None:
    stamped = {"naive": "2020-01-02 09:30:00", "utc": "2020-01-02T00:00:00Z", "berlin": "2020-01-02T00:00:00+01:00"}
    paths = {name: csv(tmp_path, HEADER + f"AAPL,{text},1,1,1,1,1\n", name=f"{name}.csv") for name, text in stamped.items()}
    assert refused(paths["naive"]) == (
        f"{paths['naive']} line 2: date 2020-01-02 09:30:00 has a time and no time zone; write the date alone, or the time with its zone"
    )
    assert refused(paths["utc"]) == (
        f"{paths['utc']} line 2: date 2020-01-02T00:00:00Z is 2020-01-01 19:00 in New York; "
        "if it means the session of 2020-01-02, write the date alone"
    )
    assert "is 2020-01-01 18:00 in New York; if it means the session of 2020-01-02" in refused(paths["berlin"])
    typed = tmp_path / "typed.parquet"
    bar = {"symbol": "AAPL", **dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0)}
    pd.DataFrame([{**bar, "ts": pd.Timestamp("2020-01-02", tz="UTC")}]).to_parquet(typed)
    assert "row 0: date 2020-01-02 00:00:00+00:00 is 2020-01-01 19:00 in New York" in refused(typed)
    pd.DataFrame([{**bar, "ts": pd.Timestamp("2020-01-02 09:30")}]).to_parquet(typed)
    assert "row 0: date 2020-01-02 09:30:00 has a time and no time zone" in refused(typed)


def test_intraday_bars_are_refused(tmp_path: Path) -> None:
    path = csv(tmp_path, HEADER + "AAPL,2020-01-02T14:30:00Z,1,1,1,1,1\nAAPL,2020-01-02T14:31:00Z,1,1,1,1,1\n")
    assert refused(path) == (
        f"{path} line 3: AAPL has another bar within 2020-01-02, at 2020-01-02 14:31:00+00:00; "
        "daily bars are needed, one per name and session"
    )


def test_columns_that_are_not_there_or_there_twice_are_named(tmp_path: Path) -> None:
    path = csv(tmp_path, "ticker,date,open,high,low,last,volume\n" + PLAIN)
    assert refused(path) == (
        f"{path}: no column for close, there are ticker, date, open, high, low, last, volume; close may be called close, c, close_price"
    )
    path = csv(tmp_path, "ticker,symbol,date,open,high,low,close,volume\n" + "".join(f"X,{line}\n" for line in PLAIN.splitlines()))
    assert refused(path) == f"{path}: columns ticker and symbol may both be the symbol; drop or rename all but one"
    path = csv(tmp_path, "symbol,date,open,high,low,close,close,volume\nX,2020-01-02,1,1,1,1,2,1\n")
    assert refused(path) == f"{path}: columns close and close.1 may both be the close; drop or rename all but one"
    path = csv(tmp_path, "date,open,high,low,close,volume\n2020-01-02,1,1,1,1,1\n")
    assert refused(path).endswith("without a symbol column, give a folder with one file per name")


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "gone.csv").endswith("or a folder of them; there is nothing of that name")
    assert refused(csv(tmp_path, "x", name="bars.xlsx")).endswith("must be a .csv, .csv.gz or .parquet file, or a folder of them")
    assert "cannot be read" in refused(csv(tmp_path, "not parquet", name="bars.parquet"))
    assert "cannot be read" in refused(csv(tmp_path, "not gzip", name="bars.csv.gz"))
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + "AÄPL,2020-01-02,1,1,1,1,1\n".encode("latin-1"))
    assert "cannot be read" in refused(tmp_path / "latin.csv")
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty").endswith("holds no .csv, .csv.gz or .parquet file")


# Splits and dividends count once

ADJUSTED = (
    "symbol,date,open,high,low,close,volume,Dividends,Stock Splits\n"
    "AAPL,2020-08-27,127.1,127.5,123.8,125.0,155552400,0.0,0.0\n"
    "AAPL,2020-08-28,126.0,126.4,124.6,124.8,187630000,0.0,0.0\n"
    "AAPL,2020-08-31,127.6,131.0,126.0,129.0,225702700,0.205,4.0\n"
)
RAW = (
    "symbol,date,open,high,low,close,volume,Dividends,Stock Splits\n"
    "AAPL,2020-08-27,508.6,509.9,495.3,500.0,38888100,0.0,0.0\n"
    "AAPL,2020-08-28,504.0,505.8,498.3,499.2,46907500,0.0,0.0\n"
    "AAPL,2020-08-31,127.6,131.0,126.0,129.0,225702700,0.205,4.0\n"
)


def test_columns_beside_the_prices_need_a_word(tmp_path: Path) -> None:
    path = csv(tmp_path, ADJUSTED)
    assert refused(path) == (
        f"{path}: dividend, split beside the prices, so say which they are: --adjusted (continuous across splits and dividends) "
        "or --raw (as they were traded)"
    )
    read_own_bars(csv(tmp_path, ADJUSTED.replace("0.205,4.0", ",1.0")))  # no event in any row: nothing to say


def test_adjusted_prices_have_no_actions(tmp_path: Path) -> None:
    own = read_own_bars(csv(tmp_path, ADJUSTED), adjusted=True)
    assert own.actions.empty
    assert own.sentences[-1] == "dividend, split not used, for prices are adjusted"
    market = build_market(own.bars, own.actions, symbols=own.symbols)
    assert (market.split == 1).all()
    assert (market.dividend == 0).all()


def test_raw_prices_take_the_actions_beside_them(tmp_path: Path) -> None:
    own = read_own_bars(csv(tmp_path, RAW), adjusted=False)
    found = [(row.symbol, str(row.ex_date.date()), row.kind, row.value) for row in own.actions.itertuples()]
    assert found == [("AAPL", "2020-08-31", "split", 4.0), ("AAPL", "2020-08-31", "dividend", 0.205)]
    assert own.remarks == ()


def test_a_split_that_the_prices_are_adjusted_for_is_refused(tmp_path: Path) -> None:
    path = csv(tmp_path, ADJUSTED)
    assert refused(path, adjusted=False) == (
        f"{path}: AAPL splits 4 for 1 on 2020-08-31, but its price went from 124.8 to 127.6, so it is adjusted for it already; "
        "say --adjusted, or leave such splits out"
    )


def test_an_adjusted_close_scales_the_prices_or_is_left_out(tmp_path: Path) -> None:
    lines = HEADER.strip() + ",Adj Close\nAAPL,2020-01-02,74,76,73,75,10,37.5\nAAPL,2020-01-03,74,75,73,74,20,74\n"
    path = csv(tmp_path, lines)
    assert "adjusted_close beside the prices" in refused(path)
    scaled, raw = (read_own_bars(path, adjusted=adjusted).bars for adjusted in (True, False))
    assert scaled[["open", "high", "low", "close", "volume"]].to_numpy().tolist() == [[37.0, 38.0, 36.5, 37.5, 10], [74, 75, 73, 74, 20]]
    assert raw["open"].tolist() == [74, 74]


def test_a_split_that_was_left_out_is_remarked(tmp_path: Path) -> None:
    own = read_own_bars(csv(tmp_path, RAW.replace("0.205,4.0", "0,0")))
    assert own.remarks == (
        "1 overnight move beyond 1.45 to 1 without a split, the first of AAPL on 2020-08-31, 499.2 to 127.6: were splits left out?",
    )


def test_actions_come_from_a_file_of_their_own(tmp_path: Path) -> None:
    path = csv(tmp_path, RAW)
    actions = csv(tmp_path, "Symbol,Ex Date,Type,Ratio\nAAPL,2020-08-31,Split,4\n", name="actions.csv")
    own = read_own_bars(path, actions=actions)
    assert [(row.symbol, str(row.ex_date.date()), row.kind, row.value) for row in own.actions.itertuples()] == [
        ("AAPL", "2020-08-31", "split", 4.0)
    ]
    assert own.sentences[-1] == "dividend, split not used, for the actions are given"
    assert refused(path, adjusted=True, actions=actions).endswith("with --adjusted it would count splits and dividends twice")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("symbol,date,kind,value\nAAPL,2020-08-31,merger,4\n", "{0} line 2: kind must be split or dividend, was 'merger'"),
        ("symbol,date,kind,value\nAAPL,2020-08-31,split,0\n", "{0}: a corporate action needs an ex-date, a kind of split or dividend and a finite value > 0, was AAPL"),  # noqa: E501
        ("symbol,date,kind,value\nAAPL,soon,split,4\n", "{0} line 2: ex_date must be written like"),
        ("symbol,date,kind,value\nAAPL,2020-08-31,split,four\n", "{0} line 2: value must be a number such as 1234.5, was 'four'"),
        ("symbol,kind,value\nAAPL,split,4\n", "{0}: no column for ex_date; symbol, ex_date, kind, value are needed"),
    ],
)  # fmt: skip
def test_actions_that_cannot_be_read_are_refused(text: str, told: str, tmp_path: Path) -> None:
    actions = csv(tmp_path, text, name="actions.csv")
    assert refused(csv(tmp_path, RAW), actions=actions).startswith(told.format(actions))


def test_the_bundled_bars_read_as_a_users_file_build_the_same_market(tmp_path: Path) -> None:
    daily, events = bundled.daily_bars(), bundled.corporate_actions()
    symbols = ["AAPL", "IBM"]
    path, actions = tmp_path / "bars.csv", tmp_path / "actions.csv"
    daily[daily["symbol"].isin(symbols) & daily["session"].ge("2018-01-01")].to_csv(path, index=False)
    events[events["symbol"].isin(symbols)].to_csv(actions, index=False)
    own = read_own_bars(path, actions=actions)
    ours = build_market(daily[daily["session"].ge("2018-01-01")], events, symbols=symbols)
    theirs = build_market(own.bars, own.actions, symbols=own.symbols)
    for name in ("sessions", "open", "close", "volume", "split", "dividend", "features", "tradable"):
        np.testing.assert_array_equal(getattr(theirs, name), getattr(ours, name))
    assert own.remarks == ()
