"""alpaca-trade-api's README, given the URL of an exchange: `legacy_client.py URL`. Prints one JSON line."""

from __future__ import annotations

import json
import os
import sys
import threading
import time

EXCHANGE = sys.argv[1]
os.environ |= {"APCA_API_BASE_URL": EXCHANGE, "APCA_API_DATA_URL": EXCHANGE, "APCA_API_STREAM_URL": EXCHANGE.replace("http", "ws", 1)}
os.environ |= {"APCA_API_KEY_ID": "local-key", "APCA_API_SECRET_KEY": "local-secret"}

import requests
from alpaca_trade_api.rest import REST, TimeFrame
from alpaca_trade_api.stream import Stream

api = REST(api_version="v2")
stream = Stream(data_feed="iex")
events: list[str] = []
market: dict[str, int] = {"trades": 0, "quotes": 0, "bars": 0}


async def on_order(update):
    events.append(f"{update.event} {update.order['side']}")


async def on_trade(trade):
    market["trades"] += 1


async def on_quote(quote):
    market["quotes"] += 1


async def on_bar(bar):
    market["bars"] += 1


stream.subscribe_trade_updates(on_order)
stream.subscribe_trades(on_trade, "IBM")
stream.subscribe_quotes(on_quote, "IBM")
stream.subscribe_bars(on_bar, "IBM")
threading.Thread(target=stream.run, daemon=True).start()
time.sleep(2)

account = api.get_account()
order = api.submit_order(symbol="IBM", qty=3, side="buy", type="market", time_in_force="day")
resting = api.submit_order(symbol="IBM", qty=1, side="sell", type="limit", time_in_force="day", limit_price="500")
api.cancel_order(resting.id)
requests.post(f"{EXCHANGE}/admin/clock", json={"now": "2013-10-04T14:31:00Z"}, timeout=10)
position = api.get_position("IBM")
bars = api.get_bars("IBM", TimeFrame.Minute, "2013-10-04", "2013-10-04")
deadline = time.monotonic() + 20
while time.monotonic() < deadline and (len(events) < 4 or market["bars"] < 30):
    time.sleep(0.1)
found = {"status": account.status, "held": position.qty, "listed": len(bars), "events": events, "market": market}
print(json.dumps(found), flush=True)
os._exit(0)
