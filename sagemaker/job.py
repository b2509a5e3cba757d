"""What training and judging must share: the settings of the deployment, the rules and folds that follow from them, and what a recipe is.

Settings are a JSON document or the name of a file that holds one, beside the scripts. Anything else raises `pydantic.ValidationError` or
`OSError` with what is wrong; sessions without room for the folds raise `WalkForwardError`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import trading_env
from settings import Settings
from trading_env import trials
from trading_env.features import FEATURE_HASH
from trading_env.portfolio import Costs, Rules
from trading_env.risk import Limits
from trading_env.walk_forward import Fold, split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parent
SECTIONS = ("universe", "portfolio", "costs", "risk", "training", "reward")  # of the settings: what a result depends on


def read_settings(source: str) -> Settings:
    """Settings from JSON text, or from a file named relative to this folder."""
    text = source if source.lstrip().startswith("{") else (FOLDER / source).read_text(encoding="utf-8")
    return Settings.model_validate_json(text)


def rules_of(settings: Settings) -> Rules:
    """How orders are sized, filled and paid for, in training and in judging."""
    portfolio = settings.portfolio
    return Rules(
        cash_buffer=portfolio.cash_buffer,
        band=portfolio.band,
        min_notional=portfolio.min_notional,
        credit_dividends=portfolio.dividends == "credit",
        costs=Costs(**settings.costs.model_dump()),
        whole_shares=portfolio.whole_shares,
    )


def rules_at(settings: Settings, *, cost_bps: float) -> Rules:
    """`rules_of` at one flat cost of a side, for judging; of the settings' costs, impact and volume cap stay."""
    rules = rules_of(settings)
    costs = Costs(slippage_bps=cost_bps, impact=rules.costs.impact, max_volume_share=rules.costs.max_volume_share)
    return replace(rules, costs=costs)


def folds_of(sessions: NDArray[np.datetime64], settings: Settings) -> tuple[Fold, ...]:
    """The walk-forward's folds over a market's sessions, the sealed span's last."""
    training = settings.training
    return split(
        sessions,
        start=training.start,
        test_start=training.test_start,
        live_start=training.live_start,
        folds=training.folds,
        purge_sessions=training.purge_sessions,
        sealed_sessions=training.sealed_sessions,
    )


def limits_of(settings: Settings) -> Limits:
    """The risk limits: what live trading refuses, training and judging refuse too."""
    return Limits(**settings.risk.model_dump())


@dataclass(frozen=True)
class Recipe:
    """What a result depends on, but for the data. `trial` counts in the log; `identity` is the same for a refit on later data."""

    settings: dict[str, Any]
    feature_hash: str
    code_hash: str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The recipe of these settings under this code."""
        return cls({name: getattr(settings, name).model_dump(mode="json") for name in SECTIONS}, FEATURE_HASH, code_version())

    @classmethod
    def of_entry(cls, entry: trials.Entry) -> Self:
        """The recipe of a logged trial."""
        return cls(entry.recipe["settings"], entry.recipe["feature_hash"], entry.recipe["code_hash"])

    @property
    def trial(self) -> str:
        return trials.trial_id(settings=self.settings, feature_hash=self.feature_hash, code_hash=self.code_hash)

    @property
    def identity(self) -> str:
        return self._without("live_start")

    @property
    def of_one_seed(self) -> str:
        """What the seeds of one trial have in common."""
        return self._without("seeds")

    def _without(self, name: str) -> str:
        training = {key: value for key, value in self.settings["training"].items() if key != name}
        settings = {**self.settings, "training": training}
        return trials.trial_id(settings=settings, feature_hash=self.feature_hash, code_hash=self.code_hash)


def code_version() -> str:
    """sha256 over names and contents of these scripts and of `trading_env`, wherever they are unpacked."""
    domain = Path(str(trading_env.__file__)).parent
    files = {f"sagemaker/{path.name}": path for path in FOLDER.glob("*.py") if path.name not in ("pipeline.py", "settings.py")}
    files |= {f"trading_env/{path.relative_to(domain).as_posix()}": path for path in domain.rglob("*.py")}
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\n{hashlib.sha256(files[name].read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
