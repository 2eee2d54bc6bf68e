"""L1: each block as one max-plus matrix, exact when the ranks of a stage are alike.

A block turns the times at which its stage's streams, host and incoming messages are ready into
the times at which they are next ready: out[i] = max_j (M[i, j] + in[j]). M is found by running the
block once on the max-plus unit vectors; then a slot costs one small array operation, whatever the
number of its ops and ranks. With stragglers each stage goes as fast as its slowest rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import add, itemgetter

import numpy as np

from ersatz.sim.step.program import COMPUTE, STREAMS, Block, Op, Program
from ersatz.sim.step.vector import Array, Stage, VectorStep, alike

WIDTH = len(STREAMS)  # slot 0 of a state is the host's


def folded_step(program: Program, slowness: Sequence[float] | None = None) -> float:
    """Duration in seconds of one step; `slowness` is the slowest rank's factor per stage."""
    return folded_times(program, slowness)[1]


def folded_times(program: Program, slowness: Sequence[float] | None = None) -> tuple[float, float]:
    """Return when every gradient is there and when the step ends, in seconds from its start."""
    factors = [np.full((1, 1, 1, 1), f) for f in slowness] if slowness else alike(program)
    vector = VectorStep(program, factors, folds_ranks=True)
    state = folded_body(vector)
    barrier = max(float(times.max()) for times in state)
    end = max(
        float((transfer_matrix(vector, stage, tail, 0) + barrier).max())
        for stage, tail in enumerate(program.tails)
    )
    return barrier, end


Account = Callable[[int, object, float, float, float], None]


def folded_body(vector: VectorStep, account: Account | None = None) -> list[Array]:
    """Walk all slots; returns per stage when host and streams are free.

    `account` is told of every slot: stage, variant, when its compute stream was free, when its last
    message came (-inf: it has none), and when its compute stream is free again.
    """
    program = vector.program
    pace = [float(factor.max()) for factor in vector.slowness]
    known: dict[tuple[int, int, float], list[Row]] = {}  # equal blocks at equal pace share rows
    state = [[0.0] * WIDTH for _ in range(program.stages)]
    messages: dict[int, float] = {}
    for stage, variant, inputs, outputs in program.schedule.walk:
        block = program.blocks[stage, variant]
        key = id(block), len(inputs), pace[stage]
        rows = known.get(key)
        if rows is None:
            rows = known[key] = _rows(transfer_matrix(vector, stage, block, len(inputs)))
        ready = state[stage] + [messages.pop(message, -math.inf) for message in inputs]
        after = ready[:WIDTH] + [0.0] * len(block.sends)
        for row, columns, weights in rows:
            after[row] = max(map(add, columns(ready), weights))
        if account:
            arrived = max(ready[WIDTH:], default=-math.inf)
            account(stage, variant, ready[COMPUTE], arrived, after[COMPUTE])
        state[stage] = after[:WIDTH]
        for row, (_, part) in enumerate(block.sends):
            if outputs[part] >= 0:
                messages[outputs[part]] = after[WIDTH + row]
    return [np.array(times) for times in state]


# The number of a row, and its finite entries: what picks their columns, and their weights.
Row = tuple[int, Callable[[list[float]], tuple[float, ...]], tuple[float, ...]]


def _rows(matrix: Array) -> list[Row]:
    """Return the rows of M that change anything, each with its finite entries."""
    rows: list[Row] = []
    for number, weights in enumerate(matrix.tolist()):
        terms = [(column, w) for column, w in enumerate(weights) if w > -math.inf]
        if terms != [(number, 0.0)] or number >= WIDTH:
            terms += terms[:1] * (len(terms) == 1)  # of one column alone itemgetter makes no tuple
            columns, finite = zip(*terms, strict=True)
            rows.append((number, itemgetter(*columns), finite))
    return rows


def transfer_matrix(vector: VectorStep, number: int, block: Block, inputs: int) -> Array:
    """Return M of shape (WIDTH + sends, WIDTH + inputs): host and streams, then messages."""
    size = WIDTH + inputs
    unit = np.full((size, size, 1, 1, 1), -np.inf)
    unit[range(size), range(size)] = 0.0
    stage = Stage(list(unit[:WIDTH]), unit[0], -np.inf)
    factor = vector.slowness[number]
    if factor.size == 1 and factor.item() == 1.0:
        block = merged(block)
        vector.made.append(block)
    ends = vector.run_block(number, block, stage, list(unit[WIDTH:]) or [None])
    arrivals = (ends[index] + block.ops[index].flight_s for index, _ in block.sends)
    rows = [stage.host, *stage.free[1:], *arrivals]
    return np.stack([np.broadcast_to(row, unit.shape[1:]).reshape(size) for row in rows])


def merged(block: Block) -> Block:
    """Return a block with ops that follow one another on the compute stream as one, where ranks are alike.

    Started with the host at h and the device at d an op ends at max(d + device time, h + lead), a
    collective with a lead of launch and time; two of them in a row are such an op again. Ops that
    others wait for, and those at which the host waits, end a run.
    """
    needed = {index for op in block.ops for index in op.after if index >= 0}
    needed |= {index for index, _ in block.sends}
    ops: list[Op] = []
    where: dict[int, int] = {}
    run: list[Op] = []
    for index, op in enumerate(block.ops):
        follows = op.stream == COMPUTE and not op.after
        if run and not follows:
            ops.append(_one(run))
            run = []
        if op.stream == COMPUTE:
            run.append(op)
            where[index] = len(ops)
            if index in needed or op.host_waits:
                ops.append(_one(run))
                run = []
        else:
            where[index] = len(ops)
            ops.append(op)
    if run:
        ops.append(_one(run))
    placed = tuple(_placed(op, where) if any(a >= 0 for a in op.after) else op for op in ops)
    return Block(placed, tuple((where[index], part) for index, part in block.sends))


def _one(run: Sequence[Op]) -> Op:
    """Return ops in a row as one; it waits for what the first waits for, the host where the last does."""
    first, last = run[0], run[-1]
    if len(run) == 1:
        return first
    device = host = 0.0
    lead = -math.inf
    for op in run:
        own = op.host_s + op.device_s if op.sync else op.lead_s
        lead = max(lead + op.device_s, host + own)
        device += op.device_s
        host += op.host_s
    return Op("", COMPUTE, (), first.after, (), False, last.host_waits, device, host, lead,
              flight_s=last.flight_s)  # fmt: skip


def _placed(op: Op, where: Mapping[int, int]) -> Op:
    return replace(op, after=tuple(where[a] if a >= 0 else a for a in op.after))
