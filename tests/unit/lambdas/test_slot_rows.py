"""Minutes as lines of the lake: of the past and of a running day alike, of slots that have ended, and raw."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pandas as pd
import pytest

from lambdas.common.broker.alpaca import AlpacaBroker
from lambdas.common.broker.port import BrokerUnavailable
from lambdas.common.lake.slot_rows import GatheredSlots, gathered
from papertape.market_data.sessions import hours_between
from schema.slot import SlotRows
from tests.exchanges import SPLIT, ExchangeClient, adapter_of_nobody
from trading_env.data.raw_lines import bar_table, minute_table
from trading_env.data.slot_bars import slot_bars

ROWS = SlotRows((5, 120), 30)
NAMES = ("AAPL", "IBM", "SPY")


def broker(*, now: str) -> AlpacaBroker:
    return ExchangeClient(now=datetime.fromisoformat(now), minutes="made").broker


def gather(vendor: AlpacaBroker, start: str, end: str, *, until: str, symbols: tuple[str, ...] = NAMES) -> GatheredSlots:
    hours = hours_between(date.fromisoformat(start), date.fromisoformat(end))
    return gathered(vendor, symbols=symbols, hours=hours, until=datetime.fromisoformat(until), rows=ROWS)


def test_lines_of_past_sessions_are_the_slot_bars_of_the_vendors_minutes_and_read_back_the_same():
    vendor = broker(now="2020-01-10T22:00:00Z")
    found = gather(vendor, "2020-01-03", "2020-01-08", until="2020-01-08T21:00:00Z")
    hours = hours_between(date(2020, 1, 3), date(2020, 1, 8))
    minutes = vendor.minute_bars(NAMES, datetime(2020, 1, 3, tzinfo=UTC), datetime(2020, 1, 8, 22, tzinfo=UTC), feed="iex")
    own = slot_bars(minute_table(minutes), hours=hours, slots=ROWS.slots, window=ROWS.window)
    pd.testing.assert_frame_equal(bar_table(found.lines, by_slot=True), own.bars, check_exact=True)
    assert [(line["symbol"], line["ts"]) for line in found.lines[:3]] == [
        ("AAPL", "2020-01-03T14:35:00Z"),
        ("AAPL", "2020-01-03T16:30:00Z"),
        ("AAPL", "2020-01-06T14:35:00Z"),
    ]
    assert list(found.lines[0]) == ["symbol", "ts", "open", "high", "low", "close", "volume"]
    assert len(found.lines) == 3 * 4 * 2
    assert (found.quarantined, found.outside, found.late) == (0, 0, [])


@pytest.mark.parametrize(
    ("until", "ended"),
    [
        ("2020-01-03T14:35:00Z", []),
        ("2020-01-03T16:29:59Z", []),
        ("2020-01-03T16:30:00Z", ["2020-01-03T14:35:00Z"]),
        ("2020-01-03T20:59:59Z", ["2020-01-03T14:35:00Z"]),
        ("2020-01-03T21:00:00Z", ["2020-01-03T14:35:00Z", "2020-01-03T16:30:00Z"]),
    ],
)
def test_a_running_day_has_the_lines_of_the_slots_that_have_ended_and_they_stay_as_they_are(until: str, ended: list[str]) -> None:
    """What a decision gathered in a slot is what the backfill stores of it in the evening, whatever came afterwards."""
    live = gather(broker(now=until), "2020-01-03", "2020-01-03", until=until)
    evening = gather(broker(now="2020-01-03T23:00:00Z"), "2020-01-03", "2020-01-03", until="2020-01-03T21:00:00Z")
    assert sorted({line["ts"] for line in live.lines}) == ended
    assert live.lines == [line for line in evening.lines if line["ts"] in ended]


def test_nothing_is_asked_of_before_a_slot_has_ended():
    assert gather(adapter_of_nobody(), "2020-01-03", "2020-01-03", until="2020-01-03T15:00:00Z").lines == []
    with pytest.raises(BrokerUnavailable):
        gather(adapter_of_nobody(), "2020-01-03", "2020-01-03", until="2020-01-03T16:30:00Z")


def test_a_name_without_minutes_has_no_lines_and_late_ones_are_named():
    """On 2 January minutes of AAPL and SPY are recorded at 14:38 and 14:39 alone: the second slot has none, of IBM all are made."""
    found = gather(broker(now="2020-01-02T23:00:00Z"), "2020-01-02", "2020-01-02", until="2020-01-02T21:00:00Z")
    assert [(line["symbol"], line["ts"][11:16]) for line in found.lines] == [
        ("AAPL", "14:35"),
        ("IBM", "14:35"),
        ("IBM", "16:30"),
        ("SPY", "14:35"),
    ]
    assert (
        gather(broker(now="2020-01-02T23:00:00Z"), "2020-01-02", "2020-01-02", until="2020-01-02T21:00:00Z", symbols=("ZZZZ",)).lines == []
    )
    narrow = gathered(
        broker(now="2020-01-02T23:00:00Z"),
        symbols=("AAPL", "SPY"),
        hours=hours_between(date(2020, 1, 2), date(2020, 1, 2)),
        until=datetime(2020, 1, 2, 21, tzinfo=UTC),
        rows=SlotRows((5,), 3),
    )
    assert (narrow.lines, narrow.late) == ([], [("AAPL", "2020-01-02T14:35:00Z"), ("SPY", "2020-01-02T14:35:00Z")])


def test_prices_around_a_split_are_as_they_were_traded():
    found = gather(broker(now="2020-02-04T23:00:00Z"), "2020-01-31", "2020-02-04", until="2020-02-04T21:00:00Z", symbols=("AAPL",))
    by_day = {line["ts"][:10]: line["close"] for line in found.lines}
    assert by_day["2020-01-31"] == pytest.approx(2 * by_day[SPLIT.isoformat()], rel=0.01)
