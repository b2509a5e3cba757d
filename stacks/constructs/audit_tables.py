"""The audit bucket as Athena tables, and the saved query that makes the view `order_trace` of them (docs/compliance.md).

A record is one line of JSON under `audit/<table>/<day>/`; days are projected, so nothing has to be crawled or added. Money and quantities
are text with every digit: cast them to decimal. `TABLES` states the columns, because infrastructure imports no runtime code; a test parses
by them the very records that the functions write.
"""

from __future__ import annotations

from aws_cdk import Stack
from aws_cdk import aws_athena as athena
from aws_cdk import aws_glue as glue
from aws_cdk import aws_s3 as s3

from stacks.constructs.json_tables import Columns, add_json_table, struct

NUMBERS, FLAGS, TEXTS, SHARES = "array<double>", "array<boolean>", "array<string>", "map<string,double>"
SERVED: Columns = (
    ("role", "string"), ("policy", "string"), ("spec", "string"), ("endpoint", "string"), ("model_version", "string"), ("kappa", "double"),
    ("feature_hash", "string"), ("since", "string"), ("trained_until", "string"), ("evaluated_until", "string"), ("model_hash", "string"),
    ("model_uri", "string"), ("refused", TEXTS),
)  # fmt: skip
ASKED: Columns = (
    ("decision_id", "string"), ("slot", "string"), ("strategy", "string"), ("model_version", "string"), ("data_as_of", "string"),
    ("weights", SHARES), ("scores", SHARES), ("feature_hash", "string"), ("observation_hash", "string"),
)  # fmt: skip
LEG: Columns = (
    ("symbol", "string"), ("side", "string"), ("quantity", "string"), ("price", "double"), ("client_order_id", "string"),
    ("attempt", "int"),
)  # fmt: skip
FILL: Columns = (
    ("client_order_id", "string"), ("decision_id", "string"), ("sequence", "int"), ("symbol", "string"), ("side", "string"),
    ("quantity", "string"), ("price", "string"), ("cumulative", "string"), ("time", "string"),
)  # fmt: skip
CAUSE: Columns = (("input", "string"), ("gradient", "double"), ("value", "double"), ("contribution", "double"))
REASONS: Columns = (
    ("kind", "string"), ("says", "string"), ("inputs", TEXTS), ("gradient", f"map<string,{NUMBERS}>"),
    ("contribution", f"map<string,{NUMBERS}>"), ("top", f"map<string,array<{struct(CAUSE)}>>"),
)  # fmt: skip

TABLES: dict[str, tuple[str, Columns]] = {
    "decisions": (
        "What decide knew and answered, written before anything could be ordered",
        (
            ("schema", "int"), ("decision", struct(ASKED)), ("model", struct(SERVED)), ("observation", NUMBERS), ("symbols", TEXTS),
            ("tradable", FLAGS), ("held", SHARES), ("cash_weight", "double"), ("scores", SHARES), ("outside", "double"),
            ("fallback", "string"), ("inputs_sha256", "string"),
            ("quarantined", "int"), ("missing", TEXTS), ("broken", "map<string,string>"), ("code_version", "string"),
            ("explanation", struct(REASONS)),
        ),
    ),
    "batches": (
        "A decision as the executor ended it: verdict, plan, what was refused and why",
        (
            *ASKED, ("body_sha256", "string"), ("received_at", "string"), ("state", "string"), ("verdict", "string"), ("reason", "string"),
            ("code_version", "string"), ("plan", f"array<{struct(LEG)}>"), ("refused", "map<string,string>"), ("buys_final", "boolean"),
            ("sizing_equity", "double"), ("window_ends", "string"),
        ),
    ),
    "orders": (
        "An order that has ended, with its risk verdict and its fills; the highest version is the last word",
        (
            *LEG, ("arrival_price", "double"), ("decision_id", "string"), ("slot", "string"), ("status", "string"), ("reason", "string"),
            ("refusal", "string"), ("risk", "string"), ("created_at", "string"), ("sent_at", "string"), ("updated_at", "string"),
            ("unknown_since", "string"), ("missing_since", "string"), ("broker_id", "string"), ("replaces", "string"),
            ("replaced_by", "string"),
            ("filled_quantity", "string"), ("filled_average_price", "string"), ("filled_at", "string"), ("version", "int"),
            ("fills", f"array<{struct(FILL)}>"),
        ),
    ),
    "state_changes": (
        "Each change of the trading state: from what to what, by whom, why, and what it re-armed",
        (
            ("state", "string"), ("was", "string"), ("reason", "string"), ("time", "string"), ("by", "string"), ("automatic", "boolean"),
            ("rearmed", "map<string,string>"), ("account", "string"), ("version", "int"),
        ),
    ),
    "models": (
        "A model from the day that it was given a role, with its evaluation and the manifest of its training data",
        (
            *SERVED, ("evaluation_uri", "string"), ("evaluation_sha256", "string"),
            ("evaluated_model_hash", "string"), ("gate_passed", "boolean"), ("gate_reasons", TEXTS), ("trial", "string"),
            ("configuration", "string"), ("settings_sha256", "string"), ("training_code_version", "string"), ("manifest_sha256", "string"),
            ("manifest_uri", "string"), ("manifest_version", "string"), ("manifest", "string"),
        ),
    ),
}  # fmt: skip
#: What reconcile writes; decide writes `decisions` itself.
ARCHIVED = tuple(name for name in TABLES if name != "decisions")

