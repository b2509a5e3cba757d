"""The runner's event in what a function was invoked with: an envelope of the bus, or a schedule's event, which holds none.

Failure: `MarketEventError`, one line, for an envelope that is not the runner's or whose body is not what its `detail-type` promises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from schema.realtime.events import EVENTS, SOURCE, MarketEvent
from trading_env.errors import PapertapeError

KINDS: Mapping[str, type[MarketEvent]] = {kind.detail_type: kind for kind in EVENTS}


class MarketEventError(PapertapeError, ValueError):
    """An envelope of the bus that no runner of this version sends."""


def market_event_of(event: Mapping[str, Any]) -> MarketEvent | None:
    """The typed body of an envelope; None for what is no envelope: a schedule's event, or a person's."""
    if "detail-type" not in event:
        return None
    source, word = event.get("source"), event["detail-type"]
    if source != SOURCE or word not in KINDS:
        raise MarketEventError(f"an event must be of {SOURCE} and one of {', '.join(KINDS)}; was {word!r} of {source!r}")
    try:
        return KINDS[word].model_validate(event.get("detail"))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False))
        raise MarketEventError(f"the event {word!r} cannot be read: {wrong}") from None
