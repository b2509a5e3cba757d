"""Gymnasium environments over a `Market`: N books at once, and the same with N = 1, on the compiled twin of `portfolio.step`.

Promise: what a policy meets here is what it meets live: the kernel does what `observe`, `weights_from_scores` and `step` do, with the
risk limits of the executor if asked. `reset(seed)` makes everything after it repeatable, and a row of the batch does exactly what a
batch of one would do from the same state. Memory does not grow with the steps.
Failure: `EnvError` when the market has no room for an episode or an action is not finite, `PortfolioError` when a book cannot be
valued; after either in a step, reset before the next one.
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

from trading_env import kernel
from trading_env.market import Market
from trading_env.observation import Layout, Vector, market_block, with_book
from trading_env.policy import SCORE_LIMIT, softmax
from trading_env.portfolio import Book, BoolArray, FloatArray, IntArray, PortfolioError, Rules, Tape
from trading_env.rewards import REWARD_SCALE, equal_weight_growth
from trading_env.risk import Limits

Info = dict[str, Any]


class EnvError(ValueError):
    """The environment cannot be built, reset or stepped as asked; the message says what is allowed."""


@dataclass(frozen=True)
class EnvConfig:
    """`kappa`: share of the way to the target a step; `start`: what a book holds when its episode begins.

    `limits`: the executor's risk rules, applied to every session's orders; the baseline of the reward trades without them.
    """

    rules: Rules = field(default_factory=Rules)
    kappa: float = 0.1
    episode_sessions: int = 252
    reward_scale: float = REWARD_SCALE
    random_start: bool = True
    start: Literal["equal", "random"] = "equal"
    initial_value: float = 100_000.0
    limits: Limits | None = None


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
        baseline = equal_weight_growth(self.tape, rules=config.rules, initial_value=config.initial_value)
        program = kernel.Program.of(
            self.tape,
            symbols=market.symbols,
            baseline=baseline,
            rules=config.rules,
            kappa=config.kappa,
            scale=config.reward_scale,
            pitch=features + 2,
            limits=config.limits,
        )
        self._parameters, self._days = program.parameters, program.days
        self.holdings = np.zeros((books, kernel.HOLDINGS, assets))
        self.states = np.zeros((books, kernel.STATE))
        self._shape = (books, assets)

    @property
    def rows(self) -> IntArray:
        """(N,) row that each book observes."""
        return self.states[:, kernel.ROW].astype(np.int64)

    def begin(self, which: BoolArray, rng: np.random.Generator, observations: Vector, *, row: int | None = None) -> None:
        """New episodes for the books in `which` (N,); their rows of `observations` (N, width) are written."""
        count, config = int(which.sum()), self.config
        if row is None:
            rows = rng.choice(self.starts, size=count) if config.random_start else np.full(count, self.starts[0])
        else:
            rows = np.full(count, row)
        tradable = self.tape.decidable[rows]
        taste = rng.standard_exponential(tradable.shape) if config.start == "random" else np.ones(tradable.shape)
        weights = softmax(np.log(taste), tradable)
        closing = self.tape.closing[rows]
        fresh = Book.invested(config.initial_value, weights=weights, prices=closing, rules=config.rules)
        value, (held, cash_weight) = fresh.value(closing), fresh.shares(closing)
        self.holdings[which] = np.stack([fresh.quantities, held], axis=1)
        self.states[which] = np.stack([rows, rows + config.episode_sessions, fresh.cash, value, value, np.zeros(count)], axis=1)
        observations[which] = with_book(self._blocks[rows], layout=self.layout, held=held, cash_weight=cash_weight)

    def advance(self, scores: NDArray[np.float32], reports: FloatArray, observations: Vector) -> int:
        """One session for every book, from contiguous scores (N, A); writes reports (8, N), laid out by the kernel, and observations.

        Returns how many episodes ended.
        """
        if scores.shape != self._shape:
            raise EnvError(f"actions must be finite scores of shape {self._shape}, was {scores.shape}")
        ended: int = kernel.advance(self._parameters, self._days, self._blocks, scores, self.holdings, self.states, reports, observations)
        if ended < 0:
            self._refuse(-ended, scores)
        return ended

    def _refuse(self, failure: int, scores: NDArray[np.float32]) -> None:
        book, kind = divmod(failure, kernel.KINDS)
        if kind == kernel.SCORE:
            raise EnvError(f"actions must be finite scores of shape {self._shape}, was {scores[book]} for book {book}")
        session = self.market.sessions[self.rows[book] + 1]
        raise PortfolioError(f"{kernel.FAILURES[kind]}, book {book} breaks that on {session}")

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
    `copy`: observations are the caller's. False returns one of two buffers in turn, valid until the step after the next.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012  Gymnasium declares it per instance

    def __init__(self, market: Market, *, num_envs: int, config: EnvConfig, copy: bool = True) -> None:
        self._simulation = _Simulation(market, books=num_envs, config=config)
        self.num_envs = num_envs
        self.layout = self._simulation.layout
        self.single_observation_space, self.single_action_space = _spaces(self.layout)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._all = np.ones(num_envs, dtype=bool)
        self._masks = {f"_{name}": self._all for name in ("value", "log_growth", "baseline_log_growth", "turnover", "costs")}
        # Learners store the observation before only after they have stepped, so it must outlive one step
        self._buffers = None if copy else np.zeros((2, num_envs, self.layout.width), dtype=np.float32)
        self._turn = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Vector, Info]:
        super().reset(seed=seed)
        observations = self._fresh()
        self._simulation.begin(self._all, self.np_random, observations, row=self._simulation.row_of(options))
        return observations, {}

    def step(self, actions: NDArray[np.float32]) -> tuple[Vector, FloatArray, BoolArray, BoolArray, Info]:
        observations, reports = self._fresh(), np.empty((kernel.REPORT, self.num_envs))
        count = self._simulation.advance(np.asarray(actions, dtype=np.float32, order="C"), reports, observations)
        costs, _, turnover, growth, baseline, value, rewards, over = reports
        numbers = {"value": value, "log_growth": growth, "baseline_log_growth": baseline, "turnover": turnover, "costs": costs}
        infos: Info = {**numbers, **self._masks}
        truncated = over > 0
        if count:
            final = np.full(self.num_envs, None, dtype=object)
            for index in np.flatnonzero(truncated):
                final[index] = observations[index].copy()
            last = {**numbers, **{f"_{name}": truncated for name in numbers}}
            infos |= {"final_obs": final, "_final_obs": truncated, "final_info": last, "_final_info": truncated}
            self._simulation.begin(truncated, self.np_random, observations)
        return observations, rewards, np.zeros(self.num_envs, dtype=np.bool_), truncated, infos

    def _fresh(self) -> Vector:
        """Room for the observations (N, width) of a step."""
        if self._buffers is None:
            return np.empty((self.num_envs, self.layout.width), dtype=np.float32)
        self._turn = 1 - self._turn
        room: Vector = self._buffers[self._turn]
        return room


class TradingEnv(gym.Env[Vector, NDArray[np.float32]]):
    """One book: spaces, reward, start and end as `BatchedTradingEnv` has them, without autoreset; infos hold floats."""

    metadata = {"render_modes": []}  # noqa: RUF012  as above

    def __init__(self, market: Market, *, config: EnvConfig) -> None:
        self._simulation = _Simulation(market, books=1, config=config)
        self.layout = self._simulation.layout
        self.observation_space, self.action_space = _spaces(self.layout)
        self._reports = np.empty((kernel.REPORT, 1))
        self._room = (1, self.layout.width)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Vector, Info]:
        super().reset(seed=seed)
        observations = np.empty(self._room, dtype=np.float32)
        self._simulation.begin(np.ones(1, dtype=bool), self.np_random, observations, row=self._simulation.row_of(options))
        return observations[0], {}

    def step(self, action: NDArray[np.float32]) -> tuple[Vector, float, bool, bool, Info]:
        observations, reports = np.empty(self._room, dtype=np.float32), self._reports
        self._simulation.advance(np.asarray(action, np.float32, order="C")[None], reports, observations)
        costs, _, turnover, growth, baseline, value, reward, ended = reports.ravel().tolist()
        info = {"value": value, "log_growth": growth, "baseline_log_growth": baseline, "turnover": turnover, "costs": costs}
        return observations[0], reward, False, ended > 0, info
