"""What training and judging must share: settings, the rules and folds that follow from them, and what a configuration is.

Settings are a JSON document or the name of a file that holds one, beside the scripts. Anything else raises `pydantic.ValidationError` or
`OSError` with what is wrong; sessions without room for the folds raise `WalkForwardError`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from schema.settings import Settings
from schema.trading_rules import rules_of
from trading_env.data.sentiment import TABLES
from trading_env.evaluation import trials
from trading_env.evaluation.walk_forward import Fold, split
from trading_env.simulation.portfolio import Costs, Rules

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parents[1]
PACKAGES = ("learning", "schema", "trading_env")  # what a result is computed with
UNSCORED = {"monthly_budget_usd"}  # of [sentiment]: what says nothing about the scores
SECTIONS = ("universe", "portfolio", "costs", "risk", "features", "training", "reward")  # of the settings: what a result depends on


def read_settings(source: str) -> Settings:
    """Settings from JSON text, or from a file named relative to this folder."""
    text = source if source.lstrip().startswith("{") else (FOLDER / source).read_text(encoding="utf-8")
    return Settings.model_validate_json(text)


def rules_at(settings: Settings, *, cost_bps: float) -> Rules:
    """`rules_of` at one flat cost per side, for judging; of the settings' costs, impact and volume cap stay."""
    rules = rules_of(settings)
    costs = Costs(slippage_bps=cost_bps, impact=rules.costs.impact, max_volume_share=rules.costs.max_volume_share)
    return replace(rules, costs=costs)


def folds_of(sessions: NDArray[np.datetime64], settings: Settings) -> tuple[Fold, ...]:
    """The walk-forward's folds over a market's sessions, the holdout's last."""
    training, dates = settings.training, settings.training.dates
    return split(
        sessions,
        start=dates.start,
        test_start=dates.test_start,
        live_start=dates.live_start,
        folds=training.folds,
        purge_sessions=training.purge_sessions,
        holdout_sessions=training.holdout_sessions,
    )


def purge_rows(settings: Settings) -> int:
    """The purge in rows of the market, of which a session has one, or one per slot."""
    return settings.training.purge_sessions * max(1, len(settings.row_slots))


@dataclass(frozen=True)
class Configuration:
    """What a result depends on, but for the data. `trial` counts in the log; `identity` is the same for a refit on later data."""

    settings: dict[str, Any]
    feature_hash: str
    code_hash: str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The configuration of these settings under this code. Raises SettingsError when a date is "auto": it is no part of a result."""
        _ = settings.training.dates
        return cls(_of_a_result(settings), TABLES[settings.features.sentiment].hash, code_version())

    @classmethod
    def of_entry(cls, entry: trials.TrialEntry) -> Self:
        """The configuration of a logged trial."""
        return cls(entry.configuration["settings"], entry.configuration["feature_hash"], entry.configuration["code_hash"])

    @property
    def trial(self) -> str:
        return trials.trial_id(settings=self.settings, feature_hash=self.feature_hash, code_hash=self.code_hash)

    @property
    def identity(self) -> str:
        return trials.configuration_id(settings=self.settings, feature_hash=self.feature_hash, code_hash=self.code_hash)

    @property
    def of_one_seed(self) -> str:
        """What the seeds of one trial have in common."""
        training = {key: value for key, value in self.settings["training"].items() if key != "seeds"}
        settings = {**self.settings, "training": training}
        return trials.trial_id(settings=settings, feature_hash=self.feature_hash, code_hash=self.code_hash)

    def trials_in(self, log: trials.TrialLog) -> list[trials.TrialEntry]:
        """Every logged judgement of this configuration, whatever its live_start, in order."""
        identity = self.identity
        return [entry for entry in log.trials if entry.configuration_id == identity]

    def openings_in(self, log: trials.TrialLog) -> list[trials.TrialEntry]:
        """Every holdout that was opened for this configuration."""
        made = {entry.trial_id for entry in self.trials_in(log)}
        return [entry for entry in log.openings if entry.trial_id in made]


def _of_a_result(settings: Settings) -> dict[str, Any]:
    """The sections that a result depends on, with sentiment, and slots and feed of minute bars, only where there are any: without them a
    configuration is what it was."""
    sections = {name: getattr(settings, name).model_dump(mode="json") for name in SECTIONS}
    if settings.features.sentiment == "none":
        del sections["features"]["sentiment"]
    else:
        sections["scores"] = {"sources": sorted(settings.news.sources), **settings.sentiment.model_dump(mode="json", exclude=UNSCORED)}
    if settings.row_slots:
        sections["schedule"] = {"slots": list(settings.row_slots), "slot_window_minutes": settings.schedule.slot_window_minutes}
        sections["data"] = {"minutes_feed": settings.data.minutes_feed}
    else:
        del sections["training"]["timeframe"]
    if settings.reward.sentiment_weight == 0:
        del sections["reward"]["sentiment_weight"]
    return sections


def code_version() -> str:
    """sha256 over names and contents of every module of `PACKAGES`, wherever they are unpacked."""
    files = {path.relative_to(FOLDER).as_posix(): path for package in PACKAGES for path in (FOLDER / package).rglob("*.py")}
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\n{hashlib.sha256(files[name].read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
