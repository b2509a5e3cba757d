"""evaluation.json, schema 3: `learning.document` writes nothing that this does not read, and the pages read it through this.

Promise: `read` gives a document whose parts fit together, so that nobody who renders it meets a missing key half way down a page; keys that
no page shows are ignored. null is a number that does not exist; those against equal weight at kappa came later, and a file from before
them is read as if they were null. Failure: `EvaluationFileError`, one sentence naming the key and the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trading_env.errors import PapertapeError

SCHEMA = 3
Cost = Literal["0", "10", "20"]  # basis points per side
Number = Annotated[float, Field(allow_inf_nan=False)] | None
NOT_THEN: dict[Cost, Number] = dict.fromkeys(get_args(Cost))  # at each cost, of a file that was written before the number was
Series = tuple[Annotated[float, Field(allow_inf_nan=False)], ...]


class EvaluationFileError(PapertapeError, ValueError):
    """The document is not an evaluation of this schema; the message names the key and what is wrong with it."""


class DocumentPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Log(DocumentPart):
    head: str
    trials: int
    openings: int
    new: bool


class Data(DocumentPart):
    symbols: tuple[str, ...]
    sessions: int
    start: str
    end: str
    rows: int


class FoldRecord(DocumentPart):
    number: int
    train_start: str
    train_end: str
    test_start: str
    test_end: str
    holdout: bool


class Windows(DocumentPart):
    folds: tuple[FoldRecord, ...]
    evaluation_start: str
    evaluation_end: str
    train_start: str
    train_end: str
    live_start: str


class SpreadRecord(DocumentPart):
    worst: Number
    lower: Number
    median: Number
    upper: Number
    best: Number
    deviation: Number


class Headline(DocumentPart):
    break_even_bp: Number
    turnover_per_day: Number
    information_ratio: dict[Cost, Number]
    excess_bp_per_year: dict[Cost, Number]
    information_ratio_at_kappa: dict[Cost, Number] = NOT_THEN
    excess_at_kappa_bp_per_year: dict[Cost, Number] = NOT_THEN
    seed_spread: SpreadRecord
    detectable_ir: Number
    seeds: int


class Measures(DocumentPart):
    annual_return: Number
    volatility: Number
    sharpe: Number
    sharpe_error: Number
    sortino: Number
    calmar: Number
    max_drawdown: Number
    exposure: Number
    effective_n: Number
    turnover_per_day: Number
    costs_bp_per_year: Number
    excess_bp_per_year: Number
    information_ratio: Number
    tracking_error: Number
    excess_at_kappa_bp_per_year: Number = None
    information_ratio_at_kappa: Number = None
    tracking_error_at_kappa: Number = None
    psr: Number
    final_equity: Number


class Row(DocumentPart):
    name: str
    kind: Literal["agent", "agent seed", "baseline"]
    at: dict[Cost, Measures]
    years: dict[str, Number]


class GateCheck(DocumentPart):
    name: str
    passed: bool
    sentence: str
    numbers: dict[str, Number]


class Gate(DocumentPart):
    title: str
    passed: bool
    checks: tuple[GateCheck, ...]
    sessions: int

    @property
    def refusals(self) -> tuple[GateCheck, ...]:
        return tuple(check for check in self.checks if not check.passed)


class TrainingRecord(DocumentPart):
    algorithm: str
    timesteps: int
    seeds: tuple[int, ...]
    folds: int
    seconds: float
    steps_per_second: float


class Trial(DocumentPart):
    id: str
    sessions: int
    excess_bp_per_year: Number
    information_ratio: Number
    excess_at_kappa_bp_per_year: Number = None
    information_ratio_at_kappa: Number = None
    this: bool


class Curves(DocumentPart):
    """One value for each of `sessions`; `every` tells that a recorded file holds only each so-many-th session."""

    sessions: tuple[str, ...]
    initial_cash: float
    growth: dict[str, Series]
    excess: Series
    seeds: dict[str, Series]
    every: int = 1

    @model_validator(mode="after")
    def _one_value_a_session(self) -> Self:
        series = {**{f"growth.{name}": values for name, values in self.growth.items()}, "excess": self.excess}
        for name, values in {**series, **{f"seeds.{seed}": values for seed, values in self.seeds.items()}}.items():
            if len(values) != len(self.sessions):
                raise ValueError(f"{name} must have {len(self.sessions)} values, one per session, was {len(values)}")
        return self


class Evaluation(DocumentPart):
    title: str
    command: str
    quick: bool
    trial: str
    configuration: str
    log: Log
    answer: str
    hashes: dict[str, str]
    data: Data
    windows: Windows
    headline: Headline
    rows: tuple[Row, ...]
    statistics: dict[str, Number]
    gate: Gate
    training: TrainingRecord
    trials: tuple[Trial, ...]
    curves: Curves

    @property
    def agent(self) -> Row:
        return next(row for row in self.rows if row.kind == "agent")

    @property
    def baselines(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.kind == "baseline")

    def row_of(self, curve: str) -> Row:
        """The row that a curve of `growth` is of: the agent's, equal weight's and the benchmark's have short names there."""
        name = {"agent": self.agent.name, "equal weight": "equal weight daily"}.get(curve, curve)
        row = next((row for row in self.rows if row.name in (name, f"hold {name}")), None)
        if row is None:
            raise ValueError(f"curves.growth.{curve} is of no row")
        return row

    @property
    def tests(self) -> tuple[FoldRecord, ...]:
        """The folds that are judged, the holdout left out."""
        return tuple(fold for fold in self.windows.folds if not fold.holdout)

    @model_validator(mode="after")
    def _rows_are_whole(self) -> Self:
        agents = [row.name for row in self.rows if row.kind == "agent"]
        if len(agents) != 1:
            raise ValueError(f"rows must hold one of kind agent, was {agents}")
        short = [row.name for row in self.rows if row.kind != "agent seed" and set(row.at) != set(get_args(Cost))]
        if short:
            raise ValueError(f"each row but a seed's must be measured at {', '.join(get_args(Cost))} bp, {short[0]!r} is not")
        for curve in self.curves.growth:
            self.row_of(curve)
        return self


def read(document: Mapping[str, Any]) -> Evaluation:
    """The parsed file as an Evaluation; raises EvaluationFileError on another schema or a part that is missing or wrong."""
    schema = document.get("schema")
    if schema != SCHEMA:
        raise EvaluationFileError(f"evaluation.json: schema must be {SCHEMA}, was {schema}; run the evaluation again with this version")
    try:
        return Evaluation.model_validate(document)
    except ValidationError as error:
        problem, others = error.errors()[0], error.error_count() - 1
        key = ".".join(str(part) for part in problem["loc"]) or "the document"
        if problem["type"] == "missing":
            sentence = f"{key} is missing"
        elif problem["type"] == "value_error":
            sentence = f"{key}: {problem['ctx']['error']}"
        else:
            sentence = f"{key}: {problem['msg']}, was {problem['input']!r:.80}"
        more = f" (and {others} more)" if others else ""
        raise EvaluationFileError(f"evaluation.json: {sentence}{more}") from error
