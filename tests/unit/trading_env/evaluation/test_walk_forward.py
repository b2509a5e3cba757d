"""The folds: every judged session once, no test near its own training, nothing of the live period anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_env.data.observation import Observation
from trading_env.evaluation.walk_forward import MIN_TRAINING, Fold, WalkForward, WalkForwardError, everything, split

CALENDAR = np.busday_offset(np.datetime64("2005-01-03", "D"), np.arange(1500))


def folds_of(*, test_at: int = 400, live_at: int = 1400, folds: int = 8, purge: int = 5, holdout: int = 252) -> tuple[Fold, ...]:
    return split(
        CALENDAR,
        start=CALENDAR[0],
        test_start=CALENDAR[test_at],
        live_start=CALENDAR[live_at],
        folds=folds,
        purge_sessions=purge,
        holdout_sessions=holdout,
    )


def row_of(day: np.datetime64) -> int:
    return int(np.searchsorted(CALENDAR, day))


def judged_in(fold: Fold) -> np.ndarray:
    return CALENDAR[row_of(fold.test_start) : row_of(fold.test_end) + 1]


@given(
    test_at=st.integers(MIN_TRAINING + 63, 900),
    live_at=st.integers(1200, 1499),
    folds=st.integers(1, 32),
    purge=st.integers(1, 63),
    holdout=st.integers(21, 252),
)
def test_every_session_is_judged_once_and_trained_on_by_nobody_who_judges_near_it(test_at, live_at, folds, purge, holdout):
    found = folds_of(test_at=test_at, live_at=live_at, folds=folds, purge=purge, holdout=holdout)
    assert [fold.number for fold in found] == list(range(folds + 1))
    assert [fold.holdout for fold in found] == [False] * folds + [True]
    np.testing.assert_array_equal(np.concatenate([judged_in(fold) for fold in found]), CALENDAR[test_at:live_at])
    assert len(judged_in(found[-1])) == holdout
    for fold in found:
        assert fold.train_start == CALENDAR[0]
        assert row_of(fold.test_start) - row_of(fold.train_end) - 1 == purge
        assert fold.test_end < CALENDAR[live_at]


def test_folds_differ_by_a_session_at_most():
    sizes = [len(judged_in(fold)) for fold in folds_of(folds=7)[:-1]]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"test_at": MIN_TRAINING + 4}, "256 lie before test_start 2005-12-27, 257 are needed"),
        ({"live_at": 655, "folds": 4}, "3 lie between it and the 252 holdout ones, 4 folds need at least one each"),
        ({"live_at": 500}, "0 lie between it and the 252 holdout ones"),
    ],
)
def test_sessions_without_room_are_refused_with_the_counts(asked, words):
    with pytest.raises(WalkForwardError, match=words):
        folds_of(**asked)


@dataclass(frozen=True)
class Numbered:
    """Scores that say whose they are."""

    number: int
    kappa: float = 0.1
    name: str = "numbered"

    def scores(self, observation: Observation) -> np.ndarray:
        return np.full(len(observation.symbols), float(self.number))


def seen_at(row: int) -> Observation:
    return Observation(as_of=CALENDAR[row], symbols=("A", "B"), vector=np.zeros(9, dtype=np.float32))


class TestWalkForward:
    FOLDS = folds_of(folds=3)
    POLICY = WalkForward([Numbered(fold.number) for fold in FOLDS], folds=FOLDS, sessions=CALENDAR, name="walked")

    def test_the_fold_of_the_traded_session_decides_and_not_that_of_the_observed_one(self):
        for fold in self.FOLDS:
            first, last = row_of(fold.test_start), row_of(fold.test_end)
            for row in (first - 1, last - 1):
                assert self.POLICY.scores(seen_at(row)).tolist() == [fold.number] * 2
        assert (self.POLICY.name, self.POLICY.kappa) == ("walked", 0.1)

    @pytest.mark.parametrize("row", [398, 1399, 1499])
    def test_a_session_of_no_fold_is_not_traded(self, row):
        with pytest.raises(WalkForwardError, match=f"no fold is judged on the session after {CALENDAR[row]}"):
            self.POLICY.scores(seen_at(row))

    def test_each_fold_needs_a_policy_and_all_one_pace(self):
        for policies in ([Numbered(0)] * 3, [Numbered(0), Numbered(1), Numbered(2), Numbered(3, kappa=0.2)]):
            with pytest.raises(WalkForwardError, match=f"4 folds need a policy each, all of one kappa, was {len(policies)}"):
                WalkForward(policies, folds=self.FOLDS, sessions=CALENDAR, name="x")


def test_everything_is_trained_on_up_to_the_live_period_and_nothing_of_it():
    fold = everything(CALENDAR, start=CALENDAR[10], live_start=CALENDAR[400])
    assert (fold.number, fold.train_start, fold.train_end, fold.test_start) == (0, CALENDAR[10], CALENDAR[399], CALENDAR[400])
    weekend = everything(CALENDAR, start=CALENDAR[10], live_start=CALENDAR[-1] + 30)
    assert weekend.train_end == CALENDAR[-1]
    with pytest.raises(WalkForwardError, match=f"251 sessions from .*, training needs {MIN_TRAINING}"):
        everything(CALENDAR, start=CALENDAR[0], live_start=CALENDAR[251])
