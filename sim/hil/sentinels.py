"""Sentinels: kernels of a calibration that run again, to tell how today's device differs from then.

A calibration is a photograph. What else runs on the machine, its clock and its temperature change,
and then every prediction errs to the same side. So a few kernels whose times are known run again,
beside the steps of the proof or before a run, and the ratio of their times is applied: one for
products and attention, one for all that moves bytes. It is reported, too: far from 1, calibrate anew.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ersatz.device_models.calibration.measured import Calibration, Point
from ersatz.device_models.catalog.device import Device
from ersatz.device_models.kernels.kernel import Kernel, Timer
from ersatz.device_models.kernels.operations import COMPUTE, operation_of
from ersatz.sim.hil.device.attached import Attached
from ersatz.sim.hil.device.measure import (
    Unmeasurable,
    engine_start,
    prepare_trial,
    sample_in_turn,
)
from ersatz.sim.hil.device.recipes import Trial

CLASSES = ("compute", "others")
TURNS, IN_A_ROW = 5, 2  # samples in a row after one that only warms, as a calibration takes them
PLACES = (0.5, 0.85)  # quantiles of an operation's times at which its sentinels stand
FEWEST = 3  # sentinels of a class below which it is taken as unchanged


def class_of(kernel: Kernel) -> str:
    """Return the class of a kernel: what computes, or what moves bytes."""
    return "compute" if operation_of(kernel).startswith(COMPUTE) else "others"


@dataclass(frozen=True, slots=True)
class Pace:
    """Times of today over those of the calibration, by class."""

    ratios: dict[str, float]
    sentinels: int
    scatter: float  # median |log| of single sentinels about their class

    def timer(self, timer: Timer, device_name: str) -> Timer:
        """Return the timer with the ratios applied to one device."""

        def paced(device: Device, kernel: Kernel) -> float:
            ratio = self.ratios[class_of(kernel)] if device.name == device_name else 1.0
            return timer(device, kernel) * ratio

        return paced

    def summary(self) -> str:
        """Say in one sentence what was found."""
        return (
            f"{self.sentinels} sentinel kernels took {self.ratios['compute']:.3f} (products, attention) and"
            f" {self.ratios['others']:.3f} (all others) times what they took in the calibration"
            f" (scatter {100 * self.scatter:.0f} %); both are applied"
        )


@dataclass(slots=True)
class Sentinel:
    """One kernel of the calibration, ready to run again."""

    point: Point
    trial: Trial
    samples: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Watch:
    """The sentinels of one calibration on the attached device."""

    attached: Attached
    calibration: Calibration
    sentinels: list[Sentinel] = field(init=False)
    engine_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.engine_s = 0.0 if self.attached.asynchronous else engine_start(self.attached)
        points = self.calibration.points
        self.sentinels = [
            Sentinel(point, trial)
            for point in (points if self.in_order else chosen_points(points))
            if (trial := self._prepared(point.kernel))
        ]

    @property
    def in_order(self) -> bool:
        """Own ops on a host were timed in the order of their step, and so are their sentinels."""
        return bool(self.calibration.origin.scope) and not self.attached.asynchronous

    def _prepared(self, kernel: Kernel) -> Trial | None:
        try:
            trial = prepare_trial(self.attached, kernel, self.calibration.origin.seed)
            trial.run()
            return trial
        except (Unmeasurable, RuntimeError, MemoryError):
            return None

    def turn(self) -> None:
        """Sample every sentinel once, as the calibration did: its code warm, its cache alike."""
        for sentinel in self.sentinels:
            times = [self._sample(sentinel) for _ in range(1 if self.in_order else 1 + IN_A_ROW)]
            sentinel.samples += times[-IN_A_ROW:]

    def _sample(self, sentinel: Sentinel) -> float:
        return sample_in_turn(
            self.attached, sentinel.trial, self.engine_s, emptied=not self.in_order
        )

    def pace(self) -> Pace:
        """Return the ratios found so far."""
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in CLASSES}
        for s in self.sentinels:
            if s.samples:
                then = s.point.seconds * self.calibration.slowdown(s.point.kernel)
                ratio = math.log(statistics.median(s.samples) / then)
                found[class_of(s.point.kernel)].append((ratio, then))
        return pace_of(found)


def pace_of(found: dict[str, list[tuple[float, float]]]) -> Pace:
    """Return the pace of (logarithm of ratio, seconds) by class; too few of a class change nothing.

    A sentinel counts by its seconds, as kernels do in a step: short ones are mostly noise.
    """
    middle = {k: _weighted_median(v) if len(v) >= FEWEST else 0.0 for k, v in found.items()}
    off = [abs(x - middle[k]) for k, values in found.items() for x, _ in values]
    ratios = {k: math.exp(value) for k, value in middle.items()}
    return Pace(ratios, len(off), statistics.median(off) if off else 0.0)


def _weighted_median(values: Sequence[tuple[float, float]]) -> float:
    """Return where half of the weight lies below; values with a like weight share the middle."""
    ordered = sorted(values)
    half = math.fsum(weight for _, weight in ordered) / 2
    reached = 0.0
    for value, weight in ordered:
        reached += weight
        if reached >= half:
            return value
    return 0.0


def chosen_points(points: Sequence[Point]) -> list[Point]:
    """Return points of every operation, short and long, that were steady when they were measured."""
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        groups.setdefault((operation_of(point.kernel), point.kernel.dtype), []).append(point)
    return [p for _, members in sorted(groups.items()) for p in _steady(members)]


def _steady(members: Iterable[Point]) -> list[Point]:
    calm = sorted(members, key=lambda p: p.spread)
    calm = sorted(calm[: max(len(calm) // 2, 1)], key=lambda p: p.seconds)
    return list(dict.fromkeys(calm[int(place * len(calm))] for place in PLACES))


def watched_pace(attached: Attached, calibration: Calibration, turns: int = TURNS) -> Pace:
    """Run the sentinels of a calibration now and return the pace."""
    watch = Watch(attached, calibration)
    for _ in range(turns):
        watch.turn()
    return watch.pace()
