"""Where the time of a step goes: every second of every stage's compute stream has one cause.

The compute stream of a stage is busy with a kernel's category or a blocking collective's, or it
waits: for another stage ('bubble'), for the host ('launch'), for a collective that runs on a stream
of its own (that collective's category). The parts of a stage add up to the step's duration.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sim.step.program import COMPUTE, GATHER, INPUT, REDUCE, Program
from sim.step.vector import Array, Happening, VectorStep, alike, latest

Causes = dict[str, float]


@dataclass(slots=True)
class Ledger:
    """Collects the seconds of each stage by cause."""

    stages: list[Causes]
    clock: list[float] = field(default_factory=list)  # until when each stage is accounted for
    rest: str = "launch"  # cause of what neither work nor a dependency explains

    def __call__(self, seen: Happening) -> None:
        """Account for one op of a compute stream."""
        if seen.op.stream != COMPUTE:
            return
        causes, end = self.stages[seen.stage], _late(seen.end)
        free = self.clock[seen.stage]
        ready, cause = self._ready(seen, free)
        causes[cause] += ready - free
        device = float(np.max(seen.device))
        causes[self.rest] += end - ready - device
        slow = device - seen.op.device_s
        for work in seen.op.work:
            causes[work.category] += work.seconds
        if slow:
            causes["straggler"] += slow
        self.clock[seen.stage] = end

    @staticmethod
    def _ready(seen: Happening, free: float) -> tuple[float, str]:
        """When dependencies let the op start, and which of them was the last."""
        ready, cause = free, "bubble"
        for index in seen.op.after:
            other = seen.ends[index] if index >= 0 else seen.inputs[INPUT - index]
            if other is not None and _late(other) > ready:
                ready = _late(other)
                cause = seen.block.ops[index].work[-1].category if index >= 0 else "bubble"
        return ready, cause


def _late(times: Array) -> float:
    return float(times.max())


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Duration of a step and the seconds of each stage by cause."""

    duration_s: float
    by_stage: tuple[Mapping[str, float], ...]

    def mean(self) -> Mapping[str, float]:
        """Return the causes averaged over the stages, largest first."""
        total: Causes = defaultdict(float)
        for causes in self.by_stage:
            for cause, seconds in causes.items():
                total[cause] += seconds / len(self.by_stage)
        return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def explain_step(program: Program, slowness: Sequence[Array] | None = None) -> StepTimes:
    """Run a step at L2 and account for every second of it."""
    ledger = Ledger([defaultdict(float) for _ in range(program.stages)], [0.0] * program.stages)
    if slowness and any(array.size > 1 for array in slowness):
        ledger.rest = "straggler"  # waiting for the slowest member of a group
    step = VectorStep(program, slowness or alike(program), ledger)
    stages = step.run_body()
    barrier = latest(stages)
    for number, stage in enumerate(stages):
        own = max(_late(stage.free[GATHER]), _late(stage.free[REDUCE]), ledger.clock[number])
        ledger.stages[number]["data parallel"] += own - ledger.clock[number]
        ledger.stages[number]["bubble"] += barrier - own
        ledger.clock[number] = barrier
    duration = step.run_tails(stages, barrier)
    for number, causes in enumerate(ledger.stages):
        causes["bubble"] += duration - ledger.clock[number]
    return StepTimes(duration, tuple({k: v for k, v in c.items() if v} for c in ledger.stages))
