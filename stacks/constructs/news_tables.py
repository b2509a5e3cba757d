"""Collected news and their scores as Athena tables, and the saved query that makes the view `sentiment_by_day` of them.

A record is one line of JSON, gzipped, under `source=<source>/date=<day>/`; the day is that of the run that collected it, UTC. A table
has no column for the record's own `source`, which its partition names, nor for `raw`, the vendor's record. Columns are stated here, because
infrastructure imports no runtime code; a test parses by them what the function writes.
"""

from __future__ import annotations

from aws_cdk import Stack
from aws_cdk import aws_athena as athena
from aws_cdk import aws_glue as glue
from aws_cdk import aws_s3 as s3

from schema.lake_layout import NEWS, SENTIMENT
from schema.sections.news import RETENTION_DAYS
from stacks.constructs.json_tables import Columns, add_json_table, struct

SYMBOLS = ("symbols", "array<string>")
TIMES: Columns = (("published", "string"), ("received", "string"))
NEWS_COLUMNS: Columns = (
    ("id", "string"), *TIMES, SYMBOLS, ("text", "string"), ("summary", "string"), ("url", "string"), ("author", "string"),
    ("language", "string"),
)  # fmt: skip
SCORE: Columns = (
    ("label", "string"), *((name, "double") for name in ("positive", "negative", "neutral", "mixed", "confidence")),
    ("model", "string"), ("version", "string"), ("flag", "string"),
)  # fmt: skip
SENTIMENT_COLUMNS: Columns = (("id", "string"), *TIMES, SYMBOLS, ("fingerprint", "string"), ("sentiment", struct(SCORE)))

#: A text counts once per symbol and day, however often it was posted; what is flagged is counted and has no say.
SENTIMENT_BY_DAY = """
CREATE OR REPLACE VIEW sentiment_by_day AS
WITH mentions AS (
  SELECT s.day, t.symbol, s.sentiment,
    row_number() OVER (PARTITION BY s.day, t.symbol, s.fingerprint ORDER BY s.received, s.source, s.id) AS copy
  FROM sentiment s
  CROSS JOIN UNNEST(s.symbols) AS t (symbol)
)
SELECT
  m.day, m.symbol,
  count(*) AS texts,
  count(*) FILTER (WHERE m.sentiment.flag IS NOT NULL) AS flagged,
  sum((m.sentiment.positive - m.sentiment.negative) * m.sentiment.confidence) FILTER (WHERE m.sentiment.flag IS NULL)
    / nullif(sum(m.sentiment.confidence) FILTER (WHERE m.sentiment.flag IS NULL), 0) AS score,
  min(m.sentiment.positive - m.sentiment.negative) FILTER (WHERE m.sentiment.flag IS NULL) AS lowest,
  max(m.sentiment.positive - m.sentiment.negative) FILTER (WHERE m.sentiment.flag IS NULL) AS highest
FROM mentions m
WHERE m.copy = 1
GROUP BY m.day, m.symbol
""".strip()


def add_news_tables(stack: Stack, *, raw: s3.IBucket, processed: s3.IBucket, database: glue.CfnDatabase, database_name: str) -> None:
    """Add the tables `news` and `sentiment`, and the saved query, to `stack`."""
    partitions = {
        "source": {"type": "enum", "values": ",".join(RETENTION_DAYS)},
        "day": {"type": "date", "format": "yyyy-MM-dd", "range": "2020-01-01,NOW"},
    }
    for name, description, columns, location in (
        ("news", "Headlines and posts as they were collected", NEWS_COLUMNS, f"s3://{raw.bucket_name}/{NEWS}"),
        ("sentiment", "The score of each, without its text", SENTIMENT_COLUMNS, f"s3://{processed.bucket_name}/{SENTIMENT}"),
    ):
        table = add_json_table(
            stack,
            f"{name.capitalize()}Table",
            name=name,
            description=description,
            columns=columns,
            location=location,
            template=f"{location}source=${{source}}/date=${{day}}/",
            partitions=partitions,
            database_name=database_name,
        )
        table.add_resource_dependency(database)
    query = athena.CfnNamedQuery(
        stack,
        "SentimentByDay",
        name="sentiment_by_day",
        description="Run once: makes the view sentiment_by_day, a row per symbol and day on which something was collected about it",
        database=database_name,
        query_string=SENTIMENT_BY_DAY,
    )
    query.add_resource_dependency(database)
