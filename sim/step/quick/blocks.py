"""Blocks as max-plus matrices, built from their layers: equal layers are one matrix, raised to a power.

A part of the model (a layer, the embedding, the head) turns the times at which the host and the streams
are free into the times at which they are next free: out[i] = max_j (M[i, j] + in[j]). One more register
holds when weights that were gathered ahead are there. Cutting an op between two kernels changes nothing,
so a block is the product of its parts' matrices. Times are whole ticks: max and + are exact in any
order, and the product equals the ops one by one (`ersatz.sim.step.folded`) to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ersatz.sim.plan.borders import Border
from ersatz.sim.plan.layout import Chunk
from ersatz.sim.step.assemble import Assembler
from ersatz.sim.step.build import BACKWARD, FORWARD, StageBuilder
from ersatz.sim.step.program import COMPUTE, HOST, INPUT, STREAMS, Op, overlap_blocks
from ersatz.sim.step.traffic.ahead import Ahead, Turn
from ersatz.sim.step.traffic.weights import Bucket, Part

Matrix = npt.NDArray[np.float64]
WIDTH = len(STREAMS)
READY = WIDTH  # the register: when weights gathered ahead are there
BEGUN, GATHERED = (
    -3,
    -4,
)  # `after` codes: when the part began to compute; when its weights are there
NEVER = -math.inf


def _unit(columns: int) -> Matrix:
    unit = np.full((WIDTH + 1, columns), NEVER)
    unit[range(WIDTH + 1), range(WIDTH + 1)] = 0.0
    return unit


UNIT = _unit(WIDTH + 1)


class Phase(NamedTuple):
    """One phase of a chunk: what goes in, at which edge of its chunk, and over which border it sends."""

    phase: str
    chunk: Chunk
    edge: str
    border: Border | None
    overlaps: bool = False  # it runs beside another


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """A block as a matrix: rows host and streams, columns the same and the incoming messages."""

    matrix: Matrix  # (WIDTH, WIDTH + inputs)
    sends: tuple[tuple[int, Matrix], ...]  # part of the slot, and the row of its message's arrival
    inputs: int


@dataclass(frozen=True, slots=True)
class _Pass:
    """A turn of a part with all that its matrix depends on."""

    turn: Turn
    part: Part
    edge: str
    again: bool
    reduced: tuple[tuple[Bucket, float], ...]
    started: bool  # others have computed before it in this block

    @property
    def key(self) -> Hashable:
        """Equal keys are equal matrices."""
        ahead = self.turn.ahead
        sent = (_moved(ahead.buckets), ahead.beside_s) if ahead else None
        reduced = tuple((*_moved([bucket]), beside) for bucket, beside in self.reduced)
        return (id(self.part), self.edge == "first", self.again, sent, self.turn.waits, reduced,
                self.started)  # fmt: skip


def _moved(buckets: Sequence[Bucket]) -> tuple[tuple[str, float, bool], ...]:
    return tuple((bucket.group, bucket.params, bucket.narrow) for bucket in buckets)


def product(later: Matrix, earlier: Matrix) -> Matrix:
    """Return the max-plus product: `earlier` comes first."""
    found: Matrix = (later[:, :, None] + earlier[None, :, :]).max(axis=1)
    return found


def power(squares: dict[int, Matrix], count: int) -> Matrix:
    """Return the `count`-th power of a matrix, `squares[1]`; keeps what it finds on the way."""
    if count not in squares:
        half = power(squares, count // 2)
        whole = product(half, half)
        squares[count] = product(squares[1], whole) if count % 2 else whole
    return squares[count]


def run_ops(ops: Sequence[Op], rows: list[Matrix], inputs: Sequence[Matrix] = ()) -> list[Matrix]:
    """Advance rows by ops, in place; returns the end of each.

    Without `inputs` an incoming message is taken to be in the compute stream's row already.
    """
    begun, gathered = rows[COMPUTE], rows[READY]
    ends: list[Matrix] = []
    for op in ops:
        time = rows[op.stream]
        for index in op.after:
            if index >= 0:
                other = ends[index]
            elif index == GATHERED:
                other = gathered
            else:
                other = inputs[INPUT - index] if inputs else begun
            if other is not time:
                time = np.maximum(time, other)
        host = rows[HOST]
        time = np.maximum(time + op.device_s, host + op.lead_s)
        rows[HOST] = host + op.host_s
        if op.host_waits:
            rows[HOST] = np.maximum(rows[HOST], time)
        rows[op.stream] = time
        ends.append(time)
    return ends


def fold(builder: StageBuilder, phases: Sequence[Phase]) -> Folded:
    """Return the block of a slot: one phase, or a forward and a backward that overlap."""
    if len(phases) == 1 and not builder.copies.there:
        return _by_parts(builder, phases[0]) or _by_ops(builder, phases)
    return _by_ops(builder, phases)


def _by_ops(builder: StageBuilder, phases: Sequence[Phase]) -> Folded:
    """Fold a block op by op."""
    blocks = [builder.phase_block(*phase) for phase in phases]
    block = blocks[0] if len(blocks) == 1 else overlap_blocks(*blocks)
    columns = WIDTH + len(phases)
    unit = np.full((columns, columns), NEVER)
    unit[range(columns), range(columns)] = 0.0
    rows = [*unit[:WIDTH], np.full(columns, NEVER)]
    ends = run_ops(block.ops, rows, list(unit[WIDTH:]))
    sends = tuple((part, ends[at] + block.ops[at].flight_s) for at, part in block.sends)
    return Folded(np.stack(rows[:WIDTH]), sends, len(phases))


def _by_parts(builder: StageBuilder, phase: Phase) -> Folded | None:
    """Fold a block part by part; None where a wait would have nothing to wait in."""
    sends = phase.phase != "W" and phase.border is not None
    alike = builder.classes[phase.chunk.position], builder.messages_overlap
    key = "inside", phase.phase, phase.edge, sends, *alike
    made = builder.bench.made
    if key not in made:
        made[key] = _inside(builder, phase)
    total: Matrix | None = made[key]
    if total is None:
        return None
    rows = list(total)
    found: tuple[tuple[int, Matrix], ...] = ()
    if sends and phase.border:
        make = Assembler(builder.times, phase=_way(phase))
        make.resume(BEGUN)
        ((index, part),) = builder.send(make, (0, phase.border))
        ends = run_ops(make.block().ops, rows)
        found = ((part, _without(ends[index] + make.ops[index].flight_s)),)
    return Folded(_without(np.stack(rows[:WIDTH])), found, 1)


def _way(phase: Phase) -> str:
    return "forward" if phase.phase == "F" else "backward"


def _inside(builder: StageBuilder, phase: Phase) -> Matrix | None:
    """Return the matrix of a block but for its message, whatever border that crosses."""
    runs = list(_runs(builder, phase))
    if not runs:
        return None
    total = _unit(WIDTH + 2)
    total[READY] = NEVER
    total[COMPUTE, WIDTH + 1] = 0.0  # the message
    if phase.phase != "W" and phase.border:
        make = Assembler(builder.times, phase=_way(phase))
        builder.receive(make)
        total = product(_matrix(make, None, []), total)
    first = _first(builder, phase)
    if first:
        make = Assembler(builder.times, phase=_way(phase))
        issued = builder.gather(make, first, None)
        total = product(_matrix(make, first, issued), total)
    for number, (one, count) in enumerate(runs, start=1):
        key = phase.phase, one.key
        squares = builder.bench.made.get(key)
        if squares is None:
            matrix = _turn(builder, phase, one, last=number == len(runs) and count == 1)
            if matrix is None:
                return None
            squares = builder.bench.made[key] = {1: matrix}
        total = product(power(squares, count), total)
    return total


def _without(rows: Matrix) -> Matrix:
    """Drop the register's column: no block begins with weights on their way."""
    return np.delete(rows, READY, axis=-1)


