"""What was known when: Athena's views over the feature table, by group, and over the audit tables, as saved queries to be run once.

Each view's row has `known_at` and `known_until`, UTC: it was the newest of its key at every instant from the first up to, not with, the
second. A row of features is known at its session's close, which the raw lake's calendar holds (the table `sessions`); of slot bars, one
that another follows in its session at the next slot. The queries keep to what Trino (Athena) and DuckDB (the laptop) read alike;
docs/feature-groups.md shows how they are used, and a test runs that page.
"""

# ruff: noqa: S608  (queries of our own names)
from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Stack
from aws_cdk import aws_athena as athena
from aws_cdk import aws_glue as glue

from schema.features.groups import KEYS, FeatureGroup
from schema.lake_layout import CALENDAR

FOREVER = "TIMESTAMP '9999-12-31 00:00:00'"
TIMES = "known_at, known_until"


def _instant(text: str) -> str:
    """A time of the lake or of the ledger (UTC, with T and Z) as a timestamp without a zone."""
    return f"CAST(replace(replace({text}, 'T', ' '), 'Z', '') AS timestamp)"


def _until_the_next(*, of: str = "") -> str:
    """When the next row of the same `of` became known; without it, the next row of all."""
    key = f"PARTITION BY {of} " if of else ""
    return f"COALESCE(lead(known_at) OVER ({key}ORDER BY known_at), {FOREVER}) AS known_until"


DECISIONS_AS_OF = f"""
CREATE OR REPLACE VIEW decisions_as_of AS
SELECT day, decision_id, strategy, slot, known_at, {_until_the_next(of="strategy")},
  data_as_of, model_version, feature_hash, inputs_sha256, symbols, scores, weights, verdict, reason
FROM (
  SELECT d.day, d.decision.decision_id AS decision_id, d.decision.strategy AS strategy, d.decision.slot AS slot,
    {_instant("b.received_at")} AS known_at,
    d.decision.data_as_of AS data_as_of, d.decision.model_version AS model_version, d.decision.feature_hash AS feature_hash,
    d.inputs_sha256, d.symbols, d.scores, d.decision.weights AS weights, b.verdict, b.reason
  FROM decisions d
  LEFT JOIN batches b ON b.day = d.day AND b.decision_id = d.decision.decision_id
) AS received
""".strip()
MODELS_AS_OF = f"""
CREATE OR REPLACE VIEW models_as_of AS
SELECT role, model_version, known_at, {_until_the_next(of="role")}, policy, trained_until, gate_passed, trial, evaluation_uri
FROM (SELECT m.*, {_instant("m.since")} AS known_at FROM models m) AS given
""".strip()
TRADING_STATE_AS_OF = f"""
CREATE OR REPLACE VIEW trading_state_as_of AS
SELECT state, was, known_at, {_until_the_next()}, reason, "by", automatic, version
FROM (SELECT c.*, {_instant('c."time"')} AS known_at FROM state_changes c) AS changed
""".strip()


def views(groups: Sequence[FeatureGroup], *, by_slot: bool = False) -> dict[str, str]:
    """Name -> the statement that makes the view, of a table that has the columns of `groups`, its rows slot bars or not; those that others
    stand on first."""
    return {
        "features_as_of": _features_as_of([column for group in groups for column in group.columns], by_slot=by_slot),
        **{f"{group.name}_as_of": _of_group(group) for group in groups},
        "decisions_as_of": DECISIONS_AS_OF,
        "models_as_of": MODELS_AS_OF,
        "trading_state_as_of": TRADING_STATE_AS_OF,
    }


def _features_as_of(columns: Sequence[str], *, by_slot: bool) -> str:
    known_at = _instant('s."close"')
    if by_slot:
        known_at = f"COALESCE(lead(f.session) OVER (PARTITION BY f.symbol, CAST(f.session AS date) ORDER BY f.session), {known_at})"
    return f"""
CREATE OR REPLACE VIEW features_as_of AS
SELECT session, symbol, known_at, {_until_the_next(of="symbol")}, year, {", ".join(columns)}
FROM (
  SELECT f.*, {known_at} AS known_at
  FROM features f
  JOIN sessions s ON CAST(s.session AS date) = CAST(f.session AS date)
) AS closed
""".strip()


def _of_group(group: FeatureGroup) -> str:
    return f"CREATE OR REPLACE VIEW {group.name}_as_of AS\nSELECT {', '.join((*KEYS, TIMES, *group.columns))} FROM features_as_of"


def add_as_of_views(stack: Stack, *, groups: Sequence[FeatureGroup], raw_bucket: str, database_name: str, by_slot: bool = False) -> None:
    """Add the table of the calendar's sessions, and a saved query per view, to `stack`."""
    column = glue.CfnTable.ColumnProperty
    glue.CfnTable(
        stack,
        "SessionsTable",
        catalog_id=stack.account,
        database_name=database_name,
        table_input=glue.CfnTable.TableInputProperty(
            name="sessions",
            description="The exchange's sessions: when each opens and closes, UTC",
            table_type="EXTERNAL_TABLE",
            parameters={"classification": "json"},
            storage_descriptor=glue.CfnTable.StorageDescriptorProperty(
                location=f"s3://{raw_bucket}/{CALENDAR}",
                columns=[column(name=name, type="string") for name in ("session", "open", "close")],
                input_format="org.apache.hadoop.mapred.TextInputFormat",
                output_format="org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
                serde_info=glue.CfnTable.SerdeInfoProperty(serialization_library="org.openx.data.jsonserde.JsonSerDe"),
            ),
        ),
    )
    for name, query in views(groups, by_slot=by_slot).items():
        athena.CfnNamedQuery(
            stack,
            "".join(word.capitalize() for word in name.split("_")),
            name=name,
            description=f"Run once, features_as_of first: makes the view {name}, what was known when",
            database=database_name,
            query_string=query,
        )
