"""The groups are the feature table, each column once, with the function that computes it; the page is printed from both."""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from papertape.reports.feature_groups_page import markdown
from schema.features.groups import GROUPS, KEYS, FeatureGroup, group_of, groups_in_table
from trading_env.data.features import ASSET_FEATURES, CONTEXT, FEATURES, RANK_FEATURES
from trading_env.data.market import TABLE_COLUMNS
from trading_env.data.sentiment import SENTIMENT

ROOT = Path(__file__).resolve().parents[3]
OWNERS = {
    **{feature.name: "asset_features" for feature in ASSET_FEATURES},
    **{feature.name: "cross_section" for feature in RANK_FEATURES},
    **{feature.name: "context_features" for feature in CONTEXT},
    **{feature.name: "sentiment_features" for feature in SENTIMENT},
}


def test_each_column_of_the_feature_table_is_of_exactly_one_group() -> None:
    grouped = Counter(column for group in GROUPS for column in group.columns)
    assert {column for column, count in grouped.items() if count > 1} == set()
    assert grouped.keys() == {feature.name for feature in (*FEATURES, *SENTIMENT, *CONTEXT)}


def test_the_keys_are_columns_of_the_table_and_of_no_group() -> None:
    assert set(KEYS) < set(TABLE_COLUMNS)
    with pytest.raises(KeyError, match="symbol is of no feature group"):
        group_of("symbol")


@pytest.mark.parametrize("group", groups_in_table(sentiment=True), ids=lambda group: group.name)
def test_the_owner_of_a_group_computes_its_columns(group: FeatureGroup) -> None:
    owners = {path.rpartition(".")[2] for path in group.computed_by}
    assert owners == {OWNERS[column] for column in group.columns}
    for path in group.computed_by:
        module, _, name = path.rpartition(".")
        assert callable(getattr(import_module(module), name))


def test_only_sentiment_may_be_absent() -> None:
    assert [group.name for group in GROUPS if group.optional] == ["sentiment"]
    assert [group.name for group in groups_in_table(sentiment=False)] == ["price_trends", "volume", "market_context"]


def test_a_group_without_columns_has_no_owner() -> None:
    assert all(bool(group.columns) == bool(group.computed_by) for group in GROUPS)


def test_the_page_is_the_table() -> None:
    assert (ROOT / "docs" / "feature-groups.md").read_text(encoding="utf-8") == markdown()