def _first(builder: StageBuilder, phase: Phase) -> Ahead | None:
    return _turns(builder, phase)[0]


def _turns(builder: StageBuilder, phase: Phase) -> tuple[Ahead | None, list[Turn]]:
    """Return the turns of a chunk's parts in one phase."""
    parts = builder.bench.parts_of(phase.chunk)
    order = range(len(parts)) if phase.phase == "F" else range(len(parts) - 1, -1, -1)
    if phase.phase == "F":
        gathers, way = builder.gathers_forward(phase.chunk, phase.edge), FORWARD
    else:
        gathers = [] if phase.phase == "W" else builder.gathers_backward(phase.chunk)
        way = BACKWARD
    return builder.turns(parts, order, gathers, way)


def _runs(builder: StageBuilder, phase: Phase) -> Iterator[tuple[_Pass, int]]:
    """Yield the passes of a chunk's parts, equal ones that follow one another counted."""
    for _, run in groupby(_passes(builder, phase), lambda one: one[0].key):
        alike = list(run)
        yield alike[0][0], sum(count for _, count in alike)


def _passes(builder: StageBuilder, phase: Phase) -> Iterator[tuple[_Pass, int]]:
    """Yield passes in order with counts: part by part only where weights travel beside them."""
    parts, chunk = builder.bench.parts_of(phase.chunk), phase.chunk
    edge = phase.edge if phase.phase == "F" else ""
    shift = bool(parts) and not parts[0].is_layer
    backward = phase.phase in "BI"
    sums = phase.phase in "BW" and builder.traffic.reduces_after(phase.edge)
    turns = _turns(builder, phase)[1]
    all_alike = not sums and not builder.scenario.parallel.recompute_layers
    if all_alike and not any(turn.waits for turn in turns):
        at = 0
        for _, same in groupby(turns, lambda turn: id(parts[turn.place])):
            count = len(list(same))
            part = parts[turns[at].place]
            for started, many in ((at > 0, 1), (True, count - 1)):
                if many:
                    yield _Pass(Turn(0, None, False), part, edge, backward, (), started), many
            at += count
        return
    for number, turn in enumerate(turns):
        found = builder.reduced_at(chunk, turn.place, phase.edge) if sums else []
        reduced = tuple((bucket, builder.reduced_beside(chunk, bucket)) for bucket in found)
        again = backward and builder.repeats(turn.place - shift)
        yield _Pass(turn._replace(place=0), parts[turn.place], edge, again, reduced, number > 0), 1


