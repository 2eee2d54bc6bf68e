"""The in-order program that a step runs: ops in blocks, blocks in the order of a schedule.

The order of the slots is the schedule's (`ersatz.sim.plan.schedules`). An `Op`
occupies one stream of a rank. It starts when the previous op of its stream, the ops in
`after` and the host's launch allow; a collective also waits for all members of its group (the
`sync` axes) and ends for all of them together. A `Block` is the work of one phase of one model
chunk for one micro-batch, or of a forward and a backward that overlap.

All durations are whole multiples of `TICK`, so that sums are exact whatever their order: the
engines that run this program agree to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ersatz.device_models.kernels.kernel import Kernel
from ersatz.device_models.networks.collectives import Collective
from ersatz.device_models.networks.group import Group
from ersatz.sim.plan.schedules import Schedule, Variant

TICK = 2.0**-40  # s, about a picosecond: float64 adds such numbers exactly up to 8,192 s

HOST, COMPUTE, EXPERT, GATHER, REDUCE, PIPE, COPY = range(7)
STREAMS = ("host", "compute", "expert", "gather", "reduce", "pipe", "copy")
INPUT, INPUT_BACKWARD = -1, -2  # `after` codes: the block's incoming messages
TP, CP, EP, DP = range(4)  # the rank axes, tp fastest


def ticks(seconds: float) -> float:
    """Round a time to the clock's grid."""
    return round(seconds / TICK) * TICK


Uses = tuple[tuple[str, float], ...]  # kind of link (LINKS) and the share of it that is used
LINKS = ("up", "out", "in", "above")  # scale-up, cards outwards and inwards, above the leaves


class Sent(NamedTuple):
    """What a collective moves, as it was priced: bytes as `collective_time` counts them."""

    kind: str
    nbytes: float
    name: str  # of the communicator
    group: Group
    done: Collective  # one of them alone, all members there
    steps: int = 1  # messages that follow one another in one op


class Work(NamedTuple):
    """One kernel or collective inside an op, times on the grid."""

    launch_s: float  # host time before the device may start it
    seconds: float
    category: str
    kernel: Kernel | None = None  # what runs, for whoever really runs it
    phase: str = ""  # forward, recompute, backward, optimizer
    sent: Sent | None = None  # of a collective


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """Consecutive kernels of one stream, or one collective."""

    name: str
    stream: int
    work: tuple[Work, ...]
    after: tuple[int, ...] = ()
    sync: tuple[int, ...] = ()  # axes whose members wait for each other
    scales: bool = True  # a slow device stretches it
    host_waits: bool = False  # the host reads a result back before it goes on
    device_s: float = 0.0  # sum of the kernels
    host_s: float = 0.0  # sum of the launches
    lead_s: float = 0.0  # earliest end after the host starts to launch: max of prefix + suffix
    uses: Uses = ()  # of the stage's links, while it runs alone
    to: int = 0  # stages from here to where its message goes
    flight_s: float = 0.0  # that the message is on its way after the stream is free again


def make_op(
    name: str, stream: int, work: Sequence[Work], *, after: Sequence[int] = (),
    sync: Sequence[int] = (), scales: bool = True, host_waits: bool = False, uses: Uses = (),
    to: int = 0, flight_s: float = 0.0,
) -> Op:  # fmt: skip
    """Build an op and the max-plus summary of its kernels (`device_s`, `host_s`, `lead_s`)."""
    if sync and len(work) != 1:
        raise ValueError(f"collective {name} must be a single piece of work")
    device, host, lead = summarise(work, 1.0)
    return Op(name, stream, tuple(work), tuple(after), tuple(sync), scales, host_waits,
              device, host, lead, uses, to, ticks(flight_s))  # fmt: skip


def summarise(work: Sequence[Work], slowness: float) -> tuple[float, float, float]:
    """Return (device time, host time, lead) of kernels on a device `slowness` times slower.

    Kernel i may start once the host has launched it and kernel i-1 is done. Started with the host
    at h and the device at d, the last ends at max(d + device time, h + lead).
    """
    host = device = 0.0
    lead = 0.0
    for launch, seconds, *_ in work:
        seconds = seconds if slowness == 1.0 else ticks(seconds * slowness)
        host += launch
        device += seconds
        lead = max(lead, host) + seconds
    return device, host, lead


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Ops of a slot; `sends` are (op index, part of the slot) of its outgoing messages."""

    ops: tuple[Op, ...]
    sends: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """One step of all ranks: the schedule's stages x the rank axes (tp, cp, ep, dp)."""

    schedule: Schedule
    shape: tuple[int, int, int, int]
    blocks: Mapping[tuple[int, Variant], Block]  # by stage and variant
    tails: tuple[Block, ...]  # per stage: what follows once every gradient is there

    @property
    def stages(self) -> int:
        """Pipeline stages."""
        return self.schedule.stages

    @property
    def ranks(self) -> int:
        """Ranks of all stages."""
        tp, cp, ep, dp = self.shape
        return self.stages * tp * cp * ep * dp


def overlap_blocks(first: Block, second: Block) -> Block:
    """Interleave a forward and a backward block so that one computes while the other sends.

    Ops alternate by progress in device time; each keeps its own order and dependencies. The second
    block's incoming message becomes `INPUT_BACKWARD`.
    """
    merged: list[Op] = []
    where: tuple[dict[int, int], dict[int, int]] = ({}, {})
    cursor, progress = [0, 0], [0.0, 0.0]
    lists = (first.ops, second.ops)
    totals = [math.fsum(op.device_s for op in ops) or 1.0 for ops in lists]
    while cursor[0] < len(lists[0]) or cursor[1] < len(lists[1]):
        ahead = progress[0] / totals[0] > progress[1] / totals[1]
        side = int(ahead) if cursor[0] < len(lists[0]) and cursor[1] < len(lists[1]) else int(
            cursor[0] >= len(lists[0])
        )  # fmt: skip
        op = lists[side][cursor[side]]
        where[side][cursor[side]] = len(merged)
        merged.append(_shifted(op, where[side], INPUT_BACKWARD if side else INPUT))
        progress[side] += op.device_s
        cursor[side] += 1
    sends = [(where[side][i], side) for side in (0, 1) for i, _ in (first, second)[side].sends]
    return Block(tuple(merged), tuple(sends))


def _shifted(op: Op, where: Mapping[int, int], message: int) -> Op:
    after = tuple(message if a < 0 else where[a] for a in op.after)
    return replace(op, after=after)
