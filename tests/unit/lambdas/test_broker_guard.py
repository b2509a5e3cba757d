"""No combination of settings short of both switches reaches anything but paper or this machine."""

from __future__ import annotations

import pytest

from lambdas.common.broker.alpaca import DATA, LIVE_SWITCH, LIVE_TRADING, PAPER_TRADING, AlpacaBroker, Credentials, refuse_foreign_broker
from lambdas.common.broker.port import BrokerRefused
from schema.loopback import ForeignEndpointError, is_loopback, refuse_foreign_endpoints

ELSEWHERE = [
    "https://example.org",
    "http://paper-api.alpaca.markets",
    "https://paper-api.alpaca.markets.example.org",
    "https://paper-api.alpaca.markets@example.org",
    "https://paper-api.alpaca.markets/../",
    "https://PAPER-API.alpaca.markets:8443",
    "http://127.0.0.1@example.org/",
    "http://127.0.0.1.example.org/",
    "http://localhost.example.org",
    "http://0.0.0.0:80",
    "http://[::]:80",
    "http://10.0.0.1",
    "ftp://127.0.0.1",
    "",
]


@pytest.mark.parametrize("url", ELSEWHERE)
@pytest.mark.parametrize(("environment", "secret"), [("", False), (LIVE_SWITCH, False), ("", True), (LIVE_SWITCH, True), ("yes", True)])
def test_elsewhere_is_refused_whatever_the_switches_say(url: str, environment: str, secret: bool) -> None:
    with pytest.raises(BrokerRefused):
        refuse_foreign_broker(trading_url=url, data_url=DATA, environment_switch=environment, secret_switch=secret)
    with pytest.raises(BrokerRefused):
        refuse_foreign_broker(trading_url=PAPER_TRADING, data_url=url, environment_switch=environment, secret_switch=secret)


@pytest.mark.parametrize(
    ("environment", "secret"), [("", False), (LIVE_SWITCH, False), ("", True), ("Yes-Real-Money", True), ("true", True)]
)
def test_real_money_needs_both_switches(environment: str, secret: bool) -> None:
    with pytest.raises(BrokerRefused, match="real money needs both"):
        refuse_foreign_broker(trading_url=LIVE_TRADING, data_url=DATA, environment_switch=environment, secret_switch=secret)


def test_both_switches_open_the_live_address_and_no_other() -> None:
    refuse_foreign_broker(trading_url=LIVE_TRADING, data_url=DATA, environment_switch=LIVE_SWITCH, secret_switch=True)
    with pytest.raises(BrokerRefused):
        refuse_foreign_broker(trading_url="https://example.org", data_url=DATA, environment_switch=LIVE_SWITCH, secret_switch=True)


@pytest.mark.parametrize("url", [PAPER_TRADING, "http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:8080"])
def test_paper_and_this_machine_are_allowed(url: str) -> None:
    refuse_foreign_broker(trading_url=url, data_url=DATA, environment_switch="", secret_switch=False)


def test_the_guard_is_in_the_constructor() -> None:
    with pytest.raises(BrokerRefused):
        AlpacaBroker(credentials=Credentials(key_id="k", secret_key="s"), trading_url=LIVE_TRADING)


def test_credentials_show_nothing() -> None:
    shown = repr(Credentials(key_id="key-id-value", secret_key="secret-value"))
    assert "value" not in shown


@pytest.mark.parametrize("url", [one for one in ELSEWHERE if one])
def test_an_endpoint_override_must_be_this_machine(url: str) -> None:
    assert not is_loopback(url)
    with pytest.raises(ForeignEndpointError, match="AWS_ENDPOINT_URL_S3"):
        refuse_foreign_endpoints({"AWS_ENDPOINT_URL_S3": url})


def test_an_override_of_this_machine_or_none_passes() -> None:
    refuse_foreign_endpoints({"AWS_ENDPOINT_URL": "http://127.0.0.1:4566", "AWS_ENDPOINT_URL_S3": "", "OTHER": "https://example.org"})
