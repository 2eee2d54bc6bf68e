"""The layouts that a plan tells, made finer: uneven stages and other places, where these are faster.

The search proves its winner for layers dealt out evenly or by load and ranks in the usual place. The best few
layouts are then tried otherwise, exactly: the plan's first is no slower than the winner, and that other
splits and places are slower is not proved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.sim.errors import InfeasibleError, LayoutError
from ersatz.sim.plan.memory.peaks import stage_peaks
from ersatz.sim.plan.memory.verdict import judge
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.search.best import Found, Priced
from ersatz.sim.search.finer.places import best_place, place_keys
from ersatz.sim.search.finer.stages import moved
from ersatz.sim.search.least.bounds import Bounds
from ersatz.sim.search.pricing import VERDICTS, Price
from ersatz.sim.search.space import layout_of
from ersatz.sim.step.step import step_seconds

TRIED = 4  # layouts that are tried otherwise


@dataclass(frozen=True, slots=True)
class Chosen:
    """A layout of a plan: as it was found, and as it is best."""

    priced: Priced  # with layers and ranks as usual
    scenario: Scenario
    price: Price
    place: Mapping[str, Any]  # keys of `fabric` that are chosen

    @property
    def gains(self) -> float:
        """Share by which it is faster than as it was found."""
        return 1.0 - self.price.seconds / self.priced.price.seconds


@dataclass(slots=True)
class Exactly:
    """Prices layouts that are more than a row: memory stage by stage, and the step."""

    least: str
    timer: Timer = calibrated_time
    count: int = 0

    def __call__(self, scenario: Scenario) -> Price | None:
        """Return what a layout takes; None where its memory does not suffice or it cannot be run."""
        self.count += 1
        capacity = scenario.pools[0].node.device.memory_bytes
        try:
            peaks = [peak.total for peak in stage_peaks(scenario)]
            verdicts = [judge(peak, capacity)[0] for peak in peaks]
            worst = min(verdicts, key=VERDICTS.index)
            if VERDICTS.index(worst) < VERDICTS.index(self.least):
                return None
            return Price(max(peaks), worst, step_seconds(scenario, self.timer))
        except (InfeasibleError, LayoutError):
            return None


def finer(
    found: Found,
    bounds: Bounds,
    least: str,
    *,
    uneven: bool,
    given: frozenset[str] = frozenset(),
    few: int = TRIED,
) -> tuple[tuple[Chosen, ...], int]:
    """Return the layouts of a search as they are best, the fastest first, and how many more were timed.

    The first `few` are tried otherwise.
    `uneven`: the stack runs stages of different length; `given` are keys of `fabric` that stay as they are.
    """
    exact = Exactly(least)
    chosen = []
    for number, one in enumerate(found.plans):
        scenario, price = layout_of(found.scenario, one.row), one.price
        if number < few:
            if uneven:
                scenario, price = moved(scenario, one.row, bounds, price, exact)
            scenario, price = best_place(scenario, price, exact, given)
        chosen.append(Chosen(one, scenario, price, place_keys(scenario, found.scenario.fabric)))
    ranked = sorted(chosen, key=lambda one: (one.price.seconds, one.priced.row))
    return tuple(ranked), exact.count
