"""What every answer must keep, whatever was asked: checked before an answer is handed out.

An input can be refused and a plan can be infeasible; an answer that breaks one of these is a fault
of ersatz, and a number that cannot be true is worse than none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ersatz.sim.errors import BrokenAnswerError
from ersatz.sim.records import (
    CostResult,
    EnergyResult,
    JobResult,
    MemoryResult,
    PhaseResult,
    RunResult,
    StepResult,
)

SLACK = 1e-6  # relative, of sums and bounds: rounding is no fault


Floats = npt.NDArray[np.float64] | Sequence[float]


class Holds:
    """Collects what does not hold of one answer; `name` stands before each sentence."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.broken: list[str] = []

    def within(self, what: str, value: float, low: float = 0.0, high: float = math.inf) -> None:
        """Require a finite number from `low` to `high`, but for rounding."""
        room = self._room(low, high)
        if not (math.isfinite(value) and low - room <= value <= high + room):
            bounds = f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
            self._note(f"{what} is {value:.6g}; expected {bounds}")

    def _room(self, low: float, high: float) -> float:
        return SLACK * max(abs(b) for b in (low, high, 1.0) if math.isfinite(b))

    def above(self, what: str, value: float) -> None:
        """Require a finite number above zero."""
        if not (math.isfinite(value) and value > 0):
            self._note(f"{what} is {value:.6g}; expected a number above 0")

    def each(self, what: str, values: Floats, low: float = 0.0, high: float = math.inf) -> None:
        """Require the same of all values of an array; the first that breaks it is told."""
        flat = np.asarray(values, dtype=float).ravel()
        room = self._room(low, high)
        sound = np.isfinite(flat) & (flat >= low - room) & (flat <= high + room)
        for place in np.flatnonzero(~sound)[:1].tolist():
            self.within(f"{what}[{place}]", float(flat[place]), low, high)

    def sums(self, what: str, parts: Mapping[str, float], whole: float) -> None:
        """Require parts of at least zero that make up the whole."""
        total = math.fsum(parts.values())
        room = SLACK * max(abs(total), abs(whole))
        if not abs(total - whole) <= room:
            self._note(f"the parts of {what} make {total:.9g}, the whole is {whole:.9g}")
        for name, value in parts.items():
            if not value >= -room:
                self._note(f"{what}: {name} is {value:.6g}; expected at least 0")

    def ordered(self, what: str, *values: float) -> None:
        """Require numbers that do not fall, such as an interval around its value."""
        for low, high in pairwise(values):
            if not low <= high + SLACK * abs(high):
                said = ", ".join(f"{v:.6g}" for v in values)
                self._note(f"{what}: {said}; expected them in rising order")
                return

    def true(self, what: str, holds: bool) -> None:
        """Require a fact; `what` says what is the case where it does not hold."""
        if not holds:
            self._note(what)

    def _note(self, words: str) -> None:
        self.broken.append(f"{self.name}: {words}")

    def done(self) -> None:
        """Raise `BrokenAnswerError` if anything did not hold."""
        if self.broken:
            raise BrokenAnswerError(self.broken)


def check_run(result: RunResult, fastest_peak: float, weight_bytes: float) -> RunResult:
    """Return a run's result if it keeps the invariants, else raise `BrokenAnswerError`.

    `fastest_peak` is the highest matrix rate of all devices together in FLOP/s, in any format: more
    than that nobody computes. `weight_bytes` is what the weights take once: all devices together hold
    at least that.
    """
    holds = Holds(result.name)
    _check_step(holds, result.step, fastest_peak)
    _check_memory(holds, result.memory)
    holds.within("memory.peak_bytes of all devices",
                 result.memory.peak_bytes * result.step.devices, weight_bytes)  # fmt: skip
    if result.job:
        _check_job(holds, result.job)
    if result.job and result.phases:
        _check_phases(holds, result.phases, result.job)
    if result.energy:
        _check_energy(holds, result.energy)
    if result.cost:
        _check_cost(holds, result.cost)
    holds.done()
    return result


