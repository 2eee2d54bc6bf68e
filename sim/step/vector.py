"""L2: one pass over the program in topological order, every op an array over its ranks.

Arrays have the axes (tp, cp, ep, dp) of the program's shape, or size 1 along an axis on which all
ranks agree. `ersatz.sim.step.folded` (L1) runs the same blocks on a max-plus basis instead of ranks, and
`ersatz.sim.step.oracle` (L4) is the independent check.

Not modelled: contention that depends on time (L3), faults in mid-step (L4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ersatz.sim.step.program import COMPUTE, INPUT, STREAMS, Block, Op, Program, summarise

Array = npt.NDArray[np.float64]
ONE = np.ones((1, 1, 1, 1))


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """The times of an op over the ranks: floats where all agree, arrays where they differ."""

    device: float | Array
    lead: float | Array
    shortest: float  # least device time
    longest_lead: float


@dataclass(slots=True, eq=False)
class Stage:
    """Mutable state of one stage: when each stream and the host are free."""

    free: list[Array]
    host: float | Array = 0.0
    floor: float = 0.0  # no rank's compute stream is free before this


@dataclass(frozen=True, slots=True, eq=False)
class Happening:
    """One op as it ran, for observers: arrays over the ranks."""

    stage: int
    block: Block
    op: Op
    free: Array  # when its stream was free
    end: Array
    device: float | Array
    ends: Sequence[Array]  # of the block's earlier ops
    inputs: Sequence[Array | None]


Observer = Callable[[Happening], None]


@dataclass(slots=True, eq=False)
class VectorStep:
    """One run of a program over arrays of ranks.

    `slowness[stage]` is the factor on device times, broadcastable to the program's shape.
    `observe` is told of every op; leave it out for speed.
    """

    program: Program
    slowness: Sequence[Array]
    observe: Observer | None = None
    folds_ranks: bool = False  # arrays do not hold ranks: collectives wait for nobody
    costs: dict[tuple[int, int], Costs] = field(default_factory=dict)
    made: list[Block] = field(default_factory=list)  # on the way: costs go by the identity of ops

    def run(self) -> float:
        """Return the duration of the step in seconds."""
        return self.times()[1]

    def times(self) -> tuple[float, float]:
        """Return when every gradient is there and when the step ends, in seconds from its start."""
        stages = self.run_body()
        barrier = latest(stages)
        return barrier, self.run_tails(stages, barrier)

    def run_body(self) -> list[Stage]:
        """Walk all slots from time zero; returns the state of each stage."""
        zero = np.zeros((1, 1, 1, 1))
        stages = [Stage([zero] * len(STREAMS)) for _ in range(self.program.stages)]
        messages: dict[int, Array] = {}
        blocks = self.program.blocks
        for number, variant, inputs, outputs in self.program.schedule.walk:
            block = blocks[number, variant]
            arrived = [messages.pop(message, None) for message in inputs]
            ends = self.run_block(number, block, stages[number], arrived)
            for index, part in block.sends:
                if outputs[part] >= 0:
                    messages[outputs[part]] = ends[index] + block.ops[index].flight_s
        return stages

    def run_tails(self, stages: Sequence[Stage], barrier: float) -> float:
        """Run what follows the barrier at which all gradients are complete."""
        for number, stage in enumerate(stages):
            stage.free = [np.full((1, 1, 1, 1), barrier)] * len(STREAMS)
            stage.host = stage.floor = barrier
            self.run_block(number, self.program.tails[number], stage, [None])
        return latest(stages)

    def run_block(
        self, number: int, block: Block, stage: Stage, inputs: Sequence[Array | None]
    ) -> list[Array]:
        """Advance one stage through one block; returns the end of each op."""
        free = stage.free
        ends: list[Array] = []
        for op in block.ops:
            time = free[op.stream]
            for index in op.after:
                other = ends[index] if index >= 0 else inputs[INPUT - index]
                if other is not None:
                    time = np.maximum(time, other)
            cost = self.costs.get((number, id(op))) or self._cost(number, op)
            if op.sync:
                time = self._collective(op, cost, stage, time)
            else:
                time = self._kernels(op, cost, stage, time)
            stage.host = stage.host + op.host_s
            if op.host_waits:
                stage.host = np.maximum(stage.host, time)
            if self.observe:
                seen = Happening(
                    number, block, op, free[op.stream], time, cost.device, ends, inputs
                )
                self.observe(seen)
            free[op.stream] = time
            ends.append(time)
        return ends

    def _collective(self, op: Op, cost: Costs, stage: Stage, time: Array) -> Array:
        launched = stage.host + op.host_s
        if op.stream != COMPUTE or not (type(launched) is float and launched <= stage.floor):
            time = np.maximum(time, launched)
        if not self.folds_ranks:
            axes = tuple([axis for axis in op.sync if time.shape[axis] > 1])
            if axes:
                time = np.maximum.reduce(time, axis=axes, keepdims=True)
        if op.stream == COMPUTE:
            stage.floor += cost.shortest
        return time + cost.device

    def _kernels(self, op: Op, cost: Costs, stage: Stage, time: Array) -> Array:
        host = stage.host
        time = time + cost.device
        if op.stream == COMPUTE:
            stage.floor += cost.shortest
            if type(host) is float and host + cost.longest_lead <= stage.floor:
                return time  # the host is far ahead on every rank
        return np.maximum(time, host + cost.lead)

    def _cost(self, number: int, op: Op) -> Costs:
        slowness = self.slowness[number]
        if not op.scales or (slowness.size == 1 and slowness.item() == 1.0):
            cost = Costs(op.device_s, op.lead_s, op.device_s, op.lead_s)
        else:
            factors, where = np.unique(slowness, return_inverse=True)
            rows = np.array([summarise(op.work, factor) for factor in factors.tolist()])
            device = rows[where.ravel(), 0].reshape(slowness.shape)
            lead = rows[where.ravel(), 2].reshape(slowness.shape)
            cost = Costs(device, lead, float(rows[:, 0].min()), float(rows[:, 2].max()))
        self.costs[number, id(op)] = cost
        return cost


def latest(stages: Sequence[Stage]) -> float:
    """Return when the last stream of the last rank is free."""
    return max(float(array.max()) for stage in stages for array in stage.free)


def alike(program: Program) -> list[Array]:
    """Return the slowness of devices that are all alike."""
    return [ONE] * program.stages


def vector_step(program: Program, slowness: Sequence[Array] | None = None) -> float:
    """Duration in seconds of one step, every op on every rank (L2)."""
    return VectorStep(program, slowness or alike(program)).run()
