"""Tabular Q-learning (Watkins and Dayan, "Q-learning", Machine Learning 8, 1992): the baseline that shows what learning is.

One agent trades one name at a time: it sees which bin each of four of the name's features falls into (quantiles of the training rows) and
whether it holds the name, and buys, holds or sells all of it at the next open, through the project's own step with the settings' costs. A
name earns its log growth less that of equal weight while it is held, and nothing while it is not; what trading costs is paid in either
case. Rewards and values are in basis points. The update is Q += a (r + GAMMA max Q' - Q), exploration is epsilon-greedy;
epsilon falls linearly, a as visits^-`DECAY`, which meets their convergence conditions.

Promise: `learning.algorithms.trainer`'s; all names share one table, which the artifact holds as data. A step of the training takes one
session in each of the settings' `environments` episodes. Failure: `DatasetError` where the market has no such features, or no session
that can be traded and observed after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.algorithms.checkpoints import Pauses, TrainingState
from learning.algorithms.trainer import Fitted, Pace, standardisation
from learning.dataset import DatasetError
from schema.trading_rules import rules_of
from trading_env.data.features import FEATURES
from trading_env.simulation.portfolio import Book, ExecutionPrices, FloatArray, IntArray, Trades, step
from trading_env.simulation.q_table import ACTIONS, ARCHITECTURE, BUY, COLUMNS, EDGES, HOLD, SELL, VALUES, VISITS, greedy, states_of
from trading_env.simulation.rewards import equal_weight_growth

if TYPE_CHECKING:
    from pathlib import Path

    from learning.algorithms.checkpoints import Checkpoints
    from learning.algorithms.trainer import OnRollout, Stop
    from schema.settings import Settings
    from trading_env.data.market import Market

PHASE = "q-learning"
READ = ("momentum_12_1", "return_5", "volatility_21", "rsi_14")  # momentum, reversal, volatility, and how far the last moves went
BINS = 3
ROLLOUTS = 20
GAMMA = 0.95  # of a session, as PPO's: about a month ahead
FIRST_EPSILON, LAST_EPSILON, EXPLORING = 1.0, 0.05, 0.8  # of the steps, until the last epsilon is reached
DECAY = 0.7  # of the learning rate: the sum of visits^-DECAY diverges, that of its squares does not
SIGNS = {BUY: 1.0, HOLD: 0.0, SELL: -1.0}
NONE = -1


@dataclass(frozen=True, eq=False)
class World:
    """The market as the table reads it: `states` (T, A), `NONE` where a name cannot be decided on; of the session after, by whether the
    name is held and by action, `rewards` (T - 1, A, 2, 3) in basis points and `after`, whether it is held then; `starts` (n, 2): rows and
    names from which an episode may begin."""

    columns: IntArray
    edges: FloatArray
    states: IntArray
    rewards: FloatArray
    after: IntArray
    starts: IntArray

    @classmethod
    def of(cls, market: Market, *, settings: Settings) -> World:
        names = [feature.name for feature in FEATURES]
        if market.features.shape[2] < len(names):
            raise DatasetError(f"q-learning reads {', '.join(READ)}: the market must have our {len(names)} features or more")
        columns = np.array([names.index(name) for name in READ])
        seen = np.where(market.tradable[..., None], market.features, 0.0).astype(np.float32).astype(np.float64)  # as an observation has it
        if not market.tradable[:-1].any():
            raise DatasetError(f"q-learning needs a session with a tradable name and one after it, {len(market)} sessions have none")
        quantiles = np.arange(1, BINS) / BINS
        edges = np.quantile(seen[market.tradable][:, columns], quantiles, axis=0).T.copy()
        states = np.where(market.tradable, states_of(seen, columns=columns, edges=edges), NONE)
        return cls(columns, edges, states, *sessions_of(market, settings=settings), np.argwhere(states[:-1] != NONE))


def sessions_of(market: Market, *, settings: Settings) -> tuple[FloatArray, IntArray]:
    """(T - 1, A, 2, 3) what a book of one name alone earns from the close of each row to the next, in basis points of log growth, less
    equal weight's while the name is held, overnight and by day; and whether it is held then. 0 where the name cannot be decided on."""
    rules, value = rules_of(settings), settings.portfolio.initial_cash / len(market.symbols)
    prices = ExecutionPrices.of(market)
    even = equal_weight_growth(prices, rules=rules, initial_value=settings.portfolio.initial_cash)
    overnight = _overnight(prices, credited=rules.credit_dividends)
    rewards = np.zeros((len(market) - 1, len(market.symbols), 2, len(ACTIONS)))
    after = np.zeros(rewards.shape, dtype=np.int64)
    for name in range(len(market.symbols)):
        own = _of_one(prices, name)
        rows = np.flatnonzero(own.decidable[:-1, 0])
        ones, closing = np.ones((len(rows), 1)), own.closing[rows]
        books = (
            Book.of_cash(value, assets=1, books=len(rows)),
            Book.invested(value, weights=ones, prices=closing, rules=rules),
        )
        for holding, book in enumerate(books):
            for action, sign in SIGNS.items():
                taken = step(book, prices=own, rows=rows, weights=Trades(sign * ones, share=1.0), rules=rules)
                growth = np.log(taken.value / book.value(closing))
                stays = taken.book.quantities[:, 0] > 0
                forgone = holding * overnight[rows] + stays * (even[rows + 1] - overnight[rows])
                rewards[rows, name, holding, action] = (growth - forgone) * 1e4
                after[rows, name, holding, action] = stays
    return rewards, after


