"""What the figures of every fleet run must keep; see `ersatz.sim.invariants`.

Whether a scheduler keeps the rules is another question (`ersatz.sim.fleet.judge.validate`): these are
faults of ersatz's own arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ersatz.sim.invariants import Holds

SHARES = ("allocated", "goodput", "late", "unfair", "jain")
FACTORS = ("slowdown", "bounded_slowdown")  # at least 1: a job takes no less than its run


def check_figures(name: str, metrics: Mapping[str, float]) -> None:
    """Check the figures of `DEFINITIONS`; NaN means that there is none. Raises `BrokenAnswerError`."""
    holds = Holds(name)
    for what, value in metrics.items():
        if not math.isnan(value):
            low, high = float(what in FACTORS), 1.0 if what in SHARES else math.inf
            holds.within(what, value, low, high)
    known = {what: value for what, value in metrics.items() if not math.isnan(value)}
    for quantity in ("wait", "jct"):
        rising = [known[k] for q in (50, 90, 99) if (k := f"{quantity}_p{q}_s") in known]
        holds.ordered(f"{quantity}_p50_s, p90, p99", *rising)
    holds.true("more jobs finished than were submitted", metrics["finished"] <= metrics["jobs"])
    holds.done()
