"""What an account sets and watches, what was announced, and the day's movers, as the vendor's client reads them."""

from __future__ import annotations

from datetime import date, datetime

import pytest
from alpaca.common.exceptions import APIError
from alpaca.trading.enums import CorporateActionType
from alpaca.trading.requests import CreateWatchlistRequest, GetCorporateAnnouncementsRequest, UpdateWatchlistRequest

from tests.exchanges import URL, ExchangeClient, refusal

CONFIGURATIONS = "/v2/account/configurations"


def test_trading_can_be_suspended_and_taken_up() -> None:
    client = ExchangeClient()
    known = client.trading.get_account_configurations()
    known.suspend_trade = True
    assert client.trading.set_account_configurations(known).suspend_trade
    assert client.trading.get_account().trade_suspended_by_user
    assert refusal(client.send()) == (403, 40310000, "new orders are rejected by user request")
    assert client.http.patch(URL + CONFIGURATIONS, json={"suspend_trade": False}).status_code == 200
    assert client.send().status_code == 200


def test_fractions_can_be_switched_off() -> None:
    client = ExchangeClient()
    client.http.patch(URL + CONFIGURATIONS, json={"fractional_trading": False})
    for order in ({"qty": "1.5"}, {"notional": "50"}):
        assert refusal(client.send(**order)) == (403, 40310000, "fractional trading is disabled by the account's configurations")
    assert client.send(qty="2").status_code == 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_margin_multiplier": "4"}, "max_margin_multiplier must be '1', this is a cash account, was '4'"),
        ({"no_shorting": False}, "no_shorting must be True, this is a cash account, was False"),
        ({"suspend_trade": 1}, "suspend_trade must be False or True, this is a cash account, was 1"),
        ({"colour": "red"}, "colour: not a configuration of an account"),
    ],
)
def test_what_cannot_be_had_cannot_be_set(changes: dict[str, object], message: str) -> None:
    client = ExchangeClient()
    before = client.get(CONFIGURATIONS).json()
    assert refusal(client.http.patch(URL + CONFIGURATIONS, json=changes)) == (422, 40010001, message)
    assert client.get(CONFIGURATIONS).json() == before


def test_a_watchlist_is_made_changed_and_removed() -> None:
    client = ExchangeClient()
    made = client.trading.create_watchlist(CreateWatchlistRequest(name="mine", symbols=["AAPL", "IBM"]))
    assert [asset.symbol for asset in made.assets] == ["AAPL", "IBM"]
    assert client.trading.get_watchlists()[0].name == "mine"
    client.advance("2020-01-02T15:00:00Z")
    added = client.trading.add_asset_to_watchlist_by_id(made.id, "SPY")
    assert ([asset.symbol for asset in added.assets], added.updated_at > made.updated_at) == (["AAPL", "IBM", "SPY"], True)
    left = client.trading.remove_asset_from_watchlist_by_id(made.id, "IBM")
    assert [asset.symbol for asset in left.assets] == ["AAPL", "SPY"]
    renamed = client.trading.update_watchlist_by_id(made.id, UpdateWatchlistRequest(name="yours", symbols=["IBM"]))
    assert (renamed.name, [asset.symbol for asset in renamed.assets]) == ("yours", ["IBM"])
    by_name = client.get("/v2/watchlists:by_name", name="yours").json()
    assert by_name == client.get(f"/v2/watchlists/{made.id}").json()
    client.trading.delete_watchlist_by_id(made.id)
    with pytest.raises(APIError, match="watchlist not found"):
        client.trading.get_watchlist_by_id(made.id)
    again = client.trading.create_watchlist(CreateWatchlistRequest(name="mine", symbols=[]))
    assert again.id != made.id


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"symbols": []}, "name must be printable text of 1 to 64 characters, was None"),
        ({"name": "x" * 65}, "name must be printable text of 1 to 64 characters"),
        ({"name": "new", "symbols": ["ZZZZ"]}, "asset not found for 'ZZZZ'"),
        ({"name": "new", "symbols": "AAPL"}, "symbols must be a list, was 'AAPL'"),
        ({"name": "taken"}, "watchlist name must be unique, was 'taken'"),
    ],
)
def test_a_wrong_watchlist_is_refused(document: dict[str, object], message: str) -> None:
    client = ExchangeClient()
    client.http.post(f"{URL}/v2/watchlists", json={"name": "taken"})
    status, _, said = refusal(client.http.post(f"{URL}/v2/watchlists", json=document))
    assert status == 422
    assert said.startswith(message)
    assert len(client.get("/v2/watchlists").json()) == 1


def test_announcements_from_their_ex_date_on() -> None:
    client = ExchangeClient(now=datetime.fromisoformat("2020-02-04T15:00:00Z"))
    query = GetCorporateAnnouncementsRequest(
        ca_types=[CorporateActionType.DIVIDEND, CorporateActionType.SPLIT], since=date(2020, 1, 1), until=date(2020, 3, 1)
    )
    with pytest.warns(DeprecationWarning, match="get_corporate_announcements"):
        (split,) = client.trading.get_corporate_announcements(query)
    assert (split.initiating_symbol, split.old_rate, split.new_rate, split.ex_date) == ("AAPL", 1, 2, date(2020, 2, 3))
    client.advance("2020-02-10T15:00:00Z")
    with pytest.warns(DeprecationWarning, match="get_corporate_announcements"):
        _, dividend = client.trading.get_corporate_announcements(query)
    assert (dividend.initiating_symbol, dividend.cash, dividend.payable_date) == ("IBM", 0.5, date(2020, 3, 20))
    path = "/v2/corporate_actions/announcements"
    assert client.get(f"{path}/{dividend.id}").json()["cash"] == "0.5"
    assert client.get(f"{path}/none").status_code == 404
    late = {"ca_types": "dividend", "since": "2020-03-01", "until": "2020-04-01"}
    assert client.get(path, **late).json() == []
    assert len(client.get(path, **late, date_type="payable_date").json()) == 1
    for wrong in ({"ca_types": "party"}, {"until": "2021-01-01"}, {"date_type": "record_date"}, {"since": ""}):
        assert client.get(path, **{**late, **wrong}).status_code == 422


def test_movers_and_the_most_active_of_the_running_session() -> None:
    client = ExchangeClient(now=datetime.fromisoformat("2020-01-02T14:40:00Z"))
    found = client.get("/v1beta1/screener/stocks/movers").json()
    assert [(row["symbol"], row["price"]) for row in found["gainers"]] == [("SPY", 299)]
    assert [row["symbol"] for row in found["losers"]] == ["AAPL", "IBM"]
    assert (found["losers"][0]["change"], found["losers"][0]["percent_change"]) == (-5.05, -4.85)
    active = client.get("/v1beta1/screener/stocks/most-actives", top="2").json()["most_actives"]
    assert [(row["symbol"], row["volume"]) for row in active] == [("AAPL", 1000), ("SPY", 1000)]
    assert client.get("/v1beta1/screener/crypto/movers").status_code == 400
