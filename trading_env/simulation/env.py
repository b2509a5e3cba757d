"""Gymnasium environments over a `Market`: N books at once, and the same with N = 1, on the compiled twin of `portfolio.step`.

Promise: what a policy meets here is what it meets live: the kernel does what `observe`, `weights_from_scores` and `step` do, with the
risk limits of the executor if asked. `reset(seed)` makes everything after it repeatable, and a row of the batch does exactly what a
batch of one would do from the same state. With `names`, a book does what it would do in the market of its names alone, and a step costs
what it costs there. Memory does not grow with the steps.
Failure: `EnvError` when the market has no room for an episode or an action is none, `PortfolioError` when a book cannot be
valued; after either in a step, reset before the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from trading_env.data.market import Market
from trading_env.data.observation import Layout, Vector, market_block, with_book
from trading_env.data.sentiment import TABLES
from trading_env.errors import PapertapeError
from trading_env.orders.risk import Limits
from trading_env.simulation import kernel
from trading_env.simulation.policy import SCORE_LIMIT, softmax, weights_from_scores
from trading_env.simulation.portfolio import Book, BoolArray, ExecutionPrices, FloatArray, IntArray, PortfolioError, Rules
from trading_env.simulation.program import Program, ranks, scratch
from trading_env.simulation.rewards import PRIOR_VOLATILITY, Reward

Info = dict[str, Any]
Actions = NDArray[Any]
_NUMBERS = {
    "value": kernel.WORTH,
    "log_growth": kernel.GROWTH,
    "baseline_log_growth": kernel.BASELINE,
    "turnover": kernel.TURNOVER,
    "costs": kernel.COSTS,
}


class EnvError(PapertapeError, ValueError):
    """The environment cannot be built, reset or stepped as asked; the message says what is allowed."""


@dataclass(frozen=True)
class EnvConfig:
    """`kappa`: share of the way to the target a step; `start`: what a book holds when its episode begins.

    By default costs and limits are on, as in the bundled bars' settings; free trading and `limits=None` must be asked for.
    `limits`: the executor's risk rules, applied to every session's orders; the baseline of the reward trades without them. Where rows are
    slot bars a step is a slot, `episode_sessions` counts slots, and limits of a day are judged slot by slot: looser than in a backtest.
    `names`: how many of the market's names a book trades; None, all of them. At the start of an episode that many are drawn, without
    replacement, from those tradable at its row; where these are too few, others fill up, so that the shape never changes. Observation,
    action and accounting are over the drawn names, in the market's order; features stay those of the whole market.
    `actions`: `scores`, or `trades` of `trade_share` of equity each, see `BatchedTradingEnv`.
    """

    rules: Rules = field(default_factory=Rules)
    kappa: float = 0.1
    episode_sessions: int = 252
    random_start: bool = True
    start: Literal["equal", "random", "cash"] = "equal"
    initial_value: float = 100_000.0
    limits: Limits | None = field(default_factory=Limits)
    reward: Reward = field(default_factory=Reward)
    names: int | None = None
    actions: Literal["scores", "trades"] = "scores"
    trade_share: float = 0.05


class _Simulation:
    """N books, each at its own row of the market; knows nothing of Gymnasium."""

    def __init__(self, market: Market, *, books: int, config: EnvConfig) -> None:
        _check(config, books=books, names=len(market.symbols), features=market.features.shape[2])
        self.market, self.config, self.prices = market, config, ExecutionPrices.of(market)
        everything, features = market.features.shape[1:]
        self.books, self.assets = books, config.names or everything
        self.layout = Layout(assets=self.assets, features=features, context=market.context.shape[1])
        observable = np.asarray(np.isfinite(market.context).all(axis=1))
        block = market_block(market.features[observable], market.context[observable], market.tradable[observable])
        self._blocks = np.zeros((1, len(market.sessions), block.shape[1]), dtype=np.float32)
        self._blocks[0, observable] = block
        if config.names is not None:
            self._blocks = _by_name(self._blocks[0], self.layout)
        self.starts = _start_rows(market.tradable, observable, config.episode_sessions)
        if not len(self.starts):
            raise EnvError(
                f"an episode needs {config.episode_sessions + 1} sessions in a row from one with a tradable name, "
                f"the market of {len(market.sessions)} sessions has none"
            )
        drawn = config.names is not None
        program = Program.of(
            self.prices,
            rules=config.rules,
            kappa=config.kappa,
            pitch=features + 2,
            baseline=None if drawn else np.zeros(len(self.prices)),
            reward=config.reward,
            limits=config.limits,
            trade_share=config.trade_share if config.actions == "trades" else 0.0,
        )
        if not drawn:
            growth = compiled_equal_weight_growth(program, self.prices, rules=config.rules, initial_value=config.initial_value)
            program.days[:, kernel.EQUAL_GROWTH] = growth[:, None]
        self._parameters, self._days, self._work = program.parameters, program.days, scratch(self.assets)
        self._ranks = ranks(market.symbols)
        self._restricted = np.isin(market.symbols, config.limits.restricted if config.limits else ())
        # Books that draw their names have a baseline each, behind them
        self.accounts = 2 * books if drawn else books
        self.holdings = np.zeros((self.accounts, kernel.HOLDINGS, self.assets))
        self.states = np.zeros((self.accounts, kernel.STATE))
        self._shape = (books, self.assets)

    @property
    def rows(self) -> IntArray:
        """(N,) row that each book observes."""
        return self.states[: self.books, kernel.ROW].astype(np.int64)

    @property
    def columns(self) -> IntArray:
        """(N, A) the market's columns that each book trades."""
        return self.holdings[: self.books, kernel.COLUMN].astype(np.int64)

    def begin(self, which: BoolArray, rng: np.random.Generator, observations: Vector, *, row: int | None = None) -> None:
        """New episodes for the books in `which` (N,); their rows of `observations` (N, width) are written."""
        count, config = int(which.sum()), self.config
        if row is None:
            rows = rng.choice(self.starts, size=count) if config.random_start else np.full(count, self.starts[0])
        else:
            rows = np.full(count, row)
        columns = self._draw(rows, rng)
        tradable, closing = self.prices.decidable[rows[:, None], columns], self.prices.closing[rows[:, None], columns]
        random_weights = rng.standard_exponential(tradable.shape) if config.start == "random" else np.ones(tradable.shape)
        weights = softmax(np.log(random_weights), tradable)
        accounts = np.flatnonzero(which)
        fresh = self._open(accounts, rows, columns, np.zeros(weights.shape) if config.start == "cash" else weights, closing)
        if config.names is not None:
            self._open(self.books + accounts, rows, columns, softmax(np.zeros(tradable.shape), tradable), closing)
        held, cash_weight = fresh.shares(closing)
        observations[which] = with_book(self._market_at(rows, columns), layout=self.layout, held=held, cash_weight=cash_weight)

    def _market_at(self, rows: IntArray, columns: IntArray) -> Vector:
        """(n, width) what the market alone shows at `rows` (n,) of the names `columns` (n, A)."""
        if self.config.names is None:
            return np.asarray(self._blocks[0, rows])
        assets = self._blocks[columns, rows[:, None], : self.layout.features + 2].reshape(len(rows), -1)
        return np.concatenate([assets, self._blocks[-1, rows, : 1 + self.layout.context]], axis=1)

    def _draw(self, rows: IntArray, rng: np.random.Generator) -> IntArray:
        """(n, A) columns of the names of books that begin at `rows` (n,)."""
        everything = len(self.market.symbols)
        if self.config.names is None:
            return np.tile(np.arange(everything), (len(rows), 1))
        # The tradable names come first, in an order drawn at random
        lots = rng.random((len(rows), everything)) + ~self.prices.decidable[rows]
        return np.sort(np.argsort(lots, axis=1)[:, : self.assets], axis=1)

    def _open(self, accounts: IntArray, rows: IntArray, columns: IntArray, weights: FloatArray, closing: FloatArray) -> Book:
        """Books of `weights` (n, A) at the prices `closing`, written into the accounts."""
        config = self.config
        book = Book.invested(config.initial_value, weights=weights, prices=closing, rules=config.rules)
        value, (held, _) = book.value(closing), book.shares(closing)
        order = np.argsort(self._ranks[columns], axis=1)
        self.holdings[accounts] = np.stack([book.quantities, held, columns, order, self._restricted[columns]], axis=1)
        state = np.zeros((len(accounts), kernel.STATE))
        state[:, kernel.ROW], state[:, kernel.LAST] = rows, rows + config.episode_sessions
        state[:, kernel.CASH], state[:, kernel.VALUE], state[:, kernel.PEAK] = book.cash, value, value
        state[:, kernel.SQUARE] = PRIOR_VOLATILITY**2
        self.states[accounts] = state
        return book

    def advance(self, actions: NDArray[np.float32], reports: FloatArray, observations: Vector) -> int:
        """One session for every book, from contiguous actions (N, A); writes the accounts' reports (., 8), laid out by the kernel, and the
        observations.

        Returns how many episodes ended.
        """
        if actions.shape != self._shape:
            raise EnvError(f"actions must be of shape {self._shape}, was {actions.shape}")
        ended: int = kernel.advance(
            self._parameters, self._days, self._blocks, actions, self.holdings, self.states, reports, observations, self._work
        )
        if ended < 0:
            self._refuse(-ended, actions)
        return ended

    def _refuse(self, failure: int, actions: NDArray[np.float32]) -> None:
        book, kind = divmod(failure, kernel.KINDS)
        if kind in (kernel.SCORE, kernel.TRADE):
            raise EnvError(f"{kernel.FAILURES[kind]} of shape {self._shape}, was {actions[book]} for book {book}")
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


