"""The verdict on a peak: how far the model may be off, and what that leaves of the capacity.

Errors of stated peaks are taken as log-normal around the prediction; the spread is in
`device_models/data/memory.yaml`, from sources left out.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from ersatz.sim.plan.memory.facts import spread

SURE = 0.9  # a verdict is tight where neither it nor its contrary is that probable


def fit_probability(peak: float, capacity: float) -> float:
    """Return how probable it is that a predicted peak stays within the capacity; bytes."""
    return 0.5 * math.erfc(math.log(peak / capacity) / (spread() * math.sqrt(2)))


def room_for_sure(peak: float) -> float:
    """Return the bytes in which a predicted peak fits with the probability of a sure verdict."""
    return peak * math.exp(NormalDist().inv_cdf(SURE) * spread())


def judge(peak: float, capacity: float) -> tuple[str, float]:
    """Return the verdict (fits, tight, does not fit) and the probability that it fits."""
    probability = fit_probability(peak, capacity)
    if probability >= SURE:
        return "fits", probability
    return ("tight" if probability > 1 - SURE else "does not fit"), probability
