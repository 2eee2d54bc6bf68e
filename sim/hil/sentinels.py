"""Sentinels: kernels that run again and again, to tell how today's device differs from the calibration's.

A calibration is a photograph. What else runs on the machine, its clock and its temperature change,
and then every prediction errs to the same side. So a few kernels run at intervals while a calibration
is taken, and again, in the same way, beside the steps of the proof or before a run: the ratio of two
times of one procedure holds no bias of the procedure. Ratios are applied, one for products and
attention, one for all that moves bytes, where they are more than their own scatter, and reported.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ersatz.device_models.calibration.measured import IN_CACHE, Calibration, Point, kernel_key
from ersatz.device_models.catalog.device import DTYPE_BYTES, Device
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
PASSES = 16  # over each small step in a turn
TURNS, IN_A_ROW = 5, 2  # samples in a row after one that only warms, as a calibration takes them
PLACES = (0.5, 0.85)  # quantiles of an operation's times at which its sentinels stand
MOST_BYTES = 2.5e8  # of a sentinel's operands: all of them stay in the device's memory
FEWEST = 3  # sentinels of a class below which it is taken as unchanged
SURE = 2.0  # standard errors by which a ratio has to differ from 1
MEDIAN_ERROR = 1.2533 * 1.4826  # standard error of a median x sqrt(n), over the median deviation


Item = TypeVar("Item")


def class_of(kernel: Kernel) -> str:
    """Return the class of a kernel: what computes, or what moves bytes."""
    return "compute" if operation_of(kernel).startswith(COMPUTE) else "others"


@dataclass(frozen=True, slots=True)
class Pace:
    """Times of today over those of the calibration, by class."""

    ratios: dict[str, float]  # that are applied: 1 where a class has not changed for sure
    found: dict[str, float]  # as measured
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
            f"{self.sentinels} sentinel kernels took {self.found['compute']:.3f} (products, attention) and"
            f" {self.found['others']:.3f} (all others) times what they took in the calibration"
            f" (scatter {100 * self.scatter:.0f} %); {self._applied()}"
        )

    def _applied(self) -> str:
        sure = [name for name in CLASSES if self.ratios[name] != 1.0]
        if len(sure) == len(CLASSES):
            return "both are applied"
        return f"{sure[0]} is applied, the other is within its error" if sure else (
            "neither is applied: they are within their error")  # fmt: skip


@dataclass(slots=True)
class Sentinel:
    """One kernel of the calibration, ready to run again."""

    point: Point
    trial: Trial
    samples: list[float] = field(default_factory=list)

    @property
    def key(self) -> str:
        """What the calibration calls it."""
        return kernel_key(self.point.kernel)


@dataclass(slots=True)
class Watch:
    """Sentinels on the attached device; where `in_order`, they run one after another as in a step.

    Of `small` steps the passes that were disturbed least count: such steps are shorter than the times
    at which a host lets others run, and what these push out of its caches comes back slowly.
    """

    attached: Attached
    points: Sequence[Point]
    seed: int
    in_order: bool = False
    small: bool = False
    sentinels: list[Sentinel] = field(init=False)
    engine_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.engine_s = 0.0 if self.attached.asynchronous else engine_start(self.attached)
        ready = ((point, self._prepared(point.kernel)) for point in self.points)
        self.sentinels = [Sentinel(point, trial) for point, trial in ready if trial]

    def _prepared(self, kernel: Kernel) -> Trial | None:
        try:
            trial = prepare_trial(self.attached, kernel, self.seed)
            trial.run()
            return trial
        except (Unmeasurable, RuntimeError, MemoryError):
            return None

    def passes(self) -> dict[str, list[float]]:
        """Run each small step some times in a row, as in training; returns each sentinel's samples."""
        for step in steps_of(self.sentinels, lambda s: s.point.kernel):
            for _ in range(PASSES):
                for sentinel in step:
                    sentinel.samples.append(self._sample(sentinel))
        return {s.key: s.samples[-PASSES:] for s in self.sentinels}

    def turn(self) -> dict[str, float]:
        """Sample every sentinel, as the calibration did: its code warm, its cache alike."""
        for sentinel in self.sentinels:
            times = [self._sample(sentinel) for _ in range(1 if self.in_order else 1 + IN_A_ROW)]
            sentinel.samples += times[-IN_A_ROW:]
        return {s.key: statistics.fmean(s.samples[-IN_A_ROW:]) for s in self.sentinels}

    def _sample(self, sentinel: Sentinel) -> float:
        return sample_in_turn(
            self.attached, sentinel.trial, self.engine_s, emptied=not self.in_order
        )

    def pace(self, calibration: Calibration) -> Pace:
        """Return the ratios found so far."""
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in CLASSES}
        for s, seconds in self._seconds():
            then = time_then(calibration, s.point)
            found[class_of(s.point.kernel)].append((math.log(seconds / then), then))
        return pace_of(found)

    def _seconds(self) -> Iterator[tuple[Sentinel, float]]:
        """Yield the sentinels that have run, each with what it takes."""
        ran = [s for s in self.sentinels if s.samples]
        if not self.small:
            yield from ((s, statistics.median(s.samples)) for s in ran)
            return
        for step in steps_of(ran, lambda s: s.point.kernel):
            yield from zip(step, undisturbed([s.samples for s in step]), strict=True)


