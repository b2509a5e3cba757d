"""From an observation to target weights: the policies, the artifact that holds a trained one, and the step towards its target.

Promise: a policy gives one finite score per asset; `weights_from_scores` turns scores into weights that sum to one (or to zero when
nothing is held and nothing is tradable). Zero scores with kappa 1 are equal weight over the tradable names. The artifact is two
files, `policy.npz` (never unpickled) and `policy.json`, the same bytes for the same content; its forward pass is NumPy in float64.
Failure: `PolicyError`, naming the array or field, what it was and what is allowed. A doubtful artifact is refused, never repaired.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trading_env.data.observation import Layout, Observation, unpack
from trading_env.errors import PapertapeError
from trading_env.simulation import q_table, trees
from trading_env.simulation.artifact import slots_problem
from trading_env.simulation.q_table import QTableError, QTables
from trading_env.simulation.trees import Trees, TreesError, with_forecast

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

SCHEMA = 1
HIDDEN = 64
SCORE_LIMIT = 10.0
LEAST_MASS = math.exp(-SCORE_LIMIT - 1)  # less than the exponential of any score within the limit
LOWEST, TINY = float(np.finfo(np.float64).min), float(np.finfo(np.float64).tiny)
ARCHITECTURE = "shared-encoder-64"
ARCHITECTURES = (ARCHITECTURE, q_table.ARCHITECTURE)
FORECASTS = ("none", "trees")
ENVELOPE = 8.0  # standard deviations; on the bundled data 8 % of the inputs of the worst day of training lie beyond, 2 % of March 2020's


class PolicyError(PapertapeError, ValueError):
    """A policy cannot be read, or cannot be used on what it was given."""


def weights_from_scores(
    scores: FloatArray, held: FloatArray, tradable: BoolArray, *, kappa: float, leaving: BoolArray | None = None
) -> FloatArray:
    """Target weights w = h + kappa * (softmax(scores over tradable) - h), all arrays (A,) or (N, A).

    `held`: share of equity by name; h is `held` normalised to sum to one over the names. Untradable names keep h and the tradable
    ones share the rest. What is held of a `leaving` name counts as sold: its weight is 0, and h is of the names that stay. A book without
    positions that stay starts at its target (kappa 1). Raises PolicyError on a score that is not finite.
    """
    if leaving is not None:
        held = np.where(leaving, 0.0, held)
    if not _finite(scores):
        raise PolicyError(f"scores must be finite, was {scores[~np.isfinite(scores)][0]}")
    total = np.add.reduce(held, axis=-1, keepdims=True)
    invested = total > 0
    h = np.divide(held, total, out=np.zeros(held.shape), where=invested)
    locked = np.where(tradable, 0.0, h)
    target = softmax(scores, tradable) * (1 - np.add.reduce(locked, axis=-1, keepdims=True))
    pace = np.where(invested, kappa, 1.0)
    return np.where(tradable, (1 - pace) * h + pace * target, locked)


def softmax(scores: FloatArray, tradable: BoolArray) -> FloatArray:
    """Softmax over the tradable names of the last axis; 0 for the others, and 0 everywhere when none is tradable."""
    logits = np.where(tradable, scores, -np.inf)
    peak = np.maximum.reduce(logits, axis=-1, keepdims=True)
    mass = np.exp(logits - np.maximum(peak, LOWEST))
    total = np.add.reduce(mass, axis=-1, keepdims=True)
    return np.asarray(mass / np.maximum(total, TINY))


class Policy(Protocol):
    """Gives scores (A,) in float64, in the order of the observation's symbols; `kappa` is the share of the way that it goes."""

    @property
    def name(self) -> str: ...

    @property
    def kappa(self) -> float: ...

    def scores(self, observation: Observation) -> FloatArray: ...


@dataclass(frozen=True)
class EqualWeight:
    """The baseline: zero scores, all the way."""

    name: str = "equal-weight"
    kappa: float = 1.0

    def scores(self, observation: Observation) -> FloatArray:
        return np.zeros(len(observation.symbols))


@dataclass(frozen=True)
class SeededRandom:
    """Standard normal scores that depend on the seed and the observed row alone: a policy to test machinery with."""

    seed: int
    kappa: float = 1.0

    @property
    def name(self) -> str:
        return f"random:{self.seed}"

    def scores(self, observation: Observation) -> FloatArray:
        row = [int(observation.as_of.astype("datetime64[D]").astype(np.int64))]
        if observation.as_of.dtype == np.dtype("datetime64[m]"):
            row.append(int(observation.as_of.astype(np.int64)))
        return np.random.default_rng([self.seed, *row]).standard_normal(len(observation.symbols))


