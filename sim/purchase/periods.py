"""The grid of time that a plan is made on: months, cut where something begins or ends within one.

Within a period everything is shared out evenly: a machine that comes in its midst gives what is left
of it, a job has the whole period or nothing of it. Where a site's power is limited, machines count
from the first turn of a period after they stand, so that no moment of a period asks for more than
there is. Time is counted in months from the start.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CLOSE = 1e-6  # of a month: 2.6 seconds
MOST_PERIODS = 72  # of a plan whose months are cut for arrivals


def period_bounds(months: int, cuts: Iterable[float]) -> Floats:
    """Return the turns of the periods: those of the months, and the cuts within the plan.

    >>> period_bounds(2, [0.5, 1.0, 7.0]).tolist()
    [0.0, 0.5, 1.0, 2.0]
    """
    found = [float(t) for t in range(months + 1)]
    for cut in sorted(cuts):
        if 0 < cut < months and min(abs(cut - turn) for turn in found) > CLOSE:
            found.append(float(cut))
    return np.array(sorted(found))


def arrival_cuts(arrivals: Floats, months: int) -> list[float]:
    """Return where to cut the months so that arrivals (in months) count soon: at them, if they are few.

    Where they would make too many periods, the months are cut evenly instead.

    >>> arrival_cuts(np.array([0.5, 1.5, 2.0, 3.0]), 2)
    [0.5, 1.5]
    """
    parts = sorted({round(float(a) % 1.0, 6) for a in arrivals.ravel()} - {0.0, 1.0})
    most = max(MOST_PERIODS // months - 1, 0)
    if len(parts) > most:
        parts = [i / (most + 1) for i in range(1, most + 1)]
    return [t + part for part in parts for t in range(months)]


def next_turn(arrivals: Floats, bounds: Floats) -> Floats:
    """Return the first turn of a period at or after each arrival; infinite beyond the last."""
    later = np.append(bounds, np.inf)
    return np.asarray(later[np.searchsorted(bounds, arrivals - CLOSE)])


def given(
    arrivals: Floats, bounds: Floats, loss: Floats, counted: Floats | None = None
) -> Floats:  # fmt: skip
    """Return the node-months that a node gives in each period, (..., periods).

    `arrivals` are (...) months in which it comes, `counted` those from which it counts (the same by
    default), `loss` the share lost in a month, for good: by the exponential law from the arrival on.

    >>> given(np.array([0.25]), np.array([0.0, 1.0, 2.0]), np.array([0.0])).tolist()
    [[0.75, 1.0]]
    """
    start = arrivals if counted is None else counted
    turns = np.maximum(bounds, np.minimum(start, bounds[-1])[..., None])
    age = np.clip(turns - arrivals[..., None], 0.0, None)
    rate = np.broadcast_to(loss, arrivals.shape)[..., None]
    worn = -np.expm1(-rate * age) / np.where(rate > 0, rate, 1.0)
    return np.asarray(np.diff(np.where(rate > 0, worn, age), axis=-1))


def on_other_bounds(amounts: Floats, bounds: Floats, others: Floats) -> Floats:
    """Spread amounts (..., periods) evenly over other periods."""
    low = np.maximum(bounds[:-1, None], others[None, :-1])
    high = np.minimum(bounds[1:, None], others[None, 1:])
    shares = np.clip(high - low, 0.0, None) / np.diff(bounds)[:, None]
    return np.asarray(amounts @ shares)
