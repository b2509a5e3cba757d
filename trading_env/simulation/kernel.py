"""The step of N books in compiled code: what `policy.weights_from_scores` and `portfolio.step` do, one book after the other.

Promise: given weights or trades, `trade` gives the bits that `portfolio.step` gives (sums are added in NumPy's order, nothing is
reassociated); `aim` differs from `weights_from_scores` by the last digit of exp alone; the reward is that of `rewards.session_rewards`.
With limits, `trade` takes out the orders that `risk.check_batch` would deny in a backtest. Serial: one call steps N = 1 as well as
N = 4,096, writes what it computes into arrays of the caller and allocates nothing. This is the one module that imports numba, and one file
because numba's cache compiles again when a function's own file changes, not when one does that it calls.
Failure: no exception; the number of a row of `FAILURES` and the book that met it come back, and the caller raises.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

FAILURES = (
    "",
    "actions must be finite scores",
    "weights must lie in [0, 1]",
    "every position needs a finite price",
    "cash and quantities must stay at or above 0",
    "the book must be worth more than 0",
    "actions must be 0 (sell), 1 (hold) or 2 (buy)",
)
SCORE, _WEIGHT, _PRICE, _NEGATIVE, _WORTHLESS, TRADE = 1, 2, 3, 4, 5, 6
KINDS = len(FAILURES)

# Columns of a book's state: the row that it observes and its episode's last, dollars, whether a breaker has latched, and the running
# mean and mean square of its log growth
ROW, LAST, CASH, VALUE, PEAK, LATCHED, MEAN, SQUARE = 0, 1, 2, 3, 4, 5, 6, 7
STATE = 8
# Rows of a book's holdings: shares, share of equity at the close observed; and of its names the market's column, the places in the order
# of their symbols, and whether they are restricted
QUANTITIES, HELD, COLUMN, ORDER, RESTRICTED = 0, 1, 2, 3, 4
HOLDINGS = 5
# Columns of what a step reports: dollars, buys and sells over equity, log growths, dollars, the reward, 1 where the episode ended
COSTS, DIVIDENDS, TURNOVER, GROWTH, BASELINE, WORTH, REWARD, ENDED = 0, 1, 2, 3, 4, 5, 6, 7
REPORT = 8
# Rows of a day: what the step into that row needs of each name (decidable and tradable are -1 where it leaves its universe); then, of all
# of them, whether there is a split or a dividend, and the log growth of equal weight
OPENING, CLOSING, DECIDABLE, TRADABLE, SPLIT, DIVIDEND, VOLUME, VOLATILITY, EVENTFUL, EQUAL_GROWTH = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
OF_NAME, DAY = 8, 10
# Rows of scratch space: products to add up, weights or trades, deltas, fill prices, partial sums; then the day of a drawn book
TERMS, WEIGHTS, DELTAS, _PAID, _SUMS = 0, 1, 2, 3, 4
SCRATCH = 5
# Columns of the parameters; a row for the books, a row for their baselines
KEEP, BAND, MIN_NOTIONAL, CREDIT, FEE, ADVERSE, IMPACT, SHARE, WHOLE, KAPPA, PITCH, TRADE_SHARE = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
LIMITED, MAX_WEIGHT, MAX_GROSS, MAX_ORDER, MAX_TURNOVER, MAX_ORDERS, MAX_DRAWDOWN, MAX_LOSS = 12, 13, 14, 15, 16, 17, 18, 19
REWARD_KIND, DRAWDOWN, TRADING, SCALE, ADAPTATION, NO_VARIANCE = 20, 21, 22, 23, 24, 25
SENTIMENT_WEIGHT, SENTIMENT_PLACE = 26, 27  # the place is that of a name's features
PARAMETERS = 28
REWARDS = ("excess_log_growth", "log_growth", "differential_sharpe")
_EXCESS, _OWN = 0, 1
_ROUNDING = 1e-9  # as in risk.py
_LARGEST = float(np.finfo(np.float32).max)

# NumPy's division, so that a loop need not test for zero; no fastmath, which would reorder sums. No function here allocates or keeps an
# array, so none is counted (_nrt): numba's counting took nearly half of a step. What Python never calls needs no wrapper to be compiled
_OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy", "nogil": True, "_nrt": False}
_UNWRAPPED: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_compiled, _inner = njit(**_OPTIONS), njit(**_OPTIONS, **_UNWRAPPED)


@_inner
def _block(x):  # type: ignore[no-untyped-def]
    """Sum of at most 128 numbers, in the order of NumPy's pairwise summation."""
    count = x.shape[0]
    if count < 8:
        few = 0.0
        for i in range(count):
            few += x[i]
        return few
    r0, r1, r2, r3, r4, r5, r6, r7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    full = count - count % 8
    for i in range(8, full, 8):
        r0 += x[i]
        r1 += x[i + 1]
        r2 += x[i + 2]
        r3 += x[i + 3]
        r4 += x[i + 4]
        r5 += x[i + 5]
        r6 += x[i + 6]
        r7 += x[i + 7]
    total = ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7))
    for i in range(full, count):
        total += x[i]
    return total


