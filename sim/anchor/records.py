"""What an anchor found: the measured steps before and after, and what was moved."""

from __future__ import annotations

from dataclasses import dataclass

from ersatz.sim.records import column


@dataclass(frozen=True, slots=True)
class AnchoredRun:
    """One measured step beside its predictions."""

    name: str = column("the run")
    measured_s: float = column("measured step time", "s")
    before: float = column("predicted / measured - 1 with the stack as it was")
    after: float = column("predicted / measured - 1 with the anchored stack")
    weight: float = column("how much it counted, 0 to 1; below 0.25 the others contradict it")


@dataclass(frozen=True, slots=True)
class AnchoredFactor:
    """One of the five numbers that an anchor moves."""

    name: str = column("elementwise, host, contention, collectives or products")
    factor: float = column("by which the stack's numbers are multiplied")
    open_before: float = column("standard deviation of its logarithm before")
    open_after: float = column("standard deviation of its logarithm now")


@dataclass(frozen=True, slots=True)
class Anchored:
    """A stack that was moved to where measured steps are."""

    stack: str = column("the stack that was moved")
    device: str = column("the device that was measured")
    runs: tuple[AnchoredRun, ...] = column("the measured steps")
    factors: tuple[AnchoredFactor, ...] = column("what was moved")
    width_before: float = column("relative half width of the 80 % interval of such a step before")
    width_after: float = column("the same with the anchored stack: mean over the measured steps")
    left_out: tuple[str, ...] = column("rows that were not used, with the reason")
    text: str = column("the stack file")