def make_policy(spec: str) -> Policy:
    """`equal-weight` or `random:<seed>`; raises PolicyError on anything else."""
    match spec.split(":"):
        case ["equal-weight"]:
            return EqualWeight()
        case ["random", seed] if seed.isascii() and seed.isdigit():
            return SeededRandom(seed=int(seed))
    raise PolicyError(f"policy must be 'equal-weight' or 'random:<seed>', was {spec!r}")


@dataclass(frozen=True)
class PolicyCard:
    """`policy.json`: what the arrays are and where they come from. Dates are ISO; `metrics` is free-form JSON.

    `forecast`: "trees" when the arrays hold `Trees` whose forecast the network reads as one feature more; the file names it only then.
    `slots`: the slots whose bars it was trained on; none, and not in the file, for a model of daily bars.
    """

    features: tuple[str, ...]
    context: tuple[str, ...]
    feature_hash: str
    schema_version: int
    kappa: float
    trained_on: tuple[str, ...]
    train_start: str
    train_end: str
    seeds: tuple[int, ...]
    code_version: str
    architecture: str = ARCHITECTURE
    metrics: Mapping[str, Any] = field(default_factory=dict)
    forecast: str = "none"
    slots: tuple[str, ...] = ()

    @property
    def block(self) -> int:
        """Width of an asset's block as the encoder reads it: features, the forecast if there is one, held weight and mask."""
        return len(self.features) + (self.forecast != "none") + 2

    @property
    def inputs(self) -> int:
        """Width of the encoder's input: an asset's block and the global block."""
        return self.block + 1 + len(self.context)


def array_shapes(*, seeds: int, inputs: int) -> dict[str, tuple[int, ...]]:
    """The network's arrays of `policy.npz`: a leading seed axis, weights as (in, out); the standardisation is shared by the seeds."""
    return {
        "mu": (inputs,),
        "sigma": (inputs,),
        "w1": (seeds, inputs, HIDDEN),
        "b1": (seeds, HIDDEN),
        "w2": (seeds, HIDDEN, HIDDEN),
        "b2": (seeds, HIDDEN),
        "w3": (seeds, 2 * HIDDEN, HIDDEN),
        "b3": (seeds, HIDDEN),
        "w4": (seeds, HIDDEN),
        "b4": (seeds,),
    }


class NumpyPolicy:
    """A trained ensemble: per seed a shared encoder of each asset, the mean over tradable assets, a head that scores asset by asset.

    x = (concat(asset block, global block) - mu) / sigma;  h = tanh(tanh(x w1 + b1) w2 + b2);  m = mean of h over tradable;
    score = tanh([h, m] w3 + b3) . w4 + b4, centred over tradable, clipped to +-10. The ensemble's score is the log of the mean, over
    seeds, of the softmax over tradable; an untradable asset scores 0. With a forecast, an asset's block holds its rank behind the features.
    Of the architecture "q-table" each seed scores by its `QTables` instead. Raises PolicyError on arrays that do not fit the card.
    """

    def __init__(self, arrays: Mapping[str, ArrayLike], card: PolicyCard) -> None:
        self.card = card
        self.arrays = _checked(arrays, card)
        self._trees = None if card.forecast == "none" else Trees.of(self.arrays, features=len(card.features))
        self._tables: QTables | None = None
        if card.architecture == q_table.ARCHITECTURE:
            self._tables = QTables.of(self.arrays, seeds=len(card.seeds), features=len(card.features))
        else:
            self._fold_standardisation()

    def _fold_standardisation(self) -> None:
        a, own = self.arrays, self.card.block
        # The standardisation folds into the first layer, whose rows of the global block are applied once for all assets
        first = a["w1"] / a["sigma"][:, None]
        bias = a["b1"] - np.einsum("i,sij->sj", a["mu"], first)
        wide = np.concatenate(first, axis=1)
        self._own, self._shared, self._bias = wide[:own].copy(), wide[own:].copy(), bias.ravel()
        self._head, self._head_mean = np.ascontiguousarray(a["w3"][:, :HIDDEN]), np.ascontiguousarray(a["w3"][:, HIDDEN:])

    @property
    def name(self) -> str:
        return self.card.architecture

    @property
    def kappa(self) -> float:
        return self.card.kappa

    def scores(self, observation: Observation | NDArray[np.float32]) -> FloatArray:
        """(A,) for an Observation or a vector (width,), (N, A) for vectors (N, width)."""
        vector = observation.vector if isinstance(observation, Observation) else observation
        layout = Layout.of_width(vector.shape[-1], features=len(self.card.features), context=len(self.card.context))
        if isinstance(observation, Observation) and layout.assets != len(observation.symbols):
            raise PolicyError(f"the observation must hold {len(observation.symbols)} assets, was {layout.assets}")
        if not _finite(vector):
            raise PolicyError(f"the observation must be finite, was {vector[~np.isfinite(vector)][0]}")
        vectors, read = self.inputs(vector.reshape(-1, layout.width), layout)
        if vector.ndim == 1:
            return self._score(vectors[0], read)
        return np.array([self._score(row, read) for row in vectors]).reshape(*vector.shape[:-1], layout.assets)

    def inputs(self, vectors: NDArray[np.float32], layout: Layout) -> tuple[NDArray[np.float32], Layout]:
        """What the network reads of observations (N, width): these, with the forecast where there is one."""
        return (vectors, layout) if self._trees is None else with_forecast(vectors, layout=layout, trees=self._trees)

    def _score(self, vector: NDArray[np.float32], layout: Layout) -> FloatArray:
        """(A,) from (width,), in as few calls as can be: at this size each costs as much as its arithmetic."""
        assets, split = layout.assets, layout.assets * (layout.features + 2)
        blocks, rest = vector[:split].reshape(assets, -1).astype(np.float64), vector[split:].astype(np.float64)
        mask = blocks[:, -1] > 0.5
        tradable = mask.astype(np.float64)
        share = tradable * (1.0 / max(int(np.count_nonzero(mask)), 1))
        raw = self._raw(blocks, rest, share) if self._tables is None else self._tables.scores(blocks, mask)

        # b4 cancels in centring; the softmax of scores within +-10 needs no shift
        raw -= raw.dot(share)[:, None]
        mass = np.exp(np.minimum(np.maximum(raw, -SCORE_LIMIT), SCORE_LIMIT))
        portfolio = (1 / np.maximum(mass.dot(tradable), LEAST_MASS)).dot(mass) / len(self.card.seeds)
        return np.asarray(np.log(portfolio * tradable + (1 - tradable)))

    def _raw(self, blocks: FloatArray, rest: FloatArray, share: FloatArray) -> FloatArray:
        """(S, A) the networks' scores before they are centred. h is (S, A, HIDDEN)."""
        a, seeds, assets = self.arrays, len(self.card.seeds), len(blocks)
        wide = blocks.dot(self._own)
        wide += rest.dot(self._shared) + self._bias
        np.tanh(wide, wide)
        h = _products(wide.reshape(assets, seeds, HIDDEN).transpose(1, 0, 2), a["w2"])
        h += a["b2"][:, None]
        np.tanh(h, h)
        joint = _products(h, self._head)
        joint += _products((share @ h)[:, None], self._head_mean) + a["b3"][:, None]
        return _products(np.tanh(joint, joint), a["w4"][:, :, None])[:, :, 0]


