"""L4: the same program as SimPy processes, one per rank and stream: slow, plain, the reference.

Every kernel of every op is an event; a host process issues them ahead of the device. Nothing is
shared with the vector engine but the description of the program, so that their agreement to the
last bit means something. Kept for tests and for what depends on time in mid-step.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import simpy

from ersatz.sim.step.program import STREAMS, Block, Op, Program, Work, ticks
from ersatz.sim.step.vector import Array

Rank = tuple[int, ...]  # stage, tp, cp, ep, dp
Events = Generator[simpy.Event, Any, None]


@dataclass(slots=True, eq=False)
class Barrier:
    """Lets all members of a group go on at the moment when the last has arrived."""

    event: simpy.Event
    missing: int

    def arrive(self) -> simpy.Event:
        """Count one member in; returns the event at which all may go on."""
        self.missing -= 1
        if not self.missing:
            self.event.succeed()
        return self.event


@dataclass(slots=True, eq=False)
class RunningOp:
    """One op of one rank in the course of the step."""

    op: Op
    waits: list[simpy.Event]
    done: simpy.Event
    issued: list[simpy.Event]
    barrier: Barrier | None


@dataclass(slots=True, eq=False)
class OracleStep:
    """One step under SimPy; `slowness` as for the vector engine."""

    program: Program
    slowness: Sequence[Array]
    env: simpy.Environment = field(default_factory=simpy.Environment)
    barriers: dict[object, Barrier] = field(default_factory=dict)
    messages: dict[object, simpy.Event] = field(default_factory=dict)

    def run(self) -> float:
        """Return the duration of the step in seconds."""
        self._start({stage: list(self._body(stage)) for stage in range(self.program.stages)})
        self.env.run()
        tails = {s: [(t, (-1,), (-1,), ("tail",))] for s, t in enumerate(self.program.tails)}
        self._start(tails)
        self.env.run()
        return float(self.env.now)

    def _body(self, stage: int) -> Iterator[Any]:
        visits = [v for v in self.program.schedule.walk if v.stage == stage]
        for count, (_, variant, inputs, outputs) in enumerate(visits):
            yield self.program.blocks[stage, variant], inputs, outputs, ("body", count)

    def _start(self, work: Mapping[int, Sequence[Any]]) -> None:
        for stage, visits in work.items():
            for place in product(*(range(size) for size in self.program.shape)):
                rank = (stage, *place)
                ops = [op for visit in visits for op in self._unfold(rank, *visit)]
                self.env.process(self._host(ops))
                for stream in range(1, len(STREAMS)):
                    mine = [op for op in ops if op.op.stream == stream]
                    self.env.process(self._stream(rank, mine))

    def _unfold(
        self, rank: Rank, block: Block, inputs: Sequence[int], outputs: Sequence[int], key: object
    ) -> list[RunningOp]:
        running: list[RunningOp] = []
        for number, op in enumerate(block.ops):
            waits = [
                running[i].done if i >= 0 else self._message(rank, inputs[-1 - i])
                for i in op.after
                if i >= 0 or inputs[-1 - i] >= 0
            ]
            barrier = self._barrier(rank, op, (key, number)) if op.sync else None
            issued = [self.env.event() for _ in op.work]
            running.append(RunningOp(op, waits, self.env.event(), issued, barrier))
        for index, part in block.sends:
            if outputs[part] >= 0:
                message = self._message(rank, outputs[part])
                self._forward(running[index].done, message, block.ops[index].flight_s)
        return running

    def _message(self, rank: Rank, number: int) -> simpy.Event:
        return self.messages.setdefault((number, *rank[1:]), self.env.event())

    def _forward(self, source: simpy.Event, target: simpy.Event, flight_s: float) -> None:
        """Let a message arrive `flight_s` after its op has ended."""

        def travel() -> Events:
            yield source
            yield self.env.timeout(flight_s)
            target.succeed()

        self.env.process(travel())

    def _barrier(self, rank: Rank, op: Op, key: object) -> Barrier:
        shape = self.program.shape
        group = tuple(-1 if axis in op.sync else at for axis, at in enumerate(rank[1:]))
        members = int(np.prod([shape[axis] for axis in op.sync]))
        full = (rank[0], group, key)
        return self.barriers.setdefault(full, Barrier(self.env.event(), members))

    def _host(self, ops: Sequence[RunningOp]) -> Events:
        for running in ops:
            for work, issued in zip(running.op.work, running.issued, strict=True):
                yield self.env.timeout(work.launch_s)
                issued.succeed()
            if running.op.host_waits:
                yield running.done

    def _stream(self, rank: Rank, ops: Sequence[RunningOp]) -> Events:
        slowness = float(np.broadcast_to(self.slowness[rank[0]], self.program.shape)[rank[1:]])
        for running in ops:
            yield from running.waits
            factor = slowness if running.op.scales else 1.0
            for work, issued in zip(running.op.work, running.issued, strict=True):
                yield issued
                if running.barrier:
                    yield running.barrier.arrive()
                yield self.env.timeout(self.seconds_of(rank, work, factor))
            running.done.succeed()

    def seconds_of(self, rank: Rank, work: Work, factor: float) -> float:
        """Return how long a rank takes for one kernel or collective."""
        return work.seconds if factor == 1.0 else ticks(work.seconds * factor)


def oracle_step(program: Program, slowness: Sequence[Array]) -> float:
    """Duration in seconds of one step under SimPy (L4)."""
    return OracleStep(program, slowness).run()