@_inner
def _halves(x, sums):  # type: ignore[no-untyped-def]
    """Sum of more: of halves, each a multiple of 8 long but the last, down to blocks; `sums` is as long as `x`."""
    # A stack, not recursion, which numba's cache cannot link; a count of 0 adds the two sums on top
    depth = sums.shape[0] // 3
    starts, counts, done = 0, depth, 2 * depth
    sums[starts], sums[counts], waiting = 0, x.shape[0], 1
    while waiting > 0:
        waiting -= 1
        start, count = int(sums[starts + waiting]), int(sums[counts + waiting])
        if count == 0:
            done -= 1
            sums[done - 1] += sums[done]
        elif count <= 128:
            sums[done] = _block(x[start : start + count])
            done += 1
        else:
            half = count // 2
            half -= half % 8
            sums[counts + waiting] = 0
            sums[starts + waiting + 1], sums[counts + waiting + 1] = start + half, count - half
            sums[starts + waiting + 2], sums[counts + waiting + 2] = start, half
            waiting += 3
    return sums[2 * depth]


@_inner
def _total(x, work):  # type: ignore[no-untyped-def]
    """Sum in the order of NumPy."""
    return _block(x) if x.shape[0] <= 128 else _halves(x, work[_SUMS])


@_inner
def _worth(quantities, prices, work):  # type: ignore[no-untyped-def]
    terms = work[TERMS]
    for a in range(quantities.shape[0]):
        terms[a] = 0.0 if quantities[a] == 0 else quantities[a] * prices[a]
    return _total(terms, work)


@_inner
def _worth_of(deltas, side, prices, work):  # type: ignore[no-untyped-def]
    """Worth of the buys (side 1) or the sells (side -1) among the deltas."""
    terms = work[TERMS]
    for a in range(deltas.shape[0]):
        shares = side * deltas[a]
        terms[a] = shares * prices[a] if shares > 0 else 0.0
    return _total(terms, work)


@_inner
def _floor(shares):  # type: ignore[no-untyped-def]
    nearest = np.rint(shares * 1e9)
    return (nearest - (1.0 if nearest / 1e9 > shares else 0.0)) / 1e9


@_compiled
def aim(scores, held, decidable, kappa, work):  # type: ignore[no-untyped-def]
    """`policy.weights_from_scores` of one book into the weights of `work`; every array (A,)."""
    peak, masses = -np.inf, work[DELTAS]
    for a in range(scores.shape[0]):
        peak = max(peak, scores[a] if decidable[a] > 0 else -np.inf)
    for a in range(scores.shape[0]):
        masses[a] = math.exp(scores[a] - peak) if decidable[a] > 0 else 0.0
    _approach(masses, held, decidable, kappa, work)


@_inner
def _approach(masses, held, decidable, kappa, work):  # type: ignore[no-untyped-def]
    terms, weights = work[TERMS], work[WEIGHTS]
    count = held.shape[0]
    for a in range(count):
        weights[a] = held[a] if decidable[a] >= 0 else 0.0
    total = _total(weights, work)
    pace = kappa if total > 0 else 1.0
    whole = total if total > 0 else 1.0
    for a in range(count):
        weights[a] = weights[a] / whole
        terms[a] = 0.0 if decidable[a] > 0 else weights[a]
    free = 1 - _total(terms, work)
    mass = _total(masses, work)
    for a in range(count):
        moved = (1 - pace) * weights[a] + pace * (masses[a] / mass * free)
        weights[a] = moved if decidable[a] > 0 else weights[a]


