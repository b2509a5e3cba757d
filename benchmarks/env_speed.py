"""Environment steps a second, ours beside five others, and what a long run does to memory.

Both sides step the same synthetic prices with random actions drawn before. `rate` counts steps of single environments: a step of a batch of
8 is 8. Whatever an environment raises ends its worker.
"""

from __future__ import annotations

import importlib.util
import sys
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.harness import Contender, Field, Measure, Numbers, Row, resident
from benchmarks.synthetic import INDICATORS, NAMES, SESSIONS, indicators, market, prices

BOOKS = 8
EPISODE = SESSIONS - 20  # theirs last as long
FEE = 0.001
SECONDS = 1.0  # a contender a round
STEPS_BETWEEN_LOOKS = 20


@dataclass(frozen=True)
class Stepper:
    """`step(i)` takes the i-th vector step; `environments` of them count as one."""

    step: Callable[[int], Any]
    environments: int

    def rate(self, seconds: float = SECONDS) -> Numbers:
        """Environment steps a second, over about `seconds`."""
        began, done = time.process_time(), 0
        while (spent := time.process_time() - began) < seconds or not done:
            for index in range(done, done + STEPS_BETWEEN_LOOKS):
                self.step(index)
            done += STEPS_BETWEEN_LOOKS
        return {"rate": done * self.environments / spent}

    def growth(self, *, warm: int, steps: int) -> Numbers:
        """Bytes that an environment step adds to the process, over `steps` of them after `warm` others."""
        for index in range(warm // self.environments):
            self.step(index)
        before = resident()
        for index in range(steps // self.environments):
            self.step(index)
        return {"bytes": (resident() - before) / steps}


def actions(books: int, names: int, *, limit: float) -> np.ndarray:
    return np.random.default_rng(9).uniform(-limit, limit, (1024, books, names)).astype(np.float32)


# ---- ours


def config_of(*, realistic: bool) -> Any:
    from trading_env.orders.risk import Limits
    from trading_env.simulation.env import EnvConfig
    from trading_env.simulation.portfolio import Costs, Rules

    if not realistic:
        return EnvConfig(rules=Rules(costs=Costs(slippage_bps=10.0)), limits=None, episode_sessions=EPISODE)
    costs = Costs(fee_bps=1.0, slippage_bps=5.0, half_spread_bps=2.0, impact=1.0, max_volume_share=0.1)
    limits = Limits(
        max_weight=0.6,
        max_gross=1.0,
        max_order_notional=100_000.0,
        max_turnover_per_day=2.0,
        max_orders_per_day=60,
        price_collar=0.1,
        max_drawdown=0.5,
        max_daily_loss=0.25,
        max_bar_age_sessions=1,
        max_model_age_days=500,
        restricted=("S00",),
    )
    return EnvConfig(rules=Rules(costs=costs, band=0.0005, whole_shares=True), limits=limits, episode_sessions=EPISODE)


def our_batch(names: int, books: int, *, realistic: bool = False) -> Stepper:
    from trading_env.simulation.env import BatchedTradingEnv

    env = BatchedTradingEnv(market(names), num_envs=books, config=config_of(realistic=realistic), copy=False)
    env.reset(seed=0)
    draws = actions(min(books, 512), names, limit=3)
    draws = np.tile(draws[: max(8, 1024 * 8 // books)], (1, -(-books // draws.shape[1]), 1))[:, :books]
    count = len(draws)
    return Stepper(step=lambda index: env.step(draws[index % count]), environments=books)


def our_single() -> Stepper:
    from trading_env.simulation.env import TradingEnv

    env = TradingEnv(market(1), config=config_of(realistic=False))
    env.reset(seed=0)
    draws = list(actions(1, 1, limit=3)[:, 0])

    def step(index: int) -> None:
        _, _, terminated, truncated, _ = env.step(draws[index & 1023])
        if terminated or truncated:
            env.reset()

    return Stepper(step=step, environments=1)


# ---- theirs


def bare(package: str) -> None:
    """Let modules of `package` be imported without running its `__init__`, which would import brokers or tensorflow."""
    if package in sys.modules:
        return
    spec = importlib.util.find_spec(package)
    assert spec is not None
    module = types.ModuleType(package)
    module.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[package] = module


def stepping(env: Any, draws: np.ndarray) -> Stepper:
    env.reset()
    return Stepper(step=lambda index: env.step(draws[index & 1023]), environments=env.num_envs)


def finrl(names: int, books: int) -> Any:
    """FinRL's StockTradingEnv, so many in SB3's DummyVecEnv."""
    import pandas as pd
    from stable_baselines3.common.vec_env import DummyVecEnv

    bare("finrl")
    module = importlib.import_module("finrl.meta.env_stock_trading.env_stocktrading")
    _, close = prices(names)
    columns = [f"feature{place}" for place in range(INDICATORS)]
    table = pd.DataFrame(indicators(names).reshape(-1, INDICATORS), columns=columns)
    table.insert(0, "close", close.ravel())
    table.insert(0, "tic", np.tile([f"S{index:02d}" for index in range(names)], SESSIONS))
    table.insert(0, "date", np.repeat(pd.bdate_range("2010-01-04", periods=SESSIONS).strftime("%Y-%m-%d"), names))
    table.index = np.repeat(np.arange(SESSIONS), names)

    def make() -> Any:
        return module.StockTradingEnv(
            df=table,
            stock_dim=names,
            hmax=100,
            initial_amount=1_000_000,
            num_stock_shares=[0] * names,
            buy_cost_pct=[FEE] * names,
            sell_cost_pct=[FEE] * names,
            reward_scaling=1e-4,
            state_space=1 + 2 * names + INDICATORS * names,
            action_space=names,
            tech_indicator_list=columns,
            print_verbosity=10**9,
        )

    return DummyVecEnv([make] * books)


def finrl_numpy(names: int, books: int) -> Any:
    """FinRL's NumPy environment, likewise."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    bare("finrl")
    module = importlib.import_module("finrl.meta.env_stock_trading.env_stocktrading_np")
    arrays = {
        "price_array": prices(names)[1],
        "tech_array": indicators(names).reshape(SESSIONS, -1),
        "turbulence_array": np.zeros(SESSIONS),
        "if_train": True,
    }
    return DummyVecEnv([lambda: module.StockTradingEnv(arrays)] * books)


def discrete(env: Any) -> Stepper:
    env.reset()
    draws = np.random.default_rng(9).integers(0, env.action_space.n, 1024).tolist()

    def step(index: int) -> None:
        # gym's tuple of four, or gymnasium's of five
        _, _, *ended, _ = env.step(draws[index & 1023])
        if any(ended):
            env.reset()

    return Stepper(step=step, environments=1)


def anytrading() -> Stepper:
    import pandas as pd

    module = importlib.import_module("gym_anytrading.envs")
    frame = pd.DataFrame({"Close": prices(1)[1][:, 0]})
    return discrete(module.StocksEnv(df=frame, window_size=10, frame_bound=(10, SESSIONS)))


def gym_trading_env() -> Stepper:
    import pandas as pd

    with warnings.catch_warnings():  # it turns every later warning into an error
        module = importlib.import_module("gym_trading_env.environments")
    opening, close = (side[:, 0] for side in prices(1))
    frame = pd.DataFrame(
        {"open": opening, "high": np.maximum(opening, close), "low": np.minimum(opening, close), "close": close},
        index=pd.bdate_range("2010-01-04", periods=SESSIONS),
    )
    for place in range(INDICATORS):
        frame[f"feature_{place}"] = indicators(1)[:, 0, place]
    return discrete(module.TradingEnv(df=frame, positions=[0, 1], trading_fees=FEE, verbose=0))


def tensortrade() -> Stepper:
    bare("tensortrade")
    sys.modules["IPython"] = sys.modules["IPython.display"] = notebook = types.ModuleType("IPython")
    notebook.display = notebook.clear_output = None  # type: ignore[attr-defined]  # imported by its renderers, called by none here
    for module in ("tensortrade.core", "tensortrade.feed", "tensortrade.oms.orders"):
        importlib.import_module(module)  # in the order of its __init__, whose circles need it
    feed = importlib.import_module("tensortrade.feed.core")
    exchanges = importlib.import_module("tensortrade.oms.exchanges")
    execution = importlib.import_module("tensortrade.oms.services.execution.simulated")
    money = importlib.import_module("tensortrade.oms.instruments")
    wallets = importlib.import_module("tensortrade.oms.wallets")
    default = importlib.import_module("tensortrade.env.default")
    share = money.Instrument("SHR", 8, "a share")
    price = feed.Stream.source(prices(1)[1][:, 0].tolist(), dtype="float").rename("USD-SHR")
    exchange = exchanges.Exchange("sim", service=execution.execute_order)(price)
    portfolio = wallets.Portfolio(money.USD, [wallets.Wallet(exchange, 10_000 * money.USD), wallets.Wallet(exchange, 0 * share)])
    streams = [feed.Stream.source(indicators(1)[:, 0, place].tolist(), dtype="float").rename(f"f{place}") for place in range(INDICATORS)]
    env = default.create(
        portfolio=portfolio,
        action_scheme="simple",
        reward_scheme="simple",
        feed=feed.DataFeed(streams),
        window_size=1,
        max_allowed_loss=1.0,
    )
    return discrete(env)


def their_batch(make: Callable[[int, int], Any]) -> Stepper:
    return stepping(make(NAMES, BOOKS), actions(BOOKS, NAMES, limit=1))


def speed_of(make: Callable[[], Stepper]) -> Callable[[], Measure]:
    return lambda: make().rate


def growth_of(make: Callable[[], Stepper], *, warm: int, steps: int) -> Callable[[], Measure]:
    return lambda: lambda: make().growth(warm=warm, steps=steps)


CONTENDERS = {
    "ours 30x8": Contender("ours", speed_of(lambda: our_batch(NAMES, BOOKS))),
    "FinRL 30x8": Contender("peers", speed_of(lambda: their_batch(finrl))),
    "FinRL NumPy 30x8": Contender("peers", speed_of(lambda: their_batch(finrl_numpy))),
    "ours real 30x8": Contender("ours", speed_of(lambda: our_batch(NAMES, BOOKS, realistic=True))),
    "ours 1x1": Contender("ours", speed_of(our_single)),
    "gym-anytrading 1x1": Contender("peers", speed_of(anytrading)),
    "gym-trading-env 1x1": Contender("peers", speed_of(gym_trading_env)),
    "tensortrade 1x1": Contender("peers", speed_of(tensortrade)),
    "ours 30x64": Contender("ours", speed_of(lambda: our_batch(NAMES, 64))),
    "ours 30x512": Contender("ours", speed_of(lambda: our_batch(NAMES, 512))),
    "ours 30x4096": Contender("ours", speed_of(lambda: our_batch(NAMES, 4096))),
    "ours memory": Contender("ours", growth_of(lambda: our_batch(NAMES, BOOKS), warm=500_000, steps=5_000_000), once=True),
    "FinRL memory": Contender("peers", growth_of(lambda: their_batch(finrl), warm=800, steps=4_000), once=True),
}
COSTS = "env steps/s, 30 assets, 8 envs, costs alone"
REAL = "env steps/s, 30 assets, 8 envs, spread, impact, volume cap, band, whole shares, limits"
SINGLE = "env steps/s, 1 asset, 1 env"
ROWS = [
    Row(f"{COSTS}: FinRL StockTradingEnv", "ours 30x8", "FinRL 30x8", "rate", "steps/s", goal=1000),
    Row(f"{COSTS}: FinRL NumPy env", "ours 30x8", "FinRL NumPy 30x8", "rate", "steps/s", goal=60),
    Row(f"{REAL}: FinRL StockTradingEnv", "ours real 30x8", "FinRL 30x8", "rate", "steps/s", goal=400),
    Row(f"{REAL}: FinRL NumPy env", "ours real 30x8", "FinRL NumPy 30x8", "rate", "steps/s", goal=25),
    Row(f"{SINGLE}: gym-anytrading", "ours 1x1", "gym-anytrading 1x1", "rate", "steps/s", goal=1),
    Row(f"{SINGLE}: gym-trading-env", "ours 1x1", "gym-trading-env 1x1", "rate", "steps/s", goal=1),
    Row(f"{SINGLE}: tensortrade", "ours 1x1", "tensortrade 1x1", "rate", "steps/s", goal=1),
    *(
        Row(f"env steps/s, 30 assets, {books} envs: FinRL StockTradingEnv, 8 envs", f"ours 30x{books}", "FinRL 30x8", "rate", "steps/s")
        for books in (64, 512, 4096)
    ),
    Row("memory that a step adds, over 5 M steps: FinRL over 4,000", "ours memory", "FinRL memory", "bytes", "bytes", at_most=0.2),
]
FIELD = Field(contenders=CONTENDERS, rows=ROWS, rounds=5)
