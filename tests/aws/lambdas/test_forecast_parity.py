"""A policy with a forecast scores the same wherever it runs: in the backtest, behind an endpoint, and from the package in `decide`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import numpy as np

from lambdas.common.ledger.records import ServedModel
from lambdas.decide.package import score_package
from learning import forecast, serving
from learning.packaging import archive
from tests import small_run
from trading_env.data.features import CONTEXT, FEATURE_HASH, FEATURES, SCHEMA_VERSION
from trading_env.data.observation import Observation
from trading_env.evaluation.backtest import backtest
from trading_env.simulation.policy import FloatArray, NumpyPolicy, PolicyCard, array_shapes, save_policy
from trading_env.simulation.portfolio import Rules

BUCKET = "papertape-processed"


@dataclass
class Recorded:
    """A policy, and what it was asked and answered."""

    policy: NumpyPolicy
    name: str = "recorded"
    kappa: float = 0.3
    seen: list[tuple[Observation, FloatArray]] = field(default_factory=list)

    def scores(self, observation: Observation) -> FloatArray:
        scores = self.policy.scores(observation)
        self.seen.append((observation, scores))
        return scores


def test_backtest_endpoint_and_package_agree(aws: None, tmp_path: Path) -> None:
    market = small_run.market()
    card = PolicyCard(
        features=tuple(feature.name for feature in FEATURES),
        context=tuple(feature.name for feature in CONTEXT),
        feature_hash=FEATURE_HASH,
        schema_version=SCHEMA_VERSION,
        kappa=0.3,
        trained_on=market.symbols,
        train_start=str(market.sessions[0]),
        train_end=str(market.sessions[599]),
        seeds=(0, 1),
        code_version="test",
        forecast="trees",
    )
    random = np.random.default_rng(0)
    arrays = {name: random.normal(0, 0.3, shape) for name, shape in array_shapes(seeds=2, inputs=card.inputs).items()}
    trees = forecast.fit(market.rows(card.train_start, card.train_end))
    arrays |= {"mu": np.zeros(card.inputs), "sigma": np.ones(card.inputs), **trees.arrays}
    save_policy(tmp_path, arrays, card)
    model = serving.model_fn(str(tmp_path))
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="m.tar.gz", Body=archive({path.name: path.read_bytes() for path in tmp_path.iterdir()}))
    pointer = ServedModel(
        role="incumbent", policy="endpoint", spec="a", model_version=model.version, kappa=0.3, since="", model_uri=f"s3://{BUCKET}/m.tar.gz"
    )

    recorded = Recorded(NumpyPolicy(arrays, card))
    backtest(market, recorded, rules=Rules(), start=market.sessions[606], end=market.sessions[-1], initial_cash=1e5)
    assert len(recorded.seen) == len(market) - 606
    for number, (observation, scores) in enumerate(recorded.seen):
        assert np.ptp(scores) > 0.01
        body = {"schema": 1, "as_of": str(observation.as_of), "symbols": observation.symbols, "observation": observation.vector.tolist()}
        answer = json.loads(serving.output_fn(serving.predict_fn(serving.input_fn(json.dumps(body), serving.JSON), model), serving.JSON))
        np.testing.assert_allclose(answer["scores"], scores, rtol=0, atol=1e-12)
        if number % 10 == 0:
            np.testing.assert_allclose(score_package(s3=s3, model=pointer, observation=observation).values, scores, rtol=0, atol=1e-12)

    # Another forecast is another policy, so the trees had a say in all of it
    other = NumpyPolicy(arrays | {"tree_value": -arrays["tree_value"]}, card)
    observation, scores = recorded.seen[-1]
    assert np.abs(other.scores(observation) - scores).max() > 1e-3
