"""What is known of a symbol beside its prices: name, primary exchange and tape. A symbol that is not listed here has its own name, is
traded over the counter, and prints on tape C."""

from __future__ import annotations

from uuid import uuid5

from local.exchange.orders import NAMESPACE

LISTINGS = {
    "AAPL": ("Apple Inc. Common Stock", "NASDAQ", "C"),
    "AIG": ("American International Group, Inc. Common Stock", "NYSE", "A"),
    "BAC": ("Bank of America Corporation Common Stock", "NYSE", "A"),
    "FB": ("Facebook, Inc. Class A Common Stock", "NASDAQ", "C"),
    "GOOG": ("Alphabet Inc. Class C Capital Stock", "NASDAQ", "C"),
    "GOOGL": ("Alphabet Inc. Class A Common Stock", "NASDAQ", "C"),
    "IBM": ("International Business Machines Corporation Common Stock", "NYSE", "A"),
    "IWM": ("iShares Russell 2000 ETF", "ARCA", "B"),
    "QQQ": ("Invesco QQQ Trust, Series 1", "NASDAQ", "C"),
    "SPY": ("SPDR S&P 500 ETF Trust", "ARCA", "B"),
}


def asset_id(symbol: str) -> str:
    return str(uuid5(NAMESPACE, f"asset {symbol}"))


def name_of(symbol: str) -> str:
    return LISTINGS[symbol][0] if symbol in LISTINGS else symbol


def exchange_of(symbol: str) -> str:
    return LISTINGS[symbol][1] if symbol in LISTINGS else "OTC"


def tape_of(symbol: str) -> str:
    return LISTINGS[symbol][2] if symbol in LISTINGS else "C"
