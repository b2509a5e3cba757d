"""Through the day: what each configured source has published since the last run, and its scores.

Event: {"schedule": "collect_news", "time": "<scheduled time>"}, which is "now". Objects are named after it, so a retry overwrites. A source
that is down is logged and counted, and fails nothing; what could not be scored is scored by the next run. On a New York day's first run
texts are removed that were kept as long as the settings say. No trade waits for any of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lambdas.collect_news.collecting import collect, retain, score_pending
from lambdas.common import environment
from lambdas.common.lake import lake
from lambdas.common.lake.news import NewsStore
from lambdas.common.lake.news_state import NewsState, NewsStateObject
from lambdas.common.news_sources import news_sources_from_environment
from lambdas.common.sentiment.choice import scorer_from_settings
from lambdas.common.sentiment.port import Scorer
from lambdas.common.sentiment.scoring import scored
from lambdas.common.telemetry import entry, logger
from schema.exchange_time import new_york_date, parse_utc
from schema.news import NewsItem, ScoredItem
from schema.settings import Settings, deployed


class CollectNewsVariables(environment.LakeVariables):
    broker_secret_arn: str


@entry
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    run, settings = parse_utc(event["time"]), deployed()
    variables = environment.read(CollectNewsVariables)
    s3 = lake.lake(raw_bucket=variables.raw_bucket, processed_bucket=variables.processed_bucket).s3
    store = NewsStore(s3=s3, raw_bucket=variables.raw_bucket, processed_bucket=variables.processed_bucket)
    state = NewsStateObject(s3=s3, bucket=variables.processed_bucket)
    names = settings.news.sources
    collected = collect(
        sources=news_sources_from_environment(settings.news),
        store=store,
        symbols=settings.universe.symbols,
        run=run,
        settings=settings.news,
    )
    if collected.down:
        logger.warning("sources are down", extra={"down": dict(collected.down)})
    before = state.change(lambda found: found.collected(run, sources=names, down=collected.down))
    scoring = PaidScoring.begin(state, run=run, settings=settings, known=before)
    result = {
        "outcome": "collected",
        "items": dict(collected.items),
        "invalid": collected.invalid,
        "down": sorted(collected.down),
        "scored": score_pending(store=store, run=run, sources=names, score=scoring),
        "retained": _retained(store, state, run=run, settings=settings, known=before),
    }
    logger.info("collected", extra=result)
    return result


@dataclass(frozen=True, kw_only=True)
class PaidScoring:
    """Scores items, and remembers what they have cost before anybody writes the scores."""

    scorer: Scorer
    state: NewsStateObject
    run: datetime
    settings: Settings

    @classmethod
    def begin(cls, state: NewsStateObject, *, run: datetime, settings: Settings, known: NewsState) -> PaidScoring:
        scorer = scorer_from_settings(settings.sentiment, spent_usd=known.of(run).spent_usd)
        return cls(scorer=scorer, state=state, run=run, settings=settings)

    def __call__(self, items: Sequence[NewsItem]) -> list[ScoredItem]:
        before = self.scorer.spent_usd
        found = scored(items, scorer=self.scorer, min_confidence=self.settings.sentiment.min_confidence)
        usd = self.scorer.spent_usd - before
        stopped = any(item.sentiment.flag == "budget_spent" for item in found)
        if usd or stopped:
            self.state.change(lambda known: known.spent(self.run, usd=usd, stopped=stopped))
        return found


def _retained(store: NewsStore, state: NewsStateObject, *, run: datetime, settings: Settings, known: NewsState) -> int:
    """How many objects lost their old texts; 0 where an earlier run of the day has looked."""
    day = new_york_date(run).isoformat()
    if day <= known.retained:
        return 0
    count = retain(store=store, run=run, settings=settings.news)
    state.change(lambda found: found.model_copy(update={"retained": day}))
    return count
