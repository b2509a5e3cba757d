"""Print docs/feature-groups.md: the feature table by its groups, and how to ask in SQL what was known when.

`python -m papertape.reports.feature_groups_page > docs/feature-groups.md`; tests hold the page to this, and run its queries.
"""

from __future__ import annotations

from collections.abc import Iterator

from schema.features.groups import GROUPS, WRITTEN, FeatureGroup
from trading_env.data.features import CONTEXT, FEATURES
from trading_env.data.sentiment import SENTIMENT

TABLE = {feature.name: feature for feature in (*FEATURES, *SENTIMENT, *CONTEXT)}


def markdown() -> str:
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield from INTRODUCTION.strip().splitlines()
    for group in GROUPS:
        yield ""
        yield from _section(group)
    yield ""
    yield from AS_OF.strip().splitlines()


def _section(group: FeatureGroup) -> Iterator[str]:
    yield f"## {group.name}"
    yield ""
    yield f"{group.holds[0].upper()}{group.holds[1:]}."
    yield ""
    yield f"- **Known:** {group.known}."
    if group.optional:
        yield '- **In the table:** only where `[features] sentiment = "daily"`.'
    if not group.columns:
        yield "- **Columns:** none yet."
        return
    yield f"- **Written:** {WRITTEN}."
    yield f"- **Computed by:** {', '.join(f'`{path}`' for path in group.computed_by)}."
    yield ""
    yield "| column | formula | sessions needed | unit |"
    yield "|--|--|--|--|"
    for name in group.columns:
        feature = TABLE[name]
        yield f"| `{name}` | {feature.formula} | {feature.window} | {feature.unit} |"


INTRODUCTION = """
# Feature groups

Written from `schema/features/groups.py` and the feature table by
`python -m papertape.reports.feature_groups_page > docs/feature-groups.md`;
a test compares them. A row is of one session and one symbol; with `[training] timeframe = "1Min"` of one slot and one symbol: it is known
when the session's next slot begins, its last at the close, and what is called sessions below are rows. `decide` computes the same columns
by the same functions from the raw bars, and does not read this table.
"""

AS_OF = """
## What was known when

The saved queries of the features stack make views in Athena's database `papertape`; run each once, `features_as_of` first (a place for
results is chosen as [compliance](compliance.md) says). Each row of a view has `known_at`, when it became known, and `known_until`, when the
next one replaced it, both in UTC: what was known at an instant is `known_at <= instant AND instant < known_until`.

| view | a row | known at | replaced by |
|--|--|--|--|
| `features_as_of` | all columns, of a session and a symbol | the session's close; a slot's row as said above | the symbol's next row |
| `price_trends_as_of`, `volume_as_of`, ... | the columns of one group | as above | as above |
| `decisions_as_of` | a decision, its data, model and verdict | when the executor received it | the strategy's next decision |
| `models_as_of` | a model in a role, with the verdict of the gate | when it was given the role | the role's next model |
| `trading_state_as_of` | the trading state, by whom and why | the change | the next change |

The features that were known at an instant, and those that each decision could know:

```sql
SELECT symbol, session, return_21, volatility_21 FROM price_trends_as_of
WHERE known_at <= TIMESTAMP '2014-12-30 21:30:00' AND TIMESTAMP '2014-12-30 21:30:00' < known_until ORDER BY symbol
```

```sql
SELECT d.decision_id, d.data_as_of, f.symbol, f.session, f.return_1
FROM decisions_as_of d JOIN features_as_of f ON f.known_at <= d.known_at AND d.known_at < f.known_until
ORDER BY d.known_at, f.symbol
```

```sql
SELECT d.decision_id, d.verdict, m.role, m.gate_passed, s.state, s.reason
FROM decisions_as_of d
LEFT JOIN models_as_of m ON m.model_version = d.model_version AND m.known_at <= d.known_at AND d.known_at < m.known_until
LEFT JOIN trading_state_as_of s ON s.known_at <= d.known_at AND d.known_at < s.known_until
ORDER BY d.known_at
```

What the views cannot say: the feature table holds the newest build. A bar that the vendor restates, or a corporate action that arrives
late, changes rows of the past, and the view shows them as they are now. What a decision really saw is in its audit record, number by number
(`decisions.observation`, and `inputs_sha256` of its bars). Between a close and the night's build the table is one session behind its view.
A history of the table's own versions is what the [Feature Store option](decisions/0035-feature-store-is-off.md) would keep.
"""


if __name__ == "__main__":
    print(markdown(), end="")
