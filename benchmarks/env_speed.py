"""Environment steps a second, ours beside five others, and what a long run does to memory.

    make setup; python3.11 -m venv .venv-peers; .venv-peers/bin/pip install --no-deps -r benchmarks/requirements-peers.txt
    .venv/bin/python benchmarks/env_speed.py

Two workers, one a virtual environment, take turns: never both at once, one thread each, every contender once a round, the median of the
rounds. Both sides step the same synthetic prices with pre-drawn random actions. Prints a table and merges its rows into `out/bench.json`
as {work, ours, peer, ratio, goal}. Fails when a worker does; a missed goal is a printed fact, not a failure.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "out" / "bench.json"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
SESSIONS, NAMES, BOOKS, INDICATORS = 2500, 30, 8, 8
EPISODE = SESSIONS - 20  # theirs last as long
FEE = 0.001
STEPS_BETWEEN_LOOKS = 20


@dataclass(frozen=True)
class Contender:
    """`step(i)` takes the i-th vector step; `environments` of them count as one."""

    step: Callable[[int], Any]
    environments: int

    def rate(self, seconds: float) -> float:
        """Environment steps a second of processor time, over about `seconds`: on a busy machine the wall clock times the others too."""
        began, done = time.process_time(), 0
        while (spent := time.process_time() - began) < seconds or not done:
            for index in range(done, done + STEPS_BETWEEN_LOOKS):
                self.step(index)
            done += STEPS_BETWEEN_LOOKS
        return done * self.environments / spent


def prices(names: int) -> tuple[np.ndarray, np.ndarray]:
    """Opens and closes (T, A) of a seeded walk."""
    rng = np.random.default_rng(7)
    moves, gaps = rng.normal(0.0003, 0.015, (SESSIONS, names)), rng.normal(0, 0.005, (SESSIONS, names))
    close = rng.uniform(20, 200, names) * np.exp(np.cumsum(moves, axis=0))
    opening = np.vstack([close[:1], close[:-1]]) * np.exp(gaps)
    return opening, close


def indicators(names: int) -> np.ndarray:
    """(T, A, 8)"""
    return np.random.default_rng(8).normal(size=(SESSIONS, names, INDICATORS))


def actions(books: int, names: int, *, limit: float) -> np.ndarray:
    return np.random.default_rng(9).uniform(-limit, limit, (1024, books, names)).astype(np.float32)


# ---- ours, in .venv


def market_of(names: int) -> Any:
    from trading_env.market import Market

    opening, close = prices(names)
    return Market(
        symbols=tuple(f"S{index:02d}" for index in range(names)),
        sessions=np.busday_offset(np.datetime64("2010-01-04", "D"), np.arange(SESSIONS), roll="forward"),
        open=opening,
        high=np.maximum(opening, close),
        low=np.minimum(opening, close),
        close=close,
        volume=np.full(close.shape, 2e5),
        split=np.ones(close.shape),
        dividend=np.zeros(close.shape),
        tradable=np.ones(close.shape, dtype=bool),
        features=indicators(names),
        context=np.zeros((SESSIONS, 2)),
    )


def config_of(*, realistic: bool) -> Any:
    from trading_env.env import EnvConfig
    from trading_env.portfolio import Costs, Rules
    from trading_env.risk import Limits

    if not realistic:
        return EnvConfig(rules=Rules(costs=Costs(slippage_bps=10.0)), episode_sessions=EPISODE)
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


def our_batch(names: int, books: int, *, realistic: bool = False) -> Contender:
    from trading_env.env import BatchedTradingEnv

    env = BatchedTradingEnv(market_of(names), num_envs=books, config=config_of(realistic=realistic), copy=False)
    env.reset(seed=0)
    draws = actions(min(books, 512), names, limit=3)
    draws = np.tile(draws[: max(8, 1024 * 8 // books)], (1, -(-books // draws.shape[1]), 1))[:, :books]
    count = len(draws)
    return Contender(step=lambda index: env.step(draws[index % count]), environments=books)


def our_single() -> Contender:
    from trading_env.env import TradingEnv

    env = TradingEnv(market_of(1), config=config_of(realistic=False))
    env.reset(seed=0)
    draws = list(actions(1, 1, limit=3)[:, 0])

    def step(index: int) -> None:
        _, _, terminated, truncated, _ = env.step(draws[index & 1023])
        if terminated or truncated:
            env.reset()

    return Contender(step=step, environments=1)


# ---- theirs, in .venv-peers


def bare(package: str) -> None:
    """Let modules of `package` be imported without running its `__init__`, which would import brokers or tensorflow."""
    if package in sys.modules:
        return
    spec = importlib.util.find_spec(package)
    assert spec is not None
    module = types.ModuleType(package)
    module.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[package] = module


def dummy_vec(makers: list[Callable[[], Any]], draws: np.ndarray) -> Contender:
    from stable_baselines3.common.vec_env import DummyVecEnv

    env = DummyVecEnv(makers)
    env.reset()
    return Contender(step=lambda index: env.step(draws[index & 1023]), environments=len(makers))


def finrl(names: int, books: int) -> Contender:
    import pandas as pd

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

    return dummy_vec([make] * books, actions(books, names, limit=1))


def finrl_numpy(names: int, books: int) -> Contender:
    bare("finrl")
    module = importlib.import_module("finrl.meta.env_stock_trading.env_stocktrading_np")
    arrays = {
        "price_array": prices(names)[1],
        "tech_array": indicators(names).reshape(SESSIONS, -1),
        "turbulence_array": np.zeros(SESSIONS),
        "if_train": True,
    }
    return dummy_vec([lambda: module.StockTradingEnv(arrays)] * books, actions(books, names, limit=1))


def discrete(env: Any) -> Contender:
    env.reset()
    draws = np.random.default_rng(9).integers(0, env.action_space.n, 1024).tolist()

    def step(index: int) -> None:
        # gym's tuple of four, or gymnasium's of five
        _, _, *ended, _ = env.step(draws[index & 1023])
        if any(ended):
            env.reset()

    return Contender(step=step, environments=1)


def anytrading() -> Contender:
    import pandas as pd

    module = importlib.import_module("gym_anytrading.envs")
    frame = pd.DataFrame({"Close": prices(1)[1][:, 0]})
    return discrete(module.StocksEnv(df=frame, window_size=10, frame_bound=(10, SESSIONS)))


def gym_trading_env() -> Contender:
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


def tensortrade() -> Contender:
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


CONTENDERS: dict[str, tuple[str, Callable[[], Contender]]] = {
    "ours 30x8": ("ours", lambda: our_batch(NAMES, BOOKS)),
    "finrl 30x8": ("peers", lambda: finrl(NAMES, BOOKS)),
    "finrl-np 30x8": ("peers", lambda: finrl_numpy(NAMES, BOOKS)),
    "ours real 30x8": ("ours", lambda: our_batch(NAMES, BOOKS, realistic=True)),
    "ours 1x1": ("ours", our_single),
    "gym-anytrading 1x1": ("peers", anytrading),
    "gym-trading-env 1x1": ("peers", gym_trading_env),
    "tensortrade 1x1": ("peers", tensortrade),
    "ours 30x64": ("ours", lambda: our_batch(NAMES, 64)),
    "ours 30x512": ("ours", lambda: our_batch(NAMES, 512)),
    "ours 30x4096": ("ours", lambda: our_batch(NAMES, 4096)),
}
COSTS = "env steps/s, 30 assets, 8 envs, costs alone"
REAL = "env steps/s, 30 assets, 8 envs, spread, impact, cap, band, whole shares, limits"
SINGLE = "env steps/s, 1 asset, 1 env"
ROWS = [
    (COSTS, "ours 30x8", "finrl 30x8", 1000.0),
    (COSTS, "ours 30x8", "finrl-np 30x8", 60.0),
    (REAL, "ours real 30x8", "finrl 30x8", 400.0),
    (REAL, "ours real 30x8", "finrl-np 30x8", 25.0),
    (SINGLE, "ours 1x1", "gym-anytrading 1x1", 1.0),
    (SINGLE, "ours 1x1", "gym-trading-env 1x1", 1.0),
    (SINGLE, "ours 1x1", "tensortrade 1x1", 1.0),
]
# Steps before the first look at memory, and from there on
MEMORY = {"ours 30x8": (500_000, 5_000_000), "finrl 30x8": (800, 4_000)}


def resident() -> float:
    """MB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def serve() -> None:
    """A worker: one JSON request a line in, one answer a line out, on a stdout that the libraries cannot print to."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, str(ROOT))
    made: dict[str, Contender] = {}
    for line in sys.stdin:
        request = json.loads(line)
        name = request["name"]
        contender = made.setdefault(name, made.get(name) or CONTENDERS[name][1]())
        if "seconds" in request:
            answer = contender.rate(request["seconds"])
        else:
            warm, steps = (count // contender.environments for count in request["steps"])
            for index in range(warm):
                contender.step(index)
            before = resident()
            for index in range(steps):
                contender.step(index)
            answer = resident() - before
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    def __init__(self, python: Path) -> None:
        if not python.exists():
            raise SystemExit(f"env_speed: {python.relative_to(ROOT)} is missing; benchmarks/README.md says how to make it")
        environment = {**os.environ, **ONE_THREAD}
        self.process = subprocess.Popen(
            [str(python), __file__, "--worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )

    def ask(self, **request: Any) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"env_speed: {request['name']} ended its worker with code {self.process.wait()}")
        return float(json.loads(answer))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


@contextmanager
def workers() -> Iterator[dict[str, Worker]]:
    with ExitStack() as stack:
        yield {
            side: stack.enter_context(Worker(ROOT / venv / "bin" / "python"))
            for side, venv in (("ours", ".venv"), ("peers", ".venv-peers"))
        }


def machine() -> str:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return f"{processor}, {os.cpu_count()} CPUs, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def merge(rows: list[dict[str, Any]]) -> None:
    """Replace rows of the same work in `out/bench.json`, keep the others."""
    known = json.loads(OUT.read_text()) if OUT.exists() else []
    fresh = {row["work"] for row in rows}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps([row for row in known if row["work"] not in fresh] + rows, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="a contender a round")
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve()
        return
    say(f"machine: {machine()}")
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with workers() as ask:
        for turn in range(options.rounds + 1):
            for name, (side, _) in CONTENDERS.items():
                rate = ask[side].ask(name=name, seconds=options.seconds if turn else 0.2)
                if turn:
                    rates[name].append(rate)
        middle = {name: statistics.median(values) for name, values in rates.items()}
        grown = {} if options.skip_memory else {n: ask[CONTENDERS[n][0]].ask(name=n, steps=steps) for n, steps in MEMORY.items()}
    for name, values in rates.items():
        say(f"{name:22} {middle[name]:12,.0f} env steps/s   ({min(values):,.0f} to {max(values):,.0f})")
    rows = [
        {
            "work": f"{work}: {peer.partition(' ')[0]}",
            "ours": round(middle[ours], 1),
            "peer": round(middle[peer], 1),
            "ratio": round(statistics.median(a / b for a, b in zip(rates[ours], rates[peer], strict=True)), 2),
            "goal": goal,
        }
        for work, ours, peer, goal in ROWS
    ]
    if grown:
        ours, peer = (1e6 * grown[name] / MEMORY[name][1] for name in ("ours 30x8", "finrl 30x8"))
        work = "memory, bytes a step, over 5 M steps: finrl over 4,000"
        rows.append({"work": work, "ours": round(ours, 3), "peer": round(peer, 1), "ratio": None, "goal": "flat"})
        say(f"memory grew by {grown['ours 30x8']:.1f} MB over 5 M steps; FinRL's by {grown['finrl 30x8']:.1f} MB over 4,000")
    for row in rows:
        say(f"{row['work']:100} ratio {row['ratio']}, goal {row['goal']}")
    merge(rows)


if __name__ == "__main__":
    main()