def _overnight(prices: ExecutionPrices, *, credited: bool) -> FloatArray:
    """(T - 1,) log growth of equal weight in what can be decided on, from the close of each row to the next open; 0 where nothing can."""
    known = prices.decidable[:-1]
    paid = prices.opening[1:] * prices.split[1:] + (prices.dividend[1:] if credited else 0.0)
    ratio = np.where(known, paid / np.where(known, prices.closing[:-1], 1.0), 0.0)
    count = known.sum(axis=1)
    return np.asarray(np.log(np.where(count > 0, ratio.sum(axis=1) / np.maximum(count, 1), 1.0)))


def _of_one(prices: ExecutionPrices, name: int) -> ExecutionPrices:
    """The prices of one name, (T, 1) each."""
    return ExecutionPrices(**{field: values[:, [name]] for field, values in vars(prices).items()})


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
    """The `Trainer` of Q-learning."""
    pauses = Pauses(checkpoint, stop, market=market, settings=settings, seed=seed, timesteps=timesteps)
    world = World.of(market, settings=settings)
    mu, sigma = standardisation(market)
    learner = Learner(world, settings=settings, seed=seed, timesteps=timesteps)
    if (resumed := pauses.resumed()) is not None:
        learner.resume(resumed)
    writer = _writer(tensorboard) if tensorboard is not None else None
    while not learner.done:
        line = learner.rollout()
        if on_rollout is not None:
            on_rollout(line)
        if writer is not None:
            writer.add_scalar("rollout/reward", line["rollout_reward"], line["timesteps"])
            writer.flush()
        if not learner.done:
            pauses.between_rollouts(learner.state)
    arrays = {
        "mu": mu,
        "sigma": sigma,
        COLUMNS: world.columns,
        EDGES: world.edges,
        VALUES: learner.values[None],
        VISITS: learner.visits[None],
    }
    return Fitted(arrays, learner.total, learner.curve, architecture=ARCHITECTURE, seconds=learner.seconds)


