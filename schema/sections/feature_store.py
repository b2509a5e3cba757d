"""The section `[feature_store]` of `settings.toml`: whether SageMaker Feature Store keeps a mirror of the feature table's newest session.

A file without it has none, as files from before it existed (docs/decisions/0035-feature-store-is-off.md).
"""

from __future__ import annotations

from schema.sections.section import Section


class FeatureStoreSettings(Section):
    enabled: bool = False
