"""The schema of `settings.toml`: one frozen model, shared by the CDK app, the functions, the jobs and the laptop.

`load()` either returns settings that every part can trust or raises `SettingsError` whose single line names the key, its value and
what is allowed. What is deployed carries the same model as `schema/settings.json` in its bundle and reads it with `deployed()`.
"""

from __future__ import annotations

import os
import pkgutil
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from schema import universes
from schema.sections import refusals
from schema.sections.dashboard import DashboardSettings
from schema.sections.data import DataSettings
from schema.sections.feature_store import FeatureStoreSettings
from schema.sections.learning import FeatureSettings, GateSettings, ModelSettings, RewardSettings, check_read
from schema.sections.news import NewsSettings, SentimentSettings
from schema.sections.realtime import RunnerSettings, StreamSettings
from schema.sections.schedule import Schedule
from schema.sections.section import Section
from schema.slot import SlotRows, minutes_of
from trading_env.errors import PapertapeError

#: Where a bundle holds its settings; the repository never has this file.
BUNDLED = "schema/settings.json"
#: The variable that names a settings file (TOML or JSON) for code that runs outside of a bundle; read first.
SETTINGS_FILE = "PAPERTAPE_SETTINGS_FILE"
#: The settings themselves, as JSON: of a container that runs without its image.
SETTINGS_DOCUMENT = "PAPERTAPE_SETTINGS"
#: The variable that names the environment which is synthesized, deployed or operated; empty for the file's own settings.
ENVIRONMENT = "PAPERTAPE_ENVIRONMENT"

Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9.]{0,9}$")]
Share = Annotated[float, Field(gt=0, le=1)]
BasisPoints = Annotated[float, Field(ge=0, le=500)]
Algorithm = Literal["ppo", "direct", "direct+ppo", "q-learning"]  # a key of `learning.training.TRAINERS`
ALGORITHM_NAMES: Mapping[Algorithm, str] = {  # as pages and sentences call them
    "ppo": "PPO",
    "direct": "Direct reinforcement",
    "direct+ppo": "Direct reinforcement and PPO",
    "q-learning": "Q-learning",
}
Timeframe = Literal["1Day", "1Min"]
MONTH, LEAST_WINDOW = 21, 5  # sessions; minutes of a slot whose orders are sent and followed
Auto = Literal["auto"]
AUTO: Auto = "auto"


def _date_or_auto(value: object) -> object:
    """In one sentence what a union of types would refuse in two."""
    if value == AUTO or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    if isinstance(value, str):
        with suppress(ValueError):
            return date.fromisoformat(value)
    raise ValueError(f'must be a date such as 2020-01-02, or "auto", was {value!r}')


DateOrAuto = Annotated[date | Auto, BeforeValidator(_date_or_auto)]


class SettingsError(PapertapeError, ValueError):
    """`settings.toml` cannot be used; the message is one line, fit to show to its author."""


