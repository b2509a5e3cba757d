"""Lumibot's own BuyAndHold and LifecycleLogger on its Alpaca broker, given the URL of an exchange: `lumibot_bot.py URL NAME`.

The bot dates by its own clock, which time-machine sets to the exchange's; a thread moves the exchange along. Prints one JSON line.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from datetime import UTC, datetime
from enum import StrEnum

os.environ |= {"IS_BACKTESTING": "false", "LUMIBOT_DISABLE_DOTENV": "1"}

import requests
import time_machine

URL, NAME = sys.argv[1:]
START = datetime(2013, 10, 4, 14, 0, 52, tzinfo=UTC)  # an iteration begins with the minute


class BaseURL(StrEnum):
    TRADING_PAPER = TRADING_LIVE = DATA = URL
    TRADING_STREAM_PAPER = TRADING_STREAM_LIVE = URL.replace("http", "ws", 1) + "/stream"


def follow() -> None:
    while True:
        requests.post(f"{URL}/admin/clock", json={"now": datetime.now(UTC).isoformat()}, timeout=10)
        time.sleep(0.5)


def main() -> None:
    import alpaca.data.historical
    import alpaca.trading.client
    import alpaca.trading.stream  # noqa: F401 Lumibot imports it later, when it is too late

    for module in [module for name, module in sys.modules.items() if name.startswith("alpaca.") and hasattr(module, "BaseURL")]:
        module.BaseURL = BaseURL

    from lumibot.brokers import Alpaca
    from lumibot.example_strategies.lifecycle_logger import LifecycleLogger
    from lumibot.example_strategies.stock_bracket import StockBracket
    from lumibot.example_strategies.stock_buy_and_hold import BuyAndHold
    from lumibot.traders import Trader

    called: list[str] = []

    class Watched(BuyAndHold):
        def on_new_order(self, order):
            called.append(f"new {order.side}")

        def on_filled_order(self, position, order, price, quantity, multiplier):
            called.append(f"filled {order.side}")
            if order.side == "buy":
                self.submit_order(self.create_order("IBM", 5, "sell"))

    class Bracket(StockBracket):
        def on_new_order(self, order):
            called.append(f"new {order.side}")

        def on_filled_order(self, position, order, price, quantity, multiplier):
            called.append(f"filled {order.side}")
            requests.post(f"{URL}/admin/clock", json={"now": "2013-10-04T14:40:00Z"}, timeout=10)
            called.append("later")

    class Logger(LifecycleLogger):
        def on_trading_iteration(self):
            super().on_trading_iteration()
            called.append("iteration")

    broker = Alpaca({"API_KEY": "local-key", "API_SECRET": "local-secret", "PAPER": True})
    trader = Trader(logfile="", backtest=False)
    if NAME == "BuyAndHold":
        trader.add_strategy(Watched(broker=broker, parameters={"buy_symbol": "IBM"}))
    elif NAME == "StockBracket":
        prices = {"take_profit_price": 184.50, "stop_loss_price": 180}
        trader.add_strategy(Bracket(broker=broker, parameters={"buy_symbol": "IBM", "quantity": 10, **prices}))
    else:
        trader.add_strategy(Logger(broker=broker, parameters={"sleeptime": "1s", "market": "24/7"}))
    trader.run_all(async_=True)
    deadline = time.monotonic() + 70
    while time.monotonic() < deadline and not ("filled sell" in called or "later" in called or called.count("iteration") == 3):
        time.sleep(0.1)
    print(json.dumps({"called": called}), flush=True)
    os._exit(0)


with time_machine.travel(START, tick=True):
    threading.Thread(target=follow, daemon=True).start()
    main()
