"""The configured sources of news, with their keys from this process's secret."""

from __future__ import annotations

import json

import boto3

from lambdas.common.environment import Variables, read
from schema.sections.news import NewsSettings
from sources.alpaca_news import AlpacaNews
from sources.port import NewsSource

DATA = "https://data.alpaca.markets"


class NewsSourceVariables(Variables):
    broker_secret_arn: str
    alpaca_data_url: str = DATA


def news_sources_from_environment(settings: NewsSettings) -> list[NewsSource]:
    variables = read(NewsSourceVariables)
    secret = boto3.client("secretsmanager").get_secret_value(SecretId=variables.broker_secret_arn)["SecretString"]
    keys = json.loads(secret)
    alpaca = AlpacaNews(key_id=keys["key_id"], secret_key=keys["secret_key"], url=variables.alpaca_data_url)
    return [alpaca for source in settings.sources if source == "alpaca"]
