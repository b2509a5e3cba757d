"""preflight and secret: what they ask AWS and the broker, and what they say of each answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from typer.testing import CliRunner, Result

from local.exchange.server import RunningExchange
from papertape import command_line
from papertape.operate.preflight import BOOTSTRAP_VERSION, quotas
from schema.sections.data import DataSettings
from schema.settings import Settings
from tests.aws.proxy import running
from tests.aws.services import Service, Stacks, answering
from tests.settings_files import settings_file

REGION, SHELLS = "us-west-2", "eu-central-1"
KEYS = ("local-key", "local-secret")


def call(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(command_line.app, list(arguments), input=typed)


def lines(result: Result) -> dict[str, str]:
    """Each check's own line, by its name."""
    found = [line for line in result.stdout.splitlines()[1:] if ": " in line]
    states = ("not available here", "warning", "stop", "ok")
    split = [(next(s for s in states if line.startswith(s)), line) for line in found if line.startswith(states)]
    return {line.removeprefix(state).strip().partition(": ")[0]: line for state, line in split}


def state(result: Result, check: str) -> str:
    line = lines(result)[check]
    return next(s for s in ("not available here", "warning", "stop", "ok") if line.startswith(s))


@pytest.fixture
def there(settings: Settings, monkeypatch: pytest.MonkeyPatch, exchange: RunningExchange, stacks: Stacks) -> Settings:
    """Settings of another region than the shell's, whose dates suit the exchange's clock."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", SHELLS)
    monkeypatch.delenv("AWS_REGION")
    training = settings.training.model_copy(
        update={"start": date(2017, 1, 3), "test_start": date(2018, 2, 1), "live_start": date(2019, 12, 2)}
    )
    return settings.model_copy(update={"region": REGION, "training": training, "alert_email": "me@example.org"})


@pytest.fixture
def file(there: Settings) -> str:
    return settings_file(there)


@pytest.fixture
def ready(there: Settings) -> None:
    """A bootstrapped region with the broker's secret."""
    boto3.client("ssm", region_name=REGION).put_parameter(Name=BOOTSTRAP_VERSION, Value="30", Type="String")
    keys = dict(zip(("key_id", "secret_key"), KEYS, strict=True))
    boto3.client("secretsmanager", region_name=REGION).create_secret(Name="papertape/alpaca", SecretString=json.dumps(keys))


@pytest.fixture
def granted(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[dict[str, float], Service]]:
    """Service Quotas with values that a test sets, by code; what it leaves out is AWS's default, 1000."""
    values: dict[str, float] = {}

    def answer(operation: str, request: Any) -> tuple[int, Any]:
        code = request["QuotaCode"]
        if operation == "GetServiceQuota" and code not in values:
            return 400, {"__type": "NoSuchResourceException", "Message": "no value of the account's own"}
        return 200, {"Quota": {"QuotaCode": code, "QuotaName": f"the quota {code}", "Value": values.get(code, 1000.0)}}

    with answering(answer) as service:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", service.url)
        yield values, service


def test_all_is_well_in_the_settings_region_whatever_the_shell_says(
    ready: None, granted: tuple[dict[str, float], Service], file: str
) -> None:
    result = call("preflight", "--settings", file)
    assert result.exit_code == 0, result.output
    assert {name: state(result, name) for name in lines(result)} == dict.fromkeys(
        ["tools", "credentials", "bootstrap", *(f"quota {q.service} {q.code}" for q in quotas(_settings(file))), "secret", "symbols",
         "dates", "mail"], "ok"
    )  # fmt: skip
    assert f"region {REGION} of the settings, not the shell's {SHELLS}" in lines(result)["credentials"]
    assert "paper account" in lines(result)["secret"]
    assert "AWS will ask me@example.org" in lines(result)["mail"]


def _settings(file: str) -> Settings:
    from schema.settings import load

    return load(Path(file))


