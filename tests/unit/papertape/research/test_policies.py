"""A run's folder as a policy: which fold trades which session, what counts as trained, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from papertape.research.policies import ChosenPolicyError, WalkedRun, in_sample, policy_called, said
from papertape.research.run_record import JudgedFold, RunRecord, RunRecordError
from tests import small_run
from trading_env.data.features import CONTEXT, FEATURE_HASH, FEATURES, SCHEMA_VERSION
from trading_env.data.observation import Observation, observe
from trading_env.evaluation.walk_forward import WalkForward, split
from trading_env.simulation.policy import NumpyPolicy, PolicyCard, array_shapes, save_policy, stack_policies

DAYS = small_run.DAYS
FOLDS = split(DAYS, start=DAYS[0], test_start=DAYS[400], live_start=small_run.LIVE_START, folds=2, purge_sessions=5, holdout_sessions=40)


def network(*, seed: int, fold: int, train_end: str) -> NumpyPolicy:
    card = PolicyCard(
        features=tuple(feature.name for feature in FEATURES),
        context=tuple(feature.name for feature in CONTEXT),
        feature_hash=FEATURE_HASH,
        schema_version=SCHEMA_VERSION,
        kappa=0.1,
        trained_on=small_run.SYMBOLS,
        train_start=str(DAYS[0]),
        train_end=train_end,
        seeds=(seed,),
        code_version="test",
    )
    draw = np.random.default_rng([seed, fold])
    arrays = {name: draw.normal(0, 0.3, shape) for name, shape in array_shapes(seeds=1, inputs=card.inputs).items()}
    return NumpyPolicy({**arrays, "sigma": np.ones(card.inputs), "mu": np.zeros(card.inputs)}, card)


def record_of(*, seeds: tuple[int, ...] = (0, 1)) -> RunRecord:
    folds = tuple(JudgedFold(f.number, str(f.train_start), str(f.train_end), str(f.test_start), str(f.test_end)) for f in FOLDS)
    return RunRecord(configuration_of_one_seed="one", manifest_sha256="bars", seeds=seeds, folds=folds, holdout=2)


def trained(folder: Path, *, seed: int, fold: int, configuration: str = "one") -> None:
    made = folder / "seeds" / str(seed) / f"fold-{fold}"
    policy = network(seed=seed, fold=fold, train_end=str(FOLDS[fold].train_end))
    save_policy(made, policy.arrays, policy.card)
    document = {"configuration_of_one_seed": configuration, "manifest_sha256": "bars", "seed": seed, "fold": fold}
    (made / "training.json").write_text(json.dumps(document), encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    record_of().write(tmp_path)
    for seed in (0, 1):
        for fold in range(3):
            trained(tmp_path, seed=seed, fold=fold)
    return tmp_path


def walked(folder: Path) -> WalkedRun:
    policy = policy_called(str(folder), sessions=DAYS)
    assert isinstance(policy, WalkedRun)
    return policy


def test_each_session_is_traded_by_the_seeds_ensemble_of_the_fold_that_judges_it(run: Path) -> None:
    policy = walked(run)
    for place, fold in enumerate(FOLDS):
        own = DAYS[np.searchsorted(DAYS, fold.test_start) : np.searchsorted(DAYS, fold.test_end) + 1]
        assert (policy.which(own) == place).all()
    assert policy.which(DAYS[[0, 399]]).tolist() == [0, 0]
    assert policy.which(np.array(["2030-01-02"], dtype="datetime64[D]")).tolist() == [2]


def test_it_scores_as_the_judges_walk_forward_does(run: Path) -> None:
    market, policy = small_run.market(), walked(run)
    ensembles = [stack_policies([network(seed=seed, fold=fold.number, train_end=str(fold.train_end)) for seed in (0, 1)]) for fold in FOLDS]
    judge = WalkForward(ensembles, folds=FOLDS, sessions=market.sessions, name="judge")
    for row in (399, 400, 480, 499, 500, 598, 599, 600):
        held = np.full(3, 1 / 3)
        vector = observe(market.features[row], market.context[row], market.tradable[row], held, 0.0)
        observation = Observation(as_of=market.sessions[row], symbols=market.symbols, vector=vector)
        np.testing.assert_array_equal(policy.scores(observation), judge.scores(observation))


def test_it_says_which_folder_holds_what_and_what_is_in_sample_or_the_holdout(run: Path) -> None:
    policy, traded = walked(run), DAYS[390:]
    one, two, last, inside, holdout = said(policy, traded)
    assert one == f"{traded[0]} to {FOLDS[0].test_end}: {run}/seeds/{{0,1}}/fold-0, trained on {DAYS[0]} to {DAYS[394]}"
    assert two.startswith(f"{FOLDS[1].test_start} to {FOLDS[1].test_end}: {run}/seeds/{{0,1}}/fold-1, ")
    assert last.startswith(f"{FOLDS[2].test_start} to {DAYS[-1]}: ")
    assert inside == (
        f"in sample: this model was trained on {DAYS[0]} to {DAYS[394]}; its results there, 5 of 250 sessions, are no evidence, "
        f"--from {DAYS[395]} leaves them out"
    )
    assert holdout.startswith(f"holdout: {FOLDS[2].test_start} to {DAYS[-1]} are the run's; looked at here, they are no fresh evidence")
    assert in_sample(policy, traded).sum() == 5
    assert len(said(policy, DAYS[400:500])) == 1


def test_a_fold_that_a_seed_lacks_is_left_out_and_said_to_be(run: Path) -> None:
    (run / "seeds" / "1" / "fold-1" / "training.json").unlink()
    policy = walked(run)
    assert [fold.number for fold in policy.folds] == [0, 2]
    assert policy.which(DAYS[[520]]).tolist() == [0]  # older, and still out of sample
    assert said(policy, DAYS[400:])[0] == "fold 1 is left out, it is not trained by seed 1"


def test_what_another_run_left_in_the_folder_is_not_this_ones(run: Path) -> None:
    trained(run, seed=0, fold=2, configuration="other")
    assert [fold.number for fold in walked(run).folds] == [0, 1]
    replace(record_of(), manifest_sha256="other bars").write(run)
    with pytest.raises(ChosenPolicyError, match="no fold is trained by all of its 2 seeds; repeat the run to finish it"):
        walked(run)


def test_a_record_that_cannot_be_read_is_refused_in_one_line(run: Path) -> None:
    (run / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunRecordError, match=r"run\.json cannot be read .*; train again"):
        walked(run)


def test_a_model_of_another_feature_table_is_refused(run: Path) -> None:
    card = run / "seeds" / "0" / "fold-0" / "policy.json"
    card.write_text(card.read_text(encoding="utf-8").replace(FEATURE_HASH, "0" * 64), encoding="utf-8")
    with pytest.raises(ChosenPolicyError, match="feature_hash must be"):
        walked(run)


def test_a_single_model_is_in_sample_up_to_the_end_of_its_training(tmp_path: Path) -> None:
    policy = network(seed=0, fold=0, train_end=str(DAYS[400]))
    save_policy(tmp_path, policy.arrays, policy.card)
    chosen = policy_called(str(tmp_path), sessions=DAYS)
    assert in_sample(chosen, DAYS[390:410]).sum() == 11
    assert said(chosen, DAYS[401:]) == []
    assert said(chosen, DAYS[:10])[0].endswith("its results there, 10 of 10 sessions, are no evidence")