def _products(left: FloatArray, right: FloatArray) -> FloatArray:
    """`left @ right` of (S, n, m) and (S, m, k); of one seed at BLAS' own speed, without the loop over S."""
    return left[0].dot(right[0])[None] if len(left) == 1 else left @ right


def _finite(values: NDArray[np.floating[Any]]) -> bool:
    """`np.isfinite(values).all()`, without the method's overhead."""
    return bool(np.logical_and.reduce(np.isfinite(values), axis=None))


def outside(policy: NumpyPolicy, vector: NDArray[np.float32], layout: Layout) -> float:
    """Share of the tradable names' inputs that lie beyond `ENVELOPE` standard deviations of those that the policy was trained on."""
    (seen,), wider = policy.inputs(vector[None], layout)
    parts = unpack(seen, layout=wider)
    own = parts.assets[parts.tradable].astype(np.float64)
    inputs = np.concatenate([own, np.broadcast_to(parts.rest, (len(own), parts.rest.size))], axis=-1)
    far = np.abs(inputs - policy.arrays["mu"]) > ENVELOPE * policy.arrays["sigma"]
    return float(far.mean()) if far.size else 0.0


def stack_policies(policies: Sequence[NumpyPolicy]) -> NumpyPolicy:
    """One ensemble of several trained seeds; raises PolicyError unless they differ in seeds, weights and metrics alone."""
    if not policies:
        raise PolicyError("an ensemble needs at least one policy, was 0")
    first = policies[0]
    shared = [name for name in ("mu", "sigma", *trees.ARRAYS, *q_table.SHARED) if name in first.arrays]
    for other in policies[1:]:
        for name in {f.name for f in fields(PolicyCard)} - {"seeds", "metrics"}:
            if getattr(other.card, name) != getattr(first.card, name):
                raise PolicyError(f"seeds of one ensemble must agree on {name}, was {getattr(other.card, name)!r}")
        if different := [name for name in shared if not np.array_equal(other.arrays[name], first.arrays[name])]:
            raise PolicyError(f"seeds of one ensemble must share {' and '.join(shared)}, was different in {', '.join(different)}")
    arrays = {
        name: value if name in shared else np.concatenate([policy.arrays[name] for policy in policies])
        for name, value in first.arrays.items()
    }
    seeds = tuple(seed for policy in policies for seed in policy.card.seeds)
    return NumpyPolicy(arrays, replace(first.card, seeds=seeds))