class Learner:
    """One table, and E agents that fill it side by side, each in an episode of one name."""

    def __init__(self, world: World, *, settings: Settings, seed: int, timesteps: int) -> None:
        training = settings.training
        self.world, self._agents, self._length = world, training.environments, training.episode_sessions
        self._rollouts = max(1, min(ROLLOUTS, timesteps // self._agents))
        self._steps = max(1, timesteps // (self._rollouts * self._agents))
        self.total = self._rollouts * self._steps * self._agents
        states = (world.edges.shape[1] + 1) ** len(world.columns)
        self.values, self.visits = (np.zeros((2, states, len(ACTIONS))) for _ in range(2))
        self._rng = np.random.default_rng(seed)
        self.taken, self.seconds, self.curve, self._pace = 0, 0.0, list[dict[str, Any]](), Pace()
        self._row, self._name, self._left = (np.zeros(self._agents, dtype=np.int64) for _ in range(3))
        self._held = np.zeros(self._agents, dtype=np.int64)
        self._earned, self._episodes = np.zeros(self._agents), np.zeros(2)  # in the episode so far; sum and number of those that ended
        self._begin(np.ones(self._agents, dtype=bool))

    @property
    def done(self) -> bool:
        return self.taken >= self.total

    @property
    def epsilon(self) -> float:
        passed = min(self.taken / (EXPLORING * self.total), 1.0)
        return FIRST_EPSILON + (LAST_EPSILON - FIRST_EPSILON) * passed

    def rollout(self) -> dict[str, Any]:
        """Some steps of all agents, and what they showed."""
        rewards, errors, epsilon = 0.0, 0.0, self.epsilon
        self._episodes[:] = 0
        for _ in range(self._steps):
            reward, error = self._step()
            rewards, errors = rewards + float(reward.sum()), errors + float((error**2).sum())
        count = self._steps * self._agents
        line = {
            "phase": PHASE,
            "timesteps": self.taken,
            "of": self.total,
            "episode_reward": round(float(self._episodes[0] / self._episodes[1]), 4) if self._episodes[1] else None,
            "rollout_reward": round(rewards / count, 6),
            "excess": round(rewards / count / 1e4, 8),
            "value_loss": round(errors / count, 6),
            "epsilon": round(epsilon, 4),
            "visited": round(float((self.visits > 0).mean()), 4),
            **self._pace.line(self.taken, of=self.total),
        }
        self.curve.append(line)
        return line

    def _step(self) -> tuple[FloatArray, FloatArray]:
        """(E,) rewards and errors of one session of every agent; the table learns the mean error of each cell that was visited."""
        world, held = self.world, self._held
        state = world.states[self._row, self._name]
        explores = self._rng.random(self._agents) < self.epsilon
        drawn = self._rng.integers(0, len(ACTIONS), self._agents)
        action = np.where(explores, drawn, greedy(self.values[held, state]))
        reward = world.rewards[self._row, self._name, held, action]
        after = world.after[self._row, self._name, held, action]
        coming = world.states[self._row + 1, self._name]
        best = np.where(coming != NONE, self.values[after, coming].max(axis=-1), 0.0)
        cell = np.ravel_multi_index((held, state, action), self.values.shape)
        error = reward + GAMMA * best - self.values.flat[cell]

        cells = self.values.size
        count, summed = np.bincount(cell, minlength=cells), np.bincount(cell, weights=error, minlength=cells)
        met = np.flatnonzero(count)
        self.visits.flat[met] += count[met]
        self.values.flat[met] += self.visits.flat[met] ** -DECAY * summed[met] / count[met]

        self.taken += self._agents
        self._row, self._held, self._left = self._row + 1, after, self._left - 1
        self._earned += reward
        ended = (self._left == 0) | (coming == NONE) | (self._row == len(world.states) - 1)
        if ended.any():
            self._episodes += self._earned[ended].sum(), ended.sum()
            self._begin(ended)
        return reward, error

    def _begin(self, which: Any) -> None:
        """New episodes: a name and a session at which it can be traded, held or not by the toss of a coin."""
        count = int(which.sum())
        drawn = self.world.starts[self._rng.integers(0, len(self.world.starts), count)]
        self._row[which], self._name[which] = drawn[:, 0], drawn[:, 1]
        self._held[which], self._left[which], self._earned[which] = self._rng.integers(0, 2, count), self._length, 0.0

    def state(self) -> TrainingState:
        agents = {"row": self._row, "name": self._name, "left": self._left, "held": self._held, "earned": self._earned}
        document = {
            "phase": PHASE,
            "taken": self.taken,
            "seconds": self.seconds + self._pace.seconds,
            "curve": self.curve,
            "generator": dict(self._rng.bit_generator.state),
        }
        return TrainingState({"values": self.values, "visits": self.visits, **agents}, document)

    def resume(self, state: TrainingState) -> None:
        """Go on where `state` was kept."""
        kept, document = state.arrays, state.document
        self.values, self.visits, self._earned = kept["values"], kept["visits"], kept["earned"]
        self._row, self._name, self._left, self._held = (kept[name] for name in ("row", "name", "left", "held"))
        self.taken, self.seconds, self.curve = document["taken"], document["seconds"], document["curve"]
        self._rng.bit_generator.state = document["generator"]
        self._pace = Pace(begun_at=self.taken)


def _writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter  # a training container may go without

    return SummaryWriter(str(folder))