def test_an_empty_account_is_told_each_remedy_and_nothing_is_made(granted: tuple[dict[str, float], Service], file: str) -> None:
    result = call("preflight", "--settings", file)
    assert result.exit_code == 1
    assert "make bootstrap" in lines(result)["bootstrap"]
    assert f"there is no secret papertape/alpaca in {REGION}; run `make secret`" in lines(result)["secret"], "that of the shell's region"
    assert "2 to mend first" in result.stdout
    assert boto3.client("secretsmanager", region_name=REGION).list_secrets()["SecretList"] == []


def test_a_quota_of_zero_stops_and_a_small_one_warns(ready: None, granted: tuple[dict[str, float], Service], file: str) -> None:
    granted[0].update({"L-611FA074": 4.0, "L-8541302D": 0.0})
    result = call("preflight", "--settings", file)
    assert result.exit_code == 1
    assert state(result, "quota sagemaker L-611FA074") == "warning"
    assert "4 of 10 wanted; with fewer, seeds take turns" in lines(result)["quota sagemaker L-611FA074"]
    assert state(result, "quota sagemaker L-8541302D") == "stop"
    assert f"ask for 1 in Service Quotas, {REGION}" in lines(result)["quota sagemaker L-8541302D"]
    assert state(result, "quota lambda L-B99A9384") == "ok"


def test_what_cannot_be_asked_here_is_never_ok(ready: None, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda *_: (400, {"__type": "UnknownOperationException"})) as service:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", service.url)
        result = call("preflight", "--settings", file)
    assert result.exit_code == 0, result.output
    assert {state(result, f"quota {quota.service} {quota.code}") for quota in quotas(_settings(file))} == {"not available here"}


def test_names_that_do_not_trade_are_named(
    ready: None, granted: tuple[dict[str, float], Service], there: Settings, exchange: RunningExchange
) -> None:
    universe = there.universe.model_copy(update={"symbols": (*there.universe.symbols, "GONE", "LEFT")})
    result = call("preflight", "--settings", settings_file(there.model_copy(update={"universe": universe})))
    assert result.exit_code == 1
    assert "GONE, LEFT: not active; take them out of universe.symbols" in lines(result)["symbols"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"test_start": date(2017, 2, 1)}, "test_start = 2017-02-01 has"),
        ({"live_start": date(2018, 12, 3)}, "test_start = 2018-02-01 leaves 0 sessions for 8 folds"),
    ],
)
def test_dates_that_cannot_work_stop(
    ready: None, granted: tuple[dict[str, float], Service], there: Settings, changes: dict[str, date], told: str
) -> None:
    training = there.training.model_copy(update=changes)
    result = call("preflight", "--settings", settings_file(there.model_copy(update={"training": training})))
    assert result.exit_code == 1
    assert told in lines(result)["dates"]


def test_dates_that_move_are_told_as_of_today(ready: None, granted: tuple[dict[str, float], Service], there: Settings) -> None:
    training = there.training.model_copy(update={"live_start": "auto"})
    result = call("preflight", "--settings", settings_file(there.model_copy(update={"training": training})))
    assert result.exit_code == 0, result.output
    assert "as of 2020-01-02: training from 2017-01-03, judged from 2018-02-01, live from 2020-01-03" in lines(result)["dates"]


@pytest.fixture
def by_slot(there: Settings, exchange: RunningExchange) -> Settings:
    """Two slots on minute bars, at a time of which minutes are recorded; no dates suit it."""
    exchange.reset(now="2013-10-11T14:05:00Z", cash="100000")
    schedule = there.schedule.model_copy(update={"slots": ("open+5", "open+120")})
    training = there.training.model_copy(update={"timeframe": "1Min"})
    return there.model_copy(update={"training": training, "schedule": schedule})