def watch_of(attached: Attached, calibration: Calibration) -> Watch:
    """Return the sentinels of a calibration: those that ran beside it, if any did.

    Own ops on a host were timed in the order of their step, and so are their sentinels.
    """
    origin, points = calibration.origin, calibration.points
    if origin.scope == IN_CACHE:
        return Watch(attached, points, origin.seed, in_order=True, small=True)
    if origin.scope and not attached.asynchronous:
        return Watch(attached, points, origin.seed, in_order=True)
    same = [p for p in points if kernel_key(p.kernel) in calibration.sentinels]
    return Watch(attached, same or chosen_points(points), origin.seed)


def steps_of(items: Iterable[Item], kernel: Callable[[Item], Kernel]) -> Iterator[list[Item]]:
    """Yield what belongs to each small step; its optimiser is its last kernel."""
    step: list[Item] = []
    for item in items:
        step.append(item)
        if operation_of(kernel(item)) == "optimizer":
            yield step
            step = []
    if step:
        yield step


def undisturbed(samples: Sequence[Sequence[float]]) -> list[float]:
    """Return what each kernel of a step takes, from its samples in passes over the whole step.

    The mean of the tenth of the passes that were quickest as a whole: were each kernel's own quickest
    samples taken, their sum were less than any step.
    """
    count = min(map(len, samples))
    order = sorted(range(count), key=lambda number: math.fsum(row[number] for row in samples))
    best = order[: max(count // 10, 1)]
    return [statistics.fmean(row[number] for number in best) for row in samples]


def time_then(calibration: Calibration, point: Point) -> float:
    """Return what a sentinel took in the calibration.

    As a sentinel, else by the fit, which has seen all hours of the calibration, else as measured
    once (own ops). A soak's share is in it: training had it, too.
    """
    kernel = point.kernel
    fit = calibration.fits.get((operation_of(kernel), kernel.dtype))
    alone = point.seconds
    if fit is not None and not calibration.origin.scope:
        alone = fit.seconds(kernel, calibration.machine)
    alone = calibration.sentinels.get(kernel_key(kernel), alone)
    return alone * calibration.slowdown(kernel)


def pace_of(found: Mapping[str, Sequence[tuple[float, float]]]) -> Pace:
    """Return the pace of (logarithm of ratio, seconds) by class; too few of a class change nothing.

    A sentinel counts by its seconds, as kernels do in a step: short ones are mostly noise. A class
    whose ratio is within `SURE` standard errors of 1 is taken as unchanged.
    """
    found = {name: found.get(name, ()) for name in CLASSES}
    middle = {k: _weighted_median(v) if len(v) >= FEWEST else 0.0 for k, v in found.items()}
    off = {k: [abs(x - middle[k]) for x, _ in values] for k, values in found.items()}
    sure = {k: _is_sure(middle[k], off[k]) for k in found}
    ratios = {k: math.exp(value) if sure[k] else 1.0 for k, value in middle.items()}
    every = [x for values in off.values() for x in values]
    return Pace(ratios, {k: math.exp(value) for k, value in middle.items()}, len(every),
                statistics.median(every) if every else 0.0)  # fmt: skip


def _is_sure(middle: float, off: Sequence[float]) -> bool:
    if not off:
        return False
    return abs(middle) > SURE * MEDIAN_ERROR * statistics.median(off) / math.sqrt(len(off))


def _weighted_median(values: Sequence[tuple[float, float]]) -> float:
    """Return where half of the weight lies below."""
    ordered = sorted(values)
    half = math.fsum(weight for _, weight in ordered) / 2
    reached = 0.0
    for value, weight in ordered:
        reached += weight
        if reached >= half:
            return value
    return 0.0


def chosen_points(points: Sequence[Point]) -> list[Point]:
    """Return points of every operation, of middle and long time.

    Not those that were steady when they were measured: quiet moments are fast ones, and sentinels
    chosen by them find every other day slow.
    """
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        if _operand_bytes(point.kernel) <= MOST_BYTES:
            groups.setdefault((operation_of(point.kernel), point.kernel.dtype), []).append(point)
    return [p for _, members in sorted(groups.items()) for p in _standing(members)]


def _standing(members: Sequence[Point]) -> list[Point]:
    ordered = sorted(members, key=lambda p: p.seconds)
    return list(dict.fromkeys(ordered[int(place * len(ordered))] for place in PLACES))


def _operand_bytes(kernel: Kernel) -> float:
    size = kernel.groups * (kernel.m * kernel.k + kernel.k * kernel.n + kernel.m * kernel.n)
    return max(kernel.nbytes, DTYPE_BYTES[kernel.dtype] * size if kernel.kind == "matmul" else 0.0)


def watched_pace(attached: Attached, calibration: Calibration, turns: int = TURNS) -> Pace:
    """Run the sentinels of a calibration now and return the pace."""
    watch = watch_of(attached, calibration)
    for _ in range(turns):
        watch.passes() if watch.small else watch.turn()
    return watch.pace(calibration)
