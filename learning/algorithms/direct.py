"""Direct reinforcement: the growth of the real step, differentiated by the network that scores, without a sampled action.

Prices do not depend on what a book trades, so growth is a known function of the scores (Moody and Saffell, IEEE Transactions on Neural
Networks 12, 2001; Jiang, Xu and Liang, arXiv 1706.10059, 2017). Training starts at the linear policy of `linear.py`, embedded in the
network, and follows the gradient of the mean of d less a risk term, d being daily log growth less that of equal weight at the same kappa.
What the gradient adds to the start must show on the last sessions of the training years, purged, or the start is the result: thirty
names and ten years are memorised in minutes.

Promise: `learning.algorithms.trainer`'s. The network does not see what is held (its held and cash inputs have no weight), so that the
scores of a batch come from one pass. `timesteps` counts sessions of books. Failure: `DatasetError` where the market has no room for a span.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from learning.algorithms import linear
from learning.algorithms.checkpoints import Pauses, TrainingState, load_optimiser, optimiser_arrays, tensors
from learning.algorithms.differentiable import Sessions, growth
from learning.algorithms.trainer import Fitted, Pace, standardisation
from learning.dataset import DatasetError
from learning.network import ScoreNetwork, export
from schema.trading_rules import rules_of
from trading_env.evaluation.metrics import SESSIONS_PER_YEAR
from trading_env.simulation.portfolio import ExecutionPrices, FloatArray, IntArray

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from learning.algorithms.checkpoints import Checkpoints
    from learning.algorithms.trainer import OnRollout, Stop
    from schema.settings import Settings
    from trading_env.data.market import Market
    from trading_env.simulation.portfolio import Rules

PHASE = "direct"
BOOKS, SPAN = 24, 63
LEARNING_RATE, FINAL_RATE, WEIGHT_DECAY = 1e-3, 1e-4, 1e-3
RISK = 20.0  # aversion to the variance of d: 1 is a log investor's; the rest is for what is estimated
CLIPPED = 1.0  # norm of a gradient
LOOKS = 8  # at the sessions kept aside, on the way
PATIENCE = 2  # looks in a row without a gain, and the ascent ends
ASIDE, PURGE = 0.25, 21
ERRORS = linear.HURDLE  # of the mean gain over the start, which the gradient must show there
CURVED = 0.5  # the largest linear score's argument of the third layer's tanh, which it bends by a twelfth


@dataclass(frozen=True)
class Terms:
    """On what books trade: pace, rules and dollars to begin with."""

    kappa: float
    rules: Rules
    value: float

    @classmethod
    def of(cls, settings: Settings) -> Terms:
        return cls(settings.portfolio.kappa, rules_of(settings), settings.portfolio.initial_cash)

    def growth(self, scores: Tensor, sessions: Sessions) -> Tensor:
        """(B, T) log growth of books that follow `scores` (B, T, A)."""
        return growth(scores, sessions, kappa=self.kappa, rules=self.rules, value=self.value)[0]


@dataclass(frozen=True, eq=False)
class Spans:
    """A market as the gradient reads it: prices, and the observations of a book that holds nothing, which the network need not know."""

    prices: ExecutionPrices
    features: NDArray[np.float32]
    context: NDArray[np.float32]
    first: int
    last: int

    @classmethod
    def of(cls, market: Market) -> Spans:
        """Steps may begin at the rows `first` to `last`, both included."""
        ready = np.flatnonzero(market.tradable.any(axis=1) & np.isfinite(market.context).all(axis=1))
        if not len(ready) or len(market) - 1 - ready[0] < 2:
            raise DatasetError(f"training needs a session with a tradable name and one after it, {len(market)} sessions have none")
        features = np.where(market.tradable[..., None], market.features, 0.0).astype(np.float32)
        context = np.where(np.isfinite(market.context), market.context, 0.0).astype(np.float32)
        return cls(ExecutionPrices.of(market), features, context, int(ready[0]), len(market) - 2)

    def observations(self, rows: IntArray, names: IntArray) -> Tensor:
        """(B x T, width) of `rows` (B, T) and `names` (B, A)."""
        own = self.features[rows[:, :, None], names[:, None, :]]
        mask = self.prices.decidable[rows[:, :, None], names[:, None, :]].astype(np.float32)[..., None]
        blocks = np.concatenate([own, np.zeros_like(mask), mask], axis=-1).reshape(rows.size, -1)
        shared = self.context[rows.ravel()]
        return torch.from_numpy(np.concatenate([blocks, np.zeros((rows.size, 1), np.float32), shared], axis=1))


@dataclass(frozen=True, eq=False)
class Climbed:
    """What direct reinforcement ends with; `seconds`: spent before it was last resumed."""

    network: ScoreNetwork
    timesteps: int
    curve: list[dict[str, Any]]
    seconds: float


def fit(
    market: Market,
    *,
    settings: Settings,
    seed: int,
    timesteps: int,
    on_rollout: OnRollout | None = None,
    tensorboard: Path | None = None,
    checkpoint: Checkpoints | None = None,
    stop: Stop | None = None,
) -> Fitted:
    """The `Trainer` of direct reinforcement."""
    pauses = Pauses(checkpoint, stop, market=market, settings=settings, seed=seed, timesteps=timesteps)
    made = climbed(
        market,
        settings=settings,
        seed=seed,
        timesteps=timesteps,
        on_rollout=on_rollout,
        tensorboard=tensorboard,
        pauses=pauses,
        resumed=pauses.resumed(),
    )
    return Fitted(export([made.network]), made.timesteps, made.curve, seconds=made.seconds)


def climbed(
    market: Market,
    *,
    settings: Settings,
    seed: int,
    timesteps: int,
    pauses: Pauses,
    resumed: TrainingState | None,
    on_rollout: OnRollout | None = None,
    tensorboard: Path | None = None,
) -> Climbed:
    """First how many steps show a gain on the sessions kept aside, then as many on the whole market; it may pause in both."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    mu, sigma = standardisation(market)
    spans = Spans.of(market)
    rounds = max(1, timesteps // (BOOKS * SPAN))
    progress = LearningCurve(rounds=rounds, on_rollout=on_rollout, tensorboard=tensorboard)
    split = spans.last - round(ASIDE * (spans.last - spans.first))

    def from_linear(rows: Market) -> ScoreNetwork:
        coefficients = linear.fit(rows, settings=settings, seed=seed, mu=mu, sigma=sigma)
        return started(rows, coefficients, seed=seed, mu=mu, sigma=sigma)

    def ascent_from(rows: Market, last: int, state: TrainingState | None) -> Ascent:
        network = from_linear(rows) if state is None else empty(rows, mu=mu, sigma=sigma)
        ascent = Ascent(network, spans, settings=settings, seed=seed, rounds=rounds, last=last)
        if state is not None:
            ascent.resume(state)
            progress.resume(state)
        return ascent

    def pause(ascent: Ascent, arrays: dict[str, FloatArray], **document: Any) -> None:
        own = TrainingState(arrays, {"phase": PHASE, **document})
        pauses.between_rollouts(lambda: joined(ascent.state(), progress.state(), own))

    of_search = resumed if resumed is not None and resumed.document["stage"] == "search" else None
    if resumed is None or of_search is not None:
        early = market.rows(market.sessions[0], market.sessions[split - PURGE])
        aside, gains, done = Aside(spans, begin=split, settings=settings), list[FloatArray](), 0
        ascent = ascent_from(early, split - PURGE - 1, of_search)
        if of_search is None:
            before = aside.growth(ascent.network)
        else:
            before, gains, done = of_search.arrays["before"], [*of_search.arrays["gains"]], of_search.document["number"]
        looks = np.unique(np.linspace(0, rounds, LOOKS + 1).astype(int)[1:])
        for number in range(done + 1, rounds + 1):
            progress.line(ascent)
            if number in looks:
                gains.append(aside.growth(ascent.network) - before)
                if all(gain.mean() <= 0 for gain in gains[-PATIENCE:]) and len(gains) >= PATIENCE:
                    break
                pause(ascent, {"gains": np.array(gains), "before": before}, stage="search", number=number)
        kept, done, of_whole = kept_steps(gains, looks), 0, None
    else:
        kept, done, of_whole = resumed.document["kept"], resumed.document["number"], resumed
    ascent = ascent_from(market, spans.last, of_whole)
    for number in range(done + 1, kept + 1):
        progress.line(ascent)
        if number % progress.every == 0 and number < kept:
            pause(ascent, {}, stage="whole", number=number, kept=kept)
    progress.end()
    return Climbed(ascent.network, progress.taken, progress.curve, progress.seconds)


def joined(*states: TrainingState) -> TrainingState:
    """One of parts that share no name."""
    arrays, document = dict[str, Any](), dict[str, Any]()
    for state in states:
        arrays, document = {**arrays, **state.arrays}, {**document, **state.document}
    return TrainingState(arrays, document)


def kept_steps(gains: list[FloatArray], looks: IntArray) -> int:
    """After how many steps the network gained most on the sessions kept aside; 0 unless that is beyond chance."""
    means = np.array([gain.mean() for gain in gains])
    best = int(means.argmax())
    error = gains[best].std() / np.sqrt(len(gains[best]))
    return int(looks[best]) if means[best] > ERRORS * error else 0


class LearningCurve:
    """What the steps showed, kept in `curve` and given to `on_rollout` now and then, and at the end, which may come before the budget's."""

    def __init__(self, *, rounds: int, on_rollout: OnRollout | None, tensorboard: Path | None) -> None:
        self.curve: list[dict[str, Any]] = []
        self.taken, self.seconds = 0, 0.0
        self.every, self._of, self._on_rollout = max(1, rounds // LOOKS), rounds, on_rollout
        self._pace, self._steps, self._gained = Pace(), 0, 0.0
        self._writer = _writer(tensorboard) if tensorboard is not None else None

    def state(self) -> TrainingState:
        said = {"curve": self.curve, "taken": self.taken, "steps": self._steps, "gained": self._gained}
        return TrainingState({}, {**said, "seconds": self.seconds + self._pace.seconds})

    def resume(self, state: TrainingState) -> None:
        kept = state.document
        self.curve, self.taken, self.seconds = kept["curve"], kept["taken"], kept["seconds"]
        self._steps, self._gained, self._pace = kept["steps"], kept["gained"], Pace(begun_at=self.taken)

    def line(self, ascent: Ascent) -> None:
        """Take one step of the gradient; what the steps before it showed is said first, for it was not the last."""
        if self._steps and self._steps % self.every == 0:
            self._show(of=max(self._of, self._steps + 1) * ascent.taken)
        self._gained = ascent.step()
        self._steps += 1
        self.taken += ascent.taken

    def end(self) -> None:
        """The last line: as many timesteps as were taken."""
        self._show(of=self.taken)

    def _show(self, *, of: int) -> None:
        shown = {
            "phase": PHASE,
            "timesteps": self.taken,
            "of": of,
            "rollout_reward": round(self._gained, 4),
            "excess": round(self._gained / (SESSIONS_PER_YEAR * 1e4), 8),
            **self._pace.line(self.taken, of=of),
        }
        self.curve.append(shown)
        if self._writer is not None:
            self._writer.add_scalar("rollout/reward", shown["rollout_reward"], self.taken)
            self._writer.flush()
        if self._on_rollout is not None:
            self._on_rollout(shown)


class Aside:
    """The sessions from row `begin` on, of all names, traded by one book that learns nothing from them."""

    def __init__(self, spans: Spans, *, begin: int, settings: Settings) -> None:
        self._spans = spans
        self._rows = np.arange(begin, spans.last + 1)[None]
        self._names = np.arange(spans.features.shape[1])[None]
        self._sessions = Sessions.of(spans.prices, rows=self._rows, names=self._names)
        self._terms = Terms.of(settings)

    def growth(self, network: ScoreNetwork) -> FloatArray:
        """(T,) daily log growth."""
        with torch.no_grad():
            grown = self._terms.growth(scores_of(network, self._spans, self._rows, self._names), self._sessions)
        return np.asarray(grown[0])


def started(market: Market, coefficients: FloatArray, *, seed: int, mu: FloatArray, sigma: FloatArray) -> ScoreNetwork:
    """A network whose scores are those of the linear policy: each input passes by a unit of its own, one unit adds them up."""
    torch.manual_seed(seed)
    network = empty(market, mu=mu, sigma=sigma)
    count = len(coefficients)
    if count >= network.second.in_features:
        raise DatasetError(f"a network of {network.second.in_features} units starts from fewer features, was {count}")
    largest = float(np.abs(linear.winsorised(market, mu=mu, sigma=sigma) @ coefficients).max())
    with torch.no_grad():
        network.first.weight[:, count : count + 3] = 0.0  # held weight, mask and cash: the scores do not depend on the book
        if largest > 0:
            network.first.weight[:count] = 0.0
            network.first.weight[:count, :count] = torch.eye(count) / linear.BOUND
            network.second.weight[:count] = 0.0
            network.second.weight[:count, :count] = torch.eye(count)
            network.third.weight[0] = 0.0
            network.third.weight[0, :count] = torch.from_numpy(CURVED / largest * linear.BOUND * coefficients)
            network.head.weight[0, 0] = largest / CURVED
    return network


def empty(market: Market, *, mu: FloatArray, sigma: FloatArray) -> ScoreNetwork:
    """A network for the market's inputs, its weights drawn."""
    return ScoreNetwork(features=market.features.shape[2], context=market.context.shape[1], mu=mu, sigma=sigma)


class Ascent:
    """Adam on one network, a batch of spans drawn from the rows up to `last` at each step."""

    def __init__(self, network: ScoreNetwork, spans: Spans, *, settings: Settings, seed: int, rounds: int, last: int) -> None:
        self.network, self._spans, self._last = network, spans, last
        self._length = min(SPAN, last - spans.first + 1)
        self._names = min(settings.training.names_per_episode, spans.features.shape[1])
        self._terms = Terms.of(settings)
        self._rng = np.random.default_rng(seed)
        self._parameters = [value for name, value in network.named_parameters() if not name.startswith(("critic", "value"))]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        self._schedule = torch.optim.lr_scheduler.LinearLR(self._optimizer, 1.0, FINAL_RATE / LEARNING_RATE, total_iters=rounds)
        self._blind = slice(network.block - 2, network.block + 1)

    def state(self) -> TrainingState:
        weights = {f"weights/{name}": value.numpy() for name, value in self.network.state_dict().items()}
        rate = {"rate": self._optimizer.param_groups[0]["lr"], "epoch": self._schedule.last_epoch}
        document = {**rate, "generator": dict(self._rng.bit_generator.state)}
        return TrainingState({**weights, **optimiser_arrays(self._optimizer)}, document)

    def resume(self, state: TrainingState) -> None:
        self.network.load_state_dict(tensors(state.arrays, "weights/"))
        load_optimiser(self._optimizer, state.arrays)
        self._optimizer.param_groups[0]["lr"] = state.document["rate"]
        self._schedule.last_epoch = state.document["epoch"]
        self._rng.bit_generator.state = state.document["generator"]

    @property
    def taken(self) -> int:
        """Sessions of books in a step."""
        return BOOKS * self._length

    def step(self) -> float:
        """One gradient; the batch's mean d, in basis points a year."""
        begins = self._rng.integers(self._spans.first, self._last - self._length + 2, BOOKS)
        rows = begins[:, None] + np.arange(self._length)
        names = self._drawn(begins)
        sessions = Sessions.of(self._spans.prices, rows=rows, names=names)
        scores = scores_of(self.network, self._spans, rows, names)
        with torch.no_grad():
            none = self._terms.growth(torch.zeros_like(scores), sessions)
        d = self._terms.growth(scores, sessions) - none
        self._optimizer.zero_grad()
        (-(d.mean() - RISK / 2 * d.var()) * SESSIONS_PER_YEAR).backward()  # type: ignore[no-untyped-call]
        gradient = self.network.first.weight.grad
        assert gradient is not None
        gradient[:, self._blind] = 0.0
        torch.nn.utils.clip_grad_norm_(self._parameters, CLIPPED)
        self._optimizer.step()
        self._schedule.step()
        return float(d.detach().mean()) * SESSIONS_PER_YEAR * 1e4

    def _drawn(self, begins: IntArray) -> IntArray:
        """(B, A) names, those that can be decided on first, drawn anew for each span."""
        lots = self._rng.random((len(begins), self._spans.features.shape[1])) + ~self._spans.prices.decidable[begins]
        return np.sort(np.argsort(lots, axis=1)[:, : self._names], axis=1)


def scores_of(network: ScoreNetwork, spans: Spans, rows: IntArray, names: IntArray) -> Tensor:
    """(B, T, A) in float64."""
    hidden, pooled, _, mask = network.encode(spans.observations(rows, names))
    return network.scores(hidden, pooled, mask).view(*rows.shape, names.shape[1]).double()


def _writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter  # a training container may go without

    return SummaryWriter(str(folder))