@_inner
def _outside(x, least, most):  # type: ignore[no-untyped-def]
    """Whether a number is not in [least, most]; a loop of its own, and a count, so that it runs in vectors."""
    count = 0
    for a in range(x.shape[0]):
        count += 0 if least <= x[a] <= most else 1
    return count > 0


@_inner
def _plan(parameters, day, weights, quantities, equity, deltas):  # type: ignore[no-untyped-def]
    """`portfolio.plan_orders` of one book into `deltas`."""
    opening, tradable = day[OPENING], day[TRADABLE]
    keep, whole = parameters[KEEP], parameters[WHOLE] > 0
    least = max(parameters[MIN_NOTIONAL], parameters[BAND] * equity)
    for a in range(weights.shape[0]):
        price, weight = opening[a], weights[a]
        raw = keep * weight * equity / price
        target = np.floor(raw) if whole else _floor(raw)
        delta = np.rint((target - quantities[a]) * 1e9) / 1e9
        if whole:
            delta = np.trunc(delta)
        if weight == 0:
            delta = 0.0 - quantities[a]
        large = abs(delta) * price >= least
        planned = tradable[a] > 0 and price > 0 and (weight == 0 or large)
        deltas[a] = delta if planned else (0.0 - quantities[a] if tradable[a] < 0 else 0.0)


@_inner
def _plan_trades(parameters, day, signs, quantities, equity, deltas):  # type: ignore[no-untyped-def]
    """`portfolio.plan_trades` of one book into `deltas`."""
    opening, tradable = day[OPENING], day[TRADABLE]
    least = max(parameters[MIN_NOTIONAL], parameters[BAND] * equity)
    for a in range(signs.shape[0]):
        price, held = opening[a], quantities[a]
        raw = parameters[TRADE_SHARE] * equity / price
        lot = np.floor(raw) if parameters[WHOLE] > 0 else _floor(raw)
        leaves = signs[a] < 0 and lot >= held
        delta = 0.0
        if signs[a] != 0:
            delta = lot if signs[a] > 0 else 0.0 - min(lot, held)
        planned = tradable[a] > 0 and price > 0 and (leaves or abs(delta) * price >= least)
        deltas[a] = delta if planned else (0.0 - held if tradable[a] < 0 else 0.0)


@_inner
def _cap(parameters, day, deltas):  # type: ignore[no-untyped-def]
    for a in range(deltas.shape[0]):
        volume = day[VOLUME, a]
        most = 0.0
        if volume > 0 and (parameters[IMPACT] == 0 or np.isfinite(day[VOLATILITY, a])):
            most = parameters[SHARE] * volume
            most = np.floor(most) if parameters[WHOLE] > 0 else _floor(most)
        deltas[a] = min(max(deltas[a], -most), most)


@_inner
def _dollars(parameters, day, deltas, side, gross, work):  # type: ignore[no-untyped-def]
    """Dollars that one side moves: the bill of the buys (side 1), the proceeds of the sells (side -1), worth `gross` at sizing prices."""
    fee, adverse, impact = 1 + side * parameters[FEE], 1 + side * parameters[ADVERSE], parameters[IMPACT]
    if impact == 0:
        return gross * (adverse * fee)
    paid = work[_PAID]
    for a in range(deltas.shape[0]):
        shares = side * deltas[a]
        paid[a] = 0.0
        if shares > 0:
            moved = impact * day[VOLATILITY, a] * np.sqrt(shares / day[VOLUME, a])
            paid[a] = day[OPENING, a] * max(adverse + side * moved, 0.0)
    return _worth_of(deltas, side, paid, work) * fee


