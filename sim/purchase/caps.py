"""Caps that a rule counts over several devices together, as limits of the purchase problem.

A licence for "as much compute as 35,000 GB300" is one sum: what is bought of one device leaves less
for another. Each order counts with the weight of its devices (1, or their TPP) in the sum of the rule
under which it leaves, of its country or year where the rule says so. A cap of a single device without
either is its quota, and not repeated here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ersatz.sim.law.rule import Quota
from ersatz.sim.purchase.programme import Cap


class Counted(NamedTuple):
    """One order as a rule counts it: device, site and month, and where and when it leaves."""

    order: tuple[int, int, int]
    quota: Quota
    country: str
    year: int
    per_node: int


def shared_caps(orders: Iterable[Counted], shape: tuple[int, int, int]) -> tuple[Cap, ...]:
    """Return the caps over orders (devices, sites, months) of a shape, in the order of their names.

    >>> licence = Quota("R", 60.0, "TPP", 10.0)
    >>> two = [Counted((d, 0, 0), licence, "AE", 2026, 8) for d in (0, 1)]
    >>> [(cap.name, cap.weight.ravel().tolist(), cap.most) for cap in shared_caps(two, (2, 1, 1))]
    [('R', [80.0, 80.0], 60.0)]
    """
    weights: dict[tuple[str, float, str, int], np.ndarray] = {}
    devices: dict[tuple[str, float, str, int], set[int]] = {}
    for order, quota, country, year, per_node in orders:
        key = (quota.rule, quota.most, country if quota.per == "country" else "",
               year if quota.yearly else 0)  # fmt: skip
        weight = weights.setdefault(key, np.zeros(shape))
        weight[order] = max(weight[order], quota.weight * per_node)
        devices.setdefault(key, set()).add(order[0])
    return tuple(
        Cap(" ".join(str(word) for word in (rule, country, year or "") if word), weight, most)
        for (rule, most, country, year), weight in sorted(weights.items(), key=lambda pair: pair[0])
        if len(devices[rule, most, country, year]) > 1 or country or year
    )
