"""Where the time of a step goes: every second of every stage's compute stream has one cause.

The compute stream of a stage is busy with a kernel's category or a blocking collective's, or it
waits: for another stage ('bubble'), for the host ('launch'), for a collective that runs on a stream
of its own (that collective's category). The parts of a stage add up to the step's duration.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ersatz.sim.step.folded import folded_body
from ersatz.sim.step.program import COMPUTE, GATHER, INPUT, REDUCE, STREAMS, Block, Program
from ersatz.sim.step.vector import Array, Happening, Stage, VectorStep, alike, latest

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
        device = seen.device if isinstance(seen.device, float) else _late(seen.device)
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
    return times.item() if times.size == 1 else float(times.max())  # the first is far quicker


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Duration of a step and the seconds of each stage by cause."""

    duration_s: float
    by_stage: tuple[Mapping[str, float], ...]
    body_s: float  # when every gradient is there: what follows is the tail

    def mean(self) -> Mapping[str, float]:
        """Return the causes averaged over the stages, largest first."""
        total: Causes = defaultdict(float)
        for causes in self.by_stage:
            for cause, seconds in causes.items():
                total[cause] += seconds / len(self.by_stage)
        return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


# Hears of each slot in the order of the walk: its stage, its causes, when it begins and ends.
Told = Callable[[int, Causes, float, float], None]


def explain_folded(
    program: Program, told: Told | None = None, slow: Sequence[float] | None = None
) -> StepTimes:
    """Account for a step at L1, when all ranks are alike: exact duration, causes per block.

    A block's waits inside itself are those that it has on its own; what a slot takes beyond that
    is a bubble as far as its message came late, else the block's own kind of wait. `told` hears of
    every slot; the tails are told last. With `slow`, the slowest rank's factor per stage, the slots are
    where those ranks make them, and what they lose is not told from the blocks' own waits.
    """
    factors = [np.full((1, 1, 1, 1), f) for f in slow] if slow else alike(program)
    vector = VectorStep(program, factors, folds_ranks=True)
    stages: list[Causes] = [defaultdict(float) for _ in range(program.stages)]
    tallies: dict[tuple[int, object], Tally] = {}
    profiles: dict[int, Profile] = {}

    def account(number: int, variant: object, free: float, arrived: float, after: float) -> None:
        key = number, variant
        tally = tallies.get(key)
        if tally is None:
            block = program.blocks[number, variant]  # type: ignore[index]
            if id(block) not in profiles:  # stages share blocks of the same content
                profiles[id(block)] = Profile.of(program, number, block)
            tally = tallies[key] = Tally(profiles[id(block)])
        late = arrived - free
        tally.add(after - free, late if late > 0.0 else 0.0)
        if told:
            alone = Tally(tally.profile)
            alone.add(after - free, max(late, 0.0))
            told(number, alone.causes(), free, after)

    state = folded_body(vector, account)
    for (number, _), tally in tallies.items():
        _join(stages[number], tally.causes())
    barrier = max(float(times.max()) for times in state)
    for number, times in enumerate(state):
        own = float(max(times[GATHER], times[REDUCE], times[COMPUTE]))
        stages[number]["data parallel"] += own - float(times[COMPUTE])
        stages[number]["bubble"] += barrier - own
    ends = []
    for number, tail in enumerate(program.tails):
        profile = Profile.of(program, number, tail)
        after = Tally(profile)
        after.add(profile.seconds, 0.0)
        _join(stages[number], after.causes())
        ends.append(barrier + profile.seconds)
        if told:
            told(number, after.causes(), barrier, ends[-1])
    duration = max(barrier, *ends)
    for causes, end in zip(stages, ends, strict=True):
        causes["bubble"] += duration - end
    return StepTimes(duration, tuple({k: v for k, v in c.items() if v} for c in stages), barrier)


@dataclass(frozen=True, slots=True)
class Profile:
    """What one block does on its own, from a standing start."""

    seconds: float
    work: Causes
    waits: Causes
    worked: float  # seconds of all work
    waited: float  # ... and of all waits

    @classmethod
    def of(cls, program: Program, number: int, block: Block) -> Profile:
        """Run a block alone and account for it."""
        ledger = Ledger([defaultdict(float) for _ in range(program.stages)], [0.0] * program.stages)
        step = VectorStep(program, alike(program), ledger)
        zero = np.zeros((1, 1, 1, 1))
        step.run_block(number, block, Stage([zero] * len(STREAMS)), [None, None])
        work: Causes = defaultdict(float)
        for op in block.ops:
            for piece in op.work if op.stream == COMPUTE else ():
                work[piece.category] += piece.seconds
        causes = ledger.stages[number]
        waits = {c: s - work.get(c, 0.0) for c, s in causes.items() if s > work.get(c, 0.0)}
        return cls(ledger.clock[number], dict(work), waits, math.fsum(work.values()),
                   math.fsum(waits.values()))  # fmt: skip


@dataclass(slots=True)
class Tally:
    """Runs of a block: how many, and their seconds beyond its work."""

    profile: Profile
    runs: int = 0
    bubble: float = 0.0
    waited: float = 0.0

    def add(self, seconds: float, late: float) -> None:
        """Add a run that took `seconds`, of which it waited `late` for a message."""
        left = seconds - self.profile.worked
        bubble = late if late < left else left
        self.runs += 1
        self.bubble += bubble
        self.waited += left - bubble

    def causes(self) -> Causes:
        """Return where the time of all runs went."""
        profile, found = self.profile, defaultdict(float, bubble=self.bubble)
        for cause, spent in profile.work.items():
            found[cause] += self.runs * spent
        for cause, wait in profile.waits.items():
            found[cause] += self.waited * wait / profile.waited
        if not profile.waited:
            found["launch"] += self.waited
        return found


def _join(causes: Causes, more: Causes) -> None:
    for cause, seconds in more.items():
        causes[cause] += seconds


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
    parts = tuple({k: v for k, v in c.items() if v} for c in ledger.stages)
    return StepTimes(duration, parts, barrier)
