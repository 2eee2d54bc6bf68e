"""Own ops: exactly the distinct kernels of somebody's step, timed in seconds instead of minutes.

A general calibration draws kernels and fits laws to them; who has one step in mind needs only its
60 to 250 kernels. They are looked up as they were measured; nothing is fitted to them. On a host
they run in the order of the step, round after round: each finds the cache as the others have left
it (a small model's weights stay in it), and a disturbance meets all of them. On an accelerator,
which runs such steps from its memory, the cache is emptied.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial

from ersatz.device_models.calibration.measured import (
    Calibration,
    Origin,
    Point,
    holds_for,
    kernel_key,
)
from ersatz.device_models.catalog.device import Device
from ersatz.device_models.kernels.kernel import Kernel, calibrated_time
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.hil.benchmark import Progress, identity_of, refuse_impostor
from ersatz.sim.hil.device.attached import Attached
from ersatz.sim.hil.device.measure import (
    Unmeasurable,
    engine_start,
    measure_trial,
    prepare_trial,
    sample_in_turn,
)
from ersatz.sim.hil.device.recipes import Trial
from ersatz.sim.hil.fit import fit_calibration
from ersatz.sim.hil.proof.subjects import Subject
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.step import step_seconds

WARM_UP, ROUNDS = 2, 15


@dataclass(frozen=True, slots=True)
class OwnStep:
    """What a scenario asks of one device."""

    scenario: Scenario
    kernels: tuple[Kernel, ...]  # distinct ones that the device's measurements hold for
    fused: tuple[Kernel, ...]  # that the scenario's software fuses in its own way

    def subject(self) -> Subject | None:
        """Return the step as a model that really trains, one micro-batch of it; None beyond a device."""
        s = self.scenario
        if s.parallel.world > 1:
            return None
        t = s.training
        return Subject(s.model, t.micro_batch, t.sequence_length, t.precision)


def own_step(scenario: Scenario, device_name: str) -> OwnStep:
    """Return the distinct kernels of a step on a device; raises `InputError` when it is not in it."""
    stacks = {pool.node.device.name: pool.stack.name for pool in reversed(scenario.pools)}
    if device_name not in stacks:
        listed = ", ".join(stacks)
        expected = f"runs on {listed}; attached is {device_name}"
        raise InputError([Problem(scenario.name, 0, 0, "cluster.node", "", expected)])
    found: dict[str, Kernel] = {}

    def noting(device: Device, kernel: Kernel) -> float:
        if device.name == device_name:
            found.setdefault(kernel_key(kernel), kernel)
        return calibrated_time(device, kernel)

    step_seconds(scenario, noting)
    asked = tuple(found.values())
    held = tuple(k for k in asked if holds_for(k, stacks[device_name]))
    return OwnStep(scenario, held, tuple(k for k in asked if k not in held))


@dataclass(frozen=True, slots=True)
class Asked:
    """One of the kernels to be timed: what it is, and how it is made ready."""

    kernel: Kernel
    label: str
    make: Callable[[], Trial]  # raises `Unmeasurable`


Timed = list[tuple[Asked, Point]]


def measure_own(
    attached: Attached, asked: Sequence[Asked], progress: Progress | None = None
) -> tuple[Timed, list[str], float]:
    """Return (what was asked with its point, what cannot be measured and why, seconds spent)."""
    begun = time.monotonic()
    engine_s = engine_start(attached)
    found: Timed = []
    missing, ready = [], []
    for one in asked:
        if progress:
            progress(time.monotonic() - begun, one.label)
        try:
            trial = one.make()
            found.append((one, measure_trial(attached, one.kernel, trial, engine_s)))
            if not attached.asynchronous:  # accelerators empty their cache, and need the memory
                ready.append(trial)
        except Unmeasurable as reason:
            missing.append(str(reason))
    if len(ready) == len(found):
        points = _in_order(attached, [point for _, point in found], ready, engine_s)
        found = [(one, point) for (one, _), point in zip(found, points, strict=True)]
    return found, sorted(set(missing)), time.monotonic() - begun


def _in_order(
    attached: Attached, points: Sequence[Point], trials: Sequence[Trial], engine_s: float
) -> list[Point]:
    """Time the kernels again in the order of the step, each in the cache that the others left."""
    rounds = [
        [sample_in_turn(attached, trial, engine_s, emptied=False) for trial in trials]
        for _ in range(WARM_UP + ROUNDS)
    ]
    found = []
    for point, samples in zip(points, zip(*rounds[WARM_UP:], strict=True), strict=True):
        ordered = sorted(samples)
        middle = statistics.median(ordered)
        spread = (ordered[-1 - ROUNDS // 5] - ordered[ROUNDS // 5]) / middle
        found.append(replace(point, seconds=middle, spread=spread, samples=ROUNDS))
    return found


def calibrate_own(
    attached: Attached, device: Device, step: OwnStep, seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:  # fmt: skip
    """Return a calibration of the kernels of one step; raises `InputError` when none can be measured."""
    asked = [
        Asked(k, kernel_key(k), partial(prepare_trial, attached, k, seed)) for k in step.kernels
    ]
    found, missing, spent = measure_own(attached, asked, progress)
    points = [point for _, point in found]
    if not points:
        raise InputError([Problem(attached.hardware, 0, 0, "", "", f"measured nothing: {missing}")])
    refuse_impostor(attached, device, points)
    origin = origin_of_own(attached, seed, spent, f"{len(points)} kernels of {step.scenario.name}")
    fused = [f"{k.name}: the software fuses it in its own way" for k in step.fused]
    calibration, _ = fit_calibration(origin, device, points, [*missing, *sorted(set(fused))])
    return calibration


def origin_of_own(attached: Attached, seed: int, spent_s: float, scope: str) -> Origin:
    """Return the provenance of kernels that were timed for one step."""
    return Origin(**identity_of(attached, seed), clock=attached.clock, scope=scope,
                  date=date.today().isoformat(), measured_s=round(spent_s, 1))  # fmt: skip
