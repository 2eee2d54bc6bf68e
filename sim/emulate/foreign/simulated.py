"""A simulated step as what each rank did: the same traces that a script's emulation leaves.

The step engine's program becomes, stage by stage, a tape of entries: kernels as the host launches them,
collectives with the ranks of their group, messages with sender, receiver and tag. A tape is that of
every rank of its stage; who is talked to is put in rank by rank.

Left out: slow ranks, and how long a message is on its way after its sender is free again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.sim.emulate.clock import HOST as HOST_STREAM
from ersatz.sim.emulate.clock import Clock, Entry
from ersatz.sim.emulate.foreign.step import facts_of
from ersatz.sim.emulate.trace import Ranks, Task, Trace, ranks_of
from ersatz.sim.emulate.virtual_device import host_defaults
from ersatz.sim.job.checkpoint import saved_params
from ersatz.sim.plan.layout import group_extents, rank_shape
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.scenario.scenario import Parallel, Scenario
from ersatz.sim.step.program import COMPUTE, HOST, INPUT, STREAMS, Block, Op, Program, Work
from ersatz.sim.step.step import job_programs

STREAM = {HOST: HOST_STREAM, COMPUTE: 0}  # as an emulation numbers them; others keep their number
# What the engine prices apart and other tools know by another name.
KINDS = {"send": "send", "node_limited_all_to_all": "all_to_all", "ring_shift": "all_gather"}
UNSAID = {
    "node_limited_all_to_all": "that an expert's tokens cross to a node once: their all-to-alls are plain",
    "ring_shift": "that keys and values go round a ring: they are gathered",
}


class Row(NamedTuple):
    """A distinct piece of work of a stage, before it is known who is talked to."""

    name: str
    work: Work | None  # none: the receipt of a message
    way: str = ""  # send, recv
    stage: int = -1  # at the other end of a message
    tag: int = 0  # of a message: its number from 1
    nbytes: float = 0.0  # of a message that is received


@dataclass(slots=True)
class Tape:
    """What every rank of a stage does, in the order of its host."""

    entries: list[Entry] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    numbers: dict[object, int] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)  # entry of each stream

    def add(self, stream: int, row: Row, after: Sequence[int] = (), host_s: float = 0.0) -> int:
        """Append an entry; returns its number."""
        key = row.name, id(row.work), row.way, row.stage, row.tag
        if key not in self.numbers:
            self.numbers[key] = len(self.rows)
            self.rows.append(row)
        return self._append(
            Entry(stream, self.numbers[key], tuple(sorted(set(after))), host_s, False)
        )

    def wait(self, after: Sequence[int]) -> None:
        """Let the host wait for entries."""
        if after:
            self._append(Entry(HOST_STREAM, -1, tuple(sorted(set(after))), 0.0, True))

    def drain(self) -> None:
        """Let the host wait for all streams."""
        self.wait([i for stream, i in self.last.items() if stream != HOST_STREAM])

    def _append(self, entry: Entry) -> int:
        self.entries.append(entry)
        self.last[entry.stream] = len(self.entries) - 1
        return len(self.entries) - 1


def simulated_traces(
    scenario: Scenario, ranks: Sequence[int] = (), timer: Timer = calibrated_time
) -> tuple[Trace, ...]:
    """Return what ranks of a job do over one step; by default every rank.

    Ranks are numbered as in a timeline: tp fastest, then cp, ep, dp, then the stage. Raises
    `ValueError` for a job whose replicas run on several kinds of device: each has a step of its own.
    """
    _, programs, _ = job_programs(scenario, timer)
    if len(programs) > 1:
        raise ValueError("replicas on several kinds of device have no step in common")
    (program,) = programs
    each = int(np.prod(rank_shape(scenario.parallel)))
    ranks = list(ranks) or list(range(each * program.stages))
    tapes = tapes_of(program, {rank // each for rank in ranks})
    memory = plan_memory(scenario, advise=False)
    held = (
        1 - memory.parts.get("fragmentation", 0.0) / memory.peak_bytes
    )  # by tensors and libraries
    facts = _facts(scenario)
    return tuple(
        _trace(
            tapes[rank // each], rank, each, scenario, memory.by_stage[rank // each], held, facts
        )
        for rank in ranks
    )


def count_entries(scenario: Scenario, timer: Timer = calibrated_time) -> int:
    """Return about how many entries all ranks have together, without making them."""
    _, programs, _ = job_programs(scenario, timer)
    return sum(
        sum(len(op.work) for op in program.blocks[v.stage, v.block].ops) * program.ranks
        // program.stages for program in programs for v in program.schedule.walk
    )  # fmt: skip


def unsaid_of(scenario: Scenario) -> tuple[str, ...]:
    """Return what traces of a scenario leave out, in words."""
    _, (program, *_), _ = job_programs(scenario, calibrated_time)
    blocks = [*program.blocks.values(), *program.tails]
    kinds = {
        w.sent.kind for block in blocks for op in block.ops for w in op.work if w.sent is not None
    }
    found = [UNSAID[kind] for kind in sorted(kinds & set(UNSAID))]
    if scenario.stragglers.ranks or scenario.stragglers.fraction:
        found.append("slow ranks: every device is taken to be as fast as its kind")
    return tuple(found)


def tapes_of(program: Program, stages: set[int]) -> dict[int, Tape]:
    """Walk the schedule once and return the tapes of some stages."""
    tapes = {stage: Tape() for stage in stages}
    receiver: dict[int, int] = {}
    sender: dict[int, tuple[int, float]] = {}  # the stage, and the bytes of the message
    for visit in program.schedule.walk:
        receiver.update({m: visit.stage for m in visit.inputs if m >= 0})
        block = program.blocks[visit.stage, visit.block]
        for index, part in block.sends:
            sent = block.ops[index].work[-1].sent
            if sent is not None and visit.outputs[part] >= 0:
                sender[visit.outputs[part]] = visit.stage, sent.nbytes
    for visit in program.schedule.walk:
        if visit.stage not in tapes:
            continue
        block = program.blocks[visit.stage, visit.block]
        messages = {index: visit.outputs[part] for index, part in block.sends}
        _play(tapes[visit.stage], block, visit.inputs, messages, sender, receiver)
    for stage, tape in tapes.items():
        tape.drain()
        _play(tape, program.tails[stage], (), {}, {}, {})
    return tapes


def _play(
    tape: Tape, block: Block, inputs: Sequence[int], sent: Mapping[int, int],
    sender: Mapping[int, tuple[int, float]], receiver: Mapping[int, int],
) -> None:  # fmt: skip
    """Append a block; a message is received on the compute stream, where it is first needed."""
    ends: list[int] = []
    came: dict[int, int] = {}
    for number, op in enumerate(block.ops):
        after = [ends[a] for a in op.after if a >= 0 and ends[a] >= 0]
        for message in (inputs[INPUT - a] for a in op.after if a < 0 and INPUT - a < len(inputs)):
            if message >= 0 and message in sender:
                if message not in came:
                    stage, nbytes = sender[message]
                    row = Row("recv", None, "recv", stage, message + 1, nbytes)
                    came[message] = tape.add(0, row)
                after.append(came[message])
        message = sent.get(number, -1)
        to = receiver.get(message, -1)
        ends.append(_append(tape, op, after, to, message + 1))
        if op.host_waits:
            tape.wait([ends[-1]])


def _append(tape: Tape, op: Op, after: Sequence[int], to: int, tag: int) -> int:
    """Append the work of an op; returns the entry with which it ends, -1 for an op without work."""
    stream, end = STREAM.get(op.stream, op.stream), max(after, default=-1)
    for work in op.work:
        name = work.kernel.name if work.kernel else op.name
        talks = work.sent is not None and work.sent.kind == "send" and to >= 0
        row = Row(name, work, "send" if talks else "", to if talks else -1, tag if talks else 0)
        end = tape.add(stream, row, after, work.launch_s)
        after = ()
    return end


def _trace(
    tape: Tape,
    rank: int,
    each: int,
    scenario: Scenario,
    peak: float,
    held: float,
    facts: Mapping[str, object],
) -> Trace:
    table = tuple(_task(row, rank, each, scenario.parallel) for row in tape.rows)
    clock = Clock()
    for entry in tape.entries:
        task = table[entry.work] if entry.work >= 0 else None
        clock.again(entry, task.seconds if task else 0.0, talks=bool(task and task.talks))
    memory = {"peak_allocated": held * peak, "peak_reserved": peak, "capacity": peak, "ooms": 0}
    names = {STREAM.get(i, i): name for i, name in enumerate(STREAMS)}
    return Trace(rank, table, tuple(tape.entries), (0, len(tape.entries)), (clock.drained,), names,
                 memory, facts)  # fmt: skip


def _task(row: Row, rank: int, each: int, parallel: Parallel) -> Task:
    """Return a piece of work of one rank."""
    index = rank % each
    peer = row.stage * each + index if row.stage >= 0 else -1
    pair = Ranks(min(rank, peer), abs(rank - peer) or 1, 2) if peer >= 0 else None
    if row.work is None:
        return Task("recv", "bubble", 0.0, None, "send", row.nbytes, pair, peer, tag=row.tag)
    work = row.work
    if work.kernel is not None:
        return Task(row.name, work.category, work.seconds, work.kernel)
    sent = work.sent
    if row.way and sent:
        return Task(
            "send", work.category, work.seconds, None, "send", sent.nbytes, pair, peer, tag=row.tag
        )
    if sent and sent.kind != "send":
        members = members_of(parallel, sent.name, rank // each, index, each)
        kind = KINDS.get(sent.kind, sent.kind)
        nbytes = sent.nbytes * sent.steps
        return Task(row.name, work.category, work.seconds, None, kind, nbytes, members)
    # Neither a kernel nor a collective: it keeps its time, as if it were a copy of so many bytes.
    nbytes = work.seconds * host_defaults().copy_bandwidth
    return Task(row.name, work.category, work.seconds, nbytes=nbytes)


def members_of(parallel: Parallel, name: str, stage: int, index: int, each: int) -> Ranks:
    """Return the ranks of a named group to which a rank belongs, `index` in its stage of `each`."""
    if name == "world":
        return Ranks(0, 1, each * parallel.pp)
    if name == "ends":
        return Ranks(index, each * max(parallel.pp - 1, 1), min(parallel.pp, 2))
    stride, size, twins = group_extents(parallel, parallel.dp)[name]
    first = index - index // stride % size * stride
    stages = sorted({stage, parallel.pp - 1 - stage}) if twins > 1 else [stage]
    return ranks_of([s * each + first + stride * i for s in stages for i in range(size)])


def _facts(scenario: Scenario) -> Mapping[str, object]:
    return {**facts_of(), "parameters": int(saved_params(scenario.model))}
