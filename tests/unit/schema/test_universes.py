"""The named lists say what their sources say; a name in the settings stands for its members."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from schema import universes
from schema.settings import SettingsError, load
from schema.universes import LISTS, UniverseError, most_traded, named, stale

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "settings.toml").read_text(encoding="utf-8")


def with_universe(folder: Path, universe: str) -> Path:
    path = folder / "settings.toml"
    head, _, rest = TEXT.partition("[universe]")
    path.write_text(f"{head}[universe]\n{universe}\n\n[portfolio]{rest.partition('[portfolio]')[2]}", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", LISTS)
def test_a_list_has_a_source_and_no_name_is_a_member_twice_at_a_time(name: str) -> None:
    listed = named(name)
    assert "at " in listed.source
    assert "MIT" in listed.licence
    assert all(one.end is None or one.begin < one.end <= listed.as_of for one in listed.constituents)
    assert all(one.begin <= listed.as_of for one in listed.constituents)
    assert list(listed.constituents) == sorted(listed.constituents, key=lambda one: (one.symbol, one.begin))
    for first, second in zip(listed.constituents, listed.constituents[1:], strict=False):
        assert first.symbol != second.symbol or (first.end is not None and first.end <= second.begin)
    text = (universes.FOLDER / "PROVENANCE.md").read_text(encoding="utf-8")
    assert f"{name}.csv" in text


def on(name: str, day: str) -> set[str]:
    at = date.fromisoformat(day)
    return {one.symbol for one in named(name).constituents if one.begin <= at and (one.end is None or at < one.end)}


@pytest.mark.parametrize("day", ["2005-11-21", "2008-09-22", "2013-09-23", "2018-06-26", "2020-04-06", "2024-11-08", "2026-06-29"])
def test_the_dow_has_thirty_members(day: str) -> None:
    assert len(on("dow-30", day)) == 30
    assert len(on("dow-30", (date.fromisoformat(day) + timedelta(days=400)).isoformat())) == 30


def test_members_change_on_the_day_that_the_index_did() -> None:
    assert {"XOM", "PFE", "RTX"} < on("dow-30", "2020-08-30")
    assert {"CRM", "AMGN", "HON"} < on("dow-30", "2020-08-31")
    assert not {"XOM", "PFE", "RTX"} & on("dow-30", "2020-08-31")
    assert "PLTR" in on("nasdaq-100", "2024-12-23") - on("nasdaq-100", "2024-12-20")
    assert {"ILMN", "SMCI", "MRNA"} == on("nasdaq-100", "2024-12-20") - on("nasdaq-100", "2024-12-23")


def test_a_lists_name_stands_for_its_members_and_the_benchmark(tmp_path: Path) -> None:
    universe = load(with_universe(tmp_path, 'symbols = "dow-30"\nbenchmark = "SPY"')).universe
    assert universe.symbols == (*named("dow-30").current, "SPY")
    assert universe.chosen_by == "dow-30"
    member = load(with_universe(tmp_path, 'symbols = "nasdaq-100"\nbenchmark = "AAPL"')).universe
    assert member.symbols == named("nasdaq-100").current
    assert member == type(member).model_validate_json(member.model_dump_json())


def test_a_rule_is_for_research_and_says_what_to_do(tmp_path: Path) -> None:
    path = with_universe(tmp_path, 'symbols = "most-traded:200"\nbenchmark = "SPY"')
    with pytest.raises(SettingsError) as refused:
        load(path)
    assert str(refused.value) == (
        'settings.toml: universe.symbols = "most-traded:200" is a rule over the bars of many names, for research (train, evaluate, '
        "backtest with --bars); what trades needs names: write them, or a list, dow-30 or nasdaq-100"
    )
    assert load(path, research=True).universe.chosen_by == "most-traded:200"


@pytest.mark.parametrize(
    ("universe", "message"),
    [
        ('symbols = "sp-100"', "universe: must be a list of symbols, dow-30, nasdaq-100, or for research most-traded:N, was 'sp-100'"),
        ('symbols = "most-traded:1"', "universe: must be most-traded:N with 2 to 2000 names, such as most-traded:200, was most-traded:1"),
        ('symbols = ["SPY"]', "universe.symbols = ['SPY'] is not allowed: Tuple should have at least 2 items after validation, not 1"),
        ("symbols = [" + ", ".join(f'"S{chr(65 + n // 26)}{chr(65 + n % 26)}"' for n in range(501)) + ', "SPY"]', "at most 500 items"),
    ],
)
def test_what_is_no_universe_is_refused_with_what_is(tmp_path: Path, universe: str, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(with_universe(tmp_path, f'{universe}\nbenchmark = "SPY"'))
    assert message in str(refused.value)


def test_a_list_older_than_a_year_says_so() -> None:
    as_of = named("dow-30").as_of
    assert stale("dow-30", as_of + timedelta(days=365)) == ""
    assert stale("dow-30", as_of + timedelta(days=366)).startswith(f"dow-30 is as of {as_of}, more than a year ago: compare it with")
    assert stale("", date(2099, 1, 1)) == ""


def test_a_spoiled_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dow-30.csv").write_text("# as-of: 2026-01-01\nsymbol,from,to\n", encoding="utf-8")
    monkeypatch.setattr(universes, "FOLDER", tmp_path)
    with pytest.raises(UniverseError, match=r"dow-30.csv: is no list of symbol, from, to with its source, .*; restore it"):
        named.__wrapped__("dow-30")


def test_a_rule_counts_names() -> None:
    assert most_traded("most-traded:200") == 200
    assert most_traded("dow-30") is None
