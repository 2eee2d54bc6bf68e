"""What one layout takes: memory first, then the exact step where it fits; each is told once.

A pricer may look its rows up, price them ahead in other processes, or both: what it answers for a row is
the same, so that a search takes the same decisions however it is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.sim.errors import InfeasibleError, LayoutError
from ersatz.sim.plan.memory.many import ManyPeaks
from ersatz.sim.plan.memory.verdict import judge
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.search.host.away import put_away
from ersatz.sim.search.space import HOST, layout_of
from ersatz.sim.step.step import step_seconds

Row = tuple[int, ...]
VERDICTS = ("does not fit", "tight", "fits")
NO_STEP = float("inf")


class Price(NamedTuple):
    """What a layout takes."""

    peak_bytes: float
    verdict: str  # of the memory: fits, tight, does not fit
    seconds: (
        float  # of a step; infinite where none can be made, or where the memory does not suffice
    )


AHEAD = 128  # rows of which workers are told at once


class Pricer(Protocol):
    """Prices rows of one scenario; rows that come soon may be told ahead."""

    @property
    def ahead(self) -> int:
        """How many rows it is to be told of at once."""

    def price(self, row: Row) -> Price:
        """Return what the layout of a row takes."""

    def expect(self, rows: Sequence[Row]) -> None:
        """Be told which rows come next, in order."""

    def close(self) -> None:
        """End what was begun ahead."""


def price_layout(
    scenario: Scenario, row: Row, least: str = "fits", timer: Timer = calibrated_time,
    peaks: ManyPeaks | None = None,
) -> Price:  # fmt: skip
    """Return what a layout takes; no step is timed where its memory is below the verdict `least`.

    Its peak is then that of the first stage that does not suffice: other stages may hold more.
    `peaks` keeps what layouts of the same scenario have in common.
    """
    case = layout_of(scenario, row)
    try:
        held = memory_of(peaks or ManyPeaks(case.pools[0]), case, least)
        suffices = VERDICTS.index(held.verdict) >= VERDICTS.index(least)
        return held._replace(seconds=step_seconds(case, timer)) if suffices else held
    except (InfeasibleError, LayoutError):
        return Price(NO_STEP, VERDICTS[0], NO_STEP)


def memory_of(peaks: ManyPeaks, case: Scenario, least: str) -> Price:
    """Return the memory of a layout's fullest stage, or of the first one that is below `least`."""
    capacity = peaks.pool.node.device.memory_bytes
    totals = peaks.of(case)
    fullest = max(totals)
    verdict, _ = judge(fullest, capacity)
    if VERDICTS.index(verdict) < VERDICTS.index(least):  # a stage with less may do so, too
        for total in totals:
            first, _ = judge(total, capacity)
            if VERDICTS.index(first) < VERDICTS.index(least):
                return Price(total, first, NO_STEP)
    return Price(fullest, verdict, NO_STEP)


@dataclass(slots=True)
class Watched:
    """Tells of every price that another pricer gives, in the order in which the search asks."""

    pricer: Pricer
    seen: Callable[[Price], None]

    @property
    def ahead(self) -> int:
        """How many rows the other is to be told of."""
        return self.pricer.ahead

    def price(self, row: Row) -> Price:
        """Return what the layout of a row takes."""
        found = self.pricer.price(row)
        self.seen(found)
        return found

    def expect(self, rows: Sequence[Row]) -> None:
        """Hand on which rows come next."""
        self.pricer.expect(rows)

    def close(self) -> None:
        """End what was begun ahead."""
        self.pricer.close()


@dataclass(slots=True)
class InPlace:
    """Prices rows one after the other in this process."""

    scenario: Scenario
    least: str = "fits"
    timer: Timer = calibrated_time
    ahead: int = 0
    _peaks: dict[int, ManyPeaks] = field(default_factory=dict)  # by what is on the host

    def price(self, row: Row) -> Price:
        """Return what the layout of a row takes."""
        way = row[HOST]
        if way not in self._peaks:
            self._peaks[way] = ManyPeaks(put_away(self.scenario, way).pools[0])
        return price_layout(self.scenario, row, self.least, self.timer, self._peaks[way])

    def expect(self, rows: Sequence[Row]) -> None:
        """Nothing is done ahead."""

    def close(self) -> None:
        """Nothing is open."""
