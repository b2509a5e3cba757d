"""What `decide` itself has recorded of two trained models, on the page: why each wants what it wants."""

# ruff: noqa: F401, F811  (fixtures of another module are used by their names)
from __future__ import annotations

from typing import Any

from lambdas.common.ledger.ledger import Ledger
from schema.path_segment import segment_of
from tests.aws.dashboard.conftest import Web
from tests.aws.gateway import Gateway
from tests.aws.lambdas.test_decide import DECISION, cloud, lake, record, run, served


def test_each_models_reasons_stand_beside_its_weights(
    run: Any, served: Any, lake: Any, web: Web, execution_api: Gateway, ledger_table: Ledger
) -> None:
    served()
    served("shadow", seed=2)
    assert run()["outcome"] == "decided"
    view = web.get(f"api/decisions/{segment_of(DECISION)}").body
    reasons, (watched,) = record(lake)["explanation"]["top"], ledger_table.shadow_decisions("2020-01")
    assert {one["symbol"]: one["causes"] for one in view["names"]} == reasons
    assert {one["symbol"]: one["watched"] for one in view["names"]} == watched.weights
    assert all(len(one["watched_causes"]) == 5 for one in view["names"])
    shown = web.get("pages/decisions").text
    largest = view["names"][0]
    assert largest["words"] in shown.replace("&#39;", "'")
    assert f"<code>{largest['causes'][0]['input']}</code>" in shown
    assert "Why the trained model" in shown
