"""Small steps as a whole: what their kernels take together, beside what each takes alone.

A step that stays in the cache of a host is bound by calls. In a step these come one after the other
from the same few places, the backward pass without Python between: forward and backward passes take a
tenth less than the sum of their kernels, each run between others (`ersatz.sim.hil.sentinels`). So beside
the kernels of drawn steps a calibration trains drawn models whole; the ratios, one for each part of a
step, go with the kernels. None of them is a model of the proof.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ersatz.device_models.calibration.measured import Calibration, calibrated_timer
from ersatz.device_models.catalog.device import Device
from ersatz.device_models.kernels.kernel import Kernel, Timer
from ersatz.device_models.kernels.operations import PARTS, part_of_step
from ersatz.sim.hil.cached import cached_share
from ersatz.sim.hil.device.attached import Attached, dtype_of
from ersatz.sim.hil.proof.subjects import Subject, scenario_of, single_node
from ersatz.sim.hil.proof.transformer import Trained, training
from ersatz.sim.hil.shapes import small_steps
from ersatz.sim.step.step import step_seconds

WARM_UP, STEPS = 2, 12  # of each model in a turn
Parts = list[float]  # seconds of the parts of one step


def small_subjects(dtypes: Sequence[str], seed: int) -> list[Subject]:
    """Return the drawn models whose steps are run as a whole."""
    return [
        Subject(replace(shard.model, name=f"drawn {dtype} {number}"),
                max(round(shard.tokens) // shard.sequence, 1), shard.sequence, dtype)
        for dtype in dtypes
        for number, shard in enumerate(small_steps(dtype, seed))
    ]  # fmt: skip


@dataclass(slots=True)
class WholeSteps:
    """Drawn models on the attached device, ready to train."""

    attached: Attached
    subjects: Sequence[Subject]
    trained: list[Trained] = field(init=False)

    def __post_init__(self) -> None:
        self.trained = [
            training(s.model, s.batch, s.sequence, device=self.attached.device,
                     dtype=dtype_of(s.precision), pieces=self.attached.pieces)
            for s in self.subjects
        ]  # fmt: skip

    def turn(self) -> dict[str, list[Parts]]:
        """Train each model some steps in a row; returns the seconds of their parts, by model."""
        each = zip(self.subjects, self.trained, strict=True)
        return {subject.model.name: self._steps(one) for subject, one in each}

    def _steps(self, one: Trained) -> list[Parts]:
        for _ in range(WARM_UP):
            one.step()
        parts = one.forward, one.backward, one.update
        return [[self.attached.time_once(part)[0] for part in parts] for _ in range(STEPS)]


def with_ratios(
    calibration: Calibration, subjects: Sequence[Subject], samples: Mapping[str, Sequence[Parts]]
) -> Calibration:
    """Return a calibration that knows what small steps take as a whole, where any were run."""
    if calibration.small is None or not samples:
        return calibration
    found = ratios(calibration, subjects, samples)
    return replace(calibration, small=replace(calibration.small, together=found))


def ratios(
    calibration: Calibration, subjects: Sequence[Subject], samples: Mapping[str, Sequence[Parts]]
) -> dict[str, float]:
    """Return by part what steps took over the sum of their kernels: the median of the models.

    Of each model the tenth of the steps that was quickest counts, as of the kernels; models that do not
    stay in the cache do not count. Empty where none is left.
    """
    node = single_node(calibration)
    found: dict[str, list[float]] = {part: [] for part in PARTS}
    for subject in subjects:
        steps = samples.get(subject.model.name, ())
        case = scenario_of(subject, node, subject.precision)
        if not steps or cached_share(case, calibration) < 1.0:
            continue
        best = sorted(steps, key=math.fsum)[: max(len(steps) // 10, 1)]
        for part, taken in zip(PARTS, zip(*best, strict=True), strict=True):
            alone = step_seconds(case, _only(calibration, part))
            if alone > 0:
                found[part].append(statistics.fmean(taken) / alone)
    return {part: statistics.median(each) for part, each in found.items() if each}


def _only(calibration: Calibration, part: str) -> Timer:
    """Return a timer of the kernels of small steps for which all other parts of a step are free."""
    assert calibration.small is not None
    alone = calibrated_timer(calibration.small)

    def timer(device: Device, kernel: Kernel) -> float:
        return alone(device, kernel) if part_of_step(kernel) == part else 0.0

    return timer
