"""`papertape bars`: from a vendor's server to a file that the other commands read, or one line and no file."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from papertape import command_line
from papertape.market_data.own_bars import read_own_bars
from papertape.market_data.vendors import VENDORS, bar_source
from sources.port import SourceRefused
from tests.price_vendors import KEY, NOW, SECRET, AlpacaVendor, VendorServer, YahooVendor, serving, yfinance_at

KEYS = {"ALPACA_KEY_ID": KEY, "ALPACA_SECRET_KEY": SECRET}
SPAN = ("--start", "2020-08-03", "--end", "2020-09-02")


@pytest.fixture
def alpaca() -> Iterator[VendorServer]:
    with serving(AlpacaVendor()) as server:
        yield server


def call(*arguments: str, environ: dict[str, str]) -> Result:
    names = ("ALPACA_KEY_ID", "ALPACA_SECRET_KEY", "ALPHAVANTAGE_KEY", "FINNHUB_KEY", "AWS_LAMBDA_FUNCTION_NAME")
    return CliRunner(env={"COLUMNS": "200", **dict.fromkeys(names), **environ}).invoke(command_line.app, ["bars", *arguments])


def test_raw_bars_with_their_events_are_written_and_the_next_command_is_said(alpaca: VendorServer, tmp_path: Path) -> None:
    out = tmp_path / "mine.parquet"
    result = call("AAPL,brk-b", *SPAN, "--out", str(out), environ={**KEYS, "ALPACA_DATA_URL": alpaca.url})
    assert result.exit_code == 0, result.output
    assert "46 daily bars of 2 names, 2020-08-03 to 2020-09-02" in result.stdout
    assert f"next: papertape evaluate --bars {out} --raw" in result.stdout
    held = read_own_bars(out, adjusted=False)
    events = [(event.symbol, str(event.ex_date.date()), event.kind, event.value) for event in held.actions.itertuples()]
    assert sorted(events) == [("AAPL", "2020-08-07", "dividend", 0.82), ("AAPL", "2020-08-31", "split", 4.0)]
    again = call("AAPL", *SPAN, "--out", str(out), environ={**KEYS, "ALPACA_DATA_URL": alpaca.url})
    assert (again.exit_code, again.stderr) == (1, f"papertape: --out {out}: is there already; remove it or choose another name\n")


def test_what_is_written_trades(alpaca: VendorServer, tmp_path: Path) -> None:
    """The next command reads the file as it is, and a split is no fall."""
    out = tmp_path / "mine.parquet"
    call(
        "AAPL", "BRK.B", "--start", "2018-01-02", "--end", "2020-09-02", "--out", str(out), environ={**KEYS, "ALPACA_DATA_URL": alpaca.url}
    )
    result = CliRunner(env={"COLUMNS": "200"}).invoke(command_line.app, ["backtest", "--bars", str(out), "--raw"])
    assert result.exit_code == 0, result.output
    assert "1,346 daily bars of 2 names, 2018-01-02 to 2020-09-02" in result.stdout
    drawdown = next(line for line in result.stdout.splitlines() if "drawdown" in line)
    assert re.search(r"[1-9][0-9]\.", drawdown) is None, drawdown


def test_adjusted_bars_need_no_flag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "mine.csv"
    with serving(YahooVendor()) as server:
        monkeypatch.setitem(sys.modules, "yfinance", yfinance_at(lambda: server.url))
        result = call("AAPL", "--from", "yahoo", *SPAN, "--out", str(out), environ={})
    assert result.exit_code == 0, result.output
    assert result.stdout.rstrip().endswith(f"next: papertape evaluate --bars {out}")
    assert len(read_own_bars(out).bars) == 23


@pytest.mark.parametrize(
    ("arguments", "environ", "told"),
    [
        (("AAPL",), {}, "alpaca: ALPACA_KEY_ID is not set; export ALPACA_KEY_ID=... with your own key"),
        (("AAPL",), {"ALPACA_KEY_ID": KEY}, "alpaca: ALPACA_SECRET_KEY is not set"),
        (("AAPL", "--from", "alphavantage"), {}, "alphavantage: ALPHAVANTAGE_KEY is not set"),
        (
            ("AAPL", "--from", "alphavantage"),
            {"ALPHAVANTAGE_KEY": KEY, "ALPHAVANTAGE_PER_MINUTE": "many"},
            "your paid plan, such as 75, was 'many'",
        ),
        (("AAPL", "--from", "finnhub"), {}, "finnhub: FINNHUB_KEY is not set"),
        (("AAPL", "--from", "ibkr"), {"IBKR_URL": "https://api.ibkr.com/v1/api"}, "ibkr: IBKR_TOKEN is missing"),
        (("AAPL", "--from", "ibkr"), {"IBKR_URL": "http://10.0.0.1:5000"}, "or the gateway on this machine"),
        (("AAPL",), {**KEYS, "ALPACA_DATA_URL": "https://elsewhere.example"}, "ALPACA_DATA_URL may be https://data.alpaca.markets or"),
        (
            ("AAPL", "--from", "yahoo"),
            {"AWS_LAMBDA_FUNCTION_NAME": "report"},
            "yahoo: for personal use only, by its terms; a deployed function",
        ),
        (("A$PL",), KEYS, "symbols must be up to ten capitals, digits or dots such as AAPL BRK.B, was A$PL"),
        ((",",), KEYS, "was none"),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(arguments: tuple[str, ...], environ: dict[str, str], told: str, tmp_path: Path) -> None:
    result = call(*arguments, *SPAN, "--out", str(tmp_path / "mine.csv"), environ=environ)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert told in result.stderr
    assert KEY not in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "told"), [("mine.txt", "must end in .parquet or .csv"), ("no/mine.csv", "there is no folder")])
def test_a_file_that_cannot_be_written_is_refused_at_once(alpaca: VendorServer, tmp_path: Path, name: str, told: str) -> None:
    result = call("AAPL", *SPAN, "--out", str(tmp_path / name), environ={**KEYS, "ALPACA_DATA_URL": alpaca.url})
    assert told in result.stderr
    assert alpaca.requests == []


def test_yahoo_without_yfinance_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yfinance", None)
    with pytest.raises(SourceRefused, match=r"yahoo: yfinance is not installed; pip install yfinance==1.7.0"):
        bar_source("yahoo", environ={}, now=NOW)


def test_help_names_each_vendor_and_each_key() -> None:
    shown = call("--help", environ={}).stdout
    for word in (*VENDORS, *KEYS, "ALPHAVANTAGE_KEY", "FINNHUB_KEY", "IBKR_URL", "IBKR_TOKEN", "yfinance==1.7.0", "Examples:"):
        assert word in shown
