"""The step of N books in compiled code: what `policy.weights_from_scores` and `portfolio.step` do, one book after the other.

Promise: given weights, `trade` gives the bits that `portfolio.step` gives (sums are added in NumPy's order, nothing is reassociated);
`aim` differs from `weights_from_scores` by the last digit of exp alone. With limits, `trade` takes out the orders that `risk.check_batch`
would deny in a backtest. Serial: one call steps N = 1 as well as N = 4,096, writes what it computes into arrays of the caller and
allocates nothing that stays. This is the one module that imports numba.
Failure: no exception; the number of a row of `FAILURES` and the book that met it come back, and the caller raises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from trading_env.portfolio import FloatArray, Rules, Tape
from trading_env.risk import Limits

FAILURES = (
    "",
    "actions must be finite scores",
    "weights must lie in [0, 1]",
    "every position needs a finite price",
    "cash and quantities must stay at or above 0",
    "the book must be worth more than 0",
)
SCORE, _WEIGHT, _PRICE, _NEGATIVE, _WORTHLESS = 1, 2, 3, 4, 5
KINDS = len(FAILURES)

# Columns of a book's state: the row that it observes and its episode's last, dollars, and whether a breaker has latched
ROW, LAST, CASH, VALUE, PEAK, LATCHED = 0, 1, 2, 3, 4, 5
STATE = 6
# Rows of a book's holdings: shares, and share of equity at the close observed
QUANTITIES, HELD = 0, 1
HOLDINGS = 2
# Rows of what a step reports: dollars, buys and sells over equity, log growths, dollars, the reward, 1 where the episode ended
COSTS, DIVIDENDS, TURNOVER, GROWTH, BASELINE, WORTH, REWARD, ENDED = 0, 1, 2, 3, 4, 5, 6, 7
REPORT = 8
# Rows of a day: what the step into that row needs of the market
_OPENING, _CLOSING, _DECIDABLE, _TRADABLE, _SPLIT, _DIVIDEND, _VOLUME, _VOLATILITY, _EVENTFUL, _GROWTH = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
_DAY = 10
# Rows of scratch space: products to add up, weights, deltas, fill prices
TERMS, _WEIGHTS, DELTAS, _PAID = 0, 1, 2, 3
SCRATCH = 4
# The parameters; after them the columns in the order of their symbols, then 1 for each column that is restricted
_KEEP, _BAND, _MIN_NOTIONAL, _CREDIT, _FEE, _ADVERSE, _IMPACT, _SHARE, _WHOLE, _KAPPA, _PITCH, _SCALE = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
_LIMITED, _MAX_WEIGHT, _MAX_GROSS, _MAX_ORDER, _MAX_TURNOVER, _MAX_ORDERS, _MAX_DRAWDOWN, _MAX_LOSS = 12, 13, 14, 15, 16, 17, 18, 19
_PARAMETERS = 20
_ROUNDING = 1e-9  # as in risk.py

# NumPy's division, so that a loop need not test for zero; no fastmath, which would reorder sums
_compiled = njit(cache=True, error_model="numpy", nogil=True)


@dataclass(frozen=True)
class Program:
    """What does not change from step to step, in few arrays: each one that is passed costs a single environment a twentieth of its step.

    `parameters` of `Rules`, kappa, `Limits` and columns; `days` (T, 10, A): row t holds what the step from t - 1 into t reads.
    """

    parameters: FloatArray
    days: FloatArray

    @classmethod
    def of(
        cls,
        tape: Tape,
        *,
        symbols: tuple[str, ...],
        baseline: FloatArray,
        rules: Rules,
        kappa: float,
        scale: float,
        pitch: int,
        limits: Limits | None = None,
    ) -> Program:
        """`baseline` (T,) log growth of each row, `scale` of the reward, `pitch` columns an asset has in an observation. Without `limits`
        every plan is traded."""
        days = np.zeros((len(tape), _DAY, len(symbols)))
        days[:, _OPENING], days[:, _CLOSING] = tape.opening, tape.closing
        days[1:, _DECIDABLE], days[1:, _TRADABLE] = tape.decidable[:-1], tape.decidable[:-1] & tape.opens[1:]
        days[:, _SPLIT], days[:, _DIVIDEND], days[:, _VOLUME] = tape.split, tape.dividend, tape.volume
        days[1:, _VOLATILITY] = tape.volatility[:-1]
        days[:, _EVENTFUL] = ((tape.split != 1) | (tape.dividend != 0)).any(axis=1, keepdims=True)
        days[:, _GROWTH] = baseline[:, None]
        restricted = limits.restricted if limits is not None else ()
        columns = [*np.argsort(symbols, kind="stable"), *(symbol in restricted for symbol in symbols)]
        numbers = _numbers(rules, limits)
        numbers[_KAPPA], numbers[_SCALE], numbers[_PITCH] = kappa, scale, pitch
        return cls(np.concatenate([numbers, columns]), days)


def _numbers(rules: Rules, limits: Limits | None) -> FloatArray:
    values, costs = np.zeros(_PARAMETERS), rules.costs
    values[_KEEP], values[_BAND], values[_MIN_NOTIONAL] = 1 - rules.cash_buffer, rules.band, rules.min_notional
    values[_CREDIT], values[_WHOLE] = rules.credit_dividends, rules.whole_shares
    values[_FEE], values[_ADVERSE], values[_IMPACT], values[_SHARE] = costs.fee, costs.adverse, costs.impact, costs.max_volume_share
    if limits is not None:
        # A simulated order is sized at the last trade from a bar one session old: the price collar always holds, the age is checked here
        fresh = limits.max_bar_age_sessions >= 1
        values[_LIMITED], values[_MAX_WEIGHT], values[_MAX_GROSS] = 1, limits.max_weight, limits.max_gross
        values[_MAX_ORDER], values[_MAX_TURNOVER] = limits.max_order_notional, limits.max_turnover_per_day
        values[_MAX_ORDERS] = limits.max_orders_per_day if fresh else 0
        values[_MAX_DRAWDOWN], values[_MAX_LOSS] = limits.max_drawdown, limits.max_daily_loss
    return values


@_compiled
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


@_compiled
def _halves(x):  # type: ignore[no-untyped-def]
    """Sum of more: of halves, each a multiple of 8 long but the last, down to blocks."""
    # A stack, not recursion, which numba's cache cannot link; a count of 0 adds the two sums on top
    starts, counts, sums = np.empty(128, np.int64), np.empty(128, np.int64), np.empty(128)
    starts[0], counts[0], waiting, done = 0, x.shape[0], 1, 0
    while waiting > 0:
        waiting -= 1
        start, count = starts[waiting], counts[waiting]
        if count == 0:
            done -= 1
            sums[done - 1] += sums[done]
        elif count <= 128:
            sums[done] = _block(x[start : start + count])
            done += 1
        else:
            half = count // 2
            half -= half % 8
            counts[waiting] = 0
            starts[waiting + 1], counts[waiting + 1] = start + half, count - half
            starts[waiting + 2], counts[waiting + 2] = start, half
            waiting += 3
    return sums[0]


@_compiled
def _total(x):  # type: ignore[no-untyped-def]
    """Sum in the order of NumPy."""
    return _block(x) if x.shape[0] <= 128 else _halves(x)


@_compiled
def _worth(quantities, prices, terms):  # type: ignore[no-untyped-def]
    for a in range(quantities.shape[0]):
        terms[a] = 0.0 if quantities[a] == 0 else quantities[a] * prices[a]
    return _total(terms)


@_compiled
def _worth_of(deltas, side, prices, terms):  # type: ignore[no-untyped-def]
    """Worth of the buys (side 1) or the sells (side -1) among the deltas."""
    for a in range(deltas.shape[0]):
        shares = side * deltas[a]
        terms[a] = shares * prices[a] if shares > 0 else 0.0
    return _total(terms)


@_compiled
def _floor(shares):  # type: ignore[no-untyped-def]
    nearest = np.rint(shares * 1e9)
    return (nearest - (1.0 if nearest / 1e9 > shares else 0.0)) / 1e9


@_compiled
def aim(scores, held, decidable, kappa, weights, terms):  # type: ignore[no-untyped-def]
    """`policy.weights_from_scores` of one book into `weights`; every array (A,)."""
    count = scores.shape[0]
    total = _total(held)
    pace = kappa if total > 0 else 1.0
    whole = total if total > 0 else 1.0
    peak = -np.inf
    for a in range(count):
        peak = max(peak, scores[a] if decidable[a] > 0 else -np.inf)
    for a in range(count):
        weights[a] = held[a] / whole
        terms[a] = 0.0 if decidable[a] > 0 else weights[a]
    free = 1 - _total(terms)
    for a in range(count):
        terms[a] = math.exp(scores[a] - peak) if decidable[a] > 0 else 0.0
    mass = _total(terms)
    for a in range(count):
        moved = (1 - pace) * weights[a] + pace * (terms[a] / mass * free)
        weights[a] = moved if decidable[a] > 0 else weights[a]


@_compiled
def _plan(parameters, day, weights, quantities, equity, deltas):  # type: ignore[no-untyped-def]
    opening, tradable = day[_OPENING], day[_TRADABLE]
    keep, whole = parameters[_KEEP], parameters[_WHOLE] > 0
    least = max(parameters[_MIN_NOTIONAL], parameters[_BAND] * equity)
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
        deltas[a] = delta if tradable[a] > 0 and price > 0 and (weight == 0 or large) else 0.0


@_compiled
def _cap(parameters, day, deltas):  # type: ignore[no-untyped-def]
    for a in range(deltas.shape[0]):
        volume = day[_VOLUME, a]
        most = 0.0
        if volume > 0 and (parameters[_IMPACT] == 0 or np.isfinite(day[_VOLATILITY, a])):
            most = parameters[_SHARE] * volume
            most = np.floor(most) if parameters[_WHOLE] > 0 else _floor(most)
        deltas[a] = min(max(deltas[a], -most), most)


@_compiled
def _dollars(parameters, day, deltas, side, gross, work):  # type: ignore[no-untyped-def]
    """Dollars that one side moves: the bill of the buys (side 1), the proceeds of the sells (side -1), worth `gross` at sizing prices."""
    fee, adverse, impact = 1 + side * parameters[_FEE], 1 + side * parameters[_ADVERSE], parameters[_IMPACT]
    if impact == 0:
        return gross * (adverse * fee)
    paid = work[_PAID]
    for a in range(deltas.shape[0]):
        shares = side * deltas[a]
        paid[a] = 0.0
        if shares > 0:
            moved = impact * day[_VOLATILITY, a] * np.sqrt(shares / day[_VOLUME, a])
            paid[a] = day[_OPENING, a] * max(adverse + side * moved, 0.0)
    return _worth_of(deltas, side, paid, work[TERMS]) * fee


@_compiled
def _fill(parameters, day, deltas, cash, work):  # type: ignore[no-untyped-def]
    """`portfolio.fill` of one book: buys in `deltas` scaled to the cash; the cash after, and the costs."""
    opening, terms = day[_OPENING], work[TERMS]
    sold = _worth_of(deltas, -1.0, opening, terms)
    income = _dollars(parameters, day, deltas, -1.0, sold, work)
    cash += income
    bought = _worth_of(deltas, 1.0, opening, terms)
    spent = _dollars(parameters, day, deltas, 1.0, bought, work)
    available = max(cash, 0.0)
    if spent > available * (1 - 1e-12):
        factor = available * (1 - 2 * 1e-12) / spent
        for a in range(deltas.shape[0]):
            if deltas[a] > 0:
                scaled = deltas[a] * factor
                deltas[a] = np.floor(scaled) if parameters[_WHOLE] > 0 else _floor(scaled)
        bought = _worth_of(deltas, 1.0, opening, terms)
        spent = _dollars(parameters, day, deltas, 1.0, bought, work)
    return cash - spent, (sold - income) + (spent - bought)


@_compiled
def _review(parameters, day, quantities, equity, state, work):  # type: ignore[no-untyped-def]
    """Take out of the deltas what `risk.check_batch` denies, sells first, by symbol; how many that were. Latches the breakers."""
    opening, deltas = day[_OPENING], work[DELTAS]
    drawdown = 1 - equity / state[PEAK] if state[PEAK] > 0 else np.nan
    loss = 1 - equity / state[VALUE] if state[VALUE] > 0 else np.nan
    if not (drawdown <= parameters[_MAX_DRAWDOWN] and loss <= parameters[_MAX_LOSS]):
        state[LATCHED] = 1.0
    gross = _worth(quantities, opening, work[TERMS])
    traded, sent, denied = 0.0, 0, 0
    for side in (-1.0, 1.0):
        for place in range(deltas.shape[0]):
            a = int(parameters[_PARAMETERS + place])
            shares = side * deltas[a]
            if not shares > 0:
                continue
            notional = shares * opening[a]
            allowed = (
                notional <= parameters[_MAX_ORDER]
                and sent + 1 <= parameters[_MAX_ORDERS]
                and equity > 0
                and (traded + notional) / equity <= parameters[_MAX_TURNOVER]
            )
            if side < 0:
                allowed = allowed and shares <= quantities[a]
            else:
                held = 0.0 if quantities[a] == 0 else quantities[a] * opening[a]
                allowed = (
                    allowed
                    and state[LATCHED] == 0
                    and parameters[_PARAMETERS + deltas.shape[0] + a] == 0
                    and (held + notional) / equity <= parameters[_MAX_WEIGHT] + _ROUNDING
                    and (gross + notional) / equity <= parameters[_MAX_GROSS] + _ROUNDING
                )
            if allowed:
                traded += notional
                gross += side * notional
                sent += 1
            else:
                deltas[a] = 0.0
                denied += 1
    return denied


@_compiled
def _corporate_actions(parameters, day, quantities, work):  # type: ignore[no-untyped-def]
    """Dividends (dollars) on the quantities of the close, then their split; the worth of the fractions that it loses."""
    terms, paid = work[TERMS], 0.0
    if parameters[_CREDIT] > 0:
        paid = _worth(quantities, day[_DIVIDEND], terms)
    for a in range(quantities.shape[0]):
        ratio, before = day[_SPLIT, a], quantities[a]
        if ratio != 1:
            quantities[a] = np.floor(np.rint(before * 1e9) * ratio * (1 + 4 * 2.220446049250313e-16)) / 1e9
        lost = before * ratio - quantities[a]
        terms[a] = 0.0 if lost == 0 else lost * day[_OPENING, a]
    return paid, _total(terms)


@_compiled
def trade(parameters, day, weights, quantities, state, work, report):  # type: ignore[no-untyped-def]
    """`portfolio.step` of one book into the row `day` (10, A): `quantities` (A,), `state` (6,) and `report` (8,) change in place.

    Returns 0 or the number of a failure; `work` (4, A) then holds the executed deltas, and each name's worth at the close as its terms.
    """
    opening, terms, deltas = day[_OPENING], work[TERMS], work[DELTAS]
    count = weights.shape[0]
    for a in range(count):
        if not 0 <= weights[a] <= 1 + 1e-9:
            return _WEIGHT
    dividends, lost = 0.0, 0.0
    if day[_EVENTFUL, 0] > 0:
        dividends, lost = _corporate_actions(parameters, day, quantities, work)
    cash = state[CASH] + dividends
    equity = cash + _worth(quantities, opening, terms)
    if not np.isfinite(equity):
        return _PRICE
    _plan(parameters, day, weights, quantities, equity, deltas)
    if parameters[_SHARE] > 0:
        _cap(parameters, day, deltas)
    left, costs = _fill(parameters, day, deltas, cash, work)
    # Scaling what was scaled changes nothing, so the second fill is needed only where an order was taken out
    if parameters[_LIMITED] > 0 and _review(parameters, day, quantities, equity, state, work) > 0:
        left, costs = _fill(parameters, day, deltas, cash, work)
    for a in range(count):
        terms[a] = 0.0 if deltas[a] == 0 else abs(deltas[a]) * opening[a]
    report[TURNOVER] = _total(terms) / equity
    lowest = left
    for a in range(count):
        quantities[a] = np.rint((quantities[a] + deltas[a]) * 1e9) / 1e9
        lowest = min(lowest, quantities[a])
    if not lowest >= 0:
        return _NEGATIVE
    value = left + _worth(quantities, day[_CLOSING], terms)
    if not np.isfinite(value):
        return _PRICE
    if value <= 0:
        return _WORTHLESS
    report[COSTS], report[DIVIDENDS], report[WORTH] = costs + lost, dividends, value
    report[GROWTH] = math.log(value / state[VALUE])
    state[CASH], state[VALUE], state[PEAK] = left, value, max(state[PEAK], value)
    return 0


@_compiled
def advance(parameters, days, blocks, scores, holdings, states, reports, observations):  # type: ignore[no-untyped-def]
    """One session for N books: from their `scores` at the close that they observe to their `observations` at the next.

    scores (N, A) and observations (N, width) float32; holdings (N, 2, A), states (N, 6) and reports (8, N) float64; blocks (T, width)
    the observations of the market alone. The reward is that of `rewards.excess_log_growth`. Returns how many episodes ended, or
    -(failure + KINDS x book): the books behind that one are not stepped, and none is when a score is not finite.
    """
    books, count = scores.shape
    pitch = int(parameters[_PITCH])
    work, report = np.empty((SCRATCH, count)), np.empty(REPORT)
    over = 0
    for n in range(books):
        for a in range(count):
            if not np.isfinite(scores[n, a]):
                return -(SCORE + KINDS * n)
    for n in range(books):
        state, quantities, held = states[n], holdings[n, QUANTITIES], holdings[n, HELD]
        row = int(state[ROW]) + 1
        day = days[row]
        aim(scores[n], held, day[_DECIDABLE], parameters[_KAPPA], work[_WEIGHTS], work[TERMS])
        failure = trade(parameters, day, work[_WEIGHTS], quantities, state, work, report)
        if failure > 0:
            return -(failure + KINDS * n)
        state[ROW] = row
        report[BASELINE], report[ENDED] = day[_GROWTH, 0], row >= state[LAST]
        report[REWARD] = parameters[_SCALE] * (report[GROWTH] - report[BASELINE])
        over += int(report[ENDED])
        for k in range(REPORT):
            reports[k, n] = report[k]
        observation, block = observations[n], blocks[row]
        # Not observation[:] = block: the text of the error that it might raise takes numba a third of its time to compile
        for k in range(observation.shape[0]):
            observation[k] = block[k]
        for a in range(count):
            held[a] = work[TERMS, a] / state[VALUE]
            observation[(a + 1) * pitch - 2] = held[a]
        observation[count * pitch] = state[CASH] / state[VALUE]
    return over