class Universe(Section):
    """A settings file names a benchmark, for TOML has no null; research on bars that do not hold it goes without.

    `symbols` may be a list's name, which stands for its current members and the benchmark, or a rule over bars, which research fills in;
    `chosen_by` keeps the word.
    """

    chosen_by: str = ""
    symbols: tuple[Symbol, ...]
    benchmark: Symbol | None

    @property
    def required_benchmark(self) -> str:
        """For what cannot go without: the deployed app. Raises SettingsError when there is none."""
        if self.benchmark is None:
            raise SettingsError(f"universe.benchmark must be one of symbols, {', '.join(self.symbols)}; it is missing")
        return self.benchmark

    @model_validator(mode="before")
    @classmethod
    def _a_name_stands_for_its_members(cls, section: Any) -> Any:
        return universes.expanded(section) if isinstance(section, Mapping) else section

    @field_validator("symbols")
    @classmethod
    def _as_many_as_can_be_traded(cls, symbols: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        universes.check_count(symbols, chosen_by=info.data.get("chosen_by", ""))
        return symbols

    @model_validator(mode="after")
    def _names_are_distinct_and_hold_the_benchmark(self) -> Self:
        repeated = sorted({s for s in self.symbols if self.symbols.count(s) > 1})
        if repeated:
            raise ValueError(f"symbols must be distinct, {', '.join(repeated)} is repeated")
        if self.benchmark is not None and self.symbols and self.benchmark not in self.symbols:
            raise ValueError(f"benchmark must be one of symbols, was {self.benchmark}")
        return self


class Portfolio(Section):
    initial_cash: Annotated[float, Field(gt=0)]
    kappa: Share
    cash_buffer: Annotated[float, Field(ge=0, lt=0.5)]
    band: Annotated[float, Field(ge=0, lt=0.5)]
    min_notional: Annotated[float, Field(ge=0)]
    dividends: Literal["credit", "ignore"]
    whole_shares: bool = False


class CostSettings(Section):
    """What is off by default may be left out: files from before it existed stay valid."""

    fee_bps: BasisPoints
    slippage_bps: BasisPoints
    half_spread_bps: BasisPoints = 0.0
    impact: Annotated[float, Field(ge=0, le=10)] = 0.0
    max_volume_share: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _impact_holds_for_a_share_of_the_volume(self) -> Self:
        if self.impact > 0 and self.max_volume_share == 0:
            raise ValueError(f"impact needs max_volume_share above 0, was {self.impact} with {self.max_volume_share}")
        return self


class Risk(Section):
    max_weight: Share
    max_gross: Share
    max_order_notional: Annotated[float, Field(gt=0)]
    max_turnover_per_day: Annotated[float, Field(gt=0, le=20)]
    max_orders_per_day: Annotated[int, Field(gt=0, le=10_000)]
    price_collar: Annotated[float, Field(gt=0, lt=1)]
    max_drawdown: Annotated[float, Field(gt=0, lt=1)]
    max_daily_loss: Annotated[float, Field(gt=0, lt=1)]
    max_bar_age_sessions: Annotated[int, Field(ge=1, le=10)]
    max_model_age_days: Annotated[int, Field(ge=1, le=3650)]
    restricted: tuple[Symbol, ...]
    max_quote_age_minutes: Annotated[float, Field(gt=0, le=390)] = 10.0


class TrainingDates(NamedTuple):
    """The concrete ones: the first session to train on, the first of the first test, and the first that is never read."""

    start: date
    test_start: date
    live_start: date


class TrainingSettings(Section):
    """Anchored walk-forward: the sessions from `test_start` up to the holdout are cut into `folds` equal parts, each judged by a model
    that was trained on what lies before it. The holdout is the last `holdout_sessions` before `live_start`.

    A date may be "auto": `schema.training_dates.as_of` makes it concrete, as of the newest session of a run's data.
    `timeframe`: "1Day", a row per session; "1Min", a row per slot of `[schedule]`, of one-minute bars. What is called
    sessions counts sessions, but for `episode_sessions`, which counts rows.
    """

    timeframe: Timeframe = "1Day"

    start: DateOrAuto
    test_start: DateOrAuto
    live_start: DateOrAuto
    folds: Annotated[int, Field(ge=1, le=32)]
    purge_sessions: Annotated[int, Field(ge=1, le=63)]
    holdout_sessions: Annotated[int, Field(ge=1, le=504)]
    timesteps: Annotated[int, Field(ge=1_000, le=100_000_000)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, max_length=32)]
    environments: Annotated[int, Field(ge=1, le=4096)]
    episode_sessions: Annotated[int, Field(ge=21, le=2520)]
    names_per_episode: Annotated[int, Field(ge=2, le=500)]
    algorithm: Algorithm = "ppo"

    @model_validator(mode="before")
    @classmethod
    def _a_former_name_is_refused_with_its_new_one(cls, section: Any) -> Any:
        if isinstance(section, Mapping) and "sealed_sessions" in section:
            raise ValueError("sealed_sessions is called holdout_sessions now; rename it")
        if isinstance(section, Mapping) and section.get("algorithm") == "PPO":
            raise ValueError('algorithm = "PPO" is written "ppo" now; rename it')
        return section

    @field_validator("holdout_sessions")
    @classmethod
    def _a_holdout_of_daily_bars_is_a_month_or_more(cls, sessions: int, info: ValidationInfo) -> int:
        if sessions < MONTH and info.data.get("timeframe") != "1Min":
            raise PydanticCustomError("greater_than_equal", "Input should be greater than or equal to {least}", {"least": MONTH})
        return sessions

    @model_validator(mode="after")
    def _dates_are_ordered_and_seeds_distinct(self) -> Self:
        pinned = [day for day in (self.start, self.test_start, self.live_start) if day != AUTO]
        if any(later <= earlier for earlier, later in pairwise(pinned)):
            raise ValueError(f"start < test_start < live_start must hold, was {self.start}, {self.test_start}, {self.live_start}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be distinct, was {list(self.seeds)}")
        return self

    @property
    def algorithm_name(self) -> str:
        return ALGORITHM_NAMES[self.algorithm]

    @property
    def dates(self) -> TrainingDates:
        """Raises SettingsError when one is still "auto"."""
        start, test_start, live_start = self.start, self.test_start, self.live_start
        if start == AUTO or test_start == AUTO or live_start == AUTO:
            raise SettingsError(f"training dates are known as of a session only, were {start}, {test_start}, {live_start}")
        return TrainingDates(start, test_start, live_start)


