"""Sessions through the deployed functions as a process of its own, which can be told to die by SIGKILL in the middle of a batch.

`python -m tests.e2e.driven FOLDER CDK_OUT SETTINGS ORDER`: deploys into FOLDER, or goes on with what is deployed there, and trades from
where the exchange's clock stands. When the exchange has accepted its ORDERth order (0: never) the process is gone, before anybody has
heard of that order. The last line of its output is the outcome of `books`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from lambdas.common.ledger.records import ServedModel
from local.replay.faulty_driver import FaultyReplay
from local.replay.local_deployment import LocalDeployment
from local.replay.soak import POLICY
from papertape.market_data.sessions import sessions_between
from schema.settings import Settings
from tests.e2e.conftest import EVE, App

SESSIONS = (date(2020, 8, 26), date(2020, 8, 27))
ORDERS = 8  # a session
HISTORY = "2018-01-02"  # more than the 600 sessions that a decision reads
MINUTES_HISTORY = "2020-06-01"  # with six slots a session, more than the 253 rows that a feature looks back
DEPLOYED = "deployed"


def trade(app: App, *, on_post: Callable[[int], None]) -> dict[str, Any]:
    """Trade the sessions and return the exchange's final books without what a second attempt may change: times and numbers given out."""
    with short_leases(app), app.slow_exchange() as proxy:
        proxy.on_post = on_post
        replay = FaultyReplay(deployment=app.deployment, settings=app.settings)
        for ended in replay.run(sessions_between(*SESSIONS)[: 1 if app.settings.slot_rows else None]):
            assert (ended.day.differences, ended.breaches, ended.duplicates) == ((), (), 0), ended
    return books(app)


@contextmanager
def short_leases(app: App) -> Iterator[None]:
    """A dead executor's lease runs out in seconds: it is on the wall clock, where a session takes less than the minute it lasts on AWS."""
    client, before = app.deployment.client("lambda"), {}
    for output in ("ExecuteOrdersFunction", "ReconcileFunction"):
        name = app.deployment.output(output)
        before[name] = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        changed = {**before[name], "LEASE_SECONDS": "3", "LEASE_TIMEOUT_SECONDS": "8", "BROKER_PAUSE": "0.01"}
        client.update_function_configuration(FunctionName=name, Environment={"Variables": changed})
    try:
        yield
    finally:
        for name, variables in before.items():
            client.update_function_configuration(FunctionName=name, Environment={"Variables": variables})


def books(app: App) -> dict[str, Any]:
    """Cash, positions, orders and fills of the exchange, in the order of their names."""
    found = app.exchange.books()
    told = ("client_order_id", "symbol", "side", "qty", "filled_qty", "filled_avg_price", "status")
    filled = ("client_order_id", "symbol", "side", "quantity", "price", "fee")
    return {
        "cash": found["cash"],
        "positions": found["positions"],
        "orders": sorted([str(order[name]) for name in told] for order in found["orders"]),
        "fills": sorted([str(fill[name]) for name in filled] for fill in found["fills"]),
    }


def decides(app: App) -> None:
    """The random policy is the incumbent of an empty ledger, so that each session has orders."""
    since = f"{EVE}T22:00:00Z"
    served = {"role": "incumbent", "policy": "random", "spec": POLICY, "model_version": POLICY, "kappa": 1.0, "since": since}
    app.deployment.ledger.put_model(ServedModel.model_validate(served))


def main(folder: Path, cdk_out: Path, settings: Settings, order: int) -> None:
    by_slot = settings.slot_rows is not None
    with LocalDeployment(folder, settings=settings, now=f"{EVE}T22:00:00Z", minutes="made" if by_slot else "recorded") as deployment:
        if (folder / DEPLOYED).exists():
            deployment.resume()
            app = App(deployment, settings)
        else:
            deployment.deploy(cdk_out, with_cli=False)
            deployment.backfill(start=MINUTES_HISTORY if by_slot else HISTORY)
            app = App(deployment, settings)
            decides(app)
            (folder / DEPLOYED).touch()

        def die(posted: int) -> None:
            if posted == order:
                os.kill(os.getpid(), signal.SIGKILL)

        print(json.dumps(trade(app, on_post=die)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Settings.model_validate_json(sys.argv[3]), int(sys.argv[4]))
