"""What a collective takes undisturbed, from samples taken on a host that others use, too.

Between hosts, and on accelerators, that is the lower decile of the wall time: what else runs delays a
message and never hastens it. On one host there is no wire: the processors of the members move every
byte. Where the wall times scatter, no long collective ever ran undisturbed (a scheduler lets others in
every few milliseconds), and the lower decile of long and of short ones are different things. Then it
is the time that the members' processors spent, all together, which the others do not lengthen, times
what the best tenth of all samples took by the wall for each second of it (near 1 where members hand
the work to one another, below where they work at once). Kernels of a CPU have the same clock.
"""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

BUSY = 0.5  # spread of a typical collective's wall times from which a host counts as busy

Case = TypeVar("Case", bound=Hashable)


class Sample(NamedTuple):
    """One collective once."""

    wall_s: float  # of the slowest member
    processors_s: float  # of all members together


@dataclass(frozen=True, slots=True)
class Clock:
    """How the samples of one span tell time."""

    of_processors: bool
    ratio: float = 1.0  # wall time / processors' time where nobody disturbs
    spread: float = 0.0  # of a typical collective's wall times

    def seconds(self, samples: Sequence[Sample]) -> float:
        """Return what a collective takes undisturbed."""
        if not self.of_processors:
            return undisturbed([s.wall_s for s in samples])
        return self.ratio * undisturbed([s.processors_s for s in samples])

    @property
    def words(self) -> str:
        """Return what a reader has to know of it; nothing of a clock on the wall."""
        if not self.of_processors:
            return ""
        return (
            f"the host was busy (wall times of a collective spread by {100 * self.spread:.0f} %):"
            f" processors' time of the members together x {self.ratio:.2f}, as in the best tenth"
        )


def clock_of(samples: Mapping[Case, Sequence[Sample]], one_host: bool) -> Clock:
    """Return the clock of a span; `one_host`: its members' processors move the bytes themselves."""
    measured = [some for some in samples.values() if some]
    if not one_host or not measured:
        return Clock(of_processors=False)
    spread = statistics.median(spread_of([s.wall_s for s in some]) for some in measured)
    if spread < BUSY:
        return Clock(of_processors=False, spread=spread)
    waits = [s.wall_s / s.processors_s for some in measured for s in some if s.processors_s > 0]
    return Clock(bool(waits), undisturbed(waits) if waits else 1.0, spread)


def undisturbed(times: Sequence[float]) -> float:
    """Return the lower decile."""
    return sorted(times)[len(times) // 10]


def spread_of(times: Sequence[float]) -> float:
    """Return (80th - 20th percentile) / median."""
    ordered, cut = sorted(times), len(times) // 5
    return (ordered[-1 - cut] - ordered[cut]) / statistics.median(ordered)