class Budget(Section):
    monthly_budget_usd: Annotated[float, Field(gt=0)]


class Settings(Section):
    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{1,20}$")]
    region: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]
    alert_email: Annotated[str, StringConstraints(pattern=r"^$|^[^@\s]+@[^@\s]+\.[^@\s]+$")]
    universe: Universe
    portfolio: Portfolio
    costs: CostSettings
    schedule: Schedule
    risk: Risk
    training: TrainingSettings
    reward: RewardSettings
    model: ModelSettings
    budget: Budget
    data: DataSettings = DataSettings()
    gate: GateSettings = GateSettings()
    features: FeatureSettings = FeatureSettings()
    news: NewsSettings = NewsSettings()
    sentiment: SentimentSettings = SentimentSettings()
    feature_store: FeatureStoreSettings = FeatureStoreSettings()
    dashboard: DashboardSettings = DashboardSettings()
    runner: RunnerSettings = RunnerSettings()
    stream: StreamSettings = StreamSettings()

    @model_validator(mode="after")
    def _a_reward_and_a_forecast_are_of_an_algorithm_that_reads_them(self) -> Self:
        check_read(self.training.algorithm, reward=self.reward, features=self.features)
        return self

    @model_validator(mode="after")
    def _sentiment_has_a_source_before_it_is_read_or_paid_for(self) -> Self:
        if self.features.sentiment == "daily" and not self.news.sources:
            raise ValueError('features.sentiment = "daily" needs a source in [news] sources, there is none')
        if self.reward.sentiment_weight > 0 and self.features.sentiment == "none":
            raise ValueError(f'reward.sentiment_weight = {self.reward.sentiment_weight:g} needs features.sentiment = "daily", was "none"')
        return self

    @model_validator(mode="after")
    def _daily_bars_have_deployable_slots_and_minute_bars_no_posts(self) -> Self:
        daily, window = self.training.timeframe == "1Day", self.schedule.slot_window_minutes
        if daily and window < LEAST_WINDOW:
            raise ValueError(f"schedule.slot_window_minutes must be {LEAST_WINDOW} or more, was {window}")
        if not daily and self.features.sentiment != "none":
            raise ValueError(f'training.timeframe = "1Min" needs features.sentiment = "none", was "{self.features.sentiment}"')
        return self

    @property
    def row_slots(self) -> tuple[str, ...]:
        """The slots that a market's rows are cut at; none where a row is a session."""
        return self.schedule.slots if self.training.timeframe == "1Min" else ()

    @property
    def slot_rows(self) -> SlotRows | None:
        """As `row_slots`, in minutes, with the slots' window; None where a row is a session."""
        slots = tuple(minutes_of(slot) for slot in self.row_slots)
        return SlotRows(slots, self.schedule.slot_window_minutes, self.data.minutes_feed) if slots else None

    @model_validator(mode="after")
    def _a_stream_has_somebody_who_writes_it(self) -> Self:
        if self.stream.kind != "none" and not self.runner.enabled:
            raise ValueError(f'stream.kind = "{self.stream.kind}" needs runner.enabled = true, was false: only the runner writes to it')
        return self