def compiled_equal_weight_growth(program: Program, prices: ExecutionPrices, *, rules: Rules, initial_value: float) -> FloatArray:
    """`rewards.equal_weight_growth` to the bit, by the kernel, in a sixth of the time; raises PortfolioError as it does."""
    rows = np.flatnonzero(prices.decidable.any(axis=1))
    if not len(rows):
        raise PortfolioError("equal weight needs a tradable name, the market has none")
    first, names = int(rows[0]), prices.closing.shape[1]
    scores, marks = np.zeros(names), prices.closing[[first]]
    book = Book.invested(initial_value, weights=softmax(scores, prices.decidable[[first]]), prices=marks, rules=rules)
    holding, state, report, work = np.zeros((kernel.HOLDINGS, names)), np.zeros(kernel.STATE), np.zeros(kernel.REPORT), scratch(names)
    holding[kernel.QUANTITIES], holding[kernel.HELD] = book.quantities[0], book.shares(marks)[0][0]
    state[kernel.CASH], state[kernel.VALUE], state[kernel.PEAK] = book.cash[0], *[book.value(marks)[0]] * 2
    values = np.full(len(prices), state[kernel.VALUE])
    for row in range(first + 1, len(prices)):
        held, decidable, leaving = holding[kernel.HELD], prices.decidable[row - 1], prices.leaving[row - 1]
        work[kernel.WEIGHTS] = weights_from_scores(scores, held, decidable, kappa=1.0, leaving=leaving)
        failure = kernel.trade(program.parameters[1], program.days[row], holding, state, report, work)
        if failure:
            raise PortfolioError(f"{kernel.FAILURES[failure]}, equal weight breaks that at row {row}")
        values[row] = report[kernel.WORTH]
    return np.concatenate([[0.0], np.log(values[1:] / values[:-1])])


