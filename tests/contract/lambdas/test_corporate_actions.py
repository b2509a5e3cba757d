"""Every kind of corporate action that the vendor lists, in its own examples, as the port's rows; and what is asked to get them."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from requests.adapters import BaseAdapter

from lambdas.common.broker.alpaca import AlpacaBroker, Credentials
from lambdas.common.broker.port import BrokerUnavailable
from trading_env.data.corporate_actions import ACTION_RULES, BREAK

SPEC = Path(__file__).resolve().parents[1] / "specs" / "alpaca_market-data-api.json"
SCHEMAS: dict[str, Any] = json.loads(SPEC.read_text(encoding="utf-8"))["components"]["schemas"]
URL = "http://127.0.0.1:1"
#: The two kinds of which the vendor's description has no example: what it requires of them.
EXAMPLES = {
    "partial_call": {"id": "a", "symbol": "ABC", "process_date": "2024-03-04", "price": 25.0},
    "reorganization": {"id": "b", "symbol": "ABC", "cusip": "1", "process_date": "2024-03-05", "effective_date": "2024-03-04"},
} | {kind: SCHEMAS[kind]["example"] for kind in ACTION_RULES if "example" in SCHEMAS[kind]}
#: Who is affected and from when, and by how much where it is applied.
EXPECTED = {
    "forward_split": ("SRE", "2023-08-22", 2.0),
    "reverse_split": ("MNTS", "2023-08-24", 0.02),
    "unit_split": ("TPBAU", "2023-03-01", None),
    "stock_dividend": ("MSBC", "2023-05-19", 1.05),
    "cash_dividend": ("FCF", "2023-05-04", 0.125),
    "spin_off": ("JUPW", "2023-08-15", None),
    "cash_merger": ("GLOP", "2023-07-17", None),
    "stock_merger": ("LSI", "2023-07-20", None),
    "stock_and_cash_merger": ("MLVF", "2023-07-18", None),
    "redemption": ("ORPHY", "2023-06-13", None),
    "name_change": ("BSAQ", "2023-08-15", None),
    "worthless_removal": ("BLPH", "2024-12-19", None),
    "rights_distribution": ("IFN", "2024-04-17", None),
    "partial_call": ("ABC", "2024-03-04", None),
    "reorganization": ("ABC", "2024-03-04", None),
}


class Wire(BaseAdapter):
    """Answers each question for corporate actions with `lists`; one whose `end` lies after `latest` is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.lists: dict[str, list[Any]] = {}
        self.latest = "9999-12-31"
        self.asked: list[dict[str, str]] = []

    def send(self, request: requests.PreparedRequest, *_args: Any, **_options: Any) -> requests.Response:
        query = {name: values[0] for name, values in parse_qs(urlsplit(str(request.url)).query).items()}
        self.asked.append(query)
        response = requests.Response()
        allowed = query["end"] <= self.latest
        response.status_code = 200 if allowed else 422
        body = {"corporate_actions": self.lists, "next_page_token": None} if allowed else {"message": "end must not be in the future"}
        response._content = json.dumps(body).encode()
        return response

    def close(self) -> None:
        pass


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def broker(wire: Wire) -> AlpacaBroker:
    broker = AlpacaBroker(credentials=Credentials(key_id="k", secret_key="s"), trading_url=URL, data_url=URL)
    broker._actions._session.mount(URL, wire)
    return broker


def rows(broker: AlpacaBroker, *symbols: str, start: str = "2023-01-01", end: str = "2024-12-31") -> list[dict[str, Any]]:
    return broker.corporate_actions(list(symbols), date.fromisoformat(start), date.fromisoformat(end))


@pytest.mark.parametrize("kind", sorted(ACTION_RULES))
def test_each_kind_is_applied_or_breaks_the_series_of_whom_it_affects(broker: AlpacaBroker, wire: Wire, kind: str) -> None:
    wire.lists = {f"{kind}s": [EXAMPLES[kind]]}
    symbol, day, value = EXPECTED[kind]
    (row,) = rows(broker, symbol)
    assert (row["symbol"], row["ex_date"], row["action"], row["id"]) == (symbol, day, kind, EXAMPLES[kind]["id"])
    assert row["kind"] == ACTION_RULES[kind].effect
    assert row["value"] == (None if value is None else pytest.approx(value))
    others = {text for name, text in EXAMPLES[kind].items() if name.endswith("symbol")} - {symbol}
    assert rows(broker, "SPY", *others) == [], "who buys, or is spun off, is as before"


def test_a_kind_that_is_not_documented_breaks_the_series_too(broker: AlpacaBroker, wire: Wire) -> None:
    wire.lists = {"conjurings": [{"id": "c", "symbol": "SPY", "process_date": "2024-03-04"}]}
    assert [(row["kind"], row["action"]) for row in rows(broker, "SPY")] == [(BREAK, "conjuring")]


@pytest.mark.parametrize(
    ("kind", "change", "found"),
    [
        ("cash_dividend", {"currency": "CAD"}, [(BREAK, None)]),
        ("cash_dividend", {"currency": "USD"}, [("dividend", 0.125)]),
        ("cash_dividend", {"rate": 0}, []),
        ("reverse_split", {"new_symbol": ""}, [("split", 0.02)]),
        ("reverse_split", {"new_symbol": "MNTX"}, [(BREAK, None)]),
        ("name_change", {"new_symbol": "BSAQ"}, []),
    ],
)
def test_what_changes_the_rule(broker: AlpacaBroker, wire: Wire, kind: str, change: dict[str, Any], found: list[Any]) -> None:
    wire.lists = {f"{kind}s": [{**EXAMPLES[kind], **change}]}
    assert [(row["kind"], row["value"]) for row in rows(broker, EXPECTED[kind][0])] == found


@pytest.mark.parametrize("change", [{"rate": -0.1}, {"rate": "much"}, {"ex_date": "soon"}, {"id": None, "rate": None}])
def test_an_action_that_cannot_be_read_tells_nothing(broker: AlpacaBroker, wire: Wire, change: dict[str, Any]) -> None:
    wire.lists = {"cash_dividends": [{**EXAMPLES["cash_dividend"], **change}]}
    with pytest.raises(BrokerUnavailable, match="cash_dividends"):
        rows(broker, "FCF")


def test_what_is_processed_weeks_around_the_ex_dates_is_asked_for_and_the_rest_left_out(broker: AlpacaBroker, wire: Wire) -> None:
    early, late = ({**EXAMPLES["cash_dividend"], "id": day, "ex_date": day} for day in ("2023-04-30", "2023-06-01"))
    wire.lists = {"cash_dividends": [early, EXAMPLES["cash_dividend"], EXAMPLES["cash_dividend"], late]}
    (row,) = rows(broker, "FCF", start="2023-05-01", end="2023-05-31")
    assert row["ex_date"] == "2023-05-04"
    assert [(asked["start"], asked["end"]) for asked in wire.asked] == [("2023-01-01", "2023-09-28")]


def test_a_vendor_that_does_not_look_ahead_is_asked_up_to_the_last_ex_date(broker: AlpacaBroker, wire: Wire) -> None:
    wire.lists, wire.latest = {"cash_dividends": [EXAMPLES["cash_dividend"]]}, "2023-05-31"
    assert len(rows(broker, "FCF", start="2023-05-01", end="2023-05-31")) == 1
    assert [asked["end"] for asked in wire.asked] == ["2023-09-28", "2023-05-31"]
    wire.latest = "2023-05-30"
    with pytest.raises(BrokerUnavailable, match="end must not be in the future"):
        rows(broker, "FCF", start="2023-05-01", end="2023-05-31")