def quick(settings: Settings) -> Settings:
    """Three folds of two seeds: shows in minutes what the whole evaluation does, and can never pass the gate."""
    training = settings.training.model_copy(update={"folds": 3, "seeds": settings.training.seeds[:2]})
    return settings.model_copy(update={"training": training})


def load(path: Path, *, environment: str = "", research: bool = False) -> Settings:
    """Read and validate `path`; raise `SettingsError` with one line on what to change. Universe by rule, minute bars: for `research` alone.

    A table `[environments.<name>]` at the end of a TOML file holds what differs in the environment `name`; each is validated.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json" and not environment:
            return _of_names(checked_json(text, source=path.name), source=path.name, research=research)
        documents = _environments(tomllib.loads(text), source=path.name)
    except OSError as error:
        raise SettingsError(f"{path.name}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path.name}: is not valid TOML, {error}") from error
    made = {
        name: checked(document, source=f"{path.name} [environments.{name}]" if name else path.name) for name, document in documents.items()
    }
    if environment not in made:
        known = ", ".join(name for name in made if name) or "it has no [environments.<name>]"
        raise SettingsError(f"{path.name}: environment {environment!r} is not allowed: {known}")
    return _of_names(made[environment], source=path.name, research=research)


def _of_names(settings: Settings, *, source: str, research: bool) -> Settings:
    if not research and universes.most_traded(settings.universe.chosen_by):
        raise SettingsError(f"{source}: {universes.refusal(settings.universe.chosen_by)}")
    if not research and settings.schedule.slot_window_minutes < LEAST_WINDOW:
        was = settings.schedule.slot_window_minutes
        raise SettingsError(f"{source}: schedule.slot_window_minutes must be {LEAST_WINDOW} or more where it is deployed, was {was}")
    return settings


def chosen(path: Path) -> Settings:
    """As `load`, of the environment that the variable PAPERTAPE_ENVIRONMENT names."""
    return load(path, environment=os.environ.get(ENVIRONMENT, ""))


def _environments(document: dict[str, Any], *, source: str) -> dict[str, dict[str, Any]]:
    """The file's own settings under "", and those of each environment: the own, overridden."""
    tables = document.pop("environments", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise SettingsError(f"{source}: environments must be tables, [environments.<name>]")
    return {"": document, **{name: _overridden(document, table) for name, table in tables.items()}}


def _overridden(document: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """`document` with the values of `by`, section by section."""
    nested = {key for key, value in by.items() if isinstance(value, dict) and isinstance(document.get(key), dict)}
    return {**document, **{key: _overridden(document[key], value) if key in nested else value for key, value in by.items()}}


def deployed() -> Settings:
    """The settings that this code was deployed with, read once; raise `SettingsError` when there are none or they are invalid."""
    return _deployed(os.environ.get(SETTINGS_FILE, ""), os.environ.get(SETTINGS_DOCUMENT, ""))


@lru_cache(maxsize=4)
def _deployed(file: str, document: str) -> Settings:
    if file:
        return load(Path(file))
    if document:
        return checked_json(document.encode(), source=SETTINGS_DOCUMENT)
    package, _, name = BUNDLED.partition("/")
    try:
        content = pkgutil.get_data(package, name)  # from a folder and from inside a zip archive
    except OSError:
        content = None
    if content is None:
        raise SettingsError(f"{BUNDLED} is not in this bundle: deploy again, or name a settings file in {SETTINGS_FILE}")
    try:
        return checked_json(content, source=BUNDLED)
    except SettingsError as error:
        raise SettingsError(f"{error}; deploy again from a valid settings.toml") from error


def checked(document: object, *, source: str) -> Settings:
    """Settings from a document, or `SettingsError` with one line that begins with where it is from."""
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise SettingsError(refusals.sentence(error, source=source)) from error


def checked_json(text: str | bytes, *, source: str) -> Settings:
    """Settings from JSON, as `checked`."""
    try:
        return Settings.model_validate_json(text)
    except ValidationError as error:
        raise SettingsError(refusals.sentence(error, source=source)) from error