def _by_name(blocks: Vector, layout: Layout) -> Vector:
    """(names + 1, T, .): the columns of each name, and last those of cash and context."""
    pitch, rest = layout.features + 2, 1 + layout.context
    names = (blocks.shape[1] - rest) // pitch
    apart = np.zeros((names + 1, len(blocks), max(pitch, rest)), dtype=np.float32)
    apart[:-1, :, :pitch] = blocks[:, :-rest].reshape(len(blocks), names, pitch).transpose(1, 0, 2)
    apart[-1, :, :rest] = blocks[:, -rest:]
    return apart


def _start_rows(tradable: BoolArray, observable: BoolArray, sessions: int) -> IntArray:
    last = len(tradable) - sessions
    if last <= 0:
        return np.zeros(0, dtype=np.int64)
    blind = np.concatenate([[0], np.cumsum(~observable)])
    clear = blind[sessions + 1 :] == blind[:last]
    return np.flatnonzero(tradable[:last].any(axis=1) & clear)


def _check(config: EnvConfig, *, books: int, names: int, features: int) -> None:
    if books < 1 or config.episode_sessions < 1 or not 0 < config.kappa <= 1:
        raise EnvError(
            f"books and episode_sessions must be at least 1 and kappa in (0, 1], was {books}, {config.episode_sessions} and {config.kappa}"
        )
    if config.names is not None and not 1 <= config.names <= names:
        raise EnvError(f"names must be None or from 1 to the market's {names}, was {config.names}")
    if config.reward.sentiment_weight > 0 and features < TABLES["daily"].width:
        raise EnvError(f"sentiment_weight needs a market with sentiment, {TABLES['daily'].width} features or more, was {features}")
    if not 0 < config.trade_share <= 1:
        raise EnvError(f"trade_share must lie in (0, 1], was {config.trade_share}")