@_inner
def _fill(parameters, day, deltas, cash, work):  # type: ignore[no-untyped-def]
    """`portfolio.fill` of one book: buys in `deltas` scaled to the cash; the cash after, and the costs."""
    opening = day[OPENING]
    sold = _worth_of(deltas, -1.0, opening, work)
    income = _dollars(parameters, day, deltas, -1.0, sold, work)
    cash += income
    bought = _worth_of(deltas, 1.0, opening, work)
    spent = _dollars(parameters, day, deltas, 1.0, bought, work)
    available = max(cash, 0.0)
    if spent > available * (1 - 1e-12):
        factor = available * (1 - 2 * 1e-12) / spent
        for a in range(deltas.shape[0]):
            if deltas[a] > 0:
                scaled = deltas[a] * factor
                deltas[a] = np.floor(scaled) if parameters[WHOLE] > 0 else _floor(scaled)
        bought = _worth_of(deltas, 1.0, opening, work)
        spent = _dollars(parameters, day, deltas, 1.0, bought, work)
    return cash - spent, (sold - income) + (spent - bought)


@_inner
def _review(parameters, day, holding, equity, state, work):  # type: ignore[no-untyped-def]
    """Take out of the deltas what `risk.check_batch` denies, sells first, by symbol; how many that were. Latches the breakers."""
    opening, deltas, quantities = day[OPENING], work[DELTAS], holding[QUANTITIES]
    drawdown = 1 - equity / state[PEAK] if state[PEAK] > 0 else np.nan
    loss = 1 - equity / state[VALUE] if state[VALUE] > 0 else np.nan
    if not (drawdown <= parameters[MAX_DRAWDOWN] and loss <= parameters[MAX_LOSS]):
        state[LATCHED] = 1.0
    gross = _worth(quantities, opening, work)
    traded, sent, denied = 0.0, 0, 0
    for side in (-1.0, 1.0):
        for place in range(deltas.shape[0]):
            a = int(holding[ORDER, place])
            shares = side * deltas[a]
            if not shares > 0:
                continue
            notional = shares * opening[a]
            allowed = (
                notional <= parameters[MAX_ORDER]
                and sent + 1 <= parameters[MAX_ORDERS]
                and equity > 0
                and (traded + notional) / equity <= parameters[MAX_TURNOVER]
            )
            if side < 0:
                allowed = allowed and shares <= quantities[a]
            else:
                held = 0.0 if quantities[a] == 0 else quantities[a] * opening[a]
                allowed = (
                    allowed
                    and state[LATCHED] == 0
                    and holding[RESTRICTED, a] == 0
                    and (held + notional) / equity <= parameters[MAX_WEIGHT] + _ROUNDING
                    and (gross + notional) / equity <= parameters[MAX_GROSS] + _ROUNDING
                )
            if allowed:
                traded += notional
                gross += side * notional
                sent += 1
            else:
                deltas[a] = 0.0
                denied += 1
    return denied


@_inner
def _corporate_actions(parameters, day, quantities, work):  # type: ignore[no-untyped-def]
    """Dividends (dollars) on the quantities of the close, then their split; the worth of the fractions that it loses."""
    terms, paid = work[TERMS], 0.0
    if parameters[CREDIT] > 0:
        paid = _worth(quantities, day[DIVIDEND], work)
    for a in range(quantities.shape[0]):
        ratio, before = day[SPLIT, a], quantities[a]
        if ratio != 1:
            quantities[a] = np.floor(np.rint(before * 1e9) * ratio * (1 + 4 * 2.220446049250313e-16)) / 1e9
        lost = before * ratio - quantities[a]
        terms[a] = 0.0 if lost == 0 else lost * day[OPENING, a]
    return paid, _total(terms, work)


@_compiled
def trade(parameters, day, holding, state, report, work):  # type: ignore[no-untyped-def]
    """`portfolio.step` of one book into the row `day` (10, A): `holding` (5, A), `state` (8,) and `report` (8,) change in place.

    The weights, or the signs of the trades where the parameters say so, are those of `work`. Returns 0 or the number of a failure; `work`
    then holds the executed deltas.
    """
    opening, deltas, quantities = day[OPENING], work[DELTAS], holding[QUANTITIES]
    dividends, lost = 0.0, 0.0
    if day[EVENTFUL, 0] > 0:
        dividends, lost = _corporate_actions(parameters, day, quantities, work)
    cash = state[CASH] + dividends
    equity = cash + _worth(quantities, opening, work)
    if not np.isfinite(equity):
        return _PRICE
    if parameters[TRADE_SHARE] > 0:
        _plan_trades(parameters, day, work[WEIGHTS], quantities, equity, deltas)
    elif _outside(work[WEIGHTS], 0.0, 1 + 1e-9):
        return _WEIGHT
    else:
        _plan(parameters, day, work[WEIGHTS], quantities, equity, deltas)
    if parameters[SHARE] > 0:
        _cap(parameters, day, deltas)
    cash_left, costs = _fill(parameters, day, deltas, cash, work)
    # Scaling what was scaled changes nothing, so the second fill is needed only where an order was taken out
    if parameters[LIMITED] > 0 and _review(parameters, day, holding, equity, state, work) > 0:
        cash_left, costs = _fill(parameters, day, deltas, cash, work)
    report[COSTS], report[DIVIDENDS], report[TURNOVER] = costs + lost, dividends, _traded(deltas, opening, work) / equity
    state[CASH] = cash_left
    return _settle(day, holding, state, report, work)


