"""Wrong settings are refused with one line that names the key, its value and what is allowed, also through the app."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import app as application
from local.replay.local_deployment import settings_text
from schema.capacity import refuse_too_many_names
from schema.settings import ENVIRONMENT, SETTINGS_FILE, Settings, SettingsError, deployed, load, quick
from schema.training_dates import refuse_impossible_dates
from tests.infrastructure.assembly import ROOT, Assembly, synthesize

TEXT = (ROOT / "data" / "settings.toml").read_text(encoding="utf-8")
SHIPPED = (ROOT / "settings.toml").read_text(encoding="utf-8")


def changed(tmp_path: Path, old: str, new: str) -> Path:
    assert TEXT.count(old) == 1, old
    path = tmp_path / "settings.toml"
    path.write_text(TEXT.replace(old, new), encoding="utf-8")
    return path


def test_the_settings_of_this_repository_are_valid(settings: Settings) -> None:
    assert settings.universe.benchmark in settings.universe.symbols
    assert len(settings.universe.symbols) == 30
    risk = settings.risk
    assert risk.max_orders_per_day >= 2 * len(settings.universe.symbols)
    assert (risk.max_weight, risk.max_drawdown, risk.max_daily_loss) == (0.15, 0.20, 0.05)
    assert risk.max_order_notional == risk.max_weight * settings.portfolio.initial_cash
    assert risk.max_turnover_per_day > 1, "the first day buys the whole book"
    refuse_impossible_dates(settings, today=date(2026, 11, 21))


def test_the_settings_of_the_bundled_bars_are_valid() -> None:
    bundled = load(ROOT / "data" / "settings.toml")
    assert bundled.universe.symbols == ("SPY", "QQQ", "IWM", "AAPL", "AIG", "BAC", "GOOG", "IBM")
    assert bundled.training.dates == (date(2006, 1, 3), date(2011, 1, 3), date(2020, 1, 2))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kappa = 0.1 ", "kapa = 0.1 ", "settings.toml: portfolio.kappa is missing; settings.toml: portfolio.kapa = 0.1 is not a setting"),
        ("kappa = 0.1 ", "kappa = 1.5 ", "portfolio.kappa = 1.5 is not allowed: Input should be less than or equal to 1"),
        ("kappa = 0.1 ", "kappa = nan ", "portfolio.kappa = nan is not allowed"),
        ('name = "papertape"', 'name = "Paper Tape"', "name = 'Paper Tape' is not allowed"),
        ('region = "us-east-1"', 'region = "virginia"', "region = 'virginia' is not allowed"),
        ('alert_email = ""', 'alert_email = "me"', "alert_email = 'me' is not allowed"),
        ('"SPY", "QQQ"', '"SPY", "spy"', "universe.symbols.1 = 'spy' is not allowed"),
        ('"SPY", "QQQ"', '"SPY", "SPY"', "universe: symbols must be distinct, SPY is repeated"),
        ('benchmark = "SPY"', "", "universe.benchmark is missing"),
        ('benchmark = "SPY"', 'benchmark = "TLT"', "universe: benchmark must be one of symbols, was TLT"),
        ('slots = ["open+5"]', 'slots = ["09:35"]', "schedule.slots.0 = '09:35' is not allowed"),
        ('slots = ["open+5"]', "slots = []", "schedule.slots = [] is not allowed"),
        (
            'slots = ["open+5"]',
            'slots = ["open+60", "open+5"]',
            "schedule: slots must be in order and slot_window_minutes = 30 apart, open+5 follows open+60 by -55",
        ),
        ('slots = ["open+5"]', 'slots = ["open+5", "open+5"]', "open+5 follows open+5 by 0"),
        ('slots = ["open+5"]', 'slots = ["open+5", "open+34"]', "open+34 follows open+5 by 29"),
        (
            "test_start = 2011-01-03",
            "test_start = 2020-12-31",
            "training: start < test_start < live_start must hold, was 2006-01-03, 2020-12-31, 2020-01-02",
        ),
        (
            "live_start = 2020-01-02",
            'live_start = "soon"',
            """settings.toml: training.live_start: must be a date such as 2020-01-02, or "auto", was 'soon'""",
        ),
        ("seeds = [0, 1,", "seeds = [1, 1,", "training: seeds must be distinct, was [1, 1, 2"),
        ('refused = "shadow"', 'refused = "live"', "gate.refused = 'live' is not allowed: Input should be 'shadow' or 'trade'"),
        ('forecast = "none"', 'forecast = "oracle"', "features.forecast = 'oracle' is not allowed: Input should be 'none' or 'trees'"),
        ("purge_sessions = 5 ", "purge_sessions = 0 ", "training.purge_sessions = 0 is not allowed"),
        ("holdout_sessions = 252", "holdout_sessions = 20", "training.holdout_sessions = 20 is not allowed"),
        (
            "holdout_sessions = 252",
            "sealed_sessions = 252",
            "settings.toml: training: sealed_sessions is called holdout_sessions now; rename it",
        ),
        (
            'algorithm = "direct"',
            'algorithm = "sac"',
            "training.algorithm = 'sac' is not allowed: Input should be 'ppo', 'direct', 'direct+ppo' or 'q-learning'",
        ),
        ('algorithm = "direct"', 'algorithm = "PPO"', 'algorithm = "PPO" is written "ppo" now; rename it'),
        (
            "turnover_penalty = 0.0",
            "turnover_penalty = 0.1",
            'reward is what PPO is paid: with training.algorithm = "direct", which climbs growth itself, it must be excess_log_growth '
            "without penalties, was excess_log_growth, 0 and 0.1",
        ),
        ('kind = "excess_log_growth"', 'kind = "sharpe"', "reward.kind = 'sharpe' is not allowed"),
        ("monthly_budget_usd = 15.0", "monthly_budget_usd = -1", "budget.monthly_budget_usd = -1 is not allowed"),
        ("impact = 0.0 ", "impact = 1.0 ", "costs: impact needs max_volume_share above 0, was 1.0 with 0.0"),
        ("max_volume_share = 0.0 ", "max_volume_share = 2.0 ", "costs.max_volume_share = 2.0 is not allowed"),
        ("half_spread_bps = 0.0", "half_spread_bps = -1.0", "costs.half_spread_bps = -1.0 is not allowed"),
        ("whole_shares = false", 'whole_shares = "no idea"', "portfolio.whole_shares = 'no idea' is not allowed"),
        ("[budget]", "[budgett]", "budgett = {'monthly_budget_usd': 15.0} is not a setting; remove it or check its spelling"),
        ("[budget]", "[budget", "is not valid TOML"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(changed(tmp_path, old, new))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("new", "old", "message"),
    [
        ('slots = ["open+5"] ', 'slot = "open+30"', 'settings.toml: schedule.slot is now schedule.slots = ["open+30"]'),
        ("[budget]", "[cost]", "settings.toml: [cost] is now [budget]"),
    ],
)
def test_a_key_of_an_earlier_version_is_refused_with_its_new_name(tmp_path: Path, new: str, old: str, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(changed(tmp_path, new, old))
    assert str(refused.value) == message


def test_settings_that_the_laptop_writes_for_the_app_are_read_back_the_same(tmp_path: Path, settings: Settings) -> None:
    costs = settings.costs.model_copy(update={"slippage_bps": 1e-05})
    odd = settings.model_copy(update={"alert_email": 'ünï"\\q@example.com', "costs": costs})
    for one in (settings, quick(settings), odd):
        (tmp_path / "settings.toml").write_text(settings_text(one), encoding="utf-8")
        assert load(tmp_path / "settings.toml") == one


def test_without_a_gate_section_a_refused_model_only_watches(tmp_path: Path) -> None:
    whole = "[gate]\n" + TEXT.partition("[gate]\n")[2].partition("[budget]")[0]
    assert load(changed(tmp_path, whole, "")).gate.refused == "shadow"


def test_without_a_features_section_there_is_no_forecast(tmp_path: Path) -> None:
    whole = "[features]" + TEXT.partition("[features]")[2].partition("[training]")[0]
    assert "forecast" in whole
    assert load(changed(tmp_path, whole, "")).features.forecast == "none"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^settings.toml: cannot be read \(No such file"):
        load(tmp_path / "settings.toml")


def test_a_slot_after_the_session_is_refused_at_synth(tmp_path: Path) -> None:
    settings = load(changed(tmp_path, 'slots = ["open+5"]', 'slots = ["open+5", "open+361"]'))
    with pytest.raises(SettingsError, match=r"schedule.slots: 'open\+361' is not allowed: .* use open\+360 or earlier"):
        synthesize(tmp_path / "out", settings=settings)


def test_the_last_possible_slot_is_accepted(changed_settings: Assembly) -> None:
    assert changed_settings.schedules()["decide-open-360"]["ScheduleExpression"] == "cron(30 15 ? * MON-FRI *)"


def test_five_hundred_symbols_synthesize(tmp_path: Path, aws: Assembly) -> None:
    names = [f"S{number:03d}".translate(str.maketrans("0123456789", "ABCDEFGHIJ")) for number in range(492)]
    large = load(changed(tmp_path, '"SPY", "QQQ"', ", ".join(f'"{name}"' for name in ("SPY", "QQQ", *names))))
    assert len(large.universe.symbols) == 500
    functions = synthesize(tmp_path / "large", settings=large).functions()
    few = aws.functions()
    assert {name: one["Environment"] for name, one in functions.items()} == {name: one["Environment"] for name, one in few.items()}


def test_code_outside_of_a_bundle_reads_the_file_that_is_named(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = settings.model_copy(update={"alert_email": "owner@example.com"})
    (tmp_path / "mine.json").write_text(mine.model_dump_json(), encoding="utf-8")
    (tmp_path / "mine.toml").write_text(settings_text(mine), encoding="utf-8")
    for name in ("mine.json", "mine.toml"):
        monkeypatch.setenv(SETTINGS_FILE, str(tmp_path / name))
        assert deployed() == mine
    monkeypatch.setenv(SETTINGS_FILE, str(tmp_path / "nobody-s.toml"))
    with pytest.raises(SettingsError, match=r"^nobody-s.toml: cannot be read \(No such file"):
        deployed()


def test_the_app_refuses_a_wrong_value_where_it_reads_the_settings(tmp_path: Path) -> None:
    line = refused_by_app(tmp_path, {"settings": str(changed(tmp_path, "max_gross = 1.0 ", "max_gross = 2.0 "))})
    assert line == "settings.toml: risk.max_gross = 2.0 is not allowed: Input should be less than or equal to 1"


def test_the_app_ends_with_one_line_and_no_traceback(tmp_path: Path) -> None:
    """As a process of its own, refused as late as can be: where the stacks are composed."""
    context = {"settings": str(changed(tmp_path, 'region = "us-east-1"', 'region = "xx-east-9"'))}
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env={**os.environ, "CDK_CONTEXT_JSON": json.dumps(context), "CDK_OUTDIR": str(tmp_path / "out")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("papertape: ")
    assert "region = 'xx-east-9' is not allowed" in line
    assert not list(tmp_path.glob("out/*.template.json"))


def test_dates_that_cannot_work_are_refused_at_synth_with_those_that_would(tmp_path: Path) -> None:
    bundled = str(ROOT / "data" / "settings.toml")
    line = refused_by_app(tmp_path, {"settings": bundled, "dates_as_of": "2026-11-21"})
    assert "training: live_start = 2020-01-02 makes a model" in line
    assert line.endswith('Or write "auto" for each: today that is 2017-01-01, 2019-01-01 and 2026-11-22')
    assert "context dates_as_of = 'soon' is not allowed" in refused_by_app(tmp_path, {"dates_as_of": "soon"})


def test_an_environment_overrides_what_it_names_and_nothing_else(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(SHIPPED + '\n[environments.test]\nname = "mine"\nregion = "eu-west-1"\n[environments.test.risk]\nmax_weight = 0.25\n')
    other = load(path, environment="test")
    assert (other.name, other.region, other.risk.max_weight) == ("mine", "eu-west-1", 0.25)
    same = {"name": settings.name, "region": settings.region, "risk": settings.risk}
    assert other.model_copy(update=same) == load(path) == settings


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("", "test", "settings.toml: environment 'test' is not allowed: dev, prod"),
        ("[environments.test]\nregoin = 'x'\n", "", "settings.toml [environments.test]: regoin = 'x' is not a setting"),
        ("[environments.test]\nrisk = 1\n", "", "settings.toml [environments.test]: risk = 1 is not allowed"),
    ],
)
def test_a_wrong_environment_is_refused(tmp_path: Path, text: str, environment: str, message: str) -> None:
    (tmp_path / "settings.toml").write_text(f"{SHIPPED}\n{text}")
    with pytest.raises(SettingsError) as refused:
        load(tmp_path / "settings.toml", environment=environment)
    assert message in str(refused.value)


def test_the_app_takes_its_environment_from_the_context_or_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "settings.toml: environment 'moon' is not allowed: dev, prod" in refused_by_app(tmp_path, {"environment": "moon"})
    monkeypatch.setenv(ENVIRONMENT, "mars")
    monkeypatch.setenv("CDK_OUTDIR", str(tmp_path))
    with pytest.raises(SettingsError, match="environment 'mars' is not allowed: dev, prod"):
        application.main()


def test_an_unknown_target_is_refused(tmp_path: Path) -> None:
    assert "context target = 'lap-top' is not allowed: aws or laptop" in refused_by_app(tmp_path, {"target": "lap-top"})


def refused_by_app(tmp_path: Path, context: dict[str, str]) -> str:
    """Run the app in this process, as cdk.json with `context` in it would; it must refuse. Return its one line."""
    folder = tmp_path / "app"
    folder.mkdir(exist_ok=True)
    document = json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))
    (folder / "cdk.json").write_text(json.dumps({"context": document["context"] | context}), encoding="utf-8")
    (folder / "settings.toml").write_text(SHIPPED, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application, "ROOT", folder)
        patch.setenv("CDK_OUTDIR", str(tmp_path / "out"))
        with pytest.raises(SettingsError) as refused:
            application.main()
    assert len(str(refused.value).splitlines()) == 1
    assert not list(tmp_path.glob("out/*.template.json"))
    return str(refused.value)


def test_a_universe_by_rule_is_refused_at_synth_with_what_to_do(tmp_path: Path) -> None:
    text = re.sub(r"symbols = \[.*?\]", 'symbols = "most-traded:200"', TEXT, flags=re.DOTALL)
    (tmp_path / "settings.toml").write_text(text, encoding="utf-8")
    line = refused_by_app(tmp_path, {"settings": str(tmp_path / "settings.toml"), "dates_as_of": "unchecked"})
    assert 'universe.symbols = "most-traded:200" is a rule over the bars of many names, for research' in line
    assert line.endswith("what trades needs names: write them, or a list, dow-30 or nasdaq-100")


@pytest.mark.parametrize(
    ("names", "change", "message"),
    [
        (61, {}, "risk.max_orders_per_day must be 61 or more, one rebalancing of 61 names, was 60"),
        (
            31,
            {"slots": ("open+5", "open+60")},
            "risk.max_orders_per_day must be 62 or more, one rebalancing of 31 names in each of 2 slots",
        ),
        (
            500,
            {"slot_window_minutes": 5},
            "schedule.slot_window_minutes must be 15 or more, was 5: of 500 orders some 150 are sent at once",
        ),
        (500, {}, ""),
    ],
)
def test_names_whose_orders_cannot_be_sent_are_refused_at_synth(
    settings: Settings, names: int, change: dict[str, Any], message: str
) -> None:
    symbols = tuple(f"N{number:03d}" for number in range(names))
    orders = 500 if names == 500 else 60
    many = settings.model_copy(
        update={
            "universe": settings.universe.model_copy(update={"symbols": symbols, "benchmark": "N000"}),
            "schedule": settings.schedule.model_copy(update=change),
            "risk": settings.risk.model_copy(update={"max_orders_per_day": orders}),
        }
    )
    if not message:
        refuse_too_many_names(many)
        return
    with pytest.raises(SettingsError) as refused:
        refuse_too_many_names(many)
    assert str(refused.value).startswith(message)


def test_the_app_says_what_names_it_cannot_trade(tmp_path: Path) -> None:
    line = refused_by_app(tmp_path, {"settings": str(changed(tmp_path, "max_orders_per_day = 60", "max_orders_per_day = 7"))})
    assert line == "risk.max_orders_per_day must be 8 or more, one rebalancing of 8 names, was 7"