def _spaces(simulation: _Simulation) -> tuple[gym.Space[Any], gym.Space[Any]]:
    layout = simulation.layout
    observation = gym.spaces.Box(-np.inf, np.inf, (layout.width,), np.float32)
    if simulation.config.actions == "trades":
        return observation, gym.spaces.MultiDiscrete(np.full(layout.assets, 3))
    return observation, gym.spaces.Box(-SCORE_LIMIT, SCORE_LIMIT, (layout.assets,), np.float32)


class _Room(NamedTuple):
    """What a step writes: observations (N, width), the accounts' reports, and views of these."""

    observations: Vector
    reports: FloatArray
    rewards: FloatArray
    infos: Info


class BatchedTradingEnv(VectorEnv[Vector, Actions, NDArray[Any]]):
    """N books trading one market, each in its own episode.

    Action space, scores: `Box(-10, 10, (A,))`, one score per asset; target weights are `weights_from_scores`, zeros mean equal weight.
    Trades: `MultiDiscrete([3] * A)`, 0 sells and 2 buys `trade_share` of equity of the name at the next open, 1 holds: its quantity stays
    the same to the last digit and costs nothing. A sell takes no more than the holding; buys that need more than the cash are scaled; a
    name that cannot trade is held whatever the action. Fills, costs, limits and cash are the same for both.
    Observation space: `Box((width,))` float32, laid out as `observation.py` says.
    Reward: `EnvConfig.reward`; by default 300 x (log growth - log growth of equal weight rebalanced daily under the same rules and costs).
    Equal weight is one book through the whole market; with `EnvConfig.names` it is over the book's names and begins with the episode.
    Starting state: a random row (or the first) at which a name is tradable and from which the episode fits; the book holds equal
    weight, random weights or cash at that close. `options={"session": date}` starts every episode there.
    Episode end: truncation after `episode_sessions`; nothing terminates. Autoreset is SAME_STEP: `infos["final_obs"]` is an object
    array with the last observation where an episode ended (mask `_final_obs`), `infos["final_info"]` its step's numbers.
    Infos: (N,) arrays of the step taken: value (dollars), log_growth, baseline_log_growth, turnover, costs (dollars).
    `copy`: what a step returns is the caller's. False returns observations, rewards and the infos' numbers in one of two rooms in turn,
    valid until the step after the next.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012  Gymnasium declares it per instance

    def __init__(self, market: Market, *, num_envs: int, config: EnvConfig, copy: bool = True) -> None:
        self._simulation = _Simulation(market, books=num_envs, config=config)
        self.num_envs = num_envs
        self.layout = self._simulation.layout
        self.single_observation_space, self.single_action_space = _spaces(self._simulation)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._all = np.ones(num_envs, dtype=bool)
        # Learners store the observation before only after they have stepped, so it must outlive one step
        self._rooms = None if copy else (self._room(), self._room())
        self._turn = 0

    @property
    def columns(self) -> IntArray:
        """(N, A) the market's columns that each book trades now."""
        return self._simulation.columns

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Vector, Info]:
        super().reset(seed=seed)
        observations = self._next_room().observations
        self._simulation.begin(self._all, self.np_random, observations, row=self._simulation.row_of(options))
        return observations, {}

    def step(self, actions: Actions) -> tuple[Vector, FloatArray, BoolArray, BoolArray, Info]:
        observations, reports, rewards, numbers = self._next_room()
        ended = self._simulation.advance(np.asarray(actions, dtype=np.float32, order="C"), reports, observations)
        infos = numbers.copy()
        if not ended:
            return observations, rewards, np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool), infos
        truncated = reports[: self.num_envs, kernel.ENDED] > 0
        final = np.full(self.num_envs, None, dtype=object)
        for index in np.flatnonzero(truncated):
            final[index] = observations[index].copy()
        last = {**infos, **{f"_{name}": truncated for name in _NUMBERS}}
        infos |= {"final_obs": final, "_final_obs": truncated, "final_info": last, "_final_info": truncated}
        self._simulation.begin(truncated, self.np_random, observations)
        return observations, rewards, np.zeros(self.num_envs, bool), truncated, infos

    def snapshot(self) -> tuple[dict[str, FloatArray], dict[str, Any]]:
        """All that decides what follows: copies of the accounts' arrays, and the generator's state, which is JSON."""
        simulation = self._simulation
        return {"holdings": simulation.holdings.copy(), "states": simulation.states.copy()}, dict(self.np_random.bit_generator.state)

    def restore(self, accounts: Mapping[str, FloatArray], generator: Mapping[str, Any]) -> None:
        """Go on where a `snapshot` of the same market and configuration was taken, instead of a reset."""
        self._simulation.holdings[:], self._simulation.states[:] = accounts["holdings"], accounts["states"]
        self.np_random = np.random.default_rng(0)
        self.np_random.bit_generator.state = dict(generator)

    def _next_room(self) -> _Room:
        if self._rooms is None:
            return self._room()
        self._turn = 1 - self._turn
        return self._rooms[self._turn]

    def _room(self) -> _Room:
        observations = np.empty((self.num_envs, self.layout.width), dtype=np.float32)
        reports = np.empty((self._simulation.accounts, kernel.REPORT))
        numbers = {name: reports[: self.num_envs, column] for name, column in _NUMBERS.items()}
        infos = {**numbers, **{f"_{name}": self._all for name in numbers}}
        return _Room(observations, reports, reports[: self.num_envs, kernel.REWARD], infos)


