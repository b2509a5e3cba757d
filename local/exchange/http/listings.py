"""What is known of a symbol beside its prices: name, primary exchange and tape.

A symbol that is not listed here has its own name, and an exchange by what is usual: well-known funds ARCA, tickers of one to three letters
NYSE (with a class, as BRK.B, too), longer ones NASDAQ. It is a guess, so that a bot which filters by exchange finds something.
"""

from __future__ import annotations

from uuid import uuid5

from local.exchange.orders import NAMESPACE

LISTINGS = {
    "AAPL": ("Apple Inc. Common Stock", "NASDAQ"),
    "AIG": ("American International Group, Inc. Common Stock", "NYSE"),
    "BAC": ("Bank of America Corporation Common Stock", "NYSE"),
    "FB": ("Facebook, Inc. Class A Common Stock", "NASDAQ"),
    "GOOG": ("Alphabet Inc. Class C Capital Stock", "NASDAQ"),
    "GOOGL": ("Alphabet Inc. Class A Common Stock", "NASDAQ"),
    "IBM": ("International Business Machines Corporation Common Stock", "NYSE"),
    "IWM": ("iShares Russell 2000 ETF", "ARCA"),
    "QQQ": ("Invesco QQQ Trust, Series 1", "NASDAQ"),
    "SPY": ("SPDR S&P 500 ETF Trust", "ARCA"),
}


FUNDS = """
AGG ARKK BND DIA EEM EFA GDX GLD HYG IJH IJR IVV IWD IWF LQD RSP SCHD SLV SMH SPLG SSO TIP TNA UNG USO UVXY VEA VGK VIXY VNQ VOO VTI VTV VUG
VWO VXX VYM XBI XLB XLC XLE XLF XLI XLK XLP XLRE XLU XLV XLY XOP XRT
"""
#: Funds of NYSE Arca that bots like.
ARCA = frozenset(FUNDS.split())
TAPES = {"NYSE": "A", "ARCA": "B", "NASDAQ": "C"}


def asset_id(symbol: str) -> str:
    return str(uuid5(NAMESPACE, f"asset {symbol}"))


def name_of(symbol: str) -> str:
    return LISTINGS[symbol][0] if symbol in LISTINGS else symbol


def exchange_of(symbol: str) -> str:
    if symbol in LISTINGS:
        return LISTINGS[symbol][1]
    root = symbol.partition(".")[0].partition("-")[0]
    return "ARCA" if symbol in ARCA else "NYSE" if len(root) <= 3 else "NASDAQ"


def tape_of(symbol: str) -> str:
    return TAPES[exchange_of(symbol)]
