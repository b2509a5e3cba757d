"""One logger, one metrics sink and one entry wrapper for every function.

`entry` logs one line before anything else, flushes embedded metrics (EMF) at the end whatever happened, and lets every error pass to the
runtime after logging it once. It never logs headers, bodies or secrets: only the schedule and its time, or the method and path.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

logger = Logger()
metrics = Metrics()

__all__ = ["MetricUnit", "entry", "logger", "metrics"]

Handler = Callable[[dict[str, Any], Any], Any]

_SHOWN = ("schedule", "time", "start", "end", "httpMethod", "path", "detail-type")


def entry(handler: Handler) -> Handler:
    """Wrap a Lambda handler as the module's docstring promises."""

    @wraps(handler)
    def wrapped(event: dict[str, Any], context: Any) -> Any:
        request = getattr(context, "aws_request_id", None)
        logger.info("start", extra={"request_id": request, **{key: event[key] for key in _SHOWN if event.get(key)}})
        try:
            return handler(event, context)
        except Exception:
            logger.exception("failed")
            raise
        finally:
            if metrics.provider.metric_set:
                metrics.flush_metrics()

    return wrapped