class TradingEnv(gym.Env[Vector, Actions]):
    """One book: spaces, reward, start and end as `BatchedTradingEnv` has them, without autoreset; infos hold floats."""

    metadata = {"render_modes": []}  # noqa: RUF012  as above

    def __init__(self, market: Market, *, config: EnvConfig) -> None:
        self._simulation = _Simulation(market, books=1, config=config)
        self.layout = self._simulation.layout
        self.observation_space, self.action_space = _spaces(self._simulation)
        self._observations = np.empty((1, self.layout.width), dtype=np.float32)
        self._reports = np.empty((self._simulation.accounts, kernel.REPORT))
        self._observation, self._report = self._observations[0], self._reports[0]

    @property
    def columns(self) -> IntArray:
        """(A,) the market's columns that the book trades now."""
        own: IntArray = self._simulation.columns[0]
        return own

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Vector, Info]:
        super().reset(seed=seed)
        self._simulation.begin(np.ones(1, dtype=bool), self.np_random, self._observations, row=self._simulation.row_of(options))
        return self._observation.copy(), {}

    def step(self, action: Actions) -> tuple[Vector, float, bool, bool, Info]:
        self._simulation.advance(np.asarray(action, np.float32, order="C")[None], self._reports, self._observations)
        costs, _, turnover, growth, baseline, value, reward, ended = self._report.tolist()
        info = {"value": value, "log_growth": growth, "baseline_log_growth": baseline, "turnover": turnover, "costs": costs}
        return self._observation.copy(), reward, False, ended > 0, info