def test_the_feed_of_minutes_is_asked_for_its_past_and_for_now(
    ready: None, granted: tuple[dict[str, float], Service], by_slot: Settings, exchange: RunningExchange
) -> None:
    result = call("preflight", "--settings", settings_file(by_slot))
    assert state(result, "minutes") == "ok"
    told = "feed 'iex' has 390 minutes of SPY in its last session, and the plan includes those of now"
    assert told in lines(result)["minutes"]
    exchange.reset(now="2013-12-02T14:05:00Z", cash="100000")
    result = call("preflight", "--settings", settings_file(by_slot))
    assert state(result, "minutes") == "warning"
    assert "feed 'iex' has no minute of SPY in its last session; without minutes there is no slot row" in lines(result)["minutes"]


@pytest.mark.parametrize(("slots", "stops"), [(("open+5", "open+120"), True), (("open+5",), False)])
def test_a_plan_without_the_last_minutes_stops_who_needs_them(
    ready: None,
    granted: tuple[dict[str, float], Service],
    by_slot: Settings,
    exchange: RunningExchange,
    slots: tuple[str, ...],
    stops: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A free plan has SIP's past, and that is enough for one slot a session."""

    def free(_method: str, path: str, _body: bytes) -> tuple[int, bytes] | None:
        end = parse_qs(urlsplit(path).query).get("end", [""])[0]
        recent = "timeframe=1Min" in path and end >= "2013-10-11T13:50"
        return (403, b'{"message": "subscription does not permit querying recent SIP data"}') if recent else None

    own = by_slot.model_copy(
        update={"schedule": by_slot.schedule.model_copy(update={"slots": slots}), "data": DataSettings(minutes_feed="sip")}
    )
    with running(exchange.url) as between:
        between.instead = free
        monkeypatch.setenv("ALPACA_DATA_URL", between.url)
        result = call("preflight", "--settings", settings_file(own))
    assert state(result, "minutes") == ("stop" if stops else "ok")
    if stops:
        assert "settings.data.minutes_feed is 'sip': its last fifteen minutes need a paid plan" in lines(result)["minutes"]
        assert "docs/deploy.md, minute bars" in lines(result)["minutes"]


def test_keys_that_the_broker_refuses_stop(ready: None, granted: tuple[dict[str, float], Service], file: str) -> None:
    secret = json.dumps({"key_id": "another's", "secret_key": "key", "live": True})
    boto3.client("secretsmanager", region_name=REGION).put_secret_value(SecretId="papertape/alpaca", SecretString=secret)
    result = call("preflight", "--settings", file)
    assert result.exit_code == 1
    assert "the broker does not let the keys in papertape/alpaca in" in lines(result)["secret"]
    assert "another's" not in result.output
    assert "symbols" not in lines(result)


def test_without_credentials_nothing_else_is_asked(there: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    for name, value in {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "none", "AWS_SHARED_CREDENTIALS_FILE": "none"}.items():
        monkeypatch.setenv(name, value)
    result = call("preflight", "--settings", settings_file(there))
    assert result.exit_code == 1
    assert "put credentials of your account into this shell" in lines(result)["credentials"]
    assert list(lines(result)) == ["tools", "credentials", "bootstrap, leftovers, quotas, secret, symbols, dates, minutes, mail"]


def test_after_the_deploy_the_mail_must_be_confirmed(
    ready: None, granted: tuple[dict[str, float], Service], file: str, stacks: Stacks
) -> None:
    sns = boto3.client("sns", region_name=REGION)
    topic = sns.create_topic(Name="alerts")["TopicArn"]
    stacks.deployed["papertape-monitoring"] = {"AlertTopicArn": topic}
    assert "me@example.org is not subscribed" in lines(call("preflight", "--settings", file))["mail"]
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint="me@example.org")
    result = call("preflight", "--settings", file)
    assert (result.exit_code, state(result, "mail")) == (0, "ok"), "moto confirms at once"


def test_a_mail_that_nobody_confirmed_warns(
    ready: None, granted: tuple[dict[str, float], Service], file: str, stacks: Stacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks.deployed["papertape-monitoring"] = {"AlertTopicArn": f"arn:aws:sns:{REGION}:123456789012:alerts"}
    member = "<member><Endpoint>me@example.org</Endpoint><SubscriptionArn>PendingConfirmation</SubscriptionArn></member>"
    result = f"<ListSubscriptionsByTopicResult><Subscriptions>{member}</Subscriptions></ListSubscriptionsByTopicResult>"
    with answering(lambda *_: (200, f"<ListSubscriptionsByTopicResponse>{result}</ListSubscriptionsByTopicResponse>")) as sns:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", sns.url)
        shown = call("preflight", "--settings", file)
    assert (shown.exit_code, state(shown, "mail")) == (0, "warning")
    assert "me@example.org has not confirmed the subscription; click the link in AWS's mail" in lines(shown)["mail"]


def test_a_group_of_an_earlier_deployment_stops_the_next(ready: None, granted: tuple[dict[str, float], Service], file: str) -> None:
    boto3.client("sagemaker", region_name=REGION).create_model_package_group(ModelPackageGroupName="papertape")
    result = call("preflight", "--settings", file)
    assert result.exit_code == 1
    assert "left of an earlier deployment" in lines(result)["leftovers"]
    assert "run `make destroy`" in lines(result)["leftovers"]


def test_the_keys_are_asked_tried_and_stored_in_the_settings_region(file: str) -> None:
    result = call("secret", "--settings", file, typed="local-key\nlocal-secret\n")
    assert result.exit_code == 0, result.output
    assert "local-secret" not in result.output
    secrets = boto3.client("secretsmanager", region_name=REGION)
    assert json.loads(secrets.get_secret_value(SecretId="papertape/alpaca")["SecretString"]) == {
        "key_id": "local-key", "secret_key": "local-secret"
    }  # fmt: skip
    assert f"stored papertape/alpaca in {REGION}: paper account" in result.stdout
    old = {"key_id": "old", "secret_key": "old", "live": True, "finnhub": "token"}
    secrets.put_secret_value(SecretId="papertape/alpaca", SecretString=json.dumps(old))
    again = call("secret", "--settings", file, typed="local-key\nlocal-secret\n")
    assert again.exit_code == 0, again.output
    assert json.loads(secrets.get_secret_value(SecretId="papertape/alpaca")["SecretString"]) == {
        "key_id": "local-key", "secret_key": "local-secret", "finnhub": "token"
    }, "a source's key stays, a switch for real money does not"  # fmt: skip
    secrets.delete_secret(SecretId="papertape/alpaca")
    assert call("secret", "--settings", file, typed="local-key\nlocal-secret\n").exit_code == 0, "one that waits for its deletion"
    assert secrets.get_secret_value(SecretId="papertape/alpaca")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("wrong\nkeys\n", "the broker does not let these keys in"),
        ("local-key\n", "nothing was stored: both keys are needed"),
        (" \n", "nothing was stored: the key id was empty"),
    ],
)
def test_keys_that_do_not_work_are_not_stored(file: str, typed: str, told: str) -> None:
    result = call("secret", "--settings", file, typed=typed)
    assert result.exit_code == 1
    assert told in result.stderr
    assert boto3.client("secretsmanager", region_name=REGION).list_secrets()["SecretList"] == []


def test_one_check_alone(granted: tuple[dict[str, float], Service], file: str) -> None:
    result = call("preflight", "--only", "bootstrap", "--settings", file)
    assert (result.exit_code, list(lines(result))) == (1, ["tools", "credentials", "bootstrap"])
    assert granted[1].calls == []
    wrong = call("preflight", "--only", "weather", "--settings", file)
    assert wrong.stderr == "papertape: --only must be one of bootstrap, leftovers, quotas, broker, mail, was weather\n"