@_inner
def _traded(deltas, opening, work):  # type: ignore[no-untyped-def]
    terms = work[TERMS]
    for a in range(deltas.shape[0]):
        terms[a] = 0.0 if deltas[a] == 0 else abs(deltas[a]) * opening[a]
    return _total(terms, work)


@_inner
def _settle(day, holding, state, report, work):  # type: ignore[no-untyped-def]
    """The executed deltas enter the quantities, and the book is marked at the close; 0 or the number of a failure."""
    deltas, quantities, held, terms = work[DELTAS], holding[QUANTITIES], holding[HELD], work[TERMS]
    for a in range(quantities.shape[0]):
        quantities[a] = np.rint((quantities[a] + deltas[a]) * 1e9) / 1e9
    if _outside(quantities, 0.0, np.inf) or not state[CASH] >= 0:
        return _NEGATIVE
    value = state[CASH] + _worth(quantities, day[CLOSING], work)
    if not np.isfinite(value):
        return _PRICE
    if value <= 0:
        return _WORTHLESS
    for a in range(held.shape[0]):
        held[a] = terms[a] / value
    report[WORTH], report[GROWTH] = value, math.log(value / state[VALUE])
    state[VALUE], state[PEAK] = value, max(state[PEAK], value)
    return 0


@_inner
def _tone(parameters, blocks, row, holding, drawn, pitch, work):  # type: ignore[no-untyped-def]
    """`rewards.book_tone` of the book at the close, by what it observed in `row`."""
    held, terms, place = holding[HELD], work[TERMS], int(parameters[SENTIMENT_PLACE])
    for a in range(held.shape[0]):
        seen = blocks[int(holding[COLUMN, a]), row, place] if drawn else blocks[0, row, a * pitch + place]
        terms[a] = held[a] * np.float64(seen)
    return _total(terms, work)


@_inner
def _reward(parameters, state, report, tone):  # type: ignore[no-untyped-def]
    """`rewards.session_rewards` of one session."""
    growth, kind = report[GROWTH], parameters[REWARD_KIND]
    if kind == _EXCESS:
        term = growth - report[BASELINE]
    elif kind == _OWN:
        term = growth
    else:
        mean, square = state[MEAN], state[SQUARE]
        variance = square - mean * mean
        slope, curve = growth - mean, growth * growth - square
        term = 0.0
        if variance > parameters[NO_VARIANCE] * square:
            term = parameters[ADAPTATION] * (square * slope - mean * curve / 2) / (variance * np.sqrt(variance))
        state[MEAN], state[SQUARE] = mean + parameters[ADAPTATION] * slope, square + parameters[ADAPTATION] * curve
    drawdown = 1 - report[WORTH] / state[PEAK]
    earned = term - parameters[DRAWDOWN] * drawdown - parameters[TRADING] * report[TURNOVER]
    if parameters[SENTIMENT_WEIGHT] > 0:
        earned += parameters[SENTIMENT_WEIGHT] * tone
    return parameters[SCALE] * earned


@_inner
def _gather(days, row, columns, day):  # type: ignore[no-untyped-def]
    """The day of a book's own names."""
    eventful = 0.0
    for k in range(columns.shape[0]):
        name = days[int(columns[k]), row]
        for place in range(OF_NAME):
            day[place, k] = name[place]
        if name[SPLIT] != 1 or name[DIVIDEND] != 0:
            eventful = 1.0
    day[EVENTFUL, 0] = eventful


