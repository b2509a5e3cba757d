"""`python -m local.exchange`: the exchange in the foreground.

Ready is one JSON line on standard output: port, pid, and what is served. A start that fails exits with 2 after one line on standard error
(on standard output, in place of the ready line, when a program waits for it with --parent-pid). The accepted key pair is read from the
environment, PAPERTAPE_EXCHANGE_KEY_ID and PAPERTAPE_EXCHANGE_SECRET_KEY; without them it is local-key and local-secret.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from local.exchange.server import KEY_VARIABLE, ROOT, SECRET_VARIABLE, ExchangeConfig, ExchangeError
from local.exchange.serving import serve


def main() -> int:
    options = _options().parse_args()
    config = ExchangeConfig(
        now=options.now,
        cash=options.cash,
        port=options.port,
        data=options.data,
        fee_bps=options.fee_bps,
        slippage_bps=options.slippage_bps,
        dividends=options.dividends,
        actions=options.actions,
        journal=options.journal,
        faults=options.faults,
        speed=options.speed,
        fills=options.fills,
        minutes=options.minutes,
        quotes=options.quotes,
        key_id=os.environ.get(KEY_VARIABLE, "local-key"),
        secret_key=os.environ.get(SECRET_VARIABLE, "local-secret"),
    )
    try:
        serve(config, ready_file=options.ready_file, parent_pid=options.parent_pid)
    except ExchangeError as error:
        print(error, file=sys.stderr if options.parent_pid is None else sys.stdout, flush=True)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local.exchange", description="An Alpaca-compatible paper exchange over recorded data.")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 (default) picks a free one")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="the bundled data (default), or raw daily bars of your own")
    parser.add_argument("--now", help="the clock's start, RFC 3339; by default 9:35 on a day with a year of data before it")
    parser.add_argument("--cash", default="100000", help="US dollars to start with")
    parser.add_argument("--fee-bps", default="0", help="fee of one side, in basis points of the amount traded")
    parser.add_argument("--slippage-bps", default="0", help="what a fill is worse than the last trade, in basis points")
    parser.add_argument("--dividends", choices=("ignore", "credit"), default="ignore", help="paper accounts get none (default)")
    parser.add_argument(
        "--actions", choices=("announced", "processed"), default="announced", help="list dividends from the ex-date (default), or when paid"
    )
    parser.add_argument("--journal", type=Path, help="file that keeps the account across restarts")
    parser.add_argument("--faults", type=Path, help="a fault plan, TOML: see docs/exchange.md")
    parser.add_argument("--speed", default="0", help="market seconds per second; 0 (default): only POST /admin/clock moves the clock")
    parser.add_argument("--fills", choices=("after", "answer"), default="after", help="when an order meets the price: see docs/exchange.md")
    parser.add_argument(
        "--minutes", choices=("recorded", "made"), default="recorded", help="made: from daily bars where none are recorded; no evidence"
    )
    parser.add_argument("--quotes", choices=("spread", "trade"), default="spread", help="of made minutes: around the trade, or at it")
    parser.add_argument("--ready-file", type=Path, help="written with the ready line once the server listens")
    parser.add_argument("--parent-pid", type=int, help="end when this process is no longer the parent")
    return parser


if __name__ == "__main__":
    sys.exit(main())
