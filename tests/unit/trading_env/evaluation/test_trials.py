"""The log remembers every trial once, and notices when somebody changes its memory."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise

import numpy as np
import pytest

from trading_env.evaluation.trials import GENESIS, TrialLog, TrialLogError, trial_id

DAYS = np.arange("2019-01-02", "2019-01-12", dtype="datetime64[D]")
DAILY = np.random.default_rng(0).normal(0, 1e-3, (4, len(DAYS)))
ENTRY = {"settings": {}, "feature_hash": "f", "code_hash": "c", "sessions": DAYS, "excess": DAILY[0], "excess_at_kappa": DAILY[1]}


def grown(count: int = 3) -> TrialLog:
    log = TrialLog()
    for number in range(count):
        log = log.append(
            settings={"kappa": 0.1, "n": number},
            feature_hash="f1",
            code_hash="c1",
            sessions=DAYS,
            excess=DAILY[number],
            excess_at_kappa=DAILY[number] / 2,
        )
    return log.open_holdout(
        trial=log.trials[1].trial_id, sessions=DAYS + np.timedelta64(10, "D"), excess=DAILY[3], excess_at_kappa=DAILY[3]
    )


LOG = grown()


def test_a_trial_is_the_hash_of_settings_features_and_code():
    canonical = '{"code_hash":"c","feature_hash":"f","settings":{"a":1,"b":[2]}}'
    one = trial_id(settings={"b": [2], "a": 1}, feature_hash="f", code_hash="c")
    assert one == trial_id(settings={"a": 1, "b": (2,)}, feature_hash="f", code_hash="c") == hashlib.sha256(canonical.encode()).hexdigest()
    others = [({"a": 2, "b": [2]}, "f", "c"), ({"a": 1, "b": [2]}, "g", "c"), ({"a": 1, "b": [2]}, "f", "d")]
    assert len({one, *(trial_id(settings=s, feature_hash=f, code_hash=c) for s, f, c in others)}) == 4


def test_each_entry_holds_the_hash_of_the_one_before():
    assert LOG.entries[0].previous == GENESIS == TrialLog().head
    assert all(after.previous == before.hash for before, after in pairwise(LOG.entries))
    assert LOG.head == LOG.entries[-1].hash
    assert [entry.kind for entry in LOG.entries] == ["trial"] * 3 + ["opening"]
    assert (len(LOG.trials), len(LOG.openings)) == (3, 1)


def test_a_repeat_adds_nothing_and_the_first_result_stands():
    again = LOG.append(
        settings={"n": 1, "kappa": 0.1},
        feature_hash="f1",
        code_hash="c1",
        sessions=DAYS,
        excess=DAILY[1] + 1.0,
        excess_at_kappa=DAILY[1] + 1.0,
    )
    assert again is LOG
    identity = LOG.trials[1].trial_id
    assert LOG.open_holdout(trial=identity, sessions=DAYS, excess=DAILY[0], excess_at_kappa=DAILY[0]) is LOG
    np.testing.assert_array_equal(LOG.trial(identity).excess, DAILY[1])
    np.testing.assert_array_equal(LOG.opening(identity).excess, DAILY[3])


def test_lines_read_back_to_the_bit():
    lines = LOG.to_lines()
    assert all("\n" not in line for line in lines)
    back = TrialLog.from_lines([*lines, "", "\n"], head=LOG.entries[1].hash)
    assert back.to_lines() == lines
    assert back.head == LOG.head
    np.testing.assert_array_equal(back.trials[2].excess, DAILY[2])
    np.testing.assert_array_equal(back.trials[2].sessions, DAYS)
    assert (
        back.append(
            settings={"n": 0, "kappa": 0.1}, feature_hash="f1", code_hash="c1", sessions=DAYS, excess=DAILY[0], excess_at_kappa=DAILY[0]
        )
        is back
    )


def changed(number: int, **fields: object) -> list[str]:
    lines = LOG.to_lines()
    lines[number] = json.dumps({**json.loads(lines[number]), **fields})
    return lines


def forged(number: int, **fields: object) -> list[str]:
    """As `changed`, by somebody who also writes the hash that the changed line has."""
    lines = changed(number, **fields)
    body = {name: value for name, value in json.loads(lines[number]).items() if name != "hash"}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    lines[number] = json.dumps({**body, "hash": digest})
    return lines


LINES = LOG.to_lines()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (changed(1, excess=[0.0] * 10), "line 2: its hash is"),
        (forged(1, excess=[0.0] * 10), "line 3: follows"),
        ([LINES[0], *LINES[2:]], "line 2: follows"),
        ([LINES[1], LINES[0], *LINES[2:]], "line 1: follows"),
        (LINES[1:], "line 1: follows"),
        (forged(0, trial_id="0" * 64), "line 1: trial id 000000000000 is not the hash of its configuration"),
        (forged(3, trial_id="0" * 64), "line 4: opens the holdout for trial 000000000000, which is not above it"),
        (changed(2, note="hello"), "line 3: an entry has the fields"),
        (changed(1, excess_at_kappa=[0.0] * 10), "line 2: its hash is"),
        (forged(1, excess_at_kappa=[0.0] * 10), "line 3: follows"),
        (changed(2, excess_at_kappa=None), "line 3: a series is one finite excess per session"),
        (changed(2, excess=[0.0]), "line 3: a series is one finite excess per session"),
        (changed(2, sessions=["yesterday"] * 10), "line 3: "),
        ([*LINES[:2], LINES[2][:-5]], "line 3: not JSON"),
        (["[]"], "line 1: an entry has the fields"),
    ],
)
def test_a_log_that_was_touched_is_refused_at_its_line(lines, words):
    with pytest.raises(TrialLogError, match=words):
        TrialLog.from_lines(lines)


@pytest.mark.parametrize(("number", "kind"), [(0, "trial"), (3, "opening")])
def test_an_entry_copied_to_the_end_is_not_counted_twice(number, kind):
    copy = forged(number, previous=LOG.head)[number]
    with pytest.raises(TrialLogError, match=rf"line 5: {kind} [0-9a-f]{{12}} is in the log already"):
        TrialLog.from_lines([*LINES, copy])


def test_a_log_cut_short_is_noticed_by_who_wrote_its_head_down():
    assert len(TrialLog.from_lines(LINES[:2]).entries) == 2
    with pytest.raises(TrialLogError, match=f"does not hold {LOG.head[:12]}.*cut short"):
        TrialLog.from_lines(LINES[:2], head=LOG.head)


def test_columns_are_on_all_sessions_and_nan_where_a_trial_has_none():
    log = LOG.append(
        settings={},
        feature_hash="f",
        code_hash="c",
        sessions=DAYS[3:] + np.timedelta64(2, "D"),
        excess=DAILY[0, 3:],
        excess_at_kappa=DAILY[0, 3:],
    )
    days, table = log.columns()
    np.testing.assert_array_equal(days, np.arange("2019-01-02", "2019-01-14", dtype="datetime64[D]"))
    np.testing.assert_array_equal(table[:10, :3].T, DAILY[:3])
    assert np.isnan(table[10:, :3]).all()
    assert np.isnan(table[:5, 3]).all()
    np.testing.assert_array_equal(table[5:, 3], DAILY[0, 3:])
    assert TrialLog().columns()[1].shape == (0, 0)


# As the version before wrote them: without d at kappa
OLD = [
    '{"excess":[0.001,-0.0005,0.25],"hash":"6c573224be83033e94e1c0294825a1fb6213a211353edae32d3148e38bda7446","kind":"trial",'
    '"previous":"0000000000000000000000000000000000000000000000000000000000000000","recipe":{"code_hash":"c","feature_hash":"f",'
    '"settings":{"n":0}},"sessions":["2019-01-02","2019-01-03","2019-01-04"],'
    '"trial_id":"92a02b96f14b5e8f76e73d6e7723fd98de8177a4f81544b9e9882965ecba30ad"}',
    '{"excess":[0.1,-0.1],"hash":"933d5c188aa03e5b7a8a8341376c62ca151af9898ec4f9151036e76baa3f782e","kind":"opening",'
    '"previous":"6c573224be83033e94e1c0294825a1fb6213a211353edae32d3148e38bda7446","recipe":{},"sessions":["2019-02-01","2019-02-04"],'
    '"trial_id":"92a02b96f14b5e8f76e73d6e7723fd98de8177a4f81544b9e9882965ecba30ad"}',
]


def test_a_log_from_before_d_at_kappa_is_read_verified_and_grows():
    log = TrialLog.from_lines(OLD, head="933d5c188aa03e5b7a8a8341376c62ca151af9898ec4f9151036e76baa3f782e")
    assert log.to_lines() == OLD
    assert [entry.excess_at_kappa for entry in log.entries] == [None, None]
    longer = log.append(**ENTRY)
    assert longer.entries[-1].previous == log.head
    back = TrialLog.from_lines(longer.to_lines(), head=log.head)
    assert back.to_lines() == [*OLD, longer.entries[-1].to_line()]
    np.testing.assert_array_equal(back.trials[1].excess_at_kappa, DAILY[1])
    touched = OLD[0].replace("0.25", "0.26")
    with pytest.raises(TrialLogError, match="line 1: its hash is"):
        TrialLog.from_lines([touched, OLD[1]])


def test_a_trial_from_before_d_at_kappa_is_charged_for_by_what_it_has():
    log = TrialLog.from_lines(OLD).append(**ENTRY)
    daily, at_kappa = log.columns()[1], log.columns(at_kappa=True)[1]
    np.testing.assert_array_equal(daily[:3, 0], [0.001, -0.0005, 0.25])
    np.testing.assert_array_equal(at_kappa[:, 0], daily[:, 0])
    np.testing.assert_array_equal(daily[:, 1], DAILY[0])
    np.testing.assert_array_equal(at_kappa[:, 1], DAILY[1])


def test_what_was_logged_cannot_be_written_to():
    settings = {"kappa": 0.1}
    log = TrialLog().append(settings=settings, feature_hash="f", code_hash="c", sessions=DAYS, excess=DAILY[0], excess_at_kappa=DAILY[0])
    settings["kappa"] = 0.2
    assert log.trials[0].configuration["settings"] == {"kappa": 0.1}
    with pytest.raises(ValueError, match="read-only"):
        log.trials[0].excess[0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        log.trials[0].excess_at_kappa[0] = 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": {"a": float("nan")}}, "settings must be JSON"),
        ({"settings": {"a": object()}}, "settings must be JSON"),
        ({"excess": DAILY[0, :3]}, "one finite excess per session"),
        ({"excess": DAILY[0] * np.nan}, "one finite excess per session"),
        ({"excess_at_kappa": DAILY[0, :3]}, "one finite excess per session"),
        ({"excess_at_kappa": DAILY[0] * np.nan}, "one finite excess per session"),
        ({"sessions": DAYS[::-1]}, "must rise"),
        ({"sessions": np.repeat(DAYS[::2], 2)}, "must rise"),
    ],
)
def test_an_entry_that_does_not_belong_is_refused(change, words):
    with pytest.raises(TrialLogError, match=words):
        TrialLog().append(**(ENTRY | change))


def test_a_span_opens_only_for_a_trial_that_was_logged():
    with pytest.raises(TrialLogError, match="nobody is none of 3"):
        LOG.open_holdout(trial="nobody", sessions=DAYS, excess=DAILY[0], excess_at_kappa=DAILY[0])
