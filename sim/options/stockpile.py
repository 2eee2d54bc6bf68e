"""How many machines to buy ahead of a cut-off: a newsvendor in time, with its regret.

Machines are needed in every month. One bought now is kept until its month: interest, loss of value
and storage. One left to its month costs the price, and where the cut-off has come by then also what
going without costs (a dearer substitute, a smuggler). It pays to buy a month's need ahead while

    P(cut-off before the month) x shortage >= (interest + loss of value + storage) x price x wait

(`worth_buying`), which is what the least expected cost finds, too. Not modelled: limits of supply or
money, partial cut-offs, prices that answer to hoarding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ersatz.sim.purchase.periods import Floats


@dataclass(frozen=True, slots=True)
class Stockpile:
    """A need, and what it costs to meet it early, in time or not at all; money per node."""

    need: float  # nodes a month
    months: int
    price: float
    holding: float  # interest, loss of value and storage: share of the price per year
    shortage: float  # of a node that cannot be had
    hazard: float  # cut-offs per year, by the exponential law


@dataclass(frozen=True, slots=True)
class StockAnswer:
    """What to buy now, and how every choice fares against every date of the cut-off."""

    best: int  # months of need bought now
    nodes: float
    expected: Floats  # (months + 1,) cost by months bought now
    regret: Floats  # (choices, cut-offs): cost over that of the best choice for that cut-off
    cutoffs: tuple[int, ...]  # months; the last is never
    choices: tuple[int, ...]


def cut_off_before(stock: Stockpile, month: float) -> float:
    """Return the probability that the cut-off has come by a month."""
    return -math.expm1(-stock.hazard * month / 12.0)


def cost(stock: Stockpile, ahead: int, cutoff: float) -> float:
    """Return the money when `ahead` months of need are bought now and the cut-off comes then."""
    total = 0.0
    for month in range(stock.months):
        if month < ahead:
            total += stock.price * (1.0 + stock.holding * month / 12.0)
        else:
            total += stock.price + (stock.shortage if month >= cutoff else 0.0)
    return total * stock.need


def expected_cost(stock: Stockpile, ahead: int) -> float:
    """Return the expected money over the law of the cut-off."""
    total = 0.0
    for month in range(stock.months):
        early = stock.price * stock.holding * month / 12.0
        late = stock.shortage * cut_off_before(stock, month)
        total += stock.price + (early if month < ahead else late)
    return total * stock.need


def worth_buying(stock: Stockpile, month: int) -> bool:
    """Tell whether a month's need is worth buying now: the newsvendor's inequality."""
    wait = stock.holding * stock.price * month / 12.0
    return stock.shortage * cut_off_before(stock, month) >= wait


def answer_stockpile(
    stock: Stockpile, cutoffs: Sequence[int], choices: Sequence[int]
) -> StockAnswer:
    """Return the best number of months to buy now and the regret of some choices."""
    expected = np.array([expected_cost(stock, ahead) for ahead in range(stock.months + 1)])
    best = int(np.argmin(expected))
    columns = (*cutoffs, stock.months)
    rows = tuple(sorted({*choices, best}))
    table = np.array([[cost(stock, ahead, cutoff) for cutoff in columns] for ahead in rows])
    least = np.array([min(cost(stock, a, c) for a in range(stock.months + 1)) for c in columns])
    return StockAnswer(best, best * stock.need, expected, table - least, columns, rows)