def save_policy(folder: Path, arrays: Mapping[str, ArrayLike], card: PolicyCard) -> None:
    """Write `policy.npz` and `policy.json`; refuses, by PolicyError, what `load_policy` would refuse. Same content, same bytes."""
    checked = NumpyPolicy(arrays, card).arrays
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "policy.npz", allow_pickle=False, **{name: checked[name] for name in sorted(checked)})
    document = {"schema": SCHEMA, **asdict(card)}
    if card.forecast == "none":
        del document["forecast"]  # the same bytes, and so the same hash, as before there was one
    if not card.slots:
        del document["slots"]
    text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False)
    (folder / "policy.json").write_text(text + "\n", encoding="utf-8")


def load_policy(folder: Path, *, expected_feature_hash: str | None = None, slots: Sequence[str] = ()) -> NumpyPolicy:
    """Read and check an artifact; pass the running code's feature hash unless only looking at it, and the slots where rows are slot bars: a
    model of other rows has learned other features. Raises PolicyError."""
    card = _read_card(folder / "policy.json")
    if expected_feature_hash is not None and card.feature_hash != expected_feature_hash:
        raise PolicyError(f"policy.json: feature_hash must be {expected_feature_hash}, was {card.feature_hash}")
    if expected_feature_hash is not None and card.slots != tuple(slots):
        raise PolicyError(f"policy.json: {slots_problem(wanted=slots, was=card.slots)}")
    try:
        with (folder / "policy.npz").open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PolicyError(f"policy.npz cannot be read: {error}") from error
    return NumpyPolicy(arrays, card)


def _read_card(path: Path) -> PolicyCard:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PolicyError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(document, dict) or document.pop("schema", None) != SCHEMA:
        raise PolicyError(f"{path.name}: schema must be {SCHEMA}")
    expected = {f.name for f in fields(PolicyCard)}
    if differ := (document.keys() | {"forecast", "slots"}) ^ expected:
        raise PolicyError(f"{path.name}: fields must be exactly the card's, these differ: {', '.join(sorted(differ))}")
    lists = {name: tuple(document[name]) for name in ("features", "context", "trained_on", "seeds")}
    lists["slots"] = tuple(document.get("slots", ()))
    return PolicyCard(**{**document, **lists})


def _check_card(card: PolicyCard) -> None:
    if card.architecture not in ARCHITECTURES:
        raise PolicyError(f"architecture must be one of {', '.join(ARCHITECTURES)}, was {card.architecture!r}")
    if not (isinstance(card.kappa, (int, float)) and 0 < card.kappa <= 1):
        raise PolicyError(f"kappa must lie in (0, 1], was {card.kappa!r}")
    if card.forecast not in FORECASTS:
        raise PolicyError(f"forecast must be one of {', '.join(FORECASTS)}, was {card.forecast!r}")


def _checked(arrays: Mapping[str, ArrayLike], card: PolicyCard) -> dict[str, NDArray[Any]]:
    _check_card(card)
    shapes, tables = array_shapes(seeds=len(card.seeds), inputs=card.inputs), card.architecture == q_table.ARCHITECTURE
    if tables:
        shapes = {name: shapes[name] for name in ("mu", "sigma")}
    wanted = {*shapes, *(q_table.ARRAYS if tables else ()), *(trees.ARRAYS if card.forecast == "trees" else ())}
    if not card.seeds or arrays.keys() != wanted:
        raise PolicyError(f"policy.npz must hold {', '.join(sorted(wanted))} of at least one seed, was {', '.join(sorted(arrays))}")
    checked: dict[str, NDArray[Any]] = {}
    for name, shape in shapes.items():
        value = np.asarray(arrays[name])
        if value.shape != shape or not np.issubdtype(value.dtype, np.floating):
            raise PolicyError(f"policy.npz: {name} must be floats of shape {shape}, was {value.dtype} {value.shape}")
        if not np.isfinite(value).all():
            raise PolicyError(f"policy.npz: {name} must be finite, was {value[~np.isfinite(value)][0]}")
        checked[name] = value.astype(np.float64)
    if not (checked["sigma"] > 0).all():
        raise PolicyError(f"policy.npz: sigma must be above 0, was {checked['sigma'].min()}")
    try:
        if tables:
            checked |= QTables.of(arrays, seeds=len(card.seeds), features=len(card.features)).arrays
        if card.forecast == "trees":
            checked |= Trees.of(arrays, features=len(card.features)).arrays
    except (QTableError, TreesError) as error:
        raise PolicyError(f"policy.npz: {error}") from error
    return checked
