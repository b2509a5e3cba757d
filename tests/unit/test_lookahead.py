"""Honest features pass, each way of cheating is found and named, and what is no feature function is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import papertape
from trading_env.lookahead import Leak, LookaheadError, find_leaks

DAYS = 60
WALK = 100 * np.exp(np.cumsum(np.random.default_rng(5).normal(0, 0.02, DAYS)))
BARS = pd.DataFrame(
    {"open": WALK, "high": WALK * 1.01, "low": WALK * 0.99, "close": WALK * 1.002, "volume": 1e6},
    index=pd.bdate_range("2020-01-01", periods=DAYS),
)
CUTS = (2, 20, 40, 58)


def honest(bars: pd.DataFrame) -> pd.DataFrame:
    close = bars["close"]
    return pd.DataFrame({"ret": np.log(close).diff(), "mean": close / close.rolling(5).mean()})


def test_honest_features_have_no_leak() -> None:
    assert find_leaks(honest, BARS, cuts=CUTS) == []


@pytest.mark.parametrize(
    ("name", "cheat"),
    [
        ("tomorrow", lambda bars: bars["close"].shift(-1)),
        ("filled backwards", lambda bars: bars["close"].rolling(5).mean().bfill()),
        ("centred window", lambda bars: bars["close"].rolling(5, center=True).mean()),
        ("scaled by the whole", lambda bars: (bars["close"] - bars["close"].mean()) / bars["close"].std()),
        ("adjusted backwards", lambda bars: bars["close"] / bars["close"].iloc[-1]),
        ("rank in all of history", lambda bars: bars["close"].rank()),
    ],
)
def test_each_way_of_cheating_is_named(name: str, cheat: object) -> None:
    leaks = find_leaks(lambda bars: honest(bars).assign(**{name: cheat(bars)}), BARS, cuts=CUTS)  # type: ignore[operator]
    assert [leak.column for leak in leaks] == [name]
    assert all(leak.changed <= leak.cut for leak in leaks)


def test_a_leak_says_which_value_changed() -> None:
    leaks = find_leaks(lambda bars: pd.DataFrame({"next": bars["close"].shift(-1)}), BARS, cuts=(20,))
    assert leaks == [Leak(column="next", cut=20, changed=20, how="truncated")]


def test_a_function_that_only_notices_replaced_values_is_found_too() -> None:
    def peek(bars: pd.DataFrame) -> pd.DataFrame:
        later = bars["close"].iloc[25] if len(bars) > 25 else WALK[25] * 1.002
        return pd.DataFrame({"peek": np.full(len(bars), later)})

    assert [leak.how for leak in find_leaks(peek, BARS, cuts=(20,))] == ["poisoned"]


def test_what_is_no_feature_function_is_refused() -> None:
    ticks = itertools.count()
    with pytest.raises(LookaheadError, match="one row a bar, 60, was 59 rows"):
        find_leaks(lambda bars: honest(bars).iloc[1:], BARS, cuts=CUTS)
    with pytest.raises(LookaheadError, match="was Series"):
        find_leaks(lambda bars: bars["close"], BARS, cuts=CUTS)  # type: ignore[arg-type,return-value]
    with pytest.raises(LookaheadError, match="ret differed between two runs"):
        find_leaks(lambda bars: honest(bars) + next(ticks), BARS, cuts=CUTS)
    with pytest.raises(LookaheadError, match=r"cuts must lie in \[0, 58\] for 60 bars, was 59"):
        find_leaks(honest, BARS, cuts=(59,))


def prove(*arguments: str) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(papertape.app, ["prove", *arguments])
    return result.exit_code, result.output


def test_the_command_clears_our_own_features() -> None:
    assert prove("--symbol", "AIG")[0] == 0


def test_the_command_names_a_user_s_column_that_cheats(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import pandas as pd\n"
        "def features(bars):\n"
        "    close = bars['close']\n"
        "    return pd.DataFrame({'ret': close.pct_change(), 'z': close / close.mean()})\n"
        "def broken(bars):\n"
        "    return bars['nothing']\n"
    )
    status, said = prove(f"{tmp_path}/mine.py:features")
    assert status == 1
    assert "z " in said
    assert "ret" not in said
    for name, told in {"broken": "raised KeyError: 'nothing'", "absent": "has no function absent"}.items():
        status, said = prove(f"{tmp_path}/mine.py:{name}")
        assert status == 1
        assert told in said
    assert "must be named path/to/file.py:function, was nowhere" in prove("nowhere")[1]
    assert "--symbol must be one of AAPL, AIG" in prove("--symbol", "TSLA")[1]
