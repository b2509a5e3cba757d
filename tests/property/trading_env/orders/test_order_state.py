"""The order's machine over any news in any order: total, idempotent, monotone, and blind to the order of fills (I5)."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.common.broker.alpaca_wire import WORKING, status_of
from trading_env.orders.order_state import ENDED, ENDS, OURS, Event, Life, rise

ODD = ("levitating", "", "Filled", "FILLED", "refused by risk", "partially filled")
LIVING = st.sampled_from([*WORKING, *sorted(OURS), *ODD])
WORDS = st.one_of(st.sampled_from([*ENDS, *WORKING, *sorted(OURS)]), st.text(max_size=12))
AT_BROKER = WORDS.map(lambda word: status_of(word, filled=Decimal(0)))
QUANTITIES = st.integers(0, 10**6).map(lambda quanta: Decimal(quanta).scaleb(-3))
PRICES = st.integers(1, 10**6).map(lambda cents: Decimal(cents).scaleb(-2))
EVENTS = st.sampled_from(Event)
News = tuple[str, Decimal, Decimal | None]


@st.composite
def histories(draw: st.DrawFn) -> list[News]:
    """What one broker says of one order while it lives: shares and dollars that only grow, and at most one last word, at the end."""
    steps = draw(st.lists(st.tuples(LIVING, st.one_of(st.just(Decimal(0)), QUANTITIES), PRICES), max_size=6))
    last = draw(st.sampled_from([None, *ENDS]))
    told: list[News] = []
    filled = paid = Decimal(0)
    for word, more, price in [*steps, *([(last, *draw(st.tuples(QUANTITIES, PRICES)))] if last else [])]:
        filled, paid = filled + more, paid + more * price
        told.append((word, filled, paid / filled if filled else None))
    return told


def tell(life: Life, news: News) -> Life:
    word, filled, average = news
    return life.observed(status_of(word, filled=filled), filled=filled, average=average)


STATES = st.one_of(
    st.sampled_from([Life(), Life(status="unknown"), Life(status="refused"), Life(status="rejected"), Life(status="expired")]),
    st.builds(
        Life, status=WORDS.map(lambda word: status_of(word, filled=Decimal(0))), shown=st.just(True), filled=QUANTITIES, average=PRICES
    ),
)


@settings(deadline=None)
@given(STATES, st.one_of(EVENTS, st.tuples(WORDS, QUANTITIES, st.one_of(st.none(), PRICES))))
def test_every_state_has_a_successor_for_every_news_and_the_same_news_twice_changes_nothing(life, news):
    def change(before: Life) -> Life:
        return before.after(news) if isinstance(news, Event) else tell(before, news)

    once = change(life)
    assert change(once) == once
    assert once.filled >= life.filled
    if life.shown and life.ended:
        assert once.ended
    if isinstance(news, Event):
        assert (once.shown, once.filled) == (life.shown, life.filled)
    else:
        assert once.shown
        assert once.ended or once.status not in ENDED


@settings(deadline=None)
@given(histories(), st.randoms(use_true_random=False), st.lists(EVENTS, max_size=5))
def test_neither_fills_nor_the_end_depend_on_the_order_of_the_news_nor_on_its_repetition(history, random, events):
    straight = Life()
    for news in history:
        straight = tell(straight, news)
    mixed: list[News | Event] = [*history, *random.sample(history, k=len(history) // 2)]
    random.shuffle(mixed)
    for event in events:  # our own events, wherever they fall
        mixed.insert(random.randint(0, len(mixed)), event)
    shuffled = Life()
    for news in mixed:
        shuffled = shuffled.after(news) if isinstance(news, Event) else tell(shuffled, news)
    assert shuffled.filled == straight.filled
    assert shuffled.average == straight.average
    if history:
        assert shuffled.ended == straight.ended
        assert not straight.ended or shuffled.status == straight.status


@settings(deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_the_fills_of_any_order_of_news_sum_to_what_the_broker_says(history, random):
    life, shares, dollars = Life(), Decimal(0), Decimal(0)
    for news in random.sample(history, k=len(history)):
        after = tell(life, news)
        fill = rise(life, after)
        if fill is not None:
            assert fill[0] > 0
            shares, dollars = shares + fill[0], dollars + fill[0] * fill[1]
        life = after
    assert shares == life.filled
    if life.average is not None:
        assert abs(dollars - life.filled * life.average) <= Decimal("1e-18") * max(1, abs(dollars))


@settings(deadline=None)
@given(STATES, st.lists(EVENTS, max_size=8))
def test_our_events_never_end_what_may_be_at_the_broker_but_with_the_window(life, events):
    after = Life(status="unknown")
    for event in events:
        after = after.after(event)
    assert after.ended == (Event.WINDOW_ENDED in events)
