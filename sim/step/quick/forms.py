"""What is left of a block's matrix for the walk: a few constants, or the finite entries of its rows.

Streams that never pass the compute stream and never bind are dropped first, in all blocks at once.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ersatz.sim.step.program import COMPUTE, COPY, EXPERT, GATHER, HOST, PIPE, REDUCE
from ersatz.sim.step.quick.blocks import NEVER, WIDTH, Folded, Matrix

MESSAGE = WIDTH  # column of a block's first message
SIDE = (EXPERT, GATHER, REDUCE, COPY)  # streams that may be dropped


class Plain(NamedTuple):
    """A block with one message, as constants: with c and h the compute stream and the host,

    t = max(c, message);  c' = max(t + device, h + lead);  h' = h + host
    p' = max(t + before, p + link, h + lead_out);  the message arrives `flight` after p', or after c'
    where it holds the compute stream (`blocks`).
    """

    device: float
    lead: float
    host: float
    before: float
    link: float
    lead_out: float
    flight: float
    blocks: bool


Way = tuple[float, float, float, float, float]  # weights of host, compute, pipe and both messages


class Pair(NamedTuple):
    """A block of two passes that both send, as constants: every time is the latest of those before it.

    The compute stream's has no weight of the pipe's.
    """

    compute: tuple[float, float, float, float]  # of host, compute and both messages
    host: float
    pipe: Way
    first: Way  # when its first message arrives
    second: Way


Rows = list[tuple[int, list[tuple[int, float]]]]


class Sparse(NamedTuple):
    """Any other block: rows that change anything, and its messages, by finite entries."""

    rows: Rows
    sends: Rows


def dropped_streams(folded: Collection[Folded]) -> set[int]:
    """Return the side streams that never pass the compute stream and never bind, in all blocks."""

    def below(one: Folded, k: int) -> bool:
        m = one.matrix
        still = m[k, k] == 0.0 and int((m[k] > NEVER).sum()) == 1 and m[COMPUTE, COMPUTE] >= 0.0
        behind = still or bool((m[k] <= m[COMPUTE]).all())
        others = [row for i, row in enumerate(m) if i != k] + [row for _, row in one.sends]
        return behind and all(row[k] <= row[COMPUTE] for row in others)

    return {k for k in SIDE if all(below(one, k) for one in folded)}


def plain(one: Folded, dropped: set[int]) -> Plain | None:
    """Return the constants of a block, or None where it is not that simple."""
    m = one.matrix
    if one.inputs != 1 or len(one.sends) > 1:
        return None

    def columns(row: Matrix) -> set[int]:
        return {c for c in range(len(row)) if row[c] > NEVER and c not in dropped}

    still = [k for k in SIDE if k not in dropped]
    if any(columns(m[k]) != {k} or m[k, k] != 0.0 for k in still):
        return None
    compute = m[COMPUTE]
    if columns(m[HOST]) != {HOST} or not _joint(
        compute, columns(compute), {HOST, COMPUTE, MESSAGE}
    ):
        return None
    first = float(compute[COMPUTE]), float(compute[HOST]), float(m[HOST, HOST])
    quiet = columns(m[PIPE]) == {PIPE} and m[PIPE, PIPE] == 0.0
    if not one.sends:
        return Plain(*first, NEVER, 0.0, NEVER, 0.0, False) if quiet else None
    row = one.sends[0][1]
    if quiet and (flight := _shift(row, compute, columns(row) | columns(compute))) is not None:
        return Plain(*first, NEVER, 0.0, NEVER, flight, True)
    there = columns(row)
    flight = _shift(row, m[PIPE], there | columns(m[PIPE]))
    if flight is None or not _joint(row, there, {HOST, COMPUTE, PIPE, MESSAGE}):
        return None
    pipe = m[PIPE]
    return Plain(*first, float(pipe[COMPUTE]), float(pipe[PIPE]), float(pipe[HOST]), flight, False)


def pair(one: Folded, dropped: set[int]) -> Pair | None:
    """Return the constants of a block of two passes, or None where it is not that simple."""
    m, streams = one.matrix, (HOST, COMPUTE, PIPE, MESSAGE, MESSAGE + 1)
    if one.inputs != 2 or [part for part, _ in one.sends] != [0, 1]:
        return None

    def columns(row: Matrix) -> set[int]:
        return {c for c in range(len(row)) if row[c] > NEVER and c not in dropped}

    if any(columns(m[k]) != {k} or m[k, k] != 0.0 for k in SIDE if k not in dropped):
        return None
    rows = (m[PIPE], *(row for _, row in one.sends))
    alone, full = {*streams} - {PIPE}, {*streams}
    if (columns(m[HOST]), columns(m[COMPUTE])) != ({HOST}, alone) or any(
        columns(row) != full for row in rows
    ):
        return None
    host, compute, _, first, second = (float(m[COMPUTE, c]) for c in streams)
    ways = [tuple(float(row[c]) for c in streams) for row in rows]
    return Pair((host, compute, first, second), float(m[HOST, HOST]), *ways)  # type: ignore[arg-type]


def _joint(row: Matrix, found: set[int], allowed: set[int]) -> bool:
    """Tell whether a row has entries in allowed columns only, of message and compute stream alike."""
    return found <= allowed and row[MESSAGE] == row[COMPUTE]


def _shift(row: Matrix, base: Matrix, columns: set[int]) -> float | None:
    """Return by how much a row is later than another in all columns; None where that differs."""
    if any((row[c] > NEVER) != (base[c] > NEVER) for c in columns):
        return None
    shifts = {float(row[c] - base[c]) for c in columns}
    return shifts.pop() if len(shifts) == 1 else None


def sparse(one: Folded, dropped: set[int]) -> Sparse:
    def terms(row: Matrix) -> list[tuple[int, float]]:
        return [(c, w) for c, w in enumerate(row.tolist()) if w > NEVER and c not in dropped]

    rows = [(k, terms(row)) for k, row in enumerate(one.matrix) if k not in dropped]
    return Sparse([(k, found) for k, found in rows if found != [(k, 0.0)]],
                  [(part, terms(row)) for part, row in one.sends])  # fmt: skip
