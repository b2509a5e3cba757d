"""The command that gets daily bars from a vendor; it joins the command line when it runs."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from papertape.command_line import in_plain_words
from papertape.options import examples

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
KEYS = (
    "Keys come from the environment: alpaca ALPACA_KEY_ID and ALPACA_SECRET_KEY; alphavantage ALPHAVANTAGE_KEY (ALPHAVANTAGE_PER_MINUTE: "
    "of a paid plan); finnhub FINNHUB_KEY (bars need a paid plan); ibkr none with the gateway on this machine (IBKR_URL, "
    "http://127.0.0.1:5000/v1/api), IBKR_TOKEN with https://api.ibkr.com/v1/api; yahoo none, but pip install yfinance==1.7.0, for "
    "personal use only."
)


class From(StrEnum):
    """Who is asked."""

    ALPACA = "alpaca"
    ALPHAVANTAGE = "alphavantage"
    FINNHUB = "finnhub"
    IBKR = "ibkr"
    YAHOO = "yahoo"


def _day(text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(help=text, formats=["%Y-%m-%d"], metavar="YYYY-MM-DD")
    return option


@app.command(
    epilog="\n\n".join(
        [
            KEYS,
            examples(
                "bars --from yahoo AAPL MSFT --start 2016-01-04 --out mine.parquet",
                "bars --from alpaca SPY,QQQ --start 2018-01-02 --end 2023-12-29 --out mine.csv",
            ),
        ]
    )
)
def bars(
    symbols: Annotated[list[str], typer.Argument(help="Symbols: AAPL MSFT, or AAPL,MSFT.", show_default=False)],
    start: Annotated[datetime, _day("The first session.")],
    out: Annotated[Path, typer.Option(help="The file to write: .parquet or .csv.", show_default=False)],
    source: Annotated[From, typer.Option("--from", help="Who is asked.")] = From.ALPACA,
    end: Annotated[datetime | None, _day("The last session; by default the last that has closed.")] = None,
) -> None:
    """Get daily bars from a vendor into a file for `evaluate --bars`; it is written whole, or not at all."""
    with in_plain_words(interrupted="interrupted; nothing was written"):
        from rich.console import Console

        from papertape.market_data import vendors

        now, console = datetime.now(UTC), Console()
        vendor = vendors.bar_source(source.value, environ=os.environ, now=now)
        console.print(f"asking {vendor.name}", highlight=False)
        last = end.date() if end else None
        written = vendors.write_bars(vendor, symbols, start=start.date(), end=last, out=out, now=now)
        written_to = f"written: {out}\nnext: papertape evaluate --bars {out}{' --raw' if written.raw else ''}"
        for line in (*written.held.sentences, *written.remarks, written_to):
            console.print(line, highlight=False, markup=False)
