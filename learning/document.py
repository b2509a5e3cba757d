"""evaluation.json, schema 3: what was judged, the verdict, every row and curve, and what a model package is registered with.

Promise: all that a page or the registry shows is in it, in basis points of growth a year where it says bp, and nothing of the holdout
but what the gate's check says of it. Numbers are rounded to what they are worth; what does not exist is null, never NaN. The same inputs
give the same bytes, but for the seconds that training took and whether the trial was new. Failure: what the measures raise.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.judging import COSTS, SLOW, STANDARD, Books, Judgement, Trained
from schema import evaluation_document
from trading_env.evaluation import gate, metrics, scorecard, selection, statistics
from trading_env.evaluation.checks import AT_KAPPA, logged_series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from learning.configuration import Configuration
    from learning.dataset import Dataset
    from schema.settings import Settings
    from trading_env.evaluation.backtest import BacktestResult
    from trading_env.evaluation.trials import TrialEntry
    from trading_env.simulation.policy import NumpyPolicy

DRAWN = ("equal weight at kappa", "minimum variance", "ridge")  # baselines whose growth is drawn, equal weight and benchmark aside
NO_SPREAD = statistics.Spread(*[math.nan] * 6)  # of seeds that do what equal weight does
METADATA_FORBIDDEN = re.compile(r"[^\w .:/=+\-@]")
YEARLY = metrics.SESSIONS_PER_YEAR * 1e4


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Everything that the document says, together."""

    settings: Settings
    configuration: Configuration
    dataset: Dataset
    trained: Trained
    books: Books
    judgement: Judgement
    deployed: NumpyPolicy
    model_hash: str
    command: str

    @property
    def agent(self) -> BacktestResult:
        return self.books.agent[STANDARD]

    @property
    def excess(self) -> NDArray[np.float64]:
        """d at the standard cost."""
        return self.books.excess(self.agent, cost=STANDARD)

    @property
    def excess_at_kappa(self) -> NDArray[np.float64]:
        """The same against equal weight at the policy's own kappa."""
        return self.books.excess(self.agent, cost=STANDARD, name=SLOW)


def document(evaluated: Evaluated) -> dict[str, Any]:
    """The whole file as JSON-ready data; raise EvaluationFileError rather than give what no page could read."""
    card, log = evaluated.deployed.card, evaluated.judgement.log
    rows = _rows(evaluated.books)
    numbers = _gate_numbers(evaluated, rows[0]["at"][str(STANDARD)])
    verdict = evaluated.judgement.verdict
    hashes = {
        "settings": hashlib.sha256(json.dumps(evaluated.configuration.settings, sort_keys=True).encode()).hexdigest(),
        "feature_hash": card.feature_hash,
        "code_version": card.code_version,
        "manifest_sha256": evaluated.dataset.manifest_sha256,
        "model_hash": evaluated.model_hash,
    }
    windows, headline = _windows(evaluated), _headline(evaluated, rows)
    body = {
        "schema": evaluation_document.SCHEMA,
        "title": f"{len(evaluated.agent.symbols)} names, {len(evaluated.trained.judged)} folds x {len(evaluated.trained.seeds)} seeds",
        "command": evaluated.command,
        "quick": len(evaluated.trained.judged) < gate.GateThresholds().min_folds,
        "trial": evaluated.judgement.trial,
        "configuration": evaluated.configuration.identity,
        "log": {"head": log.head, "trials": len(log.trials), "openings": len(log.openings), "new": evaluated.judgement.new},
        "answer": answer(evaluated),
        "hashes": hashes,
        "data": _data(evaluated.dataset),
        "windows": windows,
        "headline": headline,
        "rows": rows,
        "statistics": _statistics(evaluated),
        "gate": {
            "title": verdict.title,
            "passed": verdict.passed,
            "reasons": verdict.reasons,
            "checks": [asdict(check) for check in verdict.checks],
            **numbers,
        },
        "approval": approval(evaluated.settings, passed=verdict.passed),
        "metrics": dict(verdict.numbers),
        "kappa": card.kappa,
        **{name: value for name, value in hashes.items() if name != "settings"},
        "training": _training(evaluated.trained),
        "trials": [_trial(entry, this=entry.trial_id == evaluated.judgement.trial) for entry in log.trials],
        "weights": {"symbols": list(evaluated.agent.symbols), "mean": evaluated.agent.held.mean(axis=0).tolist()},
        "metadata": {
            "model_hash": evaluated.model_hash,
            "kappa": str(card.kappa),
            "feature_hash": card.feature_hash,
            "gate": summary({"passed": verdict.passed, **numbers}),
            "trained_until": card.train_end,
            # The last session that it could have been judged on: the age of what it knows counts from here
            "evaluated_until": str(evaluated.trained.holdout.test_end),
            "trial": evaluated.judgement.trial,
            "configuration": evaluated.configuration.identity,
            "data_sha256": evaluated.dataset.data_sha256,
        },
    }
    whole = {**_tidy(body), "curves": _curves(evaluated)}
    evaluation_document.read(whole)
    return whole


