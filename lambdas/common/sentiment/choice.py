"""The scorer that the settings name. Clients of paid services are made when they are needed, and only then."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

from lambdas.common.sentiment.bedrock import BedrockScorer
from lambdas.common.sentiment.classifier import ClassifierScorer
from lambdas.common.sentiment.comprehend import ComprehendScorer
from lambdas.common.sentiment.paid import MonthlyBudget
from lambdas.common.sentiment.port import Scorer
from lambdas.common.sentiment.vader import VaderScorer
from schema.sections.news import SentimentSettings


def scorer_from_settings(settings: SentimentSettings, *, spent_usd: float, comprehend: Any = None, bedrock: Any = None) -> Scorer:
    """Return the scorer of `settings`; `spent_usd` is what this month's earlier runs have spent on it.

    `comprehend` and `bedrock` are boto3 clients for `comprehend` and `bedrock-runtime`; without one it is made from the environment.
    """
    budget = MonthlyBudget(monthly_usd=settings.monthly_budget_usd, before=spent_usd)
    match settings.scorer:
        case "vader":
            return VaderScorer()
        case "classifier":
            return ClassifierScorer()
        case "comprehend":
            return ComprehendScorer(client=comprehend or _client("comprehend"), budget=budget)
        case "bedrock":
            return BedrockScorer(client=bedrock or _client("bedrock-runtime"), budget=budget)


def _client(service: str) -> Any:
    """A client that tries once: `paid.ask` tries again, and pays attention to what each try costs."""
    return boto3.client(
        service, config=Config(connect_timeout=3, read_timeout=15, max_pool_connections=16, retries={"total_max_attempts": 1})
    )