ORDER_TRACE = """
CREATE OR REPLACE VIEW order_trace AS
WITH latest AS (
  SELECT o.*, row_number() OVER (PARTITION BY o.client_order_id ORDER BY o.version DESC) AS newest
  FROM orders o
)
SELECT
  o.day, o.client_order_id, o.symbol, o.side,
  CAST(o.quantity AS decimal(38, 9)) AS quantity,
  o.status,
  CAST(o.filled_quantity AS decimal(38, 9)) AS filled_quantity,
  CAST(o.filled_average_price AS decimal(38, 18)) AS filled_average_price,
  cardinality(o.fills) AS fill_count,
  o.risk AS risk_verdict, o.reason AS risk_detail,
  o.decision_id, b.verdict AS decision_verdict, b.received_at, b.code_version AS executor_code_version,
  d.decision.observation_hash AS observation_hash, d.decision.feature_hash AS feature_hash, d.inputs_sha256,
  d.code_version AS decide_code_version,
  d.model.spec AS model_package, d.decision.model_version AS model_hash,
  m.gate_passed, m.trial, m.configuration, m.evaluation_uri, m.evaluation_sha256,
  m.manifest_uri, m.manifest_version, m.manifest_sha256, m.training_code_version,
  d."$path" AS decision_record, m."$path" AS model_record
FROM latest o
LEFT JOIN batches b ON b.day = o.day AND b.decision_id = o.decision_id
LEFT JOIN decisions d ON d.day = o.day AND d.decision.decision_id = o.decision_id
LEFT JOIN models m ON m.model_version = d.decision.model_version AND m.since = d.model.since AND m.role = d.model.role
WHERE o.newest = 1
""".strip()


def add_audit_tables(stack: Stack, *, bucket: s3.Bucket, database: glue.CfnDatabase, database_name: str) -> None:
    """Add one table a folder of `audit/`, and the saved query, to `stack`."""
    for name, (description, columns) in TABLES.items():
        location = f"s3://{bucket.bucket_name}/audit/{name}/"
        table = add_json_table(
            stack,
            f"Audit{''.join(word.capitalize() for word in name.split('_'))}",
            name=name,
            description=description,
            columns=columns,
            location=location,
            template=f"{location}${{day}}/",
            partitions={"day": {"type": "date", "format": "yyyy-MM-dd", "range": "2020-01-01,NOW"}},
            database_name=database_name,
        )
        table.add_resource_dependency(database)
    query = athena.CfnNamedQuery(
        stack,
        "OrderTrace",
        name="order_trace",
        description="Run once: makes the view order_trace, a row an order from its fills back to its model, training data and code",
        database=database_name,
        query_string=ORDER_TRACE,
    )
    query.add_resource_dependency(database)