def approval(settings: Settings, *, passed: bool) -> str:
    """The status that the package is registered with: nothing that was refused is approved, and by hand only what passed."""
    if not passed:
        return "Rejected"
    return {"automatic": "Approved", "manual": "PendingManualApproval"}[settings.model.approval]


def to_json(body: Mapping[str, Any]) -> bytes:
    """One line for each top-level key, so that it can be read and compared."""
    lines = (f"{json.dumps(name)}: {json.dumps(value, allow_nan=False, separators=(',', ':'))}" for name, value in body.items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def answer(evaluated: Evaluated) -> str:
    """Whether the agent beats equal weight, in one sentence with its numbers; that it does, only the gate can show."""
    yearly, at_kappa = float(evaluated.excess.mean()) * YEARLY, float(evaluated.excess_at_kappa.mean()) * YEARLY
    verdict = evaluated.judgement.verdict
    algorithm = evaluated.settings.training.algorithm_name
    beats = verdict.passed and verdict.title == gate.TITLE
    refused = ", ".join(check.name for check in verdict.checks if not check.passed)
    return (
        f"{claim(algorithm, min(yearly, at_kappa), passed=beats)}: {yearly:+.1f} bp per year net of {STANDARD} bp per side, information "
        f"ratio {_signed(evaluated.excess)}, and against equal weight at kappa {at_kappa:+.1f} bp, {_signed(evaluated.excess_at_kappa)}; "
        f"over {len(evaluated.excess):,} sessions out of sample with {len(evaluated.trained.seeds)} seeds"
        f"{f'; refused by: {refused}' if refused else ''}."
    )


def _signed(excess: NDArray[np.float64]) -> str:
    """The information ratio of d; a dash where it never varies."""
    ratio = statistics.information_ratio(excess)
    return f"{ratio:+.2f}" if math.isfinite(ratio) else "–"


def claim(algorithm: str, excess: float, *, passed: bool) -> str:
    """What may be said of its `excess` growth, over both equal weights, and a verdict: that it beats, only when above 0 and passed."""
    if not excess > 0:
        return f"{algorithm} does not beat equal weight"
    verb = "beats" if passed else "is not shown to beat"
    return f"{algorithm} {verb} equal weight"


def summary(verdict: Mapping[str, Any]) -> str:
    """The verdict in the characters that a model package's metadata may hold, at most 256."""
    text = (
        f"{'passed' if verdict['passed'] else 'refused'}: excess {verdict['excess_bp_per_year']:+.1f} bp per year"
        f" lower bound {verdict['excess_lower_bp_per_year']:+.1f} information ratio {verdict['information_ratio']:+.2f}"
        f" at kappa {verdict['excess_at_kappa_bp_per_year']:+.1f} bp {verdict['information_ratio_at_kappa']:+.2f}"
        f" turnover {verdict['turnover_per_day']:.4f} a day"
        f" sharpe {verdict['sharpe']:.2f} equal weight {verdict['equal_weight_sharpe']:.2f} sessions {verdict['sessions']:.0f}"
    )
    return METADATA_FORBIDDEN.sub(" ", text)[:256]


def _gate_numbers(evaluated: Evaluated, measured: Mapping[str, float]) -> dict[str, float]:
    """The agent in short, at the standard cost, where it `measured` so."""
    bar, agent, equal = gate.GateThresholds(), evaluated.agent, evaluated.books.equal_weight(STANDARD)
    benchmark = _benchmark(evaluated)
    lower = statistics.lower_bound(evaluated.excess, confidence=bar.confidence, mean_block=bar.mean_block, draws=bar.draws, seed=bar.seed)
    return {
        "sharpe": metrics.sharpe(agent.growth),
        "equal_weight_sharpe": metrics.sharpe(equal.growth),
        "benchmark_sharpe": metrics.sharpe(benchmark.growth) if benchmark else math.nan,
        "max_drawdown": metrics.max_drawdown(agent.equity, initial=agent.initial_cash),
        "excess_bp_per_year": float(evaluated.excess.mean()) * YEARLY,
        "excess_lower_bp_per_year": lower * YEARLY,
        **{name: measured[name] for name in ("information_ratio", "excess_at_kappa_bp_per_year", "information_ratio_at_kappa")},
        "turnover_per_day": float(agent.turnover.mean()),
        "sessions": float(len(evaluated.excess)),
    }


def _benchmark(evaluated: Evaluated) -> BacktestResult | None:
    name = f"hold {evaluated.settings.universe.benchmark}"
    return next((row for row in evaluated.books.baselines[STANDARD] if row.policy == name), None)


def _data(dataset: Dataset) -> dict[str, Any]:
    sessions = np.unique(dataset.market.days)
    return {
        "symbols": list(dataset.market.symbols),
        "sessions": len(sessions),
        "start": str(sessions[0]),
        "end": str(sessions[-1]),
        "rows": dataset.manifest["rows"],
    }


def _windows(evaluated: Evaluated) -> dict[str, Any]:
    dates = ("train_start", "train_end", "test_start", "test_end")
    return {
        "folds": [
            {"number": fold.number, **{name: str(getattr(fold, name)) for name in dates}, "holdout": fold.holdout}
            for fold in evaluated.trained.folds
        ],
        "evaluation_start": str(evaluated.agent.sessions[0]),
        "evaluation_end": str(evaluated.agent.sessions[-1]),
        "train_start": evaluated.deployed.card.train_start,
        "train_end": evaluated.deployed.card.train_end,
        "live_start": evaluated.settings.training.dates.live_start.isoformat(),
    }


def _rows(books: Books) -> list[dict[str, Any]]:
    baselines = [{cost: books.baselines[cost][number] for cost in COSTS} for number in range(len(books.baselines[STANDARD]))]
    kinds: Iterable[tuple[str, Iterable[Mapping[int, BacktestResult]]]] = (
        ("agent", [books.agent]),
        ("baseline", baselines),
        ("agent seed", books.seeds.values()),
    )
    return [
        {
            "name": at[STANDARD].policy,
            "kind": kind,
            "at": {
                str(cost): scorecard.measures(book, equal_weight=books.equal_weight(cost), at_kappa=books.equal_weight(cost, name=SLOW))
                for cost, book in at.items()
            },
            "years": scorecard.years(at[STANDARD]),
        }
        for kind, group in kinds
        for at in group
    ]


def _headline(evaluated: Evaluated, rows: list[dict[str, Any]]) -> dict[str, Any]:
    agent, bar = rows[0]["at"], gate.GateThresholds()

    def by_cost(measure: str) -> dict[str, float]:
        return {str(cost): agent[str(cost)][measure] for cost in COSTS}

    excess = by_cost("excess_bp_per_year")
    own = [row["at"][str(STANDARD)]["information_ratio"] for row in rows if row["kind"] == "agent seed"]
    return {
        "break_even_bp": statistics.break_even_cost(list(COSTS), list(excess.values())),
        "turnover_per_day": agent[str(STANDARD)]["turnover_per_day"],
        "information_ratio": by_cost("information_ratio"),
        "excess_bp_per_year": excess,
        "information_ratio_at_kappa": by_cost("information_ratio_at_kappa"),
        "excess_at_kappa_bp_per_year": by_cost("excess_at_kappa_bp_per_year"),
        "seed_spread": asdict(statistics.spread(own) if np.isfinite(own).all() else NO_SPREAD),
        "detectable_ir": _detectable(evaluated, bar),
        "seeds": len(evaluated.trained.seeds),
    }


def _trial(entry: TrialEntry, *, this: bool) -> dict[str, Any]:
    """One line of the log in short."""
    slow = entry.excess_at_kappa
    return {
        "id": entry.trial_id,
        "sessions": len(entry.sessions),
        "excess_bp_per_year": float(entry.excess.mean()) * YEARLY,
        "information_ratio": statistics.information_ratio(entry.excess),
        "excess_at_kappa_bp_per_year": math.nan if slow is None else float(slow.mean()) * YEARLY,
        "information_ratio_at_kappa": math.nan if slow is None else statistics.information_ratio(slow),
        "this": this,
    }


def _detectable(evaluated: Evaluated, bar: gate.GateThresholds) -> float:
    return statistics.detectable_ir(evaluated.excess, power=bar.power, significance=bar.significance, mean_block=bar.mean_block)


def _statistics(evaluated: Evaluated) -> dict[str, float]:
    """What luck and choosing could have done, over every logged trial: reported whatever the gate asked."""
    bar, log = gate.GateThresholds(), evaluated.judgement.log
    trial = log.trial(evaluated.judgement.trial)
    assert trial is not None
    found = {**selection.luck(trial.trial_id, log=log, bar=bar).numbers, **selection.overfitting(trial, log=log, bar=bar).numbers}
    sharpes: dict[str, float] = {}
    for suffix, excess in logged_series(trial).items():
        ratios = [statistics.sharpe(logged_series(entry).get(suffix, entry.excess)) for entry in log.trials]
        sharpes |= {
            f"psr_excess{suffix}": statistics.probabilistic_sharpe(excess),
            f"dsr_excess{suffix}": statistics.deflated_sharpe(excess, trial_sharpes=ratios),
        }
    return {**sharpes, "pbo": math.nan, f"pbo{AT_KAPPA}": math.nan, "detectable_ir": _detectable(evaluated, bar), **found}


def _training(trained: Trained) -> dict[str, Any]:
    records = [record for own in trained.records for record in own]
    kept = ("seed", "fold", "seconds", "steps_per_second")
    return {
        "algorithm": records[0]["algorithm"],
        "timesteps": sum(record["timesteps"] for record in records),
        "seeds": list(trained.seeds),
        "folds": len(trained.judged),
        "seconds": max(sum(record["seconds"] for record in own) for own in trained.records),  # the slowest seed: they run side by side
        "steps_per_second": sum(record["steps_per_second"] for record in records) / len(records),  # of one seed
        "records": [
            {
                **{name: record[name] for name in kept},
                "curve": [{name: point[name] for name in ("timesteps", "rollout_reward")} for point in record["curve"]],
            }
            for record in records
        ],
    }


def _curves(evaluated: Evaluated) -> dict[str, Any]:
    drawn = {"agent": evaluated.agent, "equal weight": evaluated.books.equal_weight(STANDARD)}
    benchmark = _benchmark(evaluated)
    if benchmark is not None:
        drawn[str(evaluated.settings.universe.benchmark)] = benchmark
    drawn |= {row.policy: row for row in evaluated.books.baselines[STANDARD] if row.policy in DRAWN}
    return {
        "sessions": [str(session) for session in evaluated.agent.sessions],
        "initial_cash": evaluated.agent.initial_cash,
        "growth": {name: [_digits(dollars, 6) for dollars in book.equity.tolist()] for name, book in drawn.items()},
        "excess": np.cumsum(evaluated.excess).round(5).tolist(),
        "seeds": {
            str(seed): np.cumsum(evaluated.books.excess(own[STANDARD], cost=STANDARD)).round(4).tolist()
            for seed, own in evaluated.books.seeds.items()
        },
    }


def _tidy(value: Any) -> Any:
    """Six significant digits, and null for what is not finite."""
    if isinstance(value, dict):
        return {name: _tidy(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_tidy(inner) for inner in value]
    if isinstance(value, float):
        return _digits(value, 6) if math.isfinite(value) else None
    return value


def _digits(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