def _check_step(holds: Holds, step: StepResult, fastest_peak: float) -> None:
    for what in (
        "duration_s",
        "tokens",
        "tokens_per_s_per_device",
        "model_flop",
        "peak_flop_per_s",
    ):
        holds.above(f"step.{what}", getattr(step, what))
    most = max(fastest_peak / step.peak_flop_per_s, 1.0) if step.peak_flop_per_s > 0 else 1.0
    for what in ("mfu", "hfu"):  # the others count work that nobody does
        holds.within(f"step.{what}", getattr(step, what), 0.0, most)
    for what in ("mfu_noncausal", "mfu_6n"):
        holds.within(f"step.{what}", getattr(step, what))
    holds.within("step.bubble_fraction", step.bubble_fraction, 0.0, 1.0)
    holds.sums("step.breakdown", step.breakdown, step.duration_s)
    for stage, causes in enumerate(step.by_stage):
        holds.sums(f"step.by_stage[{stage}]", causes, step.duration_s)
    holds.ordered(
        "step.low80_s, duration_s, high80_s", 0.0, step.low80_s, step.duration_s, step.high80_s
    )
    holds.within("step.high80_s", step.high80_s)


def _check_memory(holds: Holds, memory: MemoryResult) -> None:
    holds.above("memory.peak_bytes", memory.peak_bytes)
    holds.above("memory.capacity_bytes", memory.capacity_bytes)
    holds.sums("memory", memory.parts, memory.peak_bytes)
    holds.each("memory.by_stage", memory.by_stage)  # of other devices a stage may hold more
    holds.true("memory.peak_bytes is that of no stage", memory.peak_bytes in memory.by_stage)
    holds.true("memory.fits does not agree with its bytes",
               memory.fits == (memory.peak_bytes <= memory.capacity_bytes))  # fmt: skip
    holds.within("memory.fit_probability", memory.fit_probability, 0.0, 1.0)
    holds.ordered("memory.allocated_bytes, reserved_bytes, peak_bytes", 0.0, memory.allocated_bytes,
                  memory.reserved_bytes, memory.peak_bytes)  # fmt: skip
    holds.true("memory.verdict contradicts memory.fits",
               {"fits": True, "does not fit": False}.get(memory.verdict, memory.fits)
               == memory.fits)  # fmt: skip


def _check_job(holds: Holds, job: JobResult) -> None:
    holds.above("job.wall_s", job.wall_s)
    holds.above("job.steps", job.steps)
    holds.within("job.goodput", job.goodput, 0.0, 1.0)
    holds.within("job.productive_s", job.productive_s, 0.0, job.wall_s)
    holds.sums("job.wall_s", {"productive": job.productive_s, **job.lost_s}, job.wall_s)
    holds.ordered("job.wall_low80_s, wall_high80_s", 0.0, job.wall_low80_s, job.wall_high80_s)
    holds.within("job.device_hours", job.device_hours)
    holds.sums("job.interruptions", job.interruptions_by_cause, job.interruptions)
    holds.above("job.checkpoint_interval_s", job.checkpoint_interval_s)


def _check_phases(holds: Holds, phases: Sequence[PhaseResult], job: JobResult) -> None:
    spent = {f"{i} {phase.name}": phase.productive_s for i, phase in enumerate(phases)}
    holds.sums("job.productive_s by phase", spent, job.productive_s)
    holds.true(
        "the phases have other steps than the job", sum(p.steps for p in phases) == job.steps
    )
    for phase in phases:
        holds.above(f"phases, {phase.name}: step_s", phase.step_s)
        holds.above(f"phases, {phase.name}: tokens", phase.tokens)


def _check_energy(holds: Holds, energy: EnergyResult) -> None:
    holds.within("energy.pue", energy.pue, 1.0)
    holds.within("energy.carbon_kg", energy.carbon_kg)
    holds.within("energy.mean_device_w", energy.mean_device_w)
    holds.sums("energy.kwh", energy.parts_kwh, energy.kwh)
    holds.within("energy.kwh", energy.kwh)


def _check_cost(holds: Holds, cost: CostResult) -> None:
    holds.sums("cost.total", cost.parts, cost.total)
    for what in ("total", "per_trillion_tokens", "per_device_hour"):
        holds.within(f"cost.{what}", getattr(cost, what))
