"""Gymnasium environments over a `Market`: N books at once, and the same with N = 1, on the accounting of `portfolio.step`.

Promise: what a policy meets here is what it meets live: `observe`, `weights_from_scores` and `step` are the only code. `reset(seed)`
makes everything after it repeatable, and a row of the batch does exactly what a batch of one would do from the same state.
Failure: `EnvError` when the market has no room for an episode or an action is not finite; accounting errors pass through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from trading_env.market import Market
from trading_env.observation import Layout, Vector, market_block, with_book
from trading_env.policy import SCORE_LIMIT, softmax, weights_from_scores
from trading_env.portfolio import Book, BoolArray, FloatArray, IntArray, Rules, Tape, step
from trading_env.rewards import REWARD_SCALE, equal_weight_growth, excess_log_growth

Info = dict[str, Any]


class EnvError(ValueError):
    """The environment cannot be built, reset or stepped as asked; the message says what is allowed."""


@dataclass(frozen=True)
class EnvConfig:
    """`kappa`: share of the way to the target a step; `start`: what a book holds when its episode begins."""

    rules: Rules = field(default_factory=Rules)
    kappa: float = 0.1
    episode_sessions: int = 252
    reward_scale: float = REWARD_SCALE
    random_start: bool = True
    start: Literal["equal", "random"] = "equal"
    initial_value: float = 100_000.0


@dataclass(frozen=True)
class _Outcome:
    rewards: FloatArray
    ended: BoolArray
    info: dict[str, FloatArray]


class _Simulation:
    """N books, each at its own row of the market; knows nothing of Gymnasium."""

    def __init__(self, market: Market, *, books: int, config: EnvConfig) -> None:
        if books < 1 or config.episode_sessions < 1 or not 0 < config.kappa <= 1:
            raise EnvError(
                f"books and episode_sessions must be at least 1 and kappa in (0, 1], "
                f"was {books}, {config.episode_sessions} and {config.kappa}"
            )
        self.market, self.config, self.tape = market, config, Tape.of(market)
        assets, features = market.features.shape[1:]
        self.layout = Layout(assets=assets, features=features, context=market.context.shape[1])
        observable = np.asarray(np.isfinite(market.context).all(axis=1))
        self._blocks = np.zeros((len(market.sessions), self.layout.width), dtype=np.float32)
        self._blocks[observable] = market_block(market.features[observable], market.context[observable], market.tradable[observable])
        self.starts = _start_rows(market.tradable, observable, config.episode_sessions)
        if not len(self.starts):
            raise EnvError(
                f"an episode needs {config.episode_sessions + 1} sessions in a row from one with a tradable name, "
                f"the market of {len(market.sessions)} sessions has none"
            )
        self._baseline = equal_weight_growth(self.tape, rules=config.rules, initial_value=config.initial_value)
        self.rows = np.zeros(books, dtype=np.int64)
        self._ends = np.zeros(books, dtype=np.int64)
        self.book = Book.of_cash(config.initial_value, assets=assets, books=books)
        self._look()

    def begin(self, which: BoolArray, rng: np.random.Generator, *, row: int | None = None) -> None:
        """New episodes for the books in `which` (N,)."""
        count, config = int(which.sum()), self.config
        if row is None:
            rows = rng.choice(self.starts, size=count) if config.random_start else np.full(count, self.starts[0])
        else:
            rows = np.full(count, row)
        tradable = self.tape.decidable[rows]
        taste = rng.standard_exponential(tradable.shape) if config.start == "random" else np.ones(tradable.shape)
        weights = softmax(np.log(taste), tradable)
        fresh = Book.invested(config.initial_value, weights=weights, prices=self.tape.closing[rows], rules=config.rules)
        cash, quantities = self.book.cash.copy(), self.book.quantities.copy()
        cash[which], quantities[which] = fresh.cash, fresh.quantities
        self.rows, self._ends = self.rows.copy(), self._ends.copy()
        self.rows[which], self._ends[which] = rows, rows + config.episode_sessions
        self.book = Book(cash=cash, quantities=quantities)
        self._look()

    def advance(self, scores: FloatArray) -> _Outcome:
        """One session for every book."""
        if scores.shape != self.book.quantities.shape or not np.isfinite(scores).all():
            raise EnvError(f"actions must be finite scores of shape {self.book.quantities.shape}, was {scores.shape}")
        rules, rows, value = self.config.rules, self.rows, self._value
        weights = weights_from_scores(scores, self._held, self.tape.decidable[rows], kappa=self.config.kappa)
        taken = step(self.book, tape=self.tape, rows=rows, weights=weights, rules=rules)
        self.book, self.rows = taken.book, rows + 1
        self._look()
        growth, baseline = np.log(taken.value / value), self._baseline[self.rows]
        info = {
            "value": taken.value,
            "log_growth": growth,
            "baseline_log_growth": baseline,
            "turnover": taken.turnover,
            "costs": taken.costs,
        }
        return _Outcome(excess_log_growth(growth, baseline, scale=self.config.reward_scale), self.rows >= self._ends, info)

    def observe(self) -> Vector:
        return with_book(self._blocks[self.rows], layout=self.layout, held=self._held, cash_weight=self._cash_weight)

    def row_of(self, options: Mapping[str, Any] | None) -> int | None:
        """The row that `options={"session": date}` asks for; raises EnvError when no episode can start there."""
        if not options:
            return None
        if options.keys() != {"session"}:
            raise EnvError(f"options may hold 'session', was {', '.join(sorted(options))}")
        row = self.market.index_of(options["session"])
        if row not in self.starts:
            raise EnvError(f"an episode of {self.config.episode_sessions} sessions cannot start at {options['session']}")
        return row

    def _look(self) -> None:
        closing = self.tape.closing[self.rows]
        self._value = self.book.value(closing)
        self._held, self._cash_weight = self.book.shares(closing)


def _start_rows(tradable: BoolArray, observable: BoolArray, sessions: int) -> IntArray:
    last = len(tradable) - sessions
    if last <= 0:
        return np.zeros(0, dtype=np.int64)
    blind = np.concatenate([[0], np.cumsum(~observable)])
    clear = blind[sessions + 1 :] == blind[:last]
    return np.flatnonzero(tradable[:last].any(axis=1) & clear)


def _spaces(layout: Layout) -> tuple[gym.Space[Any], gym.Space[Any]]:
    observation = gym.spaces.Box(-np.inf, np.inf, (layout.width,), np.float32)
    return observation, gym.spaces.Box(-SCORE_LIMIT, SCORE_LIMIT, (layout.assets,), np.float32)


class BatchedTradingEnv(VectorEnv[Vector, NDArray[np.float32], NDArray[Any]]):
    """N books trading one market, each in its own episode.

    Action space: `Box(-10, 10, (A,))`, one score an asset; target weights are `weights_from_scores`, zero scores mean equal weight.
    Observation space: `Box((width,))` float32, laid out as `observation.py` says.
    Reward: scale x (log growth - log growth of equal weight rebalanced daily under the same rules and costs).
    Starting state: a random row (or the first) at which a name is tradable and from which the episode fits; the book holds equal
    weight, or random weights, at that close. `options={"session": date}` starts every episode there.
    Episode end: truncation after `episode_sessions`; nothing terminates. Autoreset is SAME_STEP: `infos["final_obs"]` is an object
    array with the last observation where an episode ended (mask `_final_obs`), `infos["final_info"]` its step's numbers.
    Infos: (N,) arrays of the step taken: value (dollars), log_growth, baseline_log_growth, turnover, costs (dollars).
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012  Gymnasium declares it per instance

    def __init__(self, market: Market, *, num_envs: int, config: EnvConfig) -> None:
        self._simulation = _Simulation(market, books=num_envs, config=config)
        self.num_envs = num_envs
        self.layout = self._simulation.layout
        self.single_observation_space, self.single_action_space = _spaces(self.layout)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._all = np.ones(num_envs, dtype=bool)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Vector, Info]:
        super().reset(seed=seed)
        self._simulation.begin(self._all, self.np_random, row=self._simulation.row_of(options))
        return self._simulation.observe(), {}

    def step(self, actions: NDArray[np.float32]) -> tuple[Vector, FloatArray, BoolArray, BoolArray, Info]:
        outcome = self._simulation.advance(np.asarray(actions, dtype=np.float64))
        observations, ended = self._simulation.observe(), outcome.ended
        infos: Info = _masked(outcome.info, self._all)
        if ended.any():
            final = np.full(self.num_envs, None, dtype=object)
            for index in np.flatnonzero(ended):
                final[index] = observations[index]
            infos |= {"final_obs": final, "_final_obs": ended, "final_info": _masked(outcome.info, ended), "_final_info": ended}
            self._simulation.begin(ended, self.np_random)
            observations = self._simulation.observe()
        return observations, outcome.rewards, np.zeros(self.num_envs, dtype=bool), ended, infos


def _masked(info: Mapping[str, FloatArray], mask: BoolArray) -> Info:
    return {**info, **{f"_{name}": mask for name in info}}


class TradingEnv(gym.Env[Vector, NDArray[np.float32]]):
    """One book: spaces, reward, start and end as `BatchedTradingEnv` has them, without autoreset; infos hold floats."""

    metadata = {"render_modes": []}  # noqa: RUF012  as above

    def __init__(self, market: Market, *, config: EnvConfig) -> None:
        self._simulation = _Simulation(market, books=1, config=config)
        self.layout = self._simulation.layout
        self.observation_space, self.action_space = _spaces(self.layout)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Vector, Info]:
        super().reset(seed=seed)
        self._simulation.begin(np.ones(1, dtype=bool), self.np_random, row=self._simulation.row_of(options))
        return self._simulation.observe()[0], {}

    def step(self, action: NDArray[np.float32]) -> tuple[Vector, float, bool, bool, Info]:
        outcome = self._simulation.advance(np.asarray(action, dtype=np.float64)[None])
        info = {name: float(value[0]) for name, value in outcome.info.items()}
        return self._simulation.observe()[0], float(outcome.rewards[0]), False, bool(outcome.ended[0]), info
