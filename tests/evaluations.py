"""An invented evaluation.json, schema 3: seeded random series, no market. For tests of what reads the file; never a result."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BASELINES = ("cash", "equal weight held", "equal weight daily", "equal weight at kappa", "hold SPY", "random at matched turnover", "ridge")
CHECKS = ("evidence", "power", "luck", "overfitting", "stressed costs", "folds", "seeds", "holdout", "incumbent", "turnover")
HASHES = ("settings", "feature_hash", "code_version", "manifest_sha256", "model_hash")
SAVED = 6.5  # bp per year: what equal weight at kappa is ahead of equal weight daily
TRIAL = "7e1a" + "0" * 60


def evaluation_of(*, folds: int = 8, seeds: int = 10, sessions: int = 2016, drift: float = -2e-5, passed: bool = False) -> dict[str, Any]:
    """The ensemble grows by `drift` a session against equal weight; a refused one fails the checks 'luck' and 'stressed costs'."""
    rng = np.random.default_rng(7)
    days = np.busday_offset(np.datetime64("2011-01-03"), np.arange(sessions)).astype(str).tolist()
    market, noise = rng.normal(3e-4, 0.01, sessions), rng.normal(0.0, 8e-4, sessions)
    d = noise - noise.mean() + drift
    alone = {str(seed): np.cumsum(d + rng.normal(0, 6e-4, sessions)) for seed in range(seeds)}
    excess = {cost: drift * 252e4 - 2.5 * int(cost) for cost in ("0", "10", "20")}
    checks = [_check(name, passed=passed or name not in ("luck", "stressed costs")) for name in CHECKS]
    years = sorted({day[:4] for day in days})
    random = {name: {cost: rng.normal(0, 90) for cost in excess} for name in BASELINES}
    return {
        "schema": 3,
        "title": "3 names, invented",
        "command": "papertape evaluate --settings settings.toml --record invented",
        "quick": False,
        "trial": TRIAL,
        "configuration": "c0de" + "1" * 60,
        "log": {"head": "4ead" + "2" * 60, "trials": 2, "openings": 0, "new": True},
        "answer": f"PPO {'beats' if passed else 'does not beat'} equal weight: {excess['10']:+.1f} bp per year net of 10 bp per side",
        "hashes": {name: str(number) * 64 for number, name in enumerate(HASHES)},
        "data": {"symbols": ["AAA", "BBB", "CCC"], "sessions": sessions + 1260, "start": "2006-01-03", "end": days[-1], "rows": 9828},
        "windows": {
            "folds": _folds(days, folds),
            "evaluation_start": days[0],
            "evaluation_end": days[-1],
            "train_start": "2006-01-03",
            "train_end": "2018-12-21",
            "live_start": "2020-01-02",
        },
        "headline": {
            "break_even_bp": 0.0 if drift <= 0 else 14.25,
            "turnover_per_day": 0.0123,
            "information_ratio": {cost: round(bp / 130, 3) for cost, bp in excess.items()},
            "excess_bp_per_year": excess,
            "information_ratio_at_kappa": {cost: round((bp - SAVED) / 120, 3) for cost, bp in excess.items()},
            "excess_at_kappa_bp_per_year": {cost: bp - SAVED for cost, bp in excess.items()},
            "seed_spread": {"worst": -0.81, "lower": -0.5, "median": -0.37, "upper": -0.2, "best": 0.15, "deviation": 0.27},
            "detectable_ir": 0.88,
            "seeds": seeds,
        },
        "rows": [
            _row("PPO", "agent", years, excess),
            *(_row(name, "baseline", years, by_cost) for name, by_cost in random.items()),
            *(_row(f"PPO seed {seed}", "agent seed", years, {cost: excess[cost] + seed for cost in ("20", "10")}) for seed in range(seeds)),
        ],
        "statistics": {
            "psr_excess": 0.21,
            "dsr_excess": 0.13,
            "pbo": None,
            "reality_check_p": 0.71,
            "reality_check_p_at_kappa": 0.765,
            "detectable_ir": 0.88,
        },
        "gate": {
            "title": "gate",
            "passed": passed,
            "reasons": [f"{'passed' if check['passed'] else 'refused'}: {check['sentence']}" for check in checks],
            "checks": checks,
            "sessions": float(sessions),
        },
        "training": {
            "algorithm": "PPO",
            "timesteps": 150_000 * folds * seeds,
            "seeds": list(range(seeds)),
            "folds": folds,
            "seconds": 1234.5,
            "steps_per_second": 9876.5,
            "records": [_record(seed, fold) for seed in range(seeds) for fold in range(folds + 1)],
        },
        "trials": [
            _trial("0dd5" + "3" * 60, sessions, -71.5, -0.55, this=False),
            _trial(TRIAL, sessions, excess["10"], -0.2, this=True),
        ],
        "curves": {
            "sessions": days,
            "initial_cash": 100_000.0,
            "growth": {"agent": _equity(market + d), "equal weight": _equity(market), "SPY": _equity(market + 3 * d[::-1])},
            "excess": np.cumsum(d).round(6).tolist(),
            "seeds": {seed: series.round(6).tolist() for seed, series in alone.items()},
        },
        "weights": {"symbols": ["AAA", "BBB", "CCC"], "mean": [0.34, 0.33, 0.33]},
    }


def _check(name: str, *, passed: bool) -> dict[str, Any]:
    return {"name": name, "passed": passed, "sentence": f"what {name} found, with its threshold", "numbers": {f"{name}_value": 0.7142}}


def _trial(identity: str, sessions: int, bp: float, ratio: float, *, this: bool) -> dict[str, Any]:
    daily = {"excess_bp_per_year": bp, "information_ratio": ratio}
    at_kappa = {"excess_at_kappa_bp_per_year": bp - SAVED, "information_ratio_at_kappa": ratio - 0.1}
    return {"id": identity, "sessions": sessions, **daily, **at_kappa, "this": this}


def before_kappa(document: dict[str, Any]) -> dict[str, Any]:
    """The document as it was written before anything was against equal weight at kappa."""
    if isinstance(document, dict):
        return {name: before_kappa(part) for name, part in document.items() if "_at_kappa" not in name}
    return [before_kappa(part) for part in document] if isinstance(document, list) else document


def _folds(days: list[str], count: int) -> list[dict[str, Any]]:
    tests = [(str(part[0]), str(part[-1]), False) for part in np.array_split(np.array(days), count)]
    return [
        {"number": n, "train_start": "2006-01-03", "train_end": "2010-12-23", "test_start": first, "test_end": last, "holdout": holdout}
        for n, (first, last, holdout) in enumerate([*tests, ("2019-01-02", "2019-12-31", True)])
    ]


def _row(name: str, kind: str, years: list[str], excess: dict[str, float]) -> dict[str, Any]:
    at = {cost: _measures(bp, benchmark=name == "equal weight daily") for cost, bp in excess.items()}
    return {"name": name, "kind": kind, "at": at, "years": {year: round(0.03 * (n % 5) - 0.02, 4) for n, year in enumerate(years)}}


def _measures(bp: float, *, benchmark: bool) -> dict[str, float | None]:
    return {
        "annual_return": round(0.11 + bp / 1e4, 5),
        "volatility": 0.158,
        "sharpe": 0.71,
        "sharpe_error": 0.35,
        "sortino": 1.01,
        "calmar": 0.42,
        "max_drawdown": 0.262,
        "exposure": 0.991,
        "effective_n": 2.9,
        "turnover_per_day": 0.0123,
        "costs_bp_per_year": 31.2,
        "excess_bp_per_year": 0.0 if benchmark else round(bp, 2),
        "information_ratio": None if benchmark else round(bp / 130, 3),
        "tracking_error": 0.0 if benchmark else 0.013,
        "excess_at_kappa_bp_per_year": round(bp - SAVED, 2),
        "information_ratio_at_kappa": round((bp - SAVED) / 120, 3),
        "tracking_error_at_kappa": 0.012,
        "psr": 0.98,
        "final_equity": 231_456.78,
    }


def _record(seed: int, fold: int) -> dict[str, Any]:
    curve = [{"timesteps": 16384 * step, "rollout_reward": 1e-5 * step} for step in range(1, 10)]
    return {"seed": seed, "fold": fold, "seconds": 13.1, "steps_per_second": 9876.5, "curve": curve}


def _equity(growth: FloatArray) -> list[float]:
    return [round(float(dollars), 2) for dollars in 100_000 * np.exp(np.cumsum(growth))]