@_inner
def _equal_weight(parameters, day, holding, state, report, work):  # type: ignore[no-untyped-def]
    """A session of a book's baseline; 0 or the number of a failure."""
    masses = work[DELTAS]
    for a in range(masses.shape[0]):
        masses[a] = 1.0 if day[DECIDABLE, a] > 0 else 0.0
    _approach(masses, holding[HELD], day[DECIDABLE], parameters[KAPPA], work)
    return trade(parameters, day, holding, state, report, work)


@_inner
def _refused(actions, by_weight):  # type: ignore[no-untyped-def]
    """-(failure + KINDS x book) of the first book whose actions are none, else 0."""
    for n in range(actions.shape[0]):
        if by_weight and _outside(actions[n], -_LARGEST, _LARGEST):
            return -(SCORE + KINDS * n)
        if not by_weight:
            for a in range(actions.shape[1]):
                if not (actions[n, a] == 0 or actions[n, a] == 1 or actions[n, a] == 2):
                    return -(TRADE + KINDS * n)
    return 0


@_inner
def _observe(blocks, row, columns, drawn, pitch, observation):  # type: ignore[no-untyped-def]
    """What the market alone shows, of all names or of a book's own."""
    # Not observation[:] = block: the text of the error that it might raise takes numba a third of its time to compile
    names, width = columns.shape[0], observation.shape[0]
    if not drawn:
        whole = blocks[0, row]
        for k in range(width):
            observation[k] = whole[k]
        return
    for a in range(names):
        block = blocks[int(columns[a]), row]
        for k in range(pitch):
            observation[a * pitch + k] = block[k]
    rest = blocks[blocks.shape[0] - 1, row]
    for k in range(names * pitch, width):
        observation[k] = rest[k - names * pitch]


@_compiled
def advance(parameters, days, blocks, actions, holdings, states, reports, observations, work):  # type: ignore[no-untyped-def]
    """One session for N books: from their `actions` at the close that they observe to their `observations` at the next.

    actions (N, A) and observations (N, width) float32; holdings (N, 5, A), states (N, 8), reports (N, 8) and `work` float64; `blocks`, the
    observations of the market alone, (1, T, width), float32. With 2N holdings, states and reports the books have drawn their names: the
    second N are their baselines, and days and blocks are those of each name, (names, T, 8) and (names + 1, T, .), the last of the rest.
    Returns how many episodes ended, or -(failure + KINDS x book): the books behind that one are not stepped, and none is when an action is
    refused.
    """
    books, count = actions.shape
    own, drawn, by_weight = parameters[0], states.shape[0] > books, parameters[0, TRADE_SHARE] == 0
    pitch, over, refused = int(own[PITCH]), 0, _refused(actions, by_weight)
    if refused < 0:
        return refused
    for n in range(books):
        state, holding, report, observation = states[n], holdings[n], reports[n], observations[n]
        row = int(state[ROW]) + 1
        day = work[SCRATCH:] if drawn else days[row]
        if drawn:
            _gather(days, row, holding[COLUMN], day)
        if by_weight:
            aim(actions[n], holding[HELD], day[DECIDABLE], own[KAPPA], work)
        else:
            for a in range(count):
                work[WEIGHTS, a] = actions[n, a] - 1
        failure = trade(own, day, holding, state, report, work)
        if failure == 0 and drawn:
            failure = _equal_weight(parameters[1], day, holdings[books + n], states[books + n], reports[books + n], work)
        if failure > 0:
            return -(failure + KINDS * n)
        state[ROW] = row
        report[BASELINE] = reports[books + n, GROWTH] if drawn else day[EQUAL_GROWTH, 0]
        tone = _tone(own, blocks, row - 1, holding, drawn, pitch, work) if own[SENTIMENT_WEIGHT] > 0 else 0.0
        report[REWARD], report[ENDED] = _reward(own, state, report, tone), row >= state[LAST]
        over += int(report[ENDED])
        _observe(blocks, row, holding[COLUMN], drawn, pitch, observation)
        for a in range(count):
            observation[(a + 1) * pitch - 2] = holding[HELD, a]
        observation[count * pitch] = state[CASH] / state[VALUE]
    return over