def _turn(builder: StageBuilder, phase: Phase, one: _Pass, *, last: bool) -> Matrix | None:
    """Return the matrix of one part in its turn; None where it computes nothing that could wait."""
    make = Assembler(builder.times, phase="forward" if phase.phase == "F" else "backward")
    make.resume(BEGUN)
    issued: list[int] = []
    if one.turn.ahead:
        issued = builder.gather(make, one.turn.ahead, BEGUN if one.started else None)
    if one.turn.waits:
        make.join(GATHERED)
    before = len(make.ops)
    if phase.phase == "F":
        builder.forward_part(make, one.part, one.edge)
    elif phase.phase != "W":
        builder.backward_part(make, one.part, again=one.again, whole=phase.phase == "B")
    if phase.phase in "BW":
        make.add(one.part.work.weight_grad)
    make.flush()
    idle = not any(op.stream == COMPUTE for op in make.ops[before:])
    dropped = last and builder.messages_overlap and not one.reduced  # a wait that nothing follows
    if (
        idle
        and not dropped
        and (one.reduced or one.turn.waits or one.turn.ahead or not one.started)
    ):
        return None
    for bucket, beside_s in one.reduced:
        builder.reduce(make, bucket, beside_s)
    return _matrix(make, one.turn.ahead, issued)


def _matrix(make: Assembler, ahead: Ahead | None, issued: Sequence[int]) -> Matrix:
    """Return the matrix of what was assembled; what was gathered ahead is in the register then."""
    rows = list(UNIT)
    ends = run_ops(make.block().ops, rows)
    if ahead:
        rows[READY] = np.full(WIDTH + 1, NEVER)
        for index in issued:
            rows[READY] = np.maximum(rows[READY], ends[index])
    return np.stack(rows)


def tail_seconds(builder: StageBuilder, held: Sequence[Chunk]) -> float:
    """Return how long the end of a step takes a stage that holds these chunks."""
    rows = [np.zeros(1)] * (WIDTH + 1)
    run_ops(builder.tail_block(held).ops, rows, [np.full(1, NEVER)])
    return max(float(row[0]) for row in rows[:WIDTH])
