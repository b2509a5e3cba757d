"""News and sentiment: what was written about the names, how it was scored, and the score of a name beside its price."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from lambdas.dashboard.pages import page
from lambdas.dashboard.request import FIRST_DAY, LAST_DAY
from lambdas.dashboard.routing import PageRouter
from lambdas.dashboard.views.headlines import CURSOR, HeadlinesView, SentimentView, headlines, sentiment

router = PageRouter()
SYMBOL = r"^[A-Z][A-Z0-9.]{0,9}$"
LIMIT = 50
DAYS = 20

Symbol = Annotated[str | None, Query(pattern=SYMBOL, description="only about this name")]
Day = Annotated[
    date | None, Query(ge=FIRST_DAY, le=LAST_DAY, description="New York's date; by default the last on which anything was collected")
]
Cursor = Annotated[str | None, Query(pattern=CURSOR, description="that an earlier page gave")]


@router.get("/api/news", summary="Headlines and posts of a day with their scores, the newest first")
def get_news(
    symbol: Symbol = None, day: Day = None, cursor: Cursor = None, limit: Annotated[int, Query(ge=1, le=200)] = LIMIT
) -> HeadlinesView:
    return headlines(router.asked, symbol=symbol, day=day, cursor=cursor, limit=limit)


@router.get("/api/news/sentiment", summary="Mean score and count by day beside the closes of a name")
def get_sentiment(
    symbol: Annotated[str, Query(pattern=SYMBOL)], until: Day = None, days: Annotated[int, Query(ge=1, le=60)] = DAYS
) -> SentimentView:
    return sentiment(router.asked, symbol=symbol, until=until, days=days)


@router.get("/pages/news", include_in_schema=False)
def show_news(symbol: Symbol = None, day: Day = None, cursor: Cursor = None) -> Response[str]:
    request = router.asked
    view = headlines(request, symbol=symbol, day=day, cursor=cursor, limit=LIMIT)
    shown = date.fromisoformat(view.day)
    charted = None if symbol is None else sentiment(request, symbol=symbol, until=shown, days=DAYS)
    before, after = (shown + timedelta(days=step) for step in (-1, 1))
    return page("news.html.j2", request, view=view, charted=charted, before=before.isoformat(), after=after.isoformat())
